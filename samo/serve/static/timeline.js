// A long recording's windows: a lane for each label, and stretches of one answer as buttons that play from there.
import { node, shape } from "./nodes.js";
import { clock, counted, percent } from "./numbers.js";

const UNSURE = "not sure";
const LANE = 22;

/** @typedef {{start_s: number, end_s: number, label: string, abstained: boolean, probabilities: Object<string, number>}} Window */

function answerOf(window) {
  return window.abstained ? UNSURE : window.label || "none";
}

/** Windows that follow one another with one answer, as one. */
export function stretches(windows) {
  const found = [];
  for (const [i, window] of windows.entries()) {
    const answer = answerOf(window);
    // The last window overlaps the one before, and rounding others.
    const end = Math.min(window.end_s, windows[i + 1]?.start_s ?? window.end_s);
    const share = window.probabilities[window.label] ?? 0;
    const last = found.at(-1);
    if (last?.answer === answer) {
      last.end_s = end;
      last.shares.push(share);
    } else {
      found.push({ answer, start_s: window.start_s, end_s: end, shares: [share] });
    }
  }
  return found.map(({ shares, ...rest }) => ({ ...rest, share: shares.reduce((a, b) => a + b) / shares.length }));
}

export class Timeline {
  /**
   * @param {Window[]} windows
   * @param {number} duration in seconds
   * @param {((seconds: number) => void)|null} play from a second on; null where the browser cannot play it
   */
  constructor(windows, duration, play) {
    this.duration = duration;
    this.stretches = stretches(windows);
    this.play = play ?? (() => {});
    this.list = this.buttons();
    this.view = [
      node("h3", {}, "Over time"),
      node("p", { class: "help" }, `${counted(windows.length, "window")}.${play ? " Press one to hear it." : ""}`),
      this.lanes(windows),
      this.list,
    ];
  }

  /** The answers that occur, the most frequent first, "not sure" last. */
  names(windows) {
    const counts = new Map();
    for (const window of windows) counts.set(answerOf(window), (counts.get(answerOf(window)) ?? 0) + 1);
    const rank = (name) => (name === UNSURE ? -1 : counts.get(name));
    return [...counts.keys()].sort((a, b) => rank(b) - rank(a));
  }

  lanes(windows) {
    const names = this.names(windows);
    const height = LANE * names.length;
    const drawing = shape("svg", { viewBox: `0 0 1000 ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    drawing.style.height = `${height}px`;
    names.forEach((_, lane) => {
      drawing.append(shape("rect", { class: "lane", x: 0, y: lane * LANE + 3, width: 1000, height: LANE - 6 }));
    });
    const x = (seconds) => (1000 * seconds) / this.duration;
    windows.forEach((window, i) => {
      const end = Math.min(window.end_s, windows[i + 1]?.start_s ?? window.end_s);
      const lane = names.indexOf(answerOf(window));
      const mark = shape("rect", {
        class: window.abstained ? "mark unsure" : "mark",
        x: x(window.start_s), y: lane * LANE + 3, width: Math.max(1, x(end) - x(window.start_s)), height: LANE - 6,
        "fill-opacity": 0.25 + 0.75 * (window.probabilities[window.label] ?? 0),
      });
      mark.append(shape("title", {}, `${clock(window.start_s)} ${answerOf(window)}`));
      drawing.append(mark);
    });
    this.needle = shape("line", { class: "needle", x1: 0, x2: 0, y1: 0, y2: height, "vector-effect": "non-scaling-stroke" });
    drawing.append(this.needle);
    drawing.addEventListener("click", (event) => {
      const { left, width } = drawing.getBoundingClientRect();
      this.play((this.duration * (event.clientX - left)) / width);
    });
    const labels = node("ul", { class: "names", "aria-hidden": "true" }, ...names.map((name) => node("li", {}, name)));
    const ends = node("div", { class: "ends", "aria-hidden": "true" }, node("span", {}, "0:00"), node("span", {}, clock(this.duration)));
    return node("div", { class: "lanes" }, labels, node("div", { class: "plot" }, drawing, ends));
  }

  buttons() {
    const rows = this.stretches.map(({ answer, start_s: start, end_s: end, share }) => {
      const button = node(
        "button", { type: "button", class: answer === UNSURE ? "unsure" : null },
        node("span", { class: "when" }, `${clock(start)} – ${clock(end)}`),
        node("span", { class: "name" }, answer),
        node("data", { value: share }, answer === UNSURE ? "" : percent(share)),
      );
      button.addEventListener("click", () => this.play(start));
      return node("li", {}, button);
    });
    return node("ol", { class: "stretches", "aria-label": "Time line" }, ...rows);
  }

  /** Mark what is heard at this second. */
  at(seconds) {
    const x = (1000 * seconds) / this.duration;
    this.needle.setAttribute("x1", x);
    this.needle.setAttribute("x2", x);
    const current = this.stretches.findLastIndex(({ start_s: start }) => start <= seconds);
    if (current === this.current) return;
    this.list.children[this.current]?.firstChild.removeAttribute("aria-current");
    if (current >= 0) this.list.children[current].firstChild.setAttribute("aria-current", "true");
    this.current = current;
  }
}
