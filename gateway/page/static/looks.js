// Asking the gateway to look at machines. One look at a time: here in turn, and in the gateway, which answers `busy` meanwhile.

import { get, send } from "./api.js";

const TRIES = 12;
let last = Promise.resolve();
let waiting = 0;

/** Whether no look is under way or waiting. */
export const idle = () => waiting === 0;

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function patiently(path, body) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await send("POST", `setup/${path}`, body);
    } catch (error) {
      if (tries === TRIES || !["look-busy", "busy"].includes(error.kind)) throw error;
      await wait(1000 * Math.min(error.retry ?? 1, 5));
    }
  }
}

function look(path, body) {
  waiting += 1;
  const mine = last.then(() => patiently(path, body));
  last = mine.catch(() => {}).then(() => (waiting -= 1));
  return mine;
}

/** The endpoints of an OPC UA server. */
export const endpoints = async (url) => (await look("endpoints", { url })).endpoints;
/** Nodes below `node`, a node of an answer (null: Objects); with a filter those that it fits, wherever below. */
export const browse = (link, { node = null, filter = null, limit = 500 }) =>
  look("browse", { link, node: node?.node ?? null, path: node?.path ?? "", filter: filter || null, limit });
/** One reading, now: of a node, of registers, or of a configured signal. */
export const testRead = (what) => look("test-read", what);
/** The shipped profiles. Raises Failure 403 for a key that may not change the configuration. */
export const profiles = async () => (await get("setup/profiles")).profiles;
