"""Predictions as comma-separated values: a row for each clip or text, or for each window of a recording."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samo.prediction import Prediction
    from samo.tasks import LabelSpace

__all__ = ["csv_head", "csv_rows", "window_head", "window_rows"]


def csv_head(space: LabelSpace, modality: str) -> list[str]:
    """Of clips label and probabilities, of texts labels and probabilities of every task."""
    what, column = ("path", "label") if modality == "audio" else ("text", "labels")
    heads: list[str] = []
    for task in space.tasks:
        front = f"{task.name}." if len(space.tasks) > 1 else ""
        heads += [f"{front}{head}" for head in (column, *task.labels, "abstained")]
    return [what, *heads, "warnings"]


def csv_rows(prediction: Prediction) -> list[list[object]]:
    """One row: what was given, the answer to every task, warnings."""
    cells: list[object] = []
    for answer in prediction.answers.values():
        cells += ["|".join(answer.labels), *_shares(answer.probabilities), _truth(answer.abstained)]
    return [[prediction.source, *cells, "; ".join(prediction.warnings)]]


def window_head(space: LabelSpace) -> list[str]:
    """Of the windows of a long recording."""
    return ["path", "start_s", "end_s", "label", *space.primary.labels, "abstained"]


def window_rows(prediction: Prediction) -> list[list[object]]:
    """One row for each window, times in seconds."""
    return [
        [prediction.source, window.start_s, window.end_s, window.label, *_shares(window.probabilities),
         _truth(window.abstained)]
        for window in prediction.timeline
    ]  # fmt: skip


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _shares(probabilities: Mapping[str, float]) -> list[str]:
    return [f"{share:.6f}" for share in probabilities.values()]
