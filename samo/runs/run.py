"""A run's folder: made once, locked while in use, never overwritten silently."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from samo.data.augmented import AUGMENTATION, AUGMENTED
from samo.data.fingerprints import Fingerprints
from samo.data.leaks import audit
from samo.data.manifest import Manifest
from samo.data.splits import Split
from samo.errors import DataError, ModelFileError, RunError, SettingsError, reporting_full_disk
from samo.files import leftovers, parse_json, write_json, write_text
from samo.printable import csv_text
from samo.runs.lock import LOCK_FILE, is_locked, kept_lock, lock_folder
from samo.settings import Config, stored_config, with_defaults
from samo.stored import Count, Number, Share, Stored, Text, validated, validated_by
from samo.training.training_log import EpochRow

__all__ = [
    "ASSETS",
    "ENSEMBLE_FILE",
    "FINGERPRINTS",
    "SAMPLES",
    "STARTED_FROM",
    "TAUGHT",
    "ModelVersion",
    "Run",
    "refuse_with_resume",
    "require_place",
]

# The fingerprints of what was trained and validated on, by which copies in other corpora are found.
FINGERPRINTS = "fingerprints.npz"
# What its start weights and its teachers learned from, where that is known.
STARTED_FROM = "started_from.json"

# A picture of some items as training sees them.
SAMPLES = "augmented.png"
# What a training learns from besides labels: its teachers' probabilities.
TAUGHT = "taught.safetensors"

# What is written before step 1, and what a training writes after; judging a run writes other files.
BEGINNING = (
    "manifest.jsonl",
    "split.json",
    FINGERPRINTS,
    STARTED_FROM,
    AUGMENTED,
    AUGMENTATION,
    TAUGHT,
    "fitted.safetensors",
    SAMPLES,
    "environment.json",
    "config.json",
)
TRAINING = (
    "best_model.safetensors",
    "last.ckpt",
    "history.jsonl",
    "results.csv",
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


class _StoredSettings(Stored):
    modality: Text


class _StoredTrained(Stored):
    """Of an ensemble only the score is known, and earlier versions wrote less."""

    epochs: Count = 0
    best_epoch: Count = 0
    val_macro_f1: Number | None = 0.0
    val_loss: Number | None = None
    allowed_epochs: Count = 0
    selected_over: tuple[Share, Share, Count] | None = None


class _StoredRuntime(Stored):
    precision: Text = ""


class _StoredEnvironment(Stored):
    runtime: _StoredRuntime = _StoredRuntime()
    command: Text = ""
    began: Text = ""


class _StoredLearned(Stored):
    dataset: Text
    origin: Text = ""
    groups: dict[Text, Text]
    contents: dict[Text, Text]


_LEARNED = TypeAdapter(tuple[_StoredLearned, ...])


class _StoredOpening(Stored):
    at: Text | None
    by: Text


@dataclass(frozen=True)
class ModelVersion:
    """Which file of weights was read.

    Attributes:
        digest: SHA-256 of its bytes, hexadecimal.
        place: what the disk says of the file; while that stays, so do the bytes.
    """

    digest: str
    place: tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """One training and everything judged of it, by the folder it lives in."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def full_name(self) -> str:
        """What commands call it: its name, ``GRID/CELL`` of what lies in a grid."""
        *_, grids, grid, _, name = ("", "", "", *self.folder.absolute().parts)
        return f"{grid}/{name}" if grids == "grids" else name

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting by name, ``modality`` included.

        Raises:
            RunError: not a run, or damaged.
        """
        try:
            settings = parse_json(self.path("config.json").read_bytes())
            validated(_StoredSettings, settings)
            return with_defaults(settings)
        except (OSError, ValueError) as error:
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

    @property
    def started_from(self) -> list[Any]:
        """What its start weights and teachers learned from, see :mod:`samo.runs.provenance`; none where unknown.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path(STARTED_FROM)
        try:
            found: list[Any] = parse_json(path.read_bytes()) if path.is_file() else []
            validated_by(_LEARNED, found)
            return found
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}") from error

    def audit(self, manifest: Manifest) -> list[str]:
        """Leaks of the run's split in its data, see :func:`samo.data.leaks.audit`; in runs begun before fingerprints
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
        return self._lines("history.jsonl", EpochRow)

    @property
    def val_macro_f1(self) -> float | None:
        """Validation macro-F1 of the weights that ship: of the best epoch so far, or of what the last one ended with.

        None before the first, and where nothing is validated on.

        Raises:
            RunError: a file is damaged.
        """
        scores = [row["val_macro_f1"] for row in self.history if row["val_macro_f1"] is not None]
        if not scores:
            return None
        return scores[-1] if self.settings.get("keep", "best") != "best" else max(scores)

    @property
    def trained(self) -> dict[str, Any]:
        """What came of the training: epochs, the best one, its scores, when it ended.

        Raises:
            RunError: it has not come to its end, or the file is damaged.
        """
        if not self.path("trained.json").is_file():
            raise RunError(f"the training of run '{self.name}' has not come to its end", hint=f"`resume={self.name}`")
        return self._lines("trained.json", _StoredTrained, whole=True)[0]

    @property
    def environment(self) -> dict[str, Any]:
        """Versions and hardware the run was trained with.

        Raises:
            RunError: the file is damaged.
        """
        return next(iter(self._lines("environment.json", _StoredEnvironment, whole=True)), {})

    @property
    def test_openings(self) -> int:
        """How often the test part was looked at with this run; at least once where there is a report of it.

        Raises:
            RunError: the file that counts them is damaged.
        """
        return len(self._lines(OPENINGS, _StoredOpening)) or int(self.path("report.json").is_file())

    def open_test(self, what: str) -> int:
        """Count that ``what`` looks at the test part; returns the number of openings with this one.

        Raises:
            RunError: the file that counts them is damaged.
            DiskFull: no space is left.
        """
        line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "by": what}
        # Not under the run's lock, which a training that goes on beside this holds for days.
        with reporting_full_disk(self.folder), self.path(OPENINGS).open("ab", buffering=0) as file:
            with suppress(OSError):  # a disk without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            before, size = self.test_openings, os.fstat(file.fileno()).st_size
            # Of a run evaluated before openings were counted, the one that its report shows.
            lines = [line] if size else [{"at": None, "by": "evaluate"}] * before + [line]
            try:
                whole = "".join(json.dumps(each) + "\n" for each in lines).encode()
                if file.write(whole) != len(whole):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)
                raise
        return before + 1

    @property
    def model_file(self) -> Path:
        """The weights of the best epoch."""
        return self.path("best_model.safetensors")

    def model_version(self) -> ModelVersion:
        """The weights as they are now.

        Raises:
            ModelFileError: there are none.
        """
        try:
            with self.model_file.open("rb") as file:
                return ModelVersion(hashlib.file_digest(file, "sha256").hexdigest(), _place(os.fstat(file.fileno())))
        except OSError as error:
            raise ModelFileError(f"cannot read {self.model_file}: {error.strerror}") from error

    def require_model(self, version: ModelVersion) -> None:
        """Refuse to write what was computed with weights that are no longer this run's.

        Raises:
            RunError: a training, or one with ``overwrite``, wrote others since.
            ModelFileError: there are none any more.
        """
        try:
            unchanged = _place(self.model_file.stat()) == version.place
        except OSError:
            unchanged = False
        if not unchanged and self.model_version().digest != version.digest:
            raise RunError(
                f"run '{self.name}' got another model while it was evaluated; this evaluation was not kept",
                hint="evaluate it again" + (" when its training has ended" if self.is_busy() else ""),
            )

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

    def _lines(self, name: str, kind: type[Stored], *, whole: bool = False) -> list[dict[str, Any]]:
        """The JSON objects of a file, one a line or one in all; none when there is no such file."""
        path = self.path(name)
        try:
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            found = [parse_json(part) for part in ([text] if whole and path.is_file() else text.splitlines())]
            for value in found:
                validated(kind, value)
            return found
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for writing; the lock falls with the process, however it ends.

        Raises:
            RunError: another process holds it.
        """
        with kept_lock(self.folder) or lock_folder(self.folder):
            yield

    def sweep(self) -> None:
        """Remove the halves of files that kills left; for the training that holds the run."""
        for path in leftovers(self.folder, (*BEGINNING, *TRAINING)):
            path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the folder of a training that was refused before it wrote anything."""
        if lock := kept_lock(self.folder):
            lock.close()
        if (
            self.folder.is_dir()
            and {entry.name for entry in self.folder.iterdir()} <= {LOCK_FILE}
            and not self.is_busy()
        ):
            shutil.rmtree(self.folder)

    @property
    def replaced(self) -> Path:
        """Where the run lies that ``overwrite`` replaces by this one, until this one has a model."""
        return self.folder.with_name(f".{self.name}.replaced")

    @property
    def is_usable(self) -> bool:
        """Whether it is a run with a model; an ensemble that was killed has a model and no settings yet."""
        return self.has_model and self.path("config.json").is_file()

    def drop_replaced(self) -> None:
        """Remove the run that this one replaces."""
        if self.replaced.exists():
            shutil.rmtree(self.replaced)

    def restore_replaced(self) -> bool:
        """Put the run that this one was to replace back in its place; returns whether there was one."""
        if not self.replaced.exists():
            return False
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.replaced.rename(self.folder)
        return True

    def settle(self) -> bool:
        """After a training that ended, however: keep the newer of this run and the one it replaces that has a model.

        Returns:
            Whether the replaced run is back in its place.
        """
        self.forget()
        if self.is_usable:
            self.drop_replaced()
            return False
        return not self.is_busy() and self.restore_replaced()

    def drop_without_epoch(self) -> bool:
        """Remove a run that was stopped before it finished an epoch; returns whether it was one."""
        begun = self.path("config.json").is_file() and not self.path("last.ckpt").exists() and not self.has_model
        if not begun or self.is_busy():
            return False
        shutil.rmtree(self.folder)
        return True

    def is_busy(self) -> bool:
        """Whether a process holds the run."""
        return is_locked(self.folder)


def write_history(run: Run, history: list[dict[str, Any]]) -> None:
    """Write ``history.jsonl`` whole, so that it never disagrees with the checkpoint beside it; then the same as
    ``results.csv``, for spreadsheets."""
    write_text(run.path("history.jsonl"), "".join(json.dumps(row) + "\n" for row in history))
    names = list(dict.fromkeys(name for row in history for name in row))
    write_text(run.path("results.csv"), csv_text([names, *([row.get(name) for name in names] for row in history)]))


def refuse_with_resume(*, name: str, preset: str, config: str, overwrite: bool) -> None:
    """A run goes on as it began.

    Raises:
        SettingsError: something else is asked for.
    """
    if name or preset or config or overwrite:
        raise SettingsError("`resume` takes neither `name`, `preset`, `config` nor `overwrite`")


def require_place(run: Run, values: Mapping[str, Any], *, moved: bool) -> None:
    """Refuse to look for a run's data where they no longer are.

    Args:
        run: whose data they are.
        values: its settings by name, those given beside it among them.
        moved: whether ``data_root`` was given, which then is checked by whoever opens the data.

    Raises:
        DataError: names the place the run remembers.
    """
    place = str(values.get("data_root", ""))
    # The demo corpus is made again where it is gone.
    if place and not moved and values.get("dataset") != "demo" and not Path(place).exists():
        raise DataError(
            f"the data of run '{run.name}' are no longer at {place}", hint="say where they are now with `data_root`"
        )


def remember_place(run: Run, data_root: str) -> None:
    """Let a run know where its data lie now, once they were found to be the same."""
    path = run.path("config.json")
    stored = parse_json(path.read_bytes())
    if data_root and stored.get("data_root", data_root) != data_root:
        began = path.stat()
        write_json(path, {**stored, "data_root": data_root})
        # Runs are ordered by its time.
        os.utime(path, ns=(began.st_atime_ns, began.st_mtime_ns))
        run.__dict__.pop("settings", None)


def mark_trained(run: Run, facts: dict[str, Any]) -> None:
    """Leave the sign that training came to its end."""
    write_json(run.path("trained.json"), facts)


def _place(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
