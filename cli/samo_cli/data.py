"""``samo data list | download | inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from samo_audio.config import AudioConfig
from samo_cli.help import Verb
from samo_cli.options import Artifacts, Json, flags_of, with_settings
from samo_core.config import SPLIT_SETTINGS

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("list", cls=Verb, short_help="List the corpora SAMO can read.")
def list_corpora(json: Json = False) -> None:
    """List the corpora SAMO can read, where they lie and under which licence."""
    from samo_audio.datasets import DATASETS, downloaded_root
    from samo_cli.render import print_json, show_table

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
    cells = [(name, row["title"], row["licence"], row["place"]) for name, row in rows.items()]
    show_table(("name", "what", "licence", "where"), cells, whole=("name",))


@app.command("download", cls=Verb, short_help="Download a corpus and check it.")
def download_corpus(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A corpus of `samo data list` that can be downloaded.")],
    json: Json = False,
) -> None:
    """Download a corpus, check its size and checksum, unpack it; prints the folder it lies in."""
    from samo_audio.datasets import DATASETS, download
    from samo_cli.render import downloading, note, out, print_json

    with downloading() as progress:
        folder = download(name, on_progress=progress)
    corpus = DATASETS[name]
    if json:
        facts = {"dataset": name, "folder": str(folder), "licence": corpus.LICENSE, "citation": corpus.CITATION}
        print_json({"schema": 1, **facts})
        return
    note(f"licence: {corpus.LICENSE}; cite: {corpus.CITATION}")
    out.print(str(folder), markup=False, soft_wrap=True)


@app.command("inspect", cls=Verb, short_help="Show and draw what is in a corpus.")
@with_settings(flags_of({"audio": AudioConfig}, panels={"Data and split"}, without=SPLIT_SETTINGS))
def inspect_corpus(
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to draw; when left out, inspect/DATASET below the artifacts."),
    ] = None,
    artifacts: Artifacts = "",
    json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Show counts, durations, levels and duplicates of a corpus; draw waveform, mel and class balance."""
    from samo_audio.frontend import AudioFrontend
    from samo_audio.inspection import draw, inspect
    from samo_cli.render import counting, note, print_json, show_inspection
    from samo_core.experiments.run import artifacts_root

    with counting("decoding") as progress:
        frontend = AudioFrontend.open(AudioConfig.build(settings), note, progress)
    found = inspect(frontend.manifest, frontend.waveforms)
    folder = pictures or artifacts_root(artifacts) / "inspect" / found["dataset"]
    drawn = draw(frontend.manifest, frontend.waveforms, folder, frontend.config.features)
    if json:
        print_json({"schema": 1, **found, "pictures": [str(path) for path in drawn]})
        return
    show_inspection(found, folder)
