// Numbers as people read them.

const whole = new Intl.NumberFormat("en");

/** 3781 as "3,781". */
export const count = (number) => whole.format(number);

/** "1 image", "3,781 images". */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** A distance with as many digits as tell neighbours apart. */
export function distance(value) {
  const size = Math.abs(value);
  if (size >= 1000) return count(Math.round(value));
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3);
}

/** A share as a percentage; never "0 %" of what is more than nothing. */
export function percent(share) {
  if (share > 0 && share < 0.005) return "less than 1 %";
  if (share < 1 && share > 0.995) return "more than 99 %";
  return `${Math.round(100 * share)} %`;
}

/** Milliseconds as "43 ms" or "2.1 s". */
export const duration = (value) =>
  value < 1000 ? `${Math.max(1, Math.round(value))} ms` : `${(value / 1000).toFixed(1)} s`;

/** How a label is called. */
export const labelName = (label) => label ?? "unlabelled";

/** A reason as a sentence. */
export const sentence = (text) =>
  `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
