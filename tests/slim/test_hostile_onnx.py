"""Hostile and foreign networks in model files: each ends in one line, and nothing of it is computed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_onnx as tiny
from onnx import TensorProto, helper, numpy_helper
from refusals import refusal

from samo.prediction import exported
from samo.prediction.onnx_file import look_through


def external_constant(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value="/etc/passwd"))


def external_attribute(model: onnx.ModelProto) -> None:
    tensor = onnx.TensorProto(data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))


def in_a_branch(model: onnx.ModelProto) -> None:
    """External data in the graph of an attribute of an operator that is no control flow by name."""
    tensor = onnx.TensorProto(name="x", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    inner = helper.make_graph([], "inner", [], [], [tensor])
    model.graph.node[0].attribute.append(helper.make_attribute("body", inner))


def nested(model: onnx.ModelProto) -> None:
    graph = helper.make_graph([], "g", [], [])
    for _ in range(10):
        node = helper.make_node("Cast", [], [])
        node.attribute.append(helper.make_attribute("body", graph))
        graph = helper.make_graph([node], "g", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute("body", graph))


def own_operator(model: onnx.ModelProto) -> None:
    model.graph.node[-1].domain = "evil.ops"


def microsoft_operator(model: onnx.ModelProto) -> None:
    model.graph.node[-1].domain = "com.microsoft"


def own_opset(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))


def own_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(helper.make_function("f.f", "Twice", ["x"], ["y"], [node], model.opset_import))


def loop(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Loop", ["one"], ["l"]))


def training(model: onnx.ModelProto) -> None:
    model.training_info.append(onnx.TrainingInfoProto())


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.append(onnx.SparseTensorProto())


def two_gigabytes(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].dims[:] = [1 << 29, 1]


def below_zero(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].dims[:] = [-1, 3]


def huge_result(model: onnx.ModelProto) -> None:
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 12], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["zeros"]))


def huge_constant_node(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Constant", [], ["shape"], value_ints=[1 << 40]))
    model.graph.node.insert(1, helper.make_node("Expand", ["one", "shape"], ["ones"]))


def renamed_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "sound"


def second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, ["batch", 1]))


def no_output(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def double_samples(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def three_dimensions(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 1


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def four_labels(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4


def shapeless(model: onnx.ModelProto) -> None:
    model.graph.input[1].type.tensor_type.ClearField("shape")


def biased(model: onnx.ModelProto, value: float) -> None:
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.array([0.0, value, 0.0], np.float32), "bias"))


def no_number(model: onnx.ModelProto) -> None:
    biased(model, np.nan)


def infinite(model: onnx.ModelProto) -> None:
    biased(model, np.inf)


def other_shape_than_told(model: onnx.ModelProto) -> None:
    """Nothing is told of the output's shape, and two numbers come where three labels are."""
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for tensor, array in (("weights", tiny.WEIGHTS[:, :2]), ("bias", tiny.BIAS[:2])):
        place = next(each for each in model.graph.initializer if each.name == tensor)
        place.CopyFrom(numpy_helper.from_array(array, tensor))


def cannot_be_computed(model: onnx.ModelProto) -> None:
    """A bias of whole numbers."""
    model.graph.node[-2].input[2] = "one"


