"""How often `samo drift` finds something that is not there, and how often what is.

    python benchmarks/drift.py [REPORTS]

Each report compares a reference with lines, both drawn: labels of 8 classes, confidence, withheld answers, level and
length of the inputs.
"""

from __future__ import annotations

import sys

import numpy as np

from samo.deploy.drift import compare
from samo.deploy.samples import Sample, TaskSample

SHARES = np.array([0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.04])
LABELS = [f"label{k}" for k in range(8)]
SIZES = ((60, 60), (200, 1000), (1000, 200))

SHIFTS = {
    "label4 2 times as often": {"times": 2.0},
    "label4 3 times as often": {"times": 3.0},
    "3 dB quieter": {"db": -3.0},
    "6 dB quieter": {"db": -6.0},
    "1.5 times as long": {"length": 1.5},
    "confidence 0.1 lower": {"sure": -0.1},
    "twice as many withheld": {"withheld": 0.2},
}


def sample(
    rng: np.random.Generator,
    n: int,
    multi_label: bool,
    times: float = 1.0,
    db: float = 0.0,
    length: float = 1.0,
    sure: float = 0.0,
    withheld: float = 0.1,
) -> Sample:
    shares = SHARES.copy()
    shares[4] *= times
    if multi_label:
        # Labels hold together: one hidden number moves all.
        hidden = rng.standard_normal((n, 1))
        held = rng.standard_normal((n, 8)) + hidden < 1.4 * np.quantile(rng.standard_normal(100_000), shares)
        counts = held.sum(axis=0)
    else:
        counts = rng.multinomial(n, shares / shares.sum())
    confidences = np.clip(rng.beta(5, 2, n) + sure, 0.0, 1.0)
    task = TaskSample(
        dict(zip(LABELS, counts.tolist(), strict=True)), n, int(rng.binomial(n, withheld)), confidences, multi_label
    )
    numbers = {
        "level_dbfs": np.round(rng.normal(-25.0 + db, 6.0, n), 1),
        "duration_s": np.round(length * rng.gamma(6.0, 0.5, n), 2),
    }
    return Sample(n, {"emotion": task}, numbers)


def found(rng: np.random.Generator, sizes: tuple[int, int], multi_label: bool, **shift: float) -> tuple[bool, bool]:
    """Whether any corrected p-value is below 0.05, slight differences too, and whether a drift is reported."""
    before, now = sample(rng, sizes[0], multi_label), sample(rng, sizes[1], multi_label, **shift)
    report = compare(before, now, seed=int(rng.integers(1 << 31)))
    return any(check.p_corrected < 0.05 for check in report.checks), report.found


def main(argv: list[str]) -> None:
    n = int(argv[0]) if argv else 400
    rng = np.random.default_rng(0)
    error = np.sqrt(0.05 * 0.95 / n)
    print(f"{n} reports a row; a rate of 5 % has a standard error of {error:.1%}.\n")
    print("| reference, lines | task | what changed | any p below 0.05 | drift |\n|---|---|---|---|---|")
    for multi_label, kind in ((False, "one of 8 labels"), (True, "any of 8 labels")):
        for sizes in SIZES:
            any_p, drift = np.mean([found(rng, sizes, multi_label) for _ in range(n)], axis=0)
            print(f"| {sizes[0]}, {sizes[1]} | {kind} | nothing | {any_p:.1%} | {drift:.1%} |")
    for name, shift in SHIFTS.items():
        for sizes in SIZES[:2]:
            any_p, drift = np.mean([found(rng, sizes, False, **shift) for _ in range(n // 4)], axis=0)
            print(f"| {sizes[0]}, {sizes[1]} | one of 8 labels | {name} | {any_p:.0%} | {drift:.0%} |")


if __name__ == "__main__":
    main(sys.argv[1:])
