"""Finding recordings that stand twice, nearly so: at another level or rate, coded, inverted, cut, or overlapping.

A fingerprint is a row of 32-bit words, one a frame (Haitsma & Kalker 2002, "A Highly Robust Audio Fingerprinting
System"); what a bit means is up to the modality that makes them. Two items are near copies where, at one shift, the
words of the frames both have differ in at most :data:`MOST_DIFFERENT` of their bits. Shifts are found as BLAST finds
them: frames that agree in half a word are looked up in a table, and followed up where their surroundings agree too.
14,400 clips of 4 s take ten seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from samo.errors import RunError
from samo.files import replacing

__all__ = ["LEAST_SECONDS", "MOST_DIFFERENT", "Fingerprints", "NearCopy", "near_copies"]

MOST_DIFFERENT = 0.2
"""Largest share of differing bits of a near copy: chosen on RAVDESS, where two takes of a sentence by one actor come as
close as 0.26, and checked on EMO-DB; see ``benchmarks/fingerprint.py``."""
LEAST_SECONDS = 0.5
"""Least time that both items must have frames in, at the shift they are compared at."""

_BITS = 32
# What is looked up are that many bits of a word, more where there are more words: lowest, middle and highest ones.
_FEWEST_KEY_BITS, _MOST_KEY_BITS = 16, 24
# Frames that stand more often than this in the table say nothing.
_MOST_ALIKE = 4096
# Around a pair of frames found alike: frames looked at, how many must be there, and by how much more they may differ.
_AROUND, _LEAST_AROUND, _MORE_DIFFERENT = (-24, -16, -8, 0, 8, 16, 24), 3, 0.1
_AT_ONCE = 1 << 20
# More than a week of one recording.
_LAST_FRAME = 1 << 26


@dataclass(frozen=True)
class NearCopy:
    """Two items found alike.

    Attributes:
        first: id of one.
        second: id of the other.
        alike: share of equal bits, 1 - :data:`MOST_DIFFERENT` to 1; 0.5 is chance.
        seconds: how long both have frames in.
    """

    first: str
    second: str
    alike: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.alike:.0%} alike over {self.seconds:.1f} s"


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """The fingerprints of N items.

    Attributes:
        kind: how the words were made; only those of one kind are compared.
        rate: frames in a second.
        ids: ids of the items.
        counts: (N,) int64 words of each item; an item may have none.
        words: (M,) uint32, item by item.
        frames: (M,) int64 number of each word's frame in its item, rising; frames that say nothing are left out.
    """

    kind: str
    rate: float
    ids: tuple[str, ...]
    counts: np.ndarray
    words: np.ndarray
    frames: np.ndarray

    @classmethod
    def of(cls, kind: str, rate: float, prints: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> Fingerprints:
        """From id, words and frames of each item."""
        ids, words, frames = zip(*prints, strict=True)
        counts = np.array([len(each) for each in words], dtype=np.int64)
        return cls(
            kind, rate, ids, counts, np.concatenate(words).astype(np.uint32), np.concatenate(frames).astype(np.int64)
        )

    @cached_property
    def owners(self) -> np.ndarray:
        """(M,) row of the item of each word."""
        return np.repeat(np.arange(len(self.ids)), self.counts)

    @cached_property
    def pairs(self) -> tuple[NearCopy, ...]:
        """All near copies among these items, the more alike first."""
        return near_copies(self, self)

    def only(self, ids: Iterable[str]) -> Fingerprints:
        """Those of some of the items; ids without a fingerprint are passed over."""
        wanted = frozenset(ids)
        kept = np.array([name in wanted for name in self.ids], dtype=bool)
        words = kept[self.owners]
        names = tuple(name for name in self.ids if name in wanted)
        return Fingerprints(self.kind, self.rate, names, self.counts[kept], self.words[words], self.frames[words])

    def save(self, path: Path, *, pairs: bool = False) -> None:
        """Write an npz file of about half a kilobyte a clip of 4 s, ``pairs`` with it if asked for."""
        arrays: dict[str, Any] = {
            "kind": np.array(self.kind),
            "rate": np.array(self.rate),
            "ids": np.frombuffer("\0".join(self.ids).encode("utf-8", "surrogateescape"), dtype=np.uint8),
            "counts": self.counts,
            "words": self.words,
            "frames": self.frames.astype(np.min_scalar_type(int(self.frames.max(initial=0)))),
        }
        if pairs:
            row = {name: number for number, name in enumerate(self.ids)}
            found = [(row[pair.first], row[pair.second], pair.alike, pair.seconds) for pair in self.pairs]
            arrays["pairs"] = np.array(found, dtype=np.float64).reshape(-1, 4)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Fingerprints:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                ids = tuple(stored["ids"].tobytes().decode("utf-8", "surrogateescape").split("\0"))
                counts, words, frames = stored["counts"], stored["words"], stored["frames"]
                _check(len(ids), counts, words, frames)
                rate = float(stored["rate"])
                if not 0.0 < rate < math.inf:
                    raise ValueError("its rate is none")
                found = cls(str(stored["kind"]), rate, ids, counts, words, frames.astype(np.int64))
                if "pairs" in stored:
                    found.__dict__["pairs"] = tuple(
                        NearCopy(ids[int(first)], ids[int(second)], float(alike), float(seconds))
                        for first, second, alike, seconds in stored["pairs"]
                    )
                return found
        except Exception as error:  # bytes that are no archive can make numpy's reader stumble anywhere
            raise RunError(f"cannot read the fingerprints {path}: {error}") from error


def _check(n: int, counts: np.ndarray, words: np.ndarray, frames: np.ndarray) -> None:
    """Refuse arrays that do not belong together.

    Raises:
        ValueError: says why.
    """
    kinds = [(array.ndim, array.dtype.kind) for array in (counts, words, frames)]
    if kinds[0] not in ((1, "i"), (1, "u")) or kinds[1] != (1, "u") or kinds[2] not in ((1, "i"), (1, "u")):
        raise ValueError("its arrays are no rows of whole numbers")
    if len(counts) != n or counts.min(initial=0) < 0 or not counts.sum() == len(words) == len(frames):
        raise ValueError("its arrays do not fit each other")
    first = np.zeros(len(frames) + 1, dtype=bool)
    first[np.concatenate([[0], np.cumsum(counts)])] = True
    rises = np.diff(frames.astype(np.int64)) > 0
    if frames.min(initial=0) < 0 or frames.max(initial=0) > _LAST_FRAME or not (rises | first[1:-1]).all():
        raise ValueError("its frames do not rise")


def near_copies(
    left: Fingerprints, right: Fingerprints, most_different: float = MOST_DIFFERENT
) -> tuple[NearCopy, ...]:
    """All pairs of an item of each that are near copies, the more alike first; of one with itself each pair once.

    Args:
        left: N fingerprints.
        right: M fingerprints of the same kind, or ``left`` itself.
        most_different: largest share of differing bits.

    Raises:
        ValueError: they are of two kinds.
    """
    if left.kind != right.kind:
        raise ValueError(f"fingerprints of two kinds: {left.kind}, {right.kind}")
    least = max(1, round(LEAST_SECONDS * left.rate))
    found = _compared(left, right, _shifts(left, right, most_different + _MORE_DIFFERENT))
    found = found[(found["frames"] >= least) & (found["different"] <= most_different * _BITS * found["frames"])]
    share = found["different"] / (_BITS * np.maximum(found["frames"], 1))
    order = np.lexsort((found["right"], found["left"], share))
    pairs = zip(found["left"][order], found["right"][order], share[order], found["frames"][order], strict=True)
    return tuple(NearCopy(left.ids[a], right.ids[b], 1.0 - float(e), float(n) / left.rate) for a, b, e, n in pairs)


@dataclass(frozen=True)
class _Dense:
    """Words by item and frame.

    Attributes:
        starts: (N + 1,) where the frames of each item begin.
        words: words by place, 0 where there is none.
        there: whether there is a word.
    """

    starts: np.ndarray
    words: np.ndarray
    there: np.ndarray

    @classmethod
    def of(cls, prints: Fingerprints) -> _Dense:
        spans = np.zeros(len(prints.ids), dtype=np.int64)
        filled = prints.counts > 0
        spans[filled] = prints.frames[np.cumsum(prints.counts)[filled] - 1] + 1
        starts = np.concatenate([[0], np.cumsum(spans)])
        words, there = np.zeros(starts[-1], dtype=np.uint32), np.zeros(starts[-1], dtype=bool)
        at = starts[prints.owners] + prints.frames
        words[at], there[at] = prints.words, True
        return cls(starts, words, there)

    def at(self, rows: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Words of frames of items, and whether there are any."""
        places = self.starts[rows] + frames
        inside = (frames >= 0) & (places < self.starts[rows + 1])
        places = np.where(inside, places, 0)
        return self.words[places], inside & self.there[places]


