// The images that were found.

import { loadPicture, thumbnailAddress } from "./api.js";
import { byId, drawing, make } from "./dom.js";
import { counted, distance, duration, labelName, percent } from "./wording.js";

/**
 * One image of the gallery, which is searched from when chosen.
 *
 * @param {{id: string, label: string|null}} image
 * @param {string} address of the search
 * @param {string} name what choosing it does
 * @param {object} look of its label
 * @param {() => void} choose
 * @param {...Node} more under the picture
 */
export function tile(image, address, name, look, choose, ...more) {
  const picture = make("img", {
    alt: "",
    width: 256,
    height: 256,
    draggable: "true",
    decoding: "async",
  });
  loadPicture(picture, thumbnailAddress(image.id));
  const link = make("a", { class: "picture", href: address, "aria-label": name }, picture);
  link.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    choose();
  });
  // Dragged within the page it is no new picture.
  link.addEventListener("dragstart", ({ dataTransfer }) =>
    dataTransfer.setData("application/x-gallery-image", image.id),
  );
  const caption = make(
    "p",
    { class: "caption", title: image.id },
    drawing(look.path, look.colour),
    make("span", { class: "name" }, labelName(image.label)),
    ...more.slice(0, 1),
  );
  return make("li", { class: "tile", "data-id": image.id }, link, caption, ...more.slice(1));
}

/** Places where images will be, of the size they will have. */
export function skeletons(number) {
  return Array.from({ length: number }, () =>
    make(
      "li",
      { class: "tile skeleton", "aria-hidden": "true" },
      make("div", { class: "picture" }),
      make("p", { class: "caption" }),
    ),
  );
}

/**
 * Show an answer.
 *
 * @param {object} answer of /search
 * @param {object} info of the service
 * @param {(label: string|null) => object} look of a label
 * @param {{address: (id: string) => string, choose: Function, explain: Function, point: Function}} to
 */
export function showResults(answer, info, look, to) {
  const tiles = answer.neighbours.map((image) => {
    const name = `Result ${image.rank}: ${labelName(image.label)}, distance ${distance(image.distance)}. Search from it`;
    const far = make("span", { class: "distance" }, distance(image.distance));
    const why = make(
      "button",
      {
        type: "button",
        class: "why quiet",
        "aria-label": `Why result ${image.rank} matches`,
        on: { click: () => to.explain(image) },
      },
      "Why",
    );
    const made = tile(
      image,
      to.address(image.id),
      name,
      look(image.label),
      () => to.choose(image.id),
      far,
      why,
    );
    for (const event of ["pointerenter", "focusin"])
      made.addEventListener(event, () => to.point(image.id));
    for (const event of ["pointerleave", "focusout"])
      made.addEventListener(event, () => to.point(null));
    return made;
  });
  byId("grid").replaceChildren(...tiles);
  byId("results-title").textContent = tiles.length
    ? `${counted(tiles.length, "nearest image")}`
    : "No other image";
  byId("timings").textContent = timings(answer.timings);
  byId("verdict").replaceChildren(...verdict(answer, info));
}

/** What a screen reader is told once results are there. */
export function spoken(answer) {
  const [first] = answer.neighbours;
  if (!first) return "No results.";
  const start = answer.match && !answer.match.found ? "No match. " : "";
  const nearest = `${labelName(first.label)} at distance ${distance(first.distance)}`;
  return `${start}${counted(answer.neighbours.length, "result")}; the nearest: ${nearest}.`;
}

function timings({ read, wait, encode, search, total }) {
  const stages = [
    ["reading", read],
    ["waiting", wait],
    ["encoding", encode],
    ["searching", search],
  ].filter(([, value]) => value >= 0.5);
  const parts = stages.map(([name, value]) => `${duration(value)} ${name}`);
  return parts.length > 1 ? `${duration(total)}: ${parts.join(", ")}` : duration(total);
}

function verdict({ match, prediction, search, neighbours }, info) {
  const notes = [];
  const note = (kind, strong, text) =>
    notes.push(make("p", { class: `verdict ${kind}` }, make("strong", {}, strong), ` ${text}`));
  if (match && neighbours.length) {
    const at = distance(neighbours[0].distance);
    const as = `Of out-of-gallery queries, ${percent(match.false_match_rate)} come as near.`;
    const most = `a match is ${distance(match.threshold)} away at most`;
    if (match.found) note("match", "A match.", `The nearest image is ${at} away; ${most}. ${as}`);
    else note("none", "No match.", `Even the nearest image is ${at} away; ${most}. ${as}`);
  }
  if (prediction) {
    note(
      "plain",
      `Taken for ${labelName(prediction.name)},`,
      `${percent(prediction.probability)} sure.`,
    );
  }
  if (search) note("plain", "Ranked with", `${search}.`);
  if (!match && info.calibrated && neighbours.length) {
    note("plain", "Match or not:", "told when neither re-ranking nor a class first is on.");
  }
  return notes;
}
