// Elements made of data. Text only ever becomes text: nothing here parses HTML.

/** An element; `set` holds properties, `data-`/`aria-` attributes, and `on` listeners. */
export function make(tag, set = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(set)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name.includes("-") || name === "role" || name === "for") {
      element.setAttribute(name, value);
    } else {
      element[name] = value;
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const find = (id) => document.getElementById(id);

/** Text of the data, kept apart from the direction of what is around it. */
export function bdi(text, className) {
  return make("bdi", { className: className ?? "", dir: "auto" }, ...visible(text));
}

/** A button with the key that does the same. */
export function button(label, key, act, set = {}) {
  return make("button", { type: "button", on: { click: act }, ...set },
    label, key ? make("kbd", {}, key) : null);
}

const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu;
const SHORT = { "\n": "⏎", "\r": "␍", "\t": "⇥" };

/** Strings and elements for a text, in which what cannot be seen is shown. */
export function visible(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > end) parts.push(text.slice(end, match.index));
    const code = match[0].codePointAt(0).toString(16).padStart(4, "0");
    parts.push(make("span", { className: "hidden-character", title: `U+${code}` }, SHORT[match[0]] ?? `U+${code}`));
    end = match.index + match[0].length;
  }
  if (end < text.length) parts.push(text.slice(end));
  return parts;
}

const WORDS = /[\p{L}\p{N}_]+/gu;

/** The words of a text, in small letters. */
const wordsOf = (text) => new Set(text.toLowerCase().match(WORDS) ?? []);

/** The words that at least half of some texts have. */
export function commonWords(texts) {
  const number = new Map();
  for (const text of texts) for (const word of wordsOf(text)) number.set(word, (number.get(word) ?? 0) + 1);
  return new Set([...number].filter(([, n]) => n > 1 && 2 * n >= texts.length).map(([word]) => word));
}

/** A text with the words that `known` lacks set off, and the letters of `query` marked. */
export function compared(text, known, query = "") {
  const at = query.trim() ? text.toLowerCase().indexOf(query.toLowerCase()) : -1;
  const ranges = at >= 0 ? [[at, at + query.length, "mark"]] : foreign(text, known);
  const element = make("bdi", { dir: "auto" });
  let end = 0;
  for (const [from, to, tag] of ranges) {
    element.append(...visible(text.slice(end, from)), make(tag, {}, ...visible(text.slice(from, to))));
    end = to;
  }
  element.append(...visible(text.slice(end)));
  return element;
}

function foreign(text, known) {
  if (!known) return [];
  const matches = [...text.matchAll(WORDS)];
  const others = matches.filter((match) => !known.has(match[0].toLowerCase()));
  if (others.length > 0.6 * matches.length) return []; // another text altogether: all would be set off
  return others.map((match) => [match.index, match.index + match[0].length, "b"]);
}

const NUMBER = new Intl.NumberFormat("en");
export const count = (number) => NUMBER.format(number);

/** "1 text", "2 texts". */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
export const share = (value) => value.toFixed(2).replace(/^(-?)0\./, "$1.");

let closeToast = null;

/** Words at the bottom of the page for a while; `act` is {label, key, run} of a button in them. */
export function toast(text, { kind = "", act = null } = {}) {
  const element = make("div", { className: `toast ${kind}` }, make("span", {}, ...visible(text)));
  if (act) element.append(button(act.label, act.key, () => { element.remove(); act.run(); }, { className: "quiet" }));
  if (kind !== "warn") closeToast?.();
  const toasts = find("toasts");
  toasts.append(element);
  if (toasts.matches(":popover-open")) toasts.hidePopover();
  toasts.showPopover(); // above a dialog, where one is open
  const timer = setTimeout(() => element.remove(), kind === "warn" ? 12000 : 5000);
  if (kind === "warn") element.append(button("×", "", () => element.remove(), { className: "quiet", "aria-label": "Close" }));
  else closeToast = () => { clearTimeout(timer); element.remove(); };
}

/** Opens a dialog; `fill(close)` gives its content. Escape and a click outside close it. */
export function openDialog(title, fill, { className = "", onClose = () => {} } = {}) {
  const dialog = make("dialog", { className, "aria-label": title });
  const close = () => dialog.close();
  dialog.append(make("header", {}, make("h2", {}, title), button("Close", "Esc", close, { className: "quiet" })));
  dialog.append(...[fill(close, dialog)].flat());
  dialog.addEventListener("close", () => { dialog.remove(); onClose(); });
  dialog.addEventListener("mousedown", (event) => { if (event.target === dialog) close(); });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Gives an open dialog another title. */
export function retitle(dialog, title) {
  dialog.setAttribute("aria-label", title);
  dialog.querySelector("h2").textContent = title;
}

export const isDialogOpen = () => document.querySelector("dialog[open]") !== null;
