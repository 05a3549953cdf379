// One tag over a past range: extremes and mean, gaps open, limits as steps, what else happened as marks, quality that
// was not good as a bar, late readings hollow.
import { useEffect, useMemo, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { SeriesEvent, TagSeries } from "../api/types";
import { usePlant } from "../components/plant";
import { chartAxes } from "./axes";
import { inkOf, onThemeChange } from "./ink";
import { latePoints } from "./late_points";
import { drawEvents, drawLate, drawLimits, drawNotGood } from "./overlays";
import { valueRange } from "./range";
import { limitSteps, notGood, toDrawn, type LimitStep, type Stretch } from "./series_points";

const HEIGHT_PX = 220;

interface Setup {
  zone: string;
  tag_id: number;
  from_us: number;
  to_us: number;
  steps: readonly LimitStep[];
  stretches: readonly Stretch[];
  events: readonly SeriesEvent[];
  has_mean: boolean;
}

function drawOver(plot: uPlot, setup: Setup): void {
  const ink = inkOf(plot.root);
  drawLimits(plot, ink, setup.steps);
  drawNotGood(plot, ink, setup.stretches);
  const within = latePoints(setup.tag_id).filter(({ x }) => x * 1e6 >= setup.from_us && x * 1e6 < setup.to_us);
  drawLate(plot, ink, within);
}

function options(width: number, setup: Setup, element: HTMLElement): uPlot.Options {
  const ink = () => inkOf(element);
  const span_s = (setup.to_us - setup.from_us) / 1e6;
  const line = { spanGaps: false, points: { show: false } };
  return {
    width,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { sync: { key: "trends" }, drag: { setScale: false, x: false, y: false }, points: { size: 7 } },
    scales: {
      x: { time: false, range: () => [setup.from_us / 1e6, setup.to_us / 1e6] },
      y: { range: (plot) => valueRange(plot.data[1] ?? [], setup.steps.map((step) => step.value)) },
    },
    axes: chartAxes(setup.zone, ink, () => span_s),
    series: [
      {},
      // Under a mean the extremes are the fainter line.
      { ...line, stroke: () => ink().trend, width: setup.has_mean ? 1 : 1.5, alpha: setup.has_mean ? 0.45 : 1 },
      { ...line, stroke: () => ink().trend, width: 2 },
    ],
    hooks: {
      drawAxes: [(plot) => drawEvents(plot, inkOf(plot.root), setup.events, setup.to_us)],
      draw: [(plot) => drawOver(plot, setup)],
    },
  };
}

export interface SeriesChartProps {
  series: TagSeries;
  events: readonly SeriesEvent[];
  from_us: number;
  to_us: number;
}

export function SeriesChart({ series, events, from_us, to_us }: SeriesChartProps) {
  const { zone } = usePlant();
  const box = useRef<HTMLDivElement>(null);
  const steps = useMemo(() => limitSteps(series.limits, from_us, to_us), [series, from_us, to_us]);
  useEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const { x, y, mean } = toDrawn(series);
    const has_mean = series.points === null;
    const setup = { zone, tag_id: series.tag_id, from_us, to_us, steps, stretches: notGood(series), events, has_mean };
    const plot = new uPlot(options(element.clientWidth, setup, element), [x, y, mean], element);
    const resized = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    resized.observe(element);
    const off = onThemeChange(() => plot.redraw());
    return () => {
      off();
      resized.disconnect();
      plot.destroy();
    };
  }, [series, events, from_us, to_us, zone, steps]);
  return <div className="trend-plot" ref={box} aria-hidden="true" />;
}
