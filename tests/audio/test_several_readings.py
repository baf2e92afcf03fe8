"""An ensemble of networks that read clips differently: rate, trimming, window and views are each member's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_audio as tiny
import torch

import samo
from samo.data.padding import packed, padded, parts_of
from samo.deploy.export import export
from samo.deploy.quantise import _last_sums
from samo.ensembles.build_ensemble import build_ensemble
from samo.errors import ModelFileError, SettingsError
from samo.evaluation.predictions import Predictions
from samo.launch.resources import Resources
from samo.prediction import Decoded
from samo.prediction.exported import ExportedModel
from samo.runs import run_report
from samo.runs.artifacts import create_run
from samo.runs.calibrate import decision_of
from samo.runs.ensemble_model import unpacked
from samo.runs.evaluate import evaluate_run, open_data
from samo.runs.load import load_run_model
from samo.runs.reporter import PlainReporter
from samo.runs.run import Run
from samo.runs.teachers import taught_probabilities
from samo.runs.training import train_run
from samo.training.setup import Setup
from samo.training.trainer import predict_logits
from samo_audio.audio_io import read
from samo_audio.frontend import AudioFrontend
from samo_audio.live import live
from samo_audio.several_readings import Part, SeveralReadings

OTHER = {"sr": 12_000, "duration": 0.4, "trim_db": 30.0, "tta_shift": 0.05, "n_fft": 512}
TWICE = {"class_weight_loss": True, "balanced_sampler": True}


def test_parts_of_floats_are_packed_and_taken_apart() -> None:
    rows = [packed([np.float32([0.5, -0.5, 0.25]), np.float32([1.0])]), packed([np.float32([2.0]), np.float32([3, 4])])]
    assert [row.tolist() for row in rows] == [[3.0, 1.0, 0.5, -0.5, 0.25, 1.0], [1.0, 2.0, 2.0, 3.0, 4.0]]
    assert {row.dtype for row in rows} == {np.dtype("float32")}
    inputs = torch.from_numpy(padded(rows)[0])
    values, lengths = unpacked(inputs, 1, 2)
    assert (values.tolist(), lengths.tolist()) == ([[1.0, 0.0], [3.0, 4.0]], [1, 2])
    assert lengths.dtype == torch.int64
    first, second = parts_of(padded(rows)[0][1], 2)
    assert (first.tolist(), second.tolist()) == ([2.0], [3.0, 4.0])


def test_short_clips_are_whole_and_long_ones_in_pieces(tmp_path: Path) -> None:
    several = SeveralReadings((Part(sr=8000, trim_db=0.0), Part(sr=4000, trim_db=20.0)), 4.0)
    assert (several.sr, several.window, several.rates) == (8000, 32_000, (4000, 8000))
    short = {8000: np.ones(80_000, np.float32), 4000: np.ones(40_000, np.float32)}
    ((start, piece),) = several.pieces(short)
    assert (start, {rate: len(samples) for rate, samples in piece.items()}) == (0, {8000: 80_000, 4000: 40_000})
    long = {8000: np.ones(80_001, np.float32), 4000: np.ones(40_001, np.float32)}
    pieces = list(several.pieces(long))
    assert [start for start, _ in pieces] == [0, 24_000, 48_001]
    assert [{rate: len(samples) for rate, samples in piece.items()} for _, piece in pieces] == [{8000: 32_000}] * 3
    assert several.row(pieces[0][1])[:2].tolist() == [32_000.0, 16_000.0]
    low = SeveralReadings((Part(sr=8000, trim_db=0.0), Part(sr=2000, trim_db=0.0)), 4.0)
    assert low.row({8000: np.ones(1, np.float32)}).tolist() == [1.0, 1.0, 1.0, 0.0]
    # What the second part does not hear, the first does: silence behind.
    quiet = np.concatenate([np.ones(8000), np.zeros(8000)]).astype(np.float32)
    first, second = several.row({8000: quiet, 4000: quiet[::2]})[:2].tolist()
    assert first == 16_000.0
    assert 4000.0 <= second < 4200.0
    several.save(tmp_path)
    assert SeveralReadings.load(tmp_path) == several
    assert SeveralReadings.load(tmp_path / "nothing") is None
    (tmp_path / "several_readings.json").write_text('{"parts": [{"sr": 8000, "trim_db": -1.0}], "window_s": 1.0}')
    with pytest.raises(ModelFileError, match=r"several_readings\.json: parts\.0\.trim_db"):
        SeveralReadings.load(tmp_path)


class Silent:
    """An observer that looks away."""

    def on_step(self, *_: object) -> None:
        """Nothing."""

    def on_epoch(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts with runs ``plain`` and ``other``, which reads clips otherwise, and ``both`` of them."""
    folder = tmp_path_factory.mktemp("readings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(folder / "cache"))
        patch.setattr(run_report, "save_figures", lambda *_: [])
        table = tiny.corpus(folder)
        for name, values in {"plain": {}, "other": {**OTHER, **TWICE}}.items():
            front = tiny.frontend(table, **{"baseline": "none", "epochs": 4, "lr": 0.02, **values})
            train_run(create_run(folder, name, ""), Setup(front, tiny.CPU), Silent())
        members = [Run(folder / "runs" / name) for name in ("plain", "other")]
        build_ensemble(members, name="both", artifacts=folder, resources=Resources(device="cpu", threads=1))
    return folder


@pytest.fixture(autouse=True)
def kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(root / "cache"))
    monkeypatch.setattr(run_report, "save_figures", lambda *_: [])


