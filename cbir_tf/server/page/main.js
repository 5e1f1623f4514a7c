// The page of the service: what is asked and what is shown.

import { conditionsOf, hasQuery, readAddress, writeAddress } from "./address.js";
import { get, key, post, Problem } from "./api.js";
import { appearances } from "./colours.js";
import { makeControls, noFilters } from "./controls.js";
import { byId, focus, make, shown } from "./dom.js";
import { makeMap } from "./map.js";
import { keptPicture, queryFields } from "./pictures.js";
import { makeIntake, makeQueryPanel } from "./query.js";
import { showResults, skeletons, spoken, tile } from "./results.js";
import { explain } from "./why.js";
import { counted, labelName, sentence } from "./wording.js";

const RANDOM = 12;
const FILLED = 24; // results, unless the run asks for more: a page of them

let info; // of the service
let look; // of labels
let view = readAddress(location.search);
let shownAnswer = null; // with the view it is of
let running = new AbortController();
let led = false; // by someone to the query that is searched for
let parts; // of the page that are made once it is known what the service has

/** What the page is in: exactly one of these sections beside the map. */
function state(name) {
  document.body.dataset.state = name;
  for (const id of ["key", "empty", "start", "results"]) shown(byId(id), id === name);
  shown(byId("query"), name === "results");
}

function refuse(text, how, ...actions) {
  const problem = byId("problem");
  problem.replaceChildren(
    make("h2", {}, text),
    ...(how ? [make("p", {}, how)] : []),
    make("div", { class: "row" }, ...actions),
  );
  shown(problem, true);
  problem.scrollIntoView({ block: "nearest" }); // it may be below open filters
}

const button = (text, action) => make("button", { type: "button", on: { click: action } }, text);

/** Say what went wrong and where to mend it. */
function fail(problem, again) {
  if (problem.name === "AbortError") return;
  if (!(problem instanceof Problem)) {
    console.error(problem);
    return refuse(
      "The page failed.",
      String(problem.message),
      button("Load it again", () => location.reload()),
    );
  }
  if (problem.status === 401) return askForKey();
  const retry = button("Try again", again);
  if (problem.status === 0) {
    return refuse(
      problem.message,
      "See whether cbir serve is still running, and that this machine reaches it.",
      retry,
    );
  }
  if (problem.message.startsWith("where ")) {
    const none = problem.message.includes("no image meets the conditions");
    const text = none ? "No image meets these filters." : sentence(problem.message);
    return refuse(
      text,
      null,
      button("Clear filters", () => change(noFilters())),
    );
  }
  if (problem.status === 404 && view.id !== null) {
    return refuse(
      "This image is not in the gallery.",
      "It may have been taken out since.",
      button("Start again", () => go(start())),
    );
  }
  if (problem.status === 429 || problem.status === 503) {
    return refuse("The service is busy.", sentence(problem.message), retry);
  }
  const [, reason] = /^(?:the picture: )?(.*(?:picture|pixels).*)$/i.exec(problem.message) ?? [];
  if (reason && view.picture !== null) {
    const choose = button("Choose another picture", () => byId("choose").click());
    return refuse("This picture cannot be searched for.", sentence(reason), choose);
  }
  return refuse(sentence(problem.message), null, retry);
}

function askForKey() {
  state("key");
  shown(byId("problem"), false);
  if (key.get())
    byId("key-said").textContent =
      "That key is not the service's. Whoever started it knows the key.";
  byId("key-field").focus();
}

// --- going from one view to another -------------------------------------------------------------

const start = () => ({ id: null, picture: null, crop: null });

/** Show another view; it can be gone back from. */
function go(changes) {
  view = { ...view, ...changes };
  history.pushState(null, "", writeAddress(view));
  return show();
}

/** Show the view otherwise: without a step in the history. */
function change(changes) {
  view = { ...view, ...changes };
  history.replaceState(null, "", writeAddress(view));
  return show();
}

const searchFor = (query) => {
  led = true;
  scrollTo(0, 0);
  return go({ ...start(), ...query });
};

async function show() {
  running.abort();
  running = new AbortController();
  shown(byId("problem"), false);
  byId("map-toggle").setAttribute("aria-pressed", String(view.map));
  if (!info.images) return showEmpty();
  if (view.picture !== null && !keptPicture(view.picture)) {
    view = { ...view, ...start() };
    history.replaceState(null, "", writeAddress(view));
    refuse("The picture is not kept when the page is loaded anew.", "Choose it again.");
  }
  parts.controls(view);
  parts.map.show(view.map);
  if (hasQuery(view)) return search(running.signal);
  shownAnswer = null;
  parts.map.mark(null, []);
  document.title = `Search by picture: ${info.run}`;
  state("start");
  if (!byId("random").childElementCount) return drawSome();
}

