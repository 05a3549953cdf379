// A tag's series as the hub gives it, as what is drawn: extremes stay where they were, gaps stay open, limits are steps,
// and where quality was not good is told. Pure.
import type { SeriesLimit, TagSeries } from "../api/types";

export interface Drawn {
  /** Seconds. */
  x: number[];
  /** First, least, greatest and last, or the readings. Null breaks the line; undefined: nothing of this kind here. */
  y: (number | null | undefined)[];
  /** Means of buckets, at their middles; all undefined where the readings themselves are drawn. */
  mean: (number | null | undefined)[];
}

type Place = [time_us: number, y: number | null | undefined, mean: number | null | undefined];

function places(series: TagSeries): Place[] {
  if (series.points !== null) return series.points.map(([time_us, value]) => [time_us, value, undefined]);
  return series.buckets.flatMap((bucket): Place[] => {
    const shown = [bucket.first, bucket.min, bucket.max, bucket.last].filter((each) => each !== null);
    shown.sort((a, b) => a[0] - b[0]);
    const extremes = shown
      .filter((each, at) => at === 0 || each[0] !== shown[at - 1]?.[0])
      .map(([time_us, value]): Place => [time_us, value, undefined]);
    if (bucket.mean === null) return extremes;
    return [...extremes, [bucket.from_us + series.resolution_us / 2, undefined, bucket.mean]];
  });
}

/** What to draw, in order of time; a break of both lines in every gap. */
export function toDrawn(series: TagSeries): Drawn {
  const points = places(series);
  for (const gap of series.gaps) {
    // Strictly inside: the readings at both ends are still drawn.
    const inside_us = gap.from_us + (gap.to_us - gap.from_us) / 2;
    if (gap.to_us > gap.from_us) points.push([inside_us, null, null]);
  }
  points.sort((a, b) => a[0] - b[0]);
  return { x: points.map(([time_us]) => time_us / 1e6), y: points.map((each) => each[1]), mean: points.map((each) => each[2]) };
}

/** The largest whole unit that says a width: "1-minute", "5-minute", "1-hour". */
function widthWords(resolution_us: number): string {
  const seconds = Math.round(resolution_us / 1e6);
  for (const [unit, size] of [["day", 86_400], ["hour", 3600], ["minute", 60]] as const) {
    if (seconds >= size && seconds % size === 0) return `${seconds / size}-${unit}`;
  }
  return `${seconds}-second`;
}

/** "readings as they are" or "1-minute mean, least and greatest". */
export function resolutionWords(resolution_us: number): string {
  return resolution_us === 0 ? "readings as they are" : `${widthWords(resolution_us)} mean, least and greatest`;
}

export type Stretch = [from_us: number, to_us: number];

const GOOD_BELOW = 0x4000;

function joined(stretches: Stretch[]): Stretch[] {
  const out: Stretch[] = [];
  for (const [from_us, to_us] of stretches) {
    const last = out.at(-1);
    if (last !== undefined && from_us <= last[1]) last[1] = Math.max(last[1], to_us);
    else out.push([from_us, to_us]);
  }
  return out;
}

/** Where readings were not good: uncertain or bad. A bucket with one such reading counts whole. */
export function notGood(series: TagSeries): Stretch[] {
  if (series.points === null) {
    const touched = series.buckets.filter((bucket) => bucket.n_good < bucket.n || bucket.quality >= GOOD_BELOW);
    return joined(touched.map((bucket): Stretch => [bucket.from_us, bucket.from_us + series.resolution_us]));
  }
  const { points } = series;
  const stretches: Stretch[] = [];
  points.forEach(([time_us, , quality], at) => {
    // What a reading says stands until the next one.
    if (quality >= GOOD_BELOW) stretches.push([time_us, points[at + 1]?.[0] ?? time_us + series.period_ms * 1000]);
  });
  return joined(stretches);
}

/** One side of a limit over the time in which it was in force, cut to the range. */
export interface LimitStep {
  kind: SeriesLimit["kind"];
  code: string;
  side: "low" | "high";
  value: number;
  from_us: number;
  to_us: number;
}

/** The limits of a range as steps, oldest first; the newest of each carries its label. */
export function limitSteps(limits: readonly SeriesLimit[], from_us: number, to_us: number): LimitStep[] {
  const steps: LimitStep[] = [];
  for (const { kind, code, low, high, ...limit } of limits) {
    const within = { from_us: Math.max(from_us, limit.from_us ?? from_us), to_us: Math.min(to_us, limit.to_us ?? to_us) };
    if (within.from_us >= within.to_us) continue;
    if (low !== null) steps.push({ kind, code, side: "low", value: low, ...within });
    if (high !== null) steps.push({ kind, code, side: "high", value: high, ...within });
  }
  return steps.sort((a, b) => a.from_us - b.from_us);
}
