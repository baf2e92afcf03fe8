"""What people do to words: typing errors, capitals, drawn-out letters, emoji."""

from __future__ import annotations

import random

from samo_text.rewriting.words import Piece, how_many, join_pieces, pieces_of, sample, word_places

__all__ = ["add_emoji", "draw_out", "lower_case", "make_typos", "remove_emoji", "upper_case"]

# Letters beside each other on a QWERTY keyboard.
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
# Things, not faces: they should add no feeling.
_PLAIN_EMOJI = ("\U0001f4cc", "\U0001f4ce", "\U0001f6b2", "\U0001f5c2\ufe0f", "\U0001f9f1", "\U0001f50b")
_VOWELS = "aeiouAEIOU"


def make_typos(text: str, strength: float, chance: random.Random) -> str:
    """One typing error in each of some words.

    A letter becomes its neighbour on the keyboard, changes places with the next, is left out or doubled, each as
    likely; the kinds of error are Damerau's (1964). Words of one letter are left alone.

    Args:
        text: any text.
        strength: share of the words, in (0, 1].
        chance: dice.
    """
    pieces = pieces_of(text)
    words = word_places(pieces)
    able = [place for place in words if sum(letter.isalpha() for letter in pieces[place].text) > 1]
    for place in sample(able, how_many(strength, len(words)), chance) if able else []:
        pieces[place] = Piece("word", _mistyped(pieces[place].text, chance))
    return join_pieces(pieces)


def upper_case(text: str, strength: float = 1.0, chance: random.Random | None = None) -> str:
    """Everything in capitals; links stay."""
    return join_pieces(
        piece if piece.kind == "link" else Piece(piece.kind, piece.text.upper()) for piece in pieces_of(text)
    )


def lower_case(text: str, strength: float = 1.0, chance: random.Random | None = None) -> str:
    """Everything in small letters; placeholders, links and emoticons stay."""
    kept = ("placeholder", "link", "emoticon")
    return join_pieces(
        piece if piece.kind in kept else Piece(piece.kind, piece.text.lower()) for piece in pieces_of(text)
    )


def draw_out(text: str, strength: float, chance: random.Random) -> str:
    """Draw out the last vowel of a share ``strength`` of the words: so becomes soooo."""
    pieces = pieces_of(text)
    words = word_places(pieces)
    able = [place for place in words if any(letter in _VOWELS for letter in pieces[place].text)]
    for place in sample(able, how_many(strength, len(words)), chance) if able else []:
        word = pieces[place].text
        at = max(k for k, letter in enumerate(word) if letter in _VOWELS)
        pieces[place] = Piece("word", word[:at] + word[at] * (3 + int(chance.random() * 3)) + word[at + 1 :])
    return join_pieces(pieces)


def add_emoji(text: str, strength: float, chance: random.Random) -> str:
    """An emoji of a thing (a pin, a bicycle) behind the text; faces would change what it says."""
    return f"{text} {_PLAIN_EMOJI[int(chance.random() * len(_PLAIN_EMOJI))]}"


def remove_emoji(text: str, strength: float = 1.0, chance: random.Random | None = None) -> str:
    """Leave out emoji and emoticons, which may well be all that gives a feeling away."""
    kept = join_pieces(piece for piece in pieces_of(text) if piece.kind not in ("emoji", "emoticon"))
    return kept if kept == text else " ".join(kept.split())


def _mistyped(word: str, chance: random.Random) -> str:
    letters = [k for k, letter in enumerate(word) if letter.isalpha()]
    kind = ("neighbour", "swap", "drop", "double")[int(chance.random() * 4)]
    at = letters[int(chance.random() * len(letters))]
    if kind == "neighbour":
        return word[:at] + _beside(word[at], chance) + word[at + 1 :]
    if kind == "swap":
        pairs = [k for k in letters if k + 1 in letters and word[k] != word[k + 1]]
        if pairs:
            at = pairs[int(chance.random() * len(pairs))]
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "drop":
        return word[:at] + word[at + 1 :]
    return word[:at] + word[at] * 2 + word[at + 1 :]


def _beside(letter: str, chance: random.Random) -> str:
    """A letter next to it on the keyboard, in its case; itself doubled for letters of other alphabets."""
    plain = letter.lower()
    for number, row in enumerate(_ROWS):
        if plain in row:
            at = row.index(plain)
            near = [row[k] for k in (at - 1, at + 1) if 0 <= k < len(row)]
            near += [
                other[at] for other in _ROWS[max(0, number - 1) : number + 2] if other is not row and at < len(other)
            ]
            found = near[int(chance.random() * len(near))]
            return found.upper() if letter.isupper() else found
    return letter * 2
