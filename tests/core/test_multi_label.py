"""Reports of multi-label and of several tasks, figure by figure, and comparisons that go by thresholds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from example_reports import build
from sklearn.metrics import accuracy_score, f1_score

from samo.data.manifest import Item
from samo.errors import DataError
from samo.evaluation.baseline import compare_to_baseline
from samo.evaluation.comparison import build_comparison
from samo.evaluation.decision import Decision, fit_decision
from samo.evaluation.metrics import macro_f1, uar
from samo.evaluation.paired_bootstrap import paired_bootstrap
from samo.evaluation.predictions import Predictions
from samo.evaluation.statistics import score_intervals, tally_by_unit
from samo.reporting.html import render_html
from samo.reporting.model_card import model_card
from samo.reporting.report import headlines
from samo.reporting.wording import baseline_line, task_rows, threshold_line, threshold_rows
from samo.settings import ThresholdSettings
from samo.tasks import LabelSpace, Task

LABELS = ("a", "b", "c")
ABC = Task("tags", LABELS, multi_label=True)
SPACE = LabelSpace((ABC,))
SHARES = np.array([0.5, 0.25, 0.1])
RANGE = ThresholdSettings(threshold_range=(0.1, 0.9), num_thresholds=20)


def drawn(seed: int, n: int = 400, noise: float = 1.0) -> Predictions:
    """Rows without groups; some hold no label, some are unlabelled."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n, 3)) < SHARES
    logits = np.log(SHARES) - 1 + 2.5 * truth + noise * rng.normal(size=truth.shape)
    targets = truth.astype(np.float32)
    targets[::40] = np.nan
    return Predictions(tuple(f"t{k}" for k in range(n)), logits.astype(np.float32), targets, ("",) * n)


def fitted(threshold: str = "per-class", seed: int = 0) -> Decision:
    val = drawn(seed)
    return fit_decision(val.logits, val.targets, SPACE, RANGE.model_copy(update={"threshold": threshold}))


def report(predictions: Predictions, decision: Decision | None = None, **changed: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "run": "run-1", "dataset": "corpus", "synthetic": False, "split": "test", "split_rule": "published",
        "leaky": False, "task": ABC, "predictions": predictions, "label_space": SPACE, "unit": "speaker",
        "train_macro_f1": 0.9, "val_macro_f1": 0.6,
    }  # fmt: skip
    if decision:
        arguments |= {"calibration": decision.calibration, "thresholds": decision.thresholds}
    return build(**{**arguments, **changed})


def by_rule(predictions: Predictions, decision: Decision) -> dict[str, np.ndarray]:
    """What each rule answers for the labelled rows, written out."""
    shares = 1 / (1 + np.exp(-predictions.logits.astype(np.float64) / decision.calibration.temperature["tags"]))
    chosen = decision.thresholds.tasks["tags"]
    thresholds = {
        "half": 0.5,
        "global": chosen.common,
        "per-class": np.array([chosen.per_class[label] for label in LABELS]),
    }
    labelled = ~np.isnan(predictions.targets).any(axis=1)
    return {rule: shares[labelled] >= cut for rule, cut in thresholds.items()}


def truth_of(predictions: Predictions) -> np.ndarray:
    return np.asarray(predictions.targets[~np.isnan(predictions.targets).any(axis=1)] > 0)


@pytest.mark.parametrize("used", ["half", "global", "per-class"])
def test_every_figure_of_the_block(used: str) -> None:
    predictions, decision, val = drawn(1), fitted(used), drawn(0)
    found, truth, answers = report(predictions, decision), truth_of(predictions), by_rule(predictions, decision)
    block = found["thresholds"]
    assert (block["used"], block["fitted_on"], block["tried"], block["borrowed"]) == (used, "val", [0.1, 0.9, 20], [])
    assert block["global"] == decision.thresholds.tasks["tags"].common
    assert list(block["rules"]) == ["half", "global", "per-class"]
    at_val = by_rule(val, decision)
    scores = {rule: f1_score(truth, answer, average="macro") for rule, answer in answers.items()}
    val_scores = {rule: f1_score(truth_of(val), answer, average="macro") for rule, answer in at_val.items()}
    for rule, row in block["rules"].items():
        units = tally_by_unit(truth, answers[rule], [""] * len(truth))
        ends = score_intervals(units, {"f": macro_f1})["f"]
        assert row == {
            "macro_f1": pytest.approx(scores[rule]),
            "interval": list(ends or ()),
            "val_macro_f1": pytest.approx(val_scores[rule]),
            "gain": pytest.approx(scores[rule] - scores["half"]),
            "val_gain": pytest.approx(val_scores[rule] - val_scores["half"]),
        }
    # Everything else in the report is decided by the rule in use.
    assert found["metrics"]["macro_f1"] == block["rules"][used]["macro_f1"]
    assert found["metrics"]["accuracy"] == pytest.approx(accuracy_score(truth, answers[used]))
    assert found["metrics"]["micro_f1"] == pytest.approx(f1_score(truth, answers[used], average="micro"))
    assert found["ci"]["macro_f1"] == block["rules"][used]["interval"]
    assert (found["ci"]["unit"], found["ci"]["n_units"]) == ("row", 390)
    by_label = f1_score(truth, answers[used], average=None)
    assert [row["f1"] for row in found["per_class"].values()] == pytest.approx(list(by_label))
    thresholds = decision.thresholds.of(ABC).tolist()
    assert [row["threshold"] for row in found["per_class"].values()] == thresholds
    assert len({round(score, 6) for score in scores.values()}) == 3
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_without_thresholds_there_is_no_block_and_half_decides() -> None:
    predictions = drawn(1)
    found = report(predictions)
    assert found["thresholds"] is None
    assert "threshold" not in found["per_class"]["a"]
    at_half = predictions.logits[~np.isnan(predictions.targets).any(axis=1)] >= 0
    assert found["metrics"]["macro_f1"] == pytest.approx(f1_score(truth_of(predictions), at_half, average="macro"))
    assert threshold_rows(found) == []


