"""Cross-validations combined fold by fold: exact answers, one split an ensemble, and nothing learned from test."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tiny_frontend as tiny

from samo import modalities
from samo.ensembles import fold_ensemble, grid_ensembles, kept_members, preset_ensemble
from samo.ensembles.grid_ensembles import combine_grids
from samo.errors import LeakError, ModelFileError, RunError, SamoError, SettingsError
from samo.evaluation.predictions import Predictions
from samo.experiments import crossval
from samo.experiments.cells import Cell, refuse_changed
from samo.experiments.grid_plan import GridPlan
from samo.files import write_json
from samo.runs import run_report
from samo.runs.artifacts import find_model
from samo.runs.calibrate import agreed_decision, calibration_of
from samo.runs.evaluate import evaluate_run
from samo.runs.provenance import Learned
from samo.runs.run import Run
from samo.runs.training import train_run
from samo.tasks import LabelSpace
from samo.training.setup import Setup

ONE = LabelSpace((tiny.EMOTION,))
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "lr": 0.05, "patience": 0, "split": "folds", "val_ratio": 0.3}


@pytest.fixture(scope="module")
def whole() -> Any:
    """The tiny modality among the others, and no pictures, which take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        tiny_modality = modalities.Modality(
            "tiny_frontend:TinyConfig", "tiny_frontend:TinyFrontend", "", "tiny_frontend", ""
        )
        patch.setitem(modalities.MODALITIES, "tiny", tiny_modality)
        patch.setattr(run_report, "save_figures", lambda *_: [])
        patch.setattr(crossval, "save_figures", lambda *_: [])
        yield


