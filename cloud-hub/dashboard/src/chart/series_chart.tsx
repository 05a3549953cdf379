// One tag over a past range: extremes kept, gaps open, what else happened as bands behind the line.
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { SeriesEvent, TagSeries } from "../api/types";
import { usePlant } from "../components/plant";
import { chartAxes } from "./axes";
import { inkOf, onThemeChange } from "./ink";
import { valueRange } from "./range";
import { toDrawn } from "./series_points";

const HEIGHT_PX = 220;

interface Setup {
  zone: string;
  from_us: number;
  to_us: number;
  limits: readonly number[];
  events: readonly SeriesEvent[];
}

/** Deviations, alarms and holds as bands; told apart by their words in the list below the chart. */
function drawEvents(plot: uPlot, setup: Setup): void {
  const { ctx, bbox } = plot;
  const ink = inkOf(plot.root);
  ctx.save();
  ctx.fillStyle = ink.grid;
  ctx.strokeStyle = ink.limit;
  ctx.lineWidth = devicePixelRatio;
  for (const event of setup.events) {
    const left = Math.max(bbox.left, plot.valToPos(event.from_us / 1e6, "x", true));
    const right = Math.min(bbox.left + bbox.width, plot.valToPos((event.to_us ?? setup.to_us) / 1e6, "x", true));
    if (right < bbox.left || left > bbox.left + bbox.width) continue;
    ctx.globalAlpha = 0.5;
    ctx.fillRect(left, bbox.top, Math.max(devicePixelRatio, right - left), bbox.height);
    ctx.globalAlpha = 1;
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

function options(width: number, setup: Setup, element: HTMLElement): uPlot.Options {
  const ink = () => inkOf(element);
  const span_s = (setup.to_us - setup.from_us) / 1e6;
  return {
    width,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { sync: { key: "trends" }, drag: { setScale: false, x: false, y: false }, points: { size: 7 } },
    scales: {
      x: { time: false, range: () => [setup.from_us / 1e6, setup.to_us / 1e6] },
      y: { range: (plot) => valueRange(plot.data[1] ?? [], [...setup.limits]) },
    },
    axes: chartAxes(setup.zone, ink, () => span_s),
    series: [{}, { stroke: () => ink().trend, width: 1.5, spanGaps: false, points: { show: false } }],
    hooks: { drawAxes: [(plot) => drawEvents(plot, setup)] },
  };
}

export interface SeriesChartProps {
  series: TagSeries;
  events: readonly SeriesEvent[];
  from_us: number;
  to_us: number;
}

export function SeriesChart({ series, events, from_us, to_us }: SeriesChartProps) {
  const { zone, tags } = usePlant();
  const box = useRef<HTMLDivElement>(null);
  const tag = tags.get(series.tag_id);
  const limit_low = tag?.limit_low ?? null;
  const limit_high = tag?.limit_high ?? null;
  useEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const limits = [limit_low, limit_high].filter((each) => each !== null);
    const { x, y } = toDrawn(series);
    const plot = new uPlot(
      options(element.clientWidth, { zone, from_us, to_us, limits, events }, element),
      [x, y],
      element,
    );
    const resized = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    resized.observe(element);
    const off = onThemeChange(() => plot.redraw());
    return () => {
      off();
      resized.disconnect();
      plot.destroy();
    };
  }, [series, events, from_us, to_us, zone, limit_low, limit_high]);
  return <div className="trend-plot" ref={box} aria-hidden="true" />;
}
