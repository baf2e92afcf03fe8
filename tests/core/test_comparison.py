"""Runs against a baseline: the joint bootstrap against slow references, the structure, refusals, pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from samo.errors import DataError, SettingsError
from samo.evaluation.comparison import aligned, build_comparison
from samo.evaluation.metrics import accuracy, macro_f1
from samo.evaluation.paired_bootstrap import COMPARED, paired_bootstrap
from samo.evaluation.predictions import Predictions
from samo.evaluation.statistics import Units, bootstrap, tally_by_unit
from samo.reporting.comparison_figures import (
    difference_figure,
    per_class_difference_figure,
    save_comparison_figures,
)
from samo.tasks import LabelSpace, Task

LABELS = ("calm", "happy", "sad")
SPACE = LabelSpace((Task("emotion", LABELS),))
TAGS = LabelSpace((Task("tags", LABELS, multi_label=True),))
QUICK: dict[str, Any] = {"n_resamples": 2000}


def case(
    *skills: float, n_groups: int = 8, rows: int = 12, seed: int = 0
) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    """True classes, what models of some skill say (the same speakers are hard for all), groups."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), rows)
    truth = rng.integers(0, 3, len(group))
    ease = rng.normal(0, 0.3, n_groups)[group]
    answers = [
        np.where(rng.random(len(truth)) < np.clip(skill + ease, 0.05, 0.95), truth, (truth + 1) % 3) for skill in skills
    ]
    return truth, answers, [f"s{k}" for k in group]


def predictions(*skills: float, **how: Any) -> dict[str, Predictions]:
    """``base``, ``run1``, ``run2`` ... over the same items."""
    truth, answers, groups = case(*skills, **how)
    ids = tuple(f"item{k:03d}" for k in range(len(truth)))
    eye = np.eye(3, dtype=np.float32)
    names = ["base", *(f"run{k}" for k in range(1, len(answers)))]
    return {
        name: Predictions(ids, 3 * eye[given], eye[truth], tuple(groups))
        for name, given in zip(names, answers, strict=True)
    }


def compared(given: dict[str, Predictions], space: LabelSpace = SPACE, **changed: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "task": space.primary, "label_space": space, "unit": "speaker", "dataset": "corpus", "split": "test",
        "split_rule": "speaker", **QUICK,
    }  # fmt: skip
    return build_comparison(given, **{**arguments, **changed})


def counts(truth: np.ndarray, predicted: np.ndarray, groups: list[str]) -> Units:
    classes = np.arange(3)
    return tally_by_unit(truth[:, None] == classes, predicted[:, None] == classes, groups)


