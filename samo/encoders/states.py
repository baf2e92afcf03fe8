"""What a frozen encoder makes of every item, computed once and kept: then only the head is trained.

Where the pooling allows it, three numbers a unit and layer are kept (mean, sd and maximum over the item) instead of the
states themselves: on the 1,440 clips of RAVDESS 62 MB of Whisper base instead of 4 GB. Every head on all layers, and
every pooling of these parts, finds them; so does a head that takes no steps (``head=logreg`` or kernel) on any choice
of layers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samo.data.batch import Batch
from samo.encoders.pooling import ALL, STATISTICS
from samo.files import alone, cache_root, caching

__all__ = ["States", "collate_states", "encoder_states", "size_of_states"]

# Above this the encoder is run again in every epoch: a full disk helps nobody.
MOST_BYTES = 8 << 30
_CACHE_VERSION = 2
_BLOCK = 1 << 24
_BATCH = 64


class States:
    """(T, W) states of every item, mapped from a file; or (3, L, H) statistics of them."""

    def __init__(
        self,
        path: Path,
        lengths: np.ndarray,
        width: int,
        *,
        dtype: str = "<f4",
        shape: tuple[int, int, int] | None = None,
        n_behind: int = 0,
    ) -> None:
        """Map ``path``.

        Args:
            path: of the file.
            lengths: (N,) states of each item.
            width: W.
            dtype: of the numbers.
            shape: (3, L, H) where each item has statistics: one line of 3 * L * H = W numbers.
            n_behind: bytes behind the states.

        Raises:
            ValueError: the file does not hold that many states.
        """
        total = int(lengths.sum())
        if path.stat().st_size != np.dtype(dtype).itemsize * total * width + n_behind:
            raise ValueError(f"{path} does not hold what its name says")
        self._flat = np.memmap(path, dtype=dtype, mode="r", shape=(total, width)).view(np.ndarray)
        self.lengths = lengths
        self._starts = np.cumsum(lengths) - lengths
        self._shape = shape

    def row(self, row: int) -> np.ndarray:
        """(T, W) states of one item, or (3, L, H) statistics, as float32; where it can be a read-only view."""
        start = self._starts[row]
        found = self._flat[start : start + self.lengths[row]].astype(np.float32, copy=False)
        return found if self._shape is None else found.reshape(self._shape)


def collate_states(kept: Sequence[np.ndarray], width: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """What :meth:`States.row` gives of several items, as inputs of a model, and how long each is.

    Args:
        kept: (T_i, W) states or (3, L, H) statistics.
        width: states are padded to so many, or to the longest of them when that is more.
    """
    lengths = torch.tensor([len(row) for row in kept])
    if kept[0].ndim == 3:
        return torch.from_numpy(np.stack(kept)), lengths
    padded = np.zeros((len(kept), max(width, int(lengths.max())), kept[0].shape[1]), dtype=np.float32)
    for place, row in zip(padded, kept, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(padded), lengths


@dataclass(frozen=True)
class _Layout:
    """How states lie in a file: (sum of lengths, width) numbers of a type; ``shape`` as :class:`States` has it."""

    lengths: np.ndarray
    width: int
    dtype: np.dtype[Any]
    shape: tuple[int, int, int] | None

    @classmethod
    def of(cls, model: Any, lengths: np.ndarray) -> _Layout:
        width = int(model.state_width)
        if model.pooling.takes_statistics:
            shape = (len(STATISTICS), model.pooling.n_layers, width // model.pooling.n_layers)
            return cls(np.ones_like(lengths), len(STATISTICS) * width, np.dtype("<f4"), shape)
        return cls(lengths, width, np.dtype("<f2" if ALL in model.pooling.sequences else "<f4"), None)

    @property
    def n_bytes(self) -> int:
        return self.dtype.itemsize * int(self.lengths.sum()) * self.width

    def mapped(self, path: Path, n_behind: int = 0) -> States:
        return States(path, self.lengths, self.width, dtype=self.dtype.str, shape=self.shape, n_behind=n_behind)

    def writable(self, path: Path) -> np.memmap[Any, np.dtype[Any]]:
        return np.memmap(path, dtype=self.dtype, mode="r+", shape=(int(self.lengths.sum()), self.width))


def size_of_states(model: Any, lengths: np.ndarray) -> int:
    """How many bytes :func:`encoder_states` keeps of items with so many states."""
    return _Layout.of(model, lengths).n_bytes


def encoder_states(
    model: Any,
    *,
    lengths: np.ndarray,
    batch_of: Callable[[np.ndarray], Batch],
    digest: str,
    contents: Iterable[bytes],
    batch_size: int = _BATCH,
    compute: bool = True,
    on_compute: Callable[[int], None] | None = None,
    rows: np.ndarray | None = None,
    beside: int = 0,
    beside_for: Mapping[tuple[str, ...], int] | None = None,
    notify: Callable[[str], None] | None = None,
) -> States | None:
    """The states of all items under a frozen encoder, from the cache where they were computed before.

    In float32 and without dropout, one batch of similar lengths at a time. Those of all layers are kept as float16,
    unless statistics are enough. None when they would fill the disk.

    Args:
        model: its parameters ``body.*`` make the states; ``states(inputs, lengths)`` gives (B, T, W) of width
            ``state_width``, ``pooling.sequences`` says which layers are among them, and ``body.network.config`` is a
            configuration of ``transformers``. Where ``pooling.takes_statistics``, ``statistics(inputs, lengths)``
            gives (B, 3, L, H).
        lengths: (N,) states of each item.
        batch_of: inputs and lengths of these rows, in one batch.
        digest: of everything that made the model's inputs of the items.
        contents: what each item is, in the order of the rows.
        batch_size: rows that go through the encoder at once.
        compute: whether to make them where they are not kept; else None.
        on_compute: called before some are made, with the number of items.
        rows: of which items they are needed; None: of all. Of the others nothing may be asked for, until another call
            adds them to the same file.
        beside: bytes of other states that are kept together with these or not at all, see :func:`size_of_states`.
        beside_for: how many of those fall away without all of these settings, names in backquotes.
        notify: takes the line that says why they are not kept, where they would fill the disk.
    """
    layout = _Layout.of(model, lengths)
    if layout.n_bytes + beside > MOST_BYTES:
        if compute and notify:
            notify(_about_too_many(model, lengths, layout.n_bytes, beside, beside_for or {}))
        return None
    kind = "statistics" if layout.shape else f"f{8 * layout.dtype.itemsize}"
    path = cache_root() / "states" / f"{_key(model, digest, contents)}.{kind}"

    def found() -> States | None:
        if path.is_file():
            try:
                return layout.mapped(path)
            except ValueError:
                path.unlink()
        return None

    def fill(file: Path, missing: np.ndarray) -> None:
        flat = layout.writable(file)
        _fill(flat, model, layout.lengths, batch_of, batch_size, missing)
        flat.flush()

    if (known := found()) or not compute:
        return known
    with alone(path):
        # Cells of a grid that begin together need the same states: the first makes them.
        if known := found():
            return known
        if rows is not None:
            return _some(path.with_name(f"{path.name}.some"), layout, np.unique(rows), fill, on_compute)
        if on_compute:
            on_compute(len(lengths))
        with caching(path) as temporary:
            _reserve(temporary, layout.n_bytes)
            fill(temporary, np.arange(len(lengths)))
        return layout.mapped(path)


def _some(
    path: Path,
    layout: _Layout,
    rows: np.ndarray,
    fill: Callable[[Path, np.ndarray], None],
    on_compute: Callable[[int], None] | None,
) -> States:
    """States of some items in a file with room for all; behind them stands a byte for each item that is in."""
    n_items = len(layout.lengths)
    if not path.is_file() or path.stat().st_size != layout.n_bytes + n_items:
        with caching(path) as temporary:
            _reserve(temporary, layout.n_bytes + n_items)
    is_in = np.fromfile(path, dtype=np.uint8, count=n_items, offset=layout.n_bytes)
    missing = rows[is_in[rows] == 0]
    if len(missing):
        if on_compute:
            on_compute(len(missing))
        fill(path, missing)
        is_in[missing] = 1
        with path.open("r+b") as file:
            file.seek(layout.n_bytes)
            file.write(is_in.tobytes())
    return layout.mapped(path, n_items)


def _reserve(path: Path, n_bytes: int) -> None:
    """Writing to a mapped file on a full disk would end the process instead of raising an error."""
    with path.open("r+b") as reserved:
        for start in range(0, n_bytes, _BLOCK):
            reserved.write(bytes(min(_BLOCK, n_bytes - start)))


def _about_too_many(
    model: Any, lengths: np.ndarray, n_bytes: int, beside: int, beside_for: Mapping[tuple[str, ...], int]
) -> str:
    """Why states of these lengths are not kept, and under which settings they would be."""
    parts = [f"{size / 1e9:,.1f} GB of it for {' with '.join(names)}" for names, size in beside_for.items()]
    line = (
        f"the encoder's states would take {(n_bytes + beside) / 1e9:,.1f} GB, {''.join(f'{part}, ' for part in parts)}"
        f"and at most {MOST_BYTES / 1e9:,.1f} GB are kept: the encoder runs again in every epoch"
    )
    fitting = [f"without {' and '.join(names)}" for names in _enough_without(n_bytes + beside, beside_for)]
    if smaller := _smaller(model, lengths, n_bytes, beside):
        fitting.insert(0, f"of {' or '.join(smaller)}")
    return line + (f"; those {' or '.join(fitting)} are kept" if fitting else "")


def _enough_without(n_bytes: int, beside_for: Mapping[tuple[str, ...], int]) -> list[tuple[str, ...]]:
    """The fewest settings without which states fit: one, or else two, or else three."""
    names = list(dict.fromkeys(name for names in beside_for for name in names))
    for n in range(1, len(names) + 1):
        groups = [
            group
            for group in combinations(names, n)
            if n_bytes - sum(size for own, size in beside_for.items() if set(own) <= set(group)) <= MOST_BYTES
        ]
        if groups:
            return groups
    return []


def _smaller(model: Any, lengths: np.ndarray, n_bytes: int, beside: int) -> list[str]:
    """Poolings and layers whose states fit."""
    if model.pooling.takes_statistics:
        return []
    all_layers = ALL in model.pooling.sequences
    mean_sd = "`pooling=mean-sd`" + ("" if all_layers else " with `layers=all`")
    mean_sd += " without `state_mask`" if model.pooling.mask_share else ""
    # In float32. Of short texts statistics of all layers are more than the states of the last.
    sizes = {mean_sd: 4 * len(STATISTICS) * model.body.n_states * model.body.width * len(lengths)}
    if all_layers:
        sizes["`layers=last`"] = 4 * model.body.width * int(lengths.sum())
    # What is kept beside them shrinks with them.
    return [name for name, size in sizes.items() if size * (1 + beside / n_bytes) <= MOST_BYTES]


@torch.inference_mode()
def _fill(
    flat: np.ndarray,
    model: Any,
    lengths: np.ndarray,
    batch_of: Callable[[np.ndarray], Batch],
    batch_size: int,
    wanted: np.ndarray,
) -> None:
    starts = np.cumsum(lengths) - lengths
    order = wanted[np.argsort(lengths[wanted], kind="stable")]
    limits = np.finfo(flat.dtype)
    training, device = model.training, next(model.parameters()).device
    model.eval()
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        batch = batch_of(rows).to(device)
        if model.pooling.takes_statistics:
            states = model.statistics(batch.inputs, batch.lengths).flatten(1)[:, None]
        else:
            states = model.states(batch.inputs, batch.lengths)
        padded = states.float().clamp(float(limits.min), float(limits.max)).cpu().numpy()
        for row, own in zip(rows, padded, strict=True):
            flat[starts[row] : starts[row] + lengths[row]] = own[: lengths[row]]
    model.train(training)


def _key(model: Any, digest: str, contents: Iterable[bytes]) -> str:
    """Of the encoder's weights, which states of it are used, and what every item is."""
    # Equal weights may belong to other heads or another activation.
    config = copy(model.body.network.config)
    # The type its file has: the states are made in float32 whatever it is, and a run keeps weights of float32.
    config.dtype = torch.float32
    network = config.to_json_string()
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
