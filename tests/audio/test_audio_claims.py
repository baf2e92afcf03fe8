"""Headers against content: every sample or a refusal, in memory that follows the content and not the claim."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from samo.errors import DataError
from samo_audio import audio_io
from samo_audio.audio_io import info, read, windows

RATE = 16_000


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """(T,) int16 that no codec shortens."""
    return (3000 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype("<i2")


def written(path: Path, samples: np.ndarray, rate: int = RATE, **how: object) -> bytes:
    soundfile.write(path, samples, rate, **how)
    return path.read_bytes()


def chunk(name: bytes, body: bytes, length: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if length is None else length) + body + bytes(len(body) % 2)


def form(coding: int = 1, bits: int = 16, block: int = 2, channels: int = 1) -> bytes:
    return chunk(b"fmt ", struct.pack("<HHIIHH", coding, channels, RATE, RATE * block, block, bits))


def wav(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def refusal(path: Path) -> str:
    """The line ``read`` refuses a file with; ``info`` and ``windows`` let it not pass either."""
    with pytest.raises(DataError) as caught:
        read(path, RATE)
    with pytest.raises(DataError):
        list(windows(path, RATE, 0.5))
    assert caught.value.message.startswith(f"{path}: ")
    return caught.value.message.removeprefix(f"{path}: ")


def outcome(path: Path) -> str:
    """``samples``, or why there are none; any other error fails the test."""
    try:
        return "samples" if len(read(path, RATE).waveform) else "none"
    except DataError as error:
        return error.message.removeprefix(f"{path}: ")


def ogg_flac(flac: bytes, serial: int = 7) -> bytes:
    """A FLAC file as FLAC in Ogg: headers in pages of their own, then 200 bytes of what follows a packet."""
    assert flac[:4] == b"fLaC"
    blocks, place = [], 4
    while True:
        end = place + 4 + int.from_bytes(flac[place + 1 : place + 4], "big")
        blocks.append(flac[place:end])
        last, place = flac[place] & 0x80, end
        if last:
            break
    packets = [b"\x7fFLAC\x01\x00" + struct.pack(">H", len(blocks) - 1) + b"fLaC" + blocks[0], *blocks[1:]]
    packets += [flac[k : k + 200] for k in range(place, len(flac), 200)]
    pages = []
    for number, packet in enumerate(packets):
        flags = 2 if number == 0 else 4 if number == len(packets) - 1 else 0
        lacing = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
        head = struct.pack("<4sBBqIII", b"OggS", 0, flags, 0, serial, number, 0)
        pages.append(head + bytes([len(lacing)]) + lacing + packet)
    return b"".join(pages)


# Every sample


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        ("mp3", {"bitrate_mode": "VARIABLE"}),
        ("mp3", {"bitrate_mode": "CONSTANT"}),
        ("ogg", {}),
        ("opus", {"format": "OGG", "subtype": "OPUS"}),
        ("flac", {}),
    ],
)
def test_joined_files_are_read_one_behind_the_other(tmp_path: Path, suffix: str, how: dict[str, str]) -> None:
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    combined = put(
        tmp_path / f"ab.{suffix}", written(first, noise(0.5), **how) + written(second, noise(0.75, seed=1), **how)
    )
    both = np.concatenate([read(path, RATE).waveform for path in (first, second)])
    assert len(both) == 20_000
    clip = read(combined, RATE)
    assert np.array_equal(clip.waveform, both)
    assert clip.warnings == ()
    assert info(combined).frames == 20_000
    assert next(windows(combined, RATE, 1.25))[1].tolist() == both.tolist()


def test_joined_files_of_two_rates_are_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "a.mp3", noise(0.5)) + written(tmp_path / "b.mp3", noise(0.5), 22_050)
    assert refusal(put(tmp_path / "ab.mp3", data)) == "holds recordings at 16000 and 22050 Hz, one behind the other"


@pytest.mark.parametrize("suffix", ["wav", "aiff", "caf", "w64", "au"])
def test_joined_files_whose_second_half_would_be_lost_are_refused(tmp_path: Path, suffix: str) -> None:
    one = written(tmp_path / f"a.{suffix}", noise(0.5))
    line = refusal(put(tmp_path / f"aa.{suffix}", one + one))
    assert "more follow" in line if suffix == "au" else line == "holds a second recording behind the first"


def test_an_mp3_without_a_length_is_read_to_its_end(tmp_path: Path) -> None:
    """Large frames of noise before tiny ones of silence: libmpg123's estimate from the first falls short."""
    sound = np.concatenate([noise(0.5), np.zeros(3 * RATE, "<i2"), noise(1.0)])
    whole = written(tmp_path / "a.mp3", sound, bitrate_mode="VARIABLE")
    path = put(tmp_path / "b.mp3", whole[whole.index(b"\xff\xf3", 4) :])
    clip = read(path, RATE)
    assert soundfile.info(path).frames < 4 * RATE
    # Frames of 576 samples hold the sound, the delay of 529 + 576 before it, and what fills the last.
    assert len(clip.waveform) == info(path).frames == 576 * -(-(len(sound) + 1105) // 576)
    # The last second is as loud as it was, and not cut off.
    assert np.sqrt(np.mean(clip.waveform[-RATE:] ** 2)) == pytest.approx(3000 / 32768, rel=0.15)
    assert clip.warnings == ("states no length (MP3 without a Xing header): a missing end would go unnoticed",)


def test_an_mp3_that_is_longer_than_it_states_is_read_to_its_end(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.mp3", noise(1.0), bitrate_mode="VARIABLE")
    frames = whole[whole.index(b"\xff\xf3", 4) :]
    stated = struct.unpack(">I", whole[whole.index(b"Xing") + 8 :][:4])[0]
    clip = read(put(tmp_path / "b.mp3", whole + frames), RATE)
    assert len(clip.waveform) == 2 * stated * 576


@pytest.mark.parametrize("rate", [44_100, 22_050, 11_025, 48_000])
def test_mp3_frames_of_every_rate_are_counted(tmp_path: Path, rate: int) -> None:
    """At 44.1 kHz and its fractions, some frames are a byte longer than others."""
    samples = noise(1.0, rate=rate)
    path = tmp_path / "a.mp3"
    written(path, samples, rate, bitrate_mode="CONSTANT", compression_level=0.5)
    assert info(path).frames == len(read(path, rate).waveform) == rate


def test_an_mp3_cut_inside_a_frame_is_refused_with_and_without_a_length(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.mp3", noise(1.0), bitrate_mode="VARIABLE")
    for data in (whole, whole[whole.index(b"\xff\xf3", 4) :]):
        assert refusal(put(tmp_path / "b.mp3", data[:-1])) == "truncated: the last MP3 frame is incomplete"


def test_tags_and_zeros_in_an_mp3_are_no_damage(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.mp3", noise(0.5))
    picture = b"\xff\xfb\x90\x64 a picture may hold what looks like a frame " * 20
    head = b"ID3\x04\x00\x00" + bytes([0, 0, len(picture) >> 7, len(picture) & 127]) + picture
    ape = b"APETAGEX" + struct.pack("<IIII8x", 2000, 32, 0, 0xA0000000) + bytes(32)
    tail = b"TAG" + b"title".ljust(125, b"\0")
    path = put(tmp_path / "b.mp3", head + whole + bytes(3000) + ape + tail)
    assert np.array_equal(read(path, RATE).waveform, read(tmp_path / "a.mp3", RATE).waveform)


def test_an_mp3_that_begins_inside_a_recording_says_so(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.mp3", noise(1.0), bitrate_mode="VARIABLE")
    starts = [k for k in range(len(whole)) if whole[k : k + 2] == b"\xff\xf3" and whole[k + 4] > 0]
    warnings = read(put(tmp_path / "b.mp3", whole[starts[3] :]), RATE).warnings
    assert "begins in the middle of a recording (MP3): its beginning is missing" in warnings


def test_flac_in_ogg_is_read(tmp_path: Path) -> None:
    flac = written(tmp_path / "a.flac", noise(0.5))
    path = put(tmp_path / "a.ogg", ogg_flac(flac))
    assert np.array_equal(read(path, RATE).waveform, read(tmp_path / "a.flac", RATE).waveform)
    assert info(path).frames == 8000
    twice = put(tmp_path / "aa.oga", ogg_flac(flac) + ogg_flac(flac, serial=8))
    assert np.array_equal(read(twice, RATE).waveform, np.tile(noise(0.5) / np.float32(32768), 2))


def test_a_damaged_mp3_is_refused_and_nothing_reaches_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = bytearray(written(tmp_path / "a.mp3", noise(2.0), bitrate_mode="CONSTANT"))
    refused = 0
    for seed in range(40):
        spoiled = bytearray(whole)
        for place in np.random.default_rng(seed).integers(400, len(whole), 20):
            spoiled[place] ^= 0x40
        refused += bool(re.match(r"(damaged|truncated): ", outcome(put(tmp_path / "b.mp3", bytes(spoiled)))))
    assert refused > 20
    assert capfd.readouterr() == ("", "")


def test_what_others_write_while_an_mp3_is_decoded_arrives(capfd: pytest.CaptureFixture[str]) -> None:
    from samo_audio.complaints import complaints

    heard: list[str] = []
    with complaints(heard):
        os.write(2, b"one line\n[src/libmpg123/layer3.c:f():1] error: too bad\nNote: Trying to resync...\nanother\n")
    assert heard == ["too bad"]
    assert capfd.readouterr().err == "one line\nanother\n"


# Refused


def test_a_wav_whose_length_falls_short_is_refused(tmp_path: Path) -> None:
    sound = noise(0.5).tobytes()
    data = b"data" + struct.pack("<I", 4000) + sound
    au = struct.pack(">4sIIIII", b".snd", 24, 4000, 3, RATE, 1) + sound
    assert refusal(put(tmp_path / "a.wav", wav(form(), data))) == (
        "states 4000 bytes of audio, but 12000 more follow that are no chunk of its format"
    )
    assert "more follow" in refusal(put(tmp_path / "b.au", au))


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        chunk(b"LIST", b"INFOabc"),
        chunk(b"LIST", b"INFO", length=1000),
        chunk(b"id3 ", bytes(range(256))),
        b"TAG" + bytes(125),
        bytes(5000),
        chunk(b"cue ", bytes(28)) + bytes(512),
        b"\0",
    ],
)
@pytest.mark.parametrize("n", [8000, 8001])
def test_what_may_follow_the_samples_of_a_wav(tmp_path: Path, tail: bytes, n: int) -> None:
    sound = (np.arange(n) % 200).astype(np.uint8)
    data = b"data" + struct.pack("<I", n) + sound.tobytes()
    for filling in {bytes(n % 2), b""}:
        path = put(tmp_path / "a.wav", wav(form(bits=8, block=1), data + filling + tail))
        assert len(read(path, RATE).waveform) == n


def test_a_flac_that_is_longer_than_it_states_is_refused(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path / "a.flac", noise(1.0)))
    data[22:26] = (8000).to_bytes(4, "big")
    assert refusal(put(tmp_path / "b.flac", bytes(data))) == "states 8000 samples, but more follow"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"bits": 1}, "contradicts itself: 1 bits a sample, but 2 bytes for the samples of 1 channels"),
        ({"bits": 8}, "contradicts itself: 8 bits a sample, but 2 bytes for the samples of 1 channels"),
        ({"bits": 24}, "contradicts itself: 24 bits a sample, but 2 bytes for the samples of 1 channels"),
        ({"channels": 2}, "contradicts itself: 16 bits a sample, but 2 bytes for the samples of 2 channels"),
        ({"coding": 2, "bits": 4, "block": 256}, "holds ADPCM"),
        ({"coding": 0x11, "bits": 4, "block": 256}, "holds ADPCM"),
        ({"coding": 0x1234}, "is not in an audio format SAMO can read"),
    ],
)
def test_a_wav_whose_form_cannot_be_is_refused(tmp_path: Path, how: dict[str, int], says: str) -> None:
    assert refusal(put(tmp_path / "a.wav", wav(form(**how), chunk(b"data", noise(0.5).tobytes())))) == says


