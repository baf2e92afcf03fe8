"""Words that change places with their neighbours."""

from __future__ import annotations

import random

from samo_text.rewriting.words import how_many, is_negation, join_pieces, pieces_of, word_places

__all__ = ["swap_neighbours"]


def swap_neighbours(text: str, strength: float, chance: random.Random) -> str:
    """Swap neighbouring words.

    After random swap of EDA (Wei & Zou 2019, "EDA: Easy Data Augmentation Techniques for Boosting Performance on Text
    Classification Tasks"), which swaps any two words; neighbours leave more of the sentence standing. A negation keeps
    its place, because what it denies would change, and no pair crosses a mark.

    Args:
        text: any text; one without two such words comes back as it is.
        strength: swaps as a share of the words, in (0, 1].
        chance: dice.
    """
    pieces = pieces_of(text)
    words = word_places(pieces)
    for _ in range(how_many(strength, len(words)) if words else 0):
        pairs = [
            (one, one + 2)
            for one in words
            if one + 2 < len(pieces)
            and [piece.kind for piece in pieces[one : one + 3]] == ["word", "space", "word"]
            and not any(is_negation(pieces[place].text) for place in (one, one + 2))
            and pieces[one].text.casefold() != pieces[one + 2].text.casefold()
        ]
        if not pairs:
            break
        one, other = pairs[int(chance.random() * len(pairs))]
        pieces[one], pieces[other] = pieces[other], pieces[one]
    return join_pieces(pieces)
