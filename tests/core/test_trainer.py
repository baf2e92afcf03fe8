"""The trainer on a few dozen rows: it learns, each setting acts, it stops where it should."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import tiny_frontend as tiny
import torch
from pydantic import ValidationError
from tiny_frontend import BOTH, QUICK, Recorder, begin, same, train

from samo.data.batch import Batch, Draws, draw_mix
from samo.errors import TrainingDiverged
from samo.settings import OptimSettings, TrainSettings
from samo.tasks import LabelSpace
from samo.training import trainer
from samo.training.optim import learning_rate
from samo.training.runtime import Runtime
from samo.training.setup import Setup
from samo.training.trainer import TrainState, fit, predict_logits


class Watched(tiny.TinyFrontend):
    """Writes down which rows were asked for."""

    def watch(self) -> None:
        self.trained: list[tuple[int, np.ndarray]] = []

    def train_batch(self, rows: np.ndarray, draws: Draws) -> Batch:
        self.trained.append((draws.epoch, rows))
        return super().train_batch(rows, draws)


def scripted(monkeypatch: pytest.MonkeyPatch, *validated: tuple[float, float]) -> None:
    """Let validation find the given macro-F1 and loss, epoch by epoch."""
    found = iter(validated)
    monkeypatch.setattr(trainer, "validate", lambda *_, **__: next(found))


def run_scripted(**settings: Any) -> tuple[TrainState, list[bool]]:
    front = tiny.frontend(**settings)
    state, plan = begin(front)
    seen = Recorder()
    fit(state, Setup(front, tiny.RUNTIME), plan, seen, lambda state, improved: None)
    return state, [improved for _, improved in seen.rows]


# --- learning


@pytest.mark.parametrize("space", [None, LabelSpace((tiny.TAGS,)), BOTH])
def test_learns(space: LabelSpace | None) -> None:
    state = train(space, **{**QUICK, "epochs": 25}, class_weight_loss=True)
    assert state.history[0]["val_macro_f1"] < 0.75
    assert state.best_score > 0.8
    assert state.history[-1]["train_loss"] < 0.6 * state.history[0]["train_loss"]


def test_learns_in_reduced_precision() -> None:
    front = tiny.frontend(**{**QUICK, "epochs": 25})
    runtime = Runtime(torch.device("cpu"), "bf16", channels_last=True, threads=1)
    state, plan = begin(front, runtime)
    fit(state, Setup(front, runtime), plan, tiny.Silent(), lambda state, improved: None)
    assert state.best_score > 0.8
    assert {tensor.dtype for tensor in state.model.state_dict().values()} == {torch.float32}


def test_history_and_observer() -> None:
    front = tiny.frontend(**QUICK, grad_accum=3)
    state, plan = begin(front)
    seen = Recorder()
    fit(state, Setup(front, tiny.RUNTIME), plan, seen, lambda state, improved: None)
    assert [row["epoch"] for row in state.history] == [1, 2, 3]
    assert [row for row, _ in seen.rows] == state.history
    # Four batches of eight, three of them to a step.
    assert seen.steps == [(epoch, step, 2) for epoch in range(3) for step in (1, 2)]
    assert (plan.steps_per_epoch, plan.total_steps) == (2, 6)
    assert (state.epoch, state.step) == (3, 6)
    assert [row["lr"] for row in state.history] == [learning_rate(step, 6, plan.optim) for step in (1, 3, 5)]
    assert state.optimizer.param_groups[0]["lr"] == state.history[-1]["lr"]


def test_a_set_smaller_than_a_batch_is_one_step() -> None:
    front = tiny.frontend(**{**QUICK, "batch_size": 64})
    state, plan = begin(front)
    assert (plan.steps_per_epoch, plan.total_steps) == (1, 3)
    fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    assert state.step == 3


def test_rows_of_an_epoch() -> None:
    base = tiny.frontend(**{**QUICK, "batch_size": 5})
    front = Watched(base.config, base.manifest, base.features)
    front.watch()
    state, plan = begin(front)
    fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    for epoch in range(3):
        rows = np.concatenate([rows for number, rows in front.trained if number == epoch])
        assert len(set(rows)) == len(rows) == 30  # 32 rows in full batches of 5
        assert set(rows) <= set(plan.train_rows)


def test_balanced_sampler_shows_classes_equally_often() -> None:
    base = tiny.frontend(**{**QUICK, "epochs": 40}, balanced_sampler=True)
    front = Watched(base.config, base.manifest, base.features)
    front.watch()
    state, plan = begin(front)
    fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    rows = np.concatenate([rows for _, rows in front.trained])
    shares = front.manifest.targets[rows].mean(axis=0)
    # 1280 draws: sd 0.013; the corpus itself has 1/2, 1/4, 1/4.
    assert shares == pytest.approx([1 / 3] * 3, abs=0.05)


# --- one step


@pytest.mark.parametrize("space", [None, LabelSpace((tiny.TAGS,)), BOTH])
@pytest.mark.parametrize("settings", [{}, {"class_weight_loss": True, "focal_loss": True, "max_grad_norm": 0.5}])
def test_four_micro_batches_equal_one_large_batch(space: LabelSpace | None, settings: dict[str, Any]) -> None:
    shared = {"epochs": 5, "lr": 0.05, "hidden": 8, **settings}
    one = train(space, **shared, batch_size=32)
    four = train(space, **shared, batch_size=8, grad_accum=4)
    assert one.step == four.step == 5
    for name, tensor in one.model.state_dict().items():
        torch.testing.assert_close(four.model.state_dict()[name], tensor, rtol=0.0, atol=1e-6)
    losses = [[row["train_loss"] for row in state.history] for state in (one, four)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_short_last_group_is_a_mean_over_its_own_rows() -> None:
    """Five batches, four to a step: the fifth makes a step as large as a batch of its own would."""
    front = tiny.frontend(epochs=1, batch_size=6, grad_accum=4, lr=0.05)
    state, plan = begin(front)
    fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    assert state.step == 2
    again, _ = begin(front)
    criterion = trainer.EmotionLoss(front.manifest.label_space, plan.loss, front.manifest.targets[plan.train_rows])
    order = trainer.epoch_order(plan.train_rows, 0, 0)
    for rows, step in ((order[:24], 0), (order[24:30], 1)):
        rate = learning_rate(step, plan.total_steps, plan.optim)
        trainer.train_step(again, Setup(front, tiny.RUNTIME), plan, criterion, [Draws(0, 0, rows)], rate)
    for name, tensor in state.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, rtol=0.0, atol=1e-6)


def test_first_step_by_hand() -> None:
    """AdamW's first step is lr * sign(gradient) after the decay."""
    front = tiny.frontend(epochs=1, batch_size=32, lr=0.1, warmup_ratio=0.0, weight_decay=0.5, max_grad_norm=0.0)
    state, plan = begin(front)
    before = copy.deepcopy(state.model)
    loss = torch.nn.functional.cross_entropy(
        before(torch.from_numpy(front.features[:32]), torch.zeros(32)), torch.from_numpy(front.manifest.targets[:32])
    )
    loss.backward()
    fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    weight, bias = before.get_parameter("head.weight"), before.get_parameter("head.bias")
    assert weight.grad is not None
    assert bias.grad is not None
    assert state.history[0]["train_loss"] == pytest.approx(loss.item(), rel=1e-6)
    torch.testing.assert_close(
        state.model.get_parameter("head.weight"), 0.95 * weight - 0.1 * weight.grad.sign(), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        state.model.get_parameter("head.bias"), bias - 0.1 * bias.grad.sign(), rtol=1e-4, atol=1e-5
    )


