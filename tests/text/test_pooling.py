"""From token states to one vector: by hand, and never a word of the padding."""

from __future__ import annotations

import pytest
import tiny_text as tiny
import torch
from torch import Tensor

from samo.encoders.pooling import ALL, LAST, LAST4, POOLINGS, Pooling, pooling_parts, sequences_of, statistics
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
    # Population: of 1 and 3 it is 1, of 0, -3 and 6 it is sqrt((1 + 16 + 25) / 3).
    torch.testing.assert_close(pooled("sd"), torch.tensor([[1.0, 1.0], [14.0**0.5, 6.0**0.5]]))
    torch.testing.assert_close(pooled("mean-sd"), torch.cat([pooled("mean"), pooled("sd")], dim=1))
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
    width = 4 * len(sequences_of(pooling_parts(name, ENCODER)))
    states = torch.arange(1.0, 6 * width + 1.0).reshape(2, 3, width).requires_grad_()
    found = pooled(name, states, torch.tensor([0, 3]))
    assert (found[0] == 0).all()
    assert (found[1] != 0).all()
    found.sum().backward()
    assert states.grad is not None
    assert states.grad.isfinite().all()


def test_the_sd_of_equal_words_is_zero_and_so_is_its_gradient() -> None:
    states = torch.ones(2, 3, 2, requires_grad=True)
    found = pooled("sd", states, torch.tensor([1, 3]))
    assert found.tolist() == [[0, 0], [0, 0]]
    found.sum().backward()
    assert states.grad is not None
    assert (states.grad == 0).all()


ALL_OF_TWO = torch.cat([10 * STATES, STATES], dim=2)


def over(how: str, *parts: str, **more: float) -> Pooling:
    torch.manual_seed(0)
    return Pooling(parts, 2, sequences=(ALL,), n_layers=2, over_layers=how, **more)  # type: ignore[arg-type]


def test_layers_are_weighed_joined_or_left() -> None:
    """The first layer's states are ten times the second's; the weights begin equal, so their mean is 5.5 times."""
    assert over("last", "mean")(ALL_OF_TWO, LENGTHS).tolist() == [[2, -3], [1, 3]]
    assert over("join", "mean")(ALL_OF_TWO, LENGTHS).tolist() == [[20, -30, 2, -3], [10, 30, 1, 3]]
    assert over("join", "mean", "max").width == 8
    weighed = over("weigh", "mean")
    assert weighed(ALL_OF_TWO, LENGTHS).tolist() == [[11, -16.5], [5.5, 16.5]]
    assert weighed.layer_weights is not None
    with torch.no_grad():
        weighed.layer_weights.copy_(torch.tensor([0.0, torch.log(torch.tensor(3.0))]))  # 1/4 and 3/4
    torch.testing.assert_close(weighed(ALL_OF_TWO, LENGTHS), torch.tensor([[6.5, -9.75], [3.25, 9.75]]))
    assert over("weigh", "cls")(ALL_OF_TWO, LENGTHS).tolist() == [[5.5, -22], [0, 33]]
    # Attention looks at states that are weighed already.
    attention = over("weigh", "attention")
    alone = Pooling(("attention",), 2)
    alone.load_state_dict({name: t for name, t in attention.state_dict().items() if name != "layer_weights"})
    torch.testing.assert_close(attention(ALL_OF_TWO, LENGTHS), alone(5.5 * STATES, LENGTHS))


def test_layer_weights_learn() -> None:
    pooling = over("weigh", "mean", "sd", "max")
    pooling(ALL_OF_TWO, LENGTHS).square().sum().backward()
    assert pooling.layer_weights is not None
    assert pooling.layer_weights.grad is not None
    assert (pooling.layer_weights.grad != 0).all()


@pytest.mark.parametrize("how", ["last", "weigh", "join"])
def test_statistics_say_what_the_states_say(how: str) -> None:
    pooling = over(how, "max", "mean", "sd")
    assert pooling.takes_statistics
    kept = statistics(ALL_OF_TWO, LENGTHS, 2)
    assert kept.shape == (2, 3, 2, 2)
    assert kept[0, 0].tolist() == [[20, -30], [2, -3]]
    torch.testing.assert_close(pooling(kept, torch.tensor([3, 3])), pooling(ALL_OF_TWO, LENGTHS))
    assert not over(how, "mean", "cls").takes_statistics
    assert not over(how, "mean", mask_share=0.1).takes_statistics
    assert not Pooling(("mean",), 2).takes_statistics


def test_statistics_are_standardised_before_layers_are_weighed() -> None:
    pooling = over("weigh", "sd", "mean", standardise=True)
    assert not over("weigh", "attention", standardise=True).standardise
    plain = over("weigh", "sd", "mean")
    assert torch.equal(pooling(ALL_OF_TWO, LENGTHS), plain(ALL_OF_TWO, LENGTHS))
    # mean of layer 0 and 1, each of two units; the sd is left as it is.
    pooling.centre[0] = torch.tensor([[10.0, 20.0], [1.0, 2.0]])
    pooling.scale[0] = torch.tensor([[5.0, 2.0], [0.5, 4.0]])
    expected = torch.stack(
        [
            torch.tensor([(20 - 10) / 5 + (2 - 1) / 0.5, (-30 - 20) / 2 + (-3 - 2) / 4]) / 2,
            torch.tensor([(10 - 10) / 5 + (1 - 1) / 0.5, (30 - 20) / 2 + (3 - 2) / 4]) / 2,
        ]
    )
    for given in (ALL_OF_TWO, statistics(ALL_OF_TWO, LENGTHS, 2)):
        found = pooling(given, LENGTHS)
        torch.testing.assert_close(found[:, 2:], expected)
        torch.testing.assert_close(found[:, :2], plain(ALL_OF_TWO, LENGTHS)[:, :2])


def test_masked_states_are_left_out_in_training() -> None:
    """In spans of 4 of 400 positions; so many are masked as are asked for, and one at least is left."""
    states, lengths = torch.arange(400.0)[None, :, None].expand(50, 400, 2), torch.full((50,), 400)
    pooling = Pooling(("mean",), 2, mask_share=0.3, mask_span=4)
    assert torch.equal(pooling.eval()(states, lengths), torch.full((50, 2), 199.5))
    torch.manual_seed(0)
    valid = torch.ones(50, 400, dtype=torch.bool)
    left = pooling.train()._unmasked(valid)
    assert left[:, 10:].float().mean() == pytest.approx(0.7, abs=0.02)
    # What begins or ends with the text may be shorter.
    inside = ["".join(map(str, row)).strip("0") for row in left.int().tolist()]
    assert min(len(run) for row in inside for run in row.split("1") if run) == 4
    assert not torch.equal(left, pooling._unmasked(valid))
    few = Pooling(("mean",), 2, mask_share=0.999, mask_span=4).train()
    assert few(torch.ones(50, 3, 2), torch.full((50,), 3)).tolist() == [[1, 1]] * 50


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
    assert sequences_of(("cls", "max"), "all") == (ALL,)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SettingsError, match="unknown pooling 'maen'") as caught:
        pooling_parts("cls+maen", ENCODER)
    valid = "cls, mean, sd, max, mean-sd, mean-max, attention, last4-mean"
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
