// Which words does the navigation have, what lies under each, and which of them is the page that is shown? Pure.

export interface NavPage {
  to:
    | "/t/$tenant/p/$plant/now"
    | "/t/$tenant/p/$plant/lines"
    | "/t/$tenant/p/$plant/alarms"
    | "/t/$tenant/p/$plant/ccp"
    | "/t/$tenant/p/$plant/holds"
    | "/t/$tenant/p/$plant/trends"
    | "/t/$tenant/p/$plant/vision"
    | "/t/$tenant/p/$plant/record"
    | "/t/$tenant/p/$plant/integrators";
  word: string;
  /** Permission without which the page would only be refused. */
  needs?: string;
}

/** Told apart by tabs on the pages themselves. */
export const QUALITY: readonly NavPage[] = [
  { to: "/t/$tenant/p/$plant/ccp", word: "CCPs" },
  { to: "/t/$tenant/p/$plant/holds", word: "Holds" },
];

/** Four words that are always there, also at the thumb on a phone. */
export const MAIN: readonly NavPage[] = [
  { to: "/t/$tenant/p/$plant/now", word: "Now" },
  { to: "/t/$tenant/p/$plant/lines", word: "Lines" },
  { to: "/t/$tenant/p/$plant/alarms", word: "Alarms", needs: "alarm.read" },
  { to: "/t/$tenant/p/$plant/ccp", word: "Quality" },
];

/** The fifth word opens these. */
export const MORE: readonly NavPage[] = [
  { to: "/t/$tenant/p/$plant/trends", word: "Trends" },
  { to: "/t/$tenant/p/$plant/vision", word: "Vision" },
  { to: "/t/$tenant/p/$plant/record", word: "Record", needs: "audit.read" },
  { to: "/t/$tenant/p/$plant/integrators", word: "Integrators", needs: "tag.adopt" },
];

/** The part of an address that names the page: "holds" of "/t/akron/p/akron/holds". */
export function pageName(pathname: string): string {
  return pathname.split("/")[5] ?? "";
}

const lastPart = (page: NavPage): string => pageName(page.to);

/**
 * What `aria-current` a word gets: "page" on its own page, "true" on one below or beside it that has no word of its
 * own (one line of the lines, the holds of quality), nothing elsewhere.
 */
export function currentMark(page: NavPage, pathname: string): "page" | "true" | undefined {
  const shown = pageName(pathname);
  const is_below = pathname.split("/").filter((part) => part !== "").length > 5;
  if (lastPart(page) === shown) return is_below ? "true" : "page";
  const is_quality = page.word === "Quality" && QUALITY.some((each) => lastPart(each) === shown);
  return is_quality ? "true" : undefined;
}

/** The page under "More" that is shown, so that the word can say it while it is folded. */
export function shownOf(pages: readonly NavPage[], pathname: string): NavPage | undefined {
  return pages.find((page) => currentMark(page, pathname) !== undefined);
}
