// Pictures people bring: kept while the page is open, cut and scaled before they are sent.

import { getBlob, imageAddress } from "./api.js";

const LONGEST_SIDE = 2048; // pixels of what is cut or scaled
const WEBP = 25e6; // pixels of which the service decodes a WebP, which takes five times the memory
const SMALL = 250_000; // pixels up to which a part is sent without loss

const kept = new Map();
let prepared = { of: "", blob: null };

/** Keep a picture; the name it goes by in the page's address. */
export function keepPicture(file) {
  const name = Date.now().toString(36);
  kept.set(name, file);
  return name;
}

/** A kept picture; undefined: the page was loaded anew since. */
export const keptPicture = (name) => kept.get(name);

/**
 * Fields that name the query in a request.
 *
 * @param {import("./address.js").View} view
 * @param {{max_request_megabytes: number, max_megapixels: number}} limits of the service
 * @param {AbortSignal} signal
 */
export async function queryFields(view, limits, signal) {
  if (view.id !== null && !view.crop) return { id: view.id };
  const of = JSON.stringify([view.id, view.picture, view.crop]);
  if (prepared.of !== of) {
    const whole =
      view.id === null ? kept.get(view.picture) : await getBlob(imageAddress(view.id), signal);
    prepared = { of, blob: await prepare(whole, view.crop, limits) };
  }
  return { file: prepared.blob };
}

/** The picture itself where the service takes it as it is, else a part or a smaller one of it. */
async function prepare(picture, crop, limits) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(picture);
  } catch {
    return picture; // the service says what is wrong with it
  }
  const fits =
    picture.size < 0.95 * limits.max_request_megabytes * 1e6 &&
    bitmap.width * bitmap.height < limits.max_megapixels * 1e6 &&
    (picture.type !== "image/webp" || bitmap.width * bitmap.height < WEBP);
  if (fits && !crop) return picture;
  const [left, top, width, height] = crop ?? [0, 0, 1, 1];
  const size = [width * bitmap.width, height * bitmap.height].map((side) => Math.max(1, side));
  const scale = Math.min(1, LONGEST_SIDE / Math.max(...size));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = size.map((side) => Math.max(1, Math.round(scale * side)));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(
    bitmap,
    left * bitmap.width,
    top * bitmap.height,
    ...size,
    0,
    0,
    canvas.width,
    canvas.height,
  );
  bitmap.close();
  const kind = canvas.width * canvas.height <= SMALL ? "image/png" : "image/jpeg";
  return new Promise((resolve) => canvas.toBlob(resolve, kind, 0.95));
}

/** The first picture among what was dropped, pasted or chosen; null: none. */
export function pictureAmong(transfer) {
  const files = [...(transfer?.files ?? [])];
  return files.find((file) => file.type.startsWith("image/")) ?? files[0] ?? null;
}
