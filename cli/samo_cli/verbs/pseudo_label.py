"""``samo pseudo-label``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from samo_cli.options import Artifacts, Device, Json, Precision, Threads, overwriting

__all__ = ["pseudo_label"]


def pseudo_label(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a run on text.")],
    inputs: Annotated[
        Path,
        typer.Argument(metavar="TEXTS", help="A table (.csv, .tsv, .json, .jsonl), or a file of one text a line."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The .csv or .tsv table to write.")],
    confidence: Annotated[
        float,
        typer.Option(
            metavar="NUMBER",
            help="Keep a text when its label is at least so probable; when several labels may hold, each must be so "
            "probable or so improbable, and one must hold.",
        ),
    ] = 0.9,
    text_column: Annotated[str, typer.Option(metavar="TEXT", help="Of a table: column of the text.")] = "text",
    overwrite: Annotated[bool, overwriting("the table of this name")] = False,
    artifacts: Artifacts = "",
    device: Device = "auto",
    precision: Precision = "float32",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Label unlabelled texts with a run and keep those it is sure of, as a table to train on.

    Texts of the run's own validation and test parts are left out. Add the table to a training with --extra-table: its
    rows are trained on and never judged on.
    """
    from samo.runs.artifacts import artifacts_root, find_model
    from samo.training.runtime import make_runtime
    from samo_cli.render import note, print_json, show_pseudo_labels
    from samo_text.predictor import TextPredictor
    from samo_text.pseudo_labels import (
        check_confidence,
        check_target,
        pseudo_label,
        write_pseudo_labels,
    )
    from samo_text.texts import read_texts

    check_confidence(confidence)
    found = find_model(artifacts_root(artifacts), run)
    check_target(found, out, overwrite=overwrite)
    texts = read_texts(inputs, text_column, note)
    predictor = TextPredictor.from_run(found, make_runtime(device, precision, threads))
    labelled = pseudo_label(found, predictor, texts, confidence)
    write_pseudo_labels(labelled, found, out)
    summary = {"schema": 1, "run": found.name, "table": str(out), **labelled.summary}
    if json:
        print_json(summary)
        return
    show_pseudo_labels(summary, out)
    if labelled.texts:
        note(f"next: train as run '{found.name}' was, with --extra-table {shlex.quote(str(out))}")
