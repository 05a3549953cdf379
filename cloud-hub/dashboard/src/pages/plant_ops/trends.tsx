// What did some tags do over a chosen time? Charts with gaps, limits and what else happened, the same in words, and
// the readings as files.
import { useMutation, useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { download } from "../../api/client";
import { seriesQuery } from "../../api/queries";
import type { Series, SeriesEvent, SeriesLimit, TagSeries } from "../../api/types";
import { EVENT_LETTERS } from "../../chart/overlays";
import { SeriesChart } from "../../chart/series_chart";
import { notGood, resolutionWords } from "../../chart/series_points";
import { usePlant } from "../../components/plant";
import { Loaded, ProblemNote } from "../../components/state";
import { useTitle } from "../../components/use_title";
import { formatLimits, formatWithUnit, when, windowWords, words } from "../../format";
import { useNowUs } from "../../live/live";
import { percent } from "./alarm_words";

const HOURS = { 1: "1 hour", 8: "8 hours", 24: "1 day", 168: "7 days", 720: "30 days" } as const;
const POINTS = 800;
const TAGS_MAX = 6;
const STRETCHES_SHOWN = 20;

/** Numbers in the address that are tags of this plant; the plant's first key tags when it names none. */
export function chosenTags(named: string | undefined, known: (id: number) => boolean, first: readonly number[]): number[] {
  const asked = (named ?? "").split(",").map(Number).filter((id) => Number.isInteger(id) && id > 0 && known(id));
  const chosen = asked.length > 0 ? asked : first.filter(known).slice(0, 2);
  return [...new Set(chosen)].slice(0, TAGS_MAX);
}

export function TrendsPage() {
  useTitle("Trends");
  const plant = usePlant();
  const { tags: named, hours: asked } = useSearch({ from: "/t/$tenant/p/$plant/trends" });
  const hours = asked !== undefined && asked in HOURS ? asked : 8;
  const [to_us, setTo] = useState(() => Date.now() * 1000);
  const first = useMemo(() => plant.lines.flatMap((line) => line.key_tags), [plant.lines]);
  const chosen = chosenTags(named, (id) => plant.tags.has(id), first);
  const from_us = to_us - hours * 3_600_000_000;
  const series = useQuery({ ...seriesQuery(chosen, from_us, to_us, POINTS), enabled: chosen.length > 0 });
  return (
    <>
      <h1>Trends</h1>
      <Choice chosen={chosen} hours={hours} renew={() => setTo(Date.now() * 1000)} />
      {chosen.length === 0 ? (
        <p className="panel quiet">No tag is known yet.</p>
      ) : (
        <Loaded query={series} what="The trends">{(found) => <Trends found={found} />}</Loaded>
      )}
    </>
  );
}

function Choice({ chosen, hours, renew }: { chosen: readonly number[]; hours: number; renew: () => void }) {
  const plant = usePlant();
  const navigate = useNavigate();
  const go = (tags: readonly number[], over: number) =>
    void navigate({ to: ".", search: { tags: tags.join(","), hours: over }, replace: true });
  const others = [...plant.tags.values()].filter((tag) => !chosen.includes(tag.id));
  return (
    <div className="filters">
      <label>
        Add a tag
        <select value="" onChange={(event) => go([...chosen, Number(event.target.value)].slice(-TAGS_MAX), hours)}>
          <option value="">Choose…</option>
          {others.map((tag) => (
            <option key={tag.id} value={tag.id}>
              {tag.name} {tag.description}
            </option>
          ))}
        </select>
      </label>
      <label>
        Time
        <select value={hours} onChange={(event) => go(chosen, Number(event.target.value))}>
          {Object.entries(HOURS).map(([value, word]) => (
            <option key={value} value={value}>
              {word}
            </option>
          ))}
        </select>
      </label>
      {chosen.map((id) => (
        <button key={id} type="button" className="button" onClick={() => go(chosen.filter((each) => each !== id), hours)}>
          Remove {plant.tags.get(id)?.name ?? id}
        </button>
      ))}
      <button type="button" className="button" onClick={renew}>
        Up to now
      </button>
    </div>
  );
}

/** What a mark in the charts means; told once. */
const LEGEND =
  "Dashed: critical limit. Dotted: threshold of an alarm rule. Bar at the bottom: quality not good. Hollow point: came late, while " +
  "this page was open. Band: deviation (D), alarm (A) or hold (H).";

function Trends({ found }: { found: Series }) {
  return (
    <>
      <p className="quiet">{LEGEND}</p>
      {found.tags.map((series) => (
        <Trend key={series.tag_id} series={series} found={found} />
      ))}
      <Events events={found.events} />
      <Downloads found={found} />
    </>
  );
}

function Trend({ series, found }: { series: TagSeries; found: Series }) {
  const { zone } = usePlant();
  const now_us = useNowUs();
  const share = series.good_share === null ? "no reading" : `${percent(series.good_share)} good`;
  return (
    <section className="panel" aria-labelledby={`tag-${series.tag_id}`}>
      <div className="panel-head">
        <h2 id={`tag-${series.tag_id}`}>{series.name}</h2>
        <p className="quiet">
          mean {formatWithUnit(series.mean, series.unit)} · {share} of {series.n.toLocaleString("en")} ·{" "}
          {resolutionWords(series.resolution_us)}
        </p>
      </div>
      <SeriesChart series={series} events={found.events} from_us={found.from_us} to_us={found.to_us} />
      <Limits series={series} />
      <Stretches word="Quality not good" stretches={notGood(series).map(([from_us, to_us]) => windowWords(from_us, to_us, now_us, zone))} />
      <Stretches word="Gaps" left_out={series.gaps_left_out} stretches={series.gaps.map((gap) =>
        `${words(gap.kind)}: ${windowWords(gap.from_us, gap.to_us, now_us, zone)}${gap.reason === null ? "" : ` (${gap.reason})`}`)} />
    </section>
  );
}

/** "CCP-1 v2 critical limit ≥ 73.00 °C since 14:05:00". */
export function limitWords(limit: SeriesLimit, unit: string, now_us: number | null, zone: string): string {
  const name = `${limit.code} v${limit.version} ${limit.kind === "critical" ? "critical limit" : "alarm threshold"}`;
  const value = formatLimits(limit.low, limit.high, unit);
  const { from_us, to_us } = limit;
  if (from_us !== null && to_us !== null) return `${name} ${value}, ${windowWords(from_us, to_us, now_us, zone)}`;
  if (from_us !== null) return `${name} ${value} since ${when(from_us, now_us, zone)}`;
  return to_us === null ? `${name} ${value}` : `${name} ${value} until ${when(to_us, now_us, zone)}`;
}

function Limits({ series }: { series: TagSeries }) {
  const { zone } = usePlant();
  const now_us = useNowUs();
  if (series.limits.length === 0) return <p className="quiet">No limit in force in this time.</p>;
  return (
    <ul>
      {series.limits.map((limit) => (
        <li key={`${limit.kind} ${limit.code} ${limit.version}`}>{limitWords(limit, series.unit, now_us, zone)}</li>
      ))}
    </ul>
  );
}

function Stretches({ word, stretches, left_out = 0 }: { word: string; stretches: readonly string[]; left_out?: number }) {
  if (stretches.length === 0) return null;
  const unnamed = left_out + Math.max(0, stretches.length - STRETCHES_SHOWN);
  return (
    <details>
      <summary>
        {word}: {stretches.length + left_out}
      </summary>
      <ul>
        {stretches.slice(0, STRETCHES_SHOWN).map((stretch) => (
          <li key={stretch}>{stretch}</li>
        ))}
        {unnamed > 0 && <li className="quiet">and {unnamed} more</li>}
      </ul>
    </details>
  );
}

/** The readings of the charts as they were stored, none thinned out. */
function Downloads({ found }: { found: Series }) {
  const { from_us, to_us } = found;
  const get = useMutation({ mutationFn: (file: { path: string; query: Record<string, string | number>; name: string }) =>
    download(file.path, { ...file.query, from_us, to_us }, file.name) });
  const tags = found.tags.map((tag) => tag.tag_id).join(",");
  return (
    <section className="panel" aria-labelledby="downloads">
      <h2 id="downloads">Download</h2>
      <p className="quiet">Every reading of the time shown, as it was stored; each download goes on record.</p>
      <p className="filters">
        <button type="button" className="button" disabled={get.isPending}
          onClick={() => get.mutate({ path: "plant-ops/series/export", query: { tags }, name: "readings.parquet" })}>
          All as Parquet
        </button>
        {found.tags.map((tag) => (
          <button key={tag.tag_id} type="button" className="button" disabled={get.isPending}
            onClick={() => get.mutate({ path: "plant-ops/readings/export", query: { tag_id: tag.tag_id, format: "csv" }, name: `${tag.name}.csv` })}>
            {tag.name} as CSV
          </button>
        ))}
      </p>
      <p role="status">{get.isPending ? "The file is being made…" : ""}</p>
      {get.error !== null && <ProblemNote what="Not downloaded" error={get.error} />}
    </section>
  );
}

function Events({ events }: { events: readonly SeriesEvent[] }) {
  const { zone } = usePlant();
  const now_us = useNowUs();
  if (events.length === 0) return null;
  return (
    <section className="panel" aria-labelledby="events">
      <h2 id="events">What else happened</h2>
      <ol className="timeline">
        {events.slice(0, 50).map((event) => (
          <li key={`${event.kind} ${event.id}`}>
            <p className="quiet">{windowWords(event.from_us, event.to_us, now_us, zone)}</p>
            <p>
              {EVENT_LETTERS[event.kind]} · {words(event.kind)} {event.code} · {event.subject}
            </p>
          </li>
        ))}
      </ol>
    </section>
  );
}
