"""Ensembles: exact mixtures, weights from validation alone, who may be a member, and a run that is like any other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_frontend as tiny
import torch
from edited_runs import trained_with

from samo.ensembles.build_ensemble import build_ensemble
from samo.ensembles.ensemble import assemble, write_ensemble
from samo.ensembles.members import common_split, gather
from samo.errors import LeakError, RunError, SamoError, SettingsError
from samo.evaluation.calibration import fit_temperature
from samo.evaluation.metrics import selection_score
from samo.evaluation.predictions import Predictions
from samo.experiments.compare import compare_runs
from samo.reporting.html import render_html
from samo.reporting.model_card import model_card
from samo.runs import run_report
from samo.runs.artifacts import create_run
from samo.runs.calibrate import calibration_of
from samo.runs.ensemble_model import Ensemble, merged_settings
from samo.runs.evaluate import evaluate_run
from samo.runs.load import load_run_model
from samo.runs.run import Run
from samo.runs.training import resume_training, train_run
from samo.tasks import LabelSpace
from samo.training.checkpoint import read_about
from samo.training.setup import Setup
from samo.training.trainer import predict_logits

ONE = LabelSpace((tiny.EMOTION,))
TAGS = LabelSpace((tiny.TAGS,))
SETTINGS: dict[str, Any] = {"epochs": 4, "batch_size": 8, "lr": 0.05, "patience": 0, "split": "folds", "val_ratio": 0.3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts with runs ``a``, ``b`` (two sizes, one split) and ``other`` (another test fold)."""
    root = tmp_path_factory.mktemp("artifacts")
    for name, changes in {"a": {}, "b": {"hidden": 6}, "other": {"fold": 1}}.items():
        front = tiny.frontend(**{**SETTINGS, **changes})
        train_run(create_run(root, name, "tiny"), Setup(front, tiny.RUNTIME), tiny.Silent())
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy that may be written into."""
    shutil.copytree(trained, tmp_path / "artifacts", symlinks=True)
    return tmp_path / "artifacts"


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds, and test_report sees to it."""
    monkeypatch.setattr(run_report, "save_figures", lambda *_: [])


def runs(root: Path, *names: str) -> list[Run]:
    return [Run(root / "runs" / name) for name in names]


def build(
    root: Path, *names: str, combine: str = "mean", rule: str = "equal", windows: int = 1
) -> tuple[Run, dict[str, Any], tiny.TinyFrontend]:
    """An ensemble named ``joined``, its account, and the frontend it was made with."""
    members, left_out = gather(runs(root, *names), tiny.TinyFrontend, tiny.RUNTIME)
    front = tiny.frontend(windows=windows, **SETTINGS)
    assembly = assemble(members, Setup(front, tiny.RUNTIME), combine=combine, rule=rule)
    run = create_run(root, "joined", "")
    return run, write_ensemble(run, assembly, left_out, Setup(front, tiny.RUNTIME), "samo ensemble a b"), front


@pytest.mark.parametrize(("combine", "windows"), [("mean", 1), ("vote", 3)])
def test_an_ensemble_is_a_run(root: Path, combine: str, windows: int) -> None:
    run, summary, front = build(root, "a", "b", combine=combine, windows=windows)
    assert (run.status, (root / "latest").resolve()) == ("trained", run.folder)
    report = evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
    assert run.status == "evaluated"
    # What is judged is what was announced, and what the model file says on its own.
    assert report["metrics"]["macro_f1"] == summary["ensemble"]["macro_f1"]
    assert report["ci"]["macro_f1"] == summary["ensemble"]["interval"]
    assert report["val_macro_f1"] == summary["ensemble"]["val_macro_f1"]
    shutil.rmtree(root / "runs" / "a")
    model, space = load_run_model(run, tiny.TinyFrontend, tiny.RUNTIME)
    assert isinstance(model, Ensemble)
    rows = front.manifest.rows(run.split.test)
    mixed = predict_logits(model, Setup(front, tiny.RUNTIME), rows)
    np.testing.assert_allclose(Predictions.load(run.path("predictions.test.npz")).logits, mixed, atol=1e-6)
    val = front.manifest.rows(run.split.val)
    logits = predict_logits(model, Setup(front, tiny.RUNTIME), val)
    calibration = calibration_of(run)
    assert calibration is not None
    fitted = fit_temperature(logits, front.manifest.targets[val], space)
    assert calibration.temperature == pytest.approx(fitted, rel=1e-3)
    assert calibration.fitted_on == "val"


