// Sets of intervals [from, to) in ms: what is missing, and what is left.

/** The intervals in order, cut to [start, end), those that touch joined into one. */
export function union(intervals, start, end) {
  const cut = intervals
    .map(([from, to]) => [Math.max(from, start), Math.min(to, end)])
    .filter(([from, to]) => to > from)
    .sort((a, b) => a[0] - b[0]);
  const found = [];
  for (const [from, to] of cut) {
    const before = found.at(-1);
    if (before && from <= before[1]) before[1] = Math.max(before[1], to);
    else found.push([from, to]);
  }
  return found;
}

/** What is left of [from, to) without the intervals, which are in order and apart. */
export function without(from, to, intervals) {
  const found = [];
  let at = from;
  for (const [first, last] of intervals) {
    if (last <= at) continue;
    if (first >= to) break;
    if (first > at) found.push([at, first]);
    at = Math.max(at, last);
  }
  if (at < to) found.push([at, to]);
  return found;
}

export const length = (intervals) => intervals.reduce((sum, [from, to]) => sum + to - from, 0);
