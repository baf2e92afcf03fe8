"""What libmpg123, inside libsndfile, writes to the terminal about damaged MP3s: kept from there, and listened to."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

__all__ = ["complaints"]

_OWN = re.compile(r"\[[^\]]*libmpg123[^\]]*\]\s*(.*)")
_REMARKS = ("Note: ", "Warning: Xing stream size")
# Standard error belongs to the whole process: one decoder at a time may have it.
_LOCK = Lock()


@contextmanager
def complaints(heard: list[str]) -> Iterator[None]:
    """Append the errors that libmpg123 reports meanwhile; what others write to standard error follows afterwards."""
    with _LOCK, tempfile.TemporaryFile() as kept:
        try:
            terminal = os.dup(2)
        except OSError:
            # Standard error is closed: nothing is written, and nothing heard.
            yield
            return
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(0)
            written = kept.read()
            if written:
                _sort(written, heard)


def _sort(written: bytes, heard: list[str]) -> None:
    others = []
    for line in written.splitlines(keepends=True):
        text = line.decode(errors="replace")
        own = _OWN.match(text)
        if own and "error:" in own[1]:
            heard.append(own[1].strip().removeprefix("error:").strip())
        elif not (own or text.startswith(_REMARKS) or not text.strip()):
            others.append(line)
    if others:
        os.write(2, b"".join(others))