def test_the_mean_of_what_the_members_say(root: Path) -> None:
    run, _, front = build(root, "a", "b")
    evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
    expected = np.zeros((len(run.split.test), 3))
    for member in runs(root, "a", "b"):
        model, space = load_run_model(member, tiny.TinyFrontend, tiny.RUNTIME)
        logits = predict_logits(model, Setup(front, tiny.RUNTIME), front.manifest.rows(run.split.test))
        calibration = calibration_of(member)
        assert calibration is not None
        assert calibration.temperature["emotion"] != 1.0
        expected += space.probabilities(logits / calibration.temperature["emotion"]) / 2
    predictions = Predictions.load(run.path("predictions.test.npz"))
    np.testing.assert_allclose(predictions.probabilities(ONE), expected, atol=1e-6)


def test_the_account(root: Path) -> None:
    run, summary, front = build(root, "a", "b")
    assert [own.test_openings for own in runs(root, "a", "b", "other")] == [1, 1, 0]
    assert summary == json.loads(run.path("ensemble.json").read_text())
    assert [member["name"] for member in summary["members"]] == ["a", "b"]
    for member, own in zip(summary["members"], runs(root, "a", "b"), strict=True):
        report = evaluate_run(own, Setup(front, tiny.RUNTIME), "test")
        assert member["macro_f1"] == report["metrics"]["macro_f1"]
        assert member["interval"] == report["ci"]["macro_f1"]
        assert member["val_macro_f1"] == report["val_macro_f1"]
        assert member["weight"] == 0.5
        calibration = calibration_of(own)
        assert calibration is not None
        assert member["temperature"] == calibration.temperature
    assert summary["mean_of_members"] == pytest.approx(np.mean([m["macro_f1"] for m in summary["members"]]))
    best = max(summary["members"], key=lambda member: member["val_macro_f1"])
    assert summary["best_member"] == best["name"]
    evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
    compared = compare_runs(runs(root, best["name"], "joined"))["comparisons"][0]["scores"]["macro_f1"]
    assert summary["gain"] == {name: compared[name] for name in ("difference", "low", "high", "p", "verdict")}
    assert (summary["combine"], summary["weights"], summary["fitted_on"]) == ("mean", "equal", None)


def test_a_closed_test_part_is_opened_by_the_evaluation(root: Path) -> None:
    """Until then members and ensemble are known by validation alone, afterwards by what they would have been."""
    _, known, front = build(root, "a", "b")
    setup = Setup(front, tiny.RUNTIME)
    openings = [own.test_openings for own in runs(root, "a", "b")]
    members, left_out = gather(runs(root, "a", "b"), tiny.TinyFrontend, tiny.RUNTIME)
    run = create_run(root, "closed", "")
    closed = write_ensemble(run, assemble(members, setup, test=False), left_out, setup)
    assert (closed["split"], closed["n"], closed["gain"], closed["mean_of_members"]) == (
        "val", len(run.split.val), None, None,
    )  # fmt: skip
    assert [(each["macro_f1"], each["interval"]) for each in closed["members"]] == [(None, None)] * 2
    assert [own.test_openings for own in (run, *runs(root, "a", "b"))] == [0, *openings]
    text = evaluate_run(run, setup, "val") and run.path("report.val.html").read_text()
    assert "The members were not evaluated on the test part." in text
    report = evaluate_run(run, setup, "test")
    found = json.loads(run.path("ensemble.json").read_text())
    assert found == report["ensemble"] == {**known, "run": "closed"}
    assert "On the test part: " in run.path("report.html").read_text()
    assert [own.test_openings for own in (run, *runs(root, "a", "b"))] == [1, *(n + 1 for n in openings)]
    assert [each["folder"] for each in found["members"]] == ["runs/a", "runs/b"]
    # What the members did is known now: another evaluation looks at the ensemble alone.
    evaluate_run(run, setup, "test")
    assert [own.test_openings for own in (run, *runs(root, "a", "b"))] == [2, *(n + 1 for n in openings)]


def test_members_that_are_gone_are_tested_all_the_same(root: Path) -> None:
    members, left_out = gather(runs(root, "a", "b"), tiny.TinyFrontend, tiny.RUNTIME)
    setup = Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME)
    run = create_run(root, "closed", "")
    write_ensemble(run, assemble(members, setup, test=False), left_out, setup)
    moved = root.rename(root.with_name("moved"))
    shutil.rmtree(moved / "runs" / "a")
    report = evaluate_run(Run(moved / "runs" / "closed"), setup, "test")
    assert report["ensemble"]["members"][0]["macro_f1"] is not None
    assert not (moved / "runs" / "a").exists()
    assert Run(moved / "runs" / "b").test_openings == 1


