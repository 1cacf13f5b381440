// Dialogs that prepare a decision: merging, and what is only read: history, keys.

import { ask, decide, isFine } from "./api.js";
import { bdi, button, count, counted, make, openDialog, retitle, share, toast } from "./dom.js";
import { progress } from "./progress.js";
import { NOISE, group, store } from "./store.js";

const MOST = 30; // of the clusters offered

/** Chooses a cluster to merge with; `merge(into, others)` does it, with both as they are shown here. */
export function chooseMerge(neighbours, merge) {
  let current = group(store.current);
  openDialog(`Merge with “${current.name}”`, (close, dialog) => {
    let offered = [], place = 0, isAsked = false;
    const input = make("input", { type: "search", autofocus: true, placeholder: "Type a name or words, or take one of the nearest", "aria-label": "Cluster to merge with", autocomplete: "off", spellcheck: false });
    const list = make("ol", { className: "offered", role: "listbox" });
    const done = async (isInto) => {
      const other = offered[place];
      if (!other || isAsked) return;
      isAsked = true;
      const isDone = await (isInto ? merge(other, [current]) : merge(current, [other]));
      isAsked = false;
      if (!isDone) current = group(current.id);
      if (isDone || !current) return close();
      retitle(dialog, `Merge with “${current.name}”`);
      place = offer(input.value, neighbours, current.id).findIndex((one) => one.id === other.id);
      draw();
    };
    const draw = () => {
      offered = offer(input.value, neighbours, current.id);
      place = Math.max(0, Math.min(place, offered.length - 1));
      list.replaceChildren(...offered.map((one, i) => drawOffered(one, i === place, neighbours, () => { place = i; draw(); })));
      list.children[place]?.scrollIntoView({ block: "nearest" });
    };
    input.addEventListener("input", () => { place = 0; draw(); });
    input.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) { place += step; event.preventDefault(); draw(); }
      if (event.key === "Enter") { event.preventDefault(); done(event.shiftKey); }
    });
    draw();
    return [input, list, make("footer", {},
      button("Merge, keeping this name", "⏎", () => done(false), { className: "main" }),
      button("Merge, keeping the other name", "⇧⏎", () => done(true)))];
  }, { className: "merge" });
}

function offer(query, neighbours, besides) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const nearest = neighbours.map(([id]) => group(id)).filter(Boolean);
  const rest = [...store.groups.values()].filter((one) => !nearest.includes(one)).sort((a, b) => b.size - a.size);
  return [...nearest, ...rest]
    .filter((one) => one.id !== NOISE && one.id !== besides && words.every((word) => one.search.includes(word)))
    .slice(0, words.length ? MOST : Math.max(nearest.length, 8));
}

function drawOffered(one, isChosen, neighbours, onPick) {
  const cosine = neighbours.find(([id]) => id === one.id)?.[1];
  return make("li", { role: "option", "aria-selected": String(isChosen), className: one.status, "data-id": one.id, on: { click: onPick } },
    make("span", { className: "name" }, bdi(one.name)),
    make("span", { className: "size" }, `${count(one.size)}${cosine === undefined ? "" : ` · ${share(cosine)}`}${one.status === "open" ? "" : ` · ${one.status}`}`),
    make("span", { className: "line" }, bdi(one.typical)));
}

/** Merges the clusters that were chosen in the list, as they are shown here; asks whose name stays. */
export function mergeChosen(ids, merge) {
  openDialog(`Merge ${ids.length} clusters`, (close, dialog) => {
    let groups = [], into = null, isAsked = false;
    const list = make("fieldset");
    const draw = () => {
      groups = ids.map(group).filter(Boolean).sort((a, b) => (b.status === "kept") - (a.status === "kept") || b.size - a.size);
      if (groups.length < 2) return close();
      retitle(dialog, `Merge ${groups.length} clusters`);
      if (!groups.some((one) => one.id === into)) into = groups[0].id;
      list.replaceChildren(make("legend", {}, "The name that stays"), ...groups.map((one) => make("label", { className: "choice" },
        make("input", { type: "radio", name: "into", checked: one.id === into, autofocus: one.id === into, on: { change: () => { into = one.id; } } }),
        make("span", { className: "name" }, bdi(one.name)), make("span", { className: "size" }, count(one.size)))));
      list.querySelector(":checked").focus();
    };
    const done = async () => {
      if (isAsked) return;
      isAsked = true;
      const isDone = await merge(groups.find((one) => one.id === into), groups.filter((one) => one.id !== into));
      isAsked = false;
      if (isDone) close();
      else draw();
    };
    draw();
    list.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); done(); } });
    return [list, make("footer", {}, button("Merge", "⏎", done, { className: "main" }))];
  });
}

