// The part of a plane that a canvas shows: zoomed and moved by pointer, wheel and keyboard.

const FURTHEST = 60; // times the whole

/** From points on a plane to pixels of an element, y upwards. */
export class Viewport {
  /**
   * @param {HTMLElement} element
   * @param {() => void} changed
   */
  constructor(element, changed) {
    this.element = element;
    this.changed = changed;
    this.width = this.height = 1;
    this.bounds = { x: 0, y: 0, width: 1, height: 1 };
    this.reset();
    this.listen();
  }

  /** Show everything. */
  reset() {
    const { x, y, width, height } = this.bounds;
    this.x = x + width / 2;
    this.y = y + height / 2;
    this.zoom = 1;
    this.changed();
  }

  /** Pixels of a unit of the plane when everything is shown. */
  get base() {
    const { width, height } = this.bounds;
    return Math.min((this.width - 48) / width, (this.height - 48) / height);
  }

  get scale() {
    return this.base * this.zoom;
  }

  /** Pixels of a point. */
  place(x, y) {
    return [
      (x - this.x) * this.scale + this.width / 2,
      (this.y - y) * this.scale + this.height / 2,
    ];
  }

  move(right, down) {
    this.centre(this.x - right / this.scale, this.y + down / this.scale);
  }

  /** What is in the middle is always a place among the points. */
  centre(x, y) {
    const { bounds } = this;
    this.x = Math.min(bounds.x + bounds.width, Math.max(bounds.x, x));
    this.y = Math.min(bounds.y + bounds.height, Math.max(bounds.y, y));
    this.changed();
  }

  /** Zoom so that what is under a pixel stays there. */
  zoomBy(factor, left = this.width / 2, top = this.height / 2) {
    const before = this.scale;
    this.zoom = Math.min(FURTHEST, Math.max(0.5, this.zoom * factor));
    const change = 1 / before - 1 / this.scale;
    this.centre(
      this.x + (left - this.width / 2) * change,
      this.y - (top - this.height / 2) * change,
    );
  }

  listen() {
    const pointers = new Map();
    const { element } = this;
    element.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.zoomBy(
          Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)),
          event.offsetX,
          event.offsetY,
        );
      },
      { passive: false },
    );
    element.addEventListener("pointerdown", (event) => {
      element.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    });
    element.addEventListener("pointermove", (event) => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const now = [event.offsetX, event.offsetY];
      const other = [...pointers.entries()].find(([id]) => id !== event.pointerId)?.[1];
      if (other) {
        const spread = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
        this.zoomBy(
          spread(now) / Math.max(1, spread(last)),
          (now[0] + other[0]) / 2,
          (now[1] + other[1]) / 2,
        );
      }
      const share = other ? 0.5 : 1;
      this.move(share * (now[0] - last[0]), share * (now[1] - last[1]));
      pointers.set(event.pointerId, now);
    });
    for (const ended of ["pointerup", "pointercancel"]) {
      element.addEventListener(ended, (event) => pointers.delete(event.pointerId));
    }
  }

  /** Move or zoom by a key; whether it was one that does. */
  key(name) {
    const step = 40;
    const keys = {
      ArrowLeft: () => this.move(step, 0),
      ArrowRight: () => this.move(-step, 0),
      ArrowUp: () => this.move(0, step),
      ArrowDown: () => this.move(0, -step),
      "+": () => this.zoomBy(1.4),
      "=": () => this.zoomBy(1.4),
      "-": () => this.zoomBy(1 / 1.4),
      0: () => this.reset(),
    };
    keys[name]?.();
    return name in keys;
  }
}
