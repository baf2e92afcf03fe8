"""Where the cells of a grid run: worker processes on this machine; a cluster stands behind the same `Launcher`.

Why no library: with `concurrent.futures`, loky and joblib (looked at in Python 3.11 and joblib 1.6)

- one worker that is killed, by the kernel when memory is short for example, breaks the pool and fails every job that
  waits. Here it is that job's failure, and another process takes the next job.
- the workers outlive a parent that gets SIGTERM or SIGKILL and train on. Here they notice, and end as on SIGTERM:
  with a checkpoint. Ctrl-C reaches the grid alone, which then waits for the checkpoints of what runs.
- all workers share the parent's environment. Here each sees a GPU of its own (``CUDA_VISIBLE_DEVICES``) and its share
  of the cores (``OMP_NUM_THREADS``) before numpy or torch are imported.
- what a job prints goes to the parent's terminal. Here it goes to the job's log, also what C libraries print.

A worker is started once, imports torch once and takes one job after another, so that a grid costs little more than its
cells. It gets jobs as lines of JSON on its standard input and answers on its standard output. When the input ends, the
grid was stopped or its process is gone.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from samo.errors import Interrupted

__all__ = ["GRACE_S", "Job", "Launcher", "LocalLauncher", "Outcome", "Watcher", "share_of_cores", "stopped_after"]

# What a stopped worker gets to write its checkpoint before it is killed, in seconds.
GRACE_S = 60.0


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        name: for people.
        spec: what the work function receives; plain JSON.
        log: file that takes what the job prints; appended to.
    """

    name: str
    spec: Mapping[str, Any]
    log: Path


@dataclass(frozen=True)
class Outcome:
    """How a job ended; ``message`` says what went wrong."""

    name: str
    status: Literal["done", "failed", "stopped"]
    message: str = ""
    seconds: float = 0.0


class Watcher(Protocol):
    """Follows what becomes of jobs, from whatever thread they run in."""

    def on_start(self, name: str) -> None:
        """A worker took the job."""

    def on_end(self, outcome: Outcome) -> None:
        """The job ended."""


class Launcher(Protocol):
    """Runs jobs somewhere.

    Attributes:
        workers: how many jobs at once.
        threads: CPU threads of each.
    """

    workers: int
    threads: int

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> list[Outcome]:
        """Run every job once; a job that fails, or takes its worker with it, does not touch the others.

        Raises:
            Interrupted: stopped by Ctrl-C; running trainings kept their checkpoints.
        """


def share_of_cores(n_jobs: int, workers: int = 0, threads: int = 0, gpus: int = 0) -> tuple[int, int]:
    """Number of workers and threads of each; 0 chooses.

    As many workers as GPUs, else as cores up to eight (small networks gain more from a second cell than from a second
    thread); the cores are divided between them.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(1, min(n_jobs, workers or gpus or min(cores, 8)))
    return workers, threads or max(1, cores // workers)


def stopped_after(outcomes: Sequence[Outcome], jobs: Sequence[Job]) -> Interrupted:
    """What Ctrl-C makes of a grid."""
    return Interrupted(
        f"stopped after {sum(outcome.status == 'done' for outcome in outcomes)} of {len(jobs)} cells; "
        "running cells kept their last whole epoch",
        hint="run the same command again to go on",
    )


@dataclass
class LocalLauncher:
    """Worker processes on this machine.

    Attributes:
        work: the function that does a job, as ``module:function``; it receives the job's ``spec``.
        workers: how many at once.
        threads: CPU threads of each.
        gpus: how many GPUs there are; workers take them in turn.
    """

    work: str
    workers: int = 1
    threads: int = 1
    gpus: int = 0
    _alive: set[_Worker] = field(default_factory=set, repr=False)
    _stopping: threading.Event = field(default_factory=threading.Event, repr=False)

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> list[Outcome]:
        """See :meth:`Launcher.run`."""
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        outcomes: list[Outcome] = []
        self._stopping.clear()
        # Events, because Python 3.11 forgets a running thread whose join a signal interrupts (cpython issue 89437).
        ended = [threading.Event() for _ in range(min(self.workers, len(jobs)))]

        problems: list[Exception] = []

        def keep(number: int) -> None:
            try:
                self._keep_busy(number, waiting, watcher, outcomes)
            except Exception as error:  # of the watcher, or no process could be started
                problems.append(error)
            finally:
                ended[number].set()

        for number in range(len(ended)):
            threading.Thread(target=keep, args=(number,), daemon=True).start()
        try:
            while not all(event.wait(0.2) for event in ended):
                pass
        except KeyboardInterrupt:
            self._stop(ended)
            raise stopped_after(outcomes, jobs) from None
        if problems:
            raise problems[0]
        return outcomes

    def _keep_busy(
        self, number: int, waiting: queue.SimpleQueue[Job], watcher: Watcher, outcomes: list[Outcome]
    ) -> None:
        worker: _Worker | None = None
        while not self._stopping.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                break
            if worker is None:
                worker = _Worker(self.work, self._environment(number))
                self._alive.add(worker)
            watcher.on_start(job.name)
            started = time.monotonic()
            status, message = worker.do(job)
            if worker.dead:
                self._alive.discard(worker)
                worker = None
            if self._stopping.is_set() and status == "failed":
                status, message = "stopped", ""
            outcome = Outcome(job.name, status, message, time.monotonic() - started)
            outcomes.append(outcome)
            watcher.on_end(outcome)
        if worker is not None:
            worker.close(GRACE_S)
            self._alive.discard(worker)

    def _environment(self, number: int) -> dict[str, str]:
        threads = str(self.threads)
        here = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if self.gpus:
            visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            names = visible or [str(k) for k in range(self.gpus)]
            here["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]
        return here

    def _stop(self, ended: Sequence[threading.Event]) -> None:
        self._stopping.set()
        for worker in list(self._alive):
            worker.hang_up()
        until = time.monotonic() + GRACE_S
        for event in ended:
            event.wait(max(0.0, until - time.monotonic()))
        for worker in list(self._alive):
            worker.close(0.0)


class _Worker:
    """A process of :mod:`samo.launch.worker`, seen from the grid."""

    def __init__(self, work: str, environment: Mapping[str, str]) -> None:
        self.dead = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "samo.launch.worker", work],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            # Ctrl-C is for the grid, which then asks its workers to stop.
            start_new_session=True,
        )

    def do(self, job: Job) -> tuple[Literal["done", "failed", "stopped"], str]:
        """Hand over a job and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"spec": dict(job.spec), "log": str(job.log)}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except (OSError, ValueError):
            answer = ""
        if answer:
            ended = json.loads(answer)
            self.dead = bool(ended.get("leaving"))
            return ended["status"], ended["message"]
        self.dead = True
        status = self._process.wait()
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"left with status {status}"
        return "failed", f"its process was {how}" if status < 0 else f"its process {how}"

    def hang_up(self) -> None:
        """End the input: the worker stops its training and leaves."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def close(self, grace_s: float) -> None:
        """Wait for the end, or make one."""
        self.hang_up()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
