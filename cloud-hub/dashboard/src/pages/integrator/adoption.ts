// Which values are adopted under which names, what stands against it, and what came of it? Pure, except for the asking.
import type { AdoptedTag, PendingTag } from "../../api/types";
import { duration } from "../../format";

/** Most characters of a tag's name, as the hub has it. */
const NAME_CHARS_MAX = 200;

export interface Adoption {
  id: string;
  name: string;
}

/** The name that a person typed, else the proposed one. */
export function nameFor(tag: PendingTag, typed: ReadonlyMap<string, string>): string {
  return (typed.get(tag.id) ?? tag.proposed_name).trim();
}

/** Why these cannot be asked for; null when they can. Two values are never one tag. */
export function faultOf(adoptions: readonly Adoption[]): string | null {
  const seen = new Set<string>();
  for (const { name } of adoptions) {
    if (name === "") return "A tag needs a name";
    if ([...name].length > NAME_CHARS_MAX) return `A name has at most ${NAME_CHARS_MAX} characters: ${name.slice(0, 40)}…`;
    if (seen.has(name)) return `Two of them would be named ${name}`;
    seen.add(name);
  }
  return null;
}

export interface Outcome {
  done: string[];
  failed: { name: string; error: Error }[];
}

/** Asks for one after the other; what fails keeps nothing else from being done. */
export async function each<T extends { name: string }>(items: readonly T[], ask: (item: T) => Promise<string>): Promise<Outcome> {
  const outcome: Outcome = { done: [], failed: [] };
  for (const item of items) {
    try {
      outcome.done.push(await ask(item));
    } catch (error) {
      outcome.failed.push({ name: item.name, error: error instanceof Error ? error : new Error(String(error)) });
    }
  }
  return outcome;
}

const counted = (count: number, one: string, many = `${one}s`): string =>
  count === 1 ? `1 ${one}` : `${count.toLocaleString("en")} ${many}`;

/** "TT-1: 940 readings stored, 60 dropped". */
export function adoptedWords({ name, stored, dropped }: AdoptedTag): string {
  return `${name}: ${counted(stored, "reading")} stored${dropped > 0 ? `, ${dropped.toLocaleString("en")} dropped before` : ""}`;
}

const TOLD_MAX = 10;

/** What was done, the first ten by name. */
export function doneWords(done: readonly string[]): string {
  const more = done.length - TOLD_MAX;
  return `${done.slice(0, TOLD_MAX).join(". ")}.${more > 0 ? ` And ${more} more.` : ""}`;
}

/** "1,300 came, 300 dropped", or that nothing is held of a dismissed one. */
export function readingsWords({ readings, held, dropped }: PendingTag): string {
  const parts = [`${readings.toLocaleString("en")} came`, `${held.toLocaleString("en")} held`];
  if (dropped > 0) parts.push(`${dropped.toLocaleString("en")} dropped`);
  return parts.join(", ");
}

/** What is announced of how often it comes; empty when nothing is. */
export function staleWords({ stale_after_s: s }: Pick<PendingTag, "stale_after_s">): string {
  return s === null ? "" : `stale after ${duration(s * 1e6)}`;
}
