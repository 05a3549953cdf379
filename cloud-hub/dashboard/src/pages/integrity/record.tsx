// Who did what, when and why? The audit chain, newest first, and whether it is whole. The hub writes and verifies
// it; this page only shows what it says.
import { useInfiniteQuery, useMutation } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { get } from "../../api/client";
import { auditQuery, type AuditFilter } from "../../api/queries";
import type { AuditEntry, AuditVerdict } from "../../api/types";
import { usePlant } from "../../components/plant";
import { ProblemNote } from "../../components/state";
import { useTitle } from "../../components/use_title";
import { when, words } from "../../format";
import { useNowUs } from "../../live/live";

export function RecordPage() {
  useTitle("Record");
  const [filter, setFilter] = useState<AuditFilter>({});
  const entries = useInfiniteQuery(auditQuery(filter));
  const rows = entries.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      <h1>Record of deeds</h1>
      <Verification />
      <Narrowing onNarrow={setFilter} />
      {entries.error !== null && (
        <ProblemNote what="The record was not loaded" error={entries.error} retry={() => void entries.refetch()} />
      )}
      {entries.data !== undefined && rows.length === 0 && <p className="panel quiet">No entry matches.</p>}
      {rows.length > 0 && <Entries rows={rows} />}
      {entries.hasNextPage && (
        <button type="button" className="button" disabled={entries.isFetchingNextPage}
          onClick={() => void entries.fetchNextPage()}>
          Show older entries
        </button>
      )}
    </>
  );
}

/** In words, from what the hub found. */
export function verdictWords(verdict: AuditVerdict): string {
  const rows = new Intl.NumberFormat("en").format(verdict.rows);
  const broken = verdict.first_broken;
  if (broken === null) return `The chain is whole: ${rows} entries verified.`;
  return `The chain is broken at entry ${broken.seq}: ${broken.why}.`;
}

function Verification() {
  const verify = useMutation({ mutationFn: () => get<AuditVerdict>("audit/verify") });
  const is_broken = verify.data !== undefined && verify.data.first_broken !== null;
  return (
    <div className="panel">
      <button type="button" className="button" disabled={verify.isPending} onClick={() => verify.mutate()}>
        {verify.isPending ? "Verifying…" : "Verify the chain"}
      </button>
      <p role="status" className={is_broken ? "problem" : undefined}>
        {verify.data !== undefined && verdictWords(verify.data)}
      </p>
      {verify.error !== null && <ProblemNote what="The chain was not verified" error={verify.error} />}
    </div>
  );
}

function Narrowing({ onNarrow }: { onNarrow: (filter: AuditFilter) => void }) {
  const narrow = (event: FormEvent<HTMLFormElement>): void => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const text = (name: string): string => String(form.get(name) ?? "").trim();
    onNarrow({ entity: text("entity"), action: text("action") });
  };
  return (
    <form className="filters" onSubmit={narrow} aria-label="Narrow the record">
      <label>
        Kind of record
        <input name="entity" autoCapitalize="none" maxLength={60} placeholder="deviation" />
      </label>
      <label>
        Deed
        <input name="action" autoCapitalize="none" maxLength={60} placeholder="acknowledge" />
      </label>
      <button type="submit" className="button">Show</button>
    </form>
  );
}

function Entries({ rows }: { rows: readonly AuditEntry[] }) {
  const { zone } = usePlant();
  const now_us = useNowUs();
  return (
    <table className="table stacked">
      <caption className="hidden">Deeds, newest first</caption>
      <thead>
        <tr>
          <th scope="col" className="num">Entry</th>
          <th scope="col">When</th>
          <th scope="col">Who</th>
          <th scope="col">Deed</th>
          <th scope="col">Record</th>
          <th scope="col">Why</th>
        </tr>
      </thead>
      <tbody>
        {rows.map((entry) => (
          <tr key={entry.seq}>
            <th scope="row" className="num" data-label="Entry">{entry.seq}</th>
            <td data-label="When">{when(entry.at_us, now_us, zone)}</td>
            <td data-label="Who">{actorWords(entry)}</td>
            <td data-label="Deed">{words(entry.action)}</td>
            <td data-label="Record">
              {words(entry.entity)}
              <Change entry={entry} />
            </td>
            <td data-label="Why">{entry.why ?? ""}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function actorWords({ actor }: Pick<AuditEntry, "actor">): string {
  if (actor.kind === "hub") return `Hub (${actor.id ?? "itself"})`;
  if (actor.kind === "nobody") return "Nobody signed in";
  return actor.name ?? `${words(actor.kind)} ${actor.id ?? ""}`.trim();
}

/** Fields whose value a deed changed, with both values. */
export function changedFields(entry: Pick<AuditEntry, "before" | "after">): [string, string, string][] {
  const fields = (value: unknown): Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
  const [before, after] = [fields(entry.before), fields(entry.after)];
  const shown = (value: unknown): string =>
    value === undefined || value === null ? "—" : typeof value === "string" ? value : JSON.stringify(value);
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .sort()
    .map((name): [string, string, string] => [name, shown(before[name]), shown(after[name])])
    .filter(([, was, is]) => was !== is);
}

function Change({ entry }: { entry: AuditEntry }) {
  const changes = changedFields(entry);
  if (changes.length === 0) return null;
  return (
    <details>
      <summary>{changes.length === 1 ? "1 field" : `${changes.length} fields`}</summary>
      <dl className="facts">
        {changes.map(([name, was, is]) => (
          <div key={name}>
            <dt>{words(name)}</dt>
            <dd>{entry.before === null ? is : `${was} → ${is}`}</dd>
          </div>
        ))}
      </dl>
    </details>
  );
}
