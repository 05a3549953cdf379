// The four newest rejects, for the Now page.
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { visionQuery } from "../../api/queries";
import { lineOf, usePlant } from "../../components/plant";
import { ProblemNote } from "../../components/state";
import { when } from "../../format";
import { useNowUs } from "../../live/live";
import { BoxedImage, defectWords } from "./boxed_image";

const THUMBNAILS = 4;

export function NewestDefects() {
  const plant = usePlant();
  const now_us = useNowUs();
  const results = useInfiniteQuery(visionQuery("reject", undefined));
  const newest = results.data?.pages[0]?.items.slice(0, THUMBNAILS) ?? [];
  return (
    <section className="panel" aria-labelledby="newest-defects">
      <div className="panel-head">
        <h2 id="newest-defects">Newest defects</h2>
        <Link to="/t/$tenant/p/$plant/vision" params={plant.params} search={{ verdict: "reject" }}>
          All defects
        </Link>
      </div>
      {results.error !== null && <ProblemNote what="Vision results not loaded" error={results.error} />}
      {results.data !== undefined && newest.length === 0 && <p className="quiet">No defect on record.</p>}
      <ul className="thumbnails">
        {newest.map((result) => (
          <li key={result.id}>
            <BoxedImage result={result} hasBoxes hasLabels={false} />
            <p>{defectWords(result)}</p>
            <p className="quiet">
              {lineOf(plant, result.line_id)?.code ?? result.camera} · {when(result.taken_us, now_us, plant.zone)}
            </p>
          </li>
        ))}
      </ul>
    </section>
  );
}
