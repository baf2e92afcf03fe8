"""The rewritings a model's robustness is judged under, by kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from samo.errors import SettingsError, nearest
from samo_text.rewriting.length import first_words, repeated
from samo_text.rewriting.negation import insert_negation, toggle_contractions
from samo_text.rewriting.noise import add_emoji, draw_out, lower_case, make_typos, remove_emoji, upper_case
from samo_text.rewriting.punctuation import add_marks, remove_marks

__all__ = ["KINDS", "LENGTH", "NEGATION", "Rewrite", "chosen_kinds"]


@dataclass(frozen=True)
class Rewrite:
    """One way to write texts otherwise.

    Attributes:
        name: shown in tables.
        rewrite: ``rewrite(text, strength, chance)``, the text itself where there is nothing to do.
        keeps_truth: whether the labels still hold; else only changed answers are counted.
    """

    name: str
    rewrite: Callable[[str, float, random.Random], str]
    keeps_truth: bool = True


NEGATION, LENGTH = "negation", "length"

KINDS: Mapping[str, tuple[Rewrite, ...]] = {
    "typos": (Rewrite("typing errors", make_typos),),
    "case": (Rewrite("upper case", upper_case), Rewrite("lower case", lower_case)),
    "punctuation": (Rewrite("marks removed", remove_marks), Rewrite("marks added", add_marks)),
    "emoji": (Rewrite("emoji removed", remove_emoji), Rewrite("emoji added", add_emoji)),
    "letters": (Rewrite("long letters", draw_out),),
    "contractions": (Rewrite("contractions", toggle_contractions),),
    "truncation": (Rewrite("first 10 words", first_words(10)), Rewrite("first 5 words", first_words(5))),
    "long": (Rewrite("ten times over", repeated(10)),),
    NEGATION: (Rewrite("negation added", insert_negation, keeps_truth=False),),
    # Nothing is rewritten: the texts as they are, by how long they are.
    LENGTH: (),
}


def chosen_kinds(given: str) -> tuple[str, ...]:
    """The kinds named by a list join_pieces with commas; all for an empty one.

    Raises:
        SettingsError: an unknown kind, or one named twice.
    """
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in KINDS:
            raise SettingsError(
                f"`rewrites` '{name}': unknown", hint=nearest(name, KINDS) + f"valid: {', '.join(KINDS)}"
            )
    if len(set(names)) < len(names):
        raise SettingsError(f"`rewrites={given}` names a kind twice")
    return tuple(names) or tuple(KINDS)
