"""What the licence of a corpus asks of whoever passes on a model that was trained on it."""

from __future__ import annotations

import re

from samo.modalities import config_type
from samo.plugins import registry_of

__all__ = ["licence_of", "licence_terms"]

_UNSETTLED = (
    "Whether the weights of a network are an adaptation of the data it learned from is not settled in law. "
    "Until it is, treat them as one."
)
_UNKNOWN = (
    "SAMO does not know the licence of these data: ask whoever recorded or wrote them, and the people in them, before "
    "the weights leave your hands."
)


def licence_of(modality: str, dataset: str) -> tuple[str, str]:
    """Licence and citation of a corpus that comes with SAMO; empty for all others."""
    registry = registry_of("dataset", config_type(modality))
    if registry is None or dataset not in registry.own:
        return "", ""
    corpus = registry[dataset]
    # Of a folder or a table the licence is that of its owner.
    return ("", "") if corpus.LICENSE.startswith("that of") else (corpus.LICENSE, corpus.CITATION)


def licence_terms(licence: str) -> list[str]:
    """What it means for the weights, a sentence or two each.

    Args:
        licence: as a corpus names it, ``CC BY-NC-SA 4.0``; empty where it is unknown.
    """
    words = set(re.split(r"[^A-Z0-9]+", licence.upper()))
    if "CC0" in words:
        return ["The data are in the public domain, so their licence asks nothing of the weights."]
    if "CC" not in words:
        return [_UNKNOWN]
    terms = [_UNSETTLED]
    if "BY" in words:
        terms.append("Name the authors of the data wherever you use or pass on the weights (BY).")
    if "NC" in words:
        terms.append("Do not use the weights commercially, nor in a service that earns money (NC).")
    if "SA" in words:
        terms.append("Pass the weights on under the same licence only (SA).")
    if "ND" in words:
        terms.append("Do not pass on weights that you trained further (ND).")
    return terms
