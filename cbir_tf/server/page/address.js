// What is shown, as the page's own address: it can be kept, shared, and gone back to.

/**
 * @typedef {object} View
 * @property {string|null} id of the stored image that is searched for
 * @property {string|null} picture that is searched for, as kept by pictures.js
 * @property {number[]|null} crop left, top, width and height as shares of the picture
 * @property {number|null} k
 * @property {string[]} labels any of them; none: all
 * @property {string|null} split
 * @property {string[]} conditions further ones, as the service's `where`
 * @property {string|null} reRanking
 * @property {string|null} twoStep
 * @property {boolean} map whether the map is shown
 */

/** @returns {View} */
export function readAddress(search) {
  const given = new URLSearchParams(search);
  const k = Number.parseInt(given.get("k") ?? "", 10);
  return {
    id: given.get("id"),
    picture: given.get("id") === null ? given.get("picture") : null,
    crop: readCrop(given.get("crop")),
    k: k >= 1 ? k : null,
    labels: given.getAll("label"),
    split: given.get("split"),
    conditions: given.getAll("where"),
    reRanking: given.get("re_ranking"),
    twoStep: given.get("two_step"),
    map: given.has("map"),
  };
}

/** @param {View} view */
export function writeAddress(view) {
  const fields = new URLSearchParams();
  const put = (name, value) => value !== null && fields.append(name, value);
  put("id", view.id);
  put("picture", view.picture);
  put("crop", view.crop && view.crop.map((share) => share.toFixed(3)).join(","));
  put("k", view.k);
  for (const label of view.labels) put("label", label);
  put("split", view.split);
  for (const condition of view.conditions) put("where", condition);
  put("re_ranking", view.reRanking);
  put("two_step", view.twoStep);
  if (view.map) put("map", "");
  const text = fields.toString();
  return text ? `./?${text}` : "./";
}

/** Whether there is something to search for. */
export const hasQuery = (view) => view.id !== null || view.picture !== null;

/** The service's `where`. */
export function conditionsOf(view) {
  const where = [...view.conditions];
  if (view.labels.length) where.push(`label=${view.labels.map(quoted).join(",")}`);
  if (view.split !== null) where.push(`split=${quoted(view.split)}`);
  // Part of a stored image is sent as a picture, which is then among what is found.
  if (view.id !== null && view.crop) where.push(`id!=${quoted(view.id)}`);
  return where;
}

/** Commas in it are its own. */
const quoted = (value) => `"${value.replaceAll('"', '""')}"`;

function readCrop(text) {
  const shares = (text ?? "").split(",").map(Number);
  const [left, top, width, height] = shares;
  const fits = shares.length === 4 && shares.every((share) => share >= 0 && share <= 1);
  if (!fits || !width || !height || left + width > 1.001 || top + height > 1.001) return null;
  return shares;
}
