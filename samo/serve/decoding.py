"""Clips decoded in processes of their own, which may die."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from samo.files import parse_json
from samo.prediction.decoded import Decoded
from samo.serve.limits import Limits
from samo.stored import Count, Number, Stored, Text, validated

__all__ = ["Decoders", "DecodingFailed", "DecodingTooSlow"]

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


class _Answer(Stored):
    error: Text = ""
    hint: Text = ""
    n_samples: Count = 0
    peak: Number = 0.0
    rms_db: Number = 0.0
    warnings: tuple[Text, ...] = ()


class _Process:
    """One process that decodes one clip after another."""

    def __init__(self, process: asyncio.subprocess.Process, clip: int, samples: int) -> None:
        assert process.stdin
        assert process.stdout
        self.process, self._requests, self._answers = process, process.stdin, process.stdout
        self._clip, self._samples = clip, samples

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
        shared = nameless(), nameless()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "samo.serve.decoding_process", target, str(memory), *map(str, shared),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                env=variables, limit=_LINE, start_new_session=True, pass_fds=shared,
            )  # fmt: skip
        except BaseException:
            for handle in shared:
                os.close(handle)
            raise
        begun = cls(process, *shared)
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
        os.ftruncate(self._samples, 0)
        os.lseek(self._samples, 0, os.SEEK_SET)
        _write(self._clip, audio)
        self._requests.write(json.dumps({"sr": sr, "longest_s": longest_s}).encode() + b"\n")
        await self._requests.drain()
        answer = validated(_Answer, parse_json(await self._answers.readline()))
        # Nothing of a clip is kept longer than it must.
        os.ftruncate(self._clip, 0)
        if answer.error:
            raise DecodingFailed(answer.error, answer.hint)
        if answer.n_samples > longest_s * sr + 1:
            raise ValueError("more samples than a clip may have")
        waveform = np.frombuffer(os.pread(self._samples, 4 * answer.n_samples, 0), dtype="<f4")
        os.ftruncate(self._samples, 0)
        if len(waveform) != answer.n_samples or not len(waveform):
            raise ValueError("fewer samples than it says")
        return Decoded(waveform, sr, answer.peak, answer.rms_db, answer.warnings)

    async def end(self) -> None:
        """End it, whatever it does."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        self._requests.close()
        os.close(self._clip)
        os.close(self._samples)


def nameless() -> int:
    """The number of an open file without a name: in memory where the system can, and never left behind by a kill."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("clip")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(handle: int, content: bytes) -> None:
    """Let a file hold this and nothing else."""
    os.ftruncate(handle, 0)
    at, left = 0, memoryview(content)
    while left:
        done = os.pwrite(handle, left, at)
        at, left = at + done, left[done:]


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
        self._stopped, self._free = False, asyncio.Queue()
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
