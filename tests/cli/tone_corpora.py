"""Corpora of short tones, and the command line run inside this process."""

from __future__ import annotations

import contextlib
import io
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from samo_cli.main import main
from samo_cli.render import TrainingView

SR = 8000
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
FEATURES = ["--n-mels", "32", "--sr", str(SR), "--duration", "0.5", "--n-fft", "256", "--hop-length", "64"]
SPLIT = ["--train-ratio", "0.5", "--val-ratio", "0.2"]
SMALL = [*FEATURES, *SPLIT, "--batch-size", "8", "--threads", "1", "--precision", "float32"]
TINY = [*SMALL, "--width", "4", "--epochs", "2"]


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that all of stdout is."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> str:
        """The one error line, the last on stderr."""
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1, self.err
        assert lines[-1] == errors[0], self.err
        assert "Traceback" not in self.err
        return errors[0]

    @property
    def stop(self) -> str:
        """The line of a training that was stopped, the last on stderr; that is no error."""
        assert "error: " not in self.err
        assert "Traceback" not in self.err
        line = self.err.splitlines()[-1]
        assert line.startswith("stopped: ")
        return line


def samo(*argv: object) -> Result:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    status: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in argv])
        except SystemExit as leave:
            status = leave.code
    assert isinstance(status, int)
    return Result(status, out.getvalue(), err.getvalue())


def done(*argv: object) -> Result:
    """Run a command that must succeed."""
    result = samo(*argv)
    assert result.status == 0, result.err
    return result


def refused(status: int, *argv: object) -> str:
    """Run a command that must leave with a status and one error line; returns the line."""
    result = samo(*argv)
    assert result.status == status, (result.status, result.err)
    assert result.out == ""
    return result.error


def tone(path: Path, hz: float, *, seconds: float = 0.5, sr: int = SR, level: float = 0.3, **how: Any) -> Path:
    """Write a tone in a little noise; the same path gives the same samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(f"{path.parent.name}/{path.name}".encode()))
    time = np.arange(round(seconds * sr)) / sr
    samples = level * np.sin(2 * np.pi * hz * time) + 0.02 * rng.standard_normal(time.size)
    soundfile.write(path, samples.astype(np.float32), sr, **how)
    return path


def pitch(label: int, speaker: int) -> float:
    """Classes lie far enough apart to be learned, speakers a little off each other."""
    return 150.0 * (label + 1) + 8.0 * speaker


def ravdess(root: Path, speakers: Iterable[int] = range(1, 7)) -> Path:
    """RAVDESS's folders and names: every speaker says one statement in all eight emotions."""
    for speaker in speakers:
        for label in range(8):
            name = f"03-01-{label + 1:02d}-01-{speaker % 2 + 1:02d}-01-{speaker:02d}.wav"
            tone(root / f"Actor_{speaker:02d}" / name, pitch(label, speaker))
    return root


def folder(root: Path, labels: Iterable[str] = ("angry", "happy", "sad"), speakers: int = 6) -> Path:
    """One folder a class, ``spk1`` to ``spk6`` in the names."""
    for row, label in enumerate(labels):
        for speaker in range(speakers):
            for take in range(2):
                tone(root / label / f"spk{speaker}_{take}.wav", pitch(row, speaker))
    return root


def table(root: Path, rows: Iterable[tuple[str, str, str]], header: str = "path,label,speaker") -> Path:
    """A CSV and a clip for each of its rows of path, label and speaker."""
    rows = list(rows)
    labels = sorted({label for _, label, _ in rows})
    for number, (path, label, _) in enumerate(rows):
        tone(root / path, pitch(labels.index(label), number % 5))
    csv = root / "clips.csv"
    csv.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return csv


def table_rows(labels: Iterable[str] = ("angry", "happy", "sad"), speakers: int = 6) -> list[tuple[str, str, str]]:
    """Path, label and speaker: every speaker once in every class."""
    return [(f"{label}_{s}.wav", label, f"speaker{s}") for label in labels for s in range(speakers)]


def read_json(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def stop_after(monkeypatch: pytest.MonkeyPatch, epochs: int, error: BaseException) -> None:
    """Raise once, at the end of an epoch."""
    real = TrainingView.on_epoch
    fired: list[int] = []

    def on_epoch(self: TrainingView, row: dict[str, Any], improved: bool) -> None:
        real(self, row, improved)
        if row["epoch"] == epochs and not fired:
            fired.append(epochs)
            raise error

    monkeypatch.setattr(TrainingView, "on_epoch", on_epoch)
