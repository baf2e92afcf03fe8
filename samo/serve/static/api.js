// The server: one function for each address that the page uses.
import { askForKey, keepKey, storedKey } from "./key.js";
import { Problem, problemOf } from "./problem.js";

async function call(path, options = {}) {
  let key = storedKey();
  for (;;) {
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem("The server does not answer.", "It may have stopped, or closed on something too large for it.");
    }
    if (response.status !== 401 && key) keepKey(key);
    if (response.ok) return response.json();
    if (response.status !== 401) throw await problemOf(response);
    key = await askForKey(Boolean(key));
    if (!key) throw await problemOf(response);
  }
}

/** What is served, and which of it answers by default. */
export function models() {
  return call("v1/models");
}

/** The answer to a recording. */
export function predictAudio(model, sound, signal) {
  const query = new URLSearchParams({ model, spectrogram: "1" });
  const headers = { "Content-Type": "application/octet-stream" };
  return call(`v1/predict/audio?${query}`, { method: "POST", body: sound, headers, signal });
}

/** The answer to a text. */
export function predictText(model, text, signal) {
  const headers = { "Content-Type": "application/json" };
  return call("v1/predict/text", { method: "POST", body: JSON.stringify({ model, text }), headers, signal });
}
