"""Model files and checkpoints: exact, refused when damaged, and never executed."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from samo.errors import DiskFull, ModelFileError
from samo.training.checkpoint import (
    load_checkpoint,
    load_model,
    load_tensors,
    read_about,
    save_checkpoint,
    save_model,
    save_tensors,
)

STATE = {"model": {"w": torch.arange(6.0).view(2, 3)}, "step": 3, "best": [0.5, float("inf"), -1], "ema": None}


def net(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "m.safetensors", net().state_dict(), label_space=[1], val_macro_f1=0.5)
    return tmp_path / "m.safetensors"


def test_model_round_trip(tmp_path: Path) -> None:
    one, other = net(), net()
    path = tmp_path / "m.safetensors"
    save_model(path, one.state_dict(), epoch=3)
    assert read_about(path) == {"format": "samo-model-2", "epoch": 3}
    load_model(path, other)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
        assert tensor.dtype == other.state_dict()[name].dtype


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    tensors = net().state_dict()
    for name in ("a", "b"):
        save_model(tmp_path / name, tensors, epoch=3, dataset="x", synthetic=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tied_and_strided_tensors(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    save_tensors(tmp_path / "t.safetensors", {"a": weight, "b": weight, "c": weight.T})
    loaded = load_tensors(tmp_path / "t.safetensors")
    assert torch.equal(loaded["b"], weight)
    assert torch.equal(loaded["c"], weight.T)
    save_tensors(tmp_path / "none.safetensors", {})
    assert load_tensors(tmp_path / "none.safetensors") == {}


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"there is no model at .*none\.safetensors") as caught:
        load_model(tmp_path / "none.safetensors", net())
    assert caught.value.hint == "was training stopped in its first epoch?"


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.99])
def test_truncated_model(saved: Path, kept: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(kept * len(data))])
    for reader in (read_about, load_tensors):
        with pytest.raises(ModelFileError, match=r"m\.safetensors is damaged"):
            reader(saved)


def test_things_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "noise.safetensors").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("noise", "folder"):
        with pytest.raises(ModelFileError, match=f"{name}.safetensors is damaged"):
            load_model(tmp_path / f"{name}.safetensors", net())


@pytest.mark.parametrize("about", [None, {"format": "pt"}, {"samo": "no json"}, {"samo": "[1]"}, {"samo": "{}"}])
def test_foreign_model(tmp_path: Path, about: dict[str, str] | None) -> None:
    save_file(net().state_dict(), tmp_path / "m.safetensors", metadata=about)
    with pytest.raises(ModelFileError, match=r"m\.safetensors was not written by SAMO"):
        load_model(tmp_path / "m.safetensors", net())


def test_misfit(saved: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        load_model(saved, net(4))
    assert caught.value.message == (
        f"{saved} does not fit the run's settings at: 0.bias, 0.weight, 1.bias, 1.running_mean, 1.running_var, 1.weight"
    )
    with pytest.raises(ModelFileError, match=r"does not fit the run's settings at: 1\.bias"):
        load_model(saved, nn.Sequential(nn.Linear(2, 3)))


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.ckpt", STATE)
    loaded = load_checkpoint(tmp_path / "last.ckpt")
    assert torch.equal(loaded.pop("model")["w"], torch.arange(6.0).view(2, 3))
    assert loaded == {name: value for name, value in STATE.items() if name != "model"}
    with pytest.raises(ModelFileError, match="there is no checkpoint at"):
        load_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.95, 0.999])
def test_truncated_checkpoint(tmp_path: Path, kept: float) -> None:
    save_checkpoint(tmp_path / "last.ckpt", STATE)
    data = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ModelFileError, match=r"last\.ckpt is damaged"):
        load_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("start", [b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04", b"}"])
def test_bytes_that_are_no_checkpoint(tmp_path: Path, start: bytes) -> None:
    """The reader of torch stumbles over random bytes in many ways; each is one clear error."""
    rng = np.random.default_rng(0)
    for length in (1, 5, 20, 100, 400) * 10:
        (tmp_path / "x.ckpt").write_bytes(start + rng.bytes(length))
        with contextlib.suppress(ModelFileError):  # five random bytes may be a pickle
            load_checkpoint(tmp_path / "x.ckpt")


class Evil:
    """What a pickle would run when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_is_executed(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    torch.save({"model": Evil(proof)}, tmp_path / "zip.ckpt")
    torch.save({"model": Evil(proof)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"model": Evil(proof)}))
    for name in ("zip.ckpt", "old.pt", "plain.pt"):
        for reader in (load_checkpoint, load_tensors):
            with pytest.raises(ModelFileError, match="damaged, or holds more than tensors and plain values: not read"):
                reader(tmp_path / name)
    assert not proof.exists()
    # The same file does act where it is trusted, so the test would notice.
    torch.load(tmp_path / "zip.ckpt", weights_only=False)
    assert proof.exists()


def test_foreign_weights(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(2)}
    for number, state in enumerate([tensors, {"state_dict": tensors, "epoch": 3}, {"model": tensors}]):
        torch.save(state, tmp_path / f"{number}.pt")
        assert load_tensors(tmp_path / f"{number}.pt")["w"].tolist() == [1, 1]
    for number, state in enumerate([[torch.ones(2)], {"w": 1}, torch.ones(2)]):
        torch.save(state, tmp_path / f"{number}.pt")
        with pytest.raises(ModelFileError, match="is not a table of tensors"):
            load_tensors(tmp_path / f"{number}.pt")
    with pytest.raises(ModelFileError, match="there is no weights file"):
        load_tensors(tmp_path / "none.pt")
    with pytest.raises(ModelFileError, match="there is no weights file"):
        load_tensors(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device without space")
@pytest.mark.parametrize("kind", ["model", "checkpoint"])
def test_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    target = tmp_path / "target"
    tensors = {"w": torch.zeros(500_000)}

    def save() -> None:
        if kind == "model":
            save_model(target, tensors)
        else:
            save_checkpoint(target, {"model": tensors})

    save()
    before = target.read_bytes()

    def on_the_full_device(**_: Any) -> tuple[int, str]:
        link = tmp_path / "temporary"
        link.symlink_to("/dev/full")
        return os.open(link, os.O_RDWR), str(link)

    monkeypatch.setattr("tempfile.mkstemp", on_the_full_device)
    with pytest.raises(DiskFull, match=r"no space left while writing .*target"):
        save()
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]