@pytest.fixture(scope="module")
def trained(whole: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cross-validations, ``a`` and ``b``, of two folds each."""
    root = tmp_path_factory.mktemp("artifacts")
    for name, hidden in {"a": 0, "b": 6}.items():
        cells = []
        for fold in (0, 1):
            front = tiny.frontend(**SETTINGS, hidden=hidden, fold=fold)
            cell = Cell(f"seed0.fold{fold}", "all", 0, fold, front.config.stored())
            run = cell.run(root / "grids" / name)
            train_run(run, Setup(front, tiny.RUNTIME), tiny.Silent())
            evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
            cells.append(cell)
        plan = GridPlan("crossval", root / "grids" / name, tuple(cells), unit="speaker")
        write_json(plan.folder / "grid.json", plan.facts())
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy that may be written into."""
    shutil.copytree(trained, tmp_path / "artifacts", symlinks=True)
    return tmp_path / "artifacts"


def cell(root: Path, name: str) -> Run:
    grid, _, own = name.partition("/")
    return Run(root / "grids" / grid / "runs" / own)


def test_each_fold_is_the_mean_of_its_members(root: Path) -> None:
    folder, report = combine_grids(["a", "b"], name="best", artifacts=root)
    assert folder == root / "grids" / "best"
    assert report == json.loads((folder / "report.json").read_text())
    for fold in (0, 1):
        run = cell(root, f"best/seed0.fold{fold}")
        predictions = Predictions.load(run.path("predictions.test.npz"), ONE)
        expected = np.zeros((len(predictions), 3))
        for grid in "ab":
            member = cell(root, f"{grid}/seed0.fold{fold}")
            own, calibration = Predictions.load(member.path("predictions.test.npz")), calibration_of(member)
            assert calibration is not None
            rows = [own.ids.index(name) for name in predictions.ids]
            expected += ONE.probabilities(own.logits[rows] / calibration.temperature["emotion"]) / 2
            assert member.test_openings == 2
        np.testing.assert_allclose(predictions.probabilities(ONE), expected, atol=1e-6)
        assert set(predictions.ids) == set(cell(root, f"a/seed0.fold{fold}").split.test)
        own_report = json.loads(run.path("report.json").read_text())
        truth, named = predictions.targets.argmax(axis=1), expected.argmax(axis=1)
        assert own_report["metrics"]["accuracy"] == pytest.approx((truth == named).mean())
        assert [member["name"] for member in own_report["ensemble"]["members"]] == [
            f"a/seed0.fold{fold}", f"b/seed0.fold{fold}",
        ]  # fmt: skip
        found = calibration_of(run)
        assert found is not None
        assert found.fitted_on == "val"
    pages = [path / "report.html" for path in (folder, folder / "runs" / "seed0.fold0")]
    assert [re.findall(r"hidden</\w+>\s*<td[^>]*>([^<]*)", page.read_text()) for page in pages] == [["0, 6"]] * 2
    assert report["n"] == sum(row["n"] for row in report["folds"])
    assert [row["cell"] for row in report["folds"]] == ["seed0.fold0", "seed0.fold1"]
    how = report["combined"]
    assert [(row["grid"], row["runs"], row["weights"]) for row in how["grids"]] == [
        ("a", 2, [0.5, 0.5]), ("b", 2, [0.5, 0.5]),
    ]  # fmt: skip
    best = max(how["grids"], key=lambda row: row["val_macro_f1"])
    assert how["best_grid"] == best["grid"]
    assert how["gain"]["difference"] == pytest.approx(report["metrics"]["macro_f1"] - best["macro_f1"])
    page = pages[0].read_text()
    page = page[page.index("<h2>Members</h2>") :]
    assert "Ensembles, one for each fold, not one model: the mean of its members' probabilities" in html.unescape(page)
    for row in how["grids"]:
        shown = ("2", "0.50", f"{row['val_macro_f1']:.3f}", f"{row['macro_f1']:.3f}")
        assert row["grid"] + "</th>" + "".join(f"<td>{cell}</td>" for cell in shown) in page
    assert f"{how['gain']['difference']:+.3f} macro-F1" in page
    assert f"against '{best['grid']}', the best on the validation parts" in html.unescape(page)


def test_it_can_be_replaced_but_no_trained_grid_can(root: Path) -> None:
    first = combine_grids(["a", "b"], name="best", artifacts=root)[1]
    with pytest.raises(RunError, match="a grid named 'best' exists"):
        combine_grids(["a", "b"], name="best", artifacts=root)
    again = combine_grids(["a", "b"], name="best", overwrite=True, artifacts=root)[1]
    assert again["metrics"] == first["metrics"]
    with pytest.raises(RunError, match="grid 'a' has trained cells: it is not replaced"):
        combine_grids(["a", "b"], name="a", overwrite=True, artifacts=root)
    with pytest.raises(RunError, match=r"'best/seed0\.fold0' is an ensemble itself"):
        combine_grids(["a", "best"], artifacts=root)
    with pytest.raises(ModelFileError, match="combines what its members answered on one fold"):
        find_model(root, "best/seed0.fold0")


def test_it_is_no_trained_grid(root: Path) -> None:
    """A cross-validation of the first member's settings, or of another fold, does not go on in its folder."""
    folder, _ = combine_grids(["a", "b"], name="best", artifacts=root)
    trained = cell(root, "a/seed0.fold0").settings
    for name, fold in (("seed0.fold0", 0), ("seed0.fold2", 2)):
        again = Cell(name, "all", 0, fold, {**trained, "fold": fold})
        refuse_changed([again], root / "grids" / "a")
        with pytest.raises(
            RunError, match=r"grid 'best' is an ensemble: its seed0\.fold0, seed0\.fold1 are no"
        ) as found:
            refuse_changed([again], folder)
        assert found.value.hint == "give another `name`"


def test_what_one_member_knows_of_the_tested_speakers_is_told(root: Path) -> None:
    plain = combine_grids(["a", "b"], name="plain", artifacts=root)[1]
    assert not [line for line in plain["warnings"] if "transductive" in line]
    for fold in (0, 1):
        edited(cell(root, f"b/seed0.fold{fold}"), normalisation="speaker")
    folder, report = combine_grids(["a", "b"], name="best", artifacts=root)
    folds = [json.loads((folder / "runs" / f"seed0.fold{k}" / "report.json").read_text()) for k in (0, 1)]
    for one in (*folds, report):
        (line,) = [line for line in one["warnings"] if line.startswith("transductive:")]
        assert "`normalisation=speaker`" in line


def _turned(path: Path) -> None:
    """The labels of a kept part moved on by one class."""
    kept = Predictions.load(path)
    replace(kept, targets=np.roll(kept.targets, 1, axis=1)).save(path)


def test_weights_and_temperature_are_fitted_on_validation_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    combine_grids(["a", "b"], weights="fitted", name="before", artifacts=root)
    # Test labels turned round everywhere leave the weights and the temperature where they are.
    real = cast(property, vars(Run)["manifest"]).fget
    assert real is not None
    for fold in (0, 1):
        test = cell(root, f"a/seed0.fold{fold}").split.test

        def turned(run: Run, test: tuple[str, ...] = test) -> Any:
            found = real(run)
            targets = found.targets.copy()
            targets[found.rows(test)] = np.roll(targets[found.rows(test)], 1, axis=1)
            found.__dict__["targets"] = targets
            return found

        monkeypatch.setattr(kept_members, "_SAME_SCORE", 1.0)
        monkeypatch.setattr(Run, "manifest", property(turned))
        folder, _ = combine_grids(["a", "b"], weights="fitted", name=f"turned{fold}", artifacts=root)
        before, after = (
            json.loads((where / "runs" / f"seed0.fold{fold}" / "ensemble.json").read_text())
            for where in (root / "grids" / "before", folder)
        )
        assert [m["weight"] for m in after["members"]] == [m["weight"] for m in before["members"]]
        assert after["ensemble"]["macro_f1"] < before["ensemble"]["macro_f1"]
        temperatures = [
            (where / "runs" / f"seed0.fold{fold}" / "calibration.json").read_text()
            for where in (root / "grids" / "before", folder)
        ]
        assert temperatures[0] == temperatures[1]
        assert before["fitted_on"] == "val"


def test_only_an_ensemble_is_replaced(root: Path) -> None:
    notes, begun = root / "grids" / "notes", root / "grids" / "begun"
    notes.mkdir()
    (notes / "thoughts.txt").write_text("mine")
    begun.mkdir()
    shutil.copy(root / "grids" / "a" / "grid.json", begun)
    for folder in (notes, begun):
        before = sorted(folder.rglob("*"))
        with pytest.raises(RunError, match=f"{folder.name}' is no ensemble: it is not replaced"):
            combine_grids(["a", "b"], name=folder.name, overwrite=True, artifacts=root)
        assert sorted(folder.rglob("*")) == before


def test_an_ensemble_of_presets_replaces_its_own_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(root / "grids" / "a", root / "grids" / "c")
    combine_grids(["a", "b"], name="best", artifacts=root)
    kept = (root / "grids" / "best" / "report.json").read_bytes()
    trained: list[str] = []
    monkeypatch.setattr(preset_ensemble, "run_grid", lambda plan, *_: trained.append(plan.name))
    monkeypatch.setattr(preset_ensemble, "report_crossval", lambda plan: None)

    def plans(*names: str) -> list[Any]:
        return [SimpleNamespace(name=name, folder=root / "grids" / name) for name in names]

    with pytest.raises(RunError, match="grid 'best' is an ensemble of a, b: it is not replaced"):
        preset_ensemble.crossvalidate_members(plans("a", "c"), "best", artifacts=root)
    assert trained == []
    assert (root / "grids" / "best" / "report.json").read_bytes() == kept
    preset_ensemble.crossvalidate_members(plans("a", "b"), "best", artifacts=root)
    assert trained == ["a", "b"]


@pytest.mark.parametrize("before", [False, True])
def test_stopped_while_a_fold_is_written_it_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    """Nothing is tidied, as after a kill; what was there before stays until the new one is whole."""
    if before:
        combine_grids(["a", "b"], name="best", artifacts=root)
    grids = root / "grids"
    known = sorted(path.name for path in grids.glob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        patch.setattr(fold_ensemble, "summary_of", stop)
        with pytest.raises(KeyboardInterrupt):
            combine_grids(["a", "b"], name="best", overwrite=True, artifacts=root)
    assert sorted(path.name for path in grids.glob("[!.]*")) == known
    (left,) = grids.glob(".best.*")
    os.utime(left, (0, 0))
    folder, report = combine_grids(["a", "b"], name="best", overwrite=True, artifacts=root)
    assert json.loads((folder / "report.json").read_text()) == report
    assert json.loads((folder / "runs" / "seed0.fold0" / "report.json").read_text())["run"] == "best/seed0.fold0"
    assert sorted(path.name for path in grids.iterdir()) == ["a", "b", "best"]


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def edited(run: Run, **changes: object) -> None:
    run.path("fitted.safetensors").unlink()  # which tells that settings were edited
    write_json(run.path("config.json"), {**json.loads(run.path("config.json").read_text()), **changes})


def _another_fold(root: Path) -> None:
    """The cell of fold 1 stands where that of fold 0 should."""
    shutil.rmtree(cell(root, "b/seed0.fold0").folder)
    shutil.copytree(cell(root, "b/seed0.fold1").folder, cell(root, "b/seed0.fold0").folder)
    edited(cell(root, "b/seed0.fold0"), fold=0)


def _validated_on_test(root: Path) -> None:
    """A member whose epoch and temperature were chosen on what the other is tested on."""
    run = cell(root, "b/seed0.fold0")
    split = run.split
    replace(split, val=split.test, test=split.val).save(run.path("split.json"))
    parts = [Predictions.load(run.path(f"predictions.{part}.npz")) for part in ("val", "test")]
    parts[0].save(run.path("predictions.test.npz"))
    parts[1].save(run.path("predictions.val.npz"))
    report = json.loads(run.path("report.json").read_text())
    report["metrics"]["macro_f1"] = report["val_macro_f1"]
    write_json(run.path("report.json"), report)


def _fitted_on_test(root: Path) -> None:
    path = cell(root, "b/seed0.fold0").path("calibration.json")
    write_json(path, {**json.loads(path.read_text()), "fitted_on": "test"})


def _test_answers_for_validation(root: Path) -> None:
    run = cell(root, "b/seed0.fold0")
    shutil.copy(run.path("predictions.test.npz"), run.path("predictions.val.npz"))


def _other_answers(root: Path) -> None:
    _turned(cell(root, "b/seed0.fold0").path("predictions.test.npz"))


def _no_fold(root: Path) -> None:
    shutil.rmtree(cell(root, "b/seed0.fold1").folder)


def _unfinished(root: Path) -> None:
    cell(root, "b/seed0.fold1").path("report.json").unlink()


def _edited(root: Path) -> None:
    path = cell(root, "b/seed0.fold1").path("config.json")
    write_json(path, {**json.loads(path.read_text()), "epochs": 3})


def _other_kind(root: Path) -> None:
    path = root / "grids" / "b" / "grid.json"
    write_json(path, {**json.loads(path.read_text()), "kind": "ablation"})


def _other_split(root: Path) -> None:
    _without_one(cell(root, "b/seed0.fold0"))


def _without_one(run: Run) -> None:
    """One training item of a fold is in no part."""
    left_out, *rest = run.split.train
    replace(run.split, train=tuple(rest)).save(run.path("split.json"))
    kept = Predictions.load(run.path("predictions.train.npz"))
    rows = [k for k, name in enumerate(kept.ids) if name != left_out]
    fold_ensemble.rows_of(kept, rows).save(run.path("predictions.train.npz"))


def _other_data(root: Path) -> None:
    for fold in (0, 1):
        run = cell(root, f"b/seed0.fold{fold}")
        manifest = run.manifest
        items = (replace(manifest.items[0], content="other"), *manifest.items[1:])
        replace(manifest, items=items).save(run.path("manifest.jsonl"))


@pytest.mark.parametrize(
    ("plant", "kind", "message"),
    [
        (_another_fold, LeakError, r"'b/seed0.fold0' was trained on \d+ of the \d+ test items of 'a/seed0.fold0'"),
        (_validated_on_test, LeakError, "'b/seed0.fold0' chose its best epoch on 16 of the 16 test items of 'a/"),
        (_fitted_on_test, LeakError, "'b/seed0.fold0' has temperatures or thresholds fitted on test"),
        (_test_answers_for_validation, RunError, "kept answers of 'b/seed0.fold0' on val are of other items"),
        (_other_answers, RunError, "the kept answers of 'b/seed0.fold0' are not those of its report"),
        (_no_fold, RunError, "'b' and 'a' have not the same folds: 1"),
        (_unfinished, RunError, "'b/seed0.fold1' is not evaluated yet"),
        (_edited, RunError, "config.json of run 'seed0.fold1' was edited"),
        (_other_kind, RunError, "grid 'b' is no cross-validation but 'ablation'"),
        (_other_split, RunError, "no cells of fold 0 share a split"),
        (_other_data, RunError, "'b/seed0.fold0' was trained on other data than 'a/seed0.fold0'"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    root: Path, plant: Callable[[Path], None], kind: type[SamoError], message: str
) -> None:
    plant(root)
    with pytest.raises(kind, match=message):
        combine_grids(["a", "b"], name="best", artifacts=root)
    assert not (root / "grids" / "best").exists()


def _another_seed(root: Path, grid: str, seed: int, other_fold: int | None) -> None:
    """The cells of seed 0 as those of another, on one fold with an item less to learn from."""
    for fold in (0, 1):
        old, new = (cell(root, f"{grid}/seed{each}.fold{fold}") for each in (0, seed))
        shutil.copytree(old.folder, new.folder)
        edited(new, seed=seed)
        if fold == other_fold:
            _without_one(new)


def test_seeds_that_share_a_split_of_one_fold_alone_are_two_ensembles(root: Path) -> None:
    """They were one ensemble of four on fold 0 and two of two on fold 1, whose items counted twice."""
    for grid in "ab":
        _another_seed(root, grid, 1, other_fold=1)
    folder, report = combine_grids(["a", "b"], name="best", artifacts=root)
    names = [f"seed{seed}.fold{fold}" for fold in (0, 1) for seed in (0, 1)]
    assert [row["cell"] for row in report["folds"]] == names
    for name in names:
        summary = json.loads((folder / "runs" / name / "ensemble.json").read_text())
        assert [member["name"] for member in summary["members"]] == [f"a/{name}", f"b/{name}"]
    n_items = sum(len(cell(root, f"a/seed0.fold{fold}").split.test) for fold in (0, 1))
    assert report["n"] == 2 * n_items
    assert [row["seed"] for row in report["by_seed"]] == [0, 1]


def test_seeds_that_share_every_split_are_one_ensemble_and_others_are_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for grid in "ab":
        _another_seed(root, grid, 1, other_fold=1)
        _another_seed(root, grid, 2, other_fold=None)
    shutil.rmtree(cell(root, "b/seed1.fold1").folder)
    folder, report = combine_grids(["a", "b"], name="best", artifacts=root)
    noted = "left out, as not every grid has cells of their seed's splits: "
    assert f"{noted}a/seed1.fold0, a/seed1.fold1, b/seed1.fold0" in capsys.readouterr().err
    assert [row["cell"] for row in report["folds"]] == ["seed0.fold0", "seed0.fold1"]
    summary = json.loads((folder / "runs" / "seed0.fold1" / "ensemble.json").read_text())
    members = [f"{grid}/seed{seed}.fold1" for grid in "ab" for seed in (0, 2)]
    assert [member["name"] for member in summary["members"]] == members


def test_seeds_that_lack_a_fold_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for grid in "ab":
        _another_seed(root, grid, 1, other_fold=0)
        shutil.rmtree(cell(root, f"{grid}/seed1.fold1").folder)
    _, report = combine_grids(["a", "b"], name="best", artifacts=root)
    assert [row["cell"] for row in report["folds"]] == ["seed0.fold0", "seed0.fold1"]
    assert "cells of their seed's splits: a/seed1.fold0, b/seed1.fold0" in capsys.readouterr().err


def test_seeds_that_share_splits_of_single_folds_alone_are_refused(root: Path) -> None:
    """Seed 0 of the first grid has fold 0 as seed 0 of the second, and fold 1 as seed 1."""
    _another_seed(root, "b", 1, other_fold=0)
    _without_one(cell(root, "b/seed0.fold1"))
    with pytest.raises(RunError, match="no seeds of all grids share the splits of all folds"):
        combine_grids(["a", "b"], name="best", artifacts=root)


def _validated_on(run: Run, speakers: set[str], scale: float) -> None:
    """Another validation part of the items that are not tested, with the kept answers of both parts."""
    known = {
        name: (predictions, row)
        for part in ("train", "val")
        for predictions in [Predictions.load(run.path(f"predictions.{part}.npz"), ONE)]
        for row, name in enumerate(predictions.ids)
    }
    group = {item.id: item.group for item in run.manifest.items}
    ids: dict[str, list[str]] = {
        part: sorted(name for name in known if (group[name] in speakers) == (part == "val"))
        for part in ("train", "val")
    }
    split = replace(run.split, train=tuple(ids["train"]), val=tuple(ids["val"]))
    split.save(run.path("split.json"))
    for part in ("train", "val"):
        found = [known[name] for name in ids[part]]
        Predictions(
            tuple(ids[part]),
            scale * np.stack([predictions.logits[row] for predictions, row in found]),
            np.stack([predictions.targets[row] for predictions, row in found]),
            tuple(predictions.groups[row] for predictions, row in found),
            {},
        ).save(run.path(f"predictions.{part}.npz"))
    run.model_file.unlink()  # its header says what it learned from; without it the split does


def test_all_seeds_are_one_ensemble_and_each_validation_item_is_answered_by_who_held_it_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _another_seed(root, "a", 1, other_fold=None)
    speakers = {}
    for fold in (0, 1):
        run = cell(root, f"a/seed0.fold{fold}")
        group = {item.id: item.group for item in run.manifest.items}
        speakers[fold] = sorted({group[name] for part in ("train", "val") for name in run.split.part(part)})
    for fold in (0, 1):
        first, second, third = speakers[fold][:3]
        _validated_on(cell(root, f"a/seed0.fold{fold}"), {first, second}, 1.0)
        _validated_on(cell(root, f"a/seed1.fold{fold}"), {second, third}, 3.0)
    _, report = combine_grids(["a"], all_seeds=True, name="all", artifacts=root)
    assert [row["cell"] for row in report["folds"]] == ["seed0.fold0", "seed0.fold1"]
    assert [(row["grid"], row["runs"], row["weights"]) for row in report["combined"]["grids"]] == [("a", 4, [1.0, 1.0])]
    for fold in (0, 1):
        run, members = cell(root, f"all/seed0.fold{fold}"), [cell(root, f"a/seed{seed}.fold{fold}") for seed in (0, 1)]
        group = {item.id: item.group for item in run.manifest.items}
        assert {group[name] for name in run.split.val} == set(speakers[fold][:3])
        assert {group[name] for name in run.split.train} == set(speakers[fold][3:])
        val = Predictions.load(run.path("predictions.val.npz"), ONE)
        answers = [Predictions.load(member.path("predictions.val.npz"), ONE) for member in members]
        for row, name in enumerate(val.ids):
            by = [k for k in (0, 1) if name in answers[k].ids]
            assert by == [k for k in (0, 1) if group[name] in speakers[fold][k : k + 2]]
            expected = np.zeros(3)
            for k in by:
                calibration = calibration_of(members[k])
                assert calibration is not None
                logits = answers[k].logits[[answers[k].ids.index(name)]] / calibration.temperature["emotion"]
                expected += ONE.probabilities(logits)[0] / len(by)
            np.testing.assert_allclose(val.probabilities(ONE)[row], expected, atol=1e-6)
        warned = json.loads(run.path("report.json").read_text())["warnings"]
        assert any(line.startswith("the members were validated on different items") for line in warned)
    assert any(line.startswith("the members were validated on different items") for line in report["warnings"])
    # What leaks in one member's split leaks, though no item of it is in what all learned from.
    whole = {fold: Run(root / "grids" / "all" / "runs" / f"seed0.fold{fold}").split for fold in (0, 1)}
    monkeypatch.setattr(fold_ensemble, "is_leaky", lambda manifest, split: split not in whole.values())
    assert combine_grids(["a"], all_seeds=True, name="leaky", artifacts=root)[1]["leaky"]
    with pytest.raises(RunError, match=r"'b/seed0\.fold0' is alone on its fold"):
        combine_grids(["b"], all_seeds=True, name="alone", artifacts=root)
    with pytest.raises(SettingsError, match="name one or more different ones"):
        combine_grids([], all_seeds=True, artifacts=root)
    with pytest.raises(SettingsError, match="`weights=fitted` needs members validated on the same items"):
        combine_grids(["a"], all_seeds=True, weights="fitted", artifacts=root)
    shutil.rmtree(cell(root, "a/seed1.fold1").folder)
    with pytest.raises(RunError, match="fold 1 and fold 0 have not the same seeds: a/seed1"):
        combine_grids(["a"], all_seeds=True, name="lacking", artifacts=root)


def test_what_a_cell_kept_outlives_its_weights_but_not_what_its_teacher_knew(root: Path) -> None:
    _, whole = combine_grids(["a", "b"], name="whole", artifacts=root)
    for grid in "ab":
        for fold in (0, 1):
            run = cell(root, f"{grid}/seed0.fold{fold}")
            run.model_file.unlink()
            run.path("predictions.train.npz").unlink()
    _, without = combine_grids(["a", "b"], name="without", artifacts=root)
    assert without["metrics"] == whole["metrics"]
    assert whole["train_macro_f1"] is not None
    assert without["train_macro_f1"] is None
    edited(cell(root, "b/seed0.fold1"), teacher="somebody")
    with pytest.raises(RunError, match="the weights of 'b/seed0\\.fold1' are gone, and with them what its teacher"):
        combine_grids(["a", "b"], name="taught", artifacts=root)


@pytest.fixture
def tagged(whole: None, tmp_path: Path) -> Path:
    """A fold of two cross-validations of a multi-label task, ``a`` decided at 0.5 and ``b`` by class."""
    root = tmp_path / "artifacts"
    for name, rule in {"a": "half", "b": "per-class"}.items():
        front = tiny.frontend(
            LabelSpace((tiny.TAGS,)), **SETTINGS, fold=0, threshold=rule, abstain_coverage=0.5 + 0.1 * (name == "b")
        )
        made = Cell("seed0.fold0", "all", 0, 0, front.config.stored())
        run = made.run(root / "grids" / name)
        train_run(run, Setup(front, tiny.RUNTIME), tiny.Silent())
        evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
        plan = GridPlan("crossval", root / "grids" / name, (made,), unit="speaker")
        write_json(plan.folder / "grid.json", plan.facts())
    return root


def test_the_order_of_the_grids_decides_nothing(tagged: Path) -> None:
    found = {}
    for order in ("ab", "ba"):
        combine_grids(list(order), name=order, artifacts=tagged)
        run = cell(tagged, f"{order}/seed0.fold0")
        found[order] = json.loads(run.path("thresholds.json").read_text())
        assert found[order]["used"] == run.settings["threshold"] == "per-class"
        assert not run.path("abstention.json").exists()
        assert run.settings["abstain_coverage"] == 1.0
    assert found["ab"]["tasks"]["tags"]["per_class"] == pytest.approx(found["ba"]["tasks"]["tags"]["per_class"])


def test_what_members_agree_in_is_their_ensembles() -> None:
    plain = tiny.frontend().config.flat()
    half = {**plain, "threshold": "half", "num_thresholds": 9}
    assert agreed_decision(half, [half, half]) == half
    assert agreed_decision(half, [half, plain]) == agreed_decision(half, [plain, half]) == plain
    # Section by section; the rest is the first's.
    unsure = {**half, "abstain_risk": 0.1, "hidden": 7}
    assert agreed_decision(unsure, [unsure, {**plain, "abstain_risk": 0.1}]) == {
        **plain,
        "abstain_risk": 0.1,
        "hidden": 7,
    }
    assert agreed_decision(plain, [half, half])["threshold"] == "half"


def test_a_teacher_that_knows_the_test_part_is_a_leak(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Member b of fold 0 had a teacher that learned from what fold 0 tests."""
    other = cell(root, "a/seed0.fold1")
    taught = Learned.of(other.manifest, other.split)
    monkeypatch.setattr(grid_ensembles, "learned_by", lambda run: (taught,) if run.full_name == "b/seed0.fold0" else ())
    with pytest.raises(LeakError, match=r"'b/seed0\.fold0' learned from the validation or test part of this split"):
        combine_grids(["a", "b"], artifacts=root)


def test_names(root: Path) -> None:
    for given in (["a"], ["a", "a"]):
        with pytest.raises(SettingsError, match="name two or more different ones"):
            combine_grids(given, artifacts=root)
    with pytest.raises(RunError, match="there is no grid 'c'"):
        combine_grids(["a", "c"], artifacts=root)
    with pytest.raises(SettingsError, match="use letters, digits"):
        combine_grids(["a", "b"], name="x/y", artifacts=root)
    with pytest.raises(SettingsError, match="`weights=test`: unknown"):
        combine_grids(["a", "b"], weights="test", artifacts=root)
