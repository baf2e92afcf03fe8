"""Functionals: what they measure, the model and the baseline made of them, and the warning that level gives."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import tiny_audio as tiny
import torch
from torch import Tensor

from samo.data.batch import Draws
from samo.errors import EnvironmentProblem, SettingsError
from samo.evaluation.baseline import blind_guess
from samo.evaluation.calibration import apply_temperature
from samo.evaluation.predictions import Predictions
from samo.runs.calibrate import decision_of
from samo.runs.evaluate import evaluate_run
from samo.runs.load import load_run_model
from samo.runs.run import Run
from samo.runs.teachers import taught_probabilities
from samo.runs.training import train_run
from samo.training.setup import Setup
from samo.training.trainer import predict_logits
from samo.training.training_log import TrainingLog
from samo_audio import baseline
from samo_audio.config import FeatureSettings
from samo_audio.frontend import AudioFrontend
from samo_audio.functionals import LevelFunctionals, SpectrumFunctionals
from samo_audio.functionals import _onsets as onsets
from samo_audio.functionals import _quantiles as quantiles

SR = 16_000
# The last numbers of the set without the level: pitch (5), voiced share, voicing, sounding share, log seconds, rate.
PITCH_MEDIAN, VOICED, SOUNDING, LOG_SECONDS, RATE = -7, -5, -3, -2, -1


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path_factory.getbasetemp() / "functionals-cache"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.corpus(tmp_path_factory.mktemp("corpus"))


def settings(**values: Any) -> FeatureSettings:
    return FeatureSettings(**{"sr": SR, **values})


def buzz(hertz: float, seconds: float = 1.0) -> Tensor:
    time_s = torch.arange(round(seconds * SR)) / SR
    return sum(0.2 / k * torch.sin(2 * torch.pi * k * hertz * time_s) for k in range(1, 8))  # type: ignore[return-value]


def numbers(*waveforms: Tensor, **values: Any) -> Tensor:
    lengths = torch.tensor([len(each) for each in waveforms])
    padded = torch.zeros(len(waveforms), int(lengths.max()))
    for row, each in zip(padded, waveforms, strict=True):
        row[: len(each)] = each
    made = SpectrumFunctionals(settings(**values))
    found = made(padded, lengths)
    assert found.shape == (len(waveforms), made.width)
    assert found.isfinite().all()
    return found


# What is measured


def test_pitch_is_that_of_a_buzz_in_semitones_above_100_hz() -> None:
    found = numbers(buzz(100.0), buzz(200.0), buzz(141.42))
    assert found[:, PITCH_MEDIAN].tolist() == pytest.approx([0.0, 12.0, 6.0], abs=0.15)
    assert found[:, VOICED].min() > 0.95
    noise = torch.randn(SR, generator=torch.Generator().manual_seed(0))
    assert numbers(noise)[0, VOICED] < 0.1


def test_pauses_count_neither_as_sound_nor_as_onsets() -> None:
    half, quiet = buzz(120.0, 0.5), torch.zeros(SR // 2)
    found = numbers(torch.cat([half, quiet, half, quiet]))[0]
    assert found[SOUNDING] == pytest.approx(0.5, abs=0.03)
    assert found[LOG_SECONDS].exp() == pytest.approx(1.0, abs=0.06)
    level = torch.tensor([[0.0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0]])
    assert onsets(level, level >= 0.0).item() >= 2.0
    assert onsets(level, level < 0.0).item() == 0.0


def test_quantiles_are_numpys_over_the_frames_that_count() -> None:
    values = torch.tensor([[[5.0, 1.0, 4.0, 2.0, 99.0], [1.0, 2.0, 3.0, 4.0, 99.0]]])
    mask = torch.tensor([[True, True, True, True, False]])
    expected = [np.quantile([5, 1, 4, 2], [0.1, 0.5, 0.9]), np.quantile([1, 2, 3, 4], [0.1, 0.5, 0.9])]
    np.testing.assert_allclose(quantiles(values, mask, (0.1, 0.5, 0.9))[0].numpy(), expected, rtol=1e-6)
    assert quantiles(values, ~mask & mask, (0.5,)).abs().sum() == 0.0


def test_padding_and_neighbours_change_nothing() -> None:
    short, long = buzz(130.0, 0.4), buzz(210.0, 1.3)
    together = numbers(short, long, short)
    torch.testing.assert_close(together[0], numbers(short)[0], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(together[1], numbers(long)[0], atol=1e-3, rtol=1e-3)
    numbers(torch.zeros(10), torch.zeros(SR))


def test_loudness_says_something_only_where_it_may() -> None:
    sound = buzz(130.0) + 0.01 * torch.randn(SR, generator=torch.Generator().manual_seed(0))
    loud, soft = numbers(sound, 0.1 * sound)
    torch.testing.assert_close(loud, soft, atol=1e-3, rtol=1e-3)
    loud, soft = numbers(sound, 0.1 * sound, level="peak")
    torch.testing.assert_close(loud, soft, atol=1e-3, rtol=1e-3)
    loud, soft = numbers(sound, 0.1 * sound, level="as-is")
    assert loud[-1] - soft[-1] == pytest.approx(20.0, abs=1e-3)


def test_level_and_duration_are_all_that_the_level_set_sees() -> None:
    half = torch.full((SR,), 0.5)
    found = LevelFunctionals(settings())(torch.stack([half, 0.05 * half / 0.5]), torch.tensor([SR, SR // 2]))
    # A level of 0.5 is -6.02 dB: (-6.02 + 40) / 20; peak alike; 1 s is 0 in log.
    assert found[0, :4].tolist() == pytest.approx([1.699, 1.699, 1.699, 0.0], abs=1e-3)
    assert found[1, 3].item() == pytest.approx(np.log(0.5))
    torch.testing.assert_close(found[:, 4:], found[:, :4] ** 2)
    # Which sound it is does not matter.
    flipped = torch.stack([half * (-1.0) ** torch.arange(SR), 0.05 * half / 0.5])
    torch.testing.assert_close(LevelFunctionals(settings())(flipped, torch.tensor([SR, SR // 2])), found)


# The model and the baseline


def trained(table: Path, tmp_path: Path, **values: Any) -> tuple[Run, Setup]:
    front = tiny_frontend(table, **values)
    setup, run = Setup(front, tiny.CPU), Run(tmp_path / "run")
    train_run(run, setup, TrainingLog(1), "typed")
    return run, setup


def tiny_frontend(table: Path, **values: Any) -> AudioFrontend:
    own = {"model": "functionals", "sr": tiny.SR, "dataset": "table", "data_root": str(table), "split": "table"}
    return AudioFrontend.open(tiny.AudioConfig.build({**own, **values}), lambda line: None)


def test_a_run_takes_no_steps_and_answers_as_the_baseline_of_another(table: Path, tmp_path: Path) -> None:
    run, setup = trained(table, tmp_path)
    assert (len(run.history), run.trained["epochs"]) == (1, 1)
    rows = np.arange(24)
    model, _ = load_run_model(run, AudioFrontend, tiny.CPU)
    own = predict_logits(model, setup, rows)
    cnn = tiny.frontend(table)
    learned = setup.frontend.manifest.rows(run.split.train)
    name, logits = cnn.baseline(learned, rows) or ("", own)
    assert name == "functionals"
    np.testing.assert_allclose(logits, own, atol=1e-4)
    assert (logits[learned].argmax(axis=1) == cnn.manifest.targets[learned].argmax(axis=1)).mean() > 0.8
    assert setup.frontend.baseline(learned, rows) is None
    assert (
        cnn.with_config(tiny.config(dataset="table", data_root=str(table), split="table", baseline="none")).baseline(
            learned, rows
        )
        is None
    )


def test_features_are_computed_once_and_other_rows_make_another_baseline(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    counts = {"features": 0, "fits": 0}
    real, fit = baseline.features_of, baseline.fit_functionals
    monkeypatch.setattr(baseline, "features_of", lambda *a: counts.update(features=counts["features"] + 1) or real(*a))
    monkeypatch.setattr(baseline, "fit_functionals", lambda *a: counts.update(fits=counts["fits"] + 1) or fit(*a))
    front = tiny.frontend(table)
    rows = np.arange(24)
    first, again = (front.baseline(learn, rows) for learn in (rows[:16], rows[:16][::-1].copy()))
    assert first is not None
    assert again is not None
    assert np.array_equal(first[1], again[1])
    assert counts == {"features": 1, "fits": 1}
    other = front.baseline(rows[:12], rows)
    assert other is not None
    assert not np.allclose(other[1], first[1])
    assert counts == {"features": 1, "fits": 2}
    # Other speakers of the same clips: other folds, on which the strength is chosen.
    items = tuple(replace(item, group=f"p{row % 5}") for row, item in enumerate(front.manifest.items))
    regrouped = front.with_manifest(replace(front.manifest, items=items))
    assert regrouped.manifest.digest == front.manifest.digest
    regrouped.baseline(rows[:16], rows)
    assert counts == {"features": 1, "fits": 3}
    for path in (tmp_path / "cache" / "baselines").iterdir():
        path.write_bytes(b"damaged")
    assert np.allclose((front.baseline(rows[:16], rows) or first)[1], first[1], atol=1e-5)
    assert counts == {"features": 2, "fits": 4}


def test_settings_of_a_training_by_steps_are_refused() -> None:
    for name, value in {"epochs": 3, "lr": 0.1, "focal_loss": True, "noise": True, "dropout": 0.1}.items():
        with pytest.raises(SettingsError, match=f"`{name}` does nothing for `model=functionals`, which takes no steps"):
            tiny.AudioConfig.build({"model": "functionals", name: value})
    assert tiny.AudioConfig.build({"model": "functionals", "seed": 3, "level": "as-is"}).features.duration == 10.0
    with pytest.raises(SettingsError, match="`functional_set` acts only together with `model=functionals`"):
        tiny.AudioConfig.build({"functional_set": "level"})


class Smile:
    """Stands for openSMILE: mean and length."""

    def __init__(self, feature_set: str, level: str) -> None:
        assert (feature_set, level) == ("v02", "functionals")

    def process_signal(self, samples: np.ndarray, rate: int) -> pandas.DataFrame:
        assert rate == tiny.SR
        return pandas.DataFrame([[float(np.abs(samples).mean()), float(len(samples)), float("nan"), *[0.0] * 85]])


def test_egemaps_asks_opensmile_for_each_clip_and_says_its_licence(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"model": "functionals", "functional_set": "egemaps", "sr": tiny.SR, "dataset": "table", "split": "table"}
    config = tiny.AudioConfig.build({**given, "data_root": str(table)})
    notes: list[str] = []
    front = AudioFrontend.open(config, notes.append)
    assert "forbids products" in notes[0]
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(EnvironmentProblem, match="needs the package opensmile") as caught:
        front.new_model()
    assert "forbids products" in caught.value.hint
    known = SimpleNamespace(
        Smile=Smile,
        FeatureSet=SimpleNamespace(eGeMAPSv02="v02"),
        FeatureLevel=SimpleNamespace(Functionals="functionals"),
    )
    monkeypatch.setitem(sys.modules, "opensmile", known)
    model: Any = front.new_model()
    [batch] = front.eval_batches(np.array([0, 3]), 2)
    found = model.functionals(batch.inputs, batch.lengths)
    assert found.shape == (2, 88)
    assert found[:, 1].tolist() == [0.2 * tiny.SR, 1.3 * tiny.SR]
    assert found.isfinite().all()
    model.load_state_dict(front.fit(np.arange(16)), strict=False)
    assert model(batch.inputs, batch.lengths, Draws(0, 0, batch.rows)).shape == (2, 3)


def test_it_teaches_a_network_that_hears_otherwise_as_it_is_and_without_the_speaker(
    table: Path, tmp_path: Path
) -> None:
    teacher, setup = trained(table, tmp_path)
    own: dict[str, Any] = {"dataset": "table", "data_root": str(table), "split": "table", "sr": 4000, "duration": 0.3}
    student = AudioFrontend.open(tiny.config(**own, teacher=str(teacher.folder)), lambda line: None)
    rows = student.manifest.rows(teacher.split.train)
    model, space = load_run_model(teacher, AudioFrontend, tiny.CPU)
    temperature = decision_of(teacher, space).calibration.temperature
    logits = apply_temperature(predict_logits(model, setup, rows), temperature, space)
    found = taught_probabilities([teacher], student, rows, tiny.CPU)
    np.testing.assert_allclose(found[rows], space.probabilities(logits / 2.0), atol=1e-5)
    anew = student.with_config(tiny.config(**own, teacher=str(teacher.folder), distil_out_of_fold=True))
    held_out = taught_probabilities([teacher], anew, rows, tiny.CPU)[rows]
    expected = space.probabilities(setup.frontend.out_of_fold(rows) / 2.0)
    np.testing.assert_allclose(held_out, expected, atol=1e-5)
    assert np.abs(held_out - found[rows]).max() > 0.01
    run = Run(tmp_path / "student")
    train_run(run, Setup(student, tiny.CPU), TrainingLog(1), "typed")
    assert run.path("taught.safetensors").is_file()


# The report


def loud_corpus(root: Path) -> Path:
    """Noise alone, whose class is its level, of ten speakers."""
    lines = ["path,label,speaker,split"]
    for speaker in range(10):
        part = "train" if speaker < 4 else "val" if speaker < 6 else "test"
        for number in range(4):
            label = ("calm", "angry")[number % 2]
            noise = np.random.default_rng(10 * speaker + number).standard_normal(tiny.SR // 2)
            name = f"{speaker}-{number}.wav"
            tiny.write(root / name, (0.01 if label == "calm" else 0.2) * noise)
            lines.append(f"{name},{label},s{speaker},{part}")
    (root / "table.csv").write_text("\n".join(lines))
    return root / "table.csv"


def test_a_report_warns_where_level_gives_the_class_away(tmp_path: Path) -> None:
    run, setup = trained(loud_corpus(tmp_path / "loud"), tmp_path, functional_set="level")
    report = evaluate_run(run, setup, "test")
    assert report["baseline"] is None
    assert report["shortcut"] == {
        "name": "level and duration", "macro_f1": 1.0, "ci": report["shortcut"]["ci"], "level": 0.95, "unit": "speaker",
        "chance": 0.5,
    }  # fmt: skip
    [line] = [line for line in report["warnings"] if "level and duration" in line]
    assert line.startswith("level and duration alone reach macro-F1 1.000 [")
    assert "a blind guess 0.500: the labels stand partly in how the data were made" in line
    assert line in run.path("report.html").read_text().replace("&#39;", "'")
    kept = Predictions.load(run.path("predictions.test.shortcut.npz"))
    assert kept.ids == run.split.test
    # A run that does not hear the level has it beside it, and the floor.
    other, setup = trained(loud_corpus(tmp_path / "loud"), tmp_path / "cnn", model="small-cnn", n_mels=32, n_fft=256,
        hop_length=64, duration=0.5, epochs=1, width=4)  # fmt: skip
    report = evaluate_run(other, setup, "test")
    assert report["baseline"]["name"] == "functionals"
    # Each class is one noise at two levels.
    assert report["baseline"]["macro_f1"] < 0.9
    assert any("level and duration alone" in line for line in report["warnings"])


def test_no_warning_without_more_than_chance(table: Path, tmp_path: Path) -> None:
    run, setup = trained(table, tmp_path)
    report = evaluate_run(run, setup, "test")
    # One speaker has no interval, and so nothing to say.
    assert report["shortcut"]["ci"] is None
    assert not any("level and duration" in line for line in report["warnings"])


def test_a_blind_guess() -> None:
    truth = np.eye(4)[[0, 0, 0, 1, 1, 2]] > 0.5
    assert blind_guess(truth, multi_label=False) == pytest.approx(1 / 3)
    several = np.array([[1, 1], [0, 1], [0, 1], [0, 1]]) > 0
    # Always both: F1 of 2 * 0.25 / 1.25 and of 1.
    assert blind_guess(several, multi_label=True) == pytest.approx((0.4 + 1.0) / 2)


def test_a_flat_top_is_one_onset_whichever_of_its_frames_is_higher_by_the_last_bit() -> None:
    # Two humps, each the same on both sides of a top that two frames share: 12 zeros, up, down, and again.
    hump = torch.tensor([0.0] * 12 + [4.0, 8.0, 12.0, 12.0, 8.0, 4.0] + [0.0] * 12)
    level, sounding = torch.cat([hump, hump])[None], torch.ones(1, 60, dtype=torch.bool)
    places = torch.arange(60)
    sounding &= (places % 30 > 11) & (places % 30 < 18)
    assert onsets(level, sounding).item() == 2.0
    for frame in (13, 18, 43, 48):  # these stand in the mean of one of two tied frames, not of the other
        nudged = level.clone()
        nudged[0, frame] += 1e-6
        assert onsets(nudged, sounding).item() == 2.0
    # Digital silence has a level to a rounding: no onset but its first frame, however long it is.
    silence = -80.0 + 1e-5 * torch.randn(1, 300, generator=torch.Generator().manual_seed(0))
    assert onsets(silence, torch.ones(1, 300, dtype=torch.bool)).item() == 1.0


def test_a_clip_that_ends_in_sound_has_its_onsets_whatever_it_shares_a_batch_with() -> None:
    """Behind its end a padded clip goes on as it ended, which once moved the last peak of its level."""
    features = SpectrumFunctionals(FeatureSettings(sr=8000))
    generator = torch.Generator().manual_seed(0)
    clips = [0.1 * torch.randn(n, generator=generator) for n in (9000, 2500, 3777, 5050)]
    padded = torch.stack([torch.nn.functional.pad(clip, (0, 9000 - len(clip))) for clip in clips])
    together = features(padded, torch.tensor([len(clip) for clip in clips]))
    for clip, found in zip(clips, together, strict=True):
        alone = features(clip[None], torch.tensor([len(clip)]))[0]
        torch.testing.assert_close(found, alone, atol=1e-3, rtol=1e-4)
