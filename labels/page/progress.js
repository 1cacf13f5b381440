// How much has been looked at.

import { count, counted, find, make } from "./dom.js";
import { NOISE, store } from "./store.js";

/** Documents and clusters of each status. */
export function progress() {
  const sum = { open: 0, kept: 0, dropped: 0, noise: 0 };
  const number = { open: 0, kept: 0, dropped: 0, noise: 0 };
  for (const one of store.groups.values()) {
    if (one.id === NOISE) continue;
    sum[one.status] += one.size;
    number[one.status] += 1;
  }
  return { sum, number };
}

/** Shows it at the head of the page. */
export function drawProgress() {
  const { sum, number } = progress();
  const documents = Math.max(1, sum.open + sum.kept + sum.dropped + sum.noise);
  const clusters = number.open + number.kept + number.dropped + number.noise;
  const part = (100 * (documents - sum.open)) / documents;
  find("bar").replaceChildren(...["kept", "dropped", "noise"].map((status) => {
    const piece = make("span", { className: status, title: `${status}: ${counted(number[status], "cluster")}, ${counted(sum[status], "document")}` });
    piece.style.width = `${(100 * sum[status]) / documents}%`;
    return piece;
  }));
  const text = `${count(clusters - number.open)} of ${count(clusters)} clusters · ${part >= 99.95 || part === 0 ? part.toFixed(0) : part.toFixed(1)} % of documents`;
  find("bar").setAttribute("aria-label", text);
  find("progress-text").textContent = text;
}
