"""Finding strings that stand twice, word for word or nearly so.

Three grades: *word for word* is equal but for case and white space (:func:`folded`); *alike* is equal but for
punctuation too (:func:`bare`); *near* is a Jaccard similarity of the sets of character 5-grams of at least
:data:`NEAR`. The search for near copies is exact, not a sketch: two sets of that similarity share a member among the
rarest few of each (prefix filtering: Chaudhuri, Ganti & Kaushik 2006; Bayardo, Ma & Srikant 2007), so comparing rows
that meet there misses none. 54,000 texts of 12 words take a few seconds.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

__all__ = ["NEAR", "Copies", "bare", "find_copies", "find_near_copies", "folded", "near_pairs"]

NEAR = 0.8
"""Least Jaccard similarity of a near copy."""
_GRAM = 5
# Longer strings are compared by their beginning: a megabyte of text would weigh as much as a corpus.
_LONGEST = 2000
_PAIRS_AT_ONCE = 1 << 18
# Bits of a key: row, commonness of the n-gram, its hash.
_COMMON_BITS = 11
_KEY_BITS = 63
_WORDS = 8
# Least similarity of two near copies in what most rows do not share.
_NEAR_IN_REST = 0.5
# n-grams in more than this share of the rows are no sign of a copy.
_BOILERPLATE = 0.5
# Of fewer rows the half may well be copies of one another.
_FEW = 40
# Pairs of rows meet in their n-grams at most so often, or the search would take minutes.
_MOST_MEETINGS = 1 << 24


def folded(text: str) -> str:
    """The text without differences of case and white space; equal results are copies word for word."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def bare(text: str) -> str:
    """:func:`folded` and without punctuation and variation selectors; all of it where nothing else is left."""
    plain = folded(text)
    return " ".join(plain.translate(_KEPT).split()) or plain


class _Kept(dict[int, "int | str"]):
    """What each character is replaced by, found as characters turn up."""

    def __missing__(self, code: int) -> int | str:
        kind = unicodedata.category(chr(code))
        # An apostrophe or a selector stands inside a word, other marks between words.
        kept: int | str = "" if kind in ("Mn", "Cf") or chr(code) in "'\u2019" else " " if kind[0] == "P" else code
        self[code] = kept
        return kept


_KEPT = _Kept()


@dataclass(frozen=True)
class Copies:
    """Rows of one part that stand in others too.

    Attributes:
        same: rows found word for word, as a set of row numbers.
        near: further rows found alike or nearly so.
        searched: rows that share only phrases which more than this share of the rows have were not compared, since
            there were too many; 1 = all were.
    """

    same: frozenset[int]
    near: frozenset[int]
    searched: float = 1.0

    @property
    def all(self) -> frozenset[int]:
        """Rows of either grade."""
        return self.same | self.near


@lru_cache(maxsize=8)
def find_copies(texts: tuple[str, ...], others: tuple[str, ...]) -> Copies:
    """Which of ``texts`` also stand in ``others``, as row numbers within ``texts``; the last answers are remembered."""
    known = {folded(text) for text in others}
    same = frozenset(row for row, text in enumerate(texts) if folded(text) in known)
    own, theirs = list(map(_body, texts)), set(map(_body, others))
    # A row that stands there many times, or is met in many wordings, is looked up once.
    unsure, known_bodies = sorted(set(own) - theirs), sorted(theirs)
    pairs, limit = _near_copies([*unsure, *known_bodies], np.repeat([0, 1], [len(unsure), len(known_bodies)]))
    found = theirs.union(unsure[row] for row in pairs[:, 0])
    return Copies(same, frozenset(row for row, body in enumerate(own) if body in found) - same, limit)


