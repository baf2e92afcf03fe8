"""Runs behind an fsspec URL: what machines without a common file system share.

File systems differ in what a rename or an overwrite means, so neither is needed. A file is written once, under a name
of its own, and never replaced; what belongs together is said by an index, written after everything it names. Whoever
goes on with a run takes the index that is furthest. A writer removes nothing but its own files, so that one that was
taken for dead and comes back does no harm: at worst the same cell was trained twice.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from uuid import uuid4

from samo.errors import EnvironmentProblem, SettingsError, nearest
from samo.files import own_folder, parse_json
from samo.runs.run import Run

__all__ = ["RunCopy", "Snapshot", "Store", "fetch_run", "progress_of", "snapshots", "working_copy"]

# The pauses before a place that did not answer is tried again, in seconds.
PAUSES_S = (2.0, 8.0, 30.0)
INDEX = "index"

T = TypeVar("T")


class Store:
    """A folder at a URL. Every method raises EnvironmentProblem when the place does not answer or refuses."""

    def __init__(self, url: str, *, patient: bool = False) -> None:
        """Open ``url``; nothing is written.

        Args:
            url: ``PROTOCOL://PLACE``, no password in it, as it is written to logs.
            patient: ask again, with a new connection, when the place does not answer.

        Raises:
            SettingsError: not a URL that fsspec knows, or one that other machines would read differently.
            EnvironmentProblem: the package for it is not installed, or the place does not answer.
        """
        self.url = url.rstrip("/")
        self._pauses = PAUSES_S if patient else ()
        _refuse_odd(url)
        self._connect()

    def entries(self, folder: str) -> list[str]:
        """The names directly in a folder; none when there is no such folder."""

        def listed() -> list[str]:
            self._files.invalidate_cache()
            try:
                return [str(path).rstrip("/") for path in self._files.ls(self._path(folder), detail=False)]
            except FileNotFoundError:
                return []

        return sorted(path.rpartition("/")[2] for path in self._patiently(listed))

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when there is none."""

        def content() -> bytes | None:
            try:
                found: bytes = self._files.cat_file(self._path(name))
                return found
            except FileNotFoundError:
                return None

        return self._patiently(content)

    def put(self, source: Path | bytes, name: str) -> None:
        """Write a file or bytes under a name that nobody else writes."""
        target = self._path(name)

        def written() -> None:
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            if isinstance(source, bytes):
                self._files.pipe_file(target, source)
            else:
                self._files.put_file(str(source), target)

        self._patiently(written)

    def fetch(self, name: str, local: Path) -> bool:
        """Copy a file to an existing folder here; False when there is none."""

        def fetched() -> bool:
            try:
                self._files.get_file(self._path(name), str(local))
                return True
            except FileNotFoundError:
                return False

        return self._patiently(fetched)

    def remove(self, name: str) -> None:
        """Remove a file, best effort: what stays is never read."""
        with suppress(Exception):
            self._files.rm_file(self._path(name))

    def remove_others(self, kept: set[str]) -> None:
        """Remove every file but these, best effort."""
        with suppress(Exception):
            start = f"{self._root}/"
            for path in map(str, self._files.find(self._root)):
                if path.startswith(start) and path[len(start) :] not in kept:
                    self.remove(path[len(start) :])

    def below(self, name: str) -> Store:
        """The folder ``name`` in this one, over the same connection."""
        folder = copy(self)
        folder.url, folder._root = f"{self.url}/{name}", self._path(name)
        return folder

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _connect(self) -> None:
        import fsspec

        try:
            # A connection of its own: one that broke must not be handed out again.
            self._files, root = fsspec.core.url_to_fs(self.url, skip_instance_cache=True)
        except ImportError as error:
            raise EnvironmentProblem(f"'{self.url}': {error}") from error
        except Exception as error:  # each file system has errors of its own
            raise self._silent(error) from error
        self._root = str(root).rstrip("/")

    def _patiently(self, act: Callable[[], T]) -> T:
        for pause in (*self._pauses, None):
            try:
                return act()
            except Exception as error:  # each file system has errors of its own
                if pause is None or isinstance(error, PermissionError):
                    raise self._silent(error) from error
                time.sleep(pause)
                with suppress(EnvironmentProblem):
                    self._connect()
        raise AssertionError("the last attempt returns or raises")

    def _silent(self, error: Exception) -> EnvironmentProblem:
        reason = next(iter(str(error).splitlines()), "")
        return EnvironmentProblem(f"{self.url} does not answer, or refuses: {type(error).__name__}: {reason}")


