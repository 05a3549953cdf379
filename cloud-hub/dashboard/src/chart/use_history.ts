// The readings of one tag over the last span: history from REST once, then the live ring; read again
// when the stream was interrupted, when late data arrived, or when the ring no longer reaches back.
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { readingsQuery } from "../api/queries";
import type { Readings } from "../api/types";
import { store } from "../live/store";
import { join, seriesOf, type Series } from "./decimate";

const CHECK_MS = 500;
/** Late data comes in thousands of readings: at most one new look in ten seconds. */
const LATE_MIN_MS = 10_000;
const REACH_MAX_US = 30 * 60 * 1_000_000;

interface Anchor {
  to_us: number;
  generation: number;
  late_count: number;
  taken_ms: number;
}

function takeAnchor(): Anchor {
  return {
    to_us: Math.floor(store.nowUs() ?? Date.now() * 1000),
    generation: store.generation,
    late_count: store.late_count,
    taken_ms: performance.now(),
  };
}

export function isAnchorOld(anchor: Anchor, seen: LiveState): boolean {
  if (anchor.generation !== seen.generation) return true;
  if (seen.now_us !== null && seen.now_us - anchor.to_us > REACH_MAX_US) return true;
  return anchor.late_count !== seen.late_count && seen.now_ms - anchor.taken_ms > LATE_MIN_MS;
}

interface LiveState {
  generation: number;
  late_count: number;
  now_us: number | null;
  now_ms: number;
}

export interface History {
  /** Everything known, ascending in time; cheap to call, made anew for each drawing. */
  series: () => Series;
  resolution_us: number;
  error: Error | null;
  /** Grows when other history was read. */
  updated_ms: number;
}

function toSeries(readings: Readings | undefined): Series {
  const points = readings?.points ?? [];
  return {
    length: points.length,
    timeAt: (index) => points[index]?.[0] as number,
    valueAt: (index) => points[index]?.[1] ?? Number.NaN,
  };
}

const NOTHING = seriesOf([], []);

export function useHistory(tag_id: number, span_us: number, points: number): History {
  const [anchor, setAnchor] = useState<Anchor | null>(() => (store.nowUs() === null ? null : takeAnchor()));
  useEffect(() => {
    store.ring(tag_id);
    // Without the hub's time, wait for its hello a moment before asking by the browser's clock.
    const started = setTimeout(() => setAnchor((known) => known ?? takeAnchor()), 1_500);
    const timer = setInterval(() => {
      setAnchor((known) => {
        if (known === null) return store.nowUs() === null ? null : takeAnchor();
        const { generation, late_count } = store;
        const live = { generation, late_count, now_us: store.nowUs(), now_ms: performance.now() };
        return isAnchorOld(known, live) ? takeAnchor() : known;
      });
    }, CHECK_MS);
    return () => {
      clearTimeout(started);
      clearInterval(timer);
    };
  }, [tag_id]);
  const to_us = anchor?.to_us ?? 0;
  const query = useQuery({
    ...readingsQuery(tag_id, to_us - span_us, to_us, points),
    enabled: anchor !== null,
    placeholderData: keepPreviousData,
  });
  const history = useRef<Series>(NOTHING);
  history.current = query.data === undefined ? NOTHING : toSeries(query.data);
  return {
    series: () => join(history.current, store.ring(tag_id)),
    resolution_us: query.data?.resolution_us ?? 0,
    error: query.error,
    updated_ms: query.dataUpdatedAt,
  };
}
