// Does the alarm list put first what a person owes, and does a trend leave its gaps open?
import { describe, expect, it } from "vitest";
import type { Alarm, SeriesBucket, TagSeries } from "../../api/types";
import { limitSteps, notGood, resolutionWords, toDrawn } from "../../chart/series_points";
import { compareAlarms, isLate, percent, priorityOf, verbFor } from "./alarm_words";
import { chosenTags, limitWords } from "./trends";

function alarm(id: string, changed: Partial<Alarm>): Alarm {
  return {
    id, version: 1, edge: null, rule_id: "r", line_id: null, code: "warm", subject: "TT-403", message: "Too warm",
    priority: 3, state: "unacknowledged", is_active: true, raised_us: 1_000_000, cleared_us: null, found_us: 2_000_000,
    withdrawn_us: null, shelved_until_us: null, acked_us: null, acked_by: null, value: 6, unit: "degC", response: null,
    ...changed,
  };
}

describe("the alarm list", () => {
  it("shows what is owed first, then by priority, then the newest", () => {
    const all = [
      alarm("acked", { state: "acknowledged", priority: 1 }),
      alarm("low", { priority: 3, raised_us: 9_000_000 }),
      alarm("old", { priority: 2, raised_us: 1_000_000 }),
      alarm("new", { priority: 2, raised_us: 5_000_000 }),
      alarm("back", { state: "returned_unacknowledged", priority: 1 }),
    ];
    expect(all.sort(compareAlarms).map((each) => each.id)).toEqual(["back", "new", "old", "low", "acked"]);
  });

  it("offers a button for the hub's own alarms only", () => {
    expect(verbFor(alarm("a", {}))).toBe("acknowledge");
    expect(verbFor(alarm("a", { state: "latched" }))).toBe("reset");
    expect(verbFor(alarm("a", { state: "acknowledged" }))).toBeNull();
    expect(verbFor(alarm("a", { edge: "akron-1" }))).toBeNull();
  });

  it("has a colour for three priorities and says what was found late", () => {
    expect(priorityOf({ priority: 4 })).toBeNull();
    expect(priorityOf({ priority: null })).toBeNull();
    expect(priorityOf({ priority: 1 })).toBe(1);
    expect(isLate({ raised_us: 0, found_us: 61_000_000 })).toBe(true);
    expect(percent(0.004)).toBe("0.4\u00a0%");
  });
});

const series: TagSeries = {
  tag_id: 1, name: "TT-101", unit: "degC", period_ms: 1000, resolution_us: 60_000_000, points: null,
  buckets: [
    { from_us: 0, n: 60, n_good: 60, first: [0, 72], min: [7e6, 60], max: [3e6, 75], last: [59e6, 73], mean: 72, quality: 0 },
    { from_us: 120e6, n: 1, n_good: 1, first: [130e6, 71], min: [130e6, 71], max: [130e6, 71], last: [130e6, 71], mean: 71, quality: 0 },
  ],
  gaps: [{ from_us: 59e6, to_us: 130e6, kind: "silent", reason: null }],
  gaps_left_out: 0, n: 61, good_share: 1, mean: 72, good_s: 61, limits: [],
};

describe("a trend", () => {
  it("keeps the dip at its time and draws no line through the gap", () => {
    const drawn = toDrawn(series);
    expect(drawn.x).toEqual([0, 3, 7, 30, 59, 94.5, 130, 150]);
    expect(drawn.y).toEqual([72, 75, 60, undefined, 73, null, 71, undefined]);
    expect(drawn.mean).toEqual([undefined, undefined, undefined, 72, undefined, null, undefined, 71]);
  });

  it("breaks at a bad reading among readings as they are, and has no mean there", () => {
    const raw: TagSeries = { ...series, resolution_us: 0, points: [[0, 1, 0], [1e6, null, 0x800a], [2e6, 1, 0]], buckets: [], gaps: [] };
    expect(toDrawn(raw).y).toEqual([1, null, 1]);
    expect(toDrawn(raw).mean).toEqual([undefined, undefined, undefined]);
  });

  it("says its resolution in words", () => {
    expect(resolutionWords(0)).toBe("readings as they are");
    expect(resolutionWords(60e6)).toBe("1-minute mean, least and greatest");
    expect(resolutionWords(90e6)).toBe("90-second mean, least and greatest");
    expect(resolutionWords(7200e6)).toBe("2-hour mean, least and greatest");
  });

  it("marks where quality was not good: each reading until the next, or the bucket whole", () => {
    const points: TagSeries["points"] = [[0, 1, 0], [1e6, 1, 0x4000], [2e6, null, 0x8000], [4e6, 1, 0], [5e6, 1, 0x4000]];
    expect(notGood({ ...series, points })).toEqual([[1e6, 4e6], [5e6, 6e6]]);
    const [first, second] = series.buckets as [SeriesBucket, SeriesBucket];
    expect(notGood({ ...series, buckets: [{ ...first, n_good: 59 }, second] })).toEqual([[0, 60e6]]);
    expect(notGood(series)).toEqual([]);
  });

  it("draws a limit that changed as steps, cut to the range, and one that is over not beyond its end", () => {
    const limit = { kind: "critical", code: "CCP-1", high: null, priority: null } as const;
    const steps = limitSteps(
      [{ ...limit, version: 2, low: 73, from_us: 50, to_us: null }, { ...limit, version: 1, low: 72, from_us: null, to_us: 50 }],
      10,
      100,
    );
    expect(steps.map(({ value, from_us, to_us }) => [value, from_us, to_us])).toEqual([[72, 10, 50], [73, 50, 100]]);
    const over = { ...limit, kind: "rule" as const, version: 1, low: 1, high: 9, from_us: 0, to_us: 10 };
    expect(limitSteps([over], 10, 100)).toEqual([]);
    expect(limitSteps([over], 0, 100).map((step) => step.side)).toEqual(["low", "high"]);
  });

  it("tells limits in words, with when one took the place of another", () => {
    const limit = { kind: "critical", code: "CCP-1", high: null, priority: null } as const;
    const now = { ...limit, version: 2, low: 73, from_us: 3_600_000_000, to_us: null };
    expect(limitWords({ ...now, from_us: null }, "degC", 7_200_000_000, "UTC")).toBe("CCP-1 v2 critical limit ≥ 73.00\u00a0°C");
    expect(limitWords(now, "degC", 7_200_000_000, "UTC")).toMatch(/since 01:00:00$/);
    expect(limitWords({ ...now, to_us: 5_400_000_000 }, "degC", 7_200_000_000, "UTC")).toMatch(/01:00:00 to 01:30:00$/);
    expect(limitWords({ ...now, from_us: null, to_us: 5_400_000_000 }, "degC", 7_200_000_000, "UTC")).toMatch(/until 01:30:00$/);
  });

  it("shows the tags of its address that exist, else the first key tags", () => {
    const known = (id: number) => id < 10;
    expect(chosenTags("3,x,3,99,4", known, [1, 2])).toEqual([3, 4]);
    expect(chosenTags(undefined, known, [7, 8, 9])).toEqual([7, 8]);
  });
});
