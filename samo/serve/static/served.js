// Which models are served, and which of them answers.
import * as api from "./api.js";
import { factsView } from "./facts.js";
import { byId, node, shown } from "./nodes.js";
import { Problem } from "./problem.js";

const KINDS = ["audio", "text"];

let models = [];
let defaults = {};

/** What is read now: `audio` or `text`. */
export function modality() {
  return document.querySelector("input[name=modality]:checked")?.value ?? "";
}

/** The entry of `/v1/models` that answers now. */
export function chosen() {
  return models.find(({ name, modality: kind }) => name === byId("model").value && kind === modality());
}

function showModel() {
  byId("facts").replaceChildren(...factsView(chosen()));
  shown(byId("about"), true);
}

function showModality(kind) {
  document.querySelector(`input[name=modality][value=${kind}]`).checked = true;
  shown(byId("voice"), kind === "audio");
  shown(byId("words"), kind === "text");
  const own = models.filter((model) => model.modality === kind);
  byId("model").replaceChildren(...own.map(({ name }) => node("option", { value: name }, name)));
  byId("model").value = defaults[kind] ?? own[0].name;
  shown(byId("picker"), own.length > 1);
  showModel();
}

/** Ask the server, and show the first. */
export async function loadModels() {
  ({ models, default: defaults } = await api.models());
  const kinds = KINDS.filter((kind) => models.some((model) => model.modality === kind));
  if (!kinds.length) throw new Problem("No model is served.", "Start the server with one: samo serve RUN");
  shown(byId("modality"), kinds.length > 1);
  showModality(kinds[0]);
}

/** Call when a person takes another model, or the other modality. */
export function whenChosen(onModel, onModality) {
  byId("model").addEventListener("change", () => {
    showModel();
    onModel();
  });
  byId("modality").addEventListener("change", () => {
    showModality(modality());
    onModality();
  });
}