async function search(signal) {
  const asked = view;
  const grid = byId("grid");
  const results = byId("results");
  state("results");
  parts.query(asked).catch((problem) => fail(problem, show));
  results.setAttribute("aria-busy", "true");
  if (shownAnswer === null) {
    byId("results-title").textContent = "Searching";
    byId("timings").textContent = "";
    byId("verdict").replaceChildren();
    grid.replaceChildren(...skeletons(Math.min(asked.k ?? info.k, FILLED)));
  }
  const of = writeAddress({ ...asked, map: false });
  if (shownAnswer?.of === of && (!asked.map || shownAnswer.position || !parts.map.isThere())) {
    results.removeAttribute("aria-busy");
    return markMap();
  }
  try {
    const fields = await queryFields(asked, info, signal);
    const others = info.images - ("id" in fields); // a stored image is no neighbour of its own
    const k = Math.max(1, Math.min(asked.k ?? info.k, others, info.max_neighbours));
    const steps = { re_ranking: asked.reRanking, two_step: asked.twoStep };
    const where = conditionsOf(asked);
    const all = { ...fields, k, where, ...steps, position: asked.map };
    const answer = await post("search", all, signal);
    shownAnswer = { ...answer, of };
    display(answer, asked);
  } catch (problem) {
    if (problem.name === "AbortError") return;
    shownAnswer = null;
    byId("results-title").textContent = "No results";
    for (const id of ["grid", "verdict", "timings"]) byId(id).replaceChildren();
    parts.map.mark(null, []);
    fail(problem, show);
  }
  results.removeAttribute("aria-busy");
}

function display(answer, asked) {
  document.title = `${asked.id ?? "Picture"}: ${info.run}`;
  const now = document.activeElement;
  const left = !now || now === document.body || now.closest("#grid");
  showResults(answer, info, look, {
    address: (id) => writeAddress({ ...asked, ...start(), id }),
    choose: (id) => searchFor({ id }),
    explain: (match) => explain(asked, match, info),
    point: (id) => parts.map.point(id),
  });
  byId("live").textContent = spoken(answer);
  markMap();
  // What had the focus is gone: it goes on with what was asked for.
  if (led && left) focus(byId("results-title"));
  led = false;
}

function markMap() {
  const found = shownAnswer.neighbours.map(({ id }) => id);
  const whole = view.crop ? null : view.id;
  parts.map.mark({ id: whole, position: shownAnswer.position ?? null }, found);
}

// --- without a query ----------------------------------------------------------------------------

async function drawSome() {
  const list = byId("random");
  list.replaceChildren(...skeletons(Math.min(RANDOM, info.images)));
  try {
    const { images } = await get(`gallery/random?count=${RANDOM}`);
    const tiles = images.map((image) => {
      const name = `Search from ${labelName(image.label)}, ${image.id}`;
      const address = writeAddress({ ...view, ...start(), id: image.id });
      return tile(image, address, name, look(image.label), () => searchFor({ id: image.id }));
    });
    list.replaceChildren(...tiles);
  } catch (problem) {
    list.replaceChildren();
    fail(problem, show);
  }
}

function showEmpty() {
  state("empty");
  const code = (text) => make("code", {}, text);
  const how = [make("p", {}, "Extract a folder of pictures, then start the service again:")];
  how.push(make("pre", { tabindex: "0" }, code("cbir extract --run RUN --images FOLDER")));
  if (!info.read_only) {
    const more = make("p", {}, "Or add them while it runs, by ", code("POST /images"), ": see ");
    more.append(make("a", { href: "docs" }, "the API"), ".");
    how.push(more);
  }
  byId("empty-how").replaceChildren(
    ...how,
    button("Look again", () => location.reload()),
  );
}

// --- the beginning ------------------------------------------------------------------------------

function makeParts() {
  makeIntake(searchFor, (text) => refuse(text));
  return {
    controls: makeControls(info, look, change),
    map: makeMap(
      info,
      look,
      (id) => searchFor({ id }),
      () => shownAnswer && show(),
    ),
    query: makeQueryPanel((crop) => go({ crop })),
  };
}

async function begin() {
  shown(byId("problem"), false);
  try {
    info = await get("info");
  } catch (problem) {
    state("failed");
    return fail(problem, begin);
  }
  info.k = Math.min(Math.max(info.k, FILLED), info.images, info.max_neighbours);
  look = appearances(info.labels);
  byId("run").textContent = info.run;
  byId("about").textContent = counted(info.images, "image");
  parts ??= makeParts();
  return show();
}

byId("others").addEventListener("click", drawSome);
byId("map-toggle").addEventListener("click", () => {
  const wanted = !view.map;
  go({ map: wanted });
  if (wanted) byId("map").scrollIntoView({ block: "nearest" });
});
byId("home").addEventListener("click", (event) => {
  event.preventDefault();
  byId("random").replaceChildren();
  go({ ...start(), ...noFilters(), map: false });
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(byId("key-field").value);
  begin();
});
addEventListener("popstate", () => {
  view = readAddress(location.search);
  if (parts) show();
});
byId("options").open = matchMedia("(min-width: 800px)").matches;
begin();
