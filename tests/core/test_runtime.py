"""Where a run happens: resolved by rules, refused when the machine lacks it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from samo.errors import SettingsError
from samo.training import machine
from samo.training import runtime as module
from samo.training.runtime import PRECISIONS, Runtime, environment, make_runtime, step_seed

CPU = torch.device("cpu")


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("without_cuda")
@pytest.mark.parametrize("fast", [False, True])
def test_auto_on_a_cpu(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(module, "cpu_has_fast_bf16", lambda: fast)
    found = make_runtime()
    assert found.device == CPU
    assert found.precision == ("bf16" if fast else "float32")
    assert found.channels_last is fast
    assert found.threads == torch.get_num_threads()


@pytest.mark.parametrize("bf16", [False, True])
def test_auto_on_a_gpu(monkeypatch: pytest.MonkeyPatch, bf16: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    found = make_runtime()
    assert found.device == torch.device("cuda")
    assert found.precision == ("bf16" if bf16 else "fp16")
    assert make_runtime("cuda:1", "float32").device.index == 1
    with pytest.raises(SettingsError, match="`device=cuda:2`: there are 2 CUDA devices, counted from 0"):
        make_runtime("cuda:2")


@pytest.mark.usefixtures("without_cuda")
@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("gpu", "auto", "`device=gpu`: not a device torch knows"),
        ("cuda", "auto", "`device=cuda`: no CUDA device is visible"),
        ("cuda:0", "auto", "`device=cuda:0`: no CUDA device is visible"),
        ("meta", "auto", "`device=meta`: not supported"),
        ("xpu", "auto", "`device=xpu`: not supported"),
        ("cpu", "int8", "`precision=int8`: unknown"),
        ("cpu", "fp16", "`precision=fp16` needs a GPU"),
    ],
)
def test_refused(device: str, precision: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_runtime(device, precision)


@pytest.mark.usefixtures("without_cuda")
@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "fp16"])
def test_every_precision_of_the_cpu(precision: str) -> None:
    found = make_runtime("cpu", precision)
    net = found.place(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 2)))
    with found.autocast():
        logits = net(torch.ones(3, 2, 4, 4))
    assert logits.dtype == (torch.bfloat16 if found.precision == "bf16" else torch.float32)
    assert next(net.parameters()).dtype == torch.float32
    assert found.precision in found.describe()
    assert not found.scaler().is_enabled()


def test_memory_format() -> None:
    def weight(channels_last: bool) -> torch.Tensor:
        placed = Runtime(CPU, "bf16", channels_last, 1).place(nn.Conv2d(3, 4, 3))
        return placed.get_parameter("weight")

    assert weight(True).is_contiguous(memory_format=torch.channels_last)
    assert weight(False).is_contiguous()
    assert "channels-last" in Runtime(CPU, "bf16", True, 1).describe()
    assert "channels-first" in Runtime(CPU, "bf16", False, 1).describe()


@pytest.mark.usefixtures("without_cuda")
def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        assert make_runtime("cpu", "float32", 2).threads == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_scaler_only_for_fp16() -> None:
    assert Runtime(torch.device("cpu"), "fp16", False, 1).scaler().is_enabled()
    assert not Runtime(CPU, "bf16", False, 1).scaler().is_enabled()


def test_step_seed() -> None:
    assert step_seed(0, 0) == 60397354111191784  # the same on every machine
    seeds = {step_seed(seed, epoch, step) for seed in range(4) for epoch in range(-1, 4) for step in range(4)}
    assert len(seeds) == 4 * 5 * 4
    for seed in seeds:
        torch.manual_seed(seed)


def test_environment_is_plain() -> None:
    found = json.loads(json.dumps(environment(Runtime(CPU, "bf16", True, 3))))
    assert found["runtime"] == {"device": "cpu", "precision": "bf16", "channels_last": True, "threads": 3}
    assert found["packages"]["torch"].startswith("2.")
    assert found["cores"] >= 1
    assert found["cpu"]
    assert "runtime" not in environment()


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_the_commit_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*command: str) -> str:
        who = {f"GIT_{role}_{what}": "nobody" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        done = subprocess.run(
            ["git", *command], cwd=tmp_path, env={**os.environ, **who}, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    monkeypatch.setattr(machine, "_CHECKOUT", tmp_path)
    assert environment()["commit"] is None
    git("init", "-q")
    assert environment()["commit"] is None  # nothing was committed yet
    (tmp_path / "a").write_text("one")
    git("add", "a")
    git("commit", "-q", "-m", "one")
    git("tag", "-a", "v1", "-m", "one")
    commit = git("rev-parse", "HEAD")
    assert environment()["commit"] == commit
    (tmp_path / "a").write_text("two")
    assert environment()["commit"] == f"{commit}-dirty"
    # Installed inside somebody's checkout.
    monkeypatch.setattr(machine, "_CHECKOUT", tmp_path / "site-packages")
    assert environment()["commit"] is None


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(machine, "_CHECKOUT", tmp_path)
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] is None
