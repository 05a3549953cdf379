// A wire between the browser and the hub that a test can cut and mend: cut, it stays connected and
// carries nothing, which is what a dead network looks like.
import { connect, createServer } from "node:net";

export function openWire(hub_url) {
  const { hostname, port } = new URL(hub_url);
  const sockets = new Set();
  let is_cut = false;
  const server = createServer((near) => {
    const far = connect(Number(port || 80), hostname);
    const pass = (to) => (bytes) => is_cut || to.write(bytes);
    near.on("data", pass(far));
    far.on("data", pass(near));
    for (const [one, other] of [[near, far], [far, near]]) {
      sockets.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  });
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      resolve({
        url: `http://127.0.0.1:${server.address().port}`,
        cut: () => (is_cut = true),
        mend: () => {
          is_cut = false;
          for (const socket of sockets) socket.destroy();
        },
        close: () => {
          for (const socket of sockets) socket.destroy();
          server.close();
        },
      });
    });
  });
}
