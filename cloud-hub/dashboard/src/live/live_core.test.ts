// The parts that decide what is live: clock, staleness, ring, scheduler, stream, store.
import { describe, expect, it } from "vitest";
import { ServerClock } from "./clock";
import { backoffMs } from "./connection";
import { Ring } from "./ring";
import { nextDueMs, Scheduler, type SchedulerHost } from "./scheduler";
import { EventStreamParser } from "./sse";
import { freshness, isAlarmStateKnown, pageBehindUs, silentEdges } from "./staleness";
import { LiveStore } from "./store";

const S = 1_000_000;
const local = (mono_ms: number, wall_ms = mono_ms) => ({ mono_ms, wall_ms });

describe("server clock", () => {
  it("tells the hub's time between messages", () => {
    const clock = new ServerClock();
    expect(clock.nowUs(local(0))).toBeNull();
    clock.observe(100 * S, local(5_000));
    expect(clock.nowUs(local(7_000))).toBe(102 * S);
  });

  it("is not set back by a heartbeat that was read late", () => {
    const clock = new ServerClock();
    clock.observe(100 * S, local(0));
    clock.observe(105 * S, local(30_000)); // 25 s late
    expect(clock.nowUs(local(30_000)) as number).toBeGreaterThan(129.9 * S);
  });

  it("counts the time that the computer slept", () => {
    const clock = new ServerClock();
    clock.observe(100 * S, local(0));
    expect(clock.nowUs(local(1_000, 3_600_000))).toBe(3_700 * S);
  });

  it("forgets a jump of the wall clock with the next heartbeat", () => {
    const clock = new ServerClock();
    clock.observe(100 * S, local(0, 0));
    clock.observe(105 * S, local(5_000, 3_600_000));
    expect(clock.nowUs(local(5_000, 3_600_000))).toBe(105 * S);
  });
});

describe("staleness", () => {
  const seen = (time_us: number, quality = 0, value: number | null = 1) => ({ time_us, value, quality, flags: 0 });

  it("follows the tag's period", () => {
    expect(freshness(seen(0), 1_000, 3 * S)).toBe("fresh");
    expect(freshness(seen(0), 1_000, 4 * S)).toBe("late");
    expect(freshness(seen(0), 1_000, 16 * S)).toBe("stale");
    expect(freshness(seen(0), 30_000, 59 * S)).toBe("fresh");
    expect(freshness(seen(0), 30_000, 151 * S)).toBe("stale");
    expect(freshness(seen(0), 0, 9_000 * S)).toBe("fresh"); // reports on change
  });

  it("calls a bad reading bad, an old bad reading stale, and nothing fresh without the hub's time", () => {
    expect(freshness(seen(0, 0x8000), 1_000, S)).toBe("bad");
    expect(freshness(seen(0, 0, null), 1_000, S)).toBe("bad");
    expect(freshness(seen(0, 0x4000), 1_000, S)).toBe("fresh");
    expect(freshness(seen(0, 0x8000), 1_000, 60 * S)).toBe("stale");
    expect(freshness(seen(0), 1_000, null)).toBe("stale");
    expect(freshness(null, 1_000, S)).toBe("none");
  });

  it("says that the page is behind when heartbeats stop or deliveries lag", () => {
    expect(pageBehindUs({ heartbeat_us: 0, delivery_lag_us: 0 }, 15 * S)).toBeNull();
    expect(pageBehindUs({ heartbeat_us: 0, delivery_lag_us: 0 }, 22 * S)).toBe(22 * S);
    expect(pageBehindUs({ heartbeat_us: 21 * S, delivery_lag_us: 6 * S }, 22 * S)).toBe(6 * S);
  });

  it("knows the alarm state only while heartbeats are fresh", () => {
    expect(isAlarmStateKnown({ heartbeat_us: null, delivery_lag_us: null }, S)).toBe(false);
    expect(isAlarmStateKnown({ heartbeat_us: 0, delivery_lag_us: null }, 15 * S)).toBe(true);
    expect(isAlarmStateKnown({ heartbeat_us: 0, delivery_lag_us: null }, 16 * S)).toBe(false);
  });

  it("names an edge that is offline, and one that was not heard from for a minute", () => {
    const health = new Map([
      ["a", { state: "online" as const, lag_ms: 1, backlog_frames: 0 }],
      ["b", { state: "offline" as const, lag_ms: null, backlog_frames: 12 }],
      ["c", { state: "online" as const, lag_ms: 1, backlog_frames: 0 }],
    ]);
    const seen_us = new Map([["a", 100 * S], ["b", 40 * S], ["c", 0]]);
    const silent = silentEdges(health, seen_us, 101 * S);
    expect(silent.map((edge) => [edge.name, edge.silent_us])).toEqual([["b", 61 * S], ["c", 101 * S]]);
  });
});