def test_frequent_labels() -> None:
    predictions, decision = drawn(1, n=300), fitted()
    found, truth = report(predictions, decision), truth_of(predictions)
    support = truth.sum(axis=0)
    assert (support >= 50).tolist() == [True, True, False]
    answer = by_rule(predictions, decision)["per-class"]
    expected = f1_score(truth[:, :2], answer[:, :2], average="macro")
    units = tally_by_unit(truth[:, :2], answer[:, :2], [""] * len(truth))
    low, high = score_intervals(units, {"f": macro_f1})["f"] or (0, 0)
    frequent = found["macro_f1_frequent"]
    assert (frequent["n_classes"], frequent["least_rows"]) == (2, 50)
    assert frequent["value"] == pytest.approx(expected)
    assert frequent["interval"] == pytest.approx([low, high], abs=0.02)
    name, value, ends = headlines(found)[-1]
    assert name == "macro-F1 over the 2 classes with 50+ rows"
    assert (value, ends) == (frequent["value"], frequent["interval"])
    # Of a multi-label task it stands there also when no label is left out; never when none is left.
    assert report(drawn(1, n=900), decision)["macro_f1_frequent"]["n_classes"] == 3
    assert report(drawn(1, n=41), decision)["macro_f1_frequent"] is None


def test_frequent_labels_of_a_single_label_task() -> None:
    space = LabelSpace((Task("mood", LABELS),))
    targets = np.eye(3, dtype=np.float32)[[0] * 60 + [1] * 50 + [2] * 49]
    rng = np.random.default_rng(0)
    logits = (targets + rng.normal(size=targets.shape)).astype(np.float32)
    predictions = Predictions(tuple(map(str, range(159))), logits, targets, ("",) * 159)
    found = report(predictions, task=space.primary, label_space=space)
    answer = logits.argmax(axis=1)
    expected = f1_score(targets.argmax(axis=1), answer, labels=[0, 1], average="macro")
    assert found["macro_f1_frequent"]["value"] == pytest.approx(expected)
    few = Predictions(predictions.ids[:100], logits[:100], targets[:100], predictions.groups[:100])
    assert report(few, task=space.primary, label_space=space)["macro_f1_frequent"]["n_classes"] == 1
    whole = np.repeat(np.eye(3, dtype=np.float32), 50, axis=0)
    every = Predictions(predictions.ids[:150], logits[:150], whole, predictions.groups[:150])
    assert report(every, task=space.primary, label_space=space)["macro_f1_frequent"] is None


def test_warnings_instead_of_crashes() -> None:
    val, predictions = drawn(0), drawn(1)
    val.targets[:, 2] = np.where(np.isnan(val.targets[:, 2]), np.nan, 0)
    decision = fit_decision(val.logits, val.targets, SPACE, RANGE)
    predictions.logits[:, 1] = -30
    predictions.targets[:, 0] = np.where(np.isnan(predictions.targets[:, 0]), np.nan, 0)
    found = report(predictions, decision, split="val")
    lines = " | ".join(found["warnings"])
    assert "no validation row to choose a threshold by, so that of all classes is taken: c" in lines
    assert "absent from this split, so left out of macro-F1: a" in lines
    assert "never predicted: b" in lines
    assert "the thresholds were chosen on this split, so its scores are too good" in lines
    assert found["per_class"]["a"]["roc_auc"] is None
    assert found["per_class"]["c"]["threshold"] == found["thresholds"]["global"]
    at_edge = fit_decision(val.logits, val.targets, SPACE, RANGE.model_copy(update={"threshold_range": (0.7, 0.9)}))
    assert any(
        line.startswith("the threshold is the lowest tried (0.7), another may be better: ")
        for line in report(predictions, at_edge)["warnings"]
    )
    nothing = replace(predictions, targets=np.zeros_like(predictions.targets))
    found = report(nothing, decision)
    assert (found["metrics"]["macro_f1"], found["macro_f1_present"]) == (0.0, None)
    assert headlines(found) == [("macro-F1", 0.0, None)]


