"""Splits: no speaker on two sides, the same on every machine, as balanced as speakers allow."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samo.data.leaks import audit, find_leaks
from samo.data.manifest import Item, Manifest
from samo.data.splits import PARTS, SPLIT_RULES, Split, SplitRequest, fold_count, fold_warnings, make_split
from samo.errors import DataError, LeakError, RunError, SettingsError
from samo.tasks import LabelSpace, Task

SPACE = LabelSpace((Task("emotion", ("angry", "happy", "sad")),))
FOLDS = tuple(frozenset(f"s{2 * k + j:02d}" for j in range(2)) for k in range(5))


def corpus(n_speakers: int = 10, per_speaker: int = 6, **values: Any) -> Manifest:
    """Every speaker says each class equally often; odd speakers are men; the table's split goes by speaker."""
    items = tuple(
        Item(
            id=f"s{speaker:02d}-{take}",
            source=f"s{speaker:02d}/{take}.wav",
            labels={"emotion": (SPACE.primary.labels[take % 3],)},
            group=f"s{speaker:02d}",
            meta={"gender": "fm"[speaker % 2]},
            content=f"{speaker}/{take}",
            split="test" if speaker == 0 else "val" if speaker == 1 else "train",
        )
        for speaker in range(n_speakers)
        for take in range(per_speaker)
    )
    return Manifest("corpus", SPACE, items, Path("/data"), **values)


def with_items(manifest: Manifest, **values: Any) -> Manifest:
    return replace(manifest, items=tuple(replace(item, **values) for item in manifest.items))


def speakers(split: Split) -> dict[str, set[str]]:
    return {part: {name.partition("-")[0] for name in split.part(part)} for part in PARTS}


def split_of(manifest: Manifest, rule: str = "speaker", **values: Any) -> Split:
    return make_split(manifest, SplitRequest(rule, **values))


@pytest.mark.parametrize("rule", SPLIT_RULES)
@pytest.mark.parametrize("folds", [(), FOLDS])
def test_every_rule(rule: str, folds: tuple[frozenset[str], ...], tmp_path: Path) -> None:
    manifest = corpus(folds=folds)
    for seed in range(5):
        split = split_of(manifest, rule, seed=seed)
        together = sorted(split.train + split.val + split.test)
        assert together == [item.id for item in manifest.items]
        assert all(split.part(part) == tuple(sorted(split.part(part))) for part in PARTS)
        assert all(split.part(part) for part in PARTS) == (rule != "whole")
        assert split == split_of(manifest, rule, seed=seed)
        assert split.leaky == (rule == "random") == bool(find_leaks(manifest, split))
        assert (split.rule, split.seed) == (rule, seed)
        # The order in which a corpus is listed does not matter.
        assert split == split_of(replace(manifest, items=manifest.items[::-1]), rule, seed=seed)
        split.save(tmp_path / "split.json")
        assert Split.load(tmp_path / "split.json") == split
        assert set(json.loads((tmp_path / "split.json").read_text())) == {"rule", "seed", *PARTS}


@pytest.mark.parametrize("rule", ["speaker", "folds", "table"])
@pytest.mark.parametrize("seed", range(10))
def test_no_speaker_on_two_sides(rule: str, seed: int) -> None:
    train, val, test = speakers(split_of(corpus(), rule, seed=seed)).values()
    assert not train & val
    assert not train & test
    assert not val & test


@pytest.mark.parametrize("rule", ["speaker", "random"])
def test_another_seed_another_split(rule: str) -> None:
    manifest = corpus()
    assert len({split_of(manifest, rule, seed=seed).test for seed in range(5)}) > 1


def test_the_same_split_on_every_machine() -> None:
    """Written down once: a change of Python, numpy or the machine must not move a speaker."""
    found = speakers(split_of(corpus(), seed=0))
    assert (found["val"], found["test"]) == ({"s04"}, {"s01"})
    rows = split_of(corpus(4, 3), "random", train_ratio=0.5, val_ratio=0.25, seed=0)
    assert (rows.val, rows.test) == (("s00-2", "s02-1", "s03-2"), ("s01-0", "s01-1"))
    folds = [sorted(speakers(split_of(corpus(), "folds", fold=fold))["test"]) for fold in range(5)]
    assert folds == [["s01", "s08"], ["s03", "s06"], ["s02", "s07"], ["s04", "s05"], ["s00", "s09"]]
    limited = split_of(corpus(), train_ratio=0.8, val_ratio=0.1, seed=0, limit_fraction=0.4)
    assert speakers(limited) == {"train": {"s05", "s06", "s08"}, "val": {"s04"}, "test": {"s01"}}


