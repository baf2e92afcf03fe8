"""A folder behind an fsspec URL: what machines without a common file system share.

Files appear in it whole or not at all: each is sent under a name of its own and renamed. A run at a store is worked on
in a folder of the machine's own, copied there first and back after each epoch, oldest file first, as a kill may fall
between any two; one attempt at a time holds it by a lease.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from samo_core.errors import EnvironmentProblem, RunError, SamoError, SettingsError, nearest
from samo_core.experiments.run import Run
from samo_core.files import reporting_full_disk

__all__ = ["Lease", "RunCopy", "Store", "borrowed", "bring_home"]

LEASE = ".lease"
# How often the holder of a lease says that it lives, and after how long without a word it is taken for dead; seconds.
BEAT_S, DEAD_S = 5.0, 30.0
# What a writer waits before it believes that nobody wrote the same lease in the same moment.
SETTLE_S = 1.0
# An attempt that lives is waited for so long.
PATIENCE_S = 180.0


class Store:
    """A folder at a URL.

    Every method raises EnvironmentProblem when the place does not answer or refuses.
    """

    def __init__(self, url: str) -> None:
        """Open ``url``; nothing is written.

        Raises:
            SettingsError: not a URL that fsspec knows.
            EnvironmentProblem: the package for it is not installed, or the place does not answer.
        """
        import fsspec

        protocol, mark, _ = url.partition("://")
        if not mark:
            raise SettingsError(f"'{url}' is no URL", hint="write PROTOCOL://PLACE, such as s3://bucket/folder")
        known = fsspec.available_protocols()
        if protocol.split("::")[0] not in known:
            raise SettingsError(
                f"'{url}': unknown protocol '{protocol}'",
                hint=nearest(protocol, known) + "such as s3, gs, abfs, sftp, hdfs, file",
            )
        self.url = url.rstrip("/")
        self._made: set[str] = set()
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise EnvironmentProblem(f"'{url}': {error}") from error
        except Exception as error:  # each file system has errors of its own
            raise _unreachable(url, error) from error

    def below(self, name: str) -> Store:
        """The folder ``name`` in this one."""
        return Store(f"{self.url}/{name}")

    def names(self) -> list[str]:
        """The files at any depth, by their path below the folder; none when there is no such folder."""
        with self._answering():
            self._files.invalidate_cache()
            found = self._files.find(self._root)
        start = f"{str(self._root).rstrip('/')}/"
        names = [str(path)[len(start) :] for path in found if str(path).startswith(start)]
        return sorted(name for name in names if ".." not in PurePosixPath(name).parts)

    def read(self, name: str) -> bytes | None:
        """What a file holds; None when there is none."""
        with self._answering():
            self._files.invalidate_cache()
            try:
                content: bytes = self._files.cat_file(self._path(name))
                return content
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Make or replace a file."""
        with tempfile.NamedTemporaryFile() as local:
            local.write(content)
            local.flush()
            self.send(Path(local.name), name)

    def send(self, local: Path, name: str) -> None:
        """Copy a file there."""
        target = self._path(name)
        folder, _, base = target.rpartition("/")
        part = f"{folder}/.{base}.{uuid4().hex[:8]}.part"
        with self._answering():
            if folder not in self._made:
                self._files.makedirs(folder, exist_ok=True)
                self._made.add(folder)
            self._files.put_file(str(local), part)
            try:
                self._files.mv(part, target)
            except Exception:
                self._files.rm_file(part)
                raise

    def fetch(self, name: str, local: Path) -> None:
        """Copy a file here."""
        with self._answering(), reporting_full_disk(local):
            local.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(self._path(name), str(local))

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there stays so."""
        with self._answering(), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{str(self._root).rstrip('/')}/{name}"

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except SamoError:
            raise
        except Exception as error:  # each file system has errors of its own
            raise _unreachable(self.url, error) from error


class RunCopy:
    """A run's folder here and its copy at a store."""

    def __init__(self, store: Store, run: Run) -> None:
        self.store, self.run = store, run
        self._sent: dict[str, tuple[int, int]] = {}

    def bring(self) -> None:
        """Make the folder here, which must be empty, equal to the copy."""
        for name in visible(self.store.names()):
            self.store.fetch(name, self.run.path(name))
        self._sent = self._here()

    def send(self) -> None:
        """Make the copy equal to the folder: what is new, in the order it was written, then what is gone."""
        here = self._here()
        for name in sorted(here, key=lambda name: here[name]):
            if self._sent.get(name) != here[name]:
                self.store.send(self.run.path(name), name)
                self._sent[name] = here[name]
        for name in self._sent.keys() - here.keys():
            self.store.remove(name)
            del self._sent[name]

    def _here(self) -> dict[str, tuple[int, int]]:
        """When each file was written, in nanoseconds, and its size."""
        folder = self.run.folder
        paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        return {name: (paths[name].stat().st_mtime_ns, paths[name].stat().st_size) for name in visible(paths)}


