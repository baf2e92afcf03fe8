"""Exported files of a handful of numbers, written by hand, so that their answers can be worked out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SR, WINDOW = 8000, 4000
LABELS = ("calm", "happy", "sad")
SPACE = [{"name": "emotion", "labels": list(LABELS), "multi_label": False}]
WEIGHTS = np.array([[4.0, -2.0, 1.0]], np.float32)
BIAS = np.array([0.5, 0.0, -0.25], np.float32)
FACTS = { "licence": "CC0-1.0",
    "name": "tiny", "dataset": "demo", "synthetic": True, "leaky": False, "network": "small-cnn",
    "trained": "2026-11-01", "scores": ["test macro-F1 0.500 over 8 items"], "code": [],
}  # fmt: skip
CALIBRATION = {"schema": 1, "temperature": {"emotion": 2.0}, "fitted_on": "val", "n": {"emotion": 9}, "epoch": 3}


def metadata(modality: str = "audio", **changes: Any) -> dict[str, Any]:
    """What a file says of itself; ``changes`` replace keys."""
    reading: dict[str, Any] = {"sr": SR, "window": WINDOW, "trim_db": 0.0}
    if modality == "text":
        reading = {"max_tokens": 6, "pad_id": 0, "tokens": {"kind": "hash"}}
    decision = {"calibration": CALIBRATION, "thresholds": None, "abstention": None}
    return {
        "format": "samo-onnx-1", "samo": "0.1.0", "opset": 18, "modality": modality, "label_space": SPACE,
        "decision": decision, "facts": FACTS, "reading": reading, "card": "", "reference": {}, "quantised": "",
        "pruned": 0.0, **changes,
    }  # fmt: skip


def network(modality: str = "audio", features: bool = True) -> onnx.ModelProto:
    """``logits = m * WEIGHTS + BIAS``: m is the mean of the samples, or a tenth of the number of tokens.

    ``features`` of a waveform are its samples, as one band.
    """
    first, kind = ("waveform", TensorProto.FLOAT) if modality == "audio" else ("ids", TensorProto.INT64)
    value, tensor = helper.make_tensor_value_info, numpy_helper.from_array
    nodes = [
        helper.make_node("Cast", ["lengths"], ["n"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["n", "one"], ["count"]),
    ]
    if modality == "audio":
        nodes += [
            helper.make_node("ReduceSum", ["waveform", "one"], ["sum"], keepdims=1),
            helper.make_node("Div", ["sum", "count"], ["m"]),
        ]
    else:
        # The ids count for nothing, but are looked at.
        nodes += [
            helper.make_node("Cast", ["ids"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["floats", "one"], ["sum"], keepdims=1),
            helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
            helper.make_node("Mul", ["count", "tenth"], ["share"]),
            helper.make_node("Add", ["share", "nothing"], ["m"]),
        ]
    nodes.append(helper.make_node("Gemm", ["m", "weights", "bias"], ["logits"]))
    outputs = [value("logits", TensorProto.FLOAT, ["batch", len(LABELS)])]
    if features and modality == "audio":
        nodes.append(helper.make_node("Unsqueeze", ["waveform", "one"], ["features"]))
        outputs.append(value("features", TensorProto.FLOAT, ["batch", 1, "frames"]))
    constants = {
        "one": np.array([1], np.int64), "weights": WEIGHTS, "bias": BIAS, "tenth": np.array(0.1, np.float32),
        "zero": np.array(0.0, np.float32),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "tiny",
        [value(first, kind, ["batch", "length"]), value("lengths", TensorProto.INT64, ["batch"])],
        outputs,
        [tensor(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def several(modality: str = "audio") -> onnx.ModelProto:
    """As :func:`network` of two readings, m the mean of both: of speech of the windows of each clip, as they count."""
    first, kind = ("waveform", TensorProto.FLOAT) if modality == "audio" else ("ids", TensorProto.INT64)
    value, tensor = helper.make_tensor_value_info, numpy_helper.from_array
    nodes, inputs = [], []
    for k in (0, 1):
        rows = f"windows.{k}" if modality == "audio" else "batch"
        inputs += [value(f"{first}.{k}", kind, [rows, f"length.{k}"]), value(f"lengths.{k}", TensorProto.INT64, [rows])]
        nodes += [
            helper.make_node("Cast", [f"lengths.{k}"], [f"n.{k}"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"n.{k}", "one"], [f"count.{k}"]),
        ]
        if modality == "audio":
            inputs.append(value(f"shares.{k}", TensorProto.FLOAT, ["batch", rows]))
            nodes += [
                helper.make_node("ReduceSum", [f"waveform.{k}", "one"], [f"sum.{k}"], keepdims=1),
                helper.make_node("Div", [f"sum.{k}", f"count.{k}"], [f"mean.{k}"]),
                helper.make_node("MatMul", [f"shares.{k}", f"mean.{k}"], [f"m.{k}"]),
            ]
        else:
            nodes.append(helper.make_node("Mul", [f"count.{k}", "tenth"], [f"m.{k}"]))
    nodes += [
        helper.make_node("Add", ["m.0", "m.1"], ["both"]), helper.make_node("Mul", ["both", "half"], ["m"]),
        helper.make_node("Gemm", ["m", "weights", "bias"], ["logits"]),
    ]  # fmt: skip
    constants = {
        "one": np.array([1], np.int64), "weights": WEIGHTS, "bias": BIAS, "tenth": np.array(0.1, np.float32),
        "half": np.array(0.5, np.float32),
    }  # fmt: skip
    outputs = [value("logits", TensorProto.FLOAT, ["batch", len(LABELS)])]
    held = [tensor(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def write(
    path: Path,
    modality: str = "audio",
    *,
    change: Callable[[onnx.ModelProto], object] = lambda model: None,
    text: str | None = None,
    features: bool = True,
    readings: bool = False,
    **changes: Any,
) -> Path:
    """A whole file; ``change`` is done to the model, ``text`` stands in place of the metadata's JSON.

    ``readings``: it is that of :func:`several`.
    """
    model = several(modality) if readings else network(modality, features)
    changes = ({"format": "samo-onnx-2"} if readings else {}) | changes
    known = json.dumps(metadata(modality, **changes)) if text is None else text
    model.metadata_props.append(onnx.StringStringEntryProto(key="samo", value=known))
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def shares(m: float, temperature: float = 2.0) -> dict[str, float]:
    """The answer at ``m``, by label."""
    odds = np.exp((m * WEIGHTS[0].astype(np.float64) + BIAS) / temperature)
    return dict(zip(LABELS, (odds / odds.sum()).tolist(), strict=True))
