// An Eclipse Tahu edge node with one device: births, data, and the answer to a request for a birth.
const sparkplug = require('sparkplug-client');

const said = (what) => console.log(JSON.stringify({ what }));
const client = sparkplug.newClient({
  serverUrl: `mqtt://127.0.0.1:${process.env.MQTT_PORT}`,
  username: process.env.MQTT_USER,
  password: process.env.MQTT_PASSWORD,
  groupId: 'akron',
  edgeNode: 'tahu',
  clientId: process.env.DEVICE,
  version: 'spBv1.0',
});
const now = () => Date.now();
let births = 0;
client.on('error', (error) => {
  console.error(String(error));
  process.exit(1);
});
client.on('birth', () => {
  births += 1;
  client.publishNodeBirth({
    timestamp: now(),
    metrics: [
      { name: 'Node Control/Rebirth', type: 'Boolean', value: false, timestamp: now() },
      { name: 'uptime', type: 'Int32', value: 7, timestamp: now() },
    ],
  });
  client.publishDeviceBirth('oven', {
    timestamp: now(),
    metrics: [{ name: 'temperature', type: 'Double', value: 180, timestamp: now() }],
  });
  if (births > 1) {
    said('rebirth');
    client.publishDeviceData('oven', {
      timestamp: now(),
      metrics: [{ name: 'temperature', type: 'Double', value: 181.5, timestamp: now() + 1 }],
    });
    setTimeout(() => process.exit(0), 1500);
    return;
  }
  // A metric that no birth named: the host asks for a birth.
  setTimeout(() => {
    client.publishDeviceData('oven', {
      timestamp: now(),
      metrics: [{ name: 'never born', type: 'Double', value: 1, timestamp: now() }],
    });
  }, 300);
});
client.on('ncmd', (payload) => {
  if (payload.metrics.some((metric) => metric.name === 'Node Control/Rebirth' && metric.value)) {
    client.emit('birth');
  }
});
