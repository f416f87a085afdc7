// The view in which a device is connected: where it is, what it offers, what it is called. It ends with a draft in the view of changes.

import { send } from "./api.js";
import * as browsing from "./browsing.js";
import { byId, el, setText } from "./dom.js";
import * as draft from "./draft.js";
import { doing, showFailure } from "./failure.js";
import * as live from "./live.js";
import * as looks from "./looks.js";
import * as registers from "./registers.js";
import { t } from "./texts.js";

const ID = /^[a-z0-9][a-z0-9_-]*$/;
let profiles = null;
let asking = false;

const where = () => byId("connect-where").elements;
const protocol = () => where().protocol.value;
const adapter = () => (protocol() === "opcua" ? "opcua" : "modbus");

/** The parts of the view that are for the chosen protocol; those of later steps only when their step has come. */
function arrange() {
  const chosen = protocol();
  for (const part of document.querySelectorAll("#view-connect [data-for]")) {
    const fits = part.dataset.for.split(" ").includes(chosen);
    part.hidden = !fits || (part.id === "connect-security" && !browsing.found()) || (part.id === "connect-tree-step" && !browsing.browsed());
  }
  const ready = chosen !== "opcua" || browsing.browsed();
  byId("connect-device").hidden = !ready;
  offerProfiles();
  summary();
}

function offerProfiles() {
  const select = byId("connect-device").elements.profile;
  const known = adapter() === "opcua" ? browsing.proposed() : [];
  const fitting = (profiles ?? []).filter((item) => item.protocol === adapter());
  const key = `${adapter()} ${known.map((item) => item.profile)} ${fitting.length}`;
  if (select.dataset.filled !== key) {
    select.dataset.filled = key;
    const names = known.map((item) => item.profile);
    fitting.sort((a, b) => names.includes(b.name) - names.includes(a.name));
    select.replaceChildren(
      select.options[0],
      ...fitting.map((item) => el("option", { value: item.name }, `${names.includes(item.name) ? "★ " : ""}${item.title || item.name} (${item.name})`)),
    );
    // one that comes with a caution is proposed, and not chosen
    select.value = known.find((item) => !item.note && fitting.some((other) => other.name === item.profile))?.profile ?? "";
  }
  const chosen = fitting.find((item) => item.name === select.value);
  const source = chosen && [chosen.source, t("verified", { how: chosen.verified })].filter(Boolean).join(" · ");
  setText(byId("connect-profile-note"), chosen ? `${t("n_signals", { n: chosen.signals })} · ${source}` : "");
}

function summary() {
  const form = byId("connect-device").elements;
  const count = adapter() === "opcua" ? browsing.picked().length : registers.kept().length;
  const parts = [form.profile.value && t("with_profile", { profile: form.profile.value }), count && t(adapter() === "opcua" ? "with_picked" : "with_kept", { n: count })].filter(Boolean);
  const id = form.id.value.trim();
  const there = live.devices.get(id);
  const text = parts.length ? t("will_add", { parts: parts.join(t("and")) }) : t(adapter() === "opcua" ? "nothing_picked" : "nothing_kept");
  setText(byId("connect-summary"), there && there.state !== "retired" ? `${text} ${t("replaces", { name: there.name })}` : text);
}

/** The next id that no device has. */
function freeId() {
  for (let number = 1; ; number += 1) {
    const id = `machine-${number}`;
    if (!live.devices.has(id)) return id;
  }
}

async function add() {
  const form = byId("connect-device").elements;
  const id = form.id.value.trim();
  const nodes = adapter() === "opcua" ? browsing.picked() : [];
  const profile = form.profile.value || null;
  const names = { zh: form.zh.value.trim(), en: form.en.value.trim() };
  if (!ID.test(id)) return complain(form.id, t("id_wrong"));
  if (!profile && !nodes.length && !(adapter() === "modbus" && registers.kept().length)) return complain(form.profile, t(adapter() === "opcua" ? "nothing_picked" : "nothing_kept"));
  const modbus = adapter() === "modbus";
  if (modbus && registers.complain(byId("connect-device-error"))) return false;
  const link = modbus ? registers.link() : browsing.link();
  const body = { device: { id, name: names }, link, unit: modbus ? registers.unit() : null, profile, nodes, signals: modbus ? registers.written() : [] };
  const again = link.settings.password ? null : { path: "setup/device", body }; // a password is not kept
  const made = await draft.begin("device", id, () => send("POST", "setup/device", body), again);
  if (made) location.hash = "#/changes";
  return made;
}

function complain(field, text) {
  field.setAttribute("aria-invalid", "true");
  field.focus();
  byId("connect-device-error").replaceChildren(el("p", { class: "error" }, text));
  return false;
}

/** Asks once for the profiles, which tells whether this key may change anything. */
async function permitted() {
  if (profiles || asking) return;
  asking = true;
  try {
    profiles = await looks.profiles();
    showFailure(byId("connect-denied"), null);
    byId("connect-steps").hidden = false;
    arrange();
  } catch (error) {
    byId("connect-steps").hidden = true;
    showFailure(byId("connect-denied"), error);
  } finally {
    asking = false;
  }
}

export function show() {
  permitted();
  browsing.show(true);
  const form = byId("connect-device").elements;
  if (!form.id.value) form.id.value = freeId();
  if (profiles) arrange();
}
export const hide = () => browsing.show(false);

export function start() {
  browsing.start(arrange);
  registers.start(arrange);
  byId("connect-where").addEventListener("input", arrange);
  byId("connect-where").addEventListener("submit", (event) => {
    event.preventDefault();
    if (protocol() === "opcua") browsing.find();
    else byId("connect-register").elements.address.focus();
  });
  const device = byId("connect-device");
  device.addEventListener("input", (event) => {
    event.target.removeAttribute("aria-invalid");
    offerProfiles();
    summary();
  });
  device.addEventListener("submit", (event) => {
    event.preventDefault();
    doing(byId("connect-add"), byId("connect-device-error"), add);
  });
}
