"""File to mono float32 waveform; the only place that opens audio.

What is accepted and what is refused:

- Any sample format and up to 32 channels, which are averaged. Integers are scaled to [-1, 1); floats are kept.
- The content decides the format, not the name: an MP3 called ``x.wav`` is decoded, with a warning.
- Every sample is read, or the file is refused: what is cut short, what goes on behind the length that its header
  states, what is damaged between. MP3, FLAC and Ogg files joined into one are read one behind the other.
- Three cases cannot be told from a complete file and carry a warning: an MP3 without a Xing header cut exactly between
  frames, an Ogg file cut exactly between pages, and a WAV of a recorder that could not seek. The last states
  0xFFFFFFFF, about 2 GiB or (with a RIFF length of 8) 0 bytes, and is taken to last until its end.
- ADPCM is refused: its decoders are the weakest that libsndfile has.
- Silence, a constant, clips under 0.1 s and clipped recordings are accepted with a warning.
- A clip that is read at once has at most 2^29 samples (3 h at 48 kHz); longer ones are streamed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr

from samo.errors import DataError
from samo_audio.containers import check_container
from samo_audio.problems import REPAIR_HINT, bad, not_audio
from samo_audio.sound import Sound

__all__ = [
    "AUDIO_SUFFIXES",
    "CONSTANT",
    "DECODER",
    "NOTHING_HEARD",
    "SILENT",
    "SILENT_PEAK",
    "AudioInfo",
    "Clip",
    "LevelMeter",
    "clip_of",
    "info",
    "is_audio",
    "is_constant",
    "is_recording",
    "mono_blocks",
    "mono_of",
    "read",
    "read_segments",
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
# Recordings that SAMO cannot read: telephones, messengers, browsers and cameras write them.
OTHER_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".aac", ".ac3", ".amr", ".ape", ".avi", ".awb", ".dss", ".flv", ".m4a", ".m4b", ".m4v", ".mka",
    ".mkv", ".mov", ".mp2", ".mp4", ".mpeg", ".mpg", ".qta", ".ra", ".spx", ".tta", ".weba", ".webm", ".wma", ".wv",
})  # fmt: skip
# Parts of names of codings for telephones of old, which no container in use needs.
_REFUSED = ("ADPCM", "G721", "G723", "DWVW", "DPCM")

_MIN_RATE_HZ, _MAX_RATE_HZ, _MAX_CHANNELS = 1_000, 768_000, 32
_SHORT_S = 0.1
# Largest absolute sample of what is called silent; 1 is full scale.
SILENT_PEAK = 1e-4
TOO_SHORT, SILENT, CONSTANT = f"shorter than {_SHORT_S} s", "silent", "constant"
# Warnings of what cannot be told from anything: no speech is heard in it.
NOTHING_HEARD = frozenset({TOO_SHORT, SILENT, CONSTANT})
_CLIPPED_LEVEL, _CLIPPED_SHARE = 0.99, 1e-3
_HIGH_PEAK, _ABSURD_PEAK = 8.0, 1e9
_BLOCK = 1 << 18
# What an array is called where a file has a name.
_ARRAY = Path("the waveform")
# 2 GiB, as much again while its blocks are joined.
_MOST_AT_ONCE = 1 << 29
# Ends of segments are rounded by those who write them.
_BEYOND_END_S = 0.1
# Over a hundred days.
_MOST_SECONDS = 1e7


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


class LevelMeter:
    """Whether samples that come block by block, mono at their own rate, go beyond full scale or are clipped there."""

    def __init__(self) -> None:
        self._peak, self._n, self._flat = 0.0, 0, 0
        self._last = np.empty(0, dtype=np.float32)

    def add(self, block: np.ndarray) -> None:
        """The next (T,) samples."""
        samples = np.concatenate([self._last, block]) if len(self._last) else block
        self._n += len(block)
        self._last = samples[-2:].copy()
        peak = _peak(samples)
        self._peak = max(self._peak, peak)
        if peak >= _CLIPPED_LEVEL and len(samples) > 2:
            # Clipping leaves flat tops; a recording that merely touches full scale has none.
            middle = samples[1:-1]
            flat = (middle == samples[:-2]) & (middle == samples[2:]) & (np.abs(middle) >= _CLIPPED_LEVEL)
            self._flat += int(np.count_nonzero(flat))

    @property
    def warnings(self) -> tuple[str, ...]:
        """One, or none, of what came so far."""
        if self._peak > _HIGH_PEAK:
            return (f"samples reach {self._peak:.3g} where 1 is full scale",)
        return ("clipped",) if self._flat > _CLIPPED_SHARE * self._n else ()


def is_audio(path: Path) -> bool:
    """Whether the name looks like an audio file; macOS resource forks (``._x.wav``) do not count."""
    return path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith("._")


def is_recording(path: Path) -> bool:
    """Whether the name looks like a recording, in a format that can be read or not."""
    return is_audio(path) or (path.suffix.lower() in OTHER_SUFFIXES and not path.name.startswith("._"))


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
        blocks, samples = [], 0
        for block in _mono_blocks(sound, about):
            samples += len(block)
            # What only claims to be long is decoded to its end, to say that; it is kept only if it can be used.
            if max(samples, about.frames) <= _MOST_AT_ONCE:
                blocks.append(block)
            elif samples > _MOST_AT_ONCE:
                hours = _MOST_AT_ONCE / about.sample_rate / 3600
                raise bad(
                    path, f"lasts over {hours:.1f} h, too long for one clip",
                    hint="cut it: ffmpeg -i in.wav -f segment -segment_time 3600 out%03d.wav",
                )  # fmt: skip
    return _clip(np.concatenate(blocks), about, sr)


def read_segments(path: Path, sr: int, segments: Sequence[tuple[float, float | None]]) -> list[Clip]:
    """Decode a file once and give parts of it, each as :func:`read` gives a file of these samples.

    Args:
        path: the recording.
        sr: rate in Hz to resample each part to.
        segments: begin and end of each in seconds, the end None at the recording's; they may overlap.

    Raises:
        DataError: as :func:`read`, or a segment begins before the recording, ends more than 0.1 s after it, or holds no
            sample of it.
    """
    sound, about = _open(path)
    rate = about.sample_rate
    for begin, end in segments:
        if not 0.0 <= begin <= _MOST_SECONDS or not (end is None or 0.0 <= end <= _MOST_SECONDS):
            sound.__exit__()
            raise _no_segment(path, f"a segment of it is {_named(begin, end)}")
    bounds = [(round(begin * rate), None if end is None else round(end * rate)) for begin, end in segments]
    parts: list[list[np.ndarray]] = [[] for _ in segments]
    done = 0
    with sound:
        for block in _mono_blocks(sound, about):
            for own, (first, last) in zip(parts, bounds, strict=True):
                if first < done + len(block) and (last is None or last > done):
                    own.append(block[max(first - done, 0) : None if last is None else last - done].copy())
            done += len(block)
    for (begin, end), (first, last) in zip(segments, bounds, strict=True):
        if first >= done or (last or 0) > done + _BEYOND_END_S * rate:
            raise _no_segment(path, f"lasts {done / rate:.3f} s, a segment of it {_named(begin, end)}")
        if last is not None and last <= first:
            raise _no_segment(path, f"a segment of it holds no sample: {_named(begin, end)}")
    return [_clip(np.concatenate(own), about, sr) for own in parts]


def _named(begin: float, end: float | None) -> str:
    return f"{begin:g} s to {'its end' if end is None else f'{end:g} s'}"


def _no_segment(path: Path, what: str) -> DataError:
    return bad(path, what, hint="segments are in seconds from the beginning of the recording")


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
    mono = mono_of(samples, rate)
    return _clip(mono, _about_array(samples, rate), sr)


def mono_of(samples: np.ndarray, rate: float, offset: int = 0) -> np.ndarray:
    """(T,) float32 mean over the channels of an array, see :func:`clip_of`; ``offset`` samples came before it.

    Raises:
        TypeError, DataError: as :func:`clip_of`.
    """
    name = _ARRAY
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise TypeError(
            f"a waveform is (time,) or (channels, time) of floats or integers, not {samples.dtype} of shape"
            f" {samples.shape}"
        )
    channels = samples[None] if samples.ndim == 1 else samples
    if not channels.size:
        raise bad(name, "holds no samples")
    if not 1 <= len(channels) <= _MAX_CHANNELS:
        raise bad(
            name, f"has {len(channels)} channels; at most {_MAX_CHANNELS} are supported",
            hint="its shape is (channels, time); pass waveform.T if it is (time, channels)",
        )  # fmt: skip
    _check_rate(name, rate)
    if samples.dtype.kind in "iu":
        limits = np.iinfo(samples.dtype)
        middle = 0 if samples.dtype.kind == "i" else (int(limits.max) + 1) / 2
        channels = (channels - np.float64(middle)) / (middle or int(limits.max) + 1)
    mono = channels.mean(axis=0, dtype=np.float64).astype(np.float32)
    _check_samples(mono, offset, _about_array(samples, rate))
    return mono


def _about_array(samples: np.ndarray, rate: float) -> AudioInfo:
    n_channels, n = (1, len(samples)) if samples.ndim == 1 else samples.shape
    return AudioInfo(_ARRAY, int(rate), n_channels, n, "array", str(samples.dtype))


def _clip(mono: np.ndarray, about: AudioInfo, sr: int) -> Clip:
    waveform = mono if about.sample_rate == sr else soxr.resample(mono, about.sample_rate, sr, quality="HQ")
    if not len(waveform):
        raise bad(about.path, f"holds less than one sample at {sr} Hz ({len(mono)} at {about.sample_rate} Hz)")
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
        raise bad(path, f"sample rate {rate} Hz is not within {_MIN_RATE_HZ} to {_MAX_RATE_HZ} Hz")


def window_starts(n_samples: int, window: int) -> np.ndarray:
    """Evenly spaced window starts that cover a signal with as few windows as possible.

    Returns:
        (ceil(n_samples / window),) int64 from 0 to n_samples - window; [0] for a signal not longer than a window.
    """
    count = _n_windows(n_samples, window)
    return np.arange(count, dtype=np.int64) * max(0, n_samples - window) // max(1, count - 1)


def _n_windows(n_samples: int, window: int) -> int:
    return max(1, -(-n_samples // window))


def windows(
    path: Path, sr: int, window_s: float, meter: LevelMeter | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Stream a file of any length as the windows of :func:`window_starts`, in memory that does not grow with it.

    The header is checked at the call, the samples as they are reached: a file found damaged half-way raises
    after the windows before the damage. A ``meter`` has heard all samples once the last window came.

    Yields:
        Start in seconds and (window_s * sr,) float32 mono samples at ``sr``; a shorter file gives one shorter window.

    Raises:
        DataError: as :func:`read`.
    """
    about = info(path)
    return _slide(about, sr, max(1, round(window_s * sr)), meter or LevelMeter())