def test_rows_of_unknown_groups_never_make_a_difference_surer() -> None:
    truth, (first, second), groups = case(0.5, 0.65)
    some = [group if row % 2 else "" for row, group in enumerate(groups)]
    n_groups = len(set(groups))
    whole, partly = (
        paired_bootstrap(counts(truth, first, names), counts(truth, second, names), n_resamples=2000)["macro_f1"]
        for names in (groups, some)
    )
    assert partly.difference == whole.difference
    assert whole.low is not None
    assert whole.high is not None
    assert partly.low is not None
    assert partly.high is not None
    assert partly.low <= partly.difference <= partly.high
    assert partly.high - partly.low > 0.9 * (whole.high - whole.low)
    assert partly.p is not None
    assert whole.p is not None
    assert partly.p >= 0.5 * whole.p
    known = paired_bootstrap(*(counts(truth, each, some).known for each in (first, second)), n_resamples=2000)
    assert known["macro_f1"].low is not None
    assert known["macro_f1"].high is not None
    assert partly.high - partly.low > 0.95 * (known["macro_f1"].high - known["macro_f1"].low)
    one = ["a"] * (len(truth) // 2) + [""] * (len(truth) - len(truth) // 2)
    assert paired_bootstrap(counts(truth, first, one), counts(truth, second, one))["macro_f1"].p is None
    given = {name: replace(each, groups=tuple(some)) for name, each in predictions(0.5, 0.65).items()}
    found = compared(given)
    assert (found["n_units"], found["unit"], found["unnamed"]) == (n_groups, "speaker", some.count(""))
    assert any(line.startswith(f"no speaker is known for {some.count('')} of") for line in found["warnings"])


def test_draws_are_joint_as_in_a_slow_reference() -> None:
    truth, (first, second), groups = case(0.5, 0.65)
    found = paired_bootstrap(counts(truth, first, groups), counts(truth, second, groups), n_resamples=4000)
    units = [np.flatnonzero(np.array(groups) == name) for name in sorted(set(groups))]
    rng, drawn = np.random.default_rng(1), []
    for _ in range(1000):
        rows = np.concatenate([units[k] for k in rng.integers(0, len(units), len(units))])
        drawn.append(float((second[rows] == truth[rows]).mean() - (first[rows] == truth[rows]).mean()))
    tail = scipy.stats.norm.cdf(-np.sqrt(8 / 7) * scipy.stats.t.ppf(0.975, 7))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    assert found["accuracy"].low == pytest.approx(low, abs=0.025)
    assert found["accuracy"].high == pytest.approx(high, abs=0.025)
    share = (np.sum(np.array(drawn) <= 0) + 1) / 1001
    expected = 2 * scipy.stats.t.cdf(np.sqrt(7 / 8) * scipy.stats.norm.ppf(share), 7)
    assert found["accuracy"].p == pytest.approx(expected, abs=0.03)


def test_scores_are_sklearns_and_the_difference_is_other_minus_baseline() -> None:
    truth, (first, second), groups = case(0.7, 0.4)
    found = paired_bootstrap(counts(truth, first, groups), counts(truth, second, groups), **QUICK)
    references = {
        "macro_f1": lambda predicted: f1_score(truth, predicted, average="macro"),
        "uar": lambda predicted: balanced_accuracy_score(truth, predicted),
        "accuracy": lambda predicted: accuracy_score(truth, predicted),
    }
    assert found.keys() == COMPARED.keys() == references.keys()
    for name, score in references.items():
        assert (found[name].baseline, found[name].value) == pytest.approx((score(first), score(second)))
        assert found[name].difference == pytest.approx(score(second) - score(first))
        assert found[name].low < found[name].difference < found[name].high < 0  # type: ignore[operator]


def test_hard_speakers_drop_out_of_the_difference() -> None:
    """Each speaker has its own level, and the second model has exactly one answer more right with every one."""
    truth = np.zeros(60, dtype=int)
    first, second = np.ones(60, dtype=int), np.ones(60, dtype=int)
    for speaker in range(6):
        first[speaker * 10 : speaker * 10 + speaker] = 0
        second[speaker * 10 : speaker * 10 + speaker + 1] = 0
    groups = [f"s{k // 10}" for k in range(60)]
    both = counts(truth, first, groups), counts(truth, second, groups)
    found = paired_bootstrap(*both, {"accuracy": accuracy}, few_rows=False, **QUICK)["accuracy"]
    assert (found.low, found.difference, found.high) == pytest.approx((0.1, 0.1, 0.1))
    low, high = bootstrap(both[0], {"accuracy": accuracy})["accuracy"]  # type: ignore[misc]
    assert high - low > 0.2


def test_p_value_is_never_zero_and_heavier_with_few_units() -> None:
    """All draws favour one run: q = 1 / (B + 1), widened by Student's t."""

    def always_better(n_units: int, n_resamples: int) -> float:
        truth, groups = np.zeros(n_units, dtype=int), [str(k) for k in range(n_units)]
        both = counts(truth, np.ones(n_units, dtype=int), groups), counts(truth, truth, groups)
        p = paired_bootstrap(*both, {"accuracy": accuracy}, n_resamples=n_resamples)["accuracy"].p
        assert p is not None
        return p

    for n_units, n_resamples in ((5, 500), (24, 500), (24, 2000)):
        quantile = scipy.stats.norm.ppf(1 / (n_resamples + 1)) * np.sqrt((n_units - 1) / n_units)
        assert always_better(n_units, n_resamples) == pytest.approx(2 * scipy.stats.t.cdf(quantile, n_units - 1))
    assert always_better(5, 500) > 5 * always_better(24, 500)
    assert always_better(20_000, 500) == pytest.approx(2 / 501, rel=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_p_value_and_interval_agree(seed: int) -> None:
    """The interval of level 1 - p just reaches 0."""
    truth, (first, second), groups = case(0.5, 0.6, seed=seed)
    both = counts(truth, first, groups), counts(truth, second, groups)
    p = paired_bootstrap(*both, {"m": macro_f1})["m"].p
    assert p is not None
    assert 0 < p < 1
    reaching = paired_bootstrap(*both, {"m": macro_f1}, level=1 - p)["m"]
    assert min(abs(reaching.low), abs(reaching.high)) < 0.005  # type: ignore[arg-type]


def test_the_same_answers_do_not_differ() -> None:
    truth, (answers,), groups = case(0.6)
    both = counts(truth, answers, groups), counts(truth, answers, groups)
    for found in paired_bootstrap(*both, few_rows=False, **QUICK).values():
        assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    for found in paired_bootstrap(*both, **QUICK).values():
        assert found.low is not None
        assert found.high is not None
        assert (found.difference, found.p) == (0, 1)
        assert found.low == pytest.approx(-found.high)
        assert 0.01 < found.high < 0.05


def test_runs_alike_on_few_rows_may_differ_on_others() -> None:
    """One row more among 20, on which the two differ: an error of 1/21, times 2.093, Student's for 19 degrees."""
    truth = np.zeros(20, dtype=int)
    same = paired_bootstrap(*[counts(truth, truth, [""] * 20)] * 2, {"accuracy": accuracy}, **QUICK)["accuracy"]
    assert (same.low, same.high, same.p) == (pytest.approx(-0.09967, abs=2e-5), pytest.approx(0.09967, abs=2e-5), 1.0)
    # One of 20 rows differs: d = -0.05, squared error 0.0025 with 20/19, so 1.05 rows differ, and 2.05 of 21 with one
    # more. Around -1/21 the error is sqrt((2.05/21 - 1/441) / 21) = 0.06738, times 2.093.
    given = np.eye(1, 20, dtype=int)[0]
    one = paired_bootstrap(
        counts(truth, truth, [""] * 20), counts(truth, given, [""] * 20), {"accuracy": accuracy}, n_resamples=20_000
    )["accuracy"]
    # The percentile -0.2 (four rows) lies farther out than -0.189.
    assert (one.low, one.high) == (pytest.approx(-0.2), pytest.approx(0.0934, abs=3e-3))


def test_one_speaker_has_no_interval() -> None:
    comparison = compared(predictions(0.3, 0.9, n_groups=1, rows=60))
    cell = comparison["comparisons"][0]["scores"]["macro_f1"]
    assert cell["difference"] > 0.3
    assert (cell["low"], cell["high"], cell["p"], cell["p_corrected"]) == (None,) * 4
    assert cell["verdict"] == "cannot tell"
    assert "one speaker only: no interval and no p-value" in comparison["warnings"]


def test_seed_draws_and_level_act() -> None:
    given = predictions(0.5, 0.6)

    def ends(**how: Any) -> tuple[float, float]:
        cell = compared(given, **how)["comparisons"][0]["scores"]["macro_f1"]
        return cell["low"], cell["high"]

    assert ends() == ends()
    assert ends() != ends(seed=1)
    assert ends() != ends(n_resamples=2001)
    (low, high), (inner_low, inner_high) = ends(), ends(level=0.5)
    assert low < inner_low < inner_high < high


def test_structure() -> None:
    given = predictions(0.35, 0.85, 0.4)
    comparison = compared(given)
    assert json.loads(json.dumps(comparison, allow_nan=False)) == comparison
    assert {key: comparison[key] for key in ("schema", "baseline", "n", "n_units", "unit", "level", "task")} == {
        "schema": 1, "baseline": "base", "n": 96, "n_units": 8, "unit": "speaker", "level": 0.95, "task": "emotion",
    }  # fmt: skip
    assert comparison["correction"] == {"method": "Holm", "scores": 2, "classes": 6}
    better, same = comparison["comparisons"]
    assert (better["run"], same["run"]) == ("run1", "run2")
    assert list(better["scores"]) == ["macro_f1", "uar", "accuracy"]
    assert list(better["per_class"]) == list(LABELS)
    assert [row["scores"]["macro_f1"]["verdict"] for row in (better, same)] == ["better", "cannot tell"]
    truth = given["base"].targets.argmax(axis=1)
    f1 = [f1_score(truth, given[name].logits.argmax(axis=1), average=None) for name in ("base", "run1")]
    for k, label in enumerate(LABELS):
        cell = better["per_class"][label]
        assert (cell["baseline"], cell["run"]) == pytest.approx((f1[0][k], f1[1][k]))
        assert cell["difference"] == pytest.approx(f1[1][k] - f1[0][k])


def test_worse_is_said() -> None:
    cell = compared(predictions(0.85, 0.3))["comparisons"][0]["scores"]["macro_f1"]
    assert cell["difference"] < 0
    assert cell["verdict"] == "worse"


def test_holm_counts_runs_for_scores_and_all_classes_for_f1() -> None:
    alone = compared(predictions(0.5, 0.7))["comparisons"][0]
    assert all(cell["p_corrected"] == cell["p"] for cell in alone["scores"].values())
    given = predictions(0.5, 0.7)
    comparison = compared({**given, "twin": given["run1"]})
    for row in comparison["comparisons"]:
        for name, cell in row["scores"].items():
            assert cell["p"] == alone["scores"][name]["p"]
            assert cell["p_corrected"] == pytest.approx(min(1.0, 2 * cell["p"]))
        assert row["mcnemar"]["p_corrected"] == pytest.approx(min(1.0, 2 * row["mcnemar"]["p"]))
    cells = [cell for row in comparison["comparisons"] for cell in row["per_class"].values()]
    smallest = min(cells, key=lambda cell: cell["p"])
    assert smallest["p_corrected"] == pytest.approx(min(1.0, 6 * smallest["p"]))


def test_mcnemar_counts_what_one_alone_has_right() -> None:
    given = predictions(0.5, 0.7)
    right = {name: each.logits.argmax(axis=1) == each.targets.argmax(axis=1) for name, each in given.items()}
    only = int((right["base"] & ~right["run1"]).sum()), int((right["run1"] & ~right["base"]).sum())
    test = compared(given)["comparisons"][0]["mcnemar"]
    assert (test["only_baseline"], test["only_run"]) == only
    assert test["p"] == pytest.approx(scipy.stats.binomtest(only[0], sum(only)).pvalue)
    assert any("McNemar" in line for line in compared(given)["warnings"])


def test_multi_label_is_decided_at_one_half_without_mcnemar() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((60, 3)) < 0.4).astype(np.float32)
    ids, groups = tuple(f"row{k}" for k in range(60)), ("",) * 60
    logits = [(2 * targets - 1 + rng.normal(0, noise, targets.shape)).astype(np.float32) for noise in (2.0, 0.5)]
    given = {name: Predictions(ids, z, targets, groups) for name, z in zip(("base", "run"), logits, strict=True)}
    comparison = compared(given, TAGS)
    row = comparison["comparisons"][0]
    assert row["mcnemar"] is None
    assert not any("McNemar" in line for line in comparison["warnings"])
    cell = row["scores"]["macro_f1"]
    assert cell["baseline"] == pytest.approx(f1_score(targets, logits[0] >= 0, average="macro"))
    assert cell["run"] == pytest.approx(f1_score(targets, logits[1] >= 0, average="macro"))
    assert row["scores"]["accuracy"]["run"] == pytest.approx(accuracy_score(targets, logits[1] >= 0))
    assert cell["verdict"] == "better"


def test_rows_are_drawn_where_no_groups_are_known() -> None:
    given = {name: replace(each, groups=("",) * 96) for name, each in predictions(0.5, 0.6).items()}
    comparison = compared(given)
    assert (comparison["unit"], comparison["n_units"]) == ("row", 96)
    assert not any("McNemar" in line for line in comparison["warnings"])


def test_rows_without_a_label_are_left_out() -> None:
    given = predictions(0.5, 0.6)
    targets = given["base"].targets.copy()
    targets[:12] = np.nan
    comparison = compared({name: replace(each, targets=targets) for name, each in given.items()})
    assert (comparison["n"], comparison["n_units"]) == (84, 7)
    everything = {name: replace(each, targets=np.full_like(targets, np.nan)) for name, each in given.items()}
    with pytest.raises(DataError, match="none of the 96 items has a label for the task 'emotion'"):
        compared(everything)


def test_items_are_aligned_by_id() -> None:
    given = predictions(0.5, 0.6)
    order = np.random.default_rng(3).permutation(96)
    run = given["run1"]
    shuffled = Predictions(
        tuple(run.ids[k] for k in order),
        run.logits[order],
        run.targets[order],
        tuple(run.groups[k] for k in order),
        {"take": tuple(str(k) for k in order)},
    )
    back = aligned(given["base"], shuffled)
    assert back.ids == given["base"].ids
    assert np.array_equal(back.logits, run.logits)
    assert back.meta == {"take": tuple(map(str, range(96)))}
    assert compared({**given, "run1": shuffled}) == compared(given)


def test_other_items_labels_or_groups_are_refused_by_name() -> None:
    given = predictions(0.5, 0.6)
    base, run = given["base"], given["run1"]
    with pytest.raises(DataError, match=r"96 and 96, 95 in common; only in one of them: item000, stranger") as refused:
        aligned(base, replace(run, ids=("stranger", *run.ids[1:])), ("base", "run1"))
    assert "'base' and 'run1'" in refused.value.message
    targets = run.targets.copy()
    targets[[4, 7]] = np.roll(targets[[4, 7]], 1, axis=1)
    with pytest.raises(DataError, match=r"hold different labels for: item004, item007$"):
        compared({**given, "run1": replace(run, targets=targets)})
    with pytest.raises(DataError, match="the same number of labels"):
        aligned(base, replace(run, targets=run.targets[:, :2]))
    with pytest.raises(DataError, match=r"different groups \(speakers\) for: item095$"):
        compared({**given, "run1": replace(run, groups=(*run.groups[:-1], "s0"))})


def test_outputs_that_are_no_numbers_are_refused() -> None:
    given = predictions(0.5, 0.6)
    logits = given["run1"].logits.copy()
    logits[3, 1] = np.inf
    with pytest.raises(DataError, match="the outputs of 'run1' are not finite"):
        compared({**given, "run1": replace(given["run1"], logits=logits)})


def test_one_run_is_no_comparison() -> None:
    with pytest.raises(SettingsError, match="at least two runs"):
        compared(predictions(0.5))


def test_warnings_name_what_the_numbers_do_not_know() -> None:
    given = predictions(0.5, 0.6)
    quiet = compared(given)["warnings"]
    assert not any(word in line for line in quiet for word in ("synthetic", "LEAKY", "best epochs", "rest on little"))
    assert any("another seed" in line for line in quiet)
    loud = compared(given, synthetic=True, leaky=True, split="val", notes=["noted"])["warnings"]
    for text in ("synthetic demo data", "LEAKY SPLIT", "the best epochs were chosen on this split", "noted"):
        assert any(text in line for line in loud)
    few = compared(predictions(0.5, 0.6, n_groups=7))["warnings"]
    assert "7 speakers only: intervals and p-values rest on little" in few


def test_a_correction_that_leaves_no_room_is_said() -> None:
    """Five speakers and 2000 draws: p is 0.042 or more, so one run can be told from the baseline, two cannot."""
    given = predictions(0.2, 0.95, n_groups=5)
    one = compared(given)
    assert one["comparisons"][0]["scores"]["macro_f1"]["verdict"] == "better"
    warnings = [line for line in one["warnings"] if "no p-value is below" in line]
    assert warnings == [
        "with 5 speakers no p-value is below 0.042, so that after Holm over 3 F1 differences by class each must read "
        "'cannot tell'"
    ]
    two = compared({**given, "twin": given["run1"]})
    assert two["comparisons"][0]["scores"]["macro_f1"]["verdict"] == "cannot tell"
    assert any("after Holm over 2 runs each must read 'cannot tell'" in line for line in two["warnings"])
    assert not any("no p-value" in line for line in compared(predictions(0.4, 0.6, n_groups=24))["warnings"])


def texts(figure: Any) -> str:
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in [*axes.texts, *axes.get_yticklabels(), axes.xaxis.label]]
    return "\n".join(found + [text.get_text() for legend in figure.legends for text in legend.get_texts()])