def mean_of_members(root: Path, ids: tuple[str, ...]) -> np.ndarray:
    """(N, C) mean of the probabilities that members give alone, each through its own frontend."""
    found = []
    for name in ("plain", "other"):
        run = Run(root / "runs" / name)
        setup = Setup(open_data(run, {}, PlainReporter()), tiny.CPU)
        model, space = load_run_model(run, AudioFrontend, tiny.CPU)
        logits = predict_logits(model, setup, setup.frontend.manifest.rows(ids))
        found.append(decision_of(run, space).probabilities(logits, space))
    assert np.abs(found[0] - found[1]).max() > 1e-3
    mean: np.ndarray = np.mean(found, axis=0)
    return mean


def test_each_member_reads_clips_as_it_does_alone(root: Path) -> None:
    run = Run(root / "runs" / "both")
    space = run.manifest.label_space
    stored = Predictions.load(run.path("predictions.test.npz"))
    expected = mean_of_members(root, stored.ids)
    np.testing.assert_allclose(space.probabilities(stored.logits), expected, atol=2e-6)
    summary = run.path("ensemble.json").read_text()
    assert '"left_out": []' in summary
    # Opened again it answers alike, from files and from samples.
    model = samo.load("both", artifacts=root, threads=1)
    paths = {item.id: run.manifest.path(item) for item in run.manifest.items}
    decided = decision_of(run, space).probabilities(stored.logits, space)
    answers = list(model.stream([paths[name] for name in stored.ids]))
    for row, answer in zip(decided, answers, strict=True):
        np.testing.assert_allclose(list(answer.answers["emotion"].probabilities.values()), row, atol=2e-5)
    again = Setup(open_data(run, {}, PlainReporter()), tiny.CPU)
    assert again.frontend.sr == model.sr == 12_000
    before = json.loads(run.path("report.json").read_text())
    assert evaluate_run(run, again, "test")["metrics"] == before["metrics"]
    assert [line[:27] for line in before["warnings"] if "balanced" in line] == ["classes are balanced twice:"]


def test_samples_streams_and_decoded_clips(root: Path) -> None:
    """However a clip comes, and piece by piece where it is long; nothing but the ensemble's folder is needed."""
    model = samo.load(shutil.copytree(root / "runs" / "both", root / "alone"), threads=1)
    samples = np.concatenate([tiny.sound(1.3, "happy", 3), tiny.sound(1.3, "sad", 4)], dtype=np.float32)
    path = tiny.write(root / "own.wav", samples, subtype="FLOAT")
    of_file, of_samples = model.predict(path), model.predict(samples, sr=tiny.SR)
    assert of_file.answers == of_samples.answers
    clip = read(path, 12_000)
    (of_decoded,) = model.stream([Decoded(clip.waveform, 12_000, clip.peak, clip.rms_db, ())])
    shares = [list(each.answers["emotion"].probabilities.values()) for each in (of_file, of_decoded)]
    np.testing.assert_allclose(*shares, atol=1e-3)  # resampled twice
    assert model.spectrogram(samples, tiny.SR) is None
    long = np.tile(samples, 5)
    predicted = model.predict(long, sr=tiny.SR)
    # 13 s in windows of the longest member, half a second.
    assert len(predicted.timeline) == 26
    assert predicted.timeline[0].end_s == 0.5
    moments = list(live(model, [long[:6000]], tiny.SR, voice=False))
    first = [list(each.answers["emotion"].probabilities.values()) for each in (moments[0], predicted.timeline[0])]
    np.testing.assert_allclose(*first, atol=2e-2)  # where a stream is resampled block by block, its ends are not known


