// The query: where it comes from, and how it is shown beside its results.

import { get, imageAddress, pictureSource } from "./api.js";
import { makeCrop } from "./crop.js";
import { byId, shown } from "./dom.js";
import { keepPicture, keptPicture, pictureAmong } from "./pictures.js";

/**
 * Lets people bring pictures: dropped, pasted, chosen, photographed, or one of the gallery.
 *
 * @param {(query: {id?: string, picture?: string}) => void} search
 * @param {(message: string) => void} refuse with what is wrong
 */
export function makeIntake(search, refuse) {
  const bring = (file) => search({ picture: keepPicture(file) });

  for (const name of ["choose", "photograph"]) {
    byId(name).addEventListener("change", ({ target }) => {
      if (target.files.length) bring(target.files[0]);
      target.value = ""; // so that the same file can be chosen again
    });
  }
  const draw = async () => {
    try {
      const { images } = await get("gallery/random?count=1");
      if (images.length) search({ id: images[0].id });
    } catch (problem) {
      refuse(problem.message);
    }
  };
  for (const button of document.querySelectorAll("[data-intake]")) {
    const kind = button.dataset.intake;
    button.addEventListener("click", () => (kind === "random" ? draw() : byId(kind).click()));
  }

  document.addEventListener("paste", (event) => {
    if (event.target.closest?.("input, textarea")) return;
    const picture = pictureAmong(event.clipboardData);
    if (picture) bring(picture);
    else refuse("What was pasted is no picture. Copy the picture itself, not its address.");
  });
  takeDrops(bring, refuse);
}

function takeDrops(bring, refuse) {
  const cover = byId("dropping");
  const own = (event) => event.dataTransfer?.types.includes("application/x-gallery-image");
  let depth = 0; // of elements entered and not left
  document.addEventListener("dragenter", (event) => {
    if (own(event)) return;
    depth += 1;
    shown(cover, true);
  });
  document.addEventListener("dragleave", (event) => {
    if (own(event)) return;
    depth = Math.max(0, depth - 1);
    if (!depth) shown(cover, false);
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    shown(cover, false);
    if (own(event)) return;
    const picture = pictureAmong(event.dataTransfer);
    if (picture) bring(picture);
    else refuse("What was dropped is no file. Save the picture first, then drop the file.");
  });
}

/**
 * Shows what is searched for.
 *
 * @param {(crop: number[]|null) => void} searchPart
 * @returns {(view: import("./address.js").View) => void}
 */
export function makeQueryPanel(searchPart) {
  const picture = byId("query-picture");
  const crop = makeCrop(searchPart);
  let of = null;
  let part = null;

  const canBeSeen = (yes) => {
    shown(byId("stage"), yes);
    shown(byId("query-unseen"), !yes);
    crop.show(part, yes);
  };
  picture.addEventListener("load", () => canBeSeen(true));
  picture.addEventListener("error", () => canBeSeen(false));

  return async (view) => {
    const now = view.id ?? `picture ${view.picture}`;
    if (now === of && String(view.crop) === String(part)) return;
    part = view.crop;
    crop.show(part, !byId("stage").hidden);
    if (now === of) return;
    of = now;
    const file = view.id === null ? keptPicture(view.picture) : null;
    const name = view.id ?? (file.name || "Your picture");
    byId("query-name").textContent = name;
    byId("query-name").title = name;
    picture.alt = `The query: ${name}`;
    if (picture.src.startsWith("blob:")) URL.revokeObjectURL(picture.src);
    picture.src = file ? URL.createObjectURL(file) : await pictureSource(imageAddress(view.id));
  };
}
