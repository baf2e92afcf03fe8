"""File to mono float32 waveform; the only place that opens audio.

What is accepted and what is refused:

- Any sample format and up to 32 channels, which are averaged. Integers are scaled to [-1, 1); floats are kept.
- The content decides the format, not the name: an MP3 called ``x.wav`` is decoded, with a warning.
- A file cut short is refused, also where libsndfile would hand out what is left in silence. Two cases cannot be told
  from a complete file: an MP3 without a Xing header, and an Ogg file cut exactly between pages; both carry a warning.
- A WAV of a recorder that could not seek states 0xFFFFFFFF, about 2 GiB or (with a RIFF length of 8) 0 bytes;
  such files are taken to last until their end.
- Silence, clips under 0.1 s and clipped recordings are accepted with a warning.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr

from samo.errors import DataError

__all__ = [
    "AUDIO_SUFFIXES",
    "DECODER",
    "SILENT_PEAK",
    "AudioInfo",
    "Clip",
    "clip_of",
    "info",
    "is_audio",
    "read",
    "window_starts",
    "windows",
]

# The libraries that decide the samples' bits; part of every cache key.
DECODER = f"libsndfile {soundfile.__libsndfile_version__}, libsoxr {soxr.__libsoxr_version__}"

_SUFFIXES = {
    "WAV": (".wav", ".wave", ".bwf", ".rf64"),
    "W64": (".w64",),
    "FLAC": (".flac",),
    "OGG": (".ogg", ".oga", ".opus"),
    "MP3": (".mp3",),
    "AIFF": (".aiff", ".aif", ".aifc"),
    "AU": (".au", ".snd"),
    "CAF": (".caf",),
}
_SUFFIXES |= dict.fromkeys(("WAVEX", "RF64", "NIST"), _SUFFIXES["WAV"])
AUDIO_SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)

_MIN_RATE_HZ, _MAX_RATE_HZ, _MAX_CHANNELS = 1_000, 768_000, 32
_SHORT_S = 0.1
# Largest absolute sample of what is called silent; 1 is full scale.
SILENT_PEAK = 1e-4
_CLIPPED_LEVEL, _CLIPPED_SHARE = 0.99, 1e-3
_HIGH_PEAK, _ABSURD_PEAK = 8.0, 1e9
_BLOCK, _MAX_CHUNKS, _LARGEST_OGG_PAGE = 1 << 18, 4096, 65_307
_FORMAT_HINT = "SAMO reads WAV, FLAC, Ogg, MP3, AIFF, AU, CAF, W64, RF64; convert others: ffmpeg -i in.m4a out.wav"
_REPAIR_HINT = "if its recorder was stopped hard, repair the header: sox --ignore-length broken.wav repaired.wav"


@dataclass(frozen=True)
class AudioInfo:
    """What an audio file's header says; rate in Hz, frames per channel, formats as libsndfile names them.

    Attributes:
        warnings: what is odd about the container.
    """

    path: Path
    sample_rate: int
    channels: int
    frames: int
    format: str
    subtype: str
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


@dataclass(frozen=True, eq=False)
class Clip:
    """A decoded file.

    Attributes:
        waveform: (T,) float32, mono at the rate asked for.
        native_rate: the file's own rate in Hz.
        channels: the file's own number of channels.
        content: SHA-256 of the native rate and the mono samples at that rate, so that a WAV, its FLAC copy and a
            copy with other tags are equal.
        peak: largest absolute sample at the native rate; 1 is full scale.
        rms_db: level in dB below full scale at the native rate, -200 for digital silence.
        warnings: what a listener should know, for example ``silent``.
    """

    waveform: np.ndarray
    native_rate: int
    channels: int
    content: str
    peak: float
    rms_db: float
    warnings: tuple[str, ...] = ()


def is_audio(path: Path) -> bool:
    """Whether the name looks like an audio file; macOS resource forks (``._x.wav``) do not count."""
    return path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith("._")


def info(path: Path) -> AudioInfo:
    """Read a file's header; a file whose header states no length (rare) is decoded once to count its samples.

    Raises:
        DataError: the file is missing, empty, cut short, no audio, or has an absurd rate or number of channels.
    """
    sound, about = _open(path)
    with sound:
        if about.frames >= 0:
            return about
        return replace(about, frames=sum(len(block) for block in _mono_blocks(sound, about)))


def read(path: Path, sr: int) -> Clip:
    """Decode a whole file, average its channels and resample it (soxr HQ) to ``sr`` Hz.

    Raises:
        DataError: as :func:`info`, or the samples are damaged, not finite, or fewer than one at ``sr``.
    """
    sound, about = _open(path)
    with sound:
        mono = np.concatenate(list(_mono_blocks(sound, about)))
    return _clip(mono, about, sr)


def clip_of(samples: np.ndarray, rate: int, sr: int) -> Clip:
    """What :func:`read` gives of a file, of an array.

    Args:
        samples: (T,) or (channels, T); floats with 1 as full scale, or integers over the whole of their type, unsigned
            ones around their middle.
        rate: its sampling rate in Hz.
        sr: the sampling rate asked for, in Hz.

    Raises:
        TypeError: not one or two axes of real numbers.
        DataError: an absurd rate or number of channels, no samples, or samples that are not finite.
    """
    name = Path("the waveform")
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise TypeError(
            f"a waveform is (time,) or (channels, time) of floats or integers, not {samples.dtype} of shape"
            f" {samples.shape}"
        )
    channels = samples[None] if samples.ndim == 1 else samples
    if not channels.size:
        raise _bad(name, "holds no samples")
    if not 1 <= len(channels) <= _MAX_CHANNELS:
        raise _bad(
            name, f"has {len(channels)} channels; at most {_MAX_CHANNELS} are supported",
            hint="its shape is (channels, time); pass waveform.T if it is (time, channels)",
        )  # fmt: skip
    _check_rate(name, rate)
    if samples.dtype.kind in "iu":
        limits = np.iinfo(samples.dtype)
        middle = 0 if samples.dtype.kind == "i" else (int(limits.max) + 1) / 2
        channels = (channels - np.float64(middle)) / (middle or int(limits.max) + 1)
    mono = channels.mean(axis=0, dtype=np.float64).astype(np.float32)
    about = AudioInfo(name, int(rate), len(channels), len(mono), "array", str(samples.dtype))
    _check_samples(mono, 0, about)
    return _clip(mono, about, sr)


def _clip(mono: np.ndarray, about: AudioInfo, sr: int) -> Clip:
    waveform = mono if about.sample_rate == sr else soxr.resample(mono, about.sample_rate, sr, quality="HQ")
    if not len(waveform):
        raise _bad(about.path, f"holds less than one sample at {sr} Hz ({len(mono)} at {about.sample_rate} Hz)")
    peak, mean_square = _peak(mono), float(np.mean(np.square(mono), dtype=np.float64))
    digest = hashlib.sha256(f"{about.sample_rate}\n".encode())
    digest.update(np.ascontiguousarray(mono, dtype="<f4").data)
    return Clip(
        waveform=waveform,
        native_rate=about.sample_rate,
        channels=about.channels,
        content=digest.hexdigest(),
        peak=peak,
        rms_db=10.0 * math.log10(max(mean_square, 1e-20)),
        warnings=about.warnings + _level_warnings(mono, peak, about.sample_rate),
    )


def _check_rate(path: Path, rate: float) -> None:
    if not _MIN_RATE_HZ <= rate <= _MAX_RATE_HZ:
        raise _bad(path, f"sample rate {rate} Hz is not within {_MIN_RATE_HZ} to {_MAX_RATE_HZ} Hz")


def window_starts(n_samples: int, window: int) -> np.ndarray:
    """Evenly spaced window starts that cover a signal with as few windows as possible.

    Returns:
        (ceil(n_samples / window),) int64 from 0 to n_samples - window; [0] for a signal not longer than a window.
    """
    if n_samples <= window:
        return np.zeros(1, dtype=np.int64)
    count = -(-n_samples // window)
    return np.arange(count, dtype=np.int64) * (n_samples - window) // (count - 1)


def windows(path: Path, sr: int, window_s: float) -> Iterator[tuple[float, np.ndarray]]:
    """Stream a file of any length as the windows of :func:`window_starts`, in memory that does not grow with it.

    The header is checked at the call, the samples as they are reached: a file found damaged half-way raises
    after the windows before the damage.

    Yields:
        Start in seconds and (window_s * sr,) float32 mono samples at ``sr``; a shorter file gives one shorter window.

    Raises:
        DataError: as :func:`read`.
    """
    about = info(path)
    return _slide(about, sr, max(1, round(window_s * sr)))


def _slide(about: AudioInfo, sr: int, window: int) -> Iterator[tuple[float, np.ndarray]]:
    # soxr returns frames * sr / rate samples, halves rounded up.
    expected = (2 * about.frames * sr + about.sample_rate) // (2 * about.sample_rate)
    starts = window_starts(expected, window).tolist()
    sound, _ = _open(about.path)
    kept, first, row = np.empty(0, dtype=np.float32), 0, 0
    with sound:
        for block in _resampled(_mono_blocks(sound, about), about.sample_rate, sr):
            kept = np.concatenate([kept, block])
            while row < len(starts) - 1 and starts[row] + window <= first + len(kept):
                begin = starts[row] - first
                yield starts[row] / sr, kept[begin : begin + window].copy()
                row += 1
            # The last window always ends with the last sample, even if the length was predicted a sample off.
            drop = max(0, min(starts[row] - first, len(kept) - window))
            kept, first = kept[drop:], first + drop
    if not len(kept):
        raise _bad(about.path, f"holds less than one sample at {sr} Hz")
    last = kept[-window:].copy()
    yield (first + len(kept) - len(last)) / sr, last


def _resampled(blocks: Iterable[np.ndarray], rate: int, sr: int) -> Iterator[np.ndarray]:
    if rate == sr:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, sr, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)


def _open(path: Path) -> tuple[soundfile.SoundFile, AudioInfo]:
    """Open a file whose header is in order; ``frames`` is -1 if the header does not state them."""
    warnings = _check_container(path)
    try:
        sound = soundfile.SoundFile(os.fsencode(path))
    except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:
        raise _not_audio(path) from error
    # soundfile seeks after every block of a seekable file: inexact in MP3, an error at the end of some FLAC.
    sound.seekable = lambda: False
    try:
        if sound.format in ("RAW", "SD2"):
            raise _not_audio(path)
        _check_rate(path, sound.samplerate)
        if not 1 <= sound.channels <= _MAX_CHANNELS:
            raise _bad(path, f"{sound.channels} channels; at most {_MAX_CHANNELS} are supported")
        if sound.frames == 0:
            raise _bad(path, "holds no samples", hint=_REPAIR_HINT)
        guessed = sound.format == "MP3" and not _has_xing(path)
        if guessed:
            warnings += ("states no length (MP3 without a Xing header): a missing end would go unnoticed",)
        if is_audio(path) and path.suffix.lower() not in _SUFFIXES.get(sound.format, ()):
            warnings = (f"is {sound.format} despite its name", *warnings)
        frames = -1 if guessed or sound.frames >= 1 << 62 else sound.frames
        about = AudioInfo(path, sound.samplerate, sound.channels, frames, sound.format, sound.subtype, warnings)
    except DataError:
        sound.close()
        raise
    return sound, about


def _mono_blocks(sound: soundfile.SoundFile, about: AudioInfo) -> Iterator[np.ndarray]:
    """Yield (at most _BLOCK,) float32 blocks at the native rate; never allocates by what the header claims."""
    done = 0
    size = min(_BLOCK, about.frames) if about.frames > 0 else _BLOCK
    while True:
        try:
            block = sound.read(size, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise _bad(about.path, "damaged or truncated: it cannot be decoded to its end") from error
        if not len(block):
            break
        mono = block[:, 0]
        if about.channels > 1:
            mono = mono.copy()
            for channel in range(1, about.channels):
                mono += block[:, channel]
            mono /= about.channels
        _check_samples(mono, done, about)
        done += len(mono)
        yield mono
    if done < max(1, about.frames):
        raise _bad(about.path, f"truncated: {done} of {max(1, about.frames)} samples are there")


def _check_samples(mono: np.ndarray, offset: int, about: AudioInfo) -> None:
    peak = _peak(mono)
    if peak <= _ABSURD_PEAK:
        return
    wrong = ~np.isfinite(mono)
    if wrong.any():
        at_s = (offset + int(wrong.argmax())) / about.sample_rate
        raise _bad(about.path, f"holds NaN or infinite samples, the first at {at_s:.3f} s")
    raise _bad(about.path, f"samples reach {peak:.3g}, far beyond full scale (1)")


def _peak(mono: np.ndarray) -> float:
    return max(float(mono.max()), -float(mono.min()))


def _level_warnings(mono: np.ndarray, peak: float, rate: int) -> tuple[str, ...]:
    warnings = []
    if len(mono) < _SHORT_S * rate:
        warnings.append(f"shorter than {_SHORT_S} s")
    if peak < SILENT_PEAK:
        warnings.append("silent")
    if peak > _HIGH_PEAK:
        warnings.append(f"samples reach {peak:.3g} where 1 is full scale")
    elif peak >= _CLIPPED_LEVEL:
        # Clipping leaves flat tops; a recording that merely touches full scale has none.
        flat = (mono[1:-1] == mono[:-2]) & (mono[1:-1] == mono[2:]) & (np.abs(mono[1:-1]) >= _CLIPPED_LEVEL)
        if np.count_nonzero(flat) > _CLIPPED_SHARE * len(mono):
            warnings.append("clipped")
    return tuple(warnings)


class _Layout(NamedTuple):
    """How a chunked container writes its chunks."""

    first: int  # byte the first chunk begins at
    id_bytes: int
    length: str  # struct format of a chunk's length
    align: int  # chunks begin at multiples of this many bytes
    audio: bytes  # id of the chunk of samples
    own_header: bool = False  # whether a length counts its chunk's id and length


_RIFF = _Layout(12, 4, "<I", 2, b"data")
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_LAYOUTS = {
    **dict.fromkeys((b"RIFF", b"RF64", b"BW64"), _RIFF),
    b"RIFX": _RIFF._replace(length=">I"),
    b"FORM": _RIFF._replace(length=">I", audio=b"SSND"),
    b"caff": _Layout(8, 4, ">Q", 1, b"data"),
    b"riff": _Layout(40, 16, "<Q", 8, _W64_DATA, own_header=True),
}


def _check_container(path: Path) -> tuple[str, ...]:
    """Refuse what is no file or is cut short; return warnings. libsndfile shortens such files in silence."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise _bad(path, "is a folder, not an audio file")
        if not stat.S_ISREG(status.st_mode):
            raise _bad(path, "is not a regular file")
        if status.st_size == 0:
            raise _bad(path, "is empty (0 bytes)")
        with path.open("rb") as file:
            magic = file.read(4)
            if magic == b"OggS":
                return _check_ogg(path, file, status.st_size)
            declared, present = _audio_bytes(file, magic, status.st_size)
    except FileNotFoundError as error:
        raise _bad(path, "does not exist") from error
    except OSError as error:
        raise _bad(path, f"cannot be read: {os.strerror(error.errno or 0)}") from error
    if present < declared:
        raise _bad(path, f"truncated: {present} of {declared} bytes of audio are there")
    return ()


