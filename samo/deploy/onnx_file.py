"""A network as one ONNX file."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from samo.deploy.exporter import CosineMatrix
from samo.errors import EnvironmentProblem

__all__ = ["KEY", "OPSET", "compacted", "merged", "require_onnx", "save_metadata", "write_onnx"]

OPSET = 18
KEY = "samo"
# Matrices below are not worth a formula.
_SMALL = 4096
# A sparse entry takes its place (8 bytes) and its value (4).
_DENSE_SHARE = 0.2


def require_onnx() -> None:
    """Refuse to begin where the packages are missing.

    Raises:
        EnvironmentProblem: names the extra.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise EnvironmentProblem(
            f"exporting to ONNX needs the package {error.name}", hint='pip install "samo-emotion[export]"'
        ) from error
    del onnx


def write_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    axes: Mapping[str, tuple[str, ...]],
) -> tuple[str, ...]:
    """Export a module over inputs of any size along all of their axes.

    By the exporter that traces: the one over ``torch.export`` gets hashes of 62 bits wrong, and takes forty times as
    long. Its file is checked by whoever asked for it, see :mod:`samo.deploy.parity`.

    Args:
        module: gives (batch, C) logits, or these and (batch, bands, frames) features.
        example: what it is traced with.
        path: of the file.
        axes: names of those of each input, by the input's name.

    Returns:
        The names of its outputs: ``logits``, and ``features`` of a module that gives them.
    """
    with torch.no_grad():
        given = module(*example)
    outputs = ("logits", "features") if isinstance(given, tuple) else ("logits",)
    dynamic = {name: dict(enumerate(own)) for name, own in axes.items()} | {"logits": {0: "batch"}}
    if "features" in outputs:
        dynamic["features"] = {0: "batch", 2: "frames"}
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Tracing warns of every shape that Python looks at; whether that did harm is measured.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, example, str(path), dynamo=False, opset_version=OPSET, input_names=list(axes),
                output_names=list(outputs), dynamic_axes=dynamic,
            )  # fmt: skip
    finally:
        log.setLevel(level)
    return outputs


def compacted(path: Path, matrices: Sequence[CosineMatrix]) -> None:
    """Put formulas into a file in place of matrices of cosines and of those that are nearly all zeros.

    A runtime computes them once, when it opens the file: the network answers as fast as before.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    known = {_matrix(each).tobytes(): each for each in matrices}
    made: list[Any] = []
    kept = []
    nodes, constants = _without_constants(model.graph.node)
    for tensor in [*model.graph.initializer, *constants]:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.ndim != 2 or array.size < _SMALL:
            kept.append(tensor)
        elif formula := known.get(np.ascontiguousarray(array).tobytes()):
            made.append(_cosine_nodes(tensor.name, formula))
        elif np.count_nonzero(array) < _DENSE_SHARE * array.size:
            made.append(_sparse_nodes(tensor.name, array))
        else:
            kept.append(tensor)
    if not made:
        return
    nodes = [node for own, _ in made for node in own] + nodes
    tensors = {tensor.name: tensor for _, own in made for tensor in own}
    del model.graph.node[:]
    del model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([*kept, *tensors.values()])
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def merged(path: Path) -> None:
    """Let what stands in a file several times stand and be computed once: members of an ensemble may share an encoder.

    All operators that are written give the same to the same inputs.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    known: dict[tuple[Any, ...], list[str]] = {}
    one_name: dict[str, str] = {}

    def is_new(key: tuple[Any, ...], names: list[str]) -> bool:
        before = known.setdefault(key, names)
        if before is not names:
            one_name.update(pair for pair in zip(names, before, strict=True) if pair[0])
        return before is names

    tensors = []
    for tensor in graph.initializer:
        content = hashlib.sha256(numpy_helper.to_array(tensor).tobytes()).digest()
        if is_new((tensor.data_type, *tensor.dims, content), [tensor.name]):
            tensors.append(tensor)
    outputs = {port.name for port in graph.output}
    nodes = []
    for node in graph.node:
        inputs = [one_name.get(name, name) for name in node.input]
        node.input[:] = inputs
        if node.op_type == "Identity" and node.output[0] not in outputs:
            one_name[node.output[0]] = inputs[0]
            continue
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        # An operator need not give all that it can.
        given = tuple(bool(name) for name in node.output)
        key = (node.op_type, *inputs, given, *attributes)
        if not outputs.isdisjoint(node.output) or is_new(key, list(node.output)):
            nodes.append(node)
    del graph.node[:]
    del graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _without_constants(nodes: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The nodes that compute something, and the large tensors of the others under the names they had."""
    rest, tensors = [], []
    for node in nodes:
        value = node.attribute[0] if node.op_type == "Constant" else None
        if value is not None and value.name == "value" and len(value.t.dims) == 2:
            tensor = type(value.t)()
            tensor.CopyFrom(value.t)
            tensor.name = node.output[0]
            tensors.append(tensor)
        else:
            rest.append(node)
    return rest, tensors


def save_metadata(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the one key of a file's metadata; others, which exporters leave, go."""
    import onnx

    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {KEY: json.dumps(facts, ensure_ascii=False, allow_nan=False)})
    model.producer_name, model.doc_string, model.graph.doc_string = "samo", "", ""
    for node in model.graph.node:
        # Where in the source a node came from is no business of the file's readers.
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.save(model, str(path))


