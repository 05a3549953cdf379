"""Subscribes with QoS 1 and a session to be kept, and prints with which QoS each message comes, one JSON object a line."""
import json
import os
import queue

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

device = os.environ["DEVICE"]
state = "spBv1.0/STATE/foodflow"
said = queue.Queue()


def connect():
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv5)
    client.username_pw_set(os.environ["MQTT_USER"], os.environ["MQTT_PASSWORD"])
    client.on_connect = lambda _client, _data, flags, _reason, its: said.put(
        {"what": "connected", "session_present": flags.session_present, "expiry_s": its.SessionExpiryInterval}
    )
    client.on_subscribe = lambda *it: said.put({"what": "subscribed"})
    client.on_message = lambda _client, _data, message: said.put(
        {"what": message.topic, "qos": message.qos, "retain": bool(message.retain)}
    )
    kept = Properties(PacketTypes.CONNECT)
    kept.SessionExpiryInterval = 3600
    client.connect("127.0.0.1", int(os.environ["MQTT_PORT"]), clean_start=False, properties=kept)
    client.loop_start()
    return client


def until(what):
    while True:
        line = said.get(timeout=20)
        print(json.dumps(line))
        if line["what"] == what:
            return


for time in range(2):
    client = connect()
    until("connected")
    client.subscribe([(state, 1), (f"v1/err/{device}", 1), (f"v1/echo/{device}", 1)])
    until(state)
    # An echo comes at most ten times a second.
    if time == 0:
        client.publish("v1/devices/me/telemetry", json.dumps({"t": 21.5}), qos=1)
        until(f"v1/echo/{device}")
    client.disconnect()
    client.loop_stop()
client = connect()
until("connected")
client.subscribe(f"v1/err/{device}", 1)
until("subscribed")
client.publish("v1/devices/me/telemetry", "{temperature:25}", qos=1)
until(f"v1/err/{device}")
client.disconnect()
client.loop_stop()
