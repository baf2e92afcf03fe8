"""Commands in forks of one process that has everything imported: they start at once, and a kill is a real one.

Run as a script it answers requests, one JSON object a line on stdin, with one JSON object a line on stdout.
"""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

# What happens to a file that is written whole or not at all, as Python's audit hooks name it.
EVENTS = frozenset({"tempfile.mkstemp", "open", "os.chmod", "os.rename", "os.remove", "os.mkdir", "os.symlink"})


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status (negative: the signal), seconds, stderr, and what it did to watched files."""

    status: int
    seconds: float
    err: str
    events: list[tuple[str, str]]


class Forks:
    """The process that is forked; a context manager."""

    def __enter__(self) -> Forks:
        alone = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Where a GPU is seen, torch starts threads that no fork survives.
            env={**os.environ, **alone, "CUDA_VISIBLE_DEVICES": ""},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, *argv: object, cache: Path, watch: Path, **how: Any) -> Ended:
        """Run ``samo`` in a fork.

        Args:
            argv: its arguments.
            cache: ``$SAMO_CACHE``.
            watch: the folder whose events are counted.
            how: ``after``: SIGKILL after so many seconds; ``at``: before the event of this number, from 0;
                ``save``: in the middle of writing the checkpoint of this number, from 0.
        """
        request = {"argv": [str(word) for word in argv], "cache": str(cache), "watch": str(watch), **how}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Ended(**{**answer, "events": [tuple(event) for event in answer["events"]]})


def serve() -> None:
    """Answer until stdin ends."""
    import_module("samo.runs.train")
    import_module("samo_cli.verbs.train")
    tried: set[str] = set()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), tried)), flush=True)


def answer(request: dict[str, Any], tried: set[str]) -> dict[str, Any]:
    """Fork, wait, and import what the fork had to, so that the next one need not."""
    gc.freeze()  # a collection in the fork would copy every page of what it shares
    seen, err = Path(request["cache"]).with_suffix(".seen"), Path(request["cache"]).with_suffix(".err")
    seen.unlink(missing_ok=True)
    started = time.monotonic()
    child = os.fork()
    if not child:
        command(request, seen, err)
    status = 0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - started > request.get("after", 300):
            os.kill(child, signal.SIGKILL)
        time.sleep(0.001)
    record = json.loads(seen.read_text()) if seen.exists() else {"events": [], "modules": []}
    for name in record["modules"]:
        if name not in tried:
            tried.add(name)
            with suppress(Exception):
                import_module(name)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - started,
        "err": err.read_text() if err.exists() else "",
        "events": record["events"],
    }


def command(request: dict[str, Any], seen: Path, err: Path) -> None:
    """The life of the fork."""
    status: Any = 70
    try:
        with err.open("w") as stream:
            os.dup2(stream.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.environ["SAMO_CACHE"] = request["cache"]
        events = watch(request["watch"], request.get("at"))
        if "save" in request:
            cut_save(request["save"])
        from samo_cli.main import main

        try:
            main(request["argv"])
        except SystemExit as leave:
            status = leave.code
        seen.write_text(json.dumps({"events": events, "modules": list(sys.modules)}))
    finally:
        os._exit(status if isinstance(status, int) else 70)


def watch(folder: str, at: int | None) -> list[tuple[str, str]]:
    """List what happens to files below a folder, and die before the event of a number."""
    events: list[tuple[str, str]] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.fspath(arguments[0])
        if isinstance(path, str) and path.startswith(folder):
            if len(events) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            events.append((event, os.path.basename(path)))

    sys.addaudithook(hook)
    return events


def cut_save(number: int) -> None:
    """Die with half of a checkpoint on the disk."""
    import torch

    whole, count = torch.save, 0

    def save(state: Any, written: Any) -> None:
        nonlocal count
        buffer = io.BytesIO()
        whole(state, buffer)
        half = buffer.getvalue()[: buffer.tell() // 2] if count == number else buffer.getvalue()
        written.write(half)
        written.flush()
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    torch.save = save


if __name__ == "__main__":
    serve()
