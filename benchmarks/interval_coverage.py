"""How often does the 95 % interval of a report hold the true macro-F1? A simulation, run by hand.

Each simulated corpus draws G groups (people). A group has its own ease (shared by its rows) and its own ease per class;
each row is classified right with the resulting probability, else confused with a random other class. The truth is the
macro-F1 over a very large number of groups. Three intervals are compared: the report's (groups, widened tails), the
textbook percentile interval over groups, and the one over rows that ignores groups.

    .venv/bin/python benchmarks/interval_coverage.py --groups 3 5 8 12 24 100
"""

from __future__ import annotations

import argparse

import numpy as np

from samo.evaluation.metrics import Tally, macro_f1
from samo.evaluation.statistics import bootstrap, tally_by_unit


def draw(
    rng: np.random.Generator, n_groups: int, n_classes: int, rows_per_class: int, spread: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True and predicted classes and groups, each (N,) with N = n_groups * n_classes * rows_per_class."""
    groups = np.repeat(np.arange(n_groups), n_classes * rows_per_class)
    truth = np.tile(np.repeat(np.arange(n_classes), rows_per_class), n_groups)
    ease = np.linspace(-0.5, 1.5, n_classes)[None, :] + rng.normal(0.0, spread, (n_groups, 1))
    ease = ease + rng.normal(0.0, spread, (n_groups, n_classes))
    right = rng.random(len(truth)) < 1.0 / (1.0 + np.exp(-ease[groups, truth]))
    other = (truth + rng.integers(1, n_classes, len(truth))) % n_classes
    return truth, np.where(right, truth, other), groups


def counts(truth: np.ndarray, predicted: np.ndarray, units: np.ndarray, n_classes: int) -> Tally:
    """Outcome counts by unit."""
    classes = np.arange(n_classes)
    return tally_by_unit(truth[:, None] == classes, predicted[:, None] == classes, [str(unit) for unit in units])


def score(by_unit: Tally) -> float:
    """Macro-F1 over all units."""
    return float(macro_f1(Tally.from_flat(by_unit.flat().sum(axis=0))))


def main() -> None:
    """Print the coverage and mean width of the three intervals for each number of groups."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--groups", type=int, nargs="+", default=[3, 5, 8, 12, 24, 100], help="groups in the test split"
    )
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--rows-per-class", type=int, default=8, help="rows of a class by one group")
    parser.add_argument("--spread", type=float, default=0.6, help="sd between groups, in logits")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    rng = np.random.default_rng(given.seed)
    shape = (given.classes, given.rows_per_class, given.spread)
    true_score = score(counts(*draw(rng, 20_000, *shape), given.classes))
    print(f"true macro-F1 {true_score:.4f}, {given.trials} trials, {given.resamples} resamples, spread {given.spread}")
    print(f"{'groups':>6}  {'widened groups':>20}  {'plain groups':>20}  {'rows':>20}   (coverage %, mean width)")
    for n_groups in given.groups:
        inside, width = np.zeros(3), np.zeros(3)
        for _ in range(given.trials):
            truth, predicted, groups = draw(rng, n_groups, *shape)
            by_group = counts(truth, predicted, groups, given.classes)
            by_row = counts(truth, predicted, np.arange(len(truth)), given.classes)
            options = {"n_resamples": given.resamples, "seed": int(rng.integers(2**31))}
            for column, (by_unit, widen) in enumerate([(by_group, True), (by_group, False), (by_row, True)]):
                interval = bootstrap(by_unit, {"macro_f1": macro_f1}, widen=widen, **options)["macro_f1"]
                assert interval is not None
                inside[column] += interval[0] <= true_score <= interval[1]
                width[column] += interval[1] - interval[0]
        cells = [f"{100 * i / given.trials:11.1f} {w / given.trials:8.3f}" for i, w in zip(inside, width, strict=True)]
        print(f"{n_groups:>6}  " + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
