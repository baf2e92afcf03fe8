"""``samo export``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from samo_cli.options import Artifacts, DataRoot, Json, Threads, overwriting

__all__ = ["export"]


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a run; the newest when left out.")] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The file to write; empty: below exports in the run's folder."
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            metavar="onnx|torch-export|safetensors",
            help="onnx answers without torch: features, labels, temperatures, thresholds and card are in the file.",
        ),
    ] = "onnx",
    quantize: Annotated[
        str,
        typer.Option(
            metavar="int8",
            help="Weights in 8 bits; refused where it loses over 0.01 macro-F1, or is neither 1.5 times faster nor 3"
            " times smaller.",
        ),
    ] = "",
    prune: Annotated[
        float,
        typer.Option(
            metavar="RATIO",
            help="Take this share of the channels out of the convolutions, then train for some epochs; refused where"
            " it loses over 0.01 macro-F1.",
        ),
    ] = 0.0,
    prune_epochs: Annotated[
        int, typer.Option(metavar="INTEGER", min=1, help="With --prune: epochs of training after.")
    ] = 3,
    force: Annotated[
        bool, typer.Option("--force", help="Keep a quantised or pruned file that loses more or gains less.")
    ] = False,
    overwrite: Annotated[bool, overwriting("the file")] = False,
    data_root: DataRoot = "",
    artifacts: Artifacts = "",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Write a run as one file that answers alone, and check on held-out items that it answers as the run."""
    from samo.runs.artifacts import artifacts_root, find_model

    # torch is imported only once the run is known to be there: a typing error costs no waiting.
    found = find_model(artifacts_root(artifacts), run)
    from samo.deploy.export import export as export_run
    from samo_cli.render import TerminalReporter, note, print_json, show_export

    made = export_run(
        found, output or "", format=format, quantize=quantize, prune=prune, prune_epochs=prune_epochs, force=force,
        overwrite=overwrite, data_root=data_root, artifacts=artifacts, threads=threads, reporter=TerminalReporter(),
    )  # fmt: skip
    if json:
        print_json({**made.facts, "path": str(made.path)})
        return
    show_export(made.path, made.facts)
    if format == "onnx":
        what = "--text TEXT" if found.modality == "text" else "CLIP_OR_FOLDER"
        note(f"next: samo predict {what} --model {shlex.quote(str(made.path))}")
