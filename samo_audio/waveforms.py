"""Memory-mapped cache of decoded clips: every file is decoded once, later runs map the result."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from samo.errors import DataError, EnvironmentProblem, first_ten, reporting_full_disk
from samo.files import cache_root, folder_beside, parse_json, remove_left_folders, write_text
from samo_audio.audio_io import DECODER, Clip, read, read_segments
from samo_audio.trimming import sounding

__all__ = ["CACHE_VERSION", "Facts", "Waveforms", "open_waveforms"]

CACHE_VERSION = 2

_SAMPLES, _INDEX = "waveforms.f32", "index.json"
_ATTEMPTS, _PAUSE_S = 5, 0.1


Segments = Mapping[str, tuple[float, float | None]]
"""Begin and end in seconds by id; an end of None is the recording's."""


@dataclass(frozen=True)
class Facts:
    """What :class:`samo_audio.audio_io.Clip` knows of a clip besides its samples."""

    content: str
    native_rate: int
    channels: int
    peak: float
    rms_db: float
    warnings: tuple[str, ...]


class Waveforms:
    """Decoded clips on disk, by row.

    Attributes:
        ids: ids by row.
        sr: sampling rate in Hz.
        lengths: (N,) int64 samples by row.
        recorded: (N,) int64 the same before silence was cut off.
        facts: N facts by row.
        content: content hash by id.
    """

    def __init__(self, folder: Path, ids: Sequence[str]) -> None:
        """Map the cache in ``folder``; rows follow ``ids``.

        Raises:
            ValueError, LookupError, TypeError, OSError: the cache is missing or damaged.
        """
        index = parse_json((folder / _INDEX).read_bytes())
        order = {name: position for position, name in enumerate(index["ids"])}
        rows = [order[name] for name in ids]
        stored = np.array(index["lengths"], dtype=np.int64)
        ends = np.cumsum(stored)
        path = folder / _SAMPLES
        if len(stored) != len(order) or stored.min() < 1 or path.stat().st_size != 4 * int(ends[-1]):
            raise ValueError(f"{path} does not hold what its index says")
        facts = [Facts(**{**fact, "warnings": tuple(fact["warnings"])}) for fact in index["facts"]]
        # A plain array: slicing the memmap subclass costs ten times as much.
        self._samples = np.memmap(path, dtype="<f4", mode="r").view(np.ndarray)
        self._starts = (ends - stored)[rows]
        self._folder = folder
        self.ids = tuple(ids)
        self.sr = int(index["sr"])
        self.lengths = self.recorded = stored[rows]
        self.facts = tuple(facts[row] for row in rows)
        self.content = {name: fact.content for name, fact in zip(self.ids, self.facts, strict=True)}

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.ids)

    def __reduce__(self) -> tuple[type[Waveforms], tuple[Path, tuple[str, ...]], dict[str, Any]]:
        """Pickle by place: worker processes map the file again instead of receiving a copy of it."""
        return Waveforms, (self._folder, self.ids), {"_starts": self._starts, "lengths": self.lengths}

    def waveform(self, row: int) -> np.ndarray:
        """(T,) float32 samples of a row: a read-only view of the file, copy before writing to it."""
        start = self._starts[row]
        return self._samples[start : start + self.lengths[row]]

    def trimmed(self, trim_db: float) -> Waveforms:
        """The same clips without the silence at both ends, see :func:`samo_audio.trimming.sounding`; facts stay."""
        ends = np.array([sounding(self.waveform(row), self.sr, trim_db) for row in range(len(self))], dtype=np.int64)
        short = copy(self)
        short._starts = self._starts + ends[:, 0]
        short.lengths = ends[:, 1] - ends[:, 0]
        return short


class UnreadableClips(DataError):  # noqa: N818
    """Some clips cannot be decoded.

    Attributes:
        reasons: why, by clip's id: all of them, where the message names ten.
    """

    def __init__(self, message: str, *, hint: str, reasons: Mapping[str, str]) -> None:
        super().__init__(message, hint=hint)
        self.reasons = dict(reasons)


