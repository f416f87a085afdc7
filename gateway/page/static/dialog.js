// Modal dialogs: a question, and a place for something that is shown above the view. Esc closes both.

import { el } from "./dom.js";
import { t } from "./texts.js";

let count = 0;

/** Shows `content` above everything else until it is closed; `closed` is called then. Returns the dialog. */
export function show(title, content, closed = () => {}) {
  const id = `dialog-${(count += 1)}`;
  const button = el("button", { type: "button", class: "close" }, t("close"));
  const dialog = el("dialog", { "aria-labelledby": id }, el("h2", { id }, title), content, el("p", { class: "actions" }, button));
  button.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    closed();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Asks; true when the button `action` was pressed, false for everything else. */
export function ask(title, text, action) {
  return new Promise((done) => {
    let yes = false;
    const button = el("button", { type: "button", class: "primary" }, action);
    const content = el("div", {}, ...[text].flat().map((line) => (typeof line === "string" ? el("p", {}, line) : line)));
    const dialog = show(title, content, () => done(yes));
    dialog.querySelector(".actions").prepend(button);
    dialog.querySelector(".close").replaceChildren(t("cancel"));
    button.addEventListener("click", () => {
      yes = true;
      dialog.close();
    });
    button.focus();
  });
}
