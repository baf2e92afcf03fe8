"""The finished file is opened as its users open it, and given what they give it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from tiny_exports import exported, left_in

from samo.data.manifest import Item, Manifest
from samo.deploy import export as module
from samo.deploy import file_formats, finished
from samo.errors import ExportError
from samo.prediction import Answer, Prediction
from samo.tasks import LabelSpace, Task


def test_a_fault_of_the_last_rewrite_is_found(before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = file_formats.save_metadata

    def spoiling(path: Path, about: dict[str, Any]) -> None:
        honest(path, about)
        if about["card"]:  # the last one
            model = onnx.load(str(path))
            tensor = next(each for each in model.graph.initializer if each.name.endswith("head.bias"))
            moved = onnx.numpy_helper.to_array(tensor) + np.float32([0.0, 0.0, 0.3])
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))
            onnx.save(model, str(path))

    monkeypatch.setattr(file_formats, "save_metadata", spoiling)
    for given in ({}, {"quantize": "int8", "force": True}):
        with pytest.raises(ExportError, match=r"is not written: (the finished file answers|probabilities of the fin)"):
            exported(before, **given)
    assert left_in(artifacts) == []


def test_an_int8_text_file_is_compared_in_its_own_batches(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[tuple[Any, Any]] = []
    honest = finished.answers_problem

    def noted(own: Any, made: Any, inputs: list[str]) -> str:
        shares.append(
            ([each.to_json() for each in own.stream(inputs)], [each.to_json() for each in made.stream(inputs)])
        )
        return honest(own, made, inputs)

    monkeypatch.setattr(finished, "answers_problem", noted)
    exported(before, "text", quantize="int8", force=True)
    ((one, other),) = shares
    assert one == other
    assert len(one) == 18


def test_probabilities_and_withheld_answers_of_the_finished_file_count() -> None:
    def stub(sad: float, abstained: bool = False) -> Any:
        answer = Answer(("sad",), "sad", {"sad": sad, "happy": 1.0 - sad}, abstained)
        return SimpleNamespace(stream=lambda inputs: [Prediction({"emotion": answer}) for _ in inputs])

    assert finished.answers_problem(stub(0.7), stub(0.7009), ["a", "b"]) == ""
    assert "lie up to 0.0011 from" in finished.answers_problem(stub(0.7), stub(0.7011), ["a", "b"])
    assert "answers 2 of 2 recordings or texts" in finished.answers_problem(stub(0.7), stub(0.7, True), ["a", "b"])


def test_a_part_of_a_recording_is_given_as_that_part(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.arange(8000) / 8000, 8000, subtype="FLOAT")
    space = LabelSpace((Task("emotion", ("sad", "happy")),))
    items = [
        Item("a", "a.wav", {}),
        Item("b", "a.wav", {}, segment=(0.5, 0.75)),
        Item("c", "a.wav", {}, segment=(0, 1)),
    ]
    frontend: Any = SimpleNamespace(manifest=Manifest("x", space, tuple(items), tmp_path), sr=8000)
    part, whole = module.exporter_type("audio").inputs_of(frontend, ["b", "a"])
    assert whole == tmp_path / "a.wav"
    assert (part.sr, len(part.waveform), part.waveform[0]) == (8000, 2000, pytest.approx(0.5))


def _reversed(about: dict[str, Any]) -> None:
    about["label_space"][0]["labels"] = about["label_space"][0]["labels"][::-1]


@pytest.mark.parametrize(
    ("run", "format", "change", "part"),
    [
        ("text", "onnx", _reversed, "label_space"),
        (
            "speech",
            "onnx",
            lambda about: about["decision"]["calibration"]["temperature"].update(emotion=3.0),
            "decision",
        ),
        ("text", "onnx", lambda about: about["reading"].update(max_tokens=127), "reading"),
        pytest.param("speech", "torch-export", _reversed, "label_space", marks=pytest.mark.slow),
        ("text", "safetensors", lambda about: about["reading"].update(max_tokens=127), "reading"),
    ],
)
def test_metadata_that_are_not_the_run_s_are_found(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str, format: str, change: Any, part: str
) -> None:
    honest = module.metadata_of

    def wrong(*given: Any) -> dict[str, Any]:
        about = json.loads(json.dumps(honest(*given)))
        change(about)
        return about

    monkeypatch.setattr(module, "metadata_of", wrong)
    to = tmp_path / "out" / f"a{file_formats.FILE_FORMATS[format].suffix}"
    with pytest.raises(ExportError, match=f"is not written: the finished file tells otherwise of its {part} than"):
        exported(before, run, format=format, to=to)
    assert list(to.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("run", "change"),
    [("speech", {"trim_db": 5.0}), ("speech", {"window": 2000}), ("text", {"max_tokens": 2})],
)
def test_a_file_that_reads_its_inputs_otherwise_is_found(
    before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch, run: str, change: dict[str, Any]
) -> None:
    kind = module.exporter_type("audio" if run == "speech" else "text")
    honest = kind.reading
    monkeypatch.setattr(kind, "reading", staticmethod(lambda *given: {**honest(*given), **change}))
    with pytest.raises(ExportError, match=r"the finished file answers|probabilities of the finished file"):
        exported(before, run)
