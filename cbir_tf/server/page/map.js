// The embedding map: every image a point, near where its neighbours are.

import { get } from "./api.js";
import { byId, drawing, make, shown } from "./dom.js";
import { MapCanvas } from "./map_canvas.js";
import { count, counted, labelName } from "./wording.js";

const METHODS = { umap: "UMAP", tsne: "t-SNE", pca: "PCA" };
const AGAIN = 1000; // milliseconds until the map is asked for again

/**
 * Makes the map, which is fetched when it is first shown.
 *
 * @param {object} info of the service
 * @param {(label: string|null) => {colour: string, path: string}} look of a label
 * @param {(id: string) => void} choose an image
 * @param {() => void} ready when the map is there
 */
export function makeMap(info, look, choose, ready) {
  const section = byId("map");
  const title = make("h2", { id: "map-title" }, "Map of the gallery");
  const about = make("p", { class: "muted small", role: "status" });
  const legend = make("ul", { class: "legend", "aria-label": "Labels" });
  const canvas = new MapCanvas(look, choose);
  const zoom = (name, text, action) =>
    make("button", { type: "button", "aria-label": name, on: { click: action } }, text);
  const tools = make(
    "div",
    { class: "row" },
    zoom("Zoom in", "+", () => canvas.viewport.zoomBy(1.6)),
    zoom("Zoom out", "−", () => canvas.viewport.zoomBy(1 / 1.6)),
    zoom("Show the whole map", "Whole", () => canvas.viewport.reset()),
  );
  const help = make(
    "p",
    { id: "map-help", class: "muted small" },
    "Scroll or pinch to zoom, drag to move, choose a point to search from it. With the keyboard: " +
      "arrow keys and + − move to an image, Enter searches from it.",
  );
  section.replaceChildren(
    make("div", { class: "heading" }, title, about, tools),
    canvas.element,
    legend,
    help,
  );
  let state = "none"; // then asked, then there

  function there({ method, points }) {
    state = "there";
    const name = METHODS[method] ?? method;
    const all = points.length === info.images;
    const shownImages = all
      ? counted(points.length, "image")
      : `${count(points.length)} of ${counted(info.images, "image")}`;
    about.textContent = points.length
      ? `${name} of ${shownImages}`
      : "There are no images on the map.";
    canvas.fill(points);
    legend.replaceChildren(...legendOf(points, info, look, (label) => canvas.only(label)));
    section.removeAttribute("aria-busy");
    ready();
  }

  async function fetchMap() {
    state = "asked";
    section.setAttribute("aria-busy", "true");
    about.textContent = "Being laid out: this takes a while the first time.";
    try {
      let answer = await get("map");
      while (!answer.ready) {
        await new Promise((resolve) => setTimeout(resolve, AGAIN));
        answer = await get("map");
      }
      there(answer);
    } catch (problem) {
      state = "none";
      section.removeAttribute("aria-busy");
      about.textContent = `No map: ${problem.message} `;
      about.append(make("button", { type: "button", on: { click: fetchMap } }, "Try again"));
    }
  }

  return {
    isThere: () => state === "there",
    show(yes) {
      shown(section, yes);
      if (yes && state === "none") fetchMap();
      if (yes) canvas.fit();
    },
    mark: (query, found) => canvas.mark(query, found),
    point: (id) => canvas.point(id),
  };
}

/** Buttons that leave one label in colour. */
function legendOf(points, info, look, only) {
  const numbers = new Map();
  for (const { label } of points) numbers.set(label, (numbers.get(label) ?? 0) + 1);
  const buttons = info.labels
    .filter(({ name }) => numbers.has(name))
    .map(({ name }) => {
      const { colour, path } = look(name);
      const button = make(
        "button",
        { type: "button", class: "quiet", "aria-pressed": "false" },
        drawing(path, colour),
        labelName(name),
      );
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        for (const each of buttons)
          each.setAttribute("aria-pressed", String(on && each === button));
        only(on ? name : undefined);
      });
      return button;
    });
  return buttons.map((button) => make("li", {}, button));
}
