// What the board and the list of what needs somebody say of a point that is challenged at times.
import { describe, expect, it } from "vitest";
import type { Ccp, CcpChallenge } from "../../api/types";
import { actNow } from "../plant_ops/act_now";
import { dueWords } from "./ccp_board";
import { viewCcp } from "./ccp_state";

const MINUTE = 60_000_000;
const NOW = 100_000 * MINUTE;

function point(change: Partial<Ccp>, challenge: Partial<CcpChallenge>): Ccp {
  return {
    id: "c5", code: "CCP-5", name: "Metal detector challenge", line_id: "l4", tag_id: 9, limit_low: null, limit_high: null,
    unit: "", limit_version: 1, state: "unknown", last: null, margin: null, last_check: null, open_deviation_id: null,
    challenge: { every_us: 60 * MINUTE, grace_us: 5 * MINUTE, due_us: NOW + 12 * MINUTE, is_missed: false, ...challenge },
    ...change,
  };
}
const passed = {
  from_us: NOW - 48 * MINUTE, to_us: NOW - 48 * MINUTE, verdict: "met", value_min: 1, value_max: 1, value_last: 1, good: 1,
  bad: 0, missing: 0,
};
const view = (ccp: Ccp, is_current = true) => viewCcp(ccp, undefined, null, null, NOW, is_current);
const rows = (ccp: Ccp) => actNow({ deviations: [], holds: [], ccps: [view(ccp)], lines: [] });

describe("a point that is challenged at times", () => {
  it("is not called unseen before its first challenge is due, but says when that is", () => {
    const fresh = view(point({}, {}));
    expect(fresh).toMatchObject({ state: "unknown", priority: null, word: "Not challenged yet", due_us: NOW + 12 * MINUTE });
    expect(rows(point({}, {}))).toEqual([]);
    expect(dueWords(NOW + 12 * MINUTE, NOW, "UTC")).toMatch(/^challenge due .*, in 12 min$/);
  });

  it("is in control by its last challenge, without any reading, as long as the page hears the hub", () => {
    const ccp = point({ state: "in_control", last_check: passed }, {});
    expect(view(ccp)).toMatchObject({ state: "in_control", priority: null, last_valid_us: passed.to_us });
    expect(view(ccp, false)).toMatchObject({ state: "unknown", priority: null });
    expect(rows(ccp)).toEqual([]);
  });

  it("needs somebody once the challenge was missed, since when it was due and not since now", () => {
    const due_us = NOW - 7 * MINUTE;
    const missed = point({ state: "monitoring_gap", last_check: passed }, { due_us, is_missed: true });
    expect(view(missed)).toMatchObject({ priority: 2, word: "Challenge missed" });
    expect(rows(missed)).toMatchObject([{ what: "CCP-5 challenge missed", since_us: due_us, priority: 2 }]);
    expect(rows(point({ state: "monitoring_gap" }, { due_us, is_missed: true }))[0]?.measure).toBe("never challenged");
    expect(dueWords(due_us, NOW, "UTC")).toMatch(/^challenge was due .*, 7 min ago$/);
  });

  it("owes nothing while its line stands", () => {
    expect(view(point({ state: "not_running" }, { is_missed: true })).due_us).toBeNull();
  });
});
