// Connecting an OPC UA server: endpoints and their security, the tree with live values, ticked variables, a test-read of one node.

import { byId, el, setText } from "./dom.js";
import { doing, showFailure } from "./failure.js";
import * as looks from "./looks.js";
import { readingBox } from "./reading.js";
import { t } from "./texts.js";
import { Tree } from "./tree.js";

const LIMIT = 1000, FOUND = 5000; // nodes of a branch, and of a search
const EVERY = 3000, LASTING = 600_000; // ms: how often values are read anew, and for how long after the last click
const REREAD = 200; // nodes of a branch that are read anew: the machine has other things to do
const RANK = ["Aes256Sha256RsaPss", "Aes128Sha256RsaOaep", "Basic256Sha256"];
const USERS = { Anonymous: t("anonymous"), UserName: t("user_password"), Certificate: t("user_certificate") };
let shown = false;
let offered = null; // {url, choices}
let present = null; // {link, known}: what the tree shows
let focused = null;
let filtered = false;
let tree = null;
let changed = () => {};
let used = 0;
let turn = 0;

const form = () => byId("connect-where").elements;
const url = () => {
  const text = form().endpoint.value.trim();
  return text && !text.includes("://") ? `opc.tcp://${text}` : text;
};

export const found = () => offered !== null && offered.url === url();
export const browsed = () => present !== null && JSON.stringify(wanted()) === JSON.stringify(present.link);
export const link = () => present.link;
/** Known companion specifications with a shipped profile: [{uri, name, profile, note}]. */
export const proposed = () => (browsed() ? present.known.filter((item) => item.profile) : []);
export const picked = () =>
  browsed() ? [...tree.picked.values()].map(({ node, path, name, type, picked_type, unit, enum: texts, ...more }) => ({ node, path, name, type, picked_type, unit, enum: texts, class: more.class })) : [];

/** The link as the form says. */
function wanted() {
  const chosen = form().security?.value;
  const settings = { endpoint: url(), security: chosen ? JSON.parse(chosen) : "none" };
  if (form().user.value.trim()) settings.user = form().user.value.trim();
  if (form().user.value.trim() && form().password.value) settings.password = form().password.value;
  return { adapter: "opcua", settings };
}

/** Asks the server which endpoints it has. */
export function find() {
  return doing(byId("connect-find"), byId("connect-where-error"), async () => {
    const asked = url();
    if (!asked) return byId("connect-where").elements.endpoint.focus();
    const list = await looks.endpoints(asked);
    offered = { url: asked, list };
    offer(list);
    changed();
    document.querySelector("#connect-endpoints input:checked")?.focus();
    return list;
  });
}

const strength = (item) => (item.policy === "None" ? -1 : RANK.length - RANK.indexOf(item.policy) + (item.mode === "SignAndEncrypt" ? 0.5 : 0));

/** One choice for each security policy and mode, the strongest first; what is outdated is not offered. */
function offer(list) {
  const seen = new Set();
  const choices = [...list].sort((a, b) => strength(b) - strength(a)).filter((item) => {
    const key = `${item.policy} ${item.mode}`;
    return (item.policy === "None" || RANK.includes(item.policy)) && !seen.has(key) && seen.add(key);
  });
  if (choices.some((item) => item.policy !== "None")) choices.unshift({ policy: "auto", users: [], server: choices[0].server, fingerprint: choices[0].fingerprint });
  byId("connect-endpoints").replaceChildren(
    ...choices.map((item, index) => {
      const security = { None: "none", auto: "auto" }[item.policy] ?? { policy: item.policy, mode: item.mode };
      const name = { None: t("security_none"), auto: t("security_auto") }[item.policy] ?? `${item.policy} · ${t(item.mode === "Sign" ? "mode_sign" : "mode_encrypt")}`;
      const users = [...item.users].sort().map((user) => USERS[user] ?? user).join(t("comma"));
      return el(
        "label", { "data-policy": item.policy },
        el("input", { type: "radio", name: "security", value: JSON.stringify(security), checked: index === 0 }),
        el("span", {}, el("strong", {}, name),
          el("small", {}, [item.server, users, item.fingerprint && t("fingerprint", { hex: item.fingerprint })].filter(Boolean).join(" · "))),
      );
    }),
  );
  if (!choices.length) byId("connect-endpoints").replaceChildren(el("p", { class: "error" }, t("no_endpoint")));
}

