// What does an alarm say to a person? Words, order and what can be done about it, by its ISA-18.2 state.
import type { Alarm, AlarmStateName } from "../../api/types";
import type { Priority } from "../fsq/ccp_state";

const STATES: Record<AlarmStateName, string> = {
  normal: "Normal",
  unacknowledged: "Active",
  acknowledged: "Active, acknowledged",
  returned_unacknowledged: "Back to normal",
  latched: "Latched",
  shelved: "Shelved",
  suppressed: "Suppressed by design",
  out_of_service: "Out of service",
};

export function stateWords(state: AlarmStateName): string {
  return STATES[state];
}

/** Diagnostic alarms and those whose edge says no priority have no colour. */
export function priorityOf(alarm: Pick<Alarm, "priority">): Priority | null {
  const { priority } = alarm;
  return priority === 1 || priority === 2 || priority === 3 ? priority : null;
}

export function isOwed(state: AlarmStateName): boolean {
  return state === "unacknowledged" || state === "returned_unacknowledged";
}

export function isHidden(state: AlarmStateName): boolean {
  return state === "shelved" || state === "suppressed" || state === "out_of_service";
}

/** Unacknowledged first, then the more urgent, then the newer. */
export function compareAlarms(a: Alarm, b: Alarm): number {
  const owed = Number(isOwed(b.state)) - Number(isOwed(a.state));
  if (owed !== 0) return owed;
  const urgent = (a.priority ?? 5) - (b.priority ?? 5);
  return urgent !== 0 ? urgent : (b.raised_us ?? 0) - (a.raised_us ?? 0);
}

export type AlarmVerb = "acknowledge" | "reset";

/** What a button would do; none for an edge's own alarm, which is acted on at its line. */
export function verbFor(alarm: Pick<Alarm, "edge" | "state">): AlarmVerb | null {
  if (alarm.edge !== null) return null;
  if (isOwed(alarm.state)) return "acknowledge";
  return alarm.state === "latched" ? "reset" : null;
}

/** Found more than a minute after it began: its readings came late. */
export function isLate(alarm: Pick<Alarm, "raised_us" | "found_us">): boolean {
  return alarm.raised_us !== null && alarm.found_us !== null && alarm.found_us - alarm.raised_us > 60_000_000;
}

export function percent(share: number): string {
  const value = share * 100;
  return `${value !== 0 && value < 10 ? value.toFixed(1) : Math.round(value)}\u00a0%`;
}
