"""A float32 ONNX file with its weights, and where that pays its activations, in 8 bits."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samo.deploy.exporter import Exporter
from samo.prediction.readings import Feeds
from samo.training.setup import Setup

__all__ = ["calibration_batches", "quantised"]

# Training items from which ranges of activations are found.
N_CALIBRATION, _BATCH = 128, 16
_SUMS = ("MatMul", "Gemm")


def calibration_batches(
    setup: Setup, rows: np.ndarray, feeds: Feeds, n: int = N_CALIBRATION
) -> list[Mapping[str, np.ndarray]]:
    """What the network is given of some training rows, spread over all of them, by the names of its inputs."""
    some = rows[np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(np.int64))]
    return [
        given
        for batch in setup.frontend.eval_batches(some, _BATCH)
        for given in feeds(batch.inputs.numpy(), batch.lengths.numpy())
    ]


def quantised(
    source: Path, target: Path, exporter: type[Exporter], kind: str, batches: Sequence[Mapping[str, np.ndarray]]
) -> None:
    """Write the quantised copy of a file.

    Features are computed in float32 as before, since powers span ten decades, and so is the last layer. ``static``
    quantises weights by channel and activations with ranges found on ``batches`` (QDQ form); ``dynamic`` quantises
    weights, and the activations of products anew each time.

    Processors without VNNI add two products of signed by unsigned bytes in 16 bits, which overflow, so that a file
    would answer otherwise there: static weights get 7 of the 8 bits, dynamic ones are unsigned.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static

    model = onnx.load(str(source))
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "static":
                quantize_static(
                    str(source), str(target), _Batches(batches), quant_format=QuantFormat.QDQ, per_channel=True,
                    reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    nodes_to_exclude=_kept_static(model), calibrate_method=CalibrationMethod.MinMax,
                )  # fmt: skip
            else:
                quantize_dynamic(
                    str(source), str(target), op_types_to_quantize=["MatMul", "Gemm", "Gather"], per_channel=True,
                    weight_type=QuantType.QUInt8, nodes_to_exclude=_kept_dynamic(model, exporter.kept_float),
                    extra_options={"MatMulConstBOnly": True},
                )  # fmt: skip
    finally:
        log.setLevel(level)


class _Batches:
    """Batches one after another, as onnxruntime's calibration asks for them."""

    def __init__(self, batches: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._remaining: Iterator[Mapping[str, np.ndarray]] = iter(batches)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """The next one; None at the end."""
        return next(self._remaining, None)


def _kept_static(model: Any) -> list[str]:
    """Names of nodes that no convolution comes before, and the last layer."""
    reached: set[str] = set()
    kept = []
    for node in model.graph.node:  # a graph's nodes stand in an order in which they can be computed
        if node.op_type == "Conv" or reached & set(node.input):
            reached.update(node.output)
        else:
            kept.append(node.name)
    return kept + _last_sums(model)


def _kept_dynamic(model: Any, features: str) -> list[str]:
    """Names of nodes that make features, and the last layer."""
    pattern = re.compile(features)
    kept = [node.name for node in model.graph.node if pattern.search(node.name)] + _last_sums(model)
    # onnxruntime makes two operators of a Gemm before it looks at names.
    return kept + [f"{name}_MatMul" for name in kept]


def _last_sums(model: Any) -> list[str]:
    """Names of the products nearest before the logits, one on each way to them, and of those of no weights behind."""
    made_by = {output: node for node in model.graph.node for output in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {output for output, node in made_by.items() if node.op_type == "Constant"}
    found, waiting, seen = [], ["logits"], set()
    while waiting:
        node = made_by.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in _SUMS:
            found.append(node.name)
        # What windows count in a clip is no layer.
        if node.op_type not in _SUMS or not weights & set(node.input):
            waiting.extend(node.input)
    return found
