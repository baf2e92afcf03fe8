"""Decoding: exact values, every kind of bad file, streaming."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from samo.errors import DataError
from samo_audio import audio_io
from samo_audio.audio_io import LevelMeter, info, is_audio, read, window_starts, windows

RATE = 8000
SPECIAL = {
    "float.wav": {"subtype": "FLOAT"},
    "ex.wav": {"format": "WAVEX"},
    "x.rf64": {"format": "RF64"},
    "x.opus": {"format": "OGG", "subtype": "OPUS"},
    "alac.caf": {"subtype": "ALAC_16"},
}
CONTAINERS = [*SPECIAL, "x.wav", "x.w64", "x.flac", "x.ogg", "x.mp3", "x.aiff", "x.au", "x.caf"]


def tone(seconds: float = 0.5, rate: int = RATE, amplitude: float = 0.5, hz: float = 440.0) -> np.ndarray:
    """(T,) float64 sine."""
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def put(path: Path, samples: np.ndarray, rate: int = RATE, **kwargs: str) -> Path:
    """Write samples, as SPECIAL says for some names, and return the path."""
    soundfile.write(path, samples, rate, **(kwargs or SPECIAL.get(path.name, {})))
    return path


def wav_bytes(data: bytes, *, rate: int = RATE, declared: int | None = None, riff: int = 36) -> bytes:
    """A 16-bit WAV whose header states ``declared`` bytes of samples."""
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    length = len(data) if declared is None else declared
    return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + fmt + struct.pack("<4sI", b"data", length) + data


def cut(path: Path, share: float = 0.5) -> Path:
    """Keep the beginning of a file."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def refusal(path: Path) -> str:
    """The one line ``read`` refuses a file with; it names the file once."""
    with pytest.raises(DataError) as caught:
        read(path, RATE)
    assert caught.value.message.startswith(f"{path}: ")
    assert "\n" not in caught.value.message
    assert caught.value.exit_status == 3
    return caught.value.message.removeprefix(f"{path}: ")


