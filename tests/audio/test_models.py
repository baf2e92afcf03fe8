"""What every network of MODELS owes, and the two ways to start one from given weights."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from samo_audio.config import FeatureSettings, ModelSettings
from samo_audio.frontend import AudioFrontend, AudioModel, load_weights
from samo_audio.models import MODELS, build_network, require_usable, resnet18
from samo_audio.models.resnet18 import one_channel
from samo_core.errors import EnvironmentProblem, ModelFileError, SamoError, SettingsError
from samo_core.tasks import LabelSpace, Task
from samo_core.training.checkpoint import save_model

SPACE = LabelSpace((Task("emotion", tiny.LABELS),))


def network(name: str, n_columns: int = 3, **values: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(ModelSettings(**{"model": name, "width": 4, **values}), n_columns)


def pictures(n: int, bands: int = 32, frames: int = 40) -> Tensor:
    return torch.randn(n, 1, bands, frames, generator=torch.Generator().manual_seed(1))


# Contract of every model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", ["smallest", (32, 33), (64, 94), (128, 130), (17, 200), (200, 17)])
def test_logits_have_a_column_a_label(name: str, size: str | tuple[int, int]) -> None:
    smallest = MODELS[name].smallest
    bands, frames = (smallest, smallest) if isinstance(size, str) else size
    model = network(name, n_columns=5)
    for mode in (True, False):
        logits = model.train(mode)(pictures(2, bands, frames))
        assert logits.shape == (2, 5)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("use_bn", [True, False])
def test_the_gradient_reaches_every_parameter(name: str, use_bn: bool) -> None:
    model = network(name, use_bn=use_bn, dropout=0.0).train()
    model(pictures(4, 64, 64)).square().sum().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label
        assert (parameter.grad != 0).any(), label


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_judged_apart(name: str) -> None:
    model, batch = network(name).eval(), pictures(4)
    model.train()(batch)
    model.eval()
    with torch.no_grad():
        together = model(batch)
        for row in range(4):
            assert torch.allclose(model(batch[row : row + 1])[0], together[row], atol=1e-5)
        assert torch.allclose(model(batch.flip(0)).flip(0), together, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_dropout_acts_in_training_alone(name: str) -> None:
    batch = pictures(4)
    with torch.no_grad():
        model = network(name, dropout=0.9).train()
        assert not torch.allclose(model(batch), model(batch), atol=1e-3)
        model.eval()
        assert torch.equal(model(batch), model(batch))
        model = network(name, dropout=0.0).train()
        assert torch.allclose(model(batch), model(batch), atol=1e-5)
    shares = [module.p for module in network(name, dropout=0.42).modules() if isinstance(module, nn.Dropout)]
    assert shares == [0.42]


@pytest.mark.parametrize("name", MODELS)
def test_the_state_says_everything(name: str) -> None:
    first = network(name)
    first.train()(pictures(4))
    torch.manual_seed(1)
    second = build_network(ModelSettings(model=name, width=4), 3)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first.eval()(pictures(2)), second.eval()(pictures(2)))


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_makes_the_same_network(name: str) -> None:
    for one, other in zip(network(name).parameters(), network(name).parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", MODELS)
def test_the_head_is_what_load_weights_takes_for_one(name: str) -> None:
    """Only tensors of the head change their shape with the number of labels."""
    three, five = network(name, 3).state_dict(), network(name, 5).state_dict()
    differing = {label for label in three if three[label].shape != five[label].shape}
    assert differing
    assert all(label.startswith(("fc.", "head.")) for label in differing)


# Settings


def test_width_is_that_of_the_first_block() -> None:
    for width in (4, 8):
        state = network("small-cnn", width=width).state_dict()
        assert [state[f"blocks.{k}.0.weight"].shape[0] for k in range(4)] == [width << k for k in range(4)]


def test_batch_norm_is_there_or_not() -> None:
    def norms(model: nn.Module) -> int:
        return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())

    on, off = network("small-cnn"), network("small-cnn", use_bn=False)
    assert (norms(on), norms(off)) == (4, 0)
    # A bias before batch norm would do nothing, without it there must be one.
    assert not any(name.endswith(".0.bias") for name in on.state_dict())
    assert sum(name.endswith(".0.bias") for name in off.state_dict()) == 4


def test_every_name_is_another_network() -> None:
    assert [type(network(name)).__name__ for name in MODELS] == ["SmallCnn", "ResNet"]


def test_an_unknown_model_gets_a_suggestion() -> None:
    for ask in (
        lambda: build_network(ModelSettings(model="resnet81"), 3),
        lambda: require_usable(ModelSettings(model="resnet81"), FeatureSettings()),
        lambda: AudioModel(tiny.config(model="resnet81"), SPACE),
    ):
        with pytest.raises(SettingsError, match="unknown model 'resnet81'") as caught:
            ask()
        assert caught.value.hint == "did you mean 'resnet18'? valid: small-cnn, resnet18"


def test_settings_of_another_model_are_refused() -> None:
    with pytest.raises(SettingsError, match="--width acts only together with --model small-cnn"):
        tiny.config(model="resnet18", width=8)
    with pytest.raises(SettingsError, match="--use-bn acts only together with --model small-cnn"):
        tiny.config(model="resnet18", use_bn=False)
    with pytest.raises(SettingsError, match="--pretrained acts only together with --model resnet18"):
        tiny.config(pretrained=True)


# Features of all sizes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_mels": 8}, "--model small-cnn needs at least 16 mel bands, --n-mels is 8"),
        ({"n_mels": 15}, "--model small-cnn needs at least 16 mel bands, --n-mels is 15"),
        (
            {"hop_length": 512},
            "--model small-cnn needs at least 16 frames, --duration and --hop-length give 8",
        ),
        ({"duration": 0.06}, "--model small-cnn needs at least 16 frames, --duration and --hop-length give 8"),
    ],
)
def test_features_too_small_for_the_model_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        AudioModel(tiny.config(**values), SPACE)
    assert caught.value.message == message


@pytest.mark.parametrize("name", MODELS)
def test_the_smallest_and_the_largest_features_work(name: str) -> None:
    smallest = max(8, MODELS[name].smallest)
    least = {"n_mels": smallest, "n_fft": 64, "hop_length": 16 * 16, "duration": 0.06}
    if MODELS[name].smallest > 1:
        least |= {"hop_length": 16}
    most = {"sr": 192_000, "n_mels": 512, "n_fft": 16_384, "hop_length": 8192, "duration": 2.0}
    for values in (least, most):
        config = tiny.config(model=name, **values)
        model = AudioModel(config, SPACE)
        waveforms = 0.1 * torch.randn(2, config.features.window)
        with torch.no_grad():
            logits = model.eval()(waveforms, torch.tensor([config.features.window, 100]))
        assert logits.shape == (2, 3)
        assert torch.isfinite(logits).all()


# ResNet-18


def test_a_grey_picture_sees_no_difference() -> None:
    torch.manual_seed(0)
    colour = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    grey = pictures(2)
    assert torch.allclose(one_channel(colour)(grey), colour(grey.expand(-1, 3, -1, -1)), atol=1e-5)


@pytest.fixture(scope="module")
def imagenet() -> dict[str, Tensor]:
    """Tensors like those torchvision publishes, which were saved without batch norm's counters."""
    torch.manual_seed(7)
    model = torchvision.models.resnet18(weights=None)
    model.train()(torch.randn(2, 3, 32, 64))
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}


class Server:
    """Serves a folder over HTTP and counts what was asked for."""

    def __init__(self, folder: Path) -> None:
        asked: list[str] = []
        self.asked = asked

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, directory=str(folder), **kwargs)

            def log_message(self, format: str, *args: Any) -> None:
                asked.append(self.path)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


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
    return network("resnet18", pretrained=True)


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
    said = capsys.readouterr()
    assert said.out == ""
    assert name in said.err
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
    assert error.hint == f"fetch {url} on another machine and give it with --weights FILE"
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
    assert caught.value.hint == "the file must come from the same --model and --width"
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


# A setting is not done before a test here shows what it does.
SHOWN_BY: dict[str, Callable[..., None]] = {
    "model": test_every_name_is_another_network,
    "use_bn": test_batch_norm_is_there_or_not,
    "dropout": test_dropout_acts_in_training_alone,
    "width": test_width_is_that_of_the_first_block,
    "pretrained": test_pretrained_downloads_once,
    "weights": test_weights_are_loaded,
}


@pytest.mark.parametrize("name", ModelSettings.model_fields)
def test_every_setting_is_shown_to_act(name: str) -> None:
    assert name in SHOWN_BY