def test_pictures_show_runs_classes_and_stamps() -> None:
    comparison = compared(predictions(0.35, 0.85, 0.4), synthetic=True, leaky=True)
    forest = texts(difference_figure(comparison))
    for text in (
        "run1",
        "run2",
        "baseline base",
        "macro-F1",
        "synthetic demo data · LEAKY SPLIT",
        "8 speakers",
        "Holm",
    ):
        assert text in forest
    row = comparison["comparisons"][0]
    by_class = texts(per_class_difference_figure(comparison, row))
    cell = row["per_class"]["sad"]
    for text in ("run1 minus baseline base", *LABELS, "LEAKY", f"{cell['baseline']:.3f} → {cell['run']:.3f}"):
        assert text in by_class


def test_intervals_are_drawn_in_the_colour_of_the_verdict() -> None:
    comparison = compared(predictions(0.35, 0.85, 0.4))
    lines = [line for line in difference_figure(comparison).axes[0].lines if len(line.get_xdata()) == 2]
    drawn = {(*map(float, line.get_xdata()), line.get_color()) for line in lines}
    colours = {"better": "#0072B2", "cannot tell": "#9a9a9a"}
    for row in comparison["comparisons"]:
        cell = row["scores"]["macro_f1"]
        assert (cell["low"], cell["high"], colours[cell["verdict"]]) in drawn


