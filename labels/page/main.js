// Puts the page together: keys and buttons to acts, news to what is shown.

import { ask, decide, enter, follow, isFine, showBanner } from "./api.js";
import * as detail from "./detail.js";
import { chooseMerge, confirmFinish, mergeChosen, openAnother, showHistory, showKeys } from "./dialogs.js";
import { bdi, button, count, counted, find, isDialogOpen, make, toast } from "./dom.js";
import * as list from "./list.js";
import { drawProgress } from "./progress.js";
import { openSplit } from "./split.js";
import { NOISE, group, onChange, store, take } from "./store.js";

const { view } = detail;
let queue = Promise.resolve();

/** Runs an act after those before it have been answered: it sees what they have made. */
function inTurn(run) {
  queue = queue.then(run).catch((error) => toast(String(error), { kind: "warn" }));
  return queue;
}

function select(id, isByHand = false) {
  store.current = id;
  list.draw();
  list.reveal();
  document.body.classList.toggle("looking", isByHand);
  detail.look(id);
}

/** Where there is room for the list or the cluster alone: the cluster. */
const enterDetail = () => document.body.classList.add("looking");

const undoing = { label: "Undo", key: "u", run: () => act.undo() };

/** Opens what takes keys of its own, in its turn; keys pressed before it stands are no one's. */
function openInTurn(open) {
  isOpening = true;
  return inTurn(open).finally(() => { isOpening = false; });
}
let isOpening = false;

/** Makes a decision about groups, and afterwards looks at what stands in the place of them. */
async function settle(action, groups, done, more = {}) {
  if (!groups.length) return null;
  const before = store.current;
  const answer = await decide(action, groups, more);
  if (!answer) return null;
  toast(done, { act: undoing });
  if (action === "rename" || action === "merge") return answer;
  store.chosen.clear();
  if (store.current === before && list.placeOf(before) >= 0) list.move(1); // it is shown still
  else list.draw();
  return answer;
}

const named = (groups) => (groups.length === 1 ? `“${groups[0].name}”` : `${count(groups.length)} clusters`);

/** The chosen clusters, or the one that is looked at. */
function targets() {
  const ids = store.chosen.size ? [...store.chosen] : store.current === NOISE ? [] : [store.current];
  return ids.map(group).filter(Boolean);
}

function mark(action, status, done) {
  const groups = targets().filter((one) => one.status !== status);
  return settle(action, groups, `${done} ${named(groups)}`);
}

/** Merges groups as they were seen; whether it was done. */
async function merge(into, others) {
  const answer = await settle("merge", [into, ...others], `Merged ${named(others)} into “${into.name}”`);
  if (!answer) return false;
  store.chosen.clear();
  view.peeked = null;
  if (list.placeOf(into.id) >= 0) select(into.id);
  return true;
}

function mergePeeked(isIntoPeeked) {
  const pair = [group(store.current), group(view.peeked?.id)];
  if (isIntoPeeked) pair.reverse();
  return pair.every(Boolean) && merge(pair[0], [pair[1]]);
}

const act = {
  keep: () => inTurn(() => mark("keep", "kept", "Kept")),
  drop: () => inTurn(() => mark("drop", "dropped", "Dropped")),
  noise: () => inTurn(() => mark("noise", "noise", "Noise:")),
  open: () => inTurn(() => mark("open", "open", "Opened again:")),
  undo: () => inTurn(() => turnBack("undo")),
  redo: () => inTurn(() => turnBack("redo")),
  rename: () => openInTurn(() => startRename()),
  merge: () => openInTurn(() => {
    if (store.chosen.size > 1) mergeChosen([...store.chosen], merge);
    else if (targets().length) chooseMerge(view.detail?.neighbours ?? [], merge);
  }),
  split: (way) => openInTurn(() => group(store.current) && openSplit(view, typeof way === "string" ? way : null, () => detail.clearSearch())),
  peek: (place) => {
    const id = detail.neighbour(place);
    if (id === null) return;
    enterDetail();
    detail.peek(id);
  },
  mergePeeked: () => inTurn(() => mergePeeked(false)),
  mergeIntoPeeked: () => inTurn(() => mergePeeked(true)),
  goPeeked: () => go(view.peeked.id),
  find: () => { enterDetail(); find("within")?.focus(); },
  all: () => { enterDetail(); detail.search(""); },
  history: () => openInTurn(() => showHistory(go)),
  help: showKeys,
  another: openAnother,
  finish: () => openInTurn(() => confirmFinish(endReview)),
};

