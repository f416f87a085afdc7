// Asking the gateway: keys, problems, pages of long answers, and the gateway's clock.

import { language, t } from "./texts.js";

const ROOT = "api/v1/";
const KEY = "guantong-key";
const events = new EventTarget();
let offset = 0;

/** Tells `key` when a key is needed, `other` when another one is wanted, `down` and `up` when the gateway stops and begins to answer. */
export const on = (name, callback) => events.addEventListener(name, callback);
const tell = (name) => events.dispatchEvent(new Event(name));

export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}
/** Asks for a key, instead of the present one. */
export function otherKey() {
  sessionStorage.removeItem(KEY);
  tell("other");
}
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/** The gateway's time in ms, as far as the answers' Date tells it (to a second); the own clock where that agrees. */
export const now = () => Date.now() + offset;

function judgeClock(response, asked) {
  const date = Date.parse(response.headers.get("date") ?? "");
  if (Number.isNaN(date)) return;
  const least = date - Date.now(), most = date + 1000 - asked;
  if (offset < least || offset > most) offset = least <= 0 && most >= 0 ? 0 : (least + most) / 2;
}

/** A failed question; `status` is 0 when there was no answer. `kind` is the problem's, `errors` its list, `retry` the seconds to wait. */
export class Failure extends Error {
  constructor(status, text, fix, { kind = "", errors = [], retry = null } = {}) {
    super(text);
    this.status = status;
    this.fix = fix;
    this.kind = kind;
    this.errors = errors;
    this.retry = retry;
  }
}

/** The response to a request (a GET, if nothing else is said) of a path relative to the page. Raises Failure with the problem's text. */
export async function request(path, { signal, headers = {}, method = "GET", body } = {}) {
  const asked = Date.now();
  const key = sessionStorage.getItem(KEY);
  const all = { "Accept-Language": language, ...headers, ...(key ? { "X-API-Key": key } : {}) };
  let response;
  try {
    response = await fetch(path, { method, body, headers: all, signal, cache: "no-cache", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    tell("down");
    throw new Failure(0, t("unreachable"), t("unreachable_fix"));
  }
  judgeClock(response, asked);
  tell("up");
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401) {
    sessionStorage.removeItem(KEY);
    tell("key");
  }
  throw new Failure(response.status, problem.detail || problem.title || String(response.status), problem.fix || "", {
    kind: (problem.type ?? "").split(":").at(-1), errors: problem.errors ?? [], retry: Number(response.headers.get("retry-after")) || null,
  });
}

function address(path, query) {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...query, lang: language })) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== null && one !== "") pairs.append(name, one);
  }
  return `${path}?${pairs}`;
}

/** The JSON of a resource of /api/v1. */
export async function get(path, query = {}, options = {}) {
  return (await request(address(ROOT + path, query), options)).json();
}

/** Sends `body` (an object as JSON, a Blob as it is) to a resource of /api/v1; the JSON that comes back. */
export async function send(method, path, body, { query = {}, headers = {}, signal } = {}) {
  const plain = body instanceof Blob;
  const type = { "Content-Type": plain ? "application/octet-stream" : "application/json" };
  return (await request(address(ROOT + path, query), { method, body: plain ? body : JSON.stringify(body), headers: { ...type, ...headers }, signal })).json();
}

/** A resource of /api/v1 with its ETag. */
export async function getTagged(path) {
  const response = await request(address(ROOT + path, {}));
  return { etag: response.headers.get("etag"), ...(await response.json()) };
}

/** Saves a resource of /api/v1 as a file of the name that the gateway gives it, or `name`. */
export async function download(path, query, name) {
  const response = await request(address(ROOT + path, query));
  const told = /filename="?([^";]+)"?/.exec(response.headers.get("content-disposition") ?? "");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = told ? told[1] : name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Answers page by page, at most `most` of them; `next` links are paths of the same host. */
export async function* pages(path, query = {}, most = 20) {
  let link = address(ROOT + path, query);
  for (let count = 0; link && count < most; count += 1) {
    const answer = await (await request(link)).json();
    yield answer;
    link = answer.next && answer.next.replace(/^\//, "");
  }
}

/** The path of a signal below /api/v1/; its slashes stay. */
export const signalPath = (id) => `signals/${id.split("/").map(encodeURIComponent).join("/")}`;

/** The state of the gateway's own parts. */
export const health = async () => (await request(address("health", {}))).json();

/** The live stream from `lastId` on: calls `handle(event, data, id)` until it ends, which raises. */
export async function stream(lastId, handle, signal) {
  const response = await request(address(`${ROOT}stream`, { int64: "string" }), {
    signal, headers: lastId ? { "Last-Event-ID": lastId, Accept: "text/event-stream" } : { Accept: "text/event-stream" },
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      let name = "message", id = null, data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) name = line.slice(7);
        else if (line.startsWith("id: ")) id = line.slice(4);
        else if (line.startsWith("data: ")) data += line.slice(6);
      }
      handle(name, data ? JSON.parse(data) : null, id);
    }
  }
}
