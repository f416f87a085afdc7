// Drives Chromium for the tests: reads one JSON command a line, answers each with one JSON line.
// Everything that the page logs as an error, and every request, is kept and told by the command `watched`.

import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const [executablePath] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
let context = null, page = null, watched = null;

const commands = {
  async open({ url, width, height, locale, colour, zone, script }) {
    await context?.close();
    context = await browser.newContext({ viewport: { width, height }, locale, colorScheme: colour ?? "light", timezoneId: zone ?? "Asia/Shanghai" });
    page = await context.newPage();
    if (script) await page.addInitScript(script);
    watched = { errors: [], requests: [] };
    page.on("console", (message) => message.type() === "error" && watched.errors.push(message.text()));
    page.on("pageerror", (error) => watched.errors.push(error.stack ?? String(error)));
    page.on("request", (request) => watched.requests.push(request.url()));
    await page.goto(url);
  },
  click: ({ selector }) => page.locator(selector).first().click({ timeout: 10_000 }),
  fill: ({ selector, text }) => page.locator(selector).first().fill(text, { timeout: 10_000 }),
  choose: ({ selector, value }) => page.locator(selector).selectOption(value, { timeout: 10_000 }).then(() => null),
  press: ({ key }) => page.keyboard.press(key),
  upload: ({ selector, path }) => page.locator(selector).setInputFiles(path, { timeout: 10_000 }),
  // what a click saves, as the name it would have and its bytes
  async download({ selector }) {
    const [saved] = await Promise.all([page.waitForEvent("download", { timeout: 20_000 }), page.locator(selector).first().click({ timeout: 10_000 })]);
    const { readFile } = await import("node:fs/promises");
    return { name: saved.suggestedFilename(), base64: (await readFile(await saved.path())).toString("base64") };
  },
  // not page.waitForFunction: it evaluates texts inside of the page, which the page's policy forbids
  async until({ code }) {
    for (const end = Date.now() + 20_000; ; ) {
      const told = await page.evaluate(code).catch((error) => ({ error })); // a page that is loading has no answer yet
      if (told && !told.error) return null;
      if (Date.now() > end) throw told?.error ?? new Error("it never became true");
      await new Promise((done) => setTimeout(done, 50));
    }
  },
  evaluate: ({ code }) => page.evaluate(code),
  shot: ({ path, full }) => page.screenshot({ path, fullPage: full ?? false }).then(() => null),
  watched: () => watched,
  // put in through the debugger: the page's policy forbids scripts that come from elsewhere
  async axe() {
    const session = await context.newCDPSession(page);
    const { readFile } = await import("node:fs/promises");
    await session.send("Runtime.evaluate", { expression: await readFile(axe, "utf8") });
    const told = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    await session.detach();
    return told.violations.map(({ id, nodes }) => ({ id, nodes: nodes.slice(0, 5).map((node) => `${node.html.slice(0, 200)} ${node.failureSummary}`) }));
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    process.stdout.write(`${JSON.stringify({ ok: (await commands[command.do](command)) ?? null })}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ error: String(error.message ?? error).slice(0, 2000) })}\n`);
  }
}
await browser.close();
