// A recording to look at and to hear: waveform, play, seek.
import { kept } from "./ink.js";
import { node, shape } from "./nodes.js";
import { clock } from "./numbers.js";
import { barsIn, drawWaveform, peaks } from "./waveform.js";

const PLAY = "M7 4.500v15l12-7.500z";
const PAUSE = "M7 5h3.500v14H7zM13.500 5H17v14h-3.500z";

export class Player {
  /**
   * @param {import("./clip.js").Clip} clip
   * @param {number} duration in seconds, as the server measured it
   * @param {(seconds: number) => void} onTime called while it plays
   */
  constructor(clip, duration, onTime) {
    this.clip = clip;
    this.duration = duration;
    this.onTime = onTime;
    this.address = URL.createObjectURL(clip.played);
    this.sound = new Audio(this.address);
    this.sound.preload = "auto";
    this.view = this.build();
    this.listen();
  }

  build() {
    this.canvas = node("canvas", { "aria-hidden": "true" });
    this.seek = node("input", {
      type: "range", min: 0, max: Math.max(this.duration, 0.01), step: Math.max(0.01, this.duration / 200), value: 0,
      "aria-label": "Position in the recording",
    });
    this.icon = shape("path");
    const drawing = shape("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, this.icon);
    this.button = node("button", { type: "button", class: "play" }, drawing);
    this.time = node("span", { class: "clock" });
    const save = node("a", { class: "save", href: this.address, download: this.clip.name }, "Save");
    const wave = this.clip.samples
      ? node("div", { class: "wave" }, this.canvas, this.seek)
      : node("p", { class: "help" }, "This browser cannot draw or play this kind of file; the server read it.");
    const title = node("p", { class: "file" }, node("span", { class: "name", title: this.clip.name }, this.clip.name));
    if (this.clip.recorded) title.append(save);
    const row = this.clip.samples ? node("div", { class: "controls" }, this.button, wave, this.time) : wave;
    return node("div", { class: "player" }, title, row);
  }

  listen() {
    this.draw = kept(this.canvas, (ink, width, height) => {
      const n = barsIn(width);
      if (this.heights?.length !== n) this.heights = peaks(this.clip.samples, n);
      drawWaveform(ink, width, height, this.heights, this.at / this.duration);
    });
    this.button.addEventListener("click", () => (this.sound.paused ? this.play() : this.sound.pause()));
    this.seek.addEventListener("input", () => this.move(Number(this.seek.value)));
    for (const event of ["play", "pause", "ended", "timeupdate"]) this.sound.addEventListener(event, () => this.update());
    this.at = 0;
    this.update();
  }

  /** Play, from a second on if one is given. */
  async play(seconds) {
    if (seconds !== undefined) this.move(seconds);
    try {
      await this.sound.play();
      this.follow();
    } catch {
      // Stopped again before it began, or of a kind that this browser cannot play.
    }
  }

  move(seconds) {
    this.sound.currentTime = seconds;
    this.at = seconds;
    this.update(seconds);
  }

  follow() {
    this.update();
    if (!this.sound.paused && !this.sound.ended) requestAnimationFrame(() => this.follow());
  }

  update(seconds = this.sound.currentTime) {
    this.at = Math.min(seconds, this.duration);
    const playing = !this.sound.paused && !this.sound.ended;
    this.icon.setAttribute("d", playing ? PAUSE : PLAY);
    this.button.setAttribute("aria-label", playing ? "Pause" : "Play");
    this.seek.value = this.at;
    this.seek.setAttribute("aria-valuetext", `${clock(this.at)} of ${clock(this.duration)}`);
    this.time.textContent = `${clock(this.at)} / ${clock(this.duration)}`;
    this.draw?.();
    if (playing || this.at > 0) this.onTime(this.at);
  }

  /** Stop, and forget the recording. */
  close() {
    this.sound.pause();
    URL.revokeObjectURL(this.address);
  }
}
