// The cluster that is looked at: what it is called, what is in it, what is like it.

import { ask, isFine } from "./api.js";
import { bdi, button, commonWords, compared, count, counted, find, make, share } from "./dom.js";
import { NOISE, group, store } from "./store.js";

const SHOWN = { open: "open", kept: "kept", dropped: "dropped", noise: "noise" };

export const view = { detail: null, marked: new Set(), query: "", found: null, peeked: null };
let act = {};
let asked = 0;

/** `actions` has what buttons do, by name. */
export function setUp(actions) {
  act = actions;
}

/** Shows a cluster: at once what is known, and the rest when it comes. */
export async function look(id) {
  if (view.detail?.id !== id) Object.assign(view, { detail: null, marked: new Set(), query: "", found: null, peeked: null });
  const later = setTimeout(draw, view.detail ? 0 : 150); // an answer mostly comes sooner: no flicker
  if (id === null) return;
  const number = (asked += 1);
  const answer = await ask("detail", { id });
  clearTimeout(later);
  if (number !== asked || store.current !== id) return; // another is looked at by now
  if (answer.status === 409) return; // gone: the list hears of it
  if (!isFine(answer)) return;
  view.detail = answer;
  draw();
  if (view.found) search(view.query);
}

export function draw() {
  const one = group(store.current), article = find("detail");
  article.classList.toggle("is-noise", store.current === NOISE);
  if (!one) {
    article.replaceChildren(make("p", { className: "empty" }, "Nothing to look at here."));
    return;
  }
  const typing = document.activeElement?.id === "within" ? document.activeElement.selectionStart : null;
  const scroll = article.dataset.id === String(one.id) ? article.scrollTop : 0;
  const isTyping = find("new-name") && article.dataset.id === String(one.id);
  article.dataset.id = one.id;
  const body = view.peeked === null ? [drawWords(), drawNeighbours(), drawTexts(one)] : [drawCompared(one)];
  const below = make("div", { className: "body" }, ...body);
  if (isTyping) article.querySelector(".body").replaceWith(below);
  else article.replaceChildren(drawHead(one), below);
  article.scrollTop = scroll;
  if (typing !== null && find("within")) {
    find("within").focus();
    find("within").setSelectionRange(typing, typing);
  }
}

function drawHead(one) {
  const isNoise = one.id === NOISE;
  const facts = [counted(one.size, "document"), counted(one.texts, "masked text")];
  if (!isNoise) facts.push(`cohesion ${share(one.cohesion)}`);
  return make("header", { className: `head ${one.status}` },
    make("div", { className: "title" },
      make("h1", { title: isNoise ? "" : "Rename (r)", on: { click: () => !isNoise && act.rename() } }, bdi(isNoise ? "Noise" : one.name)),
      isNoise ? null : make("span", { className: `status ${one.status}` }, SHOWN[one.status])),
    make("p", { className: "facts" }, facts.join(" · ")),
    view.peeked ? null : make("div", { className: "actions", role: "toolbar", "aria-label": "Decide" }, ...drawActions(one)));
}

function drawActions(one) {
  const split = button("Split", "s", act.split);
  if (one.id === NOISE) return [split];
  const first = one.status === "open" ? button("Keep", "⏎", act.keep, { className: "main" }) : button("Reopen", "o", act.open, { className: "main" });
  return [first, button("Rename", "r", act.rename), button("Merge", "m", act.merge), split,
    button("Drop", "d", act.drop, { disabled: one.status === "dropped" }),
    button("Noise", "n", act.noise, { disabled: one.status === "noise" })];
}

function drawWords() {
  const words = view.detail?.words ?? [];
  if (!words.length) return null;
  return make("section", { className: "words" }, make("h2", {}, "Words that set it apart"),
    make("ul", {}, ...words.map(([word, part]) => {
      const item = make("li", { title: `in ${Math.round(100 * part)} % of its texts` }, bdi(word), make("span", {}, `${Math.round(100 * part)} %`));
      item.style.setProperty("--share", part);
      return item;
    })));
}

function drawNeighbours() {
  const neighbours = (view.detail?.neighbours ?? []).filter(([id]) => group(id)).slice(0, 6);
  if (!neighbours.length) return null;
  return make("section", { className: "neighbours" }, make("h2", {}, "Nearest clusters", make("small", {}, "a number compares")),
    make("ol", {}, ...neighbours.map(([id, cosine], i) => {
      const other = group(id);
      return make("li", {}, make("button", { type: "button", className: `neighbour ${other.status}`, on: { click: () => act.peek(i) } },
        make("kbd", {}, String(i + 1)),
        make("span", { className: "name" }, bdi(other.name)),
        make("span", { className: "size" }, `${count(other.size)} · ${share(cosine)}${other.status === "open" ? "" : ` · ${other.status}`}`),
        make("span", { className: "line" }, bdi(other.typical))));
    })));
}

