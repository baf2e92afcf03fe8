"""Messages of protobuf, field by field, read without the package; what is none is no ONNX model.

Each function raises ValueError, whose text says so of the file.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["fields", "message", "text_of", "whole_number", "whole_numbers"]


def fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
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


def message(value: int | memoryview) -> memoryview:
    """The bytes of a message inside."""
    if isinstance(value, int):
        raise ValueError("it is no ONNX model")
    return value


def whole_number(value: int | memoryview) -> int:
    """A number of 64 bits, which may be negative."""
    if not isinstance(value, int):
        raise ValueError("it is no ONNX model")
    return value - (1 << 64) if value >= 1 << 63 else value


def whole_numbers(value: int | memoryview) -> list[int]:
    """One number, or many in one field."""
    if isinstance(value, int):
        return [whole_number(value)]
    numbers, place = [], 0
    while place < len(value):
        number, place = _varint(value, place)
        numbers.append(whole_number(number))
    return numbers


def text_of(value: int | memoryview) -> str:
    """A text of UTF-8."""
    try:
        return bytes(message(value)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("it is no ONNX model") from error
