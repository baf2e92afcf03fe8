"""``samo.deploy.export.export`` and ``samo export``: the file, the check, the bars and what is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import numpy as np
import onnx
import pytest
import soundfile
import torch
from tone_corpora import done
from tone_corpora import samo as command
from torch import nn

import samo
from samo.data.manifest import Item, Manifest
from samo.deploy import export as module
from samo.deploy.card import with_section
from samo.deploy.export import export
from samo.deploy.onnx_file import write_onnx
from samo.deploy.parity import Parity, TaskParity, exact_problem, gain_problem, latencies, loss_problem
from samo.errors import DataError, DiskFull, ExportError, RunError, SettingsError
from samo.evaluation.abstention import NEVER, Abstention
from samo.evaluation.predictions import Predictions
from samo.prediction import Answer, Prediction
from samo.prediction.exported import AudioReading, ExportedModel, TextReading
from samo.runs.reporter import PlainReporter
from samo.runs.run import Run
from samo.tasks import LabelSpace, Task
from samo.training.checkpoint import read_metadata

QUIET = PlainReporter(quiet=True)


@pytest.fixture(scope="module")
def traced() -> dict[bytes, Any]:
    """What tracing gave, by the network."""
    return {}


@pytest.fixture
def before(before: Path, traced: dict[bytes, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """As elsewhere; and here exports are quick: the same network is traced once, and timed over three answers.

    Tracing takes half of an export; test_export_models.py traces every kind of network.
    """
    export_program = torch.export.export

    def once(kind: str, network: nn.Module, trace: Callable[[], Any]) -> Any:
        known = hashlib.sha256(f"{kind} {network}".encode())
        for name, tensor in chain(network.named_parameters(), network.named_buffers()):
            known.update(name.encode() + tensor.detach().numpy().tobytes())
        if known.digest() not in traced:
            traced[known.digest()] = trace()
        return traced[known.digest()]

    def write(network: nn.Module, example: Any, path: Path, **how: Any) -> Any:
        outputs, content = once("onnx", network, lambda: (write_onnx(network, example, path, **how), path.read_bytes()))
        path.write_bytes(content)
        return outputs

    def program(network: nn.Module, example: Any, **how: Any) -> Any:
        return once("program", network, lambda: export_program(network, example, **how))

    monkeypatch.setattr(module, "write_onnx", write)
    monkeypatch.setattr(torch.export, "export", program)
    monkeypatch.setattr("samo.deploy.parity._ROUNDS", 3)
    return before


def parity(**values: Any) -> Parity:
    given = {"largest_difference": 1e-6, "equal_labels": 1.0, "before": 0.5, "after": 0.5, "low": -0.01, "high": 0.01}
    return Parity(**{"part": "val", "n": 200, "unit": "speaker", "n_units": 4, **given, **values})


def exported(before: Path, run: str = "speech", **values: Any) -> module.Exported:
    data = before / ("clips" if run == "speech" else "texts.csv")
    return export(run, data_root=data, threads=1, reporter=QUIET, **values)


def left_in(artifacts: Path) -> list[str]:
    """What an export left in the folder of exports of the run ``speech``."""
    folder = artifacts / "runs" / "speech" / "exports"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_logit_may_lie_a_thousandth_away_and_no_label_may_change() -> None:
    assert exact_problem(parity(largest_difference=0.00099)) == ""
    assert "0.0011 from the run's, more than 0.001" in exact_problem(parity(largest_difference=0.0011))
    assert "logits lie" in exact_problem(parity(largest_difference=float("nan")))
    assert exact_problem(parity(equal_labels=0.99)) == "2 of 200 held-out items get other labels than from the run"


def test_a_hundredth_of_macro_f1_may_be_lost() -> None:
    assert loss_problem(parity(before=0.50, after=0.49)) == ""
    assert loss_problem(parity(before=0.50, after=0.60)) == ""
    assert loss_problem(parity(before=0.5, after=0.489)) == (
        "macro-F1 falls from 0.500 to 0.489 on the val part, more than 0.01"
    )
    assert loss_problem(parity(after=float("nan"))) != ""


def test_the_task_that_loses_most_counts() -> None:
    tasks = {"mood": TaskParity(0.5, 0.5, (1.0, 1.0)), "topic": TaskParity(0.7, 0.6, (1.0, 1.0))}
    assert loss_problem(parity(tasks=tasks)) == (
        "macro-F1 of 'topic' falls from 0.700 to 0.600 on the val part, more than 0.01"
    )
    both = {**tasks, "mood": TaskParity(0.5, 0.2, (1.0, 1.0)), "bare": TaskParity(None, None, (1.0, 1.0))}
    assert "of 'mood' falls from 0.500 to 0.200" in loss_problem(parity(before=0.5, after=0.2, tasks=both))
    assert loss_problem(parity(tasks={**tasks, "topic": TaskParity(0.7, 0.69, (1.0, 1.0))})) == ""


def test_no_other_answer_may_be_withheld() -> None:
    assert exact_problem(parity(equal_withheld=0.98)) == (
        "of 4 of 200 held-out items other answers are withheld than by the run"
    )


def test_each_task_and_what_is_withheld_is_compared(
    before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 8 bits that move one label of the second task by so much that it always, or never, holds.
    run, honest = Run(artifacts / "runs" / "text"), module.parity_of
    space = run.manifest.label_space
    assert [task.name for task in space.tasks] == ["mood", "topic"]
    moved: dict[str, float] = {"by": 0.0}
    withholding = Abstention("coverage", 0.5, {"mood": 0.0, "topic": NEVER}, {}, "val")

    def spoiled(given: Run, setup: Any, tasks: Any, items: Any, logits: np.ndarray, decisions: Any) -> Parity:
        changed = logits.copy()
        changed[:, tasks.slices["topic"]] += np.float32(moved["by"])
        if moved["by"] == 0.0:
            decisions = decisions[0], replace(decisions[0], abstention=withholding)
        return honest(given, setup, tasks, items, changed, decisions)

    monkeypatch.setattr(module, "parity_of", spoiled)
    with pytest.raises(ExportError, match="of 18 of 18 held-out items other answers are withheld than by the run"):
        exported(before, "text")
    monkeypatch.setattr(module, "exact_problem", lambda found: "")
    monkeypatch.setattr(module, "gain_problem", lambda faster, smaller: "")
    made = exported(before, "text", quantize="int8", force=True)
    topic = made.facts["parity"]["tasks"]["topic"]
    assert topic["coverage"] == {"before": 1.0, "after": 0.0}
    assert "- Task topic: macro-F1" in ExportedModel.open(made.path).metadata.card
    assert "100.0% answered before and 0.0% after" in ExportedModel.open(made.path).metadata.card
    moved["by"] = -50.0
    with pytest.raises(ExportError, match=r"macro-F1 of 'topic' falls from 1\.000 to 0\.000 on the val part"):
        exported(before, "text", quantize="int8", overwrite=True)


def test_a_quantised_file_is_faster_or_smaller() -> None:
    assert gain_problem(1.5, 1.0) == gain_problem(0.5, 3.0) == ""
    assert gain_problem(1.49, 2.99) == "it is 1.49 times as fast and 2.99 times smaller; 1.5 or 3.0 is wanted"


def test_networks_take_turns_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []

    class Fake:
        def __init__(self, name: str, seconds: list[float]) -> None:
            self.name, self.seconds = name, seconds

        def logits(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            order.append(self.name)
            clock[0] += self.seconds.pop(0) if self.seconds else 0.001
            return inputs

        def features(self, inputs: np.ndarray, lengths: np.ndarray) -> None:
            return None

    monkeypatch.setattr("samo.deploy.parity.time.perf_counter", lambda: clock[0])
    # The first answer is not counted, and one slow answer of 15 changes no median.
    networks = {"a": Fake("a", [9.0, 0.5] + [0.002] * 14), "b": Fake("b", [9.0] + [0.004] * 15)}
    found = latencies(networks, (np.zeros((1, 2)), np.ones(1)))
    assert found == pytest.approx({"a": 2.0, "b": 4.0})
    assert order[:6] == ["a", "b", "a", "b", "a", "b"]
    assert len(order) == 2 * 16


def test_a_speech_file_answers_as_its_run(before: Path, artifacts: Path) -> None:
    made = exported(before)
    run = Run(artifacts / "runs" / "speech")
    assert made.path == run.path("exports") / "speech.onnx"
    assert left_in(artifacts) == ["speech.export.json", "speech.onnx"]
    opened = ExportedModel.open(made.path)
    assert isinstance(opened.reading, AudioReading)
    features = run.config.features  # type: ignore[attr-defined]
    assert (opened.reading.sr, opened.reading.window, opened.reading.trim_db) == (features.sr, features.window, 0.0)
    model, file = samo.load("speech", threads=1), samo.load(made.path, threads=1)
    assert opened.space == model.space
    assert opened.decision == model.decision
    assert model.decision.calibration.temperature["emotion"] != 1.0
    assert (opened.facts.name, opened.facts.dataset, opened.facts.scores) == (
        "speech", model.facts.dataset, model.facts.scores,
    )  # fmt: skip
    clips = sorted((before / "clips").rglob("*.flac"))[:7]
    for one, other in zip(model.predict(clips), file.predict(clips), strict=True):
        assert other.label == one.label
        assert other.probabilities == pytest.approx(one.probabilities, abs=1e-4)
    facts = json.loads(made.facts_path.read_text())
    assert facts == made.facts
    assert (facts["format"], facts["opset"], facts["quantised"], facts["pruned"]) == ("onnx", 18, "", 0.0)
    assert facts["exact"] == facts["parity"]
    assert facts["parity"]["part"] == "val"
    assert facts["parity"]["n"] == len(run.split.val)
    assert facts["parity"]["equal_labels"] == 1.0
    assert 0.0 < facts["parity"]["largest_difference"] < 1e-5
    f1 = facts["parity"]["macro_f1"]
    assert f1["before"] == f1["after"] == pytest.approx(run.val_macro_f1)
    assert facts["size_mb"]["file"] == facts["size_mb"]["float32"] == round(made.path.stat().st_size / 1e6, 4)
    assert f"- Size: {made.path.stat().st_size / 1e6:.2f} MB, " in opened.metadata.card
    assert facts["sha256"] == hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert {name: set(times) for name, times in facts["latency_ms"].items()} == {
        "1": {"torch", "onnx"}, "32": {"torch", "onnx"},
    }  # fmt: skip
    assert all(ms > 0.0 for times in facts["latency_ms"].values() for ms in times.values())
    assert "## Exported file speech.onnx" in opened.metadata.card


def test_a_text_file_answers_as_its_run(before: Path) -> None:
    made = exported(before, "text")
    opened = ExportedModel.open(made.path)
    assert isinstance(opened.reading, TextReading)
    model, file = samo.load("text", threads=1), samo.load(made.path, threads=1)
    assert opened.decision == model.decision
    texts = ["i am so happy today !", "this is sad", "", "why would anyone do that [NAME] ?"]
    for one, other in zip(model.predict(texts), file.predict(texts), strict=True):
        assert other.labels == one.labels
        assert other.warnings == one.warnings
        for task, answer in one.answers.items():
            assert other.answers[task].probabilities == pytest.approx(answer.probabilities, abs=1e-4)


def test_a_text_file_reads_tables_by_the_column_of_its_run(before: Path, artifacts: Path, tmp_path: Path) -> None:
    config = artifacts / "runs" / "text" / "config.json"
    config.write_text(config.read_text().replace('"text_column": "text"', '"text_column": "says"'))
    header, _, rows = (before / "texts.csv").read_text().partition("\n")
    renamed = ",".join("says" if name == "text" else name for name in header.split(","))
    table = tmp_path / "texts.csv"
    table.write_text(f"{renamed}\n{rows}")
    file = tmp_path / "words.onnx"
    export("text", file, data_root=table, threads=1, reporter=QUIET)
    found = done("predict", table, "--model", file, "--json").json
    assert len(found["predictions"]) == len(rows.splitlines())


def with_kept_answers(artifacts: Path) -> Run:
    """The run ``speech`` as one that was evaluated: its kept test predictions count."""
    run = Run(artifacts / "runs" / "speech")
    run.path("report.json").write_text("{}")
    run.path("MODEL_CARD.md").write_text("# Model card: speech\n\nFirst lines.\n")
    return run


def test_kept_answers_to_the_test_part_are_compared_without_opening_it(before: Path, artifacts: Path) -> None:
    run = with_kept_answers(artifacts)
    made = exported(before)
    assert made.facts["parity"]["part"] == "test"
    assert made.facts["parity"]["n"] == len(run.split.test)
    assert run.test_openings == 1
    assert not run.path("openings.jsonl").exists()
    # The card says it, once however often the file is written.
    exported(before, overwrite=True)
    card = run.path("MODEL_CARD.md").read_text()
    assert card.startswith("# Model card: speech\n\nFirst lines.\n\n## Exported file speech.onnx\n")
    assert card.count("## Exported file") == 1
    assert ExportedModel.open(made.path).metadata.card.startswith("# Model card: speech\n\nFirst lines.\n")


def test_answers_that_another_model_gave_are_not_compared_with(before: Path, artifacts: Path) -> None:
    run = with_kept_answers(artifacts)
    kept = Predictions.load(run.path("predictions.test.npz"))
    Predictions(kept.ids, kept.logits + 0.01, kept.targets, kept.groups, kept.meta).save(
        run.path("predictions.test.npz")
    )
    assert exported(before).facts["parity"]["part"] == "val"


def test_another_model_on_the_test_part_is_an_opening(before: Path, artifacts: Path) -> None:
    run = with_kept_answers(artifacts)
    made = exported(before, quantize="int8", force=True)
    assert made.facts["parity"]["part"] == "test"
    assert run.test_openings == 2
    assert json.loads(run.path("openings.jsonl").read_text().splitlines()[-1])["by"] == "export int8"


def test_a_file_that_answers_otherwise_is_not_written(
    before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = module._logits
    monkeypatch.setattr(module, "_logits", lambda job, network: honest(job, network) + np.float32(0.0011))
    with pytest.raises(ExportError, match=r"speech\.onnx is not written: its logits lie up to") as caught:
        exported(before, force=True)  # no force keeps what is wrong
    assert caught.value.exit_status == 11
    assert left_in(artifacts) == []


def test_a_fault_of_the_last_rewrite_is_found(before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = module.save_metadata

    def spoiling(path: Path, about: dict[str, Any]) -> None:
        honest(path, about)
        if about["card"]:  # the last one
            model = onnx.load(str(path))
            tensor = next(each for each in model.graph.initializer if each.name.endswith("head.bias"))
            moved = onnx.numpy_helper.to_array(tensor) + np.float32([0.0, 0.0, 0.3])
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))
            onnx.save(model, str(path))

    monkeypatch.setattr(module, "save_metadata", spoiling)
    for given in ({}, {"quantize": "int8", "force": True}):
        with pytest.raises(ExportError, match=r"is not written: (the finished file answers|probabilities of the fin)"):
            exported(before, **given)
    assert left_in(artifacts) == []


def test_an_int8_text_file_is_compared_in_its_own_batches(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[tuple[Any, Any]] = []
    honest = module.answers_problem

    def noted(own: Any, made: Any, inputs: list[str]) -> str:
        shares.append(
            ([each.to_json() for each in own.stream(inputs)], [each.to_json() for each in made.stream(inputs)])
        )
        return honest(own, made, inputs)

    monkeypatch.setattr(module, "answers_problem", noted)
    exported(before, "text", quantize="int8", force=True)
    ((one, other),) = shares
    assert one == other
    assert len(one) == 18


def test_probabilities_and_withheld_answers_of_the_finished_file_count() -> None:
    def stub(sad: float, abstained: bool = False) -> Any:
        answer = Answer(("sad",), "sad", {"sad": sad, "happy": 1.0 - sad}, abstained)
        return SimpleNamespace(stream=lambda inputs: [Prediction({"emotion": answer}) for _ in inputs])

    assert module.answers_problem(stub(0.7), stub(0.7009), ["a", "b"]) == ""
    assert "lie up to 0.0011 from" in module.answers_problem(stub(0.7), stub(0.7011), ["a", "b"])
    assert "answers 2 of 2 recordings or texts" in module.answers_problem(stub(0.7), stub(0.7, True), ["a", "b"])


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


@pytest.mark.parametrize("writer", ["write_onnx", "save_metadata", "quantised", "_save_program"])
def test_a_full_disk_is_called_so(before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    def full(*given: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, writer, full)
    monkeypatch.setattr(torch.export, "export", lambda *given, **named: None)  # takes long, and is not written
    with pytest.raises(DiskFull, match=r"no space left while writing .*speech"):
        exported(
            before,
            quantize="int8" if writer == "quantised" else "",
            format="torch-export" if writer == "_save_program" else "onnx",
        )
    assert left_in(artifacts) == []


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
    honest = module._metadata

    def wrong(*given: Any) -> dict[str, Any]:
        about = json.loads(json.dumps(honest(*given)))
        change(about)
        return about

    monkeypatch.setattr(module, "_metadata", wrong)
    to = tmp_path / "out" / f"a{module._SUFFIXES[format]}"
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


def test_a_failed_export_leaves_the_file_that_was_there(
    before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = exported(before)
    content = made.path.read_bytes()
    monkeypatch.setattr(module, "_logits", lambda job, network: job.items.logits + 1.0)
    with pytest.raises(ExportError):
        exported(before, overwrite=True)
    assert made.path.read_bytes() == content
    assert left_in(artifacts) == ["speech.export.json", "speech.onnx"]


def test_a_file_that_is_there_is_replaced_only_when_asked(before: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine.onnx"
    target.write_text("mine")
    with pytest.raises(SettingsError, match=r"mine\.onnx exists"):
        exported(before, to=target)
    assert target.read_text() == "mine"
    assert exported(before, to=target, overwrite=True).path == target
    assert ExportedModel.open(target).facts.name == "mine"
    assert (tmp_path / "mine.export.json").is_file()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"format": "onx"}, "`format=onx`: unknown"),
        ({"quantize": "int4"}, "`quantize=int4`: unknown"),
        ({"quantize": "int8", "format": "torch-export"}, "`quantize` acts only together with `format=onnx`"),
        ({"prune": 0.9}, "a share of the channels from 0 to below 0.9"),
        ({"prune": -0.1}, "a share of the channels"),
        ({"prune": float("nan")}, "a share of the channels"),
        ({"prune": 0.5, "format": "safetensors"}, "`prune` acts only together with `format=onnx`"),
        ({"prune": 0.5, "prune_epochs": 0}, "a number of epochs"),
        ({"to": "voice.pt"}, r"a file of `format=onnx` ends in \.onnx"),
        ({"to": "voice.onnx", "format": "safetensors"}, r"ends in \.safetensors"),
    ],
)
def test_what_cannot_be_is_refused_at_once(before: Path, values: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        exported(before, **values)


@pytest.mark.parametrize("place", ["taken/voice.onnx", f"{'long' * 80}/voice.onnx"])
def test_where_nothing_can_be_written_is_refused_before_data_are_opened(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setattr(module, "open_data", None)
    with pytest.raises(DataError, match=r"^cannot write into .*: (Not a directory|File exists|File name too long)$"):
        exported(before, to=tmp_path / place)


def test_other_data_are_refused(before: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(before / "clips", tmp_path / "clips")
    next((tmp_path / "clips").rglob("*.flac")).unlink()
    with pytest.raises(RunError, match="the data differ"):
        export("speech", data_root=tmp_path / "clips", reporter=QUIET)


def test_a_text_model_has_no_channels_to_prune(before: Path) -> None:
    with pytest.raises(SettingsError, match="a text model has none"):
        exported(before, "text", prune=0.5)


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


def test_int8_keeps_features_and_last_layer_in_float32(before: Path, artifacts: Path) -> None:
    plain, made = exported(before), exported(before, quantize="int8", force=True)
    assert made.path.name == "speech-int8.onnx"
    graph = onnx.load(str(made.path)).graph
    convolution = next(k for k, node in enumerate(graph.node) if node.op_type == "Conv")
    makers = {out: node for node in graph.node for out in node.output}
    # Every convolution reads numbers of 8 bits, the last layer reads none.
    for node in graph.node:
        if node.op_type == "Conv":
            assert {makers[name].op_type for name in node.input[:2]} == {"DequantizeLinear"}
        if node.op_type == "Gemm":
            assert makers.get(node.input[1]) is None
    assert convolution
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert len(products) == kinds(plain.path).count("MatMul") == 5
    assert all("Dequantize" not in makers[name].op_type for node in products for name in node.input if name in makers)
    assert "QuantizeLinear" not in kinds(plain.path)
    opened = ExportedModel.open(made.path)
    assert (opened.metadata.quantised, opened.facts.name) == ("int8", "speech-int8")
    assert opened.facts.scores[0].startswith("validation macro-F1")
    assert "of this file" in opened.facts.scores[0]
    assert made.facts["exact"]["largest_difference"] < 1e-5 < made.facts["parity"]["largest_difference"]
    assert set(made.facts["latency_ms"]["1"]) == {"torch", "onnx", "int8"}


def test_int8_that_costs_more_than_it_gains_is_kept_only_by_force(
    before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four convolutions of four channels: scales and zero points outweigh what 8 bits save.
    monkeypatch.setattr(module, "latencies", lambda networks, batch: dict.fromkeys(networks, 1.0))
    with pytest.raises(ExportError, match=r"it is 1\.00 times as fast and 0\.\d\d times smaller") as caught:
        exported(before, quantize="int8")
    assert caught.value.hint == "`force` keeps it all the same"
    assert left_in(artifacts) == []
    made = exported(before, quantize="int8", force=True)
    assert len(made.facts["forced"]) == 1
    assert "**Forced**: it is 1.00 times as fast" in ExportedModel.open(made.path).metadata.card
    monkeypatch.setattr(
        module, "latencies", lambda networks, batch: {name: 1.0 if name == "int8" else 1.6 for name in networks}
    )
    assert exported(before, quantize="int8", overwrite=True).facts["forced"] == []


def test_speed_must_be_gained_at_both_batch_sizes(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_only(networks: Any, batch: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
        return {name: 0.5 if name == "int8" and len(batch[0]) == 1 else 1.0 for name in networks}

    monkeypatch.setattr(module, "latencies", one_only)
    with pytest.raises(ExportError, match=r"it is 1\.00 times as fast"):
        exported(before, quantize="int8")


def test_dynamic_int8_of_a_text_model(before: Path) -> None:
    made = exported(before, "text", quantize="int8", force=True)
    tensors = onnx.load(str(made.path)).graph.initializer
    assert [tensor.name for tensor in tensors if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.UINT8]
    assert samo.load(made.path, threads=1).predict("i am happy").answers.keys() == {
        task.name for task in ExportedModel.open(made.path).space.tasks
    }


def test_pruning_takes_channels_and_trains_for_the_epochs_asked_for(
    before: Path, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = export(
        "speech", prune=0.5, prune_epochs=2, force=True, data_root=before / "clips", threads=1,
        reporter=PlainReporter(),
    )  # fmt: skip
    assert made.path.name == "speech-pruned50.onnx"
    assert re.findall(r"^epoch (\d)/2", capsys.readouterr().err, re.MULTILINE) == ["1", "2"]
    weights = [
        tuple(tensor.dims)[:2]
        for node in onnx.load(str(made.path)).graph.node
        if node.op_type == "Conv"
        for tensor in onnx.load(str(made.path)).graph.initializer
        if tensor.name == node.input[1]
    ]
    assert weights == [(2, 1), (4, 2), (8, 4), (16, 8)]
    facts = made.facts
    assert facts["pruned"] == 0.5
    # 9 (4 + 4 8 + 8 16 + 16 32) weights, twice 60 of batch norms, 32 3 + 3 of the head; and half as wide.
    assert facts["parameters"] == {
        "before": 9 * (4 + 32 + 128 + 512) + 120 + 99,
        "after": 9 * (2 + 8 + 32 + 128) + 60 + 51,
    }
    assert facts["exact"]["largest_difference"] < 1e-5
    assert facts["parity"]["largest_difference"] > 1e-3
    opened = ExportedModel.open(made.path)
    assert (opened.metadata.pruned, opened.facts.name) == (0.5, "speech-pruned50")
    # Its temperature is its own.
    assert opened.decision.calibration != samo.load("speech", threads=1).decision.calibration


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_a_torch_program_and_weights_give_the_same_answers(before: Path, artifacts: Path) -> None:
    run = Run(artifacts / "runs" / "speech")
    program = exported(before, format="torch-export")
    assert program.path.name == "speech.pt2"
    extra = {"samo.json": ""}
    loaded = torch.export.load(program.path, extra_files=extra)
    assert json.loads(extra["samo.json"])["label_space"][0]["name"] == "emotion"
    window = run.config.features.window  # type: ignore[attr-defined]
    logits, features = loaded.module()(torch.zeros(3, window), torch.tensor([window, 100, 50]))
    assert logits.shape == (3, 3)
    assert features.shape[0] == 3
    weights = exported(before, format="safetensors")
    assert weights.path.name == "speech.safetensors"
    from safetensors import safe_open

    with safe_open(weights.path, framework="pt") as opened:
        about = json.loads(opened.metadata()["samo"])
        assert "network.head.weight" in list(opened.keys())
    assert about["settings"]["model"] == "small-cnn"
    assert about["decision"] == samo.load("speech", threads=1).decision.to_json()
    assert weights.facts["parity"]["largest_difference"] == 0.0


def clips_of(before: Path, run: Run) -> list[Path]:
    """Those of the validation part."""
    return [before / "clips" / f"{item}.flac" for item in run.split.val]


@pytest.mark.parametrize("quantize", ["", "int8"])
def test_a_file_carries_what_a_drift_of_its_answers_is_measured_from(
    before: Path, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantize: str
) -> None:
    made = exported(before, quantize=quantize, force=bool(quantize))
    run = Run(artifacts / "runs" / "speech")
    answers = samo.load(made.path, threads=1).predict(clips_of(before, run))
    reference = ExportedModel.open(made.path).metadata.reference
    labels = [each.label for each in answers]
    task = reference["tasks"]["emotion"]
    assert task["counts"] == {label: labels.count(label) for label in ("angry", "happy", "sad")}
    assert (reference["part"], reference["n"], task["n"]) == ("val", 6, 6)
    assert task["confidences"] == pytest.approx(sorted(max(each.probabilities.values()) for each in answers), abs=1e-5)
    seconds = sorted(soundfile.info(clip).duration for clip in clips_of(before, run))
    assert reference["duration_s"] == pytest.approx(seconds, abs=1e-3)
    own = samo.load("speech", threads=1).predict(clips_of(before, run))
    apart = np.abs(np.array(task["confidences"]) - sorted(max(each.probabilities.values()) for each in own)).max()
    assert (apart > 1e-4) == bool(quantize)  # an int8 file is compared with itself, not with the run
    monkeypatch.setattr("samo.deploy.drift.FEWEST", 6)
    answer = {"label": "sad", "labels": ["sad"], "confidence": 0.99, "abstained": False}
    line = {
        "schema": 1, "time": "2026-11-26T10:00:00Z", "model": made.path.stem, "modality": "audio", "duration_s": 3.0,
        "tasks": {"emotion": answer}, "level_dbfs": -60.0, "warnings": [],
    }  # fmt: skip
    log = tmp_path / "log.jsonl"
    log.write_text((json.dumps(line) + "\n") * 40)
    found = done("drift", log, "--reference", made.path, "--json").json
    assert (found["drift"], found["reference"], found["n_reference"], found["n"]) == (True, made.path.stem, 6, 40)
    before_and_now = {check["quantity"]: (check["before"], check["now"]) for check in found["checks"]}
    assert before_and_now["clip length"] == (pytest.approx(np.median(seconds), abs=1e-3), 3.0)


def learned_from_everything(artifacts: Path) -> Run:
    """The run ``speech`` as what `samo crossval --refit` leaves: no validation or test part, a report of the folds."""
    run = Run(artifacts / "runs" / "speech")
    split = json.loads(run.path("split.json").read_text())
    everything = sorted([*split["train"], *split["val"], *split["test"]])
    run.path("split.json").write_text(
        json.dumps({**split, "rule": "whole", "train": everything, "val": [], "test": []})
    )
    report = {
        "metrics": {"macro_f1": 0.61}, "n": 36, "ci": {"macro_f1": [0.5, 0.7], "unit": "speaker", "n_units": 6},
    }  # fmt: skip
    run.path("crossval.json").write_text(json.dumps({"grid": "g", "folds": 5, "report": report}))
    return Run(run.folder)


def test_a_run_that_learned_from_everything_is_checked_on_that(
    before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = learned_from_everything(artifacts)
    seen = "36 items that it was trained on"
    shown = done("export", "speech", "--data-root", before / "clips", "--threads", 1)
    assert seen in " ".join(shown.out.split())
    assert "macro-F1" not in shown.out
    opened = ExportedModel.open(run.path("exports") / "speech.onnx")
    facts = json.loads(run.path("exports/speech.export.json").read_text())
    assert (facts["parity"]["part"], facts["parity"]["trained_on"], facts["parity"]["n"]) == ("train", True, 36)
    assert seen in opened.metadata.card
    assert "macro-F1" not in opened.metadata.card
    assert opened.metadata.reference == {}
    score = (
        "cross-validated macro-F1 0.610 [0.500, 0.700] over 36 items, 6 speakers, by 5 models trained alike on folds; "
        "this one learned from all of it"
    )
    assert opened.facts.scores[0] == score
    # Of many training items some, always the same, from the first to the last.
    asked = []
    honest = module.check_items

    def noted(*given: Any) -> Any:
        asked.append(honest(*given))
        return asked[-1]

    monkeypatch.setattr(module, "check_items", noted)
    monkeypatch.setattr("samo.deploy.parity.MOST_TRAINED_ON", 5)
    made = exported(before, quantize="int8", force=True)
    everything = run.split.train
    assert asked[0].ids == tuple(everything[k] for k in (0, 9, 18, 26, 35))
    assert repr(made).endswith("% of the labels equal on 5 items that it was trained on>")
    assert ExportedModel.open(made.path).facts.scores[0] == f"{score} (the run)"
    monkeypatch.setattr(module, "fine_tune", None)
    with pytest.raises(SettingsError, match="run 'speech' has none: it learned from everything"):
        exported(before, prune=0.5)


def test_of_what_it_was_trained_on_problems_say_so() -> None:
    assert exact_problem(parity(part="train", equal_labels=0.99)) == (
        "2 of 200 items that it was trained on get other labels than from the run"
    )
    assert loss_problem(parity(part="train", before=0.5, after=0.489)) == (
        "macro-F1 falls from 0.500 to 0.489 on items that it was trained on, more than 0.01"
    )


def test_a_file_brings_its_card_to_whoever_opens_it(before: Path, artifacts: Path) -> None:
    with_kept_answers(artifacts)
    for run in ("speech", "text"):
        card = samo.load(exported(before, run).path, threads=1).card
        assert card.startswith("# Model card: speech\n\nFirst lines.\n") == (run == "speech")
        assert f"## Exported file {run}.onnx\n" in card


OLD_CARD = """# Model card: speech

