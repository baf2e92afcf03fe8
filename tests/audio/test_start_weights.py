"""The two ways to start a network from given weights: torchvision's download, and a file."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_audio as tiny
import torch
import torchvision
from file_server import Server
from safetensors.torch import save_file
from torch import Tensor, nn

from samo.data.splits import make_split
from samo.errors import EnvironmentProblem, LeakError, ModelFileError, SamoError
from samo.runs.training_plan import checked_split
from samo.tasks import LabelSpace, Task
from samo.training.checkpoint import save_model
from samo_audio.audio_model import AudioModel, load_weights
from samo_audio.config import ModelSettings
from samo_audio.frontend import AudioFrontend
from samo_audio.models import build_network, resnet18

SPACE = LabelSpace((Task("emotion", tiny.LABELS),))


@pytest.fixture(scope="module")
def imagenet() -> dict[str, Tensor]:
    """Tensors like those torchvision publishes, which were saved without batch norm's counters."""
    torch.manual_seed(7)
    model = torchvision.models.resnet18(weights=None)
    model.train()(torch.randn(2, 3, 32, 64))
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}


# --pretrained


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for torchvision's downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "www").mkdir()
    found = Server(tmp_path / "www")
    yield found
    found.stop()


def published(folder: Path, tensors: dict[str, Tensor], digest: str = "") -> str:
    """Save tensors under a name that ends with the first eight digits of their hash."""
    path = folder / "plain.pth"
    torch.save(tensors, path)
    name = f"resnet18-{digest or hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    path.rename(folder / name)
    return name


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.value, "url", url)


def pretrained() -> nn.Module:
    return build_network(ModelSettings(model="resnet18", pretrained=True), 3)