def test_fitted_weights_need_the_test_part(root: Path) -> None:
    """A member of weight 0 is not in the model: nothing could test it later."""
    refusal = r"^`weights=fitted` needs the test part open: a member of weight 0 is not in the model"
    with pytest.raises(SettingsError, match=refusal):
        build_ensemble(runs(root, "a", "b"), weights="fitted", test=False, artifacts=root)
    members, _ = gather(runs(root, "a", "b"), tiny.TinyFrontend, tiny.RUNTIME)
    with pytest.raises(SettingsError, match=refusal):
        assemble(members, Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME), rule="fitted", test=False)


def test_report_and_card_name_the_members(root: Path) -> None:
    shutil.rmtree(root / "runs" / "other")
    run, summary, front = build(root, "a", "b", "other")
    report = evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
    assert report["ensemble"] == summary
    card = run.path("MODEL_CARD.md").read_text()
    page = run.path("report.html").read_text()
    gain = f"{summary['gain']['difference']:+.3f} macro-F1"
    for text in (card, page):
        assert "the mean of its members' probabilities, equal weights" in text.replace("&#39;", "'")
        assert gain in text.replace("&#43;", "+")
        assert "Left out: other" in text
    assert f"| a | 0.500 | {summary['members'][0]['val_macro_f1']:.3f} |" in card
    # Where members differ the card shows what each has.
    assert "| hidden | 0, 6 |" in card
    assert "samo ensemble a b" in card
    plain = {name: value for name, value in report.items() if name != "ensemble"}
    assert "Members" not in model_card(plain, {}, {}, data_card={})
    assert "Members" not in render_html(plain, {}, {}, {})
    assert merged_settings([{"x": 1, "y": 2}, {"x": 1, "y": 3}]) == {"x": 1, "y": [2, 3]}


def test_weights_are_fitted_on_validation_alone(root: Path) -> None:
    # Member b is made useless: what it says has nothing to do with the features.
    model_file = Run(root / "runs" / "b").model_file
    from safetensors.torch import load_file

    from samo.training.checkpoint import save_model

    about = read_about(model_file)
    tensors = {name: torch.zeros_like(tensor) for name, tensor in load_file(model_file).items()}
    save_model(model_file, tensors, **{name: value for name, value in about.items() if name != "format"})
    run, summary, front = build(root, "b", "a", rule="fitted")
    weights = [member["weight"] for member in summary["members"]]
    assert weights[1] > 0.8
    assert summary["fitted_on"] == "val"
    stored = [member["weight"] for member in read_about(run.model_file)["ensemble"]["members"]]
    assert stored == [weight for weight in weights if weight > 0]
    note = "the weights of the members were fitted on this split, so its scores are a little too good"
    assert note in evaluate_run(run, Setup(front, tiny.RUNTIME), "val")["warnings"]
    assert note not in evaluate_run(run, Setup(front, tiny.RUNTIME), "test")["warnings"]
    # Test labels turned round leave the weights where they are.
    members, _ = gather(runs(root, "b", "a"), tiny.TinyFrontend, tiny.RUNTIME)
    targets = front.manifest.targets.copy()
    test = front.manifest.rows(run.split.test)
    targets[test] = np.roll(targets[test], 1, axis=1)
    front.manifest.__dict__["targets"] = targets
    again = assemble(members, Setup(front, tiny.RUNTIME), rule="fitted")
    assert list(again.weights) == weights
    assert selection_score(ONE, again.test[-1].logits, again.test[-1].targets) < summary["ensemble"]["macro_f1"]


def test_a_member_without_weight_is_not_in_the_model(root: Path) -> None:
    members, left_out = gather(runs(root, "a", "b"), tiny.TinyFrontend, tiny.RUNTIME)
    front = tiny.frontend(**SETTINGS)
    whole = assemble(members, Setup(front, tiny.RUNTIME))
    run = create_run(root, "joined", "")
    write_ensemble(run, replace(whole, weights=(0.0, 1.0)), left_out, Setup(front, tiny.RUNTIME))
    model, _ = load_run_model(run, tiny.TinyFrontend, tiny.RUNTIME)
    assert [member["name"] for member in read_about(run.model_file)["ensemble"]["members"]] == ["b"]
    assert sum(name.startswith("members.") for name in model.state_dict()) == len(members[1].model.state_dict())