# What each setting needs, and a value that must change the weights that are judged.
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "lr": ({}, 0.01),
    "weight_decay": ({}, 0.5),
    "schedule": ({}, "constant"),
    "warmup_ratio": ({}, 0.5),
    "num_cycles": ({"schedule": "cosine-restarts"}, 2),
    "lr_min": ({}, 0.02),
    "grad_accum": ({}, 2),
    "max_grad_norm": ({"grad_accum": 1}, 1e-8),
    "grad_centralisation": ({}, True),
    "ema_decay": ({}, 0.5),
    "epochs": ({}, 4),
    "batch_size": ({}, 4),
    "seed": ({}, 1),
    "balanced_sampler": ({}, True),
    "mixup_alpha": ({}, 0.4),
    "dropout": ({"hidden": 8}, 0.5),
    "rdrop_alpha": ({"hidden": 8, "dropout": 0.5}, 1.0),
    "rdrop_warmup_epochs": ({"hidden": 8, "dropout": 0.5, "rdrop_alpha": 1.0}, 2),
    "joint_alpha": ({}, 1.0),
    "joint_max_mult": ({"joint_alpha": 1.0}, 1.5),
    "joint_boost": ({"joint_alpha": 1.0}, {"sad": 3.0}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_acts(name: str) -> None:
    needs, value = CHANGES[name]
    base = {**QUICK, **needs}
    assert not same(train(**base).eval_weights(), train(**{**base, name: value}).eval_weights())


def test_no_setting_is_forgotten() -> None:
    settings = OptimSettings.model_fields.keys() | TrainSettings.model_fields.keys()
    assert settings - CHANGES.keys() == {"patience", "keep"}  # below and in test_averaging


def test_asymmetric_loss_over_four_micro_batches() -> None:
    shared = {"epochs": 5, "lr": 0.05, "hidden": 8, "asymmetric_loss": True, "class_weight_loss": True}
    one, four = train(BOTH, **shared, batch_size=32), train(BOTH, **shared, batch_size=8, grad_accum=4)
    for name, tensor in one.model.state_dict().items():
        torch.testing.assert_close(four.model.state_dict()[name], tensor, rtol=0.0, atol=1e-6)


def test_clipping_off_and_out_of_reach_are_the_same() -> None:
    assert same(train(**QUICK, max_grad_norm=0.0).eval_weights(), train(**QUICK, max_grad_norm=1e6).eval_weights())


def test_the_moving_average_is_judged_and_the_model_left_alone() -> None:
    plain, averaged = train(**QUICK), train(**QUICK, ema_decay=0.9)
    assert same(plain.model.state_dict(), averaged.model.state_dict())
    assert not same(averaged.eval_weights(), averaged.model.state_dict())
    assert same(plain.eval_weights(), plain.model.state_dict())
    front = tiny.frontend(**QUICK)
    model = front.new_model()
    model.load_state_dict(averaged.eval_weights())
    logits = predict_logits(model, Setup(front, tiny.RUNTIME), np.arange(32, 48))
    truth = torch.from_numpy(front.manifest.targets[32:48])
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), truth).item()
    assert averaged.history[-1]["val_loss"] == pytest.approx(expected, rel=1e-6)
    assert plain.history[-1]["val_loss"] != pytest.approx(expected, rel=1e-3)


