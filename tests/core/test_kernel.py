"""Least squares on labels: against scikit-learn's, and that scale and penalty are chosen on groups held out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.special import softmax
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler

from samo.encoders.fitted_heads import KernelHead
from samo.encoders.kernel import fit_kernel, radial_basis
from samo.encoders.logreg import inner_folds
from samo.encoders.settings import EncoderSettings
from samo.errors import DataError
from samo.tasks import LabelSpace, Task
from tests.core.test_logreg import MANY, ONE, planted, rows


def balance(targets: np.ndarray) -> np.ndarray:
    """What a row of each class weighs, as scikit-learn balances them."""
    return (targets * (len(targets) / (targets.shape[1] * targets.sum(axis=0)))).sum(axis=1)


def centred(scores: np.ndarray) -> np.ndarray:
    """What a softmax sees of scores."""
    return scores - scores.mean(axis=1, keepdims=True)


def scale_between(found: np.ndarray, expected: np.ndarray) -> float:
    """By how much the one is a multiple of the other."""
    factor = float((found * expected).sum() / (expected**2).sum())
    np.testing.assert_allclose(found, factor * expected, atol=2e-3 * np.abs(found).max())
    return factor


def roots(vectors: np.ndarray) -> np.ndarray:
    """(N, N) numbers a row whose inner products are the radial kernel of standardised vectors."""
    return np.real(sqrtm(rbf_kernel(StandardScaler().fit_transform(vectors), gamma=0.3 / vectors.shape[1])))


def least_loss(answers: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Log loss of the answers of all folds together under the scale that suits them best."""
    together, known = np.concatenate(answers), np.concatenate(truth)
    return min(float(log_loss(known, softmax(together * scale, axis=1))) for scale in np.geomspace(0.02, 50.0, 30))


def test_one_of_several_is_scikit_learns_ridge_on_the_kernel_times_a_number() -> None:
    vectors, targets = rows()
    root = roots(vectors)
    model = Ridge(alpha=0.5, solver="svd").fit(root, targets, sample_weight=balance(targets))
    found = fit_kernel(vectors, targets, ONE, n_centres=60, penalties=[0.5])
    assert 0.5 <= scale_between(centred(found(vectors)), centred(model.predict(root))) <= 64.0


def labels_of(vectors: np.ndarray) -> np.ndarray:
    """(60, 2): one label follows from a feature, the other from nothing."""
    follows, chance = vectors[:, 0] > np.median(vectors[:, 0]) + 1.0, np.random.default_rng(3).random(60) < 0.5
    return np.stack([follows, chance], axis=1)


def test_without_folds_each_label_has_its_threshold_between_those_with_and_without_it() -> None:
    vectors, _ = rows()
    targets, root = labels_of(vectors), roots(vectors)
    fitted = fit_kernel(vectors, targets.astype(float), MANY, n_centres=60, groups=["one"] * 60, penalties=[0.5])
    answers = Ridge(alpha=0.5, solver="svd").fit(root, targets.astype(float)).predict(root)
    for k in range(2):
        middle = 0.5 * (answers[targets[:, k], k].mean() + answers[~targets[:, k], k].mean())
        np.testing.assert_allclose(fitted(vectors)[:, k], 8.0 * (answers[:, k] - middle), atol=1e-2)


def test_each_label_of_several_has_its_number_and_the_threshold_of_answers_held_out() -> None:
    vectors, _ = rows()
    targets = labels_of(vectors)
    found = fit_kernel(vectors, targets.astype(float), MANY, n_centres=60, penalties=[0.5])(vectors)
    spread = np.ptp(found, axis=0)
    assert spread[0] > 2.0 * spread[1]
    # A rare label of 300 rows with features that say little: what is not learned from lies on both sides of 0.
    rng = np.random.default_rng(8)
    truth = rng.random((600, 2)) < 0.15
    features = rng.normal(size=(600, 120)) + 0.35 * truth[:, :1]
    learn, new = slice(0, 300), slice(300, 600)
    answered = fit_kernel(features[learn], truth[learn].astype(float), MANY, n_centres=300)(features[new])[:, 0]
    assert answered[~truth[new, 0]].mean() < 0.0 < answered[truth[new, 0]].mean()


def test_all_labels_of_several_have_one_penalty() -> None:
    """Alone, what follows from nothing would choose the strong one, and what follows from a feature the weak one."""
    rng, penalties = np.random.default_rng(0), [0.01, 10.0]
    vectors = rng.normal(size=(80, 4))
    targets = np.stack([rng.random(80) < 0.5, np.abs(vectors[:, 0]) > 0.7], axis=1).astype(float)
    found = fit_kernel(vectors, targets, MANY, n_centres=80, penalties=penalties)(vectors)
    weak, strong = (fit_kernel(vectors, targets, MANY, n_centres=80, penalties=[each])(vectors) for each in penalties)
    assert np.abs(weak - strong).max(axis=0).min() > 0.5
    np.testing.assert_allclose(found, weak, atol=1e-8)


