"""The corpora of texts SAMO can read. To add one: a module like ``goemotions.py``, and a line in ``DATASETS``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from samo.data import corpora
from samo.data.corpora import (
    DatasetModule,
    StageProgress,
    corpus_registry,
    downloaded_root,
    existing_root,
    megabytes,
    require_known,
)
from samo.data.keys import united
from samo.errors import SettingsError
from samo_text.texts import clean, content_of, length_of

if TYPE_CHECKING:
    from samo.data.manifest import Item, Manifest
    from samo_text.config import DataSettings

__all__ = ["DATASETS", "DatasetModule", "download", "downloaded_root", "index_corpus", "resolve_root"]

DATASETS = corpus_registry(
    "text",
    {
        "goemotions": "samo_text.datasets.goemotions",
        "demo": "samo_text.datasets.demo",
        "table": "samo_text.datasets.table",
    },
)

_ROOTS = {"table": "give the CSV, TSV or JSON file"}


def resolve_root(settings: DataSettings) -> tuple[DataSettings, str]:
    """Fill in where the corpus lies: what was given, ``$SAMO_TEXT_DATA_ROOT``, a download, else the demo corpus.

    Args:
        settings: as the user gave them.

    Returns:
        Settings whose ``dataset`` and ``data_root`` (absolute; empty for the demo corpus, which is made in memory) say
        what to index, and a line for people on what was chosen for them; the line is empty when they named the root.

    Raises:
        SettingsError: unknown corpus, or one that needs ``data_root`` or takes none.
        DataError: the root does not exist.
    """
    require_known(DATASETS, settings.dataset)
    if settings.dataset == "demo":
        if settings.data_root:
            raise SettingsError("`dataset=demo` is built in and takes no `data_root`", hint="leave one of them out")
        return settings, "Data: the built-in demo corpus (synthetic sentences)."
    if settings.data_root:
        return _at(settings, settings.dataset, existing_root(settings.data_root, "`data_root`")), ""
    if settings.dataset != "goemotions":
        raise SettingsError(
            f"`dataset={settings.dataset}` needs `data_root`",
            hint=_ROOTS.get(settings.dataset, "give the folder or file the corpus lies in"),
        )
    if given := os.environ.get("SAMO_TEXT_DATA_ROOT"):
        root = existing_root(given, "$SAMO_TEXT_DATA_ROOT")
        return _at(settings, "goemotions", root), f"Data: GoEmotions in {root} (from $SAMO_TEXT_DATA_ROOT)."
    root = downloaded_root("goemotions")
    if root.is_dir():
        return _at(settings, "goemotions", root), f"Data: the downloaded GoEmotions in {root}."
    corpus = DATASETS["goemotions"]
    line = (
        "Data: the built-in demo corpus (synthetic sentences), as no GoEmotions was found. For real comments: "
        f"`samo data download goemotions` ({megabytes(corpus)} MB, {corpus.LICENSE}), or `data_root=FOLDER`."
    )
    return settings.model_copy(update={"dataset": "demo"}), line


def index_corpus(settings: DataSettings) -> Manifest:
    """List the corpus that :func:`resolve_root` found; one of the user's own need not clean or hash its texts.

    Raises:
        DataError: no usable texts, or labels that differ only in spelling.
        SettingsError: see :class:`samo.data.corpora.OutsideCorpus`.
    """
    manifest = united(DATASETS[settings.dataset].index(Path(settings.data_root), settings))
    if all(item.content for item in manifest.items):
        return manifest
    items = tuple(_whole(item) for item in manifest.items)
    # Short texts stand twice by nature.
    return replace(manifest, items=items, copies="reported")


def _whole(item: Item) -> Item:
    """With all that SAMO's own corpora say of a text."""
    text = clean(item.source)
    meta = {"length": length_of(text), **item.meta}
    return replace(item, source=text, meta=meta, content=item.content or content_of(text))


def download(name: str, *, on_progress: StageProgress | None = None) -> Path:
    """Fetch a corpus into SAMO's cache; see :func:`samo.data.corpora.download`."""
    return corpora.download(DATASETS, name, on_progress=on_progress)


def _at(settings: DataSettings, dataset: str, root: Path) -> DataSettings:
    return settings.model_copy(update={"dataset": dataset, "data_root": str(root)})
