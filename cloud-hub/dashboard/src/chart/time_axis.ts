// Where do the ticks of a time axis go, and what do they say, in the plant's zone? uPlot's own date
// handling is wrong around DST when the browser's zone has DST too, so the axis is ours.

const formats = new Map<string, Intl.DateTimeFormat>();

/** Intl.DateTimeFormat is dear to make: one for each zone and form. */
export function zoneFormat(zone: string, form: "hm" | "hms" | "dhm" | "offset" | "day"): Intl.DateTimeFormat {
  const key = `${form} ${zone}`;
  let format = formats.get(key);
  if (format === undefined) {
    format = new Intl.DateTimeFormat(form === "offset" ? "en-US" : "en-GB", optionsFor(zone, form));
    formats.set(key, format);
  }
  return format;
}

function optionsFor(zone: string, form: string): Intl.DateTimeFormatOptions {
  const hm: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const day: Intl.DateTimeFormatOptions = { day: "2-digit", month: "short" };
  switch (form) {
    case "hm":
      return { timeZone: zone, ...hm };
    case "hms":
      return { timeZone: zone, ...hm, second: "2-digit" };
    case "dhm":
      return { timeZone: zone, ...day, ...hm };
    case "day":
      return { timeZone: zone, ...day };
    default:
      return {
        timeZone: zone,
        year: "numeric",
        month: "numeric",
        day: "numeric",
        hour: "numeric",
        minute: "numeric",
        second: "numeric",
        hourCycle: "h23",
      };
  }
}

/** Minutes east of UTC that the zone's clocks show at that moment. */
export function zoneOffsetMin(zone: string, time_ms: number): number {
  const part: Record<string, number> = {};
  for (const { type, value } of zoneFormat(zone, "offset").formatToParts(time_ms)) {
    part[type] = Number(value);
  }
  const local_ms = Date.UTC(
    part["year"] ?? 0,
    (part["month"] ?? 1) - 1,
    part["day"] ?? 1,
    part["hour"] ?? 0,
    part["minute"] ?? 0,
    part["second"] ?? 0,
  );
  return Math.round((local_ms - Math.floor(time_ms / 1000) * 1000) / 60_000);
}

const STEPS_S = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400];

export function stepSeconds(span_s: number, ticks_max: number): number {
  const wanted = span_s / Math.max(1, ticks_max);
  return STEPS_S.find((step) => step >= wanted) ?? 86_400;
}

/** Tick times in seconds, on round plant-local times, also on days of 23 and 25 hours. */
export function timeTicks(zone: string, from_s: number, to_s: number, ticks_max: number): number[] {
  const step_s = stepSeconds(to_s - from_s, ticks_max);
  const ticks: number[] = [];
  let local_s = Math.floor((from_s + offsetSeconds(zone, from_s)) / step_s) * step_s;
  let at_s = local_s - offsetSeconds(zone, from_s);
  while (at_s <= to_s && ticks.length < TICKS_MAX) {
    if (at_s >= from_s && at_s > (ticks[ticks.length - 1] ?? Number.NEGATIVE_INFINITY)) ticks.push(at_s);
    if (step_s <= 3600) {
      // Real time goes on through a repeated hour, so both of its ticks are shown.
      const offset_s = offsetSeconds(zone, at_s + step_s);
      at_s = Math.ceil((at_s + step_s + offset_s) / step_s) * step_s - offset_s;
    } else {
      do local_s += step_s;
      while (instantOf(zone, local_s) === null);
      at_s = instantOf(zone, local_s) ?? Number.POSITIVE_INFINITY;
    }
  }
  return ticks;
}

const TICKS_MAX = 200;

function offsetSeconds(zone: string, time_s: number): number {
  return zoneOffsetMin(zone, time_s * 1000) * 60;
}

/** The moment at which the zone's clocks show `local_s`, or null when they skip it. */
function instantOf(zone: string, local_s: number): number | null {
  const guess_s = local_s - offsetSeconds(zone, local_s);
  const at_s = local_s - offsetSeconds(zone, guess_s);
  return at_s + offsetSeconds(zone, at_s) === local_s ? at_s : null;
}

export function tickLabel(zone: string, time_s: number, step_s: number): string {
  const form = step_s < 60 ? "hms" : step_s >= 86_400 ? "day" : "hm";
  return zoneFormat(zone, form).format(time_s * 1000);
}