def mono_blocks(path: Path) -> tuple[int, Iterator[np.ndarray]]:
    """The rate of a file in Hz and its samples, (T,) float32 mono at that rate, block by block.

    Raises:
        DataError: as :func:`info`; of damaged samples once they are reached.
    """
    sound, about = _open(path)

    def blocks() -> Iterator[np.ndarray]:
        with sound:
            yield from _mono_blocks(sound, about)

    return about.sample_rate, blocks()


def _slide(about: AudioInfo, sr: int, window: int, meter: LevelMeter) -> Iterator[tuple[float, np.ndarray]]:
    # soxr returns frames * sr / rate samples, halves rounded up.
    expected = (2 * about.frames * sr + about.sample_rate) // (2 * about.sample_rate)
    count = _n_windows(expected, window)
    sound, _ = _open(about.path)
    kept, first, row, start = np.empty(0, dtype=np.float32), 0, 0, 0
    with sound:
        for block in _resampled(_metered(_mono_blocks(sound, about), meter), about.sample_rate, sr):
            kept = np.concatenate([kept, block])
            while row < count - 1 and start + window <= first + len(kept):
                yield start / sr, kept[start - first : start - first + window].copy()
                row += 1
                # As window_starts has it, one at a time: a header may claim more windows than fit into memory.
                start = row * (expected - window) // (count - 1)
            # The last window always ends with the last sample, even if the length was predicted a sample off.
            drop = max(0, min(start - first, len(kept) - window))
            kept, first = kept[drop:], first + drop
    if not len(kept):
        raise bad(about.path, f"holds less than one sample at {sr} Hz")
    last = kept[-window:].copy()
    yield (first + len(kept) - len(last)) / sr, last


