"""How often do SAMO's 95 % intervals hold the truth, and its verdicts stay silent between equals? Run by hand.

Each case draws many test parts from a world whose true score is known, and counts how often an interval holds it. Three
intervals are compared: Wilson's for the rows they are worth (reports now), the percentiles of the bootstrap (reports
before), and, with groups, Wilson's over rows that ignores groups. More cases draw two models: the paired interval of an
ensemble's gain, that of a difference over few rows, and the verdict of a table over seeds on one split.

    .venv/bin/python benchmarks/interval_coverage.py --write artifacts/reports/coverage/results.md

One core, about six minutes for 400 trials. The standard error of a share p over n trials is sqrt(p (1 - p) / n): 1.1
points at 95 % and 400 trials.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from samo.evaluation.metrics import Metric, Tally, accuracy, macro_f1, tally
from samo.evaluation.paired_bootstrap import paired_bootstrap
from samo.evaluation.significance import paired_difference, verdict
from samo.evaluation.statistics import Intervals, score_intervals, tally_by_unit

# Rows of the 28 labels among GoEmotions' 5,427 test rows.
GOEMOTIONS = (
    504, 264, 198, 320, 351, 135, 153, 284, 83, 151, 267, 123, 37, 103, 78, 352, 11, 186, 161, 238, 23, 186, 16, 145,
    11, 56, 156, 1787,
)  # fmt: skip

KINDS: tuple[Intervals, ...] = ("wilson", "percentile")
Rows = tuple[np.ndarray, np.ndarray, list[str]]
Draw = Callable[[np.random.Generator], Rows]


@dataclass(frozen=True)
class Case:
    """A world: how its test parts are drawn ((N, L) truth, (N, L) answers, N groups), its score and the truth of it."""

    name: str
    draw: Draw
    metric: Metric
    true: float


def indicators(classes: np.ndarray, n: int) -> np.ndarray:
    """(N,) class numbers as (N, n) bool."""
    return np.asarray(classes)[:, None] == np.arange(n)


def people(
    rng: np.random.Generator, n_groups: int, n_classes: int, rows_per_class: int, spread: float, ease: float = 0.5
) -> Rows:
    """Groups with an ease of their own and by class, in logits; a wrong row is one of the other classes."""
    groups = np.repeat(np.arange(n_groups), n_classes * rows_per_class)
    truth = np.tile(np.repeat(np.arange(n_classes), rows_per_class), n_groups)
    by_class = ease + np.linspace(-1.0, 1.0, n_classes)[None, :] + rng.normal(0.0, spread, (n_groups, 1))
    by_class = by_class + rng.normal(0.0, spread, (n_groups, n_classes))
    right = rng.random(len(truth)) < 1.0 / (1.0 + np.exp(-by_class[groups, truth]))
    other = (truth + rng.integers(1, n_classes, len(truth))) % n_classes
    given = np.where(right, truth, other)
    return indicators(truth, n_classes), indicators(given, n_classes), [str(group) for group in groups]


def unnamed(rng: np.random.Generator, n_groups: int, share: float, kind: str) -> Rows:
    """Rows of :func:`people` of which some lost their group: single rows, whole groups, or one group with most rows."""
    truth, given, names = people(rng, n_groups, 8, 8, 0.6)
    groups = np.array(names, dtype=object)
    if kind == "one group":
        first, others = np.flatnonzero(groups == "0"), np.flatnonzero(groups != "0")
        kept = rng.choice(others, int(len(first) * (1 - share) / share), replace=False)
        rows = np.concatenate([first, kept])
        truth, given, groups = truth[rows], given[rows], groups[rows]
        lost = groups == "0"
    elif kind == "groups":
        lost = np.isin(groups, [str(k) for k in rng.choice(n_groups, max(1, round(share * n_groups)), replace=False)])
    else:
        lost = rng.random(len(truth)) < share
    return truth, given, ["" if gone else name for name, gone in zip(groups, lost, strict=True)]


def labels(rng: np.random.Generator, n: int) -> Rows:
    """Multi-label rows with the label frequencies of GoEmotions; each label is found with a chance of its own."""
    own = np.random.default_rng(5)
    share, found = np.array(GOEMOTIONS) / 5427, np.linspace(0.25, 0.85, 28)[own.permutation(28)]
    precision = np.clip(found + own.normal(0, 0.1, 28), 0.2, 0.9)
    alarm = share * found * (1 - precision) / precision / (1 - share)
    truth = rng.random((n, 28)) < share
    return truth, np.where(truth, rng.random((n, 28)) < found, rng.random((n, 28)) < alarm), [""] * n


def rare(rng: np.random.Generator, n: int, n_classes: int, right: float) -> Rows:
    """Single-label rows, the commonest class ten times as frequent as the rarest."""
    share = np.linspace(1.0, 0.1, n_classes)
    truth = rng.choice(n_classes, n, p=share / share.sum())
    chance = np.clip(np.linspace(right - 0.15, right + 0.15, n_classes), 0.05, 0.99)[truth]
    given = np.where(rng.random(n) < chance, truth, (truth + rng.integers(1, n_classes, n)) % n_classes)
    return indicators(truth, n_classes), indicators(given, n_classes), [""] * n


def accurate(rng: np.random.Generator, n: int, right: float) -> Rows:
    """Rows of two classes, each right with the same chance."""
    truth = rng.integers(0, 2, n)
    given = np.where(rng.random(n) < right, truth, 1 - truth)
    return indicators(truth, 2), indicators(given, 2), [""] * n


def cases() -> Iterator[Case]:
    """Every case of scores; the truth is that of a very large draw."""
    rng = np.random.default_rng(1)

    def truth_of(rows: Rows) -> float:
        return float(macro_f1(tally(rows[0], rows[1])))

    true = truth_of(people(rng, 6000, 8, 8, 0.6))
    for n in (2, 3, 4, 5, 8, 12, 24):
        yield Case(f"{n} groups of 64 rows, 8 classes", lambda r, n=n: people(r, n, 8, 8, 0.6), macro_f1, true)
    for n in (6, 12, 24):
        for kind, share in (("rows", 0.1), ("rows", 0.5), ("groups", 0.5), ("one group", 0.6)):
            name = (
                f"{n} groups, of {share:.0%} of the {kind} unknown"
                if kind != "one group"
                else (f"{n} groups, unknown of one group with {share:.0%} of the rows")
            )
            yield Case(name, lambda r, a=(n, share, kind): unnamed(r, *a), macro_f1, true)
    true = truth_of(people(rng, 6000, 4, 5, 1.0, 4.0))
    for n in (3, 5, 12):
        name = f"{n} groups of 20 rows, nearly all right"
        yield Case(name, lambda r, n=n: people(r, n, 4, 5, 1.0, 4.0), macro_f1, true)
    true = truth_of(labels(rng, 300_000))
    for n in (300, 1000, 5427):
        yield Case(f"multi-label, 28 labels, {n:,} rows", lambda r, n=n: labels(r, n), macro_f1, true)
    for n_classes, n, right in ((12, 12, 0.7), (12, 40, 0.7), (12, 40, 0.95), (8, 100, 0.6), (4, 40, 0.9)):
        true = truth_of(rare(rng, 300_000, n_classes, right))
        name = f"rare classes, {n_classes} classes, {n} rows, about {right:.0%} right"
        yield Case(name, lambda r, a=(n, n_classes, right): rare(r, *a), macro_f1, true)
    for n, right in ((20, 0.97), (20, 0.8), (60, 0.9), (100, 0.97)):
        yield Case(f"accuracy {right} on {n} rows", lambda r, a=(n, right): accurate(r, *a), accuracy, right)


def coverage(case: Case, trials: int, resamples: int, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Share of trials whose interval holds the truth, and the mean width, by kind of interval."""
    inside: dict[str, list[bool]] = {}
    width: dict[str, list[float]] = {}
    for _ in range(trials):
        truth, given, groups = case.draw(rng)
        seed = int(rng.integers(2**31))
        found = {
            name: score_intervals(
                tally_by_unit(truth, given, groups, each_alone=name == "percentile"),
                {"score": case.metric}, n_resamples=resamples, seed=seed, method=name,
            )["score"]
            for name in KINDS
        }  # fmt: skip
        if any(groups):
            by_row = tally_by_unit(truth, given, [""] * len(groups))
            rows = score_intervals(by_row, {"score": case.metric}, n_resamples=resamples, seed=seed)
            found = {**found, "rows": rows["score"]}
        for name, ends in found.items():
            assert ends
            inside.setdefault(name, []).append(ends[0] - 1e-9 <= case.true <= ends[1] + 1e-9)
            width.setdefault(name, []).append(ends[1] - ends[0])
    return {name: (float(np.mean(hits)), float(np.mean(width[name]))) for name, hits in inside.items()}


