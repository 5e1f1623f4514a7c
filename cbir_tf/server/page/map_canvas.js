// The points of the map, drawn; and what is under the pointer or, for the keyboard, the middle.

import { loadPicture, pictureSource, thumbnailAddress } from "./api.js";
import { byId, make, shown } from "./dom.js";
import { Viewport } from "./viewport.js";
import { labelName } from "./wording.js";

const REACH = 16; // pixels within which a point is meant
const CLICK = 5; // pixels a pointer may move and still click
const PICTURES = 60; // points in view at most for pictures in their place
const PICTURE = 44; // pixels

export class MapCanvas {
  /**
   * @param {(label: string|null) => {colour: string, path: string}} look of a label
   * @param {(id: string) => void} choose
   */
  constructor(look, choose) {
    this.look = look;
    this.choose = choose;
    this.points = [];
    this.byId = new Map();
    this.found = new Set();
    this.query = null;
    this.meant = null; // under the pointer or in the middle
    this.pointed = null; // by a result
    this.label = undefined; // the only one in colour
    this.pictures = new Map();
    this.paths = new Map();
    this.canvas = make("canvas", {
      tabindex: "0",
      role: "application",
      "aria-label": "Map of the gallery",
      "aria-describedby": "map-help",
    });
    this.tip = make(
      "figure",
      { class: "tip", hidden: true },
      make("img", { alt: "", width: 96, height: 96 }),
      make("figcaption"),
    );
    this.element = make("div", { class: "canvas" }, this.canvas, this.tip);
    this.viewport = new Viewport(this.canvas, () => this.moved());
    this.listen();
    new ResizeObserver(() => this.fit()).observe(this.element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  /** Show points: {id, label, x, y}. */
  fill(points) {
    this.points = points;
    this.byId = new Map(points.map((point) => [point.id, point]));
    const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
    const low = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
    const high = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
    if (points.length) {
      const [x, y] = [low(xs), low(ys)];
      this.viewport.bounds = { x, y, width: high(xs) - x || 1, height: high(ys) - y || 1 };
    }
    this.viewport.reset();
  }

  /** Leave one label in colour; undefined: all. */
  only(label) {
    this.label = label;
    this.redraw();
  }

  /**
   * Show where a query and what was found are.
   *
   * @param {{id: string|null, position: number[]|null}|null} query
   * @param {string[]} found ids
   */
  mark(query, found) {
    const stored = query?.id && this.byId.get(query.id);
    this.query = stored ? [stored.x, stored.y] : (query?.position ?? null);
    this.found = new Set(found);
    this.redraw();
  }

  /** Make one image stand out; null: none. */
  point(id) {
    this.pointed = id;
    this.redraw();
  }

  /** As large as its place. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width || !height) return;
    Object.assign(this.viewport, { width, height });
    this.ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * this.ratio);
    this.canvas.height = Math.round(height * this.ratio);
    this.redraw();
  }

  /** Another part is in view: what was meant is elsewhere. */
  moved() {
    if (this.meant) this.mean(null);
    this.redraw();
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.draw();
    });
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const { width, height, zoom } = this.viewport;
    const style = getComputedStyle(this.canvas);
    const [ink, ground] = [style.color, style.getPropertyValue("--surface")];
    const edge = style.getPropertyValue("--rim");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const visible = [];
    for (const point of this.points) {
      const [left, top] = this.viewport.place(point.x, point.y);
      if (left > -30 && top > -30 && left < width + 30 && top < height + 30)
        visible.push([point, left, top]);
    }
    const few = visible.length <= PICTURES && visible.length < this.points.length;
    const crowd = Math.min(6, Math.max(2.6, 120 / Math.sqrt(this.points.length + 1)));
    const radius = Math.min(9, crowd * zoom ** 0.3);
    for (const [point, left, top] of visible)
      this.drawPoint(context, point, left, top, radius, few, edge);
    for (const [point, left, top] of visible) {
      if (this.found.has(point.id))
        this.ring(context, left, top, few ? PICTURE / 2 + 4 : radius + 2.5, ink, 1.5);
      if (point.id === this.pointed)
        this.ring(context, left, top, (few ? PICTURE / 2 : radius) + 7, ink, 3);
    }
    if (this.query) this.drawQuery(context, ink, ground);
    this.drawMeant(context, ink, radius);
  }

  drawPoint(context, point, left, top, radius, few, edge) {
    const { colour, path } = this.look(point.label);
    const faint = this.label !== undefined && point.label !== this.label;
    context.globalAlpha = faint ? 0.12 : 1;
    const picture = few && this.picture(point.id);
    context.save();
    context.translate(left, top);
    if (picture) {
      const scale = PICTURE / Math.max(picture.naturalWidth, picture.naturalHeight);
      const [width, height] = [scale * picture.naturalWidth, scale * picture.naturalHeight];
      context.fillStyle = colour;
      context.fillRect(-width / 2 - 3, -height / 2 - 3, width + 6, height + 6);
      context.drawImage(picture, -width / 2, -height / 2, width, height);
    } else {
      if (!this.paths.has(path)) this.paths.set(path, new Path2D(path));
      context.scale(radius, radius);
      context.fillStyle = colour;
      context.strokeStyle = edge;
      context.lineWidth = 0.3;
      context.fill(this.paths.get(path));
      context.stroke(this.paths.get(path));
    }
    context.restore();
    context.globalAlpha = 1;
  }

