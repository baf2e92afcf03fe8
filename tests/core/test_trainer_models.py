"""What models and frontends ask of the trainer: rates, frozen epochs, samples, sizes, nothing to learn, two passes."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tiny_frontend as tiny
import torch
from tiny_frontend import BOTH, QUICK, Recorder, begin, same, train
from torch import Tensor, nn

from samo.data.batch import Batch, Draws, Mix
from samo.data.sampling import epoch_order, sorted_batches
from samo.errors import TrainingDiverged
from samo.training import trainer
from samo.training.model import EmotionModel
from samo.training.setup import Setup
from samo.training.trainer import TrainState, fit, new_state, predict_logits

HIDDEN = {**QUICK, "hidden": 8}
SILENT = tiny.Silent()


def keep(state: TrainState, improved: bool) -> None:
    """Nothing."""


# --- rates and frozen epochs


def test_parts_learn_at_their_own_rate() -> None:
    front = tiny.frontend(**HIDDEN, hidden_lr=0.25)
    state, plan = begin(front)
    rates: list[list[float]] = []
    watch = Recorder(lambda *_: bool(rates.append([group["lr"] for group in state.optimizer.param_groups])))
    fit(state, Setup(front, tiny.RUNTIME), plan, watch, keep)
    expected = [trainer.learning_rate(step, plan.total_steps, plan.optim) for step in range(plan.total_steps)]
    np.testing.assert_allclose(rates, np.outer(expected, [1.0, 1.0, 0.25, 0.25]))
    # The history speaks of the rate they are shares of.
    assert state.history[-1]["lr"] == expected[-1]
    assert not same(state.model.state_dict(), train(**HIDDEN).model.state_dict())


def test_frozen_epochs() -> None:
    """Weight decay included, the hidden layer is as it was until its epoch begins."""
    front = tiny.frontend(**{**HIDDEN, "epochs": 4}, hidden_from=2, weight_decay=0.5, ema_decay=0.9)
    state, plan = begin(front)
    start = copy.deepcopy(state.model.state_dict())
    kept: list[dict[str, Tensor]] = []
    fit(
        state,
        Setup(front, tiny.RUNTIME),
        plan,
        SILENT,
        lambda state, improved: kept.append(copy.deepcopy({**state.model.state_dict(), **_averaged(state)})),
    )
    for name in ("hidden.0.weight", "hidden.0.bias"):
        changed = [not torch.equal(weights[name], start[name]) for weights in kept]
        averaged = [not torch.equal(weights["average " + name], start[name]) for weights in kept]
        assert changed == averaged == [False, False, True, True]
    heads = [start["head.weight"], *(weights["head.weight"] for weights in kept)]
    assert not any(torch.equal(*pair) for pair in pairwise(heads))


def _averaged(state: TrainState) -> dict[str, Tensor]:
    return {"average " + name: tensor for name, tensor in state.eval_weights().items()}


def test_what_sleeps_from_the_start_is_never_woken() -> None:
    class Sleeper(tiny.TinyModel):
        def begin_epoch(self, epoch: int) -> None:
            self.requires_grad_(epoch > 0)

    front = tiny.frontend(**HIDDEN)
    _, plan = begin(front)
    model = Sleeper(front.config.model, front.manifest.label_space)
    model.hidden.requires_grad_(False)
    state = new_state(model, plan, tiny.RUNTIME)
    state.epoch = 1
    with pytest.raises(
        RuntimeError, match=r"frozen when the model was made, so never trained: hidden\.0\.weight, hidd"
    ):
        fit(state, Setup(front, tiny.RUNTIME), plan, SILENT, keep)


def test_a_network_without_hooks_learns_as_a_whole() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(tiny.N_FEATURES, 3)

        def forward(self, inputs: Tensor, lengths: Tensor, draws: object = None, mix: object = None) -> Tensor:
            logits: Tensor = self.head(inputs)
            return logits

    front = tiny.frontend(**{**QUICK, "epochs": 25})
    _, plan = begin(front)
    state = new_state(Plain(), plan, tiny.RUNTIME)
    fit(state, Setup(front, tiny.RUNTIME), plan, SILENT, keep)
    assert not isinstance(state.model, EmotionModel)
    assert state.best_score > 0.8


# --- nothing to learn


class Fitted(tiny.TinyModel):
    """Its weights are found before training: class means as a linear model."""

    def __init__(self) -> None:
        super().__init__(tiny.TinyNet(), tiny.LabelSpace((tiny.EMOTION,)))
        self.requires_grad_(False)
        self.head.weight.copy_(4.0 * torch.eye(3, tiny.N_FEATURES))
        self.head.bias.zero_()


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.9}, {"rdrop_alpha": 1.0, "patience": 3}])
def test_a_model_with_nothing_to_learn_is_judged_once(settings: dict[str, Any]) -> None:
    front = tiny.frontend(**{**QUICK, "epochs": 30, **settings})
    _, plan = begin(front)
    state, seen = new_state(Fitted(), plan, tiny.RUNTIME), Recorder()
    kept: list[bool] = []
    fit(state, Setup(front, tiny.RUNTIME), plan, seen, lambda state, improved: kept.append(improved))
    assert kept == [True]
    assert seen.steps == []
    assert (state.epoch, state.step, state.best_epoch, len(state.history)) == (1, 0, 0, 1)
    assert same(state.eval_weights(), Fitted().state_dict())
    # The loss of all training rows, found without learning from them.
    logits = torch.from_numpy(predict_logits(state.model, Setup(front, tiny.RUNTIME), plan.train_rows))
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(front.manifest.targets[plan.train_rows]))
    row = state.history[0]
    assert row["train_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert (row["epoch"], row["lr"]) == (1, 0.0)
    assert row["val_macro_f1"] == state.best_score > 0.8
    assert state.finished(plan.train)
    # Resumed, it is still finished.
    buffer = io.BytesIO()
    torch.save(state.state_dict(), buffer)
    buffer.seek(0)
    again = new_state(Fitted(), plan, tiny.RUNTIME)
    assert not again.finished(plan.train)
    again.load_state_dict(torch.load(buffer, weights_only=True))
    assert again.finished(plan.train)


def test_fitted_weights_that_are_no_numbers_are_refused() -> None:
    front = tiny.frontend(**QUICK)
    front.features[3] = np.nan
    _, plan = begin(front)
    with pytest.raises(TrainingDiverged, match=r"the training loss became nan after epoch 1; clips: clip003\.wav$"):
        fit(new_state(Fitted(), plan, tiny.RUNTIME), Setup(front, tiny.RUNTIME), plan, SILENT, keep)


# --- batches of rows of similar size


class Watched(tiny.TinyFrontend):
    """Writes down which rows were asked for."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.trained: list[tuple[int, list[int]]] = []
        self.judged: list[int] = []

    def train_batch(self, rows: np.ndarray, draws: Draws) -> Batch:
        self.trained.append((draws.epoch, rows.tolist()))
        return super().train_batch(rows, draws)

    def eval_batches(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        self.judged = rows.tolist()
        return super().eval_batches(rows, batch_size)


def test_batches_by_size() -> None:
    base = tiny.frontend(**{**QUICK, "batch_size": 5}, by_size=True)
    front = Watched(base.config, base.manifest, base.features)
    state, plan = begin(front)
    fit(state, Setup(front, tiny.RUNTIME), plan, SILENT, keep)
    for epoch in range(3):
        order = epoch_order(plan.train_rows, 0, epoch)
        expected = [batch.tolist() for batch in sorted_batches(order, order % 5, 5, 0, epoch)]
        assert [rows for number, rows in front.trained if number == epoch] == expected
    # Rows 32 to 47 are judged in the order of their number modulo 5.
    assert front.judged == [35, 40, 45, 36, 41, 46, 32, 37, 42, 47, 33, 38, 43, 34, 39, 44]


@pytest.mark.parametrize("windows", [1, 3])
def test_judging_by_size_gives_rows_back_in_their_places(windows: int) -> None:
    plain, sized = tiny.frontend(windows=windows), tiny.frontend(windows=windows, by_size=True)
    model = plain.new_model()
    rows = np.array([7, 3, 40, 0, 12])
    for batch_size in (1, 3, 64):
        found = predict_logits(model, Setup(sized, tiny.RUNTIME), rows, batch_size)
        np.testing.assert_allclose(found, predict_logits(model, Setup(plain, tiny.RUNTIME), rows), rtol=1e-5, atol=1e-6)
    assert predict_logits(model, Setup(sized, tiny.RUNTIME), rows[:0]).shape == (0, 3)


# --- several samples, several passes


class Sampled(tiny.TinyModel):
    """Three dropout masks over one hidden layer."""

    def forward(self, inputs: Tensor, lengths: Tensor, draws: Draws | None = None, mix: Mix | None = None) -> Tensor:
        if not self.training:
            return super().forward(inputs, lengths)
        return torch.stack([super(Sampled, self).forward(inputs, lengths, draws, mix) for _ in range(3)])


@pytest.mark.parametrize("settings", [{}, {"rdrop_alpha": 0.5}, {"mixup_alpha": 0.4, "grad_accum": 2}])
def test_samples_of_a_row(settings: dict[str, Any]) -> None:
    def trained(kind: type[tiny.TinyModel], dropout: float) -> TrainState:
        front = tiny.frontend(BOTH, **HIDDEN, dropout=dropout, **settings)
        torch.manual_seed(0)
        plan = tiny.plan_of(front)
        state = new_state(kind(front.config.model, BOTH), plan, tiny.RUNTIME)
        fit(state, Setup(front, tiny.RUNTIME), plan, SILENT, keep)
        return state

    # Without dropout all samples are one.
    for name, tensor in trained(tiny.TinyModel, 0.0).model.state_dict().items():
        torch.testing.assert_close(trained(Sampled, 0.0).model.state_dict()[name], tensor, rtol=0.0, atol=1e-5)
    one, three = trained(tiny.TinyModel, 0.5), trained(Sampled, 0.5)
    assert not same(one.model.state_dict(), three.model.state_dict())
    assert same(three.model.state_dict(), trained(Sampled, 0.5).model.state_dict())


def test_rdrop_brings_the_passes_together() -> None:
    def apart(**settings: Any) -> float:
        front = tiny.frontend(**{**HIDDEN, "epochs": 20}, dropout=0.5, **settings)
        state, plan = begin(front)
        fit(state, Setup(front, tiny.RUNTIME), plan, SILENT, keep)
        criterion = trainer.EmotionLoss(front.manifest.label_space, plan.loss, front.manifest.targets)
        state.model.train()
        passes = [state.model(torch.from_numpy(front.features), torch.zeros(48)) for _ in range(2)]
        return criterion.divergence(*passes, torch.from_numpy(front.manifest.targets)).item()

    assert apart(rdrop_alpha=5.0) < 0.5 * apart()


def test_rdrop_without_dropout_changes_nothing() -> None:
    for name, tensor in train(BOTH, **HIDDEN).model.state_dict().items():
        again = train(BOTH, **HIDDEN, rdrop_alpha=3.0).model.state_dict()[name]
        torch.testing.assert_close(again, tensor, rtol=0.0, atol=1e-6)


def test_rdrop_begins_after_its_warm_up() -> None:
    """The first of two epochs of warm-up is that of a training without."""
    states = []
    for settings in ({}, {"rdrop_alpha": 1.0, "rdrop_warmup_epochs": 2}, {"rdrop_alpha": 1.0}):
        state = train(**{**HIDDEN, "epochs": 2}, schedule="constant", dropout=0.5, **settings)
        states.append([row["train_loss"] for row in state.history])
    plain, warmed, at_once = states
    assert warmed[0] == plain[0] != at_once[0]
    assert warmed[1] != plain[1]
