"""What a grid is made of before it runs, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from samo.data.corpora import require_places
from samo.ensembles import preset_ensemble
from samo.errors import DataError, ModelFileError, RunError, SettingsError
from samo.experiments import selection
from samo.experiments.ablation import plan_ablation
from samo.experiments.cells import Cell, status_of
from samo.experiments.crossval import plan_crossval
from samo.experiments.grid_plan import GridPlan, default_name, make_cell, read_grid_facts, require_cell_places
from samo.experiments.learning_curve import plan_learning_curve
from samo.experiments.reporter import PlainGridReporter
from samo.experiments.run_grid import grid_status
from samo.experiments.train_members import plan_members
from samo.launch.local import Outcome
from samo.launch.resources import Resources
from samo.modalities import config_type, frontend_type
from samo.settings import Config, resolve
from samo.training.training_log import TrainingLog

ROW = {"epoch": 2, "train_loss": 1.5, "val_loss": 1.25, "val_macro_f1": 0.5, "seconds": 3.25}


def config(**settings: Any) -> Config:
    return config_type("audio").build({"dataset": "demo", **settings})


def test_a_cell_differs_in_what_it_changes_alone() -> None:
    base = config(lr=0.5)
    cell = make_cell(base, "a", "row", seed=3, fold=2, label_smoothing=0.1)
    changed = {"seed": 3, "fold": 2, "split": "folds", "label_smoothing": 0.1}
    assert cell == Cell("a", "row", 3, 2, {**base.stored(), **changed})
    whole = make_cell(base, "a", "row", seed=3, part="val")
    assert (whole.fold, whole.part, whole.settings) == (None, "val", {**base.stored(), "seed": 3})
    with pytest.raises(SettingsError, match="label_smoothing"):
        make_cell(base, "a", "row", seed=0, label_smoothing=2.0)


def test_two_cells_of_one_name_and_no_cells_are_refused(tmp_path: Path) -> None:
    cell = make_cell(config(), "a", "row", seed=0)
    with pytest.raises(SettingsError, match="grid 'g' names cells twice: a"):
        GridPlan("ablate", tmp_path / "g", (cell, cell))
    with pytest.raises(SettingsError, match="grid 'g' has no cells"):
        GridPlan("ablate", tmp_path / "g", ())
    with pytest.raises(SettingsError, match=r"names cells twice: seed1$"):
        plan_members(config(), seeds=(1, 0, 1), artifacts=tmp_path)


def begin_members(given: dict[str, Any], folder: Path) -> Any:
    return preset_ensemble.plan_member_grids("audio", "best", None, given, artifacts=folder)


def begin_preset(given: dict[str, Any], folder: Path) -> Any:
    return preset_ensemble.train_preset_ensemble("audio", "best", None, given, artifacts=folder)


def begin_grid(given: dict[str, Any], folder: Path) -> Any:
    grid = folder / "g.toml"
    grid.write_text(
        'modality = "audio"\nseeds = [0]\n[variants.baseline]\n[variants.b]\nencoder = "/nowhere/whisper"\n'
    )
    settings = {name: value for name, value in given.items() if name != "encoder"}
    return plan_ablation(grid, settings, artifacts=folder)


@pytest.mark.parametrize(
    "begin",
    [
        lambda given, folder: plan_crossval(config(**given), artifacts=folder),
        lambda given, folder: plan_learning_curve(config(**given), artifacts=folder),
        lambda given, folder: plan_members(config(**given), seeds=(0, 1), artifacts=folder),
        begin_members, begin_preset, begin_grid,
    ],
)  # fmt: skip
def test_a_place_that_is_not_there_comes_before_data_are_opened(
    begin: Callable[[dict[str, Any], Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("the data are opened")

    for module in ("samo.experiments.crossval", "samo.experiments.learning_curve", "samo.ensembles.preset_ensemble"):
        monkeypatch.setattr(f"{module}.open_data", opened)
    with pytest.raises(ModelFileError, match=r"^`encoder=/nowhere/whisper`: there is no such folder$"):
        begin({"dataset": "demo", "encoder": "/nowhere/whisper"}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["g.toml"])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"encoder": "./no"}, "`encoder=./no`: there is no such folder"),
        ({"encoder": "~/no"}, "`encoder=~/no`: there is no such folder"),
        ({"encoder": "/no"}, "`encoder=/no`: there is no such folder"),
        ({"encoder": "models/openai/whisper"}, "`encoder=models/openai/whisper`: there is no such folder"),
        ({"encoder": "openai/whisper/"}, "`encoder=openai/whisper/`: there is no such folder"),
        ({"encoder": "openai/whisper-base"}, ""),  # a name on the hub
        ({"masked_lm": "./no"}, "`masked_lm=./no`: there is no such folder"),
        ({"back_translation_models": "a/there, ./back"}, "`back_translation_models=./back`: there is no such folder"),
        ({"noise": True, "noise_root": "no"}, "`noise_root=no`: there is no such folder"),
        ({"noise": False, "noise_root": "no"}, ""),
        ({"extra_table": "no.csv"}, "`extra_table=no.csv`: there is no such table"),
        ({"extra_table": "~/more.csv"}, ""),
        ({"extra_table": "~/no.csv"}, "`extra_table=~/no.csv`: there is no such table"),
        ({"weights": "no.pt"}, "there is no weights file at no.pt"),
        ({"data_root": "no"}, "`data_root` points at "),
        ({"data_root": "no", "dataset": "demo"}, ""),
        ({"weights": "", "encoder": "", "extra_table": "", "noise_root": "", "data_root": ""}, ""),
    ],
)
def test_places_that_are_not_there(
    settings: dict[str, Any], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "more.csv").touch()
    if not line:
        require_places(settings)
        return
    with pytest.raises((DataError, ModelFileError)) as caught:
        require_places(settings)
    assert caught.value.message.startswith(line)


def test_a_cell_that_is_done_needs_no_start_weights(tmp_path: Path) -> None:
    cells = [
        make_cell(config(model="mn04", pretrained=True, weights="/nowhere/w.pt"), name, "all", seed=0)
        for name in ("done", "missing")
    ]
    (tmp_path / "runs" / "done").mkdir(parents=True)
    (tmp_path / "runs" / "done" / "report.json").write_text("{}")
    assert status_of(cells[0], tmp_path) == "done"
    require_cell_places(cells[:1], tmp_path)
    with pytest.raises(ModelFileError, match="there is no weights file"):
        require_cell_places(cells, tmp_path)


@pytest.mark.parametrize(
    "begin", [partial(plan_crossval, folds=(0, 1)), partial(plan_learning_curve, shares=(0.5, 1.0), seeds=(0,))]
)
def test_a_finished_grid_without_a_name_is_found_without_its_start_weights(
    begin: Callable[..., GridPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is of what opening the data finds out: here that there is no RAVDESS, and the demo corpus is taken."""
    monkeypatch.delenv("SAMO_DATA_ROOT", raising=False)
    weights = tmp_path / "w.pt"
    weights.touch()
    given = config(dataset="ravdess", model="mn04", pretrained=True, weights=str(weights))
    quiet = PlainGridReporter(quiet=True)
    plan = begin(given, artifacts=tmp_path, reporter=quiet)
    assert plan.name.split("-emotion-")[0] in ("crossval-demo", "learning-curve-demo")
    for run in plan.runs:
        run.folder.mkdir(parents=True)
        run.path("report.json").write_text("{}")
    weights.unlink()
    assert begin(given, artifacts=tmp_path, reporter=quiet).folder == plan.folder
    plan.runs[0].path("report.json").unlink()
    with pytest.raises(ModelFileError, match="there is no weights file at "):
        begin(given, artifacts=tmp_path, reporter=quiet)


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_an_encoder_that_was_deleted_has_the_place_it_had(
    modality: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    kind, places = frontend_type(modality), ("./whisper", "~/whisper", str(tmp_path / "whisper"), "own/models/whisper")
    for gone in (False, True):
        for folder in ("whisper", "own/models/whisper"):
            (tmp_path / folder).rmdir() if gone else (tmp_path / folder).mkdir(parents=True)
        found = [
            kind.located(config_type(modality).build({"dataset": "demo", "model": "encoder", "encoder": place}))
            for place in (*places, "openai/whisper-base")
        ]
        assert [each.flat()["encoder"] for each in found] == [
            *[str(tmp_path / "whisper")] * 3, str(tmp_path / "own/models/whisper"), "openai/whisper-base",
        ]  # fmt: skip
        assert {each.flat()["dataset"] for each in found} == {"demo"}


def test_the_name_follows_the_settings_and_not_the_place_of_the_data() -> None:
    name = default_name("crossval", config(), (0,), ())
    assert name.startswith("crossval-demo-emotion-small-cnn-")
    assert name == default_name("crossval", config(data_root="/elsewhere", seed=7), (0,), ())
    others = [default_name("crossval", config(lr=0.5), (0,), ()), default_name("crossval", config(), (0, 1), ())]
    assert len({name, *others}) == 3


def test_members_of_a_preset_are_found_again_wherever_the_data_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[str] = []
    hashed: list[Any] = []
    monkeypatch.setattr(preset_ensemble, "open_data", lambda *_: None)
    monkeypatch.setattr(preset_ensemble, "open_plan", lambda plan, **_: plan)
    monkeypatch.setattr(preset_ensemble, "run_grid", lambda plan, *_: folders.append(plan.folder.name))
    monkeypatch.setattr(preset_ensemble, "build_ensemble", lambda *_, **__: (None, {}))
    monkeypatch.setattr(
        preset_ensemble, "default_name", lambda *given: hashed.append(given[2:]) or default_name(*given)
    )
    for changes in ({}, {"data_root": "/b"}, {"seed": 7}, {"lr": 0.5}, {"trim_db": 30.0}):
        settings = {"dataset": "demo", "data_root": "/a", **changes}
        preset_ensemble.train_preset_ensemble("audio", "best", None, settings, artifacts=tmp_path)
    first, elsewhere, *others = folders
    assert elsewhere == first
    assert len({first, *others}) == 4
    # A setting that came later is part of the name only where it does something.
    came_later = {field.name for field in config_type("audio").fields() if field.came_later}
    assert "trim_db" in came_later
    for (members,), has in ((hashed[0], False), (hashed[-1], True)):
        names = [{name for name, _ in member} for member in members]
        assert ["trim_db" in each for each in names] == [has] * len(members)
        assert not any(each & {"data_root", "baseline"} for each in names)


def test_unnamed_grids_of_a_preset_are_found_again_wherever_the_data_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preset_ensemble, "plan_crossval", lambda config, seeds, folds, name, *_, **__: name)
    names = []
    for changes in ({}, {"data_root": "../a"}, {"baseline": "none"}, {"lr": 0.5}):
        settings = {"dataset": "demo", "data_root": "/a", **changes}
        names.append(preset_ensemble.plan_member_grids("audio", "best", None, settings, artifacts=tmp_path)[0])
    assert names[0] == names[1] == names[2] != names[3]
    # Encoders are compared on one split: another seed is another grid.
    plain = {name: config(**given) for name, given in (("", {}), ("place", {"data_root": "/b"}), ("seed", {"seed": 1}))}
    first, elsewhere, other = (selection._default_name(["a", "b"], {"a": given}) for given in plain.values())
    assert first == elsewhere != other


