"""``samo evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import SettingsError
from samo.modalities import config_type, config_types, frontend_type
from samo.settings import SPLIT_SETTINGS
from samo_cli.options import Artifacts, Device, Json, Precision, Threads, flags_of, with_settings

if TYPE_CHECKING:
    from samo.runs.run import Run

__all__ = ["evaluate"]


@with_settings(flags_of(config_types(), panels={"Data and split"}, without=SPLIT_SETTINGS, default="the run's own"))
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a run; the newest when left out.")] = "",
    on: Annotated[
        str, typer.Option(metavar="test|val|train", help="Which part of the run's own split to judge.")
    ] = "test",
    label_map: Annotated[
        str,
        typer.Option(
            metavar="OTHER=OWN,...",
            help="With --dataset: its classes in the run's words, fear=fearful,joy=happy; x=- leaves x out.",
        ),
    ] = "",
    artifacts: Artifacts = "",
    device: Device = "auto",
    precision: Precision = "float32",
    threads: Threads = 0,
    json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Judge a run on its held-out speakers or texts, or with --dataset on another corpus."""
    from samo.data.splits import PARTS

    if on not in PARTS:
        raise SettingsError(f"--on {on}: unknown part", hint=f"valid: {', '.join(PARTS)}")
    mapping = _pairs(label_map)
    if mapping and "dataset" not in settings:
        raise SettingsError("--label-map acts only together with --dataset of another corpus")
    from samo.runs.evaluate import evaluate_corpus, evaluate_run, relabel
    from samo.runs.run import artifacts_root, find_model
    from samo.training.runtime import make_runtime
    from samo.training.setup import Setup
    from samo_cli.render import err, note, print_json, show_report

    found = find_model(artifacts_root(artifacts), run)
    runtime = make_runtime(device, precision, threads)
    frontend = _open(found, settings)
    elsewhere = "dataset" in settings and frontend.manifest.digest != found.manifest.digest
    if elsewhere:
        if on != "test":
            raise SettingsError(f"--on {on} names a part of the run's own split; another corpus is judged as a whole")
        frontend.manifest = relabel(frontend.manifest, found.manifest.label_space, mapping)
        report = evaluate_corpus(found, Setup(frontend, runtime), mapping)
    elif mapping:
        raise SettingsError("--label-map acts only together with --dataset of another corpus; this is the run's own")
    else:
        report = evaluate_run(found, Setup(frontend, runtime), on)
    if json:
        print_json(report)
        return
    suffix = f".{report['dataset']}" if elsewhere else "" if on == "test" else f".{on}"
    show_report(report, found.path(f"report{suffix}.html"), found.path(f"figures{suffix}"))
    if err.is_terminal and not suffix:
        also = f" --artifacts {artifacts}" if artifacts else ""
        what = "--text TEXT" if frontend.modality == "text" else "CLIP_OR_FOLDER"
        note(f"next: samo predict {what} --run {found.name}{also}")


def _open(run: Run, settings: dict[str, Any]) -> Any:
    """The frontend over the run's own corpus, or over the one that ``settings`` name."""
    from samo.runs.code import require_code
    from samo.runs.run import ASSETS
    from samo_cli.render import counting, note

    require_code(run, "model", *([] if "dataset" in settings else ["dataset"]))
    modality = run.settings["modality"]
    kind = config_type(modality)
    values = {name: value for name, value in run.settings.items() if name != "modality"}
    if "dataset" in settings:
        # The run's split speaks of its own corpus, and so do columns and patterns unless both are of one kind.
        same_kind = settings["dataset"] == values["dataset"]
        stale = SPLIT_SETTINGS if same_kind else {field.name for field in kind.fields() if field.section == "data"}
        values |= {field.name: field.info.default for field in kind.fields() if field.name in stale - {"mode"}}
    frontend = frontend_type(modality)
    with counting(frontend.preparing) as progress:
        return frontend.open(kind.build({**values, **settings}), note, progress, run.path(ASSETS))


def _pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        old, equals, new = (word.strip() for word in part.partition("="))
        if not equals or not old or not new:
            raise SettingsError(f"--label-map '{part}': write OTHER=OWN, several joined by commas")
        if old in pairs:
            raise SettingsError(f"--label-map names '{old}' twice")
        pairs[old] = new
    return pairs
