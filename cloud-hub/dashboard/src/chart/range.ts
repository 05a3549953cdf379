// What do the axes span? Upwards what is drawn and its limits, with room; sideways the wanted time.
import type { Series } from "./decimate";

/** A chart never shows less than this, however young its tag is. */
const WINDOW_MIN_US = 5 * 60 * 1_000_000;

/** Starts with the wanted span, or with the first reading there is when the tag is younger. */
export function windowStart(series: Series, to_us: number, span_us: number): number {
  const wanted_us = to_us - span_us;
  if (series.length === 0) return wanted_us;
  return Math.max(wanted_us, Math.min(series.timeAt(0), to_us - WINDOW_MIN_US));
}

/** Never flatter than this share of the values' size, or noise would fill the chart. */
const SPAN_MIN_SHARE = 0.02;

export function valueRange(values: Iterable<number | null | undefined>, limits: readonly number[]): [number, number] {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of [...values, ...limits]) {
    if (value === null || value === undefined || !Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  const middle = (low + high) / 2;
  const span = Math.max(high - low, Math.abs(middle) * SPAN_MIN_SHARE, 0.1);
  return [middle - span * 0.6, middle + span * 0.6];
}
