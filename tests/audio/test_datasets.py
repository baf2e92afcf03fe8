"""RAVDESS, the demo corpus, and what every corpus owes."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from corpora import GOOD, labels, listed, put, table

from samo.errors import DataError
from samo_audio.datasets import DATASETS
from samo_audio.datasets.emotions import EMOTION_TO_SENTIMENT, EMOTIONS, SENTIMENTS, label_task
from samo_audio.datasets.ravdess import FOLDS, parse_name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder for a corpus."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    return folder


# RAVDESS


def test_a_name_says_everything() -> None:
    name = parse_name("03-01-05-02-01-02-12")
    assert name is not None
    assert (name.modality, name.channel, name.emotion, name.intensity) == ("audio", "speech", "angry", "strong")
    assert (name.statement, name.repetition, name.actor, name.gender) == ("kids", "2", "12", "female")
    assert name.is_speech
    odd = parse_name("02-02-01-01-02-01-23")
    assert odd is not None
    assert (odd.modality, odd.channel, odd.statement, odd.gender) == ("video", "song", "dogs", "male")
    assert not odd.is_speech


@pytest.mark.parametrize(
    "stem",
    [
        "",
        "clip",
        "03-01-05-02-01-02",
        "03-01-05-02-01-02-12-1",
        "03-01-09-01-01-01-01",
        "03-01-01-03-01-01-01",
        "03-01-01-01-03-01-01",
        "03-01-01-01-01-03-01",
        "03-01-01-01-01-01-00",
        "03-01-01-01-01-01-25",
        "04-01-01-01-01-01-01",
        "03-03-01-01-01-01-01",
        "3-1-1-1-1-1-1",
        "03-01-01-01-01-01-01\n",
        "03-01-01-01-01-01-01 copy",
    ],
)
def test_other_names_are_none(stem: str) -> None:
    assert parse_name(stem) is None


def test_ravdess_items(root: Path) -> None:
    put(root, f"Actor_01/{GOOD[0]}.wav", f"Actor_01/{GOOD[1]}.FLAC", f"deep/er/actor_02/{GOOD[2]}.flac")
    manifest = listed("ravdess", root)
    assert [item.id for item in manifest.items] == sorted(GOOD)
    first, second, third = manifest.items
    assert first.source == f"Actor_01/{GOOD[0]}.wav"
    assert manifest.path(third).is_file()
    assert (first.group, third.group) == ("01", "02")
    assert dict(second.meta) == {"gender": "male", "intensity": "strong", "statement": "dogs", "repetition": "2"}
    assert labels(manifest) == dict(zip(GOOD, ("neutral", "angry", "surprised"), strict=True))
    assert manifest.label_space.primary.labels == EMOTIONS
    assert (manifest.dataset, manifest.synthetic, manifest.root) == ("ravdess", False, root)


def test_ravdess_sentiment(root: Path) -> None:
    put(root, *(f"03-01-{code:02d}-01-01-01-01.wav" for code in range(1, 9)))
    manifest = listed("ravdess", root, mode="sentiment")
    assert manifest.label_space.primary.name == "sentiment"
    assert manifest.label_space.primary.labels == SENTIMENTS == ("negative", "neutral", "positive")
    expected = ["neutral", "neutral", "positive", "negative", "negative", "negative", "negative", "positive"]
    assert list(labels(manifest).values()) == expected


def test_the_nested_copy_of_the_official_zip_is_not_counted_twice(root: Path) -> None:
    paths = [f"Actor_{stem[-2:]}/{stem}.wav" for stem in GOOD]
    put(root, *paths, *(f"audio_speech_actors_01-24/{path}" for path in paths))
    manifest = listed("ravdess", root)
    assert [item.source for item in manifest.items] == sorted(paths, key=lambda path: path[-24:])
    nested = listed("ravdess", root / "audio_speech_actors_01-24")
    assert [item.id for item in nested.items] == [item.id for item in manifest.items]


def test_a_clip_only_in_the_nested_copy_is_found(root: Path) -> None:
    put(root, f"Actor_01/{GOOD[0]}.wav", f"copy/Actor_01/{GOOD[0]}.wav", f"copy/Actor_01/{GOOD[1]}.wav")
    assert [item.source for item in listed("ravdess", root).items] == [
        f"Actor_01/{GOOD[0]}.wav",
        f"copy/Actor_01/{GOOD[1]}.wav",
    ]


def test_hidden_files_and_other_kinds_are_ignored(root: Path) -> None:
    put(root, f"Actor_01/{GOOD[0]}.wav", ".trash/wrong.wav", "__MACOSX/Actor_01/wrong.wav")
    (root / "Actor_01" / f"._{GOOD[0]}.wav").write_bytes(b"fork")
    (root / "LICENSE.txt").write_text("CC")
    (root / "wrong.mp3").write_bytes(b"mp3")
    assert [item.id for item in listed("ravdess", root).items] == [GOOD[0]]


def test_links_are_followed_once(root: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", f"{GOOD[0]}.wav")
    (root / "Actor_01").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(root)
    (root / f"{GOOD[1]}.wav").symlink_to(tmp_path / "gone.wav")
    assert [item.source for item in listed("ravdess", root).items] == [f"Actor_01/{GOOD[0]}.wav", f"{GOOD[1]}.wav"]


def test_song_and_video_clips_are_left_out_with_a_note(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(root, f"{GOOD[0]}.wav", "03-02-03-01-01-01-01.wav", "01-01-03-01-01-01-01.wav")
    with caplog.at_level(logging.WARNING):
        assert [item.id for item in listed("ravdess", root).items] == [GOOD[0]]
    assert "left out 2 song or video clips" in caplog.text
    assert "03-02-03-01-01-01-01.wav" in caplog.text


def test_only_song_is_refused(root: Path) -> None:
    put(root, "03-02-03-01-01-01-01.wav")
    with pytest.raises(DataError, match="only song or video"):
        listed("ravdess", root)


def test_wrong_names_among_good_ones_are_refused(root: Path) -> None:
    put(root, f"{GOOD[0]}.wav", *(f"wrong{number:02d}.wav" for number in range(12)))
    with pytest.raises(DataError, match=r"12 of 13 clips .* wrong00\.wav, .*wrong09\.wav and 2 more") as caught:
        listed("ravdess", root)
    assert "move them away" in caught.value.hint


def test_a_clip_in_another_actors_folder_is_refused(root: Path) -> None:
    put(root, f"Actor_01/{GOOD[0]}.wav", f"Actor_05/{GOOD[1]}.wav")
    with pytest.raises(DataError, match=f"Actor_05/{GOOD[1]}.wav"):
        listed("ravdess", root)


def test_a_folder_without_ravdess_names_points_at_the_other_readers(root: Path) -> None:
    put(root, "angry/a.wav", "happy/b.wav")
    with pytest.raises(DataError, match=r"none of the 2 clips .* has a RAVDESS name") as caught:
        listed("ravdess", root)
    assert "`dataset=folder`" in caught.value.hint
    assert "`dataset=table`" in caught.value.hint


@pytest.mark.parametrize("name", ["ravdess", "demo", "folder"])
def test_empty_missing_and_silent_folders_are_refused(name: str, root: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        listed(name, root)
    with pytest.raises(DataError, match="there is no folder"):
        listed(name, root / "none")
    (root / "notes.txt").write_text("no audio")
    with pytest.raises(DataError, match=r"no (audio|\.wav or \.flac) file lies below"):
        listed(name, root)
    with pytest.raises(DataError, match="is a file") as caught:
        listed(name, root / "notes.txt")
    assert "`dataset=table`" in caught.value.hint


def test_the_published_folds_part_the_actors() -> None:
    assert [len(fold) for fold in FOLDS] == [5, 5, 5, 5, 4]
    assert sorted(actor for fold in FOLDS for actor in fold) == [f"{actor:02d}" for actor in range(1, 25)]
    assert FOLDS[4] == {"01", "04", "09", "22"}


@pytest.mark.real
def test_the_real_ravdess(ravdess_root: Path) -> None:
    manifest = listed("ravdess", ravdess_root)
    assert len(manifest.items) == 1440
    counts = Counter(labels(manifest).values())
    assert counts == {name: 96 if name == "neutral" else 192 for name in EMOTIONS}
    assert Counter(item.group for item in manifest.items) == {f"{actor:02d}": 60 for actor in range(1, 25)}
    assert frozenset().union(*manifest.folds) == {item.group for item in manifest.items}
    assert sum(map(len, manifest.folds)) == 24
    genders = {item.group: item.meta["gender"] for item in manifest.items}
    assert Counter(genders.values()) == {"male": 12, "female": 12}
    sentiments = Counter(labels(listed("ravdess", ravdess_root, mode="sentiment")).values())
    assert sentiments == {"negative": 768, "neutral": 288, "positive": 384}


# The demo corpus and the registry


def test_demo_is_read_by_its_names_and_stamped(root: Path) -> None:
    put(root, f"Actor_01/{GOOD[0]}.wav", f"Actor_01/{GOOD[1]}.wav")
    manifest = listed("demo", root)
    assert (manifest.dataset, manifest.synthetic, len(manifest.items)) == ("demo", True, 2)
    assert manifest.folds == DATASETS["demo"].FOLDS


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_corpus_describes_itself(name: str) -> None:
    corpus = DATASETS[name]
    assert name == corpus.NAME
    assert isinstance(corpus.SYNTHETIC, bool)
    for text in (corpus.TITLE, corpus.LICENSE):
        assert text
        assert "\n" not in text
    assert isinstance(corpus.CITATION, str)
    assert isinstance(corpus.HOMEPAGE, str)
    for file in corpus.DOWNLOADS:
        assert file.size > 0
        assert len(file.sha256) == 64
        assert all(url.startswith("https://") for url in file.urls)
        assert corpus.CITATION
    groups = [group for fold in corpus.FOLDS for group in fold]
    assert len(groups) == len(set(groups))
    assert corpus.index.__doc__


@pytest.mark.parametrize("name", list(DATASETS))
@pytest.mark.parametrize("mode", ["emotion", "sentiment"])
def test_every_corpus_lists_in_a_stable_order(name: str, mode: str, root: Path) -> None:
    if name in ("ravdess", "demo"):
        put(root, *(f"Actor_{stem[-2:]}/{stem}.wav" for stem in GOOD))
    else:
        put(root, "happy/2/b.wav", "happy/1/a.wav", "angry/2/c.wav")
    place = root
    if name == "table":
        place = table(root, "path,label,speaker\nhappy/2/b.wav,happy,2\nhappy/1/a.wav,happy,1\nangry/2/c.wav,angry,2\n")
    values = {"mode": mode, "speaker_pattern": "/(.)/" if name == "folder" else ""}
    manifest = listed(name, place, **values)
    assert manifest == listed(name, place, **values)
    assert manifest.dataset == name
    assert manifest.synthetic == DATASETS[name].SYNTHETIC
    assert [item.id for item in manifest.items] == sorted(item.id for item in manifest.items)
    assert manifest.root.is_absolute()
    assert not np.isnan(manifest.targets).any()
    for item in manifest.items:
        assert Path(item.source).stem in item.id
        assert manifest.path(item).is_file()
        assert item.group
    assert manifest.label_space.primary.name == mode


def test_names_of_corpora_cost_no_heavy_import() -> None:
    code = (
        "import sys, samo_audio.datasets as d\n"
        "assert list(d.DATASETS) == ['ravdess', 'demo', 'table', 'folder'] and len(d.DATASETS) == 4\n"
        "d.DATASETS['ravdess'], d.DATASETS['table'], d.DATASETS['folder']\n"
        "heavy = {'torch', 'numpy', 'requests', 'pydantic', 'soundfile'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_label_words() -> None:
    assert {EMOTION_TO_SENTIMENT[name] for name in EMOTIONS} == set(SENTIMENTS)
    task, class_of = label_task(["b", "a", "b"], "emotion", "here")
    assert task.labels == ("a", "b")
    assert class_of == {"a": "a", "b": "b"}
