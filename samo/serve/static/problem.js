// What went wrong, in words, with what to do about it; and where the page shows it.
import { byId, node } from "./nodes.js";

export class Problem extends Error {
  constructor(message, hint = "", status = 0) {
    super(message);
    this.hint = hint;
    this.status = status;
  }
}

const WORDS = {
  408: "The recording took too long to arrive.",
  413: "That is too large for this server.",
  429: "The server has more to do than it can. Try again in a moment.",
  503: "The server is starting or shutting down. Try again in a moment.",
  504: "The server took too long to answer.",
};

/** The problem that a response states, as `application/problem+json` or not. */
export async function problemOf(response) {
  let stated = {};
  try {
    stated = await response.json();
  } catch {
    // A proxy between may answer with a page of its own.
  }
  const detail = typeof stated.detail === "string" ? stated.detail : "";
  const words = detail || stated.title || WORDS[response.status] || `The server answered with status ${response.status}.`;
  const hint = typeof stated.hint === "string" ? stated.hint : "";
  return new Problem(words, hint || (detail && WORDS[response.status]) || "", response.status);
}

/** Show it; without one, hide what was shown. */
export function showProblem(problem) {
  const place = byId("problem");
  if (!problem) {
    place.replaceChildren();
    return;
  }
  const known = problem instanceof Problem;
  if (!known) console.error(problem);
  const what = node("p", { class: "what" }, known ? problem.message : "Something on this page went wrong.");
  place.replaceChildren(what, ...(problem.hint ? [node("p", { class: "hint" }, problem.hint)] : []));
}
