"""Runs of a multi-label task: judge, comparison, ensemble and cross-validation go by the run's own thresholds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny_frontend as tiny
from sklearn.metrics import f1_score

from samo.data.manifest import Manifest
from samo.data.relabel import relabel
from samo.data.splits import make_split
from samo.ensembles.ensemble import assemble, write_ensemble
from samo.ensembles.members import gather
from samo.evaluation.decision import fit_decision
from samo.evaluation.predictions import Predictions
from samo.experiments.cells import Cell
from samo.experiments.compare import compare_runs
from samo.experiments.crossval import crossval_report, join_predictions
from samo.experiments.results_table import pooled
from samo.runs import evaluate as evaluation
from samo.runs import run_report
from samo.runs.artifacts import create_run
from samo.runs.calibrate import decision_of
from samo.runs.cross_corpus import evaluate_corpus
from samo.runs.evaluate import evaluate_run
from samo.runs.kept_predictions import predictions_of
from samo.runs.load import load_run_model
from samo.runs.run import Run
from samo.runs.training import train_run
from samo.settings import ThresholdSettings
from samo.tasks import LabelSpace, Task
from samo.training.setup import Setup
from samo.training.trainer import predict_logits

TAGS = LabelSpace((tiny.TAGS,))
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "lr": 0.02, "patience": 0, "split": "folds", "val_ratio": 0.3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs ``a`` and ``b`` of one split, barely trained, so that thresholds matter."""
    root = tmp_path_factory.mktemp("artifacts")
    for name, changes in {"a": {}, "b": {"hidden": 6}}.items():
        front = tiny.frontend(TAGS, **{**SETTINGS, **changes})
        train_run(create_run(root, name, "tiny"), Setup(front, tiny.RUNTIME), tiny.Silent())
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that may be written into; drawing takes seconds, and test_report_pages sees to it."""
    monkeypatch.setattr(run_report, "save_figures", lambda *_: [])
    shutil.copytree(trained, tmp_path / "artifacts", symlinks=True)
    return tmp_path / "artifacts"


def judged_run(root: Path, name: str, **changes: Any) -> tuple[Run, dict[str, Any]]:
    run = Run(root / "runs" / name)
    return run, evaluate_run(run, Setup(tiny.frontend(TAGS, **{**SETTINGS, **changes}), tiny.RUNTIME), "test")


def test_training_leaves_thresholds_and_judging_uses_them(root: Path) -> None:
    run = Run(root / "runs" / "a")
    decision = decision_of(run, TAGS)
    kept = run.path("thresholds.json").read_text()
    run, found = judged_run(root, "a")
    assert run.path("thresholds.json").read_text() == kept
    val, test = (Predictions.load(run.path(f"predictions.{part}.npz")) for part in ("val", "test"))
    direct = fit_decision(val.logits, val.targets, TAGS, ThresholdSettings(), calibration=decision.calibration)
    assert decision.thresholds.tasks["tags"].common == pytest.approx(direct.thresholds.tasks["tags"].common)
    shares, holds = decision.answers(test.logits, TAGS)
    np.testing.assert_array_equal(test.decided, holds)
    assert found["metrics"]["macro_f1"] == pytest.approx(
        f1_score(test.targets > 0, shares >= decision.thresholds.of(tiny.TAGS), average="macro", zero_division=0)
    )
    assert found["metrics"]["macro_f1"] != found["thresholds"]["rules"]["half"]["macro_f1"]


def test_epochs_are_selected_by_what_may_ship(root: Path) -> None:
    run, found = judged_run(root, "a")
    assert run.trained["selected_over"] == [0.01, 0.95, 95]
    # Weights are validated in training as they are evaluated.
    best = found["thresholds"]["rules"]["global"]["val_macro_f1"]
    assert run.trained["val_macro_f1"] == pytest.approx(best, abs=1e-6)


def test_train_and_validation_are_scored_under_the_thresholds_of_the_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not under those that happen to be best for the part itself, which flatter it."""
    path = root / "runs" / "a" / "thresholds.json"
    kept = json.loads(path.read_text())
    kept["tasks"]["tags"]["per_class"] = {"loud": 0.6, "fast": 0.4, "high": 0.5}
    path.write_text(json.dumps(kept))
    run, found = judged_run(root, "a")
    temperature = json.loads(run.path("calibration.json").read_text())["temperature"]["tags"]
    flattered = {}
    for part in ("train", "val"):
        stored = Predictions.load(run.path(f"predictions.{part}.npz"))
        truth, shares = stored.targets > 0, 1 / (1 + np.exp(-stored.logits.astype(float) / temperature))
        expected = f1_score(truth, shares >= [0.6, 0.4, 0.5], average="macro", zero_division=0)
        assert found[f"{part}_macro_f1"] == pytest.approx(expected)
        grid = [0.01, 0.025, *np.linspace(0.05, 0.95, 19)]
        raw = TAGS.probabilities(stored.logits)
        flattered[part] = max(f1_score(truth, raw >= cut, average="macro", zero_division=0) for cut in grid)
        assert flattered[part] > expected + 0.01
    assert found["gap"] == pytest.approx(found["train_macro_f1"] - found["val_macro_f1"])
    # The reports of runs trained before had the best threshold of each part, and keep their numbers.
    for module in (evaluation, run_report):
        monkeypatch.setattr(module, "intervals_of", lambda run: "percentile")
    _, before = judged_run(root, "a")
    assert {part: before[f"{part}_macro_f1"] for part in flattered} == pytest.approx(flattered)


