"""Tables and class folders of one's own: what is listed, and what is refused with which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpora import labels, listed, put, table

from samo.data.splits import SplitRequest, make_split
from samo.errors import DataError, SettingsError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder for a corpus."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    return folder


# Tables


@pytest.fixture
def clips(root: Path) -> Path:
    """Four clips for a table to list."""
    put(root, "a/1.wav", "a/2.wav", "b/1.flac", "b/2.wav")
    return root


ROWS = (("a/1.wav", "sad", "ann"), ("a/2.wav", "happy", "ann"), ("b/1.flac", "sad", "bob"), ("b/2.wav", "happy", "cy"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_table_dialects(clips: Path, delimiter: str, encoding: str, end: str) -> None:
    lines = [("path", "label", "speaker"), *ROWS]
    csv = table(clips, end.join(delimiter.join(cells) for cells in lines) + end, encoding=encoding)
    manifest = listed("table", csv)
    assert [(item.id, item.source, item.group) for item in manifest.items] == [
        ("a/1", "a/1.wav", "ann"),
        ("a/2", "a/2.wav", "ann"),
        ("b/1", "b/1.flac", "bob"),
        ("b/2", "b/2.wav", "cy"),
    ]
    assert labels(manifest) == {"a/1": "sad", "a/2": "happy", "b/1": "sad", "b/2": "happy"}
    assert manifest.label_space.primary.labels == ("happy", "sad")
    assert manifest.root == clips
    assert all(manifest.path(item).is_file() for item in manifest.items)


def test_table_columns_splits_and_attributes(clips: Path) -> None:
    csv = table(
        clips,
        "Datei,Gefühl,wer,Teil,age,note\n"
        'a/1.wav,traurig,"Ann, 1",TRAIN,20,"x, y"\n'
        "\n"
        "./a/2.wav, froh ,Bob,dev,,\n"
        f"{clips / 'b' / '1.flac'},froh,Cy,test\n"
        "b\\2.wav,traurig,Cy,,30,z\n",
    )
    manifest = listed(
        "table",
        csv,
        path_column="Datei",
        label_column="Gefühl",
        speaker_column="wer",
        split_column="Teil",
    )
    by_source = {item.source: item for item in manifest.items}
    assert by_source["a/1.wav"].group == "Ann, 1"
    assert {source: item.split for source, item in by_source.items()} == {
        "a/1.wav": "train",
        "a/2.wav": "val",
        str(clips / "b" / "1.flac"): "test",
        "b/2.wav": "",
    }
    assert dict(by_source["a/1.wav"].meta) == {"age": "20", "note": "x, y"}
    assert manifest.label_space.primary.labels == ("froh", "traurig")


def test_table_attributes_with_many_values_are_left_out(root: Path) -> None:
    names = [f"{number}.wav" for number in range(51)]
    put(root, *names)
    rows = "".join(
        f"{name},{'sad' if number % 2 else 'happy'},{number},{number % 50}\n" for number, name in enumerate(names)
    )
    manifest = listed("table", table(root, "path,label,session,room\n" + rows), split="random")
    assert set(manifest.items[0].meta) == {"room"}


def test_table_ids_keep_the_suffix_only_where_they_must(root: Path) -> None:
    put(root, "x.wav", "x.flac", "y.wav")
    csv = table(root, "path,label\nx.wav,sad\nx.flac,happy\ny.wav,sad\n")
    assert [item.id for item in listed("table", csv, split="random").items] == ["x.flac", "x.wav", "y"]


def test_table_sentiment(clips: Path) -> None:
    csv = table(clips, "path,label,speaker\na/1.wav,Anger,s\na/2.wav,calm,s\nb/1.flac,joy,s\nb/2.wav,negative,s\n")
    manifest = listed("table", csv, mode="sentiment")
    assert list(labels(manifest).values()) == ["negative", "neutral", "positive", "negative"]
    table(clips, "path,label,speaker\na/1.wav,anger,s\na/2.wav,hungry,s\n")
    with pytest.raises(DataError, match=r"does not know the label .*'hungry'"):
        listed("table", csv, mode="sentiment")


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        ((1, 2), ("1", "2")),
        ((1.0, 2.0), ("1", "2")),
        ((True, False), ("true", "false")),
        ((["joy"], ["sad"]), ("joy", "sad")),
    ],
)
def test_table_of_json(root: Path, cells: tuple[object, object], read: tuple[str, str]) -> None:
    put(root, "0.wav", "1.wav")
    rows = [{"path": f"{k}.wav", "label": cell, "speaker": k} for k, cell in enumerate(cells)]
    (root / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    manifest = listed("table", root / "t.jsonl")
    assert labels(manifest) == dict(zip(("0", "1"), read, strict=True))
    assert [item.group for item in manifest.items] == ["0", "1"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"path": 1, "label": "joy"}, "1 of 1 files that .* are missing: 1"),
        ({"path": ["0.wav"], "label": "joy"}, "column 'path' of .* holds lists or objects in row 1"),
        ({"path": "0.wav", "label": {"joy": 1}}, "column 'label' of .* holds lists or objects in row 1"),
        ({"path": "0.wav", "label": ["joy", "sad"]}, "holds lists of labels in row 1"),
        ({"path": "0.wav", "label": []}, "holds lists of labels in row 1"),
    ],
)
def test_cells_of_json_that_are_no_text(root: Path, row: dict[str, object], words: str) -> None:
    put(root, "0.wav")
    (root / "t.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match=words):
        listed("table", root / "t.json", split="random")


TABLE_ERRORS = [
    ("", {}, "is empty"),
    ("\n \n", {}, "is empty"),
    ("path,label,speaker\n", {}, "a header but no rows"),
    ("path,label,speaker\n,,\n", {}, "a header but no rows"),
    ("file,label,speaker\na/1.wav,sad,s\n", {}, "no column 'path'; it has: file, label, speaker"),
    ("path,lable,speaker\na/1.wav,sad,s\n", {}, "no column 'label'; it has: path, lable, speaker"),
    ("path,label,speaker_id\na/1.wav,sad,s\n", {}, "no column 'speaker'; it has: path, label, speaker_id"),
    ("path,label,speakers\na/1.wav,sad,s\n", {"split": "folds"}, "no column 'speaker'"),
    ("path,label\na/1.wav,sad\n", {"split": "random", "speaker_column": "who"}, "no column 'who'"),
    ("path,label\na/1.wav,sad\n", {"split": "table"}, "no column 'split'"),
    ("path,label\na/1.wav,sad\n", {"split": "random", "split_column": "part"}, "no column 'part'"),
    ("path,label,label\na/1.wav,sad,s\n", {}, "two columns named 'label'"),
    ("path,label,speaker\na/1.wav,sad,s\n,sad,s\n", {}, "column 'path' of .* is empty in row 3"),
    ("path,label,speaker\na/1.wav,sad,s\na/2.wav, ,s\n", {}, "column 'label' of .* is empty in row 3"),
    ("path,label,speaker\na/1.wav,sad,s\na/2.wav\n", {}, "column 'label' of .* is empty in row 3"),
    ("path,label,speaker\na/1.wav,sad,s,x\n", {}, "row 2 of .* has 4 cells, the header 3"),
    ("path,label,speaker\na/1.wav,sad,s\na/../a/1.wav,sad,s\n", {}, r"twice: a/1.wav \(rows 2 and 3\)"),
    ("path,label,speaker\na/1.wav,sad,s\na/2.wav,sad,s\n", {}, "the same label: 'sad'"),
    ("path,label,speaker\na/1.wav,sad,s\na/2.wav,Sad,s\n", {}, "differ only in case: Sad / sad"),
    ("path,label,speaker,split\na/1.wav,sad,s,holdout\n", {}, "name no split: 'holdout'"),
    ("path,label\na/1.wav,0\na/2.wav,0.0\n", {}, r"differ only in spelling \(.*\): 0 / 0.0"),
    ("path,label\na/1.wav,sad\na/2.wav,sad\u200b\n", {}, r"spelling \(.*\): sad / 'sad\\u200b'"),
    ("path,label\na/1.wav,\u200b\na/2.wav,sad\n", {}, "column 'label' of .* is empty in row 2"),
    ("path,label\na/1.wav,sad\n\ufeffpath,label\na/2.wav,joy\n", {}, "repeats its header in row 3"),
    ('path,label,speaker\n"a/1.wav,sad,s\n', {}, "not a readable table"),
    ("path,label,speaker\na\0.wav,sad,s\nb.wav,sad,s\n", {}, "missing|not a readable"),
    (f"path,label,speaker\n{'x' * 5000}.wav,sad,s\n", {}, "1 of 1 files that .* are missing"),
]


@pytest.mark.parametrize(("text", "values", "words"), TABLE_ERRORS)
def test_table_errors(clips: Path, text: str, values: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        listed("table", table(clips, text), **values)


def test_table_hints(clips: Path) -> None:
    with pytest.raises(DataError) as caught:
        listed("table", table(clips, "path,label,speakers\na/1.wav,sad,s\n"))
    assert caught.value.hint.startswith("did you mean 'speakers'? name it with `speaker_column`")
    with pytest.raises(DataError) as caught:
        listed("table", table(clips, "path,label,speaker,split\na/1.wav,sad,s,holdout\n"))
    assert "valid: train" in caught.value.hint
    listed("table", table(clips, "path,label,speaker,split\na/1.wav,sad,s,x\na/2.wav,joy,s,y\n"), split_column="")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("path,label\na/1.wav,sad\na/2.wav,happy\n", {}),
        ("path,label,speaker\na/1.wav,sad,\na/2.wav,happy,\n", {}),
        ("path,label,speaker_age\na/1.wav,sad,20\na/2.wav,happy,20\n", {"speaker_column": ""}),
        ("path,label,speaker_age\na/1.wav,sad,20\na/2.wav,happy,20\n", {"split": "random"}),
    ],
)
def test_table_speakers_may_be_unknown_until_a_split_needs_them(clips: Path, text: str, values: dict[str, Any]) -> None:
    manifest = listed("table", table(clips, text), **values)
    assert [item.group for item in manifest.items] == ["", ""]
    with pytest.raises(DataError, match="no speaker is known") as caught:
        make_split(manifest, SplitRequest("speaker"))
    assert "`speaker_column=actor`" in caught.value.hint


def test_table_finds_a_file_under_another_spelling_of_its_path(root: Path) -> None:
    put(root, "a/Zo\u00eb.wav", "a/Ame\u0301.wav")
    text = "path,label\n\ufeffa/Zoe\u0308.wav,sad\na/\u200bAm\u00e9.wav,joy\n"
    assert sorted(item.source for item in listed("table", table(root, text)).items) == [
        "a/Ame\u0301.wav",
        "a/Zo\u00eb.wav",
    ]
    (root / "link.wav").symlink_to(root / "a/Zo\u00eb.wav")
    for other in (root / "a/Zo\u00eb.wav", "link.wav"):
        with pytest.raises(DataError, match=r"lists files twice: .* \(rows 2 and 3\)"):
            listed("table", table(root, f"path,label\na/Zo\u00eb.wav,sad\n{other},joy\n"))


def test_table_reads_split_words_in_any_spelling(clips: Path) -> None:
    text = "path,label,split\na/1.wav,sad,\ufeffTRAIN\na/2.wav,joy,\u200b\nb/2.wav,joy,\uff34est\n"
    assert [item.split for item in listed("table", table(clips, text)).items] == ["train", "", "test"]


def test_table_lists_the_first_ten_missing_files(clips: Path) -> None:
    rows = "".join(f"gone{number:02d}.wav,sad,s\n" for number in range(12))
    with pytest.raises(DataError, match=r"12 of 13 files .* gone00\.wav, .*, gone09\.wav and 2 more") as caught:
        listed("table", table(clips, "path,label,speaker\na/1.wav,happy,s\n" + rows))
    assert str(clips) in caught.value.hint


def test_table_refuses_folders_and_other_encodings(clips: Path) -> None:
    with pytest.raises(DataError, match="there is no table"):
        listed("table", clips / "none.csv")
    with pytest.raises(DataError, match="is a folder"):
        listed("table", clips)
    with pytest.raises(DataError, match="not UTF-8"):
        listed("table", table(clips, "path,label,speaker\na/1.wav,gefühl,s\n", encoding="latin-1"))
    with pytest.raises(DataError) as caught:
        listed("table", clips)
    assert "clips.csv" in caught.value.hint


# Folders


def test_folder_items(root: Path) -> None:
    put(root, "angry/ann/1.wav", "angry/bob/deep/er/1.ogg", "happy/ann/1.wav", "happy/bob/1.wav", ".cache/x.wav")
    (root / "docs").mkdir()
    manifest = listed("folder", root, speaker_pattern="^[^/]+/([^/]+)/")
    assert [(item.id, item.group) for item in manifest.items] == [
        ("angry/ann/1", "ann"),
        ("angry/bob/deep/er/1", "bob"),
        ("happy/ann/1", "ann"),
        ("happy/bob/1", "bob"),
    ]
    assert list(labels(manifest).values()) == ["angry", "angry", "happy", "happy"]
    assert {item.group for item in listed("folder", root).items} == {""}
    sentiments = labels(listed("folder", root, mode="sentiment"))
    assert list(sentiments.values()) == ["negative", "negative", "positive", "positive"]


def test_folder_named_group_wins(root: Path) -> None:
    put(root, "angry/s1_a.wav", "happy/s2_b.wav")
    manifest = listed("folder", root, speaker_pattern=r"(\w)[^/]*/s(?P<speaker>\d)")
    assert [item.group for item in manifest.items] == ["1", "2"]


def test_folder_pattern_must_find_every_speaker(root: Path) -> None:
    put(root, "angry/s1.wav", *(f"happy/x{number:02d}.wav" for number in range(12)))
    with pytest.raises(DataError, match=r"no speaker in 12 of 13 paths .* happy/x00\.wav, .* and 2 more"):
        listed("folder", root, speaker_pattern=r"s(\d)")
    with pytest.raises(DataError, match="no speaker in 12"):
        listed("folder", root, speaker_pattern=r"/(s\d)?")


@pytest.mark.parametrize(("pattern", "words"), [("s(", "no regular expression"), (r"s\d", "no group")])
def test_folder_bad_patterns(root: Path, pattern: str, words: str) -> None:
    put(root, "angry/s1.wav", "happy/s2.wav")
    with pytest.raises(SettingsError, match=words):
        listed("folder", root, speaker_pattern=pattern)


def test_folder_needs_classes(root: Path) -> None:
    put(root, "angry/1.wav")
    with pytest.raises(DataError, match="found clips only in 'angry'"):
        listed("folder", root)
    put(root, "happy/1.wav", "loose.wav")
    with pytest.raises(DataError, match=r"1 clip lies directly in .*loose\.wav"):
        listed("folder", root)


def test_folder_does_not_take_actors_for_classes(root: Path) -> None:
    put(root, "Actor_01/1.wav", "Actor_02/1.wav")
    with pytest.raises(DataError, match="actors, not classes"):
        listed("folder", root)
