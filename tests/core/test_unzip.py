"""``samo.data.unzip``: nothing outside the folder, nothing half there."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from samo.data import download as module
from samo.data.unzip import unpack_zip
from samo.errors import DataError, DiskFull

BODY = bytes(range(256)) * 4000


def _zip(path: Path, members: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def test_unpacks_folders_and_files(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "good.zip", {"a/": b"", "a/b/x.wav": b"123", "a\\y.wav": b"45", "..z": b""})
    seen: list[tuple[int, int]] = []
    folder = unpack_zip(archive, tmp_path / "out" / "set", on_progress=lambda done, total: seen.append((done, total)))
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "..z",
        "a/b/x.wav",
        "a/y.wav",
    ]
    assert (folder / "a/b/x.wav").read_bytes() == b"123"
    assert seen[-1] == (5, 5)
    assert os.listdir(folder.parent) == ["set"]
    assert stat.S_IMODE(folder.stat().st_mode) & 0o500 == 0o500


def test_an_empty_folder_may_be_there_already(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert (unpack_zip(_zip(tmp_path / "good.zip", {"x": b"1"}), tmp_path / "set") / "x").is_file()


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "C:/evil", "C:\\evil", "..\\evil", "\\\\host\\share\\evil", ".."]
)
def test_names_that_escape_are_refused(tmp_path: Path, name: str) -> None:
    archive = _zip(tmp_path / "evil.zip", {"good": b"1", name: b"2"})
    with pytest.raises(DataError, match="unsafe"):
        unpack_zip(archive, tmp_path / "deep" / "set")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path != archive]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    archive = _zip(tmp_path / "link.zip", {"link": b"/etc/passwd"}, mode=kind | 0o777)
    with pytest.raises(DataError, match="or be a link"):
        unpack_zip(archive, tmp_path / "set")
    assert os.listdir(tmp_path) == ["link.zip"]


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "bomb.zip", {"zeros": bytes(32 << 20)})
    with pytest.raises(DataError, match="would grow to 33,554,432"):
        unpack_zip(archive, tmp_path / "set")
    assert os.listdir(tmp_path) == ["bomb.zip"]


@pytest.mark.parametrize("names", [("a", "a/b"), ("a", "./a")])
def test_names_that_collide_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"twice|as a folder"):
        unpack_zip(_zip(tmp_path / "odd.zip", dict.fromkeys(names, b"1")), tmp_path / "set")
    assert os.listdir(tmp_path) == ["odd.zip"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "encrypted"])
def test_a_damaged_archive_leaves_nothing(tmp_path: Path, damage: str) -> None:
    archive = _zip(tmp_path / "bad.zip", {"x": BODY[:5000], "y": BODY[:5000]})
    raw = bytearray(archive.read_bytes())
    if damage == "flipped":
        raw[60] ^= 0xFF
    elif damage == "encrypted":
        raw[6] |= 1
        raw[raw.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes({"cut": raw[:-100], "text": b"<html>"}.get(damage, raw))
    with pytest.raises(DataError, match="not a readable zip"):
        unpack_zip(archive, tmp_path / "set")
    assert os.listdir(tmp_path) == ["bad.zip"]


def test_a_full_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("keep")
    with pytest.raises(DataError, match="already there"):
        unpack_zip(_zip(tmp_path / "good.zip", {"x": b"1"}), tmp_path / "set")
    assert os.listdir(tmp_path / "set") == ["mine"]


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no archive"):
        unpack_zip(tmp_path / "none.zip", tmp_path / "set")


def test_an_archive_larger_than_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0})())
    with pytest.raises(DiskFull):
        unpack_zip(_zip(tmp_path / "good.zip", {"x": b"1"}), tmp_path / "set")
    assert os.listdir(tmp_path) == ["good.zip"]
