// What a model answered: the label in large letters, and the probability of every label as a bar.
import { node } from "./nodes.js";
import { percent } from "./numbers.js";

// More labels than this are behind a button.
const FIRST = 10;

// Warnings after which nothing was heard, as the server words them.
const NOTHING_HEARD = new Map([
  ["silent", "it is silent"],
  ["constant", "it is one constant tone"],
  ["shorter than 0.1 s", "it is shorter than 0.1 s"],
  ["empty", "it is empty"],
]);

/** The answer in one sentence, for those who hear the page. */
export function spoken(prediction) {
  const parts = Object.entries(prediction.tasks).map(([task, answer], _, all) => {
    const named = answer.labels.map((label) => `${label}, ${percent(answer.probabilities[label])}`).join("; ");
    const words = answer.abstained ? `not sure; closest is ${answer.likeliest}` : named || `none; closest is ${answer.likeliest}`;
    return all.length > 1 ? `${task}: ${words}` : words;
  });
  return `Answer: ${parts.join(". ")}.`;
}

/** The answers of a prediction, a block for each task; a note of the page's own stands below. */
export function answersView(prediction, model, note = "") {
  const tasks = Object.entries(prediction.tasks);
  return [
    ...tasks.map(([task, answer]) => taskView(task, answer, prediction.warnings, model, tasks.length > 1)),
    ...warningsView(prediction),
    ...(note ? [node("p", { class: "notice" }, note)] : []),
  ];
}

function taskView(task, answer, warnings, model, named) {
  return node(
    "section", { class: "answer", "data-task": task, "data-abstained": String(answer.abstained) },
    named && node("p", { class: "task" }, task),
    headline(answer),
    explained(task, answer, warnings, model),
    ...bars(task, answer, model),
  );
}

function headline(answer) {
  if (answer.abstained) return node("p", { class: "label unsure" }, "not sure");
  if (!answer.labels.length) return node("p", { class: "label unsure" }, "none");
  return node("p", { class: answer.labels.length > 2 ? "label many" : "label" }, answer.labels.join(", "));
}

/** One sentence below the label: how sure, or why there is no answer. */
function explained(task, answer, warnings, model) {
  const closest = answer.labels[0] ?? answer.likeliest;
  const share = percent(answer.probabilities[closest]);
  if (!answer.abstained) {
    if (!answer.labels.length) return node("p", { class: "sure" }, `No label reaches its threshold. Closest is ${closest}, ${share}.`);
    const several = `${answer.labels.length} labels reach their thresholds, the marks on the bars.`;
    return node("p", { class: "sure" }, answer.labels.length > 1 ? several : `${share} sure`);
  }
  const unheard = warnings.find((warning) => NOTHING_HEARD.has(warning));
  if (unheard) return node("p", { class: "sure" }, `There is nothing to tell an answer by: ${NOTHING_HEARD.get(unheard)}.`);
  const least = model.abstention?.[task];
  const needed = least > 0 && least <= 1 ? ` This model answers from a confidence of ${percent(least)} on.` : "";
  return node("p", { class: "sure" }, `Closest is ${answer.labels.join(", ") || closest}, ${share}.${needed}`);
}

function bars(task, answer, model) {
  const ranked = Object.entries(answer.probabilities).sort(([, a], [, b]) => b - a);
  // Of a task with several labels: from which probability on each counts.
  const ticks = new Map(Object.entries(model.thresholds?.[task] ?? {}));
  const list = node("ul", { class: "bars", "aria-label": `Probability of each ${task} label` });
  list.append(...ranked.map(([label, share], i) => bar(label, share, answer, ticks.get(label), i >= FIRST)));
  if (ranked.length <= FIRST + 1) {
    for (const row of list.children) row.hidden = false;
    return [list];
  }
  const more = node("button", { type: "button", class: "more", "aria-expanded": "false" }, `Show all ${ranked.length}`);
  more.addEventListener("click", () => {
    const open = more.getAttribute("aria-expanded") === "false";
    [...list.children].slice(FIRST).forEach((row) => (row.hidden = !open));
    more.setAttribute("aria-expanded", String(open));
    more.textContent = open ? `Show the first ${FIRST}` : `Show all ${ranked.length}`;
  });
  return [list, more];
}

function bar(label, share, answer, tick, hidden) {
  const given = answer.labels.includes(label);
  const filled = node("span", { class: "filled" });
  filled.style.width = `${100 * share}%`;
  const track = node("span", { class: "track", "aria-hidden": "true" }, filled);
  if (tick !== undefined) {
    const mark = node("span", { class: "tick", title: `counts from ${percent(tick)} on` });
    mark.style.left = `${100 * tick}%`;
    track.append(mark);
  }
  const number = node("data", { value: share }, percent(share));
  const held = given && !answer.abstained;
  const own = held ? [node("span", { class: "unseen" }, " (answered)")] : [];
  return node("li", { class: held ? "given" : null, hidden }, node("span", { class: "name" }, label, own), track, number);
}

/** What to know before one believes the answer; what explains a missing one was named there. */
function warningsView({ warnings, abstained }) {
  const open = warnings.filter((warning) => !(abstained && NOTHING_HEARD.has(warning)));
  return open.map((warning) => node("p", { class: "notice" }, `${warning[0].toUpperCase()}${warning.slice(1)}.`));
}
