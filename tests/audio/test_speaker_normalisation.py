"""Mean and sd by speaker: whose clips, how many, where they are refused, and what the report says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_audio as tiny
import tiny_speech
import torch
from safetensors.torch import load_file

from samo.data.sampling import transductive_notes
from samo.encoders.model import sequences_looked_at
from samo.encoders.pooling import POOLINGS, Pooling, pooling_parts
from samo.errors import SettingsError
from samo.evaluation.predictions import Predictions
from samo.runs.cross_corpus import evaluate_corpus
from samo.runs.evaluate import evaluate_run
from samo.runs.run import Run
from samo.runs.training import train_run
from samo.training.setup import Setup
from samo_audio import speakers
from samo_audio.audio_model import AudioModel
from samo_audio.config import AudioConfig
from samo_audio.exporting import AudioExporter
from samo_audio.features import LogMel
from samo_audio.frontend import AudioFrontend
from samo_audio.models import MODELS
from samo_audio.predictor import AudioPredictor


class Quiet:
    """Watches a training and says nothing."""

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Ignored."""

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Ignored."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own; the tiny corpus has four clips of a speaker."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(speakers, "SPEAKER_CLIPS", 4)


def rows_of(clips: AudioFrontend, speaker: str) -> np.ndarray:
    return np.flatnonzero([item.group == speaker for item in clips.manifest.items])


