"""Whether a finished file, all that was written into it last included, answers as the network that was checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from samo.deploy.parity import LOGITS_WITHIN
from samo.errors import DataError
from samo.files import parse_json
from samo.prediction import ModelPredictor, Prediction

__all__ = ["MOST_GIVEN", "answers_problem", "metadata_problem"]

# Held-out items that a finished file is given as its users give them.
MOST_GIVEN = 48
# Of float32 probabilities.
_WITHIN = LOGITS_WITHIN


def answers_problem(own: ModelPredictor, made: ModelPredictor, inputs: Sequence[Any]) -> str:
    """Why a finished file is not the model it was made of; empty where it is.

    Both are given recordings or texts as they are and answer in the same batches, since dynamic 8 bits depend on them.

    Args:
        own: the run, with the network and decision that were checked.
        made: the finished file.
        inputs: what a person would give them.

    Raises:
        DataError: an input cannot be read.
    """
    given = list(inputs)
    differ, largest = 0, 0.0
    for one, other in zip(own.stream(given), made.stream(given), strict=True):
        if one.error:
            raise DataError(one.error)
        if other.error or _decisions(one) != _decisions(other) or one.warnings != other.warnings:
            differ += 1
            continue
        for task, answer in one.answers.items():
            shares = other.answers[task].probabilities
            largest = max(largest, *(abs(share - shares[label]) for label, share in answer.probabilities.items()))
    if differ:
        return f"the finished file answers {differ} of {len(given)} recordings or texts otherwise than what was checked"
    if not largest <= _WITHIN:
        return f"probabilities of the finished file lie up to {largest:.2g} from those of what was checked"
    return ""


def metadata_problem(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Which of the ``expected`` parts of its metadata a finished file tells otherwise; empty where none."""
    wrong = [name for name, part in parse_json(json.dumps(expected)).items() if found.get(name) != part]
    return f"the finished file tells otherwise of its {' and '.join(wrong)} than the run" if wrong else ""


def _decisions(prediction: Prediction) -> list[tuple[str, list[str], list[str], bool]]:
    return [
        (task, sorted(answer.labels), list(answer.probabilities), answer.abstained)
        for task, answer in prediction.answers.items()
    ]