/** Looks at a cluster, in the list of all where the present one lacks it. */
function go(id) {
  view.peeked = null;
  store.current = id;
  if (list.placeOf(id) < 0) {
    find("filter").value = "";
    list.show("all");
  }
  select(id);
}

async function turnBack(action) {
  const answer = await decide(action, []);
  if (!answer) return;
  const done = answer.told[0].toUpperCase() + answer.told.slice(1);
  const there = answer.groups.find((one) => one.version !== undefined && list.placeOf(one.id) >= 0 && answer.groups.length <= 3);
  toast(done, { act: action === "undo" ? { label: "Redo", key: "U", run: () => act.redo() } : undoing });
  if (there && there.id !== store.current) select(there.id);
}

/** Has a name typed for the cluster that is looked at, as it stands now; `typed` is one begun before. */
function startRename(typed = null) {
  const one = group(store.current);
  if (!one || one.id === NOISE || document.querySelector("#new-name")) return;
  if (find("detail").dataset.id !== String(one.id)) detail.draw(); // it has only just been chosen
  const title = document.querySelector("#detail h1");
  let isOver = false;
  const input = make("input", { id: "new-name", value: typed ?? one.name, maxLength: 200, "aria-label": "New name", autocomplete: "off" });
  const end = (isSaved, isKept) => {
    if (isOver) return;
    isOver = true;
    input.remove();
    detail.draw();
    catchUp(true); // with what has come in while the name was typed
    if (isSaved) inTurn(() => save(one, input.value.trim().replace(/\s+/g, " "), isKept));
  };
  input.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter") { event.preventDefault(); end(true, event.shiftKey); }
    if (event.key === "Escape") end(false, false);
  });
  input.addEventListener("blur", () => {
    if (document.activeElement !== input) end(input.value.trim() !== "", false); // else the window has lost the focus
  });
  enterDetail();
  title.replaceWith(input);
  document.querySelector("#detail .facts").textContent = "⏎ saves · ⇧⏎ saves and keeps · Esc leaves it";
  if (typed === null) input.select();
  else input.focus();
}

/** Renames a group as it was when the typing began. What was typed is never lost. */
async function save(one, name, isKept) {
  let version = one.version;
  if (name !== one.name) {
    const answer = await settle("rename", [one], `Renamed to “${name}”`, { label: name });
    if (!answer && store.current === one.id && group(one.id)) return startRename(name);
    if (!answer) return toast(`You had typed “${name}”.`, { kind: "warn" });
    version = answer.done;
  }
  return isKept && settle("keep", [{ ...one, version }], `Kept “${name}”`);
}

let isFinished = false;
function endReview() {
  isFinished = true;
  showBanner("The review is finished. This page can be closed.");
}

const KEYS = {
  j: () => list.move(1), ArrowDown: () => list.move(1), k: () => list.move(-1), ArrowUp: () => list.move(-1),
  PageDown: () => list.move(10), PageUp: () => list.move(-10), Home: () => list.move(-1e9), End: () => list.move(1e9),
  Enter: act.keep, r: act.rename, m: act.merge, s: () => act.split(), d: act.drop, n: act.noise, o: act.open,
  u: act.undo, U: act.redo, h: act.history, F: act.finish, "?": act.help, e: act.all,
  x: () => { list.toggle(store.current); list.move(1); },
  f: act.find,
  "/": () => { find("filter").focus(); find("filter").select(); },
  Escape: () => detail.closePeek() || detail.clearSearch() || clearChosen() || list.clearFilter() || document.body.classList.remove("looking"),
};
const MOVING = new Set(["j", "k", "ArrowDown", "ArrowUp", "PageDown", "PageUp"]); // while held down
const PEEK_KEYS = { m: act.mergePeeked, M: act.mergeIntoPeeked, g: act.goPeeked, Enter: null, d: null, n: null, o: null, s: null, r: null, x: null };