/** What was decided, newest first, each with its undoing where there is one. */
export function showHistory(go) {
  openDialog("History", (close) => {
    const list = make("ol", { className: "history" });
    const more = button("Earlier", "", () => fill(last), { className: "quiet" });
    let last = null;
    const fill = async (before) => {
      const answer = await ask("history", { before });
      if (!isFine(answer)) return;
      if (before === null) list.replaceChildren();
      list.append(...answer.decisions.map((one) => drawDecision(one, go, close, () => fill(null))));
      last = answer.decisions.at(-1)?.id ?? null;
      more.hidden = answer.decisions.length < 100;
      if (!list.children.length) list.append(make("li", { className: "empty" }, "Nothing has been decided yet."));
    };
    fill(null);
    return [list, more];
  }, { className: "wide" });
}

function drawDecision(one, go, close, again) {
  const undo = async () => {
    if (await decide("undo", [], { of: one.id })) toast(`Undone: ${one.text}`);
    again();
  };
  const at = one.time ? new Date(one.time.replace(/([+-]\d\d)(\d\d)$/, "$1:$2")) : null;
  const there = one.groups.find((id) => group(id) && id !== NOISE);
  return make("li", {},
    make("span", { className: "when", title: one.time }, at && !Number.isNaN(at.getTime()) ? at.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }) : ""),
    make("span", { className: "who" }, one.by === store.name ? "this page" : one.by),
    make("span", { className: "what" }, bdi(one.text)),
    there === undefined ? null : button("Look", "", () => { close(); go(there); }, { className: "quiet" }),
    one.can_undo ? button(one.action === "undo" ? "Redo" : "Undo", "", undo, { className: "quiet" }) : null);
}

/** Offers an address for another page. */
export async function openAnother() {
  const answer = await ask("address");
  if (!isFine(answer)) return;
  openDialog("Another page", () => [
    make("p", {}, "This address opens one page, once, on this machine; both pages see each other's decisions."),
    make("input", { readOnly: true, value: answer.address, autofocus: true, "aria-label": "Address", on: { focus: (event) => event.target.select() } }),
    make("footer", {}, make("a", { href: answer.address, target: "_blank", rel: "noopener noreferrer" }, "Open it")),
  ]);
}

/** Says that the review is finished, if that is meant; `onFinish()` when it has been noted. */
export function confirmFinish(onFinish) {
  const { number } = progress();
  openDialog("Finish the review", (close) => [
    make("p", {}, number.open ? `${counted(number.open, "cluster")} not looked at yet; what is open keeps its name.` : "Every cluster has been looked at."),
    make("p", {}, "The server stops, for all pages, and ", make("code", {}, "labels run"), " goes on with what was decided. You can review again at any time."),
    make("footer", {}, button("Finish", "⏎", async () => {
      const answer = await ask("finish");
      close();
      if (isFine(answer)) onFinish();
    }, { className: "main", autofocus: true }), button("Not yet", "Esc", close)),
  ]);
}

const KEYS = [
  ["Moving", ["j ↓", "next cluster"], ["k ↑", "previous cluster"], ["PgDn PgUp", "ten further"], ["/", "search the clusters"], ["Esc", "back: out of a search, a comparison, a choice"]],
  ["Deciding", ["⏎", "keep, and go on to the next"], ["r", "rename; then ⏎ saves, ⇧⏎ saves and keeps"], ["m", "merge with another, or those chosen"], ["s", "split"], ["d", "drop: its documents are left out"], ["n", "noise"], ["o", "open again"], ["u U", "undo, redo"], ["h", "history: undo anything that still stands"], ["F", "finish"]],
  ["Looking", ["1 … 6", "compare with a neighbour"], ["m M", "in a comparison: merge the other in, merge into the other"], ["g", "in a comparison: look at the other"], ["f", "find in the cluster"], ["e", "all its texts"]],
  ["Several at once", ["x", "choose or unchoose, and go on"], ["⏎ m d n o", "then act on all that are chosen"]],
];

export function showKeys() {
  openDialog("Keys", () => make("div", { className: "keys" }, ...KEYS.map(([title, ...keys]) => make("section", {}, make("h3", {}, title),
    make("dl", {}, ...keys.flatMap(([key, what]) => [make("dt", {}, ...key.split(" ").map((one) => (one === "…" ? "…" : make("kbd", {}, one)))), make("dd", {}, what)]))))),
  { className: "wide" });
}
