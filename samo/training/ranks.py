"""The processes of one training: joining, sharing rows, adding up, and leaving together when one of them fails."""

from __future__ import annotations

import gc
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from samo.errors import DataError, Interrupted, RankLost, SettingsError

__all__ = ["ALONE", "Ranks", "process_group"]

T = TypeVar("T")

# Collectives of a training step wait this long for the slowest process: a lost machine ends the others in a minute.
STEP_TIMEOUT_S = 40.0
# Decoding, downloads, validation and writing may take their time; a process that dies ends these waits at once too.
PATIENCE_S = 2 * 3600.0
# How long a process that leaves waits to learn whether the others leave as well, or vanished.
ROLL_CALL_S = 5.0
# Whoever was stopped by a signal knows more than those who only miss it.
HEAD_START_S = 0.5

_JOB = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Ranks:
    """This process among those that train one model; with a single process every method is a no-op.

    Attributes:
        rank: number of this process, from 0; rank 0 alone writes and prints.
        world_size: processes in all.
        local_rank: number of this process on its machine, from 0.
        local_size: processes on this machine.
        backend: ``gloo`` or ``nccl`` once :meth:`connect` chose it, empty with a single process.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size
        self.local_rank, self.local_size = local_rank, local_size
        self.backend = ""
        self._steps: dist.ProcessGroup | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        """A copied model still speaks to the same processes."""
        return self

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def connect(self, device: torch.device) -> None:
        """Open the channel gradients travel on: NCCL between GPUs, gloo between CPUs.

        Raises:
            SettingsError: the processes do not train on the same kind of device.
        """
        if self.world_size > 1:
            self.require_equal("the device", device.type, SettingsError)
            self.backend = "nccl" if device.type == "cuda" else "gloo"
            if device.type == "cuda":
                torch.cuda.set_device(device)
            with _reaching():
                self._steps = dist.new_group(backend=self.backend, timeout=timedelta(seconds=STEP_TIMEOUT_S))

    def part(self, n: int) -> slice:
        """The contiguous part of ``n`` rows that falls to this process; parts differ by one row at most."""
        return slice(n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size)

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, of any shape, by its sum over the processes; one message for all of them."""
        if self.world_size > 1:
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
            with _reaching():
                dist.all_reduce(flat, group=self._steps)
            with torch.no_grad():
                for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                    tensor.copy_(total.view_as(tensor))

    def gather_rows(self, values: np.ndarray) -> None:
        """Fill in what the others computed: each process gives its own :meth:`part` of rows and zeros elsewhere."""
        if self.world_size > 1:
            with _reaching():
                dist.all_reduce(torch.from_numpy(values))

    def broadcast(self, make: Callable[[], T]) -> T:
        """What ``make`` returns in the first process; the others are told."""
        if self.world_size == 1:
            return make()
        box = [make() if self.is_first else None]
        with _reaching():
            dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def require_equal(self, what: str, value: object, kind: type[DataError] | type[SettingsError]) -> None:
        """Refuse to train together on different things.

        Raises:
            DataError, SettingsError: ``value`` is not the same in all processes; of the given ``kind``.
        """
        if self.world_size > 1:
            values: list[object] = [None] * self.world_size
            with _reaching():
                dist.all_gather_object(values, value)
            odd = [str(rank) for rank, other in enumerate(values) if other != values[0]]
            if odd:
                raise kind(f"{what} of rank {', '.join(odd)} differs from that of rank 0", hint="start all alike")

    def wait(self) -> None:
        """Go on when all processes came here."""
        if self.world_size > 1:
            with _reaching():
                dist.barrier()

    @contextmanager
    def local_rank_first(self) -> Iterator[None]:
        """One process of each machine runs the body first (decodes, downloads), the others find its result."""
        if self.local_rank > 0:
            self.wait()
        yield
        if self.local_rank == 0:
            self.wait()

    def close(self) -> None:
        """Close the connections: whoever waits for this process learns that it left."""
        self._steps = None
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()
        # gloo closes its sockets when the last reference goes.
        gc.collect()


ALONE = Ranks()


@contextmanager
def process_group() -> Iterator[Ranks]:
    """Join the other processes where ``torchrun`` (or its environment variables) started several.

    When the body fails, one process says why and the others leave silently. A process that was killed says nothing:
    then the lowest that notices names it.

    Raises:
        RankLost: a process ended without a word.
        SystemExit: this process leaves because of an error that another one reports.
    """
    if any(name not in os.environ for name in _JOB) or int(os.environ["WORLD_SIZE"]) == 1:
        yield ALONE
        return
    store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(seconds=PATIENCE_S)))
    ranks = Ranks(rank, size, int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
    # Python's SIGTERM would end the process before it could say anything.
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with _reaching():
            dist.init_process_group(
                "gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=PATIENCE_S)
            )
        yield ranks
        store.set(f"samo/left/{rank}", "done")
    except BaseException as error:
        # torchrun sends SIGTERM as soon as one process is gone; what happened is still to be told.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _leave(ranks, store, error)
    finally:
        ranks.close()
        signal.signal(signal.SIGTERM, before)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


def _leave(ranks: Ranks, store: dist.Store, error: BaseException) -> NoReturn:
    """End with ``error`` if it is this process that reports, silently otherwise."""
    status = error.code if isinstance(error, SystemExit) else getattr(error, "exit_status", 1)
    forced = isinstance(error, RankLost | Interrupted | KeyboardInterrupt | SystemExit)
    _forget_frames(error)
    try:
        if not forced and store.add("samo/reason", 1) > 1:
            raise SystemExit(status)
        store.set(f"samo/left/{ranks.rank}", "failed")
        ranks.close()
        if not forced:
            raise error
        vanished = _roll_call(ranks, store)
        if isinstance(error, RankLost) and not vanished:
            time.sleep(HEAD_START_S)
        if store.add("samo/reason", 1) > 1:
            raise SystemExit(status)
    except dist.DistError:
        # The store went with the process that kept it.
        raise error from None
    if vanished:
        raise RankLost(
            f"rank {', '.join(map(str, vanished))} of the {ranks.world_size} processes of this training ended without a"
            " word, or hangs: killed, out of memory, or its machine is lost",
            hint="go on from the last whole epoch with `resume`, under torchrun or alone",
        ) from None
    raise error


def _roll_call(ranks: Ranks, store: dist.Store) -> list[int]:
    """Wait until every process left; the ranks that did not, none once somebody gave the reason."""
    until = time.monotonic() + ROLL_CALL_S
    while True:
        missing = [rank for rank in range(ranks.world_size) if not store.check([f"samo/left/{rank}"])]
        if not missing or store.check(["samo/reason"]):
            return []
        if time.monotonic() > until:
            return missing
        time.sleep(0.05)


@contextmanager
def _reaching() -> Iterator[None]:
    """Say it in words when the others cannot be reached; gloo and NCCL raise nothing finer than RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RankLost(f"the other processes of this training do not answer: {reason}") from error


def _forget_frames(error: BaseException | None) -> None:
    """Frames of an error hold the channels open they failed on."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
