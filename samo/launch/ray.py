"""Cells on a Ray cluster: one Ray task for each job, behind the same `Launcher`.

A job whose machine or process is lost is given to the work function again, wherever there is room: a training goes on
from its last whole epoch.

Either the folder of the grid, and the working directory, lie where every machine of the cluster sees them under the
same path. Ray may take a machine for dead that still works for a while, and file systems forget a dead one's locks only
after some time, so an attempt first waits until it alone holds the job's log. That, and a run's own lock, need a file
system whose locks hold between machines (NFSv4, Lustre with ``flock``, CephFS); without, a machine cut off from the
cluster but not from the folder could write a run until Ray's own processes on it give up.

Or the machines share nothing: the work function keeps what it makes at a store (:mod:`samo.launch.store`),
and logs come back with the answers; that of an attempt whose machine is lost is lost with it.
"""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from samo.errors import EnvironmentProblem, RunError, SettingsError
from samo.files import own_folder
from samo.launch.local import GRACE_S, Job, Outcome, Watcher, stopped_after
from samo.launch.worker import attempt, find_work, printing_to

__all__ = [
    "Machine",
    "RayLauncher",
    "import_ray",
    "ray_cluster",
    "ray_launcher",
    "share_of_cluster",
    "worker_environment",
]

# How often a job is begun again when its process or its machine was lost.
RETRIES = 3
# What a lost machine's locks may outlive it, in seconds: an NFSv4 server waits 90.
LEASE_S = 180.0
# What an address gets to answer, in seconds.
ANSWER_S = 5.0
# Where workers find what the grid's process finds; no secrets, as Ray shows these to everybody on the cluster.
PASSED_ON = ("HF_HOME", "HF_HUB_OFFLINE", "TORCH_HOME", "XDG_CACHE_HOME")


class Machine(NamedTuple):
    """What one machine of the cluster has for tasks."""

    cpus: int
    gpus: int


@contextmanager
def ray_launcher(
    work: str,
    address: str,
    n_jobs: int,
    workers: int = 0,
    threads: int = 0,
    device: str = "auto",
    *,
    shared: bool = True,
) -> Iterator[RayLauncher]:
    """Connect to a cluster and divide it between the jobs; the connection ends with the block.

    Args:
        work: the function that does a job, as ``module:function``; it receives the job's ``spec``, and again when its
            process was lost.
        address: ``auto`` for the cluster this machine is part of (or ``$RAY_ADDRESS``), else ``HOST:PORT`` of its head.
        n_jobs: how many jobs there are.
        workers: at most so many at once; 0 = as many as the cluster takes, also when it grows.
        threads: CPUs of each; 0 chooses.
        device: ``cpu`` asks for no GPU, ``auto`` for one each where the cluster has any, ``cuda`` for one each.
        shared: whether all machines see the folder of the logs.

    Raises:
        EnvironmentProblem: Ray is not installed, or no cluster answers.
        SettingsError: no machine of the cluster can take a job.
    """
    with ray_cluster(address) as (_, machines):
        share = share_of_cluster(machines, n_jobs, workers, threads, device)
        yield RayLauncher(work, *share, limit=workers, shared=shared)


