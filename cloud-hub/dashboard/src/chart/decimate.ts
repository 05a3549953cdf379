// Many readings → at most two points a pixel column, keeping each column's lowest and highest, so
// that an excursion of a single sample is still drawn. A null breaks the line: nothing is ever
// joined across a gap or a bad reading.

export interface Series {
  /** Source times, ascending. */
  readonly length: number;
  timeAt(index: number): number;
  /** NaN where there is no usable value. */
  valueAt(index: number): number;
}

export interface Decimated {
  x: number[];
  y: (number | null)[];
}

interface Column {
  low_x: number;
  low_y: number;
  high_x: number;
  high_y: number;
}

function flush(column: Column | null, out: Decimated): void {
  if (column === null) return;
  const { low_x, low_y, high_x, high_y } = column;
  if (low_x === high_x) {
    out.x.push(low_x);
    out.y.push(low_y);
  } else if (low_x < high_x) {
    out.x.push(low_x, high_x);
    out.y.push(low_y, high_y);
  } else {
    out.x.push(high_x, low_x);
    out.y.push(high_y, low_y);
  }
}

/** `gap_us`: two readings further apart than this are not joined. */
export function decimate(
  series: Series,
  from_us: number,
  to_us: number,
  columns: number,
  gap_us: number,
): Decimated {
  const out: Decimated = { x: [], y: [] };
  const width_us = (to_us - from_us) / Math.max(1, columns);
  let column: Column | null = null;
  let column_index = -1;
  let previous_us = Number.NaN;
  for (let index = 0; index < series.length; index += 1) {
    const time_us = series.timeAt(index);
    if (time_us < from_us || time_us > to_us) continue;
    const value = series.valueAt(index);
    const is_gap = Number.isNaN(value) || time_us - previous_us > gap_us;
    if (is_gap && out.x.length + (column === null ? 0 : 1) > 0) {
      flush(column, out);
      column = null;
      breakLine(out, Number.isNaN(value) ? time_us : (previous_us + time_us) / 2);
    }
    previous_us = time_us;
    if (Number.isNaN(value)) continue;
    const at = Math.floor((time_us - from_us) / width_us);
    if (column === null || at !== column_index) {
      flush(column, out);
      column = { low_x: time_us, low_y: value, high_x: time_us, high_y: value };
      column_index = at;
    } else {
      if (value < column.low_y) [column.low_x, column.low_y] = [time_us, value];
      if (value > column.high_y) [column.high_x, column.high_y] = [time_us, value];
    }
  }
  flush(column, out);
  return out;
}

function breakLine(out: Decimated, time_us: number): void {
  if (out.y[out.y.length - 1] === null) return;
  out.x.push(time_us);
  out.y.push(null);
}

/** Joins history from REST with what came live since, without doubling a time. */
export function join(history: Series, live: Series): Series {
  const times: number[] = [];
  const values: number[] = [];
  let h = 0;
  let l = 0;
  while (h < history.length || l < live.length) {
    const history_us = h < history.length ? history.timeAt(h) : Number.POSITIVE_INFINITY;
    const live_us = l < live.length ? live.timeAt(l) : Number.POSITIVE_INFINITY;
    if (live_us <= history_us) {
      times.push(live_us);
      values.push(live.valueAt(l));
      l += 1;
      if (live_us === history_us) h += 1;
    } else {
      times.push(history_us);
      values.push(history.valueAt(h));
      h += 1;
    }
  }
  return seriesOf(times, values);
}

export function seriesOf(times: readonly number[], values: readonly number[]): Series {
  return {
    length: times.length,
    timeAt: (index) => times[index] as number,
    valueAt: (index) => values[index] as number,
  };
}

/**
 * From when on are two neighbours not neighbours: five periods, or two and a half buckets. A tag that
 * reports on change (period 0) holds its value in between.
 */
export function gapUs(period_ms: number, resolution_us: number): number {
  if (period_ms === 0) return Number.POSITIVE_INFINITY;
  return Math.max(5 * period_ms * 1000, 5_000_000, 2.5 * resolution_us);
}
