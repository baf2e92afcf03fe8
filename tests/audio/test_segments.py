"""Rows of a table that are parts of their files: what is heard, told apart and kept together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from corpora import listed, table

from samo.data.leaks import audit, find_leaks
from samo.data.manifest import Manifest
from samo.data.splits import Split, SplitRequest, make_split
from samo.errors import DataError, LeakError
from samo.settings import stored_config, with_defaults
from samo_audio.audio_io import read, read_segments
from samo_audio.config import AudioConfig, DataSettings
from samo_audio.frontend import AudioFrontend
from samo_audio.waveforms import open_waveforms

SR = 16_000


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four recordings of noise, 2 s each at 16 kHz."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 2 * SR)
        soundfile.write(folder / f"r{number}.wav", noise, SR, subtype="PCM_16")
    return folder


HEAD = "path,start,end,label,speaker\n"
ROWS = "r0.wav,0.25,0.75,sad,ann\nr0.wav,1,,joy,ann\nr1.wav,,0.5,sad,bob\nr2.wav,,,joy,cy\n"


def opened(csv: Path, **values: Any) -> AudioFrontend:
    data = DataSettings(dataset="table", data_root=str(csv), **values)
    features = AudioConfig().features.model_copy(update={"sr": SR})
    return AudioFrontend.open(AudioConfig(data=data, features=features), lambda line: None)


def test_a_row_is_a_part_of_its_file(root: Path) -> None:
    frontend = opened(table(root, HEAD + ROWS))
    manifest = frontend.manifest
    assert [(item.id, item.source, item.segment, item.group) for item in manifest.items] == [
        ("r0#0.25-0.75", "r0.wav", (0.25, 0.75), "ann"),
        ("r0#1-", "r0.wav", (1.0, None), "ann"),
        ("r1#0-0.5", "r1.wav", (0.0, 0.5), "bob"),
        ("r2", "r2.wav", None, "cy"),
    ]
    whole = [soundfile.read(root / f"r{number}.wav", dtype="float32")[0] for number in range(3)]
    for row, expected in enumerate((whole[0][4000:12000], whole[0][16000:], whole[1][:8000], whole[2])):
        assert np.array_equal(frontend.waveforms.waveform(row), expected), row
    assert all(item.meta == {} for item in manifest.items)
    # Each has its own content, as a file of these samples would have, and its own fingerprint.
    soundfile.write(root / "cut.wav", whole[0][4000:12000], SR, subtype="PCM_16")
    assert manifest.items[0].content == read(root / "cut.wav", SR).content
    assert manifest.fingerprints is not None
    assert set(manifest.fingerprints.ids) == {item.id for item in manifest.items}


def test_segments_survive_the_disk_and_other_items_are_stored_as_before(root: Path, tmp_path: Path) -> None:
    manifest = listed("table", table(root, HEAD + ROWS))
    manifest.save(tmp_path / "manifest.jsonl")
    assert Manifest.load(tmp_path / "manifest.jsonl").items == manifest.items
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert ["segment" in line for line in lines[1:]] == [True, True, True, False]


def test_segments_at_another_rate_and_beyond_one_block(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    sound = np.random.default_rng(7).uniform(-0.5, 0.5, 600_000).astype(np.float32)
    soundfile.write(path, sound, 10_000, subtype="FLOAT")
    # 2^18 samples are read at once: the second lies in two blocks, the third in two others, the fourth overlaps both.
    segments = [(0.0, 1.0), (26.0, 26.5), (52.0, 53.0), (20.0, None)]
    places = [(0, 10_000), (260_000, 265_000), (520_000, 530_000), (200_000, 600_000)]
    for clip, (first, last) in zip(read_segments(path, 10_000, segments), places, strict=True):
        assert np.array_equal(clip.waveform, sound[first:last])
    halved = read_segments(path, 5_000, segments)[1]
    assert len(halved.waveform) == 2_500
    assert halved.native_rate == 10_000


def test_the_cache_knows_the_segments(root: Path) -> None:
    items = [("a", root / "r0.wav"), ("b", root / "r1.wav")]
    first = open_waveforms(items, SR, segments={"a": (0.0, 1.0)})
    assert first.lengths.tolist() == [SR, 2 * SR]
    assert open_waveforms(items, SR, segments={"a": (0.0, 0.5)}).lengths.tolist() == [SR // 2, 2 * SR]
    assert open_waveforms(items, SR).lengths.tolist() == [2 * SR, 2 * SR]


ERRORS = [
    ("r0.wav,0,9,sad,a\nr1.wav,,,joy,b\n", r"r0.wav: lasts 2.000 s, a segment of it 0 s to 9 s"),
    ("r0.wav,2,,sad,a\nr1.wav,,,joy,b\n", r"r0.wav: lasts 2.000 s, a segment of it 2 s to its end"),
    ("r0.wav,1,0.5,sad,a\nr1.wav,,,joy,b\n", "segments end before they begin in row 2"),
    ("r0.wav,1,1,sad,a\nr1.wav,,,joy,b\n", "segments end before they begin in row 2"),
    ("r0.wav,-1,1,sad,a\nr1.wav,,,joy,b\n", "column 'start' of .* holds '-1' in row 2"),
    ("r0.wav,0,1,sad,a\nr1.wav,0,soon,joy,b\n", "column 'end' of .* holds 'soon' in row 3"),
    ("r0.wav,0,1,sad,a\nr1.wav,0,1e308,joy,b\n", "column 'end' of .* holds '1e308' in row 3"),
    ("r0.wav,0,0.00001,sad,a\nr1.wav,,,joy,b\n", "r0.wav: a segment of it holds no sample: 0 s to 1e-05 s"),
    ("r0.wav,0,1,sad,a\nr0.wav,0,1,joy,a\n", r"lists files twice: r0.wav#0-1 \(rows 2 and 3\)"),
]


@pytest.mark.parametrize(("rows", "words"), ERRORS)
def test_segments_that_are_none(root: Path, rows: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        opened(table(root, HEAD + rows))


@pytest.mark.parametrize(
    "segment", [(0.0, 0.00001), (1.0, 0.5), (0.0, 1e308), (1e308, None), (-1.0, 1.0), (float("nan"), None)]
)
def test_no_part_of_a_recording(root: Path, segment: tuple[float, float | None]) -> None:
    with pytest.raises(DataError, match=r"r0\.wav: a segment of it"):
        read_segments(root / "r0.wav", SR, [segment])


def test_ends_may_be_rounded_up(root: Path) -> None:
    frontend = opened(table(root, HEAD + "r0.wav,1.5,2.09,sad,a\nr1.wav,,,joy,b\n"))
    assert frontend.waveforms.lengths.tolist() == [SR // 2, 2 * SR]


def test_columns_may_be_named_left_alone_or_stand_alone(root: Path) -> None:
    other = "path,from,label,speaker\nr0.wav,1,sad,a\nr1.wav,,joy,b\n"
    manifest = listed("table", table(root, other), start_column="from", end_column="")
    assert [item.segment for item in manifest.items] == [(1.0, None), None]
    manifest = listed(
        "table", table(root, HEAD + "r0.wav,x,y,sad,a\nr1.wav,x,z,joy,b\n"), start_column="", end_column=""
    )
    assert [(item.segment, item.meta) for item in manifest.items] == [
        (None, {"start": "x", "end": "y"}),
        (None, {"start": "x", "end": "z"}),
    ]
    manifest = listed("table", table(root, "path,start,label\nr0.wav,1,sad\nr1.wav,2,joy\n"))
    assert [item.segment for item in manifest.items] == [None, None]
    assert manifest.notes == ("column 'start' stands alone and cuts no clip; name it with `start_column`",)
    # Runs trained before took each file whole, and still do.
    stored = with_defaults({"modality": "audio", "dataset": "table", "data_root": "x.csv"})
    assert (stored["start_column"], stored["end_column"]) == ("", "")
    assert stored_config(stored).flat()["start_column"] == ""


CUTS = "".join(f"r{n}.wav,{k / 2},{k / 2 + 0.75},{('sad', 'joy')[k % 2]},\n" for n in range(4) for k in range(3))


def test_without_speakers_the_cuts_of_a_recording_stay_together(root: Path) -> None:
    frontend = opened(table(root, HEAD + CUTS))
    manifest = frontend.manifest
    assert {item.group for item in manifest.items} == {"r0.wav", "r1.wav", "r2.wav", "r3.wav"}
    assert (manifest.group_noun, frontend.unit) == ("recording", "recording")
    assert manifest.notes[-1].startswith("no speaker is known: the cuts of one recording stay together")
    split = make_split(manifest, SplitRequest("speaker", 0.5, 0.25))
    homes = {part: {manifest.items[row].source for row in manifest.rows(split.part(part))} for part in ("train", "val")}
    assert not homes["train"] & homes["val"]
    assert audit(manifest, split) == []


def test_overlapping_cuts_in_two_parts_leak_whoever_speaks(root: Path) -> None:
    rows = "r0.wav,0,1,sad,a\nr0.wav,0.9,1.5,joy,b\nr0.wav,1.5,2,joy,c\nr1.wav,0,1,sad,c\n"
    manifest = listed("table", table(root, HEAD + rows))
    split = Split("table", 0, ("r0#0-1", "r1#0-1"), ("r0#0.9-1.5",), ("r0#1.5-2",))
    unknown = replace(manifest, items=tuple(replace(item, group="", content=item.id) for item in manifest.items))
    assert find_leaks(unknown, split) == [
        "segments of one recording overlap: r0#0-1 (train) and r0#0.9-1.5 (val)",
    ]
    with pytest.raises(LeakError, match="overlap"):
        audit(unknown, split)
    # All of a recording overlaps every part of it.
    whole = replace(unknown.items[2], segment=None)
    items = (*unknown.items[:2], whole, unknown.items[3])
    assert len(find_leaks(replace(unknown, items=items), split)) == 3


def test_lists_of_one_label(root: Path) -> None:
    manifest = listed("table", table(root, "path,label\nr0.wav,['sad']\nr1.wav,['joy']\n"))
    assert manifest.label_space.primary.labels == ("joy", "sad")
    with pytest.raises(DataError, match="holds lists of labels in row 2"):
        listed("table", table(root, "path,label\nr0.wav,\"['sad', 'joy']\"\nr1.wav,['joy']\n"))


def test_a_file_is_found_under_another_case(root: Path) -> None:
    (root / "Zo\u00eb").mkdir()
    (root / "r0.wav").rename(root / "Zo\u00eb" / "A.WAV")
    (root / "r1.wav").rename(root / "Zo\u00eb" / "Ame\u0301.wav")
    # Folder and file in two ways of writing accents.
    manifest = listed("table", table(root, "path,label\nZoe\u0308/a.wav,sad\nZo\u00eb/Am\u00e9.wav,joy\nR2.wav,joy\n"))
    assert sorted(item.source for item in manifest.items) == ["Zo\u00eb/A.WAV", "Zo\u00eb/Ame\u0301.wav", "r2.wav"]
    assert manifest.notes[0].startswith("3 files were found under another spelling: ")
    assert manifest.notes[0].endswith("R2.wav is r2.wav")
    # Of two only the one that is named is taken.
    (root / "R2.wav").write_bytes((root / "r3.wav").read_bytes())
    manifest = listed("table", table(root, "path,label\nR2.wav,sad\nr3.wav,joy\n"))
    assert [item.source for item in manifest.items] == ["R2.wav", "r3.wav"]
    with pytest.raises(DataError, match=r"1 of 2 files .* are missing: r2\.WAV") as caught:
        listed("table", table(root, "path,label\nr2.WAV,sad\nr3.wav,joy\n"))
    assert "of several names that differ in case alone none is taken" in caught.value.hint


OWN = "path,label,speaker,split\n" + "".join(
    f"r{n}.wav,{label},s{n},{part}\n"
    for n, (label, part) in enumerate(zip("xyxy", ("train", "train", "test", "val"), strict=True))
)


def test_a_split_column_is_used_without_being_asked_for(root: Path) -> None:
    frontend = opened(table(root, OWN))
    request = frontend.split_request()
    assert request.rule == "table"
    assert make_split(frontend.manifest, request).test == ("r2",)
    assert opened(table(root, OWN), split="speaker").split_request().rule == "speaker"
    assert opened(table(root, OWN), split_column="").split_request().rule == "speaker"
    partly = opened(table(root, OWN.replace("val", "")))
    assert partly.split_request().rule == "speaker"
    assert partly.manifest.notes == ("column 'split' is filled in 3 of 4 rows only, and not used as the split",)


def test_validation_speakers_are_drawn_from_train_where_the_table_has_none(root: Path) -> None:
    rows = [
        f"r{n}.wav,{k / 4},{(k + 1) / 4},{'xy'[k % 2]},s{n},{'train' if n else 'test'}"
        for n in range(4)
        for k in (0, 1)
    ]
    manifest = listed("table", table(root, "path,start,end,label,speaker,split\n" + "\n".join(rows)))
    split = make_split(manifest, SplitRequest("table", 0.5, 0.25))
    homes = [{manifest.items[row].group for row in manifest.rows(ids)} for ids in (split.train, split.val, split.test)]
    assert [len(home) for home in homes] == [2, 1, 1]
    assert not homes[0] & homes[1]
    unknown = replace(manifest, items=tuple(replace(item, group="") for item in manifest.items))
    with pytest.raises(DataError, match="the val part of split 'table' is empty"):
        make_split(unknown, SplitRequest("table"))
