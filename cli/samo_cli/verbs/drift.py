"""``samo drift``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samo.errors import DataError, SettingsError, counted, first_few, nearest
from samo_cli.options import Artifacts, Json

if TYPE_CHECKING:
    from samo.deploy.prediction_lines import Line, PredictionLines
    from samo.deploy.samples import Sample
    from samo.tasks import LabelSpace

__all__ = ["DRIFTED", "drift"]

DRIFTED = 1
"""The status with ``--fail-on-drift`` where a drift is found."""


def drift(
    file: Annotated[
        Path, typer.Argument(readable=False, metavar="FILE", help="What samo serve wrote with --log-predictions.")
    ],
    reference: Annotated[
        str,
        typer.Option(
            metavar="RUN|FILE.onnx", help="The model that answered: name or folder of its run, or its exported file."
        ),
    ] = "",
    halves: Annotated[
        bool, typer.Option("--halves", help="Compare the second half of the lines with the first, without a reference.")
    ] = False,
    model: Annotated[
        str,
        typer.Option(metavar="NAME", help="Which model's lines, by its name in the file; the reference's by default."),
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Lines from then on: 2026-11-26, 2026-11-26T10:00 (UTC), or 7d, 24h, 30m before the newest.",
        ),
    ] = "",
    fail_on_drift: Annotated[
        bool, typer.Option("--fail-on-drift", help="Leave with status 1 where a drift is found.")
    ] = False,
    artifacts: Artifacts = "",
    json: Json = False,
) -> None:
    """Compare answers and inputs of a served model with those of its validation part.

    Labels, confidence, withheld answers, input level and length, each with a test; without any drift at most 5 % of
    reports find one. Lines that are no answers are counted and named. Leaves with status 0 whatever it finds, unless
    --fail-on-drift.
    """
    if bool(reference) == halves:
        raise SettingsError("give either --reference RUN|FILE.onnx or --halves")
    from samo.deploy.drift import compare
    from samo.deploy.prediction_lines import read_prediction_lines
    from samo.deploy.prediction_lines import since as lines_since
    from samo.deploy.samples import sample_of_lines
    from samo_cli.render import note, print_json
    from samo_cli.render.drift import show_drift

    found = read_prediction_lines(file)
    name, before = ("", None) if halves else _reference(reference, artifacts)
    chosen, lines = _lines(found, model, name)
    everything = len(lines)
    if since:
        lines = lines_since(lines, since)
    if halves:
        middle = len(lines) // 2
        before, where = sample_of_lines(lines[:middle]), "the first half"
        lines = lines[middle:]
    else:
        where = "what the model was validated on"
    assert before is not None
    result = compare(before, sample_of_lines(lines), where)
    others = {other: len(own) for other, own in found.models.items() if other != chosen}
    if json:
        times = [line.time for line in lines]
        print_json({
            "schema": 1, "file": str(file), "model": chosen, "reference": name or where,
            "from": min(times).isoformat() if times else None, "to": max(times).isoformat() if times else None,
            **result.to_json(), "other_models": others,
            "broken": {"n": found.n_broken, "first": [{"line": each.number, "why": each.why} for each in found.broken]},
        })  # fmt: skip
    else:
        show_drift(result, chosen, where, lines)
    for remark in _remarks(found, others, everything, chosen, name):
        note(remark)
    if fail_on_drift and result.found:
        raise typer.Exit(DRIFTED)


def _remarks(found: PredictionLines, others: Mapping[str, int], n: int, chosen: str, name: str) -> list[str]:
    """What else there is to know of the file."""
    remarks = []
    if found.n_broken:
        named = ", ".join(f"line {each.number} ({each.why})" for each in found.broken[:3])
        more = f" and {found.n_broken - 3} more" if found.n_broken > 3 else ""
        remarks.append(f"{counted(found.n_broken, 'line is', 'lines are')} no answers and left out: {named}{more}")
    if others:
        remarks.append(
            f"lines of other models are left out: {first_few((f'{n} of {name}' for name, n in others.items()), 5)}"
        )
    if name and chosen != name:
        remarks.append(f"the lines are of a model called {chosen}, the reference is {name}")
    return remarks


def _reference(given: str, artifacts: str) -> tuple[str, Sample]:
    """Name and sample of the model that is compared with."""
    from samo.deploy.samples import sample_of_reference
    from samo.prediction.exported import ExportedModel, is_exported

    stored: Mapping[str, Any]
    space: LabelSpace | None
    if is_exported(given):
        exported = ExportedModel.open(given)
        name, stored = exported.facts.name, exported.metadata.reference
        modality, space = exported.modality, exported.space
    else:
        from samo.deploy.drift import reference_of
        from samo.runs.artifacts import artifacts_root, find_model

        run = find_model(artifacts_root(artifacts), given)
        name, stored = run.name, reference_of(run)
        modality, space = run.modality, None
    return name, sample_of_reference(stored, name, modality, space)


def _lines(found: PredictionLines, model: str, name: str) -> tuple[str, Sequence[Line]]:
    """The model's name in the file, and its lines.

    Raises:
        SettingsError: no model there is called so.
        DataError: the file has several models, and none is called as the reference.
    """
    names = list(found.models)
    if model:
        if model not in found.models:
            raise SettingsError(
                f"--model {model}: no line is of it", hint=nearest(model, names) + f"there are: {first_few(names, 10)}"
            )
        return model, found.models[model]
    if name in found.models or len(names) == 1:
        chosen = name if name in found.models else names[0]
        return chosen, found.models[chosen]
    raise DataError(f"the file has lines of several models: {first_few(names, 10)}", hint="name one with --model")
