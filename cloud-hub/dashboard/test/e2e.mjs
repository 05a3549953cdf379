// Do the pages work in a real browser against a running hub? HUB_URL, TENANT, EMAIL and PASSWORD say
// where and as whom; SCREENSHOT names a file for a picture of Now; EXPECT lists what the plant must
// have (default lines,ccps,holds,defects); OFFLINE=0 leaves out the half minute without a network.
// Prints a line a check; exits 0 when all hold, 1 when one does not, 2 when it was called wrongly.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { openBrowser, signIn } from "./browser.mjs";
import { openWire } from "./cuttable.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PATIENCE_MS = 20_000;
const NARROW = { width: 320, height: 640 };

class Checks {
  failed = 0;

  report(name, fault) {
    if (fault !== null) this.failed += 1;
    process.stdout.write(`${fault === null ? "ok  " : "FAIL"} ${name}${fault === null ? "" : `: ${fault}`}\n`);
  }

  async check(name, body) {
    try {
      this.report(name, (await body()) ?? null);
    } catch (error) {
      this.report(name, String(error.message ?? error).split("\n").slice(0, 3).join(" "));
    }
  }
}

/** Null when axe finds nothing serious; otherwise what and where. */
async function axeFaults(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const bad = violations.filter((each) => each.impact === "serious" || each.impact === "critical");
  return bad.length === 0 ? null : bad.map((each) => `${each.id} at ${each.nodes.map((node) => node.target).join(" ")}`).join("; ");
}

/** Null when the page needs no sideways scrolling; otherwise what sticks out. */
function overflow(page) {
  return page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return null;
    const out = [...document.querySelectorAll("body *")].filter((each) => each.getBoundingClientRect().right > width + 1);
    return `${document.documentElement.scrollWidth} > ${width}: ${out.slice(0, 3).map((each) => each.className || each.tagName).join(", ")}`;
  });
}

/** Null when something was drawn on the canvas. */
async function waitForInk(page, selector) {
  await page.waitForFunction(
    (css) => {
      const canvas = document.querySelector(css);
      if (canvas === null || canvas.width === 0) return false;
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let inked = 0;
      for (let at = 3; at < data.length; at += 4) if (data[at] > 0) inked += 1;
      return inked > 50;
    },
    selector,
    { timeout: PATIENCE_MS },
  );
  return null;
}

const seen = async (page, selector) => {
  await page.waitForSelector(selector, { timeout: PATIENCE_MS });
  return null;
};

/** The pages of the plant: address below the plant's, what must be there, and what else to check. */
function pagesOf(expect) {
  const has = (thing, selector) => (expect.has(thing) ? selector : "h1");
  return [
    { name: "now", path: "now", wait: has("lines", ".card"), ink: expect.has("lines") ? ".sparkline" : null },
    { name: "lines", path: "lines", wait: has("lines", ".card") },
    { name: "trends", path: "trends", wait: has("lines", ".trend-plot canvas"), ink: expect.has("lines") ? ".trend-plot canvas" : null },
    { name: "alarms", path: "alarms", wait: "#measures" },
    { name: "ccp", path: "ccp", wait: has("ccps", "tbody tr") },
    { name: "holds", path: "holds", wait: has("holds", "section.panel tbody tr") },
    { name: "record", path: "record", wait: has("record", "tbody tr") },
    { name: "integrators", path: "integrators", wait: has("integrators", "tbody tr input[type=checkbox]") },
    { name: "vision", path: "vision", wait: has("defects", ".gallery .frame img"), then: expect.has("defects") ? ".gallery .box" : null },
  ];
}

async function checkSignIn(checks, page, target) {
  await checks.check("sign in refuses a wrong password", async () => {
    await page.goto(`${target.url}/`);
    await page.getByLabel("Tenant").fill(target.tenant);
    await page.getByLabel("E-mail").fill(target.email);
    await page.getByLabel("Password").fill(`${target.password}-wrong`);
    await page.getByRole("button", { name: "Sign in" }).click();
    return seen(page, '[role="alert"] .problem');
  });
  await checks.check("sign in page: axe", () => axeFaults(page));
  await checks.check("sign in leads to Now", async () => {
    await signIn(page, target.url, target);
    return null;
  });
}

