"""What two spellings of one name have in common: `1004` and `1004.0`, Anna and anna, an accent in one sign or in two.

Names are compared by :func:`key` wherever taking one for two would put a speaker into two parts, or make two classes
of one. Speakers are united under one spelling (:func:`united`): that never leaks. Labels are refused
(:func:`refuse_twin_labels`): which of two spellings a model shall answer is not SAMO's to choose.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from samo.errors import DataError, first_few, first_ten

if TYPE_CHECKING:
    from samo.data.manifest import Manifest

__all__ = ["key", "refuse_twin_labels", "shown", "spelled_twice", "united", "visible"]

# Sign, digits, and the fraction that a column of floats appends; hexadecimal ids like 10e4 are no numbers.
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e\+\d{1,2})?")
_LISTED = 5


def visible(text: str) -> str:
    """The text without characters that show nothing (zero-width, byte-order marks, controls, variation selectors)."""
    return "".join(" " if sign.isspace() else sign for sign in text if sign.isspace() or not _is_invisible(sign))


@lru_cache(maxsize=1 << 16)
def key(name: str) -> str:
    """What all spellings of a name share: NFKC, without case, invisible characters, outer and repeated white space;
    of numbers their value (`007`, `7` and `7.0` are one).
    """
    folded = unicodedata.normalize("NFKC", visible(unicodedata.normalize("NFKC", name)).casefold())
    plain = " ".join(folded.split())
    if not _NUMBER.fullmatch(plain):
        return plain
    value = format(Decimal(plain) + 0, "f")
    return (value.rstrip("0").rstrip(".") if "." in value else value) or "0"


def shown(name: str) -> str:
    """A name for messages, escaped where its looks would hide how it is spelled."""
    is_plain = name == visible(name) and name == unicodedata.normalize("NFC", name)
    return name if is_plain else ascii(name)


def spelled_twice(names: Iterable[str]) -> dict[str, list[str]]:
    """Names in several spellings, by key: the most frequent spelling first (then the shorter, then the earlier)."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name in names:
        counts[key(name)][name] += 1
    return {
        common: sorted(found, key=lambda name: (-found[name], len(name), name))
        for common, found in sorted(counts.items())
        if len(found) > 1
    }


def refuse_twin_labels(labels: Iterable[str], where: str) -> None:
    """Refuse labels that are one but for their spelling.

    Args:
        labels: as they stand in the corpus.
        where: the beginning of the message, for example ``labels in FILE``.

    Raises:
        DataError: names them.
    """
    twins = [sorted(found) for found in spelled_twice(set(labels)).values()]
    if not twins:
        return
    by_case = all(len({name.casefold() for name in found}) == 1 for found in twins)
    how = "case" if by_case else "spelling (case, accents, invisible characters, or numbers as 0 and 0.0)"
    listed = first_ten(" / ".join(map(shown, found)) for found in twins)
    raise DataError(f"{where} differ only in {how}: {listed}", hint="spell each one way")


def united(manifest: Manifest) -> Manifest:
    """The manifest with each group under one spelling, its most frequent one; a note says which were united.

    Groups of nothing visible become unknown. Published folds take the same spellings.

    Raises:
        DataError: labels of a task differ only in spelling.
    """
    for task in manifest.label_space.tasks:
        refuse_twin_labels(task.labels, f"labels of task '{task.name}' in {manifest.root}")
    groups = [item.group for item in manifest.items if item.group]
    names = {key(name): name for name in groups}
    several = spelled_twice(groups)
    names |= {common: found[0] for common, found in several.items()}
    names[""] = ""
    items = tuple(replace(item, group=names[key(item.group)]) if item.group else item for item in manifest.items)
    folds = tuple(frozenset(names.get(key(name), name) for name in fold) for fold in manifest.folds)
    several.pop("", None)
    notes = manifest.notes
    if several:
        noun = manifest.group_noun
        listed = first_few((" = ".join(map(shown, found)) for found in several.values()), _LISTED)
        verb = f"{noun} stands" if len(several) == 1 else f"{noun}s stand"
        notes = (*notes, f"{len(several)} {verb} in several spellings, taken as one: {listed}")
    return replace(manifest, items=items, folds=folds, notes=notes)


def _is_invisible(sign: str) -> bool:
    code = ord(sign)
    return (
        unicodedata.category(sign) in ("Cf", "Cc")
        or 0xFE00 <= code <= 0xFE0F
        or 0xE0100 <= code <= 0xE01EF
        or code in (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0)
    )