def test_a_label_that_nobody_has_is_never_answered_under_several_either() -> None:
    vectors, _ = rows()
    targets = labels_of(vectors).astype(float) * [1.0, 0.0]
    assert fit_kernel(vectors, targets, MANY, n_centres=60)(vectors)[:, 1].max() < -25.0


def test_copies_weigh_together_as_much_as_what_they_are_copies_of() -> None:
    vectors, targets = rows()
    groups = [f"clip {k}" for k in range(60)]
    alone = fit_kernel(vectors, targets, ONE, n_centres=60, groups=groups, penalties=[0.1])
    given = np.tile(vectors, (3, 1)), np.tile(targets, (3, 1))
    thrice = fit_kernel(*given, ONE, n_centres=60, groups=groups * 3, n_plain=60, penalties=[0.1])
    np.testing.assert_allclose(thrice(vectors), alone(vectors), atol=1e-6)


def test_what_answers_for_a_group_is_chosen_without_it() -> None:
    """20 groups of like rows say nothing of each other's class: believing them all looks best where they are split."""
    vectors, targets, groups = planted(n_groups=10)
    space = LabelSpace((Task("yes", ("no", "yes")),))
    given = {"by row": None, "by group": groups}
    found = {name: fit_kernel(vectors, targets, space, n_centres=200, groups=each) for name, each in given.items()}
    spread = {name: float(np.abs(fitted(vectors)).max()) for name, fitted in found.items()}
    assert spread["by group"] < 0.3 * spread["by row"]


def test_a_class_nobody_has_is_never_answered_and_unlabelled_rows_are_left_out() -> None:
    vectors, targets = rows()
    targets[targets[:, 2] == 1.0] = [1.0, 0.0, 0.0]
    assert fit_kernel(vectors, targets, ONE, n_centres=60)(vectors)[:, 2].max() < -25.0
    unknown = np.full((60, 3), np.nan)
    both = fit_kernel(np.vstack([vectors, vectors]), np.vstack([targets, unknown]), ONE, n_centres=120, n_plain=None)
    assert np.isfinite(both(vectors)).all()
    turned = fit_kernel(np.vstack([vectors, vectors]), np.vstack([unknown, targets]), ONE, n_centres=120)
    np.testing.assert_allclose(turned(vectors), both(vectors), atol=1e-6)


