"""The lock of a run's folder, held by the process that writes there; it falls with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from samo.errors import RunError, reporting_full_disk

__all__ = ["LOCK_FILE", "is_locked", "keep_lock", "kept_lock", "lock_folder"]

LOCK_FILE = ".lock"

# Locks that were taken for a training of this process, by folder, until the training takes them over.
_kept: dict[str, IO[str]] = {}


def lock_folder(folder: Path) -> IO[str]:
    """Lock a run's folder, which is made where it is missing, until what is returned is closed.

    Raises:
        RunError: another process holds it.
    """
    with reporting_full_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        with lock:
            raise RunError(
                f"run '{folder.name}' is being written by process {lock.read().strip() or 'unknown'}",
                hint="wait for it, or choose another `name`",
            ) from error
    except OSError:
        pass  # a disk without locks, as some cloud drives are: one process is the rule
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def is_locked(folder: Path) -> bool:
    """Whether a process holds a run's folder."""
    try:
        lock = (folder / LOCK_FILE).open()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False


def keep_lock(folder: Path, lock: IO[str]) -> None:
    """Hold a lock until a training of this process takes it over with :func:`kept_lock`."""
    _kept[os.path.abspath(folder)] = lock


def kept_lock(folder: Path) -> IO[str] | None:
    """The lock that is kept of a folder, which from here on is the caller's to close; None where there is none."""
    return _kept.pop(os.path.abspath(folder), None)
