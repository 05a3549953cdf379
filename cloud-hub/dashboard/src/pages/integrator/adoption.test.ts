// Are values adopted under the names that were meant, and does one that fails leave the others alone?
import { describe, expect, it } from "vitest";
import type { IntegratorDevice, IntegratorError, PendingTag } from "../../api/types";
import { adoptedWords, each, faultOf, nameFor, readingsWords, staleWords } from "./adoption";
import { awayFirst, newestFirst } from "./integrators";

const tag = (change: Partial<PendingTag> = {}): PendingTag => ({
  id: "p1", client: "press-7", device: "oven", name: "t", proposed_name: "oven/t", unit: "", stale_after_s: null, sample: "1",
  readings: 1300, held: 1000, dropped: 300, first_seen_us: 0, last_seen_us: 1, dismissed_us: null, ...change,
});

describe("adopting values", () => {
  it("takes the typed name, else the proposed one", () => {
    expect(nameFor(tag(), new Map())).toBe("oven/t");
    expect(nameFor(tag(), new Map([["p1", " TT-1 "]]))).toBe("TT-1");
  });

  it("refuses two of one name, none at all, and one that is too long, before anything is asked", () => {
    expect(faultOf([{ id: "a", name: "x" }, { id: "b", name: "y" }])).toBeNull();
    expect(faultOf([{ id: "a", name: "x" }, { id: "b", name: "x" }])).toBe("Two of them would be named x");
    expect(faultOf([{ id: "a", name: "" }])).toBe("A tag needs a name");
    expect(faultOf([{ id: "a", name: "x".repeat(201) }])).toContain("200 characters");
  });

  it("goes on after one that fails and tells both", async () => {
    const outcome = await each([{ name: "a" }, { name: "b" }, { name: "c" }], async ({ name }) => {
      if (name === "b") throw new Error("name taken");
      return `${name}!`;
    });
    expect(outcome.done).toEqual(["a!", "c!"]);
    expect(outcome.failed.map(({ name, error }) => [name, error.message])).toEqual([["b", "name taken"]]);
  });

  it("says what was stored and what was not held any more", () => {
    expect(adoptedWords({ tag_id: 1, name: "TT-1", stored: 1, dropped: 0 })).toBe("TT-1: 1 reading stored");
    expect(adoptedWords({ tag_id: 1, name: "TT-1", stored: 1000, dropped: 300 })).toBe("TT-1: 1,000 readings stored, 300 dropped before");
    expect(readingsWords(tag())).toBe("1,300 came, 1,000 held, 300 dropped");
    expect(staleWords({ stale_after_s: 300 })).toBe("stale after 5 min");
    expect(staleWords({ stale_after_s: null })).toBe("");
  });

  it("puts the newest error and the device that is away first", () => {
    const error = (client: string, last_us: number) => ({ client, last_us }) as IntegratorError;
    expect([error("a", 1), error("b", 2)].sort(newestFirst).map((it) => it.client)).toEqual(["b", "a"]);
    const device = (name: string, is_online: boolean) => ({ client: "c", name, is_online }) as IntegratorDevice;
    expect([device("x", true), device("z", false)].sort(awayFirst).map((it) => it.name)).toEqual(["z", "x"]);
  });
});