def test_a_plan_lists_its_cells_and_trains_nothing(tmp_path: Path) -> None:
    plan = plan_members(config(), seeds=(4, 2), name="g", artifacts=tmp_path, command="typed")
    assert plan.folder == tmp_path / "grids" / "g"
    assert [(cell.name, cell.settings["seed"], cell.settings["split_seed"]) for cell in plan.cells] == [
        ("seed4", 4, 4),
        ("seed2", 2, 4),
    ]
    status = grid_status(plan, Resources(workers=1, device="cpu"))
    assert [(row["cell"], row["state"]) for row in status["cells"]] == [("seed4", "missing"), ("seed2", "missing")]
    assert status["seconds_left"] is None
    assert (plan.has_results, list(tmp_path.iterdir())) == (False, [])
    with pytest.raises(RunError, match="there is no grid 'g'"):
        read_grid_facts(plan.folder)


def test_seeds_shares_and_folds_make_the_cells(tmp_path: Path) -> None:
    quiet = PlainGridReporter(quiet=True)
    chosen = resolve("audio", "demo", None, {"dataset": "demo"})
    curve = plan_learning_curve(chosen, (1.0, 0.5), (0, 1), artifacts=tmp_path, reporter=quiet)
    assert [cell.name for cell in curve.cells] == [
        f"limit_fraction={share}.seed{seed}" for share in (0.5, 1.0) for seed in (0, 1)
    ]
    assert [cell.settings["limit_fraction"] for cell in curve.cells] == [0.5, 0.5, 1.0, 1.0]
    folds = plan_crossval(chosen, (3,), (1, 0), artifacts=tmp_path, reporter=quiet)
    assert [(cell.name, cell.settings["split"], cell.settings["fold"]) for cell in folds.cells] == [
        ("seed3.fold1", "folds", 1),
        ("seed3.fold0", "folds", 0),
    ]
    assert (folds.data, folds.unit) == (curve.data, "speaker")
    with pytest.raises(SettingsError, match=r"`folds=9`: demo has \d+ folds, counted from 0"):
        plan_crossval(chosen, (0,), (9,), artifacts=tmp_path, reporter=quiet)


