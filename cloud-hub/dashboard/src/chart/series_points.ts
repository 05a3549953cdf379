// A tag's series as the hub gives it, as points to draw: extremes stay where they were, gaps stay open.
import type { TagSeries } from "../api/types";

export interface Drawn {
  /** Seconds. */
  x: number[];
  /** Null breaks the line. */
  y: (number | null)[];
}

/** First, least, greatest and last of each bucket in order of time, or the readings; a break in every gap. */
export function toDrawn(series: TagSeries): Drawn {
  const points: [number, number | null][] =
    series.points !== null
      ? series.points.map(([time_us, value]) => [time_us, value])
      : series.buckets.flatMap((bucket) => {
          const shown = [bucket.first, bucket.min, bucket.max, bucket.last].filter((each) => each !== null);
          shown.sort((a, b) => a[0] - b[0]);
          return shown.filter((each, at) => at === 0 || each[0] !== shown[at - 1]?.[0]);
        });
  for (const gap of series.gaps) {
    // Strictly inside: the readings at both ends are still drawn.
    const inside_us = gap.from_us + (gap.to_us - gap.from_us) / 2;
    if (gap.to_us > gap.from_us) points.push([inside_us, null]);
  }
  points.sort((a, b) => a[0] - b[0]);
  return { x: points.map(([time_us]) => time_us / 1e6), y: points.map(([, value]) => value) };
}

/** "readings as they are" or "5 min steps, extremes kept". */
export function resolutionWords(resolution_us: number): string {
  if (resolution_us === 0) return "readings as they are";
  const seconds = resolution_us / 1e6;
  const text = seconds < 60 ? `${Math.round(seconds)} s` : seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
  return `steps of ${text}, extremes kept`;
}
