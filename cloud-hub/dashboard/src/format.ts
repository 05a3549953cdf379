// How numbers, units, times and durations are written for people.
import { zoneFormat } from "./chart/time_axis";

const UNITS: Record<string, string> = {
  degC: "°C",
  degF: "°F",
  degc: "°C",
  pct: "%",
  percent: "%",
  per_min: "/min",
  "per min": "/min",
};

export function unitWord(unit: string): string {
  return UNITS[unit] ?? unit;
}

/** Sentences of the hub name units as the dictionary does: "fell to 71.1 degC". */
export function plainUnits(text: string): string {
  return text.replace(/\bdeg([CF])\b/g, "°$1");
}

const numbers = new Map<number, Intl.NumberFormat>();

function fixed(digits: number): Intl.NumberFormat {
  let format = numbers.get(digits);
  if (format === undefined) {
    format = new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    numbers.set(digits, format);
  }
  return format;
}

/** Two decimals below a hundred: 71.96 must never read as a limit of 72.0 that was met. */
export function digitsFor(value: number): number {
  const size = Math.abs(value);
  if (size >= 1000) return 0;
  return size >= 100 ? 1 : 2;
}

export function formatValue(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "—";
  return fixed(digitsFor(value)).format(value).replace("-", "−");
}

export function formatWithUnit(value: number | null | undefined, unit: string): string {
  const word = unitWord(unit);
  const text = formatValue(value);
  return word === "" || text === "—" ? text : `${text}\u00a0${word}`;
}

export function formatSigned(value: number): string {
  return value > 0 ? `+${formatValue(value)}` : formatValue(value);
}

export function formatQuantity(value: number, unit: string): string {
  const text = new Intl.NumberFormat("en", { maximumFractionDigits: 2 }).format(value);
  return `${text}\u00a0${unit}`;
}

/** "≥ 72.00 °C", "≤ 5.00 °C" or "186.00 to 196.00 °C". */
export function formatLimits(low: number | null, high: number | null, unit: string): string {
  if (low !== null && high !== null) return `${formatValue(low)} to ${formatWithUnit(high, unit)}`;
  if (low !== null) return `≥ ${formatWithUnit(low, unit)}`;
  if (high !== null) return `≤ ${formatWithUnit(high, unit)}`;
  return "no limit";
}

export function clockTime(time_us: number, zone: string): string {
  return zoneFormat(zone, "hms").format(time_us / 1000);
}

export function clockMinute(time_us: number, zone: string): string {
  return zoneFormat(zone, "hm").format(time_us / 1000);
}

/** The time alone for the last half day, with its date before that. */
export function when(time_us: number, now_us: number | null, zone: string): string {
  const is_recent = now_us !== null && Math.abs(now_us - time_us) < 12 * 3_600_000_000;
  return zoneFormat(zone, is_recent ? "hms" : "dhm").format(time_us / 1000);
}

/** "06:07:16 to 06:08:31", or "since 06:07:16, not over" while it lasts. */
export function windowWords(from_us: number, to_us: number | null, now_us: number | null, zone: string): string {
  const from = when(from_us, now_us, zone);
  return to_us === null ? `since ${from}, not over` : `${from} to ${when(to_us, now_us, zone)}`;
}

/** "8 s", "3 min", "2 h 05 min", "4 d". Never negative: a source clock may be ahead. */
export function duration(span_us: number): string {
  const seconds = Math.max(0, Math.floor(span_us / 1e6));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d`;
}

export function ago(time_us: number, now_us: number | null): string {
  return now_us === null ? "" : `${duration(now_us - time_us)} ago`;
}

/** "seal_contamination" → "Seal contamination". */
export function words(code: string): string {
  const text = code.replaceAll("_", " ").replaceAll("-", " ").trim();
  return text.charAt(0).toUpperCase() + text.slice(1);
}
