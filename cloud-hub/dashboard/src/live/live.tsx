// Joins the stream, the store and the query cache for the pages: one connection, one tick for all text.
import { useQueryClient, type QueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useSyncExternalStore } from "react";
import { STALE_AFTER } from "../api/queries";
import type { HeartbeatEvent, HelloEvent, SamplesEvent } from "../api/types";
import { endSession, onSessionRenewed, readSession, renewSession } from "../session";
import { scheduler } from "./scheduler";
import { openSource, type LiveSource } from "./source";
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

function apply(event: StreamEvent, refetcher: Refetcher): void {
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
      store.dropBuffers();
      refetcher.add([...Object.values(STALE_AFTER).flat(), ["tags"]]);
      break;
    default:
      refetcher.add(STALE_AFTER[event.event] ?? []);
  }
}

/** Holds the stream open while the page is mounted; `tags` null means "not known yet". */
export function useLiveStream(user: string | null, tags: readonly number[] | null): void {
  const client = useQueryClient();
  const source = useRef<LiveSource | null>(null);
  const wanted = tags === null ? null : tags.join();
  useEffect(() => {
    const refetcher = new Refetcher(client);
    source.current = openSource({
      onEvent: (event) => apply(event, refetcher),
      onUnauthorized: () => void renewSession().then((is_renewed) => (is_renewed ? undefined : endSession())),
    });
    return () => {
      source.current?.close();
      source.current = null;
    };
  }, [client]);
  useEffect(() => {
    if (user === null || wanted === null) return;
    const open = (): void => {
      const session = readSession();
      if (session === null) return;
      source.current?.open({
        user: `${session.tenant}/${user}`,
        token: session.token,
        tags: wanted === "" ? [] : wanted.split(",").map(Number),
      });
    };
    open();
    return onSessionRenewed(open);
  }, [client, user, wanted]);
}

// --- one tick for all live text --------------------------------------------------------------

/** Text is cheap: it need not wait out a chart's second after a heartbeat. */
const TEXT_INTERVAL_MS = 80;
const TOUCH_MS = 250;

let tick = 0;
const tick_listeners = new Set<() => void>();

function startTicking(): void {
  const drawing = scheduler.register(() => {
    tick += 1;
    for (const listener of tick_listeners) listener();
  }, TEXT_INTERVAL_MS);
  store.subscribe((change) => (change === "time" ? drawing.markAged() : drawing.markDirty()));
  // Ages grow without messages: the words must turn stale when nothing comes.
  setInterval(() => store.touch(), TOUCH_MS);
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

/** Re-renders the caller after messages, a few times a second at most, and otherwise as time passes. */
export function useTick(): number {
  return useSyncExternalStore(subscribeTick, () => tick);
}

/** The hub's time as of this tick; null until the hub has spoken. */
export function useNowUs(): number | null {
  useTick();
  return store.nowUs();
}
