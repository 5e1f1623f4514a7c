// Small helpers over the document.

const SVG = "http://www.w3.org/2000/svg";

/** The element of an id. */
export const byId = (id) => document.getElementById(id);

/**
 * A new element.
 *
 * @param {string} tag
 * @param {object} properties attributes; `on` has listeners by event, false and null are left out
 * @param {...(Node|string|null)} children
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) {
        element.addEventListener(event, listener);
      }
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A drawing of one path in a square from -1 to 1; for the eye only. */
export function drawing(path, colour, name = "marker") {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of [
    ["viewBox", "-1.2 -1.2 2.4 2.4"],
    ["class", name],
    ["aria-hidden", "true"],
  ]) {
    svg.setAttribute(key, value);
  }
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  shape.setAttribute("fill", colour);
  svg.append(shape);
  return svg;
}

/** Show an element or not. */
export function shown(element, yes) {
  element.hidden = !yes;
}

/** Call a function only once calls have stopped coming for some milliseconds. */
export function settled(call, milliseconds) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), milliseconds);
  };
}

/** Put an element's keyboard focus, even if it is no control. */
export function focus(element) {
  element.tabIndex = -1;
  element.focus({ preventScroll: true });
}
