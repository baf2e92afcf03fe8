// The page: joins microphone, files and text to the server, and shows what it answers.
import { answersView, spoken } from "./answers.js";
import * as api from "./api.js";
import { fileClip, recordedClip, smallerClip } from "./clip.js";
import { factsView } from "./facts.js";
import { colour, kept } from "./ink.js";
import { byId, node, shown } from "./nodes.js";
import { clock } from "./numbers.js";
import { Player } from "./player.js";
import { Problem, showProblem } from "./problem.js";
import { Recorder } from "./recorder.js";
import { spectrogramView } from "./spectrogram.js";
import { Timeline } from "./timeline.js";

const HELP = {
  ready: "Speak for a few seconds. The sound goes to this server only.",
  recording: "Press again to stop, or Esc to throw it away.",
  impossible: "Browsers allow the microphone only over https or on this machine itself. Choose a file instead.",
};

const TOO_LARGE = 413;

const served = new Map();
const defaults = {};
const last = { audio: null, text: null };
let recorder = null;
let player = null;
let asking = null;

// --- which model -----------------------------------------------------------------------------------------------------

function modality() {
  return document.querySelector("input[name=modality]:checked")?.value ?? "";
}

function model() {
  return served.get(byId("model").value);
}

function showModality(kind) {
  document.querySelector(`input[name=modality][value=${kind}]`).checked = true;
  shown(byId("voice"), kind === "audio");
  shown(byId("words"), kind === "text");
  const own = [...served.values()].filter((one) => one.modality === kind);
  byId("model").replaceChildren(...own.map((one) => node("option", { value: one.name }, one.name)));
  if (defaults[kind]) byId("model").value = defaults[kind];
  shown(byId("picker"), own.length > 1);
  showModel();
}

function showModel() {
  byId("facts").replaceChildren(...factsView(model()));
  shown(byId("about"), true);
}

async function begin() {
  setStatus("Looking for models …");
  const found = await api.models();
  for (const one of found.models) served.set(one.name, one);
  Object.assign(defaults, found.default);
  const kinds = new Set(found.models.map((one) => one.modality));
  setStatus("");
  if (!kinds.size) throw new Problem("No model is served.", "Start the server with one: samo serve RUN");
  shown(byId("modality"), kinds.size > 1);
  showModality(kinds.has("audio") ? "audio" : "text");
}

// --- states ----------------------------------------------------------------------------------------------------------

function setStatus(words, state = "") {
  byId("status").textContent = words;
  document.body.dataset.state = state;
}

/** Run what a person began; whatever goes wrong is shown in words. */
async function attempt(work) {
  showProblem(null);
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    setStatus("", "problem");
    showProblem(error);
  }
}

function clearResult() {
  asking?.abort();
  player?.close();
  player = null;
  shown(byId("result"), false);
}

/** Hand a question to the server; a newer one takes its place. */
async function answered(question) {
  clearResult();
  const own = (asking = new AbortController());
  setStatus("Thinking …", "thinking");
  const prediction = await question(own.signal);
  if (own.signal.aborted) throw new DOMException("a newer question", "AbortError");
  return prediction;
}

function reveal(prediction, note = "") {
  byId("answers").replaceChildren(...answersView(prediction, model(), note));
  shown(byId("result"), true);
  setStatus(spoken(prediction), "answered");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId("result").scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" });
}

// --- voice -----------------------------------------------------------------------------------------------------------

async function askAudio(clip) {
  last.audio = clip;
  let note = "";
  const prediction = await answered(async (signal) => {
    try {
      return await api.predictAudio(model().name, clip.sent, signal);
    } catch (problem) {
      const rate = model().reading?.sr;
      const smaller = problem.status === TOO_LARGE && rate ? await smallerClip(clip, rate) : null;
      if (!smaller) throw problem;
      note = `The file is too large for this server, so it was sent as mono sound at ${rate.toLocaleString("en")} Hz.`;
      return api.predictAudio(model().name, smaller.sent, signal);
    }
  });
  const seconds = prediction.duration_s;
  const windows = prediction.timeline ?? [];
  const timeline = windows.length ? new Timeline(windows, seconds, (from) => player.play(from)) : null;
  player = new Player(clip, seconds, (at) => timeline?.at(at));
  document.querySelector(".columns").classList.remove("one");
  byId("clip").replaceChildren(player.view, spectrogramView(prediction.spectrogram, seconds));
  byId("timeline").replaceChildren(...(timeline?.view ?? []));
  reveal(prediction, note);
}