def test_samples_are_exact(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wav", np.array([0, 16384, -32768, 32767], dtype=np.int16))
    clip = read(path, RATE)
    assert clip.waveform.dtype == np.float32
    assert clip.waveform.tolist() == [0.0, 0.5, -1.0, 32767 / 32768]
    assert (clip.native_rate, clip.channels, clip.peak) == (RATE, 1, 1.0)
    assert clip.rms_db == pytest.approx(10 * math.log10((0.25 + 1 + (32767 / 32768) ** 2) / 4), abs=1e-5)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = np.array([8192, 0, -16384], dtype=np.int16), np.array([16384, 0, 16384], dtype=np.int16)
    clip = read(put(tmp_path / "a.wav", np.stack([left, right], axis=1)), RATE)
    assert clip.waveform.tolist() == [0.375, 0.0, 0.0]
    assert clip.channels == 2


def test_every_sample_format_gives_the_same_clip(tmp_path: Path) -> None:
    eighths = np.round(127 * tone()).astype(np.int32)
    clips = [read(put(tmp_path / f"{s}.wav", eighths << 24, subtype=s), RATE) for s in ("PCM_U8", "PCM_16")]
    clips += [read(put(tmp_path / f"{s}.wav", eighths << 24, subtype=s), RATE) for s in ("PCM_24", "PCM_32")]
    clips += [read(put(tmp_path / f"{s}.wav", eighths / 128, subtype=s), RATE) for s in ("FLOAT", "DOUBLE")]
    for clip in clips:
        assert np.array_equal(clip.waveform, (eighths / 128).astype(np.float32))
    assert len({clip.content for clip in clips}) == 1


def test_float_files_keep_values_beyond_full_scale(tmp_path: Path) -> None:
    clip = read(put(tmp_path / "a.wav", 3 * tone(), subtype="FLOAT"), RATE)
    assert clip.peak == pytest.approx(1.5, rel=1e-3)
    assert clip.warnings == ()
    (warning,) = read(put(tmp_path / "b.wav", 32767 * tone(), subtype="FLOAT"), RATE).warnings
    assert "where 1 is full scale" in warning
    assert "far beyond full scale" in refusal(put(tmp_path / "c.wav", 1e20 * tone(), subtype="FLOAT"))


def test_resampling_keeps_the_tone_and_the_length(tmp_path: Path) -> None:
    clip = read(put(tmp_path / "a.wav", tone(1.0, 48_000), 48_000, subtype="FLOAT"), 22_050)
    assert len(clip.waveform) == 22_050
    inside = slice(500, -500)
    assert np.abs(clip.waveform[inside] - tone(1.0, 22_050)[inside]).max() < 1e-3


def test_content_is_the_samples_and_the_rate_only(tmp_path: Path) -> None:
    samples = (20_000 * tone()).astype(np.int16)
    wav = put(tmp_path / "a.wav", samples)
    content = read(wav, RATE).content
    assert read(put(tmp_path / "a.flac", samples), 4000).content == content
    assert read(put(tmp_path / "a.aiff", samples), RATE).content == content
    assert read(put(tmp_path / "b.wav", np.stack([samples, samples], axis=1)), RATE).content == content
    tagged = tmp_path / "tagged.wav"
    tagged.write_bytes(wav.read_bytes() + b"LIST" + struct.pack("<I", 10) + b"INFOtagged")
    assert read(tagged, RATE).content == content
    assert read(put(tmp_path / "c.wav", samples, 16_000), RATE).content != content
    samples[100] += 1
    assert read(put(tmp_path / "d.wav", samples), RATE).content != content


@pytest.mark.parametrize("name", CONTAINERS)
def test_info_and_read_agree_in_every_container(tmp_path: Path, name: str) -> None:
    about = info(put(tmp_path / name, tone(1.0, 48_000), 48_000))
    assert (about.sample_rate, about.channels, about.warnings) == (48_000, 1, ())
    assert about.frames == 48_000
    clip = read(tmp_path / name, 48_000)
    assert len(clip.waveform) == about.frames
    assert about.duration_s == about.frames / 48_000
    assert clip.rms_db == pytest.approx(-9.03, abs=0.3)


def test_is_audio_goes_by_the_name() -> None:
    assert is_audio(Path("a.b/c.WAV"))
    assert is_audio(Path("d.Flac"))
    assert not is_audio(Path("wav/a.txt"))
    assert not is_audio(Path("a/._resource_fork.wav"))


def test_silence_is_a_warning(tmp_path: Path) -> None:
    clip = read(put(tmp_path / "a.wav", np.zeros(RATE)), 22_050)
    assert clip.warnings == ("silent",)
    assert (clip.peak, clip.rms_db) == (0.0, -200.0)
    assert not clip.waveform.any()


def test_a_very_short_clip_is_a_warning(tmp_path: Path) -> None:
    assert read(put(tmp_path / "a.wav", tone(0.05)), RATE).warnings == ("shorter than 0.1 s",)


def test_flat_tops_are_counted_across_blocks() -> None:
    # Of 3 samples at full scale one lies between equals: 1 of 999 is above a thousandth, 1 of 1,001 below.
    for n, expected in ((999, ("clipped",)), (1001, ())):
        samples = np.r_[np.zeros(400), np.ones(3), np.zeros(n - 403)].astype(np.float32)
        for cut in (n, 1, 401, 402, 403):
            meter = LevelMeter()
            for block in np.split(samples, range(cut, n, cut)):
                meter.add(block)
            assert meter.warnings == expected, cut


def test_clipping_is_a_warning_and_full_scale_alone_is_not(tmp_path: Path) -> None:
    assert read(put(tmp_path / "a.wav", np.clip(tone(amplitude=2.0), -1, 1)), RATE).warnings == ("clipped",)
    assert read(put(tmp_path / "b.wav", tone(amplitude=1.0)), RATE).warnings == ()


def test_mp3_named_wav_is_decoded_with_a_warning(tmp_path: Path) -> None:
    mp3 = put(tmp_path / "a.mp3", tone(1.0, 48_000), 48_000)
    wav = tmp_path / "a.wav"
    wav.write_bytes(mp3.read_bytes())
    assert info(wav).warnings == ("is MP3 despite its name",)
    clip = read(wav, 48_000)
    assert clip.warnings == ("is MP3 despite its name",)
    assert np.array_equal(clip.waveform, read(mp3, 48_000).waveform)


def test_mp3_without_a_length_is_counted(tmp_path: Path) -> None:
    noise = np.concatenate([np.zeros(48_000), 0.1 * np.random.default_rng(0).standard_normal(48_000)])
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise, 48_000, bitrate_mode="VARIABLE")
    whole = path.read_bytes()
    path.write_bytes(whole[whole.index(b"\xff\xfb", 4) :])
    about = info(path)
    assert abs(about.frames - 96_000) <= 2 * 1152
    assert "without a Xing header" in about.warnings[0]
    assert len(read(path, 48_000).waveform) == about.frames
    assert sum(1 for _ in windows(path, 48_000, 0.5)) == math.ceil(about.frames / 24_000)


