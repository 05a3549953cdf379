// What does the board say about one CCP, given the hub's judgement and what the live stream shows?
// Pure. It never judges product: it only refuses to call something in control that is not seen.
import type { Ccp, CcpChallenge, CcpState, Tag } from "../../api/types";
import { freshness, isBad, type Freshness, type Observed } from "../../live/staleness";

export type Priority = 1 | 2 | 3;

export interface CcpView {
  ccp: Ccp;
  state: CcpState;
  priority: Priority | null;
  word: string;
  fresh: Freshness;
  /** No usable reading now: old, bad, or none at all. */
  is_unseen: boolean;
  seen: Observed | null;
  /** Distance to the nearest limit, positive inside; null when there is no usable value. */
  margin: number | null;
  last_valid_us: number | null;
  /** When its next challenge is due; null when it is monitored all the time, or nothing is known yet. */
  due_us: number | null;
}

const WORDS: Record<CcpState, string> = {
  in_control: "In control",
  deviation: "Deviation",
  monitoring_gap: "Monitoring gap",
  diverted: "Flow diverted",
  not_running: "Not running",
  unknown: "Unknown",
};

const PRIORITIES: Record<CcpState, Priority | null> = {
  deviation: 1,
  monitoring_gap: 2,
  diverted: 2,
  in_control: null,
  not_running: null,
  unknown: null,
};

export function marginTo(low: number | null, high: number | null, value: number): number | null {
  const above = low === null ? Number.POSITIVE_INFINITY : value - low;
  const below = high === null ? Number.POSITIVE_INFINITY : high - value;
  const margin = Math.min(above, below);
  return Number.isFinite(margin) ? margin : null;
}

function newest(a: Observed | null, b: Observed | null): Observed | null {
  if (a === null) return b;
  return b !== null && b.time_us > a.time_us ? b : a;
}

/** "In control" needs a sensor that is seen, a check on record, and a value within the limit. */
function shownState(
  ccp: Ccp,
  is_unseen: boolean,
  is_page_current: boolean,
  margin: number | null,
): { state: CcpState; word: string } {
  if (ccp.state !== "in_control") return { state: ccp.state, word: WORDS[ccp.state] };
  if (is_unseen) {
    // A gap in monitoring is itself a deviation; the page sees it before the hub's next check says so.
    // But when the page itself hears nothing, the gap is the page's, and it knows nothing either way.
    const state = is_page_current ? "monitoring_gap" : "unknown";
    return { state, word: WORDS[state] };
  }
  if (ccp.last_check === null) return { state: "unknown", word: "Not judged yet" };
  if (margin !== null && margin < 0) return { state: "unknown", word: "Beyond limit, not judged yet" };
  return { state: "in_control", word: WORDS.in_control };
}

/** Between its challenges a point owes no reading: only the hub's word counts, and only while it is heard. */
function viewChallenged(ccp: Ccp, challenge: CcpChallenge, now_us: number | null, is_page_current: boolean): CcpView {
  const is_missed = challenge.is_missed && ccp.state === "monitoring_gap";
  const is_known = is_page_current || ccp.state !== "in_control";
  const state = is_known ? ccp.state : "unknown";
  const is_waiting = is_known && state === "unknown" && challenge.due_us !== null && !challenge.is_missed;
  const check = ccp.last_check;
  return {
    ccp,
    state,
    priority: PRIORITIES[state],
    word: is_missed ? "Challenge missed" : is_waiting ? "Not challenged yet" : WORDS[state],
    fresh: "none",
    is_unseen: is_missed,
    seen: null,
    margin: null,
    last_valid_us: check !== null && check.verdict === "met" && (now_us === null || check.to_us <= now_us) ? check.to_us : null,
    // A line that stands owes no challenge.
    due_us: state === "not_running" ? null : challenge.due_us,
  };
}

export function viewCcp(
  ccp: Ccp,
  tag: Tag | undefined,
  live: Observed | null,
  live_good: Observed | null,
  now_us: number | null,
  is_page_current: boolean,
): CcpView {
  if (ccp.challenge !== null) return viewChallenged(ccp, ccp.challenge, now_us, is_page_current);
  const seen = newest(live, ccp.last === null ? null : { ...ccp.last, flags: 0 });
  const fresh = freshness(seen, tag?.period_ms ?? 1000, now_us);
  const is_unseen = now_us !== null && (fresh === "stale" || fresh === "bad" || fresh === "none");
  const is_usable = (fresh === "fresh" || fresh === "late") && seen !== null && seen.value !== null;
  const margin = is_usable ? marginTo(ccp.limit_low, ccp.limit_high, seen.value as number) : null;
  const { state, word } = shownState(ccp, is_unseen, is_page_current, margin);
  const good = newest(live_good, seen !== null && !isBad(seen.quality) && seen.value !== null ? seen : null);
  return {
    ccp,
    state,
    priority: PRIORITIES[state],
    word,
    fresh,
    is_unseen,
    seen,
    margin,
    last_valid_us: good?.time_us ?? null,
    due_us: null,
  };
}

/** Worst first: by priority, then what is unknown, then the smallest margin, not running last. */
export function worstFirst(a: CcpView, b: CcpView): number {
  const rank = (view: CcpView): number => {
    if (view.priority !== null) return view.priority;
    if (view.state === "unknown") return 4;
    return view.state === "not_running" ? 6 : 5;
  };
  const by_rank = rank(a) - rank(b);
  if (by_rank !== 0) return by_rank;
  const by_margin = (a.margin ?? Number.POSITIVE_INFINITY) - (b.margin ?? Number.POSITIVE_INFINITY);
  return Number.isNaN(by_margin) || by_margin === 0 ? a.ccp.code.localeCompare(b.ccp.code) : by_margin;
}