@pytest.mark.parametrize("stale", ["missing", "epoch", "temperature"])
def test_thresholds_of_other_weights_or_temperatures_are_chosen_again(root: Path, stale: str) -> None:
    run = Run(root / "runs" / "a")
    path = run.path("thresholds.json")
    kept = json.loads(path.read_text())
    if stale == "missing":
        path.unlink()
    else:
        wrong = json.loads(path.read_text())
        wrong["tasks"]["tags"] |= {"common": 0.9, "per_class": {"loud": 0.9, "fast": 0.9, "high": 0.9}}
        if stale == "epoch":
            wrong["epoch"] += 1
        else:
            wrong["tasks"]["tags"]["temperature"] *= 2
        path.write_text(json.dumps(wrong))
    assert decision_of(run, TAGS).thresholds.tasks == {}
    calibration = run.path("calibration.json").read_text()
    _, found = judged_run(root, "a")
    again = json.loads(path.read_text())
    assert again["epoch"] == kept["epoch"]
    assert again["tasks"]["tags"]["per_class"] == pytest.approx(kept["tasks"]["tags"]["per_class"])
    assert run.path("calibration.json").read_text() == calibration
    assert found["thresholds"]["used"] == "per-class"


def test_settings_choose_what_is_tried(root: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "threshold": "global", "threshold_range": (0.3, 0.4), "num_thresholds": 3}
    run = create_run(tmp_path, "own", "tiny")
    train_run(run, Setup(tiny.frontend(TAGS, **settings), tiny.RUNTIME), tiny.Silent())
    stored = json.loads(run.path("thresholds.json").read_text())
    assert (stored["used"], stored["tried"]) == ("global", [0.3, 0.4, 3])
    assert round(stored["tasks"]["tags"]["common"], 9) in (0.3, 0.35, 0.4)
    assert run.settings["threshold_range"] == [0.3, 0.4]


def test_elsewhere_the_thresholds_are_those_of_the_run(root: Path) -> None:
    run, front = Run(root / "runs" / "a"), tiny.frontend(TAGS, **SETTINGS)
    other = LabelSpace((Task("words", ("shout", "rush", "squeak"), multi_label=True),))
    names = dict(zip(tiny.TAGS.labels, other.primary.labels, strict=True))
    items = tuple(
        replace(item, content=f"other{k}", labels={"words": tuple(names[label] for label in item.labels["tags"])})
        for k, item in enumerate(front.manifest.items)
    )
    items = (replace(items[0], labels={"words": ()}), replace(items[1], labels={"words": ("squeak",)}), *items[2:])
    foreign = Manifest("other", other, items, Path("/other"))
    mapping = {"shout": "loud", "rush": "fast", "squeak": "-"}
    translated = relabel(foreign, TAGS, mapping)
    # None of its labels is an answer; only labels that are left out is not.
    assert translated.items[0].labels == {"tags": ()}
    assert translated.items[1].labels == {}
    front.manifest = foreign
    found = evaluate_corpus(run, Setup(front, tiny.RUNTIME), mapping)
    assert found["n"] == sum(bool(item.labels) for item in translated.items)
    assert found["per_class"]["loud"]["threshold"] == decision_of(run, TAGS).thresholds.of(tiny.TAGS)[0]
    run.path("thresholds.json").unlink()
    assert any(
        "no thresholds: judge the run" in line
        for line in evaluate_corpus(run, Setup(front, tiny.RUNTIME), mapping)["warnings"]
    )


