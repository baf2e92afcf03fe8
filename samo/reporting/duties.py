"""What whoever uses or passes on a model must know of law and licences: for the model card, in plain words."""

from __future__ import annotations

import re

__all__ = ["law_lines", "licence_lines"]

_ACT = "Regulation (EU) 2024/1689 (the AI Act)"
_FORBIDDEN = (
    f"**Forbidden at work and in education.** Article 5(1)(f) of {_ACT} forbids AI systems that infer the emotions of "
    "a person in the areas of workplace and education institutions, except for medical or safety reasons. It applies "
    "since 2 February 2025. So: no scoring of employees, call centre agents, applicants, pupils or students."
)
_HIGH_RISK = (
    "**Elsewhere high-risk.** AI systems intended for emotion recognition are high-risk under Annex III, point 1(c), "
    "in so far as their use is permitted under Union or national law: from the date that Article 113 gives, whoever "
    "offers one has the duties of Articles 8 to 22, and whoever uses one those of Article 26. This model was made "
    "without them, and a card does not replace them."
)
_INFORM = (
    "**People must be told.** Under Article 50(3) whoever uses an emotion recognition system informs the people it "
    "is used on, and processes their data under Regulation (EU) 2016/679 (the GDPR). "
    "Article 50(3) applies from 2 August 2026."
)
_OF_MODALITY = {
    "audio": (
        "The Act means emotion recognition from biometric data (Article 3(39)). A voice is such data, so all of this "
        "is about this model."
    ),
    "text": (
        "The Act means emotion recognition from biometric data (Article 3(39)), which a written text by itself is not, "
        "as the Commission reads it. Do not build on that: texts of employees or pupils stay out of this model's scope."
    ),
}
_NO_ADVICE = "This is a summary, no legal advice. Other countries have laws of their own."
_OPEN_QUESTION = (
    "Whether the weights of a model are an adaptation of the data it learned from is not settled. SAMO takes the "
    "careful reading: the terms of the data hold for the weights, exported files and whatever is trained from them."
)
_YOUR_OWN = (
    "The data are the author's own, or were given to them: ask the author for their terms, which hold for the weights "
    "too."
)
_NOT_STATED = (
    "No licence of the data is known. Then nothing may be passed on: ask the owners of the data before the weights "
    "leave your hands."
)
_FREE = "The data are in the public domain: they ask for nothing, neither for the weights."
_BY = "**Name the source**: cite the corpus wherever the weights go, and say that a model was trained on it."
_NC = "**Non-commercial use only**: neither sell the weights or answers made with them, nor use them in a product."
_SA = "**Share alike**: whoever passes the weights on does so under the same licence as the data."
_ND = "**No derivatives**: under the careful reading the weights may not be passed on at all."


def law_lines(modality: str) -> list[str]:
    """What the law of the European Union says of emotion recognition, one line each.

    Args:
        modality: ``audio``, ``text``, or empty where unknown.
    """
    own = _OF_MODALITY.get(modality)
    return [_FORBIDDEN, _HIGH_RISK, _INFORM, *([own] if own else []), _NO_ADVICE]


def licence_lines(licence: str) -> list[str]:
    """What a licence of data means for the weights that learned from them, one line each.

    Args:
        licence: as a corpus states it, such as ``CC BY-NC-SA 4.0``; empty where none is stated.
    """
    if licence.startswith("that of your"):
        return [_YOUR_OWN]
    words = re.findall(r"[a-z0-9]+", licence.lower())
    if not words or "stated" in words:
        return [_NOT_STATED]
    if "cc0" in words:
        return [_FREE]
    found = [line for word, line in (("by", _BY), ("nc", _NC), ("sa", _SA), ("nd", _ND)) if word in words]
    if "cc" not in words or not found:
        found = ["Read the licence of the data before the weights are used or passed on: SAMO does not know it."]
    return [_OPEN_QUESTION, *found]