def rare(n_speakers: int, holders: tuple[int, ...]) -> Manifest:
    """Only some speakers are ever sad; the others are angry and happy, unequally often."""
    items = tuple(
        Item(
            id=f"s{speaker:02d}-{take}",
            source=f"s{speaker:02d}/{take}.wav",
            labels={"emotion": ("sad" if take == 0 and speaker in holders else ("angry", "happy")[take % 2],)},
            group=f"s{speaker:02d}",
            content=f"{speaker}/{take}",
        )
        for speaker in range(n_speakers)
        for take in range(2 + 9 * (speaker % 3 == 0))
    )
    return Manifest("rare", SPACE, items, Path("/data"))


def emotions(manifest: Manifest, ids: tuple[str, ...]) -> set[str]:
    return {manifest.items[row].labels["emotion"][0] for row in manifest.rows(ids)}


@pytest.mark.parametrize("rule", ["speaker", "folds"])
@pytest.mark.parametrize("seed", range(8))
def test_every_part_has_every_class_where_speakers_allow(rule: str, seed: int) -> None:
    """Some draw gives a sad speaker to each part (there are three, or seven for five folds), whatever the shares."""
    manifest = rare(20, (1, 2, 4, 5, 7, 8, 10) if rule == "folds" else (1, 4, 7))
    for fold in range(5 if rule == "folds" else 1):
        split = split_of(manifest, rule, train_ratio=0.65, val_ratio=0.15, seed=seed, fold=fold)
        assert all(emotions(manifest, split.part(part)) == set(SPACE.primary.labels) for part in PARTS)


def test_training_gets_a_class_that_too_few_speakers_have() -> None:
    manifest = rare(12, (5,))
    for seed in range(8):
        split = split_of(manifest, train_ratio=0.65, val_ratio=0.15, seed=seed)
        assert "sad" in emotions(manifest, split.train)


@pytest.mark.parametrize(
    ("n", "train_ratio", "val_ratio", "sizes"),
    [
        (24, 0.8, 0.1, (20, 2, 2)),
        (10, 0.6, 0.2, (6, 2, 2)),
        (3, 0.8, 0.1, (1, 1, 1)),
        (4, 0.8, 0.1, (2, 1, 1)),
        (3, 0.1, 0.1, (1, 1, 1)),
        (10, 0.05, 0.05, (1, 1, 8)),
        (10, 0.05, 0.9, (1, 8, 1)),
    ],
)
def test_ratios_over_speakers(n: int, train_ratio: float, val_ratio: float, sizes: tuple[int, ...]) -> None:
    split = split_of(corpus(n), train_ratio=train_ratio, val_ratio=val_ratio)
    assert tuple(len(found) for found in speakers(split).values()) == sizes


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_balanced_over_gender(seed: int) -> None:
    found = speakers(split_of(corpus(24), seed=seed))
    men = {part: sum(int(name[1:]) % 2 for name in names) for part, names in found.items()}
    assert men == {"train": 10, "val": 1, "test": 1}


def test_parts_are_balanced_over_class() -> None:
    """Half of the speakers say only angry and happy, the others also sad: both kinds stand in every part."""
    full = with_items(corpus(12), meta={})
    kept = [item for item in full.items if int(item.group[1:]) % 2 or item.labels["emotion"] != ("sad",)]
    manifest = replace(full, items=tuple(kept))
    for seed in range(5):
        split = split_of(manifest, train_ratio=0.66, val_ratio=0.17, seed=seed)
        for part in PARTS:
            labels = Counter(manifest.items[row].labels["emotion"][0] for row in manifest.rows(split.part(part)))
            assert labels["angry"] == labels["happy"] == 2 * labels["sad"]


