"""``samo train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from samo_cli.modalities import MODALITIES, config_type, frontend_type, read_preset
from samo_cli.options import settings_of_all, with_settings
from samo_core.config import Config, read_toml
from samo_core.errors import RunError, SettingsError

__all__ = ["resolve", "train"]


@with_settings(settings_of_all(config_type(modality) for modality in MODALITIES))
def train(
    modality: Annotated[str, typer.Option(help=f"What is learned from: {', '.join(MODALITIES)}.")] = "audio",
    preset: Annotated[str, typer.Option(help="Start from a recipe of `samo presets`.")] = "",
    config: Annotated[Path | None, typer.Option(help="Start from settings in a TOML file; flags win.")] = None,
    name: Annotated[str, typer.Option(help="Name of the run; made up when empty.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run of this name.")] = False,
    resume: Annotated[str, typer.Option(metavar="RUN", help="Go on with a run that was stopped.")] = "",
    artifacts: Annotated[str, typer.Option(help="Folder of all outputs; default $SAMO_ARTIFACTS or artifacts.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bf16 or fp16.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = as torch chooses.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train a model; the best epoch by validation macro-F1 is kept. The test part is never looked at."""
    chosen = None if resume else resolve(modality, preset, config, settings)
    # torch is imported only once the settings are known to be good: a typing error costs no waiting.
    from samo_cli.render import TrainingView, counting, err, note, out, panel, print_json
    from samo_core.experiments.experiment import resume_training, train_run
    from samo_core.experiments.run import artifacts_root, create_run, find_run
    from samo_core.training.runtime import make_runtime

    root = artifacts_root(artifacts)
    runtime = make_runtime(device, precision, threads)
    if resume:
        if name or preset or config or overwrite:
            raise SettingsError("--resume takes neither --name, --preset, --config nor --overwrite")
        run = find_run(root, resume)
        chosen = _unchanged(run.settings, settings)
        modality = run.settings["modality"]
    assert chosen is not None
    with counting("decoding") as progress:
        frontend = frontend_type(modality).open(chosen, note, progress)
    values = frontend.config.flat()
    if not resume:
        run = create_run(root, name, f"{values['dataset']}-{values['mode']}-{values['model']}", overwrite=overwrite)
    if values["split"] == "random":
        note("LEAKY SPLIT: with --split random the same speaker stands in train and test; every output is stamped")
    note(f"run {run.name}: {len(frontend.manifest.items)} clips of {values['dataset']}; {runtime.describe()}")
    with TrainingView(values["epochs"]) as view:
        work = resume_training if resume else train_run
        state = work(run, frontend, runtime, view)
    facts = {
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
    if json:
        print_json(facts)
        return
    mark = "  [bold yellow]synthetic demo data[/bold yellow]" if facts["synthetic"] else ""
    mark += "  [bold yellow]LEAKY SPLIT[/bold yellow]" if facts["leaky"] else ""
    lines = [
        f"best epoch {facts['best_epoch']} of {facts['epochs']}: validation macro-F1 [bold]{state.best_score:.3f}[/bold]{mark}",
        f"kept in {run.folder}",
        f"next:  [bold]samo evaluate {run.name}[/bold]" + (f" --artifacts {artifacts}" if artifacts else ""),
    ]
    (out if out.is_terminal else err).print(panel(lines, run.name), soft_wrap=True)
    if not out.is_terminal:
        out.print(run.name)


def resolve(modality: str, preset: str, file: Path | None, flags: dict[str, Any]) -> Config:
    """Settings from preset, then file, then flags; each wins over the one before.

    Raises:
        SettingsError: an unknown setting, one of another modality, or a value out of range.
    """
    kind = config_type(modality)
    known = {field.name for field in kind.fields()}
    for name in flags:
        if name not in known:
            raise SettingsError(f"--{name.replace('_', '-')} is no setting of --modality {modality}")
    values: dict[str, Any] = {}
    if preset:
        values.update(read_preset(modality, preset)[1])
    if file:
        values.update({k: v for k, v in read_toml(file, set(kind.model_fields)).items() if k != "description"})
    return kind.build({**values, **flags})


def _unchanged(stored: dict[str, Any], flags: dict[str, Any]) -> Config:
    """The settings of a run that goes on; flags that say otherwise are refused."""
    kind = config_type(stored["modality"])
    config = kind.build({name: value for name, value in stored.items() if name != "modality"})
    changed = [f"{name}: {stored.get(name)!r} -> {value!r}" for name, value in flags.items() if stored.get(name) != value]
    if changed:
        raise RunError(
            f"--resume goes on with the settings the run was begun with; changed: {', '.join(changed)}",
            hint="leave these flags away, or train a new run",
        )
    return config
