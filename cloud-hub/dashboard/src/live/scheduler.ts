// When may something be drawn? One scheduler for the page: on animation frames only, at most 8 ms a
// frame, each drawing at most once a second, only what is in view, nothing while the page is hidden.

export interface SchedulerHost {
  requestFrame(callback: () => void): void;
  requestTimer(callback: () => void, delay_ms: number): void;
  nowMs(): number;
  isHidden(): boolean;
}

const FRAME_BUDGET_MS = 8;
const INTERVAL_MS = 1_000;
/** Data comes at 1 Hz with jitter; without slack a drawing would slip to every second message. */
const SLACK_MS = 250;

export interface Drawing {
  /** Something it shows has changed. Costs next to nothing; called for every message. */
  markDirty(): void;
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
  due_ms: number;
}

/** Averages to one drawing an interval, with a little slack for jitter. */
export function nextDueMs(due_ms: number, now_ms: number): number {
  return Math.max(due_ms, now_ms) + INTERVAL_MS;
}

export class Scheduler {
  private readonly entries = new Set<Entry>();
  private isFrameAsked = false;
  private isTimerAsked = false;

  constructor(private readonly host: SchedulerHost) {}

  register(draw: () => void): Drawing {
    const entry: Entry = { draw, isDirty: true, isVisible: true, due_ms: 0 };
    this.entries.add(entry);
    this.wake();
    return {
      markDirty: () => {
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
    const due_ms = this.earliestDueMs();
    if (due_ms === null) return;
    const wait_ms = due_ms - SLACK_MS - this.host.nowMs();
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

  private earliestDueMs(): number | null {
    let earliest: number | null = null;
    for (const entry of this.entries) {
      if (!entry.isDirty || !entry.isVisible) continue;
      if (earliest === null || entry.due_ms < earliest) earliest = entry.due_ms;
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
      if (now_ms < entry.due_ms - SLACK_MS) continue;
      entry.isDirty = false;
      entry.due_ms = nextDueMs(entry.due_ms, now_ms);
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