async function checkSessionEnd(checks, page, base, target) {
  await checks.check("an ended session leads to sign in, and from there back to the page", async () => {
    await page.goto(`${base}/holds`);
    await page.waitForSelector("h1");
    await page.context().clearCookies();
    await page.evaluate(() => {
      const session = JSON.parse(sessionStorage.getItem("foodflow.session"));
      sessionStorage.setItem("foodflow.session", JSON.stringify({ ...session, token: "ended" }));
    });
    await page.reload();
    await page.waitForURL("**/login*", { timeout: PATIENCE_MS });
    await page.getByLabel("E-mail").fill(target.email);
    await page.getByLabel("Password").fill(target.password);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.waitForURL("**/holds", { timeout: PATIENCE_MS });
    return seen(page, "h1");
  });
}

async function checkRenewal(checks, page, base) {
  await checks.check("a token that was refused is renewed by the cookie, and nobody notices", async () => {
    await page.goto(`${base}/holds`);
    await page.waitForSelector("h1");
    await page.evaluate(() => {
      const session = JSON.parse(sessionStorage.getItem("foodflow.session"));
      sessionStorage.setItem("foodflow.session", JSON.stringify({ ...session, token: "refused" }));
    });
    await page.reload();
    await page.waitForSelector(".header");
    const token = await page.evaluate(() => JSON.parse(sessionStorage.getItem("foodflow.session")).token);
    return token === "refused" ? "the token is still the refused one" : null;
  });
}

const focused = (page) => page.evaluate(() => document.activeElement?.textContent);

async function checkKeyboard(checks, page, base) {
  await checks.check("keyboard: skip link first, then the pages; Enter opens one", async () => {
    await page.goto(`${base}/now`);
    await page.waitForSelector(".main-pages a");
    await page.keyboard.press("Tab");
    const first = await page.evaluate(() => document.activeElement?.className);
    if (first !== "skip") return `focus starts on ${first}`;
    for (let press = 0; press < 4; press += 1) await page.keyboard.press("Tab");
    if ((await focused(page)) !== "Quality") return `after four more tabs the focus is on ${await focused(page)}`;
    await page.keyboard.press("Enter");
    await page.waitForURL("**/ccp");
    return null;
  });
  await checks.check("keyboard: More unfolds, folds on Escape without losing the focus, and says which page is shown", async () => {
    await page.goto(`${base}/now`);
    const more = page.getByRole("button", { name: /^More/ });
    await more.focus();
    await page.keyboard.press("Enter");
    if ((await more.getAttribute("aria-expanded")) !== "true") return "it did not unfold";
    await page.keyboard.press("Tab");
    if ((await focused(page)) !== "Trends") return `the first link below it is ${await focused(page)}`;
    await page.keyboard.press("Escape");
    if ((await more.getAttribute("aria-expanded")) !== "false") return "Escape did not fold it";
    if (!(await focused(page)).startsWith("More")) return `Escape left the focus on ${await focused(page)}`;
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.waitForURL("**/trends*");
    if ((await more.getAttribute("aria-expanded")) !== "false") return "it stayed unfolded on the page that it led to";
    const word = await more.textContent();
    return word === "More: Trends" ? null : `on Trends it says ${word}`;
  });
}

/** The values of a fake or real client: the first is adopted under its name, the next dismissed and restored. */
async function checkAdoption(checks, page, base, expect) {
  if (!expect.has("integrators")) return;
  await checks.check("integrators: a value that is adopted is a tag and waits no more; a dismissed one can be restored", async () => {
    await page.goto(`${base}/integrators`);
    const adopt = page.getByRole("button", { name: /^Adopt .* of / });
    await adopt.first().waitFor({ timeout: PATIENCE_MS });
    const waiting = await adopt.count();
    await adopt.first().click();
    await page.getByRole("status").getByText(/stored/).waitFor({ timeout: PATIENCE_MS });
    await page.waitForFunction((count) => document.querySelectorAll('[aria-label^="Adopt "]').length === count, waiting - 1, { timeout: PATIENCE_MS });
    if (waiting === 1) return null;
    const restore = page.getByRole("button", { name: /^Restore / });
    const dismissed = await restore.count();
    await page.getByRole("button", { name: /^Dismiss .* of / }).first().click();
    await page.waitForFunction((count) => document.querySelectorAll('[aria-label^="Restore "]').length === count, dismissed + 1, { timeout: PATIENCE_MS });
    await restore.first().click();
    await page.waitForFunction((count) => document.querySelectorAll('[aria-label^="Restore "]').length === count, dismissed, { timeout: PATIENCE_MS });
    return null;
  });
}

