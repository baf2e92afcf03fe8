"""Predictions by file or text, and the time lines of long recordings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from samo_cli.render.console import out
from samo_cli.render.tables import show_table

if TYPE_CHECKING:
    from samo.prediction import Prediction

__all__ = ["shortened", "show_predictions"]

# Warnings after which a label means little, as samo_audio.audio_io words them.
DOUBTFUL = frozenset({"silent", "constant", "shorter than 0.1 s"})


def show_predictions(predictions: Sequence[Prediction]) -> None:
    """A row for each clip or text, then the time lines of long recordings."""
    (_show_clips if predictions[0].text is None else _show_texts)(predictions)


def _show_clips(predictions: Sequence[Prediction]) -> None:
    warned = any(set(prediction.warnings) - DOUBTFUL for prediction in predictions)
    rows = []
    for prediction in predictions:
        doubts = [warning for warning in prediction.warnings if warning in DOUBTFUL]
        label = _answer(prediction.label, prediction.abstained, doubts)
        ranked = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])
        others = ", ".join(f"{label} {share:.0%}" for label, share in ranked[1:3])
        row = (on_one_line(prediction.source), label, f"{ranked[0][1]:.0%}", others)
        rest = (warning for warning in prediction.warnings if warning not in DOUBTFUL)
        rows.append((*row, "; ".join(rest)) if warned else row)
    heads = ("file", "label", "probability", "next", "warnings")[: 5 if warned else 4]
    show_table(heads, rows, numbers=("probability",))
    for prediction in predictions:
        if not prediction.timeline:
            continue
        out.print(f"\ntime line of {escape(on_one_line(prediction.source))}", soft_wrap=True)
        names = [_answer(window.label, window.abstained) for window in prediction.timeline]
        longest = max(map(len, names))
        for window, name in zip(prediction.timeline, names, strict=True):
            share = window.probabilities.get(window.label, 0.0)
            line = f"  {_clock(window.start_s)} - {_clock(window.end_s)}  {name:{longest}} {share:4.0%} "
            out.print(line + "█" * round(20 * share), markup=False, soft_wrap=True)


def _show_texts(predictions: Sequence[Prediction]) -> None:
    """A row for each text, its labels a task; where no label reaches its threshold the likeliest is named as such."""
    tasks = list(predictions[0].answers)
    warned = any(prediction.warnings for prediction in predictions)
    rows = []
    for prediction in predictions:
        row = [shortened(prediction.source)]
        for task in tasks:
            answer = prediction.answers[task]
            share = answer.probabilities
            named = ", ".join(f"{label} {share[label]:.0%}" for label in answer.labels)
            rest = sorted((label for label in share if label not in answer.labels), key=lambda label: -share[label])
            row += [_answer(named, answer.abstained), ", ".join(f"{label} {share[label]:.0%}" for label in rest[:2])]
        rows.append([*row, "; ".join(prediction.warnings)] if warned else row)
    heads = ["text"]
    for task in tasks:
        heads += [task, "next"]
    show_table([*heads, "warnings"] if warned else heads, rows)


def _answer(named: str, abstained: bool, doubts: Sequence[str] = ()) -> str:
    """The label, or that there is none to be sure of with the label beside it; and what makes it doubtful."""
    from samo.prediction import NOT_SURE

    if abstained:
        return f"{NOT_SURE} ({'; '.join([named or 'none', *doubts])})"
    return (named or "none") + (f" ({', '.join(doubts)})" if doubts else "")


def on_one_line(name: str) -> str:
    r"""A file's name with ``\n`` written out, so that no row of a table is split.

    >>> on_one_line("a\nb.wav")
    'a\\nb.wav'
    """
    return name.replace("\n", "\\n")


def shortened(text: str, width: int = 60) -> str:
    """A text on one line of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _clock(seconds: float) -> str:
    return f"{int(seconds // 3600):d}:{int(seconds // 60 % 60):02d}:{seconds % 60:04.1f}"