def _matrix(given: CosineMatrix) -> np.ndarray:
    table = given.table.detach().cpu().numpy()
    places = np.arange(given.rows)[:, None] * np.arange(given.first, given.behind, given.step)[None, :] % len(table)
    return np.ascontiguousarray(table[places])


def _cosine_nodes(name: str, given: CosineMatrix) -> tuple[list[Any], list[Any]]:
    """Nodes that make the matrix called ``name``, and the tensors that they read."""
    from onnx import helper, numpy_helper

    table = given.table.detach().cpu().numpy()
    # The sine of nothing is 0, the cosine 1.
    kept = f"turn.{len(table)}.{'cosine' if table[0] else 'sine'}"
    numbers = {
        "zero": 0, "one": 1, "rows": given.rows, "first": given.first, "behind": given.behind, "step": given.step,
        "size": len(table),
    }  # fmt: skip
    tensors = [numpy_helper.from_array(table, kept)]
    tensors += [numpy_helper.from_array(np.array(n, dtype=np.int64), f"{name}.{word}") for word, n in numbers.items()]
    tensors += [numpy_helper.from_array(np.array([k], dtype=np.int64), f"{name}.axis{k}") for k in (0, 1)]
    steps = [
        ("Range", ("zero", "rows", "one"), "down"),
        ("Range", ("first", "behind", "step"), "across"),
        ("Unsqueeze", ("down", "axis1"), "column"),
        ("Unsqueeze", ("across", "axis0"), "row"),
        ("Mul", ("column", "row"), "product"),
        ("Mod", ("product", "size"), "place"),
    ]
    nodes = [
        helper.make_node(kind, [f"{name}.{word}" for word in words], [f"{name}.{out}"], name=f"{name}.{out}")
        for kind, words, out in steps
    ]
    nodes.append(helper.make_node("Gather", [kept, f"{name}.place"], [name], name=f"{name}.made"))
    return nodes, tensors


def _sparse_nodes(name: str, array: np.ndarray) -> tuple[list[Any], list[Any]]:
    from onnx import helper, numpy_helper

    flat = array.reshape(-1)
    places = np.flatnonzero(flat)
    tensors = [
        numpy_helper.from_array(np.array([flat.size], dtype=np.int64), f"{name}.size"),
        numpy_helper.from_array(np.array(array.shape, dtype=np.int64), f"{name}.shape"),
        numpy_helper.from_array(places.astype(np.int64), f"{name}.places"),
        numpy_helper.from_array(flat[places], f"{name}.values"),
    ]
    nodes = [
        helper.make_node("ConstantOfShape", [f"{name}.size"], [f"{name}.zeros"], name=f"{name}.zeros"),
        helper.make_node(
            "ScatterElements", [f"{name}.zeros", f"{name}.places", f"{name}.values"], [f"{name}.flat"],
            name=f"{name}.flat", axis=0,
        ),
        helper.make_node("Reshape", [f"{name}.flat", f"{name}.shape"], [name], name=f"{name}.made"),
    ]  # fmt: skip
    return nodes, tensors
