// Which REST resources the pages read, under which cache key, and what an event makes stale.
import { keepPreviousData, queryOptions, infiniteQueryOptions } from "@tanstack/react-query";
import { CURSOR, get, getAll, getBlob } from "./client";
import type {
  Alarm,
  AlarmKpis,
  AuditEntry,
  Batch,
  Ccp,
  Deviation,
  Edge,
  Hold,
  IntegratorDevice,
  IntegratorError,
  Line,
  Me,
  Page,
  PendingTag,
  Readings,
  Series,
  Tag,
  VisionResult,
} from "./types";

/** Events invalidate these; the interval only covers what no event announces (margins, checks). */
const REFRESH_MS = 30_000;

export const meQuery = queryOptions({
  queryKey: ["me"],
  queryFn: ({ signal }) => get<Me>("auth/me", undefined, signal),
  staleTime: Infinity,
});

export const linesQuery = queryOptions({
  queryKey: ["lines"],
  queryFn: ({ signal }) => getAll<Line>("plant-ops/lines", undefined, signal),
  refetchInterval: REFRESH_MS,
});

export const tagsQuery = queryOptions({
  queryKey: ["tags"],
  queryFn: ({ signal }) => getAll<Tag>("plant-ops/tags", undefined, signal),
  staleTime: 5 * 60_000,
});

export const ccpsQuery = queryOptions({
  queryKey: ["ccps"],
  queryFn: ({ signal }) => getAll<Ccp>("fsq/ccps", undefined, signal),
  refetchInterval: REFRESH_MS,
});

/** Without those who call over HTTP when there is something to say: that they say nothing means nothing. */
export function reporting(edges: Edge[]): Edge[] {
  return edges.filter((edge) => edge.state !== "on_demand");
}

export const edgesQuery = queryOptions({
  queryKey: ["edges"],
  queryFn: ({ signal }) => getAll<Edge>("edges", undefined, signal),
  select: reporting,
  refetchInterval: REFRESH_MS,
});

export const openDeviationsQuery = queryOptions({
  queryKey: ["deviations", "open"],
  queryFn: ({ signal }) => getAll<Deviation>("fsq/deviations", { status: "open" }, signal),
  refetchInterval: REFRESH_MS,
});

/** Closed again, but nobody took responsibility: as urgent to a person as an open one. */
export const closedUnacknowledgedQuery = queryOptions({
  queryKey: ["deviations", "closed-unacknowledged"],
  queryFn: ({ signal }) =>
    getAll<Deviation>("fsq/deviations", { status: "closed", acknowledged: false }, signal),
  refetchInterval: REFRESH_MS,
});

/** Every status, newest page only: the timeline of one line. */
export const recentDeviationsQuery = queryOptions({
  queryKey: ["deviations", "recent"],
  queryFn: ({ signal }) => get<Page<Deviation>>("fsq/deviations", undefined, signal),
});

export const deviationQuery = (id: string) =>
  queryOptions({
    queryKey: ["deviations", "one", id],
    queryFn: ({ signal }) => get<Deviation>(`fsq/deviations/${encodeURIComponent(id)}`, undefined, signal),
  });

export const openHoldsQuery = queryOptions({
  queryKey: ["holds", "open"],
  queryFn: ({ signal }) => getAll<Hold>("fsq/holds", { status: "open" }, signal),
  refetchInterval: REFRESH_MS,
});

export const batchesQuery = queryOptions({
  queryKey: ["batches"],
  queryFn: ({ signal }) => get<Page<Batch>>("plant-ops/batches", undefined, signal),
});

export const visionQuery = (verdict: string | undefined, line_id: string | undefined) =>
  infiniteQueryOptions({
    queryKey: ["vision", verdict ?? "any", line_id ?? "any"],
    queryFn: ({ signal, pageParam }) =>
      get<Page<VisionResult>>("vision/results", { verdict, line_id, [CURSOR]: pageParam }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (last: Page<VisionResult>) => last.next,
    placeholderData: keepPreviousData,
  });

export interface AuditFilter {
  entity?: string;
  action?: string;
}

export const auditQuery = (filter: AuditFilter) =>
  infiniteQueryOptions({
    queryKey: ["audit", filter.entity ?? "", filter.action ?? ""],
    queryFn: ({ signal, pageParam }) =>
      get<Page<AuditEntry>>("audit", { ...filter, [CURSOR]: pageParam }, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (last: Page<AuditEntry>) => last.next,
    placeholderData: keepPreviousData,
  });

/** An image never changes, so it is fetched once while it stays in memory. */
export const visionImageQuery = (id: string) =>
  queryOptions({
    queryKey: ["vision-image", id],
    queryFn: ({ signal }) => getBlob(`vision/results/${encodeURIComponent(id)}/image`, signal),
    staleTime: Infinity,
    gcTime: 60_000,
    retry: 1,
  });

export const readingsQuery = (tag_id: number, from_us: number, to_us: number, points: number) =>
  queryOptions({
    queryKey: ["readings", tag_id, from_us, to_us, points],
    queryFn: ({ signal }) =>
      get<Readings>("plant-ops/readings", { tag_id, from_us, to_us, points }, signal),
    staleTime: Infinity,
    gcTime: 30_000,
  });

/** Everything that stands or is owed something. */
export const standingAlarmsQuery = queryOptions({
  queryKey: ["alarms", "standing"],
  queryFn: ({ signal }) => getAll<Alarm>("sensors/alarms", { standing: true }, signal),
  refetchInterval: REFRESH_MS,
});

export const alarmKpisQuery = (from_us: number, to_us: number) =>
  queryOptions({
    queryKey: ["alarm-kpis", from_us, to_us],
    queryFn: ({ signal }) => get<AlarmKpis>("sensors/alarms/kpis", { from_us, to_us }, signal),
  });

export const seriesQuery = (tags: readonly number[], from_us: number, to_us: number, points: number) =>
  queryOptions({
    queryKey: ["series", tags.join(","), from_us, to_us, points],
    queryFn: ({ signal }) =>
      get<Series>("plant-ops/series", { tags: tags.join(","), from_us, to_us, points, events: true, limits: true }, signal),
    placeholderData: keepPreviousData,
  });

/** The hub's longest page: hundreds of values may wait. */
const LONG_PAGE = { limit: 200 } as const;

/** Values that came and are no tag yet, with those that were dismissed. */
export const pendingTagsQuery = queryOptions({
  queryKey: ["integrator", "pending-tags"],
  queryFn: ({ signal }) => getAll<PendingTag>("integrator/pending-tags", LONG_PAGE, signal),
  refetchInterval: REFRESH_MS,
});

export const integratorErrorsQuery = queryOptions({
  queryKey: ["integrator", "errors"],
  queryFn: ({ signal }) => getAll<IntegratorError>("integrator/errors", LONG_PAGE, signal),
  refetchInterval: REFRESH_MS,
});

export const integratorDevicesQuery = queryOptions({
  queryKey: ["integrator", "devices"],
  queryFn: ({ signal }) => getAll<IntegratorDevice>("integrator/devices", LONG_PAGE, signal),
  refetchInterval: REFRESH_MS,
});

/** Cache keys that each live event makes stale. */
export const STALE_AFTER: Record<string, readonly (readonly string[])[]> = {
  deviation: [["deviations"], ["ccps"], ["lines"]],
  hold: [["holds"], ["deviations"], ["lines"]],
  alarm: [["alarms"]],
  defect: [["vision"]],
  edge: [["edges"], ["tags"]],
  line: [["lines"], ["batches"]],
};