async function askFile(file) {
  if (!file.size) throw new Problem(`“${file.name}” is empty.`, "Choose a recording.");
  clearResult();
  setStatus("Reading the file …", "thinking");
  await askAudio(await fileClip(file));
}

const level = [];

function drawLevel(ink, width, height) {
  ink.fillStyle = colour("recording");
  const n = Math.floor(width / 4);
  level.slice(-n).forEach((value, k, all) => {
    const tall = Math.max(2, Math.sqrt(Math.min(1, value)) * height);
    ink.fillRect(width - 4 * (all.length - k), (height - tall) / 2, 2, tall);
  });
}

let redrawLevel = () => {};

function onBlock(block, seconds) {
  let top = 0;
  for (const value of block) top = Math.max(top, Math.abs(value));
  level.push(top);
  byId("clock").textContent = clock(seconds);
  redrawLevel();
}

function showRecording(on) {
  byId("record-words").textContent = on ? "Stop" : "Record";
  byId("record-help").textContent = on ? HELP.recording : HELP.ready;
  byId("record").classList.toggle("on", on);
  shown(byId("live"), on);
  shown(byId("or"), !on);
}

async function startRecording() {
  clearResult();
  level.length = 0;
  byId("clock").textContent = clock(0);
  const own = new Recorder(onBlock, () => attempt(stopRecording));
  setStatus("Waiting for the microphone …", "thinking");
  await own.start();
  recorder = own;
  showRecording(true);
  setStatus("Recording", "recording");
}

async function stopRecording() {
  const own = recorder;
  if (!own) return;
  recorder = null;
  showRecording(false);
  const { samples, rate } = await own.stop();
  if (!samples.length) throw new Problem("Nothing was recorded.", "Record for a second or more.");
  await askAudio(recordedClip(samples, rate));
}

function discardRecording() {
  recorder?.release();
  recorder = null;
  showRecording(false);
  setStatus("The recording was thrown away.");
}

function prepareVoice() {
  redrawLevel = kept(byId("level"), drawLevel);
  byId("record").disabled = !Recorder.possible;
  byId("record-help").textContent = Recorder.possible ? HELP.ready : HELP.impossible;
  byId("record").addEventListener("click", () => attempt(recorder ? stopRecording : startRecording));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && recorder) discardRecording();
  });
  byId("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    if (file) attempt(() => askFile(file));
    // The same file may be chosen again.
    target.value = "";
  });
}

function prepareDrop() {
  const place = document.body;
  let inside = 0;
  const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
  place.addEventListener("dragenter", (event) => {
    if (carriesFile(event) && modality() === "audio") byId("voice").classList.toggle("over", ++inside > 0);
  });
  place.addEventListener("dragleave", (event) => {
    if (carriesFile(event) && inside) byId("voice").classList.toggle("over", --inside > 0);
  });
  // Without this a file dropped beside the field would take the page's place.
  place.addEventListener("dragover", (event) => carriesFile(event) && event.preventDefault());
  place.addEventListener("drop", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    inside = 0;
    byId("voice").classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file && modality() === "audio" && !recorder) attempt(() => askFile(file));
  });
}

// --- text ------------------------------------------------------------------------------------------------------------

async function askText(text) {
  last.text = text;
  const prediction = await answered((signal) => api.predictText(model().name, text, signal));
  document.querySelector(".columns").classList.add("one");
  byId("clip").replaceChildren(node("blockquote", { class: "quoted" }, text));
  byId("timeline").replaceChildren();
  reveal(prediction);
}

function prepareText() {
  byId("words").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("text").value;
    if (text.trim()) attempt(() => askText(text));
  });
  byId("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("words").requestSubmit();
  });
}

// --- all together ----------------------------------------------------------------------------------------------------

function prepareModels() {
  byId("modality").addEventListener("change", () => {
    if (recorder) discardRecording();
    clearResult();
    showProblem(null);
    setStatus("");
    showModality(modality());
  });
  byId("model").addEventListener("change", () => {
    showModel();
    const kind = modality();
    if (byId("result").hidden || last[kind] === null) return;
    attempt(() => (kind === "audio" ? askAudio(last.audio) : askText(last.text)));
  });
}

prepareVoice();
prepareDrop();
prepareText();
prepareModels();
attempt(begin);