  /** A small picture, fetched when first asked for; undefined until it is there. */
  picture(id) {
    if (!this.pictures.has(id)) {
      const image = new Image();
      this.pictures.set(id, image);
      image.addEventListener("load", () => this.redraw());
      pictureSource(thumbnailAddress(id)).then(
        (source) => (image.src = source),
        () => {},
      );
    }
    const image = this.pictures.get(id);
    return image.complete && image.naturalWidth ? image : undefined;
  }

  ring(context, left, top, radius, colour, width) {
    context.beginPath();
    context.arc(left, top, radius, 0, 2 * Math.PI);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }

  drawQuery(context, ink, ground) {
    const [left, top] = this.viewport.place(...this.query);
    this.ring(context, left, top, 11, ground, 6);
    this.ring(context, left, top, 11, ink, 2.5);
    context.font = "600 13px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.lineWidth = 4;
    context.lineJoin = "round";
    context.strokeStyle = ground;
    context.fillStyle = ink;
    // Beside the ring, on the side where there is room.
    const width = context.measureText("Query").width;
    const start = left + 24 + width < this.viewport.width ? left + 18 : left - 18 - width;
    context.strokeText("Query", start, top);
    context.fillText("Query", start, top);
  }

  drawMeant(context, ink, radius) {
    if (this.byKey) {
      const [x, y] = [this.viewport.width / 2, this.viewport.height / 2];
      context.strokeStyle = ink;
      context.lineWidth = 1;
      context.beginPath();
      for (const [right, down] of [
        [1, 0],
        [-1, 0],
        [0, 1],
        [0, -1],
      ]) {
        context.moveTo(x + 6 * right, y + 6 * down);
        context.lineTo(x + 16 * right, y + 16 * down);
      }
      context.stroke();
    }
    if (this.meant)
      this.ring(context, ...this.viewport.place(this.meant.x, this.meant.y), radius + 4, ink, 2);
  }

  /** The point nearest a pixel, within reach; null: none. */
  nearest(left, top, reach = REACH) {
    let [best, least] = [null, reach];
    for (const point of this.points) {
      const [x, y] = this.viewport.place(point.x, point.y);
      const far = Math.hypot(x - left, y - top);
      if (far <= least) [best, least] = [point, far];
    }
    return best;
  }

  /** Say which image is meant. */
  mean(point) {
    if (point?.id === this.meant?.id && !this.tip.hidden) return;
    this.meant = point;
    this.canvas.classList.toggle("over", point !== null);
    shown(this.tip, point !== null);
    if (point) {
      const [picture, caption] = this.tip.children;
      picture.removeAttribute("src");
      loadPicture(picture, thumbnailAddress(point.id));
      caption.textContent = labelName(point.label);
      const [left, top] = this.viewport.place(point.x, point.y);
      const below = top < this.viewport.height / 2;
      const room = this.viewport.width - 120;
      this.tip.style.left = `${Math.min(room, Math.max(4, left - 56))}px`;
      this.tip.style.top = below ? `${top + 16}px` : "auto";
      this.tip.style.bottom = below ? "auto" : `${this.viewport.height - top + 16}px`;
      if (this.byKey) byId("live").textContent = `${labelName(point.label)}, ${point.id}`;
    }
    this.redraw();
  }

  listen() {
    const { canvas } = this;
    let down = null;
    canvas.addEventListener("pointerdown", ({ offsetX, offsetY }) => {
      this.byKey = false;
      down = [offsetX, offsetY];
    });
    canvas.addEventListener("pointermove", ({ offsetX, offsetY, buttons }) => {
      this.mean(buttons ? null : this.nearest(offsetX, offsetY));
    });
    canvas.addEventListener("pointerleave", () => this.mean(null));
    canvas.addEventListener("click", ({ offsetX, offsetY }) => {
      const still = down && Math.hypot(offsetX - down[0], offsetY - down[1]) < CLICK;
      const point = this.nearest(offsetX, offsetY);
      if (still && point) this.choose(point.id);
    });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (this.viewport.key(event.key)) this.middle();
      else if (event.key === "Enter" && this.meant) this.choose(this.meant.id);
      else return;
      event.preventDefault();
    });
    canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && this.middle());
    canvas.addEventListener("blur", () => {
      this.byKey = false;
      this.mean(null);
    });
  }

  /** The image in the middle is meant. */
  middle() {
    this.byKey = true;
    this.meant = null;
    this.mean(this.nearest(this.viewport.width / 2, this.viewport.height / 2, Infinity));
  }
}
