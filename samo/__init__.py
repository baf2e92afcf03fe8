"""Emotion recognition from speech and text whose numbers you can believe.

    import samo

    model = samo.load("my-run")
    model.predict("clip.wav")

Nothing is imported before it is used: ``import samo`` costs milliseconds, the first :func:`load` of a run
imports torch, that of an exported file does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from samo.lazy import load_object

if TYPE_CHECKING:
    from samo.prediction import Prediction
    from samo.runs.evaluate import evaluate
    from samo.runs.load import load
    from samo.runs.train import train

__version__ = "0.1.0"

__all__ = ["Prediction", "__version__", "evaluate", "load", "train"]

_NAMES = {
    "Prediction": "samo.prediction:Prediction",
    "evaluate": "samo.runs.evaluate:evaluate",
    "load": "samo.runs.load:load",
    "train": "samo.runs.train:train",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, the first time it is."""
    if name not in _NAMES:
        raise AttributeError(f"module 'samo' has no attribute '{name}'; it has {', '.join(sorted(_NAMES))}")
    found = globals()[name] = load_object(_NAMES[name])
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
