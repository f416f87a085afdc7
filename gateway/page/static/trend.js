// The view of trends: one diagram for each unit, up to eight signals, with what is missing listed below.

import { now } from "./api.js";
import { byId, el, setText } from "./dom.js";
import * as live from "./live.js";
import { draw, scales } from "./plot.js";
import { at, load, stretches } from "./series.js";
import { durationText, has, number, t, timeText, unitText, valueText } from "./texts.js";

const MOST = 8;
const NUMBERS = /^(u?int|float|bool)/;
let shown = false;
let chosen = [];
let range = 3600;
let asked = 0;
let panels = [];
let end = 0;
let timer = 0;

const drawable = (signal) => NUMBERS.test(signal.type);
const errorText = (text) => setText(byId("trend-error"), text);

function link() {
  const query = new URLSearchParams([...chosen.map((id) => ["signal", id]), ["range", String(range)]]);
  history.replaceState(null, "", `#/trend?${query}`);
}

function chips() {
  byId("trend-chosen").replaceChildren(
    ...chosen.map((id, index) => {
      const button = el("button", { type: "button", "aria-label": t("remove", { signal: id }) }, "×");
      button.addEventListener("click", () => {
        chosen = chosen.filter((other) => other !== id);
        changed();
      });
      const signal = live.signals.get(id);
      return el("li", { "data-colour": index + 1 }, el("span", { class: "dot" }), id, signal?.description ? el("small", {}, signal.description) : null, button);
    }),
  );
}

function changed() {
  errorText("");
  link();
  chips();
  update();
}

/** Asks for what is drawn, and draws it. An answer that a newer question has overtaken is dropped. */
async function update() {
  clearTimeout(timer);
  if (!shown) return;
  const turn = (asked += 1);
  if (!chosen.length) {
    panels = [];
    byId("trend-panels").replaceChildren(el("p", { class: "hint" }, t("trend_empty")));
    byId("trend-missing").replaceChildren();
    return;
  }
  const to = now(), from = to - range * 1000;
  try {
    const found = await Promise.all(chosen.map((id, index) => load(id, from, to).then((series) => ({ ...series, colour: `--series-${index + 1}` }))));
    if (turn !== asked) return;
    end = to;
    arrange(found);
    listMissing(found);
    errorText("");
  } catch (error) {
    if (turn !== asked) return;
    errorText([error.message, error.fix].filter(Boolean).join(" "));
  }
  timer = setTimeout(update, range <= 3600 ? 5000 : 60000);
}

function arrange(found) {
  const byUnit = Map.groupBy ? Map.groupBy(found, (series) => series.unit) : groups(found);
  const key = [...byUnit].map(([unit, list]) => `${unit}:${list.map((series) => series.id)}`).join("|");
  const target = byId("trend-panels");
  if (target.dataset.key !== key || !target.querySelector("figure")) {
    target.dataset.key = key;
    panels = [...byUnit].map(([unit, list]) => makePanel(unit, list));
    target.replaceChildren(...panels.map((panel) => panel.figure));
  }
  [...byUnit.values()].forEach((list, index) => {
    panels[index].list = list;
    paint(panels[index]);
  });
}

function groups(found) {
  const byUnit = new Map();
  for (const series of found) byUnit.set(series.unit, [...(byUnit.get(series.unit) ?? []), series]);
  return byUnit;
}

function makePanel(unit, list) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  const reading = el("figcaption", { "aria-live": "polite" });
  const figure = el("figure", { class: "plot", tabindex: "0", role: "group", "data-unit": unit }, el("p", { class: "unit", "aria-hidden": "true" }, unitText(unit)), canvas, reading);
  const panel = { figure, canvas, reading, list, cursor: null };
  canvas.addEventListener("pointermove", (event) => move(pick(panel, event.offsetX)));
  canvas.addEventListener("pointerdown", (event) => move(pick(panel, event.offsetX)));
  canvas.addEventListener("pointerleave", () => move(null));
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (step) move((panel.cursor ?? end) + (step * range * 1000) / 100);
    else if (event.key === "Escape") move(null);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(() => paint(panel)).observe(canvas);
  return panel;
}

const pick = (panel, x) => scales(panel.list, end - range * 1000, end, panel.canvas.clientWidth, panel.canvas.clientHeight).time(x);

function move(ms) {
  const from = end - range * 1000;
  for (const one of panels) {
    one.cursor = ms === null ? null : Math.min(Math.max(ms, from), end);
    paint(one);
  }
  for (const one of panels) one.figure.dataset.cursor = one.cursor ?? "";
}

