"""Contractions written out and back, which change nothing, and negations put in, which change the meaning."""

from __future__ import annotations

import random
import re

from samo_text.rewriting.words import in_case_of, is_negation, pieces_of

__all__ = ["insert_negation", "toggle_contractions"]

_APOSTROPHE = "['\u2019]"
_IRREGULAR = {"can't": "cannot", "won't": "will not", "shan't": "shall not"}
_ENDINGS = {"n't": " not", "'re": " are", "'ve": " have", "'ll": " will", "'m": " am"}
# 's and 'd stand for two things each, ain't for many: they are left alone.
_SHORT = re.compile(
    rf"\b(?P<stem>(?!ai)\w+?)(?P<end>n{_APOSTROPHE}t|{_APOSTROPHE}(?:re|ve|ll|m))\b"
    r"|\b(?P<verb>do|does|did|is|are|was|were|has|have|had|could|would|should|must|need) not\b"
    r"|\b(?P<can>can ?not)\b|\b(?P<will>will not)\b",
    re.IGNORECASE,
)
_AUXILIARY = re.compile(
    r"\b(?:am|is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|must|may|might)\b"
    rf"|{_APOSTROPHE}(?:m|re|ll|ve)\b",
    re.IGNORECASE,
)
_PREFIX = "It is not true that "


def toggle_contractions(text: str, strength: float = 1.0, chance: random.Random | None = None) -> str:
    """Write *don't* as *do not* and *do not* as *don't*, every one; the meaning stays."""
    return _SHORT.sub(_toggled, text)


def insert_negation(text: str, strength: float = 1.0, chance: random.Random | None = None) -> str:
    """Deny what a text says: *not* behind its first auxiliary, else *It is not true that* in front.

    What is true of the new text is not known: this shows whether a model takes notice, not whether it is right. A text
    that holds a negation already comes back as it is.
    """
    if not text.strip() or any(is_negation(piece.text) for piece in pieces_of(text)):
        return text
    if found := _AUXILIARY.search(text):
        return f"{text[: found.end()]} {in_case_of('not', found.group())}{text[found.end() :]}"
    return _PREFIX + text[:1].lower() + text[1:]


def _toggled(found: re.Match[str]) -> str:
    whole = found.group()
    if stem := found.group("stem"):
        plain = whole.lower().replace("\u2019", "'")
        if plain in _IRREGULAR:
            return in_case_of(_IRREGULAR[plain], whole)
        ending = _ENDINGS[found.group("end").lower().replace("\u2019", "'")]
        return stem + (ending.upper() if len(stem) > 1 and whole.isupper() else ending)
    if verb := found.group("verb"):
        return verb + ("N'T" if whole.isupper() else "n't")
    return in_case_of("can't" if found.group("can") else "won't", whole)