@pytest.mark.usefixtures("drawn_pictures")
def test_pictures_are_saved_for_every_run_and_odd_name(tmp_path: Path) -> None:
    given = predictions(0.4, 0.6, n_groups=1)
    comparison = compared({"$base_": given["base"], "$a^b$": given["run1"]})
    found = save_comparison_figures(comparison, tmp_path / "new")
    assert [path.name for path in found] == ["differences.png", "per_class.$a^b$.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in found)


def test_four_groups_have_students_interval_at_least() -> None:
    """Four groups of four rows, one run right in all, the other in 1, 2, 3 and 2 of four: gains 3/4, 1/2, 1/4, 1/2.

    Their mean is 1/2 and their standard error over draws times sqrt(4/3) is 0.2041 / 2 = 0.1021; t is 3.1824.
    """
    truth = np.zeros((16, 1), dtype=bool)
    other = truth.copy()
    other[[0, 1, 2, 4, 5, 8, 12, 13]] = True
    groups = [f"g{k // 4}" for k in range(16)]
    units = [tally_by_unit(truth, given, groups) for given in (other, truth)]
    found = paired_bootstrap(units[0], units[1], {"accuracy": accuracy}, n_resamples=50_000)["accuracy"]
    assert found.difference == 0.5
    assert (found.low, found.high) == pytest.approx((0.5 - 3.1824 * 0.1021, 0.5 + 3.1824 * 0.1021), abs=0.01)