function browse() {
  return doing(byId("connect-browse"), byId("connect-where-error"), async () => {
    const asked = wanted();
    const answer = await looks.browse(asked, { limit: LIMIT });
    if (JSON.stringify(asked) !== JSON.stringify(present?.link)) tree.picked.clear();
    present = { link: asked, known: answer.known };
    byId("connect-filter").elements.filter.value = "";
    showKnown(answer.known);
    fill(answer, false);
    changed();
    tree.rows[0]?.focus();
  });
}

function fill(answer, found) {
  filtered = found;
  used = Date.now();
  focused = null;
  byId("connect-node").hidden = true;
  tree.fill(answer, found);
  count(found && !answer.nodes.length ? t("nothing_found") : "");
}

function showKnown(known) {
  byId("connect-known").replaceChildren(
    ...known.map((item) =>
      el("p", { class: "known" }, el("strong", {}, t("recognised", { name: item.name })), item.profile ? ` ${t("profile_offered", { profile: item.profile })}` : "", item.note ? el("small", {}, item.note) : null),
    ),
  );
}

function count(more = "") {
  setText(byId("connect-count"), [t("ticked", { n: tree.picked.size }), more].filter(Boolean).join(" "));
}

function search(event) {
  event.preventDefault();
  const text = byId("connect-filter").elements.filter.value.trim();
  const pattern = text && !/[*?]/.test(text) ? `*${text}*` : text;
  return doing(byId("connect-filter").querySelector("button"), byId("connect-tree-error"), async () => {
    fill(await looks.browse(present.link, { filter: pattern, limit: pattern ? FOUND : LIMIT }), Boolean(pattern));
  });
}

function chosen(node) {
  used = Date.now();
  if (focused?.node !== node.node) byId("connect-node-reading").replaceChildren();
  focused = node;
  byId("connect-node").hidden = node.class !== "Variable";
  setText(byId("connect-node-name"), node.path || node.name);
  setText(byId("connect-node-id"), node.node);
}

function read() {
  const node = focused;
  return doing(byId("connect-node-read"), byId("connect-node-reading"), async () => {
    const told = await looks.testRead({ link: present.link, node: node.node });
    if (focused === node || focused?.node === node.node) byId("connect-node-reading").replaceChildren(readingBox(told));
  });
}

/** Reads the values of the open branches anew, one branch at a time, when nothing else is asked. */
async function refresh() {
  if (!shown || document.hidden || filtered || !browsed() || !looks.idle() || Date.now() - used > LASTING) return;
  const { branches } = tree;
  if (!branches.length) return;
  const branch = branches[(turn += 1) % branches.length];
  const { link: of } = present;
  try {
    const { nodes } = await looks.browse(of, { node: branch, limit: REREAD });
    if (present.link === of) tree.update(nodes);
  } catch {
    // the next one who asks by hand is told
  }
}

export const show = (now) => (shown = now);

export function start(callback) {
  changed = callback;
  tree = new Tree(byId("connect-tree"), {
    children: (node) => looks.browse(present.link, { node, limit: LIMIT }),
    chosen,
    opened: (node) => (chosen(node), read()),
    ticked: () => (count(), changed()),
    failed: (error) => showFailure(byId("connect-tree-error"), error),
  });
  byId("connect-browse").addEventListener("click", browse);
  byId("connect-node-read").addEventListener("click", read);
  byId("connect-filter").addEventListener("submit", search);
  byId("connect-all").addEventListener("click", () => tree.tick(tree.variables, true));
  byId("connect-none").addEventListener("click", () => tree.tick([...tree.picked.values()], false));
  for (const field of [form().user, form().password]) {
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      browse();
    });
  }
  setInterval(refresh, EVERY);
}
