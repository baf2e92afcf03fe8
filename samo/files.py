"""Writing files so that a kill, a crash or a full disk never leaves half of one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from samo.errors import reporting_full_disk

__all__ = ["alone", "cache_root", "leftovers", "own_folder", "replacing", "write_json", "write_text"]


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; on success sync it and rename it over ``target``.

    Raises:
        DiskFull: no space is left; ``target`` keeps what it held before.
    """
    with reporting_full_disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            # mkstemp is private to the owner; a report is for everyone the folder is for.
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Let one process at a time make ``target``; the others wait. Nothing else of it is locked."""
    target.parent.mkdir(parents=True, exist_ok=True)
    name = target.parent / f".{target.name}.lock"
    with name.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Who waits for the removed file makes the target once more at worst.
            name.unlink(missing_ok=True)


@contextmanager
def own_folder(kind: str) -> Iterator[Path]:
    """A temporary folder, removed at the end; those that killed processes left are removed at the beginning."""
    for other in Path(tempfile.gettempdir()).glob(f"samo-{kind}-*"):
        with suppress(OSError), (other / ".held").open() as held:
            # A folder this young may not be locked yet.
            if time.time() - other.stat().st_mtime > 60:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=f"samo-{kind}-"))
    try:
        with (place / ".held").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def leftovers(folder: Path, names: Iterable[str]) -> set[Path]:
    """The temporary files that a kill left of :func:`replacing` files of these names.

    Those of a writer still at work look the same: ask only where no one else writes.
    """
    return {path for name in names for path in folder.glob(f".{name}.{'?' * 8}{Path(name).suffix}")}


def write_text(target: Path, text: str) -> None:
    """Write ``text`` to ``target`` in one step.

    Bytes of a file name that are not UTF-8 come from the system as lone surrogates; they are written as ``\\udcXX``,
    which JSON reads back as they were.
    """
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(target: Path, data: Any) -> None:
    """Write ``data`` as indented JSON to ``target`` in one step; NaN is refused."""
    write_text(target, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def cache_root() -> Path:
    """Where decoded audio and downloads are kept: ``$SAMO_CACHE`` or the user's cache folder."""
    if given := os.environ.get("SAMO_CACHE"):
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("samo", appauthor=False))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
