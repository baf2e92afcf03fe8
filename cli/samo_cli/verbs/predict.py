"""``samo predict``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from samo.errors import DataError, SettingsError
from samo_cli.flags import as_flags
from samo_cli.options import Artifacts, Device, Json, Precision, Threads
from samo_cli.printable import PlainWriter

if TYPE_CHECKING:
    from samo.prediction import Prediction
    from samo.tasks import LabelSpace

__all__ = ["predict"]


def predict(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            # A file that may not be read is one line like any other that cannot be.
            readable=False,
            metavar="[INPUT ...]",
            help="Of a run on speech: audio files, or folders of them. On text: tables (.csv, .tsv, .json, .jsonl), or "
            "files of one text a line, - is stdin.",
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="TEXT", help="A text to label; may be given several times.")
    ] = None,
    text_column: Annotated[
        str, typer.Option(metavar="TEXT", help="Of a table: column of the text; the run's own when left out.")
    ] = "",
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

    Of a run trained with --abstain-risk or --abstain-coverage the least sure answers are "not sure", their label beside
    it. Of any run they are where nothing is heard or read: silence, a constant, less than 0.1 s, no text.

    Files that cannot be read are named on stderr and the command leaves with status 3.
    """
    if json + csv + windows > 1:
        raise SettingsError("--json, --csv and --windows exclude each other")
    if not inputs and not text:
        raise SettingsError("nothing to predict", hint="name clips, folders or files of texts, or give --text TEXT")
    from samo.runs.run import artifacts_root, find_model

    found = find_model(artifacts_root(artifacts), run)
    if text and found.modality != "text":
        raise SettingsError(
            f"run '{found.name}' was trained on speech; --text needs a run on text", hint="name one with --run"
        )
    if windows and found.modality != "audio":
        raise SettingsError(f"run '{found.name}' was trained on text; --windows belongs to recordings")
    if text_column and found.modality != "text":
        raise SettingsError(f"run '{found.name}' was trained on speech; --text-column needs a run on text")
    items: Sequence[str | Path]
    if found.modality == "text":
        items = _texts(inputs or [], text or [], text_column or found.flat_settings.get("text_column", "text"))
    else:
        items = _clips(inputs or [])
    # torch is imported only once the paths are known to be good: a typing error costs no waiting.
    from samo.runs.load import load
    from samo_cli.render import counting, err, note, print_json, show_predictions

    model = load(found, device=device, precision=precision, threads=threads)
    if windows:
        model.timeline_s = 0.0
    facts = model.facts
    note(f"run {facts.name} (trained on {facts.dataset}{', synthetic demo data' if facts.synthetic else ''})")
    predictions: list[Prediction] = []
    with counting("predicting") as progress:
        for prediction in model.stream(items):
            predictions.append(prediction)
            progress(len(predictions), len(items))
    good = [prediction for prediction in predictions if not prediction.error]
    bad = [prediction for prediction in predictions if prediction.error]
    if json:
        print_json({
            "schema": 1, "run": facts.name, "synthetic": facts.synthetic,
            "predictions": [prediction.to_json() for prediction in good],
            "errors": [prediction.to_json() for prediction in bad],
        })  # fmt: skip
    elif csv:
        _print_csv(good, model.space, found.modality)
    elif windows:
        _print_windows(good, model.space)
    elif good:
        show_predictions(good)
    for prediction in bad:
        err.print(f"error: {as_flags(prediction.error)}", markup=False, soft_wrap=True)
    if bad:
        raise typer.Exit(DataError.exit_status)


def _clips(inputs: Sequence[Path]) -> list[Path]:
    from samo_audio.datasets.listing import find_clips

    return find_clips(inputs)


def _texts(inputs: Sequence[Path], given: Sequence[str], column: str) -> list[str]:
    from samo_text.texts import read_texts

    return [*given, *(text for path in inputs for text in read_texts(path, column))]


def _print_csv(predictions: Sequence[Prediction], space: LabelSpace, modality: str) -> None:
    """One row a prediction: of clips label and probabilities, of texts labels and probabilities of every task."""
    from samo_cli.render import note

    writer = PlainWriter(sys.stdout)
    what, column = ("path", "label") if modality == "audio" else ("text", "labels")
    heads: list[str] = []
    for task in space.tasks:
        front = f"{task.name}." if len(space.tasks) > 1 else ""
        heads += [f"{front}{head}" for head in (column, *task.labels, "abstained")]
    writer.writerow([what, *heads, "warnings"])
    for prediction in predictions:
        cells: list[str] = []
        for answer in prediction.answers.values():
            cells += ["|".join(answer.labels), *_shares(answer.probabilities), _truth(answer.abstained)]
        writer.writerow([prediction.source, *cells, "; ".join(prediction.warnings)])
    if any(prediction.timeline for prediction in predictions):
        note("time lines of long recordings are left out here; --windows prints them")


def _print_windows(predictions: Iterable[Prediction], space: LabelSpace) -> None:
    writer = PlainWriter(sys.stdout)
    writer.writerow(["path", "start_s", "end_s", "label", *space.primary.labels, "abstained"])
    for prediction in predictions:
        for window in prediction.timeline:
            place = [prediction.source, window.start_s, window.end_s, window.label]
            writer.writerow([*place, *_shares(window.probabilities), _truth(window.abstained)])


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _shares(probabilities: Mapping[str, float]) -> list[str]:
    return [f"{share:.6f}" for share in probabilities.values()]