@pytest.mark.parametrize("how", [{"bits": 8}, {"channels": 2}, {"frames": 7999}])
def test_an_aiff_whose_form_cannot_be_is_refused(tmp_path: Path, how: dict[str, int]) -> None:
    form = {"channels": 1, "frames": 8000, "bits": 16} | how
    data = bytearray(written(tmp_path / "a.aiff", noise(0.5)))
    place = data.index(b"COMM") + 8
    data[place : place + 8] = struct.pack(">HIH", form["channels"], form["frames"], form["bits"])
    assert refusal(put(tmp_path / "b.aiff", bytes(data))) == (
        f"contradicts itself: {form['frames']} samples of {form['channels']} channels of {form['bits']} bits,"
        " but 16000 bytes"
    )


def test_a_caf_whose_form_cannot_be_is_refused(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path / "a.caf", noise(0.5)))
    place = data.index(b"desc") + 12
    data[place + 28 : place + 32] = struct.pack(">I", 8)
    assert refusal(put(tmp_path / "b.caf", bytes(data))) == (
        "contradicts itself: 8 bits a sample, but 2 bytes for the samples of 1 channels"
    )


def test_what_follows_the_samples_of_a_w64_is_no_sound(tmp_path: Path) -> None:
    identity = b"smpl\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
    data = written(tmp_path / "a.w64", noise(0.5)) + identity + struct.pack("<Q", 24 + 40) + bytes(range(40))
    assert len(read(put(tmp_path / "b.w64", data), RATE).waveform) == 8000


