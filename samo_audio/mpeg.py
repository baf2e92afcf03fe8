"""The frames of an MP3, counted without decoding: its length, what is damaged, where a second file was hung on.

ISO/IEC 11172-3 and 13818-3; the frame with the length is that of Xing and LAME.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from samo_audio.problems import bad, not_audio

__all__ = ["MpegStream", "looks_like_mpeg", "mpeg_streams", "tag_length"]

# kbit/s by the four bits of a header; 0 = free format, which no encoder in use writes.
_V1 = {
    1: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_V2_LAYER_1 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_V2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = (44_100, 48_000, 32_000)
# A frame's first bytes, up to those of the stated length.
_BUFFER, _HEAD = 1 << 16, 64


class _Frame(NamedTuple):
    """A frame's header: what does not change within a stream, and its length in bytes."""

    version: int  # 1, 2, or 4 for 2.5: what the rates of version 1 are divided by
    layer: int
    rate: int
    mono: bool
    length: int

    @property
    def kind(self) -> tuple[int, int, int, bool]:
        """What all frames of a stream share."""
        return self[:4]

    @property
    def samples(self) -> int:
        """Samples per channel."""
        return 384 if self.layer == 1 else 576 if self.layer == 3 and self.version > 1 else 1152


@dataclass
class MpegStream:
    """One stream of frames.

    Attributes:
        runs: (first byte, number of bytes) of its frames, without the tags between them.
        frames: frames of sound, the one that states the length not counted.
        samples: samples per channel in them.
        stated: frames that its first frame states; 0 where none does.
        begins_inside: whether its first frame needs data of frames that are not there.
    """

    runs: list[tuple[int, int]] = field(default_factory=list)
    frames: int = 0
    samples: int = 0
    stated: int = 0
    begins_inside: bool = False

    @property
    def has_length(self) -> bool:
        """Whether the stated length is that of the frames; if it is, encoder delay and padding are cut off."""
        return 0 < self.stated == self.frames

    def add(self, start: int, length: int) -> None:
        """Take bytes that follow."""
        if self.runs and sum(self.runs[-1]) == start:
            self.runs[-1] = (self.runs[-1][0], self.runs[-1][1] + length)
        else:
            self.runs.append((start, length))


def looks_like_mpeg(head: bytes) -> bool:
    """Whether the first four bytes of a file are those of an MP3's frame."""
    return _frame(head) is not None


def mpeg_streams(path: Path, file: BinaryIO, start: int, end: int) -> list[MpegStream]:
    """The streams that lie one behind the other between two bytes of a file.

    A stream begins with a frame that states a length, or where rate or channels change.

    Raises:
        DataError: the last frame is incomplete, frames are missing, or something else lies between them.
    """
    streams: list[MpegStream] = []
    kind: tuple[int, int, int, bool] | None = None
    for place, frame, head in _frames(path, file, start, end):
        stated = _stated_frames(head, frame)
        if stated is not None or frame.kind != kind:
            streams.append(MpegStream(stated=stated or 0))
            kind = frame.kind
        stream = streams[-1]
        stream.add(place, frame.length)
        if stated is None:
            stream.begins_inside |= not stream.frames and _needs_earlier_frames(head, frame)
            stream.frames += 1
            stream.samples += frame.samples
    for stream in streams:
        if stream.stated > stream.frames:
            raise bad(path, f"truncated: {stream.frames} of {stream.stated} MP3 frames are there")
        if stream.stated and not stream.has_length:
            # More follows than stated: the frame with the length would cut it off.
            first, length = stream.runs[0]
            front = _frame(_at(file, first, 4))
            assert front is not None
            stream.runs[0] = first + front.length, length - front.length
    found = [stream for stream in streams if stream.frames]
    if not found:
        raise not_audio(path) if not streams else bad(path, "holds no samples")
    return found


def _frames(path: Path, file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, _Frame, bytes]]:
    """First byte, header and first bytes of each frame."""
    place, buffer, base, met = start, b"", start, 0
    while place < end:
        if place - base + _HEAD > len(buffer):
            base, buffer = place, _at(file, place, min(_BUFFER, end - place))
        head = buffer[place - base : place - base + _HEAD]
        frame = _frame(head[:4])
        if frame is not None:
            if place + frame.length > end:
                raise bad(path, "truncated: the last MP3 frame is incomplete")
            yield place, frame, head
            met += 1
            place += frame.length
            continue
        skipped = tag_length(file, place, head, end - place) or _zeros(file, place, end)
        if not skipped:
            if met < 2:
                raise not_audio(path)
            raise bad(path, f"damaged: neither a frame nor a tag begins at byte {place}")
        place += skipped


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _frame(head: bytes) -> _Frame | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version = {3: 1, 2: 2, 0: 4}.get(head[1] >> 3 & 3)
    layer, bits, rate = 4 - (head[1] >> 1 & 3), head[2] >> 4, head[2] >> 2 & 3
    if version is None or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    kbits = (_V1[layer] if version == 1 else _V2_LAYER_1 if layer == 1 else _V2)[bits]
    hz, padding = _RATES[rate] // version, head[2] >> 1 & 1
    if layer == 1:
        length = (12_000 * kbits // hz + padding) * 4
    else:
        length = (72_000 if layer == 3 and version > 1 else 144_000) * kbits // hz + padding
    return _Frame(version, layer, hz, head[3] >> 6 == 3, length)


def _stated_frames(head: bytes, frame: _Frame) -> int | None:
    """Frames that a frame of Xing or LAME states, 0 where it states none; None for a frame of sound."""
    if frame.layer != 3:
        return None
    side = (9 if frame.mono else 17) if frame.version > 1 else (17 if frame.mono else 32)
    # A checksum of two bytes may stand between header and side information.
    for begin in (4 + side, 6 + side):
        # libmpg123 takes it for sound where there is side information.
        if head[begin : begin + 4] in (b"Xing", b"Info") and not head[begin - side : begin].strip(b"\0"):
            flags, stated = struct.unpack(">II", head[begin + 4 : begin + 12].ljust(8, b"\0"))
            return int(stated) if flags & 1 else 0
    return None


def _needs_earlier_frames(head: bytes, frame: _Frame) -> bool:
    """Whether the first bits of the side information, ``main_data_begin``, point at bytes before this frame."""
    if frame.layer != 3:
        return False
    side = int.from_bytes(head[4:6] if head[1] & 1 else head[6:8], "big")
    return side >> (7 if frame.version == 1 else 8) > 0


def tag_length(file: BinaryIO, place: int, head: bytes, left: int) -> int:
    """Bytes of the tag that begins here, 0 if none does."""
    size = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        size = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + (10 if head[5] & 0x10 else 0)
    elif head[:3] == b"TAG":
        size = 227 if head[3:4] == b"+" else 128
    elif head[:8] == b"APETAGEX" and len(head) >= 16:
        size = 32 + int(struct.unpack("<I", head[12:16])[0])
    elif head[:11] == b"LYRICSBEGIN":
        text = _at(file, place, min(_BUFFER, left))
        ends = [text.find(word) + len(word) for word in (b"LYRICS200", b"LYRICSEND") if word in text]
        size = min(ends, default=0)
    return min(size, left)


def _zeros(file: BinaryIO, place: int, end: int) -> int:
    """Number of zeros that begin here."""
    count = 0
    while place + count < end:
        block = _at(file, place + count, min(_BUFFER, end - place - count))
        rest = block.lstrip(b"\0")
        count += len(block) - len(rest)
        if rest or not block:
            break
    return count
