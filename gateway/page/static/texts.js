// The texts of the page and how values, times and ages are written. The language is fixed when the page is rendered.

const texts = JSON.parse(document.getElementById("texts").textContent);
export const language = document.documentElement.dataset.language;
const locale = language === "zh" ? "zh-CN" : "en-GB";

/** The text `name` with the values of its braces. An unknown name is a mistake of ours and throws. */
export function t(name, values = {}) {
  const text = texts[name];
  if (text === undefined) throw new Error(`there is no text ${name}`);
  return text.replace(/\{(\w+)\}/g, (_, key) => String(values[key]));
}

/** Whether there is a text of this name. */
export const has = (name) => name in texts;

const sixDigits = new Intl.NumberFormat(locale, { maximumSignificantDigits: 6, useGrouping: false });
const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0, useGrouping: false });

/** A number for people: whole ones exactly, others with six digits, very large and very small ones with an exponent. */
export function number(value) {
  if (Number.isInteger(value) && Math.abs(value) < 2 ** 53) return whole.format(value);
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e9 || size < 1e-4)) return value.toExponential(3);
  return sixDigits.format(value);
}

/** A value of any type as text; `meaning` is the signal, for the texts of an enumeration. */
export function valueText(value, meaning) {
  if (value === null || value === undefined) return "—";
  if (typeof value === "boolean") return t(String(value));
  if (meaning?.type === "datetime" && /^-?\d+$/.test(String(value))) return dateText(Number(value) / 1000);
  const named = meaning?.enum?.find((item) => item.value === value);
  if (named) return `${named.text} (${value})`;
  if (typeof value === "number") return number(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** A UCUM unit as people write it; an empty text for "1" and none. */
export function unitText(unit) {
  const plain = { 1: "", Cel: "℃", "m3/h": "m³/h", "m3": "m³", "[degF]": "℉", "{rpm}": "rpm", "/min": "1/min", Ohm: "Ω", ar: "a" };
  return plain[unit] ?? unit.replace(/[{}]/g, "").replace(/\./g, "·");
}

const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dayAndClock = new Intl.DateTimeFormat(locale, {
  month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const shortClock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const shortDay = new Intl.DateTimeFormat(locale, { month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const wholeMoment = new Intl.DateTimeFormat(locale, {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const fullDay = new Intl.DateTimeFormat(locale, { dateStyle: "full" });

/** Milliseconds since the epoch of an RFC 3339 text; null stays null. */
export const instant = (text) => (text ? Date.parse(text) : null);

/** A moment (ms) in the time zone of the browser; the day only when it is not today. */
export function timeText(ms) {
  if (ms === null) return "—";
  const sameDay = new Date(ms).toDateString() === new Date().toDateString();
  return (sameDay ? clock : dayAndClock).format(ms);
}
/** A moment (ms) with its year; what no calendar holds as a number. */
const dateText = (ms) => (Math.abs(ms) <= 8.64e15 ? wholeMoment.format(ms) : String(ms));
export const axisText = (ms, days) => (days ? shortDay : shortClock).format(ms);
export const clockText = (ms) => clock.format(ms);
export const dayText = (ms) => fullDay.format(ms);

/** How long, in the one or two largest units. */
export function durationText(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return t("u_s", { n: s });
  if (s < 3600) return t("u_min", { n: Math.floor(s / 60) }) + (s < 600 && s % 60 ? ` ${t("u_s", { n: s % 60 })}` : "");
  if (s < 86400) return t("u_h", { n: Math.floor(s / 3600) }) + (s % 3600 >= 60 ? ` ${t("u_min", { n: Math.floor((s % 3600) / 60) })}` : "");
  return t("u_d", { n: Math.floor(s / 86400) }) + (s % 86400 >= 3600 ? ` ${t("u_h", { n: Math.floor((s % 86400) / 3600) })}` : "");
}

/** The share as a percentage that is never rounded up: 100 % means nothing at all is missing. */
export function percentText(share) {
  const tenths = Math.floor(share * 1000 + 1e-9);
  return share >= 1 ? "100 %" : `${Math.min(tenths, 999) / 10} %`;
}
