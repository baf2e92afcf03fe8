"""Sound from files, pipes and a microphone that is a stand-in: what arrives, at what pace, and what is lost."""

from __future__ import annotations

import io
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from samo.errors import DataError, EnvironmentProblem, SettingsError
from samo_audio import sources
from samo_audio.sources import Source, at_pace, file_source, microphone, microphones, pipe_source

SR = 8000
SOUND = (np.sin(np.arange(2000) / 7) * 0.5).astype(np.float32)


class Pipe(io.RawIOBase):
    """Bytes that come in small pieces and cannot be sought."""

    def __init__(self, data: bytes, piece: int = 100) -> None:
        self._data, self._piece = io.BytesIO(data), piece

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, self._piece))


def heard(source: Source) -> np.ndarray:
    return np.concatenate([np.atleast_2d(block) for block in source.blocks], axis=1)


def wav(subtype: str, channels: int = 1) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.stack([SOUND] * channels, axis=1), SR, format="WAV", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("subtype", "scale"),
    [("PCM_U8", 127.5), ("PCM_16", 2**15), ("PCM_24", 2**31), ("PCM_32", 2**31), ("FLOAT", 1.0), ("DOUBLE", 1.0)],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_comes_through_a_pipe(subtype: str, scale: float, channels: int) -> None:
    source = pipe_source(Pipe(wav(subtype, channels)))
    found = heard(source)
    assert (source.sr, found.shape) == (SR, (channels, 2000))
    middle = 127.5 if subtype == "PCM_U8" else 0.0
    np.testing.assert_allclose((found[0] - middle) / scale, SOUND, atol=1 / 120 if middle else 1e-4)
    np.testing.assert_array_equal(found[0], found[-1])


def test_a_wav_that_does_not_know_its_length_is_read_to_its_end() -> None:
    whole = bytearray(wav("PCM_16"))
    at = bytes(whole).index(b"data") + 4
    for length in (0, 0xFFFFFFFF):
        whole[at : at + 4] = struct.pack("<I", length)
        assert heard(pipe_source(Pipe(bytes(whole)))).shape == (1, 2000)
    # Half a sample at the end is left out.
    assert heard(pipe_source(Pipe(bytes(whole[:-1])))).shape == (1, 1999)


def test_what_stands_behind_the_samples_is_no_sound() -> None:
    whole = wav("PCM_16")
    picture = b"id3 " + struct.pack("<I", 4000) + bytes(range(250)) * 16
    found = heard(pipe_source(Pipe(whole + picture)))
    np.testing.assert_array_equal(found, heard(pipe_source(Pipe(whole))))
    assert found.shape == (1, 2000)
    # What ffmpeg, sox and arecord state into a pipe.
    at = whole.index(b"data") + 4
    for length in (0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF):
        piped = whole[:at] + struct.pack("<I", length) + whole[at + 4 :] + bytes(200)
        assert heard(pipe_source(Pipe(piped))).shape == (1, 2100)
    # RF64 states its length elsewhere.
    long = b"RF64" + whole[4:12] + b"ds64" + struct.pack("<IQQQI", 28, 0, 4000, 2000, 0)
    long += whole[12:at] + b"\xff" * 4 + whole[at + 4 :] + picture
    assert heard(pipe_source(Pipe(long))).shape == (1, 2000)


def test_a_pipe_without_samples_is_refused() -> None:
    whole = wav("PCM_16")
    for source in (pipe_source(Pipe(b""), "s16le", SR), pipe_source(Pipe(whole[: whole.index(b"data") + 8]))):
        with pytest.raises(DataError, match="stdin is empty: no samples came"):
            heard(source)


def test_chunks_before_the_samples_are_passed_over() -> None:
    whole = wav("PCM_16")
    at = whole.index(b"data")
    extra = b"LIST" + struct.pack("<I", 5) + b"abcde\0"
    assert heard(pipe_source(Pipe(whole[:at] + extra + whole[at:]))).shape == (1, 2000)


