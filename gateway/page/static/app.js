// The frame: which view is shown, the state of the connection, notices, the key.

import * as api from "./api.js";
import * as changes from "./changes.js";
import * as completeness from "./completeness.js";
import * as connect from "./connect.js";
import * as devices from "./devices.js";
import { byId, el, setText } from "./dom.js";
import * as happenings from "./happenings.js";
import * as live from "./live.js";
import * as tables from "./tables.js";
import { has, t } from "./texts.js";
import * as trend from "./trend.js";
import * as values from "./values.js";
import * as wall from "./wall.js";

const VIEWS = { devices, values, trend, happenings, completeness, connect, tables, changes, wall };
const NOTICES = { down: [], health: [] };
let current = null;

function route() {
  const match = /^#\/(\w+)(?:\?(.*))?$/.exec(location.hash);
  if (location.hash && !location.hash.startsWith("#/")) return; // an anchor inside of the page
  const name = match && match[1] in VIEWS ? match[1] : "devices";
  if (current && current !== name) VIEWS[current].hide();
  for (const other of Object.keys(VIEWS)) byId(`view-${other}`).hidden = other !== name;
  for (const link of document.querySelectorAll("nav a[href^='#/']")) {
    if (link.getAttribute("href") === `#/${name}`) {
      link.setAttribute("aria-current", "page");
      if (current === null || current !== name) link.scrollIntoView({ block: "nearest", inline: "center" });
    } else link.removeAttribute("aria-current");
  }
  document.title = t("title", { view: t(`view_${name}`) });
  const moved = current !== null && current !== name;
  current = name;
  VIEWS[name].show(new URLSearchParams(match?.[2] ?? ""));
  if (moved) {
    window.scrollTo(0, 0);
    byId("main").focus({ preventScroll: true });
  }
}

/** Notices are only written anew when they change: they are read aloud. */
function notices() {
  const all = [...NOTICES.down, ...NOTICES.health];
  const place = byId("notices");
  const text = all.map((notice) => notice.join(" ")).join("\n");
  if (place.dataset.text === text) return;
  place.dataset.text = text;
  place.replaceChildren(...all.map(([what, fix]) => el("p", { class: "notice" }, el("strong", {}, what), fix ? ` ${fix}` : "")));
}

async function checkHealth() {
  try {
    const { components = {} } = await api.health();
    NOTICES.health = Object.entries(components)
      .filter(([, part]) => part.state !== "ok")
      .map(([name, part]) => [`${has(`part_${name}`) ? t(`part_${name}`) : name}: ${part.reason || part.state}`, part.fix ?? ""]);
  } catch {
    NOTICES.health = []; // that the gateway does not answer is a notice of its own
  }
  notices();
}

function watch() {
  api.on("down", () => {
    NOTICES.down = [[t("unreachable"), t("unreachable_fix")]];
    notices();
  });
  api.on("up", () => {
    if (NOTICES.down.length) {
      NOTICES.down = [];
      notices();
    }
  });
  live.on("stream", (state) => {
    const place = byId("stream");
    if (place.dataset.state !== state) {
      place.dataset.state = state;
      setText(place, t(`stream_${state}`));
    }
  });
  checkHealth();
  setInterval(() => document.hidden || checkHealth(), 10_000);
}

function askForKeys() {
  let tried = api.hasKey();
  const show = (error) => {
    byId("key-form").hidden = false;
    document.body.classList.add("locked");
    setText(byId("key-error"), error);
    byId("key").focus();
  };
  api.on("key", () => show(tried ? t("key_wrong") : ""));
  api.on("other", () => show(t("key_role")));
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    tried = true;
    api.useKey(byId("key").value.trim());
    byId("key").value = "";
    byId("key-form").hidden = true;
    document.body.classList.remove("locked");
    live.follow();
    route();
  });
}

for (const link of document.querySelectorAll(".languages a")) {
  link.addEventListener("click", () => link.setAttribute("href", `?lang=${new URLSearchParams(link.search).get("lang")}${location.hash}`));
}
for (const view of Object.values(VIEWS)) view.start();
askForKeys();
watch();
window.addEventListener("hashchange", route);
route();
live.follow();
