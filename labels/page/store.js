// What the page knows: the groups as they stood after the last decision it has heard of.

export const NOISE = -1;
export const store = { groups: new Map(), last: 0, name: "", folder: "", current: null, chosen: new Set() };

const known = new Map(); // of each group, the decision as of which it is known; also of those gone
const listeners = [];

export const onChange = (listener) => listeners.push(listener);

/** Takes in an answer of the server; older ones than what is known of a group are passed over. */
export function take(answer) {
  const changed = new Set();
  for (const group of answer.groups ?? []) {
    if ((known.get(group.id) ?? -1) > answer.last) continue;
    known.set(group.id, answer.last);
    group.search = `${group.name} ${group.words.join(" ")} ${group.typical}`.toLowerCase();
    store.groups.set(group.id, group);
    changed.add(group.id);
  }
  for (const id of answer.gone ?? []) {
    if ((known.get(id) ?? -1) > answer.last) continue;
    known.set(id, answer.last);
    store.groups.delete(id);
    store.chosen.delete(id);
    changed.add(id);
  }
  store.last = Math.max(store.last, answer.last ?? 0);
  if (changed.size) tell(changed);
}

/** Has all parts of the page drawn anew; `changed` groups differ from before. */
export function tell(changed = new Set()) {
  for (const listener of listeners) listener(changed);
}

export const group = (id) => store.groups.get(id);
