"""One recording or text under two labels, counted and named."""

from __future__ import annotations

from pathlib import Path

from samo.data.conflicts import about_conflicts
from samo.data.manifest import Item, Manifest
from samo.tasks import LabelSpace, Task

SPACE = LabelSpace((Task("mood", ("bad", "good")), Task("tags", ("loud", "new"), multi_label=True)))


def test_recordings() -> None:
    items = (
        Item("a", "a.wav", {"mood": ("bad",)}, content="1"),
        Item("b", "b.wav", {"mood": ("good",)}, content="1"),
        Item("c", "c.wav", {"mood": ("bad",)}, content="2"),
        Item("d", "d.wav", {"mood": ("bad",)}, content="2"),
        Item("e", "e.wav", {"mood": ("good",)}),
        Item("f", "f.wav", {"mood": ("bad",)}),
    )
    manifest = Manifest("m", SPACE, items, Path("/"))
    line = "1 recording stands several times under different labels: a.wav (bad) = b.wav (good)"
    assert about_conflicts(manifest, "abcdef") == [line]
    assert about_conflicts(manifest, "acdef") == []


def test_texts() -> None:
    items = (
        Item("1", "So kind", {"mood": ("good",), "tags": ()}),
        Item("2", "so  kind", {"mood": ("good",), "tags": ("new",)}),
        Item("3", "so kind!", {"mood": ("bad",), "tags": ()}),
        Item("4", "no", {"tags": ("new", "loud")}),
        Item("5", "No", {"tags": ("loud", "new")}),
        Item("6", "Oh", {"mood": ("bad",)}),
        Item("7", "oh", {"mood": ("good",)}),
    )
    manifest = Manifest("m", SPACE, items, Path("/"), copies="reported")
    assert about_conflicts(manifest, "1234567") == [
        "2 texts stand several times under different labels: 1 (good, none) = 2 (good, new), 6 (bad) = 7 (good)"
    ]