@dataclass(frozen=True)
class Snapshot:
    """A run at a store, whole, as it was at one moment.

    Attributes:
        index: the file that says so.
        files: where each file of the run lies, and its size in bytes.
        progress: see :func:`progress_of`.
        facts: what the writer knew of the run.
    """

    index: str
    files: Mapping[str, tuple[str, int]]
    progress: tuple[int, int, int]
    facts: Mapping[str, Any]

    @property
    def is_finished(self) -> bool:
        """Trained and evaluated."""
        return bool(self.progress[0])


def progress_of(run: Run, report: str) -> tuple[int, int, int]:
    """Evaluated, trained, epochs: of two copies of one training the greater is further."""
    trained = run.path("trained.json").is_file()
    return int(trained and run.path(report).is_file()), int(trained), len(run.history)


def snapshots(store: Store) -> list[Snapshot]:
    """The copies of a run, the furthest first."""
    found = []
    for name in store.entries(INDEX):
        try:
            index = parse_json(store.read(f"{INDEX}/{name}") or b"")
            files = {str(file): (str(place), int(size)) for file, (place, size) in index["files"].items()}
            evaluated, trained, epochs = (int(number) for number in index["progress"])
            found.append(Snapshot(name, files, (evaluated, trained, epochs), dict(index["facts"])))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # half written by a machine that was lost
    return sorted(found, key=lambda snapshot: (snapshot.progress, snapshot.index), reverse=True)


class RunCopy:
    """A run's folder here and its copies at a store."""

    def __init__(self, store: Store, run: Run, report: str, facts: Mapping[str, Any]) -> None:
        """Begin a copy.

        Args:
            store: the folder of this run at the store.
            run: its folder here.
            report: the report that ends it.
            facts: plain JSON that goes with every copy.
        """
        self.store, self.run, self.report, self.facts = store, run, report, facts
        self._writer, self._number = uuid4().hex[:12], 0
        self._kept: dict[str, tuple[tuple[int, int], str]] = {}

    def bring(self) -> None:
        """Fill the folder here, which must be empty, from the furthest whole copy; without one it stays empty."""
        # While it is read, a writer that lives may go on and remove what it had sent before: then look again.
        for _ in range(3):
            for snapshot in (known := snapshots(self.store)):
                if _fetch(self.store, snapshot, self.run.folder):
                    return
            if not known:
                return
        shutil.rmtree(self.run.folder)
        print(f"warning: no copy at {self.store.url} is whole; begun anew", file=sys.stderr, flush=True)

    def send(self) -> None:
        """Write what is new, then the index, then remove what only the index before named."""
        self._number += 1
        before, self._kept = self._kept, {}
        for name, stamp in self._here().items():
            known = before.get(name)
            place = known[1] if known and known[0] == stamp else f"{self._writer}/{self._number:06d}/{name}"
            if not known or place != known[1]:
                self.store.put(self.run.path(name), place)
            self._kept[name] = (stamp, place)
        files = {name: (place, stamp[1]) for name, (stamp, place) in self._kept.items()}
        index = {"files": files, "progress": progress_of(self.run, self.report), "facts": self.facts}
        self.store.put(json.dumps(index).encode(), f"{INDEX}/{self._writer}.{self._number:06d}.json")
        self.store.remove(f"{INDEX}/{self._writer}.{self._number - 1:06d}.json")
        for _, place in set(before.values()) - set(self._kept.values()):
            self.store.remove(place)

    def _here(self) -> dict[str, tuple[int, int]]:
        """When each file was written, in nanoseconds, and its size; without locks and halves of files."""
        folder = self.run.folder
        found: dict[str, tuple[int, int]] = {}
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in name.parts):
                found[name.as_posix()] = (path.stat().st_mtime_ns, path.stat().st_size)
        return found


