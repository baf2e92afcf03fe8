"""Pretrained encoders: read, refused, resized, frozen, unfrozen, and built again without a net."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_text as tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from samo.encoders.pretrained import from_assets
from samo.errors import EnvironmentProblem, ModelFileError, SamoError, SettingsError
from samo_text.models import build_model
from samo_text.models.pretrained import load_pretrained, position_limit, resize, save_sizes
from samo_text.models.text_model import TextModel

MINILM = Path(__file__).resolve().parents[2].parent / "shared" / "models" / "all-MiniLM-L6-v2"


def built(place: str, assets: Path | None = None, n_tokens: int | None = None, **values: Any) -> TextModel:
    torch.manual_seed(0)
    model = build_model(tiny.config(encoder=place, **values), tiny.SPACE, assets, n_tokens)
    assert isinstance(model, TextModel)
    return model


def ids() -> tuple[Tensor, Tensor]:
    made = torch.randint(5, 26, (2, 7), generator=torch.Generator().manual_seed(0))
    return made, torch.tensor([7, 7])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_states_are_the_librarys(family: str, encoders: dict[str, str]) -> None:
    from transformers import AutoModel

    network = AutoModel.from_pretrained(encoders[family]).eval()
    model = built(encoders[family], pooling="cls+last4-mean").eval()
    with torch.no_grad():
        given = network(input_ids=ids()[0], attention_mask=torch.ones(2, 7).long(), output_hidden_states=True)
        states = model.states(*ids())
    assert model.state_width == states.shape[2] == 2 * tiny.HIDDEN
    assert torch.allclose(states[:, :, : tiny.HIDDEN], given.last_hidden_state, atol=1e-6)
    assert len(given.hidden_states) == tiny.LAYERS + 1
    mean = sum(given.hidden_states[-4:]) / 4
    assert torch.allclose(states[:, :, tiny.HIDDEN :], mean, atol=1e-6)
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def test_fewer_than_four_layers_give_all_they_have(tmp_path: Path) -> None:
    place = str(tiny.encoder(tmp_path / "e", num_hidden_layers=2))
    model = built(place, pooling="last4-mean").eval()
    with torch.no_grad():
        hidden = model.body.network(input_ids=ids()[0], output_hidden_states=True).hidden_states
        assert torch.allclose(model.states(*ids()), (hidden[1] + hidden[2]) / 2, atol=1e-6)


def test_half_precision_weights_are_read_as_float32(encoders: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(encoders["bert"], tmp_path / "half")
    tensors = load_file(tmp_path / "half" / "model.safetensors")
    save_file({k: v.half() for k, v in tensors.items()}, tmp_path / "half" / "model.safetensors", {"format": "pt"})
    described = json.loads((tmp_path / "half" / "config.json").read_text())
    (tmp_path / "half" / "config.json").write_text(json.dumps({**described, "dtype": "float16"}))
    assert {p.dtype for p in load_pretrained(str(tmp_path / "half")).parameters()} == {torch.float32}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_run_needs_no_encoder_folder(family: str, encoders: dict[str, str], tmp_path: Path) -> None:
    """What save_sizes wrote and the run's weights make the same model, added tokens included."""
    n_tokens = len(tiny.vocabulary(family)) + 2
    model = built(encoders[family], n_tokens=n_tokens).eval()
    save_sizes(encoders[family], n_tokens, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert encoders[family] not in (tmp_path / "config.json").read_text()
    again = built("/nowhere/at/all", assets=tmp_path).eval()
    again.load_state_dict(model.state_dict())
    for given in (ids(), (torch.tensor([[n_tokens - 1]]), torch.tensor([1]))):
        with torch.no_grad():
            assert torch.equal(again(*given), model(*given))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_added_tokens_begin_as_the_mean_of_all_others(family: str, encoders: dict[str, str]) -> None:
    network = load_pretrained(encoders[family])
    before = network.get_input_embeddings().weight.detach().clone()
    resize(network, len(before) + 2)
    after = network.get_input_embeddings().weight
    assert after.shape == (len(before) + 2, tiny.HIDDEN)
    assert torch.equal(after[:-2], before)
    assert torch.allclose(after[-2:], before.mean(dim=0).expand(2, -1), atol=1e-7)
    assert after.requires_grad
    assert network.config.vocab_size == len(after)
    resize(network, 4)
    assert network.get_input_embeddings().num_embeddings == len(after)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_position_limits(family: str, encoders: dict[str, str]) -> None:
    """RoBERTa's 42 rows are 40 tokens; DeBERTa's positions are relative."""
    limit = position_limit(load_pretrained(encoders[family]))
    assert limit == (None if family == "deberta-v2" else 40)
    if limit is None:
        built(encoders[family], max_tokens=41)
        return
    model = built(encoders[family], max_tokens=40)
    model(torch.randint(5, 26, (1, 40)), torch.tensor([40]))
    with pytest.raises(SettingsError) as caught:
        built(encoders[family], max_tokens=41)
    assert caught.value.message == (
        f"`max_tokens=41` is more than the 40 tokens `encoder={encoders[family]}` has positions for"
    )


# Freezing, unfreezing, learning rates


def learning(model: TextModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_frozen_encoder_never_learns_and_never_drops(family: str, encoders: dict[str, str]) -> None:
    model = built(encoders[family], freeze_encoder=True, dropout=0.0)
    for epoch in (0, 1, 50):
        model.begin_epoch(epoch)
        assert learning(model) == {"head.output.weight", "head.output.bias"}
    model.train()
    assert model.training
    assert model.head.training
    assert torch.equal(model(*ids()), model(*ids()))
    assert torch.equal(model.states(*ids()), model.eval().states(*ids()))
    model.train()(*ids()).sum().backward()
    assert model.head.output.weight.grad is not None
    # An encoder that learns drops out; DeBERTa's and ModernBERT's published rates may be 0.
    if family == "bert":
        free = built(encoders[family], dropout=0.0).train()
        assert not torch.equal(free(*ids()), free(*ids()))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_layers_open_from_the_top(family: str, encoders: dict[str, str]) -> None:
    model = built(encoders[family], unfreeze_epochs=2)
    everything = set(dict(model.named_parameters()))
    head = {name for name in everything if name.startswith(("head.", "pooling."))}
    layers = [{n for n in everything if f"layer.{k}." in n or f"layers.{k}." in n} for k in range(tiny.LAYERS)]
    assert all(layers)
    above = {name for name in everything if "final_norm" in name}
    assert bool(above) == (family == "modernbert")
    for epoch in range(2):
        model.begin_epoch(epoch)
        assert learning(model) == head
    for n_open in range(1, tiny.LAYERS + 1):
        for epoch in (2 * n_open, 2 * n_open + 1):
            model.begin_epoch(epoch)
            assert learning(model) == head.union(above, *layers[tiny.LAYERS - n_open :])
    model.begin_epoch(2 * tiny.LAYERS + 2)
    assert learning(model) == everything
    # A function of the epoch alone: a resumed run comes to the same.
    model.begin_epoch(3)
    assert learning(model) == head.union(above, layers[-1])


def test_layers_that_never_open_are_told(encoders: dict[str, str]) -> None:
    # The head alone, five layers one by one, the embeddings: seven epochs.
    assert tiny.LAYERS == 5
    model = built(encoders["bert"], unfreeze_epochs=1)
    assert model.body.epochs_to_open() == 7
    assert model.body.unfreezing_note(7) == ""
    model.begin_epoch(6)
    assert len(learning(model)) == len(list(model.named_parameters()))
    assert model.body.unfreezing_note(6) == (
        "`unfreeze_epochs=1` opens 5 of 5 layers in 6 epochs, the embeddings never learn; `epochs=7` opens all"
    )
    assert model.body.unfreezing_note(4) == (
        "`unfreeze_epochs=1` opens 3 of 5 layers in 4 epochs, embeddings and lower layers never learn; "
        "`epochs=7` opens all"
    )
    slow = built(encoders["bert"], unfreeze_epochs=3).body
    assert slow.unfreezing_note(13) == (
        "`unfreeze_epochs=3` opens 4 of 5 layers in 13 epochs, embeddings and lower layers never learn; "
        "`epochs=19` or `unfreeze_epochs=2` opens all"
    )
    assert built(encoders["bert"], unfreeze_epochs=2).body.unfreezing_note(13) == ""
    assert built(encoders["bert"]).body.unfreezing_note(1) == ""
    assert built(encoders["bert"], freeze_encoder=True).body.unfreezing_note(1) == ""


def test_gradients_go_where_layers_are_open(encoders: dict[str, str]) -> None:
    model = built(encoders["bert"], unfreeze_epochs=1).train()
    model.begin_epoch(2)
    model(*ids()).sum().backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == learning(model)
    assert {name.split("layer.")[1][0] for name in reached if "layer." in name} == {"3", "4"}


def test_without_the_flag_everything_learns_at_once(encoders: dict[str, str]) -> None:
    model = built(encoders["bert"])
    model.begin_epoch(0)
    assert learning(model) == set(dict(model.named_parameters()))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_learning_rates_by_name(family: str, encoders: dict[str, str]) -> None:
    model = built(encoders[family], encoder_lr_scale=0.1, layer_lr_decay=0.5, pooling="attention")
    for name, _ in model.named_parameters():
        expected = 0.1 * 0.5**tiny.LAYERS
        for k in range(tiny.LAYERS):
            if f"layer.{k}." in name or f"layers.{k}." in name:
                expected = 0.1 * 0.5 ** (tiny.LAYERS - 1 - k)
        if "final_norm" in name:
            expected = 0.1
        if name.startswith(("head.", "pooling.")):
            expected = 1.0
        assert model.lr_scale(name) == pytest.approx(expected), name
    plain = built(encoders[family])
    assert {plain.lr_scale(name) for name, _ in plain.body.named_parameters(prefix="body")} == {0.05}


# What is no encoder


def refused(place: str | Path, kind: type[SamoError] = ModelFileError) -> SamoError:
    with pytest.raises(kind) as caught:
        load_pretrained(str(place))
    assert "\n" not in caught.value.message
    return caught.value


def test_folders_that_hold_no_encoder(tmp_path: Path, encoders: dict[str, str]) -> None:
    assert "there is no such folder" in refused(tmp_path / "nowhere").message
    assert "holds neither config.json nor tokenizer_config.json" in refused(tmp_path).message
    wrapped = tmp_path / "st"
    shutil.copytree(encoders["bert"], wrapped / "0_Transformer")
    (wrapped / "modules.json").write_text("[]")
    assert refused(wrapped).hint == f"give `encoder={wrapped / '0_Transformer'}`"
    shutil.copytree(encoders["bert"], tmp_path / "flat")
    (tmp_path / "flat" / "modules.json").write_text("[]")
    load_pretrained(str(tmp_path / "flat"))


def test_weights_that_do_not_fit(tmp_path: Path, encoders: dict[str, str]) -> None:
    for name, change, message in (
        ("wider", {"hidden_size": 32}, "cannot read its weights"),
        ("deeper", {"num_hidden_layers": 6}, "16 of 101 tensors are not among its weights"),
        ("odd", {"model_type": "no-such-model"}, "cannot read its configuration"),
    ):
        shutil.copytree(encoders["bert"], tmp_path / name)
        described = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps({**described, **change}))
        assert message in refused(tmp_path / name).message
    shutil.copytree(encoders["bert"], tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"\x00" * 100)
    assert "cannot read its weights: damaged" in refused(tmp_path / "damaged").message
    (tmp_path / "damaged" / "model.safetensors").unlink()
    assert "cannot read its weights" in refused(tmp_path / "damaged").message
    (tmp_path / "damaged" / "config.json").write_text("{")
    assert "cannot read its configuration" in refused(tmp_path / "damaged").message


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"model_type": "gpt2"}, "'gpt2' is a decoder; text runs need an encoder"),
        ({"model_type": "t5"}, "'t5' has an encoder and a decoder; text runs need an encoder"),
        ({"model_type": "bart"}, "'bart' has an encoder and a decoder; text runs need an encoder"),
        ({"model_type": "bert", "is_decoder": True}, "'bert' is a decoder; text runs need an encoder"),
        ({"model_type": "vit"}, "'vit' is not a text model; text runs need an encoder"),
    ],
)
def test_models_that_are_no_encoders(described: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert refused(tmp_path).message == f"`encoder={tmp_path}`: {message}"


def test_a_name_without_a_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samo.encoders.hub._hub_answers", lambda: False)
    error = refused("nobody/has-this-encoder", EnvironmentProblem)
    assert "the hub cannot be reached and this machine has no copy" in error.message
    assert "`encoder=FOLDER`" in error.hint


def test_assets_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not describe an encoder"):
        from_assets(tmp_path)


def test_layers_without_numbers_cannot_be_told_apart(encoders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    monkeypatch.setattr("samo.encoders.body._LAYER", re.compile("never"))
    built(encoders["bert"])
    for values in ({"unfreeze_epochs": 1}, {"layer_lr_decay": 0.9}):
        with pytest.raises(SettingsError, match="the layers of 'bert' cannot be told apart"):
            built(encoders["bert"], **values)


def test_reading_prints_nothing(encoders: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    load_pretrained(encoders["bert"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.real
@pytest.mark.skipif(not MINILM.is_dir(), reason="no MiniLM in ../shared/models")
def test_minilm(capfd: pytest.CaptureFixture[str]) -> None:
    model = built(str(MINILM), max_tokens=512, n_tokens=30524)
    assert model.state_width == 384
    assert model.body.n_layers == 6
    assert model.body.network.get_input_embeddings().num_embeddings == 30524
    assert capfd.readouterr() == ("", "")
