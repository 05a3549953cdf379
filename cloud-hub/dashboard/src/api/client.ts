// Speaks to the hub's REST API: bearer token, JSON, problem documents, cursor paging.
import { endSession, ensureSession, OWN_REQUEST, readSession, renewSession } from "../session";
import type { Page, Problem } from "./types";

export const API = "/api/v1";
/** Name of the query parameter that carries a page's `next`. */
export const CURSOR = "cursor";
/** A list is followed this many pages and no further; a longer one says so through `next`. */
const PAGES_MAX = 20;

export type Query = Record<string, string | number | boolean | null | undefined>;

/** The hub refused, and said why in a problem document (or did not, and the status is all there is). */
export class ApiError extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail ?? problem.title);
    this.name = "ApiError";
    this.problem = problem;
  }

  get status(): number {
    return this.problem.status;
  }
}

export function withQuery(path: string, query: Query = {}): string {
  const pairs = Object.entries(query)
    .filter(([, value]) => value !== undefined && value !== null && value !== "")
    .map(([name, value]) => [name, String(value)]);
  return pairs.length === 0 ? path : `${path}?${new URLSearchParams(pairs).toString()}`;
}

async function readProblem(response: Response): Promise<Problem> {
  const fallback: Problem = {
    title: response.statusText || `HTTP ${response.status}`,
    status: response.status,
  };
  if (!(response.headers.get("content-type") ?? "").includes("json")) return fallback;
  try {
    const body = (await response.json()) as Partial<Problem>;
    return { ...fallback, ...body, status: response.status };
  } catch {
    return fallback;
  }
}

interface Call {
  method?: "GET" | "POST";
  body?: unknown;
  signal?: AbortSignal | undefined;
  /** Sign-in answers 401 for a wrong password; that must not end a session. */
  anonymous?: boolean;
}

/** Asks again once when the token was refused and a new one was to be had. */
async function send(path: string, call: Call): Promise<Response> {
  const session = call.anonymous ? null : await ensureSession();
  const response = await fetchOnce(path, call, session?.token);
  if (response.status !== 401 || call.anonymous) return checked(response);
  const is_renewed = readSession()?.token !== session?.token || (await renewSession());
  const again = is_renewed ? await fetchOnce(path, call, readSession()?.token) : response;
  if (again.status === 401) endSession();
  return checked(again);
}

async function checked(response: Response): Promise<Response> {
  if (response.ok) return response;
  throw new ApiError(await readProblem(response));
}

async function fetchOnce(path: string, call: Call, token: string | undefined): Promise<Response> {
  const headers: Record<string, string> = { accept: "application/json, image/jpeg", ...OWN_REQUEST };
  if (token !== undefined) headers["authorization"] = `Bearer ${token}`;
  const init: RequestInit = { method: call.method ?? "GET", headers, cache: "no-store" };
  if (call.signal !== undefined) init.signal = call.signal;
  if (call.body !== undefined) {
    headers["content-type"] = "application/json";
    init.body = JSON.stringify(call.body);
  }
  try {
    return await fetch(`${API}/${path}`, init);
  } catch (cause) {
    if (call.signal?.aborted) throw cause;
    throw new ApiError({ title: "The hub cannot be reached", status: 0 });
  }
}

export async function get<T>(path: string, query?: Query, signal?: AbortSignal): Promise<T> {
  return (await (await send(withQuery(path, query), { signal })).json()) as T;
}

/** Reads what needs no session. */
export async function getAnonymous<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await (await send(path, { signal, anonymous: true })).json()) as T;
}

/** Reads a whole list, following `next`. */
export async function getAll<T>(path: string, query?: Query, signal?: AbortSignal): Promise<T[]> {
  const items: T[] = [];
  let next: string | null = null;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const answer: Page<T> = await get<Page<T>>(
      path,
      next === null ? query : { ...query, [CURSOR]: next },
      signal,
    );
    items.push(...answer.items);
    next = answer.next;
    if (next === null) break;
  }
  return items;
}

export async function getBlob(path: string, signal?: AbortSignal): Promise<Blob> {
  return (await send(path, { signal })).blob();
}

/** The name that the hub gives a file, or the fallback. */
export function fileName(disposition: string | null, fallback: string): string {
  return /filename="?([^";]+)"?/.exec(disposition ?? "")?.[1] ?? fallback;
}

/** Reads a file and hands it to the browser's downloads. */
export async function download(path: string, query: Query, fallback: string): Promise<void> {
  const response = await send(withQuery(path, query), {});
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = fileName(response.headers.get("content-disposition"), fallback);
  link.click();
  // The download holds its own reference once it has begun, which is after this turn of the loop.
  setTimeout(() => URL.revokeObjectURL(url), 0);
}

export async function post<T>(path: string, body: unknown, anonymous = false): Promise<T> {
  const response = await send(path, { method: "POST", body, anonymous });
  const text = await response.text();
  return (text === "" ? null : JSON.parse(text)) as T;
}
