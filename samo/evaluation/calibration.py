"""Do probabilities mean what they say? One temperature a task, and the distance of confidence from accuracy.

Temperature scaling, expected calibration error and reliability diagram are those of Guo et al. (2017), "On Calibration
of Modern Neural Networks". A temperature divides the logits, so it changes no label: the largest logit stays the
largest, and a sigmoid stays on its side of 0.5. What it changes are probabilities, and thresholds other than 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samo.errors import RunError
from samo.files import parse_json, write_json
from samo.stored import Count, Positive, Stored, Text, validated
from samo.tasks import LabelSpace, Task

__all__ = [
    "N_BINS",
    "TEMPERATURE_RANGE",
    "Calibration",
    "apply_temperature",
    "at_bound",
    "binning",
    "brier_score",
    "calibration_scores",
    "expected_calibration_error",
    "fit_temperature",
    "fold_calibration",
    "negative_log_likelihood",
    "reliability",
    "summary",
    "temperature_words",
    "usable_rows",
]

FloatArray = npt.NDArray[np.float64]

# Logits that separate the validation rows perfectly are ever more likely the smaller the temperature, down to 0;
# logits that contradict them the larger it is. Ten times in either direction is more than any sound model needs.
TEMPERATURE_RANGE = (0.1, 10.0)
N_BINS = 15


@dataclass(frozen=True)
class Calibration:
    """The temperatures that belong to one set of weights.

    Attributes:
        temperature: by task, above 0; a task that is not named has 1.
        fitted_on: the part of the split they were fitted on; empty when none were fitted.
        n: labelled rows they were fitted on, by task.
        epoch: the epoch of the weights they belong to, from 1.
    """

    temperature: Mapping[str, float] = field(default_factory=dict)
    fitted_on: str = ""
    n: Mapping[str, int] = field(default_factory=dict)
    epoch: int = 0

    def save(self, path: Path) -> None:
        """Write JSON in one step."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: damaged.
        """
        try:
            return cls.from_json(parse_json(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise RunError(
                f"cannot read {path}: {error}", hint="remove it; `samo evaluate` fits the temperature again"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Plain values that :meth:`from_json` reads back."""
        return {"schema": 1, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Calibration:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        stored = validated(_StoredCalibration, data)
        return cls(stored.temperature, stored.fitted_on, stored.n, stored.epoch)


class _StoredCalibration(Stored):
    temperature: dict[Text, Positive]
    fitted_on: Text
    n: dict[Text, Count]
    epoch: Count


def fit_temperature(logits: np.ndarray, targets: np.ndarray, space: LabelSpace) -> dict[str, float]:
    """The temperature of each task that makes its targets most likely (Guo et al. 2017, section 4.2).

    The negative log-likelihood is convex in 1/T, so the bounded search over log T finds its only minimum in
    :data:`TEMPERATURE_RANGE`. Logits that separate the rows perfectly end at the lower bound; where every temperature
    is as likely, as for a task without a usable row, it stays 1. The result is never less likely than T = 1.

    Args:
        logits: (N, C); rows that are not finite in a task's columns are left out of it.
        targets: (N, C) in [0, 1]; rows that are NaN in a task's columns are left out of it.
        space: the tasks and their columns.
    """
    from scipy.optimize import minimize_scalar

    low, high = np.log(TEMPERATURE_RANGE)
    fitted = {}
    for task in space.tasks:
        given, truth = _usable(logits, targets, space, task)

        def cost(log_t: float, given: FloatArray = given, truth: FloatArray = truth, task: Task = task) -> float:
            return negative_log_likelihood(given / math.exp(log_t), truth, multi_label=task.multi_label)

        if len(given):
            inner = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-7}).x
            # The search never tries its bounds; T = 1 comes first, so it wins where nothing is gained.
            fitted[task.name] = math.exp(min((0.0, float(inner), float(low), float(high)), key=cost))
        else:
            fitted[task.name] = 1.0
    return fitted


def at_bound(temperature: float) -> bool:
    """Whether the search ended at an end of :data:`TEMPERATURE_RANGE`; over logarithms it misses it by a few bits."""
    return any(math.isclose(temperature, bound, rel_tol=1e-5) for bound in TEMPERATURE_RANGE)


def usable_rows(logits: np.ndarray, targets: np.ndarray, space: LabelSpace) -> dict[str, int]:
    """How many rows :func:`fit_temperature` goes by, by task."""
    return {task.name: len(_usable(logits, targets, space, task)[0]) for task in space.tasks}


