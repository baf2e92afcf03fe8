"""Tiny corpora for tests."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from samo.data.manifest import Manifest
from samo_audio.config import DataSettings
from samo_audio.datasets import DATASETS

# RAVDESS names: neutral and angry by actor 01, surprised by actor 02.
GOOD = ("03-01-01-01-01-01-01", "03-01-05-02-02-02-01", "03-01-08-01-01-01-02")


def put(root: Path, *paths: str) -> None:
    """Write clips of 50 ms, each with samples of its own."""
    for path in paths:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        seed = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big")
        samples = np.random.default_rng(seed).normal(0.0, 0.1, 400).astype(np.float32)
        soundfile.write(target, samples, 8000)


def table(root: Path, text: str, encoding: str = "utf-8") -> Path:
    """Write a table beside the clips."""
    (root / "clips.csv").write_bytes(text.encode(encoding))
    return root / "clips.csv"


def listed(name: str, root: Path, **values: Any) -> Manifest:
    """Index a corpus under the given settings."""
    return DATASETS[name].index(root, DataSettings(dataset=name, **values))


def labels(manifest: Manifest) -> dict[str, str]:
    """The label of every item by id."""
    return {item.id: item.labels[manifest.label_space.primary.name][0] for item in manifest.items}
