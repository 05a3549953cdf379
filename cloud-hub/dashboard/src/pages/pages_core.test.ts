// The decisions behind the pages: what needs action, what a CCP shows, which words are used.
import { beforeEach, describe, expect, it } from "vitest";
import { withQuery } from "../api/client";
import { reporting } from "../api/queries";
import type { Ccp, Deviation, Edge, Hold, Line, Tag, VisionResult } from "../api/types";
import { may } from "../components/plant";
import { shownTags } from "../components/shell";
import { trustWords } from "../components/trust";
import { staleWords } from "../components/value";
import { duration, formatLimits, formatValue, formatWithUnit, plainUnits, windowWords, words } from "../format";
import { actorWords, changedFields, verdictWords } from "./integrity/record";
import { readSession, startSession } from "../session";
import { viewCcp, worstFirst } from "./fsq/ccp_state";
import { quantityOnHold } from "./fsq/holds";
import { safeNext } from "./identity/sign_in";
import { actNow, joinDeviations } from "./plant_ops/act_now";
import { certificateWords, configWords, unhealthyFirst } from "./plant_ops/data_trust";
import { linePriority, lineTrouble } from "./plant_ops/line_strip";
import { place } from "./vision/boxed_image";
import { classesOf } from "./vision/defects";

const S = 1_000_000;
const NOW = 10_000 * S;

const ccp = (change: Partial<Ccp> = {}): Ccp => ({
  id: "c1", code: "CCP-1", name: "HTST", line_id: "l1", tag_id: 1, limit_low: 72, limit_high: null, unit: "degC",
  limit_version: 1, state: "in_control", last: { time_us: NOW - S, value: 73.2, quality: 0 }, margin: 1.2,
  last_check: { from_us: 0, to_us: 1, verdict: "met", value_min: 73, value_max: 73, value_last: 73, good: 60, bad: 0, missing: 0 },
  open_deviation_id: null, challenge: null, ...change,
});
const tag = { id: 1, name: "TT-101", period_ms: 1000 } as Tag;
const line = (change: Partial<Line> = {}): Line => ({
  id: "l1", code: "L1", name: "HTST", plant_id: "p", state: "running", since_us: null, rate_per_min: null,
  target_per_min: null, batch: null, open_holds: 0, open_deviations: 0, key_tags: [1, 2], rate_tag_id: 3, ...change,
});
const deviation = (change: Partial<Deviation> = {}): Deviation => ({
  id: "d1", ccp_id: "c1", ccp_code: "CCP-1", line_id: "l1", kind: "limit", status: "open", window_from_us: NOW - 60 * S,
  window_to_us: null, detected_us: NOW - 59 * S, value_extreme: 70.9, limit_low: 72, limit_high: null, unit: "degC",
  limit_version: 1, hold_id: null, hold_code: null, acknowledged_by: null, acknowledged_us: null, late: false, detail: "",
  ...change,
});
const hold = (change: Partial<Hold> = {}): Hold => ({
  id: "h1", code: "H-1", status: "open", deviation_id: null, reason: "below limit", placed_us: NOW - 50 * S, widened: false,
  lots: [{ lot_id: "x", lot_code: "OWM32-6324-1A", sku: "OWM32", quantity: 4120, unit: "bottles", status: "held" }], ...change,
});

