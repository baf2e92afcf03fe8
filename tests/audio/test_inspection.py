"""What `samo data inspect` says and draws."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora import listed, table
from matplotlib.figure import Figure
from matplotlib.image import imread

from samo.data.manifest import Manifest
from samo_audio import inspection
from samo_audio.config import FeatureSettings
from samo_audio.inspection import draw, inspect
from samo_audio.waveforms import Waveforms, open_waveforms


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoding cache of the test's own."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))


def tone(path: Path, seconds: float, level: float, rate: int = 8000, channels: int = 1, hertz: float = 440.0) -> None:
    """A sine with the peak ``level``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.repeat(wave[:, None], channels, axis=1), rate, subtype="FLOAT")


def opened(manifest: Manifest, sr: int = 8000) -> tuple[Manifest, Waveforms]:
    waveforms = open_waveforms([(item.id, manifest.path(item)) for item in manifest.items], sr)
    return manifest.with_content(waveforms.content), waveforms


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Manifest, Waveforms]:
    """Five clips, two speakers, two classes; one copy under another label, one stereo, one silent."""
    tone(tmp_path / "a1.wav", 0.5, 0.5)
    tone(tmp_path / "a2.wav", 1.0, 0.05, rate=16000)
    tone(tmp_path / "b1.wav", 0.5, 0.5)
    tone(tmp_path / "b2.wav", 2.0, 0.1, channels=2, hertz=300.0)
    tone(tmp_path / "b3.wav", 1.5, 0.0)
    rows = "a1.wav,sad,ann,f\na2.wav,sad,ann,f\nb1.wav,happy,bob,m\nb2.wav,sad,bob,m\nb3.wav,sad,bob,m\n"
    return opened(listed("table", table(tmp_path, "path,label,speaker,gender\n" + rows)))


def test_counts_lengths_and_levels(corpus: tuple[Manifest, Waveforms]) -> None:
    found = inspect(*corpus)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["dataset"], found["n"], found["synthetic"], found["task"]) == ("table", 5, False, "emotion")
    assert found["by_class"] == {"happy": 1, "sad": 4}
    assert found["by_speaker"] == {"ann": 2, "bob": 3}
    assert found["class_by_speaker"] == {"ann": {"happy": 0, "sad": 2}, "bob": {"happy": 1, "sad": 2}}
    assert found["duration_s"] == pytest.approx({"min": 0.5, "median": 1.0, "max": 2.0, "total": 5.5})
    assert found["native"] == {"sample_rates": {"8000": 4, "16000": 1}, "channels": {"1": 4, "2": 1}}
    ann = found["level"]["by_speaker"]["ann"]
    assert ann["peak"] == pytest.approx({"min": 0.05, "median": 0.275, "max": 0.5}, rel=1e-2)
    # A sine's level lies 3 dB below its peak.
    assert ann["rms_db"]["max"] == pytest.approx(20 * np.log10(0.5) - 3.01, abs=0.05)
    assert found["level"]["peak"]["min"] == 0.0


def test_copies_and_warnings(corpus: tuple[Manifest, Waveforms]) -> None:
    found = inspect(*corpus)
    assert found["duplicates"] == [["a1", "b1"]]
    assert found["clip_warnings"] == {"b3": ["silent"]}
    lines = found["warnings"]
    assert lines[0].startswith("identical samples: a1 = b1, with different labels, by different speakers")
    text = "\n".join(lines)
    assert "1 clip: silent (b3)" in text
    assert "1 clip with several channels, which are averaged (b2)" in text
    assert "sampling rates differ: 4 at 8000 Hz, 1 at 16000 Hz" in text
    assert "classes are uneven: 4 of sad, 1 of happy" in text
    assert "fewer than 3 speakers, too few for a split by speaker: happy, sad" in text


