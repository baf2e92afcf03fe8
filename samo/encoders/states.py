"""What a frozen encoder says of every text, computed once and kept: then only the head is trained."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from samo.files import cache_root, replacing

if TYPE_CHECKING:
    from samo_text.frontend import TextFrontend

__all__ = ["States", "encoder_states"]

# Above this the encoder is run again in every epoch: a full disk helps nobody.
MOST_BYTES = 8 << 30
_CACHE_VERSION = 2
_BLOCK = 1 << 24
_BATCH = 64


class States:
    """(T, W) float32 states of the tokens of every text, mapped from a file."""

    def __init__(self, path: Path, lengths: np.ndarray, width: int) -> None:
        """Map ``path``.

        Raises:
            ValueError: the file does not hold that many states.
        """
        total = int(lengths.sum())
        if path.stat().st_size != 4 * total * width:
            raise ValueError(f"{path} does not hold what its name says")
        self._flat = np.memmap(path, dtype="<f4", mode="r", shape=(total, width)).view(np.ndarray)
        self._lengths = lengths
        self._starts = np.cumsum(lengths) - lengths

    def row(self, row: int) -> np.ndarray:
        """(T, W) of one text; a read-only view."""
        start = self._starts[row]
        return self._flat[start : start + self._lengths[row]]


def encoder_states(model: Any, frontend: TextFrontend) -> States | None:
    """The states of all texts of a frontend under a frozen encoder, from the cache where they were computed before.

    In float32 and without dropout, one batch of similar lengths at a time. None when they would fill the disk.

    Args:
        model: a :class:`samo_text.models.TextModel` with ``states(ids, lengths)`` of width ``state_width``.
        frontend: whose texts.
    """
    lists, width = frontend.lists, int(model.state_width)
    n_bytes = 4 * int(lists.lengths.sum()) * width
    if n_bytes > MOST_BYTES:
        return None
    path = cache_root() / "states" / f"{_digest(model, frontend)}.f32"
    if path.is_file():
        try:
            return States(path, lists.lengths, width)
        except ValueError:
            path.unlink()
    with replacing(path) as temporary:
        with temporary.open("r+b") as reserved:
            # Writing to a mapped file on a full disk would end the process instead of raising an error.
            for start in range(0, n_bytes, _BLOCK):
                reserved.write(bytes(min(_BLOCK, n_bytes - start)))
        flat = np.memmap(temporary, dtype="<f4", mode="r+", shape=(int(lists.lengths.sum()), width))
        _fill(flat, model, frontend)
        flat.flush()
    return States(path, lists.lengths, width)


@torch.inference_mode()
def _fill(flat: np.ndarray, model: Any, frontend: TextFrontend) -> None:
    lists = frontend.lists
    starts = np.cumsum(lists.lengths) - lists.lengths
    order = np.argsort(lists.lengths, kind="stable")
    training, device = model.training, next(model.parameters()).device
    model.eval()
    for begin in range(0, len(order), _BATCH):
        rows = order[begin : begin + _BATCH]
        (batch,) = frontend.eval_batches(rows, len(rows))
        batch = batch.to(device)
        states = model.states(batch.inputs, batch.lengths).float().cpu().numpy()
        for row, said in zip(rows, states, strict=True):
            length = lists.lengths[row]
            flat[starts[row] : starts[row] + length] = said[:length]
    model.train(training)


def _digest(model: Any, frontend: TextFrontend) -> str:
    """Of the encoder's weights, which states of it are used, and every text's tokens."""
    # Equal weights may be asked with other heads or another activation.
    network = model.body.network.config.to_json_string()
    asked = [_CACHE_VERSION, frontend.tokens.digest, network, version("transformers"), version("torch")]
    known = hashlib.sha256(json.dumps(asked).encode())
    for name, tensor in model.state_dict().items():
        if name.startswith("body."):
            known.update(name.encode())
            known.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for row in range(len(frontend.lists)):
        known.update(frontend.lists.row(row).tobytes() + b"|")
    known.update(repr(model.pooling.sequences).encode())
    return known.hexdigest()
