"""Models that answer by rules anyone can compute by hand."""

from __future__ import annotations

import io
import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import soundfile

from samo.evaluation.decision import Decision
from samo.prediction import Decoded, ModelFacts, ModelPredictor, Prediction, Window, answers_of
from samo.tasks import LabelSpace, Task

SR = 8000
LOUD = LabelSpace((Task("emotion", ("quiet", "loud")),))
MOODS = LabelSpace((Task("mood", ("short", "long"), multi_label=True), Task("case", ("lower", "upper"))))


class Stub(ModelPredictor):
    """Notes the size of each batch; waits for ``gate`` before each, and raises on what it is told to."""

    def __init__(self, name: str, modality: str, space: LabelSpace, **facts: Any) -> None:
        self.space, self.decision, self.card = space, Decision(), ""
        self.facts = ModelFacts(name, modality, dataset="made", network="stub", trained="2026-11-26", **facts)
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.poison: Any = None

    def is_one(self, inputs: Any) -> bool:
        return isinstance(inputs, str | np.ndarray)

    def stream(self, inputs: Iterable[Any], *, sr: int | None = None) -> Iterator[Prediction]:
        given = list(inputs)
        assert self.gate.wait(20)
        self.sizes.append(len(given))
        for each in given:
            if isinstance(each, str) and len(each) == self.poison:
                raise ZeroDivisionError("poison")
            yield self.answer(each)

    @abstractmethod
    def answer(self, given: Any) -> Prediction: ...


class Ears(Stub):
    """Says that a clip is as loud as its largest sample; one without a finite number where it is 0.25."""

    sr = SR
    window = SR // 2
    window_s = 0.5

    def __init__(self, name: str = "ears") -> None:
        super().__init__(name, "audio", LOUD)

    def answer(self, given: Any) -> Prediction:
        if isinstance(given, Decoded):
            assert given.sr == SR
            given = given.waveform
        peak = float(np.abs(given).max())
        share = float("nan") if abs(peak - 0.25) < 0.01 else min(peak, 1.0)
        answers = answers_of(np.array([1 - share, share]), np.array([share <= 0.5, share > 0.5]), self.space)
        windows = () if len(given) / SR <= self.timeline_s else (Window(0.0, round(len(given) / SR, 3), answers),)
        return Prediction(answers, timeline=windows)

    def spectrogram(self, waveform: np.ndarray, sr: int) -> np.ndarray:
        assert sr == SR
        return np.array([[-1.0, 0.0, 1.0], [1.0, 1.0, 3.0]], np.float32)


class Reader(Stub):
    """Says that a text of ten letters or more is long; abstains from what is empty."""

    max_tokens = 7

    def __init__(self, name: str = "reader") -> None:
        super().__init__(name, "text", MOODS)
        self.tokens = Words()

    def answer(self, given: str) -> Prediction:
        long, upper = len(given) / 20, float(given.isupper())
        present = np.array([long < 0.5, long >= 0.5, upper < 1, upper == 1])
        answers = answers_of(
            np.array([1 - long, long, 1 - upper, upper]), present, self.space, {"mood": not given, "case": not given}
        )
        return Prediction(answers, text=given, warnings=() if given else ("empty",))


class Words:
    """Splits at spaces."""

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [np.zeros(len(text.split()), np.int64) for text in texts]


def tone(peak: float = 0.5, seconds: float = 0.5, rate: int = SR, kind: str = "WAV") -> bytes:
    """The bytes of a file with a tone in it."""
    samples = peak * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()
