"""An edge node and a device of mqtt-spb-wrapper: births, one value, and an orderly end."""
import json
import os
import time

from mqtt_spb_wrapper import MqttSpbEntityDevice, MqttSpbEntityEdgeNode

login = (os.environ["MQTT_USER"], os.environ["MQTT_PASSWORD"])
address = ("127.0.0.1", int(os.environ["MQTT_PORT"]))


def connected(entity):
    assert entity.connect(address[0], address[1], *login), "not let in"
    for _ in range(200):
        if entity.is_connected():
            return entity
        time.sleep(0.05)
    raise SystemExit("not connected")


node = connected(MqttSpbEntityEdgeNode("akron", "spb", False))
node.data.set_value("uptime", 1)
node.publish_birth()
device = connected(MqttSpbEntityDevice("akron", "spb", "oven", False))
device.data.set_value("temperature", 72.0)
device.publish_birth()
time.sleep(0.5)
device.data.set_value("temperature", 72.5)
device.publish_data()
time.sleep(1)
print(json.dumps({"what": "done"}), flush=True)
os._exit(0)
