"""Finding clips below a folder, in an order that is the same on every machine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from samo.errors import DataError

__all__ = ["clips_below", "ids_without_suffix", "require_folder"]


def require_folder(root: Path, dataset: str) -> None:
    """Refuse a root that is missing, not a folder or without a single entry.

    Raises:
        DataError: says which of these it is.
    """
    if not root.exists():
        raise DataError(f"there is no folder {root}", hint="check `data_root`")
    if not root.is_dir():
        raise DataError(
            f"`dataset={dataset}` needs a folder, but {root} is a file", hint="a CSV file is read with `dataset=table`"
        )
    if not any(root.iterdir()):
        raise DataError(f"the folder {root} is empty", hint="check `data_root`")


def clips_below(root: Path, wanted: Callable[[Path], bool]) -> list[str]:
    """Relative posix paths of the files below ``root`` that are wanted, sorted.

    Links to folders are followed once, since corpora on clusters are often linked together. Whatever starts with
    a dot is left out (``.git``, AppleDouble ``._`` twins), as is ``__MACOSX``. A link to a missing file is listed, so
    that whoever opens it says so.
    """
    found: list[str] = []
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        # Sorted, so that of two links to one folder every machine takes the same.
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and wanted(path):
                found.append(path.relative_to(root).as_posix())
    return sorted(found)


def ids_without_suffix(paths: Sequence[str]) -> list[str]:
    """Ids for distinct paths: the path without its suffix, or with it where two would be the same."""
    stems = [path[: len(path) - len(Path(path).suffix)] for path in paths]
    count = Counter(stems)
    return [path if count[stem] > 1 else stem for path, stem in zip(paths, stems, strict=True)]
