// Which values does a vertical axis span? What is drawn and its limits, with room above and below.

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
