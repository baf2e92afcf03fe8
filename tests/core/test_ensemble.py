"""Ensembles: exact mixtures, weights from validation alone, who may be a member, and a run that is like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn

from samo_core.deploy.model_card import model_card
from samo_core.errors import LeakError, RunError, SamoError, SettingsError
from samo_core.evaluation.calibration import fit_temperature, negative_log_likelihood
from samo_core.evaluation.html import render_html
from samo_core.evaluation.metrics import selection_score
from samo_core.evaluation.predictions import Predictions
from samo_core.experiments import judge
from samo_core.experiments.calibrate import calibration_of
from samo_core.experiments.compare import compare_runs
from samo_core.experiments.ensemble import assemble, fit_weights, write_ensemble
from samo_core.experiments.experiment import load_run_model, resume_training, train_run
from samo_core.experiments.judge import judge_run
from samo_core.experiments.members import common_split, gather
from samo_core.experiments.mixture import VOTE_SMOOTHING, Ensemble, merged_settings, mixed
from samo_core.experiments.run import Run, create_run
from samo_core.tasks import LabelSpace
from samo_core.training.checkpoint import read_about
from samo_core.training.trainer import predict_logits

ONE = LabelSpace((tiny.EMOTION,))
TAGS = LabelSpace((tiny.TAGS,))
SETTINGS: dict[str, Any] = {"epochs": 4, "batch_size": 8, "lr": 0.05, "patience": 0, "split": "folds", "val_ratio": 0.3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts with runs ``a``, ``b`` (two sizes, one split) and ``other`` (another test fold)."""
    root = tmp_path_factory.mktemp("artifacts")
    for name, changes in {"a": {}, "b": {"hidden": 6}, "other": {"fold": 1}}.items():
        front = tiny.frontend(**{**SETTINGS, **changes})
        train_run(create_run(root, name, "tiny"), front, tiny.RUNTIME, tiny.Silent())
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy that may be written into."""
    shutil.copytree(trained, tmp_path / "artifacts", symlinks=True)
    return tmp_path / "artifacts"


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds, and test_report sees to it."""
    monkeypatch.setattr(judge, "save_figures", lambda *_: [])


def runs(root: Path, *names: str) -> list[Run]:
    return [Run(root / "runs" / name) for name in names]


def build(
    root: Path, *names: str, combine: str = "mean", rule: str = "equal", windows: int = 1
) -> tuple[Run, dict[str, Any], tiny.TinyFrontend]:
    """An ensemble named ``joined``, its account, and the frontend it was made with."""
    members, left_out = gather(runs(root, *names), tiny.TinyFrontend, tiny.RUNTIME)
    front = tiny.frontend(windows=windows, **SETTINGS)
    assembly = assemble(members, front, tiny.RUNTIME, combine=combine, rule=rule)
    run = create_run(root, "joined", "")
    return run, write_ensemble(run, assembly, left_out, front, tiny.RUNTIME, "samo ensemble a b"), front


def logs(*rows: Sequence[float]) -> Tensor:
    """Logits whose softmax is these probabilities, one member a row: (K, 1, C)."""
    return torch.tensor(rows).log()[:, None]


def answer(logits: Tensor, weights: Sequence[float], space: LabelSpace, combine: str) -> np.ndarray:
    """(C,) probabilities of the mixture's one row."""
    return space.probabilities(mixed(logits, torch.tensor(weights).log(), space, combine).numpy())[0]


def test_the_mean_is_of_probabilities() -> None:
    found = answer(logs([0.7, 0.2, 0.1], [0.1, 0.6, 0.3]), [0.25, 0.75], ONE, "mean")
    np.testing.assert_allclose(found, [0.25, 0.5, 0.25], atol=1e-6)
    both = torch.tensor([[[0.9, 0.2, 0.5]], [[0.5, 0.4, 0.1]]])
    found = answer(both.logit(), [0.5, 0.5], TAGS, "mean")
    np.testing.assert_allclose(found, [0.7, 0.3, 0.3], atol=1e-6)


