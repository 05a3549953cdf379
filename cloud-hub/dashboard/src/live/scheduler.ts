// When may something be drawn? One scheduler for the page: on animation frames only, at most 8 ms a
// frame, each chart at most once a second, only what is in view, nothing while the page is hidden.

export interface SchedulerHost {
  requestFrame(callback: () => void): void;
  requestTimer(callback: () => void, delay_ms: number): void;
  nowMs(): number;
  isHidden(): boolean;
}

const FRAME_BUDGET_MS = 8;
export const CHART_INTERVAL_MS = 1_000;
/** Data comes at 1 Hz with jitter; without slack a drawing would slip to every second message. */
const SLACK_SHARE = 0.25;
/** A little over the second in which data usually comes, so that time alone does not take its turn. */
const AGED_MS = 1_100;

export interface Drawing {
  /** Something it shows has changed. Costs next to nothing; called for every message. */
  markDirty(): void;
  /** Only time passed: draws again when nothing was drawn for a second. */
  markAged(): void;
  /** A drawing out of view keeps its dirt and is drawn when it comes back. */
  setVisible(visible: boolean): void;
  /** The next frame draws it without waiting for its second (resize, change of range or theme). */
  drawSoon(): void;
  dispose(): void;
}

interface Entry {
  draw: () => void;
  isDirty: boolean;
  isVisible: boolean;
  interval_ms: number;
  due_ms: number;
  drawn_ms: number;
}

/** Averages to one drawing an interval, with a little slack for jitter. */
export function nextDueMs(due_ms: number, now_ms: number, interval_ms: number): number {
  return Math.max(due_ms, now_ms) + interval_ms;
}

/** From when on it may be drawn. */
function allowedMs(entry: Entry): number {
  return entry.due_ms - entry.interval_ms * SLACK_SHARE;
}

export class Scheduler {
  private readonly entries = new Set<Entry>();
  private isFrameAsked = false;
  private isTimerAsked = false;

  constructor(private readonly host: SchedulerHost) {}

  register(draw: () => void, interval_ms: number = CHART_INTERVAL_MS): Drawing {
    const entry: Entry = { draw, isDirty: true, isVisible: true, interval_ms, due_ms: 0, drawn_ms: 0 };
    this.entries.add(entry);
    this.wake();
    return {
      markDirty: () => {
        entry.isDirty = true;
        this.wake();
      },
      markAged: () => {
        if (this.host.nowMs() - entry.drawn_ms < AGED_MS) return;
        entry.isDirty = true;
        this.wake();
      },
      setVisible: (visible) => {
        entry.isVisible = visible;
        if (visible) this.wake();
      },
      drawSoon: () => {
        entry.isDirty = true;
        entry.due_ms = 0;
        this.wake();
      },
      dispose: () => {
        this.entries.delete(entry);
      },
    };
  }

  /** Arranges the next frame when there is something to draw; also called when the page is shown. */
  wake(): void {
    if (this.isFrameAsked || this.host.isHidden()) return;
    const allowed_ms = this.earliestMs();
    if (allowed_ms === null) return;
    const wait_ms = allowed_ms - this.host.nowMs();
    if (wait_ms <= 0) {
      this.isFrameAsked = true;
      this.host.requestFrame(() => this.frame());
    } else if (!this.isTimerAsked) {
      this.isTimerAsked = true;
      this.host.requestTimer(() => {
        this.isTimerAsked = false;
        this.wake();
      }, wait_ms);
    }
  }

  private earliestMs(): number | null {
    let earliest: number | null = null;
    for (const entry of this.entries) {
      if (!entry.isDirty || !entry.isVisible) continue;
      earliest = Math.min(earliest ?? Number.POSITIVE_INFINITY, allowedMs(entry));
    }
    return earliest;
  }

  private frame(): void {
    this.isFrameAsked = false;
    if (this.host.isHidden()) return;
    const started_ms = this.host.nowMs();
    for (const entry of [...this.entries]) {
      const now_ms = this.host.nowMs();
      if (now_ms - started_ms > FRAME_BUDGET_MS) break;
      if (!this.entries.has(entry) || !entry.isDirty || !entry.isVisible) continue;
      if (now_ms < allowedMs(entry)) continue;
      entry.isDirty = false;
      entry.drawn_ms = now_ms;
      entry.due_ms = nextDueMs(entry.due_ms, now_ms, entry.interval_ms);
      // To the back of the queue: under pressure everyone gets a turn.
      this.entries.delete(entry);
      this.entries.add(entry);
      entry.draw();
    }
    this.wake();
  }
}

/** The page's own scheduler. */
export const scheduler = new Scheduler({
  requestFrame: (callback) => {
    requestAnimationFrame(callback);
  },
  requestTimer: (callback, delay_ms) => {
    setTimeout(callback, delay_ms);
  },
  nowMs: () => performance.now(),
  isHidden: () => document.hidden,
});

if (typeof document !== "undefined") {
  document.addEventListener("visibilitychange", () => scheduler.wake());
}
