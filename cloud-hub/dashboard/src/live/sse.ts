// Bytes of a text/event-stream → events, as the HTML standard parses them. No network, no JSON.

export interface StreamEvent {
  event: string;
  data: string;
  id: string | null;
}

/** A line longer than this is no hub of ours; the reader gives the connection up. */
const LINE_MAX_CHARS = 4_000_000;

export class EventStreamParser {
  private buffer = "";
  private event = "";
  private data: string[] = [];
  private id: string | null = null;

  /** Feeds decoded text; returns the events that it completed. */
  push(text: string): StreamEvent[] {
    this.buffer += text;
    if (this.buffer.length > LINE_MAX_CHARS) throw new Error("event stream line is too long");
    const events: StreamEvent[] = [];
    for (;;) {
      const end = this.buffer.search(/[\r\n]/);
      if (end < 0) break;
      // A CR at the very end may be the first half of CRLF: wait for what follows.
      if (this.buffer[end] === "\r" && end === this.buffer.length - 1) break;
      const width = this.buffer.startsWith("\r\n", end) ? 2 : 1;
      const line = this.buffer.slice(0, end);
      this.buffer = this.buffer.slice(end + width);
      const event = this.takeLine(line);
      if (event !== null) events.push(event);
    }
    return events;
  }

  private takeLine(line: string): StreamEvent | null {
    if (line === "") return this.dispatch();
    if (line.startsWith(":")) return null;
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.event = value;
    else if (field === "data") this.data.push(value);
    else if (field === "id" && !value.includes("\0")) this.id = value;
    return null;
  }

  private dispatch(): StreamEvent | null {
    const { event, data } = this;
    this.event = "";
    this.data = [];
    if (data.length === 0) return null;
    return { event: event || "message", data: data.join("\n"), id: this.id };
  }
}
