// A test-read as it is shown: what arrived, what it means, and what other types and byte orders would give.

import { el } from "./dom.js";
import { instant, t, timeText, unitText, valueText } from "./texts.js";

const QUALITIES = ["good", "uncertain", "bad"];

/** Quality in words, with the status where it is not good. */
export function qualityText(told) {
  const quality = QUALITIES.includes(told.quality) ? t(told.quality) : t("unknown");
  const status = [told.status_name, told.status_text].filter(Boolean).join(": ");
  return told.quality === "good" || !status ? quality : `${quality} (${status})`;
}

const millis = (text) => {
  const ms = instant(text);
  return `${timeText(ms)}.${String(ms % 1000).padStart(3, "0")}`;
};

const fact = (name, text, kind = "") => (text ? [el("dt", {}, t(name)), el("dd", { class: kind }, text)] : []);

const bytes = (raw) => (raw ? raw.replace(/\s+/g, "").replace(/(..)(?=.)/g, "$1 ") : "");

/** What a test-read told. With `choose` each other reading has a button; it is called with {type, order}. */
export function readingBox(told, { unit = told.unit ?? "", choose = null } = {}) {
  const value = told.value === null ? t("no_value") : `${told.signal_type === "datetime" ? valueText(told.value, { type: "datetime" }) : told.text || valueText(told.value)} ${unitText(unit)}`.trim();
  const registers = told.registers?.map((word) => word.toString(16).padStart(4, "0").toUpperCase()).join(" ");
  return el(
    "div", { class: "reading", "data-quality": told.quality },
    el("p", { class: "value" }, value),
    el(
      "dl", {},
      ...fact("quality", qualityText(told), "quality"), ...fact("type", told.type), ...fact("raw_value", told.raw_value === null || told.raw_value === undefined ? "" : valueText(told.raw_value), "code"),
      ...fact("source_time", told.source_ts ? millis(told.source_ts) : ""), ...fact("server_time", told.server_ts ? millis(told.server_ts) : ""),
      ...fact("received_time", told.received_at ? millis(told.received_at) : ""),
      ...fact("registers", registers, "code"), ...fact("raw", bytes(told.raw), "code"),
    ),
    told.fix ? el("p", { class: "fix" }, el("strong", {}, t("fix")), " ", told.fix) : null,
    told.others?.length ? others(told.others, choose) : null,
  );
}

function others(list, choose) {
  const rows = list.map((item) => {
    const button = choose ? el("button", { type: "button", "aria-label": t("take_reading", item) }, t("take")) : null;
    button?.addEventListener("click", () => choose(item));
    return el("tr", {}, el("td", { class: "code" }, item.type), el("td", { class: "code" }, item.order), el("td", { class: "number" }, item.text || valueText(item.value)), choose ? el("td", {}, button) : null);
  });
  const heads = ["type", "byte_order", "value"].map((name) => el("th", { scope: "col" }, t(name)));
  return el(
    "details", { open: list.length <= 40 }, el("summary", {}, t("other_readings")),
    el("div", { class: "wide short", tabindex: "0", role: "region", "aria-label": t("other_readings") },
      el("table", {}, el("thead", {}, el("tr", {}, ...heads, choose ? el("td", {}) : null)), el("tbody", {}, ...rows))),
  );
}
