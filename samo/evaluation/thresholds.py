"""From which probability on a label of a multi-label task holds: one threshold for all classes, or one a class.

Both are chosen on the validation rows, by F1 over a grid of thresholds; the judged rows choose nothing. A threshold of
its own lets each class answer at its own rate (Lipton et al. 2014, "Optimal Thresholding of Classifiers to Maximize F1
Measure"), and with few validation rows it follows their noise. So a report sets 0.5, the one threshold and those by
class side by side: what each gained on validation, and what of it was left on the judged rows.

Several thresholds often share the best F1. Of the longest unbroken run of them the middle one is taken (the lower of
two; of equally long runs the one whose middle lies nearest to 0.5, then the lower): an edge, where one more row would
tip the score, is the worst place to be. A class that no threshold gets right, be it for want of a positive row or
because its probabilities stay below the grid, takes the one threshold of all classes.

Two settings make thresholds by class steadier. The F1 of a class over the logits of the thresholds may be smoothed by a
Gaussian before its best is taken: one row of a rare class moves a step of the curve, and seldom its hill. Where F1 is
best over more than two of its standard deviations, or perfect, there is no step to smooth, and what lies beyond would
only pull the best to an end: the middle is taken as it is. And a class whose label n rows hold may be pulled toward the
one threshold of all classes, in logits, by n0 / (n + n0): the mean of the posterior where the classes' thresholds vary
about the common one and n rows measure one with a variance of 1 / n (Efron & Morris 1975, "Data Analysis Using Stein's
Estimator").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from samo.errors import RunError
from samo.evaluation.metrics import f1_by_threshold, macro_f1, mean_over_present, tally
from samo.files import parse_json, write_json
from samo.stored import Count, Number, Positive, Share, Stored, Text, validated
from samo.tasks import LabelSpace, Task

if TYPE_CHECKING:
    from samo.settings import ThresholdSettings

__all__ = [
    "HALF",
    "RULES",
    "Rule",
    "TaskThresholds",
    "Thresholds",
    "best_threshold",
    "fit_thresholds",
    "shrunk",
    "smoothed",
    "steady_threshold",
    "threshold_grid",
]

FloatArray = npt.NDArray[np.float64]
Rule = Literal["half", "global", "per-class"]

RULES: tuple[Rule, ...] = get_args(Rule)
HALF = 0.5
# F1 scores closer together than this differ by rounding only.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class TaskThresholds:
    """The thresholds of one multi-label task.

    Attributes:
        common: the one threshold of all classes, in (0, 1).
        per_class: threshold by label.
        macro_f1: macro-F1 over the labels with a row among those they were chosen on, by rule of :data:`RULES`.
        support: how many of those rows hold each label.
        temperature: of the probabilities they are for.
    """

    common: float
    per_class: Mapping[str, float]
    macro_f1: Mapping[str, float]
    support: Mapping[str, int]
    temperature: float = 1.0


@dataclass(frozen=True)
class Thresholds:
    """The thresholds that belong to one set of weights and their temperatures.

    Attributes:
        used: the rule that decides.
        tasks: by name of the multi-label task; one that is not named is decided at 0.5.
        tried: lowest threshold, highest, and how many.
        fitted_on: the part of the split they were chosen on; empty when none were.
        epoch: the epoch of the weights they belong to, from 1.
    """

    used: Rule = "half"
    tasks: Mapping[str, TaskThresholds] = field(default_factory=dict)
    tried: tuple[float, float, int] | None = None
    fitted_on: str = ""
    epoch: int = 0

    def of(self, task: Task, rule: Rule | None = None) -> FloatArray:
        """(L,) thresholds of a task in the order of its labels, under the rule that is used or another."""
        found, rule = self.tasks.get(task.name), rule or self.used
        if found is None or rule == "half":
            return np.full(len(task.labels), HALF)
        if rule == "global":
            return np.full(len(task.labels), found.common)
        return np.array([found.per_class[label] for label in task.labels])

    def by_task(self, space: LabelSpace) -> dict[str, list[float]]:
        """The thresholds that decide, in the order of the labels, of each task that has any."""
        return {task.name: self.of(task).tolist() for task in space.tasks if task.name in self.tasks}

    def are_for(self, temperatures: Mapping[str, float], space: LabelSpace) -> bool:
        """Whether there are thresholds for every multi-label task under these temperatures."""
        wanted = [task for task in space.tasks if task.multi_label]
        return all(
            task.name in self.tasks
            and set(self.tasks[task.name].per_class) == set(task.labels)
            and self.tasks[task.name].temperature == temperatures.get(task.name, 1.0)
            for task in wanted
        )

    def save(self, path: Path) -> None:
        """Write JSON in one step."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Thresholds:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: damaged.
        """
        try:
            return cls.from_json(parse_json(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise RunError(
                f"cannot read {path}: {error}", hint="remove it; `samo evaluate` chooses the thresholds again"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Plain values that :meth:`from_json` reads back."""
        return {"schema": 2, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Thresholds:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: it is something else, or none were chosen.
        """
        stored = validated(_StoredThresholds, data)
        tasks = {name: _read(task, stored.written_as) for name, task in stored.tasks.items()}
        return cls(stored.used, tasks, stored.tried, stored.fitted_on, stored.epoch)


class _StoredTask(Stored):
    common: Share
    per_class: dict[Text, Share]
    macro_f1: dict[Rule, Number]
    support: dict[Text, Count]
    temperature: Positive


class _StoredThresholds(Stored):
    written_as: Count = Field(1, alias="schema")
    used: Rule
    tasks: dict[Text, _StoredTask]
    tried: tuple[Share, Share, Annotated[int, Field(strict=True, ge=1, le=100_000)]]
    fitted_on: Text
    epoch: Count


def threshold_grid(settings: ThresholdSettings) -> FloatArray:
    """(K,) thresholds that are tried, ascending: those that epochs are selected by, and those that ship."""
    return np.linspace(*settings.threshold_range, settings.num_thresholds)


def fit_thresholds(
    probabilities: np.ndarray,
    targets: np.ndarray,
    space: LabelSpace,
    settings: ThresholdSettings,
    temperatures: Mapping[str, float] | None = None,
) -> dict[str, TaskThresholds]:
    """Choose the thresholds of every multi-label task.

    Args:
        probabilities: (N, C) in [0, 1]; rows that are not finite in a task's columns are left out of it.
        targets: (N, C) in [0, 1]; rows that are NaN in a task's columns are left out of it.
        space: the tasks and their columns.
        settings: which thresholds are tried, and how much those by class are smoothed and pulled together.
        temperatures: those of ``probabilities`` by task, kept with the result; 1 where none is given.
    """
    grid = threshold_grid(settings)
    fitted = {}
    for task in space.tasks:
        if not task.multi_label:
            continue
        columns = space.slices[task.name]
        given, wanted = np.asarray(probabilities[:, columns], dtype=np.float64), targets[:, columns]
        rows = ~np.isnan(wanted).any(axis=1) & np.isfinite(given).all(axis=1)
        fitted[task.name] = _fitted(
            task, given[rows], wanted[rows] >= 0.5, grid, settings, (temperatures or {}).get(task.name, 1)
        )
    return fitted


def best_threshold(grid: FloatArray, scores: FloatArray) -> float:
    """The middle of the best plateau, by the rule of the module's docstring.

    Args:
        grid: (K,) thresholds, ascending.
        scores: (K,) the score at each.
    """
    runs = _plateaus(scores)
    middles = [run[(len(run) - 1) // 2] for run in runs]
    places = range(len(runs))
    chosen = min(places, key=lambda k: (-len(runs[k]), abs(grid[middles[k]] - HALF), middles[k]))
    return float(grid[middles[chosen]])


def _plateaus(scores: FloatArray) -> list[npt.NDArray[np.intp]]:
    """The unbroken runs of places whose score is the best, in order."""
    best = np.flatnonzero(scores >= scores.max() - _ROUNDING)
    return np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)


def smoothed(grid: FloatArray, scores: FloatArray, width: float) -> FloatArray:
    """(K, L) scores over the thresholds, each the mean of its neighbours weighted by a Gaussian over logits.

    A neighbour also weighs as much as its share of the logits, so that the mean is one over logits, not over the grid.

    Args:
        grid: (K,) thresholds in (0, 1), ascending.
        scores: (K, L) the score at each.
        width: standard deviation in logits; 0 = as they are.
    """
    if not width:
        return scores
    logits = _logit(grid)
    # Thresholds even in probability lie closer in logits about the middle, and would pull every mean there.
    spacing = np.gradient(logits) if len(logits) > 1 else np.ones(1)
    weights = spacing * np.exp(-0.5 * ((logits[:, None] - logits) / width) ** 2)
    return np.asarray((weights / weights.sum(axis=1, keepdims=True)) @ scores)


def steady_threshold(grid: FloatArray, scores: FloatArray, steady: FloatArray, width: float) -> float:
    """The best threshold of a class by its smoothed F1; by F1 itself where that is perfect or best over a wide stretch.

    Args:
        grid: (K,) thresholds in (0, 1), ascending.
        scores: (K,) F1 at each.
        steady: (K,) F1 :func:`smoothed` by ``width``.
        width: standard deviation in logits.
    """
    if not width:
        return best_threshold(grid, scores)
    longest = max(_plateaus(scores), key=len)
    is_wide = _logit(grid[longest[-1]]) - _logit(grid[longest[0]]) > 2.0 * width
    return best_threshold(grid, scores if is_wide or scores.max() > 1.0 - _ROUNDING else steady)


def shrunk(own: FloatArray, common: float, support: np.ndarray, n0: float) -> FloatArray:
    """(L,) thresholds by class pulled toward the one of all classes, in logits, by n0 / (n + n0).

    Args:
        own: (L,) thresholds by class, in (0, 1).
        common: the one of all classes, in (0, 1).
        support: (L,) n, how many rows hold each label.
        n0: how many rows the one threshold is worth; 0 = as they are.
    """
    if not n0:
        return own
    away = _logit(own) - _logit(np.array(common))
    kept = 1.0 / (1.0 + np.exp(-(_logit(np.array(common)) + support / (support + n0) * away)))
    # Through the logarithm and back a class at the one threshold would miss it by a bit.
    return np.where(own == common, own, kept)


def _logit(shares: FloatArray) -> FloatArray:
    return np.asarray(np.log(shares) - np.log1p(-shares))


def _fitted(
    task: Task,
    given: FloatArray,
    truth: npt.NDArray[np.bool_],
    grid: FloatArray,
    settings: ThresholdSettings,
    temperature: float,
) -> TaskThresholds:
    support = truth.sum(axis=0)
    scores = f1_by_threshold(truth, given, grid)
    common = best_threshold(grid, mean_over_present(scores, support)) if support.any() else HALF
    steady = smoothed(grid, scores, settings.threshold_smoothing)
    own = [
        steady_threshold(grid, column, by_column, settings.threshold_smoothing) if column.max() > 0 else common
        for column, by_column in zip(scores.T, steady.T, strict=True)
    ]
    per_class = shrunk(np.array(own), common, support, settings.threshold_shrinkage)
    by_rule = (np.array(HALF), np.array(common), per_class)
    return TaskThresholds(
        common,
        dict(zip(task.labels, per_class.tolist(), strict=True)),
        {rule: float(macro_f1(tally(truth, given >= cut))) for rule, cut in zip(RULES, by_rule, strict=True)},
        dict(zip(task.labels, map(int, support), strict=True)),
        float(temperature),
    )


def _read(stored: _StoredTask, schema: int) -> TaskThresholds:
    if stored.per_class.keys() != stored.support.keys() or len(stored.macro_f1) < len(RULES):
        raise ValueError("its thresholds, support and scores are not of the same labels and rules")
    # Schema 1 counted labels without a row as F1 = 0.
    factor = len(stored.support) / max(1, sum(map(bool, stored.support.values()))) if schema == 1 else 1.0
    macro_f1: dict[str, float] = {rule: factor * stored.macro_f1[rule] for rule in RULES}
    return TaskThresholds(stored.common, stored.per_class, macro_f1, stored.support, stored.temperature)
