// Inspected frames, newest first, with boxes drawn on; by verdict, line and class.
import { useInfiniteQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { visionQuery } from "../../api/queries";
import type { Verdict, VisionResult } from "../../api/types";
import { lineOf, usePlant } from "../../components/plant";
import { useShortcut } from "../../components/shortcuts";
import { ProblemNote } from "../../components/state";
import { useTitle } from "../../components/use_title";
import { when, words } from "../../format";
import { useNowUs } from "../../live/live";
import { BoxedImage, defectWords } from "./boxed_image";

export const VERDICTS = ["reject", "unknown", "pass"] as const;

/** Every class on the results, so that only what can be found is offered. */
export function classesOf(results: readonly VisionResult[]): string[] {
  return [...new Set(results.flatMap((result) => result.defects.map((defect) => defect.class)))].sort();
}

export function DefectsPage() {
  useTitle("Vision");
  const search = useSearch({ from: "/t/$tenant/p/$plant/vision" });
  const verdict = search.verdict === "any" ? undefined : (search.verdict ?? "reject");
  const results = useInfiniteQuery(visionQuery(verdict, search.line));
  const all = results.data?.pages.flatMap((page) => page.items) ?? [];
  const wanted = search.class;
  const shown =
    wanted === undefined ? all : all.filter((each) => each.defects.some((defect) => defect.class === wanted));
  const [has_boxes, setBoxes] = useState(true);
  useShortcut("b", () => setBoxes(!has_boxes));
  return (
    <>
      <h1>Vision</h1>
      <Filters classes={classesOf(all)} hasBoxes={has_boxes} setBoxes={setBoxes} />
      {results.error !== null && (
        <ProblemNote what="Vision results not loaded" error={results.error} retry={() => void results.refetch()} />
      )}
      {results.isPending && <p className="quiet" role="status">Loading…</p>}
      {results.data !== undefined && shown.length === 0 && <p className="panel quiet">No result matches.</p>}
      <ul className="gallery">
        {shown.map((result) => (
          <li key={result.id} className="panel">
            <ResultCard result={result} hasBoxes={has_boxes} />
          </li>
        ))}
      </ul>
      {results.hasNextPage && (
        <button type="button" className="button" disabled={results.isFetchingNextPage}
          onClick={() => void results.fetchNextPage()}>
          {results.isFetchingNextPage ? "Loading…" : "Older"}
        </button>
      )}
    </>
  );
}

interface FiltersProps {
  classes: readonly string[];
  hasBoxes: boolean;
  setBoxes: (hasBoxes: boolean) => void;
}

function Filters({ classes, hasBoxes, setBoxes }: FiltersProps) {
  const { lines } = usePlant();
  const search = useSearch({ from: "/t/$tenant/p/$plant/vision" });
  const navigate = useNavigate();
  const choose = (change: { verdict?: Verdict | "any"; line?: string | undefined; class?: string | undefined }) =>
    void navigate({ to: ".", search: { ...search, ...change }, replace: true });
  const offered = search.class !== undefined && !classes.includes(search.class) ? [...classes, search.class] : classes;
  return (
    <form className="filters" aria-label="Filter" onSubmit={(event) => event.preventDefault()}>
      <label>
        Verdict
        <select value={search.verdict ?? "reject"} onChange={(event) => choose({ verdict: event.target.value as Verdict })}>
          {VERDICTS.map((verdict) => (
            <option key={verdict} value={verdict}>{words(verdict)}</option>
          ))}
          <option value="any">Any</option>
        </select>
      </label>
      <label>
        Line
        <select value={search.line ?? ""} onChange={(event) => choose({ line: event.target.value || undefined })}>
          <option value="">All lines</option>
          {lines.map((line) => (
            <option key={line.id} value={line.id}>{line.code} {line.name}</option>
          ))}
        </select>
      </label>
      <label>
        Class
        <select value={search.class ?? ""} onChange={(event) => choose({ class: event.target.value || undefined })}>
          <option value="">All classes</option>
          {offered.map((name) => (
            <option key={name} value={name}>{words(name)}</option>
          ))}
        </select>
      </label>
      <button type="button" className="button" aria-pressed={hasBoxes} aria-keyshortcuts="b"
        onClick={() => setBoxes(!hasBoxes)}>
        {hasBoxes ? "Hide boxes" : "Show boxes"}
      </button>
    </form>
  );
}

function ResultCard({ result, hasBoxes }: { result: VisionResult; hasBoxes: boolean }) {
  const plant = usePlant();
  const now_us = useNowUs();
  return (
    <>
      <BoxedImage result={result} hasBoxes={hasBoxes} />
      <p>
        <strong>{words(result.verdict)}</strong> {defectWords(result)}
      </p>
      <p className="quiet">
        {lineOf(plant, result.line_id)?.code ?? "—"} · {result.camera} · {when(result.taken_us, now_us, plant.zone)}
      </p>
      <p className="quiet">
        Model {result.model.name} {result.model.version} <code>{result.model.sha256.slice(0, 8)}</code>
      </p>
    </>
  );
}
