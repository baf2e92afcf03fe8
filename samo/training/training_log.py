"""A training as plain lines of text, for logs and wherever there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict

from samo.stored import Count, Flag, Number, Stored, Text

__all__ = ["EVERY_S", "EpochRow", "TrainingLog", "epoch_line", "step_line"]

# A line now and then says that it goes on.
EVERY_S = 30.0


class EpochRow(Stored):
    """A row of the history; what else stands in it is one number or word each."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | Count | Flag | Text | None]

    epoch: Count
    train_loss: Number
    val_loss: Number | None
    val_macro_f1: Number | None
    lr: Number = 0.0
    seconds: Number


class TrainingLog:
    """An observer that writes each epoch to standard error, and a step at the beginning and then twice a minute."""

    def __init__(self, epochs: int) -> None:
        """Begin a log of so many epochs in all."""
        self.epochs = epochs
        self._written_s = float("-inf")

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Write the step when the last line is old."""
        now_s = time.monotonic()
        if now_s - self._written_s >= EVERY_S:
            self._written_s = now_s
            _write(step_line(epoch, step, n_steps, loss))

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Write the epoch."""
        _write(epoch_line(row, self.epochs) + " * best" * improved)


def step_line(epoch: int, step: int, n_steps: int, loss: float) -> str:
    """A step of an epoch (counted from 0) in one line."""
    return f"epoch {epoch + 1}: step {step}/{n_steps}, loss {loss:.2f}"


def epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    """A row of the history in one line; of a model that takes no steps, whose rate is 0, the only one."""
    epochs = 1 if row["epoch"] == 1 and row.get("lr") == 0.0 else epochs
    validated = (
        f"val loss {row['val_loss']:.4f}  val macro-F1 {row['val_macro_f1']:.4f}  "
        if row["val_macro_f1"] is not None
        else ""
    )
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  loss {row['train_loss']:.4f}  {validated}"
        f"{row['seconds']:.1f} s"
    )


def _write(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