## Training settings

| name | value |
| :-- | :-- |
| weights | /home/me/my nets/mn04.pt |

## How to reproduce

```sh
samo train --data-root /home/me/ravdess --weights '/home/me/my nets/mn04.pt'
```
"""


def test_no_place_of_this_machine_leaves_with_a_file(before: Path, artifacts: Path, tmp_path: Path) -> None:
    run = with_kept_answers(artifacts)
    run.path("MODEL_CARD.md").write_text(OLD_CARD)
    config = run.path("config.json")
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "weights": "/home/me/my nets/mn04.pt"}))
    file = exported(before)
    card = ExportedModel.open(file.path).metadata.card
    assert "| weights | mn04.pt |" in card
    assert "samo train --data-root ravdess --weights mn04.pt" in card
    weights = exported(before, format="safetensors")
    about = json.loads(read_metadata(weights.path)["samo"])
    assert about["settings"]["weights"] == "mn04.pt"
    assert about["settings"]["data_root"] == Path(settings["data_root"]).name
    for place in (b"/home/me", str(before).encode(), str(tmp_path).encode(), str(Path.cwd()).encode()):
        for written in (file, weights):
            assert place not in written.path.read_bytes() + written.facts_path.read_bytes()
    # The run itself keeps whole paths: training goes on with them.
    assert json.loads(config.read_text())["weights"] == "/home/me/my nets/mn04.pt"


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_a_torch_program_does_not_say_where_its_source_lies(tmp_path: Path) -> None:
    program = torch.export.export(nn.Sequential(nn.Linear(2, 1), nn.ReLU()), (torch.zeros(1, 2),), strict=False)
    torch.export.save(program, tmp_path / "before.pt2")
    module._save_program(program, tmp_path / "after.pt2", {})
    with ZipFile(tmp_path / "before.pt2") as old, ZipFile(tmp_path / "after.pt2") as new:
        for opened, named in ((old, True), (new, False)):
            whole = b"".join(opened.read(name) for name in opened.namelist())
            assert (str(Path(torch.__file__).parent).encode() in whole) == named
    again = torch.export.load(tmp_path / "after.pt2").module()
    assert torch.equal(again(torch.ones(1, 2)), program.module()(torch.ones(1, 2)))


def test_the_command_prints_what_was_checked_and_what_comes_next(before: Path, tmp_path: Path) -> None:
    file = tmp_path / "my voice.onnx"
    result = done("export", "speech", "-o", file, "--data-root", before / "clips", "--threads", 1)
    assert "items of the val part" in result.out
    assert "100.0%" in result.out
    assert result.err.splitlines()[-1].endswith(f"next: samo predict CLIP_OR_FOLDER --model '{file}'")
    refused = command("export", "speech", "-o", file, "--data-root", before / "clips")
    assert refused.status == 2
    assert refused.error.endswith("choose another file, or replace it with --overwrite)")
    found = done(
        "export", "speech", "--output", file, "--data-root", before / "clips", "--threads", 1, "--overwrite", "--json"
    ).json
    assert found["path"] == str(file)
    assert found["threads"] == 1
    assert found["parity"]["equal_labels"] == 1.0


def test_the_section_of_a_card_is_replaced_and_others_stay() -> None:
    facts = {
        "file": "a_b.onnx", "format": "onnx", "opset": 18, "quantised": "int8", "pruned": 0.25, "machine": "a machine",
        "exact": parity().to_json(), "parity": parity(before=0.5, after=0.495).to_json(), "forced": [],
        "size_mb": {"run": 4.0, "file": 1.0}, "latency_ms": {"1": {"torch": 3.0, "int8": 1.0}},
    }  # fmt: skip
    card = with_section("# Card\n\n## Exported file other.onnx\n\n- kept\n", facts)
    assert with_section(card, {**facts, "size_mb": {"run": 4.0, "file": 2.0}}) == card.replace("1.00 MB", "2.00 MB")
    assert "## Exported file other.onnx\n\n- kept\n\n## Exported file a\\_b.onnx\n" in card
    assert "- onnx, int8, 25% of the channels pruned; opset 18" in card
    assert "macro-F1 0.500 before and 0.495 after, interval of the difference -0.010 to +0.010" in card
    assert "- Median time of a batch of 1: torch 3.0 ms, int8 1.0 ms (a machine)" in card
