// Which alarms stand, what is owed, and how good are the alarms? One list of edges' alarms and the hub's own.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { post } from "../../api/client";
import { alarmKpisQuery, standingAlarmsQuery } from "../../api/queries";
import type { Alarm, AlarmActor, AlarmKpis } from "../../api/types";
import { PriorityTag } from "../../components/marks";
import { lineOf, may, usePlant } from "../../components/plant";
import { Loaded, ProblemNote } from "../../components/state";
import { useTitle } from "../../components/use_title";
import { duration, formatWithUnit, when, windowWords } from "../../format";
import { useNowUs } from "../../live/live";
import { compareAlarms, isHidden, isLate, isOwed, percent, priorityOf, stateWords, verbFor } from "./alarm_words";

const DAY_US = 86_400_000_000;

export function AlarmsPage() {
  useTitle("Alarms");
  const alarms = useQuery(standingAlarmsQuery);
  return (
    <>
      <h1>Alarms</h1>
      <Loaded query={alarms} what="The alarms">
        {(all) => {
          const shown = all.filter((alarm) => !isHidden(alarm.state)).sort(compareAlarms);
          const hidden = all.filter((alarm) => isHidden(alarm.state));
          return (
            <>
              <section className="panel" aria-labelledby="standing">
                <h2 id="standing">Standing</h2>
                {shown.length === 0 ? <p className="quiet">No alarm stands.</p> : <AlarmTable alarms={shown} />}
              </section>
              {hidden.length > 0 && (
                <section className="panel" aria-labelledby="hidden">
                  <h2 id="hidden">Shelved, suppressed or out of service ({hidden.length})</h2>
                  <AlarmTable alarms={hidden} />
                </section>
              )}
            </>
          );
        }}
      </Loaded>
      <Measures />
    </>
  );
}

function AlarmTable({ alarms }: { alarms: readonly Alarm[] }) {
  return (
    <table className="table stacked">
      <caption className="hidden">Alarms, what is owed first, then by priority</caption>
      <thead>
        <tr>
          <th scope="col">Priority</th>
          <th scope="col">Alarm</th>
          <th scope="col">Value</th>
          <th scope="col">State</th>
          <th scope="col">Since</th>
          <th scope="col">Action</th>
        </tr>
      </thead>
      <tbody>
        {alarms.map((alarm) => (
          <AlarmRow key={alarm.id} alarm={alarm} />
        ))}
      </tbody>
    </table>
  );
}

function AlarmRow({ alarm }: { alarm: Alarm }) {
  const plant = usePlant();
  const now_us = useNowUs();
  const priority = priorityOf(alarm);
  const line = lineOf(plant, alarm.line_id);
  return (
    <tr>
      <td data-label="Priority">
        {priority === null ? "—" : (
          <PriorityTag priority={priority} fill={alarm.is_active ? "full" : "half"} />
        )}
      </td>
      <th scope="row" data-label="Alarm">
        {alarm.message === "" ? alarm.code : alarm.message}
        <p className="quiet">
          {line === undefined ? "" : `${line.code} · `}
          {alarm.subject}
          {alarm.edge !== null && ` · edge ${alarm.edge}`}
          {isLate(alarm) && " · readings arrived late"}
        </p>
        {alarm.response !== null && <p>{alarm.response}</p>}
      </th>
      <td data-label="Value">{formatWithUnit(alarm.value, alarm.unit ?? "")}</td>
      <td data-label="State">
        <span className={isOwed(alarm.state) ? "unknown" : undefined}>{stateWords(alarm.state)}</span>
        {alarm.acked_by !== null && <p className="quiet">{alarm.acked_by}</p>}
        {alarm.shelved_until_us !== null && (
          <p className="quiet">until {when(alarm.shelved_until_us, now_us, plant.zone)}</p>
        )}
      </td>
      <td data-label="Since">
        {alarm.raised_us === null ? "—" : windowWords(alarm.raised_us, alarm.cleared_us, now_us, plant.zone)}
      </td>
      <td data-label="Action">
        <Act alarm={alarm} />
      </td>
    </tr>
  );
}

