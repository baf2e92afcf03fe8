// A model in plain words: what it answers, what it learned from, how good it is, what it must not be used for, and its card.
import { markdown, sections } from "./markdown.js";
import { node } from "./nodes.js";

// Sections of the card that everybody should read, with the words that they have here.
const PLAIN = [
  ["Out of scope", "What it must not be used for"],
  ["Intended use", "What it is for"],
  ["Limitations", "Where it fails"],
];

/** All about one entry of `/v1/models`. */
export function factsView(model) {
  const card = model.card ? sections(model.card) : new Map();
  return [
    ...stamps(model),
    node("dl", { class: "facts" }, ...lines(model)),
    node("div", { class: "plain" }, ...PLAIN.filter(([title]) => card.get(title)?.trim()).map(([title, words]) =>
      node("section", {}, node("h3", {}, words), node("div", { class: "prose" }, ...markdown(card.get(title)))),
    )),
    model.card
      ? node("details", {}, node("summary", {}, "The whole model card"), node("div", { class: "prose card-text" }, ...markdown(model.card)))
      : node("p", { class: "help" }, "This model brings no card: nobody has evaluated it, so take its answers as a trial."),
  ];
}

function stamps(model) {
  const found = [
    model.synthetic && "Trained on synthetic demo data, which was generated and not recorded from people: a demonstration, nothing more.",
    model.leaky && "The same speakers may stand in its training and its test data: its scores are too high.",
  ].filter(Boolean);
  return found.map((text) => node("p", { class: "notice" }, text));
}

function lines(model) {
  const tasks = model.tasks.map((task) => `${task.name}: ${task.labels.join(", ")}`);
  const several = model.tasks.some((task) => task.multi_label) ? ["Several labels may hold at once."] : [];
  const sure = Object.values(model.abstention ?? {}).some((least) => least > 0);
  const pairs = [
    ["Name", [model.name]],
    ["Answers", [...tasks, ...several]],
    ["Learned from", model.dataset ? [model.dataset] : []],
    ["Network", model.network ? [model.network] : []],
    ["Trained", model.trained ? [model.trained] : []],
    ["Score", model.scores ?? []],
    ["When unsure", [sure ? "It says “not sure” below a confidence that was set on validation data." : "It always answers, unless there is nothing to hear or read."]],
  ];
  return pairs.filter(([, texts]) => texts.length).flatMap(([title, texts]) => [
    node("dt", {}, title),
    node("dd", {}, ...texts.map((text) => node("p", {}, text))),
  ]);
}
