"""From texts to labels with a trained run, exactly as the run was judged."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from samo.errors import DataError
from samo.evaluation.decision import Decision
from samo.runs.calibrate import decision_of
from samo.runs.run import ASSETS, Run
from samo.runs.train import load_run_model
from samo.tasks import LabelSpace
from samo.training.runtime import Runtime
from samo_text.batches import collate
from samo_text.config import TextConfig
from samo_text.frontend import TextFrontend
from samo_text.tokens import Tokens, open_tokens

__all__ = ["Answer", "TextPrediction", "TextPredictor", "read_texts"]

BATCH = 64
# As many texts are ordered by length at once: memory for a window of them, not for a whole file.
_WINDOW = 4096


@dataclass(frozen=True)
class Answer:
    """What a model says to one question.

    Attributes:
        labels: those that hold: the most probable one, or of a multi-label task all that reach their thresholds.
        likeliest: the most probable label, whether it reaches its threshold or not.
        probabilities: by label in [0, 1], under the run's temperature; sum 1 unless the task is multi-label.
    """

    labels: tuple[str, ...]
    likeliest: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class TextPrediction:
    """What a model says about one text; ``answers`` by task, ``warnings`` for whoever reads them."""

    text: str
    answers: dict[str, Answer]
    warnings: tuple[str, ...] = ()


class TextPredictor:
    """Predicts texts in batches of similar length."""

    def __init__(
        self, model: nn.Module, space: LabelSpace, tokens: Tokens, max_tokens: int, runtime: Runtime, decision: Decision
    ) -> None:
        """``decision`` holds temperatures and thresholds of the run."""
        self.model = model.eval()
        self.space = space
        self.tokens = tokens
        self.max_tokens = max_tokens
        self.runtime = runtime
        self.decision = decision

    @classmethod
    def from_run(cls, run: Run, runtime: Runtime) -> TextPredictor:
        """The best epoch of a run, with the temperature and thresholds it is judged with.

        Raises:
            ModelFileError: the run holds no usable model.
            RunError: its ``calibration.json`` or ``thresholds.json`` is damaged.
        """
        model, space = load_run_model(run, TextFrontend, runtime)
        config = TextConfig.build({name: value for name, value in run.settings.items() if name != "modality"})
        tokens = open_tokens(config, run.path(ASSETS))
        return cls(model, space, tokens, config.tokens.max_tokens, runtime, decision_of(run, space))

    def predict(self, texts: Sequence[str]) -> Iterator[TextPrediction]:
        """Predict texts in the order given."""
        for start in range(0, len(texts), _WINDOW):
            window = texts[start : start + _WINDOW]
            ids = self.tokens.encode(window)
            logits = self._logits(ids)
            probabilities, holds = self.decision.answers(logits, self.space)
            for text, tokens, row, decided in zip(window, ids, probabilities, holds, strict=True):
                yield TextPrediction(text, self._answers(row, decided), self._warnings(text, len(tokens)))

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """(N, C) float32 logits of texts in the order given, before temperatures and thresholds."""
        windows = [texts[start : start + _WINDOW] for start in range(0, len(texts), _WINDOW)]
        said = [self._logits(self.tokens.encode(window)) for window in windows]
        return np.concatenate(said) if said else np.zeros((0, self.space.n_columns), dtype=np.float32)

    @torch.inference_mode()
    def _logits(self, ids: Sequence[np.ndarray]) -> np.ndarray:
        logits = np.zeros((len(ids), self.space.n_columns), dtype=np.float32)
        order = np.argsort([len(row) for row in ids], kind="stable")
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            nothing = np.zeros((len(places), 0), np.float32)
            batch = collate([ids[k] for k in places], nothing, places, self.tokens.pad_id).to(self.runtime.device)
            with self.runtime.autocast():
                logits[places] = self.model(batch.inputs, batch.lengths).float().cpu().numpy()
        return logits

    def _answers(self, probabilities: np.ndarray, holds: np.ndarray) -> dict[str, Answer]:
        answers = {}
        for task in self.space.tasks:
            columns = self.space.slices[task.name]
            shares, decided = probabilities[columns], holds[columns]
            ranked = sorted(range(len(task.labels)), key=lambda k, shares=shares: (-shares[k], k))  # type: ignore[misc]
            answers[task.name] = Answer(
                tuple(task.labels[k] for k in ranked if decided[k]),
                task.labels[ranked[0]],
                dict(zip(task.labels, map(float, shares), strict=True)),
            )
        return answers

    def _warnings(self, text: str, n_tokens: int) -> tuple[str, ...]:
        if not text.strip():
            return ("empty",)
        cut = n_tokens >= self.max_tokens and self.tokens.cuts(text)
        return (f"cut at {self.max_tokens} tokens",) if cut else ()


def read_texts(path: Path) -> list[str]:
    """The texts of a file, one a line; of a ``.jsonl`` file the ``text`` of each line; ``-`` is standard input.

    Blank lines at the end are left out; others stay, so that answers keep their places.

    Raises:
        DataError: no such file, not UTF-8, or no text in it.
    """
    try:
        given = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        lines = given.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text",
            hint="a run on text takes files of one text a line; recordings need a run on speech",
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix == ".jsonl":
        lines = [_text_of(path, number, line) for number, line in enumerate(lines, start=1)]
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} holds no text")
    return lines


def _text_of(path: Path, number: int, line: str) -> str:
    try:
        return str(json.loads(line)["text"])
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"line {number} of {path} is no JSON object with a 'text'") from error
