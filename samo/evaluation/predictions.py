"""What a model said about a set of items, and the truth beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from samo.files import replacing
from samo.tasks import LabelSpace

__all__ = ["Predictions"]


@dataclass(frozen=True)
class Predictions:
    """Logits and targets of N items.

    Attributes:
        ids: item ids, length N.
        logits: (N, C) float32, averaged over an item's windows.
        targets: (N, C) float32 in [0, 1]; NaN where a task has no label.
        groups: speaker by item, length N; empty strings when unknown.
        meta: further attributes by name, each of length N (gender, intensity, statement ...).
        decided: (N, C) bool, what was answered with these logits, where thresholds had a say in it; read for
            multi-label tasks only. None: at 0.5.
    """

    ids: tuple[str, ...]
    logits: np.ndarray
    targets: np.ndarray
    groups: tuple[str, ...]
    meta: dict[str, tuple[str, ...]] = field(default_factory=dict)
    decided: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def probabilities(self, space: LabelSpace) -> np.ndarray:
        """(N, C) probabilities in [0, 1]."""
        return space.probabilities(self.logits)

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz`` without pickled objects."""
        with replacing(path) as temporary:
            columns: dict[str, Any] = {
                "ids": np.array(self.ids, dtype=np.str_),
                "logits": self.logits,
                "targets": self.targets,
                "groups": np.array(self.groups, dtype=np.str_),
                **{f"meta.{name}": np.array(values, dtype=np.str_) for name, values in self.meta.items()},
                **({} if self.decided is None else {"decided": self.decided}),
            }
            np.savez_compressed(temporary, **columns)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(
                ids=tuple(stored["ids"].tolist()),
                logits=stored["logits"],
                targets=stored["targets"],
                groups=tuple(stored["groups"].tolist()),
                meta={k.removeprefix("meta."): tuple(stored[k].tolist()) for k in stored if k.startswith("meta.")},
                decided=stored.get("decided"),
            )
