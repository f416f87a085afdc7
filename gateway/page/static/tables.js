// The view of point tables: download a template or what is configured, upload a table, see what is wrong in it cell by cell.

import { download, send } from "./api.js";
import { byId, el } from "./dom.js";
import * as draft from "./draft.js";
import { doing, showFailure } from "./failure.js";
import * as looks from "./looks.js";
import { t } from "./texts.js";

const MOST = 16 * 1024 * 1024;
const SHOWN = 200;
let permitted = false;

const given = (value) => value !== null && value !== undefined && value !== "";

/** What is to be mended or to be known, each with its place: [{place, found, text}]. `label` heads the last column. */
export function cells(items, label) {
  const found = items.some((item) => given(item.found));
  const heads = ["place", ...(found ? ["found"] : []), label].map((name) => el("th", { scope: "col" }, t(name)));
  const rows = items.slice(0, SHOWN).map((item) =>
    el("tr", {}, el("td", { class: "code" }, item.place), found ? el("td", {}, given(item.found) ? String(item.found) : "—") : null, el("td", { class: "text" }, item.text)),
  );
  return el(
    "div", {},
    el("div", { class: "wide" }, el("table", { class: "cells" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows))),
    items.length > SHOWN ? el("p", { class: "hint" }, t("and_more", { n: items.length - SHOWN })) : null,
  );
}

async function upload(file) {
  const told = byId("tables-told"), wrong = byId("tables-error");
  told.replaceChildren();
  wrong.replaceChildren();
  if (file.size > MOST) return wrong.replaceChildren(el("p", { class: "error" }, t("file_large", { n: MOST / 1024 / 1024 })));
  byId("tables-drop").classList.add("busy");
  try {
    let answer = null;
    const begun = await draft.begin("table", file.name, async () => (answer = await send("POST", "setup/table", file, { query: { name: file.name } })));
    if (!begun) return undefined;
    if (!answer.notices?.length) return (location.hash = "#/changes");
    told.replaceChildren(
      el("p", {}, el("strong", {}, t("table_sound", { devices: answer.devices, points: answer.points }))),
      cells(answer.notices, "notice"), el("p", {}, el("a", { class: "button primary", href: "#/changes" }, t("see_changes"))),
    );
  } catch (error) {
    showFailure(wrong, error);
    setTimeout(() => wrong.scrollIntoView({ block: "nearest" }));
    if (error.errors?.length) wrong.append(cells(error.errors.map(({ place, parameter, found, detail, expected }) => ({ place: place || parameter, found, text: detail || expected })), "write_instead"));
  } finally {
    byId("tables-drop").classList.remove("busy");
    byId("tables-file").value = ""; // so that the same file, mended, can be chosen again
  }
  return undefined;
}

export async function show() {
  if (permitted) return;
  try {
    await looks.profiles();
    permitted = true;
    showFailure(byId("tables-denied"), null);
  } catch (error) {
    showFailure(byId("tables-denied"), error);
  }
  byId("tables-steps").hidden = !permitted;
}
export const hide = () => byId("tables-told").replaceChildren();

export function start() {
  for (const button of document.querySelectorAll("#view-tables [data-get]")) {
    const { get, form } = button.dataset;
    const name = `${get === "table" ? "points" : "template"}.${form.split("-")[0]}`;
    button.addEventListener("click", () => doing(button, byId("tables-get-error"), () => download(`setup/${get}`, { form }, name)));
  }
  byId("tables-file").addEventListener("change", (event) => event.target.files[0] && upload(event.target.files[0]));
  const drop = byId("tables-drop");
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragenter" || name === "dragover");
      if (name === "drop" && event.dataTransfer.files[0]) upload(event.dataTransfer.files[0]);
    });
  }
  // a file that misses the field must not replace the page
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
}
