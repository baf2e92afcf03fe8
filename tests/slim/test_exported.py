"""What an exported file answers: exact values, how it is opened, and what it is computed with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import soundfile
import tiny_onnx as tiny

import samo
from samo.errors import EnvironmentProblem, ModelFileError, SettingsError
from samo.evaluation.abstention import Abstention
from samo.evaluation.calibration import Calibration
from samo.evaluation.decision import Decision
from samo.evaluation.thresholds import TaskThresholds, Thresholds
from samo.prediction import ModelFacts, PredictionList
from samo.prediction.exported import ExportedModel, cores
from samo.runs.load import open_run
from samo.tasks import LabelSpace, Task


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("audio") / "speech.onnx")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("text") / "words.onnx", "text")


def wave(level: float, n: int) -> np.ndarray:
    """(n,) float32 of a mean of exactly ``level`` that is no constant."""
    return (level + 0.125 * np.where(np.arange(n) % 2, 1.0, -1.0)).astype(np.float32)


def test_a_waveform(audio: Path) -> None:
    model = samo.load(audio)
    found = model.predict(wave(0.25, 2000), sr=tiny.SR)
    assert found.probabilities == pytest.approx(tiny.shares(0.25), abs=1e-6)
    assert (found.label, found.abstained, found.warnings) == ("calm", False, ())
    assert repr(model).splitlines()[:3] == [
        "audio model 'tiny'",
        "  answers: emotion (calm, happy, sad)",
        "  trained: small-cnn on demo, synthetic demo data, 2026-11-01",
    ]


def test_a_recording_is_the_mean_of_its_windows(audio: Path, tmp_path: Path) -> None:
    """12 s of 4000-sample windows: the first half at a quarter, the second at -0.5; every window is one of them."""
    model = samo.load(str(audio))
    soundfile.write(tmp_path / "a.wav", np.r_[wave(0.25, 48_000), wave(-0.5, 48_000)], tiny.SR, subtype="FLOAT")
    found = model.predict(tmp_path / "a.wav")
    assert found.probabilities == pytest.approx(tiny.shares((0.25 - 0.5) / 2), abs=1e-6)
    for window, m in ((found.timeline[0], 0.25), (found.timeline[-1], -0.5)):
        assert window.probabilities == pytest.approx(tiny.shares(m), abs=1e-6)
    assert (found.timeline[0].start_s, found.timeline[-1].end_s) == (0.0, 12.0)


def test_texts_in_any_order_of_lengths(text: Path) -> None:
    """As many tokens as words, six at most; a blank text is one token and no answer."""
    model = samo.load(text)
    texts = ["one two three", "one", " ", "a b c d e f g h", "one two"]
    found = model.predict(texts)
    for prediction, n in zip(found, (3, 1, 1, 6, 2), strict=True):
        assert prediction.probabilities == pytest.approx(tiny.shares(n / 10), abs=1e-6)
    assert [prediction.warnings for prediction in found] == [(), (), ("empty",), ("cut at 6 tokens",), ()]
    assert [prediction.abstained for prediction in found] == [False, False, True, False, False]


def test_clips_are_trimmed_and_resampled_as_the_file_says(tmp_path: Path) -> None:
    reading = {"sr": tiny.SR, "window": 8000, "trim_db": 30.0}
    model = samo.load(tiny.write(tmp_path / "t.onnx", reading=reading))
    silence = np.zeros(2000, np.float32)
    padded = np.r_[silence, wave(0.5, 4000), silence]
    # Frames of 320 samples that hold the first or the last 80 samples of the sound stay: 240 samples of silence.
    expected = 0.5 * 4000 / 4240
    assert model.predict(padded, sr=tiny.SR).probabilities == pytest.approx(tiny.shares(expected), abs=1e-6)
    soundfile.write(tmp_path / "a.wav", np.repeat(wave(0.25, 4000), 2), 2 * tiny.SR)
    assert model.predict(tmp_path / "a.wav").probabilities == pytest.approx(tiny.shares(0.25), abs=2e-3)


def test_windows_are_heard_as_often_as_the_file_says(tmp_path: Path) -> None:
    """Moved 1,000 samples earlier 3,000 of 4,000 are left, moved later as much silence comes before them."""
    reading = {"sr": tiny.SR, "window": 8000, "trim_db": 0.0, "tta_shift": 1000 / tiny.SR}
    model = samo.load(tiny.write(tmp_path / "t.onnx", reading=reading))
    expected = (0.25 + 0.25 + 0.25 * 4 / 5) / 3
    assert model.predict(wave(0.25, 4000), sr=tiny.SR).probabilities == pytest.approx(tiny.shares(expected), abs=1e-6)


def test_several_readings_of_a_clip(tmp_path: Path) -> None:
    """A second member cuts 1,880 samples of silence off both ends and hears what is left in windows of 2,000."""
    parts = [{"sr": tiny.SR, "window": 4000, "trim_db": 0.0}, {"sr": tiny.SR, "window": 2000, "trim_db": 30.0}]
    reading = {"parts": parts, "window_s": 0.5}
    path = tiny.write(tmp_path / "t.onnx", readings=True, reading=reading)
    model: Any = samo.load(path)
    silence = np.zeros(2000, np.float32)
    clip = np.r_[silence, wave(0.5, 4000), silence]
    # Windows of the second begin at 0, 1,120 and 2,240 of 4,240 samples.
    second = (0.5 * 1880 / 2000 + 0.5 + 0.5 * 1880 / 2000) / 3
    expected = tiny.shares((0.25 + second) / 2)
    assert model.predict(clip, sr=tiny.SR).probabilities == pytest.approx(expected, abs=1e-6)
    # Beside others as alone, in batches of some of them.
    for found in model.predict([clip, wave(0.25, 2000)] * 20, sr=tiny.SR)[::2]:
        assert found.probabilities == pytest.approx(expected, abs=1e-6)
    soundfile.write(tmp_path / "a.wav", np.r_[wave(0.25, 48_000), wave(-0.5, 48_000)], tiny.SR, subtype="FLOAT")
    found = model.predict(tmp_path / "a.wav")
    assert found.probabilities == pytest.approx(tiny.shares((0.25 - 0.5) / 2), abs=1e-6)
    assert (len(found.timeline), found.timeline[-1].end_s) == (24, 12.0)
    assert found.timeline[0].probabilities == pytest.approx(tiny.shares(0.25), abs=1e-6)
    assert model.spectrogram(clip, tiny.SR) is None
    opened = ExportedModel.open(path)
    assert (opened.text_column, opened.has_features) == ("", False)


def test_several_readings_of_a_text(tmp_path: Path) -> None:
    """One member reads six words, the other two."""
    parts = [{"max_tokens": most, "pad_id": 0, "tokens": {"kind": "hash"}} for most in (6, 2)]
    path = tiny.write(
        tmp_path / "t.onnx", "text", readings=True, reading={"parts": parts, "text_column": "said"}
    )  # fmt: skip
    found = samo.load(path).predict(["one two three", "one", " ", "a b c d e f g h"])
    for prediction, (one, other) in zip(found, ((3, 2), (1, 1), (1, 1), (6, 2)), strict=True):
        assert prediction.probabilities == pytest.approx(tiny.shares((one + other) / 20), abs=1e-6)
    assert [each.warnings for each in found] == [("cut at 2 tokens",), (), ("empty",), ("cut at 2 tokens",)]
    assert ExportedModel.open(path).text_column == "said"


def test_spectrograms(audio: Path, text: Path, tmp_path: Path) -> None:
    """The tiny network's is the waveform itself, as one band: of the first window, with 0 behind its end."""
    model: Any = samo.load(audio)
    assert model.spectrogram(wave(0.25, 3), tiny.SR).shape == (1, tiny.WINDOW)
    np.testing.assert_array_equal(model.spectrogram(wave(0.25, 3), tiny.SR)[0, :4], [*wave(0.25, 3), 0.0])
    np.testing.assert_array_equal(model.spectrogram(wave(0.25, 9000), tiny.SR)[0], wave(0.25, 9000)[: tiny.WINDOW])
    plain: Any = samo.load(tiny.write(tmp_path / "plain.onnx", features=False))
    assert plain.spectrogram(wave(0.25, 3), tiny.SR) is None
    words: Any = samo.load(text)
    assert words.network.features(np.ones((1, 2), np.int64), np.array([2])) is None


