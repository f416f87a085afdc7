// The view of events and gaps.

import { get, now } from "./api.js";
import { byId, el, fillOptions } from "./dom.js";
import * as live from "./live.js";
import * as outages from "./outages.js";
import { durationText, instant, t, timeText } from "./texts.js";
import { causeText } from "./trend.js";

const STEP = 50;
let shown = false;
let asked = 0;
let gapsShown = STEP, eventsShown = STEP;
let due = 0;

const name = (id) => live.devices.get(id)?.name ?? id;

function gapRow(item) {
  const whom = item.device === null ? t("whole_gateway", { gateway: item.gateway }) : name(item.device);
  const what = item.signals === null ? "" : item.signals.length > 3 ? t("n_signals", { n: item.signals.length }) : item.signals.join(", ");
  return el(
    "tr", { "data-cause": item.cause, "data-open": item.to === null },
    el("td", { class: "nowrap" }, timeText(item.from)),
    el("td", { class: "nowrap" }, durationText((item.to ?? now()) - item.from), item.to === null ? el("span", { class: "open" }, ` ${t("goes_on")}`) : null),
    el("td", {}, whom, what ? el("small", {}, what) : null),
    el("td", {}, el("strong", {}, causeText(item.cause)), el("small", {}, item.text, item.detail ? ` ${item.detail}` : "")),
  );
}

function eventRow(item) {
  const fields = Object.entries(item.fields).map(([key, value]) => `${key} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ");
  return el(
    "tr", { "data-event": item.id },
    el("td", { class: "nowrap" }, timeText(instant(item.ts))),
    el("td", {}, name(item.device)),
    el("td", { class: "severity", "data-level": item.severity >= 800 ? "high" : item.severity >= 500 ? "middle" : "low" }, String(item.severity)),
    el("td", {}, item.message || item.type, el("small", {}, [item.message ? item.type : "", item.state ?? "", fields].filter(Boolean).join(" · "))),
  );
}

const emptyRow = (text) => el("tr", { class: "empty" }, el("td", { colspan: 4 }, text));

function more(id, there, action) {
  const place = byId(id);
  if (!there) return place.replaceChildren();
  const button = el("button", { type: "button" }, t("more"));
  button.addEventListener("click", action);
  return place.replaceChildren(button);
}

async function update() {
  if (!shown) return;
  clearTimeout(due);
  due = 0;
  const turn = (asked += 1);
  const form = byId("happenings-form").elements;
  fillOptions(form.device, [...live.devices.values()].map((item) => [item.id, item.name]));
  const start = now() - Number(form.range.value) * 1000;
  const query = { start: new Date(start).toISOString(), device: form.device.value || null, min_severity: form.severity.value || null, limit: eventsShown };
  try {
    const [gaps, events] = await Promise.all([outages.load(start, form.device.value), get("events", query)]);
    if (turn !== asked) return;
    const some = gaps.slice(0, gapsShown).map(gapRow);
    document.querySelector("#gaps tbody").replaceChildren(...(some.length ? some : [emptyRow(t("no_gaps"))]));
    more("gaps-more", gaps.length > gapsShown, () => ((gapsShown += STEP), update()));
    const rows = events.items.map(eventRow);
    document.querySelector("#events tbody").replaceChildren(...(rows.length ? rows : [emptyRow(t("no_events"))]));
    more("events-more", events.next && eventsShown < 10000, () => ((eventsShown = Math.min(10000, eventsShown * 4)), update()));
  } catch {
    // the notice of the connection says so; the next round asks again
  }
  if (shown && turn === asked) due = setTimeout(update, 10000);
}

function soon() {
  if (!shown) return;
  clearTimeout(due);
  due = setTimeout(update, 1000);
}

export function show() {
  shown = true;
  update();
}
export const hide = () => (shown = false);

export function start() {
  byId("happenings-form").addEventListener("change", () => {
    gapsShown = eventsShown = STEP;
    update();
  });
  live.on("happening", soon);
  live.on("catalog", () => shown && !due && update());
}
