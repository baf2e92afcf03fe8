"""A table of short sentences whose labels their words give away, and settings of a model that learns it in a second."""

from __future__ import annotations

import csv
import random
from pathlib import Path

WORDS = {
    "joy": ("glad", "sunny", "cheers", "yay"),
    "anger": ("furious", "hate", "damn", "rage"),
    "sadness": ("tears", "gloomy", "alone", "grief"),
}
LABELS = tuple(WORDS)
FILLERS = ("the", "dog", "and", "we", "went", "home", "today", "with", "a", "very", "old", "car", "i", "think", "so")
TABLE = ["--modality", "text", "--dataset", "table"]
MULTI = [*TABLE, "--label-separator", "|"]
TINY_TEXT = [
    "--model", "textcnn", "--embedding-width", "16", "--filters", "4", "--hash-buckets", "512", "--batch-size", "16",
    "--lr", "0.02", "--epochs", "3", "--dropout", "0.1", "--threads", "1", "--precision", "float32", "--patience", "0",
]  # fmt: skip


def sentence(labels: tuple[str, ...], draw: random.Random) -> str:
    """Five filler words, and one word of each label among them."""
    words = draw.choices(FILLERS, k=5) + [draw.choice(WORDS[label]) for label in labels]
    draw.shuffle(words)
    return " ".join(words)


def write_table(path: Path, n_rows: int = 240, *, split: bool = True, seed: int = 0) -> Path:
    """Columns text, label (several joined by ``|``) and split; every fifth row has two labels."""
    draw = random.Random(seed)
    seen: set[str] = set()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", *(["split"] if split else [])])
        for row in range(n_rows):
            labels = tuple(draw.sample(LABELS, 2 if row % 5 == 0 else 1))
            text = sentence(labels, draw)
            while text in seen:
                text = sentence(labels, draw)
            seen.add(text)
            part = ("test", "val", "train", "train", "train", "train")[row % 6]
            writer.writerow([text, "|".join(labels), *([part] if split else [])])
    return path
