"""How large the tensors of an ONNX graph are, found without computing it: for inputs of one usual size.

Every operator that :mod:`samo.deploy` writes has a rule here, and those that common layers need. A file with another
operator is refused, so is one whose tensors are too large to be a network's. What the operators mean:
https://github.com/onnx/onnx/blob/main/docs/Operators.md
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["KINDS", "SMALL", "Node", "Value", "check_sizes"]

SMALL = 1024
"""Numbers of the largest tensor whose numbers are followed, as those of shapes are."""
KINDS = {1: "<f4", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}
"""The numbers that are followed, by ``TensorProto.DataType``."""

# Of one tensor that an operator makes.
_MOST_ELEMENTS = 1 << 26
# Of all that constants become, beside twice what the file holds: onnxruntime computes these when it opens a file.
_MOST_FOLDED = 1 << 26
# Of all tensors that are there at once.
_MOST_LIVE = 1 << 28
_MOST_DIMS = 16

Shape = tuple[int, ...]
_STRING = 8


@dataclass
class Node:
    """An operator of the graph.

    Attributes:
        operator: its name in the standard.
        attributes: whole numbers and constants, by name.
    """

    operator: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Value:
    """What is known of a tensor.

    Attributes:
        shape: None where it depends on numbers that are not followed.
        numbers: of a small tensor; None where they are not followed.
        constant: it depends on no input of the graph.
    """

    shape: Shape | None = None
    numbers: np.ndarray | None = None
    constant: bool = False

    @property
    def n(self) -> int:
        """How many numbers; 0 where the shape is not known."""
        return 0 if self.shape is None else math.prod(self.shape)


def check_sizes(nodes: Sequence[Node], known: Mapping[str, Value]) -> dict[str, Value]:
    """Refuse a graph whose tensors are larger than those of a network.

    Args:
        known: constants, and the graph's inputs at a usual size.

    Returns:
        What is known of every tensor, by name.

    Raises:
        ValueError: it has an operator that SAMO does not write, or one that stands before what it needs; a tensor is
            too large, or its size depends on numbers that only computing it gives.
    """
    values = dict(known)
    last = {name: place for place, node in enumerate(nodes) for name in node.inputs}
    held = sum(value.n for value in known.values() if value.constant)
    freed: dict[int, list[Value]] = defaultdict(list)
    folded = live = 0
    for place, node in enumerate(nodes):
        if node.operator not in _RULES and node.operator != "Constant":
            raise ValueError(f"its operator {node.operator[:60]} is none that SAMO writes")
        for name in node.inputs:
            if name and name not in values:
                raise ValueError(f"its operator {node.operator} needs '{name[:60]}', which nothing before it makes")
        # An empty name is an input left out.
        inputs = [values[name] if name else None for name in node.inputs]
        for name, value in zip(node.outputs, _results(node, inputs), strict=False):
            if name in values:
                raise ValueError(f"it makes '{name[:60]}' twice")
            if value.shape is None:
                raise ValueError(f"how much its operator {node.operator} makes is known only when it is computed")
            if len(value.shape or ()) > _MOST_DIMS:
                raise ValueError(f"its operator {node.operator} makes more than {_MOST_DIMS} dimensions")
            if value.n > max(_MOST_ELEMENTS, *(each.n for each in inputs if each is not None), 0):
                raise ValueError(f"its operator {node.operator} makes {value.n:,} numbers")
            if name:
                values[name] = value
                freed[last.get(name, place)].append(value)
            folded += value.n if value.constant else 0
            live += value.n
        if folded > _MOST_FOLDED + 2 * held:
            raise ValueError(f"its constants become {folded:,} numbers")
        if live > _MOST_LIVE + 2 * held:
            raise ValueError(f"its operators make {live:,} numbers at once")
        # onnxruntime keeps constants.
        live -= sum(value.n for value in freed.pop(place, []) if not value.constant)
    return values


def _results(node: Node, inputs: list[Value | None]) -> list[Value]:
    """One value for each output that has a name."""
    given = [each for each in inputs if each is not None]
    constant = all(each.constant for each in given)
    if node.operator == "Constant":
        found = node.attributes.get("constant", Value())
        return [Value(found.shape, found.numbers, True)]
    if not given:
        raise ValueError(f"its operator {node.operator} has no inputs")
    shapes: list[Shape | None] = [None]
    numbers = None
    try:
        ruled = _RULES[node.operator](node, inputs)
        shapes = ruled if isinstance(ruled, list) else [ruled]
        if shapes[0] is not None and math.prod(shapes[0]) <= SMALL:
            numbers = _computed(node, inputs, shapes[0])
    # Operators that nobody could compute: too few inputs, axes that are not there.
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError):
        pass
    # Sizes below 0 are onnxruntime's to refuse.
    shapes = [None if shape is not None and any(size < 0 for size in shape) else shape for shape in shapes]
    shapes += [None] * (len(node.outputs) - len(shapes))
    # Further outputs, as of normalisations, are no larger than the first.
    shapes = [shapes[0] if shape is None else shape for shape in shapes]
    return [Value(shape, numbers if place == 0 else None, constant) for place, shape in enumerate(shapes)]


# What an operator's result is, in Python's whole numbers.


def _given(inputs: Sequence[Value | None], place: int) -> Value | None:
    return inputs[place] if place < len(inputs) else None


def _shape(inputs: Sequence[Value | None], place: int) -> Shape:
    value = inputs[place]
    if value is None or value.shape is None:
        raise ValueError
    return value.shape


def _ints(inputs: Sequence[Value | None], place: int) -> list[int]:
    value = inputs[place]
    if value is None or value.numbers is None:
        raise ValueError
    return [int(number) for number in value.numbers.reshape(-1)]


def _axes(node: Node, inputs: Sequence[Value | None], place: int) -> list[int] | None:
    if _given(inputs, place) is not None:
        return _ints(inputs, place)
    axes: list[int] | None = node.attributes.get("axes")
    return axes


def _same(node: Node, inputs: Sequence[Value | None]) -> Shape:
    return _shape(inputs, 0)


def _cast(node: Node, inputs: Sequence[Value | None]) -> Shape:
    if node.attributes["to"] == _STRING:
        raise ValueError
    return _shape(inputs, 0)


def _broadcast(*shapes: Shape) -> Shape:
    rank = max(len(shape) for shape in shapes)
    columns = zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True)
    # Sizes that differ are onnxruntime's to refuse; of an input's usual size they may differ without harm.
    return tuple(0 if 0 in column else max(column) for column in columns)


def _elementwise(node: Node, inputs: Sequence[Value | None]) -> Shape:
    return _broadcast(*(_shape(inputs, place) for place in range(len(inputs))))


def _quantised(node: Node, inputs: Sequence[Value | None]) -> list[Shape | None]:
    return [_shape(inputs, 0), (), ()]


def _shape_of(node: Node, inputs: Sequence[Value | None]) -> Shape:
    return (len(_shape(inputs, 0)[node.attributes.get("start", 0) : node.attributes.get("end")]),)


def _filled(node: Node, inputs: Sequence[Value | None]) -> Shape:
    return tuple(_ints(inputs, 0))


def _range(node: Node, inputs: Sequence[Value | None]) -> Shape:
    start, limit, step = (float(_scalar(inputs, place)) for place in range(3))
    if abs(limit - start) > 1 << 62:
        # Whole numbers of 64 bits run over there.
        raise ValueError
    return (max(0, math.ceil((limit - start) / step)),)


def _scalar(inputs: Sequence[Value | None], place: int) -> Any:
    value = inputs[place]
    if value is None or value.numbers is None:
        raise ValueError
    return value.numbers.reshape(-1)[0]


def _expanded(node: Node, inputs: Sequence[Value | None]) -> Shape:
    return _broadcast(_shape(inputs, 0), tuple(_ints(inputs, 1)))


def _tiled(node: Node, inputs: Sequence[Value | None]) -> Shape:
    return tuple(size * times for size, times in zip(_shape(inputs, 0), _ints(inputs, 1), strict=True))


def _padded(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, pads = list(_shape(inputs, 0)), _ints(inputs, 1)
    axes = _ints(inputs, 3) if _given(inputs, 3) is not None else list(range(len(shape)))
    for place, axis in enumerate(axes):
        shape[axis] = max(0, shape[axis] + pads[place] + pads[place + len(axes)])
    return tuple(shape)


def _reshaped(node: Node, inputs: Sequence[Value | None]) -> Shape:
    old, new = _shape(inputs, 0), _ints(inputs, 1)
    if not node.attributes.get("allowzero", 0):
        new = [old[place] if size == 0 else size for place, size in enumerate(new)]
    rest = math.prod(size for size in new if size != -1)
    return tuple(math.prod(old) // max(1, rest) if size == -1 else size for size in new)


def _flattened(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, axis = _shape(inputs, 0), node.attributes.get("axis", 1)
    return math.prod(shape[:axis]), math.prod(shape[axis:])


def _squeezed(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, axes = _shape(inputs, 0), _axes(node, inputs, 1)
    gone = {axis % len(shape) for axis in axes} if axes is not None else {k for k, n in enumerate(shape) if n == 1}
    return tuple(size for place, size in enumerate(shape) if place not in gone)


def _unsqueezed(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, axes = list(_shape(inputs, 0)), _axes(node, inputs, 1) or []
    rank = len(shape) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        shape.insert(axis, 1)
    return tuple(shape)


def _transposed(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape = _shape(inputs, 0)
    return tuple(shape[axis] for axis in node.attributes.get("perm", range(len(shape))[::-1]))


def _concatenated(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shapes = [_shape(inputs, place) for place in range(len(inputs))]
    axis, found = node.attributes["axis"], list(shapes[0])
    found[axis] = sum(shape[axis] for shape in shapes)
    return tuple(found)


def _split(node: Node, inputs: Sequence[Value | None]) -> list[Shape | None]:
    shape, axis, n = _shape(inputs, 0), node.attributes.get("axis", 0), len(node.outputs)
    whole = shape[axis]
    each = -(-whole // n)
    sizes = _ints(inputs, 1) if _given(inputs, 1) is not None else [min(each, whole - k * each) for k in range(n)]
    axis %= len(shape)
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def _sliced(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape = list(_shape(inputs, 0))
    for axis, part in _slices(inputs, len(shape)).items():
        shape[axis] = len(range(*part.indices(shape[axis])))
    return tuple(shape)


def _slices(inputs: Sequence[Value | None], rank: int) -> dict[int, slice]:
    starts, ends = _ints(inputs, 1), _ints(inputs, 2)
    axes = _ints(inputs, 3) if _given(inputs, 3) is not None else list(range(len(starts)))
    steps = _ints(inputs, 4) if _given(inputs, 4) is not None else [1] * len(starts)
    found = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        found[axis % rank] = slice(start, end, step)
    return found


def _gathered(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, chosen, axis = _shape(inputs, 0), _shape(inputs, 1), node.attributes.get("axis", 0)
    axis %= len(shape)
    return shape[:axis] + chosen + shape[axis + 1 :]


def _as_indices(node: Node, inputs: Sequence[Value | None]) -> Shape:
    return _shape(inputs, 1)


def _product(node: Node, inputs: Sequence[Value | None]) -> Shape:
    # Operators on 8 bits name scales between their matrices.
    left, right = _shape(inputs, 0), _shape(inputs, 3 if node.operator == "QLinearMatMul" else 1)
    rows = left[-2:-1]
    columns = right[-1:] if len(right) > 1 else ()
    return _broadcast(left[:-2], right[:-2]) + rows + columns


def _gemm(node: Node, inputs: Sequence[Value | None]) -> Shape:
    left, right = _shape(inputs, 0), _shape(inputs, 1)
    return left[1 if node.attributes.get("transA") else 0], right[0 if node.attributes.get("transB") else 1]


def _windows(shape: Shape, kernel: Sequence[int], node: Node) -> Shape:
    """The sizes that convolutions and pooling leave."""
    n = len(kernel)
    strides, dilations = node.attributes.get("strides", [1] * n), node.attributes.get("dilations", [1] * n)
    pads = node.attributes.get("pads", [0] * (2 * n))
    same = node.attributes.get("auto_pad", b"NOTSET").startswith(b"SAME")
    up = node.attributes.get("ceil_mode", 0)
    found = []
    for k, size in enumerate(shape[2:]):
        room = size + pads[k] + pads[k + n] - (kernel[k] - 1) * dilations[k] - 1
        found.append(-(-size // strides[k]) if same else max(0, (room + up * (strides[k] - 1)) // strides[k] + 1))
    return tuple(found)


def _convolved(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, weights = _shape(inputs, 0), _shape(inputs, 3 if node.operator == "QLinearConv" else 1)
    return shape[0], weights[0], *_windows(shape, weights[2:], node)


def _pooled(node: Node, inputs: Sequence[Value | None]) -> list[Shape | None]:
    shape = _shape(inputs, 0)
    found = shape[:2] + _windows(shape, node.attributes["kernel_shape"], node)
    return [found, found]


def _pooled_wholly(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape = _shape(inputs, 0)
    return shape[:2] + (1,) * (len(shape) - 2)


def _reduced(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, axes = _shape(inputs, 0), _axes(node, inputs, 1)
    if not axes and node.attributes.get("noop_with_empty_axes"):
        return shape
    gone = {axis % len(shape) for axis in axes} if axes else set(range(len(shape)))
    return _without(shape, gone, node)


def _without(shape: Shape, gone: set[int], node: Node) -> Shape:
    if node.attributes.get("keepdims", 1):
        return tuple(1 if place in gone else size for place, size in enumerate(shape))
    return tuple(size for place, size in enumerate(shape) if place not in gone)


def _highest(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape = _shape(inputs, 0)
    return _without(shape, {node.attributes.get("axis", 0) % len(shape)}, node)


def _top(node: Node, inputs: Sequence[Value | None]) -> list[Shape | None]:
    found, axis = list(_shape(inputs, 0)), node.attributes.get("axis", -1)
    found[axis] = _ints(inputs, 1)[0]
    return [tuple(found), tuple(found)]


def _one_hot(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, axis = _shape(inputs, 0), node.attributes.get("axis", -1)
    axis %= len(shape) + 1
    return (*shape[:axis], _ints(inputs, 1)[0], *shape[axis:])


def _recurrent(node: Node, inputs: Sequence[Value | None]) -> list[Shape | None]:
    length, batch, _ = _shape(inputs, 0)
    directions, _, hidden = _shape(inputs, 2)
    state = (directions, batch, hidden)
    return [(length, directions, batch, hidden), state, state]


Rule = Callable[[Node, Sequence[Value | None]], "Shape | list[Shape | None]"]

_SAME = (
    "Abs BatchNormalization Ceil Clip Cos CumSum DequantizeLinear Dropout Elu Erf Exp Floor Gelu "
    "GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu "
    "Log LogSoftmax Mish Neg Not QuantizeLinear Reciprocal Relu Round ScatterElements ScatterND Selu Sigmoid Sign Sin "
    "Softmax Softplus Softsign Sqrt Tanh Trilu"
)
_ELEMENTWISE = (
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mod Mul Or PRelu Pow Sub Sum Where Xor"
)
_REDUCING = "ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME.split(), _same),
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_REDUCING.split(), _reduced),
    "ArgMax": _highest,
    "ArgMin": _highest,
    "AveragePool": _pooled,
    "Cast": _cast,
    "Concat": _concatenated,
    "ConstantOfShape": _filled,
    "Conv": _convolved,
    "ConvInteger": _convolved,
    "DynamicQuantizeLinear": _quantised,
    "Expand": _expanded,
    "Flatten": _flattened,
    "GRU": _recurrent,
    "Gather": _gathered,
    "GatherElements": _as_indices,
    "Gemm": _gemm,
    "GlobalAveragePool": _pooled_wholly,
    "GlobalMaxPool": _pooled_wholly,
    "LSTM": _recurrent,
    "MatMul": _product,
    "MatMulInteger": _product,
    "MaxPool": _pooled,
    "OneHot": _one_hot,
    "Pad": _padded,
    "QLinearConv": _convolved,
    "QLinearMatMul": _product,
    "Range": _range,
    "Reshape": _reshaped,
    "Shape": _shape_of,
    "Slice": _sliced,
    "Split": _split,
    "Squeeze": _squeezed,
    "Tile": _tiled,
    "TopK": _top,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}

# The arithmetic of shapes.
_NUMBERS: dict[str, Callable[..., Any]] = {
    "Abs": np.abs, "Add": np.add, "And": np.logical_and, "Ceil": np.ceil, "Equal": np.equal, "Floor": np.floor,
    "Greater": np.greater, "GreaterOrEqual": np.greater_equal, "Identity": np.array, "Less": np.less,
    "LessOrEqual": np.less_equal, "Max": np.maximum, "Min": np.minimum, "Mod": np.mod, "Mul": np.multiply,
    "Neg": np.negative, "Not": np.logical_not, "Or": np.logical_or, "Round": np.round, "Sqrt": np.sqrt,
    "Sub": np.subtract, "Where": np.where,
}  # fmt: skip


def _computed(node: Node, inputs: Sequence[Value | None], shape: Shape) -> np.ndarray | None:
    """The numbers of a small result, where they are followed; of the shape that the rule found."""
    if node.operator == "Shape":
        sizes = _shape(inputs, 0)[node.attributes.get("start", 0) : node.attributes.get("end")]
        return np.array(sizes, np.int64)
    if any(each is not None and each.numbers is None for each in inputs):
        return None
    given = [each.numbers for each in inputs if each is not None and each.numbers is not None]
    with np.errstate(all="ignore"):
        found = _number_rule(node, inputs, given, shape)
    return None if found is None else np.asarray(found).reshape(shape)


def _number_rule(
    node: Node, inputs: Sequence[Value | None], given: list[np.ndarray], shape: Shape
) -> np.ndarray | None:
    name, first = node.operator, given[0]
    found: Any = None
    if name in _NUMBERS:
        found = _NUMBERS[name](*given)
    elif name == "Div":
        if first.dtype.kind == "f":
            found = first / given[1]
        elif given[1].all():
            # Towards zero.
            found = np.sign(first) * np.sign(given[1]) * (np.abs(first) // np.abs(given[1]))
    elif name == "Cast" and node.attributes["to"] in KINDS:
        found = first.astype(KINDS[node.attributes["to"]])
    elif name in ("Flatten", "Reshape", "Squeeze", "Unsqueeze"):
        found = first
    elif name == "Transpose":
        found = first.transpose(node.attributes.get("perm"))
    elif name == "Concat":
        found = np.concatenate(given, axis=node.attributes["axis"])
    elif name == "Gather":
        found = np.take(first, given[1], axis=node.attributes.get("axis", 0))
    elif name == "Slice":
        parts = _slices(inputs, first.ndim)
        found = first[tuple(parts.get(axis, slice(None)) for axis in range(first.ndim))]
    elif name == "Range":
        found = first.reshape(-1)[0] + np.arange(shape[0]) * given[2].reshape(-1)[0]
    elif name == "ConstantOfShape":
        value = node.attributes.get("constant")
        filling = np.float32(0) if value is None else value.numbers.reshape(-1)[0]
        found = np.full(shape, filling)
    elif name == "Expand":
        found = np.broadcast_to(first, shape)
    elif name == "Tile":
        found = np.tile(first, given[1])
    elif name in ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"):
        if node.attributes.get("noop_with_empty_axes"):
            return None
        axes = _axes(node, inputs, 1)
        along = tuple(axes) if axes else None
        reduce = {"ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod, "ReduceSum": np.sum}[name]
        found = reduce(first, axis=along)  # type: ignore[operator]
    return found