def test_several_labels_abstention_and_thresholds(tmp_path: Path) -> None:
    """Two tasks: logits 1.5, -0.5 of one with thresholds 0.9 and 0.3 at temperature 1; one that is never sure."""
    space = LabelSpace((Task("mood", ("loud", "calm"), multi_label=True),))
    support = {"loud": 4, "calm": 5}
    scores = {"half": 0.5, "global": 0.5, "per-class": 0.6}
    chosen = TaskThresholds(0.4, {"loud": 0.9, "calm": 0.3}, scores, support, 1.0)
    decision = Decision(
        Calibration({"mood": 1.0}, "val", {"mood": 9}, 2),
        Thresholds("per-class", {"mood": chosen}, (0.1, 0.9, 9), "val", 2),
        Abstention("risk", 0.1, {"mood": 0.9}, {"mood": 1.0}, "val", {"mood": 9}, 2),
    )
    assert Decision.from_json(decision.to_json(), space) == decision

    def two_labels(model: Any) -> None:
        weights, bias = np.array([[4.0, -2.0]], np.float32), np.array([0.5, 0.0], np.float32)
        for k, tensor in enumerate(model.graph.initializer):
            new = {"weights": weights, "bias": bias}.get(tensor.name)
            if new is not None:
                model.graph.initializer[k].CopyFrom(tiny.numpy_helper.from_array(new, tensor.name))
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2

    path = tiny.write(tmp_path / "m.onnx", change=two_labels, label_space=space.to_json(), decision=decision.to_json())
    found = samo.load(path).predict(wave(0.25, 1000), sr=tiny.SR)
    loud, calm = 1 / (1 + np.exp(-1.5)), 1 / (1 + np.exp(0.5))
    assert found.probabilities == pytest.approx({"loud": loud, "calm": calm}, abs=1e-6)
    assert (found.labels, found.abstained) == (("calm",), True)


