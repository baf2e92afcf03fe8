"""Leaks of a split: groups, contents, stretches of a recording and near copies that stand in two of its parts."""

from __future__ import annotations

import math
import os
from collections import defaultdict

from samo.data.copies import STAMPED_SHARE, about_copies, known_rows
from samo.data.grouping import shared_groups
from samo.data.keys import key
from samo.data.manifest import Item, Manifest
from samo.data.splits import PARTS, Split, sources_of
from samo.errors import LeakError, first_ten

__all__ = ["NEAR_COPIES_HINT", "audit", "find_leaks", "find_near_leaks", "is_leaky"]

NEAR_COPIES_HINT = "`near_copies=report` only lists near copies, for recordings that were found alike by mistake"


def find_leaks(manifest: Manifest, split: Split) -> list[str]:
    """One line for each group, content or stretch of a recording that stands in two parts of the split, with the files.

    Copies among strings are left to :func:`audit`.
    """
    parts = {name: [manifest.items[row] for row in manifest.rows(split.part(name))] for name in PARTS}
    leaks = []
    for group, names in shared_groups(parts).items():
        firsts = {name: next((i.source for i in items if key(i.group) == group), "") for name, items in parts.items()}
        examples = ", ".join(f"{source} ({name})" for name, source in firsts.items() if source)
        leaks.append(f"{manifest.group_noun} {names} is in more than one part: {examples}")
    if manifest.copies == "reported":
        return leaks
    leaks += _overlaps(manifest, parts)
    homes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, items in parts.items():
        for item in items:
            homes[item.content or f"id {item.id}"].append((name, item.source))
    for places in homes.values():
        if len({name for name, _ in places}) > 1:
            leaks.append("identical content: " + " = ".join(f"{source} ({name})" for name, source in places))
    return leaks


def _overlaps(manifest: Manifest, parts: dict[str, list[Item]]) -> list[str]:
    """One line for each segment of a recording that overlaps one in another part, whoever speaks."""
    cut = {os.path.realpath(manifest.path(item)) for items in parts.values() for item in items if item.segment}
    recordings: dict[str, list[tuple[float, float, str, Item]]] = defaultdict(list)
    for part, items in parts.items() if cut else ():
        for item in items:
            recording = os.path.realpath(manifest.path(item))
            if recording in cut:
                begin, end = item.segment or (0.0, None)
                recordings[recording].append((begin, math.inf if end is None else end, part, item))
    lines = []
    for segments in recordings.values():
        # The segment of each part that lasts longest so far, in the order they begin.
        latest: dict[str, tuple[float, Item]] = {}
        for begin, end, part, item in sorted(segments, key=lambda segment: segment[:3]):
            lines += [
                f"segments of one recording overlap: {other.id} ({name}) and {item.id} ({part})"
                for name, (until, other) in latest.items()
                if name != part and until > begin
            ]
            if part not in latest or end > latest[part][0]:
                latest[part] = (end, item)
    return lines


def find_near_leaks(manifest: Manifest, split: Split) -> list[str]:
    """One line for each two recordings in two parts of the split that are near copies, with how alike they are."""
    if manifest.fingerprints is None:
        return []
    part = {name: part for part in PARTS for name in split.part(part)}
    items = {item.id: item for item in manifest.items if item.id in part}
    lines = []
    for pair in manifest.fingerprints.pairs:
        if pair.first not in items or pair.second not in items:
            continue
        names = sorted((pair.first, pair.second), key=lambda name: PARTS.index(part[name]))
        first, second = (items[name] for name in names)
        # Those of equal content are listed as such.
        if part[first.id] != part[second.id] and first.content != second.content:
            places = [f"{item.source} ({part[item.id]})" for item in (first, second)]
            lines.append(f"near copies: {' and '.join(places)}, {pair}")
    return lines


def audit(manifest: Manifest, split: Split) -> list[str]:
    """Refuse a split that leaks; return the leaks of a split that was asked to be leaky, and lines on what is not
    refused: copies among strings, and near copies of recordings where the manifest says so.

    Raises:
        LeakError: names the files or groups on both sides.
    """
    leaks, near = find_leaks(manifest, split), find_near_leaks(manifest, split)
    refused = leaks + (near if manifest.near_copies == "refuse" else [])
    if refused and not split.leaky:
        way_on = f"; {NEAR_COPIES_HINT}" if len(refused) > len(leaks) else ""
        raise LeakError(
            f"the {split.rule} split leaks: {first_ten(refused)}",
            hint=f"remove the copies, or give them the same {manifest.group_noun}{way_on}",
        )
    return leaks + near + (about_copies(sources_of(manifest, split)) if manifest.copies == "reported" else [])


def is_leaky(manifest: Manifest, split: Split, part: str = "test") -> bool:
    """Whether scores of a part are to be stamped: the rule leaks, or too many of its texts stand in train."""
    if split.leaky or manifest.copies != "reported" or part == "train":
        return split.leaky
    sources = sources_of(manifest, split)
    return len(known_rows(sources[part], sources["train"])) >= STAMPED_SHARE * len(split.part(part))