def test_compared_runs_are_decided_by_their_own_thresholds(root: Path) -> None:
    reports = [judged_run(root, name, **changes)[1] for name, changes in {"a": {}, "b": {"hidden": 6}}.items()]
    runs = [Run(root / "runs" / name) for name in "ab"]
    first = compare_runs(runs)
    cell = first["comparisons"][0]["scores"]["macro_f1"]
    assert [cell["baseline"], cell["run"]] == [found["metrics"]["macro_f1"] for found in reports]
    stored = Predictions.load(runs[1].path("predictions.test.npz"))
    replace(stored, decided=None).save(runs[1].path("predictions.test.npz"))
    second = compare_runs(runs)
    assert second["comparisons"][0]["scores"]["macro_f1"]["run"] == pytest.approx(
        reports[1]["thresholds"]["rules"]["half"]["macro_f1"]
    )
    assert second["inputs"]["b"] != first["inputs"]["b"]


@pytest.mark.parametrize("combine", ["mean", "vote"])
def test_an_ensemble_has_thresholds_of_its_own(root: Path, combine: str) -> None:
    members, left_out = gather([Run(root / "runs" / name) for name in "ab"], tiny.TinyFrontend, tiny.RUNTIME)
    front = tiny.frontend(TAGS, **SETTINGS)
    assembly = assemble(members, Setup(front, tiny.RUNTIME), combine=combine)
    run = create_run(root, "joined", "")
    summary = write_ensemble(run, assembly, left_out, Setup(front, tiny.RUNTIME))
    decision = decision_of(run, TAGS)
    val = assembly.val[-1]
    direct = fit_decision(val.logits, val.targets, TAGS, ThresholdSettings())
    assert decision.thresholds.tasks == direct.thresholds.tasks
    found = evaluate_run(run, Setup(front, tiny.RUNTIME), "test")
    assert summary["ensemble"]["macro_f1"] == found["metrics"]["macro_f1"] > 0
    for member in summary["members"]:
        own = judged_run(root, member["name"], **({"hidden": 6} if member["name"] == "b" else {}))[1]
        assert member["macro_f1"] == own["metrics"]["macro_f1"]
        assert member["val_macro_f1"] == pytest.approx(own["val_macro_f1"])
    assert summary["ensemble"]["val_macro_f1"] == found["val_macro_f1"]
    best = next(m for m in summary["members"] if m["name"] == summary["best_member"])
    assert summary["gain"]["difference"] == pytest.approx(summary["ensemble"]["macro_f1"] - best["macro_f1"])
    # The file of the model votes with its members' thresholds, as the assembly did.
    model, _ = load_run_model(run, tiny.TinyFrontend, tiny.RUNTIME)
    rows = front.manifest.rows(run.split.test)
    logits = predict_logits(model, Setup(front, tiny.RUNTIME), rows)
    np.testing.assert_allclose(logits, assembly.test[-1].logits, atol=1e-5)


def cell_of(root: Path, name: str, fold: int) -> Cell:
    return Cell(name, "row", 0, fold, {"modality": "tiny", **SETTINGS, "fold": fold})


def test_folds_are_joined_as_each_was_decided(root: Path) -> None:
    run, _ = judged_run(root, "a")
    second, _ = judged_run(root, "b", hidden=6)
    cells = [cell_of(root, "a", 0), cell_of(root, "b", 1)]
    by_run = [Predictions.load(each.path("predictions.test.npz")) for each in (run, second)]
    both = join_predictions(cells, root)
    assert both.decided is not None
    assert by_run[0].decided is not None
    assert by_run[1].decided is not None
    decided = np.concatenate([by_run[0].decided, by_run[1].decided])
    np.testing.assert_array_equal(both.decided, decided)
    truth = np.concatenate([each.targets for each in by_run]) > 0
    found = crossval_report("c", cells, root, "speaker")
    expected = f1_score(truth, decided, average="macro", zero_division=0)
    assert found["metrics"]["macro_f1"] == pytest.approx(expected)
    assert found["by_seed"][0]["macro_f1"] == pytest.approx(expected)
    assert found["thresholds"] is None
    assert "each fold is decided by its own thresholds" in found["warnings"]
    assert pooled(cells, root, "macro_f1")[0] == pytest.approx(expected)
    at_half = np.concatenate([each.logits for each in by_run]) >= 0
    assert expected != pytest.approx(f1_score(truth, at_half, average="macro", zero_division=0))


