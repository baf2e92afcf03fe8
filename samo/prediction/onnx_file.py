"""An ONNX file looked through before anything computes it: its protobuf message, read without the package onnx.

onnxruntime opens files that a model names, runs operators that somebody's library brings, and unfolds functions that
call functions. None of this is needed to answer, so a file with any of it is refused. Field numbers are those of
``onnx.proto3``: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from samo.prediction import protobuf
from samo.prediction.onnx_sizes import KINDS, SMALL, Node, Value, check_sizes

__all__ = ["FLOAT", "INT64", "LARGEST", "OnnxFile", "Port", "check_network", "look_through"]

LARGEST = 1 << 30
"""Bytes of the largest file that is opened."""
FLOAT, INT64 = 1, 7
"""``TensorProto.DataType``."""

# What nodes may be of: the standard's own operators, which every runtime has.
_OWN_DOMAINS = frozenset({"", "ai.onnx"})
# Exporters name some that no node uses.
_NAMED_DOMAINS = _OWN_DOMAINS | {"ai.onnx.ml", "com.microsoft"}
# Graphs inside graphs: a branch of a condition, the body of a loop. Exported networks have none.
_DEEPEST = 4
_MOST_NODES = 200_000
_CONTROL_FLOW = frozenset({"Loop", "Scan", "If", "SequenceMap"})
# ``AttributeProto.AttributeType``, and ``TensorProto.DataType``.
_INT, _INTS = 2, 7
_FLOAT16, _STRING = 10, 8


class Port(NamedTuple):
    """An input or output of the graph.

    Attributes:
        name: its name.
        kind: ``TensorProto.DataType``; 0 where it is no tensor.
        shape: a size, or None where it is dynamic, by dimension; None where not even their number is known.
    """

    name: str
    kind: int
    shape: tuple[int | None, ...] | None


@dataclass
class OnnxFile:
    """What a model file says of itself.

    Attributes:
        inputs: of the graph, without those that are constants.
        outputs: of the graph.
        metadata: ``metadata_props`` by key.
        opset: of the standard's operators; 0 where none is named.
        nodes: the graph's operators, in order.
        constants: what is known of them, by name.
    """

    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    opset: int = 0
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Value] = field(default_factory=dict)


class _Floats(NamedTuple):
    """So many floats of an attribute."""

    n: int


def look_through(content: bytes | memoryview) -> OnnxFile:
    """Read what a model file says of itself, and refuse what it must not hold.

    Raises:
        ValueError: it is no ONNX model, or holds external data, operators or functions of its own, control flow, or
            a constant that claims more than it holds. One line that says what.
    """
    found = OnnxFile()
    graphs = 0
    for number, value in protobuf.fields(memoryview(content)):
        if number == 7:
            graphs += 1
            if graphs > 1:
                raise ValueError("it holds two graphs")
            _Graph(0).read(protobuf.message(value), found)
        elif number == 8:
            domain, version = _opset(protobuf.message(value))
            if domain not in _NAMED_DOMAINS:
                raise ValueError(f"it uses operators of '{domain[:60]}'; only the standard's own are computed")
            if domain in _OWN_DOMAINS:
                found.opset = version
        elif number == 14:
            _put(found.metadata, *_entry(protobuf.message(value)), "its metadata name")
        elif number == 20:
            raise ValueError("it holds a training graph")
        elif number == 25:
            raise ValueError("it holds functions of its own; only plain operators are computed")
    if not graphs:
        raise ValueError("it holds no graph")
    return found


def check_network(file: OnnxFile, length: int | Mapping[str, int]) -> dict[str, Value]:
    """Refuse what no network of SAMO's is, and what needs more memory than a network does.

    Args:
        length: for which the sizes of tensors are found: samples or tokens of one item; or that of each input.

    Returns:
        What is known of every tensor, by name.

    Raises:
        ValueError: see :func:`samo.prediction.onnx_sizes.check_sizes`.
    """
    known = dict(file.constants)
    for port in file.inputs:
        if port.shape is not None:
            own_length = length if isinstance(length, int) else length[port.name]
            usual = (1, *[own_length] * (len(port.shape) - 1))
            known[port.name] = Value(
                tuple(own if size is None else size for own, size in zip(usual, port.shape, strict=False))
            )
    return check_sizes(file.nodes, known)


class _Graph:
    """One graph, and what is known of its constants."""

    def __init__(self, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError("its graphs are nested too deeply")
        self.depth = depth
        self.nodes: list[Node] = []
        self.constants: dict[str, Value] = {}

    def read(self, content: memoryview, found: OnnxFile | None = None) -> None:
        inputs, outputs = [], []
        for number, value in protobuf.fields(content):
            if number == 1:
                self._node(protobuf.message(value))
            elif number == 5:
                _put(self.constants, *_tensor(protobuf.message(value)), "it makes")
            elif number == 15:
                raise ValueError("it holds sparse constants")
            elif number == 11:
                inputs.append(_port(protobuf.message(value)))
            elif number == 12:
                outputs.append(_port(protobuf.message(value)))
        if found is not None:
            # Earlier versions of the format name constants among the inputs too.
            found.inputs = [port for port in inputs if port.name not in self.constants]
            found.outputs = outputs
            found.nodes, found.constants = self.nodes, self.constants

    def _node(self, content: memoryview) -> None:
        if len(self.nodes) >= _MOST_NODES:
            raise ValueError(f"it holds more than {_MOST_NODES:,} operators")
        operator = domain = ""
        inputs: list[str] = []
        outputs: list[str] = []
        attributes = []
        for number, value in protobuf.fields(content):
            if number == 1:
                inputs.append(protobuf.text_of(value))
            elif number == 2:
                outputs.append(protobuf.text_of(value))
            elif number == 4:
                operator = protobuf.text_of(value)
            elif number == 5:
                attributes.append(protobuf.message(value))
            elif number == 7:
                domain = protobuf.text_of(value)
        if domain not in _OWN_DOMAINS:
            raise ValueError(
                f"its operator {operator[:60]} is of '{domain[:60]}'; only the standard's own are computed"
            )
        if operator in _CONTROL_FLOW:
            raise ValueError(f"it holds control flow ({operator}); only plain operators are computed")
        node = Node(operator, inputs, outputs)
        for attribute in attributes:
            name, meant = self._attribute(attribute)
            _put(node.attributes, name, meant, f"its operator {operator[:60]} has")
            if operator == "Constant" and len(attributes) > 1:
                raise ValueError("a constant has two values")
            if operator in ("Constant", "ConstantOfShape"):
                node.attributes["constant"] = _constant(meant)
        self.nodes.append(node)

    def _attribute(self, content: memoryview) -> tuple[str, Any]:
        """Its name, and what it holds: a whole number, several, a constant, bytes; None of what no size depends on."""
        name, kind = "", 0
        found: list[tuple[int, Any]] = []
        numbers: list[int] = []
        for number, value in protobuf.fields(content):
            if number == 1:
                name = protobuf.text_of(value)
            elif number == 20:
                kind = protobuf.whole_number(value)
            elif number == 3:
                found.append((number, protobuf.whole_number(value)))
            elif number == 4:
                found.append((number, bytes(protobuf.message(value))))
            elif number == 5:
                found.append((number, _tensor(protobuf.message(value))[1]))
            elif number in (6, 11):
                _Graph(self.depth + 1).read(protobuf.message(value))
                found.append((number, None))
            elif number == 7:
                numbers += [0] * (len(protobuf.message(value)) // 4)
                found.append((number, None))
            elif number == 8:
                numbers += protobuf.whole_numbers(value)
                found.append((number, numbers))
            elif number == 10:
                found.append((number, _tensor(protobuf.message(value))[1]))
            elif number in (2, 9):
                found.append((number, None))
            elif number in (22, 23):
                raise ValueError("it holds sparse constants")
        # protobuf joins tensors that come twice, and onnxruntime looks at what the attribute's kind says.
        if len({number for number, _ in found}) > 1 or [number for number, _ in found].count(5) > 1:
            raise ValueError(f"its attribute '{name[:60]}' holds two things")
        if not found:
            return name, {_INT: 0, _INTS: []}.get(kind)
        number, meant = found[-1]
        return name, _Floats(len(numbers)) if number == 7 else meant


def _constant(meant: Any) -> Value:
    """What the attribute of an operator that makes a constant gives."""
    if isinstance(meant, Value):
        return Value(meant.shape, meant.numbers, True)
    if isinstance(meant, int):
        return Value((), np.array(meant, np.int64), True)
    if isinstance(meant, list):
        return Value((len(meant),), np.array(meant, np.int64) if len(meant) <= SMALL else None, True)
    # Floats are not followed.
    return Value((meant.n,) if isinstance(meant, _Floats) else (), None, True)


def _tensor(content: memoryview) -> tuple[str, Value]:
    """Name of a constant, and what is known of it."""
    name, kind = "", 0
    dims: list[int] = []
    numbers: list[int] = []
    typed = b""
    raw: memoryview | None = None
    for number, value in protobuf.fields(content):
        if number == 1:
            dims += protobuf.whole_numbers(value)
        elif number == 2:
            kind = protobuf.whole_number(value)
        elif number in (4, 10) and len(typed) <= 8 * SMALL:
            typed += bytes(protobuf.message(value)[: 8 * SMALL + 1])
        elif number in (5, 7):
            numbers += protobuf.whole_numbers(value)
        elif number == 8:
            name = protobuf.text_of(value)
        elif number == 9:
            raw = protobuf.message(value)
        elif number == 13 or (number == 14 and protobuf.whole_number(value)):
            raise ValueError("its constants lie in another file (external data)")
    if any(dim < 0 for dim in dims):
        raise ValueError("a constant has a size below 0")
    elements = math.prod(dims)
    # Two bits are the smallest type there is; every element stands in the file.
    if kind == _STRING:
        raise ValueError("its constants are texts; a network's are numbers")
    if elements > 4 * len(content):
        raise ValueError(f"a constant claims {elements:,} numbers that the file does not hold")
    found = Value(tuple(dims), None, True)
    if kind in KINDS and elements <= SMALL:
        held = np.array([])
        kept = np.dtype(KINDS[kind])
        if raw is not None or typed:
            bits = typed if raw is None else bytes(raw)
            held = np.frombuffer(bits, kept) if len(bits) == kept.itemsize * elements else held
        elif kind != _FLOAT16:
            held = np.array(numbers, np.int64).astype(kept)
        if held.size == elements:
            found.numbers = held.reshape(dims)
    return name, found


def _put(known: dict[str, Any], name: str, value: Any, says: str) -> None:
    """Add what must not be there yet."""
    if name in known:
        raise ValueError(f"{says} '{name[:60]}' twice")
    known[name] = value


def _port(content: memoryview) -> Port:
    name, kind, shape = "", 0, None
    for number, value in protobuf.fields(content):
        if number == 1:
            name = protobuf.text_of(value)
        elif number == 2:
            for inner, typed in protobuf.fields(protobuf.message(value)):
                if inner == 1:
                    kind, shape = _tensor_type(protobuf.message(typed))
    return Port(name, kind, shape)


def _tensor_type(content: memoryview) -> tuple[int, tuple[int | None, ...] | None]:
    kind, shape = 0, None
    for number, value in protobuf.fields(content):
        if number == 1:
            kind = protobuf.whole_number(value)
        elif number == 2:
            shape = tuple(
                _dimension(protobuf.message(dim))
                for inner, dim in protobuf.fields(protobuf.message(value))
                if inner == 1
            )
    return kind, shape


def _dimension(content: memoryview) -> int | None:
    size = None
    for number, value in protobuf.fields(content):
        if number == 1:
            size = protobuf.whole_number(value)
        elif number == 2:
            size = None
    return size


def _opset(content: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in protobuf.fields(content):
        if number == 1:
            domain = protobuf.text_of(value)
        elif number == 2:
            version = protobuf.whole_number(value)
    return domain, version


def _entry(content: memoryview) -> tuple[str, str]:
    key = text = ""
    for number, value in protobuf.fields(content):
        if number == 1:
            key = protobuf.text_of(value)
        elif number == 2:
            text = protobuf.text_of(value)
    return key, text