def test_its_file_answers_alike(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From files, samples and pieces of long ones; the file knows each member's reading."""
    monkeypatch.setattr("samo.deploy.parity._ROUNDS", 1)
    monkeypatch.setattr("samo.deploy.export.BATCHES", (1,))
    how = {"artifacts": root, "threads": 1, "reporter": PlainReporter(quiet=True)}
    made = export("both", tmp_path / "both.onnx", **how)
    assert (made.facts["exact"]["part"], made.facts["exact"]["equal_labels"]) == ("test", 1.0)
    assert made.facts["exact"]["largest_difference"] < 1e-4
    opened = ExportedModel.open(made.path)
    assert opened.metadata.format == "samo-onnx-2"
    assert opened.metadata.reading == {
        "parts": [
            {"sr": 8000, "window": 4000, "trim_db": 0.0},
            {"sr": 12_000, "window": 4800, "trim_db": 30.0, "tta_shift": 0.05},
        ],
        "window_s": 0.5,
    }
    # Windows are averaged over behind the last layers, which stay as they are in 8 bits.
    last = _last_sums(onnx.load(str(made.path)))
    assert sorted(name.rpartition("/")[2][:6] for name in last) == ["Gemm", "Gemm", "MatMul", "MatMul"]
    run, file = samo.load("both", artifacts=root, threads=1), samo.load(made.path, threads=1)
    assert file.decision == run.decision
    stored = Predictions.load(Run(root / "runs" / "both").path("predictions.test.npz"))
    manifest = Run(root / "runs" / "both").manifest
    paths = {item.id: manifest.path(item) for item in manifest.items}
    space = manifest.label_space
    answers = file.predict([paths[name] for name in stored.ids])
    means = np.log(mean_of_members(root, stored.ids))
    expected = file.decision.probabilities(means, space)
    found = [list(each.answers["emotion"].probabilities.values()) for each in answers]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    samples = np.concatenate([tiny.sound(1.3, "happy", 3), tiny.sound(9.0, "sad", 4)], dtype=np.float32)
    for given in (samples[:11_000], samples):
        one, other = (model.predict(given, sr=tiny.SR) for model in (run, file))
        assert [len(each.timeline) for each in (one, other)] == [0 if len(given) < 80_000 else 21] * 2
        pairs = zip([one, *one.timeline], [other, *other.timeline], strict=True)
        for mine, others in pairs:
            shares = [list(each.answers["emotion"].probabilities.values()) for each in (mine, others)]
            np.testing.assert_allclose(*shares, atol=2e-5)
    assert file.spectrogram(samples, tiny.SR) is None
    with pytest.raises(SettingsError, match="members of this ensemble read differently, and a program has one reading"):
        export("both", tmp_path / "both.pt2", format="torch-export", **how)


def test_it_can_teach(root: Path) -> None:
    student = tiny.frontend(root / "table.csv", baseline="none", teacher=str(root / "runs" / "both"))
    rows = student.manifest.rows(Run(root / "runs" / "both").split.train)
    taught = taught_probabilities([Run(root / "runs" / "both")], student, rows, tiny.CPU)[rows]
    ids = tuple(student.manifest.items[row].id for row in rows)
    run = Run(root / "runs" / "both")
    expected = decision_of(run, run.manifest.label_space).probabilities(
        np.log(mean_of_members(root, ids)), run.manifest.label_space
    )
    assert np.abs(taught - expected).max() < 0.2  # softened by `distil_temperature`
    assert (taught.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_a_speakers_statistics_go_with_no_other_reading(root: Path) -> None:
    settings = [tiny.config(**values) for values in ({}, OTHER, {"normalisation": "speaker"})]
    assert [AudioFrontend.packs(each) for each in settings] == [True, True, False]
