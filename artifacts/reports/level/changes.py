"""Changes of a recording that say nothing about emotion: level, silence, noise, trimming."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from samo_audio.trimming import sounding

__all__ = ["changes"]

Change = Callable[[np.ndarray], np.ndarray]


def changes(sr: int) -> dict[str, Change]:
    """By name; the first leaves a waveform as it is. Noise is drawn anew, from one seed, at each call of this."""
    rng = np.random.default_rng(0)

    def gain(db: float) -> Change:
        return lambda wave: (wave * 10.0 ** (db / 20.0)).astype(np.float32)

    def noise(db: float) -> Change:
        return lambda wave: (wave + 10.0 ** (db / 20.0) * rng.standard_normal(len(wave))).astype(np.float32)

    def trimmed(wave: np.ndarray) -> np.ndarray:
        begin, end = sounding(wave, sr, 40.0)
        return wave[begin:end]

    return {
        "as recorded": lambda wave: wave,
        **{f"{db:+d} dB": gain(db) for db in (-20, -10, -6, 6, 10, 20)},
        "0.5 s of silence behind": lambda wave: np.pad(wave, (0, sr // 2)),
        "white noise at -60 dB": noise(-60.0),
        "white noise at -70 dB": noise(-70.0),
        "trimmed at 40 dB": trimmed,
    }
