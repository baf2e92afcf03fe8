"""Several processes train as one: the same losses, the same score, and an end that one of them explains."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rank_process as ranks
import tiny_frontend as tiny
import torch
from torch import nn

from samo.data.batch import Draws, draw_mix, part_of
from samo.errors import DataError
from samo.training.ranks import ALONE, Ranks, process_group
from samo.training.runtime import make_runtime
from samo.training.setup import Setup
from samo.training.sync_batchnorm import SyncBatchNorm, convert_sync_batchnorm
from samo.training.trainer import fit

SIZES = (3, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three processes found, which then became two."""
    place = tmp_path_factory.mktemp("ranks")
    ports = [str(port) for port in free_ports(7)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, ranks.__file__, str(place), str(rank), *ports],
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    errors = [process.communicate(timeout=500)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, -9, 0], errors
    return place


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """By rank: what the sessions found."""
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(3)]


def free_ports(n: int) -> list[int]:
    opened = [socket.socket() for _ in range(n)]
    for one in opened:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in opened]
    for one in opened:
        one.close()
    return ports


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """The same trainings in one process."""
    return {name: ranks.trained(case, tiny.RUNTIME) for name, case in ranks.CASES.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("case", "size"), [(case, size) for size in SIZES for case in ranks.cases_of(size)])
