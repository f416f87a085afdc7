// The view of the devices: state, reason, fix.

import { get, now } from "./api.js";
import { byId, el, setText } from "./dom.js";
import { beginBy } from "./draft.js";
import { doing } from "./failure.js";
import * as live from "./live.js";
import { durationText, instant, t, timeText } from "./texts.js";

const ORDER = { disconnected: 0, unknown: 1, connected: 2, retired: 3 };
let shown = false;

/** Devices with trouble first, then by id. */
export const sorted = () =>
  [...live.devices.values()].sort((a, b) => ORDER[a.state] - ORDER[b.state] || (a.id < b.id ? -1 : 1));

/** The state as a badge: a shape, a colour and a word. */
export const badge = (state) => el("span", { class: "badge", "data-state": state }, t(state));

export function summary() {
  const all = [...live.devices.values()];
  return t("devices_summary", { connected: all.filter((item) => item.state === "connected").length, all: all.length });
}

/** The button that makes a draft without the device; what it would do is shown there, and nothing is done yet. */
function removal(item) {
  if (item.state === "retired") return [];
  const told = el("div", { role: "alert" });
  const button = el("button", { type: "button", "data-remove": item.id }, t("remove_device"));
  button.setAttribute("aria-label", t("remove", { signal: item.name }));
  button.addEventListener("click", () => doing(button, told, () => beginBy("removal", item.id, "setup/removal", { device: item.id })));
  return [button, told];
}

/** The button that shows which signals are in trouble and why, as the collector says; and hides it again. */
function troubles(item) {
  if (item.state === "retired") return [];
  const told = el("div", { role: "status" });
  const button = el("button", { type: "button", "data-troubles": item.id, "aria-expanded": "false" }, t("signals_in_trouble"));
  button.setAttribute("aria-label", t("signals_in_trouble_of", { device: item.name }));
  button.addEventListener("click", () => {
    if (told.querySelector(".troubles")) {
      button.setAttribute("aria-expanded", "false");
      return told.replaceChildren();
    }
    return doing(button, told, async () => {
      const { items } = await get(`devices/${encodeURIComponent(item.id)}/troubles`);
      const rows = items.map(({ signal, text }) => el("li", {}, el("span", { class: "code" }, signal), " ", text));
      told.replaceChildren(el("ul", { class: "troubles" }, ...(rows.length ? rows : [el("li", {}, t("no_signals_in_trouble"))])));
      button.setAttribute("aria-expanded", "true");
    });
  });
  return [button, told];
}

function card(item) {
  const [why = null, listed = null] = troubles(item);
  const [remove = null, told = null] = removal(item);
  const signals = item.signals === 1 ? t("one_signal") : t("n_signals", { n: item.signals });
  return el(
    "li", { class: "card", "data-device": item.id, "data-state": item.state },
    el("h2", {}, el("span", {}, item.name), badge(item.state)),
    el("p", { class: "facts" }, [item.id, item.protocol, item.endpoint, Object.values(item.identity).join(" ")].filter(Boolean).join(" · ")),
    el("p", { class: "facts" }, el("span", { class: "seen" }), item.since ? ` · ${t("since", { time: timeText(instant(item.since)) })}` : ""),
    item.text ? el("p", { class: "reason" }, item.text) : null,
    item.fix ? el("p", { class: "fix" }, el("strong", {}, t("fix")), " ", item.fix) : null,
    el("p", { class: "links" }, el("a", { href: `#/values?device=${encodeURIComponent(item.id)}` }, signals), why, remove),
    listed,
    told,
  );
}

function ages() {
  for (const node of document.querySelectorAll("#devices-list > li")) {
    const seen = instant(live.devices.get(node.dataset.device)?.last_seen ?? null);
    setText(node.querySelector(".seen"), seen === null ? t("never_seen") : t("seen", { age: durationText(now() - seen) }));
  }
}

function render() {
  if (!shown) return;
  if (!live.devices.size) {
    byId("devices-list").replaceChildren(el("li", { class: "card" }, el("p", {}, t("no_devices")), el("p", {}, t("no_devices_fix")), el("p", {}, el("a", { class: "button primary", href: "#/connect" }, t("view_connect")))));
    return;
  }
  setText(byId("devices-summary"), summary());
  const list = byId("devices-list");
  if (list.querySelector(".failure, .busy, .troubles")) return ages(); // somebody reads it, or waits
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const device = focused?.closest("li")?.dataset.device, name = focused?.localName;
  const which = focused?.dataset.troubles ? "[data-troubles]" : focused?.dataset.remove ? "[data-remove]" : "";
  list.replaceChildren(...sorted().map(card));
  if (device) list.querySelector(`li[data-device="${CSS.escape(device)}"] ${name}${which}`)?.focus();
  ages();
}

export function show() {
  shown = true;
  if (!live.devices.size) return;
  render();
  live.loadDevices().catch(() => {}); // what was seen since
}
export const hide = () => (shown = false);

export function start() {
  live.on("catalog", render);
  setInterval(() => shown && ages(), 1000);
  setInterval(() => shown && live.loadDevices().catch(() => {}), 5000); // states that no event tells, and when each was seen
}
