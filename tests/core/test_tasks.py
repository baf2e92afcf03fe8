"""Label spaces: columns, targets, probabilities."""

from __future__ import annotations

import json

import numpy as np
import pytest

from samo.errors import DataError
from samo.tasks import LabelSpace, Task

EMOTION = Task("emotion", ("angry", "happy", "sad"))
TAGS = Task("tags", ("loud", "fast"), multi_label=True)
SPACE = LabelSpace((EMOTION, TAGS))


def test_columns() -> None:
    assert SPACE.n_columns == 5
    assert SPACE.slices == {"emotion": slice(0, 3), "tags": slice(3, 5)}
    assert SPACE.primary == EMOTION


def test_encode() -> None:
    row = SPACE.encode({"emotion": ("happy",), "tags": ("fast", "loud")})
    assert row.dtype == np.float32
    assert row.tolist() == [0, 1, 0, 1, 1]
    assert SPACE.encode({"emotion": ("sad",), "tags": ("fast",)}).tolist() == [0, 0, 1, 0, 1]


def test_a_task_without_label_is_nan() -> None:
    row = SPACE.encode({"emotion": ("angry",)})
    assert row[:3].tolist() == [1, 0, 0]
    assert np.isnan(row[3:]).all()
    assert np.isnan(SPACE.encode({})).all()


def test_unknown_label_names_the_valid_ones() -> None:
    with pytest.raises(DataError) as caught:
        SPACE.encode({"emotion": ("hapy",)})
    assert caught.value.message == "unknown label 'hapy' for task 'emotion'"
    assert caught.value.hint == "did you mean 'happy'? valid: angry, happy, sad"


def test_one_label_where_one_is_asked() -> None:
    with pytest.raises(DataError, match="task 'emotion' takes one label, got: angry, sad"):
        SPACE.encode({"emotion": ("angry", "sad")})


def test_tasks_that_make_no_sense() -> None:
    with pytest.raises(DataError, match="'t' needs at least two labels, found: a"):
        Task("t", ("a",))
    with pytest.raises(DataError, match="'t' needs at least two labels, found: none"):
        Task("t", ())
    with pytest.raises(DataError, match="'t' names a label twice: a, b, a"):
        Task("t", ("a", "b", "a"))
    with pytest.raises(DataError, match="names of their own, found: tags, tags"):
        LabelSpace((TAGS, TAGS))
    with pytest.raises(DataError, match="names of their own, found: none"):
        LabelSpace(())


def test_probabilities_by_hand() -> None:
    logits = np.array([[0.0, np.log(2.0), np.log(5.0), 0.0, np.log(3.0)]], dtype=np.float32)
    expected = [[1 / 8, 2 / 8, 5 / 8, 1 / 2, 3 / 4]]
    np.testing.assert_allclose(SPACE.probabilities(logits), expected, rtol=1e-6)


def test_probabilities_of_huge_logits_stay_finite() -> None:
    logits = np.array([[1e30, 0.0, -1e30, 1e4, -1e4]], dtype=np.float32)
    assert SPACE.probabilities(logits).tolist() == [[1, 0, 0, 1, 0]]


def test_json_round_trip() -> None:
    assert LabelSpace.from_json(json.loads(json.dumps(SPACE.to_json()))) == SPACE
