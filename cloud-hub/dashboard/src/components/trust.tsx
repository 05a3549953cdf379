// Can these numbers be believed? One line of words for the header, and the bands that cover a page
// or a card when they cannot.
import type { Plant } from "./plant";
import { duration } from "../format";
import { useNowUs } from "../live/live";
import {
  isAlarmStateKnown,
  pageBehindUs,
  silentEdges,
  type SilentEdge,
} from "../live/staleness";
import { store } from "../live/store";

export function silentWords(edge: SilentEdge): string {
  const since = edge.silent_us === null ? "" : ` ${duration(edge.silent_us)}`;
  const rows =
    edge.backlog_frames !== null && edge.backlog_frames > 0
      ? ` · ${edge.backlog_frames.toLocaleString("en")} frames waiting`
      : "";
  return `${edge.name} silent${since}${rows}`;
}

/** Age of the oldest value among the tags that the pages show. */
export function oldestAgeUs(plant: Plant, now_us: number | null): number | null {
  if (now_us === null) return null;
  let oldest: number | null = null;
  for (const line of plant.lines) {
    for (const tag_id of line.key_tags) {
      const seen = store.latest(tag_id);
      if (seen === null) continue;
      const age_us = now_us - seen.time_us;
      if (oldest === null || age_us > oldest) oldest = age_us;
    }
  }
  return oldest;
}

export function trustWords(
  edges: number,
  silent: readonly SilentEdge[],
  oldest_us: number | null,
  is_known: boolean,
): string {
  if (!is_known) return "Data state unknown";
  if (edges === 0) return "No edge reports";
  const [first] = silent;
  if (first !== undefined) {
    return silent.length === 1 ? silentWords(first) : `${edges - silent.length} of ${edges} edges live`;
  }
  const live = edges === 1 ? "1 edge live" : `All ${edges} edges live`;
  return oldest_us === null ? live : `${live} · oldest value ${duration(oldest_us)}`;
}

export function TrustText({ plant }: { plant: Plant }) {
  const now_us = useNowUs();
  const silent = silentEdges(store.edges, store.edge_seen_us, now_us);
  const is_known = isAlarmStateKnown(store.delivery(), now_us);
  return (
    <span className="trust">
      {trustWords(store.edges.size, silent, oldestAgeUs(plant, now_us), is_known)}
    </span>
  );
}

/** Across the whole page, when what it draws is behind the hub. */
export function BehindBand() {
  const now_us = useNowUs();
  const behind_us = pageBehindUs(store.delivery(), now_us);
  return (
    <>
      {/* Announced once; the band itself changes every second. */}
      <p role="status" className="hidden">
        {behind_us !== null && "This page is behind; what it shows may be old."}
      </p>
      {behind_us !== null && <p className="band">{`This page is ${duration(behind_us)} behind`}</p>}
    </>
  );
}

/** Over the cards of an edge that is silent. */
export function EdgeBand({ names }: { names: ReadonlySet<string> }) {
  const now_us = useNowUs();
  const silent = silentEdges(store.edges, store.edge_seen_us, now_us).filter((edge) => names.has(edge.name));
  // While the page itself hears nothing, the silence is not the edge's.
  if (silent.length === 0 || !isAlarmStateKnown(store.delivery(), now_us)) return null;
  return <p className="band edge">{silent.map(silentWords).join("; ")}</p>;
}