CASES: list[tuple[Callable[[onnx.ModelProto], None], str]] = [
    (external_constant, "its constants lie in another file (external data)"),
    (external_attribute, "its constants lie in another file (external data)"),
    (in_a_branch, "its constants lie in another file (external data)"),
    (nested, "its graphs are nested too deeply"),
    (own_operator, "its operator Unsqueeze is of 'evil.ops'; only the standard's own are computed"),
    (microsoft_operator, "its operator Unsqueeze is of 'com.microsoft'; only the standard's own are computed"),
    (own_opset, "it uses operators of 'evil.ops'; only the standard's own are computed"),
    (own_function, "it holds functions of its own; only plain operators are computed"),
    (loop, "it holds control flow (Loop); only plain operators are computed"),
    (training, "it holds a training graph"),
    (sparse, "it holds sparse constants"),
    (two_gigabytes, "a constant claims 536,870,912 numbers that the file does not hold"),
    (below_zero, "a constant has a size below 0"),
    (huge_result, "its operator ConstantOfShape makes 4,294,967,296 numbers"),
    (huge_constant_node, "its operator Expand makes 1,099,511,627,776 numbers"),
    (renamed_input, "its inputs are sound, lengths; a model has lengths, waveform"),
    (second_output, "its outputs are logits, features, m; a model has logits"),
    (no_output, "its outputs are none; a model has logits"),
    (double_samples, "'waveform' is not of float32 numbers"),
    (three_dimensions, "'waveform' has 3 dimensions instead of 2"),
    (fixed_batch, "'waveform' has a dimension of 1 where any number must do"),
    (four_labels, "'logits' has a dimension of 4 where there are 3 labels"),
    (shapeless, "'lengths' does not say its shape"),
    (no_number, "its logits are not finite"),
    (infinite, "its logits are not finite"),
    (other_shape_than_told, "its logits have the shape (1, 2)"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "line"), CASES, ids=[change.__name__ for change, _ in CASES])
def test_what_a_network_must_not_be(change: Callable[[onnx.ModelProto], None], line: str, tmp_path: Path) -> None:
    assert refusal(tiny.write(tmp_path / "a.onnx", change=change)) == f"cannot use FILE: {line}"


def put_in(model: onnx.ModelProto, *nodes: onnx.NodeProto, **constants: Any) -> None:
    """Operators in front of all others, and constants of whole numbers unless they are arrays."""
    for name, value in constants.items():
        array = value if isinstance(value, np.ndarray) else np.array(value, np.int64)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for place, node in enumerate(nodes):
        model.graph.node.insert(place, node)


node = helper.make_node


M = 1_000_000


N_RANGE = 400 * M


def counted(model: onnx.ModelProto) -> None:
    put_in(model, node("Range", ["a", "b", "c"], ["r"]), a=0, b=N_RANGE, c=1)


def counted_in_floats(model: onnx.ModelProto) -> None:
    numbers = {name: np.array(value, np.float32) for name, value in (("a", 0), ("b", 4), ("c", 1e-8))}
    put_in(model, node("Range", ["a", "b", "c"], ["r"]), **numbers)


def counted_past_the_end(model: onnx.ModelProto) -> None:
    """The distance from the highest to the lowest number is negative, and in 64 bits positive."""
    put_in(model, node("Range", ["a", "b", "c"], ["r"]), a=2**63 - 1, b=-(2**63) + N_RANGE, c=1)


def counted_from_constant_nodes(model: onnx.ModelProto) -> None:
    put_in(
        model,
        node("Constant", [], ["a"], value_int=0),
        node("Constant", [], ["b"], value=numpy_helper.from_array(np.array(N_RANGE, np.int64))),
        node("Constant", [], ["c"], value_int=1),
        node("Range", ["a", "b", "c"], ["r"]),
    )


def shaped_by_a_product(model: onnx.ModelProto) -> None:
    put_in(
        model, node("Mul", ["a", "b"], ["shape"]), node("ConstantOfShape", ["shape"], ["r"]), a=[400_000], b=[1000]
    )  # fmt: skip


def shaped_by_arithmetic(model: onnx.ModelProto) -> None:
    """[[1, 7], [20000, 20001]] becomes [20000, 20000]."""
    put_in(
        model,
        node("Gather", ["table", "last"], ["row"], axis=0),
        node("Cast", ["row"], ["floats"], to=TensorProto.FLOAT),
        node("Cast", ["floats"], ["whole"], to=TensorProto.INT64),
        node("Slice", ["whole", "from", "to"], ["first"]),
        node("Squeeze", ["first"], ["scalar"]),
        node("Unsqueeze", ["scalar", "from"], ["again"]),
        node("Sub", ["again", "from"], ["less"]),
        node("Add", ["less", "from"], ["more"]),
        node("Div", ["more", "to"], ["same"]),
        node("Concat", ["same", "again"], ["shape"], axis=0),
        node("Expand", ["table_of_one", "shape"], ["r"]),
        **{"table": [[1, 7], [20_000, 20_001]], "last": 1, "from": [0], "to": [1], "table_of_one": [[1]]},
    )


