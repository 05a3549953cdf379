// What the live stream has told this page so far: newest reading of each tag, recent readings of the
// tags that are charted, health of the edges, and the hub's time. Writing never draws.
import {
  FLAG_SIMULATED,
  type Edge,
  type EdgeHealth,
  type HeartbeatEvent,
  type HelloEvent,
  type LiveSample,
  type SamplesEvent,
  type Tag,
} from "../api/types";
import { localTime, ServerClock, type LocalTime } from "./clock";
import { Ring } from "./ring";
import { isBad, type Delivery, type Observed } from "./staleness";

/** An hour and a bit at 1 Hz. */
const RING_CAPACITY = 4_096;

/** What a listener may care about: readings (and all that goes with them), health of edges, time alone. */
export type Change = "readings" | "health" | "time";

export class LiveStore {
  readonly clock = new ServerClock();
  readonly edges = new Map<string, EdgeHealth>();
  readonly edge_seen_us = new Map<string, number>();
  private readonly newest = new Map<number, Observed>();
  private readonly newest_good = new Map<number, Observed>();
  private readonly rings = new Map<number, Ring>();
  private readonly listeners = new Set<(change: Change) => void>();
  private heartbeat_us: number | null = null;
  private delivery_lag_us: number | null = null;
  private has_heartbeat = false;
  /** Grows with each connection; a chart that sees it grow reads its history again. */
  generation = 0;
  /** Grows when a reading of a charted tag arrived late: history has holes that are filled now. */
  late_count = 0;

  // --- reading ---

  nowUs(): number | null {
    return this.clock.nowUs(localTime());
  }

  latest(tag_id: number): Observed | null {
    return this.newest.get(tag_id) ?? null;
  }

  latestGood(tag_id: number): Observed | null {
    return this.newest_good.get(tag_id) ?? null;
  }

  delivery(): Delivery {
    return { heartbeat_us: this.heartbeat_us, delivery_lag_us: this.delivery_lag_us };
  }

  heartbeatUs(): number | null {
    return this.heartbeat_us;
  }

  /** Recent readings of a tag; asking for them starts keeping them. */
  ring(tag_id: number): Ring {
    let ring = this.rings.get(tag_id);
    if (ring === undefined) {
      ring = new Ring(RING_CAPACITY);
      const seen = this.newest.get(tag_id);
      if (seen !== undefined) ring.write(seen.time_us, seen.value, seen.quality, seen.flags);
      this.rings.set(tag_id, ring);
    }
    return ring;
  }

  /** Called after anything was written. Listeners only set dirty flags. */
  subscribe(listener: (change: Change) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  // --- writing ---

  takeHello(hello: HelloEvent, local: LocalTime = localTime()): void {
    this.clock.observe(hello.server_now_us, local);
    this.heartbeat_us = hello.server_now_us;
    this.delivery_lag_us = null;
    this.generation += 1;
    this.changed();
  }

  takeHeartbeat(heartbeat: HeartbeatEvent, local: LocalTime = localTime()): void {
    this.clock.observe(heartbeat.server_now_us, local);
    this.heartbeat_us = heartbeat.server_now_us;
    this.has_heartbeat = true;
    const names = new Set(Object.keys(heartbeat.edges));
    for (const name of this.edges.keys()) if (!names.has(name)) this.edges.delete(name);
    for (const [name, edge] of Object.entries(heartbeat.edges)) {
      this.edges.set(name, edge);
      if (edge.state === "online") this.edge_seen_us.set(name, heartbeat.server_now_us);
    }
    // Nothing was sent since: the lag that was measured last no longer describes the page.
    const now_us = this.clock.nowUs(local);
    if (now_us !== null) this.delivery_lag_us = Math.max(0, now_us - heartbeat.server_now_us);
    this.changed("health");
  }

  takeSamples(samples: SamplesEvent, local: LocalTime = localTime()): void {
    const now_us = this.clock.nowUs(local);
    if (now_us !== null) this.delivery_lag_us = Math.max(0, now_us - samples.t_hub_us);
    for (const sample of samples.v) this.takeSample(sample);
    this.changed();
  }

  private takeSample([tag_id, time_us, value, quality, flags]: LiveSample): void {
    const ring = this.rings.get(tag_id);
    if (ring !== undefined) {
      const newest_us = ring.newestTime();
      ring.write(time_us, value, quality, flags);
      if (newest_us !== null && time_us < newest_us) this.late_count += 1;
    }
    this.remember(tag_id, { time_us, value, quality, flags });
  }

  private remember(tag_id: number, seen: Observed): void {
    const known = this.newest.get(tag_id);
    if (known === undefined || seen.time_us >= known.time_us) this.newest.set(tag_id, seen);
    if (isBad(seen.quality) || seen.value === null) return;
    const good = this.newest_good.get(tag_id);
    if (good === undefined || seen.time_us >= good.time_us) this.newest_good.set(tag_id, seen);
  }

  /** What REST says about tags and edges fills in what the stream has not said yet. */
  takeTags(tags: readonly Tag[]): void {
    for (const { id, last } of tags) {
      if (last === null) continue;
      const known = this.newest.get(id);
      if (known !== undefined && known.time_us >= last.time_us) continue;
      // REST does not say "simulated"; a tag that was stays so until the stream says otherwise.
      this.remember(id, { ...last, flags: (known?.flags ?? 0) & FLAG_SIMULATED });
    }
    this.changed();
  }

  takeEdges(edges: readonly Edge[]): void {
    for (const edge of edges) {
      const { name, state, lag_ms, backlog_frames } = edge;
      // Until the first heartbeat; from then on the heartbeats know better.
      if (!this.has_heartbeat) this.edges.set(name, { state, lag_ms, backlog_frames });
      if (edge.last_seen_us === null) continue;
      const known_us = this.edge_seen_us.get(edge.name) ?? 0;
      this.edge_seen_us.set(edge.name, Math.max(known_us, edge.last_seen_us));
    }
    this.changed();
  }

  /** After `resync`: what was kept may have holes, so it goes. */
  dropBuffers(): void {
    for (const ring of this.rings.values()) ring.clear();
    this.generation += 1;
    this.changed();
  }

  /** Another user signed in. */
  forgetEverything(): void {
    this.newest.clear();
    this.newest_good.clear();
    this.rings.clear();
    this.edges.clear();
    this.edge_seen_us.clear();
    this.heartbeat_us = null;
    this.has_heartbeat = false;
    this.delivery_lag_us = null;
    this.generation += 1;
    this.changed();
  }

  /** Time passed: ages grew although nothing was written. */
  touch(): void {
    this.changed("time");
  }

  private changed(change: Change = "readings"): void {
    for (const listener of this.listeners) listener(change);
  }
}

export const store = new LiveStore();
