"""Exports are quick here: the same network is traced once, and timed over three answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from samo.deploy import file_formats
from samo.deploy.onnx_file import write_onnx


@pytest.fixture(scope="session")
def traced() -> dict[bytes, Any]:
    """What tracing gave, by the network."""
    return {}


@pytest.fixture
def before(before: Path, traced: dict[bytes, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """As elsewhere; the same network is traced once, and timed over three answers.

    Tracing takes half of an export; test_export_models.py traces every kind of network.
    """
    export_program = torch.export.export

    def once(kind: str, network: nn.Module, trace: Callable[[], Any]) -> Any:
        known = hashlib.sha256(f"{kind} {network}".encode())
        for name, tensor in chain(network.named_parameters(), network.named_buffers()):
            known.update(name.encode() + tensor.detach().numpy().tobytes())
        if known.digest() not in traced:
            traced[known.digest()] = trace()
        return traced[known.digest()]

    def write(network: nn.Module, example: Any, path: Path, **how: Any) -> Any:
        outputs, content = once("onnx", network, lambda: (write_onnx(network, example, path, **how), path.read_bytes()))
        path.write_bytes(content)
        return outputs

    def program(network: nn.Module, example: Any, **how: Any) -> Any:
        return once("program", network, lambda: export_program(network, example, **how))

    monkeypatch.setattr(file_formats, "write_onnx", write)
    monkeypatch.setattr(torch.export, "export", program)
    monkeypatch.setattr("samo.deploy.parity._ROUNDS", 3)
    return before