def open_waveforms(
    items: Sequence[tuple[str, Path]],
    sr: int,
    *,
    segments: Segments | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Waveforms:
    """Map the decoded clips, decoding them first if they (or a file's size, times or inode) are new.

    Any number of processes may do this at once; the first to finish is kept.

    Args:
        items: id and file of every clip; ids are unique.
        sr: rate in Hz to resample to.
        segments: by id, begin and end in seconds of those clips that are a part of their file.
        on_progress: called with clips decoded and clips in all, not at all when nothing is decoded.
        workers: decoding threads; None takes every core.

    Raises:
        DataError: some files are missing; up to ten are named with the reason.
        UnreadableClips: some cannot be decoded.
        DiskFull: the cache does not fit on its disk.
        EnvironmentProblem: the cache folder cannot be written.
    """
    ids = [name for name, _ in items]
    if not items or len(set(ids)) < len(ids):
        raise DataError("no clips to decode" if not items else "clips to decode share an id")
    segments = segments or {}
    folder = cache_root().absolute() / "waveforms" / _key(items, sr, segments)
    remove_left_folders(folder, "?" * len(folder.name))
    found = _existing(folder, ids)
    if found is not None:
        return found
    with reporting_full_disk(folder), ExitStack() as held:
        temporary = _folder_beside(folder, held)
        _build(temporary, _recordings(items, segments), sr, on_progress, workers or _cores())
        _seal(temporary)
        return _publish(temporary, folder, ids)


def _key(items: Sequence[tuple[str, Path]], sr: int, segments: Segments) -> str:
    """Sixteen hex digits that change with whatever decides the decoded samples."""
    lines, missing = [], []
    for name, path in sorted(items):
        place = os.path.abspath(path)
        try:
            status = os.stat(place)
        except OSError as error:
            missing.append(f"{path} ({error.strerror})")
        else:
            part = f"\0{segments[name]}" if name in segments else ""
            # Whoever puts other samples into a file can give it its old time back, but not its time of change.
            times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}"
            lines.append(f"{name}\0{place}\0{status.st_size}\0{times}{part}")
    if missing:
        raise DataError(f"{len(missing)} of {len(items)} clips cannot be opened: {first_ten(missing)}")
    text = "\n".join([f"{CACHE_VERSION}\0{sr}\0{DECODER}", *lines])
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _existing(folder: Path, ids: Sequence[str]) -> Waveforms | None:
    try:
        _check_seal(folder)
        return Waveforms(folder, ids)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _seal(folder: Path) -> None:
    """Write into the index what the samples and the index itself are known by."""
    index = parse_json((folder / _INDEX).read_bytes())
    index["samples"] = _samples_digest(folder)
    write_text(folder / _INDEX, json.dumps({**index, "seal": _seal_of(index)}, allow_nan=False))
    _mark_checked(folder)


def _check_seal(folder: Path) -> None:
    """Compare index and samples with what they are known by.

    The samples are read only where their file changed since they last were, or came from elsewhere.

    Raises:
        ValueError, LookupError, TypeError, AttributeError, OSError: they are not what was decoded.
    """
    index = parse_json((folder / _INDEX).read_bytes())
    if index.pop("seal") != _seal_of(index):
        raise ValueError(f"{folder / _INDEX} was changed")
    if (folder / _INDEX).stat().st_mtime_ns == (folder / _SAMPLES).stat().st_ctime_ns:
        return
    if index["samples"] != _samples_digest(folder):
        raise ValueError(f"{folder / _SAMPLES} does not hold what was decoded")
    # A cache that cannot be written is read again each time.
    with suppress(OSError):
        _mark_checked(folder)


def _mark_checked(folder: Path) -> None:
    """The index's time is the samples' time of change, which nobody who writes to them can set."""
    changed = (folder / _SAMPLES).stat().st_ctime_ns
    os.utime(folder / _INDEX, ns=(changed, changed))


