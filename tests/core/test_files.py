"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import time
from pathlib import Path

import pytest

from samo.errors import DiskFull, EnvironmentProblem
from samo.files import (
    alone,
    cache_root,
    caching,
    folder_beside,
    leftovers,
    own_folder,
    remove_left_folders,
    replacing,
    write_json,
    write_text,
)


def test_write_and_replace(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    write_text(target, "first ü")
    with target.open(encoding="utf-8") as reader:
        write_text(target, "second")
        # Renamed over, not written into: who has the old file open reads it to its end.
        assert reader.read() == "first ü"
    assert target.read_text(encoding="utf-8") == "second"
    assert [entry.name for entry in target.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_the_middle_keeps_the_old_file(tmp_path: Path, problem: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def half_written() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half of it")
            raise problem

    with pytest.raises(problem):
        half_written()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_file_lies_beside_the_target_with_its_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.npz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".npz"  # numpy appends .npz to other names
        assert temporary.name.startswith(".")


def test_leftovers_are_those_of_the_names_asked_for(tmp_path: Path) -> None:
    """What a kill leaves is what stands there while a file is written."""
    for name in ("last.ckpt", "split.json", "figure.png"):
        write_text(tmp_path / name, "whole")
    (tmp_path / ".last.ckpt.notes").write_text("of the user")
    with replacing(tmp_path / "last.ckpt") as one, replacing(tmp_path / "split.json") as other:
        with replacing(tmp_path / "figure.png"):
            assert leftovers(tmp_path, ["last.ckpt", "split.json"]) == {one, other}
        assert leftovers(tmp_path, ["last.ckpt"]) == {one}
    assert leftovers(tmp_path, ["last.ckpt", "split.json"]) == set()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match=r"no space left while writing .*a\.txt"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_full_disk_already_at_the_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> tuple[int, str]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(DiskFull):
        write_text(tmp_path / "a.txt", "new")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        write_text(tmp_path / "file" / "a.txt", "new")


def test_readable_by_those_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_json_without_nan(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"ü": [1, 0.5, None]})
    assert json.loads(target.read_text(encoding="utf-8")) == {"ü": [1, 0.5, None]}
    assert "ü" in target.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(target, {"x": float("nan")})
    assert json.loads(target.read_text(encoding="utf-8")) == {"ü": [1, 0.5, None]}


def test_file_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"f\xfcnf.wav")
    write_json(tmp_path / "a.json", [name])
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == [name]


def test_cache_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("SAMO_CACHE")
    assert cache_root().name == "samo"


def test_folders_of_killed_processes_are_swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with own_folder("run") as living:
        killed, young, strange = (tmp_path / f"samo-run-{name}" for name in ("killed", "young", "strange"))
        for place in (killed, young):
            place.mkdir()
            (place / ".held").touch()
        strange.mkdir()
        for place in (living, killed, strange):
            os.utime(place, (0, time.time() - 100))
        with own_folder("run") as mine:
            assert mine.is_dir()
            assert [place.is_dir() for place in (living, killed, young, strange)] == [True, False, True, True]
    assert not living.exists()
    assert not mine.exists()


def test_folders_that_killed_processes_were_making_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "corpus"
    names = (".corpus.killed", ".corpus.young", ".other.killed", "corpus.mine")
    killed, young, other, mine = (tmp_path / name for name in names)
    for place in (killed, young, other, mine):
        place.mkdir()
        (place / "file").touch()
    with folder_beside(target) as living:
        assert living.parent == tmp_path
        for place in (killed, other, mine, living):
            os.utime(place, (0, time.time() - 100))
        remove_left_folders(target)
        assert [place.is_dir() for place in (killed, young, other, mine, living)] == [False, True, True, True, True]
        remove_left_folders(target, "?????")
        assert [place.is_dir() for place in (other, mine, living)] == [False, True, True]
    assert not living.exists()
    with folder_beside(target) as fresh:
        fresh.rename(target)
    assert target.is_dir()


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(EnvironmentProblem, match=r"cannot write the cache in .*tokens") as caught,
        caching(tmp_path / "file" / "tokens" / "x.npz"),
    ):
        pass
    assert caught.value.hint == "set SAMO_CACHE to a folder you may write to"
    with pytest.raises(EnvironmentProblem, match="cannot write the cache in"), alone(tmp_path / "file" / "x" / "y.npz"):
        pass
    with caching(tmp_path / "tokens" / "x.npz") as temporary:
        temporary.write_text("y")
    assert (tmp_path / "tokens" / "x.npz").read_text() == "y"
