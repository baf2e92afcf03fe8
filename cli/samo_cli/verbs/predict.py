"""``samo predict``."""

from __future__ import annotations

import csv as csvlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import DataError, SettingsError
from samo_cli.flags import as_flags
from samo_cli.options import Artifacts, Device, Json, Precision, Threads

if TYPE_CHECKING:
    from samo.runs.run import Run
    from samo.training.runtime import Runtime
    from samo_audio.predictor import Prediction
    from samo_text.predictor import TextPrediction

__all__ = ["predict"]


def predict(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[INPUT ...]",
            help="Of a run on speech: audio files, or folders of them. On text: files of one text a line, - is stdin.",
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="TEXT", help="A text to judge; may be given several times.")
    ] = None,
    run: Annotated[str, typer.Option(metavar="RUN", help="Name or folder of a run; the newest when left out.")] = "",
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values on stdout.")] = False,
    windows: Annotated[
        bool,
        typer.Option("--windows", help="Speech: print comma-separated values with one row for each window of a file."),
    ] = False,
    artifacts: Artifacts = "",
    device: Device = "auto",
    precision: Precision = "float32",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Label and probabilities of each clip or text; long recordings get a time line of windows.

    Files that cannot be read are named on stderr and the command leaves with status 3.
    """
    if json + csv + windows > 1:
        raise SettingsError("--json, --csv and --windows exclude each other")
    if not inputs and not text:
        raise SettingsError("nothing to predict", hint="name clips, folders or files of texts, or give --text TEXT")
    from samo.runs.run import artifacts_root, find_model
    from samo.training.checkpoint import read_about
    from samo.training.runtime import make_runtime
    from samo_cli.render import note

    found = find_model(artifacts_root(artifacts), run)
    modality = found.settings["modality"]
    if text and modality != "text":
        raise SettingsError(
            f"run '{found.name}' was trained on speech; --text needs a run on text", hint="name one with --run"
        )
    if windows and modality != "audio":
        raise SettingsError(f"run '{found.name}' was trained on text; --windows belongs to recordings")
    runtime = make_runtime(device, precision, threads)
    about = read_about(found.model_file)
    synthetic = bool(about["synthetic"])
    trained = f"run {found.name} (trained on {about['dataset']}{', synthetic demo data' if synthetic else ''})"
    facts = {"schema": 1, "run": found.name, "synthetic": synthetic}
    if modality == "audio":
        _predict_clips(found, inputs or [], runtime, trained, facts, json=json, csv=csv, windows=windows)
    else:
        note(trained)
        _predict_texts(found, inputs or [], text or [], runtime, facts, json=json, csv=csv)


def _predict_clips(
    run: Run,
    inputs: Sequence[Path],
    runtime: Runtime,
    trained: str,
    facts: Mapping[str, Any],
    *,
    json: bool,
    csv: bool,
    windows: bool,
) -> None:
    from samo_audio.predictor import TIMELINE_S, AudioPredictor, find_clips
    from samo_cli.render import counting, err, note, print_json, show_predictions

    paths = find_clips(inputs)
    predictor = AudioPredictor.from_run(run, runtime)
    note(trained)
    done: list[Prediction] = []
    with counting("predicting") as progress:
        for prediction in predictor.predict(paths, timeline_s=0.0 if windows else TIMELINE_S):
            done.append(prediction)
            progress(len(done), len(paths))
    good = [prediction for prediction in done if not prediction.error]
    bad = [prediction for prediction in done if prediction.error]
    if json:
        errors = [{"path": str(prediction.path), "message": prediction.error} for prediction in bad]
        print_json({**facts, "predictions": [_plain(prediction) for prediction in good], "errors": errors})
    elif csv:
        _print_csv(good, predictor.space.primary.labels)
        if any(prediction.timeline for prediction in good):
            note("time lines of long recordings are left out here; --windows prints them")
    elif windows:
        _print_windows(good, predictor.space.primary.labels)
    elif good:
        show_predictions(good)
    for prediction in bad:
        err.print(f"error: {as_flags(prediction.error)}", markup=False, soft_wrap=True)
    if bad:
        raise typer.Exit(DataError.exit_status)


def _predict_texts(
    run: Run,
    inputs: Sequence[Path],
    given: Sequence[str],
    runtime: Runtime,
    facts: Mapping[str, Any],
    *,
    json: bool,
    csv: bool,
) -> None:
    from samo_cli.render import counting, print_json, show_text_predictions
    from samo_text.predictor import TextPredictor, read_texts

    texts = [*given]
    for path in inputs:
        texts += read_texts(path)
    predictor = TextPredictor.from_run(run, runtime)
    done: list[TextPrediction] = []
    with counting("predicting") as progress:
        for prediction in predictor.predict(texts):
            done.append(prediction)
            progress(len(done), len(texts))
    if json:
        print_json({**facts, "predictions": [_plain_text(prediction) for prediction in done]})
    elif csv:
        _print_texts(done)
    else:
        show_text_predictions(done)


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


def _plain_text(prediction: TextPrediction) -> dict[str, Any]:
    """Every task's answer by name; ``labels`` may be empty where no label of a multi-label task holds."""
    tasks = {
        name: {"labels": list(said.labels), "likeliest": said.likeliest, "probabilities": said.probabilities}
        for name, said in prediction.answers.items()
    }
    return {"text": prediction.text, "tasks": tasks, "warnings": list(prediction.warnings)}


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


def _print_texts(predictions: Sequence[TextPrediction]) -> None:
    """One column of labels a task, then its probabilities; several tasks name theirs in front."""
    writer = csvlib.writer(sys.stdout, lineterminator="\n")
    answers = predictions[0].answers
    heads: list[str] = []
    for name, said in answers.items():
        front = f"{name}." if len(answers) > 1 else ""
        heads += [f"{front}labels", *(f"{front}{label}" for label in said.probabilities)]
    writer.writerow(["text", *heads, "warnings"])
    for prediction in predictions:
        cells: list[str] = []
        for said in prediction.answers.values():
            cells += ["|".join(said.labels), *_shares(said.probabilities, said.probabilities)]
        writer.writerow([prediction.text, *cells, "; ".join(prediction.warnings)])


def _shares(probabilities: Mapping[str, float], labels: Iterable[str]) -> list[str]:
    return [f"{probabilities[label]:.6f}" for label in labels]
