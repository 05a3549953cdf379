// Takes pictures of every page, wide, middling and narrow, light and dark, for looking at them: `node test/look.mjs
// DIR [PAGE …]`. Over the fake hub, or over a real one that HUB_URL, TENANT, EMAIL and PASSWORD name.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { openBrowser, signIn } from "./browser.mjs";
import { LOGIN, startFakeHub } from "./fake-hub.mjs";

const [dir = "/tmp/look", ...asked] = process.argv.slice(2);
const { HUB_URL, TENANT, EMAIL, PASSWORD } = process.env;
const SIZES = [[1440, 900, "light"], [1024, 768, "light"], [390, 844, "light"], [1440, 900, "dark"], [320, 640, "dark"]];
const PAGES = asked.length > 0 ? asked : ["now", "lines", "trends", "alarms", "ccp", "holds", "vision", "record"];
mkdirSync(dir, { recursive: true });
const hub = HUB_URL ? { url: HUB_URL, close: () => {} } : await startFakeHub();
const login = HUB_URL ? { tenant: TENANT, email: EMAIL, password: PASSWORD } : LOGIN;
const browser = await openBrowser();
try {
  for (const [width, height, scheme] of SIZES) {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
    const page = await context.newPage();
    page.on("console", (message) => message.type() === "error" && process.stderr.write(`${message.text()}\n`));
    page.on("pageerror", (error) => process.stderr.write(`${error.stack}\n`));
    const shot = (name) => page.screenshot({ path: join(dir, `${name}-${width}-${scheme}.png`), fullPage: true });
    await signIn(page, hub.url, login);
    const base = new URL(page.url()).pathname.replace(/\/now$/, "");
    for (const path of PAGES) {
      await page.goto(`${hub.url}${base}/${path}`);
      await page.waitForSelector("main h1", { timeout: 60_000 });
      await page.waitForTimeout(2500); // until charts are drawn; nothing tells
      await shot(path.replaceAll(/[/?].*/g, ""));
    }
    await page.getByRole("button", { name: /^More/ }).click();
    await shot("more");
    await context.close();
  }
} finally {
  await browser.close();
  hub.close();
}
