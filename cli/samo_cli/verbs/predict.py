"""``samo predict``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import DataError, DiskFull, Interrupted, SettingsError
from samo.modalities import released_files
from samo.printable import PlainWriter
from samo.runs.signals import signals_wait
from samo_cli.flags import as_flags
from samo_cli.options import Artifacts, Device, Json, Precision, Threads
from samo_cli.prediction_csv import csv_head, csv_rows, window_head, window_rows
from samo_cli.resumed_csv import goes_on, left_to_do

if TYPE_CHECKING:
    from samo.prediction import ModelFacts, ModelPredictor, Prediction

__all__ = ["predict"]

MANY = "Very many inputs"


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
    run: Annotated[
        str,
        typer.Option(
            metavar="RUN",
            help="Name or folder of a run; the newest when left out, without any samo-speech or samo-text.",
        ),
    ] = "",
    model: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            metavar="NAME|FILE.onnx",
            help="Instead of a run: samo-speech or samo-text, which come with SAMO, or a file of `samo export`; needs "
            "no torch.",
        ),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values on stdout.")] = False,
    windows: Annotated[
        bool,
        typer.Option("--windows", help="Speech: print comma-separated values with one row for each window of a file."),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Go on with what a stopped --csv wrote: append rows for the inputs that have none in the file.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            rich_help_panel=MANY,
            help="Write answers as files of a folder, part by part; the same command again goes on.",
        ),
    ] = None,
    format: Annotated[
        str, typer.Option(metavar="jsonl|parquet", rich_help_panel=MANY, help="Of the parts; jsonl when left out.")
    ] = "",
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            rich_help_panel=MANY,
            help="Write every N-th part, beginning with the I-th: N such commands on N machines share the work.",
        ),
    ] = "",
    ray: Annotated[
        str,
        typer.Option(
            metavar="auto|HOST:PORT",
            rich_help_panel=MANY,
            help="Let a Ray cluster write the parts; its machines see the folders under the same paths.",
        ),
    ] = "",
    part_items: Annotated[
        int | None, typer.Option(min=1, metavar="INTEGER", rich_help_panel=MANY, help="Inputs in a part [1000].")
    ] = None,
    artifacts: Artifacts = "",
    device: Device = "auto",
    precision: Precision = "float32",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Label and probabilities of each clip or text; long recordings get a time line of windows.

    Of a run trained with --abstain-risk or --abstain-coverage the least sure answers are "not sure", their label beside
    it. Of any run they are where nothing is heard or read: silence, a constant, less than 0.1 s, no text.

    With --model an exported file answers in a run's place: without torch, and at once.

    With --csv and --windows each row is written as soon as it is known. Ctrl-C keeps what is there.

    Files that cannot be read are named on stderr and the command leaves with status 3. With --output they are rows that
    say why.
    """
    bulk: dict[str, Any] = {"format": format, "shard": shard, "ray": ray, "part_items": part_items}
    _refuse_together(output, bulk, json=json, csv=csv, windows=windows, resume=resume)
    if run and model:
        raise SettingsError("--run and --model exclude each other: a run answers, or an exported file")
    if not inputs and not text:
        raise SettingsError("nothing to predict", hint="name clips, folders or files of texts, or give --text TEXT")
    source = _source(run, model, artifacts, "text" if text else "audio")
    items = _items(source, inputs or [], text or [], text_column, windows=windows)
    if output:
        how = {"device": device, "precision": precision, "threads": threads}
        _in_parts(source, items, output, json, **how, **{name: value for name, value in bulk.items() if value})
        return
    # torch is imported only once the paths are known to be good: a typing error costs no waiting.
    from samo_cli.render import note

    predictor = source.load(device=device, precision=precision, threads=threads)
    if windows:
        predictor.timeline_s = 0.0
    facts = predictor.facts
    if source.exported:
        note(f"{source.name}: {facts.describe(predictor.space)}")
    else:
        note(f"run {facts.name} (trained on {facts.dataset}{', synthetic demo data' if facts.synthetic else ''})")
    rows = window_rows if windows else csv_rows
    head = window_head(predictor.space) if windows else csv_head(predictor.space, source.modality)
    written = csv or windows or resume
    with _csv_file(head, items, source, resume) if written else nullcontext((None, items)) as (writer, left):
        begin, taken = len(items) - len(left), _Taken(writer, rows)
        stopped = _predict(predictor, left, begin, taken)
    _show(taken, facts, stopped=stopped, json=json)
    if taken.timelines and not windows:
        note("time lines of long recordings are left out here; --windows prints them")
    for prediction in () if written else taken.bad:
        _complain(prediction)
    if stopped:
        hint = f"the same command with --resume {resume or 'FILE.csv'} goes on" if csv or resume else ""
        raise Interrupted(f"after {begin + taken.n} of {len(items)}", hint=hint)
    if taken.bad:
        raise typer.Exit(DataError.exit_status)


