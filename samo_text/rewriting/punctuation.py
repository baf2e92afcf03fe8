"""Punctuation marks that come, go or change."""

from __future__ import annotations

import random

from samo_text.rewriting.words import MARKS, Piece, how_many, join_pieces, pieces_of, sample, word_places

__all__ = ["add_marks", "change_marks", "remove_marks"]


def change_marks(text: str, strength: float, chance: random.Random) -> str:
    """Add, remove or change full stops, commas, semicolons and colons.

    After AEDA (Karimi, Rossi & Prati 2021, "AEDA: An Easier Data Augmentation Technique for Text Classification"),
    which inserts . , ; : ? ! between words and removes nothing. Question and exclamation marks are left alone here,
    since they carry feeling, and so are emoticons.

    Args:
        text: any text; one without words comes back as it is.
        strength: changes as a share of the words, in (0, 1].
        chance: dice.
    """
    pieces = pieces_of(text)
    n = len(word_places(pieces))
    for _ in range(how_many(strength, n) if n else 0):
        marks = [place for place, piece in enumerate(pieces) if piece.kind == "mark" and piece.text in MARKS]
        action = ("add", "remove", "change")[int(chance.random() * 3)] if marks else "add"
        if action == "add":
            _add(pieces, chance)
            continue
        place = marks[int(chance.random() * len(marks))]
        if action == "remove":
            del pieces[place]
        else:
            others = MARKS.replace(pieces[place].text, "")
            pieces[place] = Piece("mark", others[int(chance.random() * len(others))])
    return join_pieces(pieces)


def add_marks(text: str, strength: float, chance: random.Random) -> str:
    """Put . , ; or : behind a share ``strength`` of the words; see :func:`change_marks`."""
    pieces = pieces_of(text)
    words = word_places(pieces)
    for place in sample(words, how_many(strength, len(words)), chance):
        pieces[place] = Piece("word", pieces[place].text + MARKS[int(chance.random() * len(MARKS))])
    return join_pieces(pieces)


def remove_marks(text: str, strength: float = 1.0, chance: random.Random | None = None) -> str:
    """Leave out every mark, ? and ! among them; apostrophes within words, placeholders, links and emoticons stay."""
    return join_pieces(piece for piece in pieces_of(text) if piece.kind != "mark")


def _add(pieces: list[Piece], chance: random.Random) -> None:
    words = word_places(pieces)
    # Two marks in a row would rather be a mood of their own.
    free = [place for place in words if place + 1 == len(pieces) or pieces[place + 1].kind == "space"] or words
    place = free[int(chance.random() * len(free))]
    pieces.insert(place + 1, Piece("mark", MARKS[int(chance.random() * len(MARKS))]))
