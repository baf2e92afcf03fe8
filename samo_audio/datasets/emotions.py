"""Emotion words: RAVDESS's eight, their grouping into sentiments, and label spaces made from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from samo.data.keys import key, refuse_twin_labels
from samo.errors import DataError, first_ten, plural

if TYPE_CHECKING:
    from samo.tasks import Task

__all__ = ["EMOTIONS", "EMOTION_TO_SENTIMENT", "SENTIMENTS", "label_task"]

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
SENTIMENTS = ("negative", "neutral", "positive")

_WORDS = {
    "negative": (
        "negative sad sadness angry anger fearful fear afraid scared anxious anxiety disgust disgusted contempt "
        "frustrated frustration annoyed annoyance disappointed disappointment bored boredom grief shame guilt hate"
    ),
    "neutral": "neutral calm calmness",
    "positive": (
        "positive happy happiness joy joyful surprised surprise excited excitement amused amusement love pride proud "
        "relief relieved content contentment pleased"
    ),
}

EMOTION_TO_SENTIMENT = {word: sentiment for sentiment, words in _WORDS.items() for word in words.split()}
"""Sentiment by lower-case emotion word. Surprise counts as positive and calm as neutral, as in the owner's table."""


def label_task(labels: Iterable[str], mode: str, source: object) -> tuple[Task, dict[str, str]]:
    """The task that a corpus's own labels pose, and the class of each label.

    Args:
        labels: the label of every clip, as it stands in the corpus.
        mode: ``"emotion"`` keeps the labels, sorted; ``"sentiment"`` groups them into :data:`SENTIMENTS`.
        source: where the labels stand, for messages.

    Returns:
        The task, and the class name by label.

    Raises:
        DataError: a label has no sentiment, two labels differ only in spelling, or there is only one.
    """
    from samo.tasks import Task

    distinct = sorted(set(labels))
    refuse_twin_labels(distinct, f"labels in {source}")
    if mode == "sentiment":
        unknown = [label for label in distinct if key(label) not in EMOTION_TO_SENTIMENT]
        if unknown:
            raise DataError(
                f"`mode=sentiment` does not know the {plural('label', len(unknown))} in {source}: "
                f"{first_ten(map(repr, unknown))}",
                hint="rename them to negative, neutral or positive, or use `mode=emotion`; "
                f"known: {', '.join(sorted(EMOTION_TO_SENTIMENT))}",
            )
        return Task("sentiment", SENTIMENTS), {label: EMOTION_TO_SENTIMENT[key(label)] for label in distinct}
    if len(distinct) < 2:
        raise DataError(f"every clip in {source} has the same label: {first_ten(map(repr, distinct))}")
    return Task("emotion", tuple(distinct)), {label: label for label in distinct}
