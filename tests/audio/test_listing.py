"""Finding recordings: nothing below a folder is skipped without a word, in training and prediction alike."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpora import GOOD, listed, put

from samo.errors import DataError
from samo_audio.audio_io import info, is_audio
from samo_audio.augment import read_noise
from samo_audio.datasets.listing import clips_below, files_below, find_clips


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], None]:
    """Make a folder refuse to be listed, also for root."""
    scandir, refused = os.scandir, dict[str, int]()

    def listing(path: Any = ".") -> Any:
        if (number := refused.get(os.fspath(path))) is not None:
            raise OSError(number, os.strerror(number), os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listing)
    return lambda path, number: refused.update({str(path): number})


@pytest.mark.parametrize(("number", "why"), [(errno.EACCES, "Permission denied"), (errno.EIO, "Input/output error")])
def test_a_folder_that_cannot_be_read_stops_training(
    tmp_path: Path, locked: Callable[[Path, int], None], number: int, why: str
) -> None:
    put(tmp_path, "angry/s1.wav", "happy/s1.wav", "sad/deep/s1.wav")
    put(tmp_path / "noise", "a.wav")
    for folder in ("sad", "noise"):
        locked(tmp_path / folder, number)
    with pytest.raises(DataError) as caught:
        listed("folder", tmp_path)
    assert caught.value.message == (f"2 of the folders below {tmp_path} cannot be read: noise ({why}), sad ({why})")
    with pytest.raises(DataError, match=r"noise cannot be read: \. \("):
        read_noise(tmp_path / "noise", 8000)
    put(tmp_path / "ravdess", f"Actor_01/{GOOD[0]}.wav", f"Actor_02/{GOOD[2]}.wav")
    locked(tmp_path / "ravdess" / "Actor_02", number)
    with pytest.raises(DataError, match=r"1 of the folders .* cannot be read: Actor_02"):
        listed("ravdess", tmp_path / "ravdess")


def test_prediction_lists_a_folder_that_cannot_be_read_and_goes_on(
    tmp_path: Path, locked: Callable[[Path, int], None]
) -> None:
    put(tmp_path, "a.wav", "b/1.wav", "c.wav")
    locked(tmp_path / "b", errno.EACCES)
    assert find_clips([tmp_path]) == [tmp_path / "a.wav", tmp_path / "b", tmp_path / "c.wav"]
    with pytest.raises(DataError) as caught:
        info(tmp_path / "b")
    assert caught.value.message == f"{tmp_path / 'b'}: cannot be read: Permission denied"


def test_training_and_prediction_see_the_same_files(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "linked.wav")
    root = tmp_path / "corpus"
    put(root, "angry/s1.wav", "happy/s1.wav", "angry/.hidden.wav", ".trash/x.wav", "__MACOSX/angry/s1.wav")
    (root / "angry" / "._s1.wav").write_bytes(b"fork")
    (root / "sad").symlink_to(tmp_path / "elsewhere")
    (root / "sad" / "loop").symlink_to(root)
    expected = ["angry/s1.wav", "happy/s1.wav", "sad/linked.wav"]
    assert [item.source for item in listed("folder", root).items] == expected
    assert find_clips([root]) == [root / path for path in expected]


def test_a_link_to_a_missing_folder_is_no_empty_class(tmp_path: Path) -> None:
    put(tmp_path, "angry/s1.wav", "happy/s1.wav")
    (tmp_path / "sad").symlink_to(tmp_path / "unmounted")
    assert files_below(tmp_path, is_audio) == (
        ["angry/s1.wav", "happy/s1.wav"], [("sad", "a link to what is not there")]
    )  # fmt: skip
    with pytest.raises(DataError, match="sad"):
        clips_below(tmp_path, is_audio)


def test_a_class_that_ends_empty_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "angry/s1.wav", "sad/s1.wav")
    for name in ("fear/s1.m4a", "fear/s2.M4A", "joy/deep/s1.webm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypM4A ")
    with pytest.raises(DataError) as caught:
        listed("folder", tmp_path)
    assert caught.value.message == (
        f"below {tmp_path} there are classes without a clip that can be read: 'fear' (2 recordings), "
        "'joy' (1 recording), for example fear/s1.m4a"
    )
    assert "ffmpeg -i in.m4a out.wav" in caught.value.hint


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    put(tmp_path, "angry/s1.wav", "sad/s1.wav")
    for name in ("sad/s2.m4a", "sad/s3.M4A", "angry/s2.3gp"):
        (tmp_path / name).touch()
    (note,) = listed("folder", tmp_path).notes
    assert note.startswith(
        f"left out 1 .3gp, 2 .m4a below {tmp_path}, which SAMO cannot read: angry/s2.3gp, sad/s2.m4a"
    )
    assert "ffmpeg" in note
    assert len(find_clips([tmp_path])) == 5
    put(tmp_path / "ravdess", f"{GOOD[0]}.wav")
    (tmp_path / "ravdess" / f"{GOOD[1]}.m4a").touch()
    (note,) = listed("ravdess", tmp_path / "ravdess").notes
    assert f"left out 1 .m4a below {tmp_path / 'ravdess'}" in note


@pytest.mark.parametrize("name", ["folder", "ravdess"])
def test_a_folder_of_other_formats_only_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "angry").mkdir()
    (tmp_path / "angry" / "s1.m4a").touch()
    with pytest.raises(DataError, match=r"lies below .*, only angry/s1\.m4a") as caught:
        listed(name, tmp_path)
    assert "ffmpeg -i in.m4a out.wav" in caught.value.hint