def test_a_store_needs_a_cluster() -> None:
    with pytest.raises(SettingsError, match="`store` acts only together with `ray`"):
        Resources(store="file:///place")


def test_the_log_of_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    log = TrainingLog(12)
    for step in (1, 2):  # the second comes too early
        log.on_step(1, step, 3, 2.0)
    log.on_epoch(ROW, True)
    log.on_epoch({**ROW, "epoch": 3}, False)
    assert capsys.readouterr() == (
        "",
        "epoch 2: step 1/3, loss 2.00\n"
        "epoch  2/12  loss 1.5000  val loss 1.2500  val macro-F1 0.5000  3.2 s * best\n"
        "epoch  3/12  loss 1.5000  val loss 1.2500  val macro-F1 0.5000  3.2 s\n",
    )


def test_plain_lines_of_a_grid(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    scores = {"a": 0.5, "b": None}
    for reporter in (PlainGridReporter(), PlainGridReporter(quiet=True)):
        with reporter.cells(2, "macro_f1", scores.get, "test", tmp_path) as watcher:
            watcher.on_start("a")
            watcher.on_end(Outcome("a", "done", "", 61.0))
            watcher.on_end(Outcome("b", "failed", "no clips", 2.0))
    assert capsys.readouterr().err == "[1/2] a  done  test macro_f1 0.500  61 s\n[2/2] b  failed  no clips  2 s\n"


def test_made_up_names_are_those_of_before() -> None:
    """Made by commit 46bfca4 under the defaults of then; settings that came later leave names alone until used."""

    def name(**values: object) -> str:
        return default_name("crossval", config_type("audio").build(values), (0,), ())

    then = {"level": "as-is", "train_ratio": 0.8, "val_ratio": 0.1, "n_mels": 128, "epochs": 30, "patience": 10}
    assert name(**then) == "crossval-ravdess-emotion-small-cnn-0a1c"
    # What reports show beside a run makes no other grid.
    assert name(**then, baseline="none") == name(**then)
    others = [name(), name(trim_db=30.0), name(level="as-is", trim_db=30.0)]
    assert len({name(level="as-is"), *others}) == 4


def test_the_name_of_an_ensemble_of_variants_is_that_of_before() -> None:
    """Made by commit 46bfca4, which named it by a list where nobody gave seeds."""
    then = {"threshold_range": (0.1, 0.9), "num_thresholds": 20, "threshold_shrinkage": 0.0, "threshold_smoothing": 0.0}
    config = config_type("text").build({"model": "encoder", "encoder": "x", **then})
    assert plan_members(config, (), ("base", "frozen")).name == "ensemble-goemotions-emotion-encoder-a44c"
