"""With ``keep=average`` the mean of the weights over the last epochs is the model, and batch norm knows it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import tiny_frontend as tiny
import torch
from pydantic import ValidationError
from tiny_frontend import QUICK, begin, same
from torch import Tensor, nn

from samo.data.sampling import epoch_order
from samo.settings import TrainSettings
from samo.training.averaging import EpochAverage, averaged_epochs, refresh_batchnorm
from samo.training.setup import Setup
from samo.training.trainer import TrainState, fit, new_state, predict_logits

EIGHT: dict[str, Any] = {**QUICK, "epochs": 8}


class Normed(tiny.TinyFrontend):
    """The hidden layer ends in batch norm."""

    def new_model(self) -> nn.Module:
        model = super().new_model()
        model.hidden = nn.Sequential(nn.Linear(tiny.N_FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU())
        return model


def trained(**settings: Any) -> tuple[TrainState, list[dict[str, Tensor]]]:
    """A training, and the weights of each epoch, the moving average where there is one."""
    front = Normed(tiny.TinyConfig.build(settings), *tiny.corpus())
    state, plan = begin(front)
    epochs: list[dict[str, Tensor]] = []

    def keep(state: TrainState, counts: bool) -> None:
        epochs.append({name: tensor.clone() for name, tensor in state.epoch_weights().items()})
        assert counts

    fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), keep)
    return state, epochs


def test_a_quarter_of_the_epochs() -> None:
    assert [averaged_epochs(n) for n in (8, 11, 12, 30, 100)] == [2, 2, 3, 7, 25]
    with pytest.raises(ValidationError, match="`keep=average` needs `epochs` of 8 or more"):
        TrainSettings(keep="average", epochs=7)


def test_the_mean_by_hand() -> None:
    model = nn.BatchNorm1d(1)
    average = EpochAverage(model, 3)
    for weight, counter in ((1.0, 5), (2.0, 6), (6.0, 7)):
        assert not average.complete
        average.add(
            {**model.state_dict(), "weight": torch.tensor([weight]), "num_batches_tracked": torch.tensor(counter)}
        )
    assert average.complete
    assert average.weights["weight"].item() == pytest.approx(3.0)
    assert average.weights["num_batches_tracked"].item() == 7


def test_a_mean_goes_on_from_its_state_and_from_no_other() -> None:
    average = EpochAverage(nn.Linear(1, 1), 2)
    average.add({"weight": torch.tensor([[2.0]]), "bias": torch.tensor([1.0])})
    again = EpochAverage(nn.Linear(1, 1), 2)
    again.load_state_dict(average.state_dict())
    again.add({"weight": torch.tensor([[4.0]]), "bias": torch.tensor([1.0])})
    assert (again.weights["weight"].item(), again.complete) == (3.0, True)
    with pytest.raises(ValueError, match="the mean of the weights: its tensors are not those of the model"):
        EpochAverage(nn.Linear(1, 1, bias=False), 2).load_state_dict(again.state_dict())
    with pytest.raises(ValueError, match="is over 2 epochs, not 1"):
        EpochAverage(nn.Linear(1, 1), 1).load_state_dict(again.state_dict())


@pytest.mark.parametrize("ema", [{}, {"ema_decay": 0.9}], ids=["plain", "of moving averages"])
def test_the_last_quarter_is_averaged_and_ships(ema: dict[str, Any]) -> None:
    settings = {**EIGHT, "hidden": 8, **ema}
    last, _ = trained(**settings, keep="last")
    state, epochs = trained(**settings, keep="average")
    # The training itself is the same; what is made of it is another.
    assert same(last.model.state_dict(), state.model.state_dict())
    shipped = state.eval_weights()
    for name, tensor in shipped.items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(tensor, (epochs[6][name] + epochs[7][name]) / 2, rtol=0, atol=1e-6)
            assert name == "mean" or not torch.equal(tensor, epochs[7][name])
    assert (state.best_epoch, state.best_score) == (7, state.history[-1]["val_macro_f1"])
    # It is the mean that was validated last, and single epochs before.
    losses = [[row["val_loss"] for row in each.history] for each in (last, state)]
    assert losses[0][:7] == losses[1][:7]
    assert losses[0][7] != losses[1][7]
    front = Normed(tiny.TinyConfig.build(settings), *tiny.corpus())
    model = front.new_model()
    model.load_state_dict(shipped)
    logits = torch.from_numpy(predict_logits(model, Setup(front, tiny.RUNTIME), np.arange(32, 48)))
    expected = nn.functional.cross_entropy(logits, torch.from_numpy(front.manifest.targets[32:48])).item()
    assert losses[1][7] == pytest.approx(expected, rel=1e-6)


def test_a_training_stopped_among_the_averaged_epochs_goes_on() -> None:
    settings = {**EIGHT, "hidden": 8, "keep": "average"}
    whole, _ = trained(**settings)
    front = Normed(tiny.TinyConfig.build(settings), *tiny.corpus())
    state, plan = begin(front)
    kept: list[dict[str, Any]] = []
    stop = tiny.Recorder(lambda epoch, step: (epoch, step) == (7, 1))
    with pytest.raises(KeyboardInterrupt):
        fit(state, Setup(front, tiny.RUNTIME), plan, stop, lambda state, _: kept.append(deepcopy(state.state_dict())))
    # Until the mean is whole, the last epoch's weights ship.
    assert kept[-1]["average"]["n_added"] == 1
    again = new_state(front.new_model(), plan, tiny.RUNTIME)
    again.load_state_dict(kept[-1])
    assert same(again.eval_weights(), again.model.state_dict())
    fit(again, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, _: None)
    assert same(whole.eval_weights(), again.eval_weights())
    assert whole.best_score == again.best_score


def test_batch_norm_is_estimated_on_the_training_rows() -> None:
    """All 32 rows in one batch: mean and unbiased variance of what comes in, with dropout before it switched off."""
    front = Normed(tiny.TinyConfig.build({**EIGHT, "hidden": 8}), *tiny.corpus())
    state, plan = begin(front)
    norm = state.model.hidden[1]
    state.model.hidden[0] = nn.Sequential(nn.Dropout(0.5), nn.Linear(tiny.N_FEATURES, 8))
    refresh_batchnorm(state.model, Setup(front, tiny.RUNTIME), plan.train_rows, 32, 0)
    with torch.no_grad():
        seen = state.model.hidden[0][1](torch.from_numpy(front.features[:32]))
    torch.testing.assert_close(norm.running_mean, seen.mean(dim=0))
    torch.testing.assert_close(norm.running_var, seen.var(dim=0))
    assert (norm.momentum, state.model.training) == (0.1, False)
    # Of several batches the plain mean counts; a last one that is not full counts not at all.
    rows = np.arange(35)
    refresh_batchnorm(state.model, Setup(front, tiny.RUNTIME), rows, 8, 3)
    order = epoch_order(rows, 3, 0)
    assert order.tolist() != rows.tolist()
    with torch.no_grad():
        batches = state.model.hidden[0][1](torch.from_numpy(front.features[order[:32]])).reshape(4, 8, 8)
    torch.testing.assert_close(norm.running_mean, batches.mean(dim=1).mean(dim=0))
    torch.testing.assert_close(norm.running_var, batches.var(dim=1).mean(dim=0))


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

    front = Normed(tiny.TinyConfig.build({**EIGHT, "hidden": 8}), *tiny.corpus())
    state, plan = begin(front)
    state.model.hidden[1] = Frozen(8)
    state.model.hidden[1].running_mean.fill_(3.0)
    refresh_batchnorm(state.model, Setup(front, tiny.RUNTIME), plan.train_rows, 8, 0)
    assert torch.equal(state.model.hidden[1].running_mean, torch.full((8,), 3.0))


def test_what_never_changes_keeps_every_bit() -> None:
    """A frozen encoder's states are kept under its bytes, and -0.0 has others than 0.0."""
    model = nn.Linear(2, 1).requires_grad_(False)
    model.weight.copy_(torch.tensor([[-0.0, 0.1]]))
    average = EpochAverage(model, 3)
    for bias in (1.0, 2.0, 6.0):
        model.bias.fill_(bias)
        average.add(model.state_dict())
    assert torch.signbit(average.weights["weight"]).tolist() == [[True, False]]
    assert average.weights["bias"].item() == pytest.approx(3.0)
