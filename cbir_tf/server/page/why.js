// Why a result matches: what each place of both pictures contributes to their similarity.

import { imageAddress, pictureSource, post } from "./api.js";
import { byId, make } from "./dom.js";
import { queryFields } from "./pictures.js";
import { distance, labelName, sentence } from "./wording.js";

const ADDS = [255, 122, 0];
const TAKES = [40, 90, 255];
const KINDS = {
  linear: "What the places contribute adds up to the similarity, exactly.",
  local:
    "What the places contribute adds up to the similarity, with the model's layers as they are at these two pictures.",
};
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** One picture under what its places contribute. */
class Overlay {
  /**
   * @param {string} title
   * @param {(place: [number, number]|null) => void} meant called with the row and column under the
   *   pointer
   */
  constructor(title, meant) {
    this.title = title;
    this.meant = meant;
    this.place = null;
    this.image = make("img", { alt: title });
    this.canvas = make("canvas", {
      role: "img",
      "aria-label": `${title}: what each place contributes`,
    });
    this.figure = make(
      "figure",
      {},
      make("div", { class: "pair" }, this.image, this.canvas),
      make("figcaption", {}, title),
    );
    this.canvas.addEventListener("pointermove", ({ offsetX, offsetY }) =>
      this.mean(this.at(offsetX, offsetY)),
    );
    this.canvas.addEventListener("pointerleave", () => this.mean(null));
    this.canvas.addEventListener("blur", () => this.mean(null));
    this.canvas.addEventListener("keydown", (event) => {
      const arrow = ARROWS[event.key];
      if (!arrow || !this.values) return;
      event.preventDefault();
      const [rows, columns] = [this.values.length, this.values[0].length];
      const [row, column] = this.place ?? [rows >> 1, columns >> 1];
      this.mean([(row + arrow[0] + rows) % rows, (column + arrow[1] + columns) % columns]);
    });
  }

  mean(place) {
    this.place = place;
    this.meant(place);
  }

  at(left, top) {
    if (!this.values) return null;
    const [x, y, width, height] = this.area;
    const { clientWidth, clientHeight } = this.canvas;
    const column = Math.floor(((left / clientWidth - x) / width) * this.values[0].length);
    const row = Math.floor(((top / clientHeight - y) / height) * this.values.length);
    const inside =
      row >= 0 && column >= 0 && row < this.values.length && column < this.values[0].length;
    return inside ? [row, column] : null;
  }

  /** Draw contributions, (rows, columns), as shares of the largest; and a frame around one place. */
  draw(values, area, framed = null) {
    Object.assign(this, { values, area });
    this.canvas.tabIndex = 0;
    const [rows, columns] = [values.length, values[0].length];
    const most = Math.max(...values.flat().map(Math.abs)) || 1;
    const small = make("canvas", { width: columns, height: rows });
    const pixels = new ImageData(columns, rows);
    values.flat().forEach((value, place) => {
      const share = Math.abs(value) / most;
      pixels.data.set([...(value < 0 ? TAKES : ADDS), Math.round(235 * share ** 1.5)], 4 * place);
    });
    small.getContext("2d").putImageData(pixels, 0, 0);
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.canvas.width = width;
    this.canvas.height = height;
    const context = this.canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    const [left, top] = [area[0] * width, area[1] * height];
    const [across, down] = [(area[2] * width) / columns, (area[3] * height) / rows];
    context.drawImage(small, left, top, columns * across, rows * down);
    if (!framed) return;
    const frame = [left + framed[1] * across, top + framed[0] * down, across, down];
    for (const [colour, lineWidth] of [
      ["#000", 4],
      ["#fff", 2],
    ]) {
      Object.assign(context, { strokeStyle: colour, lineWidth });
      context.strokeRect(...frame);
    }
  }
}

const grid = (row, columns) =>
  Array.from({ length: row.length / columns }, (_, each) =>
    row.slice(each * columns, (each + 1) * columns),
  );

