// The view of changes: what the draft would do, applying it, the configurations that ran before and the way back to them.

import { getTagged, send } from "./api.js";
import { ask } from "./dialog.js";
import { byId, el, setText } from "./dom.js";
import * as draft from "./draft.js";
import { doing, failureBox } from "./failure.js";
import * as live from "./live.js";
import { cells } from "./tables.js";
import { instant, t, timeText } from "./texts.js";

const MOST = 300;
const SIGNS = { added: "+", removed: "−", changed: "~" };
let shown = false;
let compared = null; // {draft, difference}
let turn = 0;

const conflict = (error) => error.status === 412;

function differences({ changes, links, restart }) {
  if (!changes.length && !restart.length) return [el("p", {}, t("no_difference"))];
  const groups = ["link", "device", "signal"].map((what) => {
    const some = changes.filter((item) => item.what === what);
    if (!some.length) return null;
    const rows = some.slice(0, MOST).map((item) =>
      el("li", { "data-how": item.how }, el("span", { class: "sign", "aria-hidden": "true" }, SIGNS[item.how]), " ", el("span", { class: "how" }, t(`how_${item.how}`)), " ", el("span", { class: "code" }, item.id), item.keys?.length ? el("small", {}, ` ${item.keys.join(", ")}`) : null),
    );
    return el(
      "details", { open: some.length <= 40 || what !== "signal" }, el("summary", {}, t(`diff_${what}`, counts(some))),
      el("ul", { class: "diff" }, ...rows), some.length > MOST ? el("p", { class: "hint" }, t("and_more", { n: some.length - MOST })) : null,
    );
  });
  return [
    ...groups.filter(Boolean),
    ...effects({ changes, links }).map(([what, which]) => el("p", { class: "effect" }, el("strong", {}, what), which ? ` ${which}` : "")),
    restart.length ? el("p", { class: "effect warn" }, el("strong", {}, t("needs_restart")), " ", restart.join(t("comma"))) : null,
  ].filter(Boolean);
}

/** Which running links are interrupted for a moment: [[what, which]]. New ones interrupt nobody. */
function effects({ changes, links }) {
  const added = new Set(changes.filter((item) => item.what === "link" && item.how === "added").map((item) => item.id));
  const touched = links.filter((id) => !added.has(id));
  if (touched.length) return [[t("begun_anew"), touched.join(t("comma"))], [t("others_go_on"), ""]];
  return changes.length ? [[t("nothing_interrupted"), ""]] : [];
}

const counts = (some) => Object.fromEntries(["added", "changed", "removed"].map((how) => [how, some.filter((item) => item.how === how).length]));

/** A mistake of the configuration; its text need not say once more where it is. */
function mistake({ parameter = "", expected = "" }) {
  const path = parameter.split(": ").at(-1);
  return { place: parameter, text: path && expected.includes(`${path}: `) ? expected.slice(expected.indexOf(`${path}: `) + path.length + 2) : expected };
}

/** A problem, with the mistakes of the configuration by line and path, and after a conflict the ways on. */
function complain(error) {
  const place = byId("changes-error");
  place.replaceChildren(failureBox(error));
  if (error.errors?.length) place.append(cells(error.errors.map(mistake), "mistake"));
  if (conflict(error)) place.append(el("p", {}, t(draft.get().again ? "conflict_remake" : "conflict_compare")));
  byId("changes-remake").hidden = !(conflict(error) && draft.get().again);
  byId("changes-again").hidden = !(error.status === 0 || error.status >= 500 || conflict(error));
  byId("changes-apply").hidden = true;
}

/** Asks what the draft would do. It is of the version that the draft was made of; `anew`: of the present one. */
async function compare({ anew = false } = {}) {
  const made = draft.get();
  const mine = (turn += 1);
  draw();
  if (!made) return;
  byId("changes-error").replaceChildren();
  byId("changes-difference").replaceChildren(el("p", { class: "hint" }, t("comparing")));
  for (const name of ["apply", "remake", "again"]) byId(`changes-${name}`).hidden = true;
  try {
    if (anew) made.etag = (await getTagged("config")).etag;
    const headers = { "If-Match": made.etag };
    const { difference } = await send("POST", "config", made.body, { query: { dry_run: "true" }, headers });
    if (mine !== turn) return;
    if (anew) draft.set(made);
    compared = { draft: made, difference };
    byId("changes-difference").replaceChildren(...differences(difference));
    byId("changes-apply").hidden = !difference.changes.length && !difference.restart.length;
  } catch (error) {
    if (mine !== turn) return;
    byId("changes-difference").replaceChildren();
    complain(error);
    if (error.status === undefined) throw error;
  }
}

