"""``samo train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import SettingsError
from samo.modalities import MODALITIES, config_types, ensemble_files, preset_files
from samo.settings import read_call, resolve
from samo.training.tracking import TRACKERS, require_trackers
from samo_cli.flags import as_flags, in_artifacts
from samo_cli.options import (
    MACHINE,
    Artifacts,
    ConfigFile,
    Device,
    Json,
    Precision,
    Threads,
    flags_of,
    overwriting,
    with_settings,
)

if TYPE_CHECKING:
    from samo.runs.run import Run

__all__ = ["train"]


def _preset_names() -> list[str]:
    return [name for modality in MODALITIES for name in (*preset_files(modality), *ensemble_files(modality))]


@with_settings(flags_of(config_types()))
def train(
    context: typer.Context,
    modality: Annotated[
        str,
        typer.Option(
            metavar="|".join(MODALITIES),
            help="What is learned from; with --help: whose settings are listed.",
            autocompletion=lambda: list(MODALITIES),
        ),
    ] = "audio",
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="Start from a recipe of `samo presets`.", autocompletion=_preset_names)
    ] = "",
    config: ConfigFile = None,
    name: Annotated[str, typer.Option(help="Name of the run; made up when left out.")] = "",
    overwrite: Annotated[bool, overwriting("the run of this name")] = False,
    resume: Annotated[str, typer.Option(metavar="RUN", help="Go on with a run that was stopped.")] = "",
    tracker: Annotated[
        str,
        typer.Option(
            metavar="tensorboard|mlflow,...",
            rich_help_panel=MACHINE,
            help="Draw live curves; several joined by a comma; empty: $SAMO_TRACKER or none.",
            autocompletion=lambda: list(TRACKERS),
        ),
    ] = "",
    encoders: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Text: train each of these encoders (folders, Hugging Face names, or textcnn, bigru, tfidf) under the "
            "same settings, and keep the best on validation as a run.",
        ),
    ] = "",
    artifacts: Artifacts = "",
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train a model; the best epoch by validation macro-F1 is kept, or the last. The test part is never looked at.

    An ensemble's --preset trains its members, as a grid of this name, and lets them answer as one; again, it trains
    only what is missing. Each setting goes to the members that take it.
    """
    if encoders:
        from samo.launch.resources import Resources
        from samo_cli.verbs.encoders import train_encoders

        if resume or tracker:
            raise SettingsError(f"--encoders goes without {'--resume' if resume else '--tracker'}")
        train_encoders(
            encoders, modality, preset, config, settings, artifacts, json=json, name=name, overwrite=overwrite,
            resources=Resources(1, threads, device, precision), command=context.obj["command"],
        )  # fmt: skip
        return
    if not resume and modality in MODALITIES and preset in ensemble_files(modality):
        from samo.launch.resources import Resources

        if tracker:
            raise SettingsError(f"--tracker goes without --preset {preset}: train its members, each by its own preset")
        _train_ensemble(
            modality, preset, config, settings, json=json, name=name, overwrite=overwrite, artifacts=artifacts,
            resources=Resources(1, threads, device, precision), command=context.obj["command"],
        )  # fmt: skip
        return
    # torch is imported only once settings and paths are known to be good: a typing error costs no waiting.
    if resume:
        from samo.runs.artifacts import artifacts_root, find_run
        from samo.runs.run import refuse_with_resume, require_place

        refuse_with_resume(name=name, preset=preset, config=str(config or ""), overwrite=overwrite)
        stopped = find_run(artifacts_root(artifacts), resume)
        require_place(stopped, {**stopped.flat_settings, **settings}, moved="data_root" in settings)
    else:
        from samo.data.corpora import require_places

        require_places(resolve(modality, preset, config, settings).flat())
    require_trackers(tracker)
    from samo.runs.train import train as run_training
    from samo_cli.render import TerminalReporter

    def typed(run: Run) -> str:
        return str(context.obj["command"]) + ("" if name else f" --name {run.name}")

    reporter = TerminalReporter()
    run = run_training(
        modality=modality, preset=preset, config=config, name=name, overwrite=overwrite, resume=resume,
        tracker=tracker, artifacts=artifacts, device=device, precision=precision, threads=threads,
        reporter=reporter, command=typed, **settings,
    )  # fmt: skip
    if not reporter.silent:
        _show(run, artifacts, preset or (read_call(config).get("preset", "") if config else ""), json=json)


def _train_ensemble(
    modality: str,
    preset: str,
    config: Path | None,
    settings: dict[str, Any],
    *,
    json: bool,
    artifacts: str,
    **others: Any,
) -> None:
    """Train the members of an ensemble of presets and show what came of it.

    ``others`` are arguments of :func:`samo.ensembles.preset_ensemble.train_preset_ensemble`.
    """
    from samo.ensembles.preset_ensemble import train_preset_ensemble
    from samo.runs.train import training_summary
    from samo_cli.render import TerminalReporter, ensemble_panel, err, out, print_json

    common = {"artifacts": artifacts, "reporter": TerminalReporter(), **others}
    run, summary = train_preset_ensemble(modality, preset, config, settings, **common)
    facts = {**training_summary(run), "preset": preset, "members": summary["members"]}
    if json:
        print_json(facts)
        return
    panel = ensemble_panel(facts, summary, in_artifacts(f"samo evaluate {run.name}", artifacts))
    (out if out.is_terminal else err).print(panel)
    if not out.is_terminal:
        out.print(run.name, markup=False)


def _show(run: Run, artifacts: str, preset: str, *, json: bool) -> None:
    """One JSON object, or a panel with the next command and what a better preset brings; a pipe gets the run's name."""
    from samo.runs.better import better_line
    from samo.runs.train import training_summary
    from samo_cli.render import err, note, out, print_json, training_panel

    facts = training_summary(run)
    if json:
        print_json(facts)
        return
    then = in_artifacts(f"samo evaluate {run.name}", artifacts)
    panel = training_panel(facts, run.trained["allowed_epochs"], then)
    (out if out.is_terminal else err).print(panel)
    if not out.is_terminal:
        out.print(run.name, markup=False)
    if better := better_line(run, preset):
        note(f"better: {as_flags(better)}")
