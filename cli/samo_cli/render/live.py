"""Bars that follow a stream of sound; plain lines where stdout is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from samo_cli.render.console import out

if TYPE_CHECKING:
    from samo.tasks import LabelSpace
    from samo_audio.live import Moment

__all__ = ["live_view"]

WIDTH = 30
# What the level is drawn between, in dBFS.
QUIET, FULL = -70.0, 0.0


@contextmanager
def live_view(space: LabelSpace, *, shown: bool = True) -> Iterator[Callable[[Moment, float], None]]:
    """Show one window after another: a callback for the window and the seconds that were lost so far."""
    if not shown:
        yield lambda moment, lost_s: None
    elif not out.is_terminal:
        yield lambda moment, lost_s: out.print(plain_line(moment), markup=False, soft_wrap=True)
    else:
        waiting = Text("listening: the first answer comes after one window", style="dim")
        with Live(waiting, console=out, refresh_per_second=10, transient=False) as view:
            yield lambda moment, lost_s: view.update(bars(moment, space, lost_s), refresh=True)


def plain_line(moment: Moment) -> str:
    """A window in one line: when, the smoothed answer, the window's own, the level."""
    when = f"{_clock(moment.start_s)} - {_clock(moment.end_s)}"
    level = f"{moment.voice.level_dbfs:6.1f} dBFS"
    if not moment.speech:
        return f"{when}  {level}  no speech"
    smoothed, own = (_named(answers) for answers in (moment.smoothed, moment.answers))
    return f"{when}  {level}  {smoothed} (this window: {own})"


def bars(moment: Moment, space: LabelSpace, lost_s: float) -> RenderableType:
    """A bar a label, the level, and what the answer is."""
    from samo.prediction import NOT_SURE

    parts: list[RenderableType] = []
    for task in space.tasks:
        answer = moment.smoothed.get(task.name)
        table = Table.grid(padding=(0, 1))
        for label in task.labels:
            share = answer.probabilities[label] if answer else 0.0
            is_answer = answer is not None and label in answer.labels
            style = "dim" if not moment.speech else "bold green" if is_answer else "cyan"
            table.add_row(Text(label, style=style), Text(_bar(share), style=style), Text(f"{share:4.0%}", style=style))
        title = (
            task.name if answer is None else f"{task.name}: {NOT_SURE if answer.abstained else answer.label or 'none'}"
        )
        parts += [Text(title, style="bold"), table]
    level = moment.voice.level_dbfs
    meter = _bar((level - QUIET) / (FULL - QUIET))
    heard = "speech" if moment.speech else "no speech"
    line = f"{_clock(moment.end_s)}  {heard:9}  {meter} {level:.0f} dBFS"
    if lost_s:
        line += f"  {lost_s:.1f} s lost"
    return Group(*parts, Text(line, style="" if moment.speech else "dim"))


def _bar(share: float) -> str:
    n = round(WIDTH * min(1.0, max(0.0, share)))
    return "█" * n + "·" * (WIDTH - n)


def _named(answers: object) -> str:
    from samo.prediction import NOT_SURE, Prediction

    return str(Prediction(answers)) if answers else NOT_SURE  # type: ignore[arg-type]


def _clock(seconds: float) -> str:
    return f"{int(seconds // 3600):d}:{int(seconds // 60 % 60):02d}:{seconds % 60:04.1f}"
