"""What a data set contains, before anything is split or decoded."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from samo.data.fingerprints import Fingerprints
from samo.errors import DataError, RunError, first_ten
from samo.files import write_text
from samo.stored import Flag, Number, Stored, Text, parse_lines, validated
from samo.tasks import LabelSpace

__all__ = ["Item", "Manifest"]


@dataclass(frozen=True)
class Item:
    """One clip or one text.

    Attributes:
        id: unique within the manifest; holds the file stem for clips.
        source: path relative to the manifest's root, or the text itself.
        labels: label names by task name; a missing task is unlabelled, an empty multi-label one has none of its labels.
        group: the speaker (audio); empty when unknown. Groups never cross a split.
        meta: further attributes to report by, for example ``gender`` and ``intensity``.
        content: hash of the decoded content, empty until it was read.
        split: the split the corpus itself assigns (train, val, test), empty when it assigns none.
        segment: begin and end in seconds of the part of its file that is the item, the end None at the file's; None
            where the whole file is.
    """

    id: str
    source: str
    labels: Mapping[str, tuple[str, ...]]
    group: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)
    content: str = ""
    split: str = ""
    segment: tuple[float, float | None] | None = None


@dataclass(frozen=True)
class Manifest:
    """An indexed data set.

    Attributes:
        dataset: the corpus name as listed by ``samo data list``.
        label_space: the tasks every item answers.
        items: in a stable order (sorted by id).
        root: folder the items' sources are relative to.
        synthetic: whether the data were generated rather than recorded.
        folds: published test groups by fold, empty when the corpus publishes none.
        group_hint: how its user can name the groups, for errors; not saved.
        group_noun: what a group is, for messages; not saved.
        copies: what an audit does about identical content in two parts. "reported" is for items that are strings
            themselves (``source`` is the content), where short ones stand twice by nature.
        notes: lines for people on what was changed in reading; not saved.
        fingerprints: what near copies of its recordings are found by, None where they are not looked for; not saved
            here, and no part of the digest.
        near_copies: what an audit does about near copies of recordings in two parts; not saved.
        origin: name of the user's own table or folder; empty where ``dataset`` says all.
    """

    dataset: str
    label_space: LabelSpace
    items: tuple[Item, ...]
    root: Path
    synthetic: bool = False
    folds: tuple[frozenset[str], ...] = ()
    group_hint: str = ""
    group_noun: str = "speaker"
    copies: Literal["refused", "reported"] = "refused"
    notes: tuple[str, ...] = ()
    fingerprints: Fingerprints | None = field(default=None, compare=False, repr=False)
    near_copies: Literal["refuse", "report"] = "refuse"
    origin: str = ""

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(item.id for item in self.items).items() if count > 1]
        if twice:
            raise DataError(f"{self.dataset}: ids stand twice: {first_ten(sorted(twice))}")
        if not self.items:
            raise DataError(f"{self.dataset}: no items found in {self.root}")

    @property
    def corpus(self) -> str:
        """What the corpus is called for people: ``ravdess``, ``table clips.csv``."""
        return f"{self.dataset} {self.origin}".rstrip()

    @property
    def slug(self) -> str:
        """What files about the corpus are named by: two tables of one name differ in their content."""
        if not self.origin:
            return self.dataset
        name = re.sub(r"[^A-Za-z0-9_+=-]+", "-", Path(self.origin).stem).strip("-")[:40]
        return f"{self.dataset}-{name or 'data'}-{self.digest[:6]}"

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row number by item id."""
        return {item.id: row for row, item in enumerate(self.items)}

    @cached_property
    def targets(self) -> np.ndarray:
        """(N, C) float32 targets; NaN where a task has no label."""
        return np.stack([self.label_space.encode(item.labels) for item in self.items])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids, labels and content hashes: what was learned from, whatever the folder is called."""
        lines = (
            json.dumps([item.id, {k: list(v) for k, v in sorted(item.labels.items())}, item.content])
            for item in self.items
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def path(self, item: Item) -> Path:
        """Absolute path of an item's file."""
        return self.root / item.source

    def rows(self, ids: Iterable[str]) -> np.ndarray:
        """Row numbers (int64) of the given ids.

        Raises:
            DataError: some ids are not in this manifest.
        """
        ids = list(ids)
        missing = [name for name in ids if name not in self.row_of]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(ids)} items of the split are not in {self.root}: {first_ten(missing)}",
                hint="give the `data_root` this run was trained on",
            )
        return np.array([self.row_of[name] for name in ids], dtype=np.int64)

    def with_content(self, hashes: Mapping[str, str]) -> Manifest:
        """A copy whose items carry the content hashes given by id."""
        return replace(self, items=tuple(replace(item, content=hashes[item.id]) for item in self.items))

    def save(self, path: Path) -> None:
        """Write one header line and one JSON line an item."""
        header: dict[str, Any] = {
            "schema": 1,
            "dataset": self.dataset,
            "label_space": self.label_space.to_json(),
            "root": str(self.root),
            "synthetic": self.synthetic,
            "folds": [sorted(fold) for fold in self.folds],
            "digest": self.digest,
        }
        if self.copies != "refused":
            header["copies"] = self.copies
        if self.origin:
            header["origin"] = self.origin
        lines = [header, *(_stored(item) for item in self.items)]
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read what :meth:`save` wrote; the last files' manifests are kept, and runs on the same items share one.

        Raises:
            RunError: the file is missing or damaged.
        """
        try:
            raw = path.read_bytes()
            key = hashlib.sha256(raw).digest()
            if (known := _READ.get(key)) is not None:
                return known
            lines = parse_lines(raw)
            header = validated(_StoredHeader, lines[0] if lines else None)
            found = cls(
                dataset=header.dataset,
                label_space=LabelSpace.from_json(header.label_space),
                items=tuple(_item(row) for row in lines[1:]),
                root=Path(header.root),
                synthetic=header.synthetic,
                folds=header.folds,
                copies=header.copies,
                origin=header.origin,
            )
            # Another thread may make room at the same time: what was listed may be gone.
            for old in list(_READ)[: 1 - _MOST_READ]:
                _READ.pop(old, None)
            _READ[key] = found
            return found
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read the manifest {path}: {error}") from error
        except DataError as error:
            raise RunError(f"cannot read the manifest {path}: {error.message}") from error


# By SHA-256 of the file. A report reads the manifest of its run a dozen times.
_READ: dict[bytes, Manifest] = {}
_MOST_READ = 2


def _stored(item: Item) -> dict[str, Any]:
    # dataclasses.asdict would copy every value, which costs seconds with fifty thousand items.
    values = {each.name: getattr(item, each.name) for each in fields(item)}
    return {name: value for name, value in values.items() if name != "segment" or value is not None}


class _StoredHeader(Stored):
    dataset: Text
    label_space: list[Any]
    root: Text
    synthetic: Flag
    folds: tuple[frozenset[Text], ...]
    copies: Literal["refused", "reported"] = "refused"
    origin: Text = ""


class _StoredItem(Stored):
    model_config = ConfigDict(extra="forbid")

    id: Text
    source: Text
    labels: dict[Text, tuple[Text, ...]]
    group: Text = ""
    meta: dict[Text, Text] = Field(default_factory=dict)
    content: Text = ""
    split: Text = ""
    segment: tuple[Number, Number | None] | None = None


def _item(row: object) -> Item:
    return Item(**dict(validated(_StoredItem, row)))
