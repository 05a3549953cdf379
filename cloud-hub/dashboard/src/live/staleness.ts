// How old is what the page shows, and which words say so? Pure: ages in, states out.
import { FLAG_LATE, FLAG_SIMULATED, type EdgeHealth } from "../api/types";

export type Freshness = "fresh" | "late" | "stale" | "bad" | "none";

export interface Observed {
  time_us: number;
  value: number | null;
  quality: number;
  flags: number;
}

/** Good is 0; uncertain starts at 0x4000 and still counts as a value; bad starts at 0x8000. */
export function isBad(quality: number): boolean {
  return quality >= 0x8000;
}

export function isUncertain(quality: number): boolean {
  return quality >= 0x4000 && quality < 0x8000;
}

export const isLate = (flags: number): boolean => (flags & FLAG_LATE) !== 0;
export const isSimulated = (flags: number): boolean => (flags & FLAG_SIMULATED) !== 0;

export function freshUntilMs(period_ms: number): number {
  return Math.max(2 * period_ms, 3_000);
}

export function lateUntilMs(period_ms: number): number {
  return Math.max(5 * period_ms, 15_000);
}

/** Without the hub's time nothing may be called fresh. */
export function freshness(seen: Observed | null, period_ms: number, now_us: number | null): Freshness {
  if (seen === null) return "none";
  if (now_us === null) return "stale";
  // A tag that reports on change has no age to go by; a silent edge shows as a band over its cards.
  if (period_ms === 0) return isBad(seen.quality) || seen.value === null ? "bad" : "fresh";
  const age_ms = (now_us - seen.time_us) / 1000;
  if (age_ms > lateUntilMs(period_ms)) return "stale";
  if (isBad(seen.quality) || seen.value === null) return "bad";
  return age_ms > freshUntilMs(period_ms) ? "late" : "fresh";
}

export const HEARTBEAT_MAX_US = 15_000_000;
const DELIVERY_MAX_US = 5_000_000;

export interface Delivery {
  /** server_now_us of the newest heartbeat or hello that was processed. */
  heartbeat_us: number | null;
  /** t_hub_us of the newest samples message, and how old it was when it was processed. */
  delivery_lag_us: number | null;
}

/** Microseconds that the page is behind the hub, or null when it is not. */
export function pageBehindUs(delivery: Delivery, now_us: number | null): number | null {
  if (now_us === null || delivery.heartbeat_us === null) return null;
  const silent_us = now_us - delivery.heartbeat_us;
  if (silent_us > HEARTBEAT_MAX_US) return silent_us;
  const lag_us = delivery.delivery_lag_us ?? 0;
  return lag_us > DELIVERY_MAX_US ? lag_us : null;
}

/** An empty alarm list may be shown as empty only while this holds. */
export function isAlarmStateKnown(delivery: Delivery, now_us: number | null): boolean {
  if (now_us === null || delivery.heartbeat_us === null) return false;
  return now_us - delivery.heartbeat_us <= HEARTBEAT_MAX_US;
}

export interface SilentEdge {
  name: string;
  silent_us: number | null;
  backlog_frames: number | null;
}

const EDGE_SILENT_US = 60_000_000;

/** Edges that nothing was heard from for a minute, or that say themselves that they are offline. */
export function silentEdges(
  health: ReadonlyMap<string, EdgeHealth>,
  last_seen_us: ReadonlyMap<string, number>,
  now_us: number | null,
): SilentEdge[] {
  const silent: SilentEdge[] = [];
  for (const [name, edge] of health) {
    const seen_us = last_seen_us.get(name);
    const silent_us = now_us !== null && seen_us !== undefined ? now_us - seen_us : null;
    if (edge.state !== "online" || (silent_us !== null && silent_us > EDGE_SILENT_US)) {
      silent.push({ name, silent_us, backlog_frames: edge.backlog_frames });
    }
  }
  return silent.sort((a, b) => a.name.localeCompare(b.name));
}