def test_members_without_a_temperature_get_one_and_keep_their_folder(root: Path) -> None:
    kept = calibration_of(Run(root / "runs" / "a"))
    assert kept is not None
    (root / "runs" / "a" / "calibration.json").unlink()
    before = sorted(path.name for path in (root / "runs" / "a").iterdir())
    _, summary, _ = build(root, "a", "b")
    assert summary["members"][0]["temperature"] == pytest.approx(kept.temperature, rel=1e-4)
    assert sorted(path.name for path in (root / "runs" / "a").iterdir()) == sorted([*before, "openings.jsonl"])


def broken(folder: Path, how: str) -> None:
    if how == "no model":
        (folder / "best_model.safetensors").unlink()
    elif how == "half a model":
        (folder / "best_model.safetensors").write_bytes((folder / "best_model.safetensors").read_bytes()[:-9])
    elif how == "settings":
        (folder / "config.json").write_text('{"modality": "tiny", "hiden": 3}')
    elif how == "modality":
        (folder / "config.json").write_text('{"modality": "smell"}')
    elif how == "split":
        (folder / "split.json").write_text("{")
    elif how == "data":
        manifest = Run(folder).manifest
        replace(manifest, items=manifest.items[:-1]).save(folder / "manifest.jsonl")
    elif how == "calibration":
        (folder / "calibration.json").write_text("{")
    else:
        (folder / "fitted.safetensors").unlink()  # as of runs before it was kept: nothing tells that settings changed
        trained_with(folder, dataset="elsewhere")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("no model", "there is no model at"),
        ("half a model", "is damaged"),
        ("settings", "unknown setting 'hiden'"),
        ("modality", "it is a run of modality smell, not tiny"),
        ("split", "cannot read the split"),
        ("data", "it was trained on other data than 'a'"),
        ("calibration", "calibration.json"),
        ("batches", "it is fed differently than 'a': dataset elsewhere, not tiny"),
    ],
)
def test_a_broken_member_is_named_and_left_out(root: Path, how: str, reason: str) -> None:
    shutil.copytree(root / "runs" / "b", root / "runs" / "c")
    broken(root / "runs" / "c", how)
    members, left_out = gather(runs(root, "a", "c", "b"), tiny.TinyFrontend, tiny.RUNTIME)
    assert [member.name for member in members] == ["a", "b"]
    assert [left.name for left in left_out] == ["c"]
    assert reason in left_out[0].reason
    with pytest.raises(RunError, match=r"1 of 2 runs can be members of an ensemble, two are needed; left out: 'c': "):
        gather(runs(root, "a", "c"), tiny.TinyFrontend, tiny.RUNTIME)


def test_other_labels_and_ensembles_are_left_out(root: Path) -> None:
    front = tiny.frontend(TAGS, **{**SETTINGS, "epochs": 1})
    train_run(create_run(root, "tags", "tiny"), Setup(front, tiny.RUNTIME), tiny.Silent())
    build(root, "a", "b")
    _, left_out = gather(runs(root, "a", "tags", "b", "joined"), tiny.TinyFrontend, tiny.RUNTIME)
    assert [left.name for left in left_out] == ["tags", "joined"]
    assert left_out[0].reason == "it answers loud, fast, high; 'a' answers angry, happy, sad"
    assert left_out[1].reason == "it is an ensemble itself; name its members instead"


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        (("a",), SettingsError, "at least two runs"),
        (("a", "a"), SettingsError, "two runs are called 'a'"),
        (("a", "other"), LeakError, r"'other' was trained on \d+ of the \d+ test items of 'a'"),
    ],
)
def test_refusals(root: Path, names: tuple[str, ...], kind: type[SamoError], message: str) -> None:
    with pytest.raises(kind, match=message):
        build(root, *names)


def moved(root: Path, name: str, **parts: tuple[str, ...]) -> None:
    run = Run(root / "runs" / name)
    replace(run.split, **parts).save(run.path("split.json"))


def test_choosing_an_epoch_on_anothers_test_items_is_a_leak(root: Path) -> None:
    split = Run(root / "runs" / "b").split
    moved(root, "b", val=split.test, test=split.val)
    with pytest.raises(LeakError, match="'b' chose its best epoch on 16 of the 16 test items of 'a'"):
        build(root, "a", "b")


def test_test_items_that_the_first_member_learned_from_are_a_leak(root: Path) -> None:
    split = Run(root / "runs" / "b").split
    moved(root, "b", train=split.train[1:], test=(*split.test, split.train[0]))
    with pytest.raises(LeakError, match="'a' was trained on 1 of the 17 test items of 'b'"):
        build(root, "a", "b")


