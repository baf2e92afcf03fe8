"""Splits of strings: stratified by label set, copies together, five folds, a share of the rows, leaks left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samo.data.leaks import audit, is_leaky
from samo.data.manifest import Item, Manifest
from samo.data.splits import PARTS, Split, SplitRequest, fold_count, make_split, split_notes
from samo.data.stratify import inseparable, label_keys, rarest_labels, stratify
from samo.errors import DataError, LeakError, SettingsError
from samo.tasks import LabelSpace, Task

LABELS = ("a", "b", "c", "d")
SPACE = LabelSpace((Task("emotion", LABELS, multi_label=True),))
# Each with a letter of its own, so that no two are near copies.
WORDS = [chr(0x4E00 + k) * 6 for k in range(2000)]


def item(number: int, labels: tuple[str, ...], text: str = "", **values: Any) -> Item:
    return Item(f"r{number:04d}", text or WORDS[number], {"emotion": labels}, **values)


def corpus(n: int = 400, **values: Any) -> Manifest:
    """a holds in all rows but every tenth, b in every fifth, c in every 20th, d in every 40th."""
    items = []
    for k in range(n):
        held = [k % 10 != 0, k % 5 == 0, k % 20 == 3, k % 40 == 7]
        items.append(item(k, tuple(label for label, yes in zip(LABELS, held, strict=True) if yes)))
    return Manifest("strings", SPACE, tuple(items), Path("/data"), copies="reported", **values)


def counts(manifest: Manifest, ids: tuple[str, ...]) -> Counter[str]:
    return Counter(label for row in manifest.rows(ids) for label in manifest.items[row].labels["emotion"])


@pytest.mark.parametrize("seed", range(3))
def test_every_part_gets_its_share_of_every_label(seed: int) -> None:
    manifest = corpus()
    split = make_split(manifest, SplitRequest("stratified", 0.7, 0.1, seed=seed))
    assert sorted(split.train + split.val + split.test) == [i.id for i in manifest.items]
    total = counts(manifest, tuple(i.id for i in manifest.items))
    for part, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        # Labels go before sizes, which so may be off by a few rows.
        assert len(split.part(part)) == pytest.approx(share * 400, abs=5)
        own = counts(manifest, split.part(part))
        assert all(abs(own[label] - share * total[label]) <= 1.01 for label in LABELS), (part, own)
    assert not split.leaky
    assert audit(manifest, split) == []
    turned = replace(manifest, items=manifest.items[::-1])
    assert make_split(turned, SplitRequest("stratified", 0.7, 0.1, seed=seed)) == split
    assert make_split(manifest, SplitRequest("stratified", 0.7, 0.1, seed=seed + 10)).test != split.test


def test_the_same_stratified_parts_on_every_machine() -> None:
    """Written down once: a change of Python, numpy or the machine must not move a row."""
    split = make_split(corpus(40), SplitRequest("stratified", 0.7, 0.1, seed=0))
    assert split.val == ("r0001", "r0014", "r0025", "r0027")
    assert split.test == ("r0000", "r0003", "r0004", "r0008", "r0011", "r0020", "r0024", "r0033", "r0038")
    fold = make_split(corpus(40), SplitRequest("folds", 0.7, 0.1, fold=1, seed=0))
    assert fold.val == ("r0000", "r0001", "r0018", "r0027", "r0033")
    assert fold.test == ("r0002", "r0006", "r0008", "r0011", "r0014", "r0015", "r0017", "r0023")
    limited = make_split(corpus(40), SplitRequest("stratified", 0.7, 0.1, seed=0, limit_fraction=0.6))
    assert sorted(set(split.train) - set(limited.train)) == [
        "r0005", "r0006", "r0009", "r0012", "r0017", "r0018", "r0026", "r0028", "r0035", "r0036", "r0037",
    ]  # fmt: skip


def test_rare_labels_are_learned_before_they_are_judged() -> None:
    few = [item(k, ("a",)) for k in range(40)] + [item(40, ("b",)), item(41, ("c",)), item(42, ("a", "d"))]
    manifest = Manifest("strings", SPACE, tuple(few), Path("/data"), copies="reported")
    for seed in range(5):
        split = make_split(manifest, SplitRequest("stratified", 0.3, 0.3, seed=seed))
        assert {"r0040", "r0041", "r0042"} <= set(split.train)


def test_copies_and_groups_stay_together() -> None:
    spelled = {0: "Thanks!", 1: "thanks"}
    items = [item(k, ("a" if k % 2 else "b",), text=spelled.get(k % 8, "")) for k in range(80)]
    items += [item(100 + k, ("c", "d"), group="ann") for k in range(3)]
    # A copy ties its group to the other copies.
    items += [item(110, ("a",), text=WORDS[100]), item(111, (), group="bob"), item(112, ("a",), group="bob")]
    sets = {tuple(sorted(i.id for i in unit)) for unit in inseparable(items)}
    assert ("r0100", "r0101", "r0102", "r0110") in sets
    assert ("r0111", "r0112") in sets
    assert sorted(map(len, sets))[-1] == 20
    manifest = Manifest("strings", SPACE, tuple(items), Path("/data"), copies="reported")
    for seed in range(3):
        split = make_split(manifest, SplitRequest("stratified", 0.6, 0.2, seed=seed))
        homes = {name: part for part in PARTS for name in split.part(part)}
        assert all(len({homes[name] for name in unit}) == 1 for unit in sets)


def test_none_of_the_labels_is_stratified_too() -> None:
    assert label_keys(item(0, ())) == [("emotion", "")]
    assert label_keys(Item("x", "x", {})) == []
    units = [[item(k, ())] for k in range(10)] + [[item(k, ("a",))] for k in range(10, 20)]
    parts = stratify(units, {"x": 0.5, "y": 0.5}, seed=0)
    assert {part: len([i for i in own if not i.labels["emotion"]]) for part, own in parts.items()} == {"x": 5, "y": 5}
    unlabelled = stratify([[Item(f"u{k}", WORDS[k], {})] for k in range(10)], {"x": 0.8, "y": 0.2}, seed=0)
    assert {part: len(own) for part, own in unlabelled.items()} == {"x": 8, "y": 2}


def test_five_folds_are_stratified_and_the_same_for_every_seed() -> None:
    manifest = corpus()
    assert fold_count(manifest) == 5
    tests = []
    for fold in range(5):
        one, other = (make_split(manifest, SplitRequest("folds", fold=fold, seed=seed)) for seed in (0, 1))
        assert one.test == other.test
        assert one.val != other.val
        assert len(one.val) == pytest.approx(40, abs=8)
        own = counts(manifest, one.test)
        assert (own["c"], own["d"]) == (4, 2)
        tests.append(set(one.test))
    assert set.union(*tests) == {i.id for i in manifest.items}
    assert sum(map(len, tests)) == 400
    with pytest.raises(SettingsError, match="fold 5 does not exist"):
        make_split(manifest, SplitRequest("folds", fold=5))


def test_folds_and_groups_by_name_where_groups_are_known() -> None:
    items = tuple(replace(i, group=f"g{k % 10}") for k, i in enumerate(corpus().items))
    manifest = replace(corpus(), items=items, group_noun="author")
    for rule in ("folds", "group"):
        split = make_split(manifest, SplitRequest(rule))
        homes = {part: {items[row].group for row in manifest.rows(split.part(part))} for part in PARTS}
        assert not homes["train"] & homes["test"]
        assert not homes["train"] & homes["val"]
    with pytest.raises(DataError, match="no author is known for 400 of 400") as caught:
        make_split(corpus(group_noun="author"), SplitRequest("group"))
    assert caught.value.hint == "name the authors; or use `split=stratified`"
    half = tuple(replace(i, split=PARTS[k % 3]) for k, i in enumerate(items))
    with pytest.raises(LeakError, match="authors stand in two splits: g0") as caught:
        make_split(replace(manifest, items=half), SplitRequest("table"))
    assert caught.value.hint.endswith("`split=stratified`")


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_share_of_the_rows_keeps_the_labels_shares(share: float) -> None:
    manifest = corpus(1600)
    whole = make_split(manifest, SplitRequest("stratified"))
    split = make_split(manifest, SplitRequest("stratified", limit_fraction=share))
    assert len(split.train) == round(share * len(whole.train))
    assert set(split.train) < set(whole.train)
    assert (split.val, split.test) == (whole.val, whole.test)
    full, own = counts(manifest, whole.train), counts(manifest, split.train)
    assert all(abs(own[label] - share * full[label]) <= 0.05 * share * full[label] + 2 for label in LABELS)


def test_the_stratum_of_a_row_is_its_rarest_label() -> None:
    items = [item(0, ("a", "b")), item(1, ("a",)), item(2, ("a", "b", "c")), item(3, ())]
    assert list(rarest_labels(items).values()) == ["emotion=b", "emotion=a", "emotion=c", "emotion="]


def leaking() -> Manifest:
    """Own split in which val and test hold one copy each of training rows, and test a near copy and one of val."""
    long = "one two three four five six seven eight nine ten eleven"
    rows = [
        ("train", "Thanks a lot", "a"), ("train", "thanks a LOT ", "b"), ("train", long, "a"), ("train", WORDS[0], "b"),
        ("train", WORDS[1], "a"), ("val", "thanks a lot", "a"), ("val", WORDS[2], "b"), ("test", WORDS[0], "b"),
        ("test", long + ".", "a"), ("test", WORDS[2], "a"),
    ]  # fmt: skip
    items = tuple(item(k, (label,), text, split=part) for k, (part, text, label) in enumerate(rows))
    items += tuple(item(100 + k, ("a",), split=("val", "test")[k % 2]) for k in range(20))
    space = LabelSpace((Task("emotion", ("a", "b"), multi_label=True),))
    return Manifest("strings", space, items, Path("/data"), copies="reported")


def test_copies_are_reported_in_a_line_a_part() -> None:
    manifest = leaking()
    split = make_split(manifest, SplitRequest("table"))
    assert audit(manifest, split) == [
        "1 val and 1 test rows also stand in train word for word (but for case and spaces), 1 test more nearly so",
        "1 test rows also stand in val word for word (but for case and spaces), no more nearly so",
    ]
    assert split_notes(manifest, split) == []
    # The same content in two parts is refused where items are files.
    files = replace(manifest, copies="refused", items=tuple(replace(i, content=i.source) for i in manifest.items))
    with pytest.raises(LeakError, match="identical content"):
        audit(files, split)


def known_in_test(n_known: int, n: int = 100, spelled: str = "{}") -> Manifest:
    """``n`` test rows of which the first ``n_known`` stand in train, spelled in another way."""
    words = [WORDS[k][:1] * 6 + " stands here for a whole long sentence" for k in range(3 * n)]
    rows = [("train", words[k]) for k in range(n)] + [("val", words[n + k]) for k in range(n)]
    rows += [("test", spelled.format(words[k]) if k < n_known else words[2 * n + k]) for k in range(n)]
    items = tuple(item(k, ("ab"[k % 2],), text, split=part) for k, (part, text) in enumerate(rows))
    space = LabelSpace((Task("emotion", ("a", "b"), multi_label=True),))
    return Manifest("strings", space, items, Path("/data"), copies="reported")


@pytest.mark.parametrize("spelled", ["{}", "{}!!", "{} x"])
def test_a_share_of_known_texts_is_stamped_and_a_larger_one_refused(spelled: str) -> None:
    for n_known, leaky in ((0, False), (4, False), (5, True), (19, True)):
        manifest = known_in_test(n_known, spelled=spelled)
        split = make_split(manifest, SplitRequest("table"))
        assert is_leaky(manifest, split) is leaky
        assert [is_leaky(manifest, split, part) for part in ("train", "val")] == [False, False]
    for n_known in (20, 100):
        with pytest.raises(
            LeakError, match=f"train also has of test {n_known} of 100 rows, word for word or"
        ) as caught:
            make_split(known_in_test(n_known, spelled=spelled), SplitRequest("table"))
        assert "`drop_leaked`" in caught.value.hint
    found = make_split(known_in_test(20, spelled=spelled), SplitRequest("table", drop_leaked=True))
    assert (len(found.dropped), len(found.train), len(found.test)) == (20, 80, 100)


def test_near_copies_stay_in_one_part() -> None:
    texts = [WORDS[k][:1] * 60 + " and then home" + mark for k in range(40) for mark in ("", "s")]
    items = tuple(item(k, ("ab"[k // 2 % 2],), text) for k, text in enumerate(texts))
    space = LabelSpace((Task("emotion", ("a", "b"), multi_label=True),))
    manifest = Manifest("strings", space, items, Path("/data"), copies="reported")
    for rule in ("stratified", "folds"):
        for seed in range(3):
            split = make_split(manifest, SplitRequest(rule, 0.6, 0.2, seed=seed))
            home = {name: part for part in PARTS for name in split.part(part)}
            assert all(home[f"r{k:04d}"] == home[f"r{k + 1:04d}"] for k in range(0, 80, 2))
            assert audit(manifest, split) == []
            assert 14 <= len(split.test) <= 18
    chained = tuple(item(k, ("ab"[k % 2],), " ".join(WORDS[:40]) + chr(97 + k)) for k in range(12))
    with pytest.raises(DataError, match="part of split 'stratified' is empty") as caught:
        make_split(replace(manifest, items=chained), SplitRequest("stratified", 0.6, 0.2))
    assert caught.value.hint == "12 of 12 texts stay together, as one group or as near copies of each other"
    two = replace(manifest, items=(item(0, ("a",), "how nice"), item(1, ("b",), "go away")))
    for alike, rule, noun in ((two, "stratified", "texts"), (replace(two, copies="refused"), "random", "clips")):
        with pytest.raises(DataError, match=f"part of split '{rule}' is empty") as caught:
            make_split(alike, SplitRequest(rule, 0.6, 0.2))
        assert caught.value.hint == f"2 {noun} are too few for three parts"


def test_leaked_rows_are_left_out_of_training(tmp_path: Path) -> None:
    manifest = leaking()
    whole = make_split(manifest, SplitRequest("table"))
    with pytest.raises(DataError, match="the training split has no example of: b"):
        make_split(manifest, SplitRequest("table", drop_leaked=True))
    more = replace(manifest, items=(*manifest.items, item(20, ("b",), split="train")))
    split = make_split(more, SplitRequest("table", drop_leaked=True))
    assert split.dropped == ("r0000", "r0001", "r0002", "r0003")
    assert split.train == ("r0004", "r0020")
    assert (split.val, split.test) == (whole.val, whole.test)
    assert split_notes(more, split) == ["4 training rows were left out, as validation or test has copies of them"]
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split


def test_validation_is_drawn_where_the_corpus_has_none() -> None:
    manifest = corpus()
    items = tuple(replace(i, split="test" if k >= 300 else "train") for k, i in enumerate(manifest.items))
    own = replace(manifest, items=items)
    split = make_split(own, SplitRequest("table", 0.8, 0.2 - 1e-9))
    assert (len(split.train), len(split.val), len(split.test)) == (240, 60, 100)
    assert counts(own, split.val)["d"] in (1, 2)
    assert split_notes(own, split) == ["strings has no validation rows: 60 were drawn from its training rows"]
    with pytest.raises(DataError, match="the val part of split 'table' is empty"):
        make_split(replace(own, copies="refused"), SplitRequest("table"))


def test_how_copies_are_taken_is_saved(tmp_path: Path) -> None:
    corpus().save(tmp_path / "m.jsonl")
    assert Manifest.load(tmp_path / "m.jsonl").copies == "reported"
    replace(corpus(), copies="refused").save(tmp_path / "m.jsonl")
    assert "copies" not in (tmp_path / "m.jsonl").read_text().splitlines()[0]
    assert Manifest.load(tmp_path / "m.jsonl").copies == "refused"


def test_large_units_starve_no_part() -> None:
    """Four templates of nearly equal size, as journals filled in by rote have them, and one text of its own."""
    units = [[Item(f"{k}-{n:02d}", "", {"mood": ("ab"[n % 2],)}) for n in range(40 - k)] for k in range(4)]
    units.append([Item("x", "", {"mood": ("a",)})])
    for seed in range(5):
        parts = stratify(units, {"train": 0.8, "val": 0.1, "test": 0.1}, seed, first="train")
        sizes = {part: len(items) for part, items in parts.items()}
        assert min(sizes["val"], sizes["test"]) >= 8
        assert sizes["train"] >= 62
        assert sum(sizes.values()) == 155
        assert {item.labels["mood"] for item in parts["train"]} == {("a",), ("b",)}
    # Nothing is moved that would starve another part, or take a label from training.
    few = [[Item(f"{k}-{n}", "", {"mood": ("ab"[k],)}) for n in range(20)] for k in range(2)]
    parts = stratify(few, {"train": 0.6, "val": 0.2, "test": 0.2}, 0, first="train")
    assert {part: len(items) for part, items in parts.items()} == {"train": 40, "val": 0, "test": 0}
