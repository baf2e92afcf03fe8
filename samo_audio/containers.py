"""Audio files as containers, looked at before libsndfile is: it shortens what is cut, joined or mislabelled in silence.

Three rules. What a header states and what the file holds must agree. A length that no recorder could know (see
:func:`_open_ended`) is no statement: the file is read to its end, with a warning. Formats outside the documented ones,
and ADPCM, whose decoders are libsndfile's weakest, never reach it.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from samo.errors import DataError
from samo_audio.mpeg import looks_like_mpeg, mpeg_streams, tag_length
from samo_audio.ogg import ogg_links
from samo_audio.pieces import Run
from samo_audio.problems import ADPCM_HINT, LFS_HINT, bad, not_audio

__all__ = ["Container", "Stream", "check_container"]

_MAX_CHUNKS, _BLOCK = 4096, 1 << 20
# Samples that MP3 encoders put before (iTunes: 2,112) and behind the sound (two frames), and a decoder's delay.
_MOST_PADDING = 2112 + 2 * 1152 + 529
# Samples of the frames that may need data of earlier ones: 511 bytes, ten of the shortest frames.
_INSIDE = 10 * 1152
_MAX_NIST_HEADER = 1 << 16
NO_LENGTH = "states no length: a missing end would go unnoticed"


class Stream(NamedTuple):
    """One of the recordings that lie one behind the other in a file.

    Attributes:
        runs: the bytes of it that libsndfile gets.
        samples: samples per channel that it must hold; -1: it does not say; None: as many as libsndfile says.
        endless: whether libsndfile must not learn its size, which it would estimate a length from.
        least: samples per channel that libsndfile must find.
    """

    runs: tuple[Run, ...]
    samples: int | None = None
    endless: bool = False
    least: int = 0


class Container(NamedTuple):
    """What is known of a file before it is decoded.

    Attributes:
        warnings: what is odd about it.
        streams: its recordings; empty where libsndfile opens the file itself.
        mpeg: whether libmpg123 decodes it.
        incomplete: samples per channel at its beginning that cannot be decoded, since it begins inside a recording.
    """

    warnings: tuple[str, ...] = ()
    streams: tuple[Stream, ...] = ()
    mpeg: bool = False
    incomplete: int = 0


class _Layout(NamedTuple):
    """How a chunked container writes its chunks."""

    first: int  # byte the first chunk begins at
    id_bytes: int
    length: str  # struct format of a chunk's length
    align: int  # chunks begin at multiples of this many bytes
    audio: bytes  # id of the chunk of samples
    form: bytes  # id of the chunk that says how they are written
    own_header: bool = False  # whether a length counts its chunk's id and length


class _Chunk(NamedTuple):
    """A chunk: its id, the first byte of its body, and the length of that which it states."""

    name: bytes
    start: int
    length: int


_RIFF = _Layout(12, 4, "<I", 2, b"data", b"fmt ")
_W64_ID = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_LAYOUTS = {
    **dict.fromkeys((b"RIFF", b"RF64", b"BW64"), _RIFF),
    b"RIFX": _RIFF._replace(length=">I"),
    b"FORM": _RIFF._replace(length=">I", audio=b"SSND", form=b"COMM"),
    b"caff": _Layout(8, 4, ">Q", 1, b"data", b"desc"),
    b"riff": _Layout(40, 16, "<Q", 8, b"data" + _W64_ID, b"fmt " + _W64_ID, own_header=True),
}
_PCM, _FLOAT, _MP3, _EXTENSIBLE = 1, 3, 0x55, 0xFFFE
# A-law, mu-law and GSM are what telephone exchanges write.
_CODINGS = frozenset({_PCM, _FLOAT, 6, 7, 0x31, _MP3})
_ADPCM = frozenset({2, 0x10, 0x11, 0x14, 0x17, 0x38, 0x40, 0x45, 0x64, 0x65, 0x69, 0x200})
_AU_ADPCM = range(23, 27)
# Bytes 4 to 8 of the header that FLAC's first block has; the last of them is its length.
_FLAC_STARTS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")


def check_container(path: Path) -> Container:
    """Refuse what is no audio, cut short or contradicts itself.

    Raises:
        DataError: one line that names the file.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            # Opened only to learn why nothing in it was found.
            os.scandir(path).close()
            raise bad(path, "is a folder, not an audio file")
        if not stat.S_ISREG(status.st_mode):
            raise bad(path, "is not a regular file")
        if status.st_size == 0:
            raise bad(path, "is empty (0 bytes)")
        with path.open("rb") as file:
            return _contents(path, file, status.st_size)
    except FileNotFoundError as error:
        raise bad(path, "does not exist") from error
    except OSError as error:
        raise bad(path, f"cannot be read: {os.strerror(error.errno or 0)}") from error


