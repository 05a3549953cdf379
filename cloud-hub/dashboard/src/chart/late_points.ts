// Which readings that this page heard of came late? What came late before it was opened is not told apart any more.
import { isLate } from "../live/staleness";
import { store } from "../live/store";

const POINTS_MAX = 500;

/** Newest first; times in seconds. */
export function latePoints(tag_id: number): { x: number; y: number }[] {
  const ring = store.ring(tag_id);
  const points: { x: number; y: number }[] = [];
  for (let index = ring.length - 1; index >= 0 && points.length < POINTS_MAX; index -= 1) {
    const value = ring.valueAt(index);
    if (isLate(ring.flagsAt(index)) && !Number.isNaN(value)) points.push({ x: ring.timeAt(index) / 1e6, y: value });
  }
  return points;
}
