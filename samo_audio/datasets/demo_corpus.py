"""The demo corpus for the registry: ``demo.py`` makes the clips, RAVDESS's parser reads their names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from samo.data.download import RemoteFile
from samo_audio.datasets.demo import CITATION, FOLDS, LICENSE, NAME, SYNTHETIC, TITLE, ensure
from samo_audio.datasets.ravdess import index_as

if TYPE_CHECKING:
    from samo.data.manifest import Manifest
    from samo_audio.config import DataSettings

__all__ = ["CITATION", "DOWNLOADS", "FOLDS", "HOMEPAGE", "LICENSE", "NAME", "SYNTHETIC", "TITLE", "ensure", "index"]

HOMEPAGE = ""
DOWNLOADS: tuple[RemoteFile, ...] = ()


def index(root: Path, settings: DataSettings) -> Manifest:
    """List the demo clips below ``root``, which :func:`ensure` makes.

    Raises:
        DataError: as :func:`samo_audio.datasets.ravdess.index`.
    """
    return index_as(root, settings.mode, dataset=NAME, synthetic=SYNTHETIC, folds=FOLDS)
