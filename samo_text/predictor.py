"""From texts to labels with a trained run or an exported file, exactly as the run was evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from samo.data.padding import padded
from samo.prediction import ModelPredictor, Prediction, TrainedModel
from samo_text.tokens import FileTokens, HashTokens, SeveralTokens, Tokens, exported_tokens, open_tokens

if TYPE_CHECKING:
    from samo.prediction.exported import ExportedModel
    from samo.runs.run import Run
    from samo.training.runtime import Runtime
    from samo_text.config import TextConfig

__all__ = ["TextPredictor"]

BATCH = 64
# As many texts are ordered by length at once: few at first, so that answers come soon; then more, since batches of like
# length cost less; never a whole file, for memory.
_WINDOWS = (256, 512, 1024, 2048, 4096)


class TextPredictor(ModelPredictor):
    """Predicts texts in batches of similar length."""

    takes = "texts"

    def __init__(self, model: TrainedModel, tokens: Tokens) -> None:
        """Texts longer than ``tokens`` can be are cut, with a warning."""
        super().__init__(model)
        self.tokens = tokens

    @classmethod
    def from_run(cls, run: Run, runtime: Runtime) -> TextPredictor:
        """The best epoch of a run, with the temperature and thresholds it is judged with.

        Raises:
            ModelFileError: the run holds no usable model.
            RunError: its ``calibration.json`` or ``thresholds.json`` is damaged.
        """
        # An exported file needs no torch.
        from samo.runs.load import trained_model
        from samo.runs.run import ASSETS
        from samo_text.frontend import TextFrontend

        model = trained_model(run, TextFrontend, runtime)
        config = cast("TextConfig", run.config)
        return cls(model, open_tokens(config, run.path(ASSETS)))

    @classmethod
    def from_exported(cls, model: ExportedModel, threads: int = 0) -> TextPredictor:
        """An exported file; imports no torch.

        Args:
            model: the file.
            threads: CPU threads; 0 = all cores.

        Raises:
            ModelFileError: it cannot be computed, or its tokenizer cannot be read.
        """
        from samo.prediction.readings import TextReading, TextReadings

        def tokens_of(reading: TextReading) -> HashTokens | FileTokens:
            return exported_tokens(reading.tokens, reading.max_tokens, reading.pad_id, str(model.path))

        if not isinstance(model.reading, TextReadings):
            return cls(model.trained(threads), tokens_of(model.text_reading))
        tokens = SeveralTokens(tuple(tokens_of(part) for part in model.reading.parts))
        return cls(model.trained(threads, tokens.feeds), tokens)

    def is_one(self, inputs: Any) -> bool:
        """A string."""
        return isinstance(inputs, str)

    def stream(self, inputs: Iterable[Any], *, sr: int | None = None) -> Iterator[Prediction]:
        """Predict texts in the order given.

        Raises:
            TypeError: an input is no text, or a sampling rate is given.
        """
        if sr is not None:
            raise TypeError("texts have no sampling rate: leave `sr` out")
        remaining, sizes = iter(inputs), chain(_WINDOWS, repeat(_WINDOWS[-1]))
        while window := list(islice(remaining, next(sizes))):
            for text in window:
                if not self.is_one(text):
                    raise self.refused(text)
            ids = self.tokens.encode(window)
            answers = self.answers(self._logits(ids), np.array([bool(text.strip()) for text in window]))
            for text, tokens, given in zip(window, ids, answers, strict=True):
                yield Prediction(given, text=text, warnings=self._warnings(text, tokens))

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """(N, C) float32 logits of texts in the order given, before temperatures and thresholds."""
        windows = [texts[start : start + _WINDOWS[-1]] for start in range(0, len(texts), _WINDOWS[-1])]
        logits = [self._logits(self.tokens.encode(window)) for window in windows]
        return np.concatenate(logits) if logits else np.zeros((0, self.space.n_columns), dtype=np.float32)

    def _logits(self, ids: Sequence[np.ndarray]) -> np.ndarray:
        logits = np.zeros((len(ids), self.space.n_columns), dtype=np.float32)
        order = np.argsort([len(row) for row in ids], kind="stable")
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            logits[places] = self.network.logits(*padded([ids[k] for k in places], fill=self.tokens.pad_id))
        return logits

    def _warnings(self, text: str, ids: np.ndarray) -> tuple[str, ...]:
        if not text.strip():
            return ("empty",)
        most = self.tokens.cut_at(text, ids)
        return () if most is None else (f"cut at {most} tokens",)
