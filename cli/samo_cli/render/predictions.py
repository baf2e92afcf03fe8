"""Predictions by file or text, and the time lines of long recordings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from samo_cli.render.console import out
from samo_cli.render.tables import show_table

if TYPE_CHECKING:
    from samo_audio.predictor import Prediction
    from samo_text.predictor import TextPrediction

__all__ = ["shortened", "show_predictions", "show_text_predictions"]

# Warnings after which a label means little, as samo_audio.audio_io words them.
DOUBTFUL = frozenset({"silent", "shorter than 0.1 s"})


def show_predictions(predictions: Sequence[Prediction]) -> None:
    """A row for each file, then the time lines of long recordings."""
    warned = any(set(said.warnings) - DOUBTFUL for said in predictions)
    rows = []
    for said in predictions:
        doubts = [warning for warning in said.warnings if warning in DOUBTFUL]
        label = said.label + (f" ({', '.join(doubts)})" if doubts else "")
        ranked = sorted(said.probabilities.items(), key=lambda pair: -pair[1])
        others = ", ".join(f"{label} {share:.0%}" for label, share in ranked[1:3])
        row = (str(said.path), label, f"{ranked[0][1]:.0%}", others)
        rest = (warning for warning in said.warnings if warning not in DOUBTFUL)
        rows.append((*row, "; ".join(rest)) if warned else row)
    heads = ("file", "label", "probability", "next", "warnings")[: 5 if warned else 4]
    show_table(heads, rows, numbers=("probability",))
    for said in predictions:
        if not said.timeline:
            continue
        out.print(f"\ntime line of {escape(str(said.path))}", soft_wrap=True)
        longest = max(len(stretch.label) for stretch in said.timeline)
        for stretch in said.timeline:
            share = stretch.probabilities[stretch.label]
            line = f"  {_clock(stretch.start_s)} - {_clock(stretch.end_s)}  {stretch.label:{longest}} {share:4.0%} "
            out.print(line + "█" * round(20 * share), markup=False, soft_wrap=True)


def show_text_predictions(predictions: Sequence[TextPrediction]) -> None:
    """A row for each text, its labels a task; where no label reaches its threshold the likeliest is named as such."""
    tasks = list(predictions[0].answers)
    warned = any(said.warnings for said in predictions)
    rows = []
    for said in predictions:
        row = [shortened(said.text)]
        for task in tasks:
            answer = said.answers[task]
            share = answer.probabilities
            named = ", ".join(f"{label} {share[label]:.0%}" for label in answer.labels)
            rest = sorted((label for label in share if label not in answer.labels), key=lambda label: -share[label])
            row += [named or "none", ", ".join(f"{label} {share[label]:.0%}" for label in rest[:2])]
        rows.append([*row, "; ".join(said.warnings)] if warned else row)
    heads = ["text"]
    for task in tasks:
        heads += [task, "next"]
    show_table([*heads, "warnings"] if warned else heads, rows)


def shortened(text: str, width: int = 60) -> str:
    """A text on one line of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _clock(seconds: float) -> str:
    return f"{int(seconds // 3600):d}:{int(seconds // 60 % 60):02d}:{seconds % 60:04.1f}"
