"""Publishes a good and a bad message with MQTT 5 and prints what comes back, one JSON object a line."""
import json
import os
import queue

import paho.mqtt.client as mqtt

said = queue.Queue()
device = os.environ["DEVICE"]


def published(client, userdata, mid, reason, properties):
    text = getattr(properties, "ReasonString", "")
    said.put(("ack", mid, reason.value, text))


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv5)
client.username_pw_set(os.environ["MQTT_USER"], os.environ["MQTT_PASSWORD"])
client.on_connect = lambda *it: said.put(("connected",))
client.on_subscribe = lambda *it: said.put(("subscribed",))
client.on_publish = published
client.on_message = lambda _client, _data, message: said.put(("message", json.loads(message.payload)))
client.connect("127.0.0.1", int(os.environ["MQTT_PORT"]))
client.loop_start()
assert said.get(timeout=20)[0] == "connected"
client.subscribe(f"v1/err/{device}", qos=1)
assert said.get(timeout=20)[0] == "subscribed"
good = client.publish("v1/devices/me/telemetry", json.dumps({"t": 21.5}), qos=1).mid
bad = client.publish("v1/devices/me/telemetry", "{temperature:25}", qos=1).mid
heard = set()
while heard != {"good", "bad", "error"}:
    what, *rest = said.get(timeout=20)
    if what == "ack":
        mid, reason, text = rest
        name = {good: "good", bad: "bad"}[mid]
        print(json.dumps({"what": name, "reason": reason, "text": text}))
        heard.add(name)
    elif what == "message":
        print(json.dumps({"what": "error", "said": rest[0]}))
        heard.add("error")
client.disconnect()
client.loop_stop()
