// The axes of every chart of a tag: time in the plant's zone below, values on the left with as many
// decimals as tell neighbouring ticks apart.
import type uPlot from "uplot";
import type { Ink } from "./ink";
import { stepSeconds, tickLabel, timeTicks } from "./time_axis";

const TICK_WIDTH_PX = 84;
/** What text on a canvas is written in. */
export const FONT = '12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

/** Time and value axis; `span_s` is how much time the plot shows now. */
export function chartAxes(zone: string, ink: () => Ink, span_s: (plot: uPlot) => number): uPlot.Axis[] {
  const axis = {
    stroke: () => ink().text,
    grid: { stroke: () => ink().grid, width: 1 },
    ticks: { stroke: () => ink().grid, width: 1 },
    font: FONT,
  };
  const ticks_max = (plot: uPlot) => Math.max(2, Math.floor(plot.width / TICK_WIDTH_PX));
  return [
    {
      ...axis,
      splits: (plot, _axis, from_s, to_s) => timeTicks(zone, from_s, to_s, ticks_max(plot)),
      values: (plot, splits) => {
        const step_s = stepSeconds(span_s(plot), ticks_max(plot));
        return splits.map((time_s) => tickLabel(zone, time_s, step_s));
      },
    },
    { ...axis, size: 56, values: (_plot, splits) => splits.map((value) => axisValue(value, splits)) },
  ];
}

/** As many decimals as tell neighbouring ticks apart. */
function axisValue(value: number, splits: readonly number[]): string {
  const step = splits.length > 1 ? Math.abs((splits[1] as number) - (splits[0] as number)) : 1;
  const digits = step >= 1 ? 0 : Math.min(4, Math.ceil(-Math.log10(step)));
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
}
