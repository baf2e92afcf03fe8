// Recordings that are chosen, or dropped anywhere on the page.
import { recording } from "./microphone.js";
import { byId } from "./nodes.js";
import { attempt } from "./question.js";
import { modality } from "./served.js";
import { askFile } from "./voice.js";

function carriesFile(event) {
  return event.dataTransfer?.types.includes("Files");
}

/** Make the button and the field work. */
export function prepareFiles() {
  byId("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    if (file) attempt(() => askFile(file));
    // The same file may be chosen again.
    target.value = "";
  });
  let inside = 0;
  const mark = (n) => {
    inside = Math.max(0, n);
    byId("voice").classList.toggle("over", inside > 0);
  };
  document.addEventListener("dragenter", (event) => carriesFile(event) && mark(inside + 1));
  document.addEventListener("dragleave", (event) => carriesFile(event) && mark(inside - 1));
  // Without this a file that is dropped would take the page's place.
  document.addEventListener("dragover", (event) => carriesFile(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    mark(0);
    const [file] = event.dataTransfer.files;
    if (file && modality() === "audio" && !recording()) attempt(() => askFile(file));
  });
}
