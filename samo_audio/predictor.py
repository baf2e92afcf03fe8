"""From files to labels with a trained run, exactly as the run was judged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from samo.errors import DataError
from samo.evaluation.calibration import apply_temperature
from samo.runs.calibrate import calibration_of
from samo.runs.run import Run
from samo.runs.train import load_run_model
from samo.tasks import LabelSpace
from samo.training.runtime import Runtime
from samo_audio.audio_io import info, is_audio, read, window_starts, windows
from samo_audio.batches import collate
from samo_audio.config import AudioConfig, FeatureSettings
from samo_audio.frontend import AudioFrontend

__all__ = ["TIMELINE_S", "AudioPredictor", "Prediction", "Stretch", "find_clips"]

# Longer recordings are streamed, so that hours of sound need no more memory than a minute.
STREAMED_S = 60.0
# A clip of a few windows is one utterance; a time line says something only about more.
TIMELINE_S = 10.0
# As samo_audio.audio_io judges a whole clip.
SILENT_PEAK = 1e-4
BATCH = 32


@dataclass(frozen=True)
class Stretch:
    """One window of a recording, in seconds, with its own probabilities by label."""

    start_s: float
    end_s: float
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Prediction:
    """What a model says about one file.

    Attributes:
        path: as given.
        label: the most probable class; empty when the file could not be read.
        probabilities: by label, sum 1; from the logits averaged over all windows, under the run's temperature.
        warnings: what a listener should know.
        timeline: the windows of a recording longer than ten seconds (or than was asked for), in order.
        error: why the file could not be read, or empty.
    """

    path: Path
    label: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    timeline: tuple[Stretch, ...] = ()
    error: str = ""


@dataclass
class _Pending:
    """A file whose windows are still on their way through the model."""

    path: Path
    cuts: Iterator[tuple[float, np.ndarray]]
    duration_s: float
    warnings: tuple[str, ...]
    starts: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    peak: float = 0.0
    error: str = ""
    exhausted: bool = False

    @property
    def complete(self) -> bool:
        return self.exhausted and len(self.logits) == len(self.starts)


class AudioPredictor:
    """Predicts files in batches of windows; decoding runs ahead in threads."""

    def __init__(
        self,
        model: nn.Module,
        space: LabelSpace,
        features: FeatureSettings,
        runtime: Runtime,
        temperatures: Mapping[str, float] | None = None,
    ) -> None:
        """``temperatures`` divide the logits of each task; 1 where none is given."""
        self.model = model.eval()
        self.space = space
        self.temperatures = temperatures or {}
        self.sr = features.sr
        self.window = features.window
        self.window_s = features.duration
        self.runtime = runtime

    @classmethod
    def from_run(cls, run: Run, runtime: Runtime) -> AudioPredictor:
        """The best epoch of a run, with the temperature it is judged with; 1 when none was fitted for it.

        Raises:
            ModelFileError: the run holds no usable model.
            RunError: its ``calibration.json`` is damaged.
        """
        model, space = load_run_model(run, AudioFrontend, runtime)
        stored = {name: value for name, value in run.settings.items() if name != "modality"}
        calibration = calibration_of(run)
        temperatures = calibration.temperature if calibration else None
        return cls(model, space, AudioConfig.build(stored).features, runtime, temperatures)

    def predict(self, paths: Iterable[Path], *, timeline_s: float = TIMELINE_S) -> Iterator[Prediction]:
        """Predict files in the order given; a file that cannot be read yields a prediction with an ``error``.

        Recordings longer than ``timeline_s`` seconds get a time line.
        """
        waiting: deque[_Pending] = deque()
        cuts: list[np.ndarray] = []
        owners: list[_Pending] = []
        for pending in self._decoded_ahead(paths):
            waiting.append(pending)
            for cut in self._take(pending):
                cuts.append(cut)
                owners.append(pending)
                if len(cuts) == BATCH:
                    self._run(cuts, owners)
                    cuts, owners = [], []
            while waiting and waiting[0].complete:
                yield self._finish(waiting.popleft(), timeline_s)
        self._run(cuts, owners)
        yield from (self._finish(pending, timeline_s) for pending in waiting)

    def _decoded_ahead(self, paths: Iterable[Path]) -> Iterator[_Pending]:
        remaining = iter(paths)
        with ThreadPoolExecutor(max_workers=max(2, self.runtime.threads)) as pool:
            ahead: deque[Future[_Pending]] = deque(pool.submit(self._open, path) for path in islice(remaining, 16))
            while ahead:
                ready = ahead.popleft().result()
                ahead.extend(pool.submit(self._open, path) for path in islice(remaining, 1))
                yield ready

    def _open(self, path: Path) -> _Pending:
        try:
            about = info(path)
            if about.duration_s > STREAMED_S:
                return _Pending(path, windows(path, self.sr, self.window_s), about.duration_s, about.warnings)
            clip = read(path, self.sr)
        except DataError as error:
            return _Pending(path, iter(()), 0.0, (), error=error.message)
        starts = window_starts(len(clip.waveform), self.window).tolist()
        cuts = [(start / self.sr, clip.waveform[start : start + self.window]) for start in starts]
        return _Pending(path, iter(cuts), len(clip.waveform) / self.sr, clip.warnings)

    def _take(self, pending: _Pending) -> Iterator[np.ndarray]:
        try:
            for start_s, cut in pending.cuts:
                pending.starts.append(start_s)
                pending.lengths.append(len(cut))
                pending.peak = max(pending.peak, float(np.abs(cut).max()))
                yield cut
        except DataError as error:
            pending.error = error.message
        pending.exhausted = True

    @torch.inference_mode()
    def _run(self, cuts: list[np.ndarray], owners: list[_Pending]) -> None:
        if not cuts:
            return
        rows = np.arange(len(cuts))
        batch = collate(cuts, np.zeros((len(cuts), 0), np.float32), rows, self.window).to(self.runtime.device)
        with self.runtime.autocast():
            logits = self.model(batch.inputs, batch.lengths).float().cpu().numpy()
        for owner, row in zip(owners, logits, strict=True):
            owner.logits.append(row)

    def _finish(self, pending: _Pending, timeline_s: float) -> Prediction:
        if pending.error:
            return Prediction(pending.path, error=pending.error)
        logits = np.stack(pending.logits)
        label, probabilities = self._named(logits.astype(np.float64).mean(axis=0))
        warnings = pending.warnings
        if pending.peak < SILENT_PEAK and "silent" not in warnings:
            warnings = (*warnings, "silent")
        timeline = self._timeline(pending, logits) if pending.duration_s > timeline_s else ()
        return Prediction(pending.path, label, probabilities, warnings, timeline)

    def _timeline(self, pending: _Pending, logits: np.ndarray) -> tuple[Stretch, ...]:
        return tuple(
            Stretch(round(start, 3), round(start + length / self.sr, 3), *self._named(row))
            for start, length, row in zip(pending.starts, pending.lengths, logits, strict=True)
        )

    def _named(self, logits: np.ndarray) -> tuple[str, dict[str, float]]:
        task = self.space.primary
        scaled = apply_temperature(logits[None], self.temperatures, self.space)
        row = self.space.probabilities(scaled)[0, self.space.slices[task.name]]
        return task.labels[int(row.argmax())], dict(zip(task.labels, map(float, row), strict=True))


def find_clips(given: Iterable[Path]) -> list[Path]:
    """Files as given, folders searched for audio at any depth.

    Raises:
        DataError: a path does not exist or cannot be looked at, or a folder holds no audio.
    """
    found: list[Path] = []
    for path in given:
        try:
            found += _clips_at(path)
        except OSError as error:
            raise DataError(f"{path} cannot be looked at: {error.strerror}") from error
    return found


def _clips_at(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"no such file or folder: {path}")
        return [path]
    inside = sorted(entry for entry in path.rglob("*") if is_audio(entry) and entry.is_file())
    if not inside:
        raise DataError(f"no audio files in {path}")
    return inside
