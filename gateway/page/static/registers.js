// Connecting a Modbus device: registers are read one by one before anything is saved, and kept as signals.

import { byId, el, setText } from "./dom.js";
import { doing } from "./failure.js";
import * as looks from "./looks.js";
import { readingBox } from "./reading.js";
import { t } from "./texts.js";

const NAME = /^[a-z0-9_]+(\/[a-z0-9_]+)*$/;
let signals = []; // {name, unit, scale, address, value, stored: the type of the signal}
let last = null; // the address of the last good reading, with its value
let changed = () => {};

const where = () => byId("connect-where").elements;
const wanted = () => byId("connect-register").elements;
const whole = (text) => {
  const plain = text.trim().toLowerCase();
  const hex = /^(?:0x([0-9a-f]+)|([0-9a-f]+)h)$/.exec(plain);
  return hex ? parseInt(hex[1] ?? hex[2], 16) : /^\d+$/.test(plain) ? Number(plain) : NaN;
};

export const kept = () => signals;
export const unit = () => whole(where().unit.value);

/** The link as the form says. */
export function link() {
  const form = where();
  if (form.protocol.value === "serial") {
    const [, parity, stop] = /^8([NEO])([12])$/.exec(form.frame.value);
    return { adapter: "modbus", settings: { serial: form.serial.value.trim(), baud: Number(form.baud.value), parity, stop: Number(stop) } };
  }
  return { adapter: "modbus", settings: { host: form.host.value.trim(), port: whole(form.port.value), transport: form.transport.value } };
}

const bits = (table) => table === "coil" || table === "discrete";

function address() {
  const form = wanted();
  const type = bits(form.table.value) ? "bool" : form.type.value;
  return {
    table: form.table.value, address: whole(form.address.value), type, order: form.order.value,
    ...(type === "bool" ? {} : more(form)),
  };
}

/** What else has to be said of registers of the chosen type: their number, which byte, which layout. */
function more(form) {
  const needs = form.type.selectedOptions[0].dataset.needs;
  return needs ? { [needs]: needs === "length" ? whole(form.length.value) : form[needs].value } : {};
}

/** The first field that is not filled as it must be, with what to write instead; null when all are. */
function mistake([at]) {
  const form = where();
  const tcp = form.protocol.value === "tcp";
  if (tcp && !form.host.value.trim()) return [form.host, t("host_wrong")];
  if (tcp && !(whole(form.port.value) >= 1 && whole(form.port.value) <= 65535)) return [form.port, t("port_wrong")];
  if (!tcp && !form.serial.value.trim()) return [form.serial, t("serial_wrong")];
  if (!(unit() >= 0 && unit() <= 255)) return [form.unit, t("unit_wrong")];
  if (at && !(whole(at.value) <= 65535)) return [at, t("address_wrong")];
  return null;
}

/** Shows the first mistake in `place` and goes to its field; true when there is one. */
export function complain(place, ...more) {
  const wrong = mistake(more);
  place.replaceChildren(...(wrong ? [el("p", { class: "error" }, wrong[1])] : []));
  if (!wrong) return false;
  wrong[0].setAttribute("aria-invalid", "true");
  wrong[0].focus();
  return true;
}

function read(event) {
  event?.preventDefault();
  if (complain(byId("connect-register-error"), wanted().address)) return undefined;
  const place = byId("connect-register-reading");
  return doing(byId("connect-register").querySelector("button"), byId("connect-register-error"), async () => {
    const asked = address();
    place.replaceChildren();
    const told = await looks.testRead({ link: link(), unit: unit(), address: asked });
    last = { address: asked, value: told.text || String(told.value) };
    place.replaceChildren(readingBox(told, { choose: take }));
    byId("connect-keep").hidden = told.quality === "bad";
  });
}

/** Another type or order of the same registers, chosen among the others: reads it. */
function take({ type, order }) {
  wanted().type.value = type;
  wanted().order.value = order;
  arrange();
  read();
}

function arrange() {
  const bit = bits(wanted().table.value);
  wanted().type.disabled = wanted().order.disabled = bit;
  const needs = bit ? "" : wanted().type.selectedOptions[0].dataset.needs;
  for (const label of byId("connect-register").querySelectorAll("[data-need]")) label.hidden = label.dataset.need !== needs;
}

/** The type of a signal that has the values of registers of this type. */
const storedAs = (type) => [...wanted().type.options].find((option) => option.value === type).dataset.stored;

function keep(event) {
  event.preventDefault();
  const form = byId("connect-keep").elements;
  const name = form.name.value.trim();
  const scale = Number(form.scale.value.trim() || "1");
  const taken = signals.some((item) => item.name === name);
  const wrong = !NAME.test(name) ? t("signal_wrong") : taken ? t("signal_taken") : !Number.isFinite(scale) || !scale ? t("scale_wrong") : "";
  setText(byId("connect-keep-error"), wrong);
  if (wrong) return;
  signals.push({ ...last, stored: storedAs(last.address.type), name, unit: form.unit.value.trim(), scale });
  form.name.value = form.unit.value = "";
  form.scale.value = "1";
  list();
  changed();
  wanted().address.focus();
}

function list() {
  byId("connect-kept").hidden = !signals.length;
  document.querySelector("#connect-kept tbody").replaceChildren(
    ...signals.map((item) => {
      const button = el("button", { type: "button", "aria-label": t("remove", { signal: item.name }) }, "×");
      button.addEventListener("click", () => {
        signals = signals.filter((other) => other !== item);
        list();
        changed();
      });
      const { table, address: at, type, order } = item.address;
      return el("tr", {}, el("td", {}, item.name), el("td", { class: "code" }, `${t(`table_${table}`)} ${at} ${type} ${type === "bool" ? "" : order}`), el("td", {}, `${item.value} ${item.unit}`.trim()), el("td", {}, button));
    }),
  );
}

/** The kept signals as a profile's signals are written. */
export const written = () =>
  signals.map(({ name, unit: of, scale, stored, address: { order, ...at } }) => ({
    name, type: stored, ...(of ? { unit: of } : {}), ...(scale === 1 ? {} : { scale, type: "float64" }), ...(at.type === "string" ? { kind: "text" } : {}),
    address: { ...at, ...(at.type === "bool" ? {} : { order }) },
  }));

export function start(callback) {
  changed = callback;
  byId("connect-register").addEventListener("submit", read);
  byId("connect-register").addEventListener("input", (event) => {
    event.target.removeAttribute("aria-invalid");
    arrange();
  });
  byId("connect-where").addEventListener("input", (event) => event.target.removeAttribute("aria-invalid"));
  byId("connect-keep").addEventListener("submit", keep);
  arrange();
}
