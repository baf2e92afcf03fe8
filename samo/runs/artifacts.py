"""The folder of all outputs, and the runs in it: made, found, listed."""

from __future__ import annotations

import logging
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from samo.errors import ModelFileError, RunError, SettingsError, first_ten, nearest
from samo.files import leftovers
from samo.modalities import released_files
from samo.runs.lock import LOCK_FILE, keep_lock, lock_folder
from samo.runs.run import ASSETS, BEGINNING, ENSEMBLE_FILE, Run

__all__ = ["NAME_PATTERN", "artifacts_root", "create_run", "find_model", "find_run", "list_runs", "point_latest"]

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,127}")


def artifacts_root(given: str = "") -> Path:
    """``artifacts``, else ``$SAMO_ARTIFACTS``, else ``artifacts`` below the working directory."""
    return Path(given or os.environ.get("SAMO_ARTIFACTS") or "artifacts").expanduser()


def create_run(artifacts: Path, name: str, stem: str, *, overwrite: bool = False, hold: bool = False) -> Run:
    """Choose the folder of a new run; nothing is written yet except with ``overwrite`` or ``hold``.

    Args:
        artifacts: root of all outputs.
        name: the name asked for; empty makes one from ``stem`` and a number.
        stem: for example ``ravdess-emotion-small-cnn``.
        overwrite: put a run of this name aside, see :meth:`Run.settle`.
        hold: lock the run, so that no other process chooses the same, until :meth:`Run.locked` takes the lock over.

    Raises:
        SettingsError: the name is no file name.
        RunError: the name is taken, or in use.
    """
    runs = artifacts / "runs"
    if not name:
        stem, number = re.sub(r"[^A-Za-z0-9._+=-]+", ".", stem), 1
        while not _is_unused(run := Run(runs / f"{stem}-{number:03d}")) or (hold and not _is_held(run)):
            number += 1
        return run
    if not NAME_PATTERN.fullmatch(name):
        raise SettingsError(f"`name` '{name}': use letters, digits and . _ + = - only")
    run = Run(runs / name)
    if not overwrite and _is_unused(run):
        # An `overwrite` was killed before it began: a new run of this name would end with the old one removed.
        run.restore_replaced()
    if run.folder.exists() and not _is_free(run.folder):
        if run.is_busy():
            with run.locked():
                pass
        if not overwrite:
            resumed = f", go on with `resume={name}`," if run.status == "stopped" else ""
            raise RunError(
                f"a run named '{name}' exists in {runs}",
                hint=f"choose another `name`{resumed} or replace it with `overwrite`",
            )
        _put_aside(run)
    if hold:
        keep_lock(run.folder, lock_folder(run.folder))
    return run


def find_run(artifacts: Path, given: str = "") -> Run:
    """A run by name, as ``GRID/CELL``, or by folder; without one the newest.

    Raises:
        RunError: there is none; of a released model or an exported file that it is no run.
    """
    runs = artifacts / "runs"
    grid, _, cell = given.partition("/")
    if not given:
        latest = artifacts / "latest"
        if latest.is_symlink() and (latest / "config.json").is_file():
            return Run(latest.resolve())
        # The pointer is a convenience: the newest run may have been removed, or the disk knows no symbolic links.
        if not (found := list_runs(artifacts)):
            raise RunError(f"there is no run in {artifacts} yet", hint="train one: samo train")
        return found[-1]
    for folder in (runs / given, artifacts / "grids" / grid / "runs" / cell, Path(given)):
        if (folder / "config.json").is_file():
            return Run(folder.resolve())
    released = released_files()
    if given in released or (given.lower().endswith(".onnx") and Path(given).is_file()):
        raise RunError(
            f"'{given}' is no run: {'a released model' if given in released else 'an exported file'} only predicts",
            hint="`samo predict`, `samo serve` and `samo package` take it; name a run here",
        )
    names = [run.name for run in list_runs(artifacts)]
    raise RunError(
        f"there is no run '{given}' in {runs}",
        hint=nearest(given, (*names, *released)) + (f"runs: {first_ten(names)}" if names else "no run was trained yet"),
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
    if not run.has_model and run.path(ENSEMBLE_FILE).is_file():
        raise ModelFileError(
            f"'{run.full_name}' combines what its members answered on one fold, and has no model of its own",
            hint="name one of its members, which stand in its report",
        )
    if not run.has_model:
        ended = run.path("trained.json").is_file()
        hint = "train it again" if ended else f"go on with: `resume={run.name}`"
        if run.replaced.exists():
            hint += f"; the run it was to replace is in {run.replaced}"
        raise ModelFileError(f"there is no model at {run.model_file}", hint=hint)
    return run


def list_runs(artifacts: Path) -> list[Run]:
    """All runs, oldest first."""
    folder = artifacts / "runs"
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")] if folder.is_dir() else []
    found = [entry for entry in entries if (entry / "config.json").is_file()]
    return [Run(entry) for entry in sorted(found, key=lambda entry: (entry / "config.json").stat().st_mtime)]


def point_latest(artifacts: Path, run: Run) -> None:
    """Let ``artifacts/latest`` name this run, where the disk knows symbolic links; a cloud drive or exFAT does not."""
    latest, temporary = artifacts / "latest", artifacts / f".latest.{os.getpid()}"
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("runs") / run.name)
        temporary.replace(latest)
    except OSError:
        # One that names an older run would be worse than none.
        for link in (temporary, latest):
            with suppress(OSError):
                if link.is_symlink():
                    link.unlink()


def _is_unused(run: Run) -> bool:
    return not run.folder.exists() or (_is_free(run.folder) and not run.is_busy())


def _is_held(run: Run) -> bool:
    """Whether this process now holds a run that was unused before."""
    try:
        lock = lock_folder(run.folder)
    except RunError:
        return False
    # Another process may have begun and even removed the folder in between.
    here = run.path(LOCK_FILE)
    if here.exists() and os.path.samestat(os.fstat(lock.fileno()), here.stat()) and _is_free(run.folder):
        keep_lock(run.folder, lock)
        return True
    lock.close()
    return False


def _is_free(folder: Path) -> bool:
    """Whether there is nothing in it but what a training killed before ``config.json`` leaves."""
    begun = {folder / LOCK_FILE, folder / ASSETS, *(folder / name for name in BEGINNING if name != "config.json")}
    return set(folder.iterdir()) <= begun | leftovers(folder, BEGINNING)


def _put_aside(run: Run) -> None:
    """Make room for a new run; what has a model is kept until the new one has one."""
    with run.locked():
        if run.is_usable or not run.replaced.exists():
            run.drop_replaced()
            run.folder.rename(run.replaced)
        else:
            shutil.rmtree(run.folder)
    with run.locked():
        pass
