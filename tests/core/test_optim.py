"""Groups of AdamW, schedules, gradient centralisation and the moving average, worked out by hand."""

from __future__ import annotations

import math
import typing
from typing import Any

import pytest
import torch
from torch import nn

from samo.settings import OptimSettings
from samo.training.model import EmotionModel
from samo.training.optim import SCHEDULES, Ema, centralise_gradients, learning_rate, make_optimizer, set_rate


def rates(total: int, **settings: Any) -> list[float]:
    given = OptimSettings(lr=1.0, **settings)
    return [learning_rate(step, total, given) for step in range(total)]


QUARTERS = [0.5 * (1 + math.cos(math.pi * share)) for share in (0, 0.25, 0.5, 0.75)]


def test_the_table_holds_what_the_setting_allows() -> None:
    annotation = OptimSettings.model_fields["schedule"].annotation
    assert set(SCHEDULES) == set(typing.get_args(annotation))


def test_constant() -> None:
    assert rates(4, schedule="constant", warmup_ratio=0.0) == [1.0] * 4


def test_cosine_by_hand() -> None:
    assert rates(4, warmup_ratio=0.0) == pytest.approx(QUARTERS)
    assert rates(4, warmup_ratio=0.0) == pytest.approx([1.0, 0.8535534, 0.5, 0.1464466])
    assert rates(4, warmup_ratio=0.0, lr_min=0.2) == pytest.approx([0.2 + 0.8 * share for share in QUARTERS])


def test_warm_up() -> None:
    assert rates(8, warmup_ratio=0.5) == pytest.approx([0.25, 0.5, 0.75, 1.0, *QUARTERS])
    assert rates(6, warmup_ratio=1 / 3, schedule="constant") == pytest.approx([0.5, 1, 1, 1, 1, 1])
    assert rates(1, warmup_ratio=0.1) == [1.0]
    # From the floor, never below it.
    assert rates(8, warmup_ratio=0.5, lr_min=0.2)[:5] == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])
    assert rates(1, warmup_ratio=0.9) == [1.0]


def test_restarts() -> None:
    again = {"schedule": "cosine-restarts", "warmup_ratio": 0.0}
    assert rates(8, **again, num_cycles=2) == pytest.approx(QUARTERS * 2)
    assert rates(8, **again, num_cycles=1) == pytest.approx(rates(8, warmup_ratio=0.0))
    assert rates(10, schedule="cosine-restarts", warmup_ratio=0.2, num_cycles=2) == pytest.approx(
        [0.5, 1.0, *QUARTERS * 2]
    )


@pytest.mark.parametrize("cycles", range(1, 101))
def test_every_restart_falls_on_its_step(cycles: int) -> None:
    """Quotients are not exact: 1 / 49 * 49 lies below 1, where the rate is that of a cycle's end."""
    again = rates(2 * cycles, schedule="cosine-restarts", warmup_ratio=0.0, num_cycles=cycles)
    assert again == pytest.approx([1.0, 0.5] * cycles)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 3, 10, 97])
def test_every_schedule(name: str, total: int) -> None:
    floor = 0.0 if name == "constant" else 0.1
    found = rates(total, schedule=name, lr_min=floor)
    assert all(0.0 < rate <= 1.0 for rate in found)
    n_warm = round(0.1 * total)
    after = found[n_warm:]
    assert after[0] == 1.0
    assert all(rate >= floor for rate in after)
    if name != "cosine-restarts":
        assert sorted(after, reverse=True) == after


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.head = nn.Linear(2, 3)


def test_weight_decay_of_matrices_and_filters_only() -> None:
    net = Net()
    optimizer = make_optimizer(net, OptimSettings(lr=0.1, weight_decay=0.5))
    decayed, free = optimizer.param_groups
    assert decayed["weight_decay"] == 0.5
    assert free["weight_decay"] == 0.0
    assert [id(p) for p in decayed["params"]] == [id(net.conv.weight), id(net.head.weight)]
    assert [id(p) for p in free["params"]] == [
        id(net.conv.bias),
        id(net.norm.weight),
        id(net.norm.bias),
        id(net.head.bias),
    ]
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # Without a gradient only the decay acts: weight * (1 - lr * decay).
    torch.testing.assert_close(net.head.weight, before["head.weight"] * 0.95)
    torch.testing.assert_close(net.conv.weight, before["conv.weight"] * 0.95)
    for name in ("conv.bias", "norm.weight", "norm.bias", "head.bias", "frozen.weight"):
        assert torch.equal(dict(net.named_parameters())[name], before[name])


def test_a_model_of_matrices_alone() -> None:
    optimizer = make_optimizer(nn.Linear(2, 2, bias=False), OptimSettings())
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01]


