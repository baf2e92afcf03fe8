"""What a person reads of a model file that is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_onnx as tiny

import samo
from samo.errors import ModelFileError

WAVE = np.random.default_rng(0).standard_normal(3000).astype(np.float32)


def refusal(path: Path) -> str:
    """What is said of a file that is refused, without its name."""
    with pytest.raises(ModelFileError) as caught:
        samo.load(path, threads=1).predict(WAVE, sr=tiny.SR)
    assert "\n" not in caught.value.message
    assert str(path) in caught.value.message
    return caught.value.message.replace(str(path), "FILE")
