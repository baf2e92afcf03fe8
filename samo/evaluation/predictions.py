"""What a model said about a set of items, and the truth beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from samo.errors import RunError
from samo.files import replacing
from samo.tasks import LabelSpace

__all__ = ["Predictions"]

_MADE_WITH = "made_with"


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

    def save(self, path: Path, made_with: str = "") -> None:
        """Write a compressed ``.npz`` without pickled objects.

        Args:
            path: of the file.
            made_with: a digest of all that the logits depend on, see :meth:`load_made_with`.
        """
        with replacing(path) as temporary:
            columns: dict[str, Any] = {
                "ids": np.array(self.ids, dtype=np.str_),
                "logits": self.logits,
                "targets": self.targets,
                "groups": np.array(self.groups, dtype=np.str_),
                **{f"meta.{name}": np.array(values, dtype=np.str_) for name, values in self.meta.items()},
                **({} if self.decided is None else {"decided": self.decided}),
                **({_MADE_WITH: np.array(made_with)} if made_with else {}),
            }
            np.savez_compressed(temporary, **columns)

    @classmethod
    def load(cls, path: Path, space: LabelSpace | None = None) -> Predictions:
        """Read what :meth:`save` wrote.

        Args:
            path: of the file.
            space: whose columns it must have; None: any.

        Raises:
            RunError: missing, damaged, or of other labels.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored if name != _MADE_WITH}
            _check(arrays, space)
            return cls(
                ids=tuple(arrays["ids"].tolist()),
                logits=arrays["logits"],
                targets=arrays["targets"],
                groups=tuple(arrays["groups"].tolist()),
                meta={k.removeprefix("meta."): tuple(a.tolist()) for k, a in arrays.items() if k.startswith("meta.")},
                decided=arrays.get("decided"),
            )
        except Exception as error:  # bytes that are no archive can make numpy's reader stumble anywhere
            raise RunError(f"cannot read {path}: {error}", hint="`samo evaluate` writes it anew") from error

    @classmethod
    def load_made_with(cls, path: Path, made_with: str, ids: Sequence[str], space: LabelSpace) -> Predictions | None:
        """What :meth:`save` wrote of these items with the same ``made_with``; None where that is not there."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                if _MADE_WITH not in stored or stored[_MADE_WITH].tolist() != made_with:
                    return None
            found = cls.load(path, space)
        except Exception:  # damaged in whatever way, or not there
            return None
        return found if found.ids == tuple(ids) else None


def _check(arrays: Mapping[str, np.ndarray], space: LabelSpace | None) -> None:
    """Refuse arrays that do not belong together.

    Raises:
        ValueError, LookupError: names the array.
    """
    logits = arrays["logits"]
    if logits.ndim != 2 or logits.dtype.kind != "f" or (space and logits.shape[1] != space.n_columns):
        raise ValueError(f"its logits are no table of numbers with a column a label: {logits.dtype} {logits.shape}")
    if arrays["targets"].shape != logits.shape or arrays["targets"].dtype.kind != "f":
        raise ValueError("its targets do not fit its logits")
    if "decided" in arrays and (arrays["decided"].shape != logits.shape or arrays["decided"].dtype.kind != "b"):
        raise ValueError("its decisions do not fit its logits")
    for name, array in arrays.items():
        if name not in ("logits", "targets", "decided") and (
            array.shape != logits.shape[:1] or array.dtype.kind != "U"
        ):
            raise ValueError(f"its {name} are not one text a row")