def _seal_of(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _samples_digest(folder: Path) -> str:
    with (folder / _SAMPLES).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Recording:
    """A file and the clips it holds: one, or its segments."""

    path: Path
    ids: tuple[str, ...]
    segments: tuple[tuple[float, float | None], ...] = ()


def _recordings(items: Sequence[tuple[str, Path]], segments: Segments) -> list[_Recording]:
    """Files in the order of their clips' ids; one that is cut is listed, and decoded, once."""
    found: dict[object, list[tuple[str, Path]]] = {}
    for name, path in sorted(items):
        found.setdefault(path if name in segments else (name, path), []).append((name, path))
    return [
        _Recording(own[0][1], tuple(name for name, _ in own), tuple(segments[n] for n, _ in own if n in segments))
        for own in found.values()
    ]


def _build(
    folder: Path,
    recordings: Sequence[_Recording],
    sr: int,
    on_progress: Callable[[int, int], None] | None,
    workers: int,
) -> None:
    """Decode clips into ``folder``; every file is tried before the bad ones are reported."""
    ids = [name for recording in recordings for name in recording.ids]
    done = 0
    lengths: list[int] = []
    facts: list[dict[str, Any]] = []
    bad: list[DataError] = []
    left: dict[str, str] = {}
    with (folder / _SAMPLES).open("wb") as file:
        for recording, clips in zip(recordings, _decoded(recordings, sr, workers), strict=True):
            if isinstance(clips, DataError):
                bad.append(clips)
                left |= dict.fromkeys(recording.ids, clips.message)
            for clip in clips if not bad and not isinstance(clips, DataError) else ():
                file.write(np.ascontiguousarray(clip.waveform, dtype="<f4").data)
                lengths.append(len(clip.waveform))
                facts.append(asdict(_facts(clip)))
            done += len(recording.ids)
            if on_progress is not None:
                on_progress(done, len(ids))
        if bad:
            raise _all_bad(bad, len(recordings), left)
        _to_disk(file)
    index = {"sr": sr, "ids": ids, "lengths": lengths, "facts": facts}
    with (folder / _INDEX).open("w", encoding="utf-8") as text:
        json.dump(index, text, allow_nan=False)
        _to_disk(text)
    # mkdtemp is private to the owner; a cache may be shared.
    folder.chmod(0o755)


def _decoded(recordings: Sequence[_Recording], sr: int, workers: int) -> Iterator[list[Clip] | DataError]:
    """Decode on ``workers`` threads, in order, with at most two recordings a thread in memory."""
    waiting: deque[Future[list[Clip] | DataError]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for recording in recordings:
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
            waiting.append(pool.submit(_read_or_error, recording, sr))
        while waiting:
            yield waiting.popleft().result()


def _read_or_error(recording: _Recording, sr: int) -> list[Clip] | DataError:
    try:
        if recording.segments:
            return read_segments(recording.path, sr, recording.segments)
        return [read(recording.path, sr)]
    except DataError as error:
        return error


def _all_bad(bad: Sequence[DataError], n_items: int, reasons: Mapping[str, str]) -> UnreadableClips:
    if len(bad) == 1:
        return UnreadableClips(bad[0].message, hint=bad[0].hint, reasons=reasons)
    hints = dict.fromkeys(error.hint for error in bad if error.hint)
    return UnreadableClips(
        f"{len(bad)} of {n_items} clips cannot be read: {first_ten(error.message for error in bad)}",
        hint="; ".join(["repair these files or move them out of the data folder", *hints]),
        reasons=reasons,
    )


def _facts(clip: Clip) -> Facts:
    return Facts(clip.content, clip.native_rate, clip.channels, clip.peak, clip.rms_db, clip.warnings)


def _to_disk(file: IO[Any]) -> None:
    # Renaming a folder whose pages are not written yet would survive a power cut as a cache full of zeros.
    file.flush()
    os.fsync(file.fileno())


def _folder_beside(folder: Path, held: ExitStack) -> Path:
    """A new folder on the disk of ``folder``, until ``held`` ends."""
    try:
        return held.enter_context(folder_beside(folder))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise EnvironmentProblem(
            f"cannot write the cache of decoded audio in {folder.parent}: {error.strerror or error}",
            hint="set SAMO_CACHE to a folder you may write to",
        ) from error


def _publish(temporary: Path, folder: Path, ids: Sequence[str]) -> Waveforms:
    """Rename a finished cache into place, unless another process was faster; a damaged one gives way."""
    for _ in range(_ATTEMPTS):
        try:
            temporary.rename(folder)
        except OSError:
            if temporary.exists() and not folder.exists():
                raise
        found = _existing(folder, ids)
        if found is not None:
            return found
        if temporary.exists():
            _discard(folder)
        else:
            # Another process took ours for the damaged one it met before, and is putting its own there.
            time.sleep(_PAUSE_S)
    raise EnvironmentProblem(f"the cache of decoded audio {folder} is damaged as soon as it is written")


def _discard(folder: Path) -> None:
    """Move a damaged cache away before deleting it, so that nobody meets it half deleted."""
    with ExitStack() as held:
        trash = _folder_beside(folder, held)
        with suppress(FileNotFoundError):
            folder.rename(trash / folder.name)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
