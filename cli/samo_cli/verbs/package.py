"""``samo package``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samo_cli.options import Artifacts, DataRoot, Json, Threads, overwriting

__all__ = ["package"]


def package(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder to make.")],
    model: Annotated[
        str,
        typer.Argument(
            metavar="[RUN|FILE.onnx]",
            help="A run by name or folder, a file of `samo export`, samo-speech or samo-text; else the newest run.",
        ),
    ] = "",
    overwrite: Annotated[bool, overwriting("a package that is there; never anything else")] = False,
    data_root: DataRoot = "",
    artifacts: Artifacts = "",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Write a model as a folder that runs elsewhere, without torch.

    In it: the model file, its card, licences, pinned requirements, predict.py, examples with their answers, a
    Dockerfile and a Compose file for the server.

    A run is exported and checked first, as `samo export` does it. For an int8 or pruned model, give the file of
    `samo export`.
    """
    from samo.prediction.exported import is_exported
    from samo.runs.artifacts import artifacts_root, find_model
    from samo.runs.released import released_for

    if not is_exported(model) and not (model and released_for(model, artifacts_root(artifacts))):
        # torch is imported only once the run is known to be there: a typing error costs no waiting.
        find_model(artifacts_root(artifacts), model)
    from samo.deploy.package import package as write_package
    from samo_cli.render import TerminalReporter, note, out, print_json

    made = write_package(
        model, output, overwrite=overwrite, data_root=data_root, artifacts=artifacts, threads=threads,
        reporter=TerminalReporter(),
    )  # fmt: skip
    if json:
        print_json(made.to_json())
        return
    out.print(f"{made.path}: {len(made.files) + 1} files, {made.size_mb:.2f} MB", markup=False, soft_wrap=True)
    note(f"next: read {made.path / 'README.md'}")