def _contents(path: Path, file: BinaryIO, size: int) -> Container:
    head = _at(file, 0, 64)
    start = tag_length(file, 0, head, size)
    magic = _at(file, start, 4)
    if magic == b"fLaC":
        streams = tuple(_flac_streams(path, file, start, size))
        return Container((NO_LENGTH,) if any(stream.samples == -1 for stream in streams) else (), streams)
    if looks_like_mpeg(magic) or start:
        return _mpeg(path, file, 0, size)
    if magic == b"OggS":
        return _ogg(path, file, size)
    if magic in (b".snd", b"dns."):
        return _au(path, file, size, ">" if magic == b".snd" else "<")
    if magic == b"NIST":
        return _nist(path, file, size)
    if magic in _LAYOUTS and (magic != b"FORM" or head[8:12] in (b"AIFF", b"AIFC")):
        return _chunked(path, file, size, magic)
    if head.startswith(b"version https://git-lfs"):
        raise bad(path, "is a pointer of Git LFS, not the recording", hint=LFS_HINT)
    raise not_audio(path)


def _mpeg(path: Path, file: BinaryIO, start: int, end: int) -> Container:
    found = mpeg_streams(path, file, start, end)
    warnings = []
    if not all(stream.has_length for stream in found):
        warnings.append("states no length (MP3 without a Xing header): a missing end would go unnoticed")
    if found[0].begins_inside:
        warnings.append("begins in the middle of a recording (MP3): its beginning is missing")
    streams = [
        Stream(tuple(stream.runs), least=stream.samples - _MOST_PADDING)
        if stream.has_length
        else Stream(tuple(stream.runs), stream.samples, endless=True)
        for stream in found
    ]
    return Container(tuple(warnings), tuple(streams), True, _INSIDE if found[0].begins_inside else 0)


def _ogg(path: Path, file: BinaryIO, size: int) -> Container:
    links = ogg_links(path, file, size)
    warnings = () if links[-1].ended else ("has no end mark (Ogg): its end may be missing",)
    if len(links) == 1 and not links[0].flac:
        return Container(warnings)
    streams = []
    for link in links:
        runs: tuple[Run, ...] = tuple(link.runs)
        if link.flac:
            streams.append(Stream(*_flac_without_length(path, file, link.runs[0][0], runs)))
        else:
            streams.append(Stream(runs))
    return Container(warnings, tuple(streams))


def _flac_streams(path: Path, file: BinaryIO, start: int, size: int) -> Iterator[Stream]:
    """FLAC files joined into one are told by their signatures."""
    starts, place = [], start
    while place < size:
        block = _at(file, place, _BLOCK + 7)
        starts += [place + k for sign in _FLAC_STARTS for k in _all(block, sign)]
        place += _BLOCK
    starts = sorted(set(starts)) or [start]
    for first, end in zip(starts, [*starts[1:], size], strict=True):
        yield Stream(*_flac_without_length(path, file, first, ((first, end - first),)))


def _all(block: bytes, word: bytes) -> Iterator[int]:
    place = block.find(word)
    while place >= 0:
        yield place
        place = block.find(word, place + 1)


def _flac_without_length(path: Path, file: BinaryIO, first: int, runs: tuple[Run, ...]) -> tuple[tuple[Run, ...], int]:
    """FLAC that does not say how many samples it holds, so that libsndfile stops at its end; and how many it said."""
    head = bytearray(_at(file, first, 26))
    if len(head) < 26 or head[:4] != b"fLaC":
        raise bad(path, "truncated: its header is incomplete")
    stated = (head[21] & 15) << 32 | int.from_bytes(head[22:26], "big")
    head[21] &= 0xF0
    head[22:26] = bytes(4)
    (start, length), *rest = runs
    assert isinstance(start, int)
    return (bytes(head), (start + 26, length - 26), *rest), stated or -1


