"""One recording or text under two answers: at best one of them is right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from samo.data.manifest import Item, Manifest
from samo.data.near_duplicates import folded
from samo.errors import first_few

__all__ = ["about_conflicts"]

_LISTED = 3


def about_conflicts(manifest: Manifest, ids: Iterable[str]) -> list[str]:
    """A line on items of equal content (texts: but for case and white space) with different labels.

    Args:
        manifest: the corpus.
        ids: of the items that are looked at.
    """
    is_text = manifest.copies == "reported"
    same: dict[str, list[Item]] = defaultdict(list)
    for row in manifest.rows(ids):
        item = manifest.items[row]
        same[folded(item.source) if is_text else item.content or item.id].append(item)
    found = [items for items in same.values() if len({_answers(item) for item in items}) > 1]
    if not found:
        return []
    listed = first_few((_example(items, is_text) for items in found), _LISTED)
    what = "text" if is_text else "recording"
    stands = f"{what} stands" if len(found) == 1 else f"{what}s stand"
    return [f"{len(found):,} {stands} several times under different labels: {listed}"]


def _answers(item: Item) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(sorted((task, tuple(sorted(labels))) for task, labels in item.labels.items()))


def _example(items: list[Item], is_text: bool) -> str:
    first = items[0]
    other = next(item for item in items if _answers(item) != _answers(first))
    names = [f"{item.id if is_text else item.source} ({_labels(item)})" for item in (first, other)]
    return " = ".join(names)


def _labels(item: Item) -> str:
    return ", ".join("+".join(labels) or "none" for _, labels in sorted(item.labels.items()))
