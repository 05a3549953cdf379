// Does the alarm list put first what a person owes, and does a trend leave its gaps open?
import { describe, expect, it } from "vitest";
import type { Alarm, TagSeries } from "../../api/types";
import { resolutionWords, toDrawn } from "../../chart/series_points";
import { compareAlarms, isLate, percent, priorityOf, verbFor } from "./alarm_words";
import { chosenTags } from "./trends";

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
  gaps_left_out: 0, n: 61, good_share: 1, mean: 72, good_s: 61,
};

describe("a trend", () => {
  it("keeps the dip at its time and draws no line through the gap", () => {
    const drawn = toDrawn(series);
    expect(drawn.x).toEqual([0, 3, 7, 59, 94.5, 130]);
    expect(drawn.y).toEqual([72, 75, 60, 73, null, 71]);
  });

  it("breaks at a bad reading among readings as they are", () => {
    const raw: TagSeries = { ...series, resolution_us: 0, points: [[0, 1, 0], [1e6, null, 0x800a], [2e6, 1, 0]], buckets: [], gaps: [] };
    expect(toDrawn(raw).y).toEqual([1, null, 1]);
    expect(resolutionWords(0)).toBe("readings as they are");
    expect(resolutionWords(300e6)).toBe("steps of 5 min, extremes kept");
  });

  it("shows the tags of its address that exist, else the first key tags", () => {
    const known = (id: number) => id < 10;
    expect(chosenTags("3,x,3,99,4", known, [1, 2])).toEqual([3, 4]);
    expect(chosenTags(undefined, known, [7, 8, 9])).toEqual([7, 8]);
  });
});
