"""One export: of what, and how."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from samo.deploy.exporter import Exporter
from samo.deploy.parity import CheckItems
from samo.evaluation.decision import Decision
from samo.runs.run import Run
from samo.tasks import LabelSpace
from samo.training.setup import Setup

__all__ = ["ExportJob"]


@dataclass(frozen=True)
class ExportJob:
    """What is exported, and how."""

    run: Run
    setup: Setup
    model: nn.Module
    space: LabelSpace
    exporter: type[Exporter]
    format: str
    quantise: str
    prune: float
    items: CheckItems
    decisions: tuple[Decision, Decision]
    name: str
