// One card a line: state, rate against target, one hour of its first key tag. Normal cards are grey.
import { Link } from "@tanstack/react-router";
import type { Line } from "../../api/types";
import { Sparkline } from "../../chart/sparkline";
import { Shape } from "../../components/marks";
import { usePlant, viewTag, type Plant } from "../../components/plant";
import { EdgeBand } from "../../components/trust";
import { Value } from "../../components/value";
import { duration, formatLimits, words } from "../../format";
import { useNowUs } from "../../live/live";
import { isAlarmStateKnown } from "../../live/staleness";
import { store } from "../../live/store";
import type { Priority } from "../fsq/ccp_state";

/** A deviation is critical, a hold is high, and so is a key tag with a limit that is not seen. */
export function linePriority(line: Line, is_unseen: boolean): Priority | null {
  if (line.open_deviations > 0) return 1;
  return line.open_holds > 0 || is_unseen ? 2 : null;
}

function plural(count: number, one: string): string {
  return `${count} open ${one}${count === 1 ? "" : "s"}`;
}

export function lineTrouble(line: Line, unseen: string | null): string {
  const parts: string[] = [];
  if (line.open_deviations > 0) parts.push(plural(line.open_deviations, "deviation"));
  if (line.open_holds > 0) parts.push(plural(line.open_holds, "hold"));
  if (unseen !== null) parts.push(`${unseen} not seen`);
  return parts.join(", ");
}

/** Edges whose tags a line shows. */
export function edgesOf(plant: Plant, line: Line): Set<string> {
  const names = new Set<string>();
  for (const tag_id of line.key_tags) {
    const edge = plant.tags.get(tag_id)?.edge;
    if (edge !== null && edge !== undefined) names.add(edge);
  }
  return names;
}

export function LineStrip() {
  const { lines } = usePlant();
  return (
    <section aria-labelledby="lines-title">
      <h2 id="lines-title" className="hidden">Lines</h2>
      <ul className="strip">
        {lines.map((line) => (
          <li key={line.id}>
            <LineCard line={line} />
          </li>
        ))}
      </ul>
      {lines.length === 0 && <p className="panel quiet">No line is set up.</p>}
    </section>
  );
}

function LineCard({ line }: { line: Line }) {
  const plant = usePlant();
  const now_us = useNowUs();
  const key_id = line.key_tags[0];
  const key = key_id === undefined ? null : viewTag(plant, key_id, now_us);
  const tag = key?.tag;
  const has_limit = tag !== undefined && (tag.limit_low !== null || tag.limit_high !== null);
  const is_current = isAlarmStateKnown(store.delivery(), now_us);
  const is_unseen = has_limit && is_current && (key?.fresh === "stale" || key?.fresh === "bad");
  const priority = linePriority(line, is_unseen);
  const trouble = lineTrouble(line, is_unseen ? (tag?.name ?? null) : null);
  return (
    <article className={`card${priority === null ? "" : ` abnormal p${priority}`}`}>
      <EdgeBand names={edgesOf(plant, line)} />
      <h3>
        <Link to="/t/$tenant/p/$plant/lines/$line" params={{ ...plant.params, line: line.id }}>
          <span className="line-code">{line.code}</span> {line.name}
        </Link>
      </h3>
      <p className="card-state">
        {words(line.state)}
        {line.since_us !== null && now_us !== null && (
          <span className="quiet"> {duration(now_us - line.since_us)}</span>
        )}
        {line.batch !== null && <span className="quiet"> · {line.batch.sku}</span>}
      </p>
      {priority !== null && (
        <p className={`trouble p${priority}`}>
          <Shape priority={priority} /> {trouble}
        </p>
      )}
      <Rate line={line} />
      {key_id !== undefined && key !== null && tag !== undefined && (
        <div className="card-tag">
          <p className="card-tag-head">
            <span>{tag.name}</span>
            <Value {...key} unit={tag.unit} zone={plant.zone} now_us={now_us} />
          </p>
          <Sparkline tag_id={key_id} period_ms={tag.period_ms} limit_low={tag.limit_low} limit_high={tag.limit_high}
            label={`${tag.name}, last hour, ${formatLimits(tag.limit_low, tag.limit_high, tag.unit)}`} />
        </div>
      )}
    </article>
  );
}

/** Rate as a bar with the target as a mark; from the line's rate tag while that is fresh. */
export function Rate({ line }: { line: Line }) {
  const plant = usePlant();
  const now_us = useNowUs();
  const tag = line.rate_tag_id === null ? null : viewTag(plant, line.rate_tag_id, now_us);
  const is_live = tag !== null && (tag.fresh === "fresh" || tag.fresh === "late");
  const rate = is_live ? (tag.seen?.value ?? null) : line.rate_per_min;
  const target = line.target_per_min;
  const is_stale = tag !== null && !is_live;
  const full = Math.max(target ?? 0, rate ?? 0) * 1.1 || 1;
  const rate_words = rate === null || is_stale ? "—" : rate.toLocaleString("en", { maximumFractionDigits: 1 });
  return (
    <div className="rate">
      <p>
        <span className="number">{rate_words}</span>
        <span className="quiet">
          {" "}
          {target === null ? "/min" : `of ${target.toLocaleString("en")} /min`}
          {is_stale && " · rate not seen"}
        </span>
      </p>
      <div className="bar" aria-hidden="true">
        {rate !== null && !is_stale && <span className="fill" style={{ width: `${(rate / full) * 100}%` }} />}
        {target !== null && <span className="mark" style={{ left: `${(target / full) * 100}%` }} />}
      </div>
    </div>
  );
}