@contextmanager
def working_copy(
    store: Store, name: str, report: str, facts: Mapping[str, Any]
) -> Iterator[tuple[Run, Callable[[], None]]]:
    """Go on with a run of a store in a folder of this machine; yields the run and what sends a copy back.

    A copy is sent however the block ends. One that fails in between costs nothing but itself; if the last one fails,
    the folder is kept and named, in the error or, where the block failed anyway, in the log.

    Raises:
        EnvironmentProblem: the store does not answer at the beginning or at the end.
    """
    with own_folder("run") as place:
        kept = RunCopy(store, Run(place / "runs" / name), report, facts)
        kept.bring()

        def send() -> None:
            try:
                kept.send()
            except EnvironmentProblem as problem:
                print(f"warning: not copied: {problem.message}", file=sys.stderr, flush=True)

        def send_last() -> None:
            try:
                kept.send()
            except EnvironmentProblem as problem:
                rescued = Path(tempfile.mkdtemp(prefix="samo-kept-")) / name
                shutil.move(kept.run.folder, rescued)
                raise EnvironmentProblem(f"{problem.message}; the run was kept in {rescued}") from problem

        try:
            yield kept.run, send
        except BaseException:
            # What ended the block is the news; that the store is silent too goes to the log.
            try:
                send_last()
            except EnvironmentProblem as problem:
                print(f"warning: not copied: {problem.message}", file=sys.stderr, flush=True)
            raise
        send_last()


def fetch_run(store: Store, run: Run) -> None:
    """Let a finished run at a store take the place of what is in its folder here, once it is here whole.

    Then everything else that attempts left there is removed.

    Raises:
        EnvironmentProblem: the store does not answer, or holds no finished copy.
        RunError: a process works in the folder here.
    """
    finished = [snapshot for snapshot in snapshots(store) if snapshot.is_finished]
    runs = run.folder.parent
    for left in runs.glob(f".{run.name}.*.home"):
        shutil.rmtree(left, ignore_errors=True)
    new, old = (runs / f".{run.name}.{uuid4().hex[:8]}.home" for _ in range(2))
    try:
        taken = next((snapshot for snapshot in finished if _fetch(store, snapshot, new)), None)
        if taken is None:
            raise EnvironmentProblem(
                f"{store.url}, seen from here, holds no whole finished copy",
                hint="is the URL the same place on all machines?",
            )
        if run.folder.exists():
            with run.locked():
                run.folder.rename(old)
                new.rename(run.folder)
        else:
            new.rename(run.folder)
        store.remove_others({f"{INDEX}/{taken.index}", *(place for place, _ in taken.files.values())})
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def _fetch(store: Store, snapshot: Snapshot, folder: Path) -> bool:
    """Copy the files of a copy to a folder here; False when some are gone or not whole."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, (place, size) in snapshot.files.items():
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            return False
        local = folder / name
        local.parent.mkdir(parents=True, exist_ok=True)
        if not store.fetch(place, local) or local.stat().st_size != size:
            return False
    return True


def _refuse_odd(url: str) -> None:
    """Refuse what is no URL, or means another place to another process."""
    import fsspec

    protocol, mark, place = url.partition("://")
    example = "such as s3://bucket/folder"
    if not mark or not place.strip("/") or "::" in url:
        raise SettingsError(f"'{url}' is no URL of a folder", hint=f"write PROTOCOL://PLACE, {example}")
    known = fsspec.available_protocols()
    if protocol not in known:
        raise SettingsError(f"'{url}': unknown protocol '{protocol}'", hint=nearest(protocol, known) + example)
    if re.match(r"[^/@]*:[^/@]*@", place):
        raise SettingsError(
            f"a password in the URL of {protocol}://{place.rpartition('@')[2]} would be written to logs",
            hint="give it in fsspec's configuration, ~/.config/fsspec, on every machine",
        )
    if protocol in ("file", "local") and not place.startswith("/"):
        raise SettingsError(f"'{url}' is relative; machines read it differently", hint="write file:///FOLDER")
