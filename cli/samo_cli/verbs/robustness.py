"""``samo robustness``."""

from __future__ import annotations

from typing import Annotated

import typer

from samo_cli.options import Artifacts, Device, Json, Precision, Threads

__all__ = ["robustness"]


def robustness(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Name or folder of a run on text; the newest when left out.")
    ] = "",
    on: Annotated[str, typer.Option(metavar="test|val", help="Which part of the run's own split to rewrite.")] = "test",
    rewrites: Annotated[
        str,
        typer.Option(
            metavar="KIND,...",
            help="typos, case, punctuation, emoji, letters, contractions, truncation, long, negation, length; "
            "all when left out.",
        ),
    ] = "",
    strength: Annotated[
        float,
        typer.Option(
            metavar="NUMBER", help="Share of a text's words that typos, added marks and drawn-out letters touch."
        ),
    ] = 0.1,
    seed: Annotated[int, typer.Option(metavar="INTEGER", min=0, help="Decides where.")] = 0,
    artifacts: Artifacts = "",
    device: Device = "auto",
    precision: Precision = "float32",
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Rewrite the test texts (typing errors, case, emoji, ...) and say what macro-F1 is lost under each."""
    from samo_text.rewriting.kinds import chosen_kinds

    kinds = chosen_kinds(rewrites)
    from samo.runs.artifacts import artifacts_root, find_model
    from samo.training.runtime import make_runtime
    from samo_cli.render import counting, print_json, show_robustness
    from samo_text.robustness import check_robustness
    from samo_text.robustness_report import write_robustness

    found = find_model(artifacts_root(artifacts), run)
    runtime = make_runtime(device, precision, threads)
    with counting("rewriting") as progress:
        report = check_robustness(found, runtime, part=on, kinds=kinds, strength=strength, seed=seed, progress=progress)
    page = write_robustness(report, found.folder)
    if json:
        print_json(report)
        return
    show_robustness(report, page)
