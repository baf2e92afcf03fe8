"""Whether an exported file answers as the run it was made of, on items held out from its training where there are any.

The test part is used where its logits were kept by an evaluation: the same model answers the same items once more,
which tells nothing new about them. A quantised or pruned file is another model, so that its look at the test part is
counted (:meth:`samo.runs.run.Run.open_test`). Without kept logits it is the validation part, and the test part stays
closed. A run that learned from everything has neither: then it is some of what it was trained on, which tells whether
the file computes the same, and nothing of how good it is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from samo.errors import RunError
from samo.evaluation.comparison import build_comparison
from samo.evaluation.decision import Decision, decided_rows
from samo.evaluation.metrics import macro_f1, tally
from samo.evaluation.predictions import Predictions
from samo.prediction.network import Network
from samo.runs.kept_predictions import kept_predictions, predictions_of
from samo.runs.run import Run
from samo.tasks import LabelSpace, Task
from samo.training.setup import Setup
from samo.training.trainer import predict_logits

__all__ = [
    "FASTER",
    "LOGITS_WITHIN",
    "MOST_LOST",
    "SMALLER",
    "AsModule",
    "CheckItems",
    "Parity",
    "TaskParity",
    "check_items",
    "exact_problem",
    "example_batches",
    "gain_problem",
    "latencies",
    "loss_problem",
    "parity_of",
    "spread",
]

# Of a float32 file: how far a logit may lie from the run's.
LOGITS_WITHIN = 1e-3
# Of a quantised or pruned file: macro-F1 it may cost, and what it must gain.
MOST_LOST, FASTER, SMALLER = 0.01, 1.5, 3.0
# Training items that stand in where nothing was held out.
MOST_TRAINED_ON = 256
# Kept logits are believed when the model gives the same to the first few items.
_TRIED = 8
_ROUNDING = 1e-12
# Answers of each network that a latency is the median of, unless they take longer than this many seconds together.
_ROUNDS, _FEWEST, _SECONDS = 15, 3, 20.0


@dataclass(frozen=True)
class CheckItems:
    """Items that a file is checked on.

    Attributes:
        part: ``test``, ``val``, or ``train`` of a run that has no other.
        ids: of the items.
        logits: (N, C) of the run's own model.
    """

    part: str
    ids: tuple[str, ...]
    logits: np.ndarray


@dataclass(frozen=True)
class TaskParity:
    """What became of the answers to one task.

    Attributes:
        before, after: macro-F1 of run and file; None where no item is labelled.
        answered: share of items that run and file do not withhold an answer to, in [0, 1].
    """

    before: float | None
    after: float | None
    answered: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        coverage = {"before": self.answered[0], "after": self.answered[1]}
        return {"macro_f1": {"before": self.before, "after": self.after}, "coverage": coverage}


@dataclass(frozen=True)
class Parity:
    """What became of the answers.

    Attributes:
        part: of the run's split, ``test``, ``val`` or ``train``.
        n: items.
        unit: what a group of items is called, and ``n_units`` how many there are.
        largest_difference: between two logits.
        equal_labels: share of the items whose labels all stay, in [0, 1].
        before, after: macro-F1 of the first task.
        low, high: paired interval of the difference; None with fewer than two groups.
        equal_withheld: share of the items of which the same answers are withheld, in [0, 1].
        tasks: each task by name.
    """

    part: str
    n: int
    unit: str
    n_units: int
    largest_difference: float
    equal_labels: float
    before: float
    after: float
    low: float | None
    high: float | None
    equal_withheld: float = 1.0
    tasks: Mapping[str, TaskParity] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        f1 = {"before": self.before, "after": self.after, "difference": self.after - self.before}
        return {
            "part": self.part,
            "trained_on": self.part == "train",
            "n": self.n,
            "unit": self.unit,
            "n_units": self.n_units,
            "largest_difference": self.largest_difference,
            "equal_labels": self.equal_labels,
            "equal_withheld": self.equal_withheld,
            "macro_f1": {**f1, "low": self.low, "high": self.high},
            "tasks": {name: task.to_json() for name, task in self.tasks.items()},
        }


class AsModule(nn.Module):
    """A predictor's network as what :func:`samo.training.trainer.predict_logits` calls."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """(B, C) logits."""
        return torch.from_numpy(self.network.logits(inputs.numpy(), lengths.numpy()))


def check_items(run: Run, setup: Setup, model: nn.Module, space: LabelSpace) -> CheckItems:
    """The items to check a file on, and the run's own logits of them."""
    split = run.split
    kept = _kept(run, split.test, space)
    if kept is not None:
        rows = setup.frontend.manifest.rows(split.test[:_TRIED])
        if np.abs(predict_logits(model, setup, rows) - kept[:_TRIED]).max() <= LOGITS_WITHIN:
            return CheckItems("test", split.test, kept)
    part, ids = ("val", split.val) if split.val else ("train", spread(split.train, MOST_TRAINED_ON))
    return CheckItems(part, ids, predict_logits(model, setup, setup.frontend.manifest.rows(ids)))


def spread(ids: tuple[str, ...], most: int) -> tuple[str, ...]:
    """So many of them at even distances: always the same, and of all kinds where like ones stand together."""
    places = np.unique(np.linspace(0, len(ids) - 1, min(most, len(ids))).round().astype(np.int64))
    return tuple(ids[place] for place in places)


def _kept(run: Run, ids: tuple[str, ...], space: LabelSpace) -> np.ndarray | None:
    """(N, C) logits of the test part that an evaluation kept."""
    if not ids or not run.path("report.json").is_file():
        return None
    try:
        found = Predictions.load(kept_predictions(run, "test"), space)
    except RunError:
        return None
    return found.logits if found.ids == ids else None