describe("ring", () => {
  const times = (ring: Ring) => Array.from({ length: ring.length }, (_, index) => ring.timeAt(index));

  it("keeps the newest readings in time order, whatever order they came in", () => {
    const ring = new Ring(4);
    for (const time of [5, 1, 3, 2, 4, 6]) ring.write(time, time * 10, 0, 0);
    expect(times(ring)).toEqual([3, 4, 5, 6]);
    expect(ring.valueAt(0)).toBe(30);
  });

  it("drops what is older than all it keeps once it is full", () => {
    const ring = new Ring(2);
    for (const time of [5, 6, 1]) ring.write(time, 0, 0, 0);
    expect(times(ring)).toEqual([5, 6]);
  });

  it("replaces a time seen before", () => {
    const ring = new Ring(4);
    ring.write(1, 10, 0, 0);
    ring.write(1, null, 0x8000, 1);
    expect(ring.length).toBe(1);
    expect(ring.valueAt(0)).toBeNaN();
    expect([ring.qualityAt(0), ring.flagsAt(0)]).toEqual([0x8000, 1]);
  });

  it("agrees with a sorted list over a long random run", () => {
    const ring = new Ring(16);
    const model = new Map<number, number>();
    let seed = 7;
    for (let step = 0; step < 2_000; step += 1) {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
      const time = (seed % 64) + step;
      const kept = [...model.keys()].sort((a, b) => a - b);
      if (kept.length === 16 && !model.has(time) && time < (kept[0] as number)) continue;
      if (kept.length === 16 && !model.has(time)) model.delete(kept[0] as number);
      model.set(time, step);
      ring.write(time, step, 0, 0);
    }
    expect(times(ring)).toEqual([...model.keys()].sort((a, b) => a - b));
  });
});

class FakeHost implements SchedulerHost {
  now_ms = 0;
  is_hidden = false;
  frames: (() => void)[] = [];
  timers: { at_ms: number; callback: () => void }[] = [];
  requestFrame = (callback: () => void) => void this.frames.push(callback);
  requestTimer = (callback: () => void, delay_ms: number) => void this.timers.push({ at_ms: this.now_ms + delay_ms, callback });
  nowMs = () => this.now_ms;
  isHidden = () => this.is_hidden;

  /** Lets time pass in frames of 16 ms. */
  run(duration_ms: number): void {
    for (const end_ms = this.now_ms + duration_ms; this.now_ms < end_ms; this.now_ms += 16) {
      for (const timer of this.timers.filter((each) => each.at_ms <= this.now_ms)) {
        this.timers.splice(this.timers.indexOf(timer), 1);
        timer.callback();
      }
      for (const frame of this.frames.splice(0)) frame();
    }
  }
}

