// One stream for many tabs: who shares it, who hears what, and what happens when a token ends.
import { describe, expect, it } from "vitest";
import type { LiveHandlers, LiveRequest } from "./connection";
import { Sharing, type Stream, type ToTab } from "./sharing";

class FakeStream implements Stream {
  requests: LiveRequest[] = [];
  is_closed = false;
  constructor(readonly handlers: LiveHandlers) {}
  open = (request: LiveRequest) => void this.requests.push(request);
  close = () => void (this.is_closed = true);
}

function setUp() {
  const streams: FakeStream[] = [];
  const sharing = new Sharing((handlers) => {
    const stream = new FakeStream(handlers);
    streams.push(stream);
    return stream;
  });
  const tab = () => {
    const heard: ToTab[] = [];
    return { heard, postMessage: (message: ToTab) => void heard.push(message) };
  };
  return { sharing, streams, tab };
}

const subscribe = (token: string, tags: number[], user = "akron/1") => ({ kind: "subscribe" as const, user, token, tags });
const event = (name: string, data: object) => ({ event: name, data: JSON.stringify(data), id: "1" });

describe("sharing one stream", () => {
  it("opens one stream for all tabs of a user, with the tags of all of them", () => {
    const { sharing, streams, tab } = setUp();
    const [one, two] = [tab(), tab()];
    sharing.take(one, subscribe("t1", [3, 1]));
    sharing.take(two, subscribe("t2", [2, 3]));
    expect(streams).toHaveLength(1);
    expect(streams[0]?.requests.at(-1)).toEqual({ token: "t1", tags: [1, 2, 3] });
    streams[0]?.handlers.onEvent(event("deviation", { id: "d" }));
    expect([one.heard.length, two.heard.length]).toEqual([1, 1]);
  });

  it("keeps users apart", () => {
    const { sharing, streams, tab } = setUp();
    const [one, two] = [tab(), tab()];
    sharing.take(one, subscribe("t1", []));
    sharing.take(two, subscribe("t2", [], "other/2"));
    streams[0]?.handlers.onEvent(event("hold", {}));
    expect([one.heard.length, two.heard.length]).toEqual([1, 0]);
  });

  it("tells a tab that joins late the time as of now and the last heartbeat as it was", () => {
    const { sharing, streams, tab } = setUp();
    sharing.take(tab(), subscribe("t1", []));
    const started = performance.now();
    streams[0]?.handlers.onEvent(event("hello", { server_now_us: 1_000_000 }));
    streams[0]?.handlers.onEvent(event("heartbeat", { server_now_us: 1_000_000, edges: {} }));
    const late = tab();
    sharing.take(late, subscribe("t1", []), { mono_ms: started + 60_000, wall_ms: Date.now() });
    const heard = late.heard.map((each) => (each.kind === "event" ? JSON.parse(each.event.data) : null));
    expect(heard).toHaveLength(2);
    expect(heard[0].server_now_us).toBeGreaterThan(59_000_000);
    expect(heard[1].server_now_us).toBe(1_000_000);
  });

  it("sends only the tabs of a refused token back to sign in", () => {
    const { sharing, streams, tab } = setUp();
    const [one, two] = [tab(), tab()];
    sharing.take(one, subscribe("t1", []));
    sharing.take(two, subscribe("t2", []));
    streams[0]?.handlers.onUnauthorized();
    expect(one.heard).toEqual([{ kind: "unauthorized" }]);
    expect(two.heard).toEqual([]);
    expect(streams[0]?.requests.at(-1)?.token).toBe("t2");
  });

  it("closes the stream when the last tab leaves, says goodbye or not", () => {
    const { sharing, streams, tab } = setUp();
    const [one, two] = [tab(), tab()];
    const now = { mono_ms: 0, wall_ms: 0 };
    sharing.take(one, subscribe("t1", []), now);
    sharing.take(two, subscribe("t1", []), now);
    sharing.take(one, { kind: "leave" }, now);
    sharing.sweep(149_000);
    expect([streams[0]?.is_closed, sharing.userCount]).toEqual([false, 1]);
    sharing.sweep(151_000);
    expect([streams[0]?.is_closed, sharing.userCount]).toEqual([true, 0]);
  });

  it("takes a repeated subscription as a sign of life and greets nobody twice", () => {
    const { sharing, streams, tab } = setUp();
    const one = tab();
    sharing.take(one, subscribe("t1", [1]));
    streams[0]?.handlers.onEvent(event("hello", { server_now_us: 1 }));
    sharing.take(one, subscribe("t1", [1]));
    expect(one.heard).toHaveLength(1);
  });
});
