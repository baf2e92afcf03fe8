"""``samo compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from samo_cli.options import Artifacts, Json

__all__ = ["compare"]


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN", help="Names or folders of two or more evaluated runs; the first is the baseline."
        ),
    ],
    on: Annotated[str, typer.Option(metavar="test|val", help="Which part of the runs' common split.")] = "test",
    artifacts: Artifacts = "",
    json: Json = False,
) -> None:
    """Say which runs are better than the first, which are worse, and which cannot be told apart from it.

    Reads what `samo evaluate` wrote: nothing is trained or evaluated anew.
    """
    from samo.experiments.compare import compare_runs, write_comparison
    from samo.runs.artifacts import artifacts_root, find_run
    from samo_cli.render import print_json, show_comparison

    root = artifacts_root(artifacts)
    comparison = compare_runs([find_run(root, name) for name in runs], on)
    folder = write_comparison(comparison, root)
    if json:
        print_json(comparison)
    else:
        show_comparison(comparison, folder)
