"""Texts as they come in: what is repaired, how they are told apart, how long they are."""

from __future__ import annotations

import hashlib
import re

__all__ = ["LENGTHS", "clean", "content_of", "length_of"]

LENGTHS = {"short": 8, "medium": 16}
"""Most words of a short and of a medium text; about a third of GoEmotions each, the rest is long."""
_LONG = "long"
# Lone surrogates (half an emoji, as broken JSON holds them) and control characters other than white space.
_UNREADABLE = re.compile("[\ud800-\udfff\x00-\x08\x0e-\x1f\x7f]")


def clean(text: str) -> str:
    """A text that every tokenizer takes: one kind of line end, no outer white space, and U+FFFD (the replacement
    character) for lone surrogates, NUL and other control characters. Emoji and placeholders stay.
    """
    return _UNREADABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def content_of(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def length_of(text: str) -> str:
    """``short``, ``medium`` or ``long`` by :data:`LENGTHS`, to report by."""
    words = len(text.split())
    return next((name for name, most in LENGTHS.items() if words <= most), _LONG)
