// The only coloured things on a page: alarm priorities. Each has its shape and its word as well.
import type { Priority } from "../pages/fsq/ccp_state";

const WORDS: Record<Priority, string> = { 1: "Critical", 2: "High", 3: "Low" };

/** Full: active. Half: back to normal, not yet acknowledged. */
export type Fill = "full" | "half";

const OUTLINES: Record<Priority, string> = {
  1: "M8 1.5 15 14H1z",
  2: "M8 1 15 8 8 15 1 8z",
  3: "M8 2a6 6 0 1 1 0 12a6 6 0 1 1 0-12z",
};

export function Shape({ priority, fill = "full" }: { priority: Priority; fill?: Fill }) {
  const outline = OUTLINES[priority];
  return (
    <svg className="shape" viewBox="0 0 16 16" width="14" height="14" aria-hidden="true" focusable="false">
      {fill === "full" ? (
        <path d={outline} fill="currentColor" />
      ) : (
        <>
          <path d={outline} fill="none" stroke="currentColor" strokeWidth="1.5" />
          <path d={outline} fill="currentColor" style={{ clipPath: "inset(0 50% 0 0)" }} />
        </>
      )}
    </svg>
  );
}

/** Shape and priority word on the priority's colour. */
export function PriorityTag({ priority, fill = "full" }: { priority: Priority; fill?: Fill }) {
  return (
    <span className={`priority p${priority}`}>
      <Shape priority={priority} fill={fill} />
      {WORDS[priority]}
    </span>
  );
}

/** A state in words; coloured, with a shape, only when it carries a priority. */
export function StateWord({ priority, word }: { priority: Priority | null; word: string }) {
  if (priority === null) return <span className="state">{word}</span>;
  return (
    <span className={`state abnormal p${priority}`}>
      <Shape priority={priority} />
      {word}
    </span>
  );
}

export function SimTag() {
  return (
    <span className="sim" title="This value comes from a simulator">
      SIM
    </span>
  );
}
