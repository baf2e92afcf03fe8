"""Where a stream of sound comes from: a microphone, a pipe, a file. Each gives blocks as :func:`samo_audio.live.live`
takes them, and knows its rate and how much was lost.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, BinaryIO, Literal

import numpy as np

from samo.errors import DataError, EnvironmentProblem, SettingsError, first_few
from samo_audio.audio_io import mono_blocks
from samo_audio.containers import is_open_ended

__all__ = [
    "BLOCK_S",
    "Source",
    "at_pace",
    "file_source",
    "microphone",
    "microphones",
    "pipe_source",
    "require_microphone",
]

# Seconds a block: how late the first of its samples comes.
BLOCK_S = 0.1
# Seconds of sound that wait for a model which is slower than it comes; what comes then is lost.
WAITING_S = 10.0
# Seconds without a block after which a microphone is gone.
UNPLUGGED_S = 5.0
Coding = Literal["wav", "s16le", "f32le"]
# Codings of WAV by format tag and bits.
_CODINGS = {(1, 8): "u1", (1, 16): "<i2", (1, 24): "24", (1, 32): "<i4", (3, 32): "<f4", (3, 64): "<f8"}
_EXTENSIBLE = 0xFFFE
_MOST_CHANNELS = 32
# A chunk before the samples that is longer than this is no header.
_LONGEST_CHUNK = 1 << 24


@dataclass
class Source:
    """A stream of sound.

    Attributes:
        name: for people.
        sr: its rate in Hz.
        blocks: (time,) or (channels, time) arrays, see :func:`samo_audio.live.live`.
        overruns: how often sound was lost because nobody took it in time.
        lost_s: seconds of it.
    """

    name: str
    sr: int
    blocks: Iterable[np.ndarray]
    overruns: int = 0
    lost_s: float = 0.0


def file_source(path: Path) -> Source:
    """A recording of any format that SAMO reads.

    Raises:
        DataError: it cannot be read; while it is, of damaged samples.
    """
    sr, blocks = mono_blocks(path)
    return Source(str(path), sr, _pieces(blocks, max(1, round(BLOCK_S * sr))))


def pipe_source(pipe: BinaryIO, coding: Coding = "wav", sr: int = 0, channels: int = 1) -> Source:
    """A pipe that sound comes through, such as stdin, until it ends.

    Args:
        pipe: need not be seekable.
        coding: ``wav``, whose header says the rest; or raw samples, ``s16le`` or ``f32le`` (little-endian integers of
            16 bits or floats of 32 bits with 1 as full scale).
        sr: rate of raw samples in Hz.
        channels: of raw samples, which stand side by side.

    Raises:
        SettingsError: raw samples without a rate, or a WAV with one.
        DataError: no WAV, or one of a coding that cannot be streamed; once it has ended, that there were no samples.
    """
    size: int | None = None
    if coding == "wav":
        if sr or channels != 1:
            raise SettingsError(
                "a WAV says its rate and channels itself", hint="`sr` and `channels` are for raw samples"
            )
        (sr, channels, samples), size = _wav_header(pipe)
    else:
        if sr <= 0:
            raise SettingsError(f"raw samples ({coding}) need their rate in Hz: `sr`")
        if not 1 <= channels <= _MOST_CHANNELS:
            raise SettingsError(f"`channels={channels}`: 1 to {_MOST_CHANNELS}")
        samples = {"s16le": "<i2", "f32le": "<f4"}[coding]
    return Source("stdin", sr, _decoded(pipe, samples, channels, max(1, round(BLOCK_S * sr)), size))


def at_pace(source: Source, sleep: Any = time.sleep, clock: Any = time.monotonic) -> Iterator[np.ndarray]:
    """The blocks of a source, each when its last sample would have been heard, as from a microphone."""
    began, heard = clock(), 0
    for block in source.blocks:
        heard += block.shape[-1]
        early = began + heard / source.sr - clock()
        if early > 0:
            sleep(early)
        yield block


def _pieces(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    for block in blocks:
        yield from (block[start : start + size] for start in range(0, len(block), size))


def _decoded(pipe: BinaryIO, samples: str, channels: int, frames: int, size: int | None) -> Iterator[np.ndarray]:
    """(channels, time) blocks of at most ``frames`` samples, until the pipe ends; half a sample there is left out.

    Behind ``size`` bytes stands something else than sound; None: nothing does.

    Raises:
        DataError: there was not one sample.
    """
    width = (3 if samples == "24" else np.dtype(samples).itemsize) * channels
    n = 0
    while data := _read(pipe, frames * width if size is None else min(frames * width, size)):
        size = None if size is None else size - len(data)
        n += len(data) // width
        whole = data[: len(data) // width * width]
        if samples == "24":
            bytes_of = np.frombuffer(whole, dtype=np.uint8).reshape(-1, 3)
            wide = np.zeros((len(bytes_of), 4), dtype=np.uint8)
            wide[:, 1:] = bytes_of
            flat: np.ndarray = wide.reshape(-1).view("<i4")
        else:
            flat = np.frombuffer(whole, dtype=samples)
        if len(flat):
            yield flat.reshape(-1, channels).T
    if not n:
        raise DataError("stdin is empty: no samples came")


def _read(pipe: BinaryIO, size: int) -> bytes:
    """As many bytes, less only at the end."""
    parts: list[bytes] = []
    while size and (part := pipe.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _wav_header(pipe: BinaryIO) -> tuple[tuple[int, int, str], int | None]:
    """Rate, channels and coding of a WAV, and the bytes of its samples, which come next.

    The length is None where it is what writers state that do not know it: then the samples last until the pipe ends.

    Raises:
        DataError: no WAV, or one that cannot be streamed.
    """
    begin = _read(pipe, 12)
    if len(begin) < 12 or begin[:4] not in (b"RIFF", b"RF64") or begin[8:] != b"WAVE":
        raise DataError(
            "stdin is no WAV" if begin else "stdin is empty",
            hint="ffmpeg -i in.m4a -f wav - makes one; raw samples need `format=s16le` and `sr`",
        )
    about: tuple[int, int, str] | None = None
    long_size = 0
    while len(head := _read(pipe, 8)) == 8:
        name, size = head[:4], int(struct.unpack("<I", head[4:])[0])
        if name == b"data":
            if about is None:
                break
            if size == 0xFFFFFFFF:
                size = long_size or size
            return about, None if not size or is_open_ended(size) else size
        if size > _LONGEST_CHUNK:
            break
        body = _read(pipe, size + size % 2)
        if name == b"fmt " and len(body) >= 16:
            about = _wav_format(body)
        if name == b"ds64" and len(body) >= 16:
            long_size = struct.unpack("<8xQ", body[:16])[0]
    raise DataError("stdin is a WAV whose header is damaged: no samples were reached")


def _wav_format(body: bytes) -> tuple[int, int, str]:
    tag, channels, sr, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == _EXTENSIBLE and len(body) >= 26:
        (tag,) = struct.unpack("<H", body[24:26])
    if (tag, bits) not in _CODINGS or not 1 <= channels <= _MOST_CHANNELS:
        raise DataError(
            f"stdin is a WAV of coding {tag} with {bits} bits and {channels} channels",
            hint="integers of 8 to 32 bits or floats, at most 32 channels: ffmpeg -i in.wav -f wav -c:a pcm_s16le -",
        )
    return sr, channels, _CODINGS[tag, bits]


def microphones() -> list[tuple[int, str, int, int]]:
    """Number, name, channels and rate in Hz of every device that sound can be recorded from.

    Raises:
        EnvironmentProblem: sounddevice or PortAudio is missing.
    """
    devices = _sounddevice().query_devices()
    return [
        (number, str(device["name"]), int(device["max_input_channels"]), round(device["default_samplerate"]))
        for number, device in enumerate(devices)
        if device["max_input_channels"] > 0
    ]


def require_microphone() -> list[tuple[int, str, int, int]]:
    """All of :func:`microphones`.

    Raises:
        EnvironmentProblem: there is none, or none can be looked for.
    """
    found = microphones()
    if not found:
        raise EnvironmentProblem(
            "there is no microphone", hint="connect one, or stream a file: samo stream FILE; - is stdin"
        )
    return found


@contextmanager
def microphone(name: str = "") -> Iterator[Source]:
    """A microphone, open inside the block, at its own rate and one channel.

    Args:
        name: number, or a part of the name, of one of :func:`microphones`; empty: the system's own choice.

    Raises:
        EnvironmentProblem: sounddevice or PortAudio is missing, there is no microphone, or it cannot be opened.
        SettingsError: no microphone is called so, or several are.
    """
    sounddevice = _sounddevice()
    number, title, sr = _chosen(sounddevice, name)
    waiting: Queue[np.ndarray] = Queue(maxsize=round(WAITING_S / BLOCK_S))
    source = Source(title, sr, _taken(waiting, title))

    def take(samples: np.ndarray, frames: int, _: object, status: Any) -> None:
        if status and status.input_overflow:  # the driver does not say how much it lost
            source.overruns += 1
        try:
            waiting.put_nowait(samples[:, 0].copy())
        except Full:
            source.overruns += 1
            source.lost_s += frames / sr

    try:
        stream = sounddevice.InputStream(
            device=number, channels=1, samplerate=sr, blocksize=round(BLOCK_S * sr), dtype="float32", callback=take
        )
        with stream:
            yield source
    except sounddevice.PortAudioError as error:
        raise EnvironmentProblem(
            f"the microphone '{title}' cannot be used: {error}",
            hint="`list_devices` shows others; `device_mic` takes one",
        ) from error


def _taken(waiting: Queue[np.ndarray], title: str) -> Iterator[np.ndarray]:
    while True:
        try:
            yield waiting.get(timeout=UNPLUGGED_S)
        except Empty as error:
            raise EnvironmentProblem(
                f"the microphone '{title}' gives no sound any more", hint="is it plugged in?"
            ) from error


def _chosen(sounddevice: Any, name: str) -> tuple[int, str, int]:
    """Number, name and rate of the microphone meant."""
    found = require_microphone()
    if not name:
        own = sounddevice.default.device[0]
        fitting = [device for device in found if device[0] == own] or found[:1]
    elif name.isdecimal():
        fitting = [device for device in found if device[0] == int(name)]
    else:
        fitting = [device for device in found if name.lower() in device[1].lower()]
    if len(fitting) != 1:
        names = first_few((f"{number} {title}" for number, title, _, _ in fitting or found), 6)
        raise SettingsError(
            f"`device_mic={name}`: {'several are' if fitting else 'no microphone is'} called so",
            hint=f"there are: {names}",
        )
    number, title, _, sr = fitting[0]
    return number, title, sr


def _sounddevice() -> Any:
    """The library.

    Raises:
        EnvironmentProblem: it, or PortAudio below it, is missing.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise EnvironmentProblem(
            "a microphone needs the package sounddevice", hint="pip install 'samo-emotion[mic]'"
        ) from error
    except OSError as error:
        raise EnvironmentProblem(
            "a microphone needs the library PortAudio", hint="install it, on Debian: apt install libportaudio2"
        ) from error
    return sounddevice