def test_pretrained_downloads_once(
    imagenet: dict[str, Tensor],
    hub: Path,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = published(tmp_path / "www", imagenet)
    point_at(f"{server.root}/{name}", monkeypatch)
    for _ in range(2):
        found = pretrained().state_dict()
        assert found["conv1.weight"].shape == (64, 1, 7, 7)
        assert torch.allclose(found["conv1.weight"], imagenet["conv1.weight"].sum(dim=1, keepdim=True))
        for key, tensor in imagenet.items():
            if not key.startswith(("conv1.", "fc.")):
                assert torch.equal(found[key], tensor), key
        assert found["fc.1.weight"].shape == (3, 512)
    assert server.asked == [f"/{name}"]
    assert [path.name for path in hub.iterdir()] == [name]
    # stdout belongs to results: `samo train --json --pretrained` prints one object there.
    printed = capsys.readouterr()
    assert printed.out == ""
    assert name in printed.err
    assert socket.getdefaulttimeout() is None


def test_a_model_for_given_weights_downloads_nothing(monkeypatch: pytest.MonkeyPatch, hub: Path) -> None:
    point_at("http://127.0.0.1:1/resnet18-00000000.pth", monkeypatch)
    AudioFrontend.build_model(tiny.config(model="resnet18", pretrained=True), SPACE)
    assert not hub.exists()


def refused() -> SamoError:
    with pytest.raises(SamoError) as caught:
        pretrained()
    return caught.value


def test_offline_is_a_clear_error(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/resnet18-f37072fd.pth"
        point_at(url, monkeypatch)
        error = refused()
    assert isinstance(error, EnvironmentProblem)
    assert error.message.startswith("cannot download the ImageNet weights of resnet18: ")
    assert "Connection refused" in error.message
    assert error.hint == f"fetch {url} on another machine and give it with `weights=FILE`"
    assert list(hub.iterdir()) == []


def test_a_name_that_is_not_found_is_a_clear_error(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://nowhere.invalid/resnet18-f37072fd.pth", monkeypatch)
    assert isinstance(refused(), EnvironmentProblem)


def test_a_missing_file_is_a_clear_error(hub: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(f"{server.root}/resnet18-f37072fd.pth", monkeypatch)
    error = refused()
    assert isinstance(error, EnvironmentProblem)
    assert "404" in error.message


def test_a_server_that_stays_silent_is_given_up(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resnet18, "SILENT_SERVER_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        point_at(f"http://127.0.0.1:{silent.getsockname()[1]}/resnet18-f37072fd.pth", monkeypatch)
        error = refused()
    assert isinstance(error, EnvironmentProblem)
    assert "timed out" in error.message
    assert socket.getdefaulttimeout() is None


def test_a_server_that_speaks_no_http_is_a_clear_error(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as odd:
        odd.bind(("127.0.0.1", 0))
        odd.listen()

        def answer() -> None:
            connection, _ = odd.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 welcome\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        point_at(f"http://127.0.0.1:{odd.getsockname()[1]}/resnet18-f37072fd.pth", monkeypatch)
        assert isinstance(refused(), EnvironmentProblem)
        thread.join()


def test_a_file_that_is_not_the_published_one_is_not_kept(
    hub: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = published(tmp_path / "www", {"a": torch.zeros(1)}, digest="f37072fd")
    point_at(f"{server.root}/{name}", monkeypatch)
    error = refused()
    assert isinstance(error, EnvironmentProblem)
    assert "invalid hash value" in error.message
    assert list(hub.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut short"])
def test_a_damaged_copy_is_named(content: bytes, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:1/resnet18-f37072fd.pth", monkeypatch)
    hub.mkdir(parents=True)
    (hub / "resnet18-f37072fd.pth").write_bytes(content)
    error = refused()
    assert isinstance(error, ModelFileError)
    assert str(hub / "resnet18-f37072fd.pth") in error.message
    assert error.hint == "delete it to download it again"


def test_a_copy_of_another_network_is_named(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:1/resnet18-f37072fd.pth", monkeypatch)
    hub.mkdir(parents=True)
    torch.save({"a": torch.zeros(1)}, hub / "resnet18-f37072fd.pth")
    assert isinstance(refused(), ModelFileError)


# --weights FILE


def resnet() -> AudioModel:
    torch.manual_seed(1)
    return AudioModel(tiny.config(model="resnet18"), SPACE)


def small(**values: Any) -> AudioModel:
    torch.manual_seed(values.pop("seed", 1))
    return AudioModel(tiny.config(**values), SPACE)


def write_pt(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(tensors, path)
    return path


def write_wrapped(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save({"epoch": 7, "state_dict": tensors}, path)
    return path


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("name", "save"), [("w.pt", write_pt), ("w.pth", write_wrapped), ("w.safetensors", write_safetensors)]
)
@pytest.mark.parametrize("counters", [True, False])
def test_imagenet_weights_fit_resnet18(
    name: str,
    save: Callable[[Path, dict[str, Tensor]], Path],
    counters: bool,
    imagenet: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    tensors = dict(imagenet)
    if counters:
        norms = [key for key in imagenet if key.endswith("running_mean")]
        tensors |= {key.replace("running_mean", "num_batches_tracked"): torch.tensor(5) for key in norms}
    model = resnet()
    head = model.network.state_dict()["fc.1.weight"].clone()
    load_weights(save(tmp_path / name, tensors), model)
    found = model.network.state_dict()
    assert torch.allclose(found["conv1.weight"], imagenet["conv1.weight"].sum(dim=1, keepdim=True))
    for key, tensor in imagenet.items():
        if not key.startswith(("conv1.", "fc.")):
            assert torch.equal(found[key], tensor), key
    assert torch.equal(found["fc.1.weight"], head)


def test_weights_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    given = small(seed=5)
    given.features.mean.fill_(99.0)
    save_model(tmp_path / "best_model.safetensors", given.state_dict())
    table = tiny.corpus(tmp_path / "corpus")
    torch.manual_seed(1)
    plain = tiny.frontend(table).new_model()
    torch.manual_seed(1)
    model = tiny.frontend(table, weights=str(tmp_path / "best_model.safetensors")).new_model()
    assert isinstance(model, AudioModel)
    for name, tensor in given.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor), name
    # What was learned of other data is not taken over with the network.
    assert torch.equal(model.features.mean, plain.state_dict()["features.mean"])


def test_a_head_for_other_labels_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(5)
    given = AudioModel(tiny.config(), LabelSpace((Task("emotion", ("a", "b", "c", "d")),)))
    save_model(tmp_path / "four.safetensors", given.state_dict())
    model = small()
    head = model.network.state_dict()["head.weight"].clone()
    load_weights(tmp_path / "four.safetensors", model)
    assert torch.equal(model.network.state_dict()["head.weight"], head)
    for name, tensor in given.network.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(model.network.state_dict()[name], tensor), name


@pytest.mark.parametrize("values", [{"width": 8}, {"use_bn": False}, {"model": "resnet18"}])
def test_weights_of_another_architecture_are_refused(values: dict[str, Any], tmp_path: Path) -> None:
    save_model(tmp_path / "other.safetensors", small(**values).state_dict())
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelFileError, match="tensors of the network are missing or of another shape") as caught:
        load_weights(tmp_path / "other.safetensors", model)
    assert caught.value.hint == "the file must come from the same `model` and `width`"
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_weights_without_batch_norm_fit_a_network_without(tmp_path: Path) -> None:
    given = small(seed=5, use_bn=False)
    load_weights(write_pt(tmp_path / "w.pt", given.network.state_dict()), model := small(use_bn=False))
    assert torch.equal(model.network.state_dict()["blocks.0.0.bias"], given.network.state_dict()["blocks.0.0.bias"])


class Evil:
    """Runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_weights_that_are_none_are_refused(tmp_path: Path) -> None:
    good = small().state_dict()
    whole = write_safetensors(tmp_path / "whole.safetensors", good).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-10])
    (tmp_path / "header.safetensors").write_bytes(whole[:20])
    (tmp_path / "zeros.safetensors").write_bytes(bytes(1000))
    whole = write_pt(tmp_path / "whole.pt", good).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "empty.pt").touch()
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    torch.save({"w": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    for name in (
        "cut.safetensors", "header.safetensors", "zeros.safetensors", "cut.pt", "text.pt", "empty.pt", "list.pt",
        "epoch.pt", "evil.pt", "missing.pt", "missing.safetensors",
    ):  # fmt: skip
        with pytest.raises(ModelFileError, match=name.replace(".", r"\.")):
            load_weights(tmp_path / name, small())
    assert not (tmp_path / "ran").exists()


def test_weights_of_a_run_that_learned_from_the_test_speakers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    table, weights = tiny.corpus(tmp_path), tmp_path / "run" / "best_model.safetensors"
    front = tiny.frontend(table, weights=str(weights))
    split = make_split(front.manifest, front.split_request())
    weights.parent.mkdir()
    front.manifest.save(weights.with_name("manifest.jsonl"))
    split.save(weights.with_name("split.json"))
    assert checked_split(front) == split
    replace(split, train=split.train + split.test, test=split.val).save(weights.with_name("split.json"))
    with pytest.raises(
        LeakError, match="`weights` of run 'run' learned from the validation or test part of this split"
    ):
        checked_split(front)