def test_raw_samples() -> None:
    integers = (SOUND * 2**15).astype("<i2")
    source = pipe_source(Pipe(integers.tobytes()), "s16le", SR)
    np.testing.assert_array_equal(heard(source)[0], integers)
    pair = np.stack([SOUND, -SOUND], axis=1).astype("<f4")
    np.testing.assert_array_equal(heard(pipe_source(Pipe(pair.tobytes()), "f32le", SR, 2)), pair.T)
    assert max(block.shape[1] for block in pipe_source(Pipe(pair.tobytes()), "f32le", SR, 2).blocks) == SR // 10


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "stdin is empty"),
        (b"ID3" + bytes(50), "stdin is no WAV"),
        (wav("PCM_16")[:30], "header is damaged"),
        (wav("PCM_16")[:12] + b"junk" + struct.pack("<I", 1 << 30) + bytes(99), "header is damaged"),
        (wav("MS_ADPCM"), "coding 2 with 4 bits"),
    ],
)
def test_what_is_no_wav(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        pipe_source(Pipe(data))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"coding": "s16le"}, "need their rate"),
        ({"coding": "f32le", "sr": SR, "channels": 33}, "1 to 32"),
        ({"sr": SR}, "says its rate and channels itself"),
        ({"channels": 2}, "says its rate and channels itself"),
    ],
)
def test_settings_of_pipes(how: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        pipe_source(Pipe(wav("PCM_16")), **how)


def test_a_file_comes_in_tenths_of_a_second(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", SOUND, SR)
    source = file_source(tmp_path / "a.flac")
    lengths = [len(block) for block in source.blocks]
    assert (source.sr, lengths) == (SR, [800, 800, 400])
    with pytest.raises(DataError, match="does not exist"):
        file_source(tmp_path / "none.wav")


def test_a_block_comes_when_its_last_sample_was_heard() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        now[0] += seconds

    given = at_pace(Source("x", SR, [SOUND[:800], SOUND[:800], SOUND[:400]]), sleep, lambda: now[0])
    next(given)
    assert now[0] == pytest.approx(100.1)
    now[0] += 0.07  # a model that takes its time
    next(given)
    assert now[0] == pytest.approx(100.2)
    now[0] += 0.3  # one that is late: the next block waits already
    next(given)
    assert now[0] == pytest.approx(100.5)
    assert slept == [0.1, 0.03]


class Sounddevice(types.ModuleType):
    """Stands in for the library: two microphones and a loudspeaker."""

    class PortAudioError(Exception):
        """As the library's."""

    def __init__(self, inputs: int = 2) -> None:
        super().__init__("sounddevice")
        self.default = types.SimpleNamespace(device=(2, 0))
        self._inputs = inputs
        self.opened: dict[str, Any] = {}
        self.refuses = ""

    def query_devices(self) -> list[dict[str, Any]]:
        names = [("Speaker", 0), ("USB Mic", 1), ("Built-in Mic", 2)]
        return [
            {"name": name, "max_input_channels": n if self._inputs else 0, "default_samplerate": 44_100.0}
            for name, n in names
        ]

    def InputStream(self, callback: Callable[..., None], **how: Any) -> Any:  # noqa: N802
        if self.refuses:
            raise self.PortAudioError(self.refuses)
        self.opened, self.callback = how, callback
        return io.BytesIO()  # something to enter and leave

    def give(self, level: float, *, overflow: bool = False) -> None:
        status = types.SimpleNamespace(input_overflow=overflow)
        self.callback(np.full((4410, 1), level, np.float32), 4410, None, status)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Sounddevice:
    found = Sounddevice()
    monkeypatch.setitem(sys.modules, "sounddevice", found)
    return found


def test_a_microphone_is_chosen_by_number_or_name(device: Sounddevice) -> None:
    assert microphones() == [(1, "USB Mic", 1, 44_100), (2, "Built-in Mic", 2, 44_100)]
    for name, number in (("", 2), ("1", 1), ("usb", 1), ("built", 2)):
        with microphone(name) as source:
            assert device.opened["device"] == number
            assert (device.opened["samplerate"], device.opened["blocksize"], source.sr) == (44_100, 4410, 44_100)
    for name, says in (("mic", "several are called so"), ("9", "no microphone is"), ("speaker", "no microphone is")):
        with pytest.raises(SettingsError, match=says), microphone(name):
            pass


def test_blocks_of_a_microphone_arrive_in_order(device: Sounddevice) -> None:
    with microphone() as source:
        for level in (0.1, 0.2):
            device.give(level)
        blocks = iter(source.blocks)
        assert [float(next(blocks)[0]) for _ in range(2)] == pytest.approx([0.1, 0.2])
        assert (source.overruns, source.lost_s) == (0, 0.0)


def test_what_nobody_takes_is_counted(device: Sounddevice) -> None:
    with microphone() as source:
        for _ in range(103):
            device.give(0.1)
        assert (source.overruns, source.lost_s) == (3, pytest.approx(0.3))
        device.give(0.1, overflow=True)
        assert source.overruns == 5


def test_a_microphone_that_is_unplugged(device: Sounddevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "UNPLUGGED_S", 0.01)
    with microphone() as source, pytest.raises(EnvironmentProblem, match="gives no sound any more"):
        next(iter(source.blocks))


def test_without_a_microphone_or_its_libraries(device: Sounddevice, monkeypatch: pytest.MonkeyPatch) -> None:
    device.refuses = "Invalid sample rate"
    with pytest.raises(EnvironmentProblem, match="'Built-in Mic' cannot be used: Invalid sample rate"), microphone():
        pass
    monkeypatch.setitem(sys.modules, "sounddevice", Sounddevice(inputs=0))
    with pytest.raises(EnvironmentProblem, match="there is no microphone"), microphone():
        pass
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(EnvironmentProblem, match="needs the package sounddevice") as missing:
        microphones()
    assert "samo-emotion[mic]" in missing.value.hint
