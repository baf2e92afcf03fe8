"""What a notebook types: load, predict, train, evaluate, on speech and on text."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import samo
from samo.errors import DataError, ModelFileError, RunError, SettingsError
from samo.prediction import Answer, Prediction, PredictionList

CLIP = Path("clips") / "angry" / "spk0_0.flac"
SPEECH: dict[str, Any] = {
    "dataset": "folder", "speaker_pattern": r"^[^/]+/(spk\d+)", "sr": 8000, "n_mels": 32, "n_fft": 256,
    "hop_length": 64, "duration": 0.5, "width": 4, "epochs": 2, "batch_size": 8, "train_ratio": 0.5, "val_ratio": 0.2,
    "precision": "float32", "threads": 1,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "modality": "text", "dataset": "table", "label_columns": "mood,topic", "label_separator": "|", "model": "textcnn",
    "hash_buckets": 256, "embedding_width": 8, "filters": 4, "epochs": 2, "batch_size": 16, "precision": "float32",
    "threads": 1,
}  # fmt: skip


def samples(before: Path) -> tuple[np.ndarray, int]:
    found, rate = soundfile.read(before / CLIP, dtype="float32")
    return found, rate


# Loading


def test_importing_samo_imports_neither_torch_nor_numpy() -> None:
    words = "import sys, samo; samo.__version__; print(sorted({'torch', 'numpy', 'rich', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_names_of_the_package() -> None:
    assert {"Prediction", "evaluate", "load", "train", "__version__"} <= set(dir(samo))
    assert samo.Prediction is Prediction
    with pytest.raises(AttributeError, match="no attribute 'lod'; it has Prediction, evaluate, load, train"):
        _ = samo.lod


def test_a_model_says_what_it_is(before: Path, artifacts: Path) -> None:
    lines = repr(samo.load("speech")).splitlines()
    assert lines[0] == "audio model 'speech'"
    assert lines[1] == "  answers: emotion (angry, happy, sad)"
    assert lines[2].startswith("  trained: small-cnn on folder, 20")
    assert lines[3:] == [
        "  score:   validation macro-F1 0.556, which chose the epoch",
        "  score:   not evaluated on its test part yet",
    ]
    (artifacts / "runs" / "speech" / "report.json").write_bytes((before / "speech.report.json").read_bytes())
    evaluated = repr(samo.load("speech"))
    assert "score:   test macro-F1 0.822 [0.556, 1.000] over 12 items, 2 speakers" in evaluated
    assert "not evaluated" not in evaluated
    assert "answers: mood (anger, fear, joy); topic (home, work)" in repr(samo.load("text"))


def test_by_name_folder_file_run_or_nothing(before: Path, artifacts: Path) -> None:
    folder = artifacts / "runs" / "speech"
    (artifacts / "latest").symlink_to("runs/speech")
    given = ("speech", folder, str(folder), folder / "best_model.safetensors", "")
    assert {samo.load(each).facts.name for each in given} == {"speech"}
    with pytest.raises(RunError, match="there is no run 'speach'"):
        samo.load("speach")
    with pytest.raises(ModelFileError, match="is no run"):
        samo.load(before / "texts.csv")


def test_a_damaged_report_does_not_keep_a_model_from_answering(before: Path, artifacts: Path) -> None:
    (artifacts / "runs" / "speech" / "report.json").write_text('{"ci": 3}')
    assert samo.load("speech").predict(before / CLIP).label


# Predicting


def test_one_clip_is_one_prediction(before: Path) -> None:
    model = samo.load("speech", threads=1)
    one = model.predict(str(before / CLIP))
    assert isinstance(one, Prediction)
    assert one == model.predict(before / CLIP)
    assert one.label == max(one.probabilities, key=one.probabilities.__getitem__)
    assert one.labels == (one.label,)
    assert (one.path, one.text, one.warnings, one.timeline) == (before / CLIP, None, (), ())
    assert str(one) == f"{one.label} {one.probabilities[one.label]:.0%}"


def test_waveforms_of_every_kind_answer_as_the_file(before: Path) -> None:
    model = samo.load("speech", threads=1)
    expected = model.predict(before / CLIP).probabilities
    plain, rate = samples(before)
    exact = {
        "float32": plain,
        "float64": plain.astype(np.float64),
        "torch": torch.from_numpy(plain),
        "int16": (plain * 32768).astype(np.int16),
        "int32": (plain * 32768).astype(np.int32) * 65536,
        "stereo": np.stack([plain, plain]),
        "torch of one channel": torch.from_numpy(plain)[None],
        "not contiguous": np.repeat(plain, 2)[::2],
    }
    for name, given in exact.items():
        found = model.predict(given, sr=rate)
        assert (found.path, found.source) == (None, "waveform"), name
        assert found.probabilities == pytest.approx(expected, abs=1e-5), name
    bytes_ = ((plain + 1) * 128).round().clip(0, 255).astype(np.uint8)
    assert model.predict(bytes_, sr=rate).probabilities == pytest.approx(expected, abs=0.1)
    # Another rate is resampled, as files are.
    soundfile.write("other.wav", np.repeat(plain, 2), 2 * rate, subtype="FLOAT")
    doubled = model.predict(np.repeat(plain, 2), sr=2 * rate)
    assert doubled.probabilities == pytest.approx(model.predict("other.wav").probabilities, abs=1e-6)
    assert doubled.probabilities != pytest.approx(model.predict(np.repeat(plain, 2), sr=rate).probabilities, abs=1e-6)


def test_a_long_waveform_has_the_time_line_of_its_file(before: Path) -> None:
    model = samo.load("speech", threads=1)
    found, rate = soundfile.read(before / "long.flac", dtype="float32")
    line = model.predict(found, sr=rate).timeline
    assert len(line) == 24
    for window, other in zip(line, model.predict(before / "long.flac").timeline, strict=True):
        assert (window.start_s, window.end_s, window.label) == (other.start_s, other.end_s, other.label)


def test_several_are_a_list_and_a_frame(before: Path) -> None:
    pandas = pytest.importorskip("pandas")
    model = samo.load("speech", threads=1)
    paths = sorted((before / "clips" / "sad").iterdir())
    several = model.predict(paths)
    assert isinstance(several, PredictionList)
    assert (len(several), [each.path for each in several]) == (12, paths)
    assert isinstance(several[2:4], PredictionList)
    assert several[2:4] == [several[2], several[3]]
    frame = several.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["path", "label", "labels", "angry", "happy", "sad", "abstained", "warnings", "error"]
    assert frame["label"].tolist() == [each.label for each in several]
    assert several._repr_html_().count("<tr>") == 13
    assert repr(several).splitlines()[0] == "12 predictions"
    assert list(model.predict([])) == []


def test_a_folder_is_all_recordings_below_it(before: Path) -> None:
    model = samo.load("speech", threads=1)
    inside = model.predict(before / "clips" / "sad")
    assert inside == model.predict(sorted((before / "clips" / "sad").iterdir()))
    assert len(model.predict(str(before / "clips"))) == 36


def test_one_bad_file_raises_and_of_several_it_is_named(before: Path) -> None:
    model = samo.load("speech", threads=1)
    with pytest.raises(DataError, match=r"missing\.wav"):
        model.predict("missing.wav")
    good, bad = model.predict([before / CLIP, "missing.wav"])
    assert (good.error, bad.label, bad.probabilities) == ("", "", {})
    assert "missing.wav" in bad.error


@pytest.mark.parametrize(
    ("given", "how", "words"),
    [
        (3, {}, "takes paths of recordings, or waveforms .*, not int"),
        (None, {}, "not None"),
        ([b"x"], {}, "not bytes"),
        ([0.1, 0.2], {"sr": 8000}, "not float"),
        ({"a": 1}, {}, "not dict"),
        (np.zeros(800, np.float32), {}, "needs its sampling rate"),
        (np.zeros((2, 2, 2), np.float32), {"sr": 8000}, r"\(time,\) or \(channels, time\)"),
        (np.zeros(800, bool), {"sr": 8000}, "floats or integers, not bool"),
        (np.zeros(800, complex), {"sr": 8000}, "floats or integers, not complex128"),
    ],
)
def test_wrong_sound_is_refused_in_one_sentence(before: Path, given: Any, how: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words) as refusal:
        samo.load("speech", threads=1).predict(given, **how)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("given", "sr", "words"),
    [
        (np.zeros((800, 2), np.float32), 8000, "800 channels"),
        (np.zeros(0, np.float32), 8000, "holds no samples"),
        (np.full(800, np.nan, np.float32), 8000, "NaN"),
        (np.zeros(800, np.float32), 3, "sample rate 3 Hz"),
    ],
)
def test_sound_that_cannot_be_one(before: Path, given: np.ndarray, sr: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        samo.load("speech", threads=1).predict(given, sr=sr)


def test_a_string_is_one_text_never_its_letters(before: Path) -> None:
    model = samo.load("text", threads=1)
    one = model.predict("so happy and glad today")
    assert isinstance(one, Prediction)
    assert (one.text, one.path) == ("so happy and glad today", None)
    assert list(one.answers) == ["mood", "topic"]
    assert one.answers["mood"].likeliest == "joy"
    several = model.predict(text for text in ("so happy and glad today", "dark panic"))
    assert several[0].labels == one.labels
    assert several[0].probabilities == pytest.approx(one.probabilities, abs=1e-6)
    columns = list(several.rows()[0])
    assert columns[:4] == ["text", "mood.label", "mood.labels", "mood.anger"]
    assert model.predict(np.array(["a", "b"]))[1].text == "b"


@pytest.mark.parametrize(
    ("given", "how", "words"),
    [
        (3, {}, "takes texts, not int"),
        (b"joy", {}, "not bytes"),
        (["joy", None], {}, "not None"),
        ([["joy"]], {}, "not list"),
        (Path("x.txt"), {}, "not PosixPath"),
        ("joy", {"sr": 16000}, "no sampling rate"),
    ],
)
def test_wrong_text_is_refused_in_one_sentence(before: Path, given: Any, how: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        samo.load("text", threads=1).predict(given, **how)


def test_where_no_label_holds_the_likeliest_is_told(before: Path, artifacts: Path) -> None:
    stored = artifacts / "runs" / "text" / "thresholds.json"
    content = json.loads(stored.read_text())
    for task in content["tasks"].values():
        task["per_class"] = dict.fromkeys(task["per_class"], 0.99)
    stored.write_text(json.dumps(content))
    found = samo.load("text", threads=1).predict("so happy")
    assert (found.label, found.labels) == ("", ())
    assert "none (likeliest: " in str(found)


# Training and evaluating


@pytest.mark.parametrize(("how", "data"), [(SPEECH, "clips"), (TEXT, "texts.csv")])
def test_train_evaluate_load(before: Path, artifacts: Path, how: dict[str, Any], data: str, capfd: Any) -> None:
    run = samo.train(data_root=before / data, **how)
    assert run.folder.parent == Path("artifacts/runs")
    assert run.trained["epochs"] == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert sum(line.startswith("epoch ") for line in printed.err.splitlines()) == 2
    report = samo.evaluate(run, threads=1)
    assert report["run"] == run.name
    assert f"{report['metrics']['macro_f1']:.3f}" in repr(report)
    assert report["run"] in repr(report)
    page = report._repr_html_()
    assert page.startswith('<iframe srcdoc="&lt;!')
    assert page.count("<") == 2
    assert samo.load(run).facts == samo.load().facts
    assert run.status == "evaluated"


def test_a_run_remembers_the_call_that_trains_it_again(before: Path) -> None:
    run = samo.train(data_root=before / "clips", **SPEECH)
    call = ast.parse(run.environment["command"], mode="eval").body
    assert isinstance(call, ast.Call)
    given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    again = samo.train(**{**given, "name": "again", "precision": "float32", "threads": 1})
    assert again.model_file.read_bytes() == run.model_file.read_bytes()


def test_a_flag_of_the_command_line_is_an_argument(before: Path) -> None:
    plain = samo.train(data_root=before / "clips", **SPEECH)
    weighted = samo.train(data_root=before / "clips", **SPEECH, class_weight_loss=True, class_weight_mult={"sad": 3.0})
    assert weighted.settings["class_weight_loss"] is True
    assert weighted.history[0]["train_loss"] != plain.history[0]["train_loss"]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"lerning_rate": 1}, "unknown setting 'lerning_rate'"),
        ({"lr": -1}, "`lr` -1"),
        ({"modality": "vision"}, "unknown modality 'vision'"),
        ({"preset": "nope"}, "unknown preset 'nope'"),
        ({"focal_gamma": 1.0}, "`focal_gamma` acts only together with `focal_loss`"),
        ({"resume": "x", "name": "y"}, "`resume` takes neither"),
    ],
)
def test_wrong_settings_are_named(how: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        samo.train(**how)


def test_resume_goes_on_in_a_notebook_too(before: Path) -> None:
    whole = samo.train(data_root=before / "clips", **SPEECH, name="whole")
    with pytest.raises(RunError, match="is finished"):
        samo.train(resume="whole", threads=1)
    with pytest.raises(RunError, match="`epochs` 2 is now 9"):
        samo.train(resume="whole", epochs=9)
    assert whole.status == "trained"


@pytest.mark.slow
def test_another_corpus_in_the_runs_words(before: Path, tmp_path: Path) -> None:
    run = samo.train(data_root=before / "clips", **SPEECH)
    for name in ("rage", "joy"):
        (tmp_path / "other" / name).mkdir(parents=True)
        for number in range(3):
            noise = np.random.default_rng(number + len(name)).normal(0, 0.1, 4000)
            soundfile.write(tmp_path / "other" / name / f"{number}.wav", noise, 8000)
    other = {"dataset": "folder", "data_root": tmp_path / "other", "speaker_pattern": ""}
    report = samo.evaluate(run, **other, label_map={"rage": "angry", "joy": "happy"}, threads=1)
    assert (report["n"], report["split"], report["label_map"]) == (6, "all", {"rage": "angry", "joy": "happy"})
    with pytest.raises(DataError, match="does not know these classes of the corpus: joy, rage"):
        samo.evaluate(run, **other)
    with pytest.raises(SettingsError, match="`label_map` acts only together with `dataset`"):
        samo.evaluate(run, label_map={"joy": "happy"})
    with pytest.raises(SettingsError, match="`on=tset`: unknown part"):
        samo.evaluate(run, on="tset")


# What a person may hand over


def test_evaluation_takes_no_setting_that_makes_another_model(before: Path, artifacts: Path) -> None:
    for name, value in {"sr": 16000, "duration": 1.0, "lr": 0.5, "epochs": 9, "split": "random", "width": 8}.items():
        with pytest.raises(SettingsError, match=f"`{name}` cannot be set when a run is evaluated"):
            samo.evaluate("speech", data_root=before / "clips", **{name: value})
    assert not (artifacts / "runs" / "speech" / "report.json").exists()


@pytest.mark.slow
def test_a_run_by_what_a_person_has_in_hand(before: Path) -> None:
    model = samo.load("speech", threads=1)
    report = samo.evaluate(model, data_root=before / "clips", threads=1)
    assert report["run"] == "speech"
    for wrong in (None, 3, b"x"):
        with pytest.raises(TypeError, match="a run is given by its name, its folder"):
            samo.load(wrong)
        with pytest.raises(TypeError, match="a run is given by its name, its folder"):
            samo.evaluate(wrong)
    with pytest.raises(TypeError, match="`label_map` takes a dict"):
        samo.evaluate("speech", dataset="folder", label_map="a=b")
    with pytest.raises(SettingsError, match="`threads` 'x'"):
        samo.load("speech", threads="x")
    for code in ([None], [3]):
        with pytest.raises(TypeError, match="`trust_code` takes names"):
            samo.load("speech", trust_code=code)
    assert samo.load("speech", trust_code=None).facts.name == "speech"


def test_resume_by_run_and_folder(before: Path) -> None:
    run = samo.train(data_root=before / "clips", **SPEECH, name="whole")
    for given in (run, run.folder, "whole"):
        with pytest.raises(RunError, match="is finished"):
            samo.train(resume=given, threads=1)
    with pytest.raises(SettingsError, match="unknown setting 'foo'"):
        samo.train(resume=run, foo=3)


def test_tables_and_odd_arrays(before: Path) -> None:
    pandas = pytest.importorskip("pandas")
    text, speech = samo.load("text", threads=1), samo.load("speech", threads=1)
    frame = pandas.DataFrame({"text": ["so happy", "dark panic"], "id": [1, 2]})
    with pytest.raises(TypeError, match="one column of a table"):
        text.predict(frame)
    assert [one.text for one in text.predict(frame["text"])] == ["so happy", "dark panic"]
    paths = np.array([str(before / CLIP), str(before / CLIP)])
    assert len(speech.predict(paths)) == 2
    plain, rate = samples(before)
    half = speech.predict(torch.from_numpy(plain).bfloat16(), sr=rate)
    assert half.probabilities == pytest.approx(speech.predict(plain, sr=rate).probabilities, abs=0.02)
    with pytest.raises(TypeError, match="`sr` is a sampling rate in Hz"):
        speech.predict(plain, sr="8000")


def test_one_prediction_is_short_to_look_at(before: Path) -> None:
    one = samo.load("speech", threads=1).predict(before / "long.flac")
    assert len(repr(one)) < 200
    assert repr(one).startswith("<")
    assert one.label in one._repr_html_()


def test_rows_have_one_shape_and_lose_no_class() -> None:
    answer = Answer(("label",), "label", {"label": 0.9, "error": 0.1})
    rows = PredictionList([Prediction(path=Path("x"), error="gone"), Prediction({"a": answer}, path=Path("y"))]).rows()
    assert [list(row) for row in rows] == [
        ["path", "label", "labels", "p.label", "p.error", "abstained", "warnings", "error"]
    ] * 2
    assert rows[1]["label"] == "label"
    assert (rows[0]["p.label"], rows[0]["error"], rows[1]["p.label"]) == (None, "gone", 0.9)


def test_a_damaged_record_of_code_is_one_error(artifacts: Path, before: Path) -> None:
    path = artifacts / "runs" / "speech" / "environment.json"
    content = json.loads(path.read_text())
    for damage in ({"model": "x"}, {"model": {}}, [1], {"model": {"name": 3}}):
        path.write_text(json.dumps({**content, "code": damage}))
        with pytest.raises(RunError, match="its record of code is damaged"):
            samo.load("speech")
