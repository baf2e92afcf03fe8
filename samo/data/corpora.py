"""What every modality's corpora share: how a corpus module looks, the registry, where data lie, and downloads."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from samo.errors import DataError, ModelFileError, SettingsError
from samo.files import alone, cache_root
from samo.plugins import Plugin, Registry

if TYPE_CHECKING:
    from samo.data.download import RemoteFile
    from samo.data.manifest import Manifest

__all__ = [
    "DatasetModule",
    "OutsideCorpus",
    "StageProgress",
    "corpus_registry",
    "download",
    "downloaded_root",
    "existing_root",
    "licence_for_others",
    "looks_like_path",
    "megabytes",
    "require_folder",
    "require_known",
    "require_places",
    "require_root",
]

_OF_A_CORPUS = ("TITLE", "LICENSE", "CITATION", "SYNTHETIC", "index")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")

StageProgress = Callable[[str, int, int], None]
"""Called with (what is done, bytes done, bytes in total); the total is 0 while unknown."""


class DatasetModule(Protocol):
    """What a corpus module offers.

    Attributes:
        NAME: as in ``dataset=NAME``.
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

    def index(self, root: Path, settings: Any) -> Manifest:
        """List the corpus that lies at ``root``."""


def corpus_registry(modality: str, modules: Mapping[str, str]) -> Registry[DatasetModule]:
    """Corpus modules by name, imported when taken; what else may be named, see :mod:`samo.plugins`."""
    return Registry("dataset", modality, modules, lambda name: _corpus_module(modules[name]), OutsideCorpus)


def _corpus_module(module: str) -> DatasetModule:
    return cast(DatasetModule, importlib.import_module(module))


class OutsideCorpus:
    """A corpus that does not come with SAMO, seen as one of its modules; see :class:`DatasetModule`."""

    DOWNLOADS: tuple[RemoteFile, ...] = ()

    def __init__(self, plugin: Plugin) -> None:
        """Import it.

        Raises:
            SettingsError: see :meth:`samo.plugins.Plugin.load`; or it lacks something a corpus must have.
        """
        given: Any = plugin.load()
        lacking = [name for name in _OF_A_CORPUS if not hasattr(given, name)]
        if lacking or not callable(given.index):
            raise SettingsError(
                f"{plugin} is no corpus: it has no {', '.join(lacking) or 'index that can be called'}",
                hint=f"a corpus has {', '.join(_OF_A_CORPUS[:-1])} and index(root, settings), which gives a Manifest",
            )
        self._given, self._plugin = given, plugin
        self.NAME = plugin.name
        self.TITLE, self.LICENSE, self.CITATION = str(given.TITLE), str(given.LICENSE), str(given.CITATION)
        self.SYNTHETIC = bool(given.SYNTHETIC)
        self.HOMEPAGE = str(getattr(given, "HOMEPAGE", ""))
        self.FOLDS: tuple[frozenset[str], ...] = tuple(getattr(given, "FOLDS", ()))

    def index(self, root: Path, settings: Any) -> Manifest:
        """List the corpus that lies at ``root``.

        Raises:
            DataError: it fails, what comes back is no manifest, or its name no file name.
        """
        from samo.data.manifest import Manifest

        with self._plugin.blamed(DataError, "index"):
            manifest = self._given.index(root, settings)
        if not isinstance(manifest, Manifest):
            raise DataError(f"{self._plugin}: index gives {type(manifest).__name__}, not a samo.data.manifest.Manifest")
        if not _FILE_NAME.fullmatch(manifest.dataset):
            raise DataError(
                f"{self._plugin}: its manifest is called '{manifest.dataset}', which files are named by",
                hint="use letters, digits and . _ + = - only",
            )
        return manifest


def downloaded_root(name: str) -> Path:
    """Where :func:`download` puts a corpus; it exists only when the corpus is whole."""
    return cache_root() / "datasets" / name


def download(datasets: Registry[DatasetModule], name: str, *, on_progress: StageProgress | None = None) -> Path:
    """Fetch a corpus into SAMO's cache and check it, unpack an archive; at once when it is there already.

    Args:
        datasets: the registry.
        name: a corpus that lists ``DOWNLOADS``: one zip archive, or files that lie side by side.
        on_progress: called with ``"downloading"`` or ``"unpacking"``, bytes done, and bytes in total.

    Returns:
        The folder to index.

    Raises:
        SettingsError: the corpus is unknown or has nothing to download.
        EnvironmentProblem: no connection.
        DataError: a file is not the published one.
        DiskFull: no space is left.
    """
    require_known(datasets, name)
    corpus = datasets[name]
    if not corpus.DOWNLOADS:
        offered = [other for other in datasets.own if datasets[other].DOWNLOADS]
        raise SettingsError(f"corpus '{name}' has nothing to download", hint=f"can be downloaded: {', '.join(offered)}")
    folder = downloaded_root(name)
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    report = on_progress or _no_progress
    with alone(folder):
        if not folder.is_dir() or not any(folder.iterdir()):
            _fetch_corpus(corpus, folder, report)
    return folder


