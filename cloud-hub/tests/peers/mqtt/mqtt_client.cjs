// Publishes ThingsBoard telemetry with MQTT 5 and prints the echo, one JSON object a line.
const mqtt = require('mqtt');

const device = process.env.DEVICE;
const client = mqtt.connect(`mqtt://127.0.0.1:${process.env.MQTT_PORT}`, {
  protocolVersion: 5,
  clientId: device,
  username: process.env.MQTT_USER,
  password: process.env.MQTT_PASSWORD,
  reconnectPeriod: 0,
});
const fail = (error) => {
  console.error(String(error));
  process.exit(1);
};
client.on('error', fail);
client.on('close', () => fail('closed'));
client.on('connect', () => {
  client.subscribe(`v1/echo/${device}`, { qos: 1 }, (error) => {
    if (error) fail(error);
    const payload = JSON.stringify({ ts: Date.now(), values: { t: 4.1, h: 80 } });
    client.publish('v1/devices/me/telemetry', payload, { qos: 1 }, (refused) => refused && fail(refused));
  });
});
client.on('message', (topic, payload) => {
  console.log(JSON.stringify({ what: 'echo', said: JSON.parse(payload) }));
  client.removeAllListeners('close');
  client.end(false, () => process.exit(0));
});