class WithBaseline(tiny.TinyFrontend):
    """Its simple model says the same of every row: what is common."""

    asked: ClassVar[list[tuple[int, ...]]] = []

    def baseline(self, train_rows: np.ndarray, rows: np.ndarray) -> tuple[str, np.ndarray]:
        self.asked.append((len(train_rows), len(rows)))
        share = self.manifest.targets[train_rows].mean(axis=0)
        return "share", np.tile(np.log(share / (1 - share)), (len(rows), 1)).astype(np.float32)


@pytest.mark.parametrize("part", ["test", "val"])
def test_the_baseline_of_the_modality_stands_in_the_report(root: Path, part: str) -> None:
    run = Run(root / "runs" / "a")
    plain = tiny.frontend(TAGS, **SETTINGS)
    front = WithBaseline(plain.config, plain.manifest, plain.features)
    found = evaluate_run(run, Setup(front, tiny.RUNTIME), part)
    split, manifest = run.split, front.manifest
    assert front.asked[-1] == (len(split.train), len(split.val) + (len(split.test) if part == "test" else 0))
    ids = split.part(part)
    _, logits = front.baseline(manifest.rows(split.train), manifest.rows(ids))
    val = manifest.targets[manifest.rows(split.val)]
    decision = fit_decision(np.tile(logits[:1], (len(val), 1)), val, TAGS, ThresholdSettings())
    targets = manifest.targets[manifest.rows(ids)]
    score = f1_score(targets > 0, decision.answers(logits, TAGS)[1], average="macro", zero_division=0)
    assert found["baseline"]["name"] == "share"
    assert found["baseline"]["macro_f1"] == pytest.approx(score)
    gap = found["baseline"]["difference"]["value"]
    assert gap == pytest.approx(found["metrics"]["macro_f1"] - score)


def test_the_baseline_is_decided_by_thresholds_from_validation(root: Path) -> None:
    """On test the label ``high`` would ask for a threshold above 0.5; validation knows of one near 0.2 only."""

    class WithBaseline(tiny.TinyFrontend):
        def baseline(self, train_rows: np.ndarray, rows: np.ndarray) -> tuple[str, np.ndarray] | None:
            assert train_rows.tolist() == self.manifest.rows(split.train).tolist()
            held = self.manifest.targets[rows] > 0.5
            logits = np.where(held, 3.0, -3.0).astype(np.float32)
            evaluated = np.isin(rows, self.manifest.rows(split.val))
            logits[:, 2] = np.where(evaluated, np.where(held[:, 2], -1.0, -2.0), np.where(held[:, 2], 2.0, 0.5))
            return "fixed", logits

    plain = tiny.frontend(TAGS, split="folds", val_ratio=0.3)
    front = WithBaseline(plain.config, plain.manifest, plain.features)
    split = make_split(front.manifest, front.split_request())
    truth = front.manifest.targets[front.manifest.rows(split.test)]
    given = predictions_of(front, split.test, truth)
    run = Run(root / "runs" / "a")
    found = evaluation._beside("baseline", run, front, TAGS, split, "test", given)
    assert found is not None
    # All test rows reach the threshold of the third label, the others are right.
    n, positive = len(truth), truth[:, 2].sum()
    assert 0 < positive < n
    assert found["macro_f1"] == pytest.approx((1.0 + 1.0 + 2.0 * positive / (n + positive)) / 3.0)


def test_missing_thresholds_are_chosen_under_the_temperature_there_is(root: Path) -> None:
    run = Run(root / "runs" / "a")
    stored = json.loads(run.path("calibration.json").read_text())
    run.path("calibration.json").write_text(json.dumps({**stored, "temperature": {"tags": 3.0}}))
    run.path("thresholds.json").unlink()
    _, report = judged_run(root, "a")
    assert report["calibration"]["temperature"] == 3.0
    assert json.loads(run.path("calibration.json").read_text())["temperature"] == {"tags": 3.0}
    assert json.loads(run.path("thresholds.json").read_text())["tasks"]["tags"]["temperature"] == 3.0