@pytest.mark.parametrize("declared", [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_wav_of_a_recorder_that_cannot_seek(tmp_path: Path, declared: int) -> None:
    samples = (20_000 * tone()).astype("<i2")
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(samples.tobytes(), declared=declared, riff=declared or 8))
    assert read(path, RATE).waveform.tolist() == (samples / 32768).tolist()


def test_flac_that_states_no_length(tmp_path: Path) -> None:
    path = put(tmp_path / "a.flac", tone(1.0))
    expected = read(path, RATE).waveform
    header = bytearray(path.read_bytes())
    header[21] &= 0xF0
    header[22:26] = bytes(4)
    path.write_bytes(header)
    assert info(path).frames == RATE
    assert np.array_equal(read(path, RATE).waveform, expected)
    assert len(list(windows(path, RATE, 0.3))) == 4
    # Cut between two frames it is read as far as it goes, which nothing but the warning tells.
    assert read(path, RATE).warnings == ("states no length: a missing end would go unnoticed",)


@pytest.mark.parametrize(("subtype", "width"), [("PCM_16", 2), ("PCM_24", 3), ("ULAW", 1)])
def test_nist_is_as_long_as_its_header_says(tmp_path: Path, subtype: str, width: int) -> None:
    path = put(tmp_path / "a.wav", np.stack([tone(), tone()], axis=1), format="NIST", subtype=subtype)
    whole, n_bytes = path.read_bytes(), 2 * len(tone()) * width
    assert (info(path).format, len(read(path, RATE).waveform), read(path, RATE).warnings) == ("NIST", len(tone()), ())
    path.write_bytes(whole[: 1024 + n_bytes - 100])
    assert refusal(path) == f"truncated: {n_bytes - 100} of {n_bytes} bytes of audio are there"
    path.write_bytes(whole[: 1024 + n_bytes] + bytes(range(1, 101)))
    assert refusal(path).startswith(f"states {n_bytes} bytes of audio, but 100 more follow")
    path.write_bytes(whole.replace(b"sample_count -i", b"sample_score -i"))
    assert read(path, RATE).warnings == ("states no length: a missing end would go unnoticed",)


def test_ogg_without_its_last_page_is_a_warning(tmp_path: Path) -> None:
    path = put(tmp_path / "a.ogg", 0.3 * np.random.default_rng(0).standard_normal(5 * RATE))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"OggS")])
    assert "has no end mark" in read(path, RATE).warnings[0]


def test_a_cut_behind_the_samples_is_harmless(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wav", tone())
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 1000) + b"INFO")
    assert len(read(path, RATE).waveform) == len(tone())


