"""Can the verdicts "better" and "worse" be believed? Two simulations whose truth is known, run by hand.

Speakers (`samo compare`): two models answer the same G speakers. A speaker has an ease that both models share and one
of its own with each model; rows are classified right with the resulting probability. The true difference in macro-F1
is that over a very large number of speakers. Shown for two equally good models and for a better second one: how often
the 95 % interval holds the truth, its mean width, how often a verdict is given, and how often McNemar, which takes rows
for independent, would give one.

Folds (`samo ablate`): two nearest-centroid classifiers, each on features of its own, are trained and tested in K folds
times S seeds; a seed leaves out a fifth of the training rows. The interval is Student's over the K * S differences,
plain and with the variance of Nadeau & Bengio (2003). For comparison: K pairs on fresh data each, which share nothing.

    .venv/bin/python benchmarks/difference_coverage.py --groups 5 10 24
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from samo.evaluation.metrics import Tally, macro_f1, row_outcomes
from samo.evaluation.paired_bootstrap import paired_bootstrap
from samo.evaluation.significance import mcnemar, paired_difference, verdict

CLASSES, ROWS_PER_CLASS = 8, 8
FEATURES, ROWS, FOLDS = 10, 200, 5


@dataclass
class Score:
    """What came of all trials in one setting."""

    trials: int = 0
    inside: int = 0
    verdicts: int = 0
    width: float = 0.0
    other_verdicts: int = 0

    def add(self, low: float, high: float, truth: float, found: str, other: bool = False) -> None:
        """Count one trial; ``other`` is what a second test said."""
        self.trials += 1
        self.inside += low <= truth <= high
        self.width += high - low
        self.verdicts += found != "cannot tell"
        self.other_verdicts += other

    def cells(self) -> str:
        """Coverage, mean width and share of verdicts."""
        shares = 100 * self.inside / self.trials, self.width / self.trials, 100 * self.verdicts / self.trials
        return "{:10.1f} {:10.3f} {:10.1f}".format(*shares)


def answers(
    rng: np.random.Generator, n_groups: int, gain: float, shared: float, own: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """True classes (N,) and what each of two models says (N,), N = n_groups * CLASSES * ROWS_PER_CLASS."""
    groups = np.repeat(np.arange(n_groups), CLASSES * ROWS_PER_CLASS)
    truth = np.tile(np.repeat(np.arange(CLASSES), ROWS_PER_CLASS), n_groups)
    ease = np.linspace(-0.5, 1.5, CLASSES) + rng.normal(0.0, shared, (n_groups, 1))
    ease = ease + rng.normal(0.0, shared, (n_groups, CLASSES))
    said = []
    for bonus in (0.0, gain):
        seen = ease + bonus + rng.normal(0.0, own, (n_groups, 1)) + rng.normal(0.0, own, (n_groups, CLASSES))
        right = rng.random(len(truth)) < 1.0 / (1.0 + np.exp(-seen[groups, truth]))
        said.append(np.where(right, truth, (truth + rng.integers(1, CLASSES, len(truth))) % CLASSES))
    return truth, said


def tallies(truth: np.ndarray, said: list[np.ndarray], n_groups: int) -> list[Tally]:
    """Outcome counts by group of both models; a group's rows lie together."""
    classes, found = np.arange(CLASSES), []
    for given in said:
        outcomes = row_outcomes(truth[:, None] == classes, given[:, None] == classes)
        by_group = outcomes.reshape(n_groups, -1, outcomes.shape[1])
        found.append(Tally.from_flat(by_group.sum(axis=1, dtype=np.float64)))
    return found


def over_speakers(given: argparse.Namespace) -> None:
    """Print the first simulation."""
    print(f"speakers: {given.trials} trials, {given.resamples} draws, spread {given.shared} shared, {given.own} own")
    print(f"{'speakers':>8} {'truth':>8} {'coverage %':>10} {'width':>10} {'verdicts %':>10} {'McNemar %':>10}")
    rng = np.random.default_rng(given.seed)
    spread = (given.shared, given.own)
    for gain in (0.0, given.gain):
        large = tallies(*answers(rng, 10_000, gain, *spread), 10_000)
        first, second = (float(macro_f1(Tally.from_flat(t.flat().sum(axis=0)))) for t in large)
        true_difference = second - first if gain else 0.0
        for n_groups in given.groups:
            score = Score()
            for _ in range(given.trials):
                truth, said = answers(rng, n_groups, gain, *spread)
                found = paired_bootstrap(
                    *tallies(truth, said, n_groups),
                    {"macro_f1": macro_f1},
                    n_resamples=given.resamples,
                    seed=int(rng.integers(2**31)),
                )["macro_f1"]
                assert found.low is not None
                assert found.high is not None
                by_row = mcnemar(said[0] == truth, said[1] == truth).p < 0.05
                score.add(found.low, found.high, true_difference, verdict(found.difference, found.p), by_row)
            mcnemars = 100 * score.other_verdicts / score.trials
            print(f"{n_groups:>8} {true_difference:>8.3f} {score.cells()} {mcnemars:10.1f}", flush=True)


