"""Every answer of a report beside its truth: ``predictions.csv``, and the most confident mistakes for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from samo.data.manifest import Item, Manifest
from samo.evaluation.abstention import confidence
from samo.evaluation.decision import Decision, decided_rows
from samo.evaluation.metrics import Decided
from samo.evaluation.predictions import Predictions
from samo.printable import csv_text
from samo.tasks import LabelSpace, Task

__all__ = ["confident_mistakes", "predictions_csv"]

MISTAKES_SHOWN = 10
# Characters of a text that the page shows.
LONGEST_TEXT = 600


def predictions_csv(
    predictions: Predictions,
    space: LabelSpace,
    decision: Decision,
    manifest: Manifest,
    columns: Mapping[str, Sequence[object]] | None = None,
) -> str:
    """One row an item: ``id``, ``source`` (file or text), ``group``, and of each task truth and answer.

    Of a task these are ``truth`` and ``predicted`` (several labels joined by "; "), ``confidence`` (the probability of
    the whole answer, in [0, 1]), ``correct`` (1 or 0) and ``p.LABEL``, a probability a label. With several tasks each
    name is followed by that of its task, ``truth.emotion``. What a task has no label for stays empty.

    Args:
        predictions: raw logits and targets of N rows.
        space: the tasks and their columns.
        decision: temperatures and thresholds, as the report has them.
        manifest: of the items.
        columns: further ones, N values each.
    """
    more = dict(columns or {})
    items = [manifest.items[row] for row in manifest.rows(predictions.ids)]
    heads = ["id", "source", "group", *more]
    rows: list[list[object]] = [
        [item.id, item.source, item.group, *(values[number] for values in more.values())]
        for number, item in enumerate(items)
    ]
    for task in space.tasks:
        ending = f".{task.name}" if len(space.tasks) > 1 else ""
        names = [f"{name}{ending}" for name in ("truth", "predicted", "confidence", "correct")]
        heads += [*names, *(f"p.{label}{ending}" for label in task.labels)]
        found = _decided(task, predictions, space, decision)
        sure = confidence(task, found.probabilities, found.predicted)
        cells: dict[int, list[object]] = {
            int(row): [
                _labels(task, found.truth[k]),
                _labels(task, found.predicted[k]),
                round(float(sure[k]), 6),
                int((found.truth[k] == found.predicted[k]).all()),
                *(round(float(share), 6) for share in found.probabilities[k]),
            ]
            for k, row in enumerate(found.rows)
        }
        for number, row_cells in enumerate(rows):
            row_cells += cells.get(number, [""] * (len(names) + len(task.labels)))
    return csv_text([heads, *rows])


def confident_mistakes(
    predictions: Predictions, space: LabelSpace, decision: Decision, manifest: Manifest, task: Task | None = None
) -> list[dict[str, Any]]:
    """The wrong answers a model is most sure of, at most ten, the surest first.

    Each has ``truth``, ``predicted``, ``confidence``, ``group`` and ``text``, of items that are texts; else ``audio``,
    the address of the file where it lies (with the part of it that is the item), and ``text``, its name.
    """
    task = task or space.primary
    found = _decided(task, predictions, space, decision)
    sure = confidence(task, found.probabilities, found.predicted)
    wrong = np.flatnonzero((found.truth != found.predicted).any(axis=1))
    shown = []
    for k in wrong[np.argsort(-sure[wrong], kind="stable")][:MISTAKES_SHOWN]:
        item = manifest.items[manifest.row_of[predictions.ids[found.rows[k]]]]
        shown.append(
            {
                "truth": _labels(task, found.truth[k]) or "none",
                "predicted": _labels(task, found.predicted[k]) or "none",
                "confidence": float(sure[k]),
                "group": item.group,
                **_seen(item, manifest),
            }
        )
    return shown


def _seen(item: Item, manifest: Manifest) -> dict[str, str]:
    if manifest.copies == "reported":  # the items are texts themselves
        cut = item.source[:LONGEST_TEXT]
        return {"text": cut if cut == item.source else cut.rstrip() + " …", "audio": ""}
    path = manifest.path(item).absolute()
    # A media fragment plays the item's part of a longer recording.
    start, end = item.segment or (None, None)
    piece = "" if start is None else f"#t={start:g}" + ("" if end is None else f",{end:g}")
    return {"text": item.id if item.segment else item.source, "audio": path.as_uri() + piece if path.is_file() else ""}


def _decided(task: Task, predictions: Predictions, space: LabelSpace, decision: Decision) -> Decided:
    thresholds = decision.thresholds if decision.thresholds.tasks else None
    return decided_rows(task, predictions, space, decision.calibration.temperature, thresholds)


def _labels(task: Task, held: np.ndarray) -> str:
    return "; ".join(label for label, there in zip(task.labels, held, strict=True) if there)
