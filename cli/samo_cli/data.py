"""``samo data list | download | inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from samo_audio.config import AudioConfig
from samo_cli.options import settings_of_all, with_settings

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@app.command("list")
def list_corpora(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """List the corpora SAMO can read, where they lie and under which licence."""
    from rich.table import Table

    from samo_audio.datasets import DATASETS, downloaded_root
    from samo_cli.render import out, print_json

    rows = {}
    for name, corpus in DATASETS.items():
        here = downloaded_root(name)
        place = "built in" if corpus.SYNTHETIC else "--data-root"
        if corpus.DOWNLOADS:
            place = str(here) if here.is_dir() else f"samo data download {name}"
        rows[name] = {"title": corpus.TITLE, "licence": corpus.LICENSE, "place": place, "citation": corpus.CITATION}
    if json:
        print_json({"schema": 1, "datasets": rows})
        return
    table = Table()
    for head in ("name", "what", "licence", "where"):
        table.add_column(head, overflow="fold")
    for name, row in rows.items():
        table.add_row(name, row["title"], row["licence"], row["place"])
    out.print(table)


@app.command("download")
def download_corpus(
    name: Annotated[str, typer.Argument(help="A corpus of `samo data list` that can be downloaded.")],
) -> None:
    """Download a corpus, check its size and checksum, unpack it."""
    from samo_audio.datasets import DATASETS, download
    from samo_cli.render import downloading, note, out

    with downloading() as progress:
        folder = download(name, on_progress=progress)
    corpus = DATASETS[name]
    note(f"licence: {corpus.LICENSE}; cite: {corpus.CITATION}")
    out.print(str(folder), soft_wrap=True)


@app.command("inspect")
@with_settings(settings_of_all([AudioConfig], {"Data and split"}))
def inspect_corpus(
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for the pictures; default: inspect/DATASET below the artifacts.")
    ] = None,
    artifacts: Annotated[str, typer.Option(help="Folder of all outputs; default $SAMO_ARTIFACTS or artifacts.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Show counts, durations, levels and duplicates of a corpus; draw waveform, mel and class balance."""
    from samo_audio.frontend import AudioFrontend
    from samo_audio.inspection import draw, inspect
    from samo_cli.render import counting, note, out, print_json, show_inspection
    from samo_core.experiments.run import artifacts_root

    with counting("decoding") as progress:
        frontend = AudioFrontend.open(AudioConfig.build(settings), note, progress)
    found = inspect(frontend.manifest, frontend.waveforms)
    folder = pictures or artifacts_root(artifacts) / "inspect" / found["dataset"]
    drawn = draw(frontend.manifest, frontend.waveforms, folder, frontend.config.features)
    if json:
        print_json({"schema": 1, **found, "pictures": [str(path) for path in drawn]})
        return
    show_inspection(found, folder, out)
