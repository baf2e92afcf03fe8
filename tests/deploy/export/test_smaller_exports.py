"""Files in 8 bits and of pruned networks: what is in them, and when they are kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_exports import exported, left_in

import samo
from samo.deploy import export as module
from samo.deploy.export import export
from samo.errors import ExportError, SettingsError
from samo.prediction.exported import ExportedModel
from samo.runs.reporter import PlainReporter


def test_a_text_model_has_no_channels_to_prune(before: Path) -> None:
    with pytest.raises(SettingsError, match="a text model has none"):
        exported(before, "text", prune=0.5)


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


def test_int8_keeps_features_and_last_layer_in_float32(before: Path, artifacts: Path) -> None:
    plain, made = exported(before), exported(before, quantize="int8", force=True)
    assert made.path.name == "speech-int8.onnx"
    graph = onnx.load(str(made.path)).graph
    convolution = next(k for k, node in enumerate(graph.node) if node.op_type == "Conv")
    makers = {out: node for node in graph.node for out in node.output}
    # Every convolution reads numbers of 8 bits, the last layer reads none.
    for node in graph.node:
        if node.op_type == "Conv":
            assert {makers[name].op_type for name in node.input[:2]} == {"DequantizeLinear"}
        if node.op_type == "Gemm":
            assert makers.get(node.input[1]) is None
    assert convolution
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert len(products) == kinds(plain.path).count("MatMul") == 5
    assert all("Dequantize" not in makers[name].op_type for node in products for name in node.input if name in makers)
    assert "QuantizeLinear" not in kinds(plain.path)
    opened = ExportedModel.open(made.path)
    assert (opened.metadata.quantised, opened.facts.name) == ("int8", "speech-int8")
    assert opened.facts.scores[0].startswith("validation macro-F1")
    assert "of this file" in opened.facts.scores[0]
    assert made.facts["exact"]["largest_difference"] < 1e-5 < made.facts["parity"]["largest_difference"]
    assert set(made.facts["latency_ms"]["1"]) == {"torch", "onnx", "int8"}


def test_int8_that_costs_more_than_it_gains_is_kept_only_by_force(
    before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four convolutions of four channels: scales and zero points outweigh what 8 bits save.
    monkeypatch.setattr(module, "latencies", lambda networks, batch: dict.fromkeys(networks, 1.0))
    with pytest.raises(ExportError, match=r"it is 1\.00 times as fast and 0\.\d\d times smaller") as caught:
        exported(before, quantize="int8")
    assert caught.value.hint == "`force` keeps it all the same"
    assert left_in(artifacts) == []
    made = exported(before, quantize="int8", force=True)
    assert len(made.facts["forced"]) == 1
    assert "**Forced**: it is 1.00 times as fast" in ExportedModel.open(made.path).metadata.card
    monkeypatch.setattr(
        module, "latencies", lambda networks, batch: {name: 1.0 if name == "int8" else 1.6 for name in networks}
    )
    assert exported(before, quantize="int8", overwrite=True).facts["forced"] == []


def test_speed_must_be_gained_at_both_batch_sizes(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_only(networks: Any, batch: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
        return {name: 0.5 if name == "int8" and len(batch[0]) == 1 else 1.0 for name in networks}

    monkeypatch.setattr(module, "latencies", one_only)
    with pytest.raises(ExportError, match=r"it is 1\.00 times as fast"):
        exported(before, quantize="int8")


def test_dynamic_int8_of_a_text_model(before: Path) -> None:
    made = exported(before, "text", quantize="int8", force=True)
    tensors = onnx.load(str(made.path)).graph.initializer
    assert [tensor.name for tensor in tensors if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.UINT8]
    assert samo.load(made.path, threads=1).predict("i am happy").answers.keys() == {
        task.name for task in ExportedModel.open(made.path).space.tasks
    }


def test_pruning_takes_channels_and_trains_for_the_epochs_asked_for(
    before: Path, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = export(
        "speech", prune=0.5, prune_epochs=2, force=True, data_root=before / "clips", threads=1,
        reporter=PlainReporter(),
    )  # fmt: skip
    assert made.path.name == "speech-pruned50.onnx"
    assert re.findall(r"^epoch (\d)/2", capsys.readouterr().err, re.MULTILINE) == ["1", "2"]
    weights = [
        tuple(tensor.dims)[:2]
        for node in onnx.load(str(made.path)).graph.node
        if node.op_type == "Conv"
        for tensor in onnx.load(str(made.path)).graph.initializer
        if tensor.name == node.input[1]
    ]
    assert weights == [(2, 1), (4, 2), (8, 4), (16, 8)]
    facts = made.facts
    assert facts["pruned"] == 0.5
    # 9 (4 + 4 8 + 8 16 + 16 32) weights, twice 60 of batch norms, 32 3 + 3 of the head; and half as wide.
    assert facts["parameters"] == {
        "before": 9 * (4 + 32 + 128 + 512) + 120 + 99,
        "after": 9 * (2 + 8 + 32 + 128) + 60 + 51,
    }
    assert facts["exact"]["largest_difference"] < 1e-5
    assert facts["parity"]["largest_difference"] > 1e-3
    opened = ExportedModel.open(made.path)
    assert (opened.metadata.pruned, opened.facts.name) == (0.5, "speech-pruned50")
    # Its temperature is its own.
    assert opened.decision.calibration != samo.load("speech", threads=1).decision.calibration
