"""Labels for unlabelled texts, from a trained run, where it is sure of them (Lee 2013, "Pseudo-Label").

A text is kept when at least one task is decided with the confidence requested, under the run's temperature:

- single-label: the largest probability is at least ``confidence``;
- multi-label: every label is either at least ``confidence`` or at most ``1 - confidence`` probable, and at least one is
  the former. The run's own thresholds play no part: they are chosen for F1, not for certainty.

A task that is not decided so stays empty in the row, which training masks. The row's confidence is the least of what it
was decided with. Texts that stand in the run's validation or test part, word for word or nearly so, are left out: a
model trained on them would be evaluated on what it has seen. So are those it was trained on, empty ones, repetitions.

A model's mistakes come back as labels: keep ``confidence`` high, and compare the run trained on them with the one
before.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samo.data.augmented import class_counts
from samo.data.near_duplicates import find_copies, folded
from samo.errors import DataError, RunError, SettingsError
from samo.files import replacing
from samo.runs.run import Run
from samo.tasks import LabelSpace
from samo_text.predictor import TextPredictor
from samo_text.teacher import PSEUDO, SEPARATOR, SOURCE, write_teacher
from samo_text.texts import clean

__all__ = [
    "PseudoLabels",
    "check_confidence",
    "check_target",
    "confident",
    "pseudo_label",
    "write_pseudo_labels",
]

_OWN_COLUMNS = ("confidence", SOURCE)
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class PseudoLabels:
    """Texts that a run is sure of.

    Attributes:
        texts: M texts.
        labels: (M, C) bool, by the columns of ``space``.
        confidence: (M,) in [0, 1].
        summary: ``texts`` (read), ``kept``, ``left_out`` (how many for which reason) and ``counts`` (kept texts by
            task and label).
    """

    space: LabelSpace
    texts: tuple[str, ...]
    labels: np.ndarray
    confidence: np.ndarray
    summary: dict[str, Any]


def confident(probabilities: np.ndarray, space: LabelSpace, confidence: float) -> tuple[np.ndarray, ...]:
    """Which labels hold with how much confidence.

    Args:
        probabilities: (N, C) in [0, 1], calibrated.
        space: the tasks and their columns.
        confidence: above 0.5, at most 1.

    Returns:
        (N, C) bool labels, (N, K) bool which tasks are decided, and (N,) the least confidence of the decided tasks, 0
        where none is.
    """
    n = len(probabilities)
    present = np.zeros(probabilities.shape, dtype=bool)
    decided = np.zeros((n, len(space.tasks)), dtype=bool)
    sure = np.ones((n, len(space.tasks)))
    for k, task in enumerate(space.tasks):
        columns = space.slices[task.name]
        given = probabilities[:, columns]
        if task.multi_label:
            named = given >= confidence
            sure[:, k] = np.maximum(given, 1.0 - given).min(axis=1)
        else:
            named = given.argmax(axis=1)[:, None] == np.arange(given.shape[1])
            sure[:, k] = given.max(axis=1)
        decided[:, k] = (sure[:, k] >= confidence) & named.any(axis=1)
        present[:, columns] = named & decided[:, [k]]
    return present, decided, np.where(decided, sure, 1.0).min(axis=1) * decided.any(axis=1)


def pseudo_label(run: Run, predictor: TextPredictor, texts: Sequence[str], confidence: float = 0.9) -> PseudoLabels:
    """Label texts with a run and keep those it is sure of.

    Args:
        run: whose parts must not be touched.
        predictor: of that run.
        texts: unlabelled.
        confidence: least probability of a label that is given, and of one that is not.

    Raises:
        SettingsError: a confidence outside (0.5, 1].
    """
    check_confidence(confidence)
    left_out = {"empty": 0, "repeated": 0, "in validation or test": 0, "in training": 0, "not confident": 0}
    known: set[str] = set()
    fresh: list[str] = []
    for text in map(clean, texts):
        if not text or folded(text) in known:
            left_out["repeated" if text else "empty"] += 1
            continue
        known.add(folded(text))
        fresh.append(text)
    manifest, split = run.manifest, run.split
    trained, held_out = (
        tuple(manifest.items[row].source for row in manifest.rows(ids)) for ids in (split.train, split.val + split.test)
    )
    leaked = find_copies(tuple(fresh), held_out).all
    learned = {folded(text) for text in trained}
    seen = {row for row, text in enumerate(fresh) if row not in leaked and folded(text) in learned}
    left_out |= {"in validation or test": len(leaked), "in training": len(seen)}
    candidates = [text for row, text in enumerate(fresh) if row not in leaked and row not in seen]
    probabilities = predictor.decision.probabilities(predictor.logits(candidates), predictor.space)
    present, decided, sure = confident(probabilities, predictor.space, confidence)
    kept = np.flatnonzero(decided.any(axis=1))
    left_out["not confident"] = len(candidates) - len(kept)
    summary = {
        "texts": len(texts),
        "kept": len(kept),
        "confidence": confidence,
        "left_out": left_out,
        "counts": class_counts(predictor.space, present[kept]),
    }
    return PseudoLabels(predictor.space, tuple(candidates[row] for row in kept), present[kept], sure[kept], summary)


def check_confidence(confidence: float) -> None:
    """Refuse what would let two answers be equally sure.

    Raises:
        SettingsError: outside (0.5, 1].
    """
    if not 0.5 < confidence <= 1.0:
        raise SettingsError(f"`confidence={confidence:g}` must be above 0.5 and at most 1")


def check_target(run: Run, target: Path, *, overwrite: bool) -> None:
    """Refuse a table that cannot be written as requested, before the model is read.

    Raises:
        SettingsError: neither .csv nor .tsv.
        RunError: the file is there, or the run is not one on text.
        DataError: a task is named like a column of the table.
    """
    if target.suffix.lower() not in _DELIMITERS:
        raise SettingsError(f"`out={target}` must end in .csv or .tsv")
    if target.exists() and not overwrite:
        raise RunError(f"{target} exists", hint="choose another `out`, or replace it with `overwrite`")
    if run.settings["modality"] != "text":
        raise RunError(f"run '{run.name}' was trained on {run.settings['modality']}; pseudo-labels need a run on text")
    taken = [task.name for task in run.manifest.label_space.tasks if task.name in _OWN_COLUMNS]
    if taken:
        raise DataError(
            f"the run's task '{taken[0]}' is named like a column of the table to be written",
            hint="rename the column of labels and train again",
        )


def write_pseudo_labels(found: PseudoLabels, run: Run, target: Path) -> None:
    """Write a table: the text, a column for each task, ``confidence`` and ``source``.

    Columns and separator are those of the table the run was trained on, else ``text``, the tasks' names and ``|``, so
    that ``extra_table`` and ``dataset=table`` take it.

    Beside it, ``TABLE.teacher.json`` names the run and what it learned from (hashes of its training texts), so that
    ``extra_table`` can refuse a table whose teacher knew the texts another run is judged on.

    Raises:
        DataError: a label holds the separator.
    """
    column, separator = run.settings["text_column"], run.settings["label_separator"] or SEPARATOR
    tasks = found.space.tasks
    odd = [label for task in tasks if task.multi_label for label in task.labels if separator in label]
    if odd:
        raise DataError(f"label '{odd[0]}' holds '{separator}', which joins labels in the table")
    with replacing(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=_DELIMITERS[target.suffix.lower()], lineterminator="\n")
        writer.writerow([column, *(task.name for task in tasks), *_OWN_COLUMNS])
        for text, present, sure in zip(found.texts, found.labels, found.confidence, strict=True):
            cells = []
            for task in tasks:
                own = present[found.space.slices[task.name]]
                cells.append(separator.join(label for label, held in zip(task.labels, own, strict=True) if held))
            writer.writerow([text, *cells, f"{sure:.4f}", PSEUDO])
    write_teacher(run, target)
