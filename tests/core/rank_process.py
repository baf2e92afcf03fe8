"""One of the processes that train together: ``python rank_process.py FOLDER RANK PORT...``; for test_distributed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_frontend as tiny
import torch
import torch.distributed as dist
from tiny_frontend import BOTH, QUICK, RICH
from torch import nn

from samo.errors import DataError, Interrupted, SamoError, SettingsError
from samo.training import ranks as peers_module
from samo.training.ranks import ALONE, Ranks, process_group
from samo.training.runtime import Runtime, environment, make_runtime
from samo.training.setup import Setup
from samo.training.trainer import fit

NORM = {**QUICK, "hidden": 8}
STORES: list[dist.TCPStore] = []
# What is trained by one process and by several; with --dropout they differ on purpose.
CASES: dict[str, dict[str, Any]] = {
    "plain": QUICK,
    "uneven": {**QUICK, "batch_size": 7},
    "norm": {**NORM, "norm": True, "batch_size": 7},
    "norm over maps": {**NORM, "norm": True, "maps": True},
    "accumulation": {**QUICK, "batch_size": 5, "grad_accum": 3},
    "mixup": {**NORM, "batch_size": 7, "mixup_alpha": 0.4},
    "ema": {**NORM, "norm": True, "ema_decay": 0.9},
    "averaged": {**NORM, "norm": True, "epochs": 8, "keep": "average"},
    "balanced": {**QUICK, "balanced_sampler": True},
    "clipped": {**QUICK, "max_grad_norm": 0.1, "grad_centralisation": True},
    "empty share": {**NORM, "norm": True, "maps": True, "batch_size": 2, "mixup_alpha": 0.4},
    "asymmetric": {**QUICK, "batch_size": 5, "asymmetric_loss": True, "joint_alpha": 0.5, "tasks": True},
    "two passes": {**NORM, "norm": True, "batch_size": 7, "rdrop_alpha": 2.0, "alternating": True, "tasks": True},
    "frozen and by size": {**NORM, "batch_size": 5, "hidden_from": 1, "hidden_lr": 0.5, "by_size": True},
    "rich": {**RICH, "dropout": 0.0, "norm": True, "batch_size": 5, "windows": 2, "tasks": True},
}


def cases_of(size: int) -> list[str]:
    """Three processes train every case, two the telling ones; the last one's middle is kept."""
    return list(CASES) if size == 3 else ["uneven", "norm", "rich"]


