"""What every network of MODELS owes, what its settings do, and which features are too small for it."""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import test_speech_encoders
import tiny_audio as tiny
import torch
import torchvision
from torch import Tensor, nn

from samo.errors import SettingsError
from samo.settings import OptimSettings
from samo.tasks import LabelSpace, Task
from samo.training.optim import make_optimizer, set_rate
from samo_audio.audio_model import AudioModel
from samo_audio.config import AudioConfig, FeatureSettings, ModelSettings
from samo_audio.models import MODELS, build_network, require_usable
from samo_audio.models.panns import Panns
from samo_audio.models.resnet18 import one_channel

SPACE = LabelSpace((Task("emotion", tiny.LABELS),))
# Those that go from spectrogram to logits; the larger mn are mn04 with more channels, and looked at without weights.
NETWORKS = [name for name in MODELS if not MODELS[name].whole]
WIDER = ("mn05", "mn10", "mn20", "mn30", "mn40")
TRIED = [name for name in NETWORKS if name not in WIDER]
DRAWN = [name for name in NETWORKS if MODELS[name].has_log_mel]


def network(name: str, n_columns: int = 3, **values: Any) -> nn.Module:
    """A network of the registry; cnn14 with few channels, since it has 80 million parameters."""
    torch.manual_seed(0)
    settings = ModelSettings(**{"model": name, "width": 4, **values})
    if name == "cnn14":
        return Panns(n_columns, (4, 8, 8, 8, 8, 16), 3, 5, settings.dropout)
    return build_network(settings, n_columns)


def pictures(n: int, bands: int = 32, frames: int = 40, name: str = "") -> Tensor:
    """Random spectrograms; of as many bands as the architecture called ``name`` makes, where it makes its own."""
    own = name and not MODELS[name].has_log_mel
    bands = MODELS[name].defaults["n_mels"] if own else bands
    return torch.randn(n, 1, bands, frames, generator=torch.Generator().manual_seed(1))


# Contract of every model


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize("size", ["smallest", (32, 33), (64, 94), (128, 130), (17, 200), (200, 17)])
def test_logits_have_a_column_a_label(name: str, size: str | tuple[int, int]) -> None:
    smallest = MODELS[name].smallest
    if isinstance(size, tuple) and size[1] < smallest:
        pytest.skip("features so small are refused, see below")
    bands, frames = (smallest, smallest) if isinstance(size, str) else size
    model = network(name, n_columns=5)
    for mode in (True, False):
        logits = model.train(mode)(pictures(2, bands, frames, name))
        assert logits.shape == (2, 5)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize("use_bn", [True, False])
def test_the_gradient_reaches_every_parameter(name: str, use_bn: bool) -> None:
    model = network(name, use_bn=use_bn, dropout=0.0).train()
    model(pictures(4, 64, 64, name)).square().sum().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label
        assert (parameter.grad != 0).any(), label


@pytest.mark.parametrize("name", TRIED)
def test_rows_are_judged_apart(name: str) -> None:
    model, batch = network(name), pictures(4, name=name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of this batch, however slowly they are learned otherwise
    model.train()(batch)
    model.eval()
    with torch.no_grad():
        together = model(batch)
        for row in range(4):
            assert torch.allclose(model(batch[row : row + 1])[0], together[row], atol=1e-5)
        assert torch.allclose(model(batch.flip(0)).flip(0), together, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-4)


@pytest.mark.parametrize("name", TRIED)
def test_dropout_acts_in_training_alone(name: str) -> None:
    batch = pictures(4, name=name)
    with torch.no_grad():
        model = network(name, dropout=0.9).train()
        assert not torch.allclose(model(batch), model(batch), atol=1e-3)
        model.eval()
        assert torch.equal(model(batch), model(batch))
        model = network(name, dropout=0.0).train()
        assert torch.allclose(model(batch), model(batch), atol=1e-5)
    shares = [module.p for module in network(name, dropout=0.42).modules() if isinstance(module, nn.Dropout)]
    assert shares == [0.42]


@pytest.mark.parametrize("name", TRIED)
def test_the_state_says_everything(name: str) -> None:
    first = network(name)
    first.train()(pictures(4, name=name))
    second = network(name)
    with torch.no_grad():
        for tensor in second.parameters():
            tensor.normal_()
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first.eval()(pictures(2, name=name)), second.eval()(pictures(2, name=name)))