function clearChosen() {
  if (!store.chosen.size) return false;
  store.chosen.clear();
  list.draw();
  return true;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isDialogOpen() || event.isComposing) return;
  if (isOpening) return event.preventDefault();
  const target = event.target;
  if (target.matches("input:not([type=checkbox]), select, textarea")) {
    if (event.key === "Escape" || (event.key === "Enter" && target.id === "filter")) {
      target.blur();
      if (target.id === "within") detail.clearSearch();
      else if (event.key === "Escape") list.clearFilter();
    }
    return;
  }
  if (target.matches("button, a") && (event.key === "Enter" || event.key === " ")) return;
  const isNeighbour = /^[1-8]$/.test(event.key);
  const run = isNeighbour ? () => act.peek(Number(event.key) - 1) : view.peeked && event.key in PEEK_KEYS ? PEEK_KEYS[event.key] : KEYS[event.key];
  if (!run) return;
  event.preventDefault();
  if (!event.repeat || MOVING.has(event.key)) run();
}

function drawChosen() {
  const ids = [...store.chosen].filter(group);
  const documents = ids.reduce((sum, id) => sum + group(id).size, 0);
  find("chosen").replaceChildren(
    make("span", {}, `${count(ids.length)} chosen · ${counted(documents, "document")}`),
    button("Keep", "⏎", act.keep), button("Merge", "m", act.merge, { disabled: ids.length < 2 }), button("Drop", "d", act.drop), button("Noise", "n", act.noise),
    button("Clear", "Esc", clearChosen, { className: "quiet" }));
}

/** Looks at the cluster anew where it has changed, or at another where it is not in the list. */
function catchUp(isChanged) {
  if (document.querySelector("#new-name")) return; // a name is being typed
  if (list.placeOf(store.current) < 0) list.keepCurrent(lastPlace);
  else if (isChanged) detail.look(store.current);
}
let lastPlace = 0;

onChange((changed) => {
  const place = list.update();
  if (place >= 0) lastPlace = place;
  drawProgress();
  drawChosen();
  catchUp(changed.has(store.current));
  if (changed.has(view.peeked?.id)) detail.peek(view.peeked.id);
});

async function start() {
  for (const name of ["undo", "redo", "history", "help", "another", "finish"]) find(name).addEventListener("click", () => act[name]());
  document.addEventListener("click", (event) => { // else Enter would press the button again
    if (event.detail && !isDialogOpen()) event.target.closest("button")?.blur();
  });
  find("back").addEventListener("click", () => document.body.classList.remove("looking"));
  document.addEventListener("keydown", onKey);
  detail.setUp(act);
  list.setUp(select, drawChosen);
  if (!(await enter())) {
    showBanner("This page needs the whole address that the terminal shows, with what stands behind #.");
    find("detail").replaceChildren();
    return;
  }
  const answer = await ask("state");
  if (!isFine(answer)) return;
  Object.assign(store, { name: answer.name, folder: answer.folder });
  document.title = `Review of ${answer.folder}`;
  find("folder").querySelector("bdi").replaceWith(bdi(answer.folder));
  find("page-name").textContent = answer.name;
  take(answer);
  document.body.dataset.ready = "";
  performance.mark("ready");
  if (answer.skipped.length) toast(`${count(answer.skipped.length)} earlier decisions do not fit these clusters; the terminal lists them.`, { kind: "warn" });
  await follow(() => isFinished);
  endReview();
}

start();
