"""``samo evaluate``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from samo.errors import SettingsError
from samo.modalities import config_types
from samo.settings import SPLIT_SETTINGS
from samo_cli.flags import in_artifacts
from samo_cli.options import Artifacts, Device, Json, Precision, Threads, flags_of, with_settings

__all__ = ["evaluate"]


@with_settings(flags_of(config_types(), panels={"Data and split"}, without=SPLIT_SETTINGS, default="the run's own"))
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a run; the newest when left out.")] = "",
    on: Annotated[
        str, typer.Option(metavar="test|val|train", help="Which part of the run's own split to evaluate.")
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
    """Evaluate a run on its held-out speakers or texts, or with --dataset on another corpus."""
    mapping = _pairs(label_map)
    from samo.runs.artifacts import artifacts_root, find_model
    from samo.runs.run import require_place

    # torch is imported only once the paths are known to be good: a typing error costs no waiting.
    found = find_model(artifacts_root(artifacts), run)
    if "dataset" not in settings:
        require_place(found, {**found.flat_settings, **settings}, moved="data_root" in settings)
    from samo.runs.evaluate import evaluate as evaluate_run
    from samo_cli.render import TerminalReporter, err, note, print_json, show_report

    report = evaluate_run(
        found, on=on, label_map=mapping, artifacts=artifacts, device=device, precision=precision, threads=threads,
        reporter=TerminalReporter(), **settings,
    )  # fmt: skip
    if json:
        print_json(report)
        return
    show_report(report, report.page, report.figures, report.openings)
    if err.is_terminal and report["split"] == "test":
        what = "--text TEXT" if report.modality == "text" else "CLIP_OR_FOLDER"
        note("next: " + in_artifacts(f"samo predict {what} --run {report['run']}", artifacts))


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
