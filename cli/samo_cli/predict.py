"""``samo predict``."""

from __future__ import annotations

import csv as csvlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo_cli.options import Artifacts, Device, Json, Precision, Threads
from samo_core.errors import DataError, SettingsError

if TYPE_CHECKING:
    from samo_audio.predictor import Prediction

__all__ = ["predict"]


def predict(
    clips: Annotated[list[Path], typer.Argument(metavar="CLIP_OR_FOLDER", help="Audio files, or folders of them.")],
    run: Annotated[str, typer.Option(metavar="RUN", help="Name or folder of a run; the newest when left out.")] = "",
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values on stdout.")] = False,
    windows: Annotated[
        bool, typer.Option("--windows", help="Print comma-separated values with one row for each window of a file.")
    ] = False,
    artifacts: Artifacts = "",
    device: Device = "auto",
    precision: Precision = "float32",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Label and probabilities of each file; long recordings get a time line of windows.

    Files that cannot be read are named on stderr and the command leaves with status 3.
    """
    if json + csv + windows > 1:
        raise SettingsError("--json, --csv and --windows exclude each other")
    from samo_audio.predictor import TIMELINE_S, AudioPredictor, find_clips
    from samo_cli.render import counting, err, note, print_json, show_predictions
    from samo_core.experiments.run import artifacts_root, find_model
    from samo_core.training.checkpoint import read_about
    from samo_core.training.runtime import make_runtime

    found = find_model(artifacts_root(artifacts), run)
    paths = find_clips(clips)
    predictor = AudioPredictor.from_run(found, make_runtime(device, precision, threads))
    about = read_about(found.model_file)
    synthetic = bool(about["synthetic"])
    note(f"run {found.name} (trained on {about['dataset']}{', synthetic demo data' if synthetic else ''})")
    done: list[Prediction] = []
    with counting("predicting") as progress:
        for prediction in predictor.predict(paths, timeline_s=0.0 if windows else TIMELINE_S):
            done.append(prediction)
            progress(len(done), len(paths))
    good = [prediction for prediction in done if not prediction.error]
    bad = [prediction for prediction in done if prediction.error]
    if json:
        errors = [{"path": str(prediction.path), "message": prediction.error} for prediction in bad]
        said = [_plain(prediction) for prediction in good]
        print_json({"schema": 1, "run": found.name, "synthetic": synthetic, "predictions": said, "errors": errors})
    elif csv:
        _print_csv(good, predictor.space.primary.labels)
        if any(prediction.timeline for prediction in good):
            note("time lines of long recordings are left out here; --windows prints them")
    elif windows:
        _print_windows(good, predictor.space.primary.labels)
    elif good:
        show_predictions(good)
    for prediction in bad:
        err.print(f"error: {prediction.error}", markup=False, soft_wrap=True)
    if bad:
        raise typer.Exit(DataError.exit_status)


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
        shares = _shares(said.probabilities, labels)
        writer.writerow([str(said.path), said.label, *shares, "; ".join(said.warnings)])


def _print_windows(predictions: Iterable[Prediction], labels: Iterable[str]) -> None:
    writer = csvlib.writer(sys.stdout, lineterminator="\n")
    labels = list(labels)
    writer.writerow(["path", "start_s", "end_s", "label", *labels])
    for said in predictions:
        for window in said.timeline:
            place = [str(said.path), window.start_s, window.end_s, window.label]
            writer.writerow([*place, *_shares(window.probabilities, labels)])


def _shares(probabilities: Mapping[str, float], labels: Iterable[str]) -> list[str]:
    return [f"{probabilities[label]:.6f}" for label in labels]
