// Values that are no tag yet: adopt one or many under the proposed or another name, dismiss them, or have them wait again.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { post } from "../../api/client";
import type { AdoptedTag, PendingTag } from "../../api/types";
import { usePlant } from "../../components/plant";
import { problemWords } from "../../components/state";
import { unitWord, when } from "../../format";
import { useNowUs } from "../../live/live";
import { adoptedWords, doneWords, each, faultOf, nameFor, readingsWords, staleWords, type Adoption, type Outcome } from "./adoption";

const path = (id: string, verb: string): string => `integrator/pending-tags/${encodeURIComponent(id)}/${verb}`;

const adopt = async ({ id, name }: Adoption): Promise<string> => adoptedWords(await post<AdoptedTag>(path(id, "adopt"), { name }));

function tell(verb: "dismiss" | "restore") {
  return async ({ id, name }: Adoption): Promise<string> => {
    await post<null>(path(id, verb), {});
    return verb === "dismiss" ? `${name}: dismissed` : `${name}: waits again`;
  };
}

interface Order {
  items: readonly Adoption[];
  ask: (item: Adoption) => Promise<string>;
}

function useOrders(onDone: () => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ items, ask }: Order): Promise<Outcome> => each(items, ask),
    onSettled: () => {
      onDone();
      void client.invalidateQueries({ queryKey: ["integrator"] });
      // An adopted value is a tag from now on.
      void client.invalidateQueries({ queryKey: ["tags"] });
    },
  });
}

function OutcomeNote({ outcome }: { outcome: Outcome | undefined }) {
  return (
    <div role="status">
      {outcome !== undefined && outcome.done.length > 0 && <p>{doneWords(outcome.done)}</p>}
      {outcome?.failed.map(({ name, error }) => (
        <p key={name} className="problem">
          {name} not done: {problemWords(error)}.
        </p>
      ))}
    </div>
  );
}

