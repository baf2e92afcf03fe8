"""GoEmotions: the official quoting, 28 / 7 / 4 classes, its splits, its copies; what is refused with which words."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from samo.data.leaks import audit
from samo.data.manifest import Manifest
from samo.data.splits import SplitRequest, make_split, split_notes
from samo.errors import DataError
from samo_text.config import DataSettings
from samo_text.datasets import DATASETS
from samo_text.datasets.emotions import EKMAN, EMOTIONS, SENTIMENT
from samo_text.datasets.goemotions import DOWNLOADS, FILES

ROWS = {
    "train.tsv": '"He said ""no"", really"\t3\teab\n[NAME] is great 😊\t0,27\tead\n',
    "dev.tsv": "thanks\t15\tebb\r\n",
    "test.tsv": "\tso sad \t25,16\tecc\n".lstrip("\t"),
}


def put(root: Path, **files: str) -> Path:
    for name, text in {**ROWS, **{f"{stem}.tsv": text for stem, text in files.items()}}.items():
        (root / name).write_bytes(text.encode())
    return root


def listed(root: Path, mode: str = "emotion") -> Manifest:
    return DATASETS["goemotions"].index(root, DataSettings(mode=mode))


@pytest.fixture(scope="module")
def real(goemotions_root: Path) -> Manifest:
    return listed(goemotions_root)


def test_items(tmp_path: Path) -> None:
    manifest = listed(put(tmp_path))
    found = {item.id: (item.source, item.labels["emotion"], item.split) for item in manifest.items}
    assert found == {
        "test-00001": ("so sad", ("grief", "sadness"), "test"),
        "train-00001": ('He said "no", really', ("annoyance",), "train"),
        "train-00002": ("[NAME] is great 😊", ("admiration", "neutral"), "train"),
        "val-00001": ("thanks", ("gratitude",), "val"),
    }
    assert {item.meta["length"] for item in manifest.items} == {"short"}
    assert manifest.label_space.primary.multi_label
    assert manifest.label_space.primary.labels == EMOTIONS
    assert (manifest.copies, manifest.synthetic) == ("reported", False)
    assert len({item.content for item in manifest.items}) == 4


@pytest.mark.parametrize(
    ("mode", "classes", "two"),
    [("ekman", 7, ("joy", "neutral")), ("sentiment", 4, ("positive", "neutral"))],
)
def test_modes_keep_neutral(tmp_path: Path, mode: str, classes: int, two: tuple[str, ...]) -> None:
    manifest = listed(put(tmp_path), mode)
    assert (manifest.label_space.primary.name, len(manifest.label_space.primary.labels)) == (mode, classes)
    by_id = {item.id: item.labels[mode] for item in manifest.items}
    assert by_id["train-00002"] == two
    # Two emotions of one class are one label.
    assert by_id["test-00001"] == (("sadness",) if mode == "ekman" else ("negative",))


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("fine\t0\ta\nno id\n", r"1 rows have other than 3 columns .*: row 2"),
        ("a,0,x\n", r"other than 3 columns"),
        ("fine\t0\ta\nodd\t28\tb\n", "row 2 of .* has the label id '28'"),
        ("odd\tjoy\tb\n", "row 1 of .* has the label id 'joy'"),
        ("none\t\tb\n", "row 1 of .* has the label id ''"),
        ("fine\t0\ta\n \t3\tb\n", "no text in row 2"),
        ('"open\t3\tb\n', "not quoted as CSV"),
    ],
)
def test_damaged_rows(tmp_path: Path, train: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        listed(put(tmp_path, train=train))
    assert caught.value.hint


def test_damaged_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        listed(tmp_path / "none")
    (tmp_path / "train.tsv").write_text("x")
    with pytest.raises(DataError, match=r"lacks dev\.tsv, test\.tsv of GoEmotions") as caught:
        listed(tmp_path)
    assert "samo data download goemotions" in caught.value.hint
    with pytest.raises(DataError, match=r"needs a folder, but .* is a file") as caught:
        listed(tmp_path / "train.tsv")
    assert "`dataset=table`" in caught.value.hint
    put(tmp_path)
    (tmp_path / "dev.tsv").write_bytes("gef\u00fchl\t0\tx\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        listed(tmp_path)


@pytest.mark.real
def test_real_quoting_and_labels(goemotions_root: Path) -> None:
    root = goemotions_root
    differing = []
    for name, download in zip(FILES.values(), DOWNLOADS, strict=True):
        assert (root / name).stat().st_size == download.size
        raw = (root / name).read_text(encoding="utf-8")
        quoted = list(csv.reader(raw.splitlines(keepends=True), delimiter="\t"))
        plain = [line.split("\t") for line in raw.split("\n") if line]
        differing.append(sum(a != b for a, b in zip(quoted, plain, strict=True)))
    assert differing == [1097, 137, 149]
    assert (root / "emotions.txt").read_text().split() == list(EMOTIONS)
    for name, own in (("ekman", EKMAN), ("sentiment", SENTIMENT)):
        published = json.loads((root / f"{name}_mapping.json").read_text())
        assert {label: sorted(names) for label, names in own.items() if label != "neutral"} == {
            label: sorted(names) for label, names in published.items()
        }


@pytest.mark.real
def test_real_figures(real: Manifest) -> None:
    assert Counter(item.split for item in real.items) == {"train": 43410, "val": 5426, "test": 5427}
    labels = Counter(label for item in real.items if item.split == "test" for label in item.labels["emotion"])
    assert (labels["grief"], labels["relief"], labels["pride"]) == (6, 11, 16)
    sets = [item.labels["emotion"] for item in real.items if item.split == "train"]
    both = [names for names in sets if "neutral" in names and len(names) > 1]
    assert len(both) == 1396


@pytest.mark.slow
@pytest.mark.real
def test_real_copies(real: Manifest) -> None:
    split = make_split(real, SplitRequest("table"))
    to_train, to_val = audit(real, split)
    assert to_train.startswith("49 val and 42 test rows also stand in train word for word")
    assert to_train.endswith(", 78 val and 72 test more nearly so")
    assert to_val.startswith("14 test rows also stand in val word for word")
    cleared = make_split(real, SplitRequest("table", drop_leaked=True))
    assert (len(cleared.train), len(cleared.dropped)) == (42951, 459)
    assert (cleared.val, cleared.test) == (split.val, split.test)
    assert [line.split(" also")[0] for line in audit(real, cleared)] == ["14 test rows"]
    (note,) = split_notes(real, cleared)
    assert note.startswith("459 training rows were left out")
