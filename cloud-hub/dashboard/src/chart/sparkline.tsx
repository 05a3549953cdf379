// One hour of one tag in a few square centimetres: no axes but how far back, the limit dashed, gaps left open.
import { useEffect, useRef } from "react";
import { scheduler, type Drawing } from "../live/scheduler";
import { store } from "../live/store";
import { FONT } from "./axes";
import { decimate, gapUs, type Decimated } from "./decimate";
import { inkOf } from "./ink";
import { duration } from "../format";
import { valueRange, windowStart } from "./range";
import { useHistory } from "./use_history";

const SPAN_US = 3_600_000_000;
const HEIGHT_PX = 60;
/** Below the line: how far back it goes. */
const LABEL_PX = 16;

export interface SparklineProps {
  tag_id: number;
  period_ms: number;
  limit_low: number | null;
  limit_high: number | null;
  label: string;
}

interface Frame {
  from_us: number;
  to_us: number;
  limits: number[];
}

function paint(canvas: HTMLCanvasElement, points: Decimated, { from_us, to_us, limits }: Frame): void {
  const context = canvas.getContext("2d");
  if (context === null) return;
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(HEIGHT_PX * ratio);
  context.scale(ratio, ratio);
  const ink = inkOf(canvas);
  const [low, high] = valueRange(points.y, limits);
  const x = (time_us: number) => ((time_us - from_us) / (to_us - from_us)) * width;
  const y = (value: number) => 2 + (1 - (value - low) / (high - low)) * (HEIGHT_PX - LABEL_PX - 4);
  context.strokeStyle = ink.limit;
  context.setLineDash([5, 4]);
  context.lineWidth = 1;
  for (const limit of limits) {
    context.beginPath();
    context.moveTo(0, y(limit));
    context.lineTo(width, y(limit));
    context.stroke();
  }
  context.setLineDash([]);
  context.strokeStyle = ink.trend;
  context.lineWidth = 1.5;
  context.beginPath();
  let is_down = false;
  points.x.forEach((time_us, index) => {
    const value = points.y[index] ?? null;
    if (value === null) is_down = false;
    else if (is_down) context.lineTo(x(time_us), y(value));
    else context.moveTo(x(time_us), y(value));
    if (value !== null) is_down = true;
  });
  context.stroke();
  context.fillStyle = ink.text;
  context.font = FONT;
  context.fillText(`−${duration(to_us - from_us)}`, 0, HEIGHT_PX - 2);
}

export function Sparkline({ tag_id, period_ms, limit_low, limit_high, label }: SparklineProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const drawing = useRef<Drawing | null>(null);
  const history = useHistory(tag_id, SPAN_US, 600);
  const latest = useRef(history);
  latest.current = history;
  useEffect(() => {
    const element = canvas.current;
    if (element === null) return undefined;
    const limits = [limit_low, limit_high].filter((limit) => limit !== null);
    const own = scheduler.register(() => {
      const to_us = store.nowUs() ?? Date.now() * 1000;
      const series = latest.current.series();
      const from_us = windowStart(series, to_us, SPAN_US);
      const gap_us = gapUs(period_ms, latest.current.resolution_us);
      const points = decimate(series, from_us, to_us, element.clientWidth, gap_us);
      paint(element, points, { from_us, to_us, limits });
    });
    drawing.current = own;
    const stop = store.subscribe((change) => (change === "readings" ? own.markDirty() : own.markAged()));
    const in_view = new IntersectionObserver(([entry]) => own.setVisible(entry?.isIntersecting ?? true));
    in_view.observe(element);
    const resized = new ResizeObserver(() => own.drawSoon());
    resized.observe(element);
    return () => {
      stop();
      in_view.disconnect();
      resized.disconnect();
      own.dispose();
    };
  }, [tag_id, period_ms, limit_low, limit_high]);
  useEffect(() => drawing.current?.drawSoon(), [history.updated_ms]);
  return <canvas ref={canvas} className="sparkline" role="img" aria-label={label} height={HEIGHT_PX} />;
}
