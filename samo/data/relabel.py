"""One corpus in the labels of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from samo.data.keys import key
from samo.data.manifest import Item, Manifest
from samo.errors import DataError, SettingsError, first_ten, nearest
from samo.tasks import LabelSpace

__all__ = ["relabel"]


def relabel(manifest: Manifest, space: LabelSpace, mapping: Mapping[str, str]) -> Manifest:
    """Translate a corpus' labels into those of a run; ``label=-`` leaves a class out.

    Of a corpus with several labels an item, a run that gives one label is judged on the items with one of its labels;
    a note says how many have several.

    Raises:
        SettingsError: the mapping names a class that does not exist.
        DataError: a class of the corpus has no counterpart.
    """
    own, foreign = space.primary.labels, manifest.label_space.primary
    for old, new in mapping.items():
        if old not in foreign.labels:
            raise SettingsError(
                f"`label_map`: the corpus has no class '{old}'",
                hint=nearest(old, foreign.labels) + f"valid: {', '.join(foreign.labels)}",
            )
        if new != "-" and new not in own:
            raise SettingsError(
                f"`label_map`: the run has no class '{new}'", hint=nearest(new, own) + f"valid: {', '.join(own)}, -"
            )
    stray = [label for label in foreign.labels if label not in own and label not in mapping]
    if stray:
        pairs = [f"{old}={new}" for old, new in mapping.items()] + [f"{old}={_alike(old, own)}" for old in stray]
        raise DataError(
            f"the run does not know these classes of the corpus: {first_ten(stray)}",
            hint=f"`label_map={','.join(pairs)}`, where x=- leaves x out; the run's classes: {', '.join(own)}",
        )

    several: list[str] = []

    def translated(item: Item) -> Item:
        given = item.labels.get(foreign.name)
        names = (mapping.get(label, label) for label in given or ())
        kept = tuple(dict.fromkeys(name for name in names if name != "-"))
        # An item that has none of its labels is answered so; one whose labels are all left out is not judged.
        if len(kept) > 1 and not space.primary.multi_label:
            several.append(item.id)
            return replace(item, labels={})
        none_hold = given == () and foreign.multi_label and space.primary.multi_label
        return replace(item, labels={space.primary.name: kept} if kept or none_hold else {})

    items = tuple(translated(item) for item in manifest.items)
    note = (
        f"{len(several):,} of {len(items):,} items hold several of the run's labels and were left out: "
        "the run gives one to each"
    )
    return replace(manifest, label_space=space, items=items, notes=manifest.notes + ((note,) if several else ()))


def _alike(word: str, labels: Sequence[str]) -> str:
    """The label that begins like ``word`` or is spelled most like it; ``-`` when none is."""

    def likeness(label: str) -> tuple[bool, float]:
        mine, theirs = key(word), key(label)
        return mine[:3] == theirs[:3], SequenceMatcher(None, mine, theirs).ratio()

    best = max(labels, key=likeness)
    return best if likeness(best) >= (False, 0.6) else "-"