@pytest.mark.parametrize("compression", ["log", "pcen"])
def test_the_clips_of_every_speaker_have_mean_0_and_sd_1(table: Path, compression: str) -> None:
    clips = tiny.frontend(table, normalisation="speaker", compression=compression)
    model = clips.new_model().eval()
    assert isinstance(model, AudioModel)
    for speaker in ("s0", "s5"):  # of training and of test
        seen = []
        for batch in clips.eval_batches(rows_of(clips, speaker), 5):
            pictures = model.pictures(batch.inputs, batch.lengths)[:, 0]
            seen += [row[:, : n // 64 + 1] for row, n in zip(pictures, batch.lengths.tolist(), strict=True)]
        frames = torch.cat(seen, dim=1)
        assert frames.mean(dim=1).abs().max() < 1e-3
        # Bands that hardly move are divided by the least spread.
        moving = frames.std(dim=1) > 0.9
        assert moving.float().mean() > 0.5
        assert (frames.std(dim=1)[moving] - 1.0).abs().max() < 0.02


def test_statistics_come_behind_the_waveform_of_training_and_evaluation(table: Path) -> None:
    plain, clips = tiny.frontend(table), tiny.frontend(table, normalisation="speaker", use_specaug=True)
    rows = np.array([0, 5, 23])
    (batch,), (bare,) = clips.eval_batches(rows[:1], 8), plain.eval_batches(rows[:1], 8)
    assert torch.equal(batch.inputs[:, :4000], bare.inputs)
    assert batch.inputs.shape[1] == 4000 + 2 * 32
    levels = []
    features = LogMel(plain.config.features)
    own = rows_of(clips, clips.manifest.items[0].group)
    for one in plain.eval_batches(own, 1):
        levels.append(features.decibels(features.levelled(one.inputs))[0, :, : int(one.lengths[0]) // 64 + 1])
    expected = torch.cat(levels, dim=1)
    assert torch.allclose(batch.inputs[0, 4000:4032], expected.mean(dim=1), atol=1e-3)
    sd = expected.std(dim=1, unbiased=False).clamp(min=1.0)
    assert torch.allclose(batch.inputs[0, 4032:], sd, atol=1e-3)


def test_a_speaker_of_few_clips_and_a_clip_without_a_speaker_are_refused(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speakers, "SPEAKER_CLIPS", 5)
    few = r"^`normalisation=speaker` needs 5 clips of every speaker; fewer have: s0 \(4\), s1 \(4\), "
    with pytest.raises(SettingsError, match=few):
        tiny.frontend(table, normalisation="speaker").fit(np.arange(4))
    unknown = table.with_name("unknown.csv")
    unknown.write_text(table.read_text().replace(",s3,", ",,"))
    with pytest.raises(SettingsError, match="needs to know the speaker of every clip"):
        tiny.frontend(unknown, normalisation="speaker").fit(np.arange(4))


def test_a_run_is_evaluated_as_transductive_and_answers_no_single_clip(table: Path, tmp_path: Path) -> None:
    run, setup = Run(tmp_path / "runs" / "a"), Setup(tiny.frontend(table, normalisation="speaker"), tiny.CPU)
    train_run(run, setup, Quiet())
    report = evaluate_run(run, setup, "test")
    assert any(line.startswith("transductive: `normalisation=speaker`") for line in report["warnings"])
    with pytest.raises(SettingsError, match="and here clips come one by one"):
        AudioPredictor.from_run(run, tiny.CPU)


def test_a_model_refuses_waveforms_that_come_alone_and_is_not_exported(table: Path) -> None:
    model = tiny.frontend(table, normalisation="speaker").new_model().eval()
    with pytest.raises(SettingsError, match="and here clips come one by one"):
        model(torch.zeros(1, 4000), torch.tensor([4000]))
    with pytest.raises(SettingsError, match="and here clips come one by one"):
        AudioExporter.exportable(model)


def test_models_that_take_other_batches_share_none(table: Path) -> None:
    speakers, others, plain = (
        AudioFrontend.batch_settings(tiny.config(**values))
        for values in ({"normalisation": "speaker"}, {"normalisation": "speaker", "fmin": 50.0}, {})
    )
    assert speakers != others
    assert plain["speaker_statistics"] == ""


def test_other_settings_are_not_transductive() -> None:
    assert transductive_notes({"normalisation": "clip"}) == transductive_notes({}) == []


def encoder_clips(table: Path, folder: Path, **values: Any) -> AudioFrontend:
    return AudioFrontend.open(encoder_config(folder, data_root=str(table), **values), lambda line: None)


def encoder_config(folder: Path, **values: Any) -> AudioConfig:
    given = {"encoder": str(folder), "freeze_encoder": True, "layers": "all", "pooling": "mean-sd"}
    of_speakers = {"dataset": "table", "split": "table", "duration": 0.5, "normalisation": "speaker"}
    return AudioConfig.build(given | of_speakers | values)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_speech.encoder(tmp_path_factory.mktemp("encoder"))


def test_statistics_of_a_frozen_encoder_are_centred_by_speaker(table: Path, whisper: Path) -> None:
    """By hand: every window less the mean of all windows of its speaker, each speed by itself."""
    clips = encoder_clips(table, whisper, head="logreg", speed=0.2, speed_steps=1)
    plain = encoder_clips(table, whisper, head="logreg", speed=0.2, speed_steps=1, normalisation="clip")
    for each in (clips, plain):
        each.new_model()
    rows = rows_of(clips, "s5")
    raw, own = list(plain._learning_batches(rows)), list(clips._learning_batches(rows))
    for expected, found in zip(raw, own, strict=True):
        torch.testing.assert_close(found.inputs, expected.inputs - expected.inputs.mean(dim=0))
    assert not torch.allclose(raw[0].inputs, own[0].inputs)


def test_a_run_of_centred_statistics_is_judged_and_answers_no_single_clip(
    table: Path, whisper: Path, tmp_path: Path
) -> None:
    clips = encoder_clips(table, whisper, head="logreg")
    run, setup = Run(tmp_path / "runs" / "a"), Setup(clips, tiny.CPU)
    train_run(run, setup, Quiet())
    evaluate_run(run, setup, "test")
    kept = run.path("predictions.test.npz")
    stored = Predictions.load(kept).logits
    kept.unlink()
    # Found anew where what was kept is gone.
    shutil.rmtree(Path(os.environ["SAMO_CACHE"]) / "states")
    again = Setup(encoder_clips(table, whisper, head="logreg"), tiny.CPU)
    report = evaluate_run(run, again, "test")
    np.testing.assert_allclose(Predictions.load(kept).logits, stored, atol=1e-4)
    assert any(line.startswith("transductive: `normalisation=speaker`") for line in report["warnings"])
    with pytest.raises(SettingsError, match="come one by one"):
        AudioPredictor.from_run(run, tiny.CPU)
    with pytest.raises(SettingsError, match="come one by one"):
        AudioExporter.exportable(clips.new_model())


def test_what_an_encoder_needs_to_be_centred_by_speaker(table: Path, whisper: Path) -> None:
    with pytest.raises(SettingsError, match="only together with `freeze_encoder`"):
        encoder_config(whisper, freeze_encoder=False)
    with pytest.raises(SettingsError, match="of means, sds and maxima"):
        encoder_config(whisper, state_mask=0.5)


@pytest.mark.parametrize("layers", ["last", "all"])
@pytest.mark.parametrize("head", ["network", "logreg"])
def test_a_pooling_that_cannot_be_centred_is_refused_with_the_settings(head: str, layers: str, whisper: Path) -> None:
    """Before a clip is looked for; by the rule of the pooling that would be built."""
    architecture = MODELS["encoder"]
    for pooling in ("auto", *POOLINGS, "mean+max", "mean-sd+attention", "sd+cls"):
        values = {"head": head, "layers": layers, "pooling": pooling}
        try:
            plain = encoder_config(whisper, normalisation="clip", **values).model
        except SettingsError:
            continue  # refused without speakers too
        parts = pooling_parts(pooling, architecture)
        built = Pooling(parts, 4, sequences=sequences_looked_at(parts, plain))
        if built.takes_statistics:
            encoder_config(whisper, **values)
        else:
            with pytest.raises(SettingsError, match="of means, sds and maxima"):
                encoder_config(whisper, **values)


def test_another_corpus_is_centred_by_its_own_speakers(table: Path, whisper: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "a")
    train_run(run, Setup(encoder_clips(table, whisper, head="logreg"), tiny.CPU), Quiet())
    other = tiny.corpus(tmp_path / "other")
    for file in other.parent.rglob("*.wav"):
        samples, rate = soundfile.read(file)
        soundfile.write(file, np.cumsum(np.random.default_rng(len(samples)).standard_normal(len(samples))) / 500, rate)
    clips = encoder_clips(other, whisper, head="logreg")
    evaluate_corpus(run, Setup(clips, tiny.CPU), {})
    (file,) = run.folder.glob("predictions.*table*.npz")
    found = Predictions.load(file)
    # By hand, each clip's one window less the mean of its speaker's.
    plain = encoder_clips(other, whisper, head="logreg", normalisation="clip")
    model = plain.new_model()
    model.load_state_dict(load_file(run.path("best_model.safetensors")))
    place = {item.id: row for row, item in enumerate(plain.manifest.items)}
    for speaker in ("s0", "s5"):
        rows = rows_of(plain, speaker)
        batches = [batch for row in rows for batch in plain.eval_batches(np.array([row]), 8)]
        centre = torch.cat([batch.inputs for batch in batches]).mean(dim=0)
        for row, batch in zip(rows, batches, strict=True):
            with torch.no_grad():
                expected = model.eval()(batch.inputs - centre, batch.lengths).mean(dim=0)
            (got,) = (found.logits[k] for k, name in enumerate(found.ids) if place[name] == row)
            np.testing.assert_allclose(got, expected.numpy(), atol=1e-4)


def test_bare_waveforms_are_refused(table: Path, whisper: Path) -> None:
    model = encoder_clips(table, whisper, head="logreg").new_model()
    with pytest.raises(SettingsError, match="come one by one"):
        model(torch.zeros(1, 8000), torch.tensor([8000]))
