"""A worker of :class:`samo.launch.local.LocalLauncher`: does one job after another until its input ends."""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samo.errors import Interrupted, SamoError
from samo.lazy import load_object

__all__ = ["attempt", "find_work", "main", "printing_to"]

Work = Callable[[Mapping[str, Any]], None]


def main(argv: list[str]) -> None:
    """Serve the function named ``module:function`` in ``argv[1]``."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints outside a job must not be taken for an answer
    work = find_work(argv[1])
    jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    busy, begun = threading.Event(), False
    threading.Thread(target=_listen, args=(jobs, busy), daemon=True).start()
    while (job := jobs.get()) is not None:
        busy.set()
        with printing_to(Path(job["log"])):
            status, message = attempt(work, job["spec"])
        busy.clear()
        leaving = status == "stopped"
        answers.write(json.dumps({"status": status, "message": message, "leaving": leaving}) + "\n")
        answers.flush()
        if leaving:
            return
        if not begun:
            # Modules and data stay: looking through them again for garbage costs each job a twentieth of its time.
            gc.collect()
            gc.freeze()
            begun = True


def find_work(target: str) -> Work:
    """The function behind ``module:function``."""
    work: Work = load_object(target)
    return work


def attempt(work: Work, spec: Mapping[str, Any]) -> tuple[str, str]:
    """Do a job; returns ``done``, ``stopped`` or ``failed``, and what went wrong in one line."""
    try:
        work(spec)
    except Interrupted as stop:
        return "stopped", stop.message
    except SamoError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return "failed", error.message + (f" (hint: {error.hint})" if error.hint else "")
    except Exception as error:
        traceback.print_exc()
        return "failed", f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"
    return "done", ""


def _listen(jobs: queue.SimpleQueue[dict[str, Any] | None], busy: threading.Event) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    jobs.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def printing_to(log: Path) -> Iterator[None]:
    """Send standard output and error to a file, also what C libraries print."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    with log.open("a") as opened:
        os.dup2(opened.fileno(), 1)
        os.dup2(opened.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, old in enumerate(before, start=1):
                os.dup2(old, descriptor)
                os.close(old)


if __name__ == "__main__":
    main(sys.argv)
