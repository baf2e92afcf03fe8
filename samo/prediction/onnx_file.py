"""An ONNX file looked through before anything computes it: its protobuf message, read without the package onnx.

onnxruntime opens files that a model names, runs operators that somebody's library brings, and unfolds functions that
call functions. None of this is needed to answer, so a file with any of it is refused. Field numbers are those of
``onnx.proto3``: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["FLOAT", "INT64", "LARGEST", "OnnxFile", "Port", "look_through"]

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
# A number of a tensor's elements that a file can claim without holding them.
_MOST_ELEMENTS = 1 << 28
_CONTROL_FLOW = frozenset({"Loop", "Scan", "If", "SequenceMap"})
# Which input or attribute of an operator says how large its result is.
_SIZED_BY = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "RandomNormal": -1, "RandomUniform": -1}


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
    """

    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    opset: int = 0


def look_through(content: bytes | memoryview) -> OnnxFile:
    """Read what a model file says of itself, and refuse what it must not hold.

    Raises:
        ValueError: it is no ONNX model, or holds external data, operators or functions of its own, control flow, or
            a constant that claims more than it holds. One line that says what.
    """
    found = OnnxFile()
    graphs = 0
    for number, value in _fields(memoryview(content)):
        if number == 7:
            graphs += 1
            if graphs > 1:
                raise ValueError("it holds two graphs")
            _Graph(0).read(_message(value), found)
        elif number == 8:
            domain, version = _opset(_message(value))
            if domain not in _NAMED_DOMAINS:
                raise ValueError(f"it uses operators of '{domain[:60]}'; only the standard's own are computed")
            if domain in _OWN_DOMAINS:
                found.opset = version
        elif number == 14:
            key, text = _entry(_message(value))
            if key in found.metadata:
                raise ValueError(f"its metadata name '{key[:60]}' twice")
            found.metadata[key] = text
        elif number == 20:
            raise ValueError("it holds a training graph")
        elif number == 25:
            raise ValueError("it holds functions of its own; only plain operators are computed")
    if not graphs:
        raise ValueError("it holds no graph")
    return found