def _audio_bytes(file: BinaryIO, magic: bytes, size: int) -> tuple[int, int]:
    """Bytes of samples a container declares and holds; (0, 0) where it does not say."""
    if magic == b".snd":
        start, declared = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
        return (0, 0) if _open_ended(declared) else (declared, max(0, size - start))
    layout = _LAYOUTS.get(magic)
    if layout is None:
        return 0, 0
    position, long_length = layout.first, 0
    header_bytes = layout.id_bytes + struct.calcsize(layout.length)
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        header = file.read(header_bytes)
        if len(header) < header_bytes:
            break
        name, (length,) = header[: layout.id_bytes], struct.unpack(layout.length, header[layout.id_bytes :])
        body = length - header_bytes if layout.own_header else length
        if name == layout.audio:
            declared = long_length if long_length and length == 0xFFFFFFFF else body
            return (0, 0) if _open_ended(declared) else (declared, max(0, size - position - header_bytes))
        if name == b"ds64":
            long_length = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
        position += header_bytes + max(0, body)
        position += -position % layout.align
    return 0, 0


def _open_ended(declared: int) -> bool:
    """Whether a length is what a recorder writes that cannot come back to fill it in (sox, arecord, ffmpeg)."""
    return 0x7FFF0000 <= declared <= 0x80000000 or 0xFFFF0000 <= declared <= 0xFFFFFFFF or declared >= 1 << 62


def _check_ogg(path: Path, file: BinaryIO, size: int) -> tuple[str, ...]:
    file.seek(max(0, size - 2 * _LARGEST_OGG_PAGE))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    # Byte 5 holds the end-of-stream flag (4); byte 26 counts the lengths that follow it.
    segments = page[26] if len(page) > 26 else 0
    beyond = len(page) - 27 - segments - sum(page[27 : 27 + segments])
    if beyond < 0 or (beyond > 0 and not page[5] & 4):
        raise _bad(path, "truncated: the last Ogg page is incomplete")
    return () if page[5] & 4 else ("has no end mark (Ogg): its end may be missing",)


def _has_xing(path: Path) -> bool:
    """Whether an MP3's first frame states the length of the whole."""
    with path.open("rb") as file:
        head = file.read(10)
        tagged = head[:3] == b"ID3" and len(head) == 10
        file.seek(10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) if tagged else 0)
        frame = file.read(256)
    return b"Xing" in frame or b"Info" in frame


def _not_audio(path: Path) -> DataError:
    return _bad(path, "is not in an audio format SAMO can read", hint=_FORMAT_HINT)


def _bad(path: Path, why: str, *, hint: str = "") -> DataError:
    return DataError(f"{path}: {why}", hint=hint)
