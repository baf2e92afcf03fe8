"""``samo zero-shot``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import SettingsError
from samo.modalities import config_type
from samo.printable import PlainWriter
from samo.settings import SPLIT_SETTINGS
from samo_cli.options import Device, Json, Precision, Threads, flags_of, with_settings

if TYPE_CHECKING:
    from samo.data.manifest import Manifest
    from samo_text.zero_shot import ZeroShotAnswer

__all__ = ["zero_shot"]

_WITHOUT = {*SPLIT_SETTINGS, "drop_leaked"}


@with_settings(flags_of({"text": config_type("text")}, panels={"Data and split"}, without=_WITHOUT))
def zero_shot(
    inputs: Annotated[
        list[Path] | None, typer.Argument(metavar="[INPUT ...]", help="Files of one text a line, - is stdin.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="TEXT", help="A text to label; may be given several times.")
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            metavar="NAME=DESCRIPTION,...",
            help="calm=feeling calm and relaxed,panic=sheer panic|fear of dying: | joins several descriptions of a "
            "label; joy,anger,fear stand for themselves.",
        ),
    ] = "",
    labels_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='The same as TOML: lines such as panic = ["sheer panic", "fear of dying"].'),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|NAME", help="Encoder trained for sentence similarity: a folder, or a Hugging Face name."
        ),
    ] = "",
    temperature: Annotated[
        float, typer.Option(metavar="NUMBER", help="Cosines are divided by it before the softmax.")
    ] = 0.05,
    on: Annotated[
        str,
        typer.Option(
            metavar="train|val|test|all",
            help="With --dataset, --data-root: part to evaluate; test if left out, or all of a table without parts.",
        ),
    ] = "",
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values on stdout.")] = False,
    device: Device = "auto",
    precision: Precision = "float32",
    threads: Threads = 0,
    json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Label texts with labels no model was trained on, by how near each label's description lies in meaning.

    With --dataset or --data-root it is evaluated on labelled texts instead: macro-F1 with its interval.
    """
    evaluating = bool(settings)
    _check(bool(inputs or text), evaluating, encoder, on, csv=csv, json=json)
    from samo_cli.render import counting, note
    from samo_text.texts import read_texts

    texts = [*(text or ()), *(line for path in inputs or () for line in read_texts(path, notify=note))]
    from samo.training.runtime import make_runtime
    from samo_text.zero_shot import NOTE, Embedder, ZeroShot, evaluate_zero_shot, read_labels

    described = read_labels(labels, labels_file)
    manifest = _manifest(settings) if evaluating else None
    model = ZeroShot(Embedder(encoder, make_runtime(device, precision, threads)), described, temperature)
    if not json:
        note(f"{NOTE}; encoder {encoder}, temperature {temperature:g}")
    with counting("embedding") as progress:
        if manifest:
            report = evaluate_zero_shot(model, manifest, on=on, progress=progress)
        else:
            answers = model.predict(texts, progress)
    if manifest:
        _show_report({**model.facts(), **report}, json=json)
    else:
        _show_answers(answers, model.facts(), json=json, csv=csv)


def _check(labelling: bool, evaluating: bool, encoder: str, on: str, *, csv: bool, json: bool) -> None:
    """Refuse what does not go together, before anything is read."""
    if evaluating == labelling:
        raise SettingsError(
            "name files of texts or --text TEXT to label them, or labelled texts with --dataset or --data-root to be "
            "judged on; one of the two"
        )
    if csv and (json or evaluating):
        raise SettingsError("--csv goes with texts to label, and without --json")
    if on and not evaluating:
        raise SettingsError("--on acts only together with --dataset or --data-root")
    if not encoder:
        raise SettingsError(
            "--encoder is needed: a folder, or a name on the Hugging Face hub",
            hint="for example --encoder sentence-transformers/all-MiniLM-L6-v2",
        )


def _manifest(settings: dict[str, Any]) -> Manifest:
    from samo.settings import resolve
    from samo_cli.render import note
    from samo_text.datasets import index_corpus, resolve_root

    config: Any = resolve("text", "", None, settings)
    data, line = resolve_root(config.data)
    if line:
        note(line)
    return index_corpus(data)


def _show_report(report: dict[str, Any], *, json: bool) -> None:
    from samo_cli.render import print_json, show_zero_shot_report

    print_json(report) if json else show_zero_shot_report(report)


def _show_answers(answers: Sequence[ZeroShotAnswer], facts: dict[str, Any], *, json: bool, csv: bool) -> None:
    from samo_cli.render import print_json, show_zero_shot

    if json:
        print_json({**facts, "predictions": [answer.to_json() for answer in answers]})
    elif csv:
        _print_csv(answers, facts["note"])
    else:
        show_zero_shot(answers, facts["note"])


def _print_csv(answers: Sequence[ZeroShotAnswer], note: str) -> None:
    writer = PlainWriter(sys.stdout)
    labels = list(answers[0].probabilities)
    writer.writerow(["text", "label", *labels, "warnings", "model"])
    for answer in answers:
        shares = [f"{answer.probabilities[label]:.6f}" for label in labels]
        writer.writerow([answer.text, answer.label, *shares, "; ".join(answer.warnings), note])