def visible(names: Any) -> list[str]:
    """Without locks, leases and halves of files, whose names begin with a dot."""
    return [name for name in names if not any(part.startswith(".") for part in PurePosixPath(name).parts)]


class Lease:
    """The right to write a run at a store, for as long as the block lasts.

    A holder that says nothing for half a minute is taken for dead, judged by this machine's clock alone. fsspec
    promises no more than that the last writer wins: a writer waits a moment and looks whether it was the last, and
    looks again before it sends.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._token = uuid4().hex
        self._over = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Lease:
        """Wait for the run, then hold it.

        Raises:
            RunError: another attempt lives on.
        """
        until = time.monotonic() + PATIENCE_S
        while True:
            self._wait_for_silence(until)
            self._say(0)
            time.sleep(SETTLE_S)
            if self._is_mine():
                self._beats.start()
                return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._beats.join()
        if self._is_mine():
            self._store.remove(LEASE)

    def check(self) -> None:
        """See whether the run is still this attempt's.

        Raises:
            RunError: it was taken for dead and another attempt goes on.
        """
        if not self._is_mine():
            raise RunError(f"another attempt went on with {self._store.url}: this one was silent for too long")

    def _wait_for_silence(self, until: float) -> None:
        heard, since = None, time.monotonic()
        while (told := self._store.read(LEASE)) is not None:
            now = time.monotonic()
            if told != heard:
                heard, since = told, now
            elif now - since > DEAD_S:
                return
            if now > until:
                raise RunError(
                    f"another attempt still works on {self._store.url}", hint="the same command tries it again"
                )
            time.sleep(min(1.0, DEAD_S / 10))

    def _say(self, count: int) -> None:
        self._store.write(LEASE, f"{self._token} {count}".encode())

    def _is_mine(self) -> bool:
        return (self._store.read(LEASE) or b"").startswith(self._token.encode())

    def _beat(self) -> None:
        # A connection of its own: not every file system's can be shared between threads.
        lease = Lease(Store(self._store.url))
        lease._token, count = self._token, 0
        while not self._over.wait(BEAT_S):
            count += 1
            try:
                if not lease._is_mine():
                    return
                lease._say(count)
            except EnvironmentProblem as problem:
                print(f"warning: {problem.message}", flush=True)


@contextmanager
def borrowed(store: Store, name: str) -> Iterator[tuple[Run, Any]]:
    """Hold a run of a store and work on it in a folder of this machine; yields the run and what sends it back.

    Whatever way the block ends, everything is sent. A store that does not answer in between costs that copy only.

    Raises:
        EnvironmentProblem: the store does not answer at the beginning or at the end.
        RunError: another attempt holds the run, or took it.
    """
    with Lease(store) as lease, tempfile.TemporaryDirectory(prefix="samo-") as place:
        copy = RunCopy(store, Run(Path(place) / "runs" / name))
        copy.bring()

        def send() -> None:
            try:
                lease.check()
                copy.send()
            except EnvironmentProblem as problem:
                print(f"warning: not copied: {problem.message}", flush=True)

        try:
            yield copy.run, send
        finally:
            lease.check()
            copy.send()


def bring_home(store: Store, run: Run) -> None:
    """Copy a finished run of a store to its folder here, in one step."""
    place = run.folder.with_name(f".{run.name}.{uuid4().hex[:8]}")
    try:
        RunCopy(store, Run(place)).bring()
        if run.folder.exists():
            shutil.rmtree(run.folder)
        place.rename(run.folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _unreachable(url: str, error: Exception) -> EnvironmentProblem:
    reason = next(iter(str(error).splitlines()), "")
    return EnvironmentProblem(f"{url} does not answer, or refuses: {type(error).__name__}: {reason}")