def test_the_common_split_is_audited(root: Path) -> None:
    """A speaker of whom one item was learned and others are held out."""
    for name in "ab":
        split = Run(root / "runs" / name).split
        moved(root, name, train=(*split.train, split.val[0]), val=split.val[1:])
    with pytest.raises(LeakError, match="is in more than one part"):
        build(root, "a", "b")


def test_other_test_items_are_refused(root: Path) -> None:
    split = Run(root / "runs" / "b").split
    moved(root, "b", test=split.test[:-3])
    with pytest.raises(RunError, match="different test parts: 13 of 16 items are in both"):
        build(root, "a", "b")


def test_different_validation_parts(root: Path) -> None:
    """Speakers s, t in a's validation part; b trained on t, and validated on s and another, u, a trained on."""
    split = Run(root / "runs" / "a").split
    group = {item.id: item.group for item in Run(root / "runs" / "a").manifest.items}
    s, t = sorted({group[name] for name in split.val})
    u = min(group[name] for name in split.train)
    val = tuple(name for name in (*split.train, *split.val) if group[name] in (s, u))
    train = tuple(name for name in (*split.train, *split.val) if group[name] not in (s, u))
    moved(root, "b", train=train, val=val)
    with pytest.raises(SettingsError, match="`weights=fitted`: validated on other items than 'a': b"):
        build(root, "a", "b", rule="fitted")
    run, _, _ = build(root, "a", "b")
    assert {group[name] for name in run.split.val} == {s}
    assert {group[name] for name in run.split.train} == {*map(group.get, train), t, u}
    only = [name for name in val if group[name] == u]
    moved(root, "b", train=tuple(sorted({*split.train, *split.val} - set(only))), val=tuple(only))
    members, _ = gather(runs(root, "a", "b"), tiny.TinyFrontend, tiny.RUNTIME)
    with pytest.raises(RunError, match="no item is in the validation part of 'a' or another member"):
        common_split(members, "equal")


def test_other_data_and_unknown_choices(root: Path) -> None:
    members, _ = gather(runs(root, "a", "b"), tiny.TinyFrontend, tiny.RUNTIME)
    front = tiny.frontend(**SETTINGS)
    with pytest.raises(SettingsError, match="`combine=sum`: unknown") as caught:
        assemble(members, Setup(front, tiny.RUNTIME), combine="sum")
    assert caught.value.hint == "valid: mean, vote"
    with pytest.raises(SettingsError, match="`weights=best`: unknown"):
        assemble(members, Setup(front, tiny.RUNTIME), rule="best")
    front.manifest = replace(front.manifest, items=front.manifest.items[:-1])
    with pytest.raises(RunError, match="the data differ from those the members were trained on"):
        assemble(members, Setup(front, tiny.RUNTIME))


def test_an_ensemble_is_not_trained_on(root: Path) -> None:
    run, _, front = build(root, "a", "b")
    with pytest.raises(RunError, match="run 'joined' is finished"):
        resume_training(run, Setup(front, tiny.RUNTIME), tiny.Silent())
    with pytest.raises(RunError, match="a run named 'joined' exists"):
        build(root, "a", "b")


def test_a_damaged_account_is_named(root: Path) -> None:
    run, _, front = build(root, "a", "b")
    run.path("ensemble.json").write_text("{}")
    with pytest.raises(RunError, match=r"cannot read .*ensemble\.json"):
        evaluate_run(run, Setup(front, tiny.RUNTIME), "test")


def test_the_best_member_is_chosen_on_validation(root: Path) -> None:
    """Member ``a`` is all right on validation and all wrong on test, ``b`` the other way round, the ensemble right."""
    members, left_out = gather(runs(root, "a", "b"), tiny.TinyFrontend, tiny.RUNTIME)
    setup = Setup(tiny.frontend(**SETTINGS), tiny.RUNTIME)
    found = assemble(members, setup)
    right = {part: 5.0 * getattr(found, part)[0].targets for part in ("val", "test")}
    answers = {
        "val": (right["val"], -right["val"], right["val"]),
        "test": (-right["test"], right["test"], right["test"]),
    }
    given = {
        part: tuple(replace(each, logits=own) for each, own in zip(getattr(found, part), logits, strict=True))
        for part, logits in answers.items()
    }
    summary = write_ensemble(create_run(root, "joined", ""), replace(found, **given), left_out, setup)
    assert [member["val_macro_f1"] for member in summary["members"]] == [1.0, 0.0]
    assert [member["macro_f1"] for member in summary["members"]] == [0.0, 1.0]
    assert summary["best_member"] == "a"
    assert summary["gain"]["difference"] == 1.0
