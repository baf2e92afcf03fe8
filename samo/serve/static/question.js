// One question at a time: a newer one ends the one before, and what goes wrong is shown in words.
import { answersView, spoken } from "./answers.js";
import { byId, shown } from "./nodes.js";
import { showProblem } from "./problem.js";

let current = new AbortController();
let again = null;
let forget = () => {};

/** Words for the line below the input, and what the page does. */
export function setStatus(words, state = "") {
  byId("status").textContent = words;
  document.body.dataset.state = state;
}

/** End what is under way and hide its answer; gives the signal that ends what begins now. */
export function begin() {
  current.abort();
  current = new AbortController();
  again = null;
  forget();
  forget = () => {};
  shown(byId("result"), false);
  showProblem(null);
  return current.signal;
}

/** Run what a person began. */
export async function attempt(work) {
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    setStatus("", "problem");
    showProblem(error);
  }
}

/** What asks the same of another model. */
export function repeatable(question) {
  again = question;
}

/** Ask the last question again, if there is one. */
export function repeat() {
  if (again) attempt(again);
}

/**
 * Show an answer.
 *
 * @param {object} prediction of the server
 * @param {object} model that gave it, as `/v1/models` lists it
 * @param {{clip: Node[], timeline?: Node[], narrow?: boolean, note?: string, close?: () => void}} beside it
 */
export function reveal(prediction, model, { clip, timeline = [], narrow = false, note = "", close = () => {} }) {
  forget = close;
  byId("answers").replaceChildren(...answersView(prediction, model, note));
  byId("clip").replaceChildren(...clip);
  byId("timeline").replaceChildren(...timeline);
  byId("columns").classList.toggle("one", narrow);
  shown(byId("result"), true);
  setStatus(spoken(prediction), "answered");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId("result").scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" });
}
