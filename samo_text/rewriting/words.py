"""Cutting an English text into pieces that may be rewritten and pieces that must stay, and joining them again."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "MARKS",
    "OneByOne",
    "Piece",
    "Rewriter",
    "chance_of",
    "how_many",
    "in_case_of",
    "is_negation",
    "join_pieces",
    "kept_as_is",
    "pieces_of",
    "sample",
    "word_places",
]

# Marks that carry no feeling of their own; ? and ! do, and are never touched.
MARKS = ".,;:"

_EMOJI = (
    "[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u27bf\u2b00-\u2bff]"
    "[\ufe0e\ufe0f\u200d\U0001f3fb-\U0001f3ff\u2640\u2642\u2764\U0001f300-\U0001faff]*"
)
_PIECES = re.compile(
    r"(?P<placeholder>\[[A-Z]+\])"
    r"|(?P<link>https?://\S+|www\.\S+|/?\b[ru]/\w+|[@#]\w+)"
    rf"|(?P<emoji>{_EMOJI})"
    r"|(?P<emoticon>(?<!\w)(?:[:;=8xX][-'^]?[()\[\]DPpOo/\\|*3](?!\w)|<3|\^_*\^))"
    r"|(?P<word>\w+(?:['\u2019]\w+)*)"
    r"|(?P<space>\s+)"
    r"|(?P<mark>.)",
    re.DOTALL,
)
# Without apostrophes too, as people type them.
_NEGATIONS = re.compile(
    r"(?:no|not|none|nor|nobody|nothing|nowhere|neither|never|cannot|without|hardly|barely|scarcely|rarely|"
    r"seldom|dont|doesnt|didnt|cant|couldnt|wont|wouldnt|shouldnt|isnt|aint|arent|wasnt|werent|hasnt|"
    r"havent|hadnt)"
)


@dataclass(frozen=True)
class Piece:
    """``kind`` is ``word``, ``mark``, ``space``, ``placeholder``, ``link``, ``emoji`` or ``emoticon``."""

    kind: str
    text: str


class Rewriter(Protocol):
    """Makes other texts of texts.

    Attributes:
        deterministic: whether it makes always the same of a text, so that asking again is in vain.
    """

    @property
    def deterministic(self) -> bool:
        """Whether it makes always the same of a text, so that asking again is in vain."""

    def rewrite(self, texts: Sequence[str], chances: Sequence[random.Random]) -> list[str]:
        """One text for each; the text itself where nothing could be done. ``chances`` holds each text's own dice."""


class OneByOne:
    """A rewriter of a function that takes one text."""

    deterministic = False

    def __init__(self, function: Callable[[str, float, random.Random], str], strength: float) -> None:
        """``function(text, strength, chance)``, ``strength`` being the share of the words to change, in (0, 1]."""
        self.function = function
        self.strength = strength

    def rewrite(self, texts: Sequence[str], chances: Sequence[random.Random]) -> list[str]:
        """Each text by itself."""
        return [self.function(text, self.strength, chance) for text, chance in zip(texts, chances, strict=True)]


def pieces_of(text: str) -> list[Piece]:
    """The pieces of a text in order; join_pieces again they are the text."""
    return [Piece(str(found.lastgroup), found.group()) for found in _PIECES.finditer(text)]


def join_pieces(pieces: Iterable[Piece]) -> str:
    """The text of pieces."""
    return "".join(piece.text for piece in pieces)


def word_places(pieces: Sequence[Piece]) -> list[int]:
    """Where the words stand."""
    return [place for place, piece in enumerate(pieces) if piece.kind == "word"]


def is_negation(word: str) -> bool:
    """Whether a word turns the meaning of others round (not, never, don't)."""
    plain = word.casefold().replace("\u2019", "'")
    return bool(_NEGATIONS.fullmatch(plain)) or plain.endswith("n't")


def kept_as_is(text: str) -> Counter[str]:
    """Placeholders, links, emoji, emoticons and negations of a text: what a rewritten one must hold as often."""
    return Counter(
        piece.text.casefold()
        for piece in pieces_of(text)
        if piece.kind in ("placeholder", "link", "emoji", "emoticon") or is_negation(piece.text)
    )


def chance_of(*keys: object) -> random.Random:
    """Dice of its own for whatever ``keys`` name: the same on every machine, whatever was thrown before."""
    return random.Random(":".join(map(str, keys)))


def how_many(strength: float, n: int) -> int:
    """How many of ``n`` places to change: the share ``strength``, and at least one where there is one."""
    return min(n, max(1, round(strength * n)))


def sample(places: Sequence[int], n: int, chance: random.Random) -> list[int]:
    """``n`` of the places, in order."""
    return sorted(sorted(places, key=lambda place: chance.random())[:n])


def in_case_of(word: str, like: str) -> str:
    """``word`` in capitals, with one, or as it is, as ``like`` is written."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