@pytest.mark.parametrize("name", TRIED)
def test_the_same_seed_makes_the_same_network(name: str) -> None:
    for one, other in zip(network(name).parameters(), network(name).parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", TRIED)
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
    kinds = {name: type(network(name)).__name__ for name in TRIED}
    assert kinds == {
        "small-cnn": "SmallCnn", "resnet18": "ResNet18", "mn04": "MobileNet", "cnn6": "Panns", "cnn14": "Panns",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["resnet18", "mn04", "mn10"])
def test_a_network_is_torchvisions_without_its_import(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs trained before hold torchvision's tensors, and a seed must go on giving the same network."""
    torch.manual_seed(3)
    wanted = (
        torchvision_resnet18(4) if name == "resnet18" else torchvision_mobilenet(4, {"mn04": 0.4, "mn10": 1.0}[name])
    )
    drawn = torch.rand(1)
    for module in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torchvision", None)  # importing it fails from here on
    torch.manual_seed(3)
    found = build_network(ModelSettings(model=name, dropout=0.3), 4)
    assert torch.rand(1) == drawn, "another number of random draws"
    state = found.state_dict()
    # Of MobileNetV3 the classifier is called otherwise.
    renamed = {"classifier.0": "embedding.0", "classifier.3": "head"}
    theirs = {}
    for key, tensor in wanted.state_dict().items():
        layer, _, last = key.rpartition(".")
        theirs[f"{renamed.get(layer, layer)}.{last}"] = tensor
    assert list(state) == list(theirs)
    assert all(torch.equal(state[key], theirs[key]) for key in state)
    x = pictures(2, 64, 94)
    for mode in (True, False):
        wanted.train(mode), found.train(mode)
        for module in (*wanted.modules(), *found.modules()):
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        torch.testing.assert_close(found(x), wanted(x), rtol=0.0, atol=0.0 if name == "resnet18" else 1e-6)


def torchvision_resnet18(n_columns: int) -> nn.Module:
    model: nn.Module = torchvision.models.resnet18(weights=None)
    model.conv1 = one_channel(model.conv1)
    model.fc = nn.Sequential(nn.Dropout(0.0), nn.Linear(512, n_columns))
    return model


def torchvision_mobilenet(n_columns: int, width: float) -> nn.Module:
    """Of MobileNetV3-large (Howard et al. 2019, table 1), with EfficientAT's gates and stem."""
    large, last = torchvision.models.mobilenetv3._mobilenet_v3_conf("mobilenet_v3_large", width_mult=width)
    gates = partial(torchvision.ops.misc.SqueezeExcitation, scale_activation=nn.Sigmoid)
    model: nn.Module = torchvision.models.mobilenetv3.MobileNetV3(
        large, last, n_columns, partial(torchvision.models.mobilenetv3.InvertedResidual, se_layer=gates),
        partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01),
    )  # fmt: skip
    stem = nn.Conv2d(1, model.features[0][0].out_channels, 3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    model.features[0][0] = stem
    return model


# With 527 labels; published: mn04 983,599 (its file), mn10 4.88 M, mn40 68.43 M, cnn6 4,837,455, cnn14 80,753,615.
PARAMETERS = {
    "mn04": 983_599, "mn05": 1_431_239, "mn10": 4_876_831, "mn20": 17_909_287, "mn30": 39_086_367, "mn40": 68_427_303,
    "cnn6": 4_837_455, "cnn14": 80_753_615,
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        model = build_network(ModelSettings(model=name), 527).eval()
        logits = model(torch.empty(2, 1, MODELS[name].defaults["n_mels"], 64))
    assert logits.shape == (2, 527)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_every_network_is_looked_at() -> None:
    assert {*TRIED, *PARAMETERS} == {*NETWORKS}


def test_an_unknown_model_gets_a_suggestion() -> None:
    for ask in (
        lambda: build_network(ModelSettings(model="resnet81"), 3),
        lambda: require_usable(ModelSettings(model="resnet81"), FeatureSettings()),
        lambda: AudioModel(tiny.config(model="resnet81"), SPACE),
    ):
        with pytest.raises(SettingsError, match="unknown model 'resnet81'") as caught:
            ask()
        assert caught.value.hint == f"did you mean 'resnet18'? valid: {', '.join(MODELS)}"


def test_settings_of_another_model_are_refused() -> None:
    with pytest.raises(SettingsError, match="`width` acts only together with `model=small-cnn`"):
        tiny.config(model="resnet18", width=8)
    with pytest.raises(SettingsError, match="`use_bn` acts only together with `model=small-cnn`"):
        tiny.config(model="resnet18", use_bn=False)
    with pytest.raises(SettingsError, match="`pretrained` acts only together with `model=resnet18`, mn04, mn10"):
        tiny.config(pretrained=True)


def test_the_trunk_learns_at_its_share_of_the_rate() -> None:
    for name in ("small-cnn", "resnet18", "mn04"):
        model = AudioModel(AudioConfig.build({"model": name, "trunk_lr_scale": 0.25, "lr": 0.04}), SPACE)
        optimizer = make_optimizer(model, OptimSettings(lr=0.04))
        set_rate(optimizer, 0.02)
        rates = {id(tensor): group["lr"] for group in optimizer.param_groups for tensor in group["params"]}
        last = {label for label, tensor in model.named_parameters() if rates[id(tensor)] == 0.02}
        trunk = {label for label, tensor in model.named_parameters() if rates[id(tensor)] == 0.005}
        assert len(last) == 2
        assert {label.rsplit(".", 1)[1] for label in last} == {"weight", "bias"}
        shapes = {label: tensor.shape for label, tensor in model.named_parameters()}
        assert all(shapes[label][0] == 3 for label in last)
        assert len(last) + len(trunk) == len(shapes)
    whole = AudioModel(tiny.config(), SPACE)
    assert {whole.lr_scale(label) for label, _ in whole.named_parameters()} == {1.0}


# Features of all sizes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_mels": 8}, "`model=small-cnn` needs at least 16 mel bands, `n_mels` is 8"),
        ({"n_mels": 15}, "`model=small-cnn` needs at least 16 mel bands, `n_mels` is 15"),
        (
            {"hop_length": 512},
            "`model=small-cnn` needs at least 16 frames, `duration` and `hop_length` give 8",
        ),
        ({"duration": 0.06}, "`model=small-cnn` needs at least 16 frames, `duration` and `hop_length` give 8"),
    ],
)
def test_features_too_small_for_the_model_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        AudioModel(tiny.config(**values), SPACE)
    assert caught.value.message == message


@pytest.mark.parametrize("name", DRAWN)
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


# A setting is not done before a test shows what it does.
SHOWN_BY = {
    "model": "test_models.test_every_name_is_another_network",
    "use_bn": "test_models.test_batch_norm_is_there_or_not",
    "dropout": "test_models.test_dropout_acts_in_training_alone",
    "width": "test_models.test_width_is_that_of_the_first_block",
    "frequency_bins": "test_map_pooling.test_the_last_layer_sees_so_many_numbers",
    "pretrained": "test_start_weights.test_pretrained_downloads_once",
    "trunk_lr_scale": "test_models.test_the_trunk_learns_at_its_share_of_the_rate",
    **dict.fromkeys(test_speech_encoders.ACTS, "test_speech_encoders.test_settings_of_encoders_act"),
    "functional_set": "test_functionals.test_egemaps_asks_opensmile_for_each_clip_and_says_its_licence",
    "weights": "test_start_weights.test_weights_are_loaded",
}


@pytest.mark.parametrize("name", ModelSettings.model_fields)
def test_every_setting_is_shown_to_act(name: str) -> None:
    module, _, test = SHOWN_BY[name].partition(".")
    assert callable(getattr(import_module(module), test))