@pytest.mark.parametrize(
    ("subtype", "suffix"),
    [("IMA_ADPCM", "wav"), ("MS_ADPCM", "wav"), ("NMS_ADPCM_16", "wav"), ("G721_32", "wav"), ("IMA_ADPCM", "w64")],
)
def test_adpcm_never_reaches_its_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtype: str, suffix: str
) -> None:
    written(tmp_path / f"a.{suffix}", noise(0.5), subtype=subtype)
    monkeypatch.setattr(audio_io.soundfile, "SoundFile", None)
    with pytest.raises(DataError, match="holds ADPCM") as caught:
        read(tmp_path / f"a.{suffix}", RATE)
    assert "ffmpeg -i in.wav -c:a pcm_s16le" in caught.value.hint


def test_formats_outside_the_list_never_reach_libsndfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"a.{name}" for name in ("voc", "paf", "svx", "ircam", "pvf", "xi", "htk", "avr", "mat5")]
    for path in paths:
        subtype = "DPCM_16" if path.suffix == ".xi" else None
        soundfile.write(path, noise(0.1), RATE, format=path.suffix[1:].upper(), subtype=subtype)
    monkeypatch.setattr(audio_io.soundfile, "SoundFile", None)
    for path in paths:
        with pytest.raises(DataError, match="is not in an audio format SAMO can read"):
            read(path, RATE)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    with pytest.raises(DataError, match="is a pointer of Git LFS, not the recording") as caught:
        read(put(tmp_path / "a.wav", text), RATE)
    assert caught.value.hint == "fetch the files themselves: git lfs pull"