def test_what_was_never_fitted_reads_as_nothing() -> None:
    space = LabelSpace.from_json(tiny.SPACE)
    assert Decision.from_json(Decision().to_json(), space) == Decision()


def test_a_file_only_predicts(audio: Path) -> None:
    with pytest.raises(ModelFileError, match="an exported file only predicts"):
        samo.evaluate(audio)
    with pytest.raises(ModelFileError, match="an exported file only predicts"):
        open_run(samo.load(audio))


def test_what_a_file_is_computed_with(audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``threads`` reaches onnxruntime; by default all cores, and threads that wait let go of them."""
    seen: list[tuple[int, str]] = []
    real = onnxruntime.InferenceSession

    def session(content: bytes, options: Any, **rest: Any) -> Any:
        spinning = options.get_session_config_entry("session.intra_op.allow_spinning")
        seen.append((options.intra_op_num_threads, spinning))
        return real(content, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    assert samo.load(audio, threads=3).threads == 3
    assert samo.load(audio, device="cpu", precision="auto").threads == cores()
    assert seen == [(3, "0"), (cores(), "0")]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"device": "cuda"}, "`device=cuda`: an exported file is computed on the CPU"),
        ({"precision": "bf16"}, "`precision=bf16`: an exported file has a precision of its own"),
        ({"threads": -1}, "`threads` -1: a number of CPU threads, 0 = all cores"),
    ],
)
def test_what_a_file_cannot_be_computed_with(audio: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        samo.load(audio, **how)
    assert caught.value.message == message


def test_a_folder_called_like_a_file_is_a_run(tmp_path: Path) -> None:
    (tmp_path / "run.onnx").mkdir()
    with pytest.raises(samo.errors.SamoError, match=r"run\.onnx"):
        samo.load(tmp_path / "run.onnx", artifacts=tmp_path)


def test_facts_and_card_are_kept(audio: Path) -> None:
    opened = ExportedModel.open(audio)
    known = {**tiny.FACTS, "scores": tuple(tiny.FACTS["scores"]), "code": ()}
    assert opened.facts == ModelFacts(modality="audio", **known)
    assert opened.facts.to_json().keys() == {*tiny.FACTS, "modality"}
    assert (opened.modality, opened.metadata.opset, opened.has_features) == ("audio", 18, True)


def test_a_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed
    with pytest.raises(EnvironmentProblem, match="a table of predictions needs pandas, which is not ins") as caught:
        PredictionList([]).to_frame()
    assert caught.value.hint.startswith("pip install pandas; ")