def corpus(rng: np.random.Generator, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """(ROWS, 2, FEATURES) features, one set a model, and two classes (ROWS,)."""
    labels = np.arange(ROWS) % 2
    shift = np.array([0.25, 0.25 + gain])[None, :, None] * (2 * labels - 1)[:, None, None]
    return rng.normal(size=(ROWS, 2, FEATURES)) + shift, labels


def scores(features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> list[float]:
    """Accuracy of both models."""
    found = []
    for model in range(2):
        rows, asked = features[train, model], features[test, model]
        centroids = np.stack([rows[labels[train] == k].mean(axis=0) for k in range(2)])
        said = ((asked[:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
        found.append(float((said == labels[test]).mean()))
    return found


def cross_validated(rng: np.random.Generator, gain: float, seeds: int) -> np.ndarray:
    """(FOLDS * seeds, 2) scores on one corpus."""
    (features, labels), order = corpus(rng, gain), rng.permutation(ROWS)
    pairs = []
    for test in np.array_split(order, FOLDS):
        train = np.setdiff1d(order, test)
        kept = [rng.permutation(train)[: len(train) * 4 // 5] for _ in range(seeds)]
        pairs += [scores(features, labels, part, test) for part in kept]
    return np.array(pairs)


def fresh(rng: np.random.Generator, gain: float) -> np.ndarray:
    """(FOLDS, 2) scores, each on a corpus of its own."""
    rows = np.arange(ROWS)
    test = ROWS // FOLDS
    return np.array([scores(*corpus(rng, gain), rows[test:], rows[:test]) for _ in range(FOLDS)])


def over_folds(given: argparse.Namespace) -> None:
    """Print the second simulation."""
    print(f"\nfolds: {given.trials} trials, {FOLDS} folds of {ROWS} rows")
    print(f"{'pairs':>20} {'interval':>16} {'truth':>8} {'coverage %':>10} {'width':>10} {'verdicts %':>10}")
    rng = np.random.default_rng(given.seed)
    for gain in (0.0, given.fold_gain):
        drawn = {
            "fresh data": [fresh(rng, gain) for _ in range(given.trials)],
            "5 folds": [cross_validated(rng, gain, 1) for _ in range(given.trials)],
            "5 folds x 3 seeds": [cross_validated(rng, gain, 3) for _ in range(given.trials)],
        }
        for name, trials in drawn.items():
            # The mean over trials of this very procedure is what it estimates; without a gain it is 0 by symmetry.
            true_difference = float(np.mean([np.diff(pairs, axis=1).mean() for pairs in trials])) if gain else 0.0
            for label, ratio in (("Student", None), ("Nadeau & Bengio", 1 / (FOLDS - 1))):
                if name == "fresh data" and ratio:
                    continue
                score = Score()
                for pairs in trials:
                    found = paired_difference(pairs[:, 0], pairs[:, 1], train_test_ratio=ratio)
                    low, high = (found.mean if end is None else end for end in (found.low, found.high))
                    score.add(low, high, true_difference, verdict(found.mean, found.p))
                print(f"{name:>20} {label:>16} {true_difference:>8.3f} {score.cells()}", flush=True)


def main() -> None:
    """Print both simulations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, nargs="+", default=[5, 10, 24], help="speakers in the test split")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--shared", type=float, default=0.6, help="sd of a speaker's ease, in logits")
    parser.add_argument("--own", type=float, default=0.3, help="sd of its ease with one model, in logits")
    parser.add_argument("--gain", type=float, default=0.3, help="of the better model, in logits")
    parser.add_argument("--fold-gain", type=float, default=0.1, help="shift of the better features")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    over_speakers(given)
    over_folds(given)


if __name__ == "__main__":
    main()
