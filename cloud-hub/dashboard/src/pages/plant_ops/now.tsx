// The first page of a shift: what needs a person now, how the lines stand, and can it be believed.
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { ccpsQuery, closedUnacknowledgedQuery, openDeviationsQuery, openHoldsQuery, recentDeviationsQuery } from "../../api/queries";
import type { Deviation } from "../../api/types";
import { PriorityTag } from "../../components/marks";
import { may, usePlant } from "../../components/plant";
import { ProblemNote } from "../../components/state";
import { useTitle } from "../../components/use_title";
import { clockTime, duration } from "../../format";
import { useNowUs } from "../../live/live";
import { isAlarmStateKnown } from "../../live/staleness";
import { store } from "../../live/store";
import { ACKNOWLEDGE, AcknowledgeDialog } from "../fsq/acknowledge";
import { useCcpViews } from "../fsq/use_ccps";
import { NewestDefects } from "../vision/newest_defects";
import { actNow, joinDeviations, type ActRow } from "./act_now";
import { DataTrust } from "./data_trust";
import { LineStrip } from "./line_strip";

const ROWS_MAX = 5;

export function NowPage() {
  useTitle("Now");
  return (
    <>
      <h1 className="hidden">Now</h1>
      <ActNowPanel />
      <LineStrip />
      <div className="columns">
        <DataTrust />
        <NewestDefects />
      </div>
    </>
  );
}

export function ActNowPanel() {
  const plant = usePlant();
  const now_us = useNowUs();
  const deviations = useQuery(openDeviationsQuery);
  const closed = useQuery(closedUnacknowledgedQuery);
  // An open hold may stem from a deviation that is over and acknowledged: only this names its line.
  const recent = useQuery(recentDeviationsQuery);
  const holds = useQuery(openHoldsQuery);
  const ccps = useQuery(ccpsQuery);
  const views = useCcpViews(ccps.data ?? []);
  const [acknowledging, setAcknowledging] = useState<Deviation | null>(null);
  const [is_all, setAll] = useState(false);

  const queries = [deviations, closed, recent, holds, ccps];
  const failed = queries.find((query) => query.error !== null);
  const has_all = queries.every((query) => query.data !== undefined);
  const is_known = has_all && failed === undefined && isAlarmStateKnown(store.delivery(), now_us);
  const rows = actNow({
    deviations: joinDeviations(deviations.data ?? [], [...(recent.data?.items ?? []), ...(closed.data ?? [])]),
    holds: holds.data ?? [],
    ccps: views,
    lines: plant.lines,
  });
  const shown = is_all ? rows : rows.slice(0, ROWS_MAX);
  const more = rows.length - shown.length;
  return (
    <section className="panel act-now" aria-labelledby="act-now">
      <h2 id="act-now">Act now</h2>
      {failed !== undefined && (
        <ProblemNote what="Not everything was loaded" error={failed.error} retry={() => void failed.refetch()} />
      )}
      {!is_known && <p className="unknown">Alarm state unknown</p>}
      {rows.length === 0 && is_known && <NothingNeedsYou />}
      <ul className="rows" aria-live="polite" aria-relevant="additions">
        {shown.map((row, index) => (
          <Row key={row.key} row={row} now_us={now_us} isPulsing={index === 0} onAcknowledge={setAcknowledging} />
        ))}
      </ul>
      {(more > 0 || is_all) && rows.length > ROWS_MAX && (
        <button type="button" className="button" aria-expanded={is_all} onClick={() => setAll(!is_all)}>
          {is_all ? "Show fewer" : `${more} more`}
        </button>
      )}
      {acknowledging !== null && (
        <AcknowledgeDialog deviation={acknowledging} onClose={() => setAcknowledging(null)} />
      )}
    </section>
  );
}

/** Each heartbeat follows every event before it, so its time is when "nothing" was last known. */
function NothingNeedsYou() {
  const { zone } = usePlant();
  const heartbeat_us = store.heartbeatUs();
  return (
    <p className="quiet">
      Nothing needs you. Last checked {heartbeat_us === null ? "—" : clockTime(heartbeat_us, zone)}
    </p>
  );
}

interface RowProps {
  row: ActRow;
  now_us: number | null;
  isPulsing: boolean;
  onAcknowledge: (deviation: Deviation) => void;
}

function Row({ row, now_us, isPulsing, onAcknowledge }: RowProps) {
  const { zone } = usePlant();
  const pulse = isPulsing && row.priority === 1 && !row.is_back_to_normal ? " pulse" : "";
  return (
    <li className={`act-row p${row.priority}${pulse}`}>
      <PriorityTag priority={row.priority} fill={row.is_back_to_normal ? "half" : "full"} />
      <p className="what">
        {row.line_code !== "" && <span className="line-code">{row.line_code}</span>} <strong>{row.what}</strong>
        <span className="measure">
          {row.is_back_to_normal && "Back to normal; was "}
          {row.measure}
        </span>
      </p>
      <p className="since">
        {row.since_us === null ? "never seen" : `since ${clockTime(row.since_us, zone)}`}
        {row.since_us !== null && now_us !== null && <span className="quiet"> {duration(now_us - row.since_us)}</span>}
      </p>
      <p className="product-state">{row.product}</p>
      <RowButton row={row} onAcknowledge={onAcknowledge} />
    </li>
  );
}

function RowButton({ row, onAcknowledge }: Pick<RowProps, "row" | "onAcknowledge">) {
  const plant = usePlant();
  const { target } = row;
  if (target.kind === "deviation" && may(plant.me.can, ACKNOWLEDGE)) {
    return (
      <button type="button" className="button" onClick={() => onAcknowledge(target.deviation)}
        aria-label={`Acknowledge ${row.what}`}>
        Acknowledge
      </button>
    );
  }
  if (target.kind === "ccp") {
    return (
      <Link className="button" to="/t/$tenant/p/$plant/ccp" params={plant.params}>
        Open CCPs
      </Link>
    );
  }
  const hold_code = target.kind === "hold" ? target.hold.code : target.deviation.hold_code;
  if (hold_code === null) {
    return (
      <Link className="button" to="/t/$tenant/p/$plant/ccp" params={plant.params}>
        Open CCPs
      </Link>
    );
  }
  return (
    <Link className="button" to="/t/$tenant/p/$plant/holds" params={plant.params} hash={hold_code}>
      Open hold
    </Link>
  );
}

