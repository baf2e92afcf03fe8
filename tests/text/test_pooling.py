"""From token states to one vector: by hand, and never a word of the padding."""

from __future__ import annotations

import pytest
import tiny_text as tiny
import torch
from torch import Tensor

from samo.encoders.pooling import LAST, LAST4, POOLINGS, Pooling, pooling_parts, sequences_of
from samo.errors import SettingsError
from samo_text.models import MODELS, build_model, require_usable

ENCODER = MODELS["encoder"]
# Two texts of two and three tokens, states of width 2; what stands on padding would win every maximum.
STATES = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [99.0, 99.0]], [[0.0, 6.0], [-3.0, 0.0], [6.0, 3.0]]])
LENGTHS = torch.tensor([2, 3])


def pooled(name: str, states: Tensor = STATES, lengths: Tensor = LENGTHS) -> Tensor:
    torch.manual_seed(0)
    parts = pooling_parts(name, ENCODER)
    return Pooling(parts, states.shape[2] // len(sequences_of(parts)))(states, lengths)


def test_by_hand() -> None:
    assert pooled("cls").tolist() == [[1, -4], [0, 6]]
    assert pooled("mean").tolist() == [[2, -3], [1, 3]]
    assert pooled("max").tolist() == [[3, -2], [6, 6]]
    assert pooled("mean-max").tolist() == [[2, -3, 3, -2], [1, 3, 6, 6]]
    assert pooled("max+cls").tolist() == [[3, -2, 1, -4], [6, 6, 0, 6]]


def test_last4_mean_looks_at_its_own_sequence() -> None:
    both = torch.cat([STATES, 10 * STATES], dim=2)
    assert pooled("cls+last4-mean", both).tolist() == [[1, -4, 20, -30], [0, 6, 10, 30]]
    assert pooled("last4-mean+cls", both).tolist() == [[20, -30, 1, -4], [10, 30, 0, 6]]
    assert pooled("last4-mean", 10 * STATES).tolist() == [[20, -30], [10, 30]]


def test_attention_by_hand() -> None:
    pooling = Pooling(("attention",), 2)
    assert pooling.attention is not None
    with torch.no_grad():
        pooling.attention.project.weight.copy_(torch.eye(2))
        pooling.attention.project.bias.zero_()
        pooling.attention.score.weight.copy_(torch.tensor([[2.0, -1.0]]))
        found = pooling(STATES, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        valid = STATES[row, :length]
        weight = torch.softmax(torch.tanh(valid) @ torch.tensor([2.0, -1.0]), dim=0)
        assert torch.allclose(found[row], weight @ valid, atol=1e-6)


def test_attention_learns() -> None:
    pooling = Pooling(("attention",), 2)
    pooling(STATES, LENGTHS).square().sum().backward()
    for name, parameter in pooling.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("name", [*POOLINGS, "cls+mean-max+attention+last4-mean"])
def test_what_stands_on_padding_is_never_seen(name: str) -> None:
    states = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    states = torch.cat([states] * len(sequences_of(pooling_parts(name, ENCODER))), dim=2)
    lengths = torch.tensor([4, 2, 1])
    expected = pooled(name, states, lengths)
    assert expected.isfinite().all()
    for junk in (1e6, -1e6, float("nan"), float("inf")):
        odd = torch.cat([states, states], dim=1)
        odd[torch.arange(8)[None, :] >= lengths[:, None]] = junk
        assert torch.equal(pooled(name, odd, lengths), expected), junk


@pytest.mark.parametrize("name", [*POOLINGS, "cls+mean-max+attention+last4-mean"])
def test_a_text_without_tokens_is_zeros_and_keeps_gradients_finite(name: str) -> None:
    states = torch.ones(2, 3, 4 * len(sequences_of(pooling_parts(name, ENCODER))), requires_grad=True)
    found = pooled(name, states, torch.tensor([0, 3]))
    assert (found[0] == 0).all()
    assert (found[1] != 0).all()
    found.sum().backward()
    assert states.grad is not None
    assert states.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision(dtype: torch.dtype) -> None:
    """The mean of many tokens keeps its digits, and the mask of the maximum does not overflow."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for name in ("mean", "max", "attention", "cls"):
            found = pooled(name, torch.full((1, 1000, 2), 0.5, dtype=dtype), torch.tensor([999]))
            assert found.dtype == torch.float32
            assert torch.allclose(found, torch.tensor(0.5), atol=1e-6)
        assert pooled("max", -torch.ones(1, 3, 2, dtype=dtype), torch.tensor([1])).tolist() == [[-1, -1]]


def test_names() -> None:
    assert pooling_parts("cls+mean-max", ENCODER) == ("cls", "mean", "max")
    assert pooling_parts("auto", ENCODER) == ("mean",)
    assert pooling_parts("auto", MODELS["textcnn"]) == ("max",)
    assert pooling_parts("auto", MODELS["bigru"]) == ("max",)
    assert pooling_parts("auto", MODELS["tfidf"]) == ()
    assert sequences_of(("last4-mean", "mean")) == (LAST, LAST4)
    assert sequences_of(("last4-mean",)) == (LAST4,)
    assert sequences_of(("cls", "max")) == (LAST,)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SettingsError, match="unknown pooling 'maen'") as caught:
        pooling_parts("cls+maen", ENCODER)
    valid = "cls, mean, max, mean-max, attention, last4-mean"
    assert caught.value.hint == f"did you mean 'mean'? valid: auto, or one or more of {valid} joined with +"
    for wrong in ("", "cls+", "auto+cls", "MEAN"):
        with pytest.raises(SettingsError, match="unknown pooling"):
            pooling_parts(wrong, ENCODER)


def test_what_would_change_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"`pooling=mean\+mean` names mean twice"):
        pooling_parts("mean+mean", ENCODER)
    with pytest.raises(SettingsError, match=r"`pooling=max\+mean-max` names max twice"):
        pooling_parts("max+mean-max", ENCODER)
    with pytest.raises(SettingsError, match="last4-mean` acts only together with `model=encoder`"):
        require_usable(tiny.config(pooling="last4-mean").model)
    with pytest.raises(SettingsError, match="`pooling` acts only together with a network"):
        tiny.config(model="tfidf", pooling="mean")


# Every pooling under every body


@pytest.mark.parametrize("pooling", [*POOLINGS, "cls+mean-max+attention+last4-mean"])
@pytest.mark.parametrize("name", ["textcnn", "bigru", *tiny.FAMILIES])
def test_padding_changes_no_output(name: str, pooling: str, encoders: dict[str, str]) -> None:
    if name in ("textcnn", "bigru"):
        pooling = pooling.removesuffix("+last4-mean")
        if pooling == "last4-mean":
            return
        config = tiny.config(model=name, pooling=pooling)
    else:
        config = tiny.config(encoder=encoders[name], pooling=pooling)
    torch.manual_seed(0)
    model = build_model(config, tiny.SPACE).eval()
    ids = torch.randint(5, 26, (3, 9), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([9, 5, 1])
    pad = 1 if name == "roberta" else 0
    ids[torch.arange(9)[None, :] >= lengths[:, None]] = pad
    longer = torch.cat([ids, torch.full((3, 7), pad)], dim=1)
    other = torch.where(torch.arange(16)[None, :] < lengths[:, None], longer, 7)
    with torch.no_grad():
        expected = model(ids, lengths)
        assert torch.allclose(model(longer, lengths), expected, atol=1e-6, rtol=0)
        if name != "roberta":  # where padding must be the padding token for positions to be counted past it
            assert torch.allclose(model(other, lengths), expected, atol=1e-6, rtol=0)
        for row, length in enumerate(lengths.tolist()):
            alone = model(ids[row : row + 1, :length], lengths[row : row + 1])
            assert torch.allclose(alone[0], expected[row], atol=1e-6, rtol=0)
    assert not torch.allclose(expected[0], expected[1], atol=1e-4)
