"""Where a run happens: device, precision, memory format, threads, processes. Never part of what the run is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from samo.errors import SettingsError
from samo.training.allocator import keep_freed_memory
from samo.training.machine import machine
from samo.training.ranks import ALONE, Ranks
from samo.training.sync_batchnorm import convert_sync_batchnorm

__all__ = ["PRECISIONS", "Runtime", "environment", "make_runtime", "step_seed"]

PRECISIONS = ("auto", "float32", "bf16", "fp16")


@dataclass(frozen=True)
class Runtime:
    """Resolved choices; the only place that knows devices.

    Attributes:
        device: where tensors live.
        precision: ``float32``, ``bf16`` or ``fp16`` (autocast; weights stay float32).
        channels_last: memory format of convolutions.
        threads: CPU threads torch uses.
        ranks: this process among those that train together.
    """

    device: torch.device
    precision: str
    channels_last: bool
    threads: int
    ranks: Ranks = ALONE

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Run the enclosed forward pass in this runtime's precision."""
        if self.precision == "float32":
            yield
            return
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        with torch.autocast(self.device.type, dtype=dtype):
            yield

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in the memory format."""
        model = model.to(self.device)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def shared(self, model: nn.Module) -> nn.Module:
        """Make a placed model one with those of the other processes: same weights, batch norm over all rows."""
        if self.ranks.world_size > 1:
            model = convert_sync_batchnorm(model, self.ranks.all_reduce)
            # Equal seeds do not draw equal weights on unequal machines.
            model.load_state_dict(self.ranks.broadcast(lambda: {k: v.cpu() for k, v in model.state_dict().items()}))
        return model

    def alone(self) -> Runtime:
        """The same place for what one process does by itself."""
        return replace(self, ranks=ALONE)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, active only for fp16, whose small gradients would vanish."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def describe(self) -> str:
        """One line for people."""
        layout = "channels-last" if self.channels_last else "channels-first"
        several = f", {self.ranks.world_size} processes ({self.ranks.backend})" if self.ranks.world_size > 1 else ""
        return f"{self.device.type}, {self.precision}, {layout}, {self.threads} threads{several}"


def cpu_has_fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AMX, AVX512-BF16 or Arm BF16)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") or capabilities.get("bf16"))


def make_runtime(device: str = "auto", precision: str = "auto", threads: int = 0, ranks: Ranks = ALONE) -> Runtime:
    """Resolve ``auto`` by known rules, so that the same machine always chooses alike.

    Where the C library is glibc, the process keeps freed memory for its next tensors from here on, see
    :func:`samo.training.allocator.keep_freed_memory`.

    bf16 with channels-last wherever the hardware multiplies bf16 (measured in ``benchmarks/precision.py``), fp16 on
    older GPUs, float32 with torch's own layout everywhere else. Of several processes each takes the GPU of its local
    rank; on CPUs they divide the cores.

    Raises:
        SettingsError: unknown device or precision, or one this machine lacks, or one the processes do not share.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
        raise SettingsError(f"`threads` {threads!r}: a number of CPU threads, 0 = as torch chooses")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.local_size > 1 and device.startswith("cuda:"):
        raise SettingsError(f"`device={device}`: one GPU for several processes", hint="`device=cuda` gives each one")
    if ranks.world_size > 1 and device == "cuda":
        device = f"cuda:{ranks.local_rank}"
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise SettingsError(f"`device={device}`: not a device torch knows", hint="valid: auto, cpu, cuda") from error
    if place.type not in ("cpu", "cuda"):
        raise SettingsError(f"`device={device}`: not supported", hint="valid: auto, cpu, cuda")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"`device={device}`: no CUDA device is visible", hint="use `device=cpu`")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"`device={device}`: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    if precision not in PRECISIONS:
        raise SettingsError(f"`precision={precision}`: unknown", hint=f"valid: {', '.join(PRECISIONS)}")
    if precision == "fp16" and place.type == "cpu":
        raise SettingsError("`precision=fp16` needs a GPU", hint="use bf16 or float32 on a CPU")
    if precision == "auto":
        precision = _best_precision(place)
    if ranks.world_size > 1 and threads == 0 and place.type == "cpu":
        threads = max(1, _cores() // ranks.local_size)
    if threads > 0:
        torch.set_num_threads(threads)
    keep_freed_memory()
    ranks.require_equal("`precision`", precision, SettingsError)
    ranks.connect(place)
    return Runtime(place, precision, precision != "float32", torch.get_num_threads(), ranks)


def step_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Seed of torch's global generator (dropout) in an epoch: a function of what is trained, not of how it got there.

    Each rank draws masks of its own, so with dropout several processes train differently (not worse) than one does.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{epoch}:{rank}".encode()).digest()[:7], "little")


def environment(runtime: Runtime | None = None) -> dict[str, Any]:
    """Versions and hardware, for ``environment.json`` and ``samo doctor``: what Python sees, and what torch does."""
    seen: dict[str, Any] = {
        **machine(),
        "gpus": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())],
        "fast_bf16_cpu": cpu_has_fast_bf16(),
        "keeps_freed_memory": keep_freed_memory(),
    }
    if runtime:
        seen["runtime"] = {
            "device": str(runtime.device),
            "precision": runtime.precision,
            "channels_last": runtime.channels_last,
            "threads": runtime.threads,
        }
        if runtime.ranks.world_size > 1:
            seen["runtime"] |= {"processes": runtime.ranks.world_size, "backend": runtime.ranks.backend}
    return seen


def _best_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and cpu_has_fast_bf16():
        return "bf16"
    return "float32"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
