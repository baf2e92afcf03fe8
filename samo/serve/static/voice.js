// Asking about a recording.
import * as api from "./api.js";
import { fileClip, smallerClip } from "./clip.js";
import { Player } from "./player.js";
import { Problem } from "./problem.js";
import { begin, repeatable, reveal, setStatus } from "./question.js";
import { chosen } from "./served.js";
import { spectrogramView } from "./spectrogram.js";
import { Timeline } from "./timeline.js";

const TOO_LARGE = 413;

/** The answer, and a note if the clip had to be sent in another form. */
async function predicted(model, clip, signal) {
  try {
    return [await api.predictAudio(model.name, clip.sent, signal), ""];
  } catch (problem) {
    const rate = model.reading?.sr;
    const smaller = problem.status === TOO_LARGE && rate ? await smallerClip(clip, rate) : null;
    if (!smaller) throw problem;
    const note = `The recording is too large for this server, so it was sent as mono sound at ${rate.toLocaleString("en")} Hz.`;
    return [await api.predictAudio(model.name, smaller.sent, signal), note];
  }
}

/** Ask the chosen model about a clip, and show its answer. */
export async function askAudio(clip, signal) {
  const model = chosen();
  repeatable(() => askAudio(clip, begin()));
  setStatus("Thinking …", "thinking");
  const [prediction, note] = await predicted(model, clip, signal);
  signal.throwIfAborted();
  const { duration_s: seconds, timeline: windows = [], spectrogram } = prediction;
  const play = clip.samples ? (from) => player.play(from) : null;
  const timeline = windows.length ? new Timeline(windows, seconds, play) : null;
  const player = new Player(clip, seconds, (at) => timeline?.at(at));
  reveal(prediction, model, {
    clip: [player.view, spectrogramView(spectrogram, seconds)],
    timeline: timeline?.view,
    note,
    close: () => player.close(),
  });
}

/** Ask about a file that somebody chose or dropped. */
export async function askFile(file) {
  const signal = begin();
  if (!file.size) throw new Problem(`“${file.name}” is empty.`, "Choose a recording.");
  setStatus("Reading the file …", "thinking");
  const clip = await fileClip(file);
  signal.throwIfAborted();
  await askAudio(clip, signal);
}
