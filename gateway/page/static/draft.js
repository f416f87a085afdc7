// The change that waits to be applied. There is one; it survives a reload of this tab, and nothing of it is a secret.

import { getTagged, send } from "./api.js";
import { ask } from "./dialog.js";
import { t } from "./texts.js";

const KEY = "guantong-draft";
const changes = new EventTarget();
let draft = stored();

function stored() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    return null;
  }
}

/** {kind, name, body: {yaml} or {rollback}, etag, notices, again: {path, body} or null}; null without one. */
export const get = () => draft;
export const on = (callback) => changes.addEventListener("change", callback);

export function set(made) {
  draft = made;
  try {
    if (made) sessionStorage.setItem(KEY, JSON.stringify(made));
    else sessionStorage.removeItem(KEY);
  } catch {
    sessionStorage.removeItem(KEY); // too large to be kept: it lasts until the page is loaded anew
  }
  changes.dispatchEvent(new Event("change"));
}

/** What the draft does, in words. */
export const title = (made) => t(`draft_${made.kind}`, { name: made.name });

/** True when there is no draft, or it may be replaced. */
export const mayReplace = async () => draft === null || ask(t("draft_waits"), [title(draft), t("draft_replace_hint")], t("draft_replace"));

/** Makes a draft of what `make` answers ({yaml, notices}); `again` is the request that makes the same of another configuration.
 *  False when another draft waits and is to stay. */
export async function begin(kind, name, make, again = null) {
  if (!(await mayReplace())) return false;
  const { etag } = await getTagged("config"); // first: a change between the two is noticed, one that came before is contained
  const { yaml, notices = [] } = await make();
  set({ kind, name, body: { yaml }, etag, notices, again });
  return true;
}

/** A draft by a request that may be repeated; goes on to the view of changes. */
export async function beginBy(kind, name, path, body) {
  if (await begin(kind, name, () => send("POST", path, body), { path, body })) location.hash = "#/changes";
}

/** Makes the draft anew from the configuration as it is now. */
export async function remake() {
  const { kind, name, again } = draft;
  const { etag } = await getTagged("config");
  const { yaml, notices = [] } = await send("POST", again.path, again.body);
  set({ kind, name, body: { yaml }, etag, notices, again });
}