function draw() {
  const made = draft.get();
  byId("changes-draft").hidden = !made;
  byId("changes-none").hidden = Boolean(made);
  if (!made) {
    for (const name of ["error", "difference", "notices"]) byId(`changes-${name}`).replaceChildren();
    for (const name of ["apply", "remake", "again"]) byId(`changes-${name}`).hidden = true;
    return;
  }
  setText(byId("changes-title"), draft.title(made));
  byId("changes-notices").replaceChildren(...(made.notices?.length ? [el("details", {}, el("summary", {}, t("notices", { n: made.notices.length })), cells(made.notices, "notice"))] : []));
}

async function apply() {
  const { draft: made, difference } = compared;
  const lines = [draft.title(made), ...effects(difference).map((pair) => pair.join(" ").trim())];
  if (difference.restart.length) lines.push(`${t("needs_restart")} ${difference.restart.join(t("comma"))}`);
  if (!(await ask(t("apply_ask"), lines, t("apply")))) return;
  try {
    const { number } = await send("PUT", "config", made.body, { headers: { "If-Match": made.etag } });
    draft.set(null);
    tell(number === null || number === undefined ? t("applied_unnumbered") : t("applied", { n: number }));
    await Promise.all([live.loadDevices(), history()]);
  } catch (error) {
    complain(error);
    if (error.status === undefined) throw error;
  }
}

const tell = (text) => byId("changes-told").replaceChildren(...(text ? [el("p", { class: "told" }, text, " ", el("a", { href: "#/values" }, t("view_values")))] : []));

async function rollback(kept) {
  if (!(await draft.mayReplace())) return;
  const { etag } = await getTagged("config");
  tell("");
  draft.set({ kind: "rollback", name: `${kept.number} (${timeText(instant(kept.time))})`, body: { rollback: kept.number }, etag, notices: [], again: null });
  byId("main").focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

async function history() {
  try {
    const { history: list } = await getTagged("config");
    byId("changes-history-error").replaceChildren();
    document.querySelector("#changes-history tbody").replaceChildren(...(list.length ? list.map(row) : [el("tr", { class: "empty" }, el("td", { colspan: 3 }, t("history_empty")))]));
  } catch (error) {
    byId("changes-history-error").replaceChildren(failureBox(error));
    if (error.status === undefined) throw error;
  }
}

function row(kept, index) {
  const button = el("button", { type: "button", "aria-label": t("go_back_to", { n: kept.number }) }, t("go_back"));
  button.addEventListener("click", () => doing(button, byId("changes-history-error"), () => rollback(kept)));
  const time = instant(kept.time);
  return el("tr", { "data-number": kept.number }, el("td", { class: "nowrap" }, String(kept.number)), el("td", { class: "nowrap" }, timeText(time)), el("td", {}, index ? button : el("span", { class: "badge", "data-state": "connected" }, t("runs_now"))));
}

export function show() {
  shown = true;
  compare();
  history();
}
export function hide() {
  shown = false;
  tell("");
}

export function start() {
  draft.on(() => {
    compared = null;
    if (shown) compare();
    mark();
  });
  byId("changes-apply").addEventListener("click", () => doing(byId("changes-apply"), byId("changes-error"), apply));
  byId("changes-again").addEventListener("click", () => compare({ anew: true }));
  byId("changes-remake").addEventListener("click", () => doing(byId("changes-remake"), byId("changes-error"), () => draft.remake()));
  byId("changes-discard").addEventListener("click", () => draft.set(null));
  mark();
}

/** The link in the navigation says that something waits. */
function mark() {
  const link = document.querySelector("nav a[href='#/changes']");
  link.classList.toggle("waits", draft.get() !== null);
  if (draft.get()) link.setAttribute("aria-description", t("draft_waits"));
  else link.removeAttribute("aria-description");
}
