"""On what trainings run, and how many at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from samo.errors import SettingsError

if TYPE_CHECKING:
    from samo.launch.local import Launcher

__all__ = ["Resources", "count_gpus", "make_launcher"]


@dataclass(frozen=True)
class Resources:
    """On what trainings run; nothing here changes what a training is.

    Attributes:
        workers: how many at once; 0 = one for each GPU, else for each core, at most 8; on Ray as many as fit.
        threads: CPU threads of each; 0 divides the cores.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``float32``, ``bf16`` or ``fp16``.
        ray: address of a Ray cluster, ``auto`` or ``HOST:PORT``; empty for this machine.
        store: fsspec URL at which the machines of the cluster keep runs where they share no folder.

    Raises:
        SettingsError: a store without a cluster, which would do nothing.
    """

    workers: int = 0
    threads: int = 0
    device: str = "auto"
    precision: str = "auto"
    ray: str = ""
    store: str = ""

    def __post_init__(self) -> None:
        if self.store and not self.ray:
            raise SettingsError("`store` acts only together with `ray`", hint="add `ray=auto`, or leave it out")


@contextmanager
def make_launcher(work: str, resources: Resources, n_jobs: int) -> Iterator[Launcher]:
    """Worker processes on this machine, or tasks on a Ray cluster for as long as the block lasts.

    Args:
        work: the function that does a job, as ``module:function``; it receives the job's ``spec``.
        resources: on what.
        n_jobs: how many jobs there are.

    Raises:
        EnvironmentProblem, SettingsError: there is no such Ray cluster, or it cannot take a job.
    """
    if resources.ray:
        from samo.launch.ray import ray_launcher

        share = (n_jobs, resources.workers, resources.threads, resources.device)
        with ray_launcher(work, resources.ray, *share, shared=not resources.store) as launcher:
            yield launcher
        return
    from samo.launch.local import LocalLauncher, share_of_cores

    gpus = count_gpus(resources.device)
    yield LocalLauncher(work, *share_of_cores(n_jobs, resources.workers, resources.threads, gpus), gpus)


def count_gpus(device: str) -> int:
    """How many GPUs of this machine may be used."""
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()
