// Asking about a text.
import * as api from "./api.js";
import { byId, node } from "./nodes.js";
import { attempt, begin, repeatable, reveal, setStatus } from "./question.js";
import { chosen } from "./served.js";

async function askText(text) {
  const model = chosen();
  const signal = begin();
  repeatable(() => askText(text));
  setStatus("Thinking …", "thinking");
  const prediction = await api.predictText(model.name, text, signal);
  signal.throwIfAborted();
  reveal(prediction, model, { clip: [node("blockquote", { class: "quoted" }, text)], narrow: true });
}

/** Make the field and its button work. */
export function prepareWriting() {
  byId("words").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("text").value;
    if (text.trim()) attempt(() => askText(text));
  });
  byId("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("words").requestSubmit();
  });
}
