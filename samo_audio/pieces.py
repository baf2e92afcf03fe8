"""A file read as if it held some of its bytes only: how libsndfile gets one of several streams in a file."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import BinaryIO, TypeAlias

__all__ = ["Pieces", "Run"]

Run: TypeAlias = tuple[int, int] | bytes
"""Bytes of a file (the first, and how many), or bytes given as they are."""
_TAIL = 128


class Pieces:
    """The bytes of ``runs`` of a file, one behind the other, as a file that can only be read.

    libmpg123 estimates the length of a stream without a length header from the size of its file, and libsndfile stops
    there. ``endless`` states a size that no estimate falls short of; reading ends with the bytes all the same.

    Args:
        file: the file; whoever reads pieces of it from several threads needs a handle for each.
        runs: the pieces.
        endless: whether to state a size of 2^40 bytes.
    """

    def __init__(self, file: BinaryIO, runs: Sequence[Run], *, endless: bool = False) -> None:
        self._file, self._runs = file, list(runs)
        self._ends = list(accumulate(len(run) if isinstance(run, bytes) else run[1] for run in runs))
        self._held = self._ends[-1] if self._ends else 0
        self._size = 1 << 40 if endless else self._held
        self._place = 0

    def read(self, count: int) -> bytes:
        """At most ``count`` bytes, none behind the last. Errors of reading end the file: libsndfile calls this."""
        if self._place >= self._held:
            # libmpg123 looks for a tag in the last 128 bytes, and gives up where it cannot read them.
            behind = min(count, max(0, self._size - self._place)) if self._place >= self._size - _TAIL else 0
            self._place += behind
            return bytes(behind)
        found = []
        while count > 0 and self._place < self._held:
            number = bisect_right(self._ends, self._place)
            run, left = self._runs[number], self._ends[number] - self._place
            if isinstance(run, bytes):
                data = run[len(run) - left :][:count]
            else:
                data = self._bytes(run[0] + run[1] - left, min(count, left))
            if not data:
                break
            found.append(data)
            count -= len(data)
            self._place += len(data)
        return b"".join(found)

    def _bytes(self, place: int, count: int) -> bytes:
        try:
            self._file.seek(place)
            return self._file.read(count)
        except OSError:
            return b""

    def readinto(self, buffer: memoryview) -> int:
        """Fill the beginning of ``buffer``; the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, also behind the last."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        """The byte that is read next."""
        return self._place
