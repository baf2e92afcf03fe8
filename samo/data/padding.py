"""Rows of unlike lengths as one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["packed", "padded", "parts_of"]


def padded(rows: Sequence[np.ndarray], width: int = 0, fill: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """(T_i,) rows of one type as (B, T) with ``fill`` behind each, and their (B,) int64 lengths.

    T is the longest of them, or ``width`` when that is more.
    """
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    filled = np.full((len(rows), max(width, int(lengths.max()))), fill, dtype=rows[0].dtype)
    for place, row in zip(filled, rows, strict=True):
        place[: len(row)] = row
    return filled, lengths


def packed(parts: Sequence[np.ndarray]) -> np.ndarray:
    """(P + T_1 + ... + T_P,): what P models read of one item, their lengths first, then one behind the other.

    All are of the parts' type; as float32, lengths are exact up to 2^24.
    :func:`parts_of` takes one apart, :func:`samo.runs.ensemble_model.unpacked` a batch of them.
    """
    return np.concatenate([np.array([len(part) for part in parts], dtype=parts[0].dtype), *parts])


def parts_of(row: np.ndarray, n: int) -> list[np.ndarray]:
    """The ``n`` parts that :func:`packed` made a row of, whatever stands behind them."""
    return np.split(row[n:], np.cumsum(row[:n].astype(np.int64)))[:n]
