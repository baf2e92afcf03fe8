"""Further training texts made of those there are, for the rare classes or for all.

Only training rows are parents, after the split was drawn. What is made never equals a text of the corpus, whichever
part it is in, nor another made text (case and white space apart), and it keeps its parent's placeholders, links,
emoji, emoticons and negations, each as often. It takes its parent's labels, which no method here can promise to
preserve: look at ``augmented.jsonl`` in the run's folder. Everything is a function of the seed and the texts.

With a target, classes that have fewer rows are filled up to it, the rarest first; a text of several labels counts for
each of them, so that frequent classes may grow a little too. The methods take turns. A class stays below its target
where its texts are used up (``augment_max_per_text`` for each).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from samo.data.augmented import augmentation_facts
from samo.data.manifest import Item, Manifest
from samo.data.near_duplicates import folded
from samo.frontend import Notify
from samo_text.config import AugmentSettings
from samo_text.rewriting.words import OneByOne, Rewriter, chance_of, kept_as_is
from samo_text.texts import content_of

__all__ = ["augment", "open_rewriters"]

# How often each method is tried for one new text before it is given up.
_TRIES = 2
# Longer texts, in characters, are no parents: nobody could tell what was changed.
_LONGEST = 5_000

# Which text (row of the manifest), and its how-manieth offspring.
Slot = tuple[int, int]


def augment(
    manifest: Manifest,
    train_rows: np.ndarray,
    settings: AugmentSettings,
    seed: int,
    device: torch.device,
    notify: Notify | None = None,
) -> tuple[Item, ...]:
    """Make texts of the training rows.

    Args:
        manifest: the whole corpus, which no made text may repeat.
        train_rows: (N,) rows that may be parents.
        settings: which methods, for which classes, how many.
        seed: decides every draw.
        device: where models run.
        notify: is told what was made, and how many rows each class had and has.

    Returns:
        Items named ``PARENT~METHODk`` in the order they were made.

    Raises:
        EnvironmentProblem, ModelFileError: see :func:`open_rewriters`.
    """
    writer = _Writer(manifest, train_rows, open_rewriters(settings, device), settings.augment_max_per_text, seed)
    made = writer.fill(settings.augment_target) if settings.augment_target else writer.all()
    if notify:
        facts = augmentation_facts(manifest.label_space, manifest.targets[train_rows], made)
        for line in _lines(facts, settings.augment_target):
            notify(line)
    return tuple(made)


def open_rewriters(settings: AugmentSettings, device: torch.device) -> dict[str, Rewriter]:
    """The methods asked for by name, their models read.

    Raises:
        EnvironmentProblem: WordNet or a model is neither on this machine nor reachable.
        ModelFileError: a folder does not hold the model it should.
    """
    strength = settings.augment_strength

    def synonyms() -> Rewriter:
        from samo_text.rewriting.synonyms import Synonyms

        return Synonyms(strength)

    def word_order() -> Rewriter:
        from samo_text.rewriting.order import swap_neighbours

        return OneByOne(swap_neighbours, strength)

    def punctuation() -> Rewriter:
        from samo_text.rewriting.punctuation import change_marks

        return OneByOne(change_marks, strength)

    def back_translation() -> Rewriter:
        from samo_text.rewriting.translation import BackTranslation

        there, back = settings.translation_models
        return BackTranslation(there, back, device)

    def masked_lm() -> Rewriter:
        from samo_text.rewriting.masked_lm import MaskedWords

        return MaskedWords(settings.masked_lm, strength, device)

    makers: dict[str, Callable[[], Rewriter]] = {
        "synonyms": synonyms,
        "word-order": word_order,
        "punctuation": punctuation,
        "back-translation": back_translation,
        "masked-lm": masked_lm,
    }
    return {name: makers[name]() for name in settings.methods}


class _Writer:
    """Makes texts slot by slot, and knows every text there is."""

    def __init__(
        self, manifest: Manifest, rows: np.ndarray, rewriters: Mapping[str, Rewriter], per_text: int, seed: int
    ) -> None:
        self._items = manifest.items
        self._rewriters = rewriters
        self._per_text = per_text
        self._seed = seed
        self._known = {folded(item.source) for item in manifest.items}
        self._used: set[Slot] = set()
        self._exhausted: set[tuple[int, str]] = set()
        held = manifest.targets >= 0.5
        self._held = held
        self._counts = held[rows].sum(axis=0)
        self._parents = [
            int(row) for row in rows if self._items[row].labels and len(self._items[row].source) <= _LONGEST
        ]

    def all(self) -> list[Item]:
        """As many texts as are allowed of every parent."""
        return self._make([(row, k) for row in self._parents for k in range(self._per_text)])

    def fill(self, target: int) -> list[Item]:
        """Texts for the classes that have fewer than ``target`` rows, the rarest first."""
        found: list[Item] = []
        for column in np.argsort(self._counts, kind="stable"):
            parents = [row for row in self._parents if self._held[row, column]]
            parents.sort(key=lambda row: chance_of(self._seed, "order", self._items[row].id).random())
            slots = [(row, k) for k in range(self._per_text) for row in parents if (row, k) not in self._used]
            while (missing := target - int(self._counts[column])) > 0 and slots:
                part, slots = slots[:missing], slots[missing:]
                found += self._make(part)
        return found

    def _make(self, slots: Sequence[Slot]) -> list[Item]:
        """One text for each slot, where one can be made."""
        self._used.update(slots)
        made: dict[Slot, Item] = {}
        names = list(self._rewriters)
        for turn in range(_TRIES * len(names)):
            by_method: dict[str, list[Slot]] = {name: [] for name in names}
            for slot in slots:
                row, k = slot
                start = int(self._chance("method", row).random() * len(names))
                name = names[(start + k + turn) % len(names)]
                if slot not in made and (row, name) not in self._exhausted:
                    by_method[name].append(slot)
                    if self._rewriters[name].deterministic:
                        self._exhausted.add((row, name))
            for name, own in by_method.items():
                for slot, text in zip(own, self._rewritten(name, own, turn), strict=True):
                    if item := self._accepted(slot, name, text):
                        made[slot] = item
        return [made[slot] for slot in slots if slot in made]

    def _rewritten(self, name: str, slots: Sequence[Slot], turn: int) -> list[str]:
        chances = [self._chance(name, row, k, turn) for row, k in slots]
        return self._rewriters[name].rewrite([self._items[row].source for row, _ in slots], chances)

    def _accepted(self, slot: Slot, name: str, text: str) -> Item | None:
        row, k = slot
        parent = self._items[row]
        text = text.strip()
        if not text or folded(text) in self._known or kept_as_is(text) != kept_as_is(parent.source):
            return None
        self._known.add(folded(text))
        self._counts += self._held[row]
        return Item(
            id=f"{parent.id}~{name}{k + 1}",
            source=text,
            labels=parent.labels,
            group=parent.group,
            meta={"parent": parent.id, "method": name},
            content=content_of(text),
        )

    def _chance(self, what: str, row: int, *keys: int) -> random.Random:
        return chance_of(self._seed, what, self._items[row].id, *keys)


def _lines(facts: Mapping[str, Any], target: int) -> Iterable[str]:
    methods = ", ".join(f"{name} {n}" for name, n in facts["methods"].items())
    aim = f" to bring classes to {target} rows" if target else ""
    yield f"augmentation{aim}: {facts['made']} training texts made" + (f" ({methods})" if methods else "")
    for task, counts in facts["counts"].items():
        ordered = sorted(counts.items(), key=lambda entry: entry[1]["before"])
        listed = ", ".join(f"{label} {n['before']} → {n['after']}" for label, n in ordered if n["before"] != n["after"])
        if listed:
            yield f"training rows of {task} before → after: {listed}"
        short = [label for label, n in ordered if n["after"] < target]
        if short:
            yield f"still below {target}: {', '.join(short)} (`augment_max_per_text` allows no more, or texts ran out)"
