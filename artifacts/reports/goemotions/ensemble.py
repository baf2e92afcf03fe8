"""GoEmotions, 28 labels: runs, the networks together, and these with tf-idf; thresholds as they are and steadier.

    python artifacts/reports/goemotions/ensemble.py [--to NAME] RUN...

RUN are folders of runs that ``samo evaluate`` has been through; their stored predictions are read. An ensemble is what
``samo ensemble`` makes: the mean of the members' probabilities, each under its own temperature, and then a temperature
and thresholds of its own. Everything is fitted on the validation part.

Decided by ``crossfit.py`` inside the validation part: smoothing 0.5 with shrinkage 8, the defaults of
``ThresholdSettings``, were chosen on a textcnn, tf-idf and their mean before MiniLM was trained, under a smoothing that
did not weigh thresholds by their spacing in logits. With it, the seeds 0 and 1 of MiniLM, tf-idf and the mean of the
three gave `crossfit.md`: over thresholds by class as they are, in 10 folds, +0.002, -0.005, +0.007 and +0.006 of
macro-F1. Shrinkage 2 gave 0.000, +0.005, +0.006 and +0.009. What the two differ by is mostly two labels with 13 and 18
rows, and the two seeds differ in which is better: the defaults stayed. Shrinkage without smoothing loses for MiniLM and
the mean from 5 on. Equal weights: fitted ones lost 0.005. No second stage over all 28 logits: it gained 0.005 for one
seed, nothing for the other and tf-idf, and lost 0.003 to 0.004 for the mean. No choice was made on test rows.

Intervals and p-values are of draws of the test rows, and speak of other rows, not of other seeds.
Writes ``NAME.json`` and ``NAME.md`` beside this file, of no name ``ensemble``. ``asymmetric`` holds two seeds of
``--preset minilm-asymmetric``: the first was trained to stand beside the networks of ``ensemble``, and alone had 0.546
of macro-F1 in 10 folds inside the validation part where these have 0.521 to 0.523 and all four together 0.541
(`crossfit-asymmetric.md`), so the test part was opened of it alone. The second was begun before that, and is reported
whatever it gave.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from samo.evaluation.decision import Decision, decided_rows, fit_decision
from samo.evaluation.metrics import macro_f1, per_class, tally
from samo.evaluation.paired_bootstrap import paired_bootstrap
from samo.evaluation.predictions import Predictions
from samo.evaluation.statistics import score_intervals, tally_by_unit
from samo.runs.run import Run
from samo.settings import ThresholdSettings
from samo.tasks import LabelSpace

HERE = Path(__file__).parent
PARTS = ("val", "test")
PLAIN = ThresholdSettings(threshold_shrinkage=0.0, threshold_smoothing=0.0)
RULES = {"plain": PLAIN, "steady": ThresholdSettings()}
N_RARE = 5


def main() -> None:
    """Write the table and the figures behind it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--to", default="ensemble", help="name of the files")
    args = parser.parse_args()
    runs = [Run(folder) for folder in args.runs]
    space = runs[0].manifest.label_space
    stored = {
        run.name: {part: Predictions.load(run.path(f"predictions.{part}.npz"), space) for part in PARTS} for run in runs
    }
    first = stored[runs[0].name]
    for name, parts in stored.items():
        assert all(parts[part].ids == first[part].ids for part in PARTS), f"{name} has other rows"
    models = dict(stored)
    networks = [run.name for run in runs if run.settings["model"] != "tfidf"]
    for names in (networks, list(stored)):
        if len(names) > 1:
            models[joined_name(names, networks)] = mean_of([stored[name] for name in names], space)
    answers = {name: {rule: answered(parts, space, settings) for rule, settings in RULES.items()}
               for name, parts in models.items()}  # fmt: skip
    rare = np.argsort(first["val"].targets.sum(axis=0))[:N_RARE]
    found = {
        "settings": {rule: settings.model_dump(mode="json") for rule, settings in RULES.items()},
        "rare": [space.primary.labels[k] for k in rare],
        "models": {name: {rule: facts(each, space, rare) for rule, each in by_rule.items()}
                   for name, by_rule in answers.items()},
        "differences": differences(answers, list(stored), space),
        "calibration_error": {run.name: _report(run)["calibration"]["ece"] for run in runs},
        "minutes": {run.name: sum(epoch["seconds"] for epoch in _epochs(run)) / 60 for run in runs},
    }  # fmt: skip
    (HERE / f"{args.to}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = table(found)
    (HERE / f"{args.to}.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def _report(run: Run) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(run.path("report.json").read_text(encoding="utf-8"))
    return report


def _epochs(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.path("history.jsonl").read_text(encoding="utf-8").splitlines()]


def joined_name(names: list[str], networks: list[str]) -> str:
    """How an ensemble is called in the table."""
    return f"{len(names)} networks" if names == networks else f"{len(networks)} networks and tf-idf"


def mean_of(members: list[dict[str, Predictions]], space: LabelSpace) -> dict[str, Predictions]:
    """Predictions of the mean of the members' probabilities, each under the temperature of its validation part."""
    decisions = [fit_decision(member["val"].logits, member["val"].targets, space, PLAIN) for member in members]
    mixed = {}
    for part in PARTS:
        own = [each.probabilities(member[part].logits, space) for each, member in zip(decisions, members, strict=True)]
        shares = np.clip(np.mean(own, axis=0), 1e-9, 1.0 - 1e-9)
        logits = (np.log(shares) - np.log1p(-shares)).astype(np.float32)
        like = members[0][part]
        mixed[part] = Predictions(like.ids, logits, like.targets, like.groups)
    return mixed


def answered(parts: dict[str, Predictions], space: LabelSpace, settings: ThresholdSettings) -> dict[str, Any]:
    """The decision fitted on validation, and what both parts' rows are answered with it."""
    decision = fit_decision(parts["val"].logits, parts["val"].targets, space, settings)
    rows = {part: _decided(decision, parts[part], space) for part in PARTS}
    return {"decision": decision, **rows}


def _decided(decision: Decision, predictions: Predictions, space: LabelSpace) -> Any:
    return decided_rows(space.primary, predictions, space, decision.calibration.temperature, decision.thresholds)


def facts(each: dict[str, Any], space: LabelSpace, rare: np.ndarray) -> dict[str, Any]:
    """What the table needs of one model under one rule."""
    labels = space.primary.labels
    f1 = {label: row["f1"] for label, row in per_class(each["test"], labels).items()}
    by_row = _by_row(each["test"])
    return {
        "macro_f1": float(macro_f1(tally(each["test"].truth, each["test"].predicted))),
        "interval": score_intervals(by_row, {"macro_f1": macro_f1})["macro_f1"],
        "val_macro_f1": float(macro_f1(tally(each["val"].truth, each["val"].predicted))),
        "rare": float(np.mean([f1[labels[k]] for k in rare])),
        "f1": f1,
        "thresholds": dict(zip(labels, each["decision"].thresholds.of(space.primary).tolist(), strict=True)),
    }


def differences(answers: dict[str, Any], members: list[str], space: LabelSpace) -> list[dict[str, Any]]:
    """Paired over the test rows: steady against plain of every model, and ensembles against what they are made of."""
    best = max(members, key=lambda name: float(macro_f1(tally(answers[name]["steady"]["val"].truth,
                                                              answers[name]["steady"]["val"].predicted))))  # fmt: skip
    joined = [name for name in answers if name not in members]
    pairs = [((name, "plain"), (name, "steady")) for name in answers]
    pairs += [((best, "steady"), (name, "steady")) for name in joined]
    pairs += [((joined[0], "steady"), (name, "steady")) for name in joined[1:]]
    pairs += [((best, "plain"), (name, "steady")) for name in joined]
    found = []
    for base, other in pairs:
        one, two = (_by_row(answers[name][rule]["test"]) for name, rule in (base, other))
        each = paired_bootstrap(one, two, {"macro_f1": macro_f1})["macro_f1"]
        found.append({"baseline": ", ".join(base), "other": ", ".join(other), "difference": each.difference,
                      "low": each.low, "high": each.high, "p": each.p})  # fmt: skip
    return found


def _by_row(decided: Any) -> Any:
    return tally_by_unit(decided.truth, decided.predicted, [""] * len(decided.rows))


def table(found: dict[str, Any]) -> str:
    """Markdown of scores, then of differences."""
    rare = ", ".join(found["rare"])
    lines = [f"| model | thresholds | test macro-F1 | 95 % over rows | validation | mean F1 of {rare} |",
             "| --- " * 6 + "|"]  # fmt: skip
    for name, rules in found["models"].items():
        for rule, each in rules.items():
            low, high = each["interval"]
            lines.append(f"| {name} | {rule} | **{each['macro_f1']:.3f}** | {low:.3f} to {high:.3f} | "
                         f"{each['val_macro_f1']:.3f} | {each['rare']:.3f} |")  # fmt: skip
    steady = found["settings"]["steady"]
    lines += ["", f"steady: `threshold_shrinkage` {steady['threshold_shrinkage']:g}, `threshold_smoothing` "
              f"{steady['threshold_smoothing']:g}, chosen in [`crossfit.md`](crossfit.md); plain: both 0.", "",
              "| against | | difference of test macro-F1 [95 % over rows] | p |", "| --- " * 4 + "|"]  # fmt: skip
    for each in found["differences"]:
        interval = f"{each['difference']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}]"
        lines.append(f"| {each['baseline']} | {each['other']} | {interval} | {each['p']:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
