"""``threads`` reaches torch from wherever a trained run is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import samo
from samo_cli.main import main


def command(*argv: str) -> None:
    with pytest.raises(SystemExit) as left:
        main([*argv, "--threads", "3"])
    assert left.value.code == 0


@pytest.fixture
def thread_counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What torch is told; drawing takes seconds, and test_report sees to it."""
    numbers: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    monkeypatch.setattr("samo.runs.run_report.save_figures", lambda *_: [])
    return numbers


ASKING: dict[str, Callable[[Path], object]] = {
    "samo.load": lambda before: samo.load("speech", threads=3),
    "samo.evaluate": lambda before: samo.evaluate("speech", data_root=before / "clips", threads=3),
    "samo evaluate": lambda before: command("evaluate", "speech", "--data-root", str(before / "clips")),
    "samo predict": lambda before: command("predict", "--run", "text", "--text", "fine"),
}


@pytest.mark.parametrize("way", ASKING)
def test_threads_reach_torch(before: Path, thread_counts: list[int], way: str) -> None:
    ASKING[way](before)
    assert thread_counts == [3]
