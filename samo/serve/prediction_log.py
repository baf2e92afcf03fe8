"""Answers as lines of a file, for ``samo drift``: neither sound nor, unless wanted, text."""

from __future__ import annotations

import json
import logging
import math
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from samo.errors import EnvironmentProblem
from samo.evaluation.abstention import confidence
from samo.prediction import Decoded, ModelPredictor, Prediction

__all__ = ["PredictionLog"]

# JSON has no minus infinity; the level that digital silence has elsewhere.
_SILENCE_DB = -200.0


class PredictionLog:
    """JSON Lines, one an answer, appended whole: several servers may share a file."""

    def __init__(self, path: Path, *, inputs: bool = False, failed: Callable[[], None] = lambda: None) -> None:
        """Open the file.

        Args:
            path: appended to.
            inputs: whether texts are written too.
            failed: called for each line that could not be written.

        Raises:
            EnvironmentProblem: the file cannot be opened, or is a pipe.
        """
        self._path, self._inputs, self._failed = path, inputs, failed
        self._warned = False
        try:
            # A pipe would wait for a reader; what is written of people is for nobody else's eyes.
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {path}: {error.strerror}") from error
        if stat.S_ISFIFO(os.fstat(self._file).st_mode):
            os.close(self._file)
            raise EnvironmentProblem(f"cannot write {path}: it is a pipe", hint="name a file")
        os.set_blocking(self._file, True)
        # Whether the last line is a part of one, which would break the next.
        self._cut = _ends_within_line(path)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def audio(self, name: str, model: ModelPredictor, prediction: Prediction, clip: Decoded) -> None:
        """Append the answer to a clip."""
        peak_db = 20.0 * math.log10(clip.peak) if clip.peak > 0 else _SILENCE_DB
        facts = {"duration_s": round(clip.duration_s, 3), "peak_dbfs": round(peak_db, 2)}
        self._append(name, model, prediction, facts | {"level_dbfs": round(clip.rms_db, 2)})

    def text(self, name: str, model: ModelPredictor, prediction: Prediction, n_tokens: int | None) -> None:
        """Append the answer to a text."""
        text = prediction.text or ""
        facts: dict[str, Any] = {"n_chars": len(text), "n_tokens": n_tokens}
        self._append(name, model, prediction, facts | ({"text": text} if self._inputs else {}))

    def _append(self, name: str, model: ModelPredictor, prediction: Prediction, facts: dict[str, Any]) -> None:
        line = {
            "schema": 1,
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "model": name,
            "modality": model.facts.modality,
            "tasks": _tasks(model, prediction),
            **facts,
            "warnings": list(prediction.warnings),
        }
        text = (b"\n" if self._cut else b"") + json.dumps(line, ensure_ascii=False).encode() + b"\n"
        try:
            # At once, so that lines of several servers do not mix.
            written = os.write(self._file, text)
        except OSError as error:
            self._fail(str(error.strerror))
            return
        # A full disk takes what still fits.
        self._cut = written < len(text) and (written > 0 or self._cut)
        if written < len(text):
            self._fail(f"only {written} of {len(text)} bytes were written; is the disk full?")

    def _fail(self, why: str) -> None:
        self._failed()
        if not self._warned:
            self._warned = True
            logging.getLogger(__name__).warning("cannot write %s: %s", self._path, why)


def _ends_within_line(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False


def _tasks(model: ModelPredictor, prediction: Prediction) -> dict[str, Any]:
    found = {}
    for task in model.space.tasks:
        answer = prediction.answers[task.name]
        shares = np.array([[answer.probabilities[label] for label in task.labels]])
        present = np.array([[label in answer.labels for label in task.labels]])
        found[task.name] = {
            "label": answer.label,
            "labels": list(answer.labels),
            "confidence": round(float(confidence(task, shares, present)[0]), 6),
            "abstained": answer.abstained,
        }
    return found
