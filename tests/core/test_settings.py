"""Settings: refused, read, written; every rule of the central model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tiny_frontend import TinyConfig

from samo.errors import DiskFull, SamoError, SettingsError, first_ten, nearest, reporting_full_disk
from samo.experiments.ablation import plan_ablation
from samo.modalities import config_type
from samo.settings import (
    LossSettings,
    OptimSettings,
    Section,
    SettingField,
    TrainSettings,
    read_toml,
    resolve,
    setting,
    stored_config,
    with_defaults,
)

SECTIONS = {"data", "model", "loss", "optim", "train"}


def refused(**values: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        TinyConfig.build(values)
    assert "\n" not in caught.value.message
    return caught.value


def toml(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "c.toml"
    path.write_text(text)
    return read_toml(path, SECTIONS)


def test_defaults_are_valid_and_survive_a_round_trip() -> None:
    config = TinyConfig.build({})
    assert config.loss == LossSettings()
    assert config.optim == OptimSettings()
    assert config.train == TrainSettings()
    assert TinyConfig.build(json.loads(json.dumps(config.flat()))) == config


def test_runs_stored_without_a_setting_keep_what_they_were_trained_with() -> None:
    """The default of new runs may be another one."""
    new = config_type("audio").build({}).stored()
    assert new["level"] == "active"
    assert with_defaults(new) == new
    old = {name: value for name, value in new.items() if name not in ("level", "trim_db")}
    assert with_defaults(old) == {**new, "level": "as-is", "trim_db": 0.0}
    # Augmentation that acts on the level alone went with it.
    assert stored_config(with_defaults({**old, "gain": 6.0})).flat()["level"] == "as-is"
    with pytest.raises(SettingsError, match="`gain` acts only together with `level=as-is`"):
        stored_config({**new, "gain": 6.0})


@pytest.mark.parametrize("then", [0.0, False, "", "old"])
def test_a_stored_default_may_be_anything(then: Any) -> None:
    class Later(Section):
        one: Any = setting("new", "one", stored_default=then)
        two: Any = setting("new", "two")

    fields = [SettingField(name, "later", "", info) for name, info in Later.model_fields.items()]
    assert [field.stored_default for field in fields] == [then, "new"]


@pytest.mark.parametrize(
    ("modality", "preset", "flags"),
    [
        ("audio", "", {"keep": "last", "patience": 10}),
        ("audio", "", {"keep": "average", "patience": 10, "model": "resnet18"}),  # its own default
        ("audio", "mn04", {"patience": 10}),  # the preset keeps the last weights
        ("text", "", {"keep": "last", "patience": 3}),
    ],
)
def test_a_patience_that_is_typed_must_do_something(modality: str, preset: str, flags: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"^`patience` does nothing with `keep=(last|average)`, which trains all"):
        resolve(modality, preset, None, flags)
    assert resolve(modality, preset, None, {**flags, "keep": "best"}).flat()["patience"] == flags["patience"]
    assert resolve(modality, preset, None, {**flags, "patience": 0}).flat()["keep"] != "best"


def test_recipes_and_runs_with_the_patience_of_then_stay(tmp_path: Path) -> None:
    recipe = resolve("audio", "demo", None, {"keep": "last"})
    assert (recipe.flat()["keep"], recipe.flat()["patience"]) == ("last", 10)
    assert stored_config(recipe.stored()) == recipe
    best = tmp_path / "best.toml"  # as a search writes it: every setting
    best.write_text('keep = "last"\npatience = 10\n')
    assert resolve("audio", "", best, {}).flat()["patience"] == 10
    grid = tmp_path / "g.toml"
    grid.write_text('modality = "audio"\n[base]\npatience = 10\n[variants.baseline]\n[variants.last]\nkeep = "last"\n')
    assert [cell.settings["patience"] for cell in plan_ablation(grid, {}, artifacts=tmp_path).cells] == [10, 10]
    with pytest.raises(SettingsError, match="`patience` does nothing with `keep=last`"):
        plan_ablation(grid, {"patience": 10}, artifacts=tmp_path)


def test_values_land_in_their_sections() -> None:
    config = TinyConfig.build({"lr": 0.01, "label_smoothing": 0.1, "task_weights": {"emotion": 0.5}})
    assert config.optim.lr == 0.01
    assert config.loss.label_smoothing == 0.1
    assert config.flat()["task_weights"] == {"emotion": 0.5}


def test_names_are_unique_and_described() -> None:
    names = [field.name for field in TinyConfig.fields()]
    assert len(set(names)) == len(names)
    assert list(TinyConfig.build({}).flat()) == names
    assert all(field.info.description for field in TinyConfig.fields())


def test_frozen() -> None:
    config = TinyConfig.build({})
    with pytest.raises(ValidationError):
        config.optim.lr = 1.0
    config.loss.task_weights["emotion"] = 9.0
    assert TinyConfig.build({}).loss.task_weights == {}


def test_unknown_setting_suggests_the_nearest() -> None:
    error = refused(lable_smoothing=0.1)
    assert error.message == "unknown setting 'lable_smoothing' for modality tiny"
    assert error.hint == "did you mean 'label_smoothing'? `samo train --help` lists all settings"
    assert error.exit_status == 2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", -1, "`lr` -1: input should be greater than 0"),
        ("epochs", 0, "`epochs` 0: input should be greater than or equal to 1"),
        ("label_smoothing", 1.0, "`label_smoothing` 1.0: input should be less than 1"),
        ("schedule", "linear", "`schedule` 'linear': input should be 'constant', 'cosine' or 'cosine-restarts'"),
        ("seed", -1, "`seed` -1: input should be greater than or equal to 0"),
        ("weight_decay", float("inf"), "`weight_decay` inf: input should be a finite number"),
        ("lr", float("nan"), "`lr` nan: input should be a finite number"),
        ("task_weights", {"emotion": 0.0}, "`task_weights` 0.0: input should be greater than 0"),
        ("task_weights", {"emotion": float("inf")}, "`task_weights` inf: input should be a finite number"),
        ("lr_min", 0.5, "`lr_min` must not exceed `lr`"),
        ("epochs", True, "`epochs` True: a number is needed, not true"),
        ("lr", True, "`lr` True: a number is needed, not true"),
        ("task_weights", {"emotion": True}, "`task_weights` {'emotion': True}: a number is needed, not true"),
    ],
)
def test_values_out_of_range(name: str, value: Any, message: str) -> None:
    assert refused(**{name: value}).message == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"focal_gamma": 1.0}, "`focal_gamma` acts only together with `focal_loss`"),
        ({"class_weight_mult": {"a": 2.0}}, "`class_weight_mult` acts only together with `class_weight_loss`"),
        ({"adaptive_smoothing": True}, "`adaptive_smoothing` acts only together with `label_smoothing`"),
        ({"num_cycles": 5}, "`num_cycles` acts only together with `schedule=cosine-restarts`"),
        ({"fold": 1}, "`fold` acts only together with `split=folds`"),
        (
            {"lr_min": 1e-4, "schedule": "constant"},
            "`lr_min` acts only together with a `schedule` that falls: cosine or cosine-restarts",
        ),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(values: dict[str, Any], message: str) -> None:
    assert refused(**values).message == message


def test_the_same_settings_with_what_they_need() -> None:
    TinyConfig.build({"focal_gamma": 1.0, "focal_loss": True})
    TinyConfig.build({"num_cycles": 5, "schedule": "cosine-restarts", "lr_min": 1e-4})
    TinyConfig.build({"fold": 1, "split": "folds"})
    # Its default may be spelled out: nothing is changed in silence.
    TinyConfig.build({"focal_gamma": 2.0})


def test_needs_name_settings_that_exist() -> None:
    names = {field.name for field in TinyConfig.fields()}
    for field in TinyConfig.fields():
        if field.needs:
            assert field.needs.partition("=")[0] in names - {field.name}


def test_differences() -> None:
    mine, theirs = TinyConfig.build({"lr": 0.01}), TinyConfig.build({"seed": 3})
    assert mine.differences(theirs) == {"lr": (0.01, 1e-3), "seed": (0, 3)}
    assert mine.differences(mine) == {}


def test_toml_flat_and_in_sections(tmp_path: Path) -> None:
    read = toml(tmp_path, 'lr = 0.1\nmodel = "x"\n[loss]\nfocal-loss = true\n[loss.task_weights]\nemotion = 2\n')
    assert read == {"lr": 0.1, "model": "x", "focal_loss": True, "task_weights": {"emotion": 2}}
    assert toml(tmp_path, "[class_weight_mult]\na = 2.0") == {"class_weight_mult": {"a": 2.0}}


@pytest.mark.parametrize(
    "text",
    [
        "lr = 1\n[optim]\nlr = 2",
        "grad_accum = 1\ngrad-accum = 2",
        "grad-accum = 1\ngrad_accum = 2",
        "grad-accum = 1\n[optim]\ngrad-accum = 2",
    ],
)
def test_toml_that_sets_a_name_twice(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"sets '(lr|grad_accum)' twice"):
        toml(tmp_path, text)


def test_toml_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not valid TOML"):
        toml(tmp_path, "lr = = 1")
    with pytest.raises(SettingsError, match=r"cannot read configuration .*No such file"):
        read_toml(tmp_path / "none.toml", SECTIONS)
    with pytest.raises(SettingsError, match=r"cannot read configuration .*Is a directory"):
        read_toml(tmp_path, SECTIONS)
    (tmp_path / "latin.toml").write_bytes(b'data = "\xe9"')
    with pytest.raises(SettingsError, match="is not valid TOML"):
        read_toml(tmp_path / "latin.toml", SECTIONS)


def test_errors_are_one_line_with_a_status_of_their_own() -> None:
    def kinds(kind: type[SamoError]) -> list[type[SamoError]]:
        return [kind, *(deeper for below in kind.__subclasses__() for deeper in kinds(below))]

    error = SamoError("two\n  lines", hint="and\ntwo")
    assert (error.message, error.hint) == ("two lines", "and two")
    # What a module adds to one of these is of its kind, and leaves with its status.
    found = [kind for kind in kinds(SamoError) if kind.__module__ == "samo.errors"]
    assert len(found) > 10
    assert len({kind.code for kind in found}) == len(found)
    statuses = [kind.exit_status for kind in found if kind.code not in ("error", "interrupted")]
    assert len(set(statuses)) == len(statuses)
    assert not {0, 70, 130} & set(statuses)


def test_nearest_and_first_ten() -> None:
    assert nearest("hapy", ["sad", "happy"]) == "did you mean 'happy'? "
    assert nearest("xyz", ["sad", "happy"]) == ""
    assert first_ten(range(3)) == "0, 1, 2"
    assert first_ten(range(12)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


def test_full_disk_is_seen_behind_the_error_it_caused(tmp_path: Path) -> None:
    def writer() -> None:
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")  # what torch.save says when it cannot finish its zip

    with (
        pytest.raises(DiskFull, match=r"no space left while writing .*x") as caught,
        reporting_full_disk(tmp_path / "x"),
    ):
        writer()
    assert caught.value.exit_status == 8
    with pytest.raises(RuntimeError, match="something else"), reporting_full_disk(tmp_path):
        raise RuntimeError("something else")
