"""The corpora of texts SAMO can read. To add one: a module like ``goemotions.py``, and a line in ``DATASETS``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from samo.data import corpora
from samo.data.corpora import (
    DatasetModule,
    Registry,
    StageProgress,
    downloaded_root,
    existing_root,
    megabytes,
    require_known,
)
from samo.errors import SettingsError

if TYPE_CHECKING:
    from samo_text.config import DataSettings

__all__ = ["DATASETS", "DatasetModule", "download", "downloaded_root", "resolve_root"]

DATASETS: Mapping[str, DatasetModule] = Registry(
    {
        "goemotions": "samo_text.datasets.goemotions",
        "demo": "samo_text.datasets.demo",
        "table": "samo_text.datasets.table",
    }
)


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
        raise SettingsError(f"`dataset={settings.dataset}` needs `data_root`", hint="give the CSV, TSV or JSON file")
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


def download(name: str, *, on_progress: StageProgress | None = None) -> Path:
    """Fetch a corpus into SAMO's cache; see :func:`samo.data.corpora.download`."""
    return corpora.download(DATASETS, name, on_progress=on_progress)


def _at(settings: DataSettings, dataset: str, root: Path) -> DataSettings:
    return settings.model_copy(update={"dataset": dataset, "data_root": str(root)})
