"""Items made of training items: kept in the run's folder, apart from the data it is judged on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samo.data.manifest import Item, Manifest
from samo.errors import RunError
from samo.files import write_json, write_text
from samo.stored import Count, Stored, Text, read_lines, read_stored, validated
from samo.tasks import LabelSpace

__all__ = [
    "AUGMENTATION",
    "AUGMENTED",
    "augmentation_facts",
    "class_counts",
    "copies_last",
    "load_augmented",
    "save_augmented",
]

# The items themselves, and how many of which class and by which method.
AUGMENTED = "augmented.jsonl"
AUGMENTATION = "augmentation.json"


def class_counts(space: LabelSpace, targets: np.ndarray) -> dict[str, dict[str, int]]:
    """How many of (N, C) targets hold each class, by task and label."""
    found = {}
    for task in space.tasks:
        held = (targets[:, space.slices[task.name]] >= 0.5).sum(axis=0)
        found[task.name] = dict(zip(task.labels, map(int, held), strict=True))
    return found


def copies_last(manifest: Manifest, rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Rows with those behind that augmentation made of other items, and how many are before these."""
    copied = np.array([_is_copy(manifest.items[row]) for row in rows], dtype=bool)
    return np.concatenate([rows[~copied], rows[copied]]), int((~copied).sum())


def _is_copy(item: Item) -> bool:
    """Whether it was made of another; a column of a user's table may be called parent too."""
    parent = item.meta.get("parent", "")
    return bool(parent) and item.id.startswith(f"{parent}~")


def augmentation_facts(space: LabelSpace, targets: np.ndarray, items: Sequence[Item]) -> dict[str, Any]:
    """What augmentation did to a training part.

    Args:
        space: the tasks and their columns.
        targets: (N, C) of the training part as it was.
        items: those made of it.

    Returns:
        ``made`` (how many items), ``methods`` (how many by each) and ``counts``: rows of each class ``before`` and
        ``after``, by task and label.
    """
    before = class_counts(space, targets)
    more: dict[str, Counter[str]] = {task.name: Counter() for task in space.tasks}
    for item in items:
        for task, labels in item.labels.items():
            more[task].update(labels)
    counts = {
        task: {label: {"before": n, "after": n + more[task][label]} for label, n in labels.items()}
        for task, labels in before.items()
    }
    methods = Counter(item.meta.get("method", "") for item in items)
    return {"schema": 1, "made": len(items), "methods": dict(sorted(methods.items())), "counts": counts}


def save_augmented(folder: Path, facts: Mapping[str, Any], items: Sequence[Item]) -> None:
    """Write both files: one JSON line an item (source under ``text``, parent, method, labels), and the facts.

    Without items both are removed, should a training that was killed before it was a run have left them.
    """
    if not items:
        for name in (AUGMENTATION, AUGMENTED):
            (folder / name).unlink(missing_ok=True)
        return
    lines = [
        {
            "id": item.id,
            "text": item.source,
            "parent": item.meta.get("parent", ""),
            "method": item.meta.get("method", ""),
            "labels": {task: list(names) for task, names in item.labels.items()},
            "group": item.group,
            "content": item.content,
        }
        for item in items
    ]
    # In ASCII: half of a surrogate pair in a text must come back as it was.
    write_text(folder / AUGMENTED, "".join(json.dumps(line) + "\n" for line in lines))
    write_json(folder / AUGMENTATION, facts)


def load_augmented(folder: Path) -> tuple[Item, ...]:
    """Read the items :func:`save_augmented` wrote; none where nothing was made.

    Raises:
        RunError: a file is damaged, or the two do not belong together.
    """
    if not (folder / AUGMENTATION).is_file():
        return ()
    try:
        made = read_stored(folder / AUGMENTATION, _StoredFacts).made
        items = tuple(_item(row) for row in read_lines(folder / AUGMENTED))
        if len(items) != made:
            raise ValueError(f"{AUGMENTED} holds {len(items)} items, {AUGMENTATION} speaks of {made}")
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read what was augmented in {folder}: {error}", hint="train a new run") from error
    return items


class _StoredFacts(Stored):
    made: Count


class _StoredItem(Stored):
    id: Text
    text: Text
    parent: Text
    method: Text
    labels: dict[Text, tuple[Text, ...]]
    group: Text
    content: Text


def _item(row: object) -> Item:
    stored = validated(_StoredItem, row)
    return Item(
        id=stored.id,
        source=stored.text,
        labels=stored.labels,
        group=stored.group,
        meta={"parent": stored.parent, "method": stored.method},
        content=stored.content,
    )
