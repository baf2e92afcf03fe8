"""Words compared at a shift: which pairs are near copies, and how alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_splits import corpus, split_of

from samo.data.fingerprints import Fingerprints, near_copies
from samo.data.leaks import audit, find_near_leaks
from samo.data.manifest import Manifest
from samo.data.splits import Split
from samo.errors import LeakError, RunError

RATE = 62.5


def words(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 32, n, dtype=np.uint64).astype(np.uint32)


def prints(**given: np.ndarray) -> Fingerprints:
    """All frames from 0 on of each item."""
    return Fingerprints.of("test", RATE, [(name, each, np.arange(len(each))) for name, each in given.items()])


def flipped(given: np.ndarray, bits: int, every: int = 1) -> np.ndarray:
    """The lowest bits of every so manieth word turned."""
    changed = given.copy()
    changed[::every] ^= np.uint32((1 << bits) - 1)
    return changed


def test_a_cut_copy_is_found_with_its_share_of_equal_bits_and_its_seconds() -> None:
    whole = words(100)
    # 75 words from the 26th on, 4 of 32 bits turned in every one.
    found = near_copies(prints(whole=whole), prints(cut=flipped(whole[25:], 4), other=words(90, 1)))
    assert [(pair.first, pair.second, pair.alike, pair.seconds) for pair in found] == [("whole", "cut", 0.875, 1.2)]
    assert str(found[0]) == "88% alike over 1.2 s"


def test_overlapping_cuts_are_compared_where_both_are() -> None:
    whole = words(150)
    (found,) = prints(first=whole[:100], second=whole[60:]).pairs
    assert (found.first, found.second, found.alike, found.seconds) == ("first", "second", 1.0, 0.64)


@pytest.mark.parametrize(("bits", "found"), [(6, 1), (7, 0)])
def test_a_fifth_of_the_bits_may_differ(bits: int, found: int) -> None:
    # 6 of 32 are 18.75 %, 7 are 21.9 %.
    assert len(prints(a=words(80), b=flipped(words(80), bits)).pairs) == found


@pytest.mark.parametrize(("overlap", "found"), [(31, 1), (30, 0)])
def test_half_a_second_must_be_in_both(overlap: int, found: int) -> None:
    whole = words(200)
    assert len(prints(a=whole[: 100 + overlap], b=whole[100:]).pairs) == found


def test_frames_left_out_move_nothing() -> None:
    whole, kept = words(120), np.random.default_rng(5).random(120) < 0.7
    made = Fingerprints.of("test", RATE, [("a", whole, np.arange(120)), ("b", whole[kept], np.flatnonzero(kept) + 9)])
    (found,) = made.pairs
    assert (found.alike, found.seconds) == (1.0, kept.sum() / RATE)


def test_all_pairs_of_many_are_those_of_comparing_each_with_each() -> None:
    rng = np.random.default_rng(3)
    whole = {f"n{row:02d}": words(int(rng.integers(0, 90)), 100 + row) for row in range(40)}
    for row in range(0, 40, 4):
        source = words(120, 900 + row)
        whole[f"n{row:02d}"] = source[: int(rng.integers(60, 110))]
        whole[f"n{row + 1:02d}"] = flipped(source[int(rng.integers(0, 40)) :], int(rng.integers(0, 12)), 2)
    made = prints(**whole)
    slow = set()
    for a in range(40):
        for b in range(a + 1, 40):
            x, y = whole[f"n{a:02d}"], whole[f"n{b:02d}"]
            for shift in range(-120, 120):
                n = min(len(x), len(y) - shift) - max(0, -shift)
                if n >= 31:
                    i = max(0, -shift)
                    if np.bitwise_count(x[i : i + n] ^ y[i + shift : i + shift + n]).sum() <= 0.2 * 32 * n:
                        slow.add((f"n{a:02d}", f"n{b:02d}"))
    assert len(slow) == 10
    assert {(pair.first, pair.second) for pair in made.pairs} == slow
    # The same from two sides.
    left, right = (
        made.only([f"n{row:02d}" for row in range(0, 40, 2)]),
        made.only([f"n{r:02d}" for r in range(1, 40, 2)]),
    )
    assert {(pair.first, pair.second) for pair in near_copies(left, right)} == slow


def test_a_word_everywhere_says_nothing_and_costs_nothing() -> None:
    """Items whose words are all equal meet at every shift; the table leaves such words out."""
    made = prints(**{f"n{row}": np.zeros(100, dtype=np.uint32) for row in range(60)})
    assert made.pairs == ()


def test_saved_and_read(tmp_path: Path) -> None:
    made = prints(**{"a/ä": words(80), "none": words(0), "b": flipped(words(80), 4)})
    made.save(tmp_path / "all.npz", pairs=True)
    read = Fingerprints.load(tmp_path / "all.npz")
    assert "pairs" in vars(read)
    assert (read.kind, read.rate, read.ids, read.pairs) == ("test", RATE, ("a/ä", "none", "b"), made.pairs)
    assert np.array_equal(read.words, made.words)
    assert np.array_equal(read.frames, made.frames)
    assert made.only(["b", "unknown"]).ids == ("b",)
    made.only(["b"]).save(tmp_path / "one.npz")
    assert near_copies(Fingerprints.load(tmp_path / "one.npz"), made.only(["a/ä"]))[0].alike == 0.875


@pytest.mark.parametrize("content", [b"", b"no numbers", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(RunError, match=r"cannot read the fingerprints .*bad\.npz"):
        Fingerprints.load(tmp_path / "bad.npz")


def test_fingerprints_of_two_kinds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="two kinds: test, new"):
        near_copies(prints(a=words(80)), replace(prints(a=words(80)), kind="new"))


def leaking() -> tuple[Manifest, Split]:
    """A training clip is a near copy of a test clip, and another of one in its own part."""
    manifest = corpus()
    split = split_of(manifest)
    copies = {split.train[0]: words(80), split.test[0]: flipped(words(80), 4), split.train[1]: words(80)}
    return replace(manifest, fingerprints=prints(**copies)), split


def test_near_copies_in_two_parts_are_refused() -> None:
    manifest, split = leaking()
    with pytest.raises(LeakError) as caught:
        audit(manifest, split)
    train, test = split.train[0].replace("-", "/"), split.test[0].replace("-", "/")
    other = split.train[1].replace("-", "/")
    for name in (train, other):
        assert f"near copies: {name}.wav (train) and {test}.wav (test), 88% alike over 1.3 s" in caught.value.message
    assert f"{train}.wav (train) and {other}.wav (train)" not in caught.value.message
    assert "`near_copies=report`" in caught.value.hint
    # In one part they are no leak.
    moved = replace(split, train=(*split.train, split.test[0]), test=split.test[1:])
    assert find_near_leaks(manifest, moved) == []


def test_near_copies_are_listed_where_asked_for() -> None:
    manifest, split = leaking()
    lines = audit(replace(manifest, near_copies="report"), split)
    assert len(lines) == 2
    assert all(line.startswith("near copies: ") for line in lines)


def test_identical_content_is_not_called_near_too() -> None:
    manifest, split = leaking()
    items = tuple(
        replace(item, content="same") if item.id in (split.train[0], split.test[0], split.train[1]) else item
        for item in manifest.items
    )
    assert find_near_leaks(replace(manifest, items=items), split) == []


def test_the_digest_does_not_know_of_fingerprints() -> None:
    manifest, _ = leaking()
    assert manifest.digest == corpus().digest
    assert manifest == corpus()