@pytest.mark.parametrize("stated", [0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_length_that_nobody_knew_is_a_warning(tmp_path: Path, stated: int) -> None:
    data = b"data" + struct.pack("<I", stated) + noise(0.5).tobytes()
    path = put(tmp_path / "a.wav", b"RIFF" + struct.pack("<I", stated or 8) + b"WAVE" + form() + data)
    clip = read(path, RATE)
    assert len(clip.waveform) == 8000
    assert clip.warnings == ("states no length: a missing end would go unnoticed",)


def test_a_length_that_was_meant_is_not(tmp_path: Path) -> None:
    for stated in (1_500_000_000, 3_000_000_000):
        data = b"data" + struct.pack("<I", stated) + noise(0.5).tobytes()
        assert refusal(put(tmp_path / "a.wav", wav(form(), data))) == (
            f"truncated: 16000 of {stated} bytes of audio are there"
        )


def test_a_clip_too_long_to_be_one_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "a.flac", written(tmp_path / "a.flac", np.zeros(40_000, "<i2")))
    monkeypatch.setattr(audio_io, "_BLOCK", 1000)
    monkeypatch.setattr(audio_io, "_MOST_AT_ONCE", 40_000)
    assert len(read(path, RATE).waveform) == 40_000
    monkeypatch.setattr(audio_io, "_MOST_AT_ONCE", 39_999)
    with pytest.raises(DataError, match=r"lasts over 0\.0 h, too long for one clip"):
        read(path, RATE)
    assert sum(1 for _ in windows(path, RATE, 0.5)) == 5


# Memory


def last_granule(data: bytes, value: int) -> bytes:
    """An Ogg file whose last page states another end, its checksum made good."""
    page = bytearray(data[data.rindex(b"OggS") :])
    page[6:14] = struct.pack("<q", value)
    page[22:26] = bytes(4)
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    page[22:26] = struct.pack("<I", crc)
    return data[: data.rindex(b"OggS")] + bytes(page)


@pytest.mark.parametrize("how", [{}, {"format": "OGG", "subtype": "OPUS"}])
def test_an_ogg_that_states_less_than_it_holds_is_refused(tmp_path: Path, how: dict[str, str]) -> None:
    """Half a page less is how an encoder cuts off what it had to fill up; less than the page before is not."""
    whole = written(tmp_path / "a.ogg", noise(5.0), **how)
    pages = [k for k in range(len(whole)) if whole[k : k + 4] == b"OggS"]
    *_, before, last = (struct.unpack("<q", whole[k + 6 : k + 14])[0] for k in pages)
    shorter = read(put(tmp_path / "b.ogg", last_granule(whole, (before + last) // 2)), RATE)
    assert 4 * RATE < len(shorter.waveform) < 5 * RATE
    assert refusal(put(tmp_path / "c.ogg", last_granule(whole, before - 1))) == (
        f"damaged: the times of its Ogg pages run backwards at byte {pages[-1]}"
    )


def test_claims_cost_no_memory(tmp_path: Path) -> None:
    """2^36 to 2^50 samples claimed in some kilobytes: all read and streamed in 60 MB, and refused in one line."""
    ogg = written(tmp_path / "a.ogg", noise(2.0))
    flac = bytearray(written(tmp_path / "a.flac", noise(0.5)))
    flac[21] |= 0x0F
    flac[22:26] = b"\xff" * 4
    mp3 = bytearray(written(tmp_path / "a.mp3", noise(0.5), bitrate_mode="VARIABLE"))
    count = mp3.index(b"Xing") + 8
    mp3[count : count + 4] = b"\x7f\xff\xff\xff"
    claims = {
        "a.ogg": last_granule(ogg, 1 << 44), "b.ogg": last_granule(ogg, 1 << 50), "c.flac": bytes(flac),
        "d.mp3": bytes(mp3), "e.wav": wav(form(), b"data" + struct.pack("<I", 0x7FFF0001) + bytes(16_000)),
    }  # fmt: skip
    paths = [put(tmp_path / name, data) for name, data in claims.items()]
    code = """
import resource, sys
from pathlib import Path
from samo.errors import DataError
from samo_audio.audio_io import read, windows
def peak_kb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak_kb()
for path in map(Path, sys.argv[1:]):
    for use in (lambda: read(path, 16000), lambda: list(windows(path, 16000, 3.0))):
        try:
            use()
        except DataError as error:
            print(error.message.split(": ", 1)[1])
print(peak_kb() - before)
"""
    root = Path(audio_io.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, cwd=root, check=True)
    *lines, growth_kb = done.stdout.splitlines()
    stated = struct.unpack(">I", written(tmp_path / "f.mp3", noise(0.5))[count : count + 4])[0]
    assert lines == [
        *(f"truncated: 32000 of {1 << power} samples are there" for power in (44, 44, 50, 50)),
        *[f"truncated: 8000 of {(1 << 36) - 1} samples are there"] * 2,
        *[f"truncated: {stated} of {0x7FFFFFFF} MP3 frames are there"] * 2,
    ]
    assert int(growth_kb) < 60_000


def test_no_mutant_of_a_header_ends_in_anything_but_a_line(tmp_path: Path) -> None:
    """Each file's first 200 bytes, one byte changed at a time: samples or a refusal, never another error."""
    seeds = {
        "wav": {}, "aiff": {}, "w64": {}, "caf": {}, "au": {}, "flac": {}, "mp3": {"bitrate_mode": "VARIABLE"},
    }  # fmt: skip
    outcomes = set()
    for suffix, how in seeds.items():
        whole = written(tmp_path / f"a.{suffix}", noise(0.05), **how)
        path = tmp_path / f"b.{suffix}"
        for place in range(0, min(200, len(whole)), 3):
            changed = bytearray(whole)
            changed[place] ^= 0xFF
            path.write_bytes(changed)
            outcomes.add(outcome(path) == "samples")
    assert outcomes == {True, False}