def test_published_folds() -> None:
    manifest = corpus(folds=FOLDS)
    for fold, expected in enumerate(FOLDS):
        for seed in range(3):
            found = speakers(split_of(manifest, "folds", fold=fold, val_ratio=0.2, seed=seed))
            assert found["test"] == expected
            assert len(found["val"]) == 2
    validated = {frozenset(speakers(split_of(manifest, "folds", seed=seed))["val"]) for seed in range(5)}
    assert len(validated) > 1


def test_missing_speakers_of_published_folds_are_said() -> None:
    known = len({name for fold in FOLDS for name in fold})
    assert fold_warnings(corpus(known, folds=FOLDS), "folds") == []
    few = corpus(4, folds=FOLDS)
    (line,) = fold_warnings(few, "folds")
    assert line.startswith(f"{known - 4} of {known} speakers of the published folds are missing: scores are not")
    assert fold_warnings(few, "speaker") == fold_warnings(corpus(4), "folds") == []


def test_folds_of_a_corpus_without_published_ones() -> None:
    manifest = corpus(13)
    tests = [speakers(split_of(manifest, "folds", fold=fold, seed=fold))["test"] for fold in range(5)]
    assert sorted(len(names) for names in tests) == [2, 2, 3, 3, 3]
    assert sorted(name for names in tests for name in names) == sorted({item.group for item in manifest.items})


def test_folds_that_cannot_be() -> None:
    with pytest.raises(SettingsError, match="fold 5 does not exist") as caught:
        split_of(corpus(folds=FOLDS), "folds", fold=5)
    assert caught.value.hint == "valid: 0 to 4"
    with pytest.raises(DataError, match="no speaker of fold 4 is in the data: s08, s09"):
        split_of(corpus(8, folds=FOLDS), "folds", fold=4)
    with pytest.raises(DataError, match="five folds need at least five speakers, found 4") as caught:
        split_of(corpus(4), "folds")
    assert caught.value.hint == "`num_folds=4` leaves one speaker out at a time"
    with pytest.raises(DataError, match="6 folds need at least 6 speakers, found 5"):
        split_of(corpus(5), "folds", num_folds=6)
    with pytest.raises(SettingsError, match="fold 4 does not exist") as refused:
        split_of(corpus(4), "folds", num_folds=-1, fold=4)
    assert refused.value.hint == "valid: 0 to 3"
    with pytest.raises(DataError, match="fold 0 leaves 1 speaker to train and validate on"):
        split_of(corpus(3, folds=FOLDS), "folds")
    # All but one of the other speakers may validate, none more.
    found = speakers(split_of(corpus(4, folds=FOLDS), "folds", val_ratio=0.9))
    assert (len(found["train"]), len(found["val"])) == (1, 1)


def test_too_few_and_unknown_speakers() -> None:
    with pytest.raises(DataError, match="corpus has 2 speakers; a split by speaker needs at least three"):
        split_of(corpus(2))
    unknown = with_items(corpus(), group="")
    for rule in ("speaker", "folds"):
        with pytest.raises(
            DataError, match=r"no speaker is known for 60 of 60 items: s00-0, s00-1 and 58 more"
        ) as caught:
            split_of(unknown, rule)
        assert caught.value.hint == "name the speakers; or use `split=random`, stamped as leaky"
    with pytest.raises(DataError) as caught:
        split_of(replace(unknown, group_hint="say --who"), "speaker")
    assert caught.value.hint.startswith("say --who; or")
    assert split_of(unknown, "random").leaky
    assert not split_of(unknown, "table").leaky


@pytest.mark.parametrize(("per_class", "n_classes"), [(40, 3), (5, 3), (4, 8), (2, 12), (3, 20)])
def test_random_keeps_the_ratios_also_over_small_classes(per_class: int, n_classes: int) -> None:
    task = Task("emotion", tuple(f"c{k:02d}" for k in range(n_classes)))
    items = tuple(Item(f"{label}-{k}", "x", {"emotion": (label,)}) for label in task.labels for k in range(per_class))
    manifest = Manifest("corpus", LabelSpace((task,)), items, Path("/data"))
    split = split_of(manifest, "random", train_ratio=0.7, val_ratio=0.1)
    n = len(items)
    assert len(split.val) == pytest.approx(0.1 * n, abs=0.51)
    assert len(split.test) == pytest.approx(0.2 * n, abs=0.51)
    for part, ratio in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        counts = Counter(name.partition("-")[0] for name in split.part(part))
        assert all(abs(counts[label] - ratio * per_class) < 1.51 for label in task.labels)
    assert {name.partition("-")[0] for name in split.train} == set(task.labels)


