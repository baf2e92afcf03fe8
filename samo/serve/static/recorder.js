// The microphone: uncompressed samples, without the browser's noise suppression and gain, which no model was trained with.
import { Problem } from "./problem.js";

// Three minutes at 48 kHz are 17 MB, below what a server takes unless it is told otherwise.
const MOST_S = 180;
const RAW = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

const REASONS = {
  NotAllowedError: ["The microphone is blocked.", "Allow it beside the address bar, or choose a file."],
  NotFoundError: ["No microphone was found.", "Plug one in, or choose a file."],
  NotReadableError: ["Another program uses the microphone.", "Close it, or choose a file."],
};

export class Recorder {
  /** @param {(block: Float32Array, seconds: number) => void} onBlock called as sound comes in */
  constructor(onBlock, onFull) {
    this.onBlock = onBlock;
    this.onFull = onFull;
  }

  /** Whether this browser lets a page at this address record at all. */
  static get possible() {
    return Boolean(navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode);
  }

  /** Begin; asks for permission. */
  async start() {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: RAW });
      this.context = new AudioContext();
      await this.context.audioWorklet.addModule(new URL("recorder-worklet.js", import.meta.url));
      await this.context.resume();
    } catch (error) {
      this.release();
      const [what, hint] = REASONS[error.name] ?? ["The microphone cannot be used.", "Choose a file instead."];
      throw new Problem(what, hint);
    }
    this.blocks = [];
    this.n = 0;
    this.worklet = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0 });
    this.ended = new Promise((resolve) => {
      this.worklet.port.onmessage = ({ data }) => (data ? this.take(data) : resolve());
    });
    this.context.createMediaStreamSource(this.stream).connect(this.worklet);
  }

  take(block) {
    this.blocks.push(block);
    this.n += block.length;
    const seconds = this.n / this.context.sampleRate;
    this.onBlock(block, seconds);
    if (seconds >= MOST_S) this.onFull();
  }

  /** End, and give the samples and their rate. */
  async stop() {
    this.worklet.port.postMessage("end");
    await this.ended;
    const rate = this.context.sampleRate;
    this.release();
    const samples = new Float32Array(this.n);
    let at = 0;
    for (const block of this.blocks) {
      samples.set(block, at);
      at += block.length;
    }
    return { samples, rate };
  }

  /** Give the microphone back. */
  release() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.context?.close();
  }
}
