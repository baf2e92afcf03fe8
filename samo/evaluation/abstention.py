"""From which confidence on a model answers at all: selective classification, its risk-coverage curve and area.

The confidence of an answer is the probability that the model itself gives to all of it: the largest probability where
one label holds, the product over the labels of p (of those that hold) or 1 - p (of the others) where several may. An
answer is wrong where any of its labels is. Coverage is the share of rows that are answered, risk the share of wrong
answers among them (El-Yaniv & Wiener 2010, "On the Foundations of Noise-free Selective Classification"; Geifman &
El-Yaniv 2017, "Selective Classification for Deep Neural Networks").

The threshold is the one that reaches the wanted risk, or coverage, on the validation rows; on others it comes close to
it, with nothing promised. A report shows both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from samo.errors import RunError
from samo.evaluation.metrics import Decided
from samo.files import parse_json, write_json
from samo.stored import Count, Number, Positive, Stored, Text, validated
from samo.tasks import LabelSpace, Task

if TYPE_CHECKING:
    from samo.settings import AbstentionSettings

__all__ = [
    "Abstention",
    "abstention_line",
    "abstention_scores",
    "confidence",
    "confidence_threshold",
    "fold_abstention",
    "risk_coverage",
]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# No confidence reaches it: what a model has that answers nothing.
NEVER = 2.0
_CURVE_POINTS = 100


@dataclass(frozen=True)
class Abstention:
    """The thresholds of confidence that belong to one set of weights and its temperatures; without any all is answered.

    Attributes:
        rule: ``risk`` or ``coverage``; empty where a model never abstains.
        wanted: the risk or coverage that was wanted, in (0, 1).
        thresholds: by task: an answer below it is withheld. 0 answers all, 2 nothing.
        temperature: by task, those of the probabilities they are for.
        fitted_on: the part of the split they were fitted on; empty when none were.
        n: labelled rows they were fitted on, by task.
        epoch: the epoch of the weights they belong to, from 1.
    """

    rule: str = ""
    wanted: float = 0.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    temperature: Mapping[str, float] = field(default_factory=dict)
    fitted_on: str = ""
    n: Mapping[str, int] = field(default_factory=dict)
    epoch: int = 0

    def are_for(self, temperatures: Mapping[str, float], space: LabelSpace) -> bool:
        """Whether there are thresholds for every task under these temperatures."""
        return all(
            task.name in self.thresholds and self.temperature.get(task.name, 1.0) == temperatures.get(task.name, 1.0)
            for task in space.tasks
        )

    def is_wanted_by(self, settings: AbstentionSettings) -> bool:
        """Whether this is what the settings ask for."""
        return (self.rule, self.wanted) == (settings.rule, settings.wanted)

    def save(self, path: Path) -> None:
        """Write JSON in one step."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Abstention:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: damaged.
        """
        try:
            return cls.from_json(parse_json(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}", hint="remove it; `samo evaluate` fits it again") from error

    def to_json(self) -> dict[str, Any]:
        """Plain values that :meth:`from_json` reads back."""
        return {"schema": 1, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Abstention:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: it is something else, or no threshold was fitted.
        """
        stored = validated(_StoredAbstention, data)
        return cls(
            stored.rule, stored.wanted, stored.thresholds, stored.temperature, stored.fitted_on, stored.n, stored.epoch
        )


class _StoredAbstention(Stored):
    rule: Literal["risk", "coverage"]
    wanted: Number
    thresholds: dict[Text, Number]
    temperature: dict[Text, Positive]
    fitted_on: Text
    n: dict[Text, Count]
    epoch: Count


