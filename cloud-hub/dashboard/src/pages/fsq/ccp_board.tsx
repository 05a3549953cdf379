// Every critical control point, worst first: state, margin to its limit, and when it was last seen.
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { ccpsQuery } from "../../api/queries";
import type { Ccp } from "../../api/types";
import { StateWord } from "../../components/marks";
import { QualityTabs } from "../../components/navigation";
import { lineOf, usePlant } from "../../components/plant";
import { Loaded } from "../../components/state";
import { useTitle } from "../../components/use_title";
import { Value } from "../../components/value";
import { ago, clockTime, duration, formatLimits, formatSigned, unitWord, when, words } from "../../format";
import { useNowUs } from "../../live/live";
import { store } from "../../live/store";
import type { CcpView } from "./ccp_state";
import { useCcpViews } from "./use_ccps";

export function CcpBoardPage() {
  useTitle("CCPs");
  const ccps = useQuery(ccpsQuery);
  return (
    <>
      <QualityTabs />
      <h1>Critical control points</h1>
      <Loaded query={ccps} what="The CCPs">
        {(data) => (data.length === 0 ? <p className="quiet">No CCP is defined.</p> : <Board ccps={data} />)}
      </Loaded>
    </>
  );
}

function Board({ ccps }: { ccps: readonly Ccp[] }) {
  const views = useCcpViews(ccps);
  return (
    <div className="panel">
      <table className="table stacked">
        <caption className="hidden">Critical control points, worst first</caption>
        <thead>
          <tr>
            <th scope="col">CCP</th>
            <th scope="col">Line</th>
            <th scope="col">State</th>
            <th scope="col">Value</th>
            <th scope="col">Limit</th>
            <th scope="col" className="num">Margin</th>
            <th scope="col">Last valid reading</th>
            <th scope="col">Last check</th>
          </tr>
        </thead>
        <tbody>
          {views.map((view) => (
            <Row key={view.ccp.id} view={view} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ view }: { view: CcpView }) {
  const plant = usePlant();
  const now_us = useNowUs();
  const { ccp } = view;
  const line = lineOf(plant, ccp.line_id);
  return (
    <tr className={view.priority === null ? "" : `abnormal p${view.priority}`}>
      <th scope="row" data-label="CCP">
        {ccp.code} <span className="quiet">{ccp.name}</span>
      </th>
      <td data-label="Line">
        {line === undefined ? (
          "—"
        ) : (
          <Link to="/t/$tenant/p/$plant/lines/$line" params={{ ...plant.params, line: line.id }}>
            {line.code}
          </Link>
        )}
      </td>
      <td data-label="State">
        <StateWord priority={view.priority} word={view.word} />
        {ccp.open_deviation_id !== null && view.state !== "deviation" && (
          <span className="note">deviation still open</span>
        )}
        {view.due_us !== null && <span className="note">{dueWords(view.due_us, now_us, plant.zone)}</span>}
      </td>
      <td data-label="Value">
        {ccp.challenge !== null ? "challenged at times" : <Value seen={view.seen} good={ccp.tag_id === null ? null : store.latestGood(ccp.tag_id)} fresh={view.fresh} unit={ccp.unit}
          zone={plant.zone} now_us={now_us} />}
      </td>
      <td data-label="Limit">
        {ccp.limit_low === null && ccp.limit_high === null
          ? "—"
          : formatLimits(ccp.limit_low, ccp.limit_high, ccp.unit)}{" "}
        <span className="quiet">v{ccp.limit_version}</span>
      </td>
      <td data-label="Margin" className="num">
        {view.margin === null ? "—" : `${formatSigned(view.margin)} ${unitWord(ccp.unit)}`}
      </td>
      <td data-label="Last valid reading">
        {view.last_valid_us === null ? "none" : ago(view.last_valid_us, now_us)}
      </td>
      <td data-label="Last check">
        <LastCheck ccp={ccp} zone={plant.zone} />
      </td>
    </tr>
  );
}

/** "challenge due 14:05:00, in 12 min", or when it was due. */
export function dueWords(due_us: number, now_us: number | null, zone: string): string {
  const at = when(due_us, now_us, zone);
  if (now_us === null) return `challenge due ${at}`;
  return now_us < due_us ? `challenge due ${at}, in ${duration(due_us - now_us)}` : `challenge was due ${at}, ${ago(due_us, now_us)}`;
}

function LastCheck({ ccp, zone }: { ccp: Ccp; zone: string }) {
  const check = ccp.last_check;
  if (check === null) return <>none yet</>;
  return (
    <>
      {words(check.verdict)}, {clockTime(check.from_us, zone)} to {clockTime(check.to_us, zone)}
      <span className="note">
        {check.good} good, {check.bad} bad, {check.missing} missing
      </span>
    </>
  );
}