def _metered(blocks: Iterable[np.ndarray], meter: LevelMeter) -> Iterator[np.ndarray]:
    for block in blocks:
        meter.add(block)
        yield block


def _resampled(blocks: Iterable[np.ndarray], rate: int, sr: int) -> Iterator[np.ndarray]:
    if rate == sr:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, sr, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)


def _open(path: Path) -> tuple[Sound, AudioInfo]:
    """Open a file whose header is in order; ``frames`` is -1 if the header does not state them."""
    container = check_container(path)
    opened = Sound(path, container)
    try:
        sound, _ = opened.streams[0]
        if sound.format not in _SUFFIXES or any(word in sound.subtype for word in _REFUSED):
            raise not_audio(path)
        _check_rate(path, sound.samplerate)
        channels = max(stream.channels for stream, _ in opened.streams)
        if not 1 <= channels <= _MAX_CHANNELS:
            raise bad(path, f"{channels} channels; at most {_MAX_CHANNELS} are supported")
        frames, warnings = opened.frames, container.warnings
        if frames == 0:
            raise bad(path, "holds no samples", hint=REPAIR_HINT)
        if is_audio(path) and path.suffix.lower() not in _SUFFIXES[sound.format]:
            warnings = (f"is {sound.format} despite its name", *warnings)
        about = AudioInfo(path, sound.samplerate, channels, frames, sound.format, sound.subtype, warnings)
    except DataError:
        opened.__exit__()
        raise
    return opened, about


