"""An open audio file: libsndfile reads its streams one behind the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
import soundfile

from samo.errors import DataError
from samo_audio.complaints import complaints
from samo_audio.containers import Container
from samo_audio.pieces import Pieces
from samo_audio.problems import bad, not_audio

__all__ = ["Sound"]

_SHORT_BLOCK = 1152


class Sound:
    """An open file: the streams that lie one behind the other in it, one for most."""

    def __init__(self, path: Path, container: Container) -> None:
        """Open all streams.

        Raises:
            DataError: a format that cannot be read, or streams of different rates.
        """
        self._opened = ExitStack()
        self._container = container
        self.streams: list[tuple[soundfile.SoundFile, int]] = []
        try:
            if not container.streams:
                sound = self._stream(os.fsencode(path))
                self.streams = [(sound, sound.frames)]
            else:
                file = self._opened.enter_context(path.open("rb"))
            for stream in container.streams:
                sound = self._stream(Pieces(file, stream.runs, endless=stream.endless))
                if sound.frames < stream.least:
                    raise bad(path, f"damaged: {sound.frames} samples in frames of {stream.least} or more")
                self.streams.append((sound, sound.frames if stream.samples is None else stream.samples))
        except DataError:
            self._opened.close()
            raise
        except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:
            self._opened.close()
            raise not_audio(path) from error
        rates = sorted({sound.samplerate for sound, _ in self.streams})
        if len(rates) > 1:
            self._opened.close()
            raise bad(
                path, f"holds recordings at {rates[0]} and {rates[-1]} Hz, one behind the other",
                hint="split them into files of their own",
            )  # fmt: skip

    def _stream(self, given: Any) -> soundfile.SoundFile:
        with complaints([]) if self._container.mpeg else nullcontext():
            sound = self._opened.enter_context(soundfile.SoundFile(given))
        # soundfile seeks after every block of a seekable file: inexact in MP3, an error at the end of some FLAC.
        sound.seekable = lambda: False
        return sound

    @property
    def frames(self) -> int:
        """Samples per channel that the headers state; -1 if one states none."""
        stated = [frames for _, frames in self.streams]
        return -1 if any(frames < 0 or frames >= 1 << 62 for frames in stated) else sum(stated)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """The streams' samples: (at most ``size``, channels) float32.

        Raises:
            soundfile.SoundFileError: they cannot be decoded.
            ValueError: the decoder says that it could not decode all.
        """
        at = 0
        if self.frames > 0:
            size = min(size, self.frames + 1)
        for sound, _ in self.streams:
            while True:
                heard: list[str] = []
                with complaints(heard) if self._container.mpeg else nullcontext():
                    inside = at < self._container.incomplete
                    block = sound.read(min(size, _SHORT_BLOCK) if inside else size, dtype="float32", always_2d=True)
                if heard and not inside:
                    raise ValueError(heard[0])
                if not len(block):
                    break
                at += len(block)
                yield block

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()
