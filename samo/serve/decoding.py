"""Clips decoded in processes of their own, which may die."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from samo.files import parse_json
from samo.serve.limits import Limits
from samo.stored import Count, Number, Stored, Text, validated

__all__ = ["Decoded", "Decoders", "DecodingFailed", "DecodingTooSlow"]

_LINE = 1 << 20
# Until a process that died at once is started again, in seconds.
_PAUSE_S = 1.0
# What no decoder needs to know.
_SECRETS = ("SAMO_API_KEY",)


class DecodingFailed(Exception):  # noqa: N818
    """A clip that cannot be decoded: one line, and what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class DecodingTooSlow(Exception):  # noqa: N818
    """A clip that takes longer to decode than a clip may."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded clip.

    Attributes:
        waveform: (T,) float32, mono, at the rate asked for.
        sr: that rate in Hz.
        peak: largest absolute sample of the file; 1 is full scale.
        rms_db: level of the file in dB below full scale.
        warnings: what is odd about the file, for example ``clipped``.
    """

    waveform: np.ndarray
    sr: int
    peak: float
    rms_db: float
    warnings: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.waveform) / self.sr


class _Answer(Stored):
    error: Text = ""
    hint: Text = ""
    n_samples: Count = 0
    peak: Number = 0.0
    rms_db: Number = 0.0
    warnings: tuple[Text, ...] = ()


class _Process:
    """One process that decodes one clip after another."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        assert process.stdout
        self.process, self._requests, self._answers = process, process.stdin, process.stdout

    @classmethod
    async def begun(cls, target: str, memory: int) -> _Process:
        """A process that is ready.

        Raises:
            EOFError: it ended at once.
        """
        # Found where this process found it, and nowhere else; one thread, since address space is what is limited.
        variables = {name: value for name, value in os.environ.items() if name not in _SECRETS}
        variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        variables |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "samo.serve.decoding_process", target, str(memory),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env=variables, limit=_LINE, start_new_session=True,
        )  # fmt: skip
        begun = cls(process)
        try:
            if not await begun._answers.readline():
                raise EOFError
        except BaseException:
            await begun.end()
            raise
        return begun

    async def decode(self, audio: bytes, sr: int, longest_s: float) -> Decoded:
        """Decode one clip.

        Raises:
            DecodingFailed: it cannot be.
            EOFError, OSError, ValueError: the process died of it, or answers nonsense.
        """
        request = {"n_bytes": len(audio), "sr": sr, "longest_s": longest_s}
        self._requests.write(json.dumps(request).encode() + b"\n" + audio)
        await self._requests.drain()
        answer = validated(_Answer, parse_json(await self._answers.readline()))
        if answer.error:
            raise DecodingFailed(answer.error, answer.hint)
        if answer.n_samples > longest_s * sr + 1:
            raise ValueError("more samples than a clip may have")
        samples = await self._answers.readexactly(4 * answer.n_samples)
        waveform = np.frombuffer(samples, dtype="<f4")
        return Decoded(waveform, sr, answer.peak, answer.rms_db, answer.warnings)

    async def end(self) -> None:
        """End it, whatever it does."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        self._requests.close()


class Decoders:
    """Some processes, each with one clip at a time; one that dies is replaced."""

    def __init__(self, target: str, limits: Limits, died: Callable[[], None] = lambda: None) -> None:
        """``target``: what decodes, as ``"module:function"``; ``died`` is called for each process lost to a clip."""
        self._target, self._limits, self._died = target, limits, died
        self._free: asyncio.Queue[_Process] = asyncio.Queue()
        self._running: set[_Process] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def start(self) -> None:
        """Start all processes.

        Raises:
            EOFError: they end at once.
        """
        await asyncio.gather(*(self._begin() for _ in range(self._limits.decoders)))

    async def stop(self) -> None:
        """End all processes."""
        self._stopped = True
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(process.end() for process in self._running))
        self._running.clear()

    async def decode(self, audio: bytes, sr: int) -> Decoded:
        """Decode the bytes of a file to mono at ``sr`` Hz.

        Raises:
            DecodingFailed: it cannot be: damaged, too long, or the process died of it.
            DecodingTooSlow: the time for it is over.
        """
        process = await self._free.get()
        sound = False
        try:
            async with asyncio.timeout(self._limits.decode_timeout):
                decoded = await process.decode(audio, sr, self._limits.max_duration_s)
            sound = True
            return decoded
        except DecodingFailed:
            sound = True
            raise
        except TimeoutError as error:
            raise DecodingTooSlow from error
        except (EOFError, OSError, ValueError) as error:
            raise DecodingFailed("cannot be decoded: its decoder died of it") from error
        finally:
            # What was left in the middle would answer the next clip with the rest of this one.
            if sound:
                self._free.put_nowait(process)
            else:
                self._died()
                self._replace(process)

    def _replace(self, process: _Process) -> None:
        if not self._stopped:
            task = asyncio.get_running_loop().create_task(self._end_and_begin(process))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _end_and_begin(self, process: _Process) -> None:
        await process.end()
        self._running.discard(process)
        while True:
            try:
                await self._begin()
                return
            except (EOFError, OSError):
                await asyncio.sleep(_PAUSE_S)

    async def _begin(self) -> None:
        process = await _Process.begun(self._target, self._limits.decoder_memory_mb * 1_000_000)
        self._running.add(process)
        self._free.put_nowait(process)
