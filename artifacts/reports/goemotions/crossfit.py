"""What to do with the logits of GoEmotions' 28 labels, decided by cross-fitting inside the validation part alone.

    python artifacts/reports/goemotions/crossfit.py [--to NAME] RUN...

RUN are folders of runs that ``samo evaluate`` has been through; only their ``predictions.val.npz`` is read. Rules are
fitted on all folds of the validation rows but one and answer that; the answers of all folds together have one macro-F1,
and the mean over repeats is written. Folds are drawn anew in each repeat, the same for every rule. Halves are harder
than life (half the rows of a rare label to fit on), tenths nearest to it.

Three questions, each of every run and of the mean of all of them:

thresholds  how they are chosen: by class as they are, or smoothed (standard deviation in logits) and shrunk (rows)
second      whether a regression that sees all 28 logits helps: z + W z + b with an L2 penalty on W, thresholds after it
weights     whether members' weights are better fitted (the targets' likelihood, as `samo ensemble --weights fitted`)

Temperatures are fitted once on all validation rows: one number for 152,000 outcomes. The files kept here are of the
seeds 0 and 1 of MiniLM and of tf-idf; the defaults of ``ThresholdSettings`` were chosen before, on a textcnn, tf-idf
and their mean, and stayed; ``ensemble.py`` says why. Writes ``NAME.json`` and
``NAME.md`` beside this file, of no name ``crossfit``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from samo.ensembles.weights import fit_weights
from samo.evaluation.calibration import apply_temperature, fit_temperature
from samo.evaluation.metrics import f1_by_threshold, macro_f1, mean_over_present, tally
from samo.evaluation.predictions import Predictions
from samo.evaluation.thresholds import best_threshold, shrunk, smoothed, threshold_grid
from samo.runs.run import Run
from samo.settings import ThresholdSettings

HERE = Path(__file__).parent
GRID = threshold_grid(ThresholdSettings())
Array = npt.NDArray[np.float64]
# (how often the rows are cut into so many folds): repeats
FOLDS = {2: 20, 5: 8, 10: 4}
SMOOTHING, SHRINKAGE = (0.0, 0.3, 0.5, 0.7), (0.0, 2.0, 5.0, 8.0, 12.0, 20.0, 40.0)
PENALTIES = (100.0, 1000.0)
CHOSEN = (0.5, 8.0)


def main() -> None:
    """Answer the three questions and write them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--to", default="crossfit", help="name of the files")
    args = parser.parse_args()
    runs = [Run(folder) for folder in args.runs]
    space = runs[0].manifest.label_space
    parts = [Predictions.load(run.path("predictions.val.npz"), space) for run in runs]
    targets = parts[0].targets
    assert all(part.ids == parts[0].ids and np.array_equal(part.targets, targets) for part in parts)
    truth = targets >= 0.5
    scaled = [apply_temperature(part.logits, fit_temperature(part.logits, targets, space), space) for part in parts]
    shares = {run.name: space.probabilities(logits) for run, logits in zip(runs, scaled, strict=True)}
    if len(runs) > 1:
        shares["mean of all"] = np.mean(list(shares.values()), axis=0)
    found: dict[str, Any] = {"rows": len(truth), "runs": [run.name for run in runs]}
    found["thresholds"] = {name: thresholds_compared(given, truth) for name, given in shares.items()}
    found["second"] = {name: second_stage_compared(given, truth) for name, given in shares.items()}
    if len(runs) > 1:
        found["weights"] = weights_compared(np.stack(scaled), targets, space)
    (HERE / f"{args.to}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = "\n\n".join(
        table(question, found[question]) for question in ("thresholds", "second", "weights") if question in found
    )
    (HERE / f"{args.to}.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def folds(n: int, count: int, repeats: int) -> Iterator[list[npt.NDArray[np.bool_]]]:
    """For each repeat the rows of each fold."""
    draw = np.random.default_rng(0)
    for _ in range(repeats):
        place = draw.permutation(np.arange(n) % count)
        yield [place == fold for fold in range(count)]


def crossfitted(
    truth: np.ndarray, rules: Callable[[np.ndarray, np.ndarray], dict[Any, np.ndarray]], count: int, repeats: int
) -> dict[Any, list[float]]:
    """Macro-F1 by rule and repeat. ``rules(fit, rest)`` gives the answers of the rows ``rest``, fitted on ``fit``."""
    scores: dict[Any, list[float]] = {}
    for cut in folds(len(truth), count, repeats):
        answers: dict[Any, np.ndarray] = {}
        for rest in cut:
            for name, answered in rules(~rest, rest).items():
                answers.setdefault(name, np.zeros_like(truth))[rest] = answered
        for name, answered in answers.items():
            scores.setdefault(name, []).append(float(macro_f1(tally(truth, answered))))
    return scores


def fitted(shares: Array, truth: np.ndarray) -> Iterator[tuple[tuple[float, float], Array]]:
    """Thresholds by (smoothing, shrinkage), then the one of all labels."""
    scores, support = f1_by_threshold(truth, shares, GRID), truth.sum(axis=0)
    common = best_threshold(GRID, mean_over_present(scores, support))
    for width in SMOOTHING:
        curves = smoothed(GRID, scores, width)
        own = np.array([best_threshold(GRID, curve) if curve.max() > 0 else common for curve in curves.T])
        for n0 in SHRINKAGE:
            yield (width, n0), shrunk(own, common, support, n0)
    yield (0.0, np.inf), np.full(len(support), common)


def thresholds_compared(shares: Array, truth: np.ndarray) -> dict[str, Any]:
    """Every rule against thresholds by class as they are."""

    def rules(fit: np.ndarray, rest: np.ndarray) -> dict[Any, np.ndarray]:
        return {name: shares[rest] >= cuts for name, cuts in fitted(shares[fit], truth[fit])}

    by_folds = {count: crossfitted(truth, rules, count, repeats) for count, repeats in FOLDS.items()}
    names = next(iter(by_folds.values()))
    plain = {count: found[0.0, 0.0] for count, found in by_folds.items()}
    return {
        f"smoothing {width:g}, shrinkage {n0:g}": against(
            {count: found[width, n0] for count, found in by_folds.items()}, plain
        )
        for width, n0 in names
    }


def second_stage_compared(shares: Array, truth: np.ndarray) -> dict[str, Any]:
    """A regression over all labels' logits against none, thresholds as :data:`CHOSEN` after either."""
    logits = np.log(shares) - np.log1p(-shares)

    def rules(fit: np.ndarray, rest: np.ndarray) -> dict[Any, np.ndarray]:
        answers = {}
        for penalty in (np.inf, *PENALTIES):
            after = logits if np.isinf(penalty) else corrected(logits, fit, truth[fit], penalty)
            given = 1.0 / (1.0 + np.exp(-after))
            cuts = dict(fitted(given[fit], truth[fit]))[CHOSEN]
            answers[penalty] = given[rest] >= cuts
        return answers

    found = crossfitted(truth, rules, 5, 2)
    return {f"penalty {penalty:g}": against({5: scores}, {5: found[np.inf]}) for penalty, scores in found.items()}


def corrected(logits: Array, fit: np.ndarray, truth: np.ndarray, penalty: float) -> Array:
    """z + W x + b of all rows, x the standardised logits; W, b minimise cross-entropy + penalty / 2 |W|^2 on `fit`."""
    mean, sd = logits[fit].mean(axis=0), logits[fit].std(axis=0)
    features = np.concatenate([(logits - mean) / sd, np.ones((len(logits), 1))], axis=1)
    learned, ridge = features[fit], np.append(np.full(logits.shape[1], penalty), 1.0)
    after = logits.copy()
    for label in range(logits.shape[1]):
        weights = np.zeros(features.shape[1])
        for _ in range(4):  # Newton's steps
            share = 1.0 / (1.0 + np.exp(-(logits[fit, label] + learned @ weights)))
            slope = learned.T @ (share - truth[:, label]) + ridge * weights
            curve = (learned * (share * (1.0 - share))[:, None]).T @ learned + np.diag(ridge)
            weights -= np.linalg.solve(curve, slope)
        after[:, label] += features @ weights
    return after


def weights_compared(logits: Array, targets: np.ndarray, space: Any) -> dict[str, Any]:
    """Members' weights fitted against equal ones, thresholds as :data:`CHOSEN`."""
    truth = targets >= 0.5
    shares, kept = 1.0 / (1.0 + np.exp(-logits)), torch.from_numpy(logits)

    def rules(fit: np.ndarray, rest: np.ndarray) -> dict[Any, np.ndarray]:
        part = kept[:, torch.from_numpy(fit)]
        weights = fit_weights(part, targets[fit], np.ones(int(fit.sum())), space)
        answers = {}
        for name, given in (("equal", shares.mean(axis=0)), ("fitted", np.tensordot(weights, shares, 1))):
            cuts = dict(fitted(given[fit], truth[fit]))[CHOSEN]
            answers[name] = given[rest] >= cuts
        return answers

    found = crossfitted(truth, rules, 5, 2)
    whole = fit_weights(kept, targets, np.ones(len(targets)), space)
    return {
        "equal": against({5: found["equal"]}, {5: found["equal"]}),
        f"fitted ({', '.join(f'{weight:.2f}' for weight in whole)})": against(
            {5: found["fitted"]}, {5: found["equal"]}
        ),
    }


def against(scores: dict[int, list[float]], base: dict[int, list[float]]) -> dict[str, Any]:
    """Mean over repeats and of the difference from another rule on the same folds, by how many folds."""
    facts = {}
    for count, values in scores.items():
        gains = [one - other for one, other in zip(values, base[count], strict=True)]
        facts[str(count)] = {"macro_f1": fmean(values), "gain": fmean(gains), "sd": stdev(gains)}
    return facts


def table(question: str, by_model: dict[str, Any]) -> str:
    """Markdown: a line a rule, the gain over the first rule by number of folds."""
    if question == "weights":
        by_model = {"members": by_model}
    lines = []
    for model, rules in by_model.items():
        counts = list(next(iter(rules.values())))
        lines += ["", f"| {question}: {model} | " + " | ".join(f"{n} folds" for n in counts) + " |",
                  "| --- " * (len(counts) + 1) + "|"]  # fmt: skip
        for rule, facts in rules.items():
            cells = [f"{each['macro_f1']:.4f} ({each['gain']:+.4f} ± {each['sd']:.4f})" for each in facts.values()]
            lines.append(f"| {rule} | " + " | ".join(cells) + " |")
    return "\n".join(lines).strip()


if __name__ == "__main__":
    main()
