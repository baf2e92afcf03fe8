// A recording as bars of its loudest samples; what was played is in the accent colour.
import { colour } from "./ink.js";

const STEP = 3; // pixels from bar to bar
const WIDTH = 2;

/** The largest absolute sample of each of n equal pieces, in [0, 1] of the largest of all. */
export function peaks(samples, n) {
  const found = new Float32Array(n);
  for (let k = 0; k < n; k++) {
    const end = Math.floor(((k + 1) * samples.length) / n);
    for (let i = Math.floor((k * samples.length) / n); i < end; i++) found[k] = Math.max(found[k], Math.abs(samples[i]));
  }
  const top = found.reduce((a, b) => Math.max(a, b), 0);
  return top > 1e-4 ? found.map((value) => value / top) : found;
}

/** Draw bars; `played` is the share in [0, 1] that is drawn in the accent colour. */
export function drawWaveform(ink, width, height, heights, played) {
  const [before, after] = [colour("accent"), colour("wave")];
  heights.forEach((value, k) => {
    const tall = Math.max(WIDTH, value * (height - 4));
    ink.fillStyle = (k + 0.5) / heights.length <= played ? before : after;
    ink.beginPath();
    ink.roundRect(k * STEP, (height - tall) / 2, WIDTH, tall, WIDTH / 2);
    ink.fill();
  });
}

/** How many bars fit. */
export function barsIn(width) {
  return Math.max(1, Math.floor((width + STEP - WIDTH) / STEP));
}
