"""``samo.deploy.export.export`` and ``samo export``: the file, its answers, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_exports import QUIET, exported, left_in
from tone_corpora import done
from tone_corpora import samo as command

import samo
from samo.deploy import export as module
from samo.deploy import file_formats
from samo.deploy.export import Exported, export
from samo.errors import DataError, DiskFull, ExportError, RunError, SettingsError
from samo.prediction.exported import AudioReading, ExportedModel, TextReading
from samo.runs.run import Run


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


@pytest.mark.parametrize("writer", ["write_onnx", "save_metadata", "quantised", "_save_program"])
def test_a_full_disk_is_called_so(before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    def full(*given: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module if writer == "quantised" else file_formats, writer, full)
    monkeypatch.setattr(torch.export, "export", lambda *given, **named: None)  # takes long, and is not written
    with pytest.raises(DiskFull, match=r"no space left while writing .*speech"):
        exported(
            before,
            quantize="int8" if writer == "quantised" else "",
            format="torch-export" if writer == "_save_program" else "onnx",
        )
    assert left_in(artifacts) == []


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


def test_formats_of_one_name_keep_their_own_figures() -> None:
    places = [
        Exported(Path("out") / f"voice{suffix}", {}).facts_path.name for suffix in (".onnx", ".pt2", ".safetensors")
    ]
    assert places == ["voice.export.json", "voice.pt2.export.json", "voice.safetensors.export.json"]
