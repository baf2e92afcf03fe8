"""A training that is repeated or stopped and resumed gives the same weights, bit for bit."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_frontend as tiny
import torch
from tiny_frontend import BOTH, QUICK, RICH, Recorder, begin, same, train

from samo.training.runtime import Runtime
from samo.training.setup import Setup
from samo.training.trainer import TrainState, fit, new_state


@pytest.mark.parametrize("settings", [QUICK, RICH])
def test_training_twice_gives_the_same_bits(settings: dict[str, Any]) -> None:
    one = train(BOTH, **settings)
    torch.rand(5)
    np.random.seed(3)
    other = train(BOTH, **settings)
    assert same(one.model.state_dict(), other.model.state_dict())
    assert same(one.eval_weights(), other.eval_weights())
    strip = [[{k: v for k, v in row.items() if k != "seconds"} for row in state.history] for state in (one, other)]
    assert strip[0] == strip[1]


def saved(state: TrainState) -> bytes:
    buffer = io.BytesIO()
    torch.save(state.state_dict(), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "settings",
    [
        QUICK,
        {**QUICK, "ema_decay": 0.9},
        {**QUICK, "ema_decay": 0.9, "keep": "last"},
        {**QUICK, "epochs": 8, "keep": "average"},
        {**QUICK, "grad_accum": 3},
        {**QUICK, "balanced_sampler": True},
        {**QUICK, "hidden": 8, "dropout": 0.5},
        {**QUICK, "schedule": "cosine-restarts", "mixup_alpha": 0.3},
        {**QUICK, "epochs": 4, "hidden": 8, "dropout": 0.5, "rdrop_alpha": 1.0, "rdrop_warmup_epochs": 3},
        {**QUICK, "joint_alpha": 0.5, "by_size": True, "batch_size": 5},
        {**QUICK, "epochs": 4, "hidden": 8, "hidden_from": 1, "hidden_lr": 0.5, "ema_decay": 0.9},
        {**QUICK, "epochs": 4, "hidden": 8, "hidden_from": 2, "weight_decay": 0.5, "ema_decay": 0.9},
        RICH,
    ],
    ids=[
        *("plain", "ema", "the last epoch", "averaged", "accumulation", "balanced", "dropout", "restarts+mixup"),
        *("R-Drop", "joint+by size", "frozen before the stop", "frozen until the stop", "rich"),
    ],
)
@pytest.mark.parametrize("step", [0, 1])
def test_a_stopped_training_goes_on_bit_for_bit(settings: dict[str, Any], step: int) -> None:
    """Stopped in the middle of the third epoch: what the second epoch's end left is enough."""
    whole = train(**settings)
    front = tiny.frontend(**settings)
    state, plan = begin(front)
    kept: list[bytes] = []
    with pytest.raises(KeyboardInterrupt):
        fit(
            state,
            Setup(front, tiny.RUNTIME),
            plan,
            Recorder(lambda epoch, number: (epoch, number) == (2, 1 + step * (plan.steps_per_epoch - 1))),
            lambda state, improved: kept.append(saved(state)),
        )
    assert len(kept) == 2
    torch.manual_seed(99)
    again = new_state(front.new_model(), plan, tiny.RUNTIME)
    again.load_state_dict(torch.load(io.BytesIO(kept[-1]), weights_only=True))
    assert again.epoch == 2
    fit(again, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    assert same(whole.model.state_dict(), again.model.state_dict())
    assert same(whole.eval_weights(), again.eval_weights())
    assert (whole.best_epoch, whole.best_score, whole.best_loss) == (
        again.best_epoch,
        again.best_score,
        again.best_loss,
    )
    assert [row["train_loss"] for row in whole.history] == [row["train_loss"] for row in again.history]


def test_a_training_begun_before_absent_classes_were_left_out_goes_on_by_its_own_rule() -> None:
    """Validation without class 2: a checkpoint of then has no word for the rule, and its scores stay of one kind."""
    front = tiny.frontend(**QUICK)
    state, plan = begin(front)
    targets = front.manifest.targets[plan.val_rows]
    column = front.manifest.label_space.slices[front.manifest.label_space.primary.name].start + 2
    plan = replace(plan, val_rows=plan.val_rows[targets[:, column] != 1.0])
    whole, kept = replace(state, absent_as_zero=True), []
    fit(whole, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, _: kept.append(saved(state)))
    stored = torch.load(io.BytesIO(kept[0]), weights_only=True)
    assert stored.pop("absent_as_zero") is True
    again = new_state(front.new_model(), plan, tiny.RUNTIME)
    assert again.absent_as_zero is False
    again.load_state_dict(stored)
    fit(again, Setup(front, tiny.RUNTIME), plan, tiny.Silent(), lambda state, improved: None)
    scores = [[row["val_macro_f1"] for row in each.history] for each in (whole, again)]
    assert scores[0] == scores[1]
    # One of three classes has no row: no score is above 2/3, however good the model.
    assert 0.5 < max(scores[0]) <= 2 / 3 + 1e-9
    assert (again.best_epoch, again.best_score) == (whole.best_epoch, whole.best_score)


def test_loading_a_finished_state_trains_no_more() -> None:
    state = train(**QUICK)
    front = tiny.frontend(**QUICK)
    again, plan = begin(front)
    again.load_state_dict(torch.load(io.BytesIO(saved(state)), weights_only=True))
    assert again.finished(plan.train)
    fit(again, Setup(front, tiny.RUNTIME), plan, Recorder(lambda epoch, step: True), lambda state, improved: None)
    assert same(state.model.state_dict(), again.model.state_dict())


def test_a_state_goes_on_in_another_precision() -> None:
    """From a machine without loss scaling to one with it, and back."""
    front = tiny.frontend(**QUICK)
    scaled = Runtime(torch.device("cpu"), "fp16", channels_last=False, threads=1)
    for before, after in ((tiny.RUNTIME, scaled), (scaled, tiny.RUNTIME)):
        state, _ = begin(front, before)
        row = {"train_loss": 1.0, "val_loss": 1.0, "val_macro_f1": 0.5, "seconds": 1.0}
        state.epoch, state.history = 2, [{"epoch": 1, **row}, {"epoch": 2, **row}]
        again, _ = begin(front, after)
        again.load_state_dict(state.state_dict())
        assert again.epoch == 2
