// The spectrogram that the network saw, as the server sends it.
import { colour, kept } from "./ink.js";
import { node } from "./nodes.js";
import { length } from "./numbers.js";

/** The bytes of base64. */
function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function channels(name) {
  const [, r, g, b] = /^#(..)(..)(..)$/.exec(colour(name));
  return [r, g, b].map((digits) => parseInt(digits, 16));
}

/** 256 colours from quiet to loud, through the four of the style sheet. */
function ramp() {
  const stops = ["quiet", "low", "mid", "loud"].map(channels);
  return Array.from({ length: 256 }, (_, value) => {
    const place = (value / 255) * (stops.length - 1);
    const from = Math.min(Math.floor(place), stops.length - 2);
    return stops[from].map((begin, k) => begin + (place - from) * (stops[from + 1][k] - begin));
  });
}

/** As an image of a pixel a value, the lowest band at the bottom. */
function imageOf({ bands, frames }, values) {
  const image = new ImageData(frames, bands);
  const colours = ramp();
  for (let band = 0; band < bands; band++) {
    for (let frame = 0; frame < frames; frame++) {
      const at = 4 * ((bands - 1 - band) * frames + frame);
      image.data.set(colours[values[band * frames + frame]], at);
      image.data[at + 3] = 255;
    }
  }
  return image;
}

/** The picture with its caption; a sentence where the network sees none. `duration` is the recording's in seconds. */
export function spectrogramView(spectrogram, duration) {
  if (!spectrogram) return node("p", { class: "help" }, "This model has no spectrogram to show.");
  const { bands, frames, window_s: window } = spectrogram;
  const canvas = node("canvas", { role: "img", "aria-label": `Spectrogram of ${bands} bands and ${frames} frames` });
  const values = bytesOf(spectrogram.values);
  // Behind a clip that is shorter than the window there is only padding.
  const filled = Math.max(1, Math.min(frames, Math.round((frames * duration) / window)));
  kept(canvas, (ink, width, height) => {
    const small = new OffscreenCanvas(frames, bands);
    small.getContext("2d").putImageData(imageOf(spectrogram, values), 0, 0);
    ink.imageSmoothingEnabled = true;
    ink.drawImage(small, 0, 0, filled, bands, 0, 0, width, height);
  });
  const part = duration > window + 0.05 ? `the first ${length(window)}` : "the recording";
  return node(
    "figure", { class: "spectrogram" },
    node("div", { class: "axes" }, node("span", { class: "high" }, "high"), node("span", { class: "low" }, "low"), canvas),
    node("figcaption", {}, `What the model saw of ${part}: pitch upwards, time to the right, in ${bands} bands.`),
  );
}
