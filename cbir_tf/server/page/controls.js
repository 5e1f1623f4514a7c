// Filters and ranking: what changes the results of a query.

import { conditionsOf } from "./address.js";
import { byId, drawing, make, settled, shown } from "./dom.js";
import { count } from "./wording.js";

const MANY = 12; // labels from which on they can be looked up
const SLIDER = 100; // neighbours that the slider reaches; the field beside it goes on
const RE_RANKING = {
  none: "None",
  query_expansion: "Query expansion",
  k_reciprocal: "k-reciprocal",
};
const TWO_STEP = { none: "None", knn: "Nearest neighbours", svm: "Support vector machine" };
const OPERATORS = ["=", "!=", ">=", "<=", ">", "<", "~"];

/**
 * Builds the controls for what the service has.
 *
 * @param {object} info of the service
 * @param {(label: string|null) => {colour: string, path: string}} look of a label
 * @param {(changes: object) => void} change the view
 * @returns {(view: import("./address.js").View) => void} shows a view's settings
 */
export function makeControls(info, look, change) {
  const form = byId("controls");
  const parts = [
    neighbours(info, change),
    labels(info, look, change),
    chosen("Split", "split", info.splits, change),
    conditions(info, change),
    steps("Re-ranking", "reRanking", RE_RANKING, info.re_ranking, change),
    steps("Class first, then search in it", "twoStep", TWO_STEP, info.two_step, change),
  ].filter(Boolean);
  const clear = make(
    "button",
    { type: "button", on: { click: () => change(noFilters()) } },
    "Clear filters",
  );
  form.replaceChildren(...parts.map((part) => part.element), clear);
  form.addEventListener("submit", (event) => event.preventDefault());
  return (view) => {
    for (const part of parts) part.show(view);
    const filters = conditionsOf({ ...view, crop: null }).length;
    shown(clear, filters > 0);
    byId("options-count").textContent = filters ? ` (${filters} on)` : "";
  };
}

/** Changes to a view after which nothing is filtered. */
export const noFilters = () => ({ labels: [], split: null, conditions: [] });

function field(title, id, ...controls) {
  const label = make("label", { for: id, class: "title" }, title);
  return make("div", { class: "field" }, label, ...controls);
}

function neighbours(info, change) {
  const most = Math.max(1, Math.min(info.max_neighbours, info.images));
  const slider = make("input", {
    type: "range",
    min: 1,
    max: Math.min(SLIDER, most),
    "aria-label": "Number of results, slider",
  });
  const number = make("input", {
    type: "number",
    id: "k",
    min: 1,
    max: most,
    inputmode: "numeric",
  });
  const send = settled(() => change({ k: Number(number.value) }), 150);
  slider.addEventListener("input", () => {
    number.value = slider.value;
    send();
  });
  number.addEventListener("input", () => {
    const value = Number(number.value);
    if (!Number.isInteger(value) || value < 1 || value > most) return;
    slider.value = value;
    send();
  });
  number.addEventListener("change", () => {
    number.value = Math.min(most, Math.max(1, Math.round(Number(number.value)) || 1));
    send();
  });
  const row = make("div", { class: "row" }, slider, number);
  return {
    element: field("Results", "k", row),
    show: (view) => {
      const k = view.k ?? info.k;
      if (document.activeElement !== number) number.value = k;
      slider.value = k;
    },
  };
}

function labels(info, look, change) {
  const named = info.labels.filter(({ name }) => name !== null);
  if (!named.length) return null;
  const boxes = new Map();
  const rows = named.map(({ name, images }) => {
    const box = make("input", { type: "checkbox", name: "label" });
    box.addEventListener("change", () => {
      change({ labels: named.map((each) => each.name).filter((each) => boxes.get(each).checked) });
    });
    boxes.set(name, box);
    const { colour, path } = look(name);
    const many = make("span", { class: "muted small" }, count(images));
    return make(
      "li",
      {},
      make("label", {}, box, drawing(path, colour), make("span", { class: "name" }, name), many),
    );
  });
  const list = make("ul", { class: "labels" }, ...rows);
  const legend = make("legend", { class: "title" }, "Labels");
  const set = make("fieldset", { class: "field" }, legend);
  if (named.length > MANY) {
    const finder = make("input", {
      type: "search",
      placeholder: "Find a label",
      "aria-label": "Find a label",
    });
    finder.addEventListener("input", () => {
      const wanted = finder.value.trim().toLowerCase();
      named.forEach(({ name }, row) => shown(rows[row], name.toLowerCase().includes(wanted)));
    });
    set.append(finder);
  }
  set.append(list);
  return {
    element: set,
    show: (view) => boxes.forEach((box, name) => (box.checked = view.labels.includes(name))),
  };
}

function choice(id, options, send) {
  const select = make("select", { id });
  for (const [value, text] of options) select.append(make("option", { value }, text));
  select.addEventListener("change", () => send(select.value));
  return select;
}

function chosen(title, name, values, change) {
  if (!values.length) return null;
  const options = [["", "All"], ...values.map((value) => [value, value])];
  const select = choice(name, options, (value) => change({ [name]: value || null }));
  return {
    element: field(title, name, select),
    show: (view) => (select.value = view[name] ?? ""),
  };
}

function steps(title, name, texts, own, change) {
  const options = Object.entries(texts);
  const select = choice(name, options, (value) => change({ [name]: value === own ? null : value }));
  return {
    element: field(title, name, select),
    show: (view) => (select.value = view[name] ?? own),
  };
}

function conditions(info, change) {
  if (!info.columns.length) return null;
  let now = [];
  const column = make("select", { id: "column", "aria-label": "Column" });
  for (const name of info.columns) column.append(make("option", { value: name }, name));
  const operator = make("select", { "aria-label": "Comparison" });
  for (const sign of OPERATORS) {
    operator.append(make("option", { value: sign }, sign === "~" ? "has" : sign));
  }
  const value = make("input", { type: "text", "aria-label": "Value", placeholder: "Value" });
  const add = () => {
    if (!value.value.trim()) return value.focus();
    change({ conditions: [...now, `${column.value}${operator.value}${value.value.trim()}`] });
    value.value = "";
  };
  value.addEventListener("keydown", (event) => event.key === "Enter" && add());
  const button = make("button", { type: "button", on: { click: add } }, "Add");
  const list = make("ul", { class: "chips" });
  const row = make("div", { class: "row condition" }, column, operator, value, button);
  return {
    element: field("Metadata", "column", row, list),
    show: (view) => {
      now = view.conditions;
      const chips = now.map((condition, place) => {
        const remove = () => change({ conditions: now.filter((_, each) => each !== place) });
        const label = `Remove the filter ${condition}`;
        const cross = make(
          "button",
          { type: "button", "aria-label": label, on: { click: remove } },
          "×",
        );
        return make("li", {}, condition, cross);
      });
      list.replaceChildren(...chips);
    },
  };
}