/** Draws a panel and writes what the cursor stands on; the numbers of gaps and of bad stretches stand in its attributes too. */
function paint(panel) {
  const { figure, canvas, list, cursor, reading } = panel;
  if (!shown || !end) return;
  const from = end - range * 1000;
  draw(canvas, list, from, end, cursor);
  const sum = (count) => list.reduce((total, series) => total + count(series), 0);
  const gaps = sum((series) => series.holes.length), bad = sum((series) => series.bad.length);
  figure.dataset.gaps = gaps;
  figure.dataset.bad = bad;
  figure.dataset.pieces = sum((series) => stretches(series));
  figure.dataset.from = from;
  figure.dataset.to = end;
  const label = { signals: list.map((series) => series.id).join(", "), from: timeText(from), to: timeText(end), gaps, bad };
  figure.setAttribute("aria-label", t("plot_label", label));
  setText(reading, list.map((series) => caption(series, cursor)).join("  ·  "));
}

function caption(series, cursor) {
  const ms = cursor ?? end;
  const signal = live.signals.get(series.id);
  const hole = series.missing.find((item) => ms >= item.from && ms <= item.to);
  const piece = at(series, ms) ?? (cursor === null ? series.pieces.at(-1) : null);
  let text = t("no_reading");
  if (cursor !== null && hole) text = causeText(hole.cause);
  else if (series.bad.some(([from, to]) => ms >= from && ms <= to)) text = t("bad");
  else if (piece) {
    const shownValue = signal?.enum && !series.bucket ? valueText(piece.value, signal) : number(piece.value);
    text = `${shownValue} ${unitText(series.unit)}`.trim() + (piece.low < piece.high ? ` (${number(piece.low)}…${number(piece.high)})` : "");
    if (piece.quality !== "good") text += ` (${t(piece.quality)})`;
  }
  return `${cursor === null ? "" : `${timeText(ms)} `}${series.id}: ${text}`;
}

/** A cause in words; one that is not listed stands for itself. */
export const causeText = (cause) => (has(`cause_${cause}`) ? t(`cause_${cause}`) : cause);

function listMissing(found) {
  const items = found.flatMap((series) =>
    series.missing.map((item) =>
      el("li", { "data-cause": item.cause }, `${timeText(item.from)} – ${item.open ? t("goes_on") : timeText(item.to)} · ${durationText(item.to - item.from)} · ${series.id} · ${causeText(item.cause)}`),
    ),
  );
  const known = found.map((series) => series.knownTo).filter((ms) => ms !== null);
  const note = known.length ? ` ${t("known_to", { time: timeText(Math.min(...known)) })}` : "";
  if (items.length) byId("trend-missing").replaceChildren(el("ul", { class: "missing" }, ...items), el("p", { class: "hint" }, note.trim()));
  else byId("trend-missing").replaceChildren(el("p", {}, t("nothing_missing") + note));
}

function fillSignals() {
  if (!shown) return;
  const text = byId("trend-form").elements.signal.value.toLowerCase();
  const options = [];
  for (const signal of live.signals.values()) {
    if (!drawable(signal) || !`${signal.id} ${signal.description}`.toLowerCase().includes(text)) continue;
    options.push(el("option", { value: signal.id }, signal.description));
    if (options.length === 200) break;
  }
  byId("trend-signals").replaceChildren(...options);
}

function add(event) {
  event.preventDefault();
  const field = byId("trend-form").elements.signal;
  const text = field.value.trim();
  const matches = [...live.signals.values()].filter((signal) => drawable(signal) && `${signal.id} ${signal.description}`.toLowerCase().includes(text.toLowerCase()));
  const signal = live.signals.get(text) ?? (matches.length === 1 ? matches[0] : null);
  if (!text) return;
  if (!signal || !drawable(signal)) errorText(t("trend_unknown"));
  else if (chosen.length >= MOST && !chosen.includes(signal.id)) errorText(t("trend_full"));
  else {
    field.value = "";
    if (!chosen.includes(signal.id)) chosen.push(signal.id);
    changed();
    fillSignals();
  }
}

export function show(query) {
  shown = true;
  const form = byId("trend-form").elements;
  const wanted = query.getAll("signal").slice(0, MOST);
  if (wanted.length) chosen = wanted;
  const allowed = [...form.range.options].map((option) => option.value);
  if (allowed.includes(query.get("range"))) range = Number(query.get("range"));
  form.range.value = String(range);
  fillSignals();
  chips();
  update();
}
export function hide() {
  shown = false;
  clearTimeout(timer);
}

export function start() {
  const form = byId("trend-form");
  form.addEventListener("submit", add);
  form.elements.signal.addEventListener("input", fillSignals);
  form.elements.range.addEventListener("change", () => {
    range = Number(form.elements.range.value);
    changed();
  });
  live.on("catalog", () => {
    fillSignals();
    if (shown) chips();
  });
}
