"""Runs at a store, and file systems that fail when a test says so."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from samo.launch.store import RunCopy, Store
from samo.runs.run import Run

REPORT = "report.json"
FACTS = {"settings": {"modality": "pretend", "lr": 1}, "data": "d"}


def written(run: Run, **files: str) -> Run:
    """Files by name, ``_`` for the dot; each newer than all before."""
    run.folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = run.path(name.replace("_", "."))
        path.write_text(content)
        os.utime(path, ns=(0, next(_ticks)))
    return run


_ticks = iter(range(1, 10_000))


def epochs(n: int) -> str:
    row = {"train_loss": 1.0, "val_loss": 1.0, "val_macro_f1": 0.5, "seconds": 1.0}
    return "".join(json.dumps({"epoch": k, **row}) + "\n" for k in range(n))


def copied(store: Store, folder: Path, **files: str) -> RunCopy:
    copy = RunCopy(store, written(Run(folder), **files), REPORT, FACTS)
    copy.send()
    return copy


def brought(store: Store, folder: Path) -> dict[str, str]:
    run = Run(folder)
    RunCopy(store, run, REPORT, FACTS).bring()
    found = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def files_at(store: Store) -> list[str]:
    return [path for path in store._files.find(store._root) if "/index/" not in path]


class Broken:
    """A file system one of whose methods fails, from a call on, for a number of calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Store, method: str) -> None:
        self.calls, self.from_call, self.times, self.error = 0, 10**9, 10**9, OSError("the line is dead")
        real = getattr(type(store._files), method)

        def call(own: Any, *args: Any, **how: Any) -> Any:
            self.calls += 1
            if self.from_call <= self.calls < self.from_call + self.times:
                raise self.error
            return real(own, *args, **how)

        monkeypatch.setattr(type(store._files), method, call)

    def now(self, times: int = 10**9) -> None:
        self.from_call, self.times = self.calls + 1, times