def shaped_in_a_small_table(model: onnx.ModelProto) -> None:
    put_in(
        model, node("Tile", ["few", "times"], ["r"]), few=[[1, 2]], times=np.array([200, M], np.int64)
    )  # fmt: skip


def product_of_a_row_and_a_column(model: onnx.ModelProto) -> None:
    put_in(
        model,
        node("Expand", ["a", "tall"], ["column"]),
        node("Expand", ["a", "wide"], ["row"]),
        node("Mul", ["column", "row"], ["r"]),
        a=[[1]], tall=[20_000, 1], wide=[1, 20_000],
    )  # fmt: skip


def product_of_matrices(model: onnx.ModelProto) -> None:
    put_in(model, node("MatMul", ["a", "b"], ["r"]), a=np.ones((9000, 1)), b=np.ones((1, 9000)))


def gathered_rows(model: onnx.ModelProto) -> None:
    put_in(model, node("Gather", ["a", "b"], ["r"]), a=np.ones((1, 9000)), b=np.zeros(9000, np.int64))


def padded(model: onnx.ModelProto) -> None:
    put_in(model, node("Pad", ["waveform", "pads"], ["r"]), pads=[0, 0, 0, N_RANGE])


def padded_convolution(model: onnx.ModelProto) -> None:
    put_in(
        model,
        node("Unsqueeze", ["waveform", "one"], ["x"]),
        node("Conv", ["x", "kernel"], ["r"], pads=[0, N_RANGE]),
        kernel=np.ones((1, 1, 1), np.float32),
    )


def one_of_many(model: onnx.ModelProto) -> None:
    put_in(model, node("OneHot", ["lengths", "depth", "ends"], ["r"]), depth=N_RANGE, ends=[0, 1])


def spread_input(model: onnx.ModelProto) -> None:
    """What depends on an input is no constant, and as large."""
    put_in(model, node("Expand", ["lengths", "shape"], ["r"]), shape=[20_000, 20_000])


def cube_of_the_input(model: onnx.ModelProto) -> None:
    put_in(
        model,
        node("Unsqueeze", ["waveform", "behind"], ["x"]),
        node("Unsqueeze", ["waveform", "one"], ["y"]),
        node("Mul", ["x", "y"], ["square"]),
        node("Unsqueeze", ["square", "last"], ["z"]),
        node("Unsqueeze", ["waveform", "both"], ["w"]),
        node("Mul", ["z", "w"], ["r"]),
        behind=[2], last=[3], both=[1, 2],
    )  # fmt: skip


def sized_by_what_is_computed(model: onnx.ModelProto) -> None:
    put_in(
        model,
        node("ReduceMax", ["lengths"], ["longest"], keepdims=0),
        node("Add", ["longest", "b"], ["end"]),
        node("Range", ["a", "end", "c"], ["r"]),
        a=0, b=N_RANGE, c=1,
    )  # fmt: skip


def sized_later(model: onnx.ModelProto) -> None:
    put_in(
        model, node("ConstantOfShape", ["shape"], ["r"]), node("Mul", ["a", "b"], ["shape"]), a=[400_000], b=[1000]
    )  # fmt: skip


def many_constants(model: onnx.ModelProto) -> None:
    """Each of them is small enough."""
    put_in(model, *(node("Range", ["a", "b", "c"], [f"r{k}"]) for k in range(4)), a=0, b=20 * M, c=1)


def many_at_once(model: onnx.ModelProto) -> None:
    made = [f"r{k}" for k in range(8)]
    put_in(
        model, *(node("Expand", ["lengths", "shape"], [name]) for name in made), node("Max", made, ["r"]),
        shape=[50 * M],
    )  # fmt: skip


def drawn(model: onnx.ModelProto) -> None:
    put_in(model, node("RandomNormal", [], ["r"], shape=[20_000, 20_000]))


def resized(model: onnx.ModelProto) -> None:
    put_in(model, node("Resize", ["waveform", "", "", "sizes"], ["r"]), sizes=[1, N_RANGE])


def ambiguous(model: onnx.ModelProto) -> None:
    """A concatenation along 1, or along none: it depends on who reads it."""
    made = node("Concat", ["one", "one"], ["r"], axis=0)
    made.attribute[0].ints.extend([1])
    put_in(model, made)


