// A tree that is filled as it is opened (ARIA pattern "tree view"): a flat list with levels, one tab stop, arrow keys; rows can be ticked.

import { el, setText } from "./dom.js";
import { qualityText } from "./reading.js";
import { t, timeText, instant, unitText, valueText } from "./texts.js";

const isVariable = (node) => node.class === "Variable";

export class Tree {
  /** `list` is the element; `children(node)` gives {nodes, truncated}; `chosen(node)` and `open(node)` are told of the focus and of Enter. */
  constructor(list, { children, chosen, opened, ticked, failed }) {
    this.list = list;
    this.ask = children;
    this.told = { chosen, opened, ticked, failed };
    this.picked = new Map();
    this.nodes = new WeakMap();
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("click", (event) => this.#click(event));
    list.addEventListener("focusin", (event) => event.target !== list && this.#choose(event.target));
  }

  /** Shows these nodes as the first level; what is ticked stays ticked. With `paths` each tells where it lies. */
  fill({ nodes, truncated }, paths = false) {
    this.list.replaceChildren(...this.#rows(nodes, 1, paths), ...this.#more(truncated, 1));
    const first = this.list.querySelector("[role=treeitem]");
    if (first) first.tabIndex = 0;
  }

  get rows() {
    return [...this.list.querySelectorAll("[role=treeitem]")];
  }

  /** All variables that are shown. */
  get variables() {
    return this.rows.map((row) => this.nodes.get(row)).filter(isVariable);
  }

  tick(nodes, on) {
    for (const node of nodes) {
      if (on) this.picked.set(node.node, node);
      else this.picked.delete(node.node);
    }
    for (const row of this.rows) {
      const node = this.nodes.get(row);
      if (isVariable(node)) row.setAttribute("aria-checked", this.picked.has(node.node));
    }
    this.told.ticked(this.picked);
  }

  /** Writes newer values of nodes that are shown. */
  update(nodes) {
    const byId = new Map(nodes.map((node) => [node.node, node]));
    for (const row of this.rows) {
      const newer = byId.get(this.nodes.get(row).node);
      if (newer) this.#paint(row, newer);
    }
  }

  /** The nodes whose variables are shown; null stands for the first level. */
  get branches() {
    const found = new Set();
    const above = [null];
    for (const row of this.rows) {
      const level = this.#levelOf(row);
      above[level] = this.nodes.get(row);
      if (isVariable(above[level])) found.add(above[level - 1]);
    }
    return [...found];
  }

  #rows(nodes, level, paths) {
    return nodes.map((node, index) => {
      const variable = isVariable(node);
      const row = el(
        "li", {
          role: "treeitem", tabindex: "-1", class: "node", "data-node": node.node, "data-level": Math.min(level, 12), "aria-level": level,
          "aria-posinset": index + 1, "aria-setsize": nodes.length, "aria-selected": "false",
          "aria-expanded": node.has_children && !paths ? "false" : null, "aria-checked": variable ? String(this.picked.has(node.node)) : null,
        },
        el("span", { class: "twist", "aria-hidden": "true" }), el("span", { class: "tick", "aria-hidden": "true" }),
        el("span", { class: "what" }, node.name, paths && node.path ? el("small", {}, node.path) : null),
        el("span", { class: "value" }), el("span", { class: "type" }), el("span", { class: "time" }),
      );
      this.#paint(row, node);
      return row;
    });
  }

  #more(truncated, level) {
    return truncated ? [el("li", { role: "none", class: "cut", "data-level": level }, t("tree_cut"))] : [];
  }

  #paint(row, node) {
    this.nodes.set(row, node);
    if (!isVariable(node)) return;
    const [value, type, time] = ["value", "type", "time"].map((name) => row.querySelector(`.${name}`));
    const shown = node.value === null ? "" : `${valueText(node.value, { type: node.picked_type })} ${unitText(node.unit ?? "")}`.trim();
    const short = shown.length > 60 ? `${shown.slice(0, 60)}…` : shown;
    setText(value, node.quality === "good" ? short : `${short} ${qualityText(node)}`.trim());
    row.dataset.quality = node.quality ?? "";
    setText(type, node.type || node.picked_type || "");
    setText(time, node.source_ts ? timeText(instant(node.source_ts)) : "");
  }

  #choose(row) {
    if (row.getAttribute("role") !== "treeitem") return;
    for (const other of this.list.querySelectorAll("[tabindex='0'], [aria-selected='true']")) {
      other.tabIndex = -1;
      other.setAttribute("aria-selected", "false");
    }
    row.tabIndex = 0;
    row.setAttribute("aria-selected", "true");
    this.told.chosen(this.nodes.get(row));
  }

  #click(event) {
    const row = event.target.closest("[role=treeitem]");
    if (!row) return;
    row.focus({ preventScroll: true });
    const node = this.nodes.get(row);
    if (event.target.closest(".twist") || (!isVariable(node) && row.hasAttribute("aria-expanded"))) this.#toggle(row);
    else if (isVariable(node)) this.tick([node], !this.picked.has(node.node));
  }

  #key(event) {
    const row = event.target.closest("[role=treeitem]");
    if (!row || event.altKey || event.metaKey) return;
    const node = this.nodes.get(row);
    const rows = this.rows;
    const at = rows.indexOf(row);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -rows.length, End: rows.length }[event.key];
    const expanded = row.getAttribute("aria-expanded");
    if (event.ctrlKey && event.key.toLowerCase() === "a") this.tick(this.variables, true);
    else if (event.ctrlKey) return;
    else if (step) rows[Math.min(Math.max(at + step, 0), rows.length - 1)].focus();
    else if (event.key === "ArrowRight" && expanded === "false") this.#toggle(row);
    else if (event.key === "ArrowRight" && expanded === "true") rows[at + 1]?.focus();
    else if (event.key === "ArrowLeft" && expanded === "true") this.#toggle(row);
    else if (event.key === "ArrowLeft") this.#parent(row)?.focus();
    else if (event.key === " " && isVariable(node)) this.tick([node], !this.picked.has(node.node));
    else if (event.key === "Enter" && isVariable(node)) this.told.opened(node);
    else if (event.key === "Enter" && expanded !== null) this.#toggle(row);
    else return;
    event.preventDefault();
  }

  #parent(row) {
    const level = Number(row.getAttribute("aria-level"));
    for (let other = row.previousElementSibling; other; other = other.previousElementSibling) {
      if (Number(other.getAttribute("aria-level")) === level - 1) return other;
    }
    return null;
  }

  async #toggle(row) {
    const level = Number(row.getAttribute("aria-level"));
    if (row.getAttribute("aria-busy") === "true" || !row.hasAttribute("aria-expanded")) return;
    if (row.getAttribute("aria-expanded") === "true") {
      row.setAttribute("aria-expanded", "false");
      while (Number(row.nextElementSibling?.dataset.level) > 0 && this.#levelOf(row.nextElementSibling) > level) row.nextElementSibling.remove();
      return;
    }
    row.setAttribute("aria-busy", "true");
    try {
      const answer = await this.ask(this.nodes.get(row));
      if (!row.isConnected) return;
      row.after(...this.#rows(answer.nodes, level + 1, false), ...this.#more(answer.truncated, level + 1));
      if (answer.nodes.length) row.setAttribute("aria-expanded", "true");
      else row.removeAttribute("aria-expanded");
    } catch (error) {
      this.told.failed(error);
    } finally {
      row.removeAttribute("aria-busy");
    }
  }

  #levelOf(row) {
    return Number(row.getAttribute("aria-level") ?? row.dataset.level);
  }
}