# --- the best epoch, and when to stop


def test_best_epoch_by_macro_f1_and_ties_by_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, (0.3, 1.0), (0.5, 2.0), (0.5, 1.5), (0.5, 1.5), (0.4, 0.1), (0.5, 1.6))
    state, improved = run_scripted(epochs=6, patience=0)
    assert improved == [True, True, True, False, False, False]
    assert (state.best_epoch, state.best_score, state.best_loss) == (2, 0.5, 1.5)


@pytest.mark.parametrize(("patience", "epochs"), [(1, 4), (2, 5), (3, 8), (0, 8)])
def test_patience(monkeypatch: pytest.MonkeyPatch, patience: int, epochs: int) -> None:
    better = [0.1, 0.2, 0.3, 0.2, 0.2, 0.4, 0.1, 0.1]
    if patience == 2:
        better[5] = 0.1
    scripted(monkeypatch, *((score, 1.0) for score in better))
    state, _ = run_scripted(epochs=8, patience=patience)
    assert state.epoch == len(state.history) == epochs


def test_patience_counts_from_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, *[(0.0, 1.0)] * 10)
    state, improved = run_scripted(epochs=10, patience=4)
    assert improved == [True, False, False, False, False]
    assert state.epoch == 5


def test_keep_is_called_each_epoch_with_the_state_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, (0.3, 1.0), (0.2, 1.0), (0.4, 1.0))
    front = tiny.frontend(epochs=3)
    state, plan = begin(front)
    kept: list[tuple[int, int, bool, int]] = []
    fit(
        state,
        Setup(front, tiny.RUNTIME),
        plan,
        tiny.Silent(),
        lambda state, improved: kept.append((state.epoch, state.best_epoch, improved, len(state.history))),
    )
    assert kept == [(1, 0, True, 1), (2, 0, False, 2), (3, 2, True, 3)]


