// What needs a person now, most pressing first? Pure: open records and CCP views in, rows out.
import type { Deviation, Hold, Line } from "../../api/types";
import { formatLimits, formatQuantity, formatWithUnit, plainUnits } from "../../format";
import type { CcpView, Priority } from "../fsq/ccp_state";

export type ActTarget =
  | { kind: "deviation"; deviation: Deviation }
  | { kind: "hold"; hold: Hold }
  | { kind: "ccp"; view: CcpView };

export interface ActRow {
  key: string;
  priority: Priority;
  /** It is over, but nobody has said that they saw it. */
  is_back_to_normal: boolean;
  what: string;
  /** Value and limit with unit, or the reason. */
  measure: string;
  /** Null when it has never been otherwise. */
  since_us: number | null;
  /** Lots and hold state. */
  product: string;
  line_code: string;
  target: ActTarget;
}

const DEVIATION_WORDS: Record<Deviation["kind"], string> = {
  limit: "critical limit broken",
  monitoring_gap: "monitoring gap",
  sensor_stuck: "sensor stuck",
  hold_time: "not held long enough",
  cooling: "cooled too slowly",
  challenge: "challenge failed",
  missed_check: "check missed",
};

/** Nobody knows whether the limit was met; with all others it is known that control was lost. */
const UNMONITORED: readonly Deviation["kind"][] = ["monitoring_gap", "sensor_stuck", "missed_check"];

export function deviationWords(deviation: Deviation): string {
  return `${deviation.ccp_code} ${DEVIATION_WORDS[deviation.kind]}`;
}

export function deviationPriority(deviation: Deviation): Priority {
  return UNMONITORED.includes(deviation.kind) ? 2 : 1;
}

export function deviationMeasure(deviation: Deviation): string {
  // Only a broken limit is told by a value; a stuck or silent sensor is told in words.
  if (deviation.kind !== "limit" && deviation.detail !== "") return plainUnits(deviation.detail);
  const limits = formatLimits(deviation.limit_low, deviation.limit_high, deviation.unit);
  if (deviation.value_extreme === null) return `limit ${limits}`;
  return `${formatWithUnit(deviation.value_extreme, deviation.unit)}, limit ${limits}`;
}

export function lotsWords(hold: Hold): string {
  if (hold.lots.length === 0) return "no lot found on the equipment";
  const [first] = hold.lots;
  if (hold.lots.length === 1 && first !== undefined) {
    return `lot ${first.lot_code}, ${formatQuantity(first.quantity, first.unit)}`;
  }
  return `${hold.lots.length} lots`;
}

function deviationRow(deviation: Deviation, hold: Hold | undefined, line_code: string): ActRow {
  const hold_code = deviation.hold_code ?? hold?.code ?? null;
  const held = hold === undefined ? "" : `, ${lotsWords(hold)}`;
  return {
    key: `deviation ${deviation.id}`,
    priority: deviationPriority(deviation),
    is_back_to_normal: deviation.status === "closed",
    what: deviationWords(deviation),
    measure: deviationMeasure(deviation),
    since_us: deviation.window_from_us,
    product: hold_code === null ? "no product held" : `held: ${hold_code}${held}`,
    line_code,
    target: { kind: "deviation", deviation },
  };
}

function holdRow(hold: Hold, line_code: string): ActRow {
  return {
    key: `hold ${hold.id}`,
    priority: 2,
    is_back_to_normal: false,
    what: `${hold.code} open`,
    measure: plainUnits(hold.reason),
    since_us: hold.placed_us,
    product: `held: ${lotsWords(hold)}${hold.widened ? ", widened" : ""}`,
    line_code,
    target: { kind: "hold", hold },
  };
}

function ccpRow(view: CcpView, line_code: string): ActRow {
  const row = {
    key: `ccp ${view.ccp.id}`,
    priority: view.priority ?? 2,
    is_back_to_normal: false,
    line_code,
    target: { kind: "ccp", view },
  } as const;
  if (view.due_us !== null) {
    const what = `${view.ccp.code} challenge missed`;
    const measure = view.last_valid_us === null ? "never challenged" : "not challenged when it was due";
    return { ...row, what, measure, since_us: view.due_us, product: "not judged by the hub meanwhile" };
  }
  if (view.state === "diverted") {
    const limits = formatLimits(view.ccp.limit_low, view.ccp.limit_high, view.ccp.unit);
    const measure = `${formatWithUnit(view.seen?.value ?? null, view.ccp.unit)}, limit ${limits}`;
    const since_us = view.seen?.time_us ?? null;
    return { ...row, what: `${view.ccp.code} flow diverted`, measure, since_us, product: "nothing goes forward" };
  }
  const measure = view.last_valid_us === null ? "no valid reading yet" : "no valid reading since";
  const since_us = view.last_valid_us ?? view.seen?.time_us ?? null;
  return { ...row, what: `${view.ccp.code} not seen`, measure, since_us, product: "not judged by the hub meanwhile" };
}

/** The open ones and those that are over; each once. */
export function joinDeviations(open: readonly Deviation[], over: readonly Deviation[]): Deviation[] {
  return [...new Map([...over, ...open].map((deviation) => [deviation.id, deviation])).values()];
}

export interface Situation {
  deviations: readonly Deviation[];
  holds: readonly Hold[];
  ccps: readonly CcpView[];
  lines: readonly Line[];
}

/** Unacknowledged deviations with their holds, other open holds, CCPs that are not seen or diverted. */
export function actNow({ deviations, holds, ccps, lines }: Situation): ActRow[] {
  const code = (line_id: string | undefined): string =>
    lines.find((line) => line.id === line_id)?.code ?? "";
  const rows: ActRow[] = [];
  const shown_holds = new Set<string>();
  const shown_ccps = new Set<string>();
  for (const deviation of deviations) {
    // One that ended by itself still waits for somebody to have seen it.
    if (deviation.acknowledged_us !== null) continue;
    const hold = holds.find((each) => each.id === deviation.hold_id || each.deviation_id === deviation.id);
    if (hold !== undefined) shown_holds.add(hold.id);
    shown_ccps.add(deviation.ccp_id);
    rows.push(deviationRow(deviation, hold, code(deviation.line_id)));
  }
  for (const hold of holds) {
    if (hold.status !== "open" || shown_holds.has(hold.id)) continue;
    const deviation = deviations.find((each) => each.id === hold.deviation_id);
    rows.push(holdRow(hold, code(deviation?.line_id)));
  }
  for (const view of ccps) {
    // A gap that is over needs nobody once its deviation was acknowledged, although that stays open.
    const needs_row = view.state === "diverted" || (view.state === "monitoring_gap" && view.is_unseen);
    if (!needs_row || shown_ccps.has(view.ccp.id)) continue;
    rows.push(ccpRow(view, code(view.ccp.line_id)));
  }
  return rows.sort((a, b) => a.priority - b.priority || (b.since_us ?? 0) - (a.since_us ?? 0));
}
