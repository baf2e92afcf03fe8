"""The corpora SAMO can read. To add one: a module like ``ravdess.py``, and a line in ``DATASETS``."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from samo_core.errors import DataError, SettingsError, nearest
from samo_core.files import cache_root

if TYPE_CHECKING:
    from samo_audio.config import DataSettings
    from samo_core.data.download import RemoteFile
    from samo_core.data.manifest import Manifest

__all__ = ["DATASETS", "DatasetModule", "download", "downloaded_root", "resolve_root"]

StageProgress = Callable[[str, int, int], None]
"""Called with (what is done, bytes done, bytes in total); the total is 0 while unknown."""


class DatasetModule(Protocol):
    """What a corpus module offers.

    Attributes:
        NAME: as in ``--dataset NAME``.
        TITLE: one line on what it is.
        LICENSE: licence of the data.
        CITATION: how to cite it; may be empty.
        HOMEPAGE: where it is described; may be empty.
        SYNTHETIC: whether it was generated rather than recorded.
        DOWNLOADS: archives it consists of; empty when there is nothing to fetch.
        FOLDS: published test speakers by fold; may be empty.
    """

    NAME: str
    TITLE: str
    LICENSE: str
    CITATION: str
    HOMEPAGE: str
    SYNTHETIC: bool
    DOWNLOADS: tuple[RemoteFile, ...]
    FOLDS: tuple[frozenset[str], ...]

    def index(self, root: Path, settings: DataSettings) -> Manifest:
        """List the corpus that lies at ``root``."""


class _Registry(Mapping[str, DatasetModule]):
    """Corpus modules by name, imported when taken: listing the names costs no import."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules

    def __getitem__(self, name: str) -> DatasetModule:
        return cast(DatasetModule, importlib.import_module(self._modules[name]))

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


DATASETS: Mapping[str, DatasetModule] = _Registry(
    {
        "ravdess": "samo_audio.datasets.ravdess",
        "demo": "samo_audio.datasets.demo_corpus",
        "table": "samo_audio.datasets.table",
        "folder": "samo_audio.datasets.folder",
    }
)


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
        SettingsError: unknown corpus, or one that needs ``--data-root``.
        DataError: the root does not exist.
    """
    _require_known(settings.dataset)
    # Runs remember where the demo corpus lay; where a cache was cleared or moved since, it is made again.
    if settings.data_root and (settings.dataset != "demo" or Path(settings.data_root).is_dir()):
        return _at(settings, settings.dataset, _existing(settings.data_root, "--data-root")), ""
    if settings.dataset == "demo":
        return _demo(settings, on_progress), "Data: the built-in demo corpus (synthetic voices)."
    if settings.dataset != "ravdess":
        raise SettingsError(
            f"--dataset {settings.dataset} needs --data-root",
            hint="give the CSV file" if settings.dataset == "table" else "give the folder that holds the class folders",
        )
    if given := os.environ.get("SAMO_DATA_ROOT"):
        root = _existing(given, "$SAMO_DATA_ROOT")
        return _at(settings, "ravdess", root), f"Data: RAVDESS in {root} (from $SAMO_DATA_ROOT)."
    root = downloaded_root("ravdess")
    if root.is_dir():
        return _at(settings, "ravdess", root), f"Data: the downloaded RAVDESS in {root}."
    corpus = DATASETS["ravdess"]
    line = (
        "Data: the built-in demo corpus (synthetic voices), as no RAVDESS was found. For real speech: "
        f"`samo data download ravdess` ({_megabytes(corpus)} MB, {corpus.LICENSE}), or --data-root FOLDER."
    )
    return _demo(settings, on_progress), line


def downloaded_root(name: str) -> Path:
    """Where :func:`download` puts a corpus; it exists only when the corpus is whole."""
    return cache_root() / "datasets" / name


def download(name: str, *, on_progress: StageProgress | None = None) -> Path:
    """Fetch a corpus into SAMO's cache, check and unpack it; at once when it is there already.

    Args:
        name: a corpus that lists ``DOWNLOADS``.
        on_progress: called with ``"downloading"`` or ``"unpacking"``, bytes done, and bytes in total.

    Returns:
        The folder to index.

    Raises:
        SettingsError: the corpus is unknown or has nothing to download.
        EnvironmentProblem: no connection.
        DataError: the archive is not the published one.
        DiskFull: no space is left.
    """
    from samo_core.data.download import download as fetch
    from samo_core.data.download import unpack_zip

    _require_known(name)
    corpus = DATASETS[name]
    if not corpus.DOWNLOADS:
        offered = [other for other in DATASETS if DATASETS[other].DOWNLOADS]
        raise SettingsError(f"corpus '{name}' has nothing to download", hint=f"can be downloaded: {', '.join(offered)}")
    folder = downloaded_root(name)
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    (archive,) = corpus.DOWNLOADS
    report = on_progress or _no_progress
    packed = fetch(
        archive.urls,
        folder.parent / archive.name,
        size=archive.size,
        md5=archive.md5,
        sha256=archive.sha256,
        on_progress=lambda done, total: report("downloading", done, total),
        hint="point --data-root at a copy you have",
    )
    unpack_zip(packed, folder, on_progress=lambda done, total: report("unpacking", done, total))
    # The clips are there; the archive would only double the space.
    packed.unlink()
    return folder


def _require_known(name: str) -> None:
    if name not in DATASETS:
        raise SettingsError(f"unknown dataset '{name}'", hint=nearest(name, DATASETS) + f"valid: {', '.join(DATASETS)}")


def _existing(given: str, source: str) -> Path:
    root = Path(given).expanduser().absolute()
    if not root.exists():
        raise DataError(f"{source} points at {root}, which does not exist", hint="check the spelling of the path")
    return root


def _at(settings: DataSettings, dataset: str, root: Path) -> DataSettings:
    return settings.model_copy(update={"dataset": dataset, "data_root": str(root)})


def _demo(settings: DataSettings, on_progress: Callable[[int, int], None] | None) -> DataSettings:
    from samo_audio.datasets.demo import ensure

    return _at(settings, "demo", ensure(on_progress=on_progress).absolute())


def _megabytes(corpus: DatasetModule) -> int:
    """Size of the downloads in MB of 2**20 bytes, as the record's page shows it."""
    return round(sum(file.size for file in corpus.DOWNLOADS) / 2**20)


def _no_progress(stage: str, done: int, total: int) -> None:
    """Say nothing."""