function Act({ alarm }: { alarm: Alarm }) {
  const plant = usePlant();
  const client = useQueryClient();
  const [is_open, setOpen] = useState(false);
  const verb = verbFor(alarm);
  const act = useMutation({
    mutationFn: (reason: string) =>
      post<Alarm>(`sensors/alarms/${encodeURIComponent(alarm.id)}/${verb ?? "acknowledge"}`, { reason }),
    onSuccess: () => {
      setOpen(false);
      void client.invalidateQueries({ queryKey: ["alarms"] });
    },
  });
  if (alarm.edge !== null && isOwed(alarm.state)) return <span className="quiet">At its line</span>;
  if (verb === null || !may(plant.me.can, "alarm.act")) return null;
  const word = verb === "reset" ? "Reset" : "Acknowledge";
  if (!is_open) {
    return (
      <button type="button" className="button" onClick={() => setOpen(true)}>
        {word}
      </button>
    );
  }
  const send = (event: FormEvent<HTMLFormElement>): void => {
    event.preventDefault();
    act.mutate(String(new FormData(event.currentTarget).get("reason") ?? "").trim());
  };
  return (
    <form className="filters" onSubmit={send} aria-label={`${word} ${alarm.code}`}>
      <label>
        What is being done
        <input name="reason" required maxLength={500} autoFocus />
      </label>
      <button type="submit" className="button" disabled={act.isPending}>
        {word}
      </button>
      {act.error !== null && <ProblemNote what="Not done" error={act.error} />}
    </form>
  );
}

function Measures() {
  const [to_us] = useState(() => Date.now() * 1000);
  const kpis = useQuery(alarmKpisQuery(to_us - DAY_US, to_us));
  return (
    <section className="panel" aria-labelledby="measures">
      <h2 id="measures">The last 24 hours</h2>
      <Loaded query={kpis} what="The measures">
        {(found) => <MeasureTable kpis={found} />}
      </Loaded>
    </section>
  );
}

function MeasureTable({ kpis }: { kpis: AlarmKpis }) {
  const rows: readonly [string, string, string][] = [
    ["Alarms", String(kpis.alarms), ""],
    ["Per operator and 10 min", kpis.per_operator_10_min.toFixed(2), "about 1"],
    ["Most in 10 min", kpis.peak_10_min.toFixed(0), "at most 10"],
    ["Time in flood", percent(kpis.flood_share), "below 1 %"],
    ["Priorities 1 / 2 / 3", kpis.priority_mix.map(percent).join(" / "), "5 / 15 / 80 %"],
    ["Standing now", String(kpis.standing), ""],
    ["Standing for more than a day", String(kpis.stale.length), "0"],
  ];
  return (
    <>
      <table className="table">
        <caption className="hidden">Measures of ISA-18.2 and what is aimed at</caption>
        <thead>
          <tr>
            <th scope="col">Measure</th>
            <th scope="col" className="num">Value</th>
            <th scope="col">Aim</th>
          </tr>
        </thead>
        <tbody>
          {rows.map(([name, value, aim]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td className="num">{value}</td>
              <td className="quiet">{aim}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <Actors title="Raised most often" actors={kpis.top} count={(actor) => `${actor.count}×, ${percent(actor.share)}`} />
      <Actors title="Chattering" actors={kpis.chattering} count={(actor) => `${actor.count} in a minute`} />
      <Actors title="Stale" actors={kpis.stale} count={(actor) => duration(actor.count * 1e6)} />
    </>
  );
}

function Actors(props: { title: string; actors: readonly AlarmActor[]; count: (actor: AlarmActor) => string }) {
  const { title, actors, count } = props;
  if (actors.length === 0) return null;
  return (
    <>
      <h3>{title}</h3>
      <ol>
        {actors.map((actor) => (
          <li key={`${actor.code} ${actor.subject}`}>
            {actor.code} · {actor.subject} <span className="quiet">{count(actor)}</span>
          </li>
        ))}
      </ol>
    </>
  );
}