def test_missing_folder_empty_and_foreign_files_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.wav") == "does not exist"
    assert refusal(tmp_path) == "is a folder, not an audio file"
    assert refusal(Path("/dev/null")) == "is not a regular file"
    (tmp_path / "empty.wav").touch()
    assert refusal(tmp_path / "empty.wav") == "is empty (0 bytes)"
    for name in ("text.wav", "text.mp3", "text.flac", "text.au", "text.raw", "text.m4a"):
        (tmp_path / name).write_bytes(b"this is no audio at all\n" * 50)
        assert refusal(tmp_path / name) == "is not in an audio format SAMO can read"


def test_header_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(b""))
    assert refusal(path) == "holds no samples"
    path.write_bytes(wav_bytes(b"", declared=16_000))
    assert refusal(path) == "truncated: 0 of 16000 bytes of audio are there"
    path.write_bytes(wav_bytes(b"")[:30])
    assert refusal(path) == "is not in an audio format SAMO can read"
    flac = put(tmp_path / "a.flac", tone())
    flac.write_bytes(flac.read_bytes()[:100])
    assert "truncated" in refusal(flac)


def test_a_recorder_stopped_hard_gets_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(bytes(1000), declared=0))
    with pytest.raises(DataError, match="holds no samples") as caught:
        info(path)
    assert "--ignore-length" in caught.value.hint


@pytest.mark.parametrize("missing", [1, 2, 4000])
def test_truncated_wav_is_refused_to_the_byte(tmp_path: Path, missing: int) -> None:
    path = put(tmp_path / "a.wav", tone())
    path.write_bytes(path.read_bytes()[:-missing])
    assert refusal(path) == f"truncated: {8000 - missing} of 8000 bytes of audio are there"


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncation_is_found_in_every_container(tmp_path: Path, name: str, share: float) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(48_000)
    assert "truncated" in refusal(cut(put(tmp_path / name, noise, 48_000), share))


def test_big_endian_wav_is_checked_too(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wav", tone(), endian="BIG")
    assert path.read_bytes()[:4] == b"RIFX"
    assert len(read(path, RATE).waveform) == len(tone())
    assert "truncated" in refusal(cut(path))


def test_a_header_that_claims_terabytes_allocates_nothing(tmp_path: Path) -> None:
    path = put(tmp_path / "a.flac", tone(1.0))
    header = bytearray(path.read_bytes())
    header[21] |= 0x0F
    path.write_bytes(header)
    assert refusal(path) == f"truncated: {RATE} of {15 * 2**32 + RATE} samples are there"


def test_flac_damaged_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "a.flac", 0.1 * np.random.default_rng(0).standard_normal(48_000))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    path.write_bytes(data)
    assert refusal(path) == "damaged or truncated: it cannot be decoded to its end"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_nan_and_infinite_samples_are_refused(tmp_path: Path, value: float, channels: int) -> None:
    samples = np.repeat(tone()[:, None], channels, axis=1)
    samples[800, 0] = value
    path = put(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert refusal(path) == "holds NaN or infinite samples, the first at 0.100 s"


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2_000_000_000])
def test_absurd_rates_are_refused(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(bytes(200), rate=rate))
    assert refusal(path) == f"sample rate {rate} Hz is not within 1000 to 768000 Hz"


def test_too_many_channels_are_refused(tmp_path: Path) -> None:
    assert read(put(tmp_path / "a.wav", np.full((100, 32), 0.5)), RATE).waveform[0] == 0.5
    assert refusal(put(tmp_path / "b.wav", np.zeros((100, 33)))) == "33 channels; at most 32 are supported"


def test_less_than_one_sample_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wav", np.array([0.5]), 48_000)
    with pytest.raises(DataError, match="less than one sample at 8000 Hz"):
        read(path, 8000)
    with pytest.raises(DataError, match="less than one sample at 8000 Hz"):
        list(windows(path, 8000, 1.0))


