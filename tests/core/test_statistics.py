"""The cluster bootstrap: degenerate cases exactly, slow references and scipy approximately."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
from sklearn.metrics import f1_score

from samo.evaluation import statistics
from samo.evaluation.metrics import METRICS, Tally, accuracy, macro_f1
from samo.evaluation.paired_bootstrap import paired_bootstrap
from samo.evaluation.statistics import (
    Interval,
    Units,
    bootstrap,
    effective_rows,
    score_intervals,
    tail_area,
    tally_by_unit,
)


def bootstrap_macro_f1(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, n_classes: int, groups: Sequence[str], **how: Any
) -> Interval | None:
    """Interval of macro-F1 from (N,) class numbers."""
    classes = np.arange(n_classes)
    truth, predicted = np.asarray(y_true)[:, None] == classes, np.asarray(y_pred)[:, None] == classes
    return bootstrap(tally_by_unit(truth, predicted, groups), {"macro_f1": macro_f1}, **how)["macro_f1"]


def by_unit(truth: np.ndarray, given: np.ndarray, n: int, groups: list[str]) -> Units:
    classes = np.arange(n)
    return tally_by_unit(truth[:, None] == classes, given[:, None] == classes, groups)


def random_case(n_groups: int, rows: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rows)
    truth = rng.integers(0, 3, len(groups))
    right = rng.random(len(groups)) < rng.uniform(0.3, 0.95, n_groups)[groups]
    return truth, np.where(right, truth, (truth + 1) % 3), [str(group) for group in groups]


def slow_macro_f1(truth: np.ndarray, given: np.ndarray, n: int) -> float:
    found = []
    for k in range(n):
        hits, wrong = ((truth == k) & (given == k)).sum(), ((truth == k) != (given == k)).sum()
        found.append(2 * hits / (2 * hits + wrong) if hits else 0.0)
    return float(np.mean(found))


def test_tally_by_unit_by_hand() -> None:
    found = by_unit(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]), 2, ["a", "b", "a", "b"])
    assert found.tp.tolist() == [[1, 1], [0, 0]]
    assert found.fp.tolist() == [[0, 0], [1, 1]]
    assert found.fn.tolist() == [[0, 0], [1, 1]]
    assert found.exact.tolist() == [2, 0]
    assert found.rows.tolist() == [2, 2]


def test_rows_without_group_are_units_of_their_own() -> None:
    found = by_unit(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]), 2, ["", "", "", ""])
    assert (found.rows.tolist(), found.n_known) == ([1, 1, 1, 1], 4)
    classes, groups = np.arange(2), ["", "b", "", "b"]
    truth, given = np.array([0, 1, 1, 0])[:, None] == classes, np.array([0, 0, 1, 1])[:, None] == classes
    assert tally_by_unit(truth, given, groups, each_alone=True).rows.tolist() == [1, 2, 1]


def test_rows_without_group_beside_known_groups_are_one_unit() -> None:
    found = by_unit(np.array([0, 1, 1, 0, 1]), np.array([0, 0, 1, 1, 1]), 2, ["", "b", "", "b", "a"])
    assert (found.rows.tolist(), found.exact.tolist(), found.has_rest, found.n_known) == ([2, 1, 2], [0, 1, 2], True, 2)
    assert found.known.rows.tolist() == [2, 1]


def test_rows_without_group_never_make_an_interval_narrower() -> None:
    truth, given, groups = random_case(8)
    whole = by_unit(truth, given, 3, groups)
    some = by_unit(truth, given, 3, [group if row % 2 else "" for row, group in enumerate(groups)])
    alone = Tally.from_flat(np.concatenate([some.known.flat(), by_unit(truth, given, 3, [""] * 160).flat()[::2]]))
    ends = {}
    for name, units in (("whole", whole), ("some", some), ("alone", alone)):
        ends[name] = score_intervals(units, {"accuracy": accuracy})["accuracy"]
    width = {name: found[1] - found[0] for name, found in ends.items() if found}
    # Half of the rows are drawn by speaker: what they say of speakers counts for all.
    assert width["alone"] < 0.75 * width["whole"]
    assert width["some"] > 0.95 * width["whole"]
    # One unit of rest and one speaker tell nothing of other speakers.
    assert score_intervals(by_unit(truth, given, 3, ["a"] * 80 + [""] * 80), {"a": accuracy})["a"] is None
    truth, given, groups = random_case(8, 40)
    some = by_unit(truth, given, 3, [group if row % 2 else "" for row, group in enumerate(groups)])
    both = [score_intervals(units, {"a": accuracy})["a"] for units in (some, some.known)]
    widths = [found[1] - found[0] for found in both if found]
    assert widths[0] > 0.97 * widths[1]
    # The rest may be one more speaker, who differs from all others.
    right = np.concatenate([np.tile([0, 0, 0, 1], 20), np.ones(40, int)])
    units = by_unit(np.zeros(120, int), right, 2, [str(row // 10) for row in range(80)] + [""] * 40)
    known = score_intervals(units.known, {"accuracy": accuracy})["accuracy"]
    found = score_intervals(units, {"accuracy": accuracy})["accuracy"]
    assert found is not None
    assert known is not None
    assert found[1] - found[0] > 1.5 * (known[1] - known[0])


def test_group_names_must_match_the_rows() -> None:
    with pytest.raises(ValueError, match="3 group names for 4 rows"):
        by_unit(np.zeros(4, int), np.zeros(4, int), 2, ["a", "b", "c"])


def test_identical_groups_give_zero_width() -> None:
    truth, given = np.tile([0, 0, 1, 1], 6), np.tile([0, 1, 1, 1], 6)
    groups = [str(row // 4) for row in range(24)]
    point = f1_score(truth, given, average="macro")
    assert bootstrap_macro_f1(truth, given, 2, groups) == pytest.approx((point, point))


def test_perfect_predictions_give_one_to_one() -> None:
    truth = np.tile([0, 1, 2], 10)
    assert bootstrap_macro_f1(truth, truth, 3, [str(k // 3) for k in range(30)]) == (1.0, 1.0)


@pytest.mark.parametrize("groups", [["a"] * 4, []])
def test_fewer_than_two_groups_have_no_interval(groups: list[str]) -> None:
    labels = np.zeros(len(groups), int)
    assert bootstrap_macro_f1(labels, labels, 2, groups) is None


def test_deterministic_and_indifferent_to_the_order_of_rows() -> None:
    truth, given, groups = random_case(7)
    first = bootstrap_macro_f1(truth, given, 3, groups, seed=3)
    assert first == bootstrap_macro_f1(truth, given, 3, groups, seed=3)
    assert first != bootstrap_macro_f1(truth, given, 3, groups, seed=4)
    order = np.random.default_rng(0).permutation(len(truth))
    renamed = [f"s{groups[row]}" for row in order]
    assert first == bootstrap_macro_f1(truth[order], given[order], 3, renamed, seed=3)


def test_every_possible_resample_of_four_groups() -> None:
    """All 4 ** 4 equally likely draws, scored one by one, have the quantiles of the bootstrap."""
    truth, given, groups = random_case(4, rows=12, seed=2)
    rows = [np.flatnonzero(np.array(groups) == str(group)) for group in range(4)]
    values = []
    for draw in itertools.product(range(4), repeat=4):
        drawn = np.concatenate([rows[group] for group in draw])
        values.append(slow_macro_f1(truth[drawn], given[drawn], 3))
    found = statistics.resampled(by_unit(truth, given, 3, groups), {"f": macro_f1}, n_resamples=60_000)["f"]
    assert set(np.round(found, 9)) == set(np.round(values, 9))
    shares = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(np.quantile(found, shares), np.quantile(values, shares), atol=0.012)
    assert found.mean() == pytest.approx(np.mean(values), abs=1e-3)


def test_agrees_with_a_loop_over_groups() -> None:
    truth, given, groups = random_case(12, seed=5)
    rng = np.random.default_rng(9)
    rows = [np.flatnonzero(np.array(groups) == str(group)) for group in range(12)]
    values = []
    for _ in range(4000):
        drawn = np.concatenate([rows[group] for group in rng.integers(0, 12, 12)])
        values.append(slow_macro_f1(truth[drawn], given[drawn], 3))
    found = bootstrap(by_unit(truth, given, 3, groups), {"f": macro_f1}, n_resamples=20_000, widen=False)["f"]
    assert found == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.012)


def test_agrees_with_scipy_on_independent_rows() -> None:
    truth, given, _ = random_case(1, rows=400, seed=1)
    right = truth == given
    expected = scipy.stats.bootstrap((right,), np.mean, method="percentile", n_resamples=20_000, rng=0)
    found = bootstrap(by_unit(truth, given, 3, [""] * 400), {"f": accuracy}, n_resamples=20_000)["f"]
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.004)


def test_groups_widen_the_interval_of_correlated_rows() -> None:
    truth, given, groups = random_case(20, rows=40)
    by_group, by_row = (bootstrap_macro_f1(truth, given, 3, names) for names in (groups, [""] * len(truth)))
    assert by_group
    assert by_row
    assert by_group[1] - by_group[0] > 1.5 * (by_row[1] - by_row[0])


def test_every_metric_gets_an_interval_round_its_value() -> None:
    truth, given, groups = random_case(15)
    units = by_unit(truth, given, 3, groups)
    total = Tally.from_flat(units.flat().sum(axis=0))
    found = bootstrap(units)
    assert list(found) == list(METRICS)
    for name, ends in found.items():
        assert ends
        assert 0.0 <= ends[0] < METRICS[name](total) < ends[1] <= 1.0


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, given, groups = random_case(9)
    whole = bootstrap_macro_f1(truth, given, 3, groups)
    monkeypatch.setattr(statistics, "_BLOCK", 50)
    assert bootstrap_macro_f1(truth, given, 3, groups) == whole


def test_tail_area() -> None:
    # t(0.975, 4) = 2.7764; Phi(-sqrt(5 / 4) * 2.7764) = Phi(-3.1042)
    assert tail_area(0.95, 5) == pytest.approx(scipy.stats.norm.cdf(-np.sqrt(1.25) * 2.7764451), rel=1e-5)
    assert tail_area(0.95, 100_000) == pytest.approx(0.025, abs=1e-5)
    assert 0.0 <= tail_area(0.95, 2) < 1e-6


def test_widening_never_narrows() -> None:
    units = by_unit(*random_case(6)[:2], 3, random_case(6)[2])
    wide, plain = bootstrap(units)["macro_f1"], bootstrap(units, widen=False)["macro_f1"]
    assert wide
    assert plain
    assert wide[0] <= plain[0]
    assert plain[1] <= wide[1]
    assert wide != plain


def test_level_orders_the_widths() -> None:
    truth, given, groups = random_case(30)
    ends = [bootstrap_macro_f1(truth, given, 3, groups, level=level) for level in (0.5, 0.9, 0.99)]
    widths = [end[1] - end[0] for end in ends if end]
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


@pytest.mark.parametrize("repeats", [[5, 1, 2], [1] * 600, [3] * 600])
def test_as_many_units_are_drawn_as_there_are(repeats: list[int]) -> None:
    """Whether kinds are drawn at once or units one by one; each kind as often as it occurs in the mean."""
    drawn = statistics._drawn(np.random.default_rng(0), np.array(repeats), 200)
    assert drawn.shape == (200, len(repeats))
    assert set(drawn.sum(axis=1)) == {sum(repeats)}
    assert drawn[:, 0].mean() == pytest.approx(repeats[0], abs=5 * np.sqrt(repeats[0] / 200))


def test_a_perfect_answer_has_an_interval_below_it() -> None:
    """At 1 Wilson's lower end is 1 / (1 + t^2 / n): t is 2.0930 for 20 rows, 2.2010 for 12, 2.7764 for 5 groups."""
    zeros = np.zeros(20, int)
    found = score_intervals(by_unit(zeros, zeros, 2, [""] * 20), {"f": accuracy})["f"]
    assert found == (pytest.approx(1 / (1 + 4.38066 / 20), abs=1e-5), 1.0)
    twelve = np.arange(12)
    found = score_intervals(by_unit(twelve, twelve, 12, [""] * 12), {"f": macro_f1})["f"]
    assert found == (pytest.approx(1 / (1 + 4.84436 / 12), abs=1e-5), 1.0)
    truth = np.tile([0, 1], 10)
    found = score_intervals(by_unit(truth, truth, 2, [str(k // 4) for k in range(20)]), {"f": accuracy})["f"]
    assert found == (pytest.approx(1 / (1 + 7.70865 / 20), abs=1e-5), 1.0)
    # Two seeds answered each item: ten items, not twenty rows.
    found = score_intervals(by_unit(truth, truth, 2, [str(k // 4) for k in range(20)]), {"f": accuracy}, n_items=10)
    assert found["f"] == (pytest.approx(1 / (1 + 7.70865 / 10), abs=1e-5), 1.0)


def test_the_interval_is_wilsons_for_the_effective_count() -> None:
    """16 of 20 independent rows right: e^2 is p(1-p)/19, so n is 19; ends worked out by hand with t = 2.0930."""
    truth = np.zeros(20, int)
    given = np.array([0] * 16 + [1] * 4)
    found = score_intervals(by_unit(truth, given, 2, [""] * 20), {"f": accuracy}, n_resamples=200_000)["f"]
    assert found == pytest.approx((0.56175, 0.92583), abs=2e-3)


def test_effective_rows_by_hand() -> None:
    """Accuracy: every row. Recall of classes of 1 and 3 rows, weights 1/2 and 1/6: (1/2 + 3/6)^2 / (1/4 + 3/36) = 3."""
    truth, right = np.array([0, 1, 1, 1]), by_unit(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 1]), 3, ["a"] * 4)
    counts = Tally.from_flat(right.flat().sum(axis=0))
    assert len(truth) == effective_rows(counts, accuracy) == 4
    assert effective_rows(counts, METRICS["uar"]) == pytest.approx(3.0)
    nothing = Tally(np.zeros(2), np.ones(2), np.zeros(2), np.array(0.0), np.array(2.0))
    assert effective_rows(nothing, macro_f1) == 0.0
    twice = Tally.from_flat(np.stack([nothing.flat(), nothing.flat()]))
    assert score_intervals(twice, {"f": macro_f1}) == {"f": None}


def test_every_score_lies_in_its_interval() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth, given = rng.integers(0, 6, 14), rng.integers(0, 6, 14)
        units = by_unit(truth, given, 6, [str(k) for k in rng.integers(0, 4, 14)])
        total = Tally.from_flat(units.flat().sum(axis=0))
        for name, ends in score_intervals(units, n_resamples=200).items():
            assert ends
            assert 0.0 <= ends[0] <= METRICS[name](total) <= ends[1] <= 1.0


def test_a_difference_lies_in_its_interval_where_resamples_lack_classes() -> None:
    """36 rows of 12 classes, one run right in all, the other in two of three: absent classes once pulled it to 0."""
    truth = np.repeat(np.arange(12), 3)
    other = np.where(np.arange(36) % 3 == 0, (truth + 1) % 12, truth)
    found = paired_bootstrap(by_unit(truth, other, 12, [""] * 36), by_unit(truth, truth, 12, [""] * 36))["macro_f1"]
    assert found.difference == pytest.approx(1 / 3)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.difference < found.high
