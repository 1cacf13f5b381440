// Taking a cluster apart: choose a way, see what it makes, name the parts, do it.

import { ask, decide } from "./api.js";
import { bdi, button, compared, count, counted, make, openDialog, retitle, toast, visible } from "./dom.js";
import { NOISE, group, store } from "./store.js";

const WAYS = { holding: "Those that hold", parts: "In parts", unmerged: "As before merging", points: "Those marked" };

/** Opens the dialog for the cluster that is looked at; `view` says what is found and marked in it. */
export function openSplit(view, way, onDone) {
  let current = group(store.current); // as the dialog shows it
  const title = () => `Split “${current.id === NOISE ? "noise" : current.name}”`;
  const number = view.detail?.unmerged ?? 1;
  const ways = Object.keys(WAYS).filter((one) => (one !== "points" || view.marked.size) && (one !== "unmerged" || (number > 1 && current.id !== NOISE)));
  const chosen = way ?? (view.marked.size ? "points" : view.query.trim() ? "holding" : ways.includes("unmerged") ? "unmerged" : current.id === NOISE ? "holding" : "parts");
  openDialog(title(), (close, dialog) => {
    const state = { way: chosen, text: view.query, num: 2, points: [...view.marked], preview: null, typed: [] };
    const tabs = make("div", { className: "tabs", role: "group" });
    const setting = make("div", { className: "setting" });
    const result = make("div", { className: "parts", "aria-live": "polite" });
    const main = button("Split", "⏎", () => done(), { className: "main", disabled: true });
    const show = async () => {
      const number = (state.asked = (state.asked ?? 0) + 1);
      const how = describe(state);
      if (how.kind === "holding" && !how.text.trim()) return draw({ refused: "" });
      main.disabled = true;
      const answer = await ask("preview", { id: current.id, how });
      if (number === state.asked) draw(answer);
      return null;
    };
    const draw = (answer) => {
      state.preview = answer.parts ? answer : null;
      main.disabled = !answer.parts;
      result.replaceChildren(...(answer.parts ? drawParts(answer, state, current) : [make("p", { className: "empty" }, answer.refused ?? answer.error ?? "")]));
      state.typed = [];
    };
    const choose = (one) => {
      state.way = one;
      tabs.replaceChildren(...ways.map((each) => make("button", { type: "button", className: "chip", "aria-pressed": String(each === one), on: { click: () => choose(each) } }, WAYS[each], each === "unmerged" ? make("span", { className: "number" }, count(number)) : each === "points" ? make("span", { className: "number" }, count(view.marked.size)) : null)));
      setting.replaceChildren(...drawSetting(state, show));
      setting.querySelector("input")?.focus();
      result.replaceChildren(make("p", { className: "empty" }, "Working …"));
      show();
    };
    const done = async () => {
      if (!state.preview) return;
      const labels = [...result.querySelectorAll("input")].map((input) => input.value);
      main.disabled = true;
      const answer = await decide("split", [current], { how: describe(state), labels });
      main.disabled = false;
      if (!answer) return again(labels);
      close();
      view.marked.clear();
      toast(`Split ${labels.length === 1 ? `“${labels[0]}”` : `${labels.length} parts`} off`, { act: { label: "Undo", key: "u", run: () => decide("undo", []) } });
      onDone();
    };
    const again = (labels) => {
      const now = group(current.id);
      if (!now) return close();
      if (now.version !== current.version) {
        current = now;
        retitle(dialog, title());
        state.typed = labels;
        show();
      }
      return null;
    };
    const form = make("div", { on: { keydown: (event) => { if (event.key === "Enter" && event.target.tagName === "INPUT" && !main.disabled) { event.preventDefault(); done(); } } } }, tabs, setting, result);
    setTimeout(() => choose(chosen)); // when the dialog stands
    return [form, make("footer", {}, main)];
  }, { className: "wide split" });
}

function describe(state) {
  if (state.way === "holding") return { kind: "holding", text: state.text };
  if (state.way === "parts") return { kind: "parts", num: state.num };
  if (state.way === "points") return { kind: "points", points: state.points };
  return { kind: "unmerged" };
}

function drawSetting(state, show) {
  let timer = 0;
  const later = () => { clearTimeout(timer); timer = setTimeout(show, 120); };
  if (state.way === "holding") {
    return [make("input", { type: "search", value: state.text, placeholder: "Letters that the texts hold", "aria-label": "Letters that the texts hold", autocomplete: "off", spellcheck: false, on: { input: (event) => { state.text = event.target.value; later(); } } })];
  }
  if (state.way === "parts") {
    return [make("label", {}, "Into ", make("input", { type: "number", min: 2, max: 40, value: state.num, "aria-label": "Number of parts", on: { input: (event) => { state.num = Number(event.target.value); later(); } } }), " parts, by what the texts are like")];
  }
  return [];
}

function drawParts(answer, state, current) {
  const query = state.way === "holding" ? state.text : "";
  const part = (one, head, className) => make("section", { className }, head,
    make("span", { className: "size" }, counted(one.size, "document")),
    make("ol", {}, ...one.texts.map((text) => make("li", {}, query ? compared(text, null, query) : bdi(text)))));
  return [
    ...answer.parts.map((one, i) => part(one, make("input", { value: state.typed[i] ?? one.name, maxLength: 200, "aria-label": `Name of part ${i + 1}`, spellcheck: false }), "new")),
    part(answer.rest, make("strong", {}, "stays: ", ...visible(current.name)), "rest"),
  ];
}