def _au(path: Path, file: BinaryIO, size: int, order: str) -> Container:
    start, declared, encoding = struct.unpack(f"{order}III", _at(file, 4, 12).ljust(12, b"\0"))
    if encoding in _AU_ADPCM:
        raise bad(path, "holds ADPCM", hint=ADPCM_HINT)
    present = max(0, size - start)
    if is_open_ended(declared):
        return Container((NO_LENGTH,))
    _agree(path, declared, present)
    if not _only_zeros(file, start + declared, size):
        raise _more(path, declared, present - declared)
    return Container()


def _nist(path: Path, file: BinaryIO, size: int) -> Container:
    """NIST SPHERE: a header of text, "name -type value" a line, whose second line is its length in bytes."""
    lines = _at(file, 0, _MAX_NIST_HEADER).split(b"end_head", 1)[0].split(b"\n")
    fields = {words[0]: words[2] for words in map(bytes.split, lines[2:]) if len(words) == 3}
    if fields.get(b"sample_coding", b"pcm") not in (b"pcm", b"ulaw", b"alaw"):
        # Compressed; libsndfile refuses it.
        return Container()
    numbers = [fields.get(name, b"") for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    begin = lines[1].strip() if len(lines) > 1 else b""
    if not all(number.isdigit() and len(number) < 19 for number in (begin, *numbers)):
        return Container((NO_LENGTH,))
    start, (count, channels, width) = int(begin), map(int, numbers)
    declared, present = count * channels * width, max(0, size - start)
    if is_open_ended(declared):
        return Container((NO_LENGTH,))
    _agree(path, declared, present)
    if not _only_zeros(file, start + declared, size):
        raise _more(path, declared, present - declared)
    return Container()


def _chunked(path: Path, file: BinaryIO, size: int, magic: bytes) -> Container:
    layout = _LAYOUTS[magic]
    long_length, form = 0, b""
    for chunk in _chunks(file, layout, layout.first, size):
        if chunk.name == layout.audio:
            break
        if chunk.name == layout.form:
            form = _at(file, chunk.start, min(chunk.length, 64))
        if chunk.name == b"ds64":
            long_length = struct.unpack("<8xQ", _at(file, chunk.start, 16).ljust(16, b"\0"))[0]
    else:
        return Container()
    declared = long_length if long_length and chunk.length == 0xFFFFFFFF else chunk.length
    present = max(0, size - chunk.start)
    coding = _check_form(path, form, layout, chunk.length)
    open_ended = is_open_ended(declared) or (declared == 0 and present > 0)
    if not open_ended:
        _agree(path, declared, present)
        _check_behind(path, file, layout, chunk.start + declared, size, declared)
        if magic == b"riff" and chunk.start + declared < size:
            # libsndfile takes what follows the samples of a W64 for more of them.
            return Container(streams=(Stream(((0, chunk.start + declared),)),))
    if coding == _MP3:
        return _mpeg(path, file, chunk.start, size if open_ended else chunk.start + declared)
    return Container((NO_LENGTH,) if open_ended and declared != present else ())


def _chunks(file: BinaryIO, layout: _Layout, position: int, size: int) -> Iterator[_Chunk]:
    header_bytes = layout.id_bytes + struct.calcsize(layout.length)
    for _ in range(_MAX_CHUNKS):
        header = _at(file, position, header_bytes)
        if len(header) < header_bytes:
            return
        (length,) = struct.unpack(layout.length, header[layout.id_bytes :])
        body = max(0, length - header_bytes if layout.own_header else length)
        yield _Chunk(header[: layout.id_bytes], position + header_bytes, body)
        position += header_bytes + body
        position += -position % layout.align


def _check_form(path: Path, form: bytes, layout: _Layout, length: int) -> int:
    """Refuse ADPCM and sample sizes that contradict each other; the coding of a WAV, 0 for others."""
    if layout.form == b"COMM":
        _check_aiff_form(path, form, length)
        return 0
    if layout.form == b"desc":
        _check_caf_form(path, form)
        return 0
    order = ">" if layout.length == ">I" else "<"
    if len(form) < 16:
        return 0
    coding, channels, _, _, block, bits = struct.unpack(f"{order}HHIIHH", form[:16])
    if coding == _EXTENSIBLE and len(form) >= 26:
        (coding,) = struct.unpack(f"{order}H", form[24:26])
    if coding in _ADPCM:
        raise bad(path, "holds ADPCM", hint=ADPCM_HINT)
    if coding not in _CODINGS:
        raise not_audio(path)
    if coding in (_PCM, _FLOAT) and block and channels and block != channels * -(-bits // 8):
        raise _two_minds(path, bits, block, channels)
    return int(coding)


def _check_aiff_form(path: Path, form: bytes, length: int) -> None:
    if form[18:22] == b"ima4":
        raise bad(path, "holds ADPCM", hint=ADPCM_HINT)
    if len(form) < 18 or form[18:22] not in (b"", b"NONE", b"sowt", b"twos", b"raw "):
        return
    channels, frames, bits = struct.unpack(">HIH", form[:8])
    stated = frames * channels * -(-bits // 8)
    # Offset and size of blocks stand before the samples.
    if not stated <= length - 8 <= stated + 1:
        raise bad(
            path, f"contradicts itself: {frames} samples of {channels} channels of {bits} bits, but {length - 8} bytes"
        )


def _check_caf_form(path: Path, form: bytes) -> None:
    if form[8:12] == b"ima4":
        raise bad(path, "holds ADPCM", hint=ADPCM_HINT)
    if form[8:12] == b"lpcm" and len(form) >= 32:
        block, frames, channels, bits = struct.unpack(">IIII", form[16:32])
        if block != frames * channels * -(-bits // 8):
            raise _two_minds(path, bits, block, channels)


def _two_minds(path: Path, bits: int, block: int, channels: int) -> DataError:
    return bad(
        path, f"contradicts itself: {bits} bits a sample, but {block} bytes for the samples of {channels} channels"
    )


def _agree(path: Path, declared: int, present: int) -> None:
    if present < declared:
        raise bad(path, f"truncated: {present} of {declared} bytes of audio are there")


def _check_behind(path: Path, file: BinaryIO, layout: _Layout, end: int, size: int, declared: int) -> None:
    """Refuse a file that goes on behind the samples with something else than chunks, tags or zeros."""
    for first in {end + -end % layout.align, end}:
        if _ends_in_chunks(path, file, layout, first, size):
            return
    if not _only_zeros(file, end, size):
        raise _more(path, declared, size - end)


def _ends_in_chunks(path: Path, file: BinaryIO, layout: _Layout, position: int, size: int) -> bool:
    for chunk in _chunks(file, layout, position, size):
        if chunk.name[:4] in _LAYOUTS or chunk.name == layout.audio:
            raise bad(path, "holds a second recording behind the first", hint="split them into files of their own")
        known = chunk.name[:4].upper() in (b"LIST", b"ID3 ", b"JUNK", b"INFO", b"BEXT")
        text = layout.id_bytes > 4 or all(0x20 <= sign < 0x7F for sign in chunk.name)
        if not known and (not text or chunk.start + chunk.length > size):
            begin = chunk.start - layout.id_bytes - struct.calcsize(layout.length)
            tag = tag_length(file, begin, _at(file, begin, 64), size - begin)
            return (bool(tag) and begin + tag >= size) or _only_zeros(file, begin, size)
        position = chunk.start + chunk.length
    return size - position < layout.id_bytes + struct.calcsize(layout.length)


def _more(path: Path, declared: int, more: int) -> DataError:
    return bad(
        path, f"states {declared} bytes of audio, but {more} more follow that are no chunk of its format",
        hint="repair the header: sox --ignore-length broken.wav repaired.wav",
    )  # fmt: skip


def is_open_ended(declared: int) -> bool:
    """Whether a length is what a recorder writes that cannot come back to fill it in (sox, arecord, ffmpeg)."""
    return 0x7FFF0000 <= declared <= 0x80000000 or 0xFFFF0000 <= declared <= 0xFFFFFFFF or declared >= 1 << 62


def _only_zeros(file: BinaryIO, place: int, end: int) -> bool:
    while place < end:
        block = _at(file, place, min(_BLOCK, end - place))
        if block.strip(b"\0"):
            return False
        place += len(block) or end
    return True


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    """Bytes from a place that may lie anywhere behind the end."""
    # No disk holds such files, and some refuse to go there.
    if place >= 1 << 42:
        return b""
    file.seek(place)
    return file.read(count)
