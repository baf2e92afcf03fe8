"""Every model of both registries as an ONNX file: the same logits for any batch and length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_speech import FAMILIES
from tiny_speech import encoder as tiny_encoder
from tiny_text import encoder as tiny_text_encoder
from torch import Tensor, nn

import samo_audio.models
import samo_text.models
from samo.data.padding import packed, padded
from samo.deploy.exporter import CosineMatrix, Exporter
from samo.deploy.onnx_file import OPSET, compacted, merged, write_onnx
from samo.deploy.quantise import quantised
from samo.encoders.fitted_heads import KernelHead
from samo.encoders.settings import EncoderSettings
from samo.errors import SettingsError
from samo.prediction.onnx_file import check_network, look_through
from samo.prediction.readings import AudioReading, AudioReadings
from samo.runs.ensemble_model import Ensemble
from samo.tasks import LabelSpace, Task
from samo_audio.audio_model import AudioModel
from samo_audio.config import AudioConfig
from samo_audio.exporting import AudioExporter
from samo_audio.frontend import AudioFrontend
from samo_audio.models import build_whole
from samo_audio.models.whole_clips import WholeClips
from samo_audio.window_feeds import WindowFeeds
from samo_text.config import TextConfig
from samo_text.exporting import TextExporter
from samo_text.frontend import TextFrontend
from samo_text.models import build_model

SPACE = LabelSpace((Task("emotion", ("a", "b", "c")), Task("mood", ("bad", "good"), multi_label=True)))
SMALL = {"sr": 8000, "duration": 0.5, "n_mels": 32, "n_fft": 256, "hop_length": 64}
WIDE = {"sr": 32_000, "duration": 0.4}
Made = tuple[nn.Module, Any]


def settled(model: nn.Module) -> nn.Module:
    """A model in which nothing is zero or one by its start, so that no part of it goes unseen."""
    generator = torch.Generator().manual_seed(1)
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point() and (name.endswith("running_mean") or not tensor.any()):
            tensor.normal_(0.0, 0.1, generator=generator)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def speech(tmp_path: Path, **values: Any) -> Made:
    config = AudioConfig.build(values)
    return settled(AudioFrontend.build_model(config, SPACE)), config


def speech_encoder(tmp_path: Path, family: str, **values: Any) -> Made:
    place = tiny_encoder(tmp_path / family, family)
    config = AudioConfig.build({"model": "encoder", "encoder": str(place), "duration": 1.0, **values})
    model = build_whole(config, SPACE)
    assert model is not None
    return settled(model), config


def text(tmp_path: Path, **values: Any) -> Made:
    config = TextConfig.build({"hash_buckets": 256, **values} if values["model"] in ("textcnn", "bigru") else values)
    return settled(TextFrontend.build_model(config, SPACE)), config


def text_encoder(tmp_path: Path, **values: Any) -> Made:
    config = TextConfig.build({"encoder": str(tiny_text_encoder(tmp_path / "bert")), "max_tokens": 20, **values})
    return settled(build_model(config, SPACE)), config


def ensemble(tmp_path: Path, combine: str) -> Made:
    members = [speech(tmp_path, model="small-cnn", width=4, **SMALL, level=level)[0] for level in ("active", "peak")]
    temperatures = [{"emotion": 1.5, "mood": 0.8}, {}]
    model = Ensemble(members, [0.7, 0.3], temperatures, SPACE, combine, [{"mood": [0.3, 0.6]}, {}])
    return model.eval(), AudioConfig.build({"model": "small-cnn", "width": 4, **SMALL})


Case = tuple[Callable[..., Made], dict[str, Any]]
AUDIO: dict[str, Case] = {
    "small-cnn": (speech, {"model": "small-cnn", "width": 4, **SMALL}),
    "small-cnn-train": (speech, {"model": "small-cnn", "width": 4, **SMALL, "normalisation": "train", "level": "peak"}),
    "small-cnn-odd-fft": (speech, {"model": "small-cnn", "width": 4, **SMALL, "n_fft": 250, "mel_scale": "htk"}),
    "small-cnn-pcen-deltas": (
        speech,
        {"model": "small-cnn", "width": 4, **SMALL, "compression": "pcen", "deltas": 2},
    ),
    "small-cnn-pooled": (
        speech,
        {"model": "small-cnn", "width": 4, **SMALL, "pooling": "attention+mean-sd+max", "frequency_bins": 2},
    ),
    "resnet18": (speech, {"model": "resnet18", **SMALL}),
    "resnet18-pooled": (speech, {"model": "resnet18", **SMALL, "pooling": "mean-sd"}),
    **{name: (speech, {"model": name, **WIDE}) for name in ("mn04", "mn05", "mn10", "mn20", "mn30", "mn40")},
    "cnn6": (speech, {"model": "cnn6", **WIDE}),
    "cnn14": (speech, {"model": "cnn14", **WIDE}),
    "functionals": (speech, {"model": "functionals", "sr": 8000, "duration": 0.5}),
    "functionals-as-is": (speech, {"model": "functionals", "sr": 8000, "duration": 0.5, "level": "as-is"}),
    "functionals-level": (speech, {"model": "functionals", "sr": 8000, "duration": 0.5, "functional_set": "level"}),
    **{f"encoder-{family}": (speech_encoder, {"family": family}) for family in FAMILIES},
    "encoder-all-layers": (
        speech_encoder,
        {"family": "whisper", "layers": "all", "freeze_encoder": True, "head": "logreg"},
    ),
    "encoder-kernel": (
        speech_encoder,
        {"family": "whisper", "layers": "all", "freeze_encoder": True, "head": "kernel", "head_centres": 8},
    ),
    "encoder-attention": (speech_encoder, {"family": "wav2vec2-large", "pooling": "attention+max+cls"}),
    "ensemble-mean": (ensemble, {"combine": "mean"}),
    "ensemble-vote": (ensemble, {"combine": "vote"}),
}
TEXT: dict[str, Case] = {
    "textcnn": (text, {"model": "textcnn"}),
    "bigru": (text, {"model": "bigru", "pooling": "max+attention"}),
    "tfidf": (text, {"model": "tfidf"}),
    "encoder-bert": (text_encoder, {}),
    "encoder-votes": (
        text_encoder,
        {"pooling": "last4-mean+cls", "dropout_samples": 4, "dropout_inference": "vote", "head_layers": 2},
    ),
}
# One of each kind: an export takes a second, so its siblings are in the slow lane. Of the encoders of speech that is
# the one with a mask and the one without.
QUICK = {
    "small-cnn", "small-cnn-pooled", "mn04", "functionals", "encoder-whisper", "encoder-wav2vec2", "ensemble-vote",
    "textcnn", "bigru", "tfidf", "encoder-votes",
}  # fmt: skip
# The length of the input whose sizes are looked at; an export that several tests look at is made once.
SIZED = {
    "small-cnn": 4000, "functionals": 4000, "encoder-wav2vec2": 16_000, "ensemble-vote": 4000, "bigru": 33,
    "encoder-votes": 20,
}  # fmt: skip


def cases(known: dict[str, Case]) -> list[Any]:
    return [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in known]


@dataclass(frozen=True)
class Exported:
    """A model, its settings, and the file that was made of it, opened."""

    model: nn.Module
    config: Any
    exporter: type[Exporter]
    file: Path
    opened: Any
    outputs: tuple[str, ...]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Export a case by its name."""
    kept: dict[str, Exported] = {}

    def exported(name: str) -> Exported:
        if name in kept:
            return kept[name]
        exporter: type[Exporter] = AudioExporter if name in AUDIO else TextExporter
        make, values = (AUDIO | TEXT)[name]
        folder = tmp_path_factory.mktemp("export")
        model, config = make(folder, **values)
        found = Exported(
            model, config, exporter, folder / "file.onnx", *written(model, config, exporter, folder / "file.onnx")
        )
        if name in SIZED:
            kept[name] = found
        return found

    return exported


