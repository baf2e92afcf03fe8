"""The search space: what a file may say, what is drawn when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from tiny_frontend import TinyConfig

from samo.errors import SettingsError
from samo.tuning.space import SearchSpace, parse_space, read_space

BASE = TinyConfig.build({"epochs": 2})
FOCAL = {"focal_loss": {"choices": [False, True]}, "focal_gamma": {"low": 1.0, "high": 3.0, "step": 0.5}}


def space(raw: dict[str, Any], **base: Any) -> SearchSpace:
    return parse_space(raw, TinyConfig.build({"epochs": 2, **base}))


def drawn(found: SearchSpace, **params: Any) -> dict[str, Any]:
    """Every setting of a trial for which Optuna drew these."""
    trial = optuna.trial.FixedTrial(params)
    values = found.draw(trial)  # type: ignore[arg-type]
    assert trial.params == params  # neither more nor less was asked for
    return values


def refused(raw: dict[str, Any], **base: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        space(raw, **base)
    return f"{caught.value.message} {caught.value.hint}"


def test_every_form_becomes_the_distribution_it_names() -> None:
    found = space(
        {
            "lr": {"low": 1e-4, "high": 1e-2, "log": True},
            "label-smoothing": {"low": 0.0, "high": 0.3, "step": 0.1},
            "batch_size": {"low": 8, "high": 32, "step": 8},
            "warmup_ratio": {"low": 0.0, "high": 0.5},
            "num_cycles": {"low": 1, "high": 9, "log": True, "when": "schedule=cosine-restarts"},
            "schedule": {"choices": ["cosine", "cosine-restarts"]},
            "balanced_sampler": {"choices": [True, False]},
        }
    )
    study = optuna.create_study()
    study.enqueue_trial({"schedule": "cosine-restarts"})
    trial = study.ask()
    found.draw(trial)
    floats, ints = optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution
    assert trial.distributions == {
        "lr": floats(1e-4, 1e-2, log=True),
        "label_smoothing": floats(0.0, 0.3, step=0.1),
        "batch_size": ints(8, 32, step=8),
        "warmup_ratio": floats(0.0, 0.5),
        "num_cycles": ints(1, 9, log=True),
        "schedule": optuna.distributions.CategoricalDistribution(("cosine", "cosine-restarts")),
        "balanced_sampler": optuna.distributions.CategoricalDistribution((True, False)),
    }


@pytest.mark.filterwarnings("ignore::UserWarning")  # 3 * 0.1 lies a bit above 0.3
def test_a_grid_is_drawn_as_it_is_written() -> None:
    found = space({"label_smoothing": {"low": 0.0, "high": 0.3, "step": 0.1}})
    assert drawn(found, label_smoothing=3 * 0.1)["label_smoothing"] == 0.3 != 3 * 0.1


def test_needs_is_a_condition_without_being_written() -> None:
    found = space({"focal_gamma": FOCAL["focal_gamma"], "focal_loss": FOCAL["focal_loss"]})
    assert drawn(found, focal_loss=False)["focal_gamma"] == 2.0
    assert drawn(found, focal_loss=True, focal_gamma=1.5)["focal_gamma"] == 1.5


def test_what_the_search_switches_off_goes_back_to_its_default() -> None:
    found = space({"focal_loss": {"choices": [False, True]}}, focal_loss=True, focal_gamma=3.0, adaptive_gamma=True)
    on, off = drawn(found, focal_loss=True), drawn(found, focal_loss=False)
    assert (on["focal_gamma"], on["adaptive_gamma"]) == (3.0, True)
    assert (off["focal_gamma"], off["adaptive_gamma"]) == (2.0, False)
    assert TinyConfig.build(off).loss.focal_gamma == 2.0


def test_when_adds_a_condition() -> None:
    found = space(
        {
            "lr_min": {"low": 0.0, "high": 1e-5, "when": "schedule=cosine"},
            "schedule": {"choices": ["constant", "cosine"]},
        }
    )
    assert drawn(found, schedule="constant")["lr_min"] == 0.0
    assert drawn(found, schedule="cosine", lr_min=5e-6)["lr_min"] == 5e-6


def test_drawn_values_build_whatever_is_drawn() -> None:
    found = space(
        {**FOCAL, "label_smoothing": {"choices": [0.0, 0.1]}, "adaptive_smoothing": {"choices": [True, False]}}
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(30):
        values = found.draw(study.ask())
        assert TinyConfig.build(values).flat() == values
        seen.add((values["focal_loss"], values["label_smoothing"], values["adaptive_smoothing"]))
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"droput": {"low": 0, "high": 1}}, "unknown setting 'droput' for modality tiny did you mean 'dropout'?"),
        ({"lr": {"low": 1e-4, "hgih": 1e-2}}, "lr: unknown key 'hgih' did you mean 'high'?"),
        ({"lr": 0.1}, "lr must be a table"),
        ({"lr": {"low": 1e-4}}, "lr needs low and high"),
        ({"lr": {"low": 0.1, "high": 0.1}}, "low 0.1 must be below high 0.1"),
        ({"lr": {"low": 1e-4, "high": 20.0}}, "lr: 20.0: input should be less than or equal to 10"),
        ({"lr": {"low": 1e-4, "high": float("inf")}}, "finite"),
        ({"weight_decay": {"low": 0.0, "high": 1.0, "log": True}}, "log needs low above 0"),
        ({"lr": {"low": 0.1, "high": 1.0, "log": 1}}, "log must be true or false"),
        ({"label_smoothing": {"low": 0.0, "high": 0.5, "step": 0.2}}, "high 0.5 cannot be reached"),
        ({"batch_size": {"low": 8, "high": 32, "step": 0.5}}, "step must be a whole number above 0"),
        ({"batch_size": {"low": 8.5, "high": 32}}, "batch_size: 8.5: input should be a valid integer"),
        ({"batch_size": {"choices": [16, 16]}}, "a choice stands twice"),
        ({"batch_size": {"choices": []}}, "choices must be a list"),
        ({"batch_size": {"choices": [8], "low": 8}}, "has choices and a range"),
        ({"batch_size": {"choices": [True]}}, "True is of the wrong kind"),
        ({"focal_loss": {"choices": [0, 1]}}, "0 is of the wrong kind"),
        ({"focal_loss": {"low": 0, "high": 1}}, "focal_loss is no number and needs choices"),
        ({"schedule": {"choices": ["cosine", "cosin"]}}, "schedule: 'cosin': input should be 'constant', 'cosine'"),
        ({"class_weight_mult": {"choices": [{}]}}, "class_weight_mult cannot be searched"),
        ({"seed": {"choices": [0, 1]}}, "seed decides what trials are validated on"),
        ({"val_ratio": {"low": 0.1, "high": 0.3}}, "val_ratio decides what trials are validated on"),
        ({"lr_min": {"low": 0.0, "high": 1e-5, "when": "shedule=cosine"}}, "'shedule' did you mean 'schedule'?"),
        ({"lr": {"low": 0.1, "high": 1.0, "when": "lr"}}, "when names no other setting: 'lr'"),
        ({"lr": {"low": 0.1, "high": 1.0, "when": True}}, "when must be a text"),
        ({"lr": {"low": 0.1, "high": 1.0, "when": "dropout"}, "dropout": {"choices": [0.1], "when": "lr"}}, "circle"),
        ({"focal_gamma": {"low": 1.0, "high": 3.0}}, "focal_gamma acts only together with focal_loss"),
        ({"lr": {"low": 0.1, "high": 1.0, "when": "batch_size=99"}, "batch_size": {"choices": [8]}}, "batch_size=99"),
        ({"lr": {"low": 0.1, "high": 1.0, "when": "epochs=99"}, "epochs": {"low": 1, "high": 9}}, "epochs=99"),
        ({"lr": {"low": 0.1, "high": 1.0}, "l-r": {"low": 0.1, "high": 1.0}}, "unknown setting 'l-r'"),
        ({"batch-size": {"choices": [8]}, "batch_size": {"choices": [8]}}, "'batch_size' stands twice"),
        ({}, "nothing to vary"),
    ],
)  # fmt: skip
def test_what_is_refused(raw: dict[str, Any], says: str) -> None:
    assert says in refused(raw)


def test_a_condition_that_the_base_fulfils_needs_no_entry() -> None:
    found = space({"focal_gamma": {"low": 1.0, "high": 3.0}}, focal_loss=True)
    assert drawn(found, focal_gamma=1.25)["focal_gamma"] == 1.25
    assert space({"lr": {"low": 0.1, "high": 1.0, "when": "epochs=5"}, "epochs": {"low": 1, "high": 9}}).dropped == ()


def test_the_shipped_list_drops_what_could_not_act_and_flags_fix() -> None:
    raw = {**FOCAL, "lr": {"low": 0.1, "high": 1.0}}
    found = parse_space(raw, BASE, fixed=["focal_loss"], drop_idle=True)
    assert ([entry.name for entry in found.entries], found.dropped) == (["lr"], ("focal_gamma",))
    assert found.to_json() == {"lr": {"low": 0.1, "high": 1.0}}


def test_json_reads_back_as_the_same_space() -> None:
    raw: dict[str, Any] = {
        **FOCAL,
        "lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "lr_min": {"low": 0.0, "high": 1e-5, "when": "schedule=cosine"},
    }
    found = space(raw)
    assert found.to_json() == raw
    assert parse_space(found.to_json(), BASE).entries == found.entries


def test_base_settings_as_a_trial() -> None:
    raw = {**FOCAL, "batch_size": {"choices": [16, 32]}, "weight_decay": {"low": 0.0, "high": 0.1, "step": 0.05}}
    assert space(raw, weight_decay=0.05).base_params() == {"focal_loss": False, "batch_size": 32, "weight_decay": 0.05}
    assert space(raw, weight_decay=0.05, focal_loss=True).base_params() == {
        "focal_loss": True, "focal_gamma": 2.0, "batch_size": 32, "weight_decay": 0.05,
    }  # fmt: skip
    assert space(raw, weight_decay=0.02).base_params() is None  # beside the grid
    assert space(raw, weight_decay=0.2).base_params() is None  # above it
    assert space(raw, weight_decay=0.05, batch_size=8).base_params() is None


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    with pytest.raises(SettingsError, match="cannot read search space"):
        read_space(path)
    path.write_text("lr = {low = 1e-4")
    with pytest.raises(SettingsError, match="not valid TOML"):
        read_space(path)
    path.write_text("lr = {low = 1e-4, high = 1e-2}\n[dropout]\nchoices = [0.1]\n")
    assert read_space(path) == {"lr": {"low": 1e-4, "high": 1e-2}, "dropout": {"choices": [0.1]}}
