"""Heads by hand, multi-sample dropout, and masks that are the same for every row."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tiny_text as tiny
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samo.encoders.heads import Head, MaskedDropout, votes_to_logits
from samo.errors import SettingsError
from samo.tasks import LabelSpace
from samo_text.config import ModelSettings

WIDTH = 8


def head(space: LabelSpace = tiny.SPACE, **values: Any) -> Head:
    torch.manual_seed(0)
    return Head(WIDTH, space, ModelSettings(**values))


def rows(n: int = 5) -> Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(1))


def shapes(made: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in made.modules() if isinstance(m, nn.Linear)]


# What the settings build


def test_one_layer_is_one_matrix() -> None:
    made = head(dropout=0.0)
    assert shapes(made) == [(WIDTH, 3)]
    assert torch.equal(made(rows()), F.linear(rows(), made.output.weight, made.output.bias))


def test_layers_and_units() -> None:
    assert shapes(head(head_layers=3)) == [(8, 8), (8, 8), (8, 3)]
    assert shapes(head(head_layers=3, head_hidden=4)) == [(8, 4), (4, 4), (4, 3)]
    assert shapes(head(head_layers=2, head_intermediate=32)) == [(8, 32), (32, 8), (8, 3)]
    assert shapes(head(head_layers=2, head_intermediate=32, head_hidden=4)) == [(8, 32), (32, 4), (4, 3)]
    assert shapes(head(head_layers=3, head_hidden=4, head_residual=True)) == [(8, 4), (8, 4), (4, 4), (4, 3)]
    assert shapes(head(tiny.BOTH))[-1] == (8, 5)


def test_hidden_layer_by_hand() -> None:
    made = head(head_layers=2, dropout=0.0)
    first = made.hidden[0].layers[0]
    assert torch.allclose(made(rows()), made.output(F.gelu(first(rows()))))


def test_intermediate_layer_by_hand() -> None:
    made = head(head_layers=2, head_intermediate=12, dropout=0.0)
    expand, _, contract = made.hidden[0].layers
    assert torch.allclose(made(rows()), made.output(contract(F.gelu(expand(rows())))))


def test_residual_by_hand() -> None:
    made = head(head_layers=2, head_residual=True, dropout=0.0)
    assert torch.allclose(made(rows()), made.output(rows() + F.gelu(made.hidden[0].layers[0](rows()))))
    made = head(head_layers=2, head_hidden=4, head_residual=True, dropout=0.0)
    layer = made.hidden[0]
    assert torch.allclose(made(rows()), made.output(layer.shortcut(rows()) + F.gelu(layer.layers[0](rows()))))


def test_norm_by_hand() -> None:
    made = head(head_layers=2, head_norm=True, head_hidden=4, dropout=0.0)
    x = F.gelu(made.hidden[0].layers[0](F.layer_norm(rows(), (8,))))
    assert torch.allclose(made(rows()), made.output(F.layer_norm(x, (4,))), atol=1e-6)


def test_dropout_stands_before_each_layer() -> None:
    made = head(head_layers=3, dropout=0.42)
    assert [m.p for m in made.modules() if isinstance(m, MaskedDropout)] == [0.42] * 3
    made.train()
    assert not torch.equal(made(rows()), made(rows()))
    made.eval()
    assert torch.equal(made(rows()), made(rows()))


@pytest.mark.parametrize("values", [{}, {"head_layers": 3, "head_residual": True, "head_norm": True, "head_hidden": 4}])
def test_the_gradient_reaches_every_parameter(values: dict[str, Any]) -> None:
    made = head(**values, dropout_samples=3).train()
    made(rows()).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head_hidden": 4}, "`head_hidden` acts only together with `head_layers` above 1"),
        ({"head_intermediate": 4}, "`head_intermediate` acts only together with `head_layers` above 1"),
        ({"head_residual": True}, "`head_residual` acts only together with `head_layers` above 1"),
        ({"dropout_samples": 4, "dropout": 0.0}, "`dropout_samples` acts only together with `dropout` above 0"),
        (
            {"dropout_inference": "vote"},
            "`dropout_inference` mean and vote act only together with `dropout_samples` above 1",
        ),
        ({"model": "tfidf", "dropout": 0.5}, "`dropout` acts only together with a network, not `model=tfidf`"),
        ({"model": "tfidf", "head_layers": 2}, "`head_layers` acts only together with a network, not `model=tfidf`"),
    ],
)
def test_what_would_change_nothing_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        tiny.config(**values)
    assert caught.value.message == message


# Several dropout masks


def test_training_gives_logits_of_every_mask() -> None:
    made = head(dropout_samples=4, dropout=0.5).train()
    logits = made(rows())
    assert logits.shape == (4, 5, 3)
    assert not torch.equal(logits[0], logits[1])
    assert head(dropout_samples=1).train()(rows()).shape == (5, 3)


def test_the_mean_over_many_masks_is_the_logit_without() -> None:
    """Dropout keeps the expectation of a linear layer."""
    made = head(dropout_samples=64, dropout=0.3).train()
    found = torch.stack([made(rows()).mean(dim=0) for _ in range(100)]).mean(dim=0)
    assert torch.allclose(found, made.eval()(rows()), atol=0.03)


def test_off_judges_without_dropout() -> None:
    assert torch.equal(head(dropout_samples=4, dropout=0.5).eval()(rows()), head(dropout=0.0).eval()(rows()))


def test_mean_and_vote_by_hand() -> None:
    values: dict[str, Any] = {"dropout_samples": 7, "dropout": 0.5}
    made = head(tiny.BOTH, dropout_inference="mean", **values).eval()
    masks = made.before[-1].masks
    assert masks.shape == (7, 1, WIDTH)
    assert set(masks.unique().tolist()) == {0.0, 2.0}
    each = torch.stack([made.output(rows() * mask) for mask in masks])
    assert torch.allclose(made(rows()), each.mean(dim=0), atol=1e-6)
    vote = head(tiny.BOTH, dropout_inference="vote", **values).eval()
    assert torch.allclose(vote(rows()), votes_to_logits(each, tiny.BOTH))


def test_votes_by_hand() -> None:
    """Three masks; two labels that may both hold, then one of two classes."""
    logits = torch.tensor([[[1.0, -1.0, -1.0, 0.2, 0.1]], [[2.0, -1.0, 0.1, 0.1, 0.2]], [[3.0, -9.0, -0.1, 9.0, 8.0]]])
    found = votes_to_logits(logits, tiny.BOTH)[0]
    shares = [3.5 / 4, 0.5 / 4, 1.5 / 4]
    assert torch.sigmoid(found[:3]).tolist() == pytest.approx(shares)
    assert torch.softmax(found[3:], dim=0).tolist() == pytest.approx([2.5 / 4, 1.5 / 4])
    assert found[3].item() == pytest.approx(math.log(2.5 / 4))
    # In reduced precision a half vote must not round away.
    assert torch.allclose(votes_to_logits(logits.bfloat16(), tiny.BOTH)[0], found)


@pytest.mark.parametrize("way", ["mean", "vote"])
def test_masks_belong_to_no_row(way: str) -> None:
    values: dict[str, Any] = {"dropout_samples": 8, "dropout": 0.5, "dropout_inference": way, "head_layers": 3}
    made = head(tiny.BOTH, **values).eval()
    together = made(rows(6))
    assert together.shape == (6, 5)
    assert torch.equal(made(rows(6)), together)
    assert torch.allclose(made(rows(6).flip(0)).flip(0), together, atol=1e-6)
    for k in range(6):
        assert torch.allclose(made(rows(6)[k : k + 1])[0], together[k], atol=1e-6)
    twice = made(rows(6)[:1].expand(3, -1))
    assert torch.allclose(twice, twice[:1].expand(3, -1), atol=1e-6)
    # The layers' masks differ from each other, and from those of no dropout.
    one, other = made.hidden[0].before[-1].masks, made.hidden[1].before[-1].masks
    assert not torch.equal(one, other)
    assert not torch.allclose(together, head(tiny.BOTH, **{**values, "dropout_inference": "off"}).eval()(rows(6)))


def test_masks_do_not_depend_on_the_global_generator_and_are_not_saved() -> None:
    values: dict[str, Any] = {"dropout_samples": 8, "dropout": 0.5, "dropout_inference": "mean"}
    torch.manual_seed(1)
    first = Head(WIDTH, tiny.SPACE, ModelSettings(**values)).eval()
    before = torch.get_rng_state()
    torch.manual_seed(2)
    second = Head(WIDTH, tiny.SPACE, ModelSettings(**values)).eval()
    assert set(first.state_dict()) == {"output.weight", "output.bias"}
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(rows()), second(rows()))
    # Making masks takes nothing from the generator that initialises the weights.
    torch.manual_seed(1)
    Head(WIDTH, tiny.SPACE, ModelSettings())
    assert torch.equal(torch.get_rng_state(), before)
