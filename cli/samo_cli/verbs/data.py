"""``samo data list | download | inspect``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from samo.errors import DataError, SettingsError, nearest
from samo.modalities import MODALITIES, config_type, config_types
from samo.plugins import trust
from samo.settings import SPLIT_SETTINGS, Config, resolve
from samo_cli.flags import as_flags
from samo_cli.help import Verb
from samo_cli.options import Artifacts, Json, flags_of, with_settings

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_WORDS = "|".join(MODALITIES)
# What acts on a split has nothing to say about a corpus.
_WITHOUT = {*SPLIT_SETTINGS, "drop_leaked", "near_copies"}


@app.command("list", cls=Verb, short_help="List the corpora SAMO can read.")
def list_corpora(
    modality: Annotated[str, typer.Option(metavar=_WORDS, help="Whose corpora; all when left out.")] = "",
    json: Json = False,
) -> None:
    """List the corpora SAMO can read, where they lie and under which licence."""
    from samo_cli.render import print_json, show_table

    found = {name: _rows(name) for name in ([modality] if modality else MODALITIES)}
    if json:
        print_json({"schema": 2, "datasets": found})
        return
    cells = [
        (kind, name, row["title"], row["licence"], row["place"])
        for kind, rows in found.items()
        for name, row in rows.items()
    ]
    show_table(("modality", "name", "what", "licence", "where"), cells, whole=("modality", "name"))


@app.command("download", cls=Verb, short_help="Download a corpus and check it.")
def download_corpus(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A corpus of `samo data list` that can be downloaded.")],
    modality: Annotated[str, typer.Option(metavar=_WORDS, help="Whose corpora; all when left out.")] = "",
    json: Json = False,
) -> None:
    """Download a corpus, check its size and checksum, unpack it; prints the folder it lies in.

    `wordnet` is for `samo train --augment synonyms`.
    """
    if name == "wordnet":
        _download_wordnet(json=json)
        return
    from samo_cli.render import downloading, note, out, print_json

    trust(name)
    package = _corpora(_owner(name, modality))
    with downloading() as progress:
        folder = package.download(name, on_progress=progress)
    corpus = package.DATASETS[name]
    if json:
        facts = {"dataset": name, "folder": str(folder), "licence": corpus.LICENSE, "citation": corpus.CITATION}
        print_json({"schema": 1, **facts})
        return
    note(f"licence: {corpus.LICENSE}; cite: {corpus.CITATION}")
    out.print(str(folder), markup=False, soft_wrap=True)


def _download_wordnet(*, json: bool) -> None:
    from samo_cli.render import out, print_json
    from samo_text.rewriting.synonyms import CITATION, LICENSE, download_wordnet

    folder = download_wordnet()
    if json:
        facts = {"dataset": "wordnet", "folder": str(folder), "licence": LICENSE, "citation": CITATION}
        print_json({"schema": 1, **facts})
        return
    out.print(str(folder), markup=False, soft_wrap=True)


@app.command("inspect", cls=Verb, short_help="Show and draw what is in a corpus.")
@with_settings(flags_of(config_types(), panels={"Data and split"}, without=_WITHOUT))
def inspect_corpus(
    modality: Annotated[str, typer.Option(metavar=_WORDS, help="What the corpus consists of.")] = "audio",
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where to draw; when left out, a folder of the corpus' own in inspect/ below the artifacts.",
        ),
    ] = None,
    artifacts: Artifacts = "",
    json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Show counts, lengths, duplicates and what else could spoil a result; draw class balance and lengths, of clips
    also waveform, mel and level.

    Clips that cannot be decoded are named on stderr, the rest is inspected, and the command leaves with status 3."""
    from samo.runs.artifacts import artifacts_root
    from samo_cli.render import note, print_json, show_inspection, show_text_inspection

    config = resolve(modality, "", None, settings)
    found, slug, draw = (_inspected_texts if modality == "text" else _inspected_clips)(config)
    folder = pictures or artifacts_root(artifacts) / "inspect" / slug
    drawn = draw(folder)
    if json:
        print_json({"schema": 1, **found, "pictures": [str(path) for path in drawn]})
    elif modality == "text":
        show_text_inspection(found, folder)
    else:
        show_inspection(found, folder)
    for line in found.get("unreadable", {}).values():
        note(f"left out: {line}")
    if found.get("unreadable"):
        raise typer.Exit(DataError.exit_status)


