// One line: state, rate, current batch and lot, its key trends with limits, its deviations in time.
import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { batchesQuery, recentDeviationsQuery } from "../../api/queries";
import type { Batch, Deviation, Line } from "../../api/types";
import { TrendChart } from "../../chart/trend_chart";
import { StateWord } from "../../components/marks";
import { lineOf, usePlant } from "../../components/plant";
import { Loaded } from "../../components/state";
import { EdgeBand } from "../../components/trust";
import { useTitle } from "../../components/use_title";
import { duration, when, windowWords, words } from "../../format";
import { useNowUs } from "../../live/live";
import { deviationMeasure, deviationPriority, deviationWords } from "./act_now";
import { edgesOf, Rate } from "./line_strip";

export const SPANS = { "15m": 15, "1h": 60, "8h": 480 } as const;
export type Span = keyof typeof SPANS;
const SPAN_WORDS: Record<Span, string> = { "15m": "15 min", "1h": "1 hour", "8h": "8 hours" };
const BATCHES_MAX = 8;
const TRENDS_MAX = 6;

export function LinePage() {
  const plant = usePlant();
  const { line: line_id } = useParams({ from: "/t/$tenant/p/$plant/lines/$line" });
  const line = lineOf(plant, line_id);
  useTitle(line === undefined ? "Line" : `${line.code} ${line.name}`);
  if (line === undefined) return <p className="problem">There is no such line in this plant.</p>;
  return <LineView key={line.id} line={line} />;
}

function LineView({ line }: { line: Line }) {
  const plant = usePlant();
  const { span = "1h" } = useSearch({ from: "/t/$tenant/p/$plant/lines/$line" });
  const trends = line.key_tags.filter((tag_id) => tag_id !== line.rate_tag_id).slice(0, TRENDS_MAX);
  return (
    <>
      <nav className="tabs" aria-label="Lines">
        {plant.lines.map((each) => (
          <Link key={each.id} to="/t/$tenant/p/$plant/lines/$line" params={{ ...plant.params, line: each.id }}
            search={{ span }} activeOptions={{ includeSearch: false }} activeProps={{ "aria-current": "page" }}>
            {each.code}
          </Link>
        ))}
      </nav>
      <EdgeBand names={edgesOf(plant, line)} />
      <LineHead line={line} />
      <div className="line-columns">
        <section className="panel" aria-labelledby="trends">
          <div className="panel-head">
            <h2 id="trends">Trends</h2>
            <SpanChoice span={span} />
          </div>
          {trends.length === 0 && <p className="quiet">This line has no key tags.</p>}
          {trends.map((tag_id) => (
            <TrendChart key={tag_id} tag_id={tag_id} span_us={SPANS[span] * 60_000_000} />
          ))}
        </section>
        <Timeline line={line} />
      </div>
      <Batches line={line} />
    </>
  );
}

function LineHead({ line }: { line: Line }) {
  const now_us = useNowUs();
  return (
    <div className="line-head">
      <h1>
        {line.code} <span className="name">{line.name}</span>
      </h1>
      <p className="line-state">
        {words(line.state)}
        {line.since_us !== null && now_us !== null && (
          <span className="quiet"> for {duration(now_us - line.since_us)}</span>
        )}
      </p>
      <Rate line={line} />
      <p className="line-batch">
        {line.batch === null ? (
          <span className="quiet">No batch runs</span>
        ) : (
          <>
            Batch {line.batch.code} · {line.batch.sku}
            <span className="quiet"> · lot {line.batch.lot_code ?? "not yet assigned"}</span>
          </>
        )}
      </p>
    </div>
  );
}

function SpanChoice({ span }: { span: Span }) {
  const navigate = useNavigate();
  return (
    <fieldset className="choice">
      <legend className="hidden">Time range</legend>
      {(Object.keys(SPANS) as Span[]).map((each) => (
        <label key={each}>
          <input type="radio" name="span" checked={each === span}
            onChange={() => void navigate({ to: ".", search: { span: each }, replace: true })} />
          <span>{SPAN_WORDS[each]}</span>
        </label>
      ))}
    </fieldset>
  );
}

function Timeline({ line }: { line: Line }) {
  const deviations = useQuery(recentDeviationsQuery);
  return (
    <section className="panel" aria-labelledby="timeline">
      <h2 id="timeline">Deviations</h2>
      <Loaded query={deviations} what="The deviations">
        {(page) => {
          const own = page.items
            .filter((deviation) => deviation.line_id === line.id)
            .sort((a, b) => b.window_from_us - a.window_from_us);
          if (own.length === 0) return <p className="quiet">None on record.</p>;
          return (
            <ol className="timeline">
              {own.map((deviation) => (
                <Event key={deviation.id} deviation={deviation} />
              ))}
            </ol>
          );
        }}
      </Loaded>
    </section>
  );
}

function Event({ deviation }: { deviation: Deviation }) {
  const plant = usePlant();
  const now_us = useNowUs();
  const { zone } = plant;
  const priority = deviation.status === "open" ? deviationPriority(deviation) : null;
  return (
    <li>
      <p className="quiet">
        {windowWords(deviation.window_from_us, deviation.window_to_us, now_us, zone)}
        {deviation.late && " · arrived late"}
      </p>
      <p>
        <StateWord priority={priority} word={deviationWords(deviation)} />
      </p>
      <p>{deviationMeasure(deviation)}</p>
      {deviation.hold_code !== null && (
        <p>
          <Link to="/t/$tenant/p/$plant/holds" params={plant.params} hash={deviation.hold_code}>
            Hold {deviation.hold_code}
          </Link>
        </p>
      )}
      {deviation.acknowledged_us !== null && (
        <p className="quiet">
          Acknowledged by {deviation.acknowledged_by ?? "somebody"}, {when(deviation.acknowledged_us, now_us, zone)}
        </p>
      )}
    </li>
  );
}

function Batches({ line }: { line: Line }) {
  const batches = useQuery(batchesQuery);
  return (
    <section className="panel" aria-labelledby="batches">
      <h2 id="batches">Batches</h2>
      <Loaded query={batches} what="The batches">
        {(page) => {
          const own = page.items
            .filter((batch) => batch.line_id === line.id)
            .sort((a, b) => (b.started_us ?? Infinity) - (a.started_us ?? Infinity))
            .slice(0, BATCHES_MAX);
          if (own.length === 0) return <p className="quiet">None on record.</p>;
          return <BatchTable batches={own} />;
        }}
      </Loaded>
    </section>
  );
}

function BatchTable({ batches }: { batches: readonly Batch[] }) {
  const { zone } = usePlant();
  const now_us = useNowUs();
  const time = (time_us: number | null) => (time_us === null ? "—" : when(time_us, now_us, zone));
  return (
    <table className="table stacked">
      <caption className="hidden">Batches of this line, newest first</caption>
      <thead>
        <tr>
          <th scope="col">Batch</th>
          <th scope="col">SKU</th>
          <th scope="col">Lot</th>
          <th scope="col">State</th>
          <th scope="col">Started</th>
          <th scope="col">Completed</th>
        </tr>
      </thead>
      <tbody>
        {batches.map((batch) => (
          <tr key={batch.id}>
            <th scope="row" data-label="Batch">{batch.code}</th>
            <td data-label="SKU">{batch.sku}</td>
            <td data-label="Lot">{batch.lot_code ?? "—"}</td>
            <td data-label="State">{words(batch.state)}</td>
            <td data-label="Started">{time(batch.started_us)}</td>
            <td data-label="Completed">{time(batch.completed_us)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