class _Graph:
    """One graph, and what is known of its constants."""

    def __init__(self, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError("its graphs are nested too deeply")
        self.depth = depth
        self.n_nodes = 0
        self.constants: set[str] = set()
        self.sizes: dict[str, int] = {}
        """Product of the numbers of a small constant of whole numbers, which may be a shape."""
        self.sized: list[tuple[str, str]] = []

    def read(self, content: memoryview, found: OnnxFile | None = None) -> None:
        inputs, outputs = [], []
        for number, value in _fields(content):
            if number == 1:
                self._node(_message(value))
            elif number == 5:
                self._tensor(_message(value))
            elif number == 15:
                raise ValueError("it holds sparse constants")
            elif number == 11:
                inputs.append(_port(_message(value)))
            elif number == 12:
                outputs.append(_port(_message(value)))
        for operator, shape in self.sized:
            if self.sizes.get(shape, 0) > _MOST_ELEMENTS:
                raise ValueError(f"its operator {operator} makes {self.sizes[shape]:,} numbers")
        if found is not None:
            # Earlier versions of the format name constants among the inputs too.
            found.inputs = [port for port in inputs if port.name not in self.constants]
            found.outputs = outputs

    def _node(self, content: memoryview) -> None:
        self.n_nodes += 1
        if self.n_nodes > _MOST_NODES:
            raise ValueError(f"it holds more than {_MOST_NODES:,} operators")
        operator = domain = ""
        inputs: list[str] = []
        outputs: list[str] = []
        attributes = []
        for number, value in _fields(content):
            if number == 1:
                inputs.append(_text(value))
            elif number == 2:
                outputs.append(_text(value))
            elif number == 4:
                operator = _text(value)
            elif number == 5:
                attributes.append(_message(value))
            elif number == 7:
                domain = _text(value)
        if domain not in _OWN_DOMAINS:
            raise ValueError(
                f"its operator {operator[:60]} is of '{domain[:60]}'; only the standard's own are computed"
            )
        if operator in _CONTROL_FLOW:
            raise ValueError(f"it holds control flow ({operator}); only plain operators are computed")
        for attribute in attributes:
            self._attribute(attribute, outputs[0] if operator == "Constant" and outputs else "")
        if operator in _SIZED_BY and 0 <= _SIZED_BY[operator] < len(inputs):
            self.sized.append((operator, inputs[_SIZED_BY[operator]]))

    def _attribute(self, content: memoryview, constant: str) -> None:
        numbers: list[int] = []
        for number, value in _fields(content):
            if number in (5, 10):
                self._tensor(_message(value), constant)
            elif number in (6, 11):
                _Graph(self.depth + 1).read(_message(value))
            elif number in (22, 23):
                raise ValueError("it holds sparse constants")
            elif number == 8 and constant:
                numbers += _whole_numbers(value)
        if numbers:
            self.sizes[constant] = _size(numbers)

    def _tensor(self, content: memoryview, name: str = "") -> None:
        dims: list[int] = []
        numbers: list[int] = []
        kind = 0
        raw: memoryview | None = None
        for number, value in _fields(content):
            if number == 1:
                dims += _whole_numbers(value)
            elif number == 2:
                kind = _number(value)
            elif number == 7:
                numbers += _whole_numbers(value)
            elif number == 8:
                name = name or _text(value)
            elif number == 9:
                raw = _message(value)
            elif number == 13 or (number == 14 and _number(value)):
                raise ValueError("its constants lie in another file (external data)")
        if any(dim < 0 for dim in dims):
            raise ValueError("a constant has a size below 0")
        elements = math.prod(dims)
        # Two bits are the smallest type there is; every element stands in the file.
        if elements > 4 * len(content):
            raise ValueError(f"a constant claims {elements:,} numbers that the file does not hold")
        self.constants.add(name)
        if kind == INT64 and elements <= 16:
            if raw is not None and len(raw) == 8 * elements:
                numbers = [int.from_bytes(raw[8 * k : 8 * k + 8], "little", signed=True) for k in range(elements)]
            self.sizes[name] = _size(numbers)


def _size(numbers: list[int]) -> int:
    # -1 and 0 stand for sizes of something else.
    return math.prod(number for number in numbers if number > 0)


def _port(content: memoryview) -> Port:
    name, kind, shape = "", 0, None
    for number, value in _fields(content):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for inner, typed in _fields(_message(value)):
                if inner == 1:
                    kind, shape = _tensor_type(_message(typed))
    return Port(name, kind, shape)


def _tensor_type(content: memoryview) -> tuple[int, tuple[int | None, ...] | None]:
    kind, shape = 0, None
    for number, value in _fields(content):
        if number == 1:
            kind = _number(value)
        elif number == 2:
            shape = tuple(_dimension(_message(dim)) for inner, dim in _fields(_message(value)) if inner == 1)
    return kind, shape


def _dimension(content: memoryview) -> int | None:
    size = None
    for number, value in _fields(content):
        if number == 1:
            size = _number(value)
        elif number == 2:
            size = None
    return size


def _opset(content: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in _fields(content):
        if number == 1:
            domain = _text(value)
        elif number == 2:
            version = _number(value)
    return domain, version


def _entry(content: memoryview) -> tuple[str, str]:
    key = text = ""
    for number, value in _fields(content):
        if number == 1:
            key = _text(value)
        elif number == 2:
            text = _text(value)
    return key, text


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: a number, or the bytes of what has a length.

    https://protobuf.dev/programming-guides/encoding/
    """
    place, end = 0, len(content)
    while place < end:
        tag, place = _varint(content, place)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("it is no ONNX model")
        if wire == 0:
            value, place = _varint(content, place)
            yield number, value
            continue
        if wire == 2:
            length, place = _varint(content, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError("it is no ONNX model")
        if length > end - place:
            raise ValueError("it is cut short, or no ONNX model")
        yield number, content[place : place + length]
        place += length


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(content):
            raise ValueError("it is cut short, or no ONNX model")
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, place
    raise ValueError("it is no ONNX model")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it is no ONNX model")
    return value


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise ValueError("it is no ONNX model")
    return value - (1 << 64) if value >= 1 << 63 else value


def _whole_numbers(value: int | memoryview) -> list[int]:
    """One number, or many in one field."""
    if isinstance(value, int):
        return [_number(value)]
    numbers, place = [], 0
    while place < len(value):
        number, place = _varint(value, place)
        numbers.append(_number(number))
    return numbers


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_message(value)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("it is no ONNX model") from error
