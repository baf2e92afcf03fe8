"""When a model answers at all: thresholds of confidence, the risk-coverage curve, and what a run keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_frontend as tiny
from example_reports import SPACE, predictions, report

from samo.errors import RunError, SettingsError
from samo.evaluation.abstention import Abstention, confidence, confidence_threshold, risk_coverage
from samo.evaluation.decision import Decision, fit_decision
from samo.evaluation.predictions import Predictions
from samo.prediction.prediction import Prediction, PredictionList, answers_of
from samo.reporting.html import render_html
from samo.reporting.report import Subject, build_report
from samo.runs import run_report
from samo.runs.artifacts import create_run
from samo.runs.calibrate import decision_of
from samo.runs.evaluate import evaluate_run
from samo.runs.run import Run
from samo.runs.training import train_run
from samo.settings import AbstentionSettings, ThresholdSettings
from samo.tasks import LabelSpace, Task
from samo.training.setup import Setup

MANY = Task("tags", ("x", "y"), multi_label=True)
SURE = np.array([0.9, 0.6, 0.8, 0.6, 0.5])
WRONG = np.array([False, True, False, False, True])


def by_risk(risk: float) -> float:
    return confidence_threshold(SURE, WRONG, AbstentionSettings(abstain_risk=risk))


def by_coverage(share: float) -> float:
    return confidence_threshold(SURE, WRONG, AbstentionSettings(abstain_coverage=share))


def test_confidence_is_the_probability_of_the_whole_answer() -> None:
    one = Task("emotion", ("a", "b", "c"))
    shares = np.array([[0.2, 0.5, 0.3]])
    assert confidence(one, shares, shares == shares.max()).tolist() == [0.5]
    # x is answered, y is not: 0.3 * (1 - 0.4).
    assert confidence(MANY, np.array([[0.3, 0.4]]), np.array([[True, False]])) == pytest.approx([0.18])


def test_thresholds_by_hand() -> None:
    # By confidence: 0.9 and 0.8 right, of the two at 0.6 one wrong, 0.5 wrong. Risks 0, 0, 1/4, 2/5.
    assert by_risk(0.1) == pytest.approx(0.7)
    assert by_risk(0.25) == pytest.approx(0.55)
    assert by_risk(0.39) == pytest.approx(0.55)
    assert by_risk(0.4) == 0.0
    assert by_coverage(0.2) == pytest.approx(0.85)
    assert by_coverage(0.4) == pytest.approx(0.7)
    # Three of five cannot be had: those of one confidence are answered together.
    assert by_coverage(0.5) == by_coverage(0.8) == pytest.approx(0.55)
    assert by_coverage(0.9) == 0.0
    # Nothing keeps the risk: nothing is answered.
    assert confidence_threshold(SURE, ~WRONG, AbstentionSettings(abstain_risk=0.1)) == 2.0
    assert confidence_threshold(SURE[:0], WRONG[:0], AbstentionSettings(abstain_risk=0.1)) == 2.0
    for share in (0.1, 0.3, 0.7):
        tenths = np.arange(10) / 10
        threshold = confidence_threshold(tenths, tenths < 0, AbstentionSettings(abstain_coverage=share))
        assert (tenths >= threshold).sum() == round(10 * share)


def test_curve_and_area_by_hand() -> None:
    coverage, risk, area = risk_coverage(SURE, WRONG)
    assert coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    # The two at 0.6 count half a mistake each, whichever comes first.
    assert risk.tolist() == pytest.approx([0, 0, 0.5 / 3, 1 / 4, 2 / 5])
    assert area == pytest.approx((0.5 / 3 + 1 / 4 + 2 / 5) / 5)
    assert risk_coverage(SURE, WRONG & False)[2] == 0.0
    # Confidence that tells nothing: the area is the risk of answering all.
    assert risk_coverage(np.ones(5), WRONG)[2] == pytest.approx(0.4)
    assert risk_coverage(SURE[:0], WRONG[:0])[2] == 0.0


def test_a_decision_abstains_below_its_threshold_and_where_nothing_can_be_told() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.8, 0.1, 0.1]]))
    plain, unsure = Decision(), Decision(abstention=Abstention("risk", 0.1, {"emotion": 0.6}))
    usable = np.array([True, True, False])
    for decision, expected in ((plain, [False, False, True]), (unsure, [False, True, True])):
        assert decision.abstained(*decision.answers(logits, SPACE), SPACE, usable)["emotion"].tolist() == expected
    assert unsure.abstained(*unsure.answers(logits, SPACE), SPACE)["emotion"].tolist() == [False, True, False]


def test_what_is_fitted_reaches_what_was_wanted() -> None:
    given = predictions(40)
    decision = fit_decision(
        given.logits, given.targets, SPACE, ThresholdSettings(), abstention=AbstentionSettings(abstain_risk=0.1)
    )
    found = build_report(Subject("r", "d", "val", "speaker", "speaker"), given, SPACE, decision)["abstention"]
    assert (found["rule"], found["wanted"], found["fitted_on"]) == ("risk", 0.1, "val")
    assert found["answered_risk"] <= 0.1 < found["risk"]
    assert 0.3 < found["coverage"] < 1.0
    assert found["answered"] == round(found["coverage"] * len(given))
    # One row more would be one too many.
    shares, present = decision.answers(given.logits, SPACE)
    sure, wrong = shares.max(axis=1), (present != (given.targets > 0)).any(axis=1)
    more = np.sort(sure)[::-1][: found["answered"] + 1]
    assert wrong[sure >= more[-1]].mean() > 0.1 - 1 / found["answered"]
    assert fit_decision(given.logits, given.targets, SPACE, ThresholdSettings()).abstention == Abstention()


def test_the_report_has_the_curve_and_its_area() -> None:
    given = predictions()
    found = report(given)["abstention"]
    assert (found["rule"], found["threshold"], found["coverage"]) == (None, None, 1.0)
    shares = SPACE.probabilities(given.logits)
    wrong = shares.argmax(axis=1) != given.targets.argmax(axis=1)
    order = np.argsort(-shares.max(axis=1))
    expected = np.mean([wrong[order[:k]].mean() for k in range(1, 121)])
    assert found["aurc"] == pytest.approx(expected)
    assert found["risk"] == found["answered_risk"] == pytest.approx(wrong.mean())
    assert len(found["curve"]) == 100
    assert found["curve"][-1] == {"coverage": 1.0, "risk": pytest.approx(wrong.mean())}
    json.dumps(found, allow_nan=False)
    page = render_html(report(given), {}, {}, {})
    assert "<h2>Abstention</h2>" in page
    assert f"rea under the risk-coverage curve {found['aurc']:.3f}" in page


def answered(share: float, threshold: float = 0.6, usable: bool = True) -> Prediction:
    rest = (1 - share) / 2
    logits = np.log(np.array([[share, rest, rest]]))
    decision = Decision(abstention=Abstention("risk", 0.1, {"emotion": threshold}))
    shares, present = decision.answers(logits, SPACE)
    abstained = decision.abstained(shares, present, SPACE, np.array([usable]))
    unsure = {name: bool(rows[0]) for name, rows in abstained.items()}
    return Prediction(answers_of(shares[0], present[0], SPACE, unsure), text="t")


def test_a_prediction_says_that_it_is_not_sure_and_keeps_its_label() -> None:
    sure, unsure, silent = answered(0.7), answered(0.5), answered(0.9, usable=False)
    assert [p.abstained for p in (sure, unsure, silent)] == [False, True, True]
    assert [p.label for p in (sure, unsure, silent)] == ["calm"] * 3
    assert (str(sure), str(unsure)) == ("calm 70%", "not sure (calm 50%)")
    assert [p.to_json()["abstained"] for p in (sure, unsure)] == [False, True]
    assert unsure.to_json()["tasks"]["emotion"]["abstained"] is True
    rows = PredictionList([sure, unsure]).rows()
    assert [(row["label"], row["abstained"]) for row in rows] == [("calm", False), ("calm", True)]


@pytest.mark.parametrize(
    "values", [{"abstain_risk": 0.1, "abstain_coverage": 0.9}, {"abstain_risk": 1.0}, {"abstain_coverage": 0.0}]
)
def test_settings_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        tiny.TinyConfig.build(values)


# --- what a run keeps

SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 8, "lr": 0.02, "patience": 0}


def trained(root: Path, **settings: Any) -> Run:
    run = create_run(root, "mine", "tiny")
    train_run(run, Setup(tiny.frontend(**SETTINGS, **settings), tiny.RUNTIME), tiny.Silent())
    return run


def test_a_run_keeps_its_threshold_for_its_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_report, "save_figures", lambda *_: [])
    run = trained(tmp_path, abstain_coverage=0.5)
    space = run.manifest.label_space
    kept = Abstention.load(run.path("abstention.json"))
    assert (kept.rule, kept.wanted, kept.fitted_on) == ("coverage", 0.5, "val")
    assert decision_of(run, space).abstention == kept
    setup = Setup(tiny.frontend(**SETTINGS, abstain_coverage=0.5), tiny.RUNTIME)
    found = evaluate_run(run, setup, "val")["abstention"]
    rows = len(Predictions.load(run.path("predictions.val.npz")))
    assert found["answered"] == int(np.ceil(rows / 2))
    for stale in ({"epoch": kept.epoch + 1}, {"temperature": {"emotion": 99.0}}):
        replace(kept, **stale).save(run.path("abstention.json"))
        assert decision_of(run, space).abstention == Abstention()
        # Evaluating fits it again.
        evaluate_run(run, setup, "val")
        assert Abstention.load(run.path("abstention.json")) == kept
    run.path("abstention.json").write_text("{}")
    with pytest.raises(RunError, match=r"cannot read .*abstention\.json"):
        decision_of(run, space)


def test_a_run_without_the_setting_never_abstains(tmp_path: Path) -> None:
    run = trained(tmp_path)
    assert not run.path("abstention.json").exists()
    assert decision_of(run, run.manifest.label_space).abstention == Abstention()


def test_several_tasks_abstain_one_by_one() -> None:
    space = LabelSpace((SPACE.primary, MANY))
    decision = Decision(abstention=Abstention("risk", 0.1, {"emotion": 0.9, "tags": 0.2}))
    logits = np.hstack([np.log([[0.5, 0.3, 0.2]]), [[0.0, 0.0]]])
    found = decision.abstained(*decision.answers(logits, space), space)
    assert {name: rows.tolist() for name, rows in found.items()} == {"emotion": [True], "tags": [False]}