def _refuse_together(
    output: Path | None, bulk: Mapping[str, Any], *, json: bool, csv: bool, windows: bool, resume: Path | None
) -> None:
    """Refuse forms of the answers that exclude each other.

    Raises:
        SettingsError: names their flags.
    """
    if output and (csv or windows or resume):
        raise SettingsError("--output excludes --csv, --windows and --resume")
    if not output and (alone := [name for name, value in bulk.items() if value]):
        raise SettingsError(f"`{alone[0]}` acts only together with `output`", hint="add --output FOLDER")
    if json + csv + windows > 1:
        raise SettingsError("--json, --csv and --windows exclude each other")
    if resume and (json or windows):
        raise SettingsError("--resume goes on with what --csv wrote, without --json and --windows")


@contextmanager
def _csv_file(
    head: Sequence[str], items: Sequence[str], source: _Source, resume: Path | None
) -> Iterator[tuple[PlainWriter, Sequence[str]]]:
    """Where comma-separated values go, stdout or the file to go on with, and the items that have no row there."""
    from samo_cli.render import note

    if resume is None:
        writer = PlainWriter(sys.stdout)
        writer.writerow(head)
        writer.flush()
        yield writer, items
        return
    with goes_on(resume, head) as (file, done):
        left = left_to_do(items, done, os.path.abspath if source.modality == "audio" else str)
        note(f"{len(items) - len(left)} of {len(items)} are in {resume}")
        yield PlainWriter(file), left


def _show(taken: _Taken, facts: ModelFacts, *, stopped: bool, json: bool) -> None:
    """What was not written as it came."""
    from samo_cli.render import print_json, show_predictions

    if json:
        print_json({
            "schema": 1, "run": facts.name, "synthetic": facts.synthetic,
            "predictions": [prediction.to_json() for prediction in taken.good],
            "errors": [prediction.to_json() for prediction in taken.bad],
            **({"stopped": True} if stopped else {}),
        })  # fmt: skip
    elif taken.good:
        show_predictions(taken.good)


def _in_parts(source: _Source, items: Sequence[str], folder: Path, json: bool, **how: Any) -> None:
    from samo.deploy.bulk import bulk_predict
    from samo_cli.render import counting, note, print_json

    try:
        with counting("writing parts") as progress:
            summary = bulk_predict(source.place, items, folder, on_part=progress, **how)
    except DiskFull as error:
        if error.hint:
            error.hint = error.hint.replace("give a folder", "give an --output")
        raise
    if json:
        print_json(summary.to_json())
    note(str(summary))


@dataclass(frozen=True)
class _Source:
    """A run or an exported file whose network is not loaded yet.

    Attributes:
        name: as errors call it.
        place: the run's folder, or the file.
        modality: ``audio`` or ``text``.
        text_column: its own column of texts; empty where it has none.
        load: takes device, precision and threads.
        exported: whether it is a file.
    """

    name: str
    place: Path
    modality: str
    text_column: str
    load: Callable[..., ModelPredictor]
    exported: bool = False


