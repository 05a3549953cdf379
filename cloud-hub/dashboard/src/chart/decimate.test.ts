// Does what is drawn keep every excursion, and leave every gap open?
import { describe, expect, it } from "vitest";
import { decimate, gapUs, join, seriesOf } from "./decimate";
import { windowStart } from "./range";

const SECOND = 1_000_000;
const hour = (value: (index: number) => number) =>
  seriesOf(
    Array.from({ length: 3600 }, (_, index) => index * SECOND),
    Array.from({ length: 3600 }, (_, index) => value(index)),
  );

describe("decimation", () => {
  it("keeps an excursion of a single sample among 3,600 on 300 columns", () => {
    for (const excursion of [0, 1, 1799, 3598, 3599]) {
      const low = decimate(hour((index) => (index === excursion ? 71.9 : 73.2)), 0, 3599 * SECOND, 300, 5 * SECOND);
      expect(Math.min(...(low.y as number[]))).toBe(71.9);
      const high = decimate(hour((index) => (index === excursion ? 99 : 73.2)), 0, 3599 * SECOND, 300, 5 * SECOND);
      expect(Math.max(...(high.y as number[]))).toBe(99);
    }
  });

  it("gives at most two points a column, in time order", () => {
    const { x } = decimate(hour((index) => Math.sin(index)), 0, 3600 * SECOND, 300, 5 * SECOND);
    expect(x.length).toBeLessThanOrEqual(600);
    expect([...x].sort((a, b) => a - b)).toEqual(x);
  });

  it("breaks the line at a gap, even inside one column", () => {
    const series = seriesOf([0, 1, 2, 60, 61].map((s) => s * SECOND), [1, 2, 3, 4, 5]);
    const { y } = decimate(series, 0, 3600 * SECOND, 10, 5 * SECOND);
    expect(y).toEqual([1, 3, null, 4, 5]);
  });

  it("breaks the line at a bad reading and never draws a value for it", () => {
    const series = seriesOf([0, 1, 2, 3, 4].map((s) => s * SECOND), [1, 2, Number.NaN, Number.NaN, 5]);
    const { y } = decimate(series, 0, 10 * SECOND, 100, 5 * SECOND);
    expect(y).toEqual([1, 2, null, 5]);
  });

  it("draws nothing from nothing, and nothing outside the range", () => {
    expect(decimate(seriesOf([], []), 0, SECOND, 100, SECOND).x).toEqual([]);
    expect(decimate(seriesOf([-5, 99 * SECOND], [1, 2]), 0, SECOND, 100, SECOND).x).toEqual([]);
  });
});

describe("joining history and live readings", () => {
  it("keeps time order, and a time that both have once, as the stream has it", () => {
    const joined = join(seriesOf([1, 2, 4, 6], [10, 20, 40, 60]), seriesOf([2, 3, 6, 7], [21, 30, 61, 70]));
    const pairs = Array.from({ length: joined.length }, (_, i) => [joined.timeAt(i), joined.valueAt(i)]);
    expect(pairs).toEqual([[1, 10], [2, 21], [3, 30], [4, 40], [6, 61], [7, 70]]);
  });
});

describe("the window of a chart", () => {
  it("is the wanted span, or what there is of a young tag, but never less than five minutes", () => {
    const from = (first_s: number) => windowStart(seriesOf([first_s * SECOND], [1]), 10_000 * SECOND, 3600 * SECOND) / SECOND;
    expect([from(0), from(7_000), from(9_999)]).toEqual([6_400, 7_000, 9_700]);
    expect(windowStart(seriesOf([], []), 10_000 * SECOND, 3600 * SECOND)).toBe(6_400 * SECOND);
  });
});

describe("gap width", () => {
  it("grows with the period and with the bucket width, and is never below five seconds", () => {
    expect(gapUs(100, 0)).toBe(5 * SECOND);
    expect(gapUs(0, SECOND)).toBe(Number.POSITIVE_INFINITY);
    expect(gapUs(30_000, 0)).toBe(150 * SECOND);
    expect(gapUs(1_000, 96 * SECOND)).toBe(240 * SECOND);
  });
});
