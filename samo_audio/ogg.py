"""The pages of an Ogg file: where one of several joined recordings begins, what is cut short, FLAC that lies in it.

RFC 3533; the mapping of FLAC is that of https://xiph.org/flac/ogg_mapping.html.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from samo_audio.problems import bad

__all__ = ["OggLink", "ogg_links"]

_HEADER, _CONTINUED, _FIRST, _LAST = 27, 1, 2, 4
# In Ogg, a packet of its own version and the number of headers stand before FLAC's own signature.
_FLAC, _BEFORE_FLAC = b"\x7fFLAC", 9


@dataclass
class OggLink:
    """One recording of a chain.

    Attributes:
        runs: (first byte, number of bytes) of its pages; of FLAC, of what lies in them.
        flac: whether it is FLAC.
        ended: whether its last page says that it is the last.
    """

    runs: list[tuple[int, int]] = field(default_factory=list)
    flac: bool = False
    ended: bool = False


def ogg_links(path: Path, file: BinaryIO, size: int) -> list[OggLink]:
    """The recordings that lie one behind the other in a file.

    Raises:
        DataError: the last page is incomplete, times run backwards, or something else lies between pages.
    """
    links: list[OggLink] = []
    place, among_first, serial, reached = 0, False, b"", dict[bytes, int]()
    while place < size:
        file.seek(place)
        head = file.read(_HEADER)
        lacing = file.read(head[26]) if len(head) == _HEADER else b""
        length = _HEADER + len(lacing) + sum(lacing)
        if head[:4] != b"OggS"[: len(head)]:
            if links and links[-1].ended:
                # Tags of other formats are hung on behind the end.
                break
            raise bad(path, f"damaged: no Ogg page begins at byte {place}")
        if len(head) < _HEADER or len(lacing) < head[26] or place + length > size:
            raise bad(path, "truncated: the last Ogg page is incomplete")
        flags = head[5]
        if flags & _FIRST and not among_first:
            start = file.read(len(_FLAC))
            links.append(OggLink(flac=start == _FLAC))
            serial, reached = head[14:18], {}
        among_first = bool(flags & _FIRST)
        if not links:
            raise bad(path, "damaged: its first Ogg page begins no recording")
        # The time of the last page is where libsndfile stops; -1 is none.
        ended_at = int.from_bytes(head[6:14], "little", signed=True)
        if 0 <= ended_at < reached.get(head[14:18], 0):
            raise bad(path, f"damaged: the times of its Ogg pages run backwards at byte {place}")
        reached[head[14:18]] = max(ended_at, reached.get(head[14:18], 0))
        link = links[-1]
        if not link.flac:
            _add(link.runs, place, length)
        elif head[14:18] == serial:
            before = _BEFORE_FLAC if not link.runs else 0
            body = _HEADER + len(lacing)
            _add(link.runs, place + body + before, max(0, length - body - before))
        link.ended = bool(flags & _LAST)
        place += length
    return links


def _add(runs: list[tuple[int, int]], start: int, length: int) -> None:
    if runs and sum(runs[-1]) == start:
        runs[-1] = (runs[-1][0], runs[-1][1] + length)
    else:
        runs.append((start, length))
