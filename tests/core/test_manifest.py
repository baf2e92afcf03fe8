"""Manifests: what they refuse, what their digest speaks of, that they survive the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samo.data import manifest as manifest_module
from samo.data.manifest import Item, Manifest
from samo.errors import DataError, RunError
from samo.tasks import LabelSpace, Task

SPACE = LabelSpace((Task("emotion", ("angry", "happy")), Task("tags", ("loud", "fast"), multi_label=True)))


def item(name: str, label: str = "angry", **values: Any) -> Item:
    labels = {"emotion": (label,), **values.pop("more", {})}
    return Item(name, f"{name}.wav", labels, **values)


def manifest(*items: Item, **values: Any) -> Manifest:
    return Manifest("corpus", SPACE, items, Path("/data"), **values)


GIVEN = manifest(
    item("a", content="1"), item("b", "happy", content="2", group="s1"), item("c", more={"tags": ("loud", "fast")})
)


def test_rows_targets_and_paths() -> None:
    assert GIVEN.rows(["c", "a"]).tolist() == [2, 0]
    assert GIVEN.rows([]).dtype == np.int64
    np.testing.assert_array_equal(GIVEN.targets[:, :2], [[1, 0], [0, 1], [1, 0]])
    assert np.isnan(GIVEN.targets[:2, 2:]).all()
    assert GIVEN.targets[2].tolist() == [1, 0, 1, 1]
    assert GIVEN.path(GIVEN.items[1]) == Path("/data/b.wav")


def test_unknown_ids_are_named() -> None:
    with pytest.raises(DataError, match=r"2 of 3 items of the split are not in /data: x, y"):
        GIVEN.rows(["x", "a", "y"])


def test_ids_twice_and_nothing_at_all() -> None:
    with pytest.raises(DataError, match="corpus: ids stand twice: a, b"):
        manifest(item("b"), item("a"), item("a"), item("b"), item("c"))
    with pytest.raises(DataError, match="corpus: no items found in /data"):
        manifest()


def test_digest_is_the_same_on_every_machine() -> None:
    assert GIVEN.digest == "fbec8c2348e74c426157d57981d3003072b4b6e2e8d47ad4567c7013d32cd103"


def test_digest_changes_with_ids_labels_and_content() -> None:
    first, *rest = GIVEN.items
    changed = [
        replace(first, id="z"),
        replace(first, labels={"emotion": ("happy",)}),
        replace(first, labels={"emotion": ("angry",), "tags": ("loud",)}),
        replace(first, labels={}),
        replace(first, content="other"),
    ]
    digests = {GIVEN.digest, *(manifest(one, *rest).digest for one in changed), manifest(*rest).digest}
    assert len(digests) == len(changed) + 2


def test_digest_does_not_change_with_the_place_of_the_data() -> None:
    first, *rest = GIVEN.items
    assert replace(GIVEN, root=Path("/elsewhere"), dataset="other").digest == GIVEN.digest
    assert manifest(replace(first, source="sub/a.wav"), *rest).digest == GIVEN.digest


def test_with_content() -> None:
    hashed = GIVEN.with_content({"a": "x", "b": "y", "c": "z"})
    assert [one.content for one in hashed.items] == ["x", "y", "z"]
    assert hashed.digest != GIVEN.digest
    assert GIVEN.items[0].content == "1"


def test_round_trip(tmp_path: Path) -> None:
    odd = 'line\u2028separator \x85 \x1e tab\t newline\n quote" ü 😀 ' + os.fsdecode(b"\xff")
    saved = manifest(
        item(odd, group="s\u20281", meta={"gender": "f"}, content="1", split="train"),
        *GIVEN.items,
        synthetic=True,
        folds=(frozenset({"s1"}), frozenset({"s2", "s3"})),
    )
    saved.save(tmp_path / "m.jsonl")
    loaded = Manifest.load(tmp_path / "m.jsonl")
    assert loaded == saved
    assert loaded.digest == saved.digest
    header = json.loads((tmp_path / "m.jsonl").open(encoding="utf-8").readline())
    assert header["digest"] == saved.digest
    assert header["schema"] == 1


class Emptied(dict[bytes, Manifest]):
    """What another thread empties as soon as somebody has looked at its keys."""

    def __iter__(self) -> Iterator[bytes]:
        keys = list(super().__iter__())
        self.clear()
        return iter(keys)


def test_two_threads_may_make_room_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "_READ", Emptied())
    for name in "abcd":
        given = manifest(item(name))
        given.save(tmp_path / f"{name}.jsonl")
        assert Manifest.load(tmp_path / f"{name}.jsonl") == given


def test_the_last_two_that_were_read_are_kept(tmp_path: Path) -> None:
    for name in "abc":
        manifest(item(name)).save(tmp_path / f"{name}.jsonl")
    first, second, third = (Manifest.load(tmp_path / f"{name}.jsonl") for name in "abc")
    assert Manifest.load(tmp_path / "c.jsonl") is third
    assert Manifest.load(tmp_path / "b.jsonl") is second
    assert Manifest.load(tmp_path / "a.jsonl") is not first


@pytest.mark.parametrize(
    "text",
    ["", "not json", "[1, 2]\n", '{"dataset": "x"}\n', "HEADER\n[1]\n", 'HEADER\n{"id": 1}\n', 'HEADER\n{"id": "a'],
)
def test_damaged_manifests(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.jsonl"
    GIVEN.save(path)
    path.write_text(text.replace("HEADER", path.read_text().splitlines()[0]))
    with pytest.raises(RunError, match=r"cannot read the manifest .*m\.jsonl"):
        Manifest.load(path)


def test_labels_of_the_wrong_shape_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    GIVEN.save(path)
    path.write_text(path.read_text().replace('{"emotion": ["angry"]}', '"angry"'))
    with pytest.raises(RunError, match="cannot read the manifest"):
        Manifest.load(path)
    with pytest.raises(RunError, match="cannot read the manifest"):
        Manifest.load(tmp_path / "none.jsonl")