def test_unknown_speakers_are_counted_as_such(tmp_path: Path) -> None:
    tone(tmp_path / "x.wav", 0.5, 0.5)
    tone(tmp_path / "y.wav", 0.5, 0.4)
    manifest = listed(
        "table", table(tmp_path, "path,label\nx.wav,sad\ny.wav,happy\n"), split="random", mode="sentiment"
    )
    found = inspect(*opened(manifest))
    assert found["by_speaker"] == {"unknown": 2}
    assert found["by_class"] == {"negative": 1, "neutral": 0, "positive": 1}
    assert found["warnings"] == [
        "2 clips without a known speaker: a split by speaker is impossible; fill the column of the speaker, or name "
        "it, for example `speaker_column=actor`",
        "no clip of: neutral",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("fine_pictures")
def test_pictures(corpus: tuple[Manifest, Waveforms], tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "figures"
    written = draw(*corpus, folder, FeatureSettings(sr=8000, n_mels=32, n_fft=256, hop_length=128, duration=1.0))
    assert [path.name for path in written] == ["class_balance.png", "clips.png", "durations.png", "levels.png"]
    assert sorted(folder.iterdir()) == sorted(written)
    for path in written:
        image = imread(path)
        assert min(image.shape[:2]) > 200
        assert image[..., :3].std() > 0.02, f"{path.name} looks empty"


@pytest.mark.parametrize(("synthetic", "words"), [(True, "demo (synthetic demo data): "), (False, "table: ")])
def test_titles_say_what_is_synthetic(
    corpus: tuple[Manifest, Waveforms],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    synthetic: bool,
    words: str,
) -> None:
    manifest, waveforms = corpus
    if synthetic:
        manifest = Manifest("demo", manifest.label_space, manifest.items, manifest.root, synthetic=True)
    titles = []
    new_figure = inspection._new_figure

    def watched(*args: object) -> object:
        figure = new_figure(*args)  # type: ignore[arg-type]
        titles.append(figure.get_suptitle())
        return figure

    monkeypatch.setattr(inspection, "_new_figure", watched)
    draw(manifest, waveforms, tmp_path / "figures")
    assert len(titles) == 4
    assert all(title.startswith(words) for title in titles)


def test_examples_share_a_speaker_where_one_speaks_every_class(corpus: tuple[Manifest, Waveforms]) -> None:
    manifest, _ = corpus
    assert {name: manifest.items[row].group for name, row in inspection._examples(manifest).items()} == {
        "happy": "bob",
        "sad": "bob",
    }


@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
def test_a_tone_stands_at_its_frequency_and_time(corpus: tuple[Manifest, Waveforms], mel_scale: str) -> None:
    features = FeatureSettings(sr=8000, n_mels=64, n_fft=256, hop_length=128, duration=1.0, mel_scale=mel_scale)
    (mel,) = inspection._log_mels([corpus[1].waveform(0)], features)
    assert mel.shape == (64, 4000 // 128 + 1)
    assert mel.max() == 0.0
    axes = Figure().subplots()
    corners = inspection._show_mel(axes, mel, features).get_coordinates()
    loudest = int(mel.mean(axis=1).argmax())
    low, high = corners[loudest, 0, 1], corners[loudest + 1, 0, 1]
    assert low < 440.0 < high
    # A sine falls on two bins, in filters that may be wider than their distance.
    assert high - low < 80.0
    assert corners[-1, 0, 1] == pytest.approx(4000.0, abs=80.0)
    assert corners[0, 1, 0] == pytest.approx(0.5 * 128 / 8000)
    assert corners[0, -1, 0] == pytest.approx(31.5 * 128 / 8000)
    assert axes.get_yscale() == "symlog"


@pytest.mark.real
def test_the_real_ravdess(ravdess_root: Path) -> None:
    manifest = listed("ravdess", ravdess_root)
    part = [item for item in manifest.items if item.group in ("01", "07")]
    small = Manifest(manifest.dataset, manifest.label_space, tuple(part), manifest.root)
    found = inspect(*opened(small, sr=16000))
    assert found["duplicates"] == [["03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]]
    assert found["native"] == {"sample_rates": {"48000": 120}, "channels": {"1": 118, "2": 2}}
    assert found["clip_warnings"] == {}
    assert 2.9 < found["duration_s"]["min"] < found["duration_s"]["max"] < 5.3


def test_names_of_dollars_are_drawn(tmp_path: Path) -> None:
    """matplotlib takes what stands between two dollar signs for mathematics, and stops at what is none."""
    odd = r"$\undefined$"
    tone(tmp_path / f"{odd}.wav", 0.5, 0.5)
    tone(tmp_path / "b.wav", 0.5, 0.4, hertz=300.0)
    rows = f"{odd}.wav,{odd},x{odd},{odd}\nb.wav,happy,bob,m\n"
    clips = opened(listed("table", table(tmp_path, "path,label,speaker,gender\n" + rows)))
    assert len(draw(*clips, tmp_path / "pictures")) == 4


def test_names_of_speakers_do_not_overlap(corpus: tuple[Manifest, Waveforms], monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve long names side by side, and as many as are named at all."""
    manifest, waveforms = corpus
    for number in (12, 60):
        items = tuple(replace(manifest.items[0], id=f"{n}", group=f"speaker_number_{n:03d}") for n in range(number))
        many = Manifest("table", manifest.label_space, items, manifest.root)
        monkeypatch.setattr(inspection, "_levels", lambda _, n=number: np.full((2, n), -20.0))
        figure = inspection._levels_by_speaker(many, waveforms)
        figure.draw_without_rendering()
        ends = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
        assert len(ends) == number
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(ends))
