// Completeness of the last eight hours, for each device: nothing is rounded up, and what is not known yet is not called complete.

import { get, now } from "./api.js";
import { byId, el } from "./dom.js";
import { length, union } from "./intervals.js";
import * as live from "./live.js";
import * as outages from "./outages.js";
import { durationText, instant, percentText, t, timeText } from "./texts.js";
import { causeText } from "./trend.js";

const SPAN = 8 * 3_600_000;
/** A device's last word is as old as its slowest scan group; only what is older than this (ms) counts as not known. */
const LAG = 120_000;
let shown = false;
let timer = 0;

/** For each device {device, start, end, share (0 to 1, null: too new), missing (ms), parts: [{from, to, kind, cause}]}. */
export async function judge() {
  await live.loadDevices({ quietly: true }); // up to when each is known must be as new as the end of the range
  const end = now(), start = end - SPAN;
  const [missing, told] = await Promise.all([
    outages.load(start),
    get("completeness", { start: new Date(start).toISOString(), by: "device" }),
  ]);
  const shares = new Map((told.items ?? []).map((item) => [item.id, item.completeness]));
  return [...live.devices.values()]
    .filter((item) => item.state !== "retired")
    .map((device) => judgeDevice(device, missing, start, end, shares.get(device.id)));
}

/** See judge; `missing` as `outages.load` gives it, `told` what /completeness says of the device: its share is the mean over its signals. */
export function judgeDevice(device, missing, start, end, told) {
  const born = Math.min(Math.max(instant(device.born_at) ?? start, start), end);
  const seen = instant(device.last_seen) ?? born;
  const parts = missing
    .filter((item) => outages.concerns(item, device))
    .map((item) => ({ from: Math.max(item.from, born), to: Math.min(item.to ?? end, end), kind: item.cause === "disconnected" ? "down" : "gap", cause: item.cause }))
    .filter((part) => part.to > part.from);
  if (end - seen > LAG) parts.unshift({ from: Math.max(seen, born), to: end, kind: "unknown", cause: "" });
  const holes = union(parts.map((part) => [part.from, part.to]), born, end);
  const lost = length(holes);
  if (born > start) parts.unshift({ from: start, to: born, kind: "before", cause: "" });
  const share = told?.share ?? null;
  return { device, start, end, born, missing: share === null ? lost : (1 - share) * (end - born), times: holes.length, share, bad: share === null ? 0 : told.bad / told.expected, parts };
}

function bar(found) {
  const span = found.end - found.start;
  return el(
    "div", { class: "bar", "aria-hidden": "true" },
    ...found.parts.map((part) => {
      const node = el("span", { class: part.kind });
      node.style.left = `${((part.from - found.start) / span) * 100}%`;
      node.style.width = `${((part.to - part.from) / span) * 100}%`;
      return node;
    }),
  );
}

function row(found) {
  const { device, share, bad } = found;
  const list = found.parts.filter((part) => part.kind !== "before").sort((a, b) => b.from - a.from);
  const text = (part) => `${timeText(part.from)} – ${timeText(part.to)} · ${durationText(part.to - part.from)} · ${part.kind === "unknown" ? t("unknown") : causeText(part.cause)}`;
  const word = share === null ? t("new_device") : share >= 1 ? t("complete") : t("missing_sum", { time: durationText(found.missing), n: found.times });
  const head = [el("strong", {}, device.name), el("span", { class: "percent" }, share === null ? "—" : percentText(share)), el("span", { class: "word" }, word)];
  const lines = list.slice(0, 100).map(text);
  if (bad) lines.unshift(`${causeText("bad")} · ${percentText(bad)}`);
  return el(
    "li", { "data-device": device.id, "data-share": share, "data-times": found.times },
    bar(found),
    lines.length
      ? el("details", {}, el("summary", {}, ...head), el("ul", { class: "missing" }, ...lines.map((line) => el("li", {}, line))))
      : el("p", { class: "head" }, ...head),
  );
}

async function update() {
  if (!shown) return;
  clearTimeout(timer);
  try {
    const found = await judge();
    const list = byId("completeness-list");
    const open = new Set([...list.querySelectorAll("details[open]")].map((node) => node.parentNode.dataset.device));
    const focused = list.contains(document.activeElement) ? document.activeElement.closest("li[data-device]")?.dataset.device : null;
    list.replaceChildren(...found.sort((a, b) => (a.share ?? 2) - (b.share ?? 2)).map(row));
    for (const node of list.querySelectorAll("details")) node.open = open.has(node.parentNode.dataset.device);
    if (focused) list.querySelector(`li[data-device="${CSS.escape(focused)}"] summary`)?.focus();
  } catch {
    // the notice of the connection says so; the next round asks again
  }
  if (shown) timer = setTimeout(update, 15000);
}

export function show() {
  shown = true;
  update();
}
export function hide() {
  shown = false;
  clearTimeout(timer);
}
export function start() {
  live.on("catalog", () => shown && !byId("completeness-list").children.length && update());
}
