"""Texts cut short, and texts made very long."""

from __future__ import annotations

import random
from collections.abc import Callable

from samo_text.rewriting.words import pieces_of, word_places

__all__ = ["first_words", "repeated"]


def first_words(n: int) -> Callable[[str, float, random.Random], str]:
    """A rewriting that keeps the first ``n`` words and what stands between them."""

    def cut(text: str, strength: float, chance: random.Random) -> str:
        pieces = pieces_of(text)
        words = word_places(pieces)
        if len(words) <= n:
            return text
        return "".join(piece.text for piece in pieces[: words[n]]).rstrip()

    return cut


def repeated(times: int) -> Callable[[str, float, random.Random], str]:
    """A rewriting that says the text ``times`` times over: very long, and as true as before."""

    def again(text: str, strength: float, chance: random.Random) -> str:
        return " ".join([text] * times)

    return again
