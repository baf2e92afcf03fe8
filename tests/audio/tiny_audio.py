"""A corpus, settings and a model so small that a training takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from samo.training.runtime import Runtime
from samo_audio.config import AudioConfig
from samo_audio.frontend import AudioFrontend

SR = 8000
LABELS = ("angry", "happy", "sad")
# Shorter than the window, just as long, and of two and three windows.
SECONDS = (0.2, 0.5, 0.9, 1.3)
CPU = Runtime(torch.device("cpu"), "float32", channels_last=False, threads=1)
SETTINGS: dict[str, Any] = {
    "sr": SR,
    "duration": 0.5,
    "n_mels": 32,
    "n_fft": 256,
    "hop_length": 64,
    "epochs": 1,
    "batch_size": 8,
}


def config(**values: Any) -> AudioConfig:
    """Small settings; ``values`` win."""
    narrow = {"width": 4} if values.get("model", "small-cnn") == "small-cnn" else {}
    return AudioConfig.build({**SETTINGS, **narrow, **values})


def sound(seconds: float, label: str = "sad", seed: int = 0, rate: int = SR) -> np.ndarray:
    """(seconds * rate,) float64: a buzz whose pitch belongs to the label, in noise."""
    time_s = np.arange(round(seconds * rate)) / rate
    buzz = np.sign(np.sin(2 * np.pi * (120 + 90 * LABELS.index(label) + 5 * seed) * time_s))
    return 0.1 * buzz + 0.02 * np.random.default_rng(seed).standard_normal(len(time_s))


def write(path: Path, samples: np.ndarray, rate: int = SR, subtype: str = "PCM_16") -> Path:
    """Write a file and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def corpus(root: Path) -> Path:
    """Write 24 clips of six speakers and the table that lists them; four speakers to train on."""
    lines = ["path,label,speaker,split"]
    for speaker in range(6):
        part = "train" if speaker < 4 else "val" if speaker == 4 else "test"
        for number, seconds in enumerate(SECONDS):
            label = LABELS[(speaker + number) % 3]
            name = f"clips/{speaker}-{number}.wav"
            write(root / name, sound(seconds, label, 10 * speaker + number))
            lines.append(f"{name},{label},s{speaker},{part}")
    (root / "table.csv").write_text("\n".join(lines))
    return root / "table.csv"


def frontend(table: Path, **values: Any) -> AudioFrontend:
    """Open the corpus a table lists; ``SAMO_CACHE`` must point at a place of the test's own."""
    given = config(dataset="table", data_root=str(table), split="table", **values)
    return AudioFrontend.open(given, lambda line: None)
