// The shared worker that holds the browser's one live stream. It only joins ports to `Sharing`.
import { LiveConnection } from "./connection";
import { Sharing, type FromTab } from "./sharing";

const SWEEP_MS = 30_000;

const sharing = new Sharing((handlers) => new LiveConnection(handlers));
const scope = self as unknown as { onconnect: ((event: MessageEvent) => void) | null };

scope.onconnect = (event) => {
  const port = event.ports[0];
  if (port === undefined) return;
  port.onmessage = (message: MessageEvent<FromTab>) => sharing.take(port, message.data);
  port.start();
};

setInterval(() => sharing.sweep(performance.now()), SWEEP_MS);