def test_every_registered_model_has_a_case() -> None:
    assert {values["model"] for _, values in AUDIO.values() if "model" in values} | {"encoder"} == set(
        samo_audio.models.MODELS
    )
    assert {values["model"] for _, values in TEXT.values() if "model" in values} | {"encoder"} == set(
        samo_text.models.MODELS
    )


def written(model: nn.Module, config: Any, exporter: type[Exporter], path: Path) -> tuple[Any, tuple[str, ...]]:
    """A session over the model's file, and the file's outputs."""
    module = exporter.exportable(model)
    example = exporter.example(config, model)
    outputs = write_onnx(module, example, path, axes=exporter.axes(model))
    compacted(path, exporter.cosines(module))
    check_network(look_through(path.read_bytes()), example[0].shape[1])
    return session(path), outputs


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answered(opened: Any, exporter: type[Exporter], batch: tuple[Tensor, Tensor], output: str = "logits") -> np.ndarray:
    given = dict(zip(exporter.inputs, (each.numpy() for each in batch), strict=True))
    found: np.ndarray = opened.run([output], given)[0]
    return found


def sounds(window: int, lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Noise that swells, each clip padded behind its end."""
    generator, places = torch.Generator().manual_seed(seed), torch.arange(window)
    noise = 0.1 * torch.randn(len(lengths), window, generator=generator) * (1.1 + torch.sin(places / 300.0))
    return noise * (places[None, :] < torch.tensor(lengths)[:, None]), torch.tensor(lengths)


@pytest.mark.parametrize("name", cases(AUDIO))
def test_speech_models_give_the_same_logits(name: str, export: Callable[[str], Exported]) -> None:
    made = export(name)
    model, opened, window = made.model, made.opened, made.config.features.window
    # One clip and three; a clip of a third of the window; waveforms longer and shorter than the exporter was shown.
    batches = [
        sounds(window, [window], 0),
        sounds(window, [window // 3, window, window - 7], 1),
        sounds(window + 1111, [window + 1111, window // 2], 2),
        sounds(window - 801, [window - 801], 3),
    ]
    for inputs, lengths in batches:
        with torch.no_grad():
            expected = model(inputs, lengths)
        found = answered(opened, AudioExporter, (inputs, lengths))
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-3 if name.startswith("functionals") else 1e-4)
    assert ("features" in made.outputs) == isinstance(model, AudioModel)
    if isinstance(model, AudioModel):
        inputs, lengths = batches[1]
        with torch.no_grad():
            expected = model.spectrograms(inputs, lengths)
        features = answered(opened, AudioExporter, (inputs, lengths), "features")
        np.testing.assert_allclose(features, expected.numpy(), atol=1e-3)
        assert features.std() > 0.1


@pytest.mark.parametrize("name", cases(TEXT))
def test_text_models_give_the_same_logits(name: str, export: Callable[[str], Exported]) -> None:
    made = export(name)
    highest = 20 if "encoder" in made.config.model.model else 2**62
    for lengths in ([9], [1, 17, 4], [20, 2]):
        ids = torch.randint(5, highest, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(2))
        n = torch.tensor(lengths)
        ids = ids * (torch.arange(max(lengths))[None, :] < n[:, None])
        with torch.no_grad():
            expected = made.model(ids, n).numpy()
        np.testing.assert_allclose(answered(made.opened, TextExporter, (ids, n)), expected, atol=1e-4)
    assert made.outputs == ("logits",)


@pytest.mark.parametrize("name", SIZED)
def test_sizes_found_without_computing_are_those_computed(name: str, export: Callable[[str], Exported]) -> None:
    made, length = export(name), SIZED[name]
    found = check_network(look_through(made.file.read_bytes()), length)
    network = onnx.load(str(made.file))
    outputs = {port.name for port in network.graph.output}
    tensors = [name for node in network.graph.node for name in node.output if name]
    network.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    opened = onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ids = torch.full((1, length), 7)
    inputs = ids if made.exporter is TextExporter else sounds(length, [length], 0)[0]
    given = dict(zip(made.exporter.inputs, (inputs.numpy(), np.array([length])), strict=True))
    n_followed = 0
    for tensor, computed in zip(tensors, opened.run(tensors, given), strict=True):
        assert found[tensor].shape == computed.shape, tensor
        numbers = found[tensor].numbers
        if numbers is not None:
            n_followed += 1
            np.testing.assert_allclose(numbers, computed, rtol=1e-6, err_msg=tensor)
    assert n_followed > 0.3 * len(tensors)


def test_what_stands_behind_the_end_of_a_clip_is_not_heard(export: Callable[[str], Exported]) -> None:
    opened = export("small-cnn").opened
    inputs, lengths = sounds(4000, [2000], 0)
    loud = inputs.clone()
    loud[:, 2000:] = 1.0
    np.testing.assert_array_equal(
        answered(opened, AudioExporter, (inputs, lengths)), answered(opened, AudioExporter, (loud, lengths))
    )


def test_matrices_stand_in_the_file_as_formulas(tmp_path: Path) -> None:
    model, config = speech(tmp_path, model="small-cnn", width=4, **{**SMALL, "n_fft": 1024})
    module, path = AudioExporter.exportable(model), tmp_path / "file.onnx"
    write_onnx(module, AudioExporter.example(config, model), path, axes=AudioExporter.axes(model))
    batch, large = sounds(4000, [4000, 900], 0), path.stat().st_size
    expected = answered(session(path), AudioExporter, batch)
    compacted(path, AudioExporter.cosines(module))
    np.testing.assert_array_equal(answered(session(path), AudioExporter, batch), expected)
    # Cosines and sines of 257 rows and all 513 bins, and filters of 513 x 32, in float32 were there; a table stays.
    assert large - path.stat().st_size > 0.97 * 4 * (2 * 257 * 513 + 513 * 32)
    assert onnx.load(str(path)).opset_import[0].version == OPSET == 18


def test_a_file_holds_the_centres_of_a_kernel_once(tmp_path: Path) -> None:
    settings = EncoderSettings(model="encoder", encoder="x", freeze_encoder=True, head="kernel", head_centres=50)
    head, vectors = settled(KernelHead(300, SPACE, settings)), torch.randn(4, 300)
    write_onnx(head, (vectors[:2],), tmp_path / "head.onnx", axes={"pooled": ("batch", "width")})
    tensors = [list(tensor.dims) for tensor in onnx.load(str(tmp_path / "head.onnx")).graph.initializer]
    assert sum(sorted(dims) == [50, 300] for dims in tensors) == 1
    assert (tmp_path / "head.onnx").stat().st_size < 4 * 50 * 300 + 20_000
    found = session(tmp_path / "head.onnx").run(["logits"], {"pooled": vectors.numpy()})[0]
    np.testing.assert_allclose(found, head(vectors).numpy(), atol=1e-5)


def test_a_matrix_that_is_no_formula_stays(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    full = np.random.default_rng(0).standard_normal((70, 70)).astype(np.float32)
    table = torch.cos(2 * torch.pi * torch.arange(100) / 100)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "full"], ["y"], name="product")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 70])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 70])], [numpy_helper.from_array(full, "full")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), str(tmp_path / "x.onnx"))
    before = (tmp_path / "x.onnx").read_bytes()
    compacted(tmp_path / "x.onnx", [CosineMatrix(table, 70, 0, 70, 1)])
    assert (tmp_path / "x.onnx").read_bytes() == before


def test_each_reading_is_an_input_and_windows_are_averaged_over_clips(tmp_path: Path) -> None:
    """Members of other rates, windows and views."""
    own = {"sr": 4000, "duration": 0.3, "tta_shift": 0.02, "n_fft": 128}
    made = [speech(tmp_path, model="small-cnn", width=4, **{**SMALL, **values}) for values in ({}, own)]
    readers = [WholeClips(model, config.features) for model, config in made]
    weights, temperatures = [0.7, 0.3], [{"emotion": 1.5, "mood": 0.8}, {}]
    model = Ensemble([each for each, _ in made], weights, temperatures, SPACE, "mean", (), (1, 0), 2, readers).eval()
    module, path = AudioExporter.exportable(model), tmp_path / "file.onnx"
    axes = AudioExporter.axes(model)
    assert write_onnx(module, AudioExporter.example(made[0][1], model), path, axes=axes) == ("logits",)
    merged(path)
    parts = [AudioReading(sr=4000, window=1200, trim_db=0.0, tta_shift=0.02)]
    parts.append(AudioReading(sr=8000, window=4000, trim_db=0.0))
    readings = AudioReadings(parts=tuple(parts), window_s=0.5)
    assert readings.inputs.keys() == axes.keys()
    check_network(look_through(path.read_bytes()), {name: given.usual for name, given in readings.inputs.items()})
    opened, rows = session(path), []
    for k, seconds in enumerate((0.5, 0.9, 0.2)):
        low, high = (sounds(round(sr * seconds), [round(sr * seconds)], k)[0][0].numpy() for sr in (4000, 8000))
        rows.append(packed([low, high]))
    inputs, lengths = padded(rows)
    with torch.no_grad():
        expected = model(torch.from_numpy(inputs), torch.from_numpy(lengths)).numpy()
    # Of 4 kHz 2, 3 and 1 windows in 3 views, of 8 kHz 1, 2 and 1.
    (given,) = WindowFeeds(parts)(inputs, lengths)
    assert [given[f"waveform.{k}"].shape for k in (0, 1)] == [(18, 1200), (4, 4000)]
    assert given["shares.1"].tolist() == [[1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 1.0]]
    np.testing.assert_allclose(opened.run(["logits"], given)[0], expected, atol=1e-4)
    # The fifth clip would make it more than 32 windows.
    twice = list(WindowFeeds(parts)(np.tile(inputs, (2, 1)), np.tile(lengths, 2)))
    assert [len(each["shares.0"]) for each in twice] == [4, 2]
    found = np.concatenate([opened.run(["logits"], each)[0] for each in twice])
    np.testing.assert_allclose(found, np.tile(expected, (2, 1)), atol=1e-4)


@pytest.mark.parametrize("exporter", [AudioExporter, TextExporter])
@pytest.mark.parametrize("reads", [(0, 0), (1, 1)])
def test_a_reading_that_no_member_has_is_refused(exporter: type[Exporter], reads: tuple[int, int]) -> None:
    model = Ensemble([nn.Identity(), nn.Identity()], [0.5, 0.5], [{}, {}], SPACE, "mean", (), reads, 2)
    with pytest.raises(SettingsError, match="had weight 0 and is not in the ensemble") as caught:
        exporter.exportable(model)
    assert caught.value.hint == "build the ensemble again of its other members"


def test_what_stands_twice_in_a_file_stands_there_once(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, number: float) -> Any:
        return numpy_helper.from_array(np.array([number], np.float32), name)

    node = helper.make_node
    nodes = [
        node("Add", ["x", "one"], ["a"]), node("Identity", ["uno"], ["same"]), node("Add", ["x", "same"], ["b"]),
        node("Add", ["x", "two"], ["c"]), node("Softmax", ["a"], ["d"], axis=0), node("Softmax", ["b"], ["e"], axis=0),
        node("Softmax", ["a"], ["f"], axis=1), node("Add", ["d", "e"], ["g"]), node("Add", ["g", "f"], ["h"]),
        node("Add", ["h", "c"], ["y"]), node("Add", ["h", "c"], ["z"]),
    ]  # fmt: skip
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in "xyz"]
    weights = [constant("one", 1.0), constant("uno", 1.0), constant("two", 2.0)]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    path = tmp_path / "x.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    given = {"x": np.float32([[0.5, -1.0], [2.0, 0.0]])}
    before = session(path).run(["y", "z"], given)
    merged(path)
    found = onnx.load(str(path)).graph
    assert [each.name for each in found.initializer] == ["one", "two"]
    # What the file gives keeps its name.
    assert [(list(each.input), each.output[0]) for each in found.node] == [
        (["x", "one"], "a"), (["x", "two"], "c"), (["a"], "d"), (["a"], "f"), (["d", "d"], "g"), (["g", "f"], "h"),
        (["h", "c"], "y"), (["h", "c"], "z"),
    ]  # fmt: skip
    np.testing.assert_array_equal(session(path).run(["y", "z"], given), before)


def test_operators_that_give_other_outputs_are_two(tmp_path: Path) -> None:
    """One gives where each number went, one where each came from; the third is the first again."""
    from onnx import TensorProto, helper

    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Unique", ["x"], ["a", "", "to"]), node("Unique", ["x"], ["b", "from", ""]),
        node("Unique", ["x"], ["c", "", "again"]), node("Gather", ["a", "to"], ["d"]),
        node("Gather", ["b", "from"], ["e"]), node("Gather", ["c", "again"], ["f"]), node("Clip", ["f", "", ""], ["g"]),
        node("Sum", ["d", "e", "g"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "g", *([value(name, TensorProto.FLOAT, [None])] for name in "xy"))
    path = tmp_path / "x.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    merged(path)
    assert [(each.op_type, *each.input) for each in onnx.load(str(path)).graph.node] == [
        ("Unique", "x"), ("Unique", "x"), ("Gather", "a", "to"), ("Gather", "b", "from"), ("Clip", "d", "", ""),
        ("Sum", "d", "e", "g"),
    ]  # fmt: skip


def test_the_last_layer_stays_in_float32(tmp_path: Path) -> None:
    """Also where windows are averaged over behind it; of the two layers the first alone is in 8 bits."""
    from onnx import TensorProto, helper, numpy_helper

    value, node, random = helper.make_tensor_value_info, helper.make_node, np.random.default_rng(0)
    weights = {"first": (64, 64), "last": (64, 3)}
    held = [
        numpy_helper.from_array(random.standard_normal(size).astype(np.float32), name) for name, size in weights.items()
    ]
    nodes = [
        node("Gemm", ["x", "first"], ["a"], name="/body/Gemm"), node("Gemm", ["a", "last"], ["b"], name="/head/Gemm"),
        node("MatMul", ["shares", "b"], ["logits"], name="/MatMul"),
    ]  # fmt: skip
    ports = [value("x", TensorProto.FLOAT, ["n", 64]), value("shares", TensorProto.FLOAT, ["b", "n"])]
    graph = helper.make_graph(nodes, "g", ports, [value("logits", TensorProto.FLOAT, ["b", 3])], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(tmp_path / "x.onnx"))
    quantised(tmp_path / "x.onnx", tmp_path / "q.onnx", AudioExporter, "dynamic", [])
    found = [each.name for each in onnx.load(str(tmp_path / "q.onnx")).graph.node if "MatMul" in each.op_type]
    assert found == ["/body/Gemm_MatMul_quant", "/head/Gemm_MatMul", "/MatMul"]


@pytest.mark.slow
def test_a_frozen_encoder_of_several_members_is_stored_and_computed_once(tmp_path: Path) -> None:
    tuned = speech_encoder(tmp_path, family="whisper", duration=1.5)
    frozen = {"family": "whisper", "freeze_encoder": True, "layers": "all", "pooling": "mean-sd"}
    others = [speech_encoder(tmp_path, **frozen, head=head) for head in ("logreg", "network")]

    def products(members: list[Made]) -> tuple[int, int]:
        """Products in the file of an ensemble, and its bytes."""
        reads = tuple(int(config.features.duration < 1.5) for _, config in members)
        readers = [WholeClips(model, config.features) for model, config in members]
        n, path = len(members), tmp_path / f"{len(members)}.onnx"
        model = Ensemble([each for each, _ in members], [1 / n] * n, [{}] * n, SPACE, "mean", (), reads, 2, readers)
        model.eval()
        module = AudioExporter.exportable(model)
        write_onnx(module, AudioExporter.example(tuned[1], model), path, axes=AudioExporter.axes(model))
        compacted(path, AudioExporter.cosines(module))
        merged(path)
        return sum(node.op_type in ("MatMul", "Gemm") for node in onnx.load(str(path)).graph.node), path.stat().st_size

    (two, size), (three, larger) = products([tuned, others[0]]), products([tuned, *others])
    # A head, and the mean over its windows.
    assert 2 <= three - two <= 4
    assert larger < 1.2 * size


def test_what_another_program_computes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from samo_audio import functionals

    class Smile(functionals.EgemapsFunctionals):
        def __init__(self) -> None:
            nn.Module.__init__(self)

    with pytest.raises(SettingsError, match="openSMILE"):
        AudioExporter.exportable(nn.Sequential(Smile()))
