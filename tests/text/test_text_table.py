"""Tables of texts: several tasks, multi-label cells, JSON, unlabelled cells; what is refused with which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samo.data.leaks import audit
from samo.data.manifest import Manifest
from samo.data.splits import SplitRequest, make_split, split_notes
from samo.errors import DataError, SamoError, SettingsError
from samo.settings import stored_config, with_defaults
from samo_text.config import DataSettings
from samo_text.datasets import DATASETS, index_corpus


def listed(path: Path, content: str | bytes | list[Any], **values: Any) -> Manifest:
    if isinstance(content, list):
        lines = [json.dumps(row) for row in content]
        content = "\n".join(lines) if path.suffix != ".json" else "[" + ",".join(lines) + "]"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return DATASETS["table"].index(path, DataSettings(dataset="table", **values))


def labels(manifest: Manifest, task: str = "label") -> list[tuple[str, ...] | None]:
    return [item.labels.get(task) for item in manifest.items]


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return tmp_path / "texts.csv"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_dialects(csv: Path, delimiter: str, encoding: str, end: str) -> None:
    lines = [("text", "label", "mood"), ("so kind 😊", "joy", "x"), ('"a ""b""\n\tc"', "fear", "y")]
    manifest = listed(csv, end.join(delimiter.join(cells) for cells in lines).encode(encoding))
    assert [item.source for item in manifest.items] == ["so kind 😊", 'a "b"\n\tc']
    assert [item.id for item in manifest.items] == ["row-0000002", "row-0000003"]
    assert labels(manifest) == [("joy",), ("fear",)]
    assert manifest.label_space.primary.labels == ("fear", "joy")
    assert not manifest.label_space.primary.multi_label
    assert [dict(item.meta) for item in manifest.items] == [
        {"length": "short", "mood": "x"},
        {"length": "short", "mood": "y"},
    ]
    assert (manifest.root, manifest.notes) == (csv.parent, ("1 row of texts.csv holds several lines: row 3",))


def test_several_tasks_splits_and_groups(csv: Path) -> None:
    manifest = listed(
        csv,
        "body,emotion,tone,part,who\na,joy,up,TRAIN,ann\nb,fear,,dev,bob\nc,,down,test,cy\nd,,,,\n",
        text_column="body",
        label_columns="emotion, tone",
        split_column="part",
        group_column="who",
    )
    assert [task.name for task in manifest.label_space.tasks] == ["emotion", "tone"]
    assert [dict(item.labels) for item in manifest.items] == [
        {"emotion": ("joy",), "tone": ("up",)},
        {"emotion": ("fear",)},
        {"tone": ("down",)},
    ]
    assert [(item.split, item.group) for item in manifest.items] == [("train", "ann"), ("val", "bob"), ("test", "cy")]
    assert np.isnan(manifest.targets[1]).tolist() == [False, False, True, True]
    assert manifest.notes == ("1 row without any label was left out",)


@pytest.mark.parametrize(("empty", "middle"), [("unlabelled", None), ("none", ())])
def test_multi_label_cells(csv: Path, empty: str, middle: tuple[str, ...] | None) -> None:
    manifest = listed(
        csv,
        "text,label,other\na,joy| fear|joy,u\nb,,v\nc,joy,u\n",
        label_columns="label,other",
        label_separator="|",
        empty_labels=empty,
    )
    assert labels(manifest) == [("joy", "fear"), middle, ("joy",)]
    assert manifest.label_space.primary.multi_label
    meaning = "none of the labels" if empty == "none" else "not labelled"
    assert manifest.notes == (f"1 row is empty in column 'label', taken as {meaning} (`empty_labels`)",)
    assert np.isnan(manifest.targets[1, :2]).all() == (empty == "unlabelled")


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"text": "a\u2028b", "label": ["joy", "fear"], "stars": 2},
        {"text": "c", "label": [], "stars": 10},
        {"text": "d", "label": None, "stars": 2, "far": True},
        {"text": "e", "label": ["fear"]},
    ]
    manifest = listed(tmp_path / f"t{suffix}", rows, label_columns="label,stars", empty_labels="none")
    assert labels(manifest) == [("joy", "fear"), (), (), ("fear",)]
    # Numbers are labels too, sorted by value.
    assert manifest.label_space.tasks[1].labels == ("2", "10")
    assert labels(manifest, "stars") == [("2",), ("10",), ("2",), None]
    assert manifest.items[0].source == "a\u2028b"
    assert [item.meta["far"] for item in manifest.items] == ["", "", "True", ""]
    booleans = listed(tmp_path / f"t{suffix}", [{"text": "a", "label": True}, {"text": "b", "label": False}])
    assert labels(booleans) == [("true",), ("false",)]


def test_broken_characters_are_replaced_and_said(tmp_path: Path) -> None:
    manifest = listed(
        tmp_path / "t.json",
        r'[{"text":"a\ud83d!","label":"x"},{"text":"b\u0000c","label":"y"},{"text":"\ufffd","label":"y"}]',
    )
    assert [item.source for item in manifest.items] == ["a\ufffd!", "b\ufffdc", "\ufffd"]
    assert manifest.notes == ("2 texts hold lone surrogates or control characters, which became U+FFFD: row 1, 2",)
    manifest.save(tmp_path / "manifest.jsonl")
    assert Manifest.load(tmp_path / "manifest.jsonl").digest == manifest.digest
    assert listed(tmp_path / "t.csv", b"text,label\na\0b,x\nc,y\n").items[0].source == "a\ufffdb"


def test_a_megabyte_of_text(csv: Path) -> None:
    long = "so very kind " * 80_000
    manifest = listed(csv, f"text,label\n{long},joy\nshort,fear\n{long}!,joy\nx,fear\ny,joy\nz,fear\n")
    assert len(manifest.items[0].source) == len(long) - 1
    assert manifest.items[0].meta["length"] == "long"
    split = make_split(manifest, SplitRequest("stratified", train_ratio=0.5, val_ratio=0.25))
    assert audit(manifest, split) == []


ERRORS = [
    ("", {}, "is empty"),
    ("text,label\n", {}, "a header but no rows"),
    ("text~label\na~joy\n", {}, "no column 'text'; it has: text~label"),
    ("body,label\na,joy\n", {}, "no column 'text'; it has: body, label"),
    ("text,lable\na,joy\n", {}, "no column 'label'; it has: text, lable"),
    ("text,label\na,joy\n", {"label_columns": "label,tone"}, "no column 'tone'"),
    ("text,label\na,joy\n", {"split": "table"}, "no column 'split'"),
    ("text,label\na,joy\n", {"split_column": "part"}, "no column 'part'"),
    ("text,label\na,joy\n", {"group_column": "who"}, "no column 'who'"),
    ("text,label\na,joy\n ,fear\n,joy\n", {}, "2 of 3 rows .* have no text in column 'text': row 3, 4"),
    ("text,label\na,joy\nb,Joy\n", {}, "differ only in case: Joy / joy"),
    ("text,label\na,joy\nb,joy\n", {}, "only the label 'joy' in 2 rows"),
    ("text,label\na,\nb,\n", {}, "no label in 2 rows"),
    ("text,label\na,joy,x\n", {}, "row 2 of .* has 3 cells, the header 2"),
    ('text,label\n"a" b,joy\n', {}, r"not a readable table: .* \(line 2\)"),
    ("text,label,split\na,joy,holdout\nb,fear,\n", {}, "name no split: 'holdout'"),
    ("text,label\na,0\nb,0.0\nc,1\n", {}, r"column 'label' of .* differ only in spelling \(.*\): 0 / 0.0"),
    ("text,label\na,Zo\u00eb\nb,Zoe\u0308\n", {}, r"spelling \(.*\): 'Zoe\\u0308' / Zo"),
    ("text,label\na,joy\n\ufeffText,label\nb,fear\n", {}, "repeats its header in row 3"),
    ("text,label,label\na,joy,x\n", {}, "two columns named 'label'"),
    (b"text,label\ngef\xfchl,joy\n", {}, "not UTF-8"),
]


@pytest.mark.parametrize(("content", "values", "words"), ERRORS)
def test_errors(csv: Path, content: str | bytes, values: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        listed(csv, content, **values)
    assert "\n" not in caught.value.message


def test_one_author_in_two_spellings_stays_one(csv: Path) -> None:
    lines = "".join(f"text {row} {row * row},{'xy'[row % 2]},{7 + row // 2}{'.0' * (row % 2)}\n" for row in range(8))
    settings = DataSettings(dataset="table", data_root=str(csv), group_column="who")
    listed(csv, f"text,label,who\n{lines}", group_column="who")
    manifest = index_corpus(settings)
    assert [item.group for item in manifest.items] == ["7", "7", "8", "8", "9", "9", "10", "10"]
    assert manifest.notes == (
        "4 groups stand in several spellings, taken as one: 10 = 10.0, 7 = 7.0, 8 = 8.0, 9 = 9.0",
    )


JSON_ERRORS = [
    ("{", "is not JSON: Expecting"),
    ("[" * 100_000, "is not JSON"),
    ("{}", "is not a JSON list of objects"),
    ("[]", "is not a JSON list of objects"),
    ('[{"text": "a", "label": "x"}, 3]', "not a JSON list of objects: row 2 is none"),
    ('[{"text": "a", "label": "x"}, {"text": "b", "label": 3}]', "mixes .*: text in row 1; whole number in row 2"),
    ('[{"text": "a", "label": ["x"]}, {"text": "b", "label": "y"}]', "mixes kinds .*: list in row 1; no list in row 2"),
    ('[{"text": "a", "label": ["x", 3]}, {"text": "b", "label": ["y"]}]', "text in row 1, 2; whole number in row 1"),
    ('[{"text": "a", "label": true}, {"text": "b", "label": 1}]', "true or false in row 1; whole number in row 2"),
    ('[{"text": "a", "label": 0.5}, {"text": "b", "label": 1.5}]', "holds fraction in row 1, 2"),
    ('[{"text": "a", "label": {"x": 1}}, {"text": "b", "label": {"y": 1}}]', "holds object in row 1, 2"),
    ('[{"text": "a", "label": [["x"]]}, {"text": "b", "label": [["y"]]}]', "holds list within a list in row 1, 2"),
    ('[{"text": 3, "label": "x"}, {"label": "y"}]', "holds no text in row 1, 2"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "words"), JSON_ERRORS)
def test_json_errors(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        listed(tmp_path / "t.json", content)


def test_refused_settings(csv: Path) -> None:
    for values, words in (
        ({"mode": "ekman"}, "`mode=ekman` groups the labels of GoEmotions"),
        ({"label_columns": " , "}, "`label_columns` names no column"),
        ({"label_columns": "label,label"}, "names a column twice"),
        ({"label_columns": "text"}, "column 'text' cannot hold labels and something else"),
    ):
        with pytest.raises(SettingsError, match=words):
            listed(csv, "text,label\na,joy\nb,fear\n", **values)
    with pytest.raises(DataError, match=r"needs a file, but .* is a folder") as caught:
        DATASETS["table"].index(csv.parent, DataSettings(dataset="table"))
    assert caught.value.hint == "give one of: texts.csv"


def test_a_label_never_seen_in_training(csv: Path) -> None:
    text = "text,label,split\na,joy,train\nb,fear,train\nc,grief,val\nd,joy,test\n"
    manifest = listed(csv, text)
    with pytest.raises(SamoError, match="the training split has no example of: grief"):
        make_split(manifest, SplitRequest("table"))


def test_validation_is_drawn_from_train_where_the_table_has_none(csv: Path) -> None:
    rows = [f"w{n} v{n},{'joy' if n % 4 else 'fear'},{'test' if n < 8 else 'train'}" for n in range(48)]
    manifest = listed(csv, "\n".join(["text,label,split", *rows]))
    split = make_split(manifest, SplitRequest("table", train_ratio=0.6, val_ratio=0.2))
    assert (len(split.train), len(split.val), len(split.test)) == (30, 10, 8)
    chosen = [manifest.items[row] for row in manifest.rows(split.val)]
    assert {item.split for item in chosen} == {"train"}
    assert sum(item.labels["label"] == ("fear",) for item in chosen) in (2, 3)
    assert split_notes(manifest, split) == ["table has no validation rows: 10 were drawn from its training rows"]


def test_lists_that_pandas_saved_are_labels(csv: Path) -> None:
    manifest = listed(csv, 'text,label\na,"[17, 25]"\nb,[25]\nc,"[2, 17]"\nd,[]\n')
    assert manifest.label_space.primary.labels == ("2", "17", "25")
    assert manifest.label_space.primary.multi_label
    assert labels(manifest) == [("17", "25"), ("25",), ("2", "17")]
    assert manifest.notes[0] == "column 'label' holds lists as text, [17, 25]: read as the labels in them"
    manifest = listed(csv, "text,label\na,\"['joy', 'love']\"\nb,\"['fear' 'joy']\"\n")
    assert labels(manifest) == [("joy", "love"), ("fear", "joy")]
    with pytest.raises(DataError, match=r"mixes kinds of labels: .*no list in row 3"):
        listed(csv, 'text,label\na,"[17, 25]"\nb,25\n')


ZEROS_AND_ONES = "text,joy,fear,sad\na,1,0,0\nb,0,1,1\nc,0,0,0\nd,,,\ne,0,0,1.0\nf,1,0,true\n"


def test_columns_of_zero_and_one_are_the_labels_of_one_task(csv: Path) -> None:
    manifest = listed(csv, ZEROS_AND_ONES, label_columns="joy,fear,sad")
    (task,) = manifest.label_space.tasks
    assert (task.name, task.labels, task.multi_label) == ("label", ("joy", "fear", "sad"), True)
    assert labels(manifest) == [("joy",), ("fear", "sad"), (), ("sad",), ("joy", "sad")]
    assert manifest.targets.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 1], [1, 0, 1]]
    assert all(set(item.meta) == {"length"} for item in manifest.items)
    assert manifest.notes == (
        "columns joy, fear, sad hold 0 and 1: labels of one task, several of which may hold",
        "1 row without any label was left out",
    )
    with pytest.raises(DataError, match=r"joy, fear, sad .* are empty in part in row 3"):
        listed(csv, "text,joy,fear,sad\na,1,0,0\nb,0,,1\n", label_columns="joy,fear,sad")
    with pytest.raises(DataError, match="no column 'label'") as caught:
        listed(csv, ZEROS_AND_ONES)
    assert "`label_columns=joy,fear,sad`" in caught.value.hint


def test_columns_of_zero_and_one_may_be_tasks_of_their_own(csv: Path) -> None:
    text = "text,joy,fear\na,1,0\nb,0,1\nc,,0\n"
    manifest = listed(csv, text, label_columns="joy,fear", binary_columns="tasks")
    assert [(task.name, task.labels) for task in manifest.label_space.tasks] == [
        ("joy", ("0", "1")),
        ("fear", ("0", "1")),
    ]
    # A column of another kind beside them makes them tasks as before.
    manifest = listed(csv, "text,joy,tone\na,1,up\nb,0,down\n", label_columns="joy,tone")
    assert [task.name for task in manifest.label_space.tasks] == ["joy", "tone"]


def test_runs_of_before_keep_a_task_a_column() -> None:
    stored = {"modality": "text", "dataset": "table", "data_root": "x.csv"}
    assert with_defaults(stored)["binary_columns"] == "tasks"
    assert stored_config(with_defaults(stored)).flat()["binary_columns"] == "tasks"
    other = {"modality": "text", "dataset": "goemotions"}
    assert stored_config(with_defaults(other)).flat()["binary_columns"] == "labels"


def test_nan_is_no_label(tmp_path: Path) -> None:
    rows = '{"text": "a", "label": NaN}\n{"text": "b", "label": "joy"}\n{"text": "c", "label": "fear"}\n'
    manifest = listed(tmp_path / "t.jsonl", rows)
    assert labels(manifest) == [("joy",), ("fear",)]
    assert manifest.notes == ("1 row without any label was left out",)
    manifest = listed(tmp_path / "t.csv", "text,label\na,nan\nb,joy\nc,fear\nnan,joy\n")
    assert [item.source for item in manifest.items] == ["b", "c", "nan"]
    manifest = listed(tmp_path / "t.jsonl", '{"text": "a", "label": ["x", NaN]}\n{"text": "b", "label": ["y"]}\n')
    assert labels(manifest) == [("x",), ("y",)]
