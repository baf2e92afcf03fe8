"""What a predictor is, and what predictors of speech and of text have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from samo.data.corpora import licence_for_others
from samo.errors import DataError, first_few
from samo.evaluation.decision import Decision
from samo.prediction.network import Network
from samo.prediction.prediction import Answer, Prediction, PredictionList, answers_of
from samo.tasks import LabelSpace

__all__ = ["ModelFacts", "ModelPredictor", "Predictor", "TrainedModel"]


@dataclass(frozen=True)
class ModelFacts:
    """Where a model comes from and how good it is, for whoever is about to believe it.

    Attributes:
        name: of the run or file.
        modality: ``audio`` or ``text``.
        folder: of the run; empty for a file that stands alone.
        dataset: what it was trained on.
        synthetic: whether that was generated.
        leaky: whether the same speaker may stand on two sides of its split.
        network: the architecture's name.
        trained: day it was trained, as YYYY-MM-DD; empty when unknown.
        scores: sentences such as ``test macro-F1 0.57 [0.52, 0.61]``, the most trustworthy first.
        code: names of code outside SAMO that the network is made of.
        licence: of the data, which binds the weights; empty when unknown.
    """

    name: str
    modality: str
    folder: str = ""
    dataset: str = ""
    synthetic: bool = False
    leaky: bool = False
    network: str = ""
    trained: str = ""
    scores: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    licence: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file that is taken elsewhere: without the run's folder."""
        return {name: value for name, value in asdict(self).items() if name != "folder"}

    def describe(self, space: LabelSpace) -> str:
        """What it answers, on what it was trained, how good it is and since when: a few lines."""
        tasks = [f"{task.name} ({first_few(task.labels, 8)})" for task in space.tasks]
        data = self.dataset + (", synthetic demo data" if self.synthetic else "")
        since = f", {self.trained}" if self.trained else ""
        lines = [
            f"answers: {'; '.join(tasks)}",
            f"trained: {self.network} on {data}{since}" if self.dataset else "",
            *(f"score:   {score}" for score in self.scores),
            "LEAKY SPLIT: the same speaker may stand in train and test" if self.leaky else "",
            f"code:    {', '.join(self.code)}" if self.code else "",
            f"licence: {licence_for_others(self.licence)}, of the data and so of the weights" if self.licence else "",
        ]
        return "\n".join([f"{self.modality} model '{self.name}'", *(f"  {line}" for line in lines if line)])


@dataclass(frozen=True)
class TrainedModel:
    """A network with all that turns its logits into answers.

    Attributes:
        network: what computes (B, C) logits.
        space: what the C columns mean.
        decision: temperatures and thresholds; the one way from logits to answers.
        facts: where it comes from.
        threads: CPU threads the network computes with.
        card: its model card in Markdown, where it carries one; a run's lies in its folder.
    """

    network: Network
    space: LabelSpace
    decision: Decision
    facts: ModelFacts = field(default_factory=lambda: ModelFacts("unnamed", ""))
    threads: int = 1
    card: str = ""


class Predictor(Protocol):
    """Anything that answers: a run, or an exported file.

    Attributes:
        space: the tasks and labels it answers.
        facts: where it comes from and how good it is.
    """

    space: LabelSpace
    facts: ModelFacts

    def predict(self, inputs: Any, *, sr: int | None = None) -> Prediction | PredictionList:
        """The answer to one input, or the answers to several in their order."""

    def stream(self, inputs: Iterable[Any], *, sr: int | None = None) -> Iterator[Prediction]:
        """The answers to any number of inputs, one after another as they are ready."""


class ModelPredictor(ABC):
    """Predictors of one modality differ in what one input is and how it becomes logits; the rest is here."""

    takes: ClassVar[str] = ""
    """What one input may be, for the sentence that refuses others."""

    timeline_s: float = 10.0
    """Recordings longer than this many seconds get a time line: a clip of a few windows is one utterance."""

    def __init__(self, model: TrainedModel) -> None:
        self.network, self.threads = model.network, model.threads
        self.space, self.decision, self.facts = model.space, model.decision, model.facts
        self.card = model.card

    @abstractmethod
    def stream(self, inputs: Iterable[Any], *, sr: int | None = None) -> Iterator[Prediction]:
        """The answers to any number of inputs, one after another as they are ready; memory does not grow with them.

        An input that cannot be read gives a prediction with an ``error``.

        Raises:
            TypeError: an input is nothing this model takes.
        """

    @abstractmethod
    def is_one(self, inputs: Any) -> bool:
        """Whether this is a single input rather than several."""

    def predict(self, inputs: Any, *, sr: int | None = None) -> Any:
        """Answer one input, or several.

        Args:
            inputs: one input or an iterable of them; a string is one input, never its letters.
            sr: sampling rate of waveforms in Hz; files and texts have none.

        Returns:
            A :class:`Prediction` for one input, a :class:`PredictionList` for several, in their order.

        Raises:
            TypeError: an input is nothing this model takes.
            DataError: the one input cannot be read. Of several, those that cannot be carry an ``error`` instead.
        """
        if sr is not None and (isinstance(sr, bool) or not isinstance(sr, int | float | np.number)):
            raise TypeError(f"`sr` is a sampling rate in Hz, a number, not {_kind(sr)}")
        if self.is_one(inputs):
            (prediction,) = self.stream([inputs], sr=sr)
            if prediction.error:
                raise DataError(prediction.error)
            return prediction
        if isinstance(inputs, Mapping | bytes | bytearray) or not isinstance(inputs, Iterable):
            raise self.refused(inputs)
        if hasattr(inputs, "columns"):
            raise TypeError(f"this {self.facts.modality} model takes one column of a table, such as frame['text']")
        return PredictionList(self.stream(inputs, sr=sr))

    def refused(self, given: object) -> TypeError:
        """The sentence for what this model does not take."""
        return TypeError(f"this {self.facts.modality} model takes {self.takes}, not {_kind(given)}")

    def answers(self, logits: np.ndarray, usable: np.ndarray | None = None) -> list[dict[str, Answer]]:
        """Name the decision on (N, C) logits: one entry a row, by task.

        ``usable``, (N,) bool, says where there is anything to tell an answer by; None: everywhere.
        """
        probabilities, present = self.decision.answers(logits, self.space)
        abstained = self.decision.abstained(probabilities, present, self.space, usable)
        return [
            answers_of(shares, own, self.space, {name: bool(rows[k]) for name, rows in abstained.items()})
            for k, (shares, own) in enumerate(zip(probabilities, present, strict=True))
        ]

    def __repr__(self) -> str:
        return self.facts.describe(self.space)


def _kind(given: object) -> str:
    return "None" if given is None else f"{type(given).__name__}"
