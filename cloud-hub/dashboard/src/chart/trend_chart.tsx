// One tag over time, live: history and newest readings, limits dashed, gaps open, late points hollow,
// a time axis in the plant's zone and a cursor shared with the other charts of the page.
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { usePlant, viewTag } from "../components/plant";
import { Value } from "../components/value";
import { clockTime, formatLimits, formatValue, formatWithUnit } from "../format";
import { useNowUs } from "../live/live";
import { scheduler } from "../live/scheduler";
import { store } from "../live/store";
import { FONT, chartAxes } from "./axes";
import { decimate, gapUs, type Decimated } from "./decimate";
import { inkOf, onThemeChange } from "./ink";
import { latePoints } from "./late_points";
import { drawLate } from "./overlays";
import { valueRange, windowStart } from "./range";
import { useHistory } from "./use_history";

const HEIGHT_PX = 200;

interface ChartSetup {
  zone: string;
  unit: string;
  limits: { value: number; words: string }[];
  late: () => { x: number; y: number }[];
  onCursor: (x_s: number | null, value: number | null) => void;
}

function drawLimits(plot: uPlot, { limits }: ChartSetup): void {
  const { ctx, bbox } = plot;
  const ink = inkOf(plot.root);
  ctx.save();
  ctx.strokeStyle = ink.limit;
  ctx.fillStyle = ink.limit;
  ctx.lineWidth = 1.5 * devicePixelRatio;
  ctx.font = FONT.replace("12px", `${12 * devicePixelRatio}px`);
  ctx.textAlign = "right";
  ctx.textBaseline = "bottom";
  ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
  for (const limit of limits) {
    const y = plot.valToPos(limit.value, "y", true);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.fillText(limit.words, bbox.left + bbox.width - 4, y - 2 * devicePixelRatio);
  }
  ctx.restore();
}

function options(width: number, setup: ChartSetup, element: HTMLElement): uPlot.Options {
  const ink = () => inkOf(element);
  return {
    width,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { sync: { key: "line" }, drag: { setScale: false, x: false, y: false }, points: { size: 7 } },
    scales: {
      x: { time: false, auto: false },
      y: { range: (plot) => valueRange(plot.data[1] ?? [], setup.limits.map((limit) => limit.value)) },
    },
    axes: chartAxes(setup.zone, ink, (plot) => {
      const { min = 0, max = 0 } = plot.scales["x"] ?? {};
      return (max ?? 0) - (min ?? 0);
    }),
    series: [
      {},
      { stroke: () => ink().trend, width: 1.5, spanGaps: false, points: { show: false } },
    ],
    hooks: {
      draw: [(plot) => drawLimits(plot, setup), (plot) => drawLate(plot, inkOf(plot.root), setup.late())],
      setCursor: [
        (plot) => {
          const index = plot.cursor.idx;
          const x = index == null ? undefined : plot.data[0][index];
          const y = index == null ? undefined : plot.data[1]?.[index];
          setup.onCursor(x ?? null, y ?? null);
        },
      ],
    },
  };
}

function toPlotData(points: Decimated): uPlot.AlignedData {
  return [points.x.map((time_us) => time_us / 1e6), points.y];
}

function summary(points: Decimated, unit: string): string {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of points.y) {
    if (value === null) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return "No valid reading in this range";
  return `Lowest ${formatValue(low)}, highest ${formatWithUnit(high, unit)}`;
}

export interface TrendChartProps {
  tag_id: number;
  span_us: number;
}

export function TrendChart({ tag_id, span_us }: TrendChartProps) {
  const plant = usePlant();
  const now_us = useNowUs();
  const view = viewTag(plant, tag_id, now_us);
  const box = useRef<HTMLDivElement>(null);
  const summary_text = useRef<HTMLSpanElement>(null);
  const cursor_text = useRef<HTMLSpanElement>(null);
  const soon = useRef<(() => void) | null>(null);
  const history = useHistory(tag_id, span_us, 600);
  const latest = useRef(history);
  latest.current = history;

  const { zone } = plant;
  const unit = view.tag?.unit ?? "";
  const period_ms = view.tag?.period_ms ?? 1000;
  const limit_low = view.tag?.limit_low ?? null;
  const limit_high = view.tag?.limit_high ?? null;

  useEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const limits = [
      ...(limit_low === null ? [] : [{ value: limit_low, words: `≥ ${formatValue(limit_low)}` }]),
      ...(limit_high === null ? [] : [{ value: limit_high, words: `≤ ${formatValue(limit_high)}` }]),
    ];
    const onCursor = (x_s: number | null, value: number | null): void => {
      if (cursor_text.current === null) return;
      cursor_text.current.textContent =
        x_s === null || value === null ? "" : `${clockTime(x_s * 1e6, zone)}  ${formatWithUnit(value, unit)}`;
    };
    const setup: ChartSetup = { zone, unit, limits, late: () => latePoints(tag_id), onCursor };
    const plot = new uPlot(options(element.clientWidth, setup, element), [[], []], element);
    const drawing = scheduler.register(() => {
      const to_us = store.nowUs() ?? Date.now() * 1000;
      const gap_us = gapUs(period_ms, latest.current.resolution_us);
      const columns = Math.max(50, plot.bbox.width / devicePixelRatio);
      const series = latest.current.series();
      const from_us = windowStart(series, to_us, span_us);
      const points = decimate(series, from_us, to_us, columns, gap_us);
      plot.batch(() => {
        plot.setData(toPlotData(points), false);
        plot.setScale("x", { min: from_us / 1e6, max: to_us / 1e6 });
      });
      if (summary_text.current !== null) summary_text.current.textContent = latest.current.updated_ms === 0 ? "" : summary(points, unit);
    });
    soon.current = () => drawing.drawSoon();
    const stops = [store.subscribe((change) => (change === "readings" ? drawing.markDirty() : drawing.markAged())), onThemeChange(() => drawing.drawSoon())];
    const in_view = new IntersectionObserver(([entry]) => drawing.setVisible(entry?.isIntersecting ?? true));
    in_view.observe(element);
    const resized = new ResizeObserver(() => {
      plot.setSize({ width: element.clientWidth, height: HEIGHT_PX });
      drawing.drawSoon();
    });
    resized.observe(element);
    return () => {
      for (const stop of stops) stop();
      in_view.disconnect();
      resized.disconnect();
      drawing.dispose();
      plot.destroy();
    };
  }, [tag_id, span_us, zone, unit, period_ms, limit_low, limit_high]);
  useEffect(() => soon.current?.(), [history.updated_ms]);

  const name = view.tag?.name ?? `Tag ${tag_id}`;
  const limits_words = formatLimits(limit_low, limit_high, unit);
  return (
    <figure className={`trend ${view.fresh}`}>
      <figcaption>
        <span className="trend-name">
          <strong>{name}</strong> <span className="quiet">{view.tag?.description}</span>
        </span>
        <Value {...view} unit={unit} zone={zone} now_us={now_us} size="large" />
      </figcaption>
      <p className="trend-facts">
        <span>{limits_words === "no limit" ? "No limit" : `Limit ${limits_words}`}</span>
        <span ref={summary_text} />
        <span ref={cursor_text} className="cursor" aria-hidden="true" />
      </p>
      {history.error !== null && <p className="quiet">History not loaded; live readings only.</p>}
      <div ref={box} className="plot" role="img" aria-label={`${name}, ${view.tag?.description ?? ""}, trend`} />
    </figure>
  );
}