@contextmanager
def ray_cluster(address: str) -> Iterator[tuple[Any, list[Machine]]]:
    """Connect to a cluster; yields the module ``ray`` and the machines. The connection ends with the block.

    Raises:
        EnvironmentProblem: Ray is not installed, or no cluster answers.
        SettingsError: the address is none.
    """
    ray = _connect(address)
    try:
        yield (
            ray,
            [
                Machine(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
                for node in ray.nodes()
                if node["Alive"]
            ],
        )
    finally:
        ray.shutdown()


def share_of_cluster(
    machines: Sequence[Machine], n_jobs: int, workers: int = 0, threads: int = 0, device: str = "auto"
) -> tuple[int, int, int]:
    """Jobs at once, CPUs of each, GPUs of each; 0 chooses, as in :func:`samo.launch.local.share_of_cores`.

    As many jobs at once as GPUs, else as CPUs; what is left over is divided between them.

    Raises:
        SettingsError: no machine can take a job; says what the cluster has.
    """
    gpus = int(device != "cpu" and any(machine.gpus for machine in machines))

    def places(each: int) -> int:
        return sum(min(cpus // each, n) if gpus else cpus // each for cpus, n in machines)

    has = ", ".join(f"{cpus} CPUs" + (f" and {n} GPUs" if n else "") for cpus, n in machines) or "no machine"
    if device.startswith("cuda") and not gpus:
        raise SettingsError(f"`device={device}`: the Ray cluster has no GPU, only {has}")
    if not places(threads or 1):
        raise SettingsError(
            f"`threads={threads or 1}`: no machine of the Ray cluster can take one cell; they have {has}",
            hint="ask for fewer `threads`, or add a machine: ray start --address=HOST:PORT",
        )
    at_once = min(n_jobs, workers or n_jobs)
    if not threads:
        most = max(machine.cpus for machine in machines)
        threads = max(each for each in range(1, most + 1) if places(each) >= min(at_once, places(1)))
    return max(1, min(at_once, places(threads))), threads, gpus


@dataclass
class RayLauncher:
    """Ray tasks on the cluster this process is connected to, see :func:`ray_launcher`.

    Attributes:
        work: the function that does a job, as ``module:function``.
        workers: how many jobs the cluster takes at once.
        threads: CPUs of each.
        gpus: GPUs of each, 0 or 1.
        limit: how many jobs Ray gets at once; 0 = all.
        shared: whether all machines see the folder of the logs.
    """

    work: str
    workers: int = 1
    threads: int = 1
    gpus: int = 0
    limit: int = 0
    shared: bool = True

    def run(self, jobs: Sequence[Job], watcher: Watcher) -> list[Outcome]:
        """See :meth:`samo.launch.local.Launcher.run`."""
        ray = import_ray()
        for job in jobs:
            job.log.parent.mkdir(parents=True, exist_ok=True)
        task = ray.remote(_do).options(
            num_cpus=self.threads,
            num_gpus=self.gpus,
            # Lost processes are counted here: Ray repeats what runs out of memory without end.
            max_retries=0,
            num_returns="streaming",
            runtime_env={"env_vars": worker_environment(self.threads)},
        )
        waiting = deque(_Try(job) for job in jobs)
        tasks = _Tasks(ray, watcher)
        try:
            while waiting or tasks.running:
                while waiting and len(tasks.running) < (self.limit or len(jobs)):
                    given = waiting.popleft()
                    log = str(given.job.log.resolve()) if self.shared else ""
                    tasks.running[task.remote(self.work, dict(given.job.spec), log, os.getcwd())] = given
                waiting.extendleft(tasks.listen())
        except KeyboardInterrupt:
            tasks.stop()
            raise stopped_after(tasks.outcomes, jobs) from None
        return tasks.outcomes


def worker_environment(threads: int) -> dict[str, str]:
    """The environment variables of a worker with so many CPUs: SAMO's own, where models are cached, where code lies."""
    passed = {name: value for name, value in os.environ.items() if name.startswith("SAMO_") or name in PASSED_ON}
    python = os.pathsep.join(filter(None, sys.path))
    return {**passed, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYTHONPATH": python}


@dataclass
class _Try:
    """A job handed to Ray, for the first time or again."""

    job: Job
    lost: int = 0
    began: float | None = None


@dataclass
class _Tasks:
    """What Ray has in hand: the stream of answers of each task."""

    ray: Any
    watcher: Watcher
    running: dict[Any, _Try] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    stopping: bool = False

    def listen(self) -> list[_Try]:
        """Wait a second for answers; returns the jobs whose processes were lost, to be begun again."""
        again = []
        for stream in self.ray.wait(list(self.running), timeout=1.0)[0]:
            given = self.running[stream]
            status, message = self._answer(stream, given)
            # A process can be lost before its first word arrives: whatever but a stop comes from a job that began.
            if given.began is None and status != "stopped":
                given.began = time.monotonic()
                self.watcher.on_start(given.job.name)
            if status == "log":
                with given.job.log.open("a", encoding="utf-8") as log:
                    log.write(message)
                continue
            if status == "started":
                continue
            del self.running[stream]
            if status == "again":
                again.append(given)
            elif given.began is not None or not self.stopping:
                seconds = time.monotonic() - given.began if given.began is not None else 0.0
                outcome = Outcome(given.job.name, cast(Any, status), message, seconds)
                self.outcomes.append(outcome)
                self.watcher.on_end(outcome)
        return again

    def stop(self) -> None:
        """Interrupt what runs, as Ctrl-C would, and wait for the checkpoints."""
        self.stopping = True
        for stream in self.running:
            self.ray.cancel(stream)
        until = time.monotonic() + GRACE_S
        while self.running and time.monotonic() < until:
            self.listen()
        for stream in self.running:
            self.ray.cancel(stream, force=True)

    def _answer(self, stream: Any, given: _Try) -> tuple[str, str]:
        kinds = self.ray.exceptions
        try:
            status, message = self.ray.get(next(stream))
            return status, message
        except (StopIteration, kinds.TaskCancelledError):
            return "stopped", ""
        except (kinds.WorkerCrashedError, kinds.NodeDiedError, kinds.OutOfMemoryError) as error:
            given.lost += 1
            if self.stopping:
                return "stopped", ""
            if given.lost <= RETRIES:
                return "again", ""
            return "failed", f"its process was lost {given.lost} times: {_LOSSES[type(error).__name__]}"
        except kinds.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return "failed", f"Ray: {lines[-1] if lines else type(error).__name__}"


_LOSSES = {
    "WorkerCrashedError": "killed, or out of memory",
    "NodeDiedError": "its machine left the cluster",
    "OutOfMemoryError": "its machine was out of memory",
}


def _do(work: str, spec: Mapping[str, Any], log: str, folder: str) -> Iterator[tuple[str, str]]:
    """The Ray task: says ``started``, the ``log`` where no folder is shared, then how the job ended."""
    _hear_cancel()
    yield "started", ""
    if not log:
        if Path(folder).is_dir():
            os.chdir(folder)
        with own_folder("log") as place:
            own = place / "log"
            with printing_to(own):
                ended = attempt(find_work(work), spec)
            yield "log", own.read_text(encoding="utf-8", errors="replace")
        yield ended
        return
    unseen = [place for place in (folder, str(Path(log).parent)) if not Path(place).is_dir()]
    if unseen:
        here = socket.gethostname()
        yield "failed", f"machine {here} does not see {unseen[0]}: `ray` needs a folder that all machines share"
        return
    os.chdir(folder)
    with printing_to(Path(log)):
        try:
            with _alone(Path(log)):
                ended = attempt(find_work(work), spec)
        except RunError as error:
            ended = "failed", error.message
    yield ended


def _hear_cancel() -> None:
    """Ray cancels a task with SIGINT, which workers ignore where ``ray start`` ran in the background of a script."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _alone(log: Path) -> Iterator[None]:
    """Wait until no other attempt at the job holds its log, then hold it.

    Raises:
        RunError: another attempt does not let go.
    """
    until = time.monotonic() + LEASE_S
    with log.open("a") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise RunError(f"another attempt still works on it after {LEASE_S:.0f} s") from error
                time.sleep(0.2)
        yield


def import_ray() -> Any:
    """The module ``ray``, kept from printing into the grid's output.

    Raises:
        EnvironmentProblem: it is not installed.
    """
    # Even with log_to_driver=False a lost worker is told on standard output; read when Ray is imported.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "(?s).*")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise EnvironmentProblem(
            "`ray` needs Ray, which is not installed", hint='pip install "samo-emotion[cluster]"'
        ) from error


def _connect(address: str) -> Any:
    ray = import_ray()
    if "://" in address:
        raise SettingsError(
            f"`ray={address}`: no Ray Client addresses",
            hint="on a machine of the cluster: `ray=auto`, or `ray=HOST:6379`",
        )
    from ray._private.services import canonicalize_bootstrap_address_or_die

    no_cluster = f"`ray={address}`: no Ray cluster answers"
    hint = "start one with ray start --head, add this machine with ray start --address=HOST:6379, then `ray=auto`"
    before = signal.getsignal(signal.SIGTERM)
    try:
        found = canonicalize_bootstrap_address_or_die(address)
        # Ray itself tries for two minutes and then leaves the process.
        if not _answers(found):
            raise EnvironmentProblem(f"{no_cluster} at {found}", hint=hint)
        ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
    except ValueError as error:
        raise SettingsError(f"`ray` '{address}': write auto or HOST:PORT") from error
    except (ConnectionError, RuntimeError, OSError, SystemExit) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise EnvironmentProblem(f"{no_cluster}: {reason}", hint=hint) from error
    finally:
        # Ray takes SIGTERM for itself; the grid's end is noticed by its workers either way.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    return ray


def _answers(address: str) -> bool:
    """Whether a gRPC server listens, as the head of a cluster does: its first HTTP/2 frame is SETTINGS (RFC 9113)."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_S) as line:
            if os.environ.get("RAY_USE_TLS") == "1":
                return True
            line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            frame = line.recv(9)
            return len(frame) >= 4 and frame[3] == 4
    except OSError:
        return False
