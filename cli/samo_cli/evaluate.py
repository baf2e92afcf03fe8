"""``samo evaluate``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from samo_cli.modalities import MODALITIES, config_type
from samo_cli.options import settings_of_all, with_settings
from samo_core.errors import SettingsError

__all__ = ["evaluate"]


@with_settings(settings_of_all((config_type(modality) for modality in MODALITIES), {"Data and split"}))
def evaluate(
    run: Annotated[str, typer.Argument(help="Name or folder of a run; the newest when left out.")] = "",
    on: Annotated[str, typer.Option(help="Part of the run's own split: test, val or train.")] = "test",
    label_map: Annotated[
        str, typer.Option(help="Other corpus: its classes in the run's words, fear=fearful,joy=happy; x=- leaves x out.")
    ] = "",
    artifacts: Annotated[str, typer.Option(help="Folder of all outputs; default $SAMO_ARTIFACTS or artifacts.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="float32 judges exactly as predict does; bf16 is faster.")] = "float32",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = as torch chooses.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print report.json on stdout and nothing else.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Judge a run on its held-out speakers, or with --dataset on another corpus."""
    from samo_cli.modalities import frontend_type
    from samo_cli.render import counting, err, note, out, print_json, show_report
    from samo_core.data.splits import PARTS
    from samo_core.experiments.judge import judge_elsewhere, judge_run, relabel
    from samo_core.experiments.run import artifacts_root, find_run
    from samo_core.training.runtime import make_runtime

    if on not in PARTS:
        raise SettingsError(f"--on {on}: unknown part", hint=f"valid: {', '.join(PARTS)}")
    own = {"split", "fold", "train_ratio", "val_ratio"} & settings.keys()
    if own:
        raise SettingsError(f"--{sorted(own)[0].replace('_', '-')}: a run is judged on the split it was trained with")
    found = find_run(artifacts_root(artifacts), run)
    stored = {name: value for name, value in found.settings.items() if name != "modality"}
    elsewhere = settings.get("dataset", stored["dataset"]) != stored["dataset"]
    if label_map and not elsewhere:
        raise SettingsError("--label-map acts only together with --dataset of another corpus")
    modality = found.settings["modality"]
    if elsewhere:
        # The split of the run speaks of its own corpus; here every labelled item is judged.
        stored |= {"data_root": "", "split": "speaker", "fold": 0}
        stored |= {name: value for name, value in _corpus_defaults(modality).items() if name not in ("split", "fold")}
    config = config_type(modality).build({**stored, **settings})
    runtime = make_runtime(device, precision, threads)
    with counting("decoding") as progress:
        frontend: Any = frontend_type(modality).open(config, note, progress)
    if elsewhere:
        mapping = _pairs(label_map)
        frontend.manifest = relabel(frontend.manifest, found.manifest.label_space, mapping)
        report = judge_elsewhere(found, frontend, mapping, runtime)
    else:
        report = judge_run(found, frontend, on, runtime)
    if json:
        print_json(report)
        return
    show_report(report, found.folder, out)
    if err.is_terminal and not elsewhere and on == "test":
        note(f"next: samo predict CLIP_OR_FOLDER --run {found.name}")


def _corpus_defaults(modality: str) -> dict[str, Any]:
    """Columns and patterns of the run's own corpus mean nothing in another one."""
    names = ("path_column", "label_column", "speaker_column", "split_column", "speaker_pattern")
    return {field.name: field.info.default for field in config_type(modality).fields() if field.name in names}


def _pairs(text: str) -> dict[str, str]:
    pairs = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        old, equals, new = part.partition("=")
        if not equals or not old or not new:
            raise SettingsError(f"--label-map '{part}': write OTHER=OWN, several joined by commas")
        pairs[old.strip()] = new.strip()
    return pairs