def test_the_last_epoch_counts_however_it_validates(monkeypatch: pytest.MonkeyPatch) -> None:
    """With keep=last every epoch's weights are kept in turn, none is waited for, and the best one is still named."""
    scripted(monkeypatch, (0.3, 1.0), (0.5, 2.0), *[(0.2, 1.5)] * 12)
    front = tiny.frontend(epochs=14, keep="last")
    state, plan = begin(front)
    kept: list[tuple[int, float, float, bool]] = []
    seen = Recorder()
    fit(
        state,
        Setup(front, tiny.RUNTIME),
        plan,
        seen,
        lambda state, counts: kept.append((state.best_epoch, state.best_score, state.best_loss, counts)),
    )
    # Default patience 10 would have ended it after epoch 12.
    assert state.epoch == 14
    assert kept[:3] == [(0, 0.3, 1.0, True), (1, 0.5, 2.0, True), (2, 0.2, 1.5, True)]
    assert kept[-1] == (13, 0.2, 1.5, True)
    assert [improved for _, improved in seen.rows] == [True, True, *[False] * 12]


def test_patience_is_refused_where_the_last_epoch_counts() -> None:
    with pytest.raises(ValidationError, match="`patience` does nothing with `keep=last`"):
        TrainSettings(keep="last", patience=3)
    with pytest.raises(ValidationError, match="`patience` does nothing with `keep=average`"):
        TrainSettings(keep="average", patience=3)
    assert TrainSettings(keep="last", patience=0).keep == "last"


# --- numbers that are none


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_the_files(bad: float) -> None:
    front = tiny.frontend(**{**QUICK, "batch_size": 4})
    front.features[13] = bad
    state, plan = begin(front)
    kept: list[bool] = []
    with pytest.raises(TrainingDiverged) as caught:
        fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: kept.append(improved))
    order = trainer.epoch_order(plan.train_rows, 0, 0).tolist()
    step = order.index(13) // 4
    files = ", ".join(f"clip{row:03d}.wav" for row in order[4 * step : 4 * step + 4])
    assert caught.value.message == f"the loss became nan in epoch 1, step {step + 1}; clips: {files}"
    assert caught.value.exit_status == 7
    assert "`lr`" in caught.value.hint
    assert kept == []
    assert all(torch.isfinite(tensor).all() for tensor in state.model.state_dict().values())


def test_a_validation_loss_that_is_no_number_is_never_the_best() -> None:
    """The last step of an epoch may break the weights: no training loss shows it, and argmax would still score."""
    front = tiny.frontend(**{**QUICK, "epochs": 1})
    front.features[40] = math.nan
    state, plan = begin(front)
    kept: list[bool] = []
    with pytest.raises(TrainingDiverged, match=r"the validation loss became nan after epoch 1; clips: clip040\.wav$"):
        fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: kept.append(improved))
    assert kept == []
    assert state.best_epoch == -1


# --- judging rows