def _mono_blocks(opened: Sound, about: AudioInfo) -> Iterator[np.ndarray]:
    """Yield (at most _BLOCK,) float32 blocks at the native rate; never allocates by what the header claims."""
    done, stated = 0, opened.frames
    try:
        for block in opened.blocks(_BLOCK):
            mono = _mono(block)
            _check_samples(mono, done, about)
            done += len(mono)
            if 0 <= stated < done:
                raise bad(about.path, f"states {stated} samples, but more follow", hint=REPAIR_HINT)
            yield mono
    except soundfile.SoundFileError as error:
        raise bad(about.path, "damaged or truncated: it cannot be decoded to its end") from error
    except ValueError as error:
        raise bad(about.path, f"damaged: libmpg123 reports {error}") from error
    if done < max(1, stated):
        raise bad(about.path, f"truncated: {done} of {max(1, stated)} samples are there")


def _mono(block: np.ndarray) -> np.ndarray:
    """(T,) mean over the channels of (T, channels)."""
    mono = block[:, 0]
    channels = block.shape[1]
    if channels > 1:
        mono = mono.copy()
        for channel in range(1, channels):
            mono += block[:, channel]
        mono /= channels
    return mono


def _check_samples(mono: np.ndarray, offset: int, about: AudioInfo) -> None:
    peak = _peak(mono)
    if peak <= _ABSURD_PEAK:
        return
    wrong = ~np.isfinite(mono)
    if wrong.any():
        at_s = (offset + int(wrong.argmax())) / about.sample_rate
        raise bad(about.path, f"holds NaN or infinite samples, the first at {at_s:.3f} s")
    raise bad(about.path, f"samples reach {peak:.3g}, far beyond full scale (1)")


def _peak(mono: np.ndarray) -> float:
    return max(float(mono.max()), -float(mono.min()))


def is_constant(samples: np.ndarray) -> bool:
    """Whether (T,) samples lie at a level and move no more around it than silence may around 0."""
    moved = float(samples.max()) - float(samples.min())
    return moved < 2 * SILENT_PEAK <= 2 * abs(float(samples.mean(dtype=np.float64)))


def _level_warnings(mono: np.ndarray, peak: float, rate: int) -> tuple[str, ...]:
    warnings = []
    if len(mono) < _SHORT_S * rate:
        warnings.append(TOO_SHORT)
    if peak < SILENT_PEAK:
        warnings.append(SILENT)
    elif TOO_SHORT not in warnings and is_constant(mono):
        warnings.append(CONSTANT)
    meter = LevelMeter()
    meter.add(mono)
    return (*warnings, *meter.warnings)
