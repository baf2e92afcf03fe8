"""GoEmotions: 54,263 English Reddit comments, 27 emotions and neutral, several of which may hold at once.

The official ``train.tsv``, ``dev.tsv`` and ``test.tsv`` have no header: text, label ids joined by commas, comment id.
They are quoted as CSV, so a plain cut at tabs would leave stray quotes in one row of forty.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from samo.data.download import RemoteFile
from samo.errors import DataError, first_ten
from samo_text.datasets.emotions import EMOTIONS, grouped, label_space
from samo_text.texts import clean, content_of, length_of

if TYPE_CHECKING:
    from samo.data.manifest import Item, Manifest
    from samo_text.config import DataSettings

__all__ = ["FILES", "index"]

NAME = "goemotions"
TITLE = "GoEmotions: 54,263 Reddit comments, 27 emotions and neutral, multi-label"
LICENSE = "CC BY 4.0"
CITATION = (
    "Demszky, Movshovitz-Attias, Ko, Cowen, Nemade & Ravi (2020), GoEmotions: A Dataset of Fine-Grained Emotions, "
    "Proceedings of ACL 2020, 4040-4054."
)
HOMEPAGE = "https://github.com/google-research/google-research/tree/master/goemotions"
SYNTHETIC = False
FOLDS: tuple[frozenset[str], ...] = ()

FILES = {"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"}
_BASE = "https://github.com/google-research/google-research/raw/master/goemotions/data/"
DOWNLOADS: tuple[RemoteFile, ...] = (
    RemoteFile(
        "train.tsv",
        (_BASE + "train.tsv",),
        3_519_053,
        sha256="1c254a142be5c00e80d819b9ae1bbd36d94b2eeb8f4b1271846508d57e57d9c5",
    ),
    RemoteFile(
        "dev.tsv",
        (_BASE + "dev.tsv",),
        439_059,
        sha256="575489c079c9de1097062a01738f998590d6b7ead66dd1c9fd1d2ba01fd8bc62",
    ),
    RemoteFile(
        "test.tsv",
        (_BASE + "test.tsv",),
        436_706,
        sha256="0587b2dd8b27b97352adbfc3fb083d46005c8946657fdc2b1ca8b1cc7f1f8be4",
    ),
)

_COLUMNS = 3


def index(root: Path, settings: DataSettings) -> Manifest:
    """List the comments of the three files in ``root`` under 28, 7 or 4 classes (``settings.mode``).

    Raises:
        DataError: a file is missing, not UTF-8 or not quoted as CSV; a row has other than three columns, no text, or
            a label id that does not exist.
    """
    from samo.data.manifest import Manifest

    _require_files(root)
    items = [item for part, name in FILES.items() for item in _items(root / name, part, settings.mode)]
    return Manifest(
        dataset=NAME,
        label_space=label_space(settings.mode),
        items=tuple(sorted(items, key=lambda item: item.id)),
        root=root.absolute(),
        group_hint="GoEmotions names no authors",
        group_noun="author",
        copies="reported",
    )


def _require_files(root: Path) -> None:
    if not root.exists():
        raise DataError(f"there is no folder {root}", hint="check `data_root`")
    if not root.is_dir():
        raise DataError(
            f"`dataset={NAME}` needs a folder, but {root} is a file",
            hint="a CSV, TSV or JSON file is read with `dataset=table`",
        )
    missing = [name for name in FILES.values() if not (root / name).is_file()]
    if missing:
        raise DataError(
            f"{root} lacks {', '.join(missing)} of GoEmotions",
            hint=f"`samo data download {NAME}` fetches all three; other data are read with `dataset=table`",
        )


def _items(path: Path, part: str, mode: str) -> list[Item]:
    from samo.data.manifest import Item

    items, places = [], {str(number): label for number, label in enumerate(EMOTIONS)}
    for number, (text, ids) in enumerate(_rows(path), start=1):
        unknown = [id_ for id_ in ids.split(",") if id_ not in places]
        if unknown:
            raise DataError(
                f"row {number} of {path} has the label id {first_ten(map(repr, unknown))}",
                hint=f"valid: 0 to {len(EMOTIONS) - 1}, several joined by commas",
            )
        kept = clean(text)
        items.append(
            Item(
                id=f"{part}-{number:05d}",
                source=kept,
                labels=grouped((places[id_] for id_ in ids.split(",")), mode),
                meta={"length": length_of(kept)},
                content=content_of(kept),
                split=part,
            )
        )
    return items


def _rows(path: Path) -> list[tuple[str, str]]:
    """Text and label ids of every row."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", hint=f"`samo data download {NAME}` fetches it anew") from error
    except csv.Error as error:
        raise DataError(f"{path} is not quoted as CSV: {error}", hint="take the official file") from error
    wrong = [number for number, row in enumerate(rows, start=1) if len(row) != _COLUMNS]
    if wrong:
        raise DataError(
            f"{path}: {len(wrong)} rows have other than {_COLUMNS} columns (text, label ids, comment id): row "
            f"{first_ten(wrong)}",
            hint="the columns are separated by tabs, without a header",
        )
    empty = [number for number, row in enumerate(rows, start=1) if not clean(row[0])]
    if empty:
        raise DataError(f"{path} has no text in row {first_ten(empty)}", hint="take these rows out")
    return [(row[0], row[1].replace(" ", "")) for row in rows]
