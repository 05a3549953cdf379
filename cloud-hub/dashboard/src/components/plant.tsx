// The plant a signed-in user looks at: who, where, which zone, which lines and tags. Pages read it
// from here so that a time is always written in the plant's zone.
import { createContext, useContext } from "react";
import type { Line, Me, Tag } from "../api/types";
import { freshness, type Freshness, type Observed } from "../live/staleness";
import { store } from "../live/store";

export interface Plant {
  me: Me;
  zone: string;
  lines: readonly Line[];
  tags: ReadonlyMap<number, Tag>;
  params: { tenant: string; plant: string };
}

const Context = createContext<Plant | null>(null);

export const PlantProvider = Context.Provider;

export function usePlant(): Plant {
  const plant = useContext(Context);
  if (plant === null) throw new Error("usePlant outside the plant's pages");
  return plant;
}

export function lineOf(plant: Plant, line_id: string | null): Line | undefined {
  return plant.lines.find((line) => line.id === line_id);
}

/** May the signed-in user do this? Only decides what is shown; the hub enforces. */
export function may(can: readonly string[], permission: string): boolean {
  return can.some((each) => each === "*" || each === permission || each.endsWith(`.${permission}`));
}

export interface TagView {
  tag: Tag | undefined;
  seen: Observed | null;
  good: Observed | null;
  fresh: Freshness;
}

/** A tag as it stands at this tick. */
export function viewTag(plant: Plant, tag_id: number, now_us: number | null): TagView {
  const tag = plant.tags.get(tag_id);
  const seen = store.latest(tag_id);
  return {
    tag,
    seen,
    good: store.latestGood(tag_id),
    fresh: freshness(seen, tag?.period_ms ?? 1000, now_us),
  };
}
