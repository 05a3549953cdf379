// What a page shows while it loads, when the hub refuses, and when a refresh failed.
import type { UseQueryResult } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { ApiError } from "../api/client";

export function problemWords(error: unknown): string {
  if (error instanceof ApiError) {
    const { title, detail, status } = error.problem;
    const reason = detail !== undefined && detail !== title ? `${title}: ${detail}` : title;
    return status === 0 ? reason : `${reason} (${status})`;
  }
  return error instanceof Error ? error.message : "Unknown fault";
}

export function ProblemNote({ what, error, retry }: { what: string; error: unknown; retry?: () => void }) {
  return (
    <div className="problem" role="alert">
      <p>
        {what}: {problemWords(error)}.
      </p>
      {retry !== undefined && (
        <button type="button" className="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

interface LoadedProps<T> {
  query: UseQueryResult<T>;
  what: string;
  children: (data: T) => ReactNode;
}

/** Shows the data as soon as there is some; says so when it could not be refreshed. */
export function Loaded<T>({ query, what, children }: LoadedProps<T>) {
  if (query.data !== undefined) {
    return (
      <>
        {query.error !== null && <ProblemNote what={`${what} not refreshed`} error={query.error} />}
        {children(query.data)}
      </>
    );
  }
  if (query.error !== null) {
    return <ProblemNote what={`${what} not loaded`} error={query.error} retry={() => void query.refetch()} />;
  }
  return <p className="quiet" role="status">{`Loading ${what.toLowerCase()}…`}</p>;
}
