"""The corpora SAMO can read. To add one: a module like ``ravdess.py``, and a line in ``DATASETS``."""

from __future__ import annotations

import os
from collections.abc import Callable
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

if TYPE_CHECKING:
    from samo.data.manifest import Manifest
    from samo_audio.config import DataSettings

__all__ = ["DATASETS", "DatasetModule", "download", "downloaded_root", "index_corpus", "locate", "resolve_root"]

DATASETS = corpus_registry(
    "audio",
    {
        "ravdess": "samo_audio.datasets.ravdess",
        "demo": "samo_audio.datasets.demo_corpus",
        "table": "samo_audio.datasets.table",
        "folder": "samo_audio.datasets.folder",
    },
)

_ROOTS = {"table": "give the CSV file", "folder": "give the folder that holds the class folders"}


def resolve_root(
    settings: DataSettings, *, on_progress: Callable[[int, int], None] | None = None
) -> tuple[DataSettings, str]:
    """Fill in where the corpus lies: what was given, ``$SAMO_DATA_ROOT``, a download, else the demo corpus.

    Args:
        settings: as the user gave them.
        on_progress: called with (clips done, clips in all) while the demo corpus is made.

    Returns:
        Settings whose ``dataset`` and ``data_root`` (absolute) say what to index, and a line for people on what was
        chosen for them; the line is empty when they named the root themselves.

    Raises:
        SettingsError: unknown corpus, or one that needs ``data_root``.
        DataError: the root does not exist.
    """
    located, line = locate(settings)
    if located.dataset == "demo" and not located.data_root:
        located = _demo(located, on_progress)
    return located, line


def locate(settings: DataSettings) -> tuple[DataSettings, str]:
    """What :func:`resolve_root` gives, but nothing is made: the demo corpus has no ``data_root`` unless it was given.

    Raises:
        SettingsError, DataError: as :func:`resolve_root`.
    """
    require_known(DATASETS, settings.dataset)
    # Runs remember where the demo corpus lay; where a cache was cleared or moved since, it is made again.
    if settings.data_root and (settings.dataset != "demo" or Path(settings.data_root).is_dir()):
        return _at(settings, settings.dataset, existing_root(settings.data_root, "`data_root`")), ""
    if settings.dataset == "demo":
        return settings.model_copy(update={"data_root": ""}), "Data: the built-in demo corpus (synthetic voices)."
    if settings.dataset != "ravdess":
        raise SettingsError(
            f"`dataset={settings.dataset}` needs `data_root`",
            hint=_ROOTS.get(settings.dataset, "give the folder or file the corpus lies in"),
        )
    if given := os.environ.get("SAMO_DATA_ROOT"):
        root = existing_root(given, "$SAMO_DATA_ROOT")
        return _at(settings, "ravdess", root), f"Data: RAVDESS in {root} (from $SAMO_DATA_ROOT)."
    root = downloaded_root("ravdess")
    if root.is_dir():
        return _at(settings, "ravdess", root), f"Data: the downloaded RAVDESS in {root}."
    corpus = DATASETS["ravdess"]
    line = (
        "Data: the built-in demo corpus (synthetic voices), as no RAVDESS was found. For real speech: "
        f"`samo data download ravdess` ({megabytes(corpus)} MB, {corpus.LICENSE}), or `data_root=FOLDER`."
    )
    return settings.model_copy(update={"dataset": "demo"}), line


def index_corpus(settings: DataSettings) -> Manifest:
    """List the corpus that :func:`resolve_root` found, each speaker under one spelling.

    Raises:
        DataError: no usable clips, or labels that differ only in spelling.
        SettingsError: see :class:`samo.data.corpora.OutsideCorpus`.
    """
    return united(DATASETS[settings.dataset].index(Path(settings.data_root), settings))


def download(name: str, *, on_progress: StageProgress | None = None) -> Path:
    """Fetch a corpus into SAMO's cache; see :func:`samo.data.corpora.download`."""
    return corpora.download(DATASETS, name, on_progress=on_progress)


def _at(settings: DataSettings, dataset: str, root: Path) -> DataSettings:
    return settings.model_copy(update={"dataset": dataset, "data_root": str(root)})


def _demo(settings: DataSettings, on_progress: Callable[[int, int], None] | None) -> DataSettings:
    from samo_audio.datasets.demo import ensure

    return _at(settings, "demo", ensure(on_progress=on_progress).absolute())
