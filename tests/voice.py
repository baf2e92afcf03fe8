"""A voice made of harmonics, for tests that need speech and no recording."""

from __future__ import annotations

import numpy as np


def voice(seconds: float, sr: int = 8000, level: float = 0.1) -> np.ndarray:
    """(seconds * sr,) float32: syllables, four a second, of a gliding pitch through two formants that move."""
    t = np.arange(round(seconds * sr)) / sr
    f0 = 120.0 * (1.0 + 0.25 * np.sin(2 * np.pi * 1.3 * t))
    first, second = 500.0 + 250.0 * np.sin(2 * np.pi * 2.1 * t), 1500.0 + 500.0 * np.sin(2 * np.pi * 1.7 * t)
    phase = 2 * np.pi * np.cumsum(f0) / sr
    found = np.zeros(len(t))
    for k in range(1, int(0.45 * sr / 150)):
        hz = k * f0
        gain = np.exp(-np.square((hz - first) / 150)) + 0.5 * np.exp(-np.square((hz - second) / 250)) + 0.02
        found += gain * np.sin(k * phase)
    found *= np.maximum(0.0, np.sin(2 * np.pi * 4 * t + 0.3)) ** 0.5
    return (level * found / np.sqrt(np.mean(found**2))).astype(np.float32)