def test_a_head_answers_as_what_was_fitted_whatever_stands_in_its_empty_places() -> None:
    vectors, targets = rows()
    settings = EncoderSettings(model="encoder", encoder="x", freeze_encoder=True, head="kernel", head_centres=64)
    head = KernelHead(4, ONE, settings)
    head.load_state_dict(head.fitted(vectors, targets, ONE, seed=3))
    expected = fit_kernel(vectors, targets, ONE, n_centres=64, seed=3)(vectors)
    given = torch.from_numpy(vectors).float()
    np.testing.assert_allclose(head(given).numpy(), expected, atol=2e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(head(given), head(given.double()), rtol=0.0, atol=1e-6)
    before = head(given)
    head.centres[60:] = 3.0
    torch.testing.assert_close(head(given), before, rtol=0.0, atol=0.0)


def test_a_sum_of_large_terms_of_both_signs_keeps_its_digits() -> None:
    """In float32 it was off by 5e-4 on real clips, and a file's as much the other way."""
    rng = np.random.default_rng(0)
    settings = EncoderSettings(model="encoder", encoder="x", freeze_encoder=True, head="kernel", head_centres=1024)
    head = KernelHead(8, ONE, settings)
    head.centres.copy_(torch.from_numpy(rng.normal(size=(1024, 8))))
    signs = np.where(np.arange(1024) < 512, 1.0, -1.0)
    head.output.weight.copy_(torch.from_numpy(signs * rng.uniform(20.0, 30.0, size=(3, 1024))))
    vectors = torch.from_numpy(rng.normal(size=(20, 8)))
    apart = rbf_kernel(vectors.float().double(), head.centres.double(), gamma=0.3 / 8)
    expected = apart @ head.output.weight.double().numpy().T + head.output.bias.double().numpy()
    np.testing.assert_allclose(head(vectors).numpy(), expected, atol=2e-4)


def test_centres_are_drawn_among_what_is_no_copy() -> None:
    vectors, _ = rows()
    basis = radial_basis(np.vstack([vectors, vectors + 100.0]), 10, n_plain=60, seed=1)
    standard = (vectors - basis.centre) / basis.scale
    nearest = np.abs(basis.centres[:, None] - standard[None]).sum(axis=2).min(axis=1)
    assert basis.centres.shape == (10, 4)
    np.testing.assert_allclose(nearest, 0.0, atol=1e-12)
    other = radial_basis(np.vstack([vectors, vectors + 100.0]), 10, n_plain=60, seed=2)
    assert not np.array_equal(basis.centres, other.centres)
    with pytest.raises(DataError, match="1 of 60 rows have features that are not finite"):
        radial_basis(np.where(np.arange(60)[:, None] == 3, np.inf, vectors), 10)


def test_the_penalty_is_chosen_by_the_whole_procedure_on_what_it_learns_from() -> None:
    """Around rows held out a basis could bend where it will not be able to: then copies ask for a stronger penalty."""
    rng = np.random.default_rng(5)
    classes, own = rng.integers(0, 3, 60), rng.normal(size=(60, 12))
    plain = np.eye(3)[classes] @ rng.normal(size=(3, 12)) + own
    vectors = np.vstack([plain + 0.3 * rng.normal(size=plain.shape) for _ in range(3)])
    targets, groups = np.tile(np.eye(3)[classes], (3, 1)), [f"clip {k}" for k in range(60)] * 3
    given = {"n_centres": 60, "n_plain": 60}
    least, best = np.inf, 0.0
    for penalty in (0.001, 0.1, 10.0):
        answers, answered = [], []
        for learn, held_out in inner_folds(targets > 0.5, np.array(groups), seed=0):
            own_groups = [groups[row] for row in learn]
            n_plain = int((learn < 60).sum())
            fitted = fit_kernel(
                vectors[learn],
                targets[learn],
                ONE,
                n_centres=60,
                n_plain=n_plain,
                groups=own_groups,
                penalties=[penalty],
            )
            rows_of = held_out[held_out < 60]
            answers.append(centred(fitted(vectors[rows_of])) / np.abs(fitted.weight).max())
            answered.append(targets[rows_of])
        loss = least_loss(answers, answered)
        if loss < least:
            least, best = loss, penalty
    found = fit_kernel(vectors, targets, ONE, groups=groups, penalties=[0.001, 0.1, 10.0], **given)
    alone = fit_kernel(vectors, targets, ONE, groups=groups, penalties=[best], **given)
    np.testing.assert_allclose(found.weight, alone.weight)


def test_a_partly_labelled_task_chooses_its_penalty_with_the_basis_that_it_will_have() -> None:
    """Rows without its label are centres too, also where it is tried on folds; those of a speaker held out are not."""
    rng = np.random.default_rng(33)
    classes, speakers = rng.integers(0, 3, 60), 3.0 * rng.normal(size=(20, 12))
    vectors, groups = speakers[np.arange(100) % 20] + rng.normal(size=(100, 12)), [f"{k % 20}" for k in range(100)]
    vectors[:60] += np.eye(3)[classes] @ rng.normal(size=(3, 12))
    targets = np.vstack([np.eye(3)[classes], np.full((40, 3), np.nan)])
    least, best = np.inf, 0.0
    for penalty in (0.003, 0.03, 0.3, 3.0):
        answers, answered = [], []
        for _, held_out in inner_folds(targets[:60] > 0.5, np.array(groups[:60]), seed=0):
            others = {groups[row] for row in range(60)} - {groups[row] for row in held_out}
            learn = [row for row in range(100) if groups[row] in others]
            fitted = fit_kernel(vectors[learn], targets[learn], ONE, n_centres=100, penalties=[penalty])
            answers.append(centred(fitted(vectors[held_out])) / np.abs(fitted.weight).max())
            answered.append(targets[held_out])
        loss = least_loss(answers, answered)
        if loss < least:
            least, best = loss, penalty
    found = fit_kernel(vectors, targets, ONE, n_centres=100, groups=groups, penalties=[0.003, 0.03, 0.3, 3.0])
    alone = fit_kernel(vectors, targets, ONE, n_centres=100, groups=groups, penalties=[best])
    np.testing.assert_allclose(found.weight, alone.weight)


def test_the_mean_over_what_an_item_is_heard_as_is_its_answer() -> None:
    vectors, targets = rows()
    groups = [f"clip {k}" for k in range(60)]
    given = np.tile(vectors, (3, 1)), np.tile(targets, (3, 1)), ONE
    settings = {"n_centres": 60, "n_plain": 60, "groups": groups * 3}
    # Of copies that are all the same the mean is each of them.
    one_by_one, by_item = (
        fit_kernel(*given, **settings),
        fit_kernel(*given, **settings, items=np.tile(np.arange(60), 3)),
    )
    np.testing.assert_allclose(by_item(vectors), one_by_one(vectors), atol=1e-6)
    # Copies that are all told apart wrongly ask for caution.
    torn = np.vstack([vectors, vectors[::-1], vectors[::-1]])
    careful = fit_kernel(torn, *given[1:], **settings, items=np.tile(np.arange(60), 3))
    bold = fit_kernel(torn, *given[1:], **settings)
    assert np.abs(careful(vectors)).max() < np.abs(bold(vectors)).max()