/** Where each word of the header stands, and which pages can be reached from it. */
async function checkHeader(checks, page, base) {
  await checks.check("header: one row at 1440 px, on the page with the longest word too", async () => {
    await page.goto(`${base}/trends`);
    await page.waitForSelector(".header .user");
    const height = await page.evaluate(() => document.querySelector(".header").getBoundingClientRect().height);
    return height <= 60 ? null : `${height} px high`;
  });
  await checks.check("header: every page is a link below five words, on a phone too", async () => {
    for (const size of [{ width: 1440, height: 900 }, { width: 390, height: 844 }]) {
      await page.setViewportSize(size);
      await page.goto(`${base}/ccp`);
      const more = page.getByRole("button", { name: /^More/ });
      await more.click();
      const words = await page.evaluate(() => [...document.querySelectorAll("nav a")].filter((each) => each.checkVisibility()).map((each) => each.textContent));
      for (const word of ["Now", "Lines", "Alarms", "Quality", "Holds", "Trends", "Vision", "Record", "Integrators"]) {
        if (!words.includes(word)) return `${word} is not among ${words.join(", ")} at ${size.width} px`;
      }
      const low = await page.evaluate(() => [...document.querySelectorAll(".main-pages a, .more button")].filter((each) => each.getBoundingClientRect().height < 44).length);
      if (low > 0) return `${low} words are lower than 44 px at ${size.width} px`;
      const marks = await page.evaluate(() => [...document.querySelectorAll(".main-pages [aria-current]")].map((each) => each.textContent));
      if (marks.join() !== "Quality") return `marked as current: ${marks.join()}`;
      const fault = await axeFaults(page);
      if (fault !== null) return fault;
    }
    await page.setViewportSize({ width: 1440, height: 900 });
    return null;
  });
}

async function checkLine(checks, page, base, expect) {
  if (!expect.has("lines")) return;
  await checks.check("line: trend is drawn with its limit", async () => {
    await page.goto(`${base}/lines`);
    await page.locator(".card h3 a").first().click();
    await page.waitForURL("**/lines/*");
    return waitForInk(page, ".plot canvas");
  });
  await checks.check("line: value is live", async () => {
    await page.waitForSelector(".trend .value.fresh, .trend .value.late", { timeout: PATIENCE_MS });
    return null;
  });
  await checks.check("line: axe", () => axeFaults(page));
  await checks.check("line: no sideways scrolling at 320 px", async () => {
    await page.setViewportSize(NARROW);
    await page.waitForTimeout(300); // layout after a resize has no event of its own
    const fault = await overflow(page);
    await page.setViewportSize({ width: 1440, height: 900 });
    return fault;
  });
}

async function checkPages(checks, page, base, expect, scheme) {
  for (const { name, path, wait, then, ink } of pagesOf(expect)) {
    const title = `${name} (${scheme})`;
    await checks.check(`${title}: shows data`, async () => {
      await page.goto(`${base}/${path}`);
      await seen(page, wait);
      if (then) await seen(page, then);
      return ink ? waitForInk(page, ink) : null;
    });
    await checks.check(`${title}: axe`, () => axeFaults(page));
    for (const [words, size, zoom] of [["at 320 px", NARROW, 100], ["with text at 200 %", { width: 1280, height: 900 }, 200]]) {
      await checks.check(`${title}: no sideways scrolling ${words}`, async () => {
        await page.setViewportSize(size);
        await page.evaluate((percent) => (document.documentElement.style.fontSize = `${percent}%`), zoom);
        await page.waitForTimeout(200); // layout after a resize has no event of its own
        const fault = await overflow(page);
        await page.setViewportSize({ width: 1440, height: 900 });
        await page.evaluate(() => (document.documentElement.style.fontSize = ""));
        return fault;
      });
    }
  }
}

async function checkTrust(checks, page, base) {
  await checks.check("now: alarm state is known and an edge reports", async () => {
    await page.goto(`${base}/now`);
    await page.waitForFunction(
      () => document.querySelector(".act-now .unknown") === null && /live|silent/.test(document.querySelector(".trust")?.textContent ?? ""),
      undefined,
      { timeout: PATIENCE_MS },
    );
    return null;
  });
}