def test_votes_are_counted_and_ties_go_to_the_larger_mean() -> None:
    e, three = VOTE_SMOOTHING, [1 / 3, 1 / 3, 1 / 3]
    sure, unsure, third = [0.98, 0.01, 0.01], [0.3, 0.36, 0.34], [0.2, 0.5, 0.3]
    found = answer(logs(sure, unsure, third), three, ONE, "vote")
    means = np.mean([sure, unsure, third], axis=0)
    np.testing.assert_allclose(found, (1 - e) * np.array([1 / 3, 2 / 3, 0]) + e * means, atol=1e-6)
    # The mean of probabilities would have said otherwise.
    assert found.argmax() == 1
    assert means.argmax() == 0
    assert answer(logs(sure, unsure), [0.5, 0.5], ONE, "vote").argmax() == 0
    assert answer(logs(sure, unsure), [0.4, 0.6], ONE, "vote").argmax() == 1
    # The same of both: the first label.
    assert answer(logs([0.2, 0.4, 0.4], [0.2, 0.4, 0.4]), [0.5, 0.5], ONE, "vote").argmax() == 1
    tags = torch.tensor([[[0.9, 0.2, 0.6]], [[0.3, 0.4, 0.5]]])
    found = answer(tags.logit(), [0.5, 0.5], TAGS, "vote")
    expected = (1 - e) * np.array([0.5, 0, 1]) + e * np.array([0.6, 0.3, 0.55])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("combine", ["mean", "vote"])
def test_logits_stay_finite(combine: str) -> None:
    extreme = torch.tensor([[[200.0, -200.0, 0.0] * 2], [[-200.0, 200.0, 0.0] * 2]])
    found = mixed(extreme, torch.tensor([0.5, 0.5]).log(), tiny.BOTH, combine)
    assert found.isfinite().all()