def apply_temperature(logits: np.ndarray, temperatures: Mapping[str, float], space: LabelSpace) -> FloatArray:
    """(N, C) float64: the logits of each task divided by its temperature, 1 where none is given."""
    scaled = np.array(logits, dtype=np.float64)
    for task in space.tasks:
        scaled[:, space.slices[task.name]] /= temperatures.get(task.name, 1.0)
    return scaled


def negative_log_likelihood(logits: np.ndarray, targets: np.ndarray, *, multi_label: bool = False) -> float:
    """Cross-entropy in nats: the mean over rows (softmax) or over (row, label) pairs (sigmoid).

    Args:
        logits: (N, L) of one task, finite.
        targets: (N, L) in [0, 1].
        multi_label: sigmoid of each column instead of softmax over them.
    """
    given = np.asarray(logits, dtype=np.float64)
    if multi_label:
        return float(np.mean(np.logaddexp(0.0, given) - targets * given))
    log_p = given - np.logaddexp.reduce(given, axis=1, keepdims=True)
    return float(-np.mean((targets * log_p).sum(axis=1)))


def brier_score(probabilities: np.ndarray, truth: np.ndarray, *, multi_label: bool = False) -> float:
    """Mean squared distance of probabilities from the truth (Brier 1950).

    Summed over the labels of a row, so in [0, 2], when one label holds; the mean over (row, label) pairs, in [0, 1],
    when several may.

    Args:
        probabilities: (N, L) in [0, 1].
        truth: (N, L) bool.
        multi_label: whether several labels may hold at once.
    """
    squares = (probabilities - truth) ** 2
    return float(squares.mean() if multi_label else squares.sum(axis=1).mean())


def reliability(
    probabilities: np.ndarray,
    truth: np.ndarray,
    n_bins: int = N_BINS,
    *,
    multi_label: bool = False,
    equal_mass: bool = False,
) -> list[dict[str, Any]]:
    """The bins of a reliability diagram, by rising confidence.

    With one label a row, confidence is the largest probability and accuracy the share of rows whose largest
    probability is at the true label (Guo et al. 2017, equations 1 and 2). With several labels, every (row, label) pair
    counts: confidence is the label's probability and accuracy the share of pairs in which it holds.

    Args:
        probabilities: (N, L) in [0, 1].
        truth: (N, L) bool.
        n_bins: how many bins; the last bin holds its upper edge, as every bin does, and the first also 0.
        multi_label: whether several labels may hold at once.
        equal_mass: cut at the quantiles of the confidence instead of in equal widths; equal values stay together,
            so there may be fewer bins.

    Returns:
        For each bin ``low``, ``high``, ``count``, and the means ``confidence`` and ``accuracy``, None in an empty bin.
    """
    if multi_label:
        confidence, right = probabilities.ravel(), truth.ravel()
    else:
        top = probabilities.argmax(axis=1)[:, None]
        confidence = np.take_along_axis(probabilities, top, axis=1)[:, 0]
        right = np.take_along_axis(truth, top, axis=1)[:, 0]
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    if equal_mass and len(confidence):
        edges = np.unique(np.quantile(confidence, edges))
    # Two edges at least, also where all confidences are one.
    edges = np.repeat(edges, 2) if len(edges) == 1 else edges
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)
    bins = []
    for k, (low, high) in enumerate(pairwise(edges)):
        inside = place == k
        count = int(inside.sum())
        bins.append({
            "low": float(low),
            "high": float(high),
            "count": count,
            "confidence": float(confidence[inside].mean()) if count else None,
            "accuracy": float(right[inside].mean()) if count else None,
        })  # fmt: skip
    return bins


def expected_calibration_error(
    probabilities: np.ndarray,
    truth: np.ndarray,
    n_bins: int = N_BINS,
    *,
    multi_label: bool = False,
    equal_mass: bool = False,
) -> float:
    """Mean distance of confidence from accuracy over the bins of :func:`reliability`, weighted by their counts.

    In [0, 1] (Guo et al. 2017, equation 5). Few rows make it too large: chance alone moves accuracy from confidence.
    """
    return _ece(reliability(probabilities, truth, n_bins, multi_label=multi_label, equal_mass=equal_mass))


def binning(*, multi_label: bool) -> str:
    """What the bins of a report are, in words."""
    of = "the probability of each label, over all (row, label) pairs" if multi_label else "the top-label confidence"
    return f"equal-width bins of {of}, Guo et al. 2017"


