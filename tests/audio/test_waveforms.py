"""The cache of decoded clips: what it holds, when it is made anew, what happens when things go wrong."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from samo.errors import DataError, DiskFull, SamoError
from samo_audio import waveforms
from samo_audio.audio_io import read
from samo_audio.waveforms import open_waveforms

SR = 8000
Items = list[tuple[str, Path]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SAMO_CACHE", str(folder))
    return folder


@pytest.fixture
def items(tmp_path: Path) -> Items:
    """Five clips of different lengths, rates and channels; ids are not in the order of names."""
    random = np.random.default_rng(0)
    (tmp_path / "clips").mkdir()
    found = []
    for number, (rate, channels) in enumerate([(8000, 1), (48_000, 2), (16_000, 1), (8000, 2), (44_100, 1)]):
        path = tmp_path / "clips" / f"{number}.wav"
        soundfile.write(path, 0.1 * random.standard_normal((rate // 4 + 100 * number, channels)), rate)
        found.append((f"id{(number * 3) % 5}", path))
    return found


def folders(cache: Path) -> list[Path]:
    """Everything in the cache, hidden or not."""
    return sorted((cache / "waveforms").iterdir())


def test_rows_are_the_decoded_clips(items: Items) -> None:
    found = open_waveforms(items, SR)
    assert len(found) == 5
    assert found.sr == SR
    assert found.lengths.dtype == np.int64
    for row, (name, path) in enumerate(items):
        clip = read(path, SR)
        assert np.array_equal(found.waveform(row), clip.waveform)
        assert found.waveform(row).dtype == np.float32
        assert found.lengths[row] == len(clip.waveform)
        assert found.content[name] == found.facts[row].content == clip.content
        facts = found.facts[row]
        assert (facts.native_rate, facts.channels) == (clip.native_rate, clip.channels)
        assert (facts.peak, facts.rms_db, facts.warnings) == (clip.peak, clip.rms_db, clip.warnings)


def test_the_cache_cannot_be_written_through(items: Items) -> None:
    with pytest.raises(ValueError, match="read-only"):
        open_waveforms(items, SR).waveform(0)[0] = 1.0


def test_files_are_decoded_once(items: Items, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    cold = open_waveforms(items, SR, on_progress=lambda done, n: seen.append((done, n)))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]

    def never(first: object, second: int) -> None:
        raise AssertionError(f"decoded {first} again")

    monkeypatch.setattr(waveforms, "read", never)
    warm = open_waveforms(items, SR, on_progress=never)
    assert np.array_equal(warm.waveform(3), cold.waveform(3))
    assert warm.facts == cold.facts
    (folder,) = folders(cache)
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", "waveforms.f32"]


def test_rows_follow_the_order_asked_for(items: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    cold = open_waveforms(items, SR)
    monkeypatch.setattr(waveforms, "read", None)
    turned = open_waveforms(items[::-1], SR)
    assert turned.ids == cold.ids[::-1]
    assert turned.lengths.tolist() == cold.lengths.tolist()[::-1]
    assert np.array_equal(turned.waveform(0), cold.waveform(4))


def test_rate_files_and_ids_make_caches_of_their_own(items: Items, cache: Path) -> None:
    open_waveforms(items, SR)
    assert len(open_waveforms(items, 2 * SR).waveform(0)) == 2 * 2000
    assert len(open_waveforms(items[:3], SR)) == 3
    open_waveforms([(f"{name}x", path) for name, path in items], SR)
    assert len(folders(cache)) == 4
    soundfile.write(items[0][1], np.full(500, 0.25), SR)
    assert open_waveforms(items, SR).waveform(0).tolist() == [0.25] * 500
    assert len(folders(cache)) == 5


def test_a_touched_file_is_decoded_anew(items: Items, cache: Path) -> None:
    open_waveforms(items, SR)
    os.utime(items[2][1], ns=(1, 1))
    open_waveforms(items, SR)
    assert len(folders(cache)) == 2


def test_other_samples_under_the_old_size_and_time_are_decoded_anew(items: Items) -> None:
    """Written in place, put there by renaming, and two clips that changed places."""
    _, path = items[0]
    before = path.stat()
    expected = open_waveforms(items, SR).waveform(0).tolist()
    for place in ("in place", "renamed"):
        samples, rate = soundfile.read(path)
        other = path if place == "in place" else path.with_suffix(".new.wav")
        soundfile.write(other, -samples, rate)
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        if other != path:
            other.rename(path)
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        expected = [-sample for sample in expected]
        assert open_waveforms(items, SR).waveform(0).tolist() == expected
    first, second = path.parent / "a.wav", path.parent / "b.wav"
    for number, target in enumerate((first, second)):
        soundfile.write(target, np.full(800, 0.25 * (number + 1)), SR)
        os.utime(target, ns=(1, 1))
    pair = [("a", first), ("b", second)]
    assert open_waveforms(pair, SR).waveform(0)[0] == 0.25
    first.rename(path.parent / "c.wav")
    second.rename(first)
    (path.parent / "c.wav").rename(second)
    assert open_waveforms(pair, SR).waveform(0)[0] == 0.5


def noise_in_the_samples(folder: Path) -> None:
    mapped = np.memmap(folder / "waveforms.f32", dtype="<f4", mode="r+")
    mapped[:] = np.random.default_rng(0).standard_normal(len(mapped))
    mapped.flush()


def one_sample_with_the_old_time(folder: Path) -> None:
    path = folder / "waveforms.f32"
    before, data = path.stat(), bytearray(path.read_bytes())
    data[4001] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swapped_ids(folder: Path) -> None:
    path = folder / "index.json"
    before = path.stat()
    path.write_text(path.read_text().replace('"id0", "id1"', '"id1", "id0"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_level(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(path.read_text().replace('"peak": 0.', '"peak": 0.9', 1))


@pytest.mark.parametrize("change", [noise_in_the_samples, one_sample_with_the_old_time, swapped_ids, another_level])
def test_a_cache_that_somebody_wrote_to_is_made_anew(
    items: Items, cache: Path, change: Callable[[Path], object]
) -> None:
    expected = np.concatenate([open_waveforms(items, SR).waveform(row) for row in range(5)])
    (folder,) = folders(cache)
    change(folder)
    found = open_waveforms(items, SR)
    assert np.array_equal(np.concatenate([found.waveform(row) for row in range(5)]), expected)
    assert found.facts[0].peak == pytest.approx(read(items[0][1], SR).peak)
    assert folders(cache) == [folder]


def test_samples_are_read_again_only_where_their_file_changed(
    items: Items, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_waveforms(items, SR)
    (folder,) = folders(cache)
    digest, requested = waveforms._samples_digest, list[Path]()
    monkeypatch.setattr(waveforms, "_samples_digest", lambda place: requested.append(place) or digest(place))
    open_waveforms(items, SR)
    assert requested == []
    copy = folder / "copy"
    copy.write_bytes((folder / "waveforms.f32").read_bytes())
    copy.rename(folder / "waveforms.f32")
    monkeypatch.setattr(waveforms, "read", None)
    open_waveforms(items, SR)
    assert requested == [folder]
    open_waveforms(items, SR)
    assert requested == [folder]


def test_number_of_threads_does_not_change_the_cache(
    items: Items, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = []
    for workers in (1, 3):
        monkeypatch.setenv("SAMO_CACHE", str(tmp_path / str(workers)))
        open_waveforms(items, SR, workers=workers)
        (folder,) = folders(tmp_path / str(workers))
        found.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert found[0] == found[1]


def test_few_clips_are_in_memory_at_once(items: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Path] = []

    def counting(path: Path, sr: int) -> waveforms.Clip:
        begun.append(path)
        return read(path, sr)

    monkeypatch.setattr(waveforms, "read", counting)
    many = [(f"{copy}-{name}", path) for copy in range(8) for name, path in items]
    ahead: list[int] = []
    open_waveforms(many, SR, workers=2, on_progress=lambda done, _: ahead.append(len(begun) - done))
    assert max(ahead) <= 4


def test_workers_map_the_file_instead_of_copying_it(items: Items) -> None:
    found = open_waveforms(items, SR)
    pickled = pickle.dumps(found)
    assert len(pickled) < 1000
    assert np.array_equal(pickle.loads(pickled).waveform(2), found.waveform(2))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("waveforms.f32", lambda path: path.write_bytes(path.read_bytes()[:-4])),
        ("waveforms.f32", lambda path: path.unlink()),
        ("index.json", lambda path: path.write_text("{")),
        ("index.json", lambda path: path.write_text("[]")),
        ("index.json", lambda path: path.write_text('{"ids": [], "lengths": [], "facts": [], "sr": 8000}')),
        ("index.json", lambda path: path.write_text(path.read_text().replace('"facts": [{', '"facts": [7, {'))),
        ("index.json", lambda path: path.write_bytes(b"\xff\xfe")),
    ],
)
def test_a_damaged_cache_is_made_anew(items: Items, cache: Path, name: str, damage: Callable[[Path], object]) -> None:
    expected = np.array(open_waveforms(items, SR).waveform(1))
    (folder,) = folders(cache)
    damage(folder / name)
    assert np.array_equal(open_waveforms(items, SR).waveform(1), expected)
    assert folders(cache) == [folder]


def test_a_file_in_the_place_of_the_cache_gives_way(items: Items, cache: Path) -> None:
    open_waveforms(items, SR)
    (folder,) = folders(cache)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    assert len(open_waveforms(items, SR)) == 5


def test_a_kill_leaves_nothing_that_harms(items: Items, cache: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from samo_audio.waveforms import open_waveforms
items = [(str(n), Path(path)) for n, path in enumerate(sys.argv[1:])]
open_waveforms(items, 8000, workers=1, on_progress=lambda done, n: os.kill(os.getpid(), 9) if done == 3 else None)
"""
    paths = [path for _, path in items]
    root = Path(waveforms.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code, *paths], cwd=root, check=False).returncode == -9
    (left,) = folders(cache)
    assert left.name.startswith(".")
    numbered = [(str(number), path) for number, path in enumerate(paths)]
    assert np.array_equal(open_waveforms(numbered, SR).waveform(4), read(paths[4], SR).waveform)
    assert left.exists()
    os.utime(left, (time.time() - 2 * 86_400,) * 2)
    open_waveforms(numbered, 2 * SR)
    assert not left.exists()