class Said(nn.Module):
    """Says the same logits to every row."""

    def __init__(self, logits: Sequence[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        return self.logits.expand(len(inputs), -1)


def test_every_member_has_its_own_temperature() -> None:
    members = [Said([2.0, 0.0, 0.0, 1.0, 0.0, 0.0]), Said([0.0, 0.0, 3.0, 0.0, 0.0, 4.0])]
    temperatures = [{"emotion": 2.0}, {"tags": 4.0}]
    model = Ensemble(members, [0.5, 0.5], temperatures, tiny.BOTH, "mean")
    found = tiny.BOTH.probabilities(model(torch.zeros(1, 4), torch.tensor([4])).numpy())[0]
    first = tiny.BOTH.probabilities(np.array([[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]]))[0]
    second = tiny.BOTH.probabilities(np.array([[0.0, 0.0, 3.0, 0.0, 0.0, 1.0]]))[0]
    np.testing.assert_allclose(found, (first + second) / 2, atol=1e-6)
    assert not list(model.state_dict())


def test_a_perfect_member_gets_all_the_weight() -> None:
    rng = np.random.default_rng(0)
    targets = np.eye(3)[rng.integers(0, 3, 40)]
    perfect = torch.tensor(20.0 * targets)
    noise = torch.tensor(rng.normal(0, 1, (40, 3)))
    np.testing.assert_array_equal(fit_weights(torch.stack([noise, perfect]), targets, np.ones(40), ONE), [0.0, 1.0])
    # Two that are alike share what they get.
    np.testing.assert_allclose(fit_weights(torch.stack([noise, noise]), targets, np.ones(40), ONE), [0.5, 0.5])


@pytest.mark.parametrize("combine", ["mean", "vote"])
def test_fitted_weights_are_the_most_likely_ones(combine: str) -> None:
    rng = np.random.default_rng(1)
    rows = np.array([tiny.BOTH.encode(item.labels) for item in tiny.corpus(tiny.BOTH)[0].items])
    # The first knows more of the even rows, the second of the odd ones.
    known = np.where(np.arange(len(rows)) % 2 == [[0], [1]], 3.0, [[0.5], [1.0]])
    logits = torch.tensor(rng.normal(0, 1, (2, len(rows), 6)) + known[..., None] * np.nan_to_num(rows))
    found = fit_weights(logits, rows, np.ones(len(rows)), tiny.BOTH, combine)

    def cost(first: float) -> float:
        weights = torch.tensor([first, 1 - first], dtype=torch.float64)
        said = mixed(logits, weights.log(), tiny.BOTH, combine).numpy()
        labelled = ~np.isnan(rows[:, 3])
        tags = negative_log_likelihood(said[labelled, 3:], rows[labelled, 3:], multi_label=True)
        return negative_log_likelihood(said[:, :3], rows[:, :3]) + tags

    grid = np.linspace(0.005, 0.995, 199)
    assert 0.05 < found[0] < 0.95
    assert found.sum() == pytest.approx(1.0)
    assert found[0] == pytest.approx(grid[np.argmin([cost(first) for first in grid])], abs=5e-3)


def test_a_window_counts_by_its_share() -> None:
    rng = np.random.default_rng(2)
    targets = np.eye(3)[rng.integers(0, 3, 30)]
    logits = torch.tensor(rng.normal(0, 1, (2, 30, 3)) + targets)
    twice = fit_weights(logits.repeat(1, 2, 1), np.tile(targets, (2, 1)), np.full(60, 0.5), ONE)
    np.testing.assert_allclose(twice, fit_weights(logits, targets, np.ones(30), ONE), atol=1e-5)
    only = np.where(np.arange(30) < 10, 1.0, 1e-9)
    part = fit_weights(logits[:, :10], targets[:10], np.ones(10), ONE)
    np.testing.assert_allclose(fit_weights(logits, targets, only, ONE), part, atol=1e-4)
    assert abs(part[0] - fit_weights(logits, targets, np.ones(30), ONE)[0]) > 0.02


@pytest.mark.parametrize(("combine", "windows"), [("mean", 1), ("vote", 3)])
def test_an_ensemble_is_a_run(root: Path, combine: str, windows: int) -> None:
    run, account, front = build(root, "a", "b", combine=combine, windows=windows)
    assert (run.status, (root / "latest").resolve()) == ("trained", run.folder)
    report = judge_run(run, front, "test", tiny.RUNTIME)
    assert run.status == "evaluated"
    # What is judged is what was announced, and what the model file says on its own.
    assert report["metrics"]["macro_f1"] == account["ensemble"]["macro_f1"]
    assert report["ci"]["macro_f1"] == account["ensemble"]["interval"]
    assert report["val_macro_f1"] == account["ensemble"]["val_macro_f1"]
    shutil.rmtree(root / "runs" / "a")
    model, space = load_run_model(run, tiny.TinyFrontend, tiny.RUNTIME)
    assert isinstance(model, Ensemble)
    rows = front.manifest.rows(run.split.test)
    said = predict_logits(model, front, rows, tiny.RUNTIME)
    np.testing.assert_allclose(Predictions.load(run.path("predictions.test.npz")).logits, said, atol=1e-6)
    val = front.manifest.rows(run.split.val)
    logits = predict_logits(model, front, val, tiny.RUNTIME)
    calibration = calibration_of(run)
    assert calibration is not None
    fitted = fit_temperature(logits, front.manifest.targets[val], space)
    assert calibration.temperature == pytest.approx(fitted, rel=1e-3)
    assert calibration.fitted_on == "val"


def test_the_mean_of_what_the_members_say(root: Path) -> None:
    run, _, front = build(root, "a", "b")
    judge_run(run, front, "test", tiny.RUNTIME)
    expected = np.zeros((len(run.split.test), 3))
    for member in runs(root, "a", "b"):
        model, space = load_run_model(member, tiny.TinyFrontend, tiny.RUNTIME)
        logits = predict_logits(model, front, front.manifest.rows(run.split.test), tiny.RUNTIME)
        calibration = calibration_of(member)
        assert calibration is not None
        assert calibration.temperature["emotion"] != 1.0
        expected += space.probabilities(logits / calibration.temperature["emotion"]) / 2
    said = Predictions.load(run.path("predictions.test.npz"))
    np.testing.assert_allclose(said.probabilities(ONE), expected, atol=1e-6)


def test_the_account(root: Path) -> None:
    run, account, front = build(root, "a", "b")
    assert account == json.loads(run.path("ensemble.json").read_text())
    assert [member["name"] for member in account["members"]] == ["a", "b"]
    for member, own in zip(account["members"], runs(root, "a", "b"), strict=True):
        report = judge_run(own, front, "test", tiny.RUNTIME)
        assert member["macro_f1"] == report["metrics"]["macro_f1"]
        assert member["interval"] == report["ci"]["macro_f1"]
        assert member["val_macro_f1"] == report["val_macro_f1"]
        assert member["weight"] == 0.5
        calibration = calibration_of(own)
        assert calibration is not None
        assert member["temperature"] == calibration.temperature
    assert account["mean_of_members"] == pytest.approx(np.mean([m["macro_f1"] for m in account["members"]]))
    best = max(account["members"], key=lambda member: member["val_macro_f1"])
    assert account["best_member"] == best["name"]
    judge_run(run, front, "test", tiny.RUNTIME)
    compared = compare_runs(runs(root, best["name"], "joined"))["comparisons"][0]["scores"]["macro_f1"]
    assert account["gain"] == {name: compared[name] for name in ("difference", "low", "high", "p", "verdict")}
    assert (account["combine"], account["weights"], account["fitted_on"]) == ("mean", "equal", None)


def test_report_and_card_name_the_members(root: Path) -> None:
    shutil.rmtree(root / "runs" / "other")
    run, account, front = build(root, "a", "b", "other")
    report = judge_run(run, front, "test", tiny.RUNTIME)
    assert report["ensemble"] == account
    card = run.path("MODEL_CARD.md").read_text()
    page = run.path("report.html").read_text()
    gain = f"{account['gain']['difference']:+.3f} macro-F1"
    for text in (card, page):
        assert "the mean of its members' probabilities, equal weights" in text.replace("&#39;", "'")
        assert gain in text.replace("&#43;", "+")
        assert "Left out: other" in text
    assert f"| a | 0.500 | {account['members'][0]['val_macro_f1']:.3f} |" in card
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

    from samo_core.training.checkpoint import save_model

    about = read_about(model_file)
    tensors = {name: torch.zeros_like(tensor) for name, tensor in load_file(model_file).items()}
    save_model(model_file, tensors, **{name: value for name, value in about.items() if name != "format"})
    run, account, front = build(root, "b", "a", rule="fitted")
    weights = [member["weight"] for member in account["members"]]
    assert weights[1] > 0.8
    assert account["fitted_on"] == "val"
    stored = [member["weight"] for member in read_about(run.model_file)["ensemble"]["members"]]
    assert stored == [weight for weight in weights if weight > 0]
    note = "the weights of the members were fitted on this split, so its scores are a little too good"
    assert note in judge_run(run, front, "val", tiny.RUNTIME)["warnings"]
    assert note not in judge_run(run, front, "test", tiny.RUNTIME)["warnings"]
    # Test labels turned round leave the weights where they are.
    members, _ = gather(runs(root, "b", "a"), tiny.TinyFrontend, tiny.RUNTIME)
    targets = front.manifest.targets.copy()
    test = front.manifest.rows(run.split.test)
    targets[test] = np.roll(targets[test], 1, axis=1)
    front.manifest.__dict__["targets"] = targets
    again = assemble(members, front, tiny.RUNTIME, rule="fitted")
    assert list(again.weights) == weights
    assert selection_score(ONE, again.test[-1].logits, again.test[-1].targets) < account["ensemble"]["macro_f1"]


def test_a_member_without_weight_is_not_in_the_model(root: Path) -> None:
    members, left_out = gather(runs(root, "a", "b"), tiny.TinyFrontend, tiny.RUNTIME)
    front = tiny.frontend(**SETTINGS)
    whole = assemble(members, front, tiny.RUNTIME)
    run = create_run(root, "joined", "")
    write_ensemble(run, replace(whole, weights=(0.0, 1.0)), left_out, front, tiny.RUNTIME)
    model, _ = load_run_model(run, tiny.TinyFrontend, tiny.RUNTIME)
    assert [member["name"] for member in read_about(run.model_file)["ensemble"]["members"]] == ["b"]
    assert sum(name.startswith("members.") for name in model.state_dict()) == len(members[1].model.state_dict())


def test_members_without_a_temperature_get_one_and_keep_their_folder(root: Path) -> None:
    kept = calibration_of(Run(root / "runs" / "a"))
    assert kept is not None
    (root / "runs" / "a" / "calibration.json").unlink()
    before = sorted(path.name for path in (root / "runs" / "a").iterdir())
    _, account, _ = build(root, "a", "b")
    assert account["members"][0]["temperature"] == pytest.approx(kept.temperature, rel=1e-4)
    assert sorted(path.name for path in (root / "runs" / "a").iterdir()) == before


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
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**values, "dataset": "elsewhere"}))


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
    train_run(create_run(root, "tags", "tiny"), front, tiny.RUNTIME, tiny.Silent())
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
    with pytest.raises(SettingsError, match="--weights fitted: validated on other items than 'a': b"):
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
    with pytest.raises(SettingsError, match="--combine sum: unknown") as caught:
        assemble(members, front, tiny.RUNTIME, combine="sum")
    assert caught.value.hint == "valid: mean, vote"
    with pytest.raises(SettingsError, match="--weights best: unknown"):
        assemble(members, front, tiny.RUNTIME, rule="best")
    front.manifest = replace(front.manifest, items=front.manifest.items[:-1])
    with pytest.raises(RunError, match="the data differ from those the members were trained on"):
        assemble(members, front, tiny.RUNTIME)


def test_an_ensemble_is_not_trained_on(root: Path) -> None:
    run, _, front = build(root, "a", "b")
    with pytest.raises(RunError, match="run 'joined' is finished"):
        resume_training(run, front, tiny.RUNTIME, tiny.Silent())
    with pytest.raises(RunError, match="a run named 'joined' exists"):
        build(root, "a", "b")


def test_a_damaged_account_is_named(root: Path) -> None:
    run, _, front = build(root, "a", "b")
    run.path("ensemble.json").write_text("{}")
    with pytest.raises(RunError, match=r"cannot read .*ensemble\.json"):
        judge_run(run, front, "test", tiny.RUNTIME)
