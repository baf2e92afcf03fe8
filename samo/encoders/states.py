"""What a frozen encoder makes of every item, computed once and kept: then only the head is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samo.data.batch import Batch
from samo.files import cache_root, caching

__all__ = ["States", "encoder_states"]

# Above this the encoder is run again in every epoch: a full disk helps nobody.
MOST_BYTES = 8 << 30
_CACHE_VERSION = 2
_BLOCK = 1 << 24
_BATCH = 64


class States:
    """(T, W) float32 states of every item, mapped from a file."""

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
        """(T, W) of one item; a read-only view."""
        start = self._starts[row]
        return self._flat[start : start + self._lengths[row]]


def encoder_states(
    model: Any,
    *,
    lengths: np.ndarray,
    batch_of: Callable[[np.ndarray], Batch],
    digest: str,
    contents: Iterable[bytes],
) -> States | None:
    """The states of all items under a frozen encoder, from the cache where they were computed before.

    In float32 and without dropout, one batch of similar lengths at a time. None when they would fill the disk.

    Args:
        model: its parameters ``body.*`` make the states; ``states(inputs, lengths)`` gives (B, T, W) of width
            ``state_width``, ``pooling.sequences`` says which layers are among them, and ``body.network.config`` is a
            configuration of ``transformers``.
        lengths: (N,) states of each item.
        batch_of: inputs and lengths of these rows, in one batch.
        digest: of everything that made the model's inputs of the items.
        contents: what each item is, in the order of the rows.
    """
    width = int(model.state_width)
    n_bytes = 4 * int(lengths.sum()) * width
    if n_bytes > MOST_BYTES:
        return None
    path = cache_root() / "states" / f"{_key(model, digest, contents)}.f32"
    if path.is_file():
        try:
            return States(path, lengths, width)
        except ValueError:
            path.unlink()
    with caching(path) as temporary:
        with temporary.open("r+b") as reserved:
            # Writing to a mapped file on a full disk would end the process instead of raising an error.
            for start in range(0, n_bytes, _BLOCK):
                reserved.write(bytes(min(_BLOCK, n_bytes - start)))
        flat = np.memmap(temporary, dtype="<f4", mode="r+", shape=(int(lengths.sum()), width))
        _fill(flat, model, lengths, batch_of)
        flat.flush()
    return States(path, lengths, width)


@torch.inference_mode()
def _fill(flat: np.ndarray, model: Any, lengths: np.ndarray, batch_of: Callable[[np.ndarray], Batch]) -> None:
    starts = np.cumsum(lengths) - lengths
    order = np.argsort(lengths, kind="stable")
    training, device = model.training, next(model.parameters()).device
    model.eval()
    for begin in range(0, len(order), _BATCH):
        rows = order[begin : begin + _BATCH]
        batch = batch_of(rows).to(device)
        states = model.states(batch.inputs, batch.lengths).float().cpu().numpy()
        for row, padded in zip(rows, states, strict=True):
            flat[starts[row] : starts[row] + lengths[row]] = padded[: lengths[row]]
    model.train(training)


def _key(model: Any, digest: str, contents: Iterable[bytes]) -> str:
    """Of the encoder's weights, which states of it are used, and what every item is."""
    # Equal weights may belong to other heads or another activation.
    network = model.body.network.config.to_json_string()
    made_by = [_CACHE_VERSION, digest, network, version("transformers"), version("torch")]
    known = hashlib.sha256(json.dumps(made_by).encode())
    for name, tensor in model.state_dict().items():
        if name.startswith("body."):
            known.update(name.encode())
            known.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for content in contents:
        known.update(content + b"|")
    known.update(repr(model.pooling.sequences).encode())
    return known.hexdigest()