/** HTTP/1.1 allows six connections: a stream in each tab would starve the seventh. */
async function checkTabs(checks, context, page) {
  await checks.check("eight tabs are live at once", async () => {
    const session = await page.evaluate(() => sessionStorage.getItem("foodflow.session"));
    const tabs = await Promise.all(Array.from({ length: 8 }, () => context.newPage()));
    try {
      await Promise.all(tabs.map((tab) => tab.addInitScript((text) => sessionStorage.setItem("foodflow.session", text), session)));
      await Promise.all(tabs.map((tab) => tab.goto(page.url(), { waitUntil: "domcontentloaded" })));
      for (const tab of tabs) {
        await tab.bringToFront(); // a hidden page draws nothing
        await tab.waitForFunction(() => /live|silent/.test(document.querySelector(".trust")?.textContent ?? ""), undefined, { timeout: PATIENCE_MS });
      }
    } finally {
      await Promise.all(tabs.map((tab) => tab.close()));
    }
    return null;
  });
}

async function checkOffline(checks, wire, page) {
  await checks.check("without a network the page says that it is behind and that alarms are unknown", async () => {
    wire.cut();
    await page.waitForFunction(
      () => /behind/.test(document.querySelector(".band")?.textContent ?? "") && document.querySelector(".act-now .unknown") !== null,
      undefined,
      { timeout: 40_000 },
    );
    wire.mend();
    await page.waitForFunction(() => document.querySelector(".act-now .unknown") === null, undefined, { timeout: 40_000 });
    return null;
  });
}

/** Runs every check; gives the number that failed. */
export async function run(wanted) {
  const checks = new Checks();
  // TLS would not survive a wire of another name: over https the cut is left out.
  const wire = wanted.offline && wanted.url.startsWith("http:") ? await openWire(wanted.url) : null;
  const target = wire === null ? wanted : { ...wanted, url: wire.url };
  const browser = await openBrowser();
  try {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, reducedMotion: "reduce" });
    const page = await context.newPage();
    const faults = [];
    page.on("pageerror", (error) => faults.push(String(error)));
    page.on("console", (message) => /Content Security|Minified React|Warning:/.test(message.text()) && faults.push(message.text()));
    await checkSignIn(checks, page, target);
    const base = page.url().replace(/\/now.*$/, "");
    await checkTrust(checks, page, base);
    if (target.screenshot) {
      await checks.check("picture of Now", async () => {
        if (target.expect.has("lines")) await waitForInk(page, ".sparkline");
        if (target.expect.has("defects")) await seen(page, ".thumbnails img");
        await page.screenshot({ path: target.screenshot });
        return null;
      });
    }
    await checkPages(checks, page, base, target.expect, "light");
    await checkLine(checks, page, base, target.expect);
    await page.emulateMedia({ colorScheme: "dark" });
    await checkPages(checks, page, base, target.expect, "dark");
    await checkLine(checks, page, base, target.expect);
    await page.emulateMedia({ colorScheme: "light" });
    await checkHeader(checks, page, base);
    await checkAdoption(checks, page, base, target.expect);
    await checkKeyboard(checks, page, base);
    await checkRenewal(checks, page, base);
    await checkSessionEnd(checks, page, base, target);
    await page.goto(`${base}/now`);
    await checkTrust(checks, page, base);
    await checkTabs(checks, context, page);
    if (wire !== null) await checkOffline(checks, wire, page);
    checks.report("no script fault and no CSP violation", faults.length === 0 ? null : faults.join("; "));
  } finally {
    await browser.close();
    wire?.close();
  }
  return checks.failed;
}

export function targetFrom(env) {
  const { HUB_URL, TENANT, EMAIL, PASSWORD } = env;
  if (!HUB_URL || !TENANT || !EMAIL || !PASSWORD) return null;
  return {
    url: HUB_URL.replace(/\/$/, ""),
    tenant: TENANT,
    email: EMAIL,
    password: PASSWORD,
    screenshot: env.SCREENSHOT,
    expect: new Set((env.EXPECT ?? "lines,ccps,holds,defects,record").split(",")),
    offline: env.OFFLINE !== "0",
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const target = targetFrom(process.env);
  if (target === null) {
    process.stderr.write("set HUB_URL, TENANT, EMAIL and PASSWORD\n");
    process.exit(2);
  }
  process.exit((await run(target)) === 0 ? 0 : 1);
}
