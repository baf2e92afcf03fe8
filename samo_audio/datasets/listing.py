"""Finding clips below a folder, in an order that is the same on every machine: for training, inspection, prediction."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from samo.errors import DataError, first_ten
from samo_audio.problems import FORMAT_HINT

__all__ = ["clip_names", "clips_below", "files_below", "find_clips", "ids_without_suffix", "left_out", "require_folder"]


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
    """Relative posix paths of the files below ``root`` that are wanted, sorted; see :func:`files_below`.

    Raises:
        DataError: a folder cannot be read.
    """
    found, unreadable = files_below(root, wanted)
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of the folders below {root} cannot be read: "
            + first_ten(f"{path} ({why})" for path, why in unreadable),
            hint="clips in them would be missing without a word; allow reading, or move them away",
        )
    return found


def files_below(root: Path, wanted: Callable[[Path], bool]) -> tuple[list[str], list[tuple[str, str]]]:
    """Relative posix paths of the files below ``root`` that are wanted, sorted; and folders that cannot be read, why.

    Links to folders are followed once, since corpora on clusters are often linked together. Whatever starts with
    a dot is left out (``.git``, AppleDouble ``._`` twins), as is ``__MACOSX``. A link to a missing file is listed, so
    that whoever opens it says so; a link to a missing folder counts as a folder that cannot be read.
    """
    found: list[str] = []
    unreadable: list[tuple[str, str]] = []
    seen: set[str] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(root / folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(root / folder) as entries:
                here = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            unreadable.append((folder or ".", error.strerror or str(error)))
            continue
        inside = []
        for entry in here:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                if entry.is_dir():
                    inside.append(path)
                elif wanted(Path(path)):
                    found.append(path)
                elif entry.is_symlink() and not entry.is_file() and not Path(path).suffix:
                    unreadable.append((path, "a link to what is not there"))
            except OSError as error:
                unreadable.append((path, error.strerror or str(error)))
        # Sorted, so that of two links to one folder every machine takes the same.
        waiting += reversed(inside)
    return sorted(found), sorted(unreadable)


def find_clips(given: Iterable[Path]) -> list[Path]:
    """:func:`clip_names` as paths.

    Raises:
        DataError: a path does not exist or cannot be looked at, or a folder holds no audio.
    """
    return [Path(name) for name in clip_names(given)]


def clip_names(given: Iterable[Path]) -> list[str]:
    """Files as given, folders searched for audio at any depth; strings, which take a fifth of what paths do.

    They are searched as corpora are, see :func:`files_below`. What cannot be read is
    listed all the same, so that its prediction says why.

    Raises:
        DataError: a path does not exist or cannot be looked at, or a folder holds no audio.
    """
    found: list[str] = []
    for path in given:
        try:
            found += _clips_at(path)
        except OSError as error:
            raise DataError(f"{path} cannot be looked at: {error.strerror}") from error
    return found


def _clips_at(path: Path) -> list[str]:
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"no such file or folder: {path}")
        return [str(path)]
    from samo_audio.audio_io import is_recording

    inside, unreadable = files_below(path, is_recording)
    if not unreadable and not any((path / name).exists() for name in inside):
        raise DataError(f"no audio files in {path}")
    front = str(path / "x")[:-1]
    inside += [folder for folder, _ in unreadable]
    # In the order of paths, which compare folder by folder.
    inside.sort(key=lambda name: name.replace("/", "\0"))
    return [front + name for name in inside]


def left_out(paths: Sequence[str], root: Path) -> tuple[str, ...]:
    """The note on recordings below ``root`` in formats that cannot be read, none for none."""
    if not paths:
        return ()
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(Counter(map(_suffix, paths)).items()))
    return (f"left out {kinds} below {root}, which SAMO cannot read: {first_ten(paths)} ({FORMAT_HINT})",)


def _suffix(path: str) -> str:
    return Path(path).suffix.lower()


def ids_without_suffix(paths: Sequence[str]) -> list[str]:
    """Ids for distinct paths: the path without its suffix, or with it where two would be the same."""
    stems = [path[: len(path) - len(Path(path).suffix)] for path in paths]
    count = Counter(stems)
    return [path if count[stem] > 1 else stem for path, stem in zip(paths, stems, strict=True)]
