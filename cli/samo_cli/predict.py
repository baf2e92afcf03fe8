"""``samo predict``."""

from __future__ import annotations

import csv as csvlib
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo_core.errors import SettingsError

if TYPE_CHECKING:
    from samo_audio.predictor import Prediction

__all__ = ["predict"]


def predict(
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP_OR_FOLDER...", help="Audio files, or folders of them.")],
    run: Annotated[str, typer.Option(help="Name or folder of a run; the newest when left out.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values on stdout.")] = False,
    artifacts: Annotated[str, typer.Option(help="Folder of all outputs; default $SAMO_ARTIFACTS or artifacts.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="float32 answers exactly as evaluate judged.")] = "float32",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = as torch chooses.")] = 0,
) -> None:
    """Label and probabilities of each file; long recordings get a time line of windows.

    Files that cannot be read are named on stderr and the command leaves with status 3.
    """
    if json and csv:
        raise SettingsError("--json and --csv exclude each other")
    from samo_audio.predictor import AudioPredictor, find_clips
    from samo_cli.render import counting, err, note, print_json
    from samo_core.experiments.run import artifacts_root, find_run
    from samo_core.training.checkpoint import read_about
    from samo_core.training.runtime import make_runtime

    found = find_run(artifacts_root(artifacts), run)
    paths = find_clips(clips)
    predictor = AudioPredictor.from_run(found, make_runtime(device, precision, threads))
    synthetic = bool(read_about(found.model_file)["synthetic"])
    with counting("predicting") as progress:
        done = []
        for prediction in predictor.predict(paths):
            done.append(prediction)
            progress(len(done), len(paths))
    good = [prediction for prediction in done if not prediction.error]
    bad = [prediction for prediction in done if prediction.error]
    if json:
        print_json(
            {
                "schema": 1,
                "run": found.name,
                "synthetic": synthetic,
                "predictions": [_plain(prediction) for prediction in good],
                "errors": [{"path": str(prediction.path), "message": prediction.error} for prediction in bad],
            }
        )
    elif csv:
        _print_csv(good, predictor.space.primary.labels)
    else:
        if synthetic:
            note(f"run {found.name} was trained on synthetic demo data")
        _print_table(good)
    for prediction in bad:
        err.print(f"error: {prediction.error}", markup=False, soft_wrap=True)
    if bad:
        raise typer.Exit(3)


def _plain(prediction: Prediction) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "path": str(prediction.path),
        "label": prediction.label,
        "probabilities": prediction.probabilities,
        "warnings": list(prediction.warnings),
    }
    if prediction.timeline:
        plain["timeline"] = [asdict(stretch) for stretch in prediction.timeline]
    return plain


def _print_csv(predictions: Iterable[Prediction], labels: Iterable[str]) -> None:
    writer = csvlib.writer(sys.stdout, lineterminator="\n")
    labels = list(labels)
    writer.writerow(["path", "label", *labels, "warnings"])
    for said in predictions:
        shares = [f"{said.probabilities[label]:.6f}" for label in labels]
        writer.writerow([str(said.path), said.label, *shares, "; ".join(said.warnings)])


def _print_table(predictions: list[Prediction]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from samo_cli.render import out

    table = Table()
    for head in ("file", "label", "probability", "next", "warnings"):
        table.add_column(head, overflow="fold")
    for said in predictions:
        ranked = sorted(said.probabilities.items(), key=lambda pair: -pair[1])
        others = ", ".join(f"{label} {share:.0%}" for label, share in ranked[1:3])
        table.add_row(
            escape(str(said.path)), f"[bold]{said.label}[/bold]", f"{ranked[0][1]:.0%}", others, "; ".join(said.warnings)
        )
    out.print(table)
    for said in predictions:
        if said.timeline:
            out.print(f"\ntime line of {escape(str(said.path))}")
            for stretch in said.timeline:
                share = stretch.probabilities[stretch.label]
                bar = "█" * round(20 * share)
                out.print(f"  {_clock(stretch.start_s)} - {_clock(stretch.end_s)}  {stretch.label:10} {share:4.0%} {bar}")


def _clock(seconds: float) -> str:
    return f"{int(seconds // 3600):d}:{int(seconds // 60 % 60):02d}:{seconds % 60:04.1f}"
