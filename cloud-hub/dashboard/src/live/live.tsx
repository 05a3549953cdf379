// Joins the stream, the store and the query cache for the pages: one connection, one tick a second.
import { useQueryClient, type QueryClient } from "@tanstack/react-query";
import { useEffect, useSyncExternalStore } from "react";
import { STALE_AFTER } from "../api/queries";
import type { HeartbeatEvent, HelloEvent, SamplesEvent } from "../api/types";
import { endSession, readSession } from "../session";
import { LiveConnection } from "./connection";
import { scheduler } from "./scheduler";
import type { StreamEvent } from "./sse";
import { store } from "./store";

/** Events come in bursts (a deviation, its hold, its lots): one refetch serves them all. */
const REFETCH_DELAY_MS = 150;

class Refetcher {
  private readonly keys = new Map<string, readonly string[]>();
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly client: QueryClient) {}

  add(keys: readonly (readonly string[])[]): void {
    for (const key of keys) this.keys.set(key.join("/"), key);
    this.timer ??= setTimeout(() => this.flush(), REFETCH_DELAY_MS);
  }

  private flush(): void {
    this.timer = undefined;
    for (const queryKey of this.keys.values()) void this.client.invalidateQueries({ queryKey });
    this.keys.clear();
  }
}

function apply(event: StreamEvent, refetcher: Refetcher, connection: LiveConnection): void {
  const data: unknown = JSON.parse(event.data);
  switch (event.event) {
    case "hello":
      store.takeHello(data as HelloEvent);
      break;
    case "heartbeat":
      store.takeHeartbeat(data as HeartbeatEvent);
      break;
    case "samples":
      store.takeSamples(data as SamplesEvent);
      break;
    case "resync":
      connection.forgetCursor();
      store.dropBuffers();
      refetcher.add([...Object.values(STALE_AFTER).flat(), ["tags"]]);
      break;
    default:
      refetcher.add(STALE_AFTER[event.event] ?? []);
  }
}

/** Holds the stream open while the page is mounted. */
export function useLiveStream(tags: readonly number[] | null): void {
  const client = useQueryClient();
  useEffect(() => {
    const refetcher = new Refetcher(client);
    const connection: LiveConnection = new LiveConnection({
      onEvent: (event) => apply(event, refetcher, connection),
      onUnauthorized: endSession,
    });
    holder.connection = connection;
    holder.apply();
    return () => {
      connection.close();
      holder.connection = null;
    };
  }, [client]);
  const wanted = tags === null ? null : tags.join();
  useEffect(() => {
    holder.tags = wanted === null ? null : wanted === "" ? [] : wanted.split(",").map(Number);
    holder.apply();
  }, [wanted]);
}

const holder = {
  connection: null as LiveConnection | null,
  tags: null as number[] | null,
  apply(): void {
    const session = readSession();
    if (this.connection === null || this.tags === null || session === null) return;
    this.connection.open({ token: session.token, tags: this.tags });
  },
};

// --- one tick for all live text --------------------------------------------------------------

let tick = 0;
const tick_listeners = new Set<() => void>();

function startTicking(): void {
  const drawing = scheduler.register(() => {
    tick += 1;
    for (const listener of tick_listeners) listener();
  });
  store.subscribe(() => drawing.markDirty());
  // Ages grow without messages: the words must turn stale when nothing comes.
  setInterval(() => store.touch(), 1_000);
}

let isTicking = false;

function subscribeTick(listener: () => void): () => void {
  if (!isTicking) {
    isTicking = true;
    startTicking();
  }
  tick_listeners.add(listener);
  return () => tick_listeners.delete(listener);
}

/** Re-renders the caller at most once a second, and at least once a second while it is in view. */
export function useTick(): number {
  return useSyncExternalStore(subscribeTick, () => tick);
}

/** The hub's time as of this tick; null until the hub has spoken. */
export function useNowUs(): number | null {
  useTick();
  return store.nowUs();
}
