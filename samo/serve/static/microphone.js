// The record button: begin, stop, throw away; with a picture of the level meanwhile.
import { recordedClip } from "./clip.js";
import { colour, kept } from "./ink.js";
import { byId, shown } from "./nodes.js";
import { clock } from "./numbers.js";
import { Problem } from "./problem.js";
import { attempt, begin, setStatus } from "./question.js";
import { Recorder } from "./recorder.js";
import { askAudio } from "./voice.js";

const HELP = {
  ready: "Speak for a few seconds. The sound goes to this server only.",
  recording: "Press again to stop, or Esc to throw it away.",
  impossible: "Browsers allow the microphone only over https or on this machine itself. Choose a file instead.",
};
const STEP = 4; // pixels from bar to bar

let recorder = null;
let waiting = false;
let levels = [];
let drawAgain = () => {};

/** Whether the microphone is on. */
export function recording() {
  return recorder !== null;
}

function drawLevels(ink, width, height) {
  ink.fillStyle = colour("recording");
  const latest = levels.slice(-Math.floor(width / STEP));
  latest.forEach((level, k) => {
    const tall = Math.max(2, Math.sqrt(Math.min(1, level)) * height);
    ink.fillRect(width - STEP * (latest.length - k), (height - tall) / 2, STEP / 2, tall);
  });
}

function onBlock(block, seconds) {
  levels.push(block.reduce((top, value) => Math.max(top, Math.abs(value)), 0));
  byId("clock").textContent = clock(seconds);
  drawAgain();
}

function show(on) {
  byId("record-words").textContent = on ? "Stop" : "Record";
  byId("record-help").textContent = on ? HELP.recording : HELP.ready;
  byId("record").classList.toggle("on", on);
  shown(byId("live"), on);
  shown(byId("or"), !on);
}

async function start() {
  if (waiting) return;
  const signal = begin();
  levels = [];
  byId("clock").textContent = clock(0);
  setStatus("Waiting for the microphone …", "thinking");
  const own = new Recorder(onBlock, () => attempt(stop));
  waiting = true;
  try {
    await own.start();
  } finally {
    waiting = false;
  }
  if (signal.aborted) return own.release();
  recorder = own;
  show(true);
  setStatus("Recording", "recording");
}

async function stop() {
  const own = recorder;
  if (!own) return;
  recorder = null;
  show(false);
  const { samples, rate } = await own.stop();
  if (!samples.length) throw new Problem("Nothing was recorded.", "Record for a second or more.");
  await askAudio(recordedClip(samples, rate), begin());
}

/** Throw away what is being recorded. */
export function discard() {
  if (!recorder) return;
  recorder.release();
  recorder = null;
  show(false);
  setStatus("The recording was thrown away.");
}

/** Make the button work. */
export function prepareMicrophone() {
  drawAgain = kept(byId("level"), drawLevels);
  byId("record").disabled = !Recorder.possible;
  byId("record-help").textContent = Recorder.possible ? HELP.ready : HELP.impossible;
  byId("record").addEventListener("click", () => attempt(recorder ? stop : start));
  document.addEventListener("keydown", ({ key }) => key === "Escape" && discard());
}
