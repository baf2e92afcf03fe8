"""Audio files as containers: what is cut short or no audio at all is told before libsndfile shortens it in silence."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from samo.errors import DataError

__all__ = ["REPAIR_HINT", "bad", "check_container", "has_xing", "not_audio"]

_MAX_CHUNKS, _LARGEST_OGG_PAGE = 4096, 65_307
_FORMAT_HINT = "SAMO reads WAV, FLAC, Ogg, MP3, AIFF, AU, CAF, W64, RF64; convert others: ffmpeg -i in.m4a out.wav"
REPAIR_HINT = "if its recorder was stopped hard, repair the header: sox --ignore-length broken.wav repaired.wav"


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


def check_container(path: Path) -> tuple[str, ...]:
    """Refuse what is no file or is cut short; return warnings. libsndfile shortens such files in silence."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise bad(path, "is a folder, not an audio file")
        if not stat.S_ISREG(status.st_mode):
            raise bad(path, "is not a regular file")
        if status.st_size == 0:
            raise bad(path, "is empty (0 bytes)")
        with path.open("rb") as file:
            magic = file.read(4)
            if magic == b"OggS":
                return _check_ogg(path, file, status.st_size)
            declared, present = _audio_bytes(file, magic, status.st_size)
    except FileNotFoundError as error:
        raise bad(path, "does not exist") from error
    except OSError as error:
        raise bad(path, f"cannot be read: {os.strerror(error.errno or 0)}") from error
    if present < declared:
        raise bad(path, f"truncated: {present} of {declared} bytes of audio are there")
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
        raise bad(path, "truncated: the last Ogg page is incomplete")
    return () if page[5] & 4 else ("has no end mark (Ogg): its end may be missing",)


def has_xing(path: Path) -> bool:
    """Whether an MP3's first frame states the length of the whole."""
    with path.open("rb") as file:
        head = file.read(10)
        tagged = head[:3] == b"ID3" and len(head) == 10
        file.seek(10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) if tagged else 0)
        frame = file.read(256)
    return b"Xing" in frame or b"Info" in frame


def not_audio(path: Path) -> DataError:
    """The error for a file that is no audio, or in a format that cannot be read."""
    return bad(path, "is not in an audio format SAMO can read", hint=_FORMAT_HINT)


def bad(path: Path, why: str, *, hint: str = "") -> DataError:
    """The error for a file, and why."""
    return DataError(f"{path}: {why}", hint=hint)
