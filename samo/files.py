"""Writing files so that a kill, a crash or a full disk never leaves half of one."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from samo.errors import EnvironmentProblem, reporting_full_disk

__all__ = [
    "alone",
    "cache_root",
    "caching",
    "folder_beside",
    "leftovers",
    "own_folder",
    "parse_json",
    "remove_left_folders",
    "replacing",
    "write_json",
    "write_text",
]


# Whoever goes through a value recursively gets to its end.
_DEEPEST = 50


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


# A folder this young may not be locked yet.
_YOUNG_S = 60.0


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """A new folder on the disk of ``target``, to be renamed to it once it is whole; removed at the end if it was not.

    Its name and lock are what :func:`remove_left_folders` knows it by when this process is killed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    with ExitStack() as held:
        # Some network disks lock no folders: there, nobody can lock this one to remove it either.
        with suppress(OSError):
            held.enter_context(_locked(place))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def remove_left_folders(target: Path, names: str = "") -> None:
    """Remove what processes killed over a minute ago left of :func:`folder_beside`: their locks went with them.

    Args:
        target: what was made.
        names: pattern of the names of all that is made in its folder; that of ``target`` by default.
    """
    for left in target.parent.glob(f".{names or target.name}.*"):
        with suppress(OSError), _locked(left):
            if time.time() - left.stat().st_mtime > _YOUNG_S:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock.

    Raises:
        OSError: another process has it, or the disk knows none.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextmanager
def caching(target: Path) -> Iterator[Path]:
    """As :func:`replacing`, for a file of SAMO's cache.

    Raises:
        DiskFull: no space is left.
        EnvironmentProblem: the cache cannot be written.
    """
    try:
        with replacing(target) as temporary:
            yield temporary
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Path, error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"cannot write the cache in {target.parent}: {error.strerror or error}",
        hint="set SAMO_CACHE to a folder you may write to",
    )


@contextmanager
def own_folder(kind: str) -> Iterator[Path]:
    """A temporary folder, removed at the end; those that killed processes left are removed at the beginning."""
    for other in Path(tempfile.gettempdir()).glob(f"samo-{kind}-*"):
        with suppress(OSError), (other / ".held").open() as held:
            if time.time() - other.stat().st_mtime > _YOUNG_S:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=f"samo-{kind}-"))
    try:
        with (place / ".held").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Let one process at a time make ``target``; others wait here, and then find what the first made.

    The lock is a file beside it, which is gone afterwards and falls with the process, however it ends.

    Raises:
        DiskFull: no space is left.
        EnvironmentProblem: the folder cannot be written.
    """
    path = target.with_name(f".{target.name}.lock")
    try:
        with reporting_full_disk(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        while (lock := _lock_of(path, target)) is None:
            pass
    except OSError as error:
        raise _unwritable(target, error) from error
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock_of(path: Path, target: Path) -> IO[str] | None:
    """The lock, held; None where whoever held it before removed the file, so that the next one finds another."""
    with reporting_full_disk(target):
        lock = path.open("a")
    try:
        _wait_for(lock, target)
        if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            return lock
    except FileNotFoundError:
        pass
    except BaseException:
        lock.close()
        raise
    lock.close()
    return None


def _wait_for(lock: IO[str], target: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logging.getLogger(__name__).warning("another process is making %s; waiting for it", target)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        pass  # a disk without locks: one process is the rule


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


def parse_json(text: str | bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """The value of a JSON text; ``parse_constant`` makes the values of ``NaN`` and infinities, floats by default.

    Raises:
        ValueError: it is none, or nested so deeply that no program of ours wrote it.
    """
    try:
        value = json.loads(text, parse_constant=parse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    opened = text.count(b"[") + text.count(b"{") if isinstance(text, bytes) else text.count("[") + text.count("{")
    if opened > _DEEPEST and not _is_flat(value, _DEEPEST):
        raise ValueError("nested too deeply")
    return value


def _is_flat(value: object, levels: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_flat(each, levels - 1) for each in inside)


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
