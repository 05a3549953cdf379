// Where this tab's live events come from: the browser's shared stream, or a stream of its own where
// shared workers are missing (Chrome on Android).
import { LiveConnection, type LiveHandlers } from "./connection";
import type { FromTab, ToTab } from "./sharing";

export interface Wanted {
  user: string;
  token: string;
  tags: readonly number[];
}

export interface LiveSource {
  open(wanted: Wanted): void;
  close(): void;
}

/** Well inside the worker's patience with a silent tab. */
const ALIVE_MS = 10_000;

class SharedSource implements LiveSource {
  private readonly port: MessagePort;
  private wanted: Wanted | null = null;
  private readonly timer: ReturnType<typeof setInterval>;

  constructor(worker: SharedWorker, handlers: LiveHandlers) {
    this.port = worker.port;
    this.port.onmessage = ({ data }: MessageEvent<ToTab>) => {
      if (data.kind === "event") handlers.onEvent(data.event);
      else handlers.onUnauthorized();
    };
    this.port.start();
    this.timer = setInterval(this.subscribe, ALIVE_MS);
    window.addEventListener("pagehide", this.leave);
    window.addEventListener("pageshow", this.subscribe);
  }

  open(wanted: Wanted): void {
    this.wanted = wanted;
    this.subscribe();
  }

  close(): void {
    this.wanted = null;
    this.leave();
    clearInterval(this.timer);
    window.removeEventListener("pagehide", this.leave);
    window.removeEventListener("pageshow", this.subscribe);
    this.port.onmessage = null;
    this.port.close();
  }

  private readonly subscribe = (): void => {
    if (this.wanted !== null) this.post({ kind: "subscribe", ...this.wanted });
  };

  private readonly leave = (): void => this.post({ kind: "leave" });

  private post(message: FromTab): void {
    this.port.postMessage(message);
  }
}

export function openSource(handlers: LiveHandlers): LiveSource {
  if (typeof SharedWorker === "undefined") return new LiveConnection(handlers);
  const worker = new SharedWorker(new URL("./live_worker.ts", import.meta.url), {
    type: "module",
    name: "foodflow-live",
  });
  return new SharedSource(worker, handlers);
}