class Layered(EmotionModel):
    """Three layers, the lower ones slower."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.middle, self.top = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def lr_scale(self, name: str) -> float:
        return {"low": 0.25, "middle": 0.5, "top": 1.0}[name.split(".")[0]]


def test_groups_learn_at_the_rate_the_model_asks_for() -> None:
    net = Layered()
    optimizer = make_optimizer(net, OptimSettings(lr=0.1, weight_decay=0.5))
    seen = [(group["lr_scale"], group["weight_decay"], group["params"]) for group in optimizer.param_groups]
    assert [(scale, decay) for scale, decay, _ in seen] == [(s, d) for s in (1.0, 0.5, 0.25) for d in (0.5, 0.0)]
    layers = (net.top, net.middle, net.low)
    expected = [id(p) for layer in layers for p in (layer.weight, layer.bias)]
    assert [id(p) for *_, group in seen for p in group] == expected
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_rate(optimizer, 0.2)
    optimizer.step()
    # AdamW's first step is rate * sign(gradient), after a decay of rate * 0.5 of the matrices.
    for name, scale in (("low", 0.25), ("middle", 0.5), ("top", 1.0)):
        rate = 0.2 * scale
        layer = net.get_submodule(name)
        torch.testing.assert_close(layer.get_parameter("weight"), before[f"{name}.weight"] * (1 - 0.5 * rate) - rate)
        torch.testing.assert_close(layer.get_parameter("bias"), before[f"{name}.bias"] - rate)


def test_a_parameter_without_gradient_rests() -> None:
    """Frozen for some epochs: no decay, no momentum, and a start of its own when it wakes."""
    net = Layered()
    optimizer = make_optimizer(net, OptimSettings(lr=0.1, weight_decay=0.5))
    before = net.low.weight.detach().clone()
    for _ in range(3):
        net.top.weight.grad = torch.ones_like(net.top.weight)
        optimizer.step()
    assert torch.equal(net.low.weight, before)
    assert net.low.weight not in optimizer.state
    net.low.weight.grad = torch.ones_like(net.low.weight)
    set_rate(optimizer, 0.4)
    optimizer.step()
    torch.testing.assert_close(net.low.weight.detach(), before * 0.95 - 0.1)


def test_nothing_to_learn() -> None:
    optimizer = make_optimizer(nn.Linear(2, 2).requires_grad_(False), OptimSettings())
    assert [group["params"] for group in optimizer.param_groups] == [[]]
    optimizer.load_state_dict(optimizer.state_dict())


def test_rows_of_an_embedding_are_not_centralised() -> None:
    net = nn.Sequential(nn.Embedding(3, 2), nn.EmbeddingBag(3, 2), nn.Linear(2, 1))
    for parameter in net.parameters():
        parameter.grad = torch.arange(1.0, 1.0 + parameter.numel()).view_as(parameter)
    centralise_gradients(net)
    for table in (net[0], net[1]):
        assert table.get_parameter("weight").grad.tolist() == [[1, 2], [3, 4], [5, 6]]  # type: ignore[union-attr]
    assert net[2].get_parameter("weight").grad.tolist() == [[-0.5, 0.5]]  # type: ignore[union-attr]


def test_gradient_centralisation_by_hand() -> None:
    net = Net()
    net.head.weight.grad = torch.tensor([[1.0, 3.0], [4.0, 4.0], [-2.0, 0.0]])
    net.head.bias.grad = torch.tensor([1.0, 2.0, 3.0])
    net.conv.weight.grad = torch.arange(18.0).view(2, 1, 3, 3)
    centralise_gradients(net)
    assert net.head.weight.grad.tolist() == [[-1, 1], [0, 0], [-1, 1]]
    assert net.head.bias.grad.tolist() == [1, 2, 3]
    assert net.conv.weight.grad[0].flatten().tolist() == list(range(-4, 5))
    assert net.conv.weight.grad[1].flatten().tolist() == list(range(-4, 5))
    assert net.norm.weight.grad is None


def one_weight(value: float) -> nn.Module:
    net = nn.Linear(1, 1, bias=False)
    net.register_buffer("count", torch.tensor(0))
    with torch.no_grad():
        net.weight.fill_(value)
    return net


def test_moving_average_by_hand() -> None:
    net = one_weight(11.0)
    ema = Ema(net, 0.25)
    # (1 + n) / (10 + n): 2/11, 3/12 = decay, and no more from there.
    for value, expected in ((0.0, 2.0), (8.0, 6.5), (6.5, 6.5), (10.5, 9.5)):
        with torch.no_grad():
            net.get_parameter("weight").fill_(value)
        net.get_buffer("count").add_(1)
        ema.update(net)
        assert ema.average["weight"].item() == pytest.approx(expected)
    assert ema.average["count"].item() == 4
    assert ema.average["count"].dtype == torch.int64
    assert net.get_parameter("weight").item() == 10.5


def test_moving_average_goes_on_from_its_state() -> None:
    net = one_weight(11.0)
    ema = Ema(net, 0.9)
    ema.update(one_weight(0.0))
    again = Ema(one_weight(5.0), 0.9)
    again.load_state_dict(ema.state_dict())
    for one in (ema, again):
        one.update(one_weight(3.0))
    assert torch.equal(ema.average["weight"], again.average["weight"])
    assert again.n_updates == 2
    # And is a copy, not a second name of the same numbers.
    again.update(one_weight(100.0))
    assert not torch.equal(ema.average["weight"], again.average["weight"])


def test_moving_average_leaves_alone_what_never_trains() -> None:
    net = Net()
    ema = Ema(net, 0.5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)  # of a frozen layer nobody does
    ema.update(net)
    torch.testing.assert_close(ema.average["head.weight"], net.head.weight.detach() - 2 / 11)
    torch.testing.assert_close(ema.average["frozen.weight"], net.frozen.weight - 1.0)


def test_moving_average_holds_batch_norm_statistics() -> None:
    net = Net().train()
    ema = Ema(net, 0.5)
    net.norm(torch.full((4, 2, 1, 1), 10.0))
    ema.update(net)
    assert ema.average["norm.running_mean"].tolist() == pytest.approx([9 / 11, 9 / 11])
    assert ema.average["norm.num_batches_tracked"].item() == 1