def _source(run: str, model: Path | None, artifacts: str, modality: str) -> _Source:
    """What answers: a file or a released model by name, or a run; without any run the released model."""
    from samo.runs.artifacts import artifacts_root
    from samo.runs.released import model_file

    file = model_file(model, run, artifacts_root(artifacts), modality)
    return _file(file) if file else _run(artifacts, run)


def _run(artifacts: str, name: str) -> _Source:
    from samo.runs.artifacts import artifacts_root, find_model

    run = find_model(artifacts_root(artifacts), name)

    def opened(**how: Any) -> ModelPredictor:
        from samo.runs.load import load

        return load(run, **how)

    column = run.flat_settings.get("text_column", "")
    return _Source(f"run '{run.name}'", run.folder, run.modality, column, opened)


def _file(path: Path) -> _Source:
    from samo.prediction.exported import ExportedModel, load_exported

    model = ExportedModel.open(path)
    name = path.stem if path in released_files().values() else str(path)
    return _Source(
        f"model {name}", path, model.modality, model.text_column, partial(load_exported, model), exported=True
    )


class _Taken:
    """Writes predictions as they come, and keeps what cannot be written yet."""

    def __init__(self, writer: PlainWriter | None, rows: Callable[[Prediction], list[list[object]]]) -> None:
        self.writer, self.rows = writer, rows
        self.n = 0
        self.good: list[Prediction] = []
        self.bad: list[Prediction] = []
        self.timelines = False

    def take(self, prediction: Prediction) -> None:
        """A prediction that was written is not kept."""
        self.n += 1
        if prediction.error:
            self.bad.append(prediction)
            if self.writer:
                _complain(prediction)
        elif self.writer:
            for row in self.rows(prediction):
                self.writer.writerow(row)
            self.writer.flush()
            self.timelines |= bool(prediction.timeline)
        else:
            self.good.append(prediction)


def _items(
    source: _Source, inputs: Sequence[Path], texts: Sequence[str], column: str, *, windows: bool
) -> Sequence[str]:
    """What is to be predicted.

    Raises:
        SettingsError: something was given that belongs to the other modality.
        DataError: a path that does not exist.
    """
    from samo.runs.released import other_model

    if texts and source.modality != "text":
        raise SettingsError(
            f"{source.name} was trained on speech; --text needs a model of text", hint=other_model("text")
        )
    if windows and source.modality != "audio":
        raise SettingsError(
            f"{source.name} was trained on text; --windows belongs to recordings", hint=other_model("audio")
        )
    if column and source.modality != "text":
        raise SettingsError(
            f"{source.name} was trained on speech; --text-column needs a model of text", hint=other_model("text")
        )
    if source.modality == "text":
        return _texts(inputs, texts, column or source.text_column or "text")
    return _clips(inputs)


def _predict(model: ModelPredictor, items: Sequence[str], begin: int, taken: _Taken) -> bool:
    """Hand each prediction on as it comes; whether Ctrl-C came before the last."""
    from samo_cli.render import counting

    with counting("predicting") as progress:
        try:
            for done, prediction in enumerate(model.stream(items), start=begin + 1):
                with signals_wait():
                    taken.take(prediction)
                progress(done, begin + len(items))
        except KeyboardInterrupt:
            return True
    return False


def _complain(prediction: Prediction) -> None:
    from samo_cli.render import err

    err.print(f"error: {as_flags(prediction.error)}", markup=False, soft_wrap=True)


def _clips(inputs: Sequence[Path]) -> list[str]:
    from samo_audio.datasets.listing import clip_names

    return clip_names(inputs)


def _texts(inputs: Sequence[Path], given: Sequence[str], column: str) -> list[str]:
    from samo_cli.render import note
    from samo_text.texts import read_texts

    return [*given, *(text for path in inputs for text in read_texts(path, column, note))]
