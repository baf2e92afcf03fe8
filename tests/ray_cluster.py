"""A real Ray cluster on this machine, of nodes that can be killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SMALL: dict[str, Any] = {"object_store_memory": 80_000_000, "num_gpus": 0}


def needs_ray(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that starts a cluster: slow, and skipped where Ray is not installed."""
    missing = importlib.util.find_spec("ray") is None
    marked: Callable[..., None] = pytest.mark.skipif(missing, reason='pip install "samo-emotion[cluster]"')(test)
    return pytest.mark.slow(marked)


class Nodes:
    """A head that takes no tasks, and nodes of some CPUs, real or not."""

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        from samo.launch.ray import import_ray

        import_ray()
        from ray.cluster_utils import Cluster

        # Workers begin where their node began, and the folder of the test that made it is deleted when it has passed.
        with chdir(HERE):
            self.cluster = Cluster(
                initialize_head=True, head_node_args={**SMALL, "num_cpus": 0, "include_dashboard": False}
            )
        self.alive: list[Any] = []

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def grow_to(self, n: int) -> None:
        while len(self.alive) < n:
            with chdir(HERE):
                self.alive.append(self.cluster.add_node(**SMALL, num_cpus=self.cpus))

    def kill_under(self, process: int) -> None:
        """Kill the node that a worker process runs on, and the process with it, as a power cut would."""
        raylet = _parent(process)
        (node,) = [node for node in self.alive if raylet in [info.process.pid for info in node.all_processes["raylet"]]]
        self.alive.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@contextmanager
def nodes(cpus: int = 1) -> Iterator[Nodes]:
    before = signal.getsignal(signal.SIGTERM)
    # A test run begun in the background of a shell hands down an ignored SIGINT, and Ray cancels tasks with that.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    made = Nodes(cpus)
    try:
        yield made
    finally:
        made.cluster.shutdown()
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)


def wait_for(true: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
