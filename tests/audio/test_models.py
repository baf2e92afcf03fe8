"""What every network of MODELS owes, what its settings do, and which features are too small for it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import tiny_audio as tiny
import torch
from torch import Tensor, nn

from samo.errors import SettingsError
from samo.tasks import LabelSpace, Task
from samo_audio.config import FeatureSettings, ModelSettings
from samo_audio.frontend import AudioModel
from samo_audio.models import MODELS, build_network, require_usable
from samo_audio.models.resnet18 import one_channel

SPACE = LabelSpace((Task("emotion", tiny.LABELS),))
NETWORKS = [name for name in MODELS if not MODELS[name].whole]


def network(name: str, n_columns: int = 3, **values: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(ModelSettings(**{"model": name, "width": 4, **values}), n_columns)


def pictures(n: int, bands: int = 32, frames: int = 40) -> Tensor:
    return torch.randn(n, 1, bands, frames, generator=torch.Generator().manual_seed(1))


# Contract of every model


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", ["smallest", (32, 33), (64, 94), (128, 130), (17, 200), (200, 17)])
def test_logits_have_a_column_a_label(name: str, size: str | tuple[int, int]) -> None:
    smallest = MODELS[name].smallest
    bands, frames = (smallest, smallest) if isinstance(size, str) else size
    model = network(name, n_columns=5)
    for mode in (True, False):
        logits = model.train(mode)(pictures(2, bands, frames))
        assert logits.shape == (2, 5)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("use_bn", [True, False])
def test_the_gradient_reaches_every_parameter(name: str, use_bn: bool) -> None:
    model = network(name, use_bn=use_bn, dropout=0.0).train()
    model(pictures(4, 64, 64)).square().sum().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label
        assert (parameter.grad != 0).any(), label


@pytest.mark.parametrize("name", NETWORKS)
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


@pytest.mark.parametrize("name", NETWORKS)
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


@pytest.mark.parametrize("name", NETWORKS)
def test_the_state_says_everything(name: str) -> None:
    first = network(name)
    first.train()(pictures(4))
    torch.manual_seed(1)
    second = build_network(ModelSettings(model=name, width=4), 3)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first.eval()(pictures(2)), second.eval()(pictures(2)))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_seed_makes_the_same_network(name: str) -> None:
    for one, other in zip(network(name).parameters(), network(name).parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NETWORKS)
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
    assert [type(network(name)).__name__ for name in NETWORKS] == ["SmallCnn", "ResNet"]


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
    with pytest.raises(SettingsError, match="`pretrained` acts only together with `model=resnet18`"):
        tiny.config(pretrained=True)


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


@pytest.mark.parametrize("name", NETWORKS)
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
    "pretrained": "test_start_weights.test_pretrained_downloads_once",
    "functional_set": "test_functionals.test_egemaps_asks_opensmile_for_each_clip_and_says_its_licence",
    "weights": "test_start_weights.test_weights_are_loaded",
}


@pytest.mark.parametrize("name", ModelSettings.model_fields)
def test_every_setting_is_shown_to_act(name: str) -> None:
    module, _, test = SHOWN_BY[name].partition(".")
    assert callable(getattr(import_module(module), test))
