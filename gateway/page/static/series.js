// From the history of a signal to what is drawn: pieces of a line, what is missing, where quality is bad.
//
// A stored value holds until the next one (unchanged values are not stored again), up to where everything is known; not while the
// device was away or in a gap, and never after a bad reading. So the line breaks exactly where nothing is known.

import { get, now, pages, signalPath } from "./api.js";
import { union, without } from "./intervals.js";
import { instant } from "./texts.js";

const MOST_READINGS = 3;
const WIDTHS = [1, 5, 10, 15, 30, 60, 120, 180, 300, 600, 900, 1200, 1800, 3600, 7200, 14400, 86400];
const BUCKETS = 720;
const RAW = 3_600_000;

const plain = (value) => (typeof value === "boolean" ? Number(value) : typeof value === "number" ? value : null);

/** What is drawn of signal `id` in [start, end) ms:
 *  {id, unit, pieces: [{from, to, value, low, high, quality}], missing: [{from, to, cause, open}], bad: [[from, to]], knownTo, bucket}. */
export async function load(id, start, end) {
  const path = `${signalPath(id)}/history`;
  const range = { start: new Date(start).toISOString(), end: new Date(end).toISOString() };
  if (end - start <= RAW) {
    const [before, ...found] = await Promise.all([get(path, { end: range.start, order: "desc", limit: 1 }), read(path, range)]);
    if (found[0]) return fromReadings(id, start, end, [...before.readings, ...found[0].readings], found[0]);
  }
  const width = WIDTHS.find((seconds) => (end - start) / 1000 / seconds <= BUCKETS) ?? 86400;
  let first = null;
  const buckets = [];
  for await (const page of pages(path, { ...range, buckets: width === 86400 ? "24h" : `${width}s` }, 50)) {
    first ??= page;
    buckets.push(...page.buckets);
  }
  return fromBuckets(id, start, end, buckets, first, width);
}

/** All readings of a range, or null when there are too many to draw one by one. */
async function read(path, range) {
  const readings = [];
  let first = null, count = 0;
  for await (const page of pages(path, { ...range, limit: 10000 }, MOST_READINGS)) {
    first ??= page;
    readings.push(...page.readings);
    count += 1;
    if (count === MOST_READINGS && page.next) return null;
  }
  return { ...first, readings };
}

function common(id, start, end, answer) {
  const { gaps, disconnected, known_to: known } = answer.completeness;
  const interval = (item, cause, closed) => {
    const to = instant(item.end);
    return { from: Math.max(instant(item.start), start), to: to === null ? end : Math.min(to + closed, end), cause, reason: item.reason ?? item.detail ?? "", open: to === null };
  };
  const missing = [...gaps.map((gap) => interval(gap, gap.cause, 1)), ...disconnected.map((item) => interval(item, "disconnected", 0))]
    .filter((item) => item.to > item.from)
    .sort((a, b) => a.from - b.from);
  const knownTo = instant(known);
  const holes = union(missing.map((item) => [item.from, item.to]), start, end);
  return { id, unit: answer.unit, missing, holes, knownTo, horizon: Math.min(end, knownTo ?? now()) };
}

/** See load; `readings` begin with the last one before the range, where there is one. */
export function fromReadings(id, start, end, readings, answer) {
  const all = common(id, start, end, answer);
  const pieces = [], bad = [];
  readings.forEach((reading, index) => {
    const ts = instant(reading.ts);
    const following = readings[index + 1];
    const to = following ? instant(following.ts) : Math.max(all.horizon, ts);
    const from = Math.max(ts, start);
    const value = plain(reading.value);
    const parts = to > from ? without(from, Math.min(to, end), all.holes) : ts >= start ? [[ts, ts]] : [];
    if (reading.quality === "bad") bad.push(...parts);
    else if (value !== null) for (const [a, b] of parts) pieces.push({ from: a, to: b, value, low: value, high: value, quality: reading.quality });
  });
  return { ...all, pieces, bad: union(bad, start, end), bucket: 0 };
}

/** See load; a piece for each bucket with its time-weighted average, minimum and maximum. */
export function fromBuckets(id, start, end, buckets, answer, width) {
  const all = common(id, start, end, answer);
  const pieces = [], bad = [];
  let broken = false; // a bad reading is stored once, where it begins
  for (const bucket of buckets) {
    const from = Math.max(instant(bucket.start), start), to = Math.min(instant(bucket.end), end, all.horizon);
    const parts = to > from ? without(from, to, all.holes) : [];
    if (bucket.bad) broken = true;
    else if (bucket.covered > 0) broken = false;
    if (bucket.bad || (broken && bucket.covered === 0)) bad.push(...parts);
    const value = plain(bucket.average);
    if (!bucket.covered || value === null) continue;
    const quality = bucket.uncertain ? "uncertain" : "good";
    for (const [a, b] of parts) pieces.push({ from: a, to: b, value, low: bucket.min ?? value, high: bucket.max ?? value, quality });
  }
  return { ...all, pieces, bad: union(bad, start, end), bucket: width };
}

/** The piece that holds at `ms`, or null. */
export function at(series, ms) {
  let low = 0, high = series.pieces.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const piece = series.pieces[middle];
    if (ms < piece.from) high = middle - 1;
    else if (ms >= piece.to && middle < series.pieces.length - 1 && ms >= series.pieces[middle + 1].from) low = middle + 1;
    else return ms <= piece.to ? piece : null;
  }
  return null;
}

/** How many stretches without a break the line has; `joint` is the longest distance (ms) that is no break. */
export function stretches(series, joint = 1) {
  let count = 0, last = -Infinity;
  for (const piece of series.pieces) {
    if (piece.from - last > joint) count += 1;
    last = piece.to;
  }
  return count;
}