def test_rows_that_hold_no_label_count() -> None:
    predictions, decision = drawn(1), fitted()
    found = report(predictions, decision)
    none = (truth_of(predictions).sum(axis=1) == 0).sum()
    assert found["n"] == 390
    assert none > 50
    right = (truth_of(predictions) == by_rule(predictions, decision)["per-class"]).all(axis=1)
    assert found["metrics"]["accuracy"] == pytest.approx(right.mean())


BASE = {"task": ABC, "label_space": SPACE, "unit": "speaker"}


def test_baseline() -> None:
    predictions, decision = drawn(1), fitted()
    own, simple = (
        decision.applied(predictions, SPACE),
        decision.applied(replace(drawn(1, noise=4.0), targets=predictions.targets), SPACE),
    )
    found = compare_to_baseline("tfidf", simple, own, **BASE)
    truth = truth_of(predictions)
    answers = [by_rule(each, decision)["per-class"] for each in (simple, own)]
    scores = [f1_score(truth, answer, average="macro") for answer in answers]
    tallies = [tally_by_unit(truth, answer, [""] * len(truth)) for answer in answers]
    direct = paired_bootstrap(*tallies, {"f": macro_f1}, n_resamples=2000)["f"]
    assert found == {
        "name": "tfidf", "macro_f1": pytest.approx(scores[0]),
        "ci": list(score_intervals(tallies[0], {"f": macro_f1})["f"] or ()), "level": 0.95, "unit": "row",
        "difference": {
            "value": pytest.approx(scores[1] - scores[0]), "low": direct.low, "high": direct.high, "p": direct.p,
            "verdict": "better",
        },
    }  # fmt: skip
    gap = found["difference"]
    assert baseline_line(found) == (
        f"baseline tfidf {scores[0]:.3f} [{found['ci'][0]:.3f}, {found['ci'][1]:.3f}]; "
        f"this run {gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]: better"
    )
    # The order of the items is the baseline's own affair.
    turned = np.arange(len(predictions))[::-1]
    other = replace(
        simple, ids=simple.ids[::-1], logits=simple.logits[turned], targets=simple.targets[turned],
        decided=simple.decided[turned] if simple.decided is not None else None,
    )  # fmt: skip
    assert compare_to_baseline("tfidf", other, own, **BASE) == found
    assert report(predictions, decision, baseline=found)["baseline"] == found
    assert compare_to_baseline("x", own, own, **BASE)["difference"]["verdict"] == "cannot tell"
    with pytest.raises(DataError, match="'this run' and 'tfidf' do not speak of the same items"):
        compare_to_baseline("tfidf", drawn(1, n=10), own, **BASE)


def test_baseline_of_one_group_has_no_interval() -> None:
    predictions = replace(drawn(1), groups=("s",) * 400)
    found = compare_to_baseline("tfidf", predictions, predictions, **BASE)
    assert (found["ci"], found["difference"]["low"], found["unit"]) == (None, None, "speaker")
    assert baseline_line(found).endswith("; this run +0.000: cannot tell")


def test_comparison_goes_by_thresholds() -> None:
    one, other, decision = drawn(1), replace(drawn(1, noise=2.0), targets=drawn(1).targets), fitted()
    about: dict[str, Any] = {**BASE, "dataset": "d", "split": "test", "split_rule": "published", "n_resamples": 200}
    plain = build_comparison({"one": one, "other": other}, **about)
    chosen = build_comparison({n: decision.applied(s, SPACE) for n, s in {"one": one, "other": other}.items()}, **about)
    truth = truth_of(one)
    for found, rule in ((plain, "half"), (chosen, "per-class")):
        row = found["comparisons"][0]["scores"]["macro_f1"]
        expected = [f1_score(truth, by_rule(each, decision)[rule], average="macro") for each in (one, other)]
        assert [row["baseline"], row["run"]] == pytest.approx(expected)
    assert abs(plain["comparisons"][0]["scores"]["macro_f1"]["run"] - row["run"]) > 0.01


