// Keeps one live stream to the hub open: opens, resumes by the last event id, notices silence, backs
// off and tries again. It reads by fetch, not EventSource, so that the token travels in a header,
// the cursor survives our own reconnects, and a stream that went quiet can be given up.
import { API, withQuery } from "../api/client";
import { EventStreamParser, type StreamEvent } from "./sse";

export interface LiveHandlers {
  onEvent(event: StreamEvent): void;
  /** The hub does not know the token any more. */
  onUnauthorized(): void;
}

export interface LiveRequest {
  token: string;
  tags: readonly number[];
}

/** Three missed heartbeats. */
const SILENCE_MAX_MS = 16_000;
const BACKOFF_MIN_MS = 500;
const BACKOFF_MAX_MS = 15_000;

/** Doubles from half a second to 15 s, with jitter so that a restarted hub is not stampeded. */
export function backoffMs(attempt: number, random: number): number {
  const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(attempt, 10));
  return ceiling / 2 + (ceiling / 2) * random;
}

export class LiveConnection {
  private request: LiveRequest | null = null;
  private abort: AbortController | null = null;
  private last_id: string | null = null;
  private attempt = 0;
  private is_reading = false;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly handlers: LiveHandlers) {}

  /** Opens the stream, or re-opens it when what is asked for changed. */
  open(request: LiveRequest): void {
    const same =
      this.request !== null &&
      this.request.token === request.token &&
      this.request.tags.join() === request.tags.join();
    if (same) return;
    if (this.request !== null && this.is_reading && this.request.tags.join() === request.tags.join()) {
      // A renewed token: the stream that runs goes on, the next one is opened with it.
      this.request.token = request.token;
      return;
    }
    this.request = { ...request };
    this.attempt = 0;
    this.restart(0);
  }

  close(): void {
    this.request = null;
    this.last_id = null;
    clearTimeout(this.timer);
    this.abort?.abort();
    this.abort = null;
  }

  private restart(delay_ms: number): void {
    clearTimeout(this.timer);
    this.abort?.abort();
    this.abort = null;
    this.timer = setTimeout(() => void this.run(), delay_ms);
  }

  private async run(): Promise<void> {
    const request = this.request;
    if (request === null) return;
    const abort = new AbortController();
    this.abort = abort;
    try {
      await this.read(request, abort);
    } catch {
      // A broken stream is ordinary; what matters is that the next attempt is arranged below.
    }
    if (this.abort !== abort || this.request !== request) return;
    const wait_ms = backoffMs(this.attempt, Math.random());
    this.attempt += 1;
    this.restart(wait_ms);
  }

  private async read(request: LiveRequest, abort: AbortController): Promise<void> {
    const headers: Record<string, string> = {
      accept: "text/event-stream",
      authorization: `Bearer ${request.token}`,
    };
    if (this.last_id !== null) headers["last-event-id"] = this.last_id;
    const url = withQuery(`${API}/live`, {
      topics: "lines,alarms,samples",
      tags: request.tags.join(","),
    });
    let silence = setTimeout(() => abort.abort(), SILENCE_MAX_MS);
    try {
      const response = await fetch(url, { headers, cache: "no-store", signal: abort.signal });
      if (response.status === 401) this.handlers.onUnauthorized();
      if (!response.ok || response.body === null) return;
      this.is_reading = true;
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      const parser = new EventStreamParser();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(silence);
        silence = setTimeout(() => abort.abort(), SILENCE_MAX_MS);
        for (const event of parser.push(decoder.decode(value, { stream: true }))) {
          this.attempt = 0;
          // After `resync` the hub cannot resume from here: the next connection starts from now.
          this.last_id = event.event === "resync" ? null : (event.id ?? this.last_id);
          this.handlers.onEvent(event);
        }
      }
    } finally {
      this.is_reading = false;
      clearTimeout(silence);
      abort.abort();
    }
  }
}
