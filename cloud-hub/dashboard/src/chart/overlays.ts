// What is drawn over and under the line of a trend: limits as steps, what else happened, where quality was not good,
// and readings that came late. Everything is told in words beside the chart, too.
import type uPlot from "uplot";
import type { SeriesEvent } from "../api/types";
import { formatValue } from "../format";
import { FONT } from "./axes";
import type { Ink } from "./ink";
import type { LimitStep, Stretch } from "./series_points";

/** Letters over the bands; told again, with the words, in the list below the charts. */
export const EVENT_LETTERS: Record<SeriesEvent["kind"], string> = { deviation: "D", alarm: "A", hold: "H" };

const LABEL_ROOM_PX = 14;
const BAR_PX = 4;
/** Drawing more of them would only be ink. */
const LATE_MAX = 500;

const px = (count: number): number => count * devicePixelRatio;

function bounded(plot: uPlot, from_us: number, to_us: number): [left: number, right: number] | null {
  const { left, width } = plot.bbox;
  const from = Math.max(left, plot.valToPos(from_us / 1e6, "x", true));
  const to = Math.min(left + width, plot.valToPos(to_us / 1e6, "x", true));
  return to < left || from > left + width ? null : [from, Math.max(from, to)];
}

/** Deviations, alarms and holds: a band each, its beginning as a line with a letter on top. */
export function drawEvents(plot: uPlot, ink: Ink, events: readonly SeriesEvent[], end_us: number): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = ink.grid;
  ctx.strokeStyle = ink.limit;
  ctx.lineWidth = px(1);
  ctx.font = FONT.replace("12px", `${px(12)}px`);
  ctx.textAlign = "left";
  ctx.textBaseline = "top";
  let labelled = Number.NEGATIVE_INFINITY;
  for (const event of [...events].sort((a, b) => a.from_us - b.from_us)) {
    const span = bounded(plot, event.from_us, event.to_us ?? end_us);
    if (span === null) continue;
    const [left, right] = span;
    ctx.fillStyle = ink.grid;
    ctx.globalAlpha = 0.5;
    ctx.fillRect(left, bbox.top, Math.max(px(1), right - left), bbox.height);
    ctx.globalAlpha = 1;
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
    if (left - labelled < px(LABEL_ROOM_PX)) continue;
    labelled = left;
    ctx.fillStyle = ink.text;
    ctx.fillText(EVENT_LETTERS[event.kind], left + px(3), bbox.top + px(2));
  }
  ctx.restore();
}

function isNewest(step: LimitStep, steps: readonly LimitStep[]): boolean {
  return !steps.some((other) => other.code === step.code && other.side === step.side && other.from_us > step.from_us);
}

/** Critical limits dashed, thresholds of rules dotted; where one changed, the line steps to the next. */
export function drawLimits(plot: uPlot, ink: Ink, steps: readonly LimitStep[]): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = ink.limit;
  ctx.fillStyle = ink.limit;
  ctx.lineWidth = px(1.5);
  ctx.font = FONT.replace("12px", `${px(12)}px`);
  ctx.textAlign = "right";
  for (const step of steps) {
    const span = bounded(plot, step.from_us, step.to_us);
    if (span === null) continue;
    const y = plot.valToPos(step.value, "y", true);
    const next = steps.find((other) => other.code === step.code && other.side === step.side && other.from_us === step.to_us);
    ctx.setLineDash(step.kind === "critical" ? [px(6), px(4)] : [px(1.5), px(3)]);
    ctx.beginPath();
    ctx.moveTo(span[0], y);
    ctx.lineTo(span[1], y);
    if (next !== undefined) ctx.lineTo(span[1], plot.valToPos(next.value, "y", true));
    ctx.stroke();
    if (!isNewest(step, steps)) continue;
    // A label stands on the side where values are allowed, so that two limits do not write over each other.
    ctx.textBaseline = step.side === "low" ? "bottom" : "top";
    const label = `${step.code} ${step.side === "low" ? "≥" : "≤"} ${formatValue(step.value)}`;
    ctx.fillText(label, Math.min(span[1], bbox.left + bbox.width) - px(4), y + px(step.side === "low" ? -2 : 2));
  }
  ctx.restore();
}

/** A bar along the time axis. */
export function drawNotGood(plot: uPlot, ink: Ink, stretches: readonly Stretch[]): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = ink.text;
  for (const [from_us, to_us] of stretches) {
    const span = bounded(plot, from_us, to_us);
    if (span === null) continue;
    ctx.fillRect(span[0], bbox.top + bbox.height - px(BAR_PX), Math.max(px(2), span[1] - span[0]), px(BAR_PX));
  }
  ctx.restore();
}

/** Hollow points; times in seconds. */
export function drawLate(plot: uPlot, ink: Ink, points: readonly { x: number; y: number }[]): void {
  const { ctx } = plot;
  ctx.save();
  ctx.strokeStyle = ink.trend;
  ctx.fillStyle = ink.panel;
  ctx.lineWidth = px(1);
  for (const point of points.slice(-LATE_MAX)) {
    ctx.beginPath();
    ctx.arc(plot.valToPos(point.x, "x", true), plot.valToPos(point.y, "y", true), px(3), 0, 7);
    ctx.fill();
    ctx.stroke();
  }
  ctx.restore();
}