def test_several_tasks() -> None:
    space = LabelSpace((ABC, Task("mood", ("up", "down"))))
    predictions, decision, rng = drawn(1), fitted(), np.random.default_rng(3)
    mood = np.eye(2, dtype=np.float32)[rng.integers(0, 2, 400)]
    mood[:100] = np.nan
    both = Predictions(
        predictions.ids,
        np.hstack([predictions.logits, rng.normal(size=mood.shape) + np.nan_to_num(mood)]).astype(np.float32),
        np.hstack([predictions.targets, mood]),
        predictions.groups,
    )
    found, alone = report(both, decision, label_space=space), report(predictions, decision)
    assert {name: found[name] for name in alone if name not in ("tasks", "overall_macro_f1")} == {
        name: alone[name] for name in alone if name not in ("tasks", "overall_macro_f1")
    }
    assert list(found["tasks"]) == ["tags", "mood"]
    truth, answer = mood[100:].argmax(axis=1), both.logits[100:, 3:].argmax(axis=1)
    second = found["tasks"]["mood"]
    assert (second["n"], second["labels"], second["thresholds"]) == (300, ["up", "down"], None)
    assert second["metrics"]["macro_f1"] == pytest.approx(f1_score(truth, answer, average="macro"))
    assert second["ci"]["n_units"] == 300
    assert np.array(second["confusion"]).sum() == 300
    mean = (second["metrics"]["macro_f1"] + found["metrics"]["macro_f1"]) / 2
    assert found["overall_macro_f1"] == pytest.approx(mean)
    assert [row[0] for row in task_rows(found)] == ["tags", "mood", "mean over tasks"]
    assert task_rows(found)[-1][3] == f"{mean:.3f}"
    both.logits[:, 4] = 9.0
    assert "mood: never predicted: up" in report(both, decision, label_space=space)["warnings"]
    page = render_html(found, {}, {}, {})
    card = model_card(found, {}, {}, data_card={})
    for text in (page, card):
        for word in ("mean over tasks", f"{mean:.3f}", "mood"):
            assert word in text
    assert "<details><summary>mood: 2 classes</summary>" in page


def test_page_and_card_show_thresholds_and_baseline() -> None:
    predictions, decision = drawn(1), fitted()
    other = replace(drawn(1, noise=4.0), targets=predictions.targets)
    baseline = compare_to_baseline("<b>", other, predictions, **BASE)
    found = report(predictions, decision, baseline=baseline)
    page, card = render_html(found, {}, {}, {}), model_card(found, {}, {}, data_card={})
    block = found["thresholds"]
    assert f"global {block['global']:.2f}" in card
    assert "per class \\*" in card
    assert "per class *" in page
    for text in (page, card):
        assert threshold_line(found) in text
        assert f"{block['rules']['per-class']['val_macro_f1']:.3f}" in text
        assert f"{found['per_class']['b']['threshold']:.2f}" in text
        assert "classes with 50+ rows" in text or found["macro_f1_frequent"] is None
        # Under the run's thresholds; those of runs trained before, with their percentile intervals, are not.
        assert "macro-F1 on validation" in text
        assert "(one threshold)" not in text
    before = {**found, "ci": {**found["ci"], "method": "percentile"}}
    for text in (render_html(before, {}, {}, {}), model_card(before, {}, {}, data_card={})):
        assert "macro-F1 on validation data (one threshold)" in text
    assert "aseline &lt;b&gt; 0." in page
    assert "baseline \\<b\\> 0." in card
    bare = report(predictions)
    assert "Thresholds" not in model_card(bare, {}, {}, data_card={})
    assert "<h2>Thresholds</h2>" not in render_html(bare, {}, {}, {})


def test_how_much_survived_in_words() -> None:
    def line(used: str, val_gain: float, gain: float) -> str:
        return threshold_line({"thresholds": {"used": used, "rules": {used: {"val_gain": val_gain, "gain": gain}}}})

    assert line("per-class", 0.04, 0.01) == "chosen on validation they gained +0.040 there and +0.010 here (25 % of it)"
    assert line("global", 0.0, 0.1) == "chosen on validation they gained nothing there"
    assert line("half", 0.0, 0.0).startswith("decided at 0.5")


def test_uar_of_a_multi_label_task_is_the_mean_recall() -> None:
    predictions, decision = drawn(1), fitted()
    truth, answer = truth_of(predictions), by_rule(predictions, decision)["per-class"]
    units = tally_by_unit(truth, answer, [""] * len(truth))
    recall = (truth & answer).sum(axis=0) / truth.sum(axis=0)
    whole = type(units).from_flat(units.flat().sum(axis=0))
    assert uar(whole) == pytest.approx(recall.mean())
    assert report(predictions, decision)["metrics"]["uar"] == pytest.approx(recall.mean())


def test_items_with_no_label_and_items_without_an_answer_differ() -> None:
    item = Item("x", "x", {"tags": ()}, "")
    assert SPACE.encode(item.labels).tolist() == [0, 0, 0]
    assert np.isnan(SPACE.encode({})).all()
