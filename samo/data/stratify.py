"""Drawing parts whose shares of every label are alike, for items that need not stay with their group."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from samo.data.manifest import Item
from samo.data.near_duplicates import bare, near_pairs

__all__ = ["inseparable", "label_keys", "rank", "rarest_labels", "stratify"]

Key = tuple[str, str]


def label_keys(item: Item) -> list[Key]:
    """Task and label of everything an item answers; an answer of "none of them" has an empty label."""
    return [(task, label) for task, labels in sorted(item.labels.items()) for label in labels or ("",)]


def inseparable(items: Iterable[Item], *, near: bool = False) -> list[list[Item]]:
    """Items in sets that must stay in one part: those of one group, and those whose sources are alike.

    Args:
        items: of a manifest.
        near: also keep near copies together, and what is near to those.
    """
    leader: dict[str, str] = {}

    def lead(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    own: dict[str, str] = {}
    ordered = sorted(items, key=lambda item: item.id)
    for item in ordered:
        own[item.id] = f"source {bare(item.source)}"
        if item.group:
            leader[lead(f"group {item.group}")] = lead(own[item.id])
    sources = tuple(item.source for item in ordered) if near else ()
    for one, other in near_pairs(sources):
        leader[lead(own[ordered[one].id])] = lead(own[ordered[other].id])
    sets: dict[str, list[Item]] = defaultdict(list)
    for item in ordered:
        sets[lead(own[item.id])].append(item)
    return list(sets.values())


def stratify(
    units: Sequence[Sequence[Item]], shares: Mapping[str, float], seed: int, first: str = ""
) -> dict[str, list[Item]]:
    """Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, algorithm 1) of units of several items.

    Always the label with the fewest items left is dealt out: each of its units goes to the part that lacks most items
    of that label, then most items at all. So rare labels are shared out before common ones crowd them out. A part that
    large units left with less than half of its share then gets one.

    Args:
        units: items that stay together.
        shares: of all items, by part; they sum to 1.
        seed: of the order in which units are dealt.
        first: a part that gets the first unit of every label; empty for none.

    Returns:
        Items by part.
    """
    counts = [Counter(key for item in unit for key in label_keys(item)) for unit in units]
    ranks = [(-len(unit), rank(seed, unit[0].id)) for unit in units]
    order = sorted(range(len(units)), key=ranks.__getitem__)
    holders: dict[Key, list[int]] = defaultdict(list)
    left: Counter[Key] = Counter()
    for number in order:
        left.update(counts[number])
        for key in counts[number]:
            holders[key].append(number)
    wanted = {part: {key: share * n for key, n in left.items()} for part, share in shares.items()}
    room = {part: share * sum(map(len, units)) for part, share in shares.items()}
    seen: set[Key] = set()
    home: dict[int, str] = {}

    def deal(number: int, part: str) -> None:
        home[number] = part
        room[part] -= len(units[number])
        for key, n in counts[number].items():
            wanted[part][key] -= n
            left[key] -= n
        if part == first:
            seen.update(counts[number])

    while open_keys := [key for key, n in left.items() if n > 0]:
        key = min(open_keys, key=lambda key: (left[key], key))
        for number in holders[key]:
            if number in home:
                continue
            lacking = {part: (wanted[part][key], room[part]) for part in shares}
            deal(number, first if first and key not in seen else max(lacking, key=lacking.__getitem__))
    for number in order:
        if number not in home:
            deal(number, max(room, key=room.__getitem__))
    _feed_starved(home, [len(unit) for unit in units], counts, shares, first)
    return {part: [item for number in order if home[number] == part for item in units[number]] for part in shares}


def _feed_starved(
    home: dict[int, str], sizes: Sequence[int], counts: Sequence[Counter[Key]], shares: Mapping[str, float], first: str
) -> None:
    """Move units to parts that got less than half of their share, where large units went elsewhere.

    What the move takes it from keeps half of its share, and ``first`` an example of every label it had.
    """
    n = sum(sizes)

    def size(part: str) -> int:
        return sum(sizes[number] for number, own in home.items() if own == part)

    def may_leave(number: int, part: str) -> bool:
        if size(part) - sizes[number] < shares[part] * n / 2:
            return False
        rest = {key for other, own in home.items() if own == part and other != number for key in counts[other]}
        return part != first or rest >= set(counts[number])

    for part in shares:
        while size(part) < shares[part] * n / 2:
            lack = shares[part] * n - size(part)
            free = [number for number, own in sorted(home.items()) if own != part and may_leave(number, own)]
            if not free:
                break
            home[min(free, key=lambda number: (abs(sizes[number] - lack), number))] = part


def rarest_labels(items: Sequence[Item]) -> dict[str, str]:
    """By item id the rarest of its labels, a stratum that also rows with unusual sets of labels share with others."""
    counts = Counter(key for item in items for key in label_keys(item))

    def rarest(item: Item) -> Key:
        return min(label_keys(item), key=lambda key: (counts[key], key), default=("", ""))

    return {item.id: "=".join(rarest(item)) for item in items}


def rank(seed: int, name: str) -> bytes:
    """A place for ``name`` in an order that depends on the seed alone, the same on every machine."""
    return hashlib.sha256(f"{seed}:{name}".encode(errors="surrogateescape")).digest()
