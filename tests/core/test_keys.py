"""One name in several spellings: what is compared, what is united, what is refused with which words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from samo.data.keys import key, shown, spelled_twice, united, visible
from samo.data.leaks import find_leaks
from samo.data.manifest import Item, Manifest
from samo.data.relabel import relabel
from samo.data.splits import Split, SplitRequest, make_split
from samo.errors import DataError, LeakError
from samo.tasks import LabelSpace, Task

SPACE = LabelSpace((Task("emotion", ("angry", "sad")),))
COMPOSED, DECOMPOSED = "Zo\u00eb", "Zoe\u0308"


@pytest.mark.parametrize(
    "spellings",
    [
        ("1004", "1004.0", "1004.", "01004", "+1004", " 1004.00 ", "\uff11\uff10\uff10\uff14", "1.004e+03"),
        ("-3", "-3.0", "-03"),
        ("0", "0.0", "-0", "00"),
        ("0.5", "0.50", "00.5"),
        ("10000000000000000", "1e+16", "1.0e+16"),
        ("Anna", "anna", "ANNA", "an\u200bna", "\ufeffAnna", "\u200eAnna", "Anna\u00ad", "Anna\x00"),
        (COMPOSED, DECOMPOSED, "ZOË"),
        ("anna bell", " Anna   Bell", "anna\u00a0bell", "anna\tbell"),
        ("straße", "STRASSE"),
        ("\u2764", "\u2764\ufe0f"),
        ("", " ", "\u200b", "\ufeff "),
    ],
)
def test_spellings_of_one_name(spellings: tuple[str, ...]) -> None:
    assert len({key(name) for name in spellings}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1004", "1005"), ("1", "-1"), ("10", "100"), ("10", "1"), ("0.5", "5"), ("10e4", "01e5"), ("1.0.0", "1.0"),
        ("zoe", COMPOSED), ("anna1", "anna1.0"), ("anna_b", "anna b"), ("a", "à"), ("2.10", "2.1a"), ("कि", "की"),
    ],
)  # fmt: skip
def test_names_that_differ(one: str, other: str) -> None:
    assert key(one) != key(other)


def test_what_is_shown_of_a_name() -> None:
    assert [shown(name) for name in ("Anna", COMPOSED, "an\u200bna", DECOMPOSED)] == [
        "Anna", COMPOSED, r"'an\u200bna'", r"'Zoe\u0308'",
    ]  # fmt: skip
    assert visible("\ufeffa\u200b b\tc") == "a b c"


def test_the_most_frequent_spelling_comes_first() -> None:
    names = ["anna", "Anna", "anna", "1.0", "1", "bob"]
    assert spelled_twice(names) == {"1": ["1", "1.0"], "anna": ["anna", "Anna"]}


def corpus(*groups: str, **values: object) -> Manifest:
    items = tuple(
        Item(f"i{row:03d}", f"{row}.wav", {"emotion": (SPACE.primary.labels[row % 2],)}, group, content=str(row))
        for row, group in enumerate(groups)
    )
    return replace(Manifest("corpus", SPACE, items, Path("/data")), **values)  # type: ignore[arg-type]


def test_groups_are_united_and_said_so() -> None:
    manifest = corpus("1001", "1001.0", "anna", "Anna", "anna", "bob", "", "\u200b")
    found = united(replace(manifest, folds=(frozenset({"1001.0", "ANNA"}), frozenset({"bob", "gone"}))))
    assert [item.group for item in found.items] == ["1001", "1001", "anna", "anna", "anna", "bob", "", ""]
    assert found.folds == (frozenset({"1001", "anna"}), frozenset({"bob", "gone"}))
    assert found.notes == ("2 speakers stand in several spellings, taken as one: 1001 = 1001.0, anna = Anna",)
    assert found.digest == manifest.digest
    plain = corpus("a", "b")
    assert united(plain) == plain


def test_no_speaker_in_two_parts_under_two_spellings() -> None:
    manifest = corpus(*(f"{1001 + row // 4}{'.0' * (row % 2)}" for row in range(24)))
    for seed in range(5):
        split = make_split(united(manifest), SplitRequest("speaker", 0.5, 0.25, seed=seed))
        written = {part: {item.group for item in manifest.items if item.id in split.part(part)} for part in
                   ("train", "val", "test")}  # fmt: skip
        numbers = {part: {float(name) for name in names} for part, names in written.items()}
        assert sum(map(len, numbers.values())) == len(set().union(*numbers.values())) == 6


def test_the_audit_sees_two_spellings() -> None:
    manifest = corpus("01", "1.0", "bob", "bob", "", "")
    split = Split("speaker", 0, ("i000", "i004"), ("i002", "i003"), ("i001", "i005"))
    assert find_leaks(manifest, split) == ["speaker 01 = 1.0 is in more than one part: 0.wav (train), 1.wav (test)"]
    given = ("train", "test", "val", "val", "train", "test")
    parts = tuple(replace(item, split=part) for item, part in zip(manifest.items, given, strict=True))
    with pytest.raises(LeakError, match=r"speakers stand in two splits: 01 = 1\.0"):
        make_split(replace(manifest, items=parts), SplitRequest("table"))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("Joy", "joy"), "differ only in case: Joy / joy"),
        (("0", "0.0", "1"), r"differ only in spelling \(.*\): 0 / 0.0"),
        (("sad", "sad\u200b"), r"differ only in spelling \(.*\): sad / 'sad\\u200b'"),
        ((COMPOSED, DECOMPOSED), r"'Zoe\\u0308' / Zo"),
    ],
)
def test_twin_labels_are_refused(labels: tuple[str, ...], words: str) -> None:
    space = LabelSpace((Task("emotion", labels),))
    items = tuple(Item(label, label, {"emotion": (label,)}) for label in labels)
    with pytest.raises(DataError, match=words):
        united(Manifest("corpus", space, items, Path("/data")))


def test_another_corpus_with_labels_in_another_spelling_is_helped() -> None:
    foreign = LabelSpace((Task("emotion", ("0.0", "1.0")),))
    items = tuple(Item(label, label, {"emotion": (label,)}) for label in ("0.0", "1.0"))
    with pytest.raises(DataError) as caught:
        relabel(Manifest("other", foreign, items, Path("/data")), LabelSpace((Task("emotion", ("0", "1")),)), {})
    assert "`label_map=0.0=0,1.0=1`" in caught.value.hint
