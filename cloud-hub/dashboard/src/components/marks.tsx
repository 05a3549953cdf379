// The only coloured things on a page: alarm priorities. Each has its shape and its word as well.
import type { Priority } from "../pages/fsq/ccp_state";

const WORDS: Record<Priority, string> = { 1: "Critical", 2: "High", 3: "Low" };

export function Shape({ priority, outline = false }: { priority: Priority; outline?: boolean }) {
  const paint = outline
    ? { fill: "none", stroke: "currentColor", strokeWidth: 2 }
    : { fill: "currentColor" };
  return (
    <svg className="shape" viewBox="0 0 16 16" width="14" height="14" aria-hidden="true" focusable="false">
      {priority === 1 && <path d="M8 1.5 15 14H1z" {...paint} />}
      {priority === 2 && <path d="M8 1 15 8 8 15 1 8z" {...paint} />}
      {priority === 3 && <circle cx="8" cy="8" r="6" {...paint} />}
    </svg>
  );
}

/** Shape and priority word on the priority's colour. */
export function PriorityTag({ priority }: { priority: Priority }) {
  return (
    <span className={`priority p${priority}`}>
      <Shape priority={priority} />
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