def test_several_processes_train_as_one(
    case: str, size: int, found: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    one = alone[case]
    for rank in range(size):
        several = found[rank][str(size)]["cases"][case]
        np.testing.assert_allclose(several["steps"], one["steps"], atol=1e-5, rtol=0)
        assert several["best"] == one["best"]
        for row, expected in zip(several["history"], one["history"], strict=True):
            assert row["val_macro_f1"] == expected["val_macro_f1"]
            assert row == pytest.approx(expected, abs=1e-5)
        assert several["weights"].keys() == one["weights"].keys()
        for name, weights in one["weights"].items():
            np.testing.assert_allclose(several["weights"][name], weights, atol=2e-4, err_msg=name)
        # All ranks hold the very same weights, and would judge alike.
        assert several == found[0][str(size)]["cases"][case]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_one_process_goes_on_with_what_several_began(size: int, folder: Path, alone: dict[str, Any]) -> None:
    case = ranks.CASES["rich"]
    settings = {name: value for name, value in case.items() if name not in ("norm", "maps", "windows", "tasks")}
    front = ranks.Frontend(tiny.TinyConfig.build(settings), *tiny.corpus(tiny.BOTH), windows=2)
    front.norm = True
    state, plan = tiny.begin(front)
    state.load_state_dict(torch.load(folder / f"half-{size}.ckpt", weights_only=True))
    assert state.epoch == 2
    fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    losses = [[row["train_loss"], row["val_loss"], row["val_macro_f1"]] for row in state.history]
    expected = [[row["train_loss"], row["val_loss"], row["val_macro_f1"]] for row in alone["rich"]["history"]]
    np.testing.assert_allclose(losses, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_what_the_processes_share(size: int, found: list[dict[str, Any]]) -> None:
    here = [found[rank][str(size)] for rank in range(size)]
    assert [one["told"] for one in here] == ["by 0"] * size
    assert [one["sum"] for one in here] == [[size * (size + 1) / 2] * 2] * size
    assert all(one["prepared"] > here[0]["prepared"] for one in here[1:])
    cores = len(os.sched_getaffinity(0))
    seen = {"device": "cpu", "precision": "float32", "channels_last": False, "threads": max(1, cores // size)}
    assert here[0]["seen"] == {**seen, "processes": size, "backend": "gloo"}
    assert here[0]["described"].endswith(f", {size} processes (gloo)")
    refused = [
        "the data of rank 1 differs from that of rank 0",
        "`device=cuda:0`: one GPU for several processes",
    ]
    assert [one["refused"] for one in here] == [refused] * size
    assert len({one["drawn"] for one in here}) == size, "ranks drew the same dropout masks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reports"),
    [
        ("error", ["", "rank 1 met something"]),
        ("signal", ["stopped by a signal", ""]),
        ("finished", ["stopped by a signal", ""]),
    ],
)
def test_one_process_says_why_it_ends(how: str, reports: list[str], found: list[dict[str, Any]]) -> None:
    assert [found[rank][how]["reports"] for rank in range(2)] == reports


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hangs", "killed"])
def test_a_lost_process_is_named(how: str, found: list[dict[str, Any]]) -> None:
    left = found[0][how]
    assert left["reports"].startswith("rank 1 of the 2 processes of this training ended without a word")
    assert "`resume`" in left["hint"]
    assert left["seconds"] < 30
    assert "killed" not in found[1]


def test_each_process_takes_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(Ranks, "require_equal", lambda *_: None)
    monkeypatch.setattr(Ranks, "connect", lambda *_: None)
    for device in ("auto", "cuda"):
        assert make_runtime(device, "float32", 0, Ranks(3, 4, 1, 2)).device == torch.device("cuda:1")
    # One process on each of two machines may name its GPU.
    assert make_runtime("cuda:1", "float32", 0, Ranks(1, 2, 0, 1)).device == torch.device("cuda:1")
    with pytest.raises(ranks.SettingsError, match="there are 2 CUDA devices"):
        make_runtime("auto", "float32", 0, Ranks(2, 3, 2, 3))


def test_alone_everything_is_a_no_op(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with process_group() as ranks:
        assert ranks is ALONE
    model, ones, values = nn.BatchNorm1d(2), torch.ones(2), np.ones((2, 2))
    ranks.all_reduce([ones])
    ranks.gather_rows(values)
    ranks.require_equal("nothing", object(), DataError)
    ranks.wait()
    assert (ranks.broadcast(lambda: 3), ones.tolist(), values.sum(), ranks.is_first) == (3, [1.0, 1.0], 4.0, True)
    assert ranks.part(5) == slice(0, 5)
    assert make_runtime("cpu", "float32").shared(model) is model


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [0, 1, 4, 7, 9])
def test_parts_are_even_and_whole(n: int, size: int) -> None:
    parts = [list(range(n))[Ranks(rank, size).part(n)] for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("size", [2, 3, 5])
def test_parts_of_a_mixed_batch_mix_as_the_whole(size: int) -> None:
    rows = np.array([7, 3, 3, 9])
    # The second 3 is the same row, drawn again.
    draws = Draws(0, 0, rows, np.array([0, 0, 1, 0]))
    mix = draw_mix(draws, 0.4)
    assert mix is not None
    whole = draws.uniform("crop")[:, 0]
    values = torch.from_numpy(rows**2).double()
    mixed = []
    for rank in range(size):
        part = Ranks(rank, size).part(4)
        own, local = part_of(draws, mix, part)
        assert local is not None
        assert len(own.rows) > 0
        mixed.append(local.apply(torch.from_numpy(own.rows**2).double()))
        np.testing.assert_array_equal(own.uniform("crop")[: len(local.weight), 0], whole[part])
    torch.testing.assert_close(torch.cat(mixed), mix.apply(values), atol=0, rtol=0)
    assert part_of(draws, mix, slice(0, 4)) == (draws, mix)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_shared_norm_of_one_process_is_batch_norm(momentum: float | None, affine: bool) -> None:
    torch.manual_seed(1)
    plain = nn.BatchNorm2d(3, momentum=momentum, affine=affine)
    if affine:
        nn.init.normal_(plain.weight)
        nn.init.normal_(plain.bias)
    shared = SyncBatchNorm.of(nn.BatchNorm2d(3, momentum=momentum, affine=affine), lambda tensors: None)
    shared.load_state_dict(plain.state_dict())
    for _ in range(2):
        values = [(torch.randn(4, 3, 5, 2) * 3 + 40).requires_grad_()]
        values.append(values[0].detach().clone().requires_grad_())
        answers = [norm(given) for norm, given in zip((plain, shared), values, strict=True)]
        torch.testing.assert_close(answers[1], answers[0], atol=1e-5, rtol=1e-5)
        for answer in answers:
            (answer**3).sum().backward()
        torch.testing.assert_close(values[1].grad, values[0].grad, atol=1e-4, rtol=1e-4)
    for one, other in zip(plain.parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(shared.state_dict(), plain.state_dict())
    torch.testing.assert_close(shared.eval()(values[0]), plain.eval()(values[0]))


def test_shared_norms_keep_parameters_and_refuse_a_single_value() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2)))
    parameters = list(model.parameters())
    shared = convert_sync_batchnorm(model, lambda tensors: None)
    assert all(one is other for one, other in zip(shared.parameters(), parameters, strict=True))
    assert isinstance(convert_sync_batchnorm(nn.BatchNorm1d(2), lambda tensors: None), SyncBatchNorm)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        shared(torch.ones(1, 2))