def test_table_rule_refuses_shared_speakers() -> None:
    manifest = corpus()
    moved = replace(manifest.items[0], split="train")
    with pytest.raises(LeakError, match="speakers stand in two splits: s00") as caught:
        split_of(replace(manifest, items=(moved, *manifest.items[1:])), "table")
    assert caught.value.exit_status == 4


@pytest.mark.parametrize("word", ["", "dev"])
def test_table_rule_needs_a_split_for_every_row(word: str) -> None:
    manifest = corpus()
    moved = replace(manifest.items[3], split=word)
    with pytest.raises(DataError, match="assigns none of train, val, test to: s00-3"):
        split_of(replace(manifest, items=(moved, *manifest.items[:3], *manifest.items[4:])), "table")


def test_empty_parts_and_unseen_classes() -> None:
    with pytest.raises(DataError, match="the val part of split 'table' is empty"):
        split_of(with_items(corpus(), split="train", group=""), "table")
    manifest = corpus()
    items = tuple(item for item in manifest.items if item.split != "train" or item.labels["emotion"] != ("sad",))
    with pytest.raises(DataError, match="the training split has no example of: sad"):
        split_of(replace(manifest, items=items), "table")
    items = tuple(item for item in manifest.items if item.labels["emotion"] != ("sad",))
    with pytest.raises(DataError, match="no item of corpus in /data has the class: sad") as caught:
        split_of(replace(manifest, items=items), "speaker")
    assert "`seed`" not in caught.value.hint


def test_unknown_rule_and_part() -> None:
    with pytest.raises(SettingsError, match="unknown split 'rows'") as caught:
        split_of(corpus(), "rows")
    assert caught.value.hint == "valid: speaker, group, folds, random, stratified, table, whole"
    with pytest.raises(SettingsError, match="unknown part 'dev'"):
        split_of(corpus()).part("dev")


def test_audit_refuses_shared_speakers_and_names_files() -> None:
    manifest = corpus()
    split = split_of(manifest)
    assert audit(manifest, split) == []
    moved = replace(split, train=(*split.train, split.test[0]), test=split.test[1:])
    speaker = split.test[0].partition("-")[0]
    with pytest.raises(LeakError, match="the speaker split leaks") as caught:
        audit(manifest, moved)
    assert f"speaker {speaker} is in more than one part: {speaker}/0.wav (train), {speaker}/1.wav (test)" in str(
        caught.value
    )


def test_audit_refuses_copies_and_names_files() -> None:
    manifest = corpus()
    split = split_of(manifest)
    twin, copy = split.train[0], split.test[0]
    items = tuple(replace(item, content="same") if item.id in (twin, copy) else item for item in manifest.items)
    with pytest.raises(LeakError) as caught:
        audit(replace(manifest, items=items), split)
    source = {name: name.replace("-", "/") + ".wav" for name in (twin, copy)}
    assert f"identical content: {source[twin]} (train) = {source[copy]} (test)" in caught.value.message
    # Twice within one part is no leak.
    same = tuple(replace(item, content="same") if item.id in split.train[:2] else item for item in manifest.items)
    assert audit(replace(manifest, items=same), split) == []


def test_audit_sees_an_id_in_two_parts_even_without_speaker_and_content() -> None:
    manifest = with_items(corpus(), group="", content="")
    split = split_of(manifest, "table")
    assert audit(manifest, split) == []
    with pytest.raises(LeakError, match=r"s00/0\.wav \(train\) = s00/0\.wav \(test\)"):
        audit(manifest, replace(split, train=(*split.train, "s00-0")))