Drawing = Callable[[Path], list[Path]]


def _inspected_clips(config: Config) -> tuple[dict[str, Any], str, Drawing]:
    """What was found, a name for the folder of pictures, and what draws them."""
    from samo_audio.frontend import AudioFrontend
    from samo_audio.inspection import draw, inspect
    from samo_audio.waveforms import UnreadableClips
    from samo_cli.render import counting, note

    unreadable: dict[str, str] = {}
    with counting("decoding") as progress:
        try:
            frontend = AudioFrontend.open(config, note, progress)
        except UnreadableClips as error:
            unreadable, known = error.reasons, error
            try:
                frontend = AudioFrontend.open(config, lambda line: None, progress, left_out=unreadable)
            except DataError:  # none is left
                raise known from None
    clips = (frontend.manifest, frontend.waveforms)
    slug = frontend.manifest.slug
    found = {**inspect(*clips), "unreadable": unreadable}
    return found, slug, lambda folder: draw(*clips, folder, frontend.config.features)


def _inspected_texts(config: Any) -> tuple[dict[str, Any], str, Drawing]:
    """As :func:`_inspected_clips`; the demo corpora of both modalities are called alike."""
    from samo_cli.render import note
    from samo_text.datasets import index_corpus, resolve_root
    from samo_text.inspection import draw, inspect
    from samo_text.tokens import about_cut, open_tokens

    data, line = resolve_root(config.data)
    if line:
        note(line)
    manifest = index_corpus(data)
    slug = f"text-{manifest.slug}" if manifest.slug in _corpora("audio").DATASETS else manifest.slug
    found = inspect(manifest)
    found["warnings"] += about_cut(open_tokens(config), [item.source for item in manifest.items])
    return found, slug, lambda folder: draw(manifest, folder)


def _corpora(modality: str) -> Any:
    """The package of a modality's corpora.

    Raises:
        SettingsError: unknown modality.
    """
    config_type(modality)
    return import_module(f"{MODALITIES[modality].package}.datasets")


def _rows(modality: str) -> dict[str, dict[str, str]]:
    """What `list` says of each corpus of a modality."""
    package, rows = _corpora(modality), {}
    for name in package.DATASETS:
        if plugin := package.DATASETS.plugin(name):
            # Listing runs no code: what it says of itself shows `samo data inspect`.
            rows[name] = {"title": f"of {plugin.distribution}", "licence": "", "place": "--data-root", "citation": ""}
            continue
        corpus = package.DATASETS[name]
        here = package.downloaded_root(name)
        place = "built in" if corpus.SYNTHETIC else "--data-root"
        if corpus.DOWNLOADS:
            place = str(here) if here.is_dir() else f"samo data download {name}"
        rows[name] = {
            "title": as_flags(corpus.TITLE),
            "licence": corpus.LICENSE,
            "place": place,
            "citation": corpus.CITATION,
        }
    return rows


def _owner(name: str, modality: str) -> str:
    """The modality whose corpus of this name can be downloaded, or that knows the name at all.

    Raises:
        SettingsError: no modality has such a corpus.
    """
    searched = [modality] if modality else list(MODALITIES)
    known = {kind: _corpora(kind).DATASETS for kind in searched}
    owners = [kind for kind, datasets in known.items() if name in datasets]
    if not owners:
        if modality:
            raise known[modality].unknown(name)
        offered = [each for datasets in known.values() for each in datasets.own if datasets[each].DOWNLOADS]
        offered.append("wordnet")
        raise SettingsError(
            f"unknown dataset '{name}'", hint=nearest(name, offered) + f"can be downloaded: {', '.join(offered)}"
        )
    own = [kind for kind in owners if name in known[kind].own]
    return next((kind for kind in own if known[kind][name].DOWNLOADS), owners[0])
