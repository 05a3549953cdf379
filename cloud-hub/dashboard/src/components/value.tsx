// One live value, looking as old as it is.
import { clockMinute, clockTime, duration, formatValue, unitWord } from "../format";
import { isSimulated, isUncertain, type Freshness, type Observed } from "../live/staleness";
import { SimTag } from "./marks";

export interface ValueProps {
  seen: Observed | null;
  good: Observed | null;
  fresh: Freshness;
  unit: string;
  zone: string;
  now_us: number | null;
  size?: "small" | "large";
}

/** The words beside a value that is not fresh; empty when it is. */
export function staleWords({ seen, good, fresh, zone, now_us }: Omit<ValueProps, "unit" | "size">): string {
  if (fresh === "none" || seen === null) return "No reading yet";
  const age_us = now_us === null ? null : now_us - seen.time_us;
  if (fresh === "late") return age_us === null ? "" : `${duration(age_us)} ago`;
  if (fresh === "stale") {
    const age = age_us === null ? "" : ` · ${duration(age_us)} ago`;
    return `Stale · ${clockTime(seen.time_us, zone)}${age}`;
  }
  if (fresh === "bad") {
    return good === null ? "Sensor fault" : `Sensor fault since ${clockMinute(good.time_us, zone)}`;
  }
  return isUncertain(seen.quality) ? "Uncertain" : "";
}

export function Value(props: ValueProps) {
  const { seen, good, fresh, unit, size = "small" } = props;
  const is_bad = fresh === "bad" || fresh === "none";
  const note = staleWords(props);
  return (
    <span className={`value ${size} ${fresh}`}>
      <span className="number">{is_bad ? "—" : formatValue(seen?.value ?? null)}</span>
      {!is_bad && <span className="unit">{unitWord(unit)}</span>}
      {seen !== null && isSimulated(seen.flags) && <SimTag />}
      {fresh === "bad" && good !== null && (
        <span className="last-good">
          last good {formatValue(good.value)} {unitWord(unit)}
        </span>
      )}
      {note !== "" && <span className="age">{note}</span>}
    </span>
  );
}