describe("a CCP on the board", () => {
  it("is in control only while its sensor is seen", () => {
    expect(viewCcp(ccp(), tag, null, null, NOW, true)).toMatchObject({ state: "in_control", priority: null });
    expect(viewCcp(ccp(), tag, null, null, NOW + 60 * S, true)).toMatchObject({ state: "monitoring_gap", priority: 2, margin: null });
    expect(viewCcp(ccp({ last: null }), tag, null, null, NOW, true).state).toBe("monitoring_gap");
    expect(viewCcp(ccp({ last: null, tag_id: null, state: "unknown" }), undefined, null, null, NOW, true)).toMatchObject({
      state: "unknown", priority: null,
    });
  });

  it("is unknown, not a monitoring gap, while the page itself hears nothing", () => {
    expect(viewCcp(ccp(), tag, null, null, NOW + 60 * S, false)).toMatchObject({ state: "unknown", priority: null });
  });

  it("is not called in control before anything was judged, nor while its value is beyond the limit", () => {
    expect(viewCcp(ccp({ last_check: null }), tag, null, null, NOW, true)).toMatchObject({ state: "unknown", word: "Not judged yet" });
    const low = { time_us: NOW, value: 61.9, quality: 0, flags: 0 };
    expect(viewCcp(ccp(), tag, low, low, NOW, true)).toMatchObject({ state: "unknown", word: "Beyond limit, not judged yet" });
  });

  it("keeps the hub's worse judgement, and 'not running' when nobody looks", () => {
    expect(viewCcp(ccp({ state: "deviation" }), tag, null, null, NOW + 60 * S, true).priority).toBe(1);
    expect(viewCcp(ccp({ state: "not_running" }), tag, null, null, NOW + 60 * S, true).state).toBe("not_running");
  });

  it("takes the margin to the nearest limit from the newest good value", () => {
    const live = { time_us: NOW, value: 71.5, quality: 0, flags: 0 };
    expect(viewCcp(ccp(), tag, live, live, NOW, true).margin).toBeCloseTo(-0.5);
    const both = viewCcp(ccp({ limit_low: 60, limit_high: 80 }), tag, live, live, NOW, true);
    expect(both.margin).toBeCloseTo(8.5);
  });

  it("knows the last valid reading under a bad one", () => {
    const bad = { time_us: NOW, value: null, quality: 0x8000, flags: 0 };
    const good = { time_us: NOW - 9 * S, value: 73, quality: 0, flags: 0 };
    expect(viewCcp(ccp({ last: null }), tag, bad, good, NOW, true)).toMatchObject({ fresh: "bad", last_valid_us: NOW - 9 * S });
  });

  it("sorts worst first", () => {
    const states = ["not_running", "in_control", "unknown", "diverted", "deviation"] as const;
    const views = states.map((state, index) => viewCcp(ccp({ id: state, code: `CCP-${index}`, state }), tag, null, null, NOW, true));
    expect(views.sort(worstFirst).map((view) => view.state)).toEqual([
      "deviation", "diverted", "unknown", "in_control", "not_running",
    ]);
  });
});

describe("act now", () => {
  const base = { deviations: [], holds: [], ccps: [], lines: [line()] };

  it("is empty when nothing is open", () => {
    const calm = viewCcp(ccp(), tag, null, null, NOW, true);
    expect(actNow({ ...base, ccps: [calm] })).toEqual([]);
  });

  it("shows a deviation and its hold as one row", () => {
    const rows = actNow({
      ...base,
      deviations: [deviation({ hold_id: "h1", hold_code: "H-1" })],
      holds: [hold({ deviation_id: "d1" })],
    });
    expect(rows).toHaveLength(1);
    expect(rows[0]).toMatchObject({ priority: 1, line_code: "L1", what: "CCP-1 critical limit broken" });
    expect(rows[0]?.measure).toBe("70.90\u00a0°C, limit ≥ 72.00\u00a0°C");
    expect(rows[0]?.product).toBe("held: H-1, lot OWM32-6324-1A, 4,120\u00a0bottles");
  });

  it("tells a stuck sensor in words, not by a limit", () => {
    const stuck = deviation({ kind: "sensor_stuck", value_extreme: null, detail: "TT-101 did not move" });
    expect(actNow({ ...base, deviations: [stuck] })[0]).toMatchObject({ priority: 2, measure: "TT-101 did not move" });
  });

  it("puts product that was not cooled or held as required first, and a missed check after it", () => {
    const of = (kind: Deviation["kind"]) => actNow({ ...base, deviations: [deviation({ kind, detail: "TT-204 did not fall" })] })[0];
    expect(of("cooling")).toMatchObject({ priority: 1, what: "CCP-1 cooled too slowly", measure: "TT-204 did not fall" });
    expect(of("missed_check")).toMatchObject({ priority: 2, what: "CCP-1 check missed" });
  });

  it("keeps the hold when the deviation was acknowledged", () => {
    const rows = actNow({
      ...base,
      deviations: [deviation({ acknowledged_us: NOW })],
      holds: [hold({ deviation_id: "d1", widened: true })],
    });
    expect(rows.map((row) => [row.what, row.priority, row.line_code])).toEqual([["H-1 open", 2, "L1"]]);
    expect(rows[0]?.product).toContain("widened");
  });

  it("keeps a deviation that ended by itself until somebody has acknowledged it", () => {
    const over = deviation({ status: "closed", window_to_us: NOW, hold_id: "h1", hold_code: "H-1" });
    const rows = actNow({ ...base, deviations: joinDeviations([], [over]), holds: [hold({ deviation_id: "d1" })] });
    expect(rows.map((row) => [row.priority, row.is_back_to_normal])).toEqual([[1, true]]);
    expect(actNow({ ...base, deviations: [{ ...over, acknowledged_us: NOW }] })).toEqual([]);
  });

  it("takes an open deviation once, as the list of open ones has it", () => {
    const joined = joinDeviations([deviation({ value_extreme: 70 })], [deviation({ value_extreme: 71 }), deviation({ id: "d2" })]);
    expect(joined.map((each) => [each.id, each.value_extreme])).toEqual([["d1", 70], ["d2", 70.9]]);
  });

  it("lists a CCP that is not seen, once", () => {
    const unseen = viewCcp(ccp(), tag, null, null, NOW + 60 * S, true);
    expect(actNow({ ...base, ccps: [unseen] }).map((row) => row.what)).toEqual(["CCP-1 not seen"]);
    const rows = actNow({ ...base, ccps: [unseen], deviations: [deviation({ kind: "monitoring_gap", value_extreme: null })] });
    expect(rows.map((row) => row.what)).toEqual(["CCP-1 monitoring gap"]);
  });

  it("says of a CCP that was never seen that it was never seen, and not since now", () => {
    const never = viewCcp(ccp({ last: null }), tag, null, null, NOW, true);
    expect(actNow({ ...base, ccps: [never] })).toMatchObject([{ measure: "no valid reading yet", since_us: null }]);
  });

  it("does not list a gap that is over, although its deviation is open", () => {
    const seen_again = viewCcp(ccp({ state: "monitoring_gap" }), tag, null, null, NOW, true);
    const acknowledged = deviation({ kind: "monitoring_gap", acknowledged_us: NOW });
    expect(actNow({ ...base, ccps: [seen_again], deviations: [acknowledged] })).toEqual([]);
  });

  it("puts what is critical first, then the newest", () => {
    const rows = actNow({
      ...base,
      deviations: [deviation({ id: "old", kind: "sensor_stuck", window_from_us: 1 }), deviation({ id: "limit", window_from_us: 2 })],
      holds: [hold({ placed_us: 3 })],
    });
    expect(rows.map((row) => row.key)).toEqual(["deviation limit", "hold h1", "deviation old"]);
  });

  it("says so when no lot was found", () => {
    expect(actNow({ ...base, holds: [hold({ lots: [] })] })[0]?.product).toBe("held: no lot found on the equipment");
  });
});

