"""Clips decoded in processes that may die, eat, hang and lie."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from stub_models import tone

from samo.modalities import MODALITIES
from samo.prediction import Decoded
from samo.serve.decoding import Decoders, DecodingFailed, DecodingTooSlow
from samo.serve.limits import Limits

KILLING = "killing_decoder:decode"
REAL = MODALITIES["audio"].decoder


def with_decoders(
    target: str, work: Callable[[Decoders], Awaitable[Any]], lost: list[int] | None = None, **limits: Any
) -> Any:
    async def main() -> Any:
        count = (lambda: lost.append(1)) if lost is not None else (lambda: None)
        decoders = Decoders(target, Limits(**{"decoders": 1, **limits}), count)
        await decoders.start()
        try:
            return await work(decoders)
        finally:
            await decoders.stop()

    return asyncio.run(main())


@pytest.mark.parametrize("order", [b"die", b"long"])
def test_a_hostile_clip_costs_itself_alone(order: bytes) -> None:
    lost: list[int] = []

    async def work(decoders: Decoders) -> Decoded:
        with pytest.raises(DecodingFailed):
            await decoders.decode(order, 8000)
        return await decoders.decode(b"good", 8000)

    good = with_decoders(KILLING, work, lost)
    assert good.waveform.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert (good.sr, good.peak, good.rms_db) == (8000, 3.0, -1.0)
    assert len(lost) == 1


def test_one_that_hangs_is_ended_in_time() -> None:
    async def work(decoders: Decoders) -> Decoded:
        with pytest.raises(DecodingTooSlow):
            await decoders.decode(b"sleep", 8000)
        return await decoders.decode(b"good", 8000)

    assert len(with_decoders(KILLING, work, decode_timeout=0.5).waveform) == 4


def test_others_are_decoded_beside_one_that_hangs() -> None:
    async def work(decoders: Decoders) -> Decoded:
        hanging = asyncio.create_task(decoders.decode(b"sleep", 8000))
        await asyncio.sleep(0)
        good = await decoders.decode(b"good", 8000)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        return good

    assert len(with_decoders(KILLING, work, decoders=2).waveform) == 4


def test_what_a_library_prints_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_API_KEY", "0123456789abcdef")

    async def work(decoders: Decoders) -> list[Decoded]:
        return [await decoders.decode(order, 8000) for order in (b"print", b"secret")]

    printed, secret = with_decoders(KILLING, work)
    assert len(printed.waveform) == 4
    assert secret.warnings == ()


def test_a_decoder_has_the_memory_it_may() -> None:
    async def work(decoders: Decoders) -> Decoded:
        return await decoders.decode(b"eat", 8000)

    assert len(with_decoders(KILLING, work, decoder_memory_mb=2000).waveform) == 4
    with pytest.raises(DecodingFailed, match="needs more memory"):
        with_decoders(KILLING, work, decoder_memory_mb=500)


def test_a_small_file_of_many_hours_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.flac"
    soundfile.write(path, np.zeros(1800 * 1000, np.int16), 1000)
    assert path.stat().st_size < 100_000

    async def work(decoders: Decoders) -> Decoded:
        return await decoders.decode(path.read_bytes(), 16000)

    with pytest.raises(DecodingFailed, match=r"^lasts 1800\.0 s, longer than the 60 s that are taken$"):
        with_decoders(REAL, work, max_duration_s=60)


def test_the_same_samples_as_anywhere_else(tmp_path: Path) -> None:
    from samo_audio.audio_io import read

    path = tmp_path / "x.flac"
    path.write_bytes(tone(0.999, 0.4, 44100, "FLAC"))
    clip = read(path, 16000)

    async def work(decoders: Decoders) -> list[Decoded]:
        return [await decoders.decode(path.read_bytes(), 16000) for _ in range(2)]

    for found in with_decoders(REAL, work):
        assert np.array_equal(found.waveform, clip.waveform)
        assert (found.peak, found.rms_db, found.warnings) == (clip.peak, clip.rms_db, clip.warnings)


def test_the_place_of_a_file_is_nobodys_business() -> None:
    async def work(decoders: Decoders) -> list[str]:
        messages = []
        for junk in (b"", b"junk", tone()[:2000], b"RIFF" + bytes(60)):
            with pytest.raises(DecodingFailed) as error:
                await decoders.decode(junk, 16000)
            messages.append(error.value.message)
        return messages

    for line in with_decoders(REAL, work):
        assert line
        assert "/" not in line.replace("and/or", "")
