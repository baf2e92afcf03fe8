"""How a listing of inputs is cut into parts: one rule for a single process, for shards on several machines, for Ray.

A part is a fixed number of items in the order of the listing, so that which item is in which part does not depend on
how many processes share the work. The name of its file ends with a digest of the model, the listing and the form of the
rows, and of the device and precision it is computed with: nothing else can be taken for it. It appears under this name
whole or not at all. A process that is killed leaves its part unfinished, and whoever begins it again writes the same
rows; two that write the same part do no harm.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

from samo.errors import DataError, RunError, SettingsError, counted
from samo.files import write_json
from samo.stored import Count, Stored, Text, read_stored

__all__ = [
    "FORMATS",
    "PART_ITEMS",
    "PLAN_FILE",
    "BulkPlan",
    "is_file",
    "listing_digest",
    "open_folder",
    "read_plan",
    "shard_of",
]

FORMATS = ("jsonl", "parquet")
PART_ITEMS = 1000
# With an underscore in front, readers of whole folders (pandas, pyarrow, Spark) leave it out.
PLAN_FILE = "_bulk.json"
_VERSION = 2
# A temporary file this young may not be locked yet.
_YOUNG_S = 60.0
_NAMES = {
    "version": "another version of SAMO",
    "model": "another model",
    "listing": "another listing of inputs",
    "items": "another listing of inputs",
    "part_items": "parts of another size",
    "format": "another format",
    "computed": "another device or precision",
}


class _StoredPlan(Stored):
    version: Count
    name: Text
    model: Text
    listing: Text
    items: Count
    part_items: Count
    format: Text
    computed: Text = ""


@dataclass(frozen=True)
class BulkPlan:
    """What a folder of answers is made of.

    Attributes:
        name: of the model, for people.
        model: digest of what answers.
        listing: digest of the inputs in their order, from :func:`listing_digest`.
        items: how many inputs there are.
        part_items: how many are in each part; in the last one what is left.
        format: one of :data:`FORMATS`.
        computed: device and precision that the model is computed with, ``cpu, float32``.
        version: of this structure.
    """

    name: str
    model: str
    listing: str
    items: int
    part_items: int
    format: str
    computed: str = ""
    version: int = _VERSION

    @property
    def n_parts(self) -> int:
        """How many parts there are."""
        return -(-self.items // self.part_items)

    @cached_property
    def digest(self) -> str:
        """Of all that decides what stands in a part, by which its file is named."""
        named = {name: value for name, value in asdict(self).items() if name != "name"}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]

    def rows_of(self, part: int) -> range:
        """The places in the listing of a part's items."""
        return range(part * self.part_items, min(self.items, (part + 1) * self.part_items))

    def file_of(self, part: int) -> str:
        """The name of a part's file; names sort as parts do."""
        width = max(5, len(str(self.n_parts - 1)))
        return f"part-{part:0{width}d}-{self.digest}.{self.format}"

    def is_there(self, folder: Path, part: int) -> bool:
        """Whether a part's file is in a folder.

        Raises:
            DataError: something else has its name.
        """
        return is_file(folder / self.file_of(part))

    def shard(self, number: int, shards: int) -> range:
        """The parts of one of several shards: every ``shards``-th; ``number`` counts from 1."""
        return range(number - 1, self.n_parts, shards)


def shard_of(given: str) -> tuple[int, int]:
    """Number and count of shards from ``I/N``; empty is the only one.

    Raises:
        SettingsError: something else, or I is not between 1 and N.
    """
    number, slash, shards = (given or "1/1").partition("/")
    plain = all(part.isascii() and part.isdecimal() and len(part) < 10 for part in (number, shards))
    if not slash or not plain or not 1 <= int(number) <= int(shards):
        raise SettingsError(
            f"`shard={given}`: write I/N, I from 1 to N", hint="for example `shard=1/4` on the first of 4"
        )
    return int(number), int(shards)


def is_file(path: Path) -> bool:
    """Whether there is a file of that name; opening what is none may wait for ever, and a link leads elsewhere.

    Raises:
        DataError: a link, a folder, a pipe or a device.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise DataError(
            f"{path} is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file", hint="remove it, or name a new folder"
        )
    return True


def listing_digest(items: Sequence[str], *, are_paths: bool) -> str:
    """SHA-256 of the inputs in their order: of texts what they say, of files where they are, not what they hold."""
    digest = hashlib.sha256()
    for item in items:
        content = (os.path.abspath(item) if are_paths else item).encode("utf-8", "surrogatepass")
        # With its length in front, so that no two listings run together to the same bytes.
        digest.update(b"%d:%b" % (len(content), content))
    return digest.hexdigest()


def open_folder(folder: Path, plan: BulkPlan) -> None:
    """Begin a folder of answers, or go on with it; the first of several processes writes down what is made here.

    Raises:
        RunError: what is made here is something else, or the note that says so is damaged.
        DataError: there is a file of that name, or the note is no file.
        DiskFull: no space is left.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, answers go into a folder", hint="name a new folder")
    note = folder / PLAN_FILE
    if not is_file(note):
        _write_once(note, plan)
    begun = read_plan(note)
    for name, what in _NAMES.items():
        if getattr(begun, name) != getattr(plan, name):
            kind = f"{begun.part_items} a part, {begun.format}" + (f", on {begun.computed}" if begun.computed else "")
            of = f" (model '{begun.name}', {counted(begun.items, 'input')}, {kind})"
            raise RunError(
                f"{folder} was begun with {what}{of}",
                hint="name that `device` and `precision`, or give another folder"
                if name == "computed"
                else "give the same model and inputs again, or another folder",
            )
    _remove_left_files(folder)


def _write_once(note: Path, plan: BulkPlan) -> None:
    """Write the note unless another process has: a link is never put in the place of a file, as a rename is."""
    folder = note.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".begin.", dir=folder) as place:
            write_json(Path(place) / note.name, asdict(plan))
            try:
                os.link(Path(place) / note.name, note)
            except FileExistsError:
                pass
            except OSError:  # a disk that knows no links
                if not note.exists():
                    write_json(note, asdict(plan))
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror or error}") from error


def read_plan(note: Path) -> BulkPlan:
    """What a folder's note says.

    Raises:
        RunError: it is damaged.
    """
    try:
        found = read_stored(note, _StoredPlan)
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {note}: {error}", hint="give another folder") from error
    return BulkPlan(**{field.name: getattr(found, field.name) for field in fields(BulkPlan)})


def _remove_left_files(folder: Path) -> None:
    """Remove the halves that processes killed over a minute ago left: their locks went with them."""
    for left in folder.glob(".part-*"):
        if left.is_symlink() or not left.is_file():
            continue
        with suppress(OSError), left.open("r+b") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - left.stat().st_mtime > _YOUNG_S:
                left.unlink(missing_ok=True)