def _fetch_corpus(corpus: DatasetModule, folder: Path, report: StageProgress) -> None:
    if corpus.DOWNLOADS[0].name.endswith(".zip"):
        _fetch_archive(corpus.DOWNLOADS, folder, report)
    else:
        _fetch_files(corpus.DOWNLOADS, folder, report)


def require_known(datasets: Registry[DatasetModule], name: str) -> None:
    """Refuse a name that is not in the registry.

    Raises:
        SettingsError: names the nearest and all valid ones.
    """
    if name not in datasets:
        raise datasets.unknown(name)


def existing_root(given: str, source: str) -> Path:
    """The absolute path of a folder or file that ``source`` (a setting or variable) names.

    Raises:
        DataError: there is none.
    """
    root = Path(given).expanduser().absolute()
    if not root.exists():
        raise DataError(f"{source} points at {root}, which does not exist", hint="check the spelling of the path")
    if root.is_fifo() or root.is_socket():
        raise DataError(f"{source} points at {root}, which is a pipe", hint="save what comes out of it as a file")
    return root


def require_root(settings: Mapping[str, Any]) -> None:
    """Refuse a ``data_root`` among settings, by name, that does not exist, as :func:`existing_root` does.

    It imports nothing that costs time, so a command can ask first. The demo corpus is made again where it is gone.

    Raises:
        DataError: there is none.
    """
    if settings.get("data_root") and settings.get("dataset") != "demo":
        existing_root(settings["data_root"], "`data_root`")


def require_places(settings: Mapping[str, Any]) -> None:
    """Refuse places among settings, by name, that do not exist: of data, start weights and pretrained models.

    As quick as :func:`require_root`.

    Raises:
        DataError: there is no such ``data_root``, ``noise_root`` or ``extra_table``.
        ModelFileError: there is no such file of weights or folder of a pretrained model.
    """
    require_root(settings)
    if (weights := settings.get("weights")) and not Path(weights).is_file():
        raise ModelFileError(f"there is no weights file at {weights}", hint="check the spelling of the path")
    for setting in ("encoder", "masked_lm"):
        if settings.get(setting):
            require_folder(settings[setting], setting)
    for place in filter(None, map(str.strip, str(settings.get("back_translation_models") or "").split(","))):
        require_folder(place, "back_translation_models")
    if settings.get("noise") and (root := settings.get("noise_root")) and not Path(root).is_dir():
        raise DataError(f"`noise_root={root}`: there is no such folder", hint="check the spelling of the path")
    if (table := settings.get("extra_table")) and not Path(table).expanduser().is_file():
        raise DataError(f"`extra_table={table}`: there is no such table", hint="check the spelling of the path")


def require_folder(place: str, setting: str) -> None:
    """Refuse what can only be a folder, by how it is spelled, and is none; a name on the Hugging Face hub passes.

    Raises:
        ModelFileError: names the setting.
    """
    if looks_like_path(place) and not Path(place).expanduser().is_dir():
        raise ModelFileError(f"`{setting}={place}`: there is no such folder", hint="check the spelling of the path")


def looks_like_path(place: str) -> bool:
    """Whether a pretrained model can only be a folder, by how it is spelled, and no name on the Hugging Face hub."""
    return Path(place).expanduser().is_absolute() or place.startswith((".", "~")) or place.count("/") > 1


def licence_for_others(licence: str) -> str:
    """A corpus's licence as whoever is given the model reads it: the clips of its author are not theirs.

    >>> licence_for_others("that of your clips"), licence_for_others("CC BY 4.0")
    ('that of its clips', 'CC BY 4.0')
    """
    return re.sub(r"^that of your\b", "that of its", licence)


def megabytes(corpus: DatasetModule) -> int:
    """Size of the downloads in MB of 2**20 bytes, as a record's page shows it."""
    return round(sum(file.size for file in corpus.DOWNLOADS) / 2**20)


def _fetch_archive(files: tuple[RemoteFile, ...], folder: Path, report: StageProgress) -> None:
    from samo.data.unzip import unpack_zip

    (archive,) = files
    packed = _fetch(archive, folder.parent, lambda done, total: report("downloading", done, total))
    unpack_zip(packed, folder, on_progress=lambda done, total: report("unpacking", done, total))
    # What it held is there; the archive would only double the space.
    packed.unlink()


def _fetch_files(files: tuple[RemoteFile, ...], folder: Path, report: StageProgress) -> None:
    from samo.errors import reporting_full_disk

    # Files already there are checked and kept, so that a broken download goes on where it ended.
    partial = folder.with_name(folder.name + ".partial")
    total, before = sum(file.size for file in files), 0
    for file in files:
        start = before
        _fetch(file, partial, lambda done, _, start=start: report("downloading", start + done, total))  # type: ignore[misc]
        before += file.size
    with reporting_full_disk(folder):
        partial.replace(folder)


def _fetch(file: RemoteFile, folder: Path, on_progress: Callable[[int, int], None]) -> Path:
    from samo.data.download import download as fetch

    return fetch(
        file.urls,
        folder / file.name,
        size=file.size,
        md5=file.md5,
        sha256=file.sha256,
        on_progress=on_progress,
        hint="point `data_root` at a copy you have",
    )


def _no_progress(stage: str, done: int, total: int) -> None:
    """Say nothing."""
