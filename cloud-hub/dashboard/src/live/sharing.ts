// One live stream for all tabs of a browser: HTTP/1.1 allows six connections to a hub, and each tab
// with a stream of its own would take one for good. Who is told what, without any worker or network.
import type { HeartbeatEvent, HelloEvent } from "../api/types";
import { localTime, ServerClock, type LocalTime } from "./clock";
import type { LiveHandlers, LiveRequest } from "./connection";
import type { StreamEvent } from "./sse";

/** Tab → sharing. A subscription is repeated as a sign of life, so it must be idempotent. */
export type FromTab =
  | { kind: "subscribe"; user: string; token: string; tags: readonly number[] }
  | { kind: "leave" };

/** Sharing → tab. */
export type ToTab = { kind: "event"; event: StreamEvent } | { kind: "unauthorized" };

export interface TabPort {
  postMessage(message: ToTab): void;
}

export interface Stream {
  open(request: LiveRequest): void;
  close(): void;
}

interface Tab {
  token: string;
  tags: readonly number[];
  seen_ms: number;
}

/** Background tabs may be woken only once a minute. */
const SILENT_MAX_MS = 150_000;

/** The tabs of one user, who may have signed in in each of them. */
class Audience {
  private readonly tabs = new Map<TabPort, Tab>();
  private readonly clock = new ServerClock();
  private readonly stream: Stream;
  private hello: StreamEvent | null = null;
  private heartbeat: StreamEvent | null = null;
  private token: string | null = null;

  constructor(makeStream: (handlers: LiveHandlers) => Stream) {
    this.stream = makeStream({
      onEvent: (event) => this.tell(event),
      onUnauthorized: () => this.dropToken(),
    });
  }

  get isEmpty(): boolean {
    return this.tabs.size === 0;
  }

  subscribe(port: TabPort, token: string, tags: readonly number[], local: LocalTime): void {
    const is_new = !this.tabs.has(port);
    this.tabs.set(port, { token, tags, seen_ms: local.mono_ms });
    if (is_new) this.catchUp(port, local);
    this.open();
  }

  leave(port: TabPort): void {
    if (this.tabs.delete(port)) this.open();
  }

  leaveSilent(now_ms: number): void {
    for (const [port, tab] of this.tabs) if (now_ms - tab.seen_ms > SILENT_MAX_MS) this.leave(port);
  }

  private open(): void {
    if (this.isEmpty) {
      this.stream.close();
      return;
    }
    const tabs = [...this.tabs.values()];
    if (!tabs.some((tab) => tab.token === this.token)) this.token = tabs.at(-1)?.token ?? null;
    if (this.token === null) return;
    const tags = [...new Set(tabs.flatMap((tab) => tab.tags))].sort((a, b) => a - b);
    this.stream.open({ token: this.token, tags });
  }

  private tell(event: StreamEvent): void {
    if (event.event === "hello") this.hello = event;
    if (event.event === "heartbeat") this.heartbeat = event;
    if (event.event === "hello" || event.event === "heartbeat") {
      const { server_now_us } = JSON.parse(event.data) as HelloEvent | HeartbeatEvent;
      this.clock.observe(server_now_us, localTime());
    }
    for (const port of this.tabs.keys()) port.postMessage({ kind: "event", event });
  }

  /** A tab that joins a running stream hears the greeting as of now, and the last heartbeat as it was. */
  private catchUp(port: TabPort, local: LocalTime): void {
    const now_us = this.clock.nowUs(local);
    if (this.hello === null || now_us === null) return;
    const hello = { ...(JSON.parse(this.hello.data) as HelloEvent), server_now_us: Math.floor(now_us) };
    port.postMessage({ kind: "event", event: { ...this.hello, data: JSON.stringify(hello) } });
    if (this.heartbeat !== null) port.postMessage({ kind: "event", event: this.heartbeat });
  }

  /** The tabs that signed in with the refused token must sign in again; the others go on with theirs. */
  private dropToken(): void {
    for (const [port, tab] of this.tabs) {
      if (tab.token !== this.token) continue;
      port.postMessage({ kind: "unauthorized" });
      this.tabs.delete(port);
    }
    this.token = null;
    this.open();
  }
}

export class Sharing {
  private readonly audiences = new Map<string, Audience>();

  constructor(private readonly makeStream: (handlers: LiveHandlers) => Stream) {}

  get userCount(): number {
    return this.audiences.size;
  }

  take(port: TabPort, message: FromTab, local: LocalTime = localTime()): void {
    const user = message.kind === "subscribe" ? message.user : null;
    for (const [name, audience] of this.audiences) if (name !== user) audience.leave(port);
    if (message.kind === "subscribe") {
      let audience = this.audiences.get(message.user);
      if (audience === undefined) {
        audience = new Audience(this.makeStream);
        this.audiences.set(message.user, audience);
      }
      audience.subscribe(port, message.token, message.tags, local);
    }
    this.forgetEmpty();
  }

  /** Tabs that crashed never say goodbye. */
  sweep(now_ms: number): void {
    for (const audience of this.audiences.values()) audience.leaveSilent(now_ms);
    this.forgetEmpty();
  }

  private forgetEmpty(): void {
    for (const [name, audience] of this.audiences) if (audience.isEmpty) this.audiences.delete(name);
  }
}