/** Ties the two overlays: a place of one shows what it contributes with each place of the other. */
function tie(answer, query, match, said) {
  const columns = answer.query[0].length;
  const number = ([row, column]) => row * columns + column;
  const whole = () => {
    query.draw(answer.query, answer.query_area);
    match.draw(answer.match, answer.match_area);
    said.textContent = KINDS[answer.kind] ?? "";
  };
  const text = (share) =>
    `This place contributes ${share.toFixed(3)} of ${answer.similarity.toFixed(3)}; the other picture shows with which places.`;
  query.meant = (place) => {
    if (!place) return whole();
    query.draw(answer.query, answer.query_area, place);
    match.draw(grid(answer.pairs[number(place)], columns), answer.match_area);
    said.textContent = text(answer.query[place[0]][place[1]]);
  };
  match.meant = (place) => {
    if (!place) return whole();
    match.draw(answer.match, answer.match_area, place);
    query.draw(
      grid(
        answer.pairs.map((row) => row[number(place)]),
        columns,
      ),
      answer.query_area,
    );
    said.textContent = text(answer.match[place[0]][place[1]]);
  };
  whole();
  return whole;
}

/**
 * Open the dialog.
 *
 * @param {import("./address.js").View} view whose result it is
 * @param {object} match one of the neighbours
 * @param {object} info of the service
 */
export async function explain(view, match, info) {
  const dialog = byId("why");
  const gone = new AbortController();
  const query = new Overlay("Query", () => {});
  const other = new Overlay(`Result ${match.rank}: ${labelName(match.label)}`, () => {});
  const said = make("p", { class: "said", role: "status" }, "Being worked out.");
  const close = make("button", { type: "button", on: { click: () => dialog.close() } }, "Close");
  const title = make("h2", { id: "why-title" }, `Why result ${match.rank} matches`);
  dialog.replaceChildren(
    make("div", { class: "heading" }, title, close),
    make("div", { class: "pairs" }, query.figure, other.figure),
    said,
  );
  let redraw = () => {};
  const resized = new ResizeObserver(() => redraw());
  resized.observe(dialog);
  dialog.addEventListener(
    "close",
    () => {
      gone.abort();
      resized.disconnect();
      if (query.image.src.startsWith("blob:")) URL.revokeObjectURL(query.image.src);
    },
    { once: true },
  );
  dialog.showModal();
  try {
    const fields = await queryFields(view, info, gone.signal);
    query.image.src = fields.file
      ? URL.createObjectURL(fields.file)
      : await pictureSource(imageAddress(view.id));
    other.image.src = await pictureSource(imageAddress(match.id));
    if (info.explanation !== null) {
      said.textContent = sentence(`This run cannot say why images match: ${info.explanation}`);
      return;
    }
    dialog.setAttribute("aria-busy", "true");
    const answer = await post("explain", { ...fields, match: match.id }, gone.signal);
    await Promise.all([query.image.decode(), other.image.decode()]);
    redraw = tie(answer, query, other, said);
    const least = Math.min(...answer.query.flat(), ...answer.match.flat());
    dialog.append(key(answer, match, least < 0));
  } catch (problem) {
    if (problem.name !== "AbortError") said.textContent = sentence(problem.message);
  } finally {
    dialog.removeAttribute("aria-busy");
  }
}

function key({ similarity }, match, negative) {
  const part = (name, text) => make("span", {}, make("span", { class: `swatch ${name}` }), text);
  const parts = [part("adds", "adds to the similarity")];
  if (negative) parts.push(part("takes", "takes from it"));
  const figures = `Cosine similarity ${similarity.toFixed(3)}; distance in this search ${distance(match.distance)}.`;
  const help =
    "Point at a place, or Tab to a picture and use the arrow keys, to see what it goes with.";
  return make(
    "div",
    { class: "muted small" },
    make("p", { class: "key" }, ...parts),
    make("p", {}, `${figures} ${help}`),
  );
}
