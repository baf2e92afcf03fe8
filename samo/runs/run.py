"""A run's folder: made once, locked while in use, never overwritten silently."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from samo.data.augmented import AUGMENTATION, AUGMENTED
from samo.data.fingerprints import Fingerprints
from samo.data.manifest import Manifest
from samo.data.splits import Split, audit
from samo.errors import ModelFileError, RunError, SettingsError, first_ten, nearest, reporting_full_disk
from samo.files import leftovers, write_json, write_text
from samo.settings import Config, stored_config, with_defaults

__all__ = [
    "ASSETS",
    "ENSEMBLE_FILE",
    "FINGERPRINTS",
    "TAUGHT",
    "TEACHERS",
    "Run",
    "artifacts_root",
    "create_run",
    "find_model",
    "find_run",
    "list_runs",
]

# The fingerprints of what was trained and validated on, by which copies in other corpora are found.
FINGERPRINTS = "fingerprints.npz"

# What a training learns from besides labels: its teachers' probabilities, and the folders of those.
TAUGHT, TEACHERS = "taught.safetensors", "teachers.json"

# What is written before step 1, and what a training writes after; judging a run writes other files.
BEGINNING = (
    "manifest.jsonl",
    "split.json",
    FINGERPRINTS,
    AUGMENTED,
    AUGMENTATION,
    TAUGHT,
    TEACHERS,
    "fitted.safetensors",
    "environment.json",
    "config.json",
)
TRAINING = (
    "best_model.safetensors",
    "last.ckpt",
    "history.jsonl",
    "calibration.json",
    "thresholds.json",
    "abstention.json",
    "mlflow.json",
    "trained.json",
)

# What a model needs besides weights and settings, by the frontend of its modality; of an ensemble one folder a member.
ASSETS = "assets"
# What an ensemble says of its members; its presence makes a run an ensemble.
ENSEMBLE_FILE = "ensemble.json"
# A line for each time the test part was looked at.
OPENINGS = "openings.jsonl"

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,127}")


@dataclass(frozen=True)
class Run:
    """One training and everything judged of it, by the folder it lives in."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting by name, ``modality`` included.

        Raises:
            RunError: not a run, or damaged.
        """
        try:
            settings: dict[str, Any] = json.loads(self.path("config.json").read_text(encoding="utf-8"))
            _ = settings["modality"]
            return with_defaults(settings)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.folder} is not a run: cannot read config.json ({error})") from error

    @property
    def modality(self) -> str:
        """``audio`` or ``text``."""
        return str(self.settings["modality"])

    @property
    def flat_settings(self) -> dict[str, Any]:
        """Every setting by name, without ``modality``."""
        return {name: value for name, value in self.settings.items() if name != "modality"}

    @property
    def config(self) -> Config:
        """The settings, typed.

        Raises:
            RunError: not a run, or damaged.
            SettingsError: its settings are not those of this version.
        """
        return stored_config(self.settings)

    @property
    def root(self) -> Path:
        """The folder in whose ``runs`` this run lies: the artifacts, or those of a grid."""
        return self.folder.parent.parent

    @property
    def manifest(self) -> Manifest:
        """The items the run was trained on."""
        return Manifest.load(self.path("manifest.jsonl"))

    @property
    def split(self) -> Split:
        """Which item was in which part."""
        return Split.load(self.path("split.json"))

    @property
    def fingerprints(self) -> Fingerprints | None:
        """Those of the recordings it was trained and validated on; None where none were kept.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path(FINGERPRINTS)
        return Fingerprints.load(path) if path.exists() else None

    def audit(self, manifest: Manifest) -> list[str]:
        """Leaks of the run's split in its data, see :func:`samo.data.splits.audit`; in runs begun before fingerprints
        were kept, near copies of recordings are only reported.

        Raises:
            LeakError: the split leaks.
        """
        begun_before = not self.path(FINGERPRINTS).exists()
        return audit(replace(manifest, near_copies="report") if begun_before else manifest, self.split)

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row an epoch.

        Raises:
            RunError: the file is damaged.
        """
        rows: list[dict[str, Any]] = self._lines("history.jsonl")
        return rows

    @property
    def trained(self) -> dict[str, Any]:
        """What came of the training: epochs, the best one, its scores, when it ended.

        Raises:
            RunError: it has not come to its end, or the file is damaged.
        """
        found = self._lines("trained.json", whole=True)
        if not found or not isinstance(found[0], dict):
            raise RunError(f"the training of run '{self.name}' has not come to its end", hint=f"`resume={self.name}`")
        return dict(found[0])

    @property
    def environment(self) -> dict[str, Any]:
        """Versions and hardware the run was trained with.

        Raises:
            RunError: the file is damaged.
        """
        seen: dict[str, Any] = next(iter(self._lines("environment.json", whole=True)), {})
        return seen

    @property
    def test_openings(self) -> int:
        """How often the test part was looked at with this run; at least once where there is a report of it.

        Raises:
            RunError: the file that counts them is damaged.
        """
        return len(self._lines(OPENINGS)) or int(self.path("report.json").is_file())

    def open_test(self, what: str) -> int:
        """Count that ``what`` looks at the test part; returns the number of openings with this one.

        Raises:
            RunError: the file that counts them is damaged.
            DiskFull: no space is left.
        """
        before = self.test_openings
        lines = self._lines(OPENINGS) or [{"at": None, "by": "evaluate"}] * before
        lines.append({"at": datetime.now(UTC).isoformat(timespec="seconds"), "by": what})
        write_text(self.path(OPENINGS), "".join(json.dumps(line) + "\n" for line in lines))
        return len(lines)

    @property
    def model_file(self) -> Path:
        """The weights of the best epoch."""
        return self.path("best_model.safetensors")

    @property
    def has_model(self) -> bool:
        """Whether there is something to judge and predict with."""
        return self.model_file.is_file()

    @property
    def status(self) -> str:
        """``evaluated``, ``trained``, ``stopped``, ``running`` or ``empty``."""
        if self.is_busy():
            return "running"
        if self.path("report.json").is_file():
            return "evaluated"
        if self.path("trained.json").is_file():
            return "trained"
        return "stopped" if self.path("config.json").is_file() else "empty"

    def path(self, name: str) -> Path:
        """A file of this run."""
        return self.folder / name

    def _lines(self, name: str, *, whole: bool = False) -> list[Any]:
        """The JSON values of a file, one a line or one in all; none when there is no such file."""
        path = self.path(name)
        try:
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            return [json.loads(part) for part in ([text] if whole and text else text.splitlines())]
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for writing; the lock falls with the process, however it ends.

        Raises:
            RunError: another process holds it.
        """
        with reporting_full_disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self.path(".lock").open("a+")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                raise RunError(
                    f"run '{self.name}' is being written by process {lock.read().strip() or 'unknown'}",
                    hint="wait for it, or choose another `name`",
                ) from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def sweep(self) -> None:
        """Remove the halves of files that kills left; for the training that holds the run."""
        for path in leftovers(self.folder, (*BEGINNING, *TRAINING)):
            path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the folder of a training that was refused before it wrote anything."""
        if self.folder.is_dir() and {entry.name for entry in self.folder.iterdir()} <= {".lock"} and not self.is_busy():
            shutil.rmtree(self.folder)

    def is_busy(self) -> bool:
        """Whether a process holds the run."""
        try:
            with self.path(".lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except FileNotFoundError:
            return False
        except OSError:
            return True


def artifacts_root(given: str = "") -> Path:
    """``artifacts``, else ``$SAMO_ARTIFACTS``, else ``artifacts`` below the working directory."""
    return Path(given or os.environ.get("SAMO_ARTIFACTS") or "artifacts").expanduser()


def create_run(artifacts: Path, name: str, stem: str, *, overwrite: bool = False) -> Run:
    """Choose the folder of a new run; nothing is written yet except with ``overwrite``, which empties it.

    Args:
        artifacts: root of all outputs.
        name: the name asked for; empty makes one from ``stem`` and a number.
        stem: for example ``ravdess-emotion-small-cnn``.
        overwrite: remove a run of this name first.

    Raises:
        SettingsError: the name is no file name.
        RunError: the name is taken, or in use.
    """
    runs = artifacts / "runs"
    if not name:
        stem, number = re.sub(r"[^A-Za-z0-9._+=-]+", ".", stem), 1
        while not _is_unused(runs / f"{stem}-{number:03d}"):
            number += 1
        return Run(runs / f"{stem}-{number:03d}")
    if not NAME_PATTERN.fullmatch(name):
        raise SettingsError(f"`name` '{name}': use letters, digits and . _ + = - only")
    run = Run(runs / name)
    if run.folder.exists() and not _is_free(run.folder):
        if run.is_busy():
            with run.locked():
                pass
        if not overwrite:
            raise RunError(
                f"a run named '{name}' exists in {runs}",
                hint=f"choose another `name`, go on with `resume={name}`, or replace it with `overwrite`",
            )
        with run.locked():
            _empty(run.folder)
    return run


def find_run(artifacts: Path, given: str = "") -> Run:
    """A run by name, as ``GRID/CELL``, or by folder; without one the newest.

    Raises:
        RunError: there is none.
    """
    runs = artifacts / "runs"
    grid, _, cell = given.partition("/")
    if not given:
        latest = artifacts / "latest"
        if not latest.exists():
            raise RunError(f"there is no run in {artifacts} yet", hint="train one: samo train")
        return Run(latest.resolve())
    for folder in (runs / given, artifacts / "grids" / grid / "runs" / cell, Path(given)):
        if (folder / "config.json").is_file():
            return Run(folder.resolve())
    names = [run.name for run in list_runs(artifacts)]
    raise RunError(
        f"there is no run '{given}' in {runs}",
        hint=nearest(given, names) + (f"runs: {first_ten(names)}" if names else "no run was trained yet"),
    )


def find_model(artifacts: Path, given: str = "") -> Run:
    """A run to judge or predict with, by name or folder; without one the newest that has a model.

    Raises:
        RunError: there is no such run.
        ModelFileError: it has no model yet.
    """
    run = find_run(artifacts, given)
    usable = [] if given or run.has_model else [other for other in list_runs(artifacts) if other.has_model]
    if usable:
        logging.getLogger(__name__).warning(
            "run %s has no model yet; taking the newest that has one, %s", run.name, usable[-1].name
        )
        return usable[-1]
    if not run.has_model:
        ended = run.path("trained.json").is_file()
        hint = "train it again" if ended else f"go on with: `resume={run.name}`"
        raise ModelFileError(f"there is no model at {run.model_file}", hint=hint)
    return run


def list_runs(artifacts: Path) -> list[Run]:
    """All runs, oldest first."""
    folder = artifacts / "runs"
    found = [entry for entry in folder.iterdir() if (entry / "config.json").is_file()] if folder.is_dir() else []
    return [Run(entry) for entry in sorted(found, key=lambda entry: (entry / "config.json").stat().st_mtime)]


def point_latest(artifacts: Path, run: Run) -> None:
    """Let ``artifacts/latest`` name this run."""
    temporary = artifacts / f".latest.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path("runs") / run.name)
    temporary.replace(artifacts / "latest")


def write_history(run: Run, history: list[dict[str, Any]]) -> None:
    """Write ``history.jsonl`` whole, so that it never disagrees with the checkpoint beside it."""
    write_text(run.path("history.jsonl"), "".join(json.dumps(row) + "\n" for row in history))


def mark_trained(run: Run, facts: dict[str, Any]) -> None:
    """Leave the sign that training came to its end."""
    write_json(run.path("trained.json"), facts)


def _is_unused(folder: Path) -> bool:
    return not folder.exists() or (_is_free(folder) and not Run(folder).is_busy())


def _is_free(folder: Path) -> bool:
    """Whether there is nothing in it but what a training killed before ``config.json`` leaves."""
    begun = {folder / ".lock", folder / ASSETS, *(folder / name for name in BEGINNING if name != "config.json")}
    return set(folder.iterdir()) <= begun | leftovers(folder, BEGINNING)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name == ".lock":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
