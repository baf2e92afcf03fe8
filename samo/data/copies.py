"""Rows of texts that stand in two parts of a split: how many, and how many are too many."""

from __future__ import annotations

from collections.abc import Mapping

from samo.data.near_duplicates import find_copies
from samo.errors import LeakError, first_few

__all__ = ["REFUSED_SHARE", "STAMPED_SHARE", "about_copies", "known_rows", "refuse_known"]

STAMPED_SHARE = 0.05
"""From this share of known rows on a report is stamped as leaky. They can lift accuracy by as much as their share: 5 %
is the distance between many published models, while GoEmotions' own split has 2 %."""
REFUSED_SHARE = 0.2
"""From this share on a split, or another corpus, is refused: a score of which a fifth may be memory tells nothing."""


def known_rows(texts: tuple[str, ...], *learned: tuple[str, ...]) -> frozenset[int]:
    """Row numbers of the texts that stand, word for word or nearly so, in any of the others."""
    return frozenset().union(*(find_copies(texts, others).all for others in learned))


def refuse_known(known: frozenset[int], ids: tuple[str, ...], what: str, hint: str) -> None:
    """Refuse rows to evaluate on of which :data:`REFUSED_SHARE` or more are known.

    Args:
        known: row numbers.
        ids: of all rows.
        what: the beginning of the message.
        hint: what to do.

    Raises:
        LeakError: counts them and names three.
    """
    if ids and len(known) >= REFUSED_SHARE * len(ids):
        some = first_few((ids[row] for row in sorted(known)), 3)
        raise LeakError(
            f"{what} {len(known):,} of {len(ids):,} rows, word for word or nearly so: {some}; "
            f"from {100 * REFUSED_SHARE:.0f} % on that is refused",
            hint=hint,
        )


def about_copies(sources: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Lines on how many rows of one part (train, val, test) stand in another one, word for word or nearly so."""
    lines = []
    for others, parts in (("train", ("val", "test")), ("val", ("test",))):
        found = {part: find_copies(sources[part], sources[others]) for part in parts}
        if any(copies.all for copies in found.values()):
            same = _counted({part: len(copies.same) for part, copies in found.items()})
            near = _counted({part: len(copies.near) for part, copies in found.items()})
            lines.append(
                f"{same} rows also stand in {others} word for word (but for case and spaces), {near} more nearly so"
            )
        searched = min(copies.searched for copies in found.values())
        if searched < 1.0:
            lines.append(
                f"rows that share only phrases which {100 * searched:.2g} % of all rows have were not compared with"
                f" {others}: there are too many"
            )
    return lines


def _counted(rows: dict[str, int]) -> str:
    """``49 val and 42 test``."""
    return " and ".join(f"{n:,} {part}" for part, n in rows.items() if n) or "no"