def calibration_scores(
    task: Task, logits: np.ndarray, truth: np.ndarray, temperature: float, fitted_on: str
) -> dict[str, Any]:
    """What a report says about the calibration of one task.

    Args:
        task: whose columns these are.
        logits: (N, L) as the model gave them, finite.
        truth: (N, L) bool.
        temperature: what they are divided by.
        fitted_on: the part it was fitted on; empty when it was not.

    Returns:
        ``binning``, ``n_bins``, ``temperature``, ``fitted_on``; ``ece`` (equal widths), ``ece_equal_mass``, ``nll``,
        ``brier`` and ``bins`` under the temperature, and each again with ``_uncalibrated``, at temperature 1.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    return _scores(task, scaled, logits, truth, {"temperature": float(temperature), "fitted_on": fitted_on or None})


def fold_calibration(
    task: Task, logits: np.ndarray, truth: np.ndarray, folds: Sequence[str], temperatures: Mapping[str, float]
) -> dict[str, Any]:
    """:func:`calibration_scores` of rows that several models answered, each under its own temperature.

    Args:
        task: whose columns these are.
        logits: (N, L) as the models gave them, finite.
        truth: (N, L) bool.
        folds: which model answered each of the N rows.
        temperatures: of each model whose temperature was fitted; the others have 1.

    Returns:
        The same keys; ``temperature`` is None, and ``temperature_by_fold`` has that of every model, None where none was
        fitted.
    """
    scaled = np.asarray(logits, dtype=np.float64) / np.array([temperatures.get(fold, 1.0) for fold in folds])[:, None]
    by_fold = {fold: temperatures.get(fold) for fold in dict.fromkeys(folds)}
    known = {"temperature": None, "temperature_by_fold": by_fold, "fitted_on": "val" if temperatures else None}
    return _scores(task, scaled, logits, truth, known)


def summary(scores: Mapping[str, Any]) -> str:
    """:func:`calibration_scores` or :func:`fold_calibration` in one line."""
    line = f"expected calibration error {scores['ece']:.3f}"
    if not scores["fitted_on"]:
        return f"{line}; no temperature was fitted"
    return f"{line}; without {temperature_words(scores)} it is {scores['ece_uncalibrated']:.3f}"


def temperature_words(scores: Mapping[str, Any]) -> str:
    """The temperature of :func:`calibration_scores`, or the span of those of the folds and how many have one."""
    if scores["temperature"] is not None:
        return f"the temperature of {scores['temperature']:.2f}"
    by_fold = scores["temperature_by_fold"]
    fitted = [value for value in by_fold.values() if value is not None]
    some = "" if len(fitted) == len(by_fold) else f"{len(fitted)} of "
    return f"the temperatures of {some}{len(by_fold)} folds, {min(fitted):.2f} to {max(fitted):.2f},"


def _scores(
    task: Task, scaled: np.ndarray, logits: np.ndarray, truth: np.ndarray, known: Mapping[str, Any]
) -> dict[str, Any]:
    scores = {"binning": binning(multi_label=task.multi_label), "n_bins": N_BINS, **known}
    how = {"multi_label": task.multi_label}
    for suffix, given in (("", scaled), ("_uncalibrated", np.asarray(logits, dtype=np.float64))):
        shares = LabelSpace((task,)).probabilities(given)
        bins = reliability(shares, truth, **how)
        scores[f"ece{suffix}"] = _ece(bins)
        scores[f"ece_equal_mass{suffix}"] = expected_calibration_error(shares, truth, equal_mass=True, **how)
        scores[f"nll{suffix}"] = negative_log_likelihood(given, truth, **how)
        scores[f"brier{suffix}"] = brier_score(shares, truth, **how)
        scores[f"bins{suffix}"] = bins
    return scores


def _ece(bins: list[dict[str, Any]]) -> float:
    filled = [row for row in bins if row["count"]]
    n = sum(row["count"] for row in filled)
    return sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in filled) / n if n else 0.0


def _usable(logits: np.ndarray, targets: np.ndarray, space: LabelSpace, task: Task) -> tuple[FloatArray, FloatArray]:
    """A task's columns, of the rows that carry a label and a finite answer."""
    columns = space.slices[task.name]
    rows = ~np.isnan(targets[:, columns]).any(axis=1) & np.isfinite(logits[:, columns]).all(axis=1)
    return logits[rows, columns].astype(np.float64), targets[rows, columns].astype(np.float64)
