// Takes pictures of every page over the fake hub, for looking at them: `node test/look.mjs DIR`.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { openBrowser, signIn } from "./browser.mjs";
import { LOGIN, startFakeHub } from "./fake-hub.mjs";

const dir = process.argv[2] ?? "/tmp/look";
mkdirSync(dir, { recursive: true });
const hub = await startFakeHub();
const browser = await openBrowser();
try {
  for (const [width, height, scheme] of [[1440, 900, "light"], [390, 844, "light"], [1440, 900, "dark"], [320, 640, "dark"]]) {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
    const page = await context.newPage();
    page.on("console", (message) => message.type() === "error" && process.stderr.write(`${message.text()}\n`));
    page.on("pageerror", (error) => process.stderr.write(`${error.stack}\n`));
    const shot = (name) => page.screenshot({ path: join(dir, `${name}-${width}-${scheme}.png`), fullPage: true });
    await page.goto(`${hub.url}/`);
    await page.waitForSelector("form");
    await shot("login");
    await signIn(page, hub.url, LOGIN);
    await page.waitForTimeout(4000);
    await shot("now");
    const base = new URL(page.url()).pathname.replace(/\/now$/, "");
    for (const path of ["lines/0190a000-0000-7000-8000-000000000010", "trends", "alarms", "ccp", "holds", "vision"]) {
      await page.goto(`${hub.url}${base}/${path}`);
      await page.waitForTimeout(3000);
      await shot(path.split("/")[0]);
    }
    await context.close();
  }
} finally {
  await browser.close();
  hub.close();
}