def confidence(task: Task, probabilities: np.ndarray, present: np.ndarray) -> FloatArray:
    """(N,) in [0, 1]: the probability that a model gives to its answer.

    Args:
        task: whose columns these are.
        probabilities: (N, L) in [0, 1].
        present: (N, L) bool, the labels that are answered.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    if task.multi_label:
        return np.where(present, given, 1.0 - given).prod(axis=1)
    return given.max(axis=1)


def confidence_threshold(sure: np.ndarray, wrong: np.ndarray, settings: AbstentionSettings) -> float:
    """The lowest threshold that keeps the wanted risk, or the highest that keeps the wanted coverage.

    It lies half way between the last confidence that is answered and the first that is not. 0 where all is answered,
    2 where no threshold keeps the wanted risk.

    Args:
        sure: (N,) confidence of each answer.
        wrong: (N,) bool.
        settings: what is wanted.
    """
    order = np.argsort(-sure, kind="stable")
    ranked, n = sure[order], len(sure)
    # Answers of one confidence are given or withheld together.
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True]) if n else np.array([], dtype=np.int64)
    if settings.rule == "coverage":
        # Rounding must not ask for a row more: 0.8 of 10 rows are 8.
        kept = ends[ends + 1 >= settings.wanted * n - 1e-9][:1]
    else:
        kept = ends[np.cumsum(wrong[order])[ends] / (ends + 1) <= settings.wanted + 1e-12][-1:]
    if not len(kept):
        return NEVER
    last = int(kept[0])
    return 0.0 if last == n - 1 else float((ranked[last] + ranked[last + 1]) / 2)


def risk_coverage(sure: np.ndarray, wrong: np.ndarray) -> tuple[FloatArray, FloatArray, float]:
    """Risk at every coverage, and the area under that curve (AURC, Geifman et al. 2019), the mean over coverages.

    Of rows with one confidence any order is as good: each counts with the mean of their errors.

    Args:
        sure: (N,) confidence of each answer.
        wrong: (N,) bool.

    Returns:
        (N,) coverage, rising to 1; (N,) risk; and the area, 0 without a wrong answer. The curve of no rows is empty,
        and its area is 0.
    """
    n = len(sure)
    if not n:
        return np.zeros(0), np.zeros(0), 0.0
    _, group, counts = np.unique(-sure, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=wrong) / counts
    answered = np.arange(1, n + 1)
    risk = np.cumsum(np.repeat(means, counts)) / answered
    return answered / n, risk, float(risk.mean())


def fold_abstention(
    task: Task, found: Decided, folds: Sequence[str], abstentions: Mapping[str, Abstention]
) -> dict[str, Any]:
    """:func:`abstention_scores` of rows that several models answered, each withheld by its own model's threshold.

    Args:
        task: the task.
        found: its rows.
        folds: which model answered each of them.
        abstentions: of each model; one that is not named answers all.

    Returns:
        The same keys; ``threshold`` is None, and ``threshold_by_fold`` has that of every model, None where it has none.
    """
    by_fold = {name: abstentions.get(name, Abstention()).thresholds.get(task.name) for name in dict.fromkeys(folds)}
    used = next((abstentions[name] for name, cut in by_fold.items() if cut is not None), Abstention())
    scores = _scores(task, found, used, np.array([by_fold[name] or 0.0 for name in folds]))
    return {**scores, "threshold": None, "threshold_by_fold": by_fold} if used.rule else scores


def abstention_scores(task: Task, found: Decided, abstention: Abstention) -> dict[str, Any]:
    """What a report says of one task's answers by their confidence.

    Args:
        task: the task.
        found: its rows.
        abstention: the thresholds in use.

    Returns:
        ``aurc``, ``risk`` of answering all, ``curve`` (at most 100 points of ``coverage`` and ``risk``); ``rule``,
        ``wanted``, ``threshold`` and ``fitted_on``, None where the model never abstains; and under the threshold
        ``answered`` (rows), ``coverage`` and ``answered_risk``, None where nothing is answered.
    """
    return _scores(task, found, abstention, np.array(abstention.thresholds.get(task.name, 0.0)))


def _scores(task: Task, found: Decided, abstention: Abstention, thresholds: FloatArray) -> dict[str, Any]:
    """Under a threshold for all rows, or one for each."""
    sure, wrong = confidence(task, found.probabilities, found.predicted), (found.truth != found.predicted).any(axis=1)
    coverage, risk, area = risk_coverage(sure, wrong)
    places = np.unique(np.linspace(0, len(sure) - 1, min(len(sure), _CURVE_POINTS)).round().astype(int))
    answered = sure >= thresholds
    return {
        "aurc": area,
        "risk": float(wrong.mean()),
        "curve": [{"coverage": float(coverage[k]), "risk": float(risk[k])} for k in places],
        "rule": abstention.rule or None,
        "wanted": abstention.wanted if abstention.rule else None,
        "threshold": abstention.thresholds.get(task.name),
        "fitted_on": abstention.fitted_on or None,
        "answered": int(answered.sum()),
        "coverage": float(answered.mean()),
        "answered_risk": float(wrong[answered].mean()) if answered.any() else None,
    }


def abstention_line(scores: Mapping[str, Any]) -> str:
    """:func:`abstention_scores` or :func:`fold_abstention` in one line."""
    line = f"area under the risk-coverage curve {scores['aurc']:.3f} (all answered: risk {scores['risk']:.3f})"
    if not scores["rule"]:
        return f"{line}; it never abstains"
    kept = f"risk {scores['answered_risk']:.3f}" if scores["answered"] else "nothing is answered"
    wanted = f"for a {scores['rule']} of {scores['wanted']:g} on {scores['fitted_on']}"
    each = ", each fold by its own threshold," if "threshold_by_fold" in scores else ""
    return f"{line}; {wanted}{each} it answers {scores['coverage']:.0%} of the rows, {kept}"