def test_audit_of_a_leaky_split_returns_the_leaks() -> None:
    manifest = corpus()
    assert len(audit(manifest, split_of(manifest, "random"))) > 0


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"rule": "speaker", "seed": 0, "train": 1, "val": [], "test": []}'])
def test_damaged_split(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(RunError, match="cannot read the split"):
        Split.load(tmp_path / "split.json")
    with pytest.raises(RunError, match="cannot read the split"):
        Split.load(tmp_path / "none.json")


@pytest.mark.parametrize("rule", ["speaker", "folds", "random"])
def test_a_limited_training_part_is_nested_and_leaves_the_others_alone(rule: str) -> None:
    whole = corpus(20, 6)
    full = split_of(whole, rule, seed=3)
    before: set[str] = set()
    for share in (0.2, 0.5, 0.8):
        split = split_of(whole, rule, seed=3, limit_fraction=share)
        assert (split.val, split.test) == (full.val, full.test)
        assert before < set(split.train) < set(full.train)
        before = set(split.train)
        unit = len(full.train) if rule == "random" else len(speakers(full)["train"])
        kept = len(split.train) if rule == "random" else len(speakers(split)["train"])
        assert kept == round(share * unit)
        # Speakers are kept whole.
        assert rule == "random" or len(split.train) == 6 * kept
    assert split_of(whole, rule, seed=4, limit_fraction=0.5).train != split_of(whole, rule, seed=3).train


def test_a_limited_training_part_keeps_genders_and_classes_in_proportion() -> None:
    whole = corpus(20, 6)
    for share in (0.25, 0.5, 0.75):
        split = split_of(whole, seed=1, limit_fraction=share)
        women = [name for name in speakers(split)["train"] if int(name[1:]) % 2 == 0]
        assert abs(2 * len(women) - len(speakers(split)["train"])) <= 1
        rows = split_of(whole, "random", seed=1, limit_fraction=share).train
        classes = Counter(int(name.partition("-")[2]) % 3 for name in rows)
        assert max(classes.values()) - min(classes.values()) <= 2


def test_at_least_one_speaker_is_kept() -> None:
    assert len(speakers(split_of(corpus(10), limit_fraction=0.01))["train"]) == 1


@pytest.mark.parametrize("pair", [("train", "val"), ("train", "test"), ("val", "test")])
def test_audit_looks_at_every_pair_of_parts(pair: tuple[str, str]) -> None:
    """A speaker, a recording or an id shared with validation leaks as one shared with the test part does."""
    manifest = corpus()
    split = split_of(manifest)
    one, other = (split.part(part) for part in pair)
    speaker = other[0].partition("-")[0]
    moved = replace(split, **{pair[0]: (*one, other[0]), pair[1]: other[1:]})
    with pytest.raises(LeakError, match=f"speaker {speaker} is in more than one part: ") as caught:
        audit(manifest, moved)
    assert all(f"({part})" in caught.value.message for part in pair)
    items = tuple(replace(item, content="same") if item.id in (one[0], other[0]) else item for item in manifest.items)
    with pytest.raises(LeakError, match=rf"identical content: .*\({pair[0]}\) = .*\({pair[1]}\)"):
        audit(replace(manifest, items=items), split)
    with pytest.raises(LeakError, match=rf"\({pair[0]}\) = .*\({pair[1]}\)"):
        audit(with_items(manifest, group="", content=""), replace(split, **{pair[0]: (*one, other[0])}))


def test_the_seed_decides_which_speakers_a_limited_part_keeps() -> None:
    """Under the table's own split nothing else is drawn."""
    kept = {split_of(corpus(20), "table", seed=seed, limit_fraction=0.25).train for seed in range(5)}
    assert len(kept) == 5


@pytest.mark.parametrize(("num_folds", "sizes"), [(4, [1, 1, 1, 1]), (-1, [1, 1, 1, 1]), (2, [2, 2]), (3, [2, 1, 1])])
def test_as_many_folds_as_asked_for(num_folds: int, sizes: list[int]) -> None:
    """Four speakers, as SAVEE has: each is tested once, and published folds give way."""
    for published in ((), FOLDS):
        manifest = corpus(4, folds=published)
        assert fold_count(manifest, num_folds) == len(sizes)
        found = [
            speakers(split_of(manifest, "folds", fold=fold, num_folds=num_folds, seed=fold))
            for fold in range(len(sizes))
        ]
        assert [len(parts["test"]) for parts in found] == sizes
        assert sorted(name for parts in found for name in parts["test"]) == ["s00", "s01", "s02", "s03"]
        assert all(parts["train"] and parts["val"] for parts in found)
        assert all(not parts["test"] & (parts["train"] | parts["val"]) for parts in found)
