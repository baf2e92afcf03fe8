"""From recordings to labels with a trained run or an exported file, exactly as the run was evaluated."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from samo.data.padding import padded
from samo.errors import DataError, SettingsError
from samo.prediction import Decoded, ModelPredictor, Prediction, PredictionList, TrainedModel, Window
from samo_audio.audio_io import (
    CONSTANT,
    NOTHING_HEARD,
    SILENT,
    SILENT_PEAK,
    Clip,
    LevelMeter,
    clip_of,
    info,
    is_constant,
    read,
    window_starts,
    windows,
)
from samo_audio.datasets.listing import find_clips
from samo_audio.several_readings import Part, SeveralReadings
from samo_audio.trimming import LONGEST_S, sounding
from samo_audio.views import viewed, views_of

if TYPE_CHECKING:
    from samo.prediction.exported import ExportedModel
    from samo.runs.run import Run
    from samo.training.runtime import Runtime
    from samo_audio.config import AudioConfig

__all__ = ["AudioPredictor"]

# Longer recordings are streamed, so that hours of sound need no more memory than a minute.
STREAMED_S = LONGEST_S
BATCH = 32
# Resampling rings for less than this at both ends of a recording.
_RINGING_S = 0.05


class Reading(Protocol):
    """How clips are read.

    Attributes:
        sr: sampling rate in Hz they are resampled to.
        trim_db: dB below the loudest 40 ms under which both ends are cut off; 0 = keep all.
        window: samples the model sees at once.
        tta_speed, tta_shift: how else every window is heard, see :mod:`samo_audio.views`.
    """

    @property
    def sr(self) -> int: ...
    @property
    def tta_speed(self) -> float: ...
    @property
    def tta_shift(self) -> float: ...
    @property
    def trim_db(self) -> float: ...
    @property
    def window(self) -> int: ...


Chunk = Mapping[int, np.ndarray]
"""(T,) float32 samples of a window, by rate in Hz."""


@dataclass
class _Pending:
    """A recording whose windows are still on their way through the model; ``path`` is None for an array.

    ``chunks`` are start in seconds and samples by rate. ``meter`` hears what is streamed, whose warnings come with its
    last window.
    """

    path: Path | None
    chunks: Iterator[tuple[float, Chunk]]
    duration_s: float
    warnings: tuple[str, ...]
    starts: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    heard: list[bool] = field(default_factory=list)
    peak: float = 0.0
    error: str = ""
    exhausted: bool = False
    meter: LevelMeter = field(default_factory=LevelMeter)
    n_views: int = 1

    @property
    def complete(self) -> bool:
        return self.exhausted and len(self.logits) == len(self.starts) * self.n_views


class AudioPredictor(ModelPredictor):
    """Predicts recordings in batches of windows; decoding runs ahead in threads."""

    takes = "paths of recordings, or waveforms as numpy or torch arrays of shape (time,) or (channels, time)"

    def __init__(self, model: TrainedModel, reading: Reading) -> None:
        """``reading``: rate, trimming and window the model was trained with; or how an ensemble's members read."""
        super().__init__(model)
        self.several = reading if isinstance(reading, SeveralReadings) else None
        self.sr = reading.sr
        self.trim_db = reading.trim_db
        self.window = reading.window
        self.window_s = reading.window / reading.sr
        self.views = views_of(reading)

    @classmethod
    def from_run(cls, run: Run, runtime: Runtime) -> AudioPredictor:
        """The best epoch of a run, with the temperature and thresholds it is judged with.

        Raises:
            SettingsError: it needs to know the speakers of several clips.
            ModelFileError: the run holds no usable model.
            RunError: its ``calibration.json`` or ``thresholds.json`` is damaged.
        """
        # An exported file needs no torch.
        from samo.runs.load import trained_model
        from samo.runs.run import ASSETS
        from samo_audio.frontend import AudioFrontend
        from samo_audio.speakers import ONE_BY_ONE, ONE_BY_ONE_HINT

        # As stored: settings are read once it is known that the run's code is here.
        if run.settings.get("normalisation") == "speaker":
            raise SettingsError(ONE_BY_ONE, hint=ONE_BY_ONE_HINT)
        several = SeveralReadings.load(run.path(ASSETS))
        return cls(trained_model(run, AudioFrontend, runtime), several or cast("AudioConfig", run.config).features)

    @classmethod
    def from_exported(cls, model: ExportedModel, threads: int = 0) -> AudioPredictor:
        """An exported file; imports no torch.

        Args:
            model: the file.
            threads: CPU threads; 0 = all cores.

        Raises:
            ModelFileError: it cannot be computed.
        """
        from samo.prediction.readings import AudioReadings
        from samo_audio.window_feeds import WindowFeeds

        if not isinstance(model.reading, AudioReadings):
            return cls(model.trained(threads), model.audio_reading)
        parts = tuple(Part(sr=part.sr, trim_db=part.trim_db) for part in model.reading.parts)
        several = SeveralReadings(parts, model.reading.window_s)
        return cls(model.trained(threads, WindowFeeds(model.reading.parts)), several)

    def spectrogram(self, waveform: Any, sr: int) -> np.ndarray | None:
        """What the network sees of the first window of a waveform; None of those that see no spectrogram, or several.

        Args:
            waveform: as for :meth:`stream`.
            sr: its sampling rate in Hz.

        Returns:
            (bands, frames) float32, the lowest band first; frames beyond the end of a short clip are 0.
        """
        if self.several:
            return None
        clip = self._waveform(waveform, sr, self.sr)
        _, chunk = next(self._chunks({self.sr: clip.waveform}))
        found = self.network.features(*padded([chunk[self.sr]], self.window))
        return None if found is None else found[0]

    def predict(self, inputs: Any, *, sr: int | None = None) -> Any:
        """As :meth:`samo.prediction.ModelPredictor.predict`; a folder stands for all recordings below it."""
        if isinstance(inputs, str | os.PathLike) and Path(inputs).is_dir():
            return PredictionList(self.stream(find_clips([Path(inputs)]), sr=sr))
        return super().predict(inputs, sr=sr)

    def is_one(self, inputs: Any) -> bool:
        """A path, an array of numbers, or a clip that was decoded before."""
        return isinstance(inputs, str | os.PathLike | Decoded) or _is_array(inputs)

    def stream(self, inputs: Iterable[Any], *, sr: int | None = None) -> Iterator[Prediction]:
        """Predict recordings in the order given; one that cannot be read yields a prediction with an ``error``.

        Args:
            inputs: paths; or waveforms, numpy or torch, (time,) or (channels, time): floats with 1 as full scale, or
                integers; or clips that were decoded before, at the model's rate.
            sr: sampling rate in Hz of the waveforms; any rate will do.

        Raises:
            TypeError: an input is neither a path nor a waveform, or a waveform comes without ``sr``.
            ValueError: a decoded clip has another rate than the model.
        """
        waiting: deque[_Pending] = deque()
        chunks: list[np.ndarray] = []
        owners: list[_Pending] = []
        for pending in self._decoded_ahead(inputs, sr):
            waiting.append(pending)
            pending.n_views = len(self.views)
            for chunk in self._take(pending):
                chunks.append(chunk)
                owners.append(pending)
                if len(chunks) == BATCH:
                    self._run(chunks, owners)
                    chunks, owners = [], []
            while waiting and waiting[0].complete:
                yield self._finish(waiting.popleft())
        self._run(chunks, owners)
        yield from (self._finish(pending) for pending in waiting)

    def _decoded_ahead(self, inputs: Iterable[Any], sr: int | None) -> Iterator[_Pending]:
        if isinstance(inputs, list) and all(isinstance(item, Decoded) for item in inputs):
            yield from (self._open(item, sr) for item in inputs)
            return
        remaining = iter(inputs)
        with ThreadPoolExecutor(max_workers=max(2, self.threads)) as pool:
            ahead: deque[Future[_Pending]] = deque(pool.submit(self._open, item, sr) for item in islice(remaining, 16))
            try:
                while ahead:
                    ready = ahead.popleft().result()
                    ahead.extend(pool.submit(self._open, item, sr) for item in islice(remaining, 1))
                    yield ready
            finally:
                # Who stops here, as Ctrl-C does, waits for no recording that nobody will hear.
                for future in ahead:
                    future.cancel()

    def _open(self, item: Any, sr: int | None) -> _Pending:
        if not self.is_one(item):
            raise self.refused(item)
        if isinstance(item, Decoded) and item.sr != self.sr:
            raise ValueError(f"this model takes clips decoded to {self.sr} Hz, not {item.sr} Hz")
        path = None if _is_array(item) or isinstance(item, Decoded) else Path(item)
        try:
            if isinstance(item, Decoded):
                sounds = self._at_rates(item.waveform, lambda rate: clip_of(item.waveform, item.sr, rate))
                return _Pending(None, self._chunks(sounds), item.duration_s, item.warnings)
            if path is None:
                clip = self._waveform(item, sr, self.sr)
                sounds = self._at_rates(clip.waveform, lambda rate: self._waveform(item, sr, rate))
            else:
                about = info(path)
                if about.duration_s > STREAMED_S:
                    meter = LevelMeter()
                    streamed = windows(path, self.sr, self.window_s, meter)
                    chunks = ((start_s, {self.sr: samples}) for start_s, samples in streamed)
                    return _Pending(path, chunks, about.duration_s, about.warnings, meter=meter)
                clip = read(path, self.sr)
                sounds = self._at_rates(clip.waveform, lambda rate: read(path, rate))
        except DataError as error:
            return _Pending(path, iter(()), 0.0, (), error=_line(error))
        return _Pending(path, self._chunks(sounds), len(clip.waveform) / self.sr, clip.warnings)

    def _at_rates(self, waveform: np.ndarray, read_at: Callable[[int], Clip]) -> dict[int, np.ndarray]:
        """(T,) samples of a recording by rate: those at the predictor's, and what else its members read."""
        others = [rate for rate in self.several.rates if rate != self.sr] if self.several else []
        return {self.sr: waveform, **{rate: read_at(rate).waveform for rate in others}}

    def _chunks(self, sounds: Mapping[int, np.ndarray]) -> Iterator[tuple[float, Chunk]]:
        """Start in seconds and samples by rate of each window of what sounds, of several readings of each piece."""
        if self.several:
            return ((start / self.sr, piece) for start, piece in self.several.pieces(sounds))
        waveform = sounds[self.sr]
        begin, end = sounding(waveform, self.sr, self.trim_db)
        starts = (begin + window_starts(end - begin, self.window)).tolist()
        return iter([(start / self.sr, {self.sr: waveform[start : min(start + self.window, end)]}) for start in starts])

    def _waveform(self, samples: Any, sr: int | None, rate: int) -> Clip:
        if sr is None:
            raise TypeError("a waveform needs its sampling rate: predict(waveform, sr=16000)")
        if _is_tensor(samples):
            samples = samples.detach().cpu()
            samples = (samples.float() if samples.is_floating_point() else samples).numpy()
        return clip_of(samples, sr, rate)

    def _take(self, pending: _Pending) -> Iterator[np.ndarray]:
        """Every window of a recording in every view, as the network is given it."""
        try:
            for start_s, given in pending.chunks:
                chunk = given[self.sr]
                pending.starts.append(start_s)
                pending.lengths.append(len(chunk))
                pending.peak = max(pending.peak, float(np.abs(chunk).max()))
                pending.heard.append(self.is_heard(chunk))
                yield from self._inputs(given)
        except DataError as error:
            pending.error = _line(error)
        pending.exhausted = True

    def _inputs(self, given: Chunk) -> list[np.ndarray]:
        """Rows for the network of one window: its views, or one for all members that read differently."""
        if self.several:
            return [self.several.row(given)]
        return [viewed(given[self.sr], view, self.window) for view in self.views]

    def _logits(self, inputs: list[np.ndarray]) -> np.ndarray:
        return self.network.logits(*padded(inputs, 0 if self.several else self.window))

    def window_logits(self, chunk: np.ndarray) -> np.ndarray:
        """(1, C) logits of (T,) samples at the model's rate, at most a window, over all its views."""
        return self._logits(self._inputs({self.sr: chunk})).mean(axis=0, keepdims=True)

    def is_heard(self, chunk: np.ndarray) -> bool:
        """Whether a window holds more than silence or a constant."""
        edge = round(_RINGING_S * self.sr)
        inside = chunk[edge:-edge] if len(chunk) > 4 * edge else chunk
        return float(np.abs(chunk).max()) >= SILENT_PEAK and not is_constant(inside)

    def _run(self, chunks: list[np.ndarray], owners: list[_Pending]) -> None:
        if not chunks:
            return
        for owner, row in zip(owners, self._logits(chunks), strict=True):
            owner.logits.append(row)

    def _finish(self, pending: _Pending) -> Prediction:
        if pending.error:
            return Prediction(path=pending.path, error=pending.error)
        logits = np.stack(pending.logits).reshape(len(pending.starts), len(self.views), -1).mean(axis=1)
        warnings = pending.warnings
        # What is streamed is not looked at as a whole.
        if not any(pending.heard) and not NOTHING_HEARD & set(warnings):
            warnings = (*warnings, SILENT if pending.peak < SILENT_PEAK else CONSTANT)
        warnings = (*warnings, *pending.meter.warnings)
        usable = np.array([not NOTHING_HEARD & set(warnings)])
        (answers,) = self.answers(logits.astype(np.float64).mean(axis=0, keepdims=True), usable)
        timeline = self._timeline(pending, logits) if pending.duration_s > self.timeline_s else ()
        return Prediction(answers, path=pending.path, warnings=warnings, timeline=timeline)

    def _timeline(self, pending: _Pending, logits: np.ndarray) -> tuple[Window, ...]:
        return tuple(
            Window(round(start, 3), round(start + length / self.sr, 3), answers)
            for start, length, answers in zip(
                pending.starts, pending.lengths, self.answers(logits, np.array(pending.heard)), strict=True
            )
        )


def _line(error: DataError) -> str:
    return error.message + (f" (hint: {error.hint})" if error.hint else "")


def _is_array(given: Any) -> bool:
    """Whether it is an array of numbers; one of paths is several inputs."""
    return _is_tensor(given) or (isinstance(given, np.ndarray) and given.dtype.kind not in "OUS")


def _is_tensor(given: Any) -> bool:
    """Whether it is a torch tensor; whoever has one has imported torch."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(given, torch.Tensor)
