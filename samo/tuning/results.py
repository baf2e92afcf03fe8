"""What a study leaves behind: ``study.json``, ``trials.csv``, ``best.toml`` and its two pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import optuna
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from samo.errors import counted
from samo.files import write_json, write_text
from samo.printable import csv_text
from samo.reporting.drawing import (
    BLUE,
    GREY,
    INK,
    VERMILION,
    blank_figure,
    legend_below,
    plain_axes,
    save_named,
    verbatim,
)
from samo.runs.run import Run
from samo.settings import Config
from samo.tuning.space import plain_step
from samo.tuning.study import StudySpec

__all__ = [
    "best_toml",
    "history_figure",
    "importance_figure",
    "params_text",
    "study_facts",
    "trial_row",
    "trial_text",
    "write_results",
]

_STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
# Below this many finished trials an importance says little.
_FEW = 20


def trial_row(trial: FrozenTrial) -> dict[str, Any]:
    """A trial as plain values.

    ``state`` is ``finished``, ``pruned``, ``failed``, ``running`` or ``stopped`` (its settings were begun again);
    ``value`` the best validation macro-F1 it reached, None where no epoch was finished.
    """
    again = trial.user_attrs.get("again")
    seconds = trial.duration.total_seconds() if trial.duration else None
    reached = list(trial.intermediate_values.values())
    return {
        "number": trial.number,
        "value": trial.value if trial.value is not None else max(reached, default=None),
        "state": "stopped" if again else _STATES[trial.state],
        "seconds": None if seconds is None else round(seconds, 3),
        "epochs": len(reached),
        "base": bool(trial.user_attrs.get("base")),
        "reason": trial.user_attrs.get("reason", ""),
        "params": {name: _as_written(value, trial.distributions[name]) for name, value in trial.params.items()},
    }


def trial_text(row: Mapping[str, Any], trials: int) -> tuple[str, str]:
    """A row of :func:`trial_row` in words, of a study of so many trials: its numbers; its settings, or why it ended."""
    score = "-     " if row["value"] is None else f"{row['value']:.4f}"
    seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f} s"
    number = f"{row['number']:>{len(str(trials))}}"
    what = row["reason"] if row["state"] in ("failed", "stopped") else params_text(row["params"])
    return f"trial {number}  {row['state']:<8}  val macro-F1 {score}  {seconds:>7}", what


def params_text(params: Mapping[str, Any]) -> str:
    """Settings and their values in one line."""
    return ", ".join(f"{name} {_short(value)}" for name, value in params.items())


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _as_written(value: Any, distribution: BaseDistribution) -> Any:
    return plain_step(value) if getattr(distribution, "step", None) is not None else value


def study_facts(study: optuna.Study, spec: StudySpec, folder: Path) -> dict[str, Any]:
    """What came of a study; ``best`` is None while no trial was finished."""
    rows = [trial_row(t) for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]
    finished = [row for row in rows if row["state"] == "finished"]
    # Ties go to the earlier trial.
    best = max(finished, key=lambda row: (row["value"], -row["number"]), default=None)
    base = next((row for row in finished if row["base"]), None)
    states = {state: sum(row["state"] == state for row in rows) for state in (*_STATES.values(), "stopped")}
    return {
        "schema": 1,
        "study": spec.name,
        "folder": str(folder),
        "dataset": spec.settings["dataset"],
        "split_rule": spec.settings["split"],
        "counts": {"counted": len(rows) - states["stopped"], **states},
        "best": None if best is None else {**best, "run": f"trial-{best['number']:04d}"},
        "base_val_macro_f1": None if base is None else base["value"],
        "trials": rows,
    }


def write_results(
    study: optuna.Study, spec: StudySpec, kind: type[Config], folder: Path, marks: Mapping[str, bool], command: str
) -> dict[str, Any]:
    """Write every output; returns :func:`study_facts` with ``best_toml`` and ``figures``, the files.

    Args:
        kind: the settings model.
        marks: ``synthetic`` and ``leaky``, for the pictures.
        command: what was typed, kept in ``study.json``.
    """
    facts = study_facts(study, spec, folder)
    importance = importances(study)
    write_json(folder / "study.json", {"schema": 1, **spec.to_json(), "command": command, "importance": importance})
    write_text(folder / "trials.csv", _csv(facts["trials"], list(spec.space)))
    figures = {"history": history_figure(facts, marks)} if facts["best"] else {}
    if importance:
        figures["importance"] = importance_figure(facts, importance, marks)
    files = [str(path) for path in save_named(figures, folder / "figures")]
    if facts["best"]:
        write_text(folder / "best.toml", best_toml(facts, spec, kind, folder))
    return {**facts, "best_toml": str(folder / "best.toml") if facts["best"] else None, "figures": files}


def best_toml(facts: Mapping[str, Any], spec: StudySpec, kind: type[Config], folder: Path) -> str:
    """Every setting of the best trial, as ``config`` takes them."""
    best = facts["best"]
    settings = Run(folder / "runs" / best["run"]).settings
    sections: dict[str, list[str]] = {}
    for field in kind.fields():
        line = f"{field.name} = {_toml(settings[field.name])}"
        sections.setdefault(field.section, []).append(line)
    counted = facts["counts"]["counted"]
    lines = [
        f"# Train with `modality={spec.modality}` and `config=best.toml`.",
        f"# Trial {best['number']} of study {spec.name}, the best of {counted}: "
        f"validation macro-F1 {best['value']:.4f} (epoch by epoch the highest).",
        "# It was chosen on the validation part, so this number is optimistic; the test part was not looked at.",
        "# Confirm it with several seeds: samo crossval, samo ablate.",
    ]
    for section, settings_lines in sections.items():
        lines += ["", f"[{section}]", *settings_lines]
    return "\n".join(lines) + "\n"


def importances(study: optuna.Study) -> dict[str, float]:
    """Share of each setting in what makes a trial good, largest first (PED-ANOVA, Watanabe et al. 2023).

    Settings that stand in some trials only are included. Empty where the finished trials are too few or all alike.
    """
    finished = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if len({trial.value for trial in finished}) < 2:
        return {}
    found = optuna.importance.PedAnovaImportanceEvaluator().evaluate(study)
    total = sum(found.values())
    return {name: value / total for name, value in found.items()} if total > 0 else {}


def history_figure(facts: Mapping[str, Any], marks: Mapping[str, bool]) -> Figure:
    """The validation macro-F1 of each trial and the best so far."""
    rows, best = facts["trials"], facts["best"]
    figure = blank_figure(_heading(facts, marks), "Search history", 7.6, 4.2, about=_about(facts))
    axes = figure.subplots()
    plain_axes(axes)
    handles: list[Any] = []
    for state, colour, marker, size in (("finished", BLUE, "o", 34), ("pruned", GREY, "X", 34)):
        shown = [row for row in rows if row["state"] == state and row["value"] is not None]
        if shown:
            handles.append(
                axes.scatter(
                    [row["number"] for row in shown], [row["value"] for row in shown],
                    s=size, color=colour, marker=marker, edgecolor="white", linewidth=0.6, zorder=3, label=state,
                )
            )  # fmt: skip
    failed = [row["number"] for row in rows if row["state"] == "failed"]
    if failed:
        # On the axis: they have no score.
        handles.append(
            axes.scatter(
                failed, [0.0] * len(failed), s=40, color=VERMILION, marker="|", linewidth=2, zorder=3,
                transform=axes.get_xaxis_transform(), clip_on=False, label="failed",
            )
        )  # fmt: skip
    finished = [row for row in rows if row["state"] == "finished"]
    numbers = [row["number"] for row in finished]
    top = list(accumulate((row["value"] for row in finished), max))
    last = max(row["number"] for row in rows)
    (line,) = axes.step([*numbers, last], [*top, top[-1]], where="post", color=INK, linewidth=1.3, label="best so far")
    ring = axes.scatter(
        best["number"], best["value"], s=120, facecolor="none", edgecolor=VERMILION, linewidth=1.6, zorder=4,
        label=f"best: trial {best['number']}, {best['value']:.3f}",
    )  # fmt: skip
    handles += [line, ring]
    if facts["base_val_macro_f1"] is not None:
        handles.append(
            axes.axhline(facts["base_val_macro_f1"], color=GREY, linewidth=1.1, linestyle="--", label="base settings")
        )
    axes.set_xlabel("trial")
    axes.set_ylabel("validation macro-F1")
    axes.set_xlim(-0.6, last + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend_below(figure, handles)
    return figure


def importance_figure(facts: Mapping[str, Any], importance: Mapping[str, float], marks: Mapping[str, bool]) -> Figure:
    """How much of what tells good trials from the others each setting explains."""
    names = sorted(importance, key=lambda name: (importance[name], name))
    finished = facts["counts"]["finished"]
    caution = f"; fewer than {_FEW}, so read it with caution" if finished < _FEW else ""
    about = f"{_about(facts)}. PED-ANOVA over {finished} finished trials{caution}"
    figure = blank_figure(
        _heading(facts, marks), "Importance of the settings", 7.2, 1.5 + 0.34 * len(names), about=about
    )
    axes = figure.subplots()
    plain_axes(axes)
    bars = axes.barh(range(len(names)), [importance[name] for name in names], color=BLUE, alpha=0.85, height=0.62)
    axes.bar_label(bars, [f"{importance[name]:.0%}" for name in names], padding=4, fontsize=9, color=INK)
    axes.set_yticks(range(len(names)), [verbatim(name) for name in names])
    axes.set_xlim(0, 1.12 * max(importance.values()))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("share of the importance")
    axes.grid(axis="y", visible=False)
    return figure


def _heading(facts: Mapping[str, Any], marks: Mapping[str, bool]) -> dict[str, Any]:
    return {**marks, "dataset": facts["dataset"], "split": "validation", "split_rule": facts["split_rule"]}


def _about(facts: Mapping[str, Any]) -> str:
    trials = counted(facts["counts"]["counted"], "trial")
    return f"study {facts['study']}: {facts['dataset']}, {trials} judged on validation"


def _csv(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> str:
    names = ("number", "value", "state", "seconds", "epochs")
    cells = [
        [*(row[name] for name in names), *(row["params"].get(name, "") for name in settings), row["reason"]]
        for row in rows
    ]
    return csv_text([[*names, *settings, "reason"], *cells])


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