/** The neighbour of a place in the list of neighbours. */
export function neighbour(place) {
  return (view.detail?.neighbours ?? []).filter(([id]) => group(id))[place]?.[0] ?? null;
}

function drawTexts(one) {
  const listed = view.found ? view.found.documents : view.detail?.examples ?? [];
  const known = view.detail ? commonWords(view.detail.examples.map((document) => document.text)) : null;
  const all = listed.length >= one.texts;
  return make("section", { className: "texts" },
    make("h2", {}, view.found ? `${counted(view.found.num, "text")}, ${counted(view.found.size, "document")}` : all ? "All texts" : "From the most to the least typical",
      make("small", {}, "what most of them lack is set off")),
    make("div", { className: "within" },
      make("input", { id: "within", type: "search", placeholder: "Find in this cluster", "aria-label": "Find in this cluster", value: view.query, autocomplete: "off", spellcheck: false, on: { input: onType, compositionend: onType } }),
      make("kbd", {}, "f"),
      view.query.trim() && view.found?.num ? button("Split these off", "", () => act.split("holding"), { className: "main" }) : null,
      view.marked.size ? button(`Split ${view.marked.size} marked off`, "", () => act.split("points"), { className: "main" }) : null,
      !view.found && !all ? button("Show all", "e", act.all, { className: "quiet" }) : null),
    view.found?.num === 0 ? make("p", { className: "empty" }, "None of its texts holds these letters.") : make("ol", {}, ...listed.map((document) => drawText(document, known))),
    view.found && listed.length < view.found.num ? button(`Show more of ${count(view.found.num)}`, "", showMore, { className: "quiet" }) : null);
}

function drawText(document, known) {
  const label = make("label", {},
    make("input", { type: "checkbox", checked: view.marked.has(document.point), "aria-label": "Mark", on: { change: (event) => mark(document.point, event.target.checked) } }),
    make("span", { className: "text" }, compared(document.text, known, view.query)),
    document.size > 1 ? make("span", { className: "size", title: `${count(document.size)} documents are like this` }, `×${count(document.size)}`) : null);
  return make("li", {}, label);
}

function mark(point, isMarked) {
  if (isMarked) view.marked.add(point);
  else view.marked.delete(point);
  draw();
}

let timer = 0;
function onType(event) {
  if (event.isComposing) return;
  view.query = event.target.value;
  clearTimeout(timer);
  timer = setTimeout(() => search(view.query), 120);
}

/** Shows the texts of the cluster that hold `query`; all of them where it is empty. */
export async function search(query, offset = 0) {
  const id = store.current;
  if (!query.trim() && view.found && query !== view.query) view.found = null;
  const answer = await ask("documents", { id, holding: query, offset });
  if (store.current !== id || view.query !== query || !isFine(answer)) return;
  const before = offset ? view.found.documents : [];
  view.found = { ...answer, documents: [...before, ...answer.documents] };
  draw();
}

const showMore = () => search(view.query, view.found.documents.length);

/** Back from what was found to the examples; false where nothing was sought. */
export function clearSearch() {
  if (!view.found && !view.query) return false;
  Object.assign(view, { query: "", found: null });
  draw();
  return true;
}

/** Puts a neighbour beside the cluster. */
export async function peek(id) {
  view.peeked = { id, detail: null };
  draw();
  find("detail").scrollTop = 0;
  const answer = await ask("detail", { id });
  if (view.peeked?.id !== id || answer.status !== 200) return;
  view.peeked.detail = answer;
  draw();
}

export function closePeek() {
  if (view.peeked === null) return false;
  view.peeked = null;
  draw();
  return true;
}

function drawCompared(one) {
  const other = group(view.peeked.id);
  if (!other) return make("p", { className: "empty" }, "That cluster is not there any more.");
  const side = (it, detail, others) => make("div", { className: "side" },
    make("h3", {}, bdi(it.name)),
    make("p", { className: "facts" }, `${counted(it.size, "document")} · cohesion ${share(it.cohesion)}${it.status === "open" ? "" : ` · ${it.status}`}`),
    make("ul", { className: "plain-words" }, ...(detail?.words ?? []).map(([word]) => make("li", { className: others.has(word) ? "shared" : "" }, bdi(word)))),
    make("ol", {}, ...(detail?.examples ?? []).map((document) => make("li", {}, compared(document.text, view.texts)))));
  const own = new Set((view.detail?.words ?? []).map(([word]) => word));
  const its = new Set((view.peeked.detail?.words ?? []).map(([word]) => word));
  view.texts = commonWords((view.detail?.examples ?? []).map((document) => document.text));
  return make("section", { className: "compared" },
    make("div", { className: "actions" },
      button("Merge the other in", "m", act.mergePeeked, { className: "main" }),
      button("Merge into the other", "M", act.mergeIntoPeeked),
      button("Look at the other", "g", act.goPeeked), button("Back", "Esc", closePeek, { className: "quiet" })),
    make("div", { className: "pair" }, side(one, view.detail, its), side(other, view.peeked.detail, own)));
}
