// Are the ticks on round plant-local times, also when the clocks change?
import { describe, expect, it } from "vitest";
import { stepSeconds, tickLabel, timeTicks, zoneOffsetMin } from "./time_axis";

const ZONE = "America/New_York";
const at = (text: string) => Date.parse(text) / 1000;
const labels = (from_s: number, to_s: number, ticks_max: number) => {
  const step_s = stepSeconds(to_s - from_s, ticks_max);
  return timeTicks(ZONE, from_s, to_s, ticks_max).map((tick) => tickLabel(ZONE, tick, step_s));
};

describe("the time axis in the plant's zone", () => {
  it("knows the zone's offset on both sides of a clock change", () => {
    expect(zoneOffsetMin(ZONE, Date.parse("2026-11-01T05:59:59Z"))).toBe(-240);
    expect(zoneOffsetMin(ZONE, Date.parse("2026-11-01T06:00:00Z"))).toBe(-300);
    expect(zoneOffsetMin("Asia/Kathmandu", 0)).toBe(330);
    expect(zoneOffsetMin("Asia/Kathmandu", Date.parse("2026-01-01T00:00:00Z"))).toBe(345);
  });

  it("puts ticks on round local times", () => {
    expect(labels(at("2026-06-10T10:03:20Z"), at("2026-06-10T11:03:20Z"), 6)).toEqual([
      "06:10", "06:20", "06:30", "06:40", "06:50", "07:00",
    ]);
    expect(timeTicks("Asia/Kathmandu", at("2026-01-01T00:00:00Z"), at("2026-01-01T06:00:00Z"), 6).length).toBe(6);
  });

  it("shows the repeated hour of the 25-hour day twice", () => {
    expect(labels(at("2026-11-01T04:00:00Z"), at("2026-11-01T09:00:00Z"), 6)).toEqual([
      "00:00", "01:00", "01:00", "02:00", "03:00", "04:00",
    ]);
  });

  it("skips the missing hour of the 23-hour day and stays on round times", () => {
    expect(labels(at("2026-03-08T05:00:00Z"), at("2026-03-08T17:00:00Z"), 7)).toEqual([
      "00:00", "04:00", "06:00", "08:00", "10:00", "12:00",
    ]);
  });

  it("never makes more ticks than asked for on an ordinary day, and none backwards", () => {
    for (const span_s of [60, 900, 3600, 28_800, 86_400]) {
      const ticks = timeTicks(ZONE, at("2026-06-10T10:00:01Z"), at("2026-06-10T10:00:01Z") + span_s, 8);
      expect(ticks.length).toBeLessThanOrEqual(9);
      expect([...ticks].sort((a, b) => a - b)).toEqual(ticks);
    }
  });
});
