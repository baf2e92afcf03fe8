"""Data behind their seam and the machine they are worked on: the two that every training and judging needs."""

from __future__ import annotations

from dataclasses import dataclass

from samo.frontend import Frontend
from samo.training.runtime import Runtime

__all__ = ["Setup"]


@dataclass(frozen=True)
class Setup:
    """What is learned from or judged, and where.

    Attributes:
        frontend: items, batches and models of one modality.
        runtime: device, precision, threads, processes.
    """

    frontend: Frontend
    runtime: Runtime