def named_twice(model: onnx.ModelProto) -> None:
    put_in(model, node("Range", ["a", "c", "c"], ["one"]), a=0, c=1)


def texts(model: onnx.ModelProto) -> None:
    put_in(model, node("Cast", ["waveform"], ["r"], to=TensorProto.STRING))


LATER = "is known only when it is computed"


BOMBS: list[tuple[Callable[[onnx.ModelProto], None], str]] = [
    (counted, "its operator Range makes 400,000,000 numbers"),
    (counted_in_floats, "its operator Range makes 400,000,0"),
    (counted_past_the_end, f"how much its operator Range makes {LATER}"),
    (counted_from_constant_nodes, "its operator Range makes 400,000,000 numbers"),
    (shaped_by_a_product, "its operator ConstantOfShape makes 400,000,000 numbers"),
    (shaped_by_arithmetic, "its operator Expand makes 400,000,000 numbers"),
    (shaped_in_a_small_table, "its operator Tile makes 400,000,000 numbers"),
    (product_of_a_row_and_a_column, "its operator Mul makes 400,000,000 numbers"),
    (product_of_matrices, "its operator MatMul makes 81,000,000 numbers"),
    (gathered_rows, "its operator Gather makes 81,000,000 numbers"),
    (padded, "its operator Pad makes 400,004,000 numbers"),
    (padded_convolution, "its operator Conv makes 400,004,000 numbers"),
    (one_of_many, "its operator OneHot makes 400,000,000 numbers"),
    (spread_input, "its operator Expand makes 400,000,000 numbers"),
    (cube_of_the_input, "its operator Mul makes 64,000,000,000 numbers"),
    (sized_by_what_is_computed, f"how much its operator Range makes {LATER}"),
    (sized_later, "its operator ConstantOfShape needs 'shape', which nothing before it makes"),
    (many_constants, "its constants become 80,000,000 numbers"),
    (many_at_once, "its operators make 300,000,000 numbers at once"),
    (drawn, "its operator RandomNormal is none that SAMO writes"),
    (resized, "its operator Resize is none that SAMO writes"),
    (ambiguous, "its attribute 'axis' holds two things"),
    (named_twice, "it makes 'one' twice"),
    (texts, f"how much its operator Cast makes {LATER}"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "line"), BOMBS, ids=[change.__name__ for change, _ in BOMBS])
def test_small_files_that_take_much_memory(
    change: Callable[[onnx.ModelProto], None], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before onnxruntime sees them, and without making what they make."""
    monkeypatch.setattr(exported, "OnnxNetwork", None)
    path = tiny.write(tmp_path / "a.onnx", change=change)
    tracemalloc.start()
    try:
        found = refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.startswith(f"cannot use FILE: {line}")
    assert peak < 2_000_000


def test_what_onnxruntime_refuses_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert refusal(tiny.write(tmp_path / "a.onnx", change=cannot_be_computed)).startswith(
        "cannot use FILE: onnxruntime says [ONNXRuntimeError]"
    )
    assert capfd.readouterr() == ("", "")


def test_a_second_graph_is_not_merged_into_the_first(tmp_path: Path) -> None:
    """protobuf reads two fields of one message as one message: what was looked through would not be all."""
    path = tiny.write(tmp_path / "a.onnx")
    second = onnx.ModelProto()
    external_constant_of = tiny.network()
    external_constant(external_constant_of)
    second.graph.initializer.append(external_constant_of.graph.initializer[0])
    path.write_bytes(path.read_bytes() + second.SerializeToString())
    assert refusal(path) == "cannot use FILE: it holds two graphs"


def test_constants_among_the_inputs_are_no_inputs() -> None:
    """As models of the format's version 3 have them."""
    model = tiny.network()
    model.graph.input.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, [3]))
    found = look_through(model.SerializeToString())
    assert [port.name for port in found.inputs] == ["waveform", "lengths"]
    assert (found.inputs[1], found.opset) == (("lengths", TensorProto.INT64, (None,)), 18)
    assert [(port.name, port.shape) for port in found.outputs] == [
        ("logits", (None, 3)),
        ("features", (None, 1, None)),
    ]