@lru_cache(maxsize=4)
def near_pairs(texts: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Pairs of rows that are alike or nearly so; the last answers are remembered.

    Rows that are alike are paired with the first of them only, and that one with what is nearly so: whoever puts the
    two of each pair together has all of them together.
    """
    first: dict[str, int] = {}
    alike = [(first.setdefault(_body(text), row), row) for row, text in enumerate(texts)]
    rows = list(first.values())
    near, _ = _near_copies(list(first), np.arange(len(rows)))
    return (*((one, other) for one, other in alike if one != other), *((rows[a], rows[b]) for a, b in near.tolist()))


def find_near_copies(texts: Sequence[str], parts: Sequence[int] | np.ndarray) -> np.ndarray:
    """All pairs of rows in different parts that are alike or nearly so (equal ones included).

    Args:
        texts: N strings.
        parts: (N,) the part each stands in, as integers from 0.

    Returns:
        (P, 2) int64 row numbers, the row of the lower part first, sorted.
    """
    part = np.asarray(parts, dtype=np.int64)
    if len(part) != len(texts):
        raise ValueError(f"{len(texts)} texts, {len(part)} parts")
    return _near_copies(list(map(_body, texts)), part)[0]


def _body(text: str) -> str:
    """What of a text is compared."""
    return bare(text[:_LONGEST])


def _near_copies(bodies: Sequence[str], part: np.ndarray) -> tuple[np.ndarray, float]:
    """The pairs of :func:`find_near_copies`, and the ``searched`` of :class:`Copies`."""
    whole = rest = _Sets.of(bodies)
    if len(bodies) >= _FEW:
        rest = whole.without_common(bodies)
    rows, partners, searched = _meetings(rest)
    found = []
    for pairs in _candidates(rows, partners, part):
        pairs = pairs[rest.similar(pairs)]
        found.append(pairs if rest is whole else pairs[whole.similar(pairs)])
    if not found:
        return np.empty((0, 2), dtype=np.int64), searched
    pairs = np.unique(np.concatenate(found), axis=0)
    swapped = part[pairs[:, 0]] > part[pairs[:, 1]]
    pairs[swapped] = pairs[swapped, ::-1]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))], searched


@dataclass(frozen=True)
class _Sets:
    """The distinct character n-grams of N strings.

    Attributes:
        keys: (M,) int64, sorted: row, commonness of the n-gram and its hash, from the highest bits down.
        starts: (N + 1,) where each row's keys begin.
        bits: how many of a key's low bits tell the n-gram.
        maps: (N, 8) uint64; each n-gram of a row flips one of its 512 bits.
        near: least Jaccard similarity of two sets that are alike.
    """

    keys: np.ndarray
    starts: np.ndarray
    bits: int
    maps: np.ndarray
    near: float = NEAR

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Sets:
        """Cut the strings up; a space on both sides and padding behind give the shortest n-grams too."""
        padded = [f" {text} ".ljust(_GRAM) for text in texts]
        codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
        lengths = np.array([len(text) for text in padded], dtype=np.int64)
        hashed = np.zeros(max(0, len(codes) - _GRAM + 1), dtype=np.uint64)
        for shift in range(_GRAM):
            hashed = (hashed ^ codes[shift : shift + len(hashed)]) * np.uint64(0x9E3779B97F4A7C15)
            hashed ^= hashed >> np.uint64(29)
        hashed = hashed[_ranges(np.cumsum(lengths) - lengths, lengths - _GRAM + 1)]
        bits = _KEY_BITS - len(texts).bit_length()
        gram = (hashed >> np.uint64(64 - bits + _COMMON_BITS)).astype(np.int64)
        # Any order common to all rows will do, so that counting n-grams by some bits of their hash is good enough.
        bucket = (hashed & np.uint64((1 << 22) - 1)).astype(np.int64)
        common = (50 * np.log2(np.bincount(bucket)[bucket])).astype(np.int64) if len(bucket) else bucket
        rows = np.repeat(np.arange(len(texts)), lengths - _GRAM + 1)
        keys = _distinct((rows << bits) | (common << (bits - _COMMON_BITS)) | gram)
        starts = np.searchsorted(keys, np.arange(len(texts) + 1) << bits)
        return cls(keys, starts, bits, _bitmaps(keys, starts))

    def without_common(self, texts: Sequence[str]) -> _Sets:
        """The same sets without the n-grams that more than half of the rows have; itself where there are none.

        A set that would end empty becomes the whole of its text as one member.
        """
        most = _BOILERPLATE * len(texts)
        grams = self.grams
        # The commonness inside a key counts an n-gram as often as it stands there and others with it: never too low.
        often = grams >> (self.bits - _COMMON_BITS) >= int(50 * np.log2(max(most, 1.0)))
        shared, counts = np.unique(grams[often], return_counts=True)
        shared = shared[counts > most]
        if not len(shared):
            return self
        kept = ~np.isin(grams, shared)
        rows = self.keys >> self.bits
        emptied = np.setdiff1d(np.arange(len(texts)), rows[kept])
        own = (1 << (self.bits - _COMMON_BITS)) - 1
        whole = [(int(row) << self.bits) | (_hash_of(texts[row]) & own) for row in emptied]
        keys = np.sort(np.concatenate([self.keys[kept], np.array(whole, dtype=np.int64)]))
        starts = np.searchsorted(keys, np.arange(len(texts) + 1) << self.bits)
        return replace(self, keys=keys, starts=starts, maps=_bitmaps(keys, starts), near=_NEAR_IN_REST)

    @property
    def sizes(self) -> np.ndarray:
        """(N,) distinct n-grams of each row."""
        return np.diff(self.starts)

    @property
    def grams(self) -> np.ndarray:
        """(M,) n-grams in the order of the keys: within a row the rarest first."""
        grams: np.ndarray = self.keys & ((1 << self.bits) - 1)
        return grams

    def similar(self, pairs: np.ndarray) -> np.ndarray:
        """Whether each pair of rows has a Jaccard similarity of at least ``near``, (P,) bool."""
        both = self.sizes[pairs].sum(axis=1)
        # The sets differ in at least as many n-grams as the maps in bits (Sandes, Teodoro & Melo 2020).
        flipped = np.bitwise_count(self.maps[pairs[:, 0]] ^ self.maps[pairs[:, 1]]).sum(axis=1, dtype=np.int64)
        found = flipped <= (1.0 - self.near) / (1.0 + self.near) * both + 1e-9
        left, right = pairs[found].T
        sizes = self.sizes[left]
        owner = np.repeat(np.arange(len(left)), sizes)
        wanted = (np.repeat(right, sizes) << self.bits) | self.grams[_ranges(self.starts[left], sizes)]
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        shared = np.bincount(owner[self.keys[at] == wanted], minlength=len(left))
        found[found] = shared >= self.near * (both[found] - shared) - 1e-9
        return found


def _hash_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")


def _bitmaps(keys: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(N, 8) uint64 parity maps of the rows' n-grams."""
    maps = np.zeros((len(starts) - 1, _WORDS), dtype=np.uint64)
    bit = np.uint64(1) << (keys & 63).astype(np.uint64)
    for word in range(_WORDS if len(keys) else 0):
        own = np.where((keys >> 6) & (_WORDS - 1) == word, bit, np.uint64(0))
        maps[:, word] = np.bitwise_xor.reduceat(own, starts[:-1])
    return maps


def _meetings(sets: _Sets) -> tuple[np.ndarray, np.ndarray, float]:
    """Where rows meet: (M,) rows ordered by n-gram, and how many of those behind each it meets in that n-gram.

    They are the rarest n-grams of each row, among rows of similar size. The third value is ``searched`` of
    :class:`Copies`.
    """
    n, sizes = len(sets.sizes), sets.sizes
    # Sets of Jaccard similarity s overlap in at least s of the larger, so not all of the overlap is behind the prefix.
    prefix = sizes - np.ceil(sets.near * sizes - 1e-9).astype(np.int64) + 1
    rows = np.repeat(np.arange(n), prefix)
    grams = np.unique(sets.grams[_ranges(sets.starts[:-1], prefix)], return_inverse=True)[1]
    # Within an n-gram by size, so that a row meets only those behind it that are not too long.
    order = np.lexsort((sizes[rows], grams))
    rows, grams = rows[order], grams[order]
    span = sizes.max(initial=0) + 1
    longest = np.minimum(np.floor(sizes[rows] / sets.near + 1e-9).astype(np.int64), span - 1)
    last = np.searchsorted(grams * span + sizes[rows], grams * span + longest, side="right")
    partners = last - np.arange(len(rows)) - 1
    if partners.sum() <= _MOST_MEETINGS:
        return rows, partners, 1.0
    met, held = np.bincount(grams, partners), np.bincount(grams)
    rarest_first = np.argsort(held, kind="stable")
    left_out = rarest_first[np.cumsum(met[rarest_first]) > _MOST_MEETINGS]
    partners[np.isin(grams, left_out)] = 0
    return rows, partners, float(held[left_out].min() / n)


def _candidates(rows: np.ndarray, partners: np.ndarray, part: np.ndarray) -> Iterator[np.ndarray]:
    """(P, 2) rows of different parts that meet, see :func:`_meetings`, in batches."""
    n = len(part)
    for chunk in np.split(np.arange(len(rows)), _chunk_ends(partners)):
        first = np.repeat(rows[chunk], partners[chunk])
        second = rows[_ranges(chunk + 1, partners[chunk])]
        apart = part[first] != part[second]
        first, second = first[apart], second[apart]
        keys = _distinct(np.minimum(first, second) * n + np.maximum(first, second))
        if len(keys):
            yield np.stack([keys // n, keys % n], axis=1)


def _chunk_ends(partners: np.ndarray) -> np.ndarray:
    """Where to split so that each chunk makes about :data:`_PAIRS_AT_ONCE` pairs."""
    done = np.cumsum(partners)
    steps = np.arange(_PAIRS_AT_ONCE, int(done[-1]) if len(done) else 0, _PAIRS_AT_ONCE)
    return np.unique(np.searchsorted(done, steps))


def _distinct(keys: np.ndarray) -> np.ndarray:
    """``np.unique(keys)`` of integers from 0, (M,): NumPy 2.4 hashes them, in forty times the time of a sort."""
    ordered = np.sort(keys)
    return ordered[np.diff(ordered, prepend=-1) != 0]


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``[*range(s, s + c) for s, c in zip(starts, counts)]`` as one array."""
    return np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
