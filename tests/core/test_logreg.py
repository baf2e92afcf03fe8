"""The shared logistic regression: against scikit-learn's, and that its strength is chosen on groups held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from samo.data.manifest import Item, Manifest
from samo.encoders import logreg
from samo.encoders.logreg import fit_logistic, inner_folds, inner_groups, out_of_fold_logits, solve_task
from samo.errors import DataError
from samo.tasks import LabelSpace, Task

MOOD = Task("mood", ("bad", "good", "low"))
TAGS = Task("tags", ("a", "b"), multi_label=True)
ONE, MANY = LabelSpace((MOOD,)), LabelSpace((TAGS,))


def rows(n: int = 60, width: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features on different scales, and one of three classes that they half give away."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(3, n, p=(0.6, 0.3, 0.1))
    centres = rng.normal(size=(3, width))
    return (centres[classes] + rng.normal(size=(n, width))) * 10.0 ** np.arange(width) + 5.0, np.eye(3)[classes]


def logits(found: dict[str, torch.Tensor], features: np.ndarray) -> np.ndarray:
    return features @ found["weight"].double().numpy().T + found["bias"].double().numpy()


def softmax(scores: np.ndarray) -> np.ndarray:
    return ONE.probabilities(scores)


@pytest.mark.parametrize("width", [4, 100], ids=["more-rows", "more-features"])
def test_one_of_several_is_scikit_learns_on_standardised_features(width: int) -> None:
    features, targets = rows(width=width) if width == 4 else (rows(width=4)[0].repeat(25, axis=1), rows()[1])
    features = features + np.random.default_rng(1).normal(size=features.shape)
    scaled = StandardScaler().fit_transform(features)
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=10_000, tol=1e-10)
    expected = model.fit(scaled, targets.argmax(axis=1)).predict_proba(scaled)
    found = fit_logistic(features, targets, ONE, inverse_l2s=[0.1])
    assert {name: tuple(value.shape) for name, value in found.items()} == {"weight": (3, width), "bias": (3,)}
    np.testing.assert_allclose(softmax(logits(found, features)), expected, atol=2e-3)


def test_a_multi_label_task_is_a_binary_problem_a_label_and_unlabelled_rows_are_left_out() -> None:
    features, _ = rows()
    rng = np.random.default_rng(2)
    targets = (rng.random((60, 2)) < [0.5, 0.2]).astype(float)
    targets[:10] = np.nan
    scaled = StandardScaler().fit_transform(features)
    found = logits(fit_logistic(features, targets, MANY, inverse_l2s=[1.0]), features)
    for k in range(2):
        model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=10_000, tol=1e-10)
        expected = model.fit(scaled[10:], targets[10:, k]).decision_function(scaled)
        np.testing.assert_allclose(found[:, k], expected, atol=2e-3)


def test_each_task_has_its_own_columns() -> None:
    features, targets = rows()
    tags = (np.random.default_rng(2).random((60, 2)) < 0.5).astype(float)
    both = fit_logistic(features, np.hstack([tags, targets]), LabelSpace((TAGS, MOOD)), inverse_l2s=[0.1])
    alone = fit_logistic(features, targets, ONE, inverse_l2s=[0.1])
    torch.testing.assert_close(both["weight"][2:], alone["weight"])
    torch.testing.assert_close(both["bias"][2:], alone["bias"])


def test_a_label_nobody_has_and_a_constant_feature_do_no_harm() -> None:
    features, targets = rows()
    features[:, 1] = 7.0
    targets[targets[:, 2] == 1.0] = [1.0, 0.0, 0.0]
    found = fit_logistic(features, targets, ONE)
    assert found["weight"][:, 1].abs().max() == 0.0
    assert softmax(logits(found, features))[:, 2].max() < 1e-9
    assert all(value.isfinite().all() for value in found.values())


def test_no_rows_give_constants() -> None:
    found = fit_logistic(np.zeros((0, 2)), np.zeros((0, 3)), ONE)
    assert found["weight"].abs().sum() == 0.0
    assert found["bias"].tolist() == [-30.0, -30.0, -30.0]


def test_features_that_are_no_numbers_are_refused() -> None:
    features, targets = rows()
    features[3, 1] = np.inf
    with pytest.raises(DataError, match="1 of 60 rows have features that are not finite"):
        fit_logistic(features, targets, ONE)


def test_folds_keep_groups_whole_and_hold_every_row_out_once() -> None:
    targets = rows()[1] > 0.5
    groups = np.array([f"speaker {n}" for n in np.arange(60) // 5])
    folds = inner_folds(targets, groups, seed=1)
    assert len(folds) == 5
    assert np.sort(np.concatenate([held_out for _, held_out in folds])).tolist() == list(range(60))
    for learn, held_out in folds:
        assert not set(groups[learn]) & set(groups[held_out])
        assert len(learn) + len(held_out) == 60
    # Rows without a group are not one group.
    assert len(inner_folds(targets, np.full(60, ""), seed=1)) == 5
    assert inner_folds(targets, np.full(60, "one"), seed=1) == []


def weak_fit(features: np.ndarray, targets: np.ndarray, space: LabelSpace, **given: Any) -> Any:
    """A regression that nothing holds back."""
    found = fit_logistic(features, targets, space, **given, inverse_l2s=[100.0])
    return lambda rows: logits(found, rows)


def planted(n_groups: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One weak feature that holds for everybody, and one for each group that gives away the class in it alone."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(n_groups), 20)
    classes = rng.integers(0, 2, len(groups))
    own = np.zeros((len(groups), n_groups * 2))
    own[np.arange(len(groups)), groups * 2 + classes] = 1.0
    weak = classes + rng.normal(scale=1.0, size=len(groups))
    return np.column_stack([weak, own]), np.eye(2)[classes], groups.astype(str)


def test_the_strength_is_chosen_on_groups_held_out() -> None:
    rng = np.random.default_rng(3)
    # 20 groups of two clips, each clip five times over; what 60 features say of its class is chance.
    classes = np.repeat(rng.integers(0, 2, 40), 5)
    features = rng.normal(size=(40, 60)).repeat(5, axis=0) + rng.normal(scale=0.1, size=(200, 60))
    groups, targets = np.repeat(np.arange(20), 10).astype(str), np.eye(2)[classes]
    space = LabelSpace((Task("yes", ("no", "yes")),))
    grid = (0.0001, 0.01, 1.0)
    strong, _, weak = (fit_logistic(features, targets, space, inverse_l2s=[c])["weight"] for c in grid)
    # Where copies of a clip are learned from, believing them all looks best.
    torch.testing.assert_close(
        fit_logistic(features, targets, space, inverse_l2s=grid)["weight"], weak, atol=0.02, rtol=0.02
    )
    by_group = fit_logistic(features, targets, space, groups=groups, inverse_l2s=grid)["weight"]
    torch.testing.assert_close(by_group, strong, atol=1e-4, rtol=1e-3)


def test_answers_on_held_out_folds_do_not_know_the_row_nor_its_group() -> None:
    features, targets, groups = planted()
    space = LabelSpace((Task("yes", ("no", "yes")),))
    truth = targets.argmax(axis=1)
    seen = logits(fit_logistic(features, targets, space, groups=groups, inverse_l2s=[100.0]), features)
    honest = out_of_fold_logits(features, targets, space, groups=groups, fit=weak_fit)
    assert (seen.argmax(axis=1) == truth).all()
    assert 0.5 < (honest.argmax(axis=1) == truth).mean() < 0.8
    # The same labels in another order within a group (so that the folds stay) change nothing in what is answered to it.
    turned = targets.copy()
    turned[groups == "4"] = targets[groups == "4"][::-1]
    again = out_of_fold_logits(features, turned, space, groups=groups, fit=weak_fit)
    np.testing.assert_allclose(again[groups == "4"], honest[groups == "4"], atol=1e-9)
    with pytest.raises(DataError, match="at least two groups"):
        out_of_fold_logits(features, targets, space, groups=np.full(200, "one"))


def test_every_strength_of_a_path_is_as_if_solved_alone() -> None:
    features, targets = rows()
    features = StandardScaler().fit_transform(features)
    path = solve_task(features, targets > 0.5, MOOD, [0.01, 0.1, 1.0])
    for strength, (weight, bias) in zip([0.01, 0.1, 1.0], path, strict=True):
        [(alone, constant)] = solve_task(features, targets > 0.5, MOOD, [strength])
        np.testing.assert_allclose(weight, alone, atol=2e-3)
        np.testing.assert_allclose(bias - bias.mean(), constant - constant.mean(), atol=2e-3)


@pytest.mark.parametrize(("n_classes", "width"), [(3, 5), (4, 80)], ids=["more-rows", "more-features-and-no-low"])
def test_folds_solved_together_answer_as_scikit_learn_on_each(n_classes: int, width: int) -> None:
    """Probabilities of held-out rows at every strength; the fourth class is one that no row has."""
    rng = np.random.default_rng(5)
    classes = rng.choice(3, 90, p=(0.5, 0.3, 0.2))
    features = rng.normal(size=(3, width))[classes] + 2.0 * rng.normal(size=(90, width))
    task, truth = Task("mood", tuple("abcd"[:n_classes])), np.eye(n_classes)[classes] > 0.5
    folds = inner_folds(truth, None, seed=0)
    strengths = (0.001, 0.01, 0.1)
    found = list(logreg._on_folds(features, truth, task, folds, strengths))
    assert [len(each) for each in found] == [5, 5, 5]
    for strength, solutions in zip(strengths, found, strict=True):
        for (learn, held_out), (weight, bias) in zip(folds, solutions, strict=True):
            model = LogisticRegression(C=strength, class_weight="balanced", max_iter=10_000, tol=1e-8)
            expected = model.fit(features[learn], classes[learn]).predict_proba(features[held_out])
            scores = features[held_out] @ weight.T + bias
            gone = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
            np.testing.assert_allclose(np.exp(gone[:, :3]), expected, atol=2e-3)
            assert (gone[:, 3:] < -25).all()


def test_rows_and_their_copies_weigh_as_much_as_the_rows() -> None:
    """Twice the same rows are the rows; copies without a signal do not choose the strength."""
    features, targets, groups = planted()
    space = LabelSpace((Task("yes", ("no", "yes")),))
    for function in (fit_logistic, out_of_fold_logits):
        alone = function(features, targets, space, groups=groups)
        twice = function(
            np.tile(features, (2, 1)), np.tile(targets, (2, 1)), space, groups=np.tile(groups, 2), n_plain=len(features)
        )
        if isinstance(alone, dict):
            for name, tensor in alone.items():
                torch.testing.assert_close(twice[name], tensor, atol=2e-3, rtol=2e-3)
        else:
            np.testing.assert_allclose(twice[: len(features)], alone, atol=1e-2)
            np.testing.assert_allclose(twice[len(features) :], alone, atol=1e-2)


def test_copies_do_not_choose_the_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets, groups = planted()
    space = LabelSpace((Task("yes", ("no", "yes")),))
    used: list[float] = []
    real = logreg.solve_task

    def seen(rows: np.ndarray, truth: np.ndarray, task: Task, inverse_l2s: Sequence[float]) -> Iterator[Any]:
        used.append(inverse_l2s[-1] if len(inverse_l2s) == 1 else float("nan"))
        return real(rows, truth, task, inverse_l2s)

    monkeypatch.setattr(logreg, "solve_task", seen)
    fit_logistic(features, targets, space, groups=groups)
    # The same rows under others' labels: of the same mean and spread, and without a signal.
    both = np.concatenate([features, np.random.default_rng(1).permutation(features)])
    fit_logistic(both, np.tile(targets, (2, 1)), space, groups=np.tile(groups, 2), n_plain=len(features))
    alone, with_copies = (strength for strength in used if not np.isnan(strength))
    assert with_copies == pytest.approx(alone / 2)


def test_what_is_made_of_an_item_stays_with_it() -> None:
    def item(name: str, group: str = "", parent: str = "") -> Item:
        return Item(name, name, {}, group, {"parent": parent})

    items = (
        item("a"), item("b", "s1"), item("b~x", "s1", "b"), item("a~x", parent="a"), item("a~x~y", parent="a~x"),
        item("b~z", parent="b"), item("c", parent="gone"), item("s1"), item("d", parent="d"),
    )  # fmt: skip
    manifest = Manifest("tiny", ONE, items, Path("/nowhere"))
    assert inner_groups(manifest, np.arange(9)) == [
        "item a", "group s1", "group s1", "item a", "item a", "group s1", "item c", "item s1", "item d",
    ]  # fmt: skip
    assert inner_groups(manifest, np.array([4, 1])) == ["item a", "group s1"]
