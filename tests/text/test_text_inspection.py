"""What is said of a corpus of texts, in figures and in pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from samo.data.manifest import Item, Manifest
from samo.tasks import LabelSpace, Task
from samo_text.inspection import draw, inspect
from samo_text.texts import length_of


def corpus(rows: list[tuple[str, str, tuple[str, ...] | None]], **values: Any) -> Manifest:
    space = LabelSpace((Task("mood", ("joy", "fear", "grief"), multi_label=True), Task("a/b $", ("x", "y"))))
    items = tuple(
        Item(
            f"r{k:03d}",
            text,
            {} if labels is None else {"mood": labels, "a/b $": ("x",)},
            meta={"length": length_of(text)},
            split=part,
        )
        for k, (part, text, labels) in enumerate(rows)
    )
    return Manifest("texts", space, items, Path("/data"), copies="reported", **values)


ROWS = [
    ("train", "Thanks [NAME]!", ("joy",)),
    ("train", "thanks  [name]!", ("fear",)),
    ("train", "thanks [NAME]!", ("joy",)),
    ("train", "nothing to see", ()),
    ("train", "nothing to SEE", ()),
    ("train", "three words here", None),
    ("val", "thanks [NAME]!", ("joy", "fear")),
    ("val", "nothing to see.", ("joy",)),
    ("test", "a b c d e f g h i", ("joy",)),
    ("test", "nothing, to see", ("joy",)),
]


def test_figures() -> None:
    found = inspect(corpus(ROWS, notes=("something was repaired",)))
    assert (found["dataset"], found["root"], found["n"]) == ("texts", "/data", 10)
    assert found["parts"] == {"train": 6, "val": 2, "test": 2}
    mood = found["tasks"]["mood"]
    assert mood["by_label"] == {"joy": 6, "fear": 2, "grief": 0}
    assert mood["by_part"]["train"] == {"joy": 2, "fear": 1, "grief": 0}
    assert (mood["labelled"], mood["none"], mood["unlabelled"]) == (9, 2, 1)
    assert mood["cardinality"] == pytest.approx(8 / 9)
    assert found["words"] == {"min": 2, "median": 3.0, "mean": 3.2, "p95": pytest.approx(6.3), "max": 9}
    assert found["lengths"] == {"short": 9, "medium": 1}
    assert found["placeholders"] == {"[NAME]": 3}
    assert found["placeholder_share"] == pytest.approx(0.3)
    assert found["duplicates"]["inside"] == {
        "train": {"texts": 2, "extra_rows": 3, "conflicting": 1},
        "val": {"texts": 0, "extra_rows": 0, "conflicting": 0},
        "test": {"texts": 0, "extra_rows": 0, "conflicting": 0},
    }
    assert found["duplicates"]["across"] == [
        {"part": "val", "other": "train", "same": 1, "near": 1},
        {"part": "test", "other": "train", "same": 0, "near": 1},
        {"part": "test", "other": "val", "same": 0, "near": 1},
    ]


def test_warnings() -> None:
    found = inspect(corpus(ROWS, notes=("something was repaired",)))["warnings"]
    assert found[:2] == [
        "something was repaired",
        "2 texts stand several times in train (3 rows more than needed), 1 of them with different labels",
    ]
    assert "1 val row also stands in train word for word, 1 more nearly so; consider `drop_leaked`" in found
    assert "0 test rows also stand in val word for word, 1 more nearly so" in found
    assert "mood: no row has grief" in found
    assert "mood: 1 row is not labelled and left out of its loss and scores" in found
    assert any(
        line.startswith("mood: fewer than 50 test rows, so their F1 is uncertain: fear 0, grief 0") for line in found
    )
    many = [("", f"w{k}", ("joy",)) for k in range(23)] + [("", "x", ("fear",)), ("", "y", ("grief", "fear"))]
    lines = inspect(corpus(many))["warnings"]
    assert "mood: labels are uneven: 23 of joy, 1 of grief; consider `class_weight_loss`" in lines
    assert not any("test rows" in line for line in lines)


@pytest.mark.usefixtures("fine_pictures")
def test_pictures(tmp_path: Path) -> None:
    drawn = draw(corpus(ROWS, synthetic=True), tmp_path / "p")
    assert [path.name for path in drawn] == ["class_balance_mood.png", "class_balance_a_b__.png", "lengths.png"]
    for path in drawn:
        picture = matplotlib.image.imread(path)
        assert min(picture.shape[:2]) > 200
        assert picture[..., :3].std() > 0.05
    assert inspect(corpus(ROWS, synthetic=True))["root"] == ""
