// What did some tags do over a chosen time? Charts with gaps, limits and what else happened, and the same in words.
import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { seriesQuery } from "../../api/queries";
import type { Series, SeriesEvent, TagSeries } from "../../api/types";
import { SeriesChart } from "../../chart/series_chart";
import { resolutionWords } from "../../chart/series_points";
import { usePlant } from "../../components/plant";
import { Loaded } from "../../components/state";
import { useTitle } from "../../components/use_title";
import { formatWithUnit, windowWords, words } from "../../format";
import { useNowUs } from "../../live/live";
import { percent } from "./alarm_words";

const HOURS = { 1: "1 hour", 8: "8 hours", 24: "1 day", 168: "7 days", 720: "30 days" } as const;
const POINTS = 800;
const TAGS_MAX = 6;
const GAPS_SHOWN = 20;

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

function Trends({ found }: { found: Series }) {
  return (
    <>
      {found.tags.map((series) => (
        <Trend key={series.tag_id} series={series} found={found} />
      ))}
      <Events events={found.events} />
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
      {series.gaps.length > 0 && (
        <details>
          <summary>Gaps: {series.gaps.length + series.gaps_left_out}</summary>
          <ul>
            {series.gaps.slice(0, GAPS_SHOWN).map((gap) => (
              <li key={`${gap.from_us} ${gap.kind}`}>
                {words(gap.kind)}: {windowWords(gap.from_us, gap.to_us, now_us, zone)}
                {gap.reason !== null && ` (${gap.reason})`}
              </li>
            ))}
          </ul>
        </details>
      )}
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
              {words(event.kind)} {event.code} · {event.subject}
            </p>
          </li>
        ))}
      </ol>
    </section>
  );
}