export function Waiting({ tags }: { tags: readonly PendingTag[] }) {
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [typed, setTyped] = useState<ReadonlyMap<string, string>>(new Map());
  const orders = useOrders(() => setChosen(new Set()));
  const named = (tag: PendingTag): Adoption => ({ id: tag.id, name: nameFor(tag, typed) });
  const many = tags.filter((tag) => chosen.has(tag.id)).map(named);
  const fault = faultOf(many);
  const choose = (id: string, is_chosen: boolean): void => {
    const next = new Set(chosen);
    if (is_chosen) next.add(id);
    else next.delete(id);
    setChosen(next);
  };
  return (
    <section className="panel" aria-labelledby="waiting">
      <h2 id="waiting">Waiting to be adopted</h2>
      <p className="quiet">A value becomes a tag when somebody adopts it; its newest 1,000 readings are held until then.</p>
      {tags.length === 0 && <p className="quiet">No value waits.</p>}
      {tags.length > 0 && (
        <>
          <div className="filters">
            <label className="check">
              <input type="checkbox" checked={many.length === tags.length}
                onChange={(event) => setChosen(new Set(event.target.checked ? tags.map((tag) => tag.id) : []))} />
              All {tags.length}
            </label>
            <button type="button" className="button" disabled={many.length === 0 || fault !== null || orders.isPending}
              onClick={() => orders.mutate({ items: many, ask: adopt })}>
              Adopt {many.length} chosen
            </button>
            <button type="button" className="button" disabled={many.length === 0 || orders.isPending}
              onClick={() => orders.mutate({ items: many, ask: tell("dismiss") })}>
              Dismiss {many.length} chosen
            </button>
          </div>
          {fault !== null && <p className="problem">{fault}.</p>}
        </>
      )}
      <OutcomeNote outcome={orders.data} />
      {tags.length > 0 && (
        <table className="table stacked">
          <caption className="hidden">Values that are no tag yet, newest first</caption>
          <thead>
            <tr>
              <th scope="col">Value</th>
              <th scope="col">From</th>
              <th scope="col">Newest</th>
              <th scope="col">Readings</th>
              <th scope="col">Since</th>
              <th scope="col">Name of the tag</th>
              <th scope="col">Action</th>
            </tr>
          </thead>
          <tbody>
            {tags.map((tag) => (
              <Row key={tag.id} tag={tag} is_chosen={chosen.has(tag.id)} choose={choose} name={typed.get(tag.id) ?? tag.proposed_name}
                type={(name) => setTyped(new Map(typed).set(tag.id, name))} is_busy={orders.isPending}
                adopt={() => orders.mutate({ items: [named(tag)], ask: adopt })}
                dismiss={() => orders.mutate({ items: [named(tag)], ask: tell("dismiss") })} />
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

interface RowProps {
  tag: PendingTag;
  name: string;
  is_chosen: boolean;
  is_busy: boolean;
  choose: (id: string, is_chosen: boolean) => void;
  type: (name: string) => void;
  adopt: () => void;
  dismiss: () => void;
}

function Row({ tag, name, is_chosen, is_busy, choose, type, adopt: onAdopt, dismiss: onDismiss }: RowProps) {
  const { zone } = usePlant();
  const now_us = useNowUs();
  const what = `${tag.name} of ${tag.device}`;
  return (
    <tr>
      <th scope="row" data-label="Value">
        <label className="check breakable">
          <input type="checkbox" checked={is_chosen} onChange={(event) => choose(tag.id, event.target.checked)} />
          {tag.name}
        </label>
      </th>
      <td data-label="From" className="breakable">
        {tag.device} <span className="note">client {tag.client}</span>
      </td>
      <td data-label="Newest" className="breakable">
        {tag.sample} {unitWord(tag.unit)} <span className="note">{staleWords(tag)}</span>
      </td>
      <td data-label="Readings">{readingsWords(tag)}</td>
      <td data-label="Since">
        {when(tag.first_seen_us, now_us, zone)} <span className="note">newest {when(tag.last_seen_us, now_us, zone)}</span>
      </td>
      <td data-label="Name of the tag">
        <input value={name} maxLength={200} aria-label={`Name of the tag for ${what}`} onChange={(event) => type(event.target.value)} />
      </td>
      <td data-label="Action">
        <span className="row-buttons">
          <button type="button" className="button" disabled={is_busy || name.trim() === ""} onClick={onAdopt} aria-label={`Adopt ${what}`}>
            Adopt
          </button>
          <button type="button" className="button" disabled={is_busy} onClick={onDismiss} aria-label={`Dismiss ${what}`}>
            Dismiss
          </button>
        </span>
      </td>
    </tr>
  );
}

export function Dismissed({ tags }: { tags: readonly PendingTag[] }) {
  const { zone } = usePlant();
  const now_us = useNowUs();
  const orders = useOrders(() => undefined);
  if (tags.length === 0) return orders.data === undefined ? null : <OutcomeNote outcome={orders.data} />;
  return (
    <section className="panel" aria-labelledby="dismissed">
      <h2 id="dismissed">Dismissed ({tags.length})</h2>
      <p className="quiet">They are counted and nothing is held of them. Restored, they wait again from then on.</p>
      <OutcomeNote outcome={orders.data} />
      <table className="table stacked">
        <caption className="hidden">Dismissed values</caption>
        <thead>
          <tr>
            <th scope="col">Value</th>
            <th scope="col">From</th>
            <th scope="col">Readings</th>
            <th scope="col">Dismissed</th>
            <th scope="col">Action</th>
          </tr>
        </thead>
        <tbody>
          {tags.map((tag) => (
            <tr key={tag.id}>
              <th scope="row" data-label="Value" className="breakable">{tag.name}</th>
              <td data-label="From" className="breakable">
                {tag.device} <span className="note">client {tag.client}</span>
              </td>
              <td data-label="Readings">{readingsWords(tag)}</td>
              <td data-label="Dismissed">{tag.dismissed_us === null ? "—" : when(tag.dismissed_us, now_us, zone)}</td>
              <td data-label="Action">
                <button type="button" className="button" disabled={orders.isPending} aria-label={`Restore ${tag.name} of ${tag.device}`}
                  onClick={() => orders.mutate({ items: [{ id: tag.id, name: tag.proposed_name }], ask: tell("restore") })}>
                  Restore
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
