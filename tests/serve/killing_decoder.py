"""Decodes what it is told to: by dying, eating memory, sleeping, printing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np


def decode(path: str, sr: int, longest_s: float) -> SimpleNamespace:
    order = Path(path).read_bytes()
    if order == b"die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if order == b"eat":
        np.empty(700_000_000, np.uint8)
    if order == b"sleep":
        time.sleep(60)
    if order == b"print":
        os.write(1, b"printed by a library\n")
    n = int(longest_s * sr) + 100 if order == b"long" else 4
    names = [b"SAMO_API_KEY"] if order == b"secret" and "SAMO_API_KEY" in os.environ else []
    return SimpleNamespace(waveform=np.arange(n, dtype=np.float32), peak=3.0, rms_db=-1.0, warnings=map(str, names))
