"""GoEmotions' 28 labels and their official groupings (Demszky et al. 2020), with neutral a class of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samo.tasks import LabelSpace

__all__ = ["EKMAN", "EMOTIONS", "GROUPINGS", "SENTIMENT", "grouped", "label_space"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# In the order of emotions.txt, whose line numbers are the label ids.
EMOTIONS = _words(
    "admiration amusement anger annoyance approval caring confusion curiosity desire disappointment disapproval "
    "disgust embarrassment excitement fear gratitude grief joy love nervousness optimism pride realization relief "
    "remorse sadness surprise neutral"
)

# ekman_mapping.json and sentiment_mapping.json as published; neither names neutral.
EKMAN: Mapping[str, tuple[str, ...]] = {
    "anger": _words("anger annoyance disapproval"),
    "disgust": ("disgust",),
    "fear": _words("fear nervousness"),
    "joy": _words("joy amusement approval excitement gratitude love optimism relief pride admiration desire caring"),
    "sadness": _words("sadness disappointment embarrassment grief remorse"),
    "surprise": _words("surprise realization confusion curiosity"),
    "neutral": ("neutral",),
}
SENTIMENT: Mapping[str, tuple[str, ...]] = {
    "positive": _words(
        "amusement excitement joy love desire optimism caring pride admiration gratitude relief approval"
    ),
    "negative": _words(
        "fear nervousness remorse embarrassment disappointment sadness grief disgust anger annoyance disapproval"
    ),
    "ambiguous": _words("realization surprise curiosity confusion"),
    "neutral": ("neutral",),
}

GROUPINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "emotion": {label: (label,) for label in EMOTIONS},
    "ekman": EKMAN,
    "sentiment": SENTIMENT,
}
"""Labels of each ``mode`` and the emotions they hold."""

_CLASS_OF = {
    mode: {emotion: label for label, emotions in grouping.items() for emotion in emotions}
    for mode, grouping in GROUPINGS.items()
}


def label_space(mode: str) -> LabelSpace:
    """The one multi-label task a mode poses, named after it."""
    from samo.tasks import LabelSpace, Task

    return LabelSpace((Task(mode, tuple(GROUPINGS[mode]), multi_label=True),))


def grouped(emotions: Iterable[str], mode: str) -> dict[str, tuple[str, ...]]:
    """An item's labels under a mode: the set of classes its emotions fall into, in the order of the classes."""
    held = {_CLASS_OF[mode][emotion] for emotion in emotions}
    return {mode: tuple(label for label in GROUPINGS[mode] if label in held)}