class Normed(nn.Module):
    """A tiny model's hidden layer with batch norm, over rows or over maps; one parameter is never used."""

    def __init__(self, width: int, maps: bool) -> None:
        super().__init__()
        self.maps = maps
        # Batch norm cancels a bias: its gradient is rounding error, which AdamW blows up to whole steps.
        self.linear = nn.Linear(tiny.N_FEATURES, width, bias=maps)
        self.norm: nn.Module = nn.BatchNorm2d(width // 2) if maps else nn.BatchNorm1d(width)
        self.spare = nn.Parameter(torch.ones(2, 2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.linear(inputs)
        shape = (len(hidden), hidden.shape[1] // 2, 2, 1) if self.maps else hidden.shape
        return torch.relu(self.norm(hidden.reshape(shape)).reshape(hidden.shape))


class Alternating(nn.Module):
    """What dropout would be if all processes drew alike: every second pass sees but half of the units."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.passes += 1
            half = hidden.shape[1] // 2
            hidden = torch.cat([hidden[:, :half], hidden[:, half:] * (self.passes % 2)], dim=1)
        return hidden


class Frontend(tiny.TinyFrontend):
    """A tiny frontend whose model may have batch norm."""

    norm = maps = alternating = False

    def new_model(self) -> nn.Module:
        model = super().new_model()
        if self.norm:
            model.hidden = Normed(self.config.model.hidden, self.maps)
        if self.alternating:
            model.drop = Alternating()
        return model


def trained(case: dict[str, Any], runtime: Runtime, kept: Callable[..., None] | None = None) -> dict[str, Any]:
    """Train a case; every number that must not depend on the number of processes."""
    others = ("norm", "maps", "windows", "tasks", "alternating")
    settings = {name: value for name, value in case.items() if name not in others}
    manifest_and_rows = tiny.corpus(BOTH if case.get("tasks") else None)
    front = Frontend(tiny.TinyConfig.build(settings), *manifest_and_rows, windows=case.get("windows", 1))
    front.norm, front.maps = case.get("norm", False), case.get("maps", False)
    front.alternating = case.get("alternating", False)
    # Only the first process's weights count.
    torch.manual_seed(runtime.ranks.rank)
    plan = tiny.plan_of(front)
    state = tiny.new_state(front.new_model(), plan, runtime)
    steps: list[float] = []
    watch = tiny.Silent()
    watch.on_step = lambda epoch, step, n_steps, loss: steps.append(loss)  # type: ignore[method-assign]
    fit(state, Setup(front, runtime), plan, watch, kept or (lambda state, improved: None))
    return {
        "steps": steps,
        "history": [{k: v for k, v in row.items() if k != "seconds"} for row in state.history],
        "best": state.best_epoch,
        "weights": {name: tensor.flatten().tolist() for name, tensor in state.eval_weights().items()},
    }


def collectives(ranks: Ranks) -> dict[str, Any]:
    """What the methods of Ranks return here."""
    runtime = make_runtime("cpu", "float32", 0, ranks)
    order: list[str] = []
    with ranks.local_rank_first():
        order.append("body")
        time.sleep(0.3 * ranks.is_first)
        prepared = time.monotonic()
    mine = torch.full((2,), float(ranks.rank + 1))
    ranks.all_reduce([mine, torch.zeros(3)])
    found: dict[str, Any] = {
        "told": ranks.broadcast(lambda: f"by {ranks.rank}"),
        "sum": mine.tolist(),
        "prepared": prepared,
        "seen": environment(runtime)["runtime"],
        "described": runtime.describe(),
        "refused": [],
    }
    for call in (
        lambda: ranks.require_equal("the data", ranks.rank == 1, DataError),
        lambda: make_runtime("cuda:0", "float32", 0, ranks),
    ):
        try:
            call()
        except (DataError, SettingsError) as error:
            found["refused"].append(error.message)
    trained({**QUICK, "hidden": 8, "dropout": 0.5}, runtime)
    found["drawn"] = torch.rand(1).item()
    return found


def first_session(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Every case, and the collectives."""
    runtime = make_runtime("cpu", "float32", 1, ranks)

    def keep(state: Any, improved: bool) -> None:
        if ranks.is_first and state.epoch == 2 and state.ema:
            torch.save(state.state_dict(), folder / f"half-{ranks.world_size}.ckpt")

    results = {name: trained(CASES[name], runtime, keep) for name in cases_of(ranks.world_size)}
    return {"cases": results, **collectives(ranks)}


def fail(ranks: Ranks, how: str) -> None:
    """End in one of the ways a training ends."""
    runtime = make_runtime("cpu", "float32", 1, ranks)
    ranks.wait()
    if how == "error" and ranks.rank == 1:
        raise SamoError("rank 1 met something")
    if how == "signal" and ranks.rank == 0:
        raise Interrupted("stopped by a signal")
    if how == "finished" and ranks.rank == 1:
        return
    if how == "finished":
        time.sleep(0.2)
        raise Interrupted("stopped by a signal")
    if how == "hangs" and ranks.rank == 1:
        time.sleep(7)
    if how == "killed" and ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        runtime.ranks.all_reduce([torch.zeros(4)])


def ending(how: str) -> dict[str, Any]:
    """How a session ends in this process: what it reports, if anything."""
    started = time.monotonic()
    try:
        with process_group() as ranks:
            fail(ranks, how)
    except SamoError as error:
        return {"reports": error.message, "hint": error.hint, "seconds": time.monotonic() - started}
    except SystemExit as leave:
        return {"reports": "", "status": leave.code, "seconds": time.monotonic() - started}
    return {"reports": "", "status": 0}


def main() -> None:
    """Two sessions of trainings with all and with two processes, then the ways to end."""
    folder, rank, ports = Path(sys.argv[1]), int(sys.argv[2]), iter(sys.argv[3:])
    found: dict[str, Any] = {}

    def write() -> None:
        (folder / f"rank{rank}.json").write_text(json.dumps(found))

    for size in (3, 2):
        port = next(ports)
        if rank < size:
            place(rank, size, port)
            with process_group() as ranks:
                found[str(size)] = first_session(folder, ranks)
            write()
    if rank < 2:
        peers_module.STEP_TIMEOUT_S, peers_module.ROLL_CALL_S = 3.0, 1.5
        for how in ("error", "signal", "finished", "hangs", "killed"):
            place(rank, 2, next(ports))
            found[how] = ending(how)
            write()


def place(rank: int, size: int, port: str) -> None:
    """The environment torchrun gives."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
    # As with torchrun the store outlives the session: the first process plays the agent.
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    if rank == 0:
        STORES.append(dist.TCPStore("127.0.0.1", int(port), is_master=True, wait_for_workers=False))


if __name__ == "__main__":
    assert ALONE.world_size == 1
    main()
