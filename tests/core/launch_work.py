"""Light jobs for a launcher, the function a worker process imports by name, and who watches."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from samo.errors import DataError, Interrupted
from samo.launch.local import Job, Outcome


class RecordingWatcher:
    """Keeps which jobs were started and how they ended."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[Outcome] = []

    def on_start(self, name: str) -> None:
        self.started.append(name)

    def on_end(self, outcome: Outcome) -> None:
        self.ended.append(outcome)


def jobs(folder: Path, **what: str) -> list[Job]:
    """A job for each name, that does what is written beside it and signs a common sheet."""
    sheet = str(folder / "sheet.txt")
    return [
        Job(name, {"name": name, "do": do, "sheet": sheet}, folder / "logs" / f"{name}.log")
        for name, do in what.items()
    ]


def do_job(spec: Mapping[str, Any]) -> None:
    """Do what ``spec`` says, and leave a line that names the process and its environment."""
    print("printed by", spec["name"])
    with Path(spec["sheet"]).open("a") as sheet:
        sheet.write(f"{spec['name']} {os.getpid()} {os.environ['OMP_NUM_THREADS']} ")
        sheet.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\n")
    match spec["do"]:
        case "refuse":
            raise DataError("no clips", hint="record some")
        case "stumble":
            raise ZeroDivisionError("by zero")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "leave":
            os._exit(3)
        case "wait":
            _until_sigterm(Path(spec["sheet"]))
        case "linger":
            _until_go(Path(spec["sheet"]), spec["name"])


def _until_sigterm(sheet: Path) -> None:
    """As a training does: go on until SIGTERM, then keep what there is and say so."""
    stopped = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    sheet.with_suffix(".waiting").touch()
    until = time.monotonic() + 60
    # A cluster stops a training as Ctrl-C does.
    with suppress(KeyboardInterrupt):
        while not stopped.is_set() and time.monotonic() < until:
            time.sleep(0.02)
    signal.signal(signal.SIGTERM, before)
    sheet.with_suffix(".kept").touch()
    raise Interrupted("stopped after 1 of 2 epochs")


def _until_go(sheet: Path, name: str) -> None:
    """Work that can be begun again, as a training can: what is finished is left alone."""
    finished = sheet.with_suffix(".finished")
    until = time.monotonic() + 60
    while not sheet.with_suffix(".go").exists() and time.monotonic() < until:
        time.sleep(0.02)
    if not finished.exists() or name not in finished.read_text().split():
        with finished.open("a") as book:
            book.write(f"{name}\n")