describe("words", () => {
  it("never round a value onto its limit", () => {
    expect(formatValue(71.96)).toBe("71.96");
    expect(formatValue(8950.4)).toBe("8,950");
    expect(formatValue(-1.5)).toBe("−1.50");
    expect(formatValue(null)).toBe("—");
    expect(formatWithUnit(3.4, "degC")).toBe("3.40\u00a0°C");
    expect(formatLimits(60, 80, "ppm")).toBe("60.00 to 80.00\u00a0ppm");
  });

  it("tell a window that lasts from one that is over, and units as people write them", () => {
    expect(windowWords(0, 60 * S, 61 * S, "UTC")).toBe("00:00:00 to 00:01:00");
    expect(windowWords(0, null, 61 * S, "UTC")).toBe("since 00:00:00, not over");
    expect(plainUnits("TT-101 fell to 71.1 degC; at least 72 degC")).toBe("TT-101 fell to 71.1 °C; at least 72 °C");
  });

  it("tell durations, and a source clock that is ahead as zero", () => {
    expect([8 * S, 90 * S, 3_900 * S, 400_000 * S, -5].map(duration)).toEqual(["8 s", "1 min", "1 h 05 min", "4 d", "0 s"]);
    expect(words("seal_contamination")).toBe("Seal contamination");
  });

  it("tell how old a value is as the states say", () => {
    const seen = { time_us: 0, value: 1, quality: 0, flags: 0 };
    const common = { seen, good: seen, zone: "America/New_York" };
    expect(staleWords({ ...common, fresh: "fresh", now_us: S })).toBe("");
    expect(staleWords({ ...common, fresh: "late", now_us: 8 * S })).toBe("8 s ago");
    expect(staleWords({ ...common, fresh: "stale", now_us: 180 * S })).toBe("Stale · 19:00:00 · 3 min ago");
    expect(staleWords({ ...common, fresh: "bad", now_us: S })).toBe("Sensor fault since 19:00");
    expect(staleWords({ ...common, seen: null, fresh: "none", now_us: S })).toBe("No reading yet");
  });

  it("answer whether the numbers can be believed", () => {
    const silent = { name: "akron-2", silent_us: 240 * S, backlog_frames: 12_480 };
    expect(trustWords(4, [], 2 * S, true)).toBe("All 4 edges live · oldest value 2 s");
    expect(trustWords(4, [silent], 2 * S, true)).toBe("akron-2 silent 4 min · 12,480 frames waiting");
    expect(trustWords(4, [silent, silent], 2 * S, true)).toBe("2 of 4 edges live");
    expect(trustWords(4, [], 2 * S, false)).toBe("Data state unknown");
    expect(trustWords(0, [], null, true)).toBe("No edge reports");
  });
});