@pytest.mark.parametrize(
    ("n_samples", "window", "starts"),
    [(0, 4, [0]), (3, 4, [0]), (4, 4, [0]), (5, 4, [0, 1]), (8, 4, [0, 4]), (9, 4, [0, 2, 5]), (10, 4, [0, 3, 6])],
)
def test_window_starts(n_samples: int, window: int, starts: list[int]) -> None:
    found = window_starts(n_samples, window)
    assert found.tolist() == starts
    assert found.dtype == np.int64


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (22_050, 1), (8000, 1)])
@pytest.mark.parametrize("seconds", [0.4, 1.0, 2.3456])
def test_streaming_equals_cutting_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, channels: int, seconds: float
) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((round(seconds * rate), channels))
    path = put(tmp_path / "a.wav", noise, rate)
    whole = read(path, 22_050).waveform
    # Blocks far shorter than a window.
    monkeypatch.setattr(audio_io, "_BLOCK", 1000)
    found = list(windows(path, 22_050, 0.5))
    starts = window_starts(len(whole), 11_025)
    assert [start_s for start_s, _ in found] == [start / 22_050 for start in starts]
    for start, (_, samples) in zip(starts, found, strict=True):
        expected = whole[start : start + 11_025]
        assert samples.shape == expected.shape
        assert np.abs(samples - expected).max() < 1e-4


def test_the_last_window_ends_with_the_last_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.wav", tone(1.0))
    about = info(path)
    monkeypatch.setattr(audio_io, "info", lambda _: replace(about, frames=about.frames - 3))
    *_, (start_s, samples) = windows(path, RATE, 0.3)
    assert start_s == 0.7
    assert np.array_equal(samples, read(path, RATE).waveform[-2400:])


def test_streaming_checks_the_header_at_once_and_samples_as_they_come(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="truncated"):
        windows(cut(put(tmp_path / "a.wav", tone())), RATE, 0.1)
    samples = tone(60.0)
    samples[-10] = np.nan
    stream = windows(put(tmp_path / "b.wav", samples, subtype="FLOAT"), RATE, 1.0)
    assert next(stream)[0] == 0.0
    with pytest.raises(DataError, match=r"first at 59\.999 s"):
        list(stream)
    flac = put(tmp_path / "c.flac", 0.1 * np.random.default_rng(0).standard_normal(60 * RATE))
    with pytest.raises(DataError, match="truncated"):
        list(windows(cut(flac), RATE, 1.0))


def test_two_hours_are_streamed_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    minute = (20_000 * tone(60.0)).astype(np.int16)
    with soundfile.SoundFile(path, "w", samplerate=RATE, channels=1, subtype="PCM_U8") as file:
        for _ in range(120):
            file.write(minute)
    code = """
import resource, sys
from pathlib import Path
from samo_audio.audio_io import windows
def peak_kb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stream = windows(Path(sys.argv[1]), 4000, 3.0)
next(stream)
before = peak_kb()
print(1 + sum(1 for _ in stream), peak_kb() - before)
"""
    root = Path(audio_io.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=root, check=True)
    count, growth_kb = map(int, done.stdout.split())
    assert count == 2400
    # The samples alone would take 110 MB.
    assert growth_kb < 30_000


@pytest.mark.real
@pytest.mark.parametrize("name", ["Actor_01/03-01-02-01-01-02-01.wav", "Actor_20/03-01-06-01-01-02-20.flac"])
def test_ravdess_stereo_files_with_equal_channels(ravdess_root: Path, name: str) -> None:
    clip = read(ravdess_root / name, 48_000)
    assert clip.channels == 2
    assert np.array_equal(clip.waveform, soundfile.read(ravdess_root / name, dtype="float32")[0][:, 0])


@pytest.mark.real
def test_ravdess_duplicate_has_one_content(ravdess_root: Path) -> None:
    pair = [ravdess_root / "Actor_07" / f"03-01-03-01-{take}-07.flac" for take in ("02-01", "02-02")]
    assert len({read(path, 22_050).content for path in pair}) == 1
