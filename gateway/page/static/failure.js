// How a failure is shown: what is wrong, what to do, each mistake with its place.

import { otherKey } from "./api.js";
import { el } from "./dom.js";
import { t } from "./texts.js";

const SOON = 500; // ms after which it is said that something is under way

/** What a failed question says, as an element. One for a missing role offers another key. */
export function failureBox(error) {
  const box = el(
    "div", { class: "failure", "data-kind": error.kind ?? "" },
    el("p", { class: "reason" }, error.message),
    error.fix ? el("p", { class: "fix" }, el("strong", {}, t("fix")), " ", error.fix) : null,
  );
  if (error.kind === "forbidden") {
    const button = el("button", { type: "button" }, t("other_key"));
    button.addEventListener("click", otherKey);
    box.append(el("p", {}, button));
  }
  return box;
}

/** Shows a failure, or nothing (null), in a place. What is no failure of a question is a mistake of ours, and is thrown on. */
export function showFailure(place, error) {
  place.replaceChildren(...(error ? [failureBox(error)] : []));
  if (error && error.status === undefined) throw error;
}

/** Runs `work` with `button` disabled and marked busy; its failure is shown in `place`. Returns what it returns, or undefined. */
export async function doing(button, place, work) {
  if (button.getAttribute("aria-disabled") === "true") return undefined;
  button.setAttribute("aria-disabled", "true"); // not `disabled`: the focus would be lost
  button.classList.add("busy");
  place.replaceChildren();
  const working = el("p", { class: "hint" }, t("working"));
  const timer = setTimeout(() => place.append(working), SOON);
  try {
    return await work();
  } catch (error) {
    showFailure(place, error);
    place.scrollIntoView({ block: "nearest" });
    return undefined;
  } finally {
    clearTimeout(timer);
    working.remove();
    button.removeAttribute("aria-disabled");
    button.classList.remove("busy");
  }
}
