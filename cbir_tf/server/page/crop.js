// The frame over the query that says which part of it to search for.

import { byId, make, shown } from "./dom.js";

const LEAST = 0.05; // of a side
const CORNERS = [
  ["top left", 0, 0],
  ["top right", 1, 0],
  ["bottom left", 0, 1],
  ["bottom right", 1, 1],
];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/**
 * Makes the frame work.
 *
 * @param {(crop: number[]|null) => void} search for a part; null: for all of it
 * @returns {{show: (crop: number[]|null, possible: boolean) => void}}
 */
export function makeCrop(search) {
  const frame = byId("frame");
  const stage = byId("stage");
  let applied = null; // what the results are of
  let edges = [0, 0, 1, 1]; // left, top, right, bottom
  let open = false;

  const whole = () => edges[0] <= 0 && edges[1] <= 0 && edges[2] >= 1 && edges[3] >= 1;

  function draw() {
    const [left, top, right, bottom] = edges;
    frame.style.left = `${100 * left}%`;
    frame.style.top = `${100 * top}%`;
    frame.style.width = `${100 * (right - left)}%`;
    frame.style.height = `${100 * (bottom - top)}%`;
    shown(frame, open || applied !== null);
    shown(byId("crop-begin"), !open);
    shown(byId("crop-whole"), !open && applied !== null);
    for (const id of ["crop-search", "crop-cancel", "crop-help"]) shown(byId(id), open);
    document.body.classList.toggle("cropping", open);
    for (const handle of frame.children) handle.tabIndex = open ? 0 : -1;
    const parts = ["left", "top", "right", "bottom"];
    const said = parts.map((part, place) => `${part} ${Math.round(100 * edges[place])} %`);
    mover.setAttribute("aria-label", `Frame: ${said.join(", ")}`);
  }

  function move(dx, dy) {
    const [left, top, right, bottom] = edges;
    const x = clamp(dx, -left, 1 - right);
    const y = clamp(dy, -top, 1 - bottom);
    edges = [left + x, top + y, right + x, bottom + y];
    draw();
  }

  /** Move the corner that is at (0 or 1, 0 or 1). */
  function pull(atX, atY, dx, dy) {
    const [left, top, right, bottom] = edges;
    if (atX) edges[2] = clamp(right + dx, left + LEAST, 1);
    else edges[0] = clamp(left + dx, 0, right - LEAST);
    if (atY) edges[3] = clamp(bottom + dy, top + LEAST, 1);
    else edges[1] = clamp(top + dy, 0, bottom - LEAST);
    draw();
  }

  function begin() {
    open = true;
    // A frame around everything has nothing to take hold of.
    edges = applied ? fromCrop(applied) : [0.15, 0.15, 0.85, 0.85];
    draw();
    mover.focus({ preventScroll: true });
  }

  function end() {
    open = false;
    edges = applied ? fromCrop(applied) : [0, 0, 1, 1];
    draw();
    byId("crop-begin").focus({ preventScroll: true });
  }

  function apply() {
    const [left, top, right, bottom] = edges;
    const crop = whole() ? null : [left, top, right - left, bottom - top];
    end();
    search(crop);
  }

  /** A part of the frame that follows the pointer and the arrow keys. */
  function handle(name, className, change) {
    const button = make("button", { type: "button", class: className, "aria-label": name });
    button.setAttribute("aria-describedby", "crop-help");
    let last = null;
    button.addEventListener("pointerdown", (event) => {
      if (!open || event.button) return;
      button.setPointerCapture(event.pointerId);
      last = [event.clientX, event.clientY];
    });
    button.addEventListener("pointermove", (event) => {
      if (last === null) return;
      const { width, height } = stage.getBoundingClientRect();
      change((event.clientX - last[0]) / width, (event.clientY - last[1]) / height);
      last = [event.clientX, event.clientY];
    });
    for (const event of ["pointerup", "pointercancel"]) {
      button.addEventListener(event, () => (last = null));
    }
    button.addEventListener("keydown", (event) => {
      const arrow = ARROWS[event.key];
      if (!open || !arrow) return;
      event.preventDefault();
      const step = event.shiftKey ? 0.1 : 0.02;
      change(step * arrow[0], step * arrow[1]);
    });
    return button;
  }

  const mover = handle("Frame", "mover", move);
  frame.append(mover);
  for (const [name, atX, atY] of CORNERS) {
    const className = `corner ${name.replace(" ", "-")}`;
    frame.append(handle(`Corner, ${name}`, className, (dx, dy) => pull(atX, atY, dx, dy)));
  }
  frame.addEventListener("keydown", (event) => {
    if (event.key === "Enter") apply();
    if (event.key === "Escape") end();
    if (event.key === "Enter" || event.key === "Escape") event.preventDefault();
  });
  byId("crop-begin").addEventListener("click", begin);
  byId("crop-cancel").addEventListener("click", end);
  byId("crop-search").addEventListener("click", apply);
  byId("crop-whole").addEventListener("click", () => search(null));

  return {
    show(crop, possible) {
      const now = document.activeElement;
      const held = frame.contains(now) || byId("crop-row").contains(now);
      applied = crop;
      open = false;
      edges = crop ? fromCrop(crop) : [0, 0, 1, 1];
      draw();
      shown(byId("crop-row"), possible);
      if (held) byId("crop-begin").focus({ preventScroll: true });
    },
  };
}

const fromCrop = ([left, top, width, height]) => [left, top, left + width, top + height];
