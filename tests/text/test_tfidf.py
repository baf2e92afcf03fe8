"""tf-idf against scikit-learn's, fitting against its logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_text as tiny
import torch
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from samo.tasks import LabelSpace, Task
from samo_text.config import ModelSettings
from samo_text.models import build_model
from samo_text.models.tfidf import N_COLUMNS, TfidfModel, fit_tfidf, ngram_columns
from samo_text.tokens import HashTokens

TEXTS = [
    "so happy so happy so so happy",
    "i love it",
    "i hate it so",
    "sad and sad",
    "not happy",
    "it",
    "so angry i hate you",
    "you love you",
]
TARGETS = np.array(
    [[0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.float32
)
LISTS = HashTokens(32).encode(TEXTS)
ONE_OF_THREE = LabelSpace((Task("mood", ("bad", "good", "low")),))


def settings(**values: Any) -> ModelSettings:
    return ModelSettings(model="tfidf", **values)


def padded(lists: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(ids) for ids in lists])
    ids = torch.zeros(len(lists), int(lengths.max()), dtype=torch.int64)
    for row, given in zip(ids, lists, strict=True):
        row[: len(given)] = torch.from_numpy(given)
    return ids, lengths


def fitted(space: LabelSpace = tiny.SPACE, targets: np.ndarray = TARGETS, **values: Any) -> TfidfModel:
    model = TfidfModel(space.n_columns, settings(**values).ngrams)
    model.load_state_dict(fit_tfidf(LISTS, targets, space, settings(**values)))
    return model.eval()


def sklearn_features(ngrams: int, min_count: int) -> csr_array:
    counter = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, ngrams), min_df=min_count)
    return TfidfTransformer(sublinear_tf=True).fit_transform(counter.fit_transform(TEXTS))


@pytest.mark.parametrize(("ngrams", "min_count", "inverse_l2"), [(1, 1, 1.0), (2, 1, 1.0), (2, 2, 1.0), (4, 1, 5.0)])
def test_the_whole_is_scikit_learns(ngrams: int, min_count: int, inverse_l2: float) -> None:
    features = sklearn_features(ngrams, min_count)
    with torch.no_grad():
        found = fitted(ngrams=ngrams, min_count=min_count, inverse_l2=inverse_l2)(*padded(LISTS)).numpy()
    for k in range(3):
        judge = LogisticRegression(C=inverse_l2, class_weight="balanced", max_iter=1000).fit(features, TARGETS[:, k])
        # The solver stops at a gradient of 1e-4, and its way depends on the order of the columns.
        np.testing.assert_allclose(found[:, k], judge.decision_function(features), atol=2e-3)


@pytest.mark.parametrize(("ngrams", "min_count"), [(1, 1), (2, 1), (3, 2)])
def test_features_are_scikit_learns(ngrams: int, min_count: int) -> None:
    """With one row of weights a column, the logits are the features themselves."""
    model = fitted(ngrams=ngrams, min_count=min_count)
    expected = sklearn_features(ngrams, min_count).toarray()
    kept = torch.nonzero(model.idf)[:, 0]
    assert len(kept) == expected.shape[1]
    model.weight, model.bias = torch.zeros(N_COLUMNS, len(kept)), torch.zeros(len(kept))
    model.weight[kept, torch.arange(len(kept))] = 1.0
    found = model(*padded(LISTS)).numpy()
    # The columns stand in the order of their hashes; sorted by content both are the same table.
    order = lambda table: table[:, np.lexsort(np.round(table, 4))]  # noqa: E731
    np.testing.assert_allclose(order(found), order(expected), atol=1e-6)


def test_columns_tell_ngrams_apart() -> None:
    ids = torch.from_numpy(HashTokens(32).encode(["a b a b c"])[0])
    columns, stands = ngram_columns(ids, torch.arange(5, 0, -1), 2)
    one, two = columns[:5].tolist(), columns[5:9].tolist()
    assert one[0] == one[2]
    assert one[1] == one[3]
    assert two[0] == two[2]
    # a b, b a, a b, b c and three words.
    assert len({*one, *two}) == 6
    assert stands.tolist() == [True] * 9 + [False]
    assert 0 <= min(one + two) <= max(one + two) < N_COLUMNS


def test_columns_are_spread_evenly_and_stay_what_they_are() -> None:
    """A change of the hash would make every saved model judge noise."""
    ids = torch.from_numpy(np.concatenate(HashTokens(2**14).encode([" ".join(map(str, range(10_000)))])))
    columns, stands = ngram_columns(ids, torch.arange(10_000, 0, -1), 2)
    used = columns[stands].unique().numel()
    # 19,999 balls into 2^18 boxes leave 19,255 boxes with one at least on average, with a deviation of 26.
    assert used == pytest.approx(N_COLUMNS * -np.expm1(-19_999 / N_COLUMNS), abs=130)
    words, prime, bases = [1, 2**62 - 1, 123_456_789_012_345], 2**31 - 1, (1_103_515_245, 1_664_525)
    columns, _ = ngram_columns(torch.tensor(words), torch.tensor([3, 2, 1]), 2)
    assert columns.tolist() == [99256, 210250, 189849, 10477, 178034, 76238]
    # The same in integers of any size: nothing overflows on the way.
    ahead = ((2 * bases[1] + words[0]) * bases[1] + words[1]) * bases[1]
    assert columns[3] == ahead % prime % N_COLUMNS
    assert columns[0] == (bases[0] + words[0]) * bases[0] % prime % N_COLUMNS


def test_batch_padding_and_order_change_nothing() -> None:
    model = fitted()
    ids, lengths = padded(LISTS)
    together = model(ids, lengths)
    junk = torch.cat([ids, torch.full((8, 3), 7)], dim=1)
    junk[:, : ids.shape[1]][ids == 0] = 5
    assert torch.allclose(model(junk, lengths), together, atol=1e-6)
    assert torch.allclose(model(ids.flip(0), lengths.flip(0)).flip(0), together, atol=1e-6)
    for k in range(8):
        assert torch.allclose(model(ids[k : k + 1, : lengths[k]], lengths[k : k + 1])[0], together[k], atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(ids, lengths), together)
    assert torch.equal(model.train()(ids, lengths), together)


def test_words_never_seen_leave_the_constant() -> None:
    model = fitted()
    unseen, empty = HashTokens(8).encode(["zebra quagga"])[0], np.zeros(2, dtype=np.int64)
    found = model(*padded([unseen, empty]))
    assert torch.allclose(found, model.bias.expand(2, -1))
    assert torch.equal(model(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([0])), model.bias[None])


def test_fitting_twice_gives_the_same_bits() -> None:
    one, other = (fit_tfidf(LISTS, TARGETS, tiny.SPACE, settings()) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in ("idf", "weight", "bias"))
    assert {name: tensor.dtype for name, tensor in one.items()} == dict.fromkeys(one, torch.float32)


def test_settings_act() -> None:
    plain = fitted()
    assert torch.count_nonzero(fitted(ngrams=1).idf) < torch.count_nonzero(plain.idf)
    assert torch.count_nonzero(fitted(min_count=1).idf) > torch.count_nonzero(plain.idf)
    assert fitted(inverse_l2=0.01).weight.abs().sum() < 0.1 * plain.weight.abs().sum()


# Labels of all kinds


def test_one_of_several_is_multinomial() -> None:
    classes = np.array([1, 1, 0, 2, 2, 1, 0, 1])
    features = sklearn_features(2, 1)
    judge = LogisticRegression(C=2.0, class_weight="balanced", max_iter=1000).fit(features, classes)
    found = fitted(ONE_OF_THREE, np.eye(3, dtype=np.float32)[classes], min_count=1)(*padded(LISTS))
    np.testing.assert_allclose(torch.softmax(found, 1).numpy(), judge.predict_proba(features), atol=1e-3)


def test_one_of_two_and_a_class_that_never_was() -> None:
    classes = np.array([2, 2, 0, 0, 0, 2, 0, 2])
    features = sklearn_features(2, 1)
    judge = LogisticRegression(C=2.0, class_weight="balanced", max_iter=1000).fit(features, classes)
    found = fitted(ONE_OF_THREE, np.eye(3, dtype=np.float32)[classes], min_count=1)(*padded(LISTS))
    probabilities = torch.softmax(found, 1).numpy()
    np.testing.assert_allclose(probabilities[:, [0, 2]], judge.predict_proba(features), atol=1e-3)
    assert probabilities[:, 1].max() < 1e-9
    only = fitted(ONE_OF_THREE, np.eye(3, dtype=np.float32)[np.ones(8, dtype=int)])(*padded(LISTS))
    np.testing.assert_allclose(torch.softmax(only, 1).numpy(), [[0, 1, 0]] * 8, atol=1e-9)


def test_labels_that_no_row_or_every_row_has() -> None:
    targets = TARGETS.copy()
    targets[:, 0], targets[:, 1] = 0.0, 1.0
    probabilities = fitted(targets=targets)(*padded(LISTS)).sigmoid()
    assert probabilities[:, 0].max() < 1e-9
    assert probabilities[:, 1].min() > 1 - 1e-6
    assert 0.01 < probabilities[:, 2].min() < probabilities[:, 2].max() < 0.99


def test_rows_without_a_label_are_left_out() -> None:
    nan = np.full((8, 2), np.nan, dtype=np.float32)
    nan[:5] = np.eye(2, dtype=np.float32)[[1, 1, 0, 0, 0]]
    both = fitted(tiny.BOTH, np.concatenate([TARGETS, nan], axis=1))
    assert torch.equal(both.weight[:, :3], fitted().weight)
    assert both.weight[:, 3:].isfinite().all()
    # All texts count for the idf, only the labelled ones for the weights: "you" stands in none of these.
    ids, lengths = padded(HashTokens(8).encode(["you", "happy"]))
    mood = both(ids, lengths)[:, 3:]
    assert torch.allclose(mood[0], both.bias[3:])
    assert not torch.allclose(mood[1], both.bias[3:])
    nothing = fitted(tiny.BOTH, np.concatenate([TARGETS, np.full((8, 2), np.nan, dtype=np.float32)], axis=1))
    assert torch.equal(nothing.weight[:, 3:], torch.zeros(N_COLUMNS, 2))


def test_texts_that_share_no_ngram_can_be_fitted() -> None:
    lists = HashTokens(8).encode(["a", "b", "c", "d"])
    found = fit_tfidf(lists, TARGETS[:4], tiny.SPACE, settings())
    assert not found["idf"].any()
    assert found["bias"].isfinite().all()


def test_it_is_a_model_that_learns_nothing() -> None:
    model = build_model(tiny.config(model="tfidf", ngrams=3), tiny.SPACE)
    assert isinstance(model, TfidfModel)
    assert model.ngrams == 3
    assert list(model.parameters()) == []
    assert (
        set(model.state_dict()) == {"idf", "weight", "bias"} == set(fit_tfidf(LISTS, TARGETS, tiny.SPACE, settings()))
    )


def test_the_fit_reads_indices_of_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for memory: with indices of 64 bits it took a quarter longer on GoEmotions."""
    seen: list[Any] = []
    fit = LogisticRegression.fit
    monkeypatch.setattr(
        LogisticRegression, "fit", lambda self, features, truth: seen.append(features) or fit(self, features, truth)
    )
    fitted()
    assert len(seen) == 3
    assert {(x.indices.dtype, x.indptr.dtype, x.dtype) for x in seen} == {
        (np.dtype("i4"), np.dtype("i4"), np.dtype("f8"))
    }
