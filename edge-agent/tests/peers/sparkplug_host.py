"""A Sparkplug B host by another hand: prints every message it decodes as a line of JSON, and asks for a rebirth, or says
its state, when told to on standard input. Arguments: port, host id."""
import json
import sys

import paho.mqtt.client as mqtt
from mqtt_spb_wrapper import SpbPayloadParser
from mqtt_spb_wrapper.spb_protobuf import getNodeDeathPayload, addMetric, MetricDataType

port, host = int(sys.argv[1]), sys.argv[2]


def on_connect(client, _userdata, _flags, _code):
    client.subscribe("spBv1.0/#", 1)
    print(json.dumps({"topic": "ready"}), flush=True)


def on_message(_client, _userdata, message):
    line = {"topic": message.topic, "qos": message.qos, "retain": bool(message.retain)}
    if "/STATE/" not in message.topic:
        line["payload"] = SpbPayloadParser(message.payload).as_dict()
    print(json.dumps(line, default=str), flush=True)


client = mqtt.Client(client_id="host")
client.on_connect = on_connect
client.on_message = on_message
client.connect("127.0.0.1", port)
client.loop_start()
for command in sys.stdin:
    word, *rest = command.split()
    if word == "rebirth":
        payload = getNodeDeathPayload()
        del payload.metrics[:]
        addMetric(payload, "Node Control/Rebirth", None, MetricDataType.Boolean, True)
        client.publish(rest[0], payload.SerializeToString(), 0)
    elif word == "state":
        state = {"online": rest[0] == "online", "timestamp": int(rest[1])}
        client.publish(f"spBv1.0/STATE/{host}", json.dumps(state), 1, retain=True)