def equal_answers(rng: np.random.Generator, n_groups: int, n_models: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(N,) truth and (N, M) answers of M equally good models to 32 rows of each group.

    Each model has an ease of its own with each group, so that one split favours one of them; rows differ by chance.
    """
    groups = np.repeat(np.arange(n_groups), 32)
    truth = np.tile(np.arange(4), n_groups * 8)
    ease = 0.8 + rng.normal(0.0, 0.6, (n_groups, 1)) + rng.normal(0.0, 0.4, (n_groups, n_models))
    return truth, ease[groups], [str(group) for group in groups]


def answers(rng: np.random.Generator, truth: np.ndarray, ease: np.ndarray, luck: float = 0.0) -> np.ndarray:
    """(N,) answers of one training whose (N,) ease is given; ``luck`` is the sd of what a seed adds to it."""
    right = rng.random(len(truth)) < 1.0 / (1.0 + np.exp(-ease - rng.normal(0.0, luck)))
    return np.where(right, truth, (truth + rng.integers(1, 4, len(truth))) % 4)


def gain_coverage(n_groups: int, trials: int, resamples: int, rng: np.random.Generator) -> tuple[float, float]:
    """An ensemble of no better ease against a member: how often its interval holds 0, and how often a verdict falls."""
    inside = verdicts = 0
    for _ in range(trials):
        truth, ease, groups = equal_answers(rng, n_groups, 2)
        first, second = (
            tally_by_unit(indicators(truth, 4), indicators(answers(rng, truth, ease[:, k]), 4), groups) for k in (0, 1)
        )
        seed = int(rng.integers(2**31))
        found = paired_bootstrap(first, second, {"f": macro_f1}, n_resamples=resamples, seed=seed)["f"]
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.0 <= found.high
        verdicts += verdict(found.difference, found.p) != "cannot tell"
    return inside / trials, verdicts / trials


def row_coverage(
    n: int,
    n_classes: int,
    right: tuple[float, float],
    metric: Metric,
    trials: int,
    resamples: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Two models on N rows without groups: how often the interval of their difference holds it, and verdicts."""
    share = np.linspace(1.0, 0.1, n_classes) / np.linspace(1.0, 0.1, n_classes).sum()

    def draw(size: int) -> tuple[Tally, Tally, float]:
        truth, ease = rng.choice(n_classes, size, p=share), rng.random(size)
        units, scores = [], []
        for chance in right:
            own = np.where(rng.random(size) < 0.7, ease, rng.random(size))
            given = np.where(own < chance, truth, (truth + rng.integers(1, n_classes, size)) % n_classes)
            both = indicators(truth, n_classes), indicators(given, n_classes)
            units.append(tally_by_unit(*both, [""] * size))
            scores.append(float(metric(tally(*both))))
        return units[0], units[1], scores[1] - scores[0]

    true = draw(100_000)[2] if right[0] != right[1] else 0.0
    inside = verdicts = 0
    for _ in range(trials):
        first, second, _ = draw(n)
        seed = int(rng.integers(2**31))
        found = paired_bootstrap(first, second, {"f": metric}, n_resamples=resamples, seed=seed)["f"]
        assert found.low is not None
        assert found.high is not None
        inside += found.low - 1e-9 <= true <= found.high + 1e-9
        verdicts += verdict(found.difference, found.p) != "cannot tell"
    return inside / trials, verdicts / trials


def seed_verdicts(n_seeds: int, n_groups: int, trials: int, rng: np.random.Generator) -> tuple[float, float]:
    """Two equally good settings, some seeds of each on one split: how often one is found better.

    By the t-test over seeds alone, and where the paired bootstrap over groups must agree, as results tables have it.
    """
    alone = both = 0
    for _ in range(trials):
        truth, ease, groups = equal_answers(rng, n_groups, 2)
        given = [[answers(rng, truth, ease[:, k], 0.1) for _ in range(n_seeds)] for k in (0, 1)]
        first, second = (
            [float(macro_f1(tally(indicators(truth, 4), indicators(one, 4)))) for one in each] for each in given
        )
        found = paired_difference(first, second)
        wrong = verdict(found.mean, found.p) != "cannot tell"
        alone += wrong
        if wrong:
            units = [
                tally_by_unit(
                    indicators(np.tile(truth, n_seeds), 4), indicators(np.concatenate(each), 4), groups * n_seeds
                )
                for each in given
            ]
            over = paired_bootstrap(units[0], units[1], {"f": macro_f1}, n_resamples=1000)["f"]
            both += verdict(over.difference, over.p) != "cannot tell"
    return alone / trials, both / trials


def main() -> None:
    """Print or write a table of all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="file to write the table to")
    given = parser.parse_args()

    started, n = time.perf_counter(), given.trials
    lines = [
        "# How often intervals hold the truth",
        "",
        "```console",
        f"$ python benchmarks/interval_coverage.py {' '.join(sys.argv[1:])}".rstrip(),
        "```",
        "",
        f"{n} trials a case, {given.resamples} resamples, seed {given.seed}. Cells: coverage in %, its standard error,",
        "and the mean width. A 95 % interval should hold the truth in 95 %.",
        "",
        "| case | truth | Wilson's, as reports have | percentiles, as before | Wilson's over rows |",
        "| --- | --- | --- | --- | --- |",
    ]

    def cell(share: float, width: float | None = None) -> str:
        text = f"{100 * share:.1f} +- {100 * np.sqrt(share * (1 - share) / n):.1f}"
        return text if width is None else f"{text}, {width:.3f}"

    for number, case in enumerate(cases()):
        found = coverage(case, n, given.resamples, np.random.default_rng([given.seed, number]))
        cells = [cell(*found[name]) if name in found else "" for name in ("wilson", "percentile", "rows")]
        lines.append(f"| {case.name} | {case.true:.3f} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    lines += ["", "Two models that are equally good (4 classes, 32 rows a group):", ""]
    lines += ["| case | holds 0 | verdict between equals |", "| --- | --- | --- |"]
    for n_groups in (3, 4, 5, 8, 24):
        share, verdicts = gain_coverage(n_groups, n, given.resamples, np.random.default_rng([given.seed, 90, n_groups]))
        lines.append(f"| gain of an ensemble, {n_groups} groups | {cell(share)} | {cell(verdicts)} |")
        print(lines[-1], flush=True)
    lines += ["", "Differences of two models on rows without groups, accuracies named:", ""]
    lines += ["| case | holds the truth | verdict |", "| --- | --- | --- |"]
    few = (
        (20, 2, (0.97, 0.97), accuracy), (20, 2, (0.97, 0.9), accuracy), (20, 2, (0.8, 0.7), accuracy),
        (60, 2, (0.9, 0.85), accuracy), (100, 2, (0.97, 0.94), accuracy), (15, 12, (0.1, 0.15), macro_f1),
        (15, 12, (0.7, 0.6), macro_f1), (40, 12, (0.95, 0.85), macro_f1),
    )  # fmt: skip
    for number, (size, n_classes, right, metric) in enumerate(few):
        rng = np.random.default_rng([given.seed, 92, number])
        share, verdicts = row_coverage(size, n_classes, right, metric, n, given.resamples, rng)
        what = "accuracy" if metric is accuracy else f"macro-F1 over {n_classes} classes"
        lines.append(f"| {what}, {right[0]} and {right[1]} right of {size} rows | {cell(share)} | {cell(verdicts)} |")
        print(lines[-1], flush=True)
    lines += ["", "Equally good settings, seeds on one split:", "", "| case | | verdict |", "| --- | --- | --- |"]
    for n_seeds in (3, 5):
        alone, both = seed_verdicts(n_seeds, 5, n, np.random.default_rng([given.seed, 91, n_seeds]))
        name = f"{n_seeds} seeds on one split of 5 groups"
        lines.append(f"| {name}, t-test over seeds as before | | {cell(alone)} |")
        lines.append(f"| {name}, and the bootstrap over groups as tables have it | | {cell(both)} |")
        print("\n".join(lines[-2:]), flush=True)
    print(f"{time.perf_counter() - started:.0f} s")
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
