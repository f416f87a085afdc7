// Draws one diagram on a canvas: step lines over time, gaps as hatched stretches without a line, bad quality as a red strip.

import { axisText, number } from "./texts.js";

const LEFT = 62, RIGHT = 10, TOP = 10, BOTTOM = 24, STRIP = 7;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400].map((s) => s * 1000);

/** Round numbers inside [low, high], about `count` of them. */
export function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw) ?? raw;
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high + step * 1e-9; n += 1) found.push(Number((n * step).toPrecision(12)));
  return found;
}

function bounds(list) {
  let low = Infinity, high = -Infinity;
  for (const series of list) for (const piece of series.pieces) {
    low = Math.min(low, piece.low);
    high = Math.max(high, piece.high);
  }
  if (low > high) return [0, 1];
  const margin = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1;
  return [low - margin, high + margin];
}

/** Where a moment and a value lie in a canvas of this size. */
export function scales(list, start, end, width, height) {
  const [low, high] = bounds(list);
  const plotted = height - TOP - BOTTOM - STRIP;
  return {
    low, high,
    x: (ms) => LEFT + ((ms - start) / (end - start)) * (width - LEFT - RIGHT),
    y: (value) => TOP + (1 - (value - low) / (high - low)) * plotted,
    time: (x) => start + ((x - LEFT) / (width - LEFT - RIGHT)) * (end - start),
  };
}

/** Draws `list` (see series.js, each with a `colour` from the style sheet) of [start, end); `cursor` is a moment or null. */
export function draw(canvas, list, start, end, cursor) {
  const width = canvas.clientWidth, height = canvas.clientHeight, ratio = window.devicePixelRatio || 1;
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const style = getComputedStyle(canvas);
  const ink = (name) => style.getPropertyValue(name).trim();
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const scale = scales(list, start, end, width, height);
  const floor = height - BOTTOM;
  axes(pen, scale, start, end, width, height, ink);
  pen.save();
  pen.beginPath();
  pen.rect(LEFT, 0, width - LEFT - RIGHT, floor);
  pen.clip();
  hatch(pen, list, scale, floor, ink("--gap"));
  for (const series of list) line(pen, series, scale, ink(series.colour), ink("--warn"));
  pen.fillStyle = ink("--danger");
  for (const series of list) for (const [from, to] of series.bad) {
    pen.fillRect(scale.x(from), floor - STRIP, Math.max(3, scale.x(to) - scale.x(from)), STRIP - 1);
  }
  if (cursor !== null) {
    pen.fillStyle = ink("--text");
    pen.fillRect(scale.x(cursor), TOP, 1, floor - TOP);
  }
  pen.restore();
}

function axes(pen, scale, start, end, width, height, ink) {
  pen.font = `12px ${ink("--font") || "sans-serif"}`;
  pen.lineWidth = 1;
  pen.strokeStyle = ink("--line");
  pen.fillStyle = ink("--faint");
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const value of ticks(scale.low, scale.high, Math.max(2, height / 50))) {
    const y = Math.round(scale.y(value)) + 0.5;
    stroke(pen, LEFT, y, width - RIGHT, y);
    pen.fillText(number(value), LEFT - 6, y);
  }
  const days = end - start > 86_400_000;
  const room = days ? 110 : 64;
  const step = STEPS.find((ms) => ((width - LEFT) * ms) / (end - start) >= room) ?? 86_400_000;
  const zone = new Date(start).getTimezoneOffset() * 60_000;
  pen.textAlign = "center";
  pen.textBaseline = "alphabetic";
  for (let ms = Math.ceil((start - zone) / step) * step + zone; ms <= end; ms += step) {
    const x = Math.round(scale.x(ms)) + 0.5;
    stroke(pen, x, TOP, x, height - BOTTOM);
    if (x > LEFT + room / 4 && x < width - room / 3) pen.fillText(axisText(ms, days), x, height - 7);
  }
}

function stroke(pen, x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}

function hatch(pen, list, scale, floor, colour) {
  pen.save();
  const area = new Path2D();
  for (const series of list) for (const [from, to] of series.holes) area.rect(scale.x(from), TOP, Math.max(2, scale.x(to) - scale.x(from)), floor - TOP);
  pen.clip(area);
  pen.fillStyle = pen.strokeStyle = colour;
  pen.globalAlpha = 0.14;
  pen.fillRect(0, 0, pen.canvas.width, floor);
  pen.globalAlpha = 0.55;
  for (let x = -floor; x < pen.canvas.width; x += 8) stroke(pen, x, floor, x + floor, 0);
  pen.restore();
}

/** A step line. Pieces that touch are joined; an uncertain stretch is drawn in the colour of warnings and dashed. */
function line(pen, series, scale, colour, warn) {
  pen.fillStyle = colour;
  if (series.bucket) {
    pen.globalAlpha = 0.22;
    for (const piece of series.pieces) {
      if (piece.high > piece.low) pen.fillRect(scale.x(piece.from), scale.y(piece.high), scale.x(piece.to) - scale.x(piece.from), scale.y(piece.low) - scale.y(piece.high));
    }
    pen.globalAlpha = 1;
  }
  pen.lineWidth = 1.75;
  pen.lineJoin = "round";
  for (const quality of ["good", "uncertain"]) {
    pen.strokeStyle = quality === "good" ? colour : warn;
    pen.setLineDash(quality === "good" ? [] : [4, 3]);
    pen.beginPath();
    let last = null;
    for (const piece of series.pieces) {
      if (piece.quality === quality) {
        const x = scale.x(piece.from), y = scale.y(piece.value);
        if (last && piece.from - last.to <= 1) {
          if (last.quality !== quality) pen.moveTo(x, scale.y(last.value));
          pen.lineTo(x, y);
        } else pen.moveTo(x, y);
        pen.lineTo(Math.max(scale.x(piece.to), x + 1.5), y);
      }
      last = piece;
    }
    pen.stroke();
  }
  pen.setLineDash([]);
}