def parity_of(
    run: Run,
    setup: Setup,
    space: LabelSpace,
    items: CheckItems,
    logits: np.ndarray,
    decisions: tuple[Decision, Decision],
) -> Parity:
    """Compare a file's (N, C) ``logits`` with the run's own.

    Args:
        run: whose model it is.
        setup: of the run's data.
        space: the tasks and their columns.
        items: which items, and the run's logits.
        logits: of the file.
        decisions: of the run, and of the file.
    """
    frontend = setup.frontend
    answers = [
        decision.answers(given, space) for decision, given in zip(decisions, (items.logits, logits), strict=True)
    ]
    labels = [present for _, present in answers]
    withheld = [decision.abstained(*given, space) for decision, given in zip(decisions, answers, strict=True)]
    same = np.stack([withheld[0][task.name] == withheld[1][task.name] for task in space.tasks])
    predictions = [
        decision.applied(predictions_of(frontend, items.ids, given), space)
        for decision, given in zip(decisions, (items.logits, logits), strict=True)
    ]
    compared = build_comparison(
        {"run": predictions[0], "file": predictions[1]},
        task=space.primary, label_space=space, unit=frontend.unit, dataset=frontend.manifest.dataset, split=items.part,
        split_rule=run.split.rule,
    )  # fmt: skip
    found = compared["comparisons"][0]["scores"]["macro_f1"]
    return Parity(
        items.part,
        len(items.ids),
        compared["unit"],
        compared["n_units"],
        float(np.abs(logits.astype(np.float64) - items.logits).max()),
        float((labels[0] == labels[1]).all(axis=1).mean()),
        found["baseline"],
        found["run"],
        found["low"],
        found["high"],
        float(same.all(axis=0).mean()),
        {
            task.name: TaskParity(
                _macro_f1(task, predictions[0], space, decisions[0]),
                _macro_f1(task, predictions[1], space, decisions[1]),
                (1.0 - float(withheld[0][task.name].mean()), 1.0 - float(withheld[1][task.name].mean())),
            )
            for task in space.tasks
        },
    )


def _macro_f1(task: Task, predictions: Predictions, space: LabelSpace, decision: Decision) -> float | None:
    decided = decided_rows(task, predictions, space, decision.calibration.temperature, decision.thresholds)
    return float(macro_f1(tally(decided.truth, decided.predicted))) if len(decided.rows) else None


def exact_problem(parity: Parity) -> str:
    """Why a file in float32 is not the network it was made of; empty where it is."""
    if not parity.largest_difference <= LOGITS_WITHIN:
        return f"its logits lie up to {parity.largest_difference:.2g} from the run's, more than {LOGITS_WITHIN}"
    if parity.equal_labels < 1.0:
        changed = round((1.0 - parity.equal_labels) * parity.n)
        return f"{changed} of {parity.n} {_items(parity)} get other labels than from the run"
    if parity.equal_withheld < 1.0:
        changed = round((1.0 - parity.equal_withheld) * parity.n)
        return f"of {changed} of {parity.n} {_items(parity)} other answers are withheld than by the run"
    return ""


def _items(parity: Parity) -> str:
    return "items that it was trained on" if parity.part == "train" else "held-out items"


def loss_problem(parity: Parity) -> str:
    """Why a quantised or pruned file costs too much, by the task that loses most; empty where it does not."""
    scores = [("", parity.before, parity.after)]
    for name, task in parity.tasks.items():
        if len(parity.tasks) > 1 and task.before is not None and task.after is not None:
            scores.append((f" of '{name}'", task.before, task.after))
    lost = [(name, before, after) for name, before, after in scores if not before - after <= MOST_LOST + _ROUNDING]
    if not lost:
        return ""
    # The named one of two alike: the first task stands there twice.
    name, before, after = max(lost, key=lambda each: (each[1] - each[2], each[0]))
    where = _items(parity) if parity.part == "train" else f"the {parity.part} part"
    return f"macro-F1{name} falls from {before:.3f} to {after:.3f} on {where}, more than {MOST_LOST}"


def gain_problem(faster: float, smaller: float) -> str:
    """Why a quantised file is not worth it; empty where it is.

    Args:
        faster: ratio of latencies, float32 to quantised.
        smaller: ratio of sizes, float32 to quantised.
    """
    if faster >= FASTER or smaller >= SMALLER:
        return ""
    return f"it is {faster:.2f} times as fast and {smaller:.2f} times smaller; {FASTER} or {SMALLER} is wanted"


def latencies(networks: Mapping[str, Network], batch: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Median milliseconds of each network's answer to one batch; they take turns, so that none has the quieter time."""
    inputs, lengths = batch
    for network in networks.values():
        network.logits(inputs, lengths)  # memory is taken, and constants are computed, at the first
    spent: dict[str, list[float]] = {name: [] for name in networks}
    began = time.perf_counter()
    for number in range(_ROUNDS):
        if number >= _FEWEST and time.perf_counter() - began > _SECONDS:
            break
        for name, network in networks.items():
            start = time.perf_counter()
            network.logits(inputs, lengths)
            spent[name].append(1000.0 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in spent.items()}


def example_batches(setup: Setup, ids: Sequence[str], sizes: Sequence[int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Batches of so many held-out inputs, and their lengths; items are taken again where there are too few."""
    rows = setup.frontend.manifest.rows(tuple(ids))[: max(sizes)]
    batches = {}
    for size in sizes:
        again = np.resize(rows, size)
        batch = next(iter(setup.frontend.eval_batches(again, size)))
        batches[size] = (batch.inputs.numpy(), batch.lengths.numpy())
    return batches
