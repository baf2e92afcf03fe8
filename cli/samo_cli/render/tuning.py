"""A search as it goes, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from samo.errors import counted
from samo_cli.render.console import progress_bar, worded

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = ["TuningView", "tuning_panel"]


class TuningView:
    """Draws a search: a bar over its trials with the epoch that is trained, and one line for each trial that ended."""

    def __init__(self, trials: int, facts: Mapping[str, Any]) -> None:
        """Begin after the trials in ``facts``, of ``trials`` in all."""
        self.trials = trials
        self.best = facts["best"]["value"] if facts["best"] else None
        self._epochs = 0
        self._progress = progress_bar(
            TextColumn("trials"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[now]}"),
            transient=True,
        )
        self._task = self._progress.add_task("", total=trials, completed=facts["counts"]["counted"], now="starting")

    def __enter__(self) -> TuningView:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_trial(self, number: int, drawn: Mapping[str, Any]) -> None:
        """Name the trial that begins."""
        self._now = f"trial {number}"
        self._progress.update(self._task, now=self._now)

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Name the epoch."""
        self._progress.update(self._task, now=f"{self._now}, epoch {epoch + 1}, step {step}/{n_steps}")

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """The bar says enough."""

    def on_trial_end(self, trial: FrozenTrial) -> None:
        """Print the trial."""
        from samo.tuning.results import trial_row, trial_text

        row = trial_row(trial)
        better = row["state"] == "finished" and (self.best is None or row["value"] > self.best)
        if better:
            self.best = row["value"]
        head, what = trial_text(row, self.trials)
        mark = " [green]* best[/green]" if better else ""
        self._progress.console.print(f"{head}{mark}  [dim]{worded(what)}[/dim]", soft_wrap=True)
        self._progress.update(self._task, advance=0 if row["state"] == "stopped" else 1, now="")


def tuning_panel(facts: Mapping[str, Any], then: str) -> Panel:
    """What came of a search, and the command to type next."""
    from samo.tuning.results import params_text

    counts, best, base = facts["counts"], facts["best"], facts["base_val_macro_f1"]
    states = [f"{counts[state]} {state}" for state in ("finished", "pruned", "failed", "running") if counts[state]]
    beside = "" if base is None or best["base"] else f" (base settings {base:.3f})"
    stamps = [word for key, word in (("synthetic", "synthetic demo data"), ("leaky", "LEAKY SPLIT")) if facts[key]]
    lines = [
        f"best: trial {best['number']}, validation macro-F1 [bold]{best['value']:.3f}[/bold]{beside}"
        + (": the base settings themselves" if best["base"] else ""),
        f"[dim]{escape(params_text(best['params']))}[/dim]",
        f"{counted(counts['counted'], 'trial')}: {', '.join(states)}",
        *(f"[bold yellow]{mark}[/bold yellow]" for mark in stamps),
        f"[yellow]![/yellow] the best of {counts['finished']} on one validation part is optimistic: "
        "confirm it with several seeds (samo crossval, samo ablate)",
        f"kept in {escape(facts['folder'])}",
        f"next:   [bold]{escape(then)}[/bold]",
    ]
    return Panel("\n".join(lines), title=escape(facts["study"]), title_align="left", expand=False, border_style="green")
