// What is missing: gaps of the ledger and intervals without connection, of all devices, in one list.

import { get, pages } from "./api.js";
import * as live from "./live.js";
import { instant } from "./texts.js";

const AT_ONCE = 4;

/** Everything that is missing from `start` (ms) on, the newest first:
 *  [{from, to (null: goes on), cause, text, device (null: all of the gateway), gateway, signals (null: all), detail}]. */
export async function load(start, device = "") {
  const since = new Date(start).toISOString();
  const found = [];
  for await (const page of pages("gaps", { start: since, device: device || null, limit: 10000 })) {
    for (const gap of page.items) {
      found.push({
        from: instant(gap.start), to: instant(gap.end), cause: gap.cause, text: gap.text, device: gap.device ?? null, gateway: gap.gateway,
        signals: gap.signals ?? null, detail: gap.detail ?? "",
      });
    }
  }
  const waiting = device ? [device] : [...live.devices.keys()];
  const work = async () => {
    for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) {
      const answer = await get(`devices/${encodeURIComponent(id)}/connections`, { start: since, limit: 10000 });
      for (const item of answer.items) {
        found.push({
          from: instant(item.start), to: instant(item.end), cause: "disconnected", text: item.text, device: id,
          gateway: live.devices.get(id)?.gateway ?? "", signals: null, detail: "",
        });
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return found.sort((a, b) => b.from - a.from);
}

/** Whether something that is missing concerns the device. */
export const concerns = (item, device) => (item.device === null ? item.gateway === device.gateway : item.device === device.id);