describe("small decisions", () => {
  beforeEach(() => sessionStorage.clear());

  it("ask the stream for each shown tag once", () => {
    expect(shownTags([line(), line({ rate_tag_id: null })], [ccp({ tag_id: 9 }), ccp()])).toEqual([1, 2, 3, 9]);
  });

  it("mark a line by its worst trouble", () => {
    expect(linePriority(line({ open_deviations: 1, open_holds: 1 }), false)).toBe(1);
    expect(linePriority(line({ open_holds: 1 }), false)).toBe(2);
    expect(linePriority(line(), true)).toBe(2);
    expect(linePriority(line(), false)).toBeNull();
    expect(lineTrouble(line({ open_deviations: 2, open_holds: 1 }), "TT-101")).toBe("2 open deviations, 1 open hold, TT-101 not seen");
  });

  it("place boxes in shares of the source frame and clip them to it", () => {
    const box = { class: "crack", score: 1, x0: 320, y0: 180, x1: 640, y1: 900 };
    expect(place(box, 1280, 720)).toEqual({ left_pct: 25, top_pct: 25, width_pct: 25, height_pct: 75 });
  });

  it("offer the classes that were found, sum held quantities by unit, put silent edges first", () => {
    const result = (classes: string[]) => ({ defects: classes.map((name) => ({ class: name })) }) as VisionResult;
    expect(classesOf([result(["crack", "over_bake"]), result(["crack"])])).toEqual(["crack", "over_bake"]);
    const lot = (quantity: number, unit: string) => ({ lot_id: "", lot_code: "", sku: "", quantity, unit, status: "held" as const });
    expect(quantityOnHold([lot(600, "cases"), lot(40, "cases"), lot(2.5, "kg")])).toBe("640\u00a0cases, 2.5\u00a0kg");
    const edge = (name: string, state: Edge["state"]) => ({ name, state }) as Edge;
    const edges = [edge("a", "online"), edge("c", "on_demand"), edge("b", "offline")];
    expect(reporting(edges).sort(unhealthyFirst).map((each) => each.name)).toEqual(["b", "a"]);
  });

  it("tells of a configuration only what is not as it should be", () => {
    expect(configWords({ config_revision: null, config_state: null })).toBe("—");
    expect(configWords({ config_revision: 3, config_state: "applied" })).toBe("r3");
    expect(configWords({ config_revision: 4, config_state: "rolled_back" })).toBe("r4 rolled back");
  });

  it("tells how long a certificate is good, and says so before it ends", () => {
    const day = 86_400_000_000;
    expect(certificateWords(null, 0)).toBe("—");
    expect(certificateWords(60 * day, 0)).toBe("60 d");
    expect(certificateWords(9 * day + 1, 0)).toBe("expires in 9 d");
    expect(certificateWords(-1, 0)).toBe("expired");
  });

  it("say of the record what was changed, by whom, and where it breaks", () => {
    const entry = { before: { name: "a", version: 1, kept: 1 }, after: { name: "b", version: 2, kept: 1 } };
    expect(changedFields(entry)).toEqual([["name", "a", "b"], ["version", "1", "2"]]);
    expect(actorWords({ actor: { kind: "edge", id: "akron-1", name: null } })).toBe("Edge akron-1");
    expect(verdictWords({ rows: 1200, first_broken: null })).toBe("The chain is whole: 1,200 entries verified.");
    expect(verdictWords({ rows: 7, first_broken: { seq: 8, why: "its hash does not follow" } })).toContain("entry 8");
  });

  it("follow only paths of this application after sign-in", () => {
    expect(safeNext("/t/akron/p/akron/ccp")).toBe("/t/akron/p/akron/ccp");
    for (const bad of ["https://evil.example/", "//evil.example", "/t//evil.example", "/t/\\evil", "/login", undefined]) {
      expect(safeNext(bad)).toBeNull();
    }
  });

  it("read permissions as the hub names them and leave empty query values out", () => {
    expect(may(["fsq.deviation.acknowledge"], "deviation.acknowledge")).toBe(true);
    expect(may(["hold.read"], "deviation.acknowledge")).toBe(false);
    expect(withQuery("x", { a: undefined, b: null, c: "", d: 0, e: "ä&" })).toBe("x?d=0&e=%C3%A4%26");
  });

  it("forget an expired session and one that is no JSON", () => {
    startSession("akron", "t", 900);
    expect(readSession()?.token).toBe("t");
    expect(readSession(Date.now() + 901_000)).toBeNull();
    sessionStorage.setItem("foodflow.session", "{");
    expect(readSession()).toBeNull();
  });
});
