// Making elements. Texts go in as text, never as HTML.

/** An element with attributes (null and false are left out) and children (elements or texts). */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Sets a text only where it changes, so that the browser has nothing to lay out anew. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Fills a <select> after its first option; keeps what is chosen. */
export function fillOptions(select, pairs) {
  const chosen = select.value;
  const now = pairs.map(([value]) => value).join("\n");
  if (select.dataset.filled === now) return;
  select.dataset.filled = now;
  select.replaceChildren(select.options[0], ...pairs.map(([value, text]) => el("option", { value }, text)));
  select.value = chosen;
}
