// The list of clusters: filtered, sorted, and only as many rows in the page as can be seen.

import { bdi, count, counted, find, make, share, visible } from "./dom.js";
import { progress } from "./progress.js";
import { NOISE, group, store } from "./store.js";

const ROW = 62; // pixels, as in review.css
const MORE = 6; // rows beyond the edges
const STATUSES = [["open", "Open"], ["kept", "Kept"], ["dropped", "Dropped"], ["noise", "Noise"], ["all", "All"]];

let shown = []; // ids, in order
let status = "open";
let largest = 1;
let select = () => {};
let onChosen = () => {};

const near = (one) => (one.near ? one.near[1] : -2);
const ORDERS = {
  large: (a, b) => b.size - a.size,
  small: (a, b) => a.size - b.size,
  loose: (a, b) => a.cohesion - b.cohesion,
  alike: (a, b) => near(b) - near(a),
  name: (a, b) => a.name.localeCompare(b.name),
};

/** Sets the list up; `onSelect(id)` is told which cluster is looked at, `onChoose()` that others are chosen. */
export function setUp(onSelect, onChoose) {
  [select, onChosen] = [onSelect, onChoose];
  for (const [value, label] of STATUSES) {
    find("statuses").append(make("button", {
      type: "button", className: "chip", "data-status": value, on: { click: () => show(value) },
    }, label, make("span", { className: "number" })));
  }
  find("filter").addEventListener("input", () => { fill(); keepCurrent(0); });
  find("sort").addEventListener("change", () => { fill(); find("list").scrollTop = 0; keepCurrent(0); find("sort").blur(); });
  find("list").addEventListener("scroll", draw, { passive: true });
  find("list").addEventListener("mousedown", (event) => {
    const row = event.target.closest("[data-id]");
    if (!row) return;
    const id = Number(row.dataset.id);
    if (event.target.closest(".pick") || event.ctrlKey || event.metaKey) toggle(id);
    else if (event.shiftKey) pickTo(id);
    else select(id, true);
  });
  new ResizeObserver(draw).observe(find("list"));
}

/** Shows the clusters of one status. */
export function show(value) {
  status = value;
  fill();
  find("list").scrollTop = 0;
  keepCurrent(0);
}

/** Empties the search; false where nothing was sought. */
export function clearFilter() {
  if (!find("filter").value) return false;
  find("filter").value = "";
  fill();
  keepCurrent(0);
  reveal();
  return true;
}

/** Which clusters there are now; called whenever any has changed. */
export function update() {
  const place = shown.indexOf(store.current);
  fill();
  return place;
}

/** Sees to it that a cluster of the list is looked at: the one that was, else that at `place`. */
export function keepCurrent(place) {
  if (shown.includes(store.current)) draw();
  else select(shown[Math.max(0, Math.min(place, shown.length - 1))] ?? null);
}

/** The place of a cluster in the list; -1 where it is not shown. */
export const placeOf = (id) => shown.indexOf(id);

/** Looks at another cluster, `step` rows on. */
export function move(step) {
  if (!shown.length) return;
  const place = shown.indexOf(store.current);
  select(shown[Math.max(0, Math.min(shown.length - 1, place < 0 ? 0 : place + step))]);
}

export function toggle(id) {
  if (id === NOISE || id === null) return;
  if (!store.chosen.delete(id)) store.chosen.add(id);
  onChosen();
  draw();
}

function pickTo(id) {
  const [from, to] = [shown.indexOf(store.current), shown.indexOf(id)].sort((a, b) => a - b);
  for (const one of shown.slice(Math.max(from, 0), to + 1)) if (one !== NOISE) store.chosen.add(one);
  onChosen();
  draw();
}

function fill() {
  const words = find("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (one) => (status === "all" || one.status === status) && words.every((word) => one.search.includes(word));
  const groups = [...store.groups.values()];
  largest = Math.max(1, ...groups.filter((one) => one.id !== NOISE).map((one) => one.size));
  const order = ORDERS[find("sort").value];
  shown = groups.filter(fits).sort((a, b) => order(a, b) || a.id - b.id).map((one) => one.id);
  const { number } = progress();
  number.all = groups.length;
  number.noise += 1;
  for (const chip of find("statuses").children) {
    chip.setAttribute("aria-pressed", String(chip.dataset.status === status));
    chip.querySelector(".number").textContent = count(number[chip.dataset.status]);
  }
  const documents = shown.reduce((sum, id) => sum + group(id).size, 0);
  find("count").textContent = counted(documents, "document");
  draw();
}

/** Scrolls so that the cluster that is looked at can be seen. */
export function reveal() {
  const list = find("list"), place = shown.indexOf(store.current);
  if (place < 0) return;
  const margin = Math.min(2 * ROW, list.clientHeight / 3);
  if (place * ROW < list.scrollTop + margin) list.scrollTop = place * ROW - margin;
  else if ((place + 1) * ROW > list.scrollTop + list.clientHeight - margin) list.scrollTop = (place + 1) * ROW - list.clientHeight + margin;
}

export function draw() {
  const list = find("list"), rows = find("rows");
  rows.style.setProperty("--rows", shown.length); // through the object model, which the policy allows
  rows.style.height = `${shown.length * ROW}px`;
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - MORE);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + MORE);
  rows.replaceChildren(...shown.slice(first, last).map((id, i) => drawRow(group(id), first + i)));
  if (!shown.length) rows.append(drawNothing());
  list.setAttribute("aria-activedescendant", store.current === null ? "" : `row-${store.current}`);
  find("chosen").hidden = store.chosen.size === 0;
}

function drawNothing() {
  if (find("filter").value) return make("p", { className: "empty" }, "No cluster here has these words.");
  if (status !== "open") return make("p", { className: "empty" }, "None.");
  return make("p", { className: "empty" }, "Every cluster has been looked at. “Finish” tells so to ",
    make("code", {}, "labels run"), ", which then goes on.");
}

function drawRow(one, place) {
  const row = make("div", {
    id: `row-${one.id}`, className: `row ${one.status}`, role: "option", "data-id": one.id,
    "aria-selected": String(one.id === store.current || store.chosen.has(one.id)),
    "aria-setsize": shown.length, "aria-posinset": place + 1,
  },
    one.id === NOISE ? make("span", { className: "pick" }) : make("span", { className: "pick", title: "Choose (x)" }, store.chosen.has(one.id) ? "✓" : ""),
    make("span", { className: "name" }, bdi(one.name)),
    make("span", { className: "size" }, count(one.size)),
    make("span", { className: "line" }, ...visible(one.typical)),
    make("span", { className: "figure" }, drawFigure(one)),
    drawBar(one),
  );
  row.style.top = `${place * ROW}px`;
  row.classList.toggle("current", one.id === store.current);
  row.classList.toggle("chosen", store.chosen.has(one.id));
  return row;
}

function drawFigure(one) {
  if (find("sort").value === "alike") return one.near ? `≈ ${share(one.near[1])}` : "";
  return one.id === NOISE ? "" : share(one.cohesion);
}

function drawBar(one) {
  const bar = make("span", { className: "bar" });
  bar.style.width = `${one.id === NOISE ? 0 : (100 * one.size) / largest}%`;
  return bar;
}
