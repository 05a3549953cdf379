// What the navigation says is shown.
import { describe, expect, it } from "vitest";
import { currentMark, MAIN, MORE, pageName, QUALITY, shownOf } from "./nav";

const at = (rest: string): string => `/t/akron/p/akron/${rest}`;
const main = (word: string) => {
  const page = MAIN.find((each) => each.word === word);
  if (page === undefined) throw new Error(`no word ${word}`);
  return page;
};

describe("navigation", () => {
  it("has five words: four pages and More", () => {
    expect(MAIN.map((page) => page.word)).toEqual(["Now", "Lines", "Alarms", "Quality"]);
  });

  it("leads to every page exactly once", () => {
    const names = [...MAIN, ...QUALITY.filter((page) => page.word !== "CCPs"), ...MORE].map((page) => pageName(page.to));
    expect(new Set(names).size).toBe(names.length);
    expect(names).toEqual(expect.arrayContaining(["now", "lines", "alarms", "ccp", "holds", "trends", "vision", "record", "integrators"]));
  });

  it("calls a word the page itself, or the part that a page without a word belongs to", () => {
    expect(currentMark(main("Lines"), at("lines"))).toBe("page");
    expect(currentMark(main("Lines"), at("lines/0190a000"))).toBe("true");
    expect(currentMark(main("Quality"), at("ccp"))).toBe("page");
    expect(currentMark(main("Quality"), at("holds"))).toBe("true");
    expect(currentMark(main("Now"), at("holds"))).toBeUndefined();
    expect(currentMark(main("Lines"), at("lines/"))).toBe("page");
  });

  it("says which page under More is shown", () => {
    expect(shownOf(MORE, at("record"))?.word).toBe("Record");
    expect(shownOf(MORE, at("now"))).toBeUndefined();
  });
});