def test_racing_processes_all_succeed(items: Items, cache: Path) -> None:
    code = """
import sys
from pathlib import Path
from samo_audio.waveforms import open_waveforms
found = open_waveforms([(str(n), Path(path)) for n, path in enumerate(sys.argv[1:])], 8000)
print(sum(float(abs(found.waveform(row)).sum()) for row in range(len(found))))
"""
    root = Path(waveforms.__file__).parents[1]
    command = [sys.executable, "-c", code, *[str(path) for _, path in items]]
    running = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(answers) == 1
    (folder,) = folders(cache)
    assert not folder.name.startswith(".")


def test_the_faster_process_wins(items: Items, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = waveforms._publish

    def overtaken(temporary: Path, folder: Path, ids: list[str]) -> waveforms.Waveforms:
        with monkeypatch.context() as inner:
            inner.setattr(waveforms, "_publish", publish)
            open_waveforms(items, SR)
        before = (folder / "index.json").stat().st_ino
        found = publish(temporary, folder, ids)
        assert (folder / "index.json").stat().st_ino == before
        return found

    monkeypatch.setattr(waveforms, "_publish", overtaken)
    assert len(open_waveforms(items, SR)) == 5
    assert len(folders(cache)) == 1


def test_bad_files_are_reported_together(items: Items, tmp_path: Path, cache: Path) -> None:
    bad = []
    for number in range(12):
        path = tmp_path / f"bad{number:02}.wav"
        path.write_bytes(b"" if number % 2 else b"no audio")
        bad.append((f"bad{number:02}", path))
    seen: list[int] = []
    with pytest.raises(DataError) as caught:
        open_waveforms(items + bad, SR, on_progress=lambda done, _: seen.append(done))
    message = caught.value.message
    assert message.startswith("12 of 17 clips cannot be read: ")
    assert f"{bad[0][1]}: is not in an audio format SAMO can read" in message
    assert f"{bad[9][1]}: is empty (0 bytes)" in message
    assert str(bad[10][1]) not in message
    assert message.endswith("and 2 more")
    assert seen == list(range(1, 18))
    assert folders(cache) == []


def test_one_bad_file_keeps_its_own_message(items: Items, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").touch()
    with pytest.raises(DataError) as caught:
        open_waveforms([*items, ("bad", tmp_path / "bad.wav")], SR)
    assert caught.value.message == f"{tmp_path / 'bad.wav'}: is empty (0 bytes)"


def test_missing_files_are_reported_together(items: Items, tmp_path: Path) -> None:
    gone = [(f"gone{number}", tmp_path / f"gone{number}.wav") for number in range(2)]
    with pytest.raises(DataError, match=r"2 of 7 clips cannot be opened: .*gone0\.wav \(No such file or directory\)"):
        open_waveforms(items + gone, SR)


def test_no_clips_and_shared_ids_are_refused(items: Items) -> None:
    with pytest.raises(DataError, match="no clips"):
        open_waveforms([], SR)
    with pytest.raises(DataError, match="share an id"):
        open_waveforms([items[0], items[0]], SR)


def test_a_full_disk_leaves_nothing_behind(items: Items, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(waveforms.os, "fsync", full)
    with pytest.raises(DiskFull, match="no space left while writing") as caught:
        open_waveforms(items, SR)
    assert "SAMO_CACHE" in caught.value.hint
    assert folders(cache) == []


def test_a_cache_that_cannot_be_written_names_the_variable(
    items: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(SamoError, match="cannot write the cache of decoded audio") as caught:
        open_waveforms(items, SR)
    assert "SAMO_CACHE" in caught.value.hint


def test_sources_are_never_modified(items: Items) -> None:
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for _, path in items]
    open_waveforms(items, SR)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for _, path in items] == before


@pytest.mark.real
def test_ravdess_wav_and_flac(ravdess_root: Path) -> None:
    paths = [
        *sorted((ravdess_root / "Actor_01").glob("*.wav"))[:6],
        *sorted((ravdess_root / "Actor_07").glob("*.flac"))[:6],
    ]
    found = open_waveforms([(path.stem, path) for path in paths], 22_050)
    assert {fact.native_rate for fact in found.facts} == {48_000}
    assert ((found.lengths / 22_050 > 2.5) & (found.lengths / 22_050 < 5.5)).all()
    assert all(fact.warnings == () and fact.peak > 0.005 for fact in found.facts)