def test_logits_are_averaged_over_windows() -> None:
    """The windows of a tiny row lie evenly around it, so that a linear model's mean is the row's own logits."""
    one, five = tiny.frontend(), tiny.frontend(windows=5)
    model = one.new_model()
    rows = np.array([7, 3, 40, 0])
    direct = predict_logits(model, Setup(one, tiny.RUNTIME), rows)
    assert direct.shape == (4, 3)
    assert direct.dtype == np.float32
    for batch_size in (1, 3, 64):  # cuts through a row's windows
        averaged = predict_logits(model, Setup(five, tiny.RUNTIME), rows, batch_size)
        np.testing.assert_allclose(averaged, direct, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(predict_logits(model, Setup(one, tiny.RUNTIME), rows[::-1]), direct[::-1])
    assert predict_logits(model, Setup(one, tiny.RUNTIME), rows[:0]).shape == (0, 3)


def test_judging_switches_dropout_off_and_training_on() -> None:
    front = tiny.frontend(**QUICK, hidden=8, dropout=0.9)
    state, plan = begin(front)
    rows = np.arange(8)
    first = predict_logits(state.model, Setup(front, tiny.RUNTIME), rows)
    np.testing.assert_array_equal(predict_logits(state.model, Setup(front, tiny.RUNTIME), rows), first)
    assert not state.model.training
    modes: list[bool] = []
    state.model.register_forward_hook(lambda model, *_: modes.append(model.training))
    fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    assert modes == [True, True, True, True, False] * 3


def test_unlabelled_rows_do_not_disturb() -> None:
    front = tiny.frontend(BOTH, **QUICK)
    items = tuple(replace(item, labels={}) if row in (1, 33) else item for row, item in enumerate(front.manifest.items))
    front.manifest = replace(front.manifest, items=items)
    state, plan = begin(front)
    fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    assert all(math.isfinite(row["val_loss"]) for row in state.history)


def test_inputs_and_targets_are_mixed_alike() -> None:
    """One step's loss by hand: each row is w of itself and 1 - w of its partner, features and labels."""
    front = tiny.frontend(epochs=1, batch_size=32, lr=0.05, mixup_alpha=0.4)
    state, plan = begin(front)
    rows = plan.train_rows
    mix = draw_mix(Draws(0, 0, rows), 0.4)
    assert mix is not None
    share, partner = mix.weight.numpy()[:, None], rows[mix.partner.numpy()]
    given, targets = front.features, front.manifest.targets
    mixed, labels = (share * each[rows] + (1 - share) * each[partner] for each in (given, targets))
    assert np.abs(labels - targets[rows]).mean() > 0.02
    expected = torch.nn.functional.cross_entropy(
        state.model(torch.from_numpy(mixed), torch.zeros(32)), torch.from_numpy(labels)
    )
    criterion = trainer.EmotionLoss(front.manifest.label_space, plan.loss, targets[rows])
    found = trainer.train_step(state, Setup(front, tiny.RUNTIME), plan, criterion, [Draws(0, 0, rows)], 0.05)
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_each_epoch_drops_other_units() -> None:
    """Dropout draws from torch's generator, whose seed is of the run's seed and the epoch."""
    front = tiny.frontend(**{**QUICK, "batch_size": 32, "seed": 5})
    state, plan = begin(front)
    seeds: list[int] = []
    state.model.register_forward_pre_hook(
        lambda model, _: seeds.append(torch.initial_seed()) if model.training else None
    )
    fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    # The first seven bytes of SHA-256 of "5:EPOCH:0".
    assert seeds == [int.from_bytes(sha256(f"5:{epoch}:0".encode()).digest()[:7], "little") for epoch in range(3)]


@pytest.mark.parametrize("settings", [{"balanced_sampler": True}, {"joint_alpha": 1.0, "by_size": True}])
def test_no_two_drawings_of_an_epoch_share_their_random_numbers(settings: dict[str, Any]) -> None:
    front = tiny.frontend(**{**QUICK, "epochs": 1, "mixup_alpha": 0.4, **settings})
    seen: list[Draws] = []
    made = front.train_batch

    def watched(rows: np.ndarray, draws: Draws) -> Batch:
        seen.append(draws)
        return made(rows, draws)

    front.train_batch = watched  # type: ignore[method-assign]
    state, plan = begin(front)
    fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    rows = np.concatenate([draws.rows for draws in seen])
    assert len(np.unique(rows)) < len(rows)
    for name in ("crop", "mix-weight"):
        drawn = np.concatenate([draws.uniform(name)[:, 0] for draws in seen])
        assert len(np.unique(drawn)) == len(rows)
    # A row that is met for the first time has the numbers it has without a sampler.
    first = np.unique(rows, return_index=True)[1]
    np.testing.assert_array_equal(drawn[first], Draws(0, 0, rows[first]).uniform("mix-weight")[:, 0])


def test_the_moving_average_moves_with_each_step() -> None:
    """After the first of all steps the average is 2/11 of what it was and 9/11 of the model (Ema's rising decay)."""
    front = tiny.frontend(epochs=1, batch_size=32, lr=0.1, ema_decay=0.9)
    state, plan = begin(front)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    assert state.step == 1
    for name, tensor in state.eval_weights().items():
        torch.testing.assert_close(tensor, before[name] * 2 / 11 + state.model.state_dict()[name] * 9 / 11)


def test_labels_of_validation_do_not_weigh_the_classes() -> None:
    """Training is the same to the bit when every validation row gets another label."""
    states = []
    for label in ("angry", "sad"):
        front = tiny.frontend(**QUICK, class_weight_loss=True)
        items = front.manifest.items
        moved = tuple(replace(item, labels={"emotion": (label,)}) for item in items[32:])
        front.manifest = replace(front.manifest, items=(*items[:32], *moved))
        state, plan = begin(front)
        fit(state, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
        states.append(state.model.state_dict())
    assert same(*states)


def test_rdrop_rises_while_training() -> None:
    """Nothing in the first epoch of the warm-up, but something in the next."""
    base = {**QUICK, "hidden": 8, "dropout": 0.5}
    assert not same(train(**base, rdrop_alpha=1.0, rdrop_warmup_epochs=2).eval_weights(), train(**base).eval_weights())