describe("scheduler", () => {
  it("draws at most once a second however many messages come", () => {
    const host = new FakeHost();
    let drawn = 0;
    const drawing = new Scheduler(host).register(() => (drawn += 1));
    for (let message = 0; message < 1_000; message += 1) {
      drawing.markDirty();
      host.run(10);
    }
    const seconds = host.now_ms / 1000;
    expect(drawn).toBeLessThanOrEqual(Math.ceil(seconds) + 1);
    expect(drawn).toBeGreaterThan(seconds - 2);
  });

  it("never draws on a message itself", () => {
    const host = new FakeHost();
    let drawn = 0;
    const drawing = new Scheduler(host).register(() => (drawn += 1));
    drawing.markDirty();
    expect(drawn).toBe(0);
  });

  it("draws nothing that did not change, is out of view, or while the page is hidden", () => {
    const host = new FakeHost();
    const scheduler = new Scheduler(host);
    let drawn = 0;
    const drawing = scheduler.register(() => (drawn += 1));
    host.run(3_000);
    expect(drawn).toBe(1);
    drawing.setVisible(false);
    drawing.markDirty();
    host.run(3_000);
    expect(drawn).toBe(1);
    drawing.setVisible(true);
    host.run(100);
    expect(drawn).toBe(2);
    host.is_hidden = true;
    drawing.markDirty();
    host.run(3_000);
    expect(drawn).toBe(2);
    host.is_hidden = false;
    scheduler.wake();
    host.run(100);
    expect(drawn).toBe(3);
  });

  it("spends its 8 ms a frame and gives everyone a turn", () => {
    const host = new FakeHost();
    const scheduler = new Scheduler(host);
    const drawn = new Set<number>();
    for (let chart = 0; chart < 50; chart += 1) {
      scheduler.register(() => {
        drawn.add(chart);
        host.now_ms += 3;
      });
    }
    host.frames.splice(0).forEach((frame) => frame());
    expect(drawn.size).toBe(3);
    host.run(1_000);
    expect(drawn.size).toBe(50);
  });

  it("draws as time passes only when nothing else was drawn for a second", () => {
    const host = new FakeHost();
    let drawn = 0;
    const drawing = new Scheduler(host).register(() => (drawn += 1));
    host.run(16);
    for (let touch = 0; touch < 40; touch += 1) {
      drawing.markAged();
      host.run(250);
    }
    expect(drawn).toBeGreaterThanOrEqual(8);
    expect(drawn).toBeLessThanOrEqual(11);
  });

  it("averages to one a second when messages come a little early", () => {
    let due_ms = 0;
    for (let now_ms = 0; now_ms < 10_000; now_ms += 990) due_ms = nextDueMs(due_ms, now_ms, 1_000);
    expect(due_ms).toBe(11_000);
  });
});

describe("event stream", () => {
  it("parses events however the bytes are cut", () => {
    const text = ": hi\nid: 7\nevent: samples\ndata: {\"a\":1}\n\r\nid: 8\r\ndata: one\r\ndata: two\r\n\r\n";
    for (let cut = 1; cut < text.length; cut += 1) {
      const parser = new EventStreamParser();
      const events = [...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))];
      expect(events).toEqual([
        { event: "samples", data: '{"a":1}', id: "7" },
        { event: "message", data: "one\ntwo", id: "8" },
      ]);
    }
  });

  it("gives up on a line that never ends", () => {
    const parser = new EventStreamParser();
    expect(() => parser.push("x".repeat(4_000_001))).toThrow();
  });
});

describe("reconnecting", () => {
  it("backs off to 15 s with jitter and never at once", () => {
    expect(backoffMs(0, 0)).toBe(250);
    expect(backoffMs(0, 1)).toBe(500);
    expect(backoffMs(50, 1)).toBe(15_000);
    expect(backoffMs(50, 0)).toBe(7_500);
  });
});

describe("live store", () => {
  it("keeps the newest reading when an older one arrives late, and the last good one", () => {
    const store = new LiveStore();
    store.takeHello({ server_now_us: 100 * S, tenant: "akron", can: [], cursor: 1, schema: 1 }, local(0));
    store.takeSamples({ t_hub_us: 100 * S, v: [[1, 99 * S, 73.2, 0, 0]] }, local(0));
    store.takeSamples({ t_hub_us: 101 * S, v: [[1, 100 * S, null, 0x8000, 0], [1, 50 * S, 70, 0, 1]] }, local(1_000));
    expect(store.latest(1)).toMatchObject({ time_us: 100 * S, value: null });
    expect(store.latestGood(1)).toMatchObject({ time_us: 99 * S, value: 73.2 });
  });

  it("counts late readings of charted tags, so that history is read again", () => {
    const store = new LiveStore();
    store.ring(1);
    store.takeSamples({ t_hub_us: 0, v: [[1, 10 * S, 1, 0, 0]] }, local(0));
    store.takeSamples({ t_hub_us: 0, v: [[1, 5 * S, 1, 0, 1]] }, local(0));
    expect(store.late_count).toBe(1);
  });

  it("measures how late a message is when it is handled, not when it was sent", () => {
    const store = new LiveStore();
    store.takeHello({ server_now_us: 100 * S, tenant: "akron", can: [], cursor: 1, schema: 1 }, local(0));
    store.takeSamples({ t_hub_us: 101 * S, v: [] }, local(20_000));
    expect(store.delivery().delivery_lag_us).toBe(19 * S);
  });
});
