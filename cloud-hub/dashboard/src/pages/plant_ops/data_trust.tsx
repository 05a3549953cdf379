// Edge by edge: does it report, how far behind is it, what waits on its disk, and does it run as it was told?
import { useQuery } from "@tanstack/react-query";
import { edgesQuery } from "../../api/queries";
import type { Edge } from "../../api/types";
import { usePlant } from "../../components/plant";
import { Loaded } from "../../components/state";
import { duration, when, words } from "../../format";
import { useNowUs } from "../../live/live";
import { store } from "../../live/store";

export function DataTrust() {
  const edges = useQuery(edgesQuery);
  return (
    <section className="panel" aria-labelledby="data-trust">
      <h2 id="data-trust">Data trust</h2>
      <Loaded query={edges} what="The edges">
        {(data) => (data.length === 0 ? <p className="quiet">No edge is enrolled.</p> : <Edges edges={data} />)}
      </Loaded>
    </section>
  );
}

/** Edges that are not healthy come first. */
export function unhealthyFirst(a: Edge, b: Edge): number {
  return Number(a.state === "online") - Number(b.state === "online") || a.name.localeCompare(b.name);
}

function Edges({ edges }: { edges: readonly Edge[] }) {
  const { zone } = usePlant();
  const now_us = useNowUs();
  const live = edges.map((edge) => ({ ...edge, ...store.edges.get(edge.name) })).sort(unhealthyFirst);
  return (
    <table className="table stacked">
      <caption className="hidden">Edges, those that do not report first</caption>
      <thead>
        <tr>
          <th scope="col">Edge</th>
          <th scope="col">State</th>
          <th scope="col" className="num">Lag</th>
          <th scope="col" className="num">Frames waiting</th>
          <th scope="col">Oldest waiting</th>
          <th scope="col">Version</th>
          <th scope="col">Configuration</th>
          <th scope="col">Certificate</th>
        </tr>
      </thead>
      <tbody>
        {live.map((edge) => {
          const seen_us = store.edge_seen_us.get(edge.name) ?? edge.last_seen_us;
          return (
            <tr key={edge.id}>
              <th scope="row" data-label="Edge" className="breakable">{edge.name}</th>
              <td data-label="State">
                {edge.state === "never" ? "Never seen" : words(edge.state)}
                {edge.state === "offline" && seen_us !== null && (
                  <span className="note">last seen {when(seen_us, now_us, zone)}</span>
                )}
              </td>
              <td data-label="Lag" className="num">{edge.lag_ms === null ? "—" : lagWords(edge.lag_ms)}</td>
              <td data-label="Frames waiting" className="num">
                {edge.backlog_frames === null ? "—" : edge.backlog_frames.toLocaleString("en")}
              </td>
              <td data-label="Oldest waiting">{edge.oldest_us === null || edge.backlog_frames === 0 ? "—" : when(edge.oldest_us, now_us, zone)}</td>
              <td data-label="Version">{edge.version ?? "—"}</td>
              <td data-label="Configuration">
                {configWords(edge)}
                {edge.commands_open > 0 && <span className="note">{waitingWords(edge.commands_open)}</span>}
              </td>
              <td data-label="Certificate">{certificateWords(edge.certificate_until_us, now_us)}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

/** How many of the hub's commands the edge has not answered. */
function waitingWords(commands: number): string {
  return commands === 1 ? "1 command waiting" : `${commands} commands waiting`;
}

/** The revision, and what the edge made of it unless it simply runs with it. */
export function configWords(edge: Pick<Edge, "config_revision" | "config_state">): string {
  if (edge.config_revision === null) return "—";
  const revision = `r${edge.config_revision}`;
  if (edge.config_state === null || edge.config_state === "applied") return revision;
  return `${revision} ${words(edge.config_state).toLowerCase()}`;
}

const DAY_US = 86_400_000_000;
/** An edge renews long before: this late, something keeps it from doing so. */
const CERTIFICATE_SHORT_DAYS = 14;

export function certificateWords(until_us: number | null, now_us: number | null): string {
  if (until_us === null || now_us === null) return "—";
  const days = Math.floor((until_us - now_us) / DAY_US);
  if (days < 0) return "expired";
  return days < CERTIFICATE_SHORT_DAYS ? `expires in ${days} d` : `${days} d`;
}

export function lagWords(lag_ms: number): string {
  return lag_ms < 10_000 ? `${Math.round(lag_ms).toLocaleString("en")} ms` : duration(lag_ms * 1000);
}