def _shifts(left: Fingerprints, right: Fingerprints, most_different: float) -> np.ndarray:
    """(P, 3) distinct rows of ``left`` and ``right`` and the shift in frames at which some of their frames agree."""
    if not len(left.words) or not len(right.words):
        return np.empty((0, 3), dtype=np.int64)
    a, b = _Dense.of(left), _Dense.of(right)
    # A shift, the row on the left and the one on the right as one number.
    middle = int(left.frames.max())
    span = middle + int(right.frames.max()) + 1
    found = []
    # About four words a key: what is compared then grows with the words, not with their square.
    bits = min(max(_FEWEST_KEY_BITS, len(right.words).bit_length() - 2), _MOST_KEY_BITS)
    for begin in (0, (_BITS - bits) // 2, _BITS - bits):
        for mine, theirs in _alike(_keys(left.words, begin, bits), _keys(right.words, begin, bits)):
            rows_a, rows_b = left.owners[mine], right.owners[theirs]
            if left is right:
                once = rows_a < rows_b
                mine, theirs, rows_a, rows_b = mine[once], theirs[once], rows_a[once], rows_b[once]
            close = np.bitwise_count(left.words[mine] ^ right.words[theirs]) <= most_different * _BITS
            mine, theirs, rows_a, rows_b = mine[close], theirs[close], rows_a[close], rows_b[close]
            frames_a, frames_b = left.frames[mine], right.frames[theirs]
            shift = frames_b - frames_a
            different, there = np.zeros(len(mine), dtype=np.int64), np.zeros(len(mine), dtype=np.int64)
            for step in _AROUND:
                word_a, has_a = a.at(rows_a, frames_a + step)
                word_b, has_b = b.at(rows_b, frames_b + step)
                both = has_a & has_b
                different += np.where(both, np.bitwise_count(word_a ^ word_b), 0)
                there += both
            kept = (there >= _LEAST_AROUND) & (different <= most_different * _BITS * there)
            pair = rows_a[kept] * len(right.ids) + rows_b[kept]
            found.append(np.unique(pair * span + shift[kept] + middle))
    pair, shift = np.divmod(np.unique(np.concatenate(found)), span)
    return np.stack([pair // len(right.ids), pair % len(right.ids), shift - middle], axis=1)


def _keys(words: np.ndarray, begin: int, bits: int) -> np.ndarray:
    return (words >> np.uint32(begin)) & np.uint32((1 << bits) - 1)


def _alike(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of equal keys, in batches."""
    order = np.argsort(right, kind="stable")
    ordered = right[order]
    first = np.searchsorted(ordered, left, side="left")
    counts = np.searchsorted(ordered, left, side="right") - first
    counts[counts > _MOST_ALIKE] = 0
    for part in _batches(counts):
        yield np.repeat(part, counts[part]), order[_ranges(first[part], counts[part])]


def _compared(left: Fingerprints, right: Fingerprints, shifts: np.ndarray) -> np.ndarray:
    """The best shift of each pair of rows: ``left``, ``right``, the ``frames`` of both and the ``different`` bits."""
    kind = np.dtype([(name, np.int64) for name in ("left", "right", "frames", "different")])
    if not len(shifts):
        return np.empty(0, dtype=kind)
    # A cut moves the frames by a part of their distance, so that the best shift may be one beside.
    steps = np.array([[0, 0, -1], [0, 0, 0], [0, 0, 1]])
    tried = (shifts[:, None] + steps).reshape(-1, 3)
    found = np.zeros(len(tried), dtype=kind)
    found["left"], found["right"] = tried[:, 0], tried[:, 1]
    ends = np.concatenate([[0], np.cumsum(left.counts)])
    dense = _Dense.of(right)
    for part in _batches(left.counts[tried[:, 0]]):
        rows_a, rows_b, shift = tried[part].T
        counts = left.counts[rows_a]
        owner = np.repeat(np.arange(len(part)), counts)
        places = _ranges(ends[rows_a], counts)
        word, there = dense.at(rows_b[owner], left.frames[places] + shift[owner])
        different = np.where(there, np.bitwise_count(word ^ left.words[places]), 0)
        found["frames"][part] = np.bincount(owner, weights=there, minlength=len(part)).astype(np.int64)
        found["different"][part] = np.bincount(owner, weights=different, minlength=len(part)).astype(np.int64)
    found = found[found["frames"] >= max(1, round(LEAST_SECONDS * left.rate))]
    share = found["different"] / found["frames"]
    found = found[np.lexsort((share, found["right"], found["left"]))]
    best = np.ones(len(found), dtype=bool)
    best[1:] = (np.diff(found["left"]) != 0) | (np.diff(found["right"]) != 0)
    return found[best]


def _batches(counts: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
    """Row numbers, in stretches whose counts add up to about :data:`_AT_ONCE`."""
    done = np.cumsum(counts)
    steps = np.arange(_AT_ONCE, int(done[-1]) if len(done) else 0, _AT_ONCE)
    yield from np.split(np.arange(len(counts)), np.unique(np.searchsorted(done, steps)))


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``[*range(s, s + c) for s, c in zip(starts, counts)]`` as one array."""
    return np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
