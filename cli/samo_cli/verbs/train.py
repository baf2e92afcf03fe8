"""``samo train``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import Interrupted, RunError, SettingsError
from samo.modalities import MODALITIES, config_type, config_types, frontend_type, preset_files
from samo.settings import Config, resolve
from samo.training.tracking import TRACKERS, Observers, Watched, require_trackers, tracked
from samo_cli.flags import switch
from samo_cli.options import (
    MACHINE,
    Artifacts,
    ConfigFile,
    Device,
    Json,
    Precision,
    Threads,
    flags_of,
    with_settings,
)

if TYPE_CHECKING:
    from samo.data.splits import Split
    from samo.frontend import Frontend
    from samo.runs.run import Run
    from samo.training.setup import Setup
    from samo.training.trainer import TrainState

__all__ = ["train"]

# Where the data lies may change between a run's beginning and its end; that they are the same data is checked.
MOVABLE = {"data_root"}
# With fewer groups in validation or test, chance decides what is called better.
FEWEST_GROUPS = 3


def _preset_names() -> list[str]:
    return [name for modality in MODALITIES for name in preset_files(modality)]


@with_settings(flags_of(config_types()))
def train(
    context: typer.Context,
    modality: Annotated[
        str,
        typer.Option(
            metavar="|".join(MODALITIES), help="What is learned from.", autocompletion=lambda: list(MODALITIES)
        ),
    ] = "audio",
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="Start from a recipe of `samo presets`.", autocompletion=_preset_names)
    ] = "",
    config: ConfigFile = None,
    name: Annotated[str, typer.Option(help="Name of the run; made up when left out.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run of this name.")] = False,
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
    """Train a model; the best epoch by validation macro-F1 is kept. The test part is never looked at."""
    if resume and (name or preset or config or overwrite):
        raise SettingsError("--resume takes neither --name, --preset, --config nor --overwrite")
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
    chosen = None if resume else resolve(modality, preset, config, settings)
    trackers = require_trackers(tracker)
    # torch is imported only once the settings are known to be good: a typing error costs no waiting.
    from samo.runs.run import ASSETS, Run, artifacts_root, create_run, find_run
    from samo.training.ranks import process_group
    from samo.training.runtime import make_runtime
    from samo.training.setup import Setup
    from samo_cli.render import counting, note, silence

    root = artifacts_root(artifacts)
    with process_group() as ranks:
        if not ranks.is_first:
            silence()
        runtime = make_runtime(device, precision, threads, ranks)
        if chosen is None:
            run = find_run(root, resume)
            chosen, modality = _unchanged(run.settings, settings), run.settings["modality"]
        elif name and not overwrite:
            create_run(root, name, "")  # a name that is taken costs no decoding
        kind = frontend_type(modality)
        with ranks.local_rank_first(), counting(kind.preparing) as progress:
            frontend: Any = kind.open(chosen, note, progress, run.path(ASSETS) if resume else None)
        values = frontend.config.flat()
        if not resume:
            split = _checked_split(frontend)
            stem = f"{values['dataset']}-{values['mode']}-{values['model']}"
            run = Run(ranks.broadcast(lambda: create_run(root, name, stem, overwrite=overwrite).folder))
        if values["split"] == "random":
            note("LEAKY SPLIT: with --split random the same speaker stands in train and test; every output is stamped")
        note(
            f"run {run.name}: {len(frontend.manifest.items)} {kind.item}s of {values['dataset']}; {runtime.describe()}"
        )
        for line in [] if resume else _about_split(frontend, split):
            note(line)
        command = context.obj["command"] + ("" if name else f" --name {run.name}")
        try:
            state = _train(run, Setup(frontend, runtime), trackers, command, resume=bool(resume))
        except Interrupted as stop:
            stop.hint += f" --artifacts {artifacts}" if artifacts else ""
            raise
        finally:
            if ranks.is_first:
                run.forget()
        if ranks.is_first:
            _show(_facts(run, frontend, state), values["epochs"] if state.learns else state.epoch, artifacts, json=json)


def _unchanged(stored: dict[str, Any], flags: dict[str, Any]) -> Config:
    """The settings of a run that goes on; flags that say otherwise are refused."""
    values = {name: value for name, value in stored.items() if name != "modality"}
    changed = [
        f"{switch(name)} {stored.get(name)} is now {value}"
        for name, value in flags.items()
        if name not in MOVABLE and stored.get(name) != value
    ]
    if changed:
        raise RunError(
            f"--resume goes on with the settings the run was begun with; changed: {', '.join(changed)}",
            hint="leave these flags away, or train a new run",
        )
    return config_type(stored["modality"]).build(
        {**values, **{name: value for name, value in flags.items() if name in MOVABLE}}
    )


def _checked_split(frontend: Frontend) -> Split:
    """Meet what is wrong with the split before a name is taken, or the run that is to be replaced is gone."""
    from samo.data.splits import audit, make_split

    split = make_split(frontend.manifest, frontend.split_request())
    audit(frontend.manifest, split)
    return split


def _about_split(frontend: Frontend, split: Split) -> list[str]:
    """The size of its parts, and what will make its scores doubtful."""
    from samo.data.splits import PARTS, audit, split_notes

    manifest, sizes, few = frontend.manifest, [], []
    for part in PARTS:
        ids = split.part(part)
        groups = {manifest.items[row].group for row in manifest.rows(ids)} - {""}
        unit, item = (f" {frontend.unit}s", f" {frontend.item}s") if part == "train" else ("", "")
        sizes.append(f"{part} {len(groups)}{unit} / {len(ids)}{item}" if groups else f"{part} {len(ids)}{item}")
        if part != "train" and 0 < len(groups) < FEWEST_GROUPS:
            few.append(f"{part} has {len(groups)} {frontend.unit}{'s' * (len(groups) > 1)}")
    thin = [f"{' and '.join(few)} only: scores will rest on little"] if few else []
    copies = audit(manifest, split) if manifest.copies == "reported" else []
    return [", ".join(sizes), *thin, *copies, *split_notes(manifest, split)]


def _train(run: Run, setup: Setup, trackers: Sequence[str], command: str, *, resume: bool) -> TrainState:
    from samo.runs.train import resume_training, train_run
    from samo_cli.render import TrainingView, note

    values = setup.frontend.config.flat()
    watched = Watched(run.folder, {"modality": setup.frontend.modality, **values}, lambda: run.history)
    wanted = trackers if setup.runtime.ranks.is_first else ()
    with TrainingView(values["epochs"], run.history) as view, tracked(wanted, watched, note) as drawn:
        observer = Observers(view, *drawn)
        if resume:
            return resume_training(run, setup, observer)
        return train_run(run, setup, observer, command)


def _facts(run: Run, frontend: Frontend, state: TrainState) -> dict[str, Any]:
    return {
        "schema": 1,
        "run": run.name,
        "folder": str(run.folder),
        "dataset": frontend.manifest.dataset,
        "synthetic": frontend.manifest.synthetic,
        "leaky": run.split.leaky,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch + 1,
        "val_macro_f1": state.best_score,
    }


def _show(facts: dict[str, Any], epochs: int, artifacts: str, *, json: bool) -> None:
    """One JSON object, or a panel with the next command; a pipe gets the run's name."""
    from samo_cli.render import err, out, print_json, training_panel

    if json:
        print_json(facts)
        return
    also = f" --artifacts {artifacts}" if artifacts else ""
    (out if out.is_terminal else err).print(training_panel(facts, epochs, f"samo evaluate {facts['run']}{also}"))
    if not out.is_terminal:
        out.print(facts["run"], markup=False)
