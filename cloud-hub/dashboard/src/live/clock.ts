// What time is it on the hub? Every age on the page is measured against this, never against the
// browser's own wall clock and never against whether a socket happens to be open.

/** The browser's two clocks, read together. */
export interface LocalTime {
  /** performance.now(): does not jump, may stop while the computer sleeps. */
  mono_ms: number;
  /** Date.now(): may jump, does not stop. */
  wall_ms: number;
}

export function localTime(): LocalTime {
  return { mono_ms: performance.now(), wall_ms: Date.now() };
}

/** How fast a browser clock may honestly drift; lets an over-estimate die out slowly. */
const DRIFT_PPM = 200;

export class ServerClock {
  private anchor: { server_us: number; local: LocalTime } | null = null;

  /**
   * Takes the hub's time as a message states it. A message that was read late states an old time,
   * so the estimate only ever follows the least delayed message seen, minus the allowed drift.
   */
  observe(server_us: number, local: LocalTime): void {
    if (this.anchor === null) {
      this.anchor = { server_us, local };
      return;
    }
    const elapsed_us = Math.max(0, local.mono_ms - this.anchor.local.mono_ms) * 1000;
    const expected_us = this.anchor.server_us + elapsed_us * (1 - DRIFT_PPM / 1e6);
    this.anchor = { server_us: Math.max(server_us, expected_us), local };
  }

  /** Null until the hub has spoken once. After a sleep it errs towards "old", never towards "live". */
  nowUs(local: LocalTime): number | null {
    if (this.anchor === null) return null;
    const mono_ms = local.mono_ms - this.anchor.local.mono_ms;
    const wall_ms = local.wall_ms - this.anchor.local.wall_ms;
    return this.anchor.server_us + Math.max(0, mono_ms, wall_ms) * 1000;
  }
}
