// Requests to the page's own server.

import { find, toast } from "./dom.js";
import { store, take } from "./store.js";

const KEPT = "review-page"; // of this tab alone, and of this address with its port
let secret = sessionStorage.getItem(KEPT);

/** The answer and its status; 0 where there is no server. */
export async function ask(path, body = {}) {
  try {
    const response = await fetch(`/api/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Review-Page": secret ?? "" },
      body: JSON.stringify(body),
    });
    return { status: response.status, ...(await response.json()) };
  } catch {
    return { status: 0, error: "no answer" };
  }
}

/** Uses up the token in the page's address; false where there is no way in. */
export async function enter() {
  const token = location.hash.slice(1);
  if (token) {
    history.replaceState(null, "", location.pathname);
    const answer = await ask("enter", { token });
    if (answer.status === 200) {
      secret = answer.secret;
      sessionStorage.setItem(KEPT, secret);
      return true;
    }
  }
  return secret !== null;
}

export function showBanner(text) {
  find("banner").textContent = text;
  find("banner").hidden = !text;
}

const NO_WAY_IN = "This address has been used already, or is of another run. Take the last address that the terminal shows, or “New page” in a page that is open.";
const STOPPED = "The server does not answer. Every decision made is in the journal: start `python -m labels review` again, and open the address that it prints.";

/** Says what is wrong where an answer is not what was asked for; whether it is. */
export function isFine(answer) {
  if (answer.status === 200) {
    showBanner("");
    return true;
  }
  if (answer.status === 403) showBanner(NO_WAY_IN);
  else if (answer.status === 0) showBanner(STOPPED);
  else if (answer.stale) toast(`Not done: somebody has decided meanwhile. ${answer.stale}. It is shown now as it stands.`, { kind: "warn" });
  else toast(answer.refused ? `Not done: ${answer.refused}.` : answer.error, { kind: "warn" });
  return false;
}

/** Makes a decision about groups as they were when a person looked at them, which may be older than
 * what the page has heard since: the server refuses it then. Its answer; null where it was not made. */
export async function decide(action, groups, more = {}) {
  const seen = groups.map((one) => [one.id, one.version]);
  const answer = await ask("decide", { action, seen, since: store.last, ...more });
  take(answer);
  return isFine(answer) ? answer : null;
}

/** Hears of other pages' decisions, until `isOver()` or one of them has finished the review. */
export async function follow(isOver) {
  while (!isOver()) {
    const answer = await ask("changes", { since: store.last });
    if (isOver()) return;
    if (isFine(answer)) {
      take(answer);
      if (answer.finished) return;
    } else await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}
