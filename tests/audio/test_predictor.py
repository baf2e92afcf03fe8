"""From files to labels: the same answer as the run was judged by, whatever the file looks like."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_audio as tiny
import torch

from samo.errors import DataError, ModelFileError
from samo.evaluation.calibration import apply_temperature
from samo.evaluation.decision import Decision
from samo.evaluation.predictions import Predictions
from samo.prediction import Prediction, TrainedModel
from samo.runs.calibrate import calibration_of
from samo.runs.evaluate import evaluate_run
from samo.runs.run import Run
from samo.runs.training import train_run
from samo.tasks import LabelSpace, Task
from samo.training.setup import Setup
from samo.training.torch_network import TorchNetwork
from samo_audio import audio_io, predictor
from samo_audio.audio_model import AudioModel
from samo_audio.datasets.listing import find_clips
from samo_audio.frontend import AudioFrontend
from samo_audio.predictor import AudioPredictor

SR = tiny.SR


class Quiet:
    """Watches a training and says nothing."""

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Ignored."""

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Ignored."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def evaluated(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, AudioFrontend]:
    """A run, trained with fitted statistics and augmentation, and judged on its held-out speaker."""
    root = tmp_path_factory.mktemp("artifacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(root / "cache"))
        frontend = tiny.frontend(
            table, epochs=2, normalisation="train", use_specaug=True, noise=True, mixup_alpha=0.2, time_shift=0.05
        )
        run = Run(root / "runs" / "tiny")
        train_run(run, Setup(frontend, tiny.CPU), Quiet())
        evaluate_run(run, Setup(frontend, tiny.CPU), "test")
    return run, frontend


@pytest.fixture(scope="module")
def ready(evaluated: tuple[Run, AudioFrontend]) -> AudioPredictor:
    return AudioPredictor.from_run(evaluated[0], tiny.CPU)


def one(ready: AudioPredictor, path: Path) -> Prediction:
    (found,) = ready.stream([path])
    return found


def values(prediction: Prediction) -> np.ndarray:
    assert not prediction.error, prediction.error
    assert set(prediction.probabilities) == set(tiny.LABELS)
    found = np.array([prediction.probabilities[label] for label in tiny.LABELS])
    assert found.sum() == pytest.approx(1.0)
    assert prediction.label == tiny.LABELS[int(found.argmax())]
    return found


# As judged


@pytest.mark.parametrize("part", ["test", "train"])
def test_predict_answers_as_evaluate_judged(
    evaluated: tuple[Run, AudioFrontend], ready: AudioPredictor, part: str
) -> None:
    run, frontend = evaluated
    stored = Predictions.load(run.path(f"predictions.{part}.npz"))
    manifest = frontend.manifest
    paths = [manifest.path(manifest.items[row]) for row in manifest.rows(stored.ids)]
    found = list(ready.stream(paths))
    assert [prediction.path for prediction in found] == paths
    calibration = calibration_of(run)
    assert calibration
    assert calibration.temperature["emotion"] != 1.0
    space = manifest.label_space
    expected = space.probabilities(apply_temperature(stored.logits, calibration.temperature, space))
    assert np.stack([values(prediction) for prediction in found]) == pytest.approx(expected, abs=1e-6)
    # Hardly trained, and its four validation clips ask for the highest temperature: shares lie close together.
    assert np.ptp(expected, axis=0).max() > 1e-4


def test_a_clip_is_the_mean_over_its_windows(ready: AudioPredictor, tmp_path: Path) -> None:
    samples = tiny.sound(1.3, "happy", 3)
    path = tiny.write(tmp_path / "clip.wav", samples, subtype="FLOAT")
    starts = audio_io.window_starts(len(samples), 4000)
    logits = []
    for number, start in enumerate(starts):
        part = tiny.write(tmp_path / f"{number}.wav", samples[start : start + 4000], subtype="FLOAT")
        logits.append(np.log(values(one(ready, part))))
    expected = np.exp(np.mean(logits, axis=0))
    assert values(one(ready, path)) == pytest.approx(expected / expected.sum(), abs=1e-5)


def test_what_was_trimmed_in_training_is_trimmed_here(
    ready: AudioPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence = np.zeros(SR // 4)
    padded = tiny.write(tmp_path / "padded.wav", np.concatenate([silence, tiny.sound(0.4), silence]), subtype="FLOAT")
    whole = values(one(ready, padded))
    # It sounds from sample 2000 to 5200; frames that reach the sound are kept with it.
    sounding, _ = soundfile.read(padded, start=1920, stop=5360)
    by_hand = values(one(ready, tiny.write(tmp_path / "by_hand.wav", sounding, subtype="FLOAT")))
    monkeypatch.setattr(ready, "trim_db", 30.0)
    assert values(one(ready, padded)) == pytest.approx(by_hand, abs=1e-6)
    assert np.abs(by_hand - whole).max() > 1e-4


def test_the_model_judges_even_if_it_was_handed_over_in_training_mode(evaluated: tuple[Run, AudioFrontend]) -> None:
    _, frontend = evaluated
    torch.manual_seed(0)
    model = AudioModel(tiny.config(dropout=0.9), frontend.manifest.label_space).train()
    clip = frontend.manifest.path(frontend.manifest.items[0])
    ready = AudioPredictor(
        TrainedModel(TorchNetwork(model, tiny.CPU), frontend.manifest.label_space, Decision()), frontend.config.features
    )
    assert np.array_equal(values(one(ready, clip)), values(one(ready, clip)))


def test_several_labels_at_once_have_probabilities_of_their_own(evaluated: tuple[Run, AudioFrontend]) -> None:
    _, frontend = evaluated
    space = LabelSpace((Task("mood", ("calm", "loud"), multi_label=True), Task("other", ("a", "b"))))
    ready = AudioPredictor(
        TrainedModel(TorchNetwork(AudioModel(tiny.config(), space), tiny.CPU), space, Decision()),
        frontend.config.features,
    )
    found = one(ready, frontend.manifest.path(frontend.manifest.items[0]))
    assert list(found.probabilities) == ["calm", "loud"]
    assert sum(found.probabilities.values()) != pytest.approx(1.0, abs=1e-6)


def test_a_run_without_a_model_is_refused(evaluated: tuple[Run, AudioFrontend], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(evaluated[0].path("config.json").read_bytes())
    with pytest.raises(ModelFileError, match="there is no model"):
        AudioPredictor.from_run(Run(tmp_path), tiny.CPU)


# Order and errors


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_order_is_kept_whatever_the_lengths_and_errors(
    ready: AudioPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    paths = []
    for number in range(40):
        path = tmp_path / f"{number:02}.wav"
        if number % 7 == 3:
            path.write_bytes(b"no sound")
        else:
            tiny.write(path, tiny.sound(0.1 + 0.3 * (number % 5), seed=number))
        paths.append(path)
    paths.append(tmp_path / "missing.wav")
    alone = [one(ready, path) for path in paths]
    monkeypatch.setattr(predictor, "BATCH", batch)
    together = list(ready.stream(iter(paths)))
    assert [prediction.path for prediction in together] == paths
    for number, (first, second) in enumerate(zip(alone, together, strict=True)):
        assert first.error == second.error
        assert bool(second.error) == (number % 7 == 3 or number == 40)
        if second.error:
            assert str(second.path) in second.error
            assert (second.label, second.probabilities, second.timeline) == ("", {}, ())
        else:
            assert values(second) == pytest.approx(values(first), abs=1e-5)


def test_no_files_no_predictions(ready: AudioPredictor) -> None:
    assert list(ready.stream([])) == []


def test_predictions_come_while_files_are_read(ready: AudioPredictor, tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "clip.wav", tiny.sound(0.5))
    requested = []

    def endless() -> Any:
        while True:
            requested.append(path)
            yield path

    stream = ready.stream(endless())
    assert next(stream).label
    assert isinstance(stream, Generator)
    stream.close()
    assert len(requested) < 200


# What a file may look like


@pytest.mark.parametrize(
    ("name", "subtype", "channels"),
    [
        ("a.wav", "PCM_24", 2),
        ("a.wav", "PCM_32", 1),
        ("a.wav", "FLOAT", 2),
        ("a.wav", "DOUBLE", 1),
        ("a.flac", "PCM_16", 2),
    ],
)
def test_the_sample_format_does_not_change_the_answer(
    ready: AudioPredictor, tmp_path: Path, name: str, subtype: str, channels: int
) -> None:
    samples = tiny.sound(0.9, "angry", 2)
    expected = one(ready, tiny.write(tmp_path / "plain.wav", samples))
    several = np.repeat(samples[:, None], channels, axis=1)
    found = one(ready, tiny.write(tmp_path / name, several, subtype=subtype))
    assert values(found) == pytest.approx(values(expected), abs=2e-3)
    assert found.label == expected.label
    assert found.warnings == ()


def test_eight_bits_give_the_same_label(ready: AudioPredictor, tmp_path: Path) -> None:
    samples = 5 * tiny.sound(0.9, "angry", 2)
    expected = one(ready, tiny.write(tmp_path / "plain.wav", samples))
    found = one(ready, tiny.write(tmp_path / "eight.wav", samples, subtype="PCM_U8"))
    assert found.label == expected.label
    assert values(found) == pytest.approx(values(expected), abs=0.05)


def test_another_rate_is_resampled(ready: AudioPredictor, tmp_path: Path) -> None:
    def smooth(rate: int) -> np.ndarray:
        time_s = np.arange(rate) / rate
        found: np.ndarray = np.sum([0.1 / k * np.sin(2 * np.pi * 200 * k * time_s) for k in range(1, 10)], axis=0)
        return found

    expected = one(ready, tiny.write(tmp_path / "8.wav", smooth(SR), subtype="FLOAT"))
    found = one(ready, tiny.write(tmp_path / "48.wav", smooth(48_000), rate=48_000, subtype="FLOAT"))
    assert values(found) == pytest.approx(values(expected), abs=0.02)


def test_silence_is_a_warning_with_finite_probabilities(ready: AudioPredictor, tmp_path: Path) -> None:
    found = one(ready, tiny.write(tmp_path / "silent.wav", np.zeros(SR)))
    assert found.warnings == ("silent",)
    assert np.isfinite(values(found)).all()


def test_a_very_short_clip_is_a_warning(ready: AudioPredictor, tmp_path: Path) -> None:
    found = one(ready, tiny.write(tmp_path / "short.wav", tiny.sound(0.05)))
    assert found.warnings == ("shorter than 0.1 s",)
    values(found)
    assert one(ready, tiny.write(tmp_path / "one.wav", np.full(1, 0.5))).label


@pytest.mark.parametrize("rate", [SR, 22_050])
def test_what_holds_no_speech_is_never_answered(ready: AudioPredictor, tmp_path: Path, rate: int) -> None:
    def withheld(name: str, samples: np.ndarray) -> tuple[bool, tuple[str, ...]]:
        found = one(ready, tiny.write(tmp_path / name, samples, rate, subtype="FLOAT"))
        # The label is kept beside it.
        assert found.label in tiny.LABELS
        assert found.to_json()["abstained"] == found.abstained
        return found.abstained, found.warnings

    sound = tiny.sound(1.0, rate=rate)
    assert withheld("sound.wav", sound) == (False, ())
    assert withheld("quiet.wav", 1e-3 * sound) == (False, ())
    assert withheld("zeros.wav", np.zeros(rate)) == (True, ("silent",))
    assert withheld("constant.wav", np.full(rate, 0.3)) == (True, ("constant",))
    assert withheld("nearly.wav", 0.3 + 1e-5 * sound) == (True, ("constant",))
    assert withheld("offset.wav", 0.3 + 0.1 * sound) == (False, ())
    assert withheld("short.wav", sound[: rate // 20]) == (True, ("shorter than 0.1 s",))
    assert ready.predict(np.full(rate, 0.3), sr=rate).abstained


def test_a_long_constant_is_known_and_a_silent_window_too(
    ready: AudioPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = tiny.write(tmp_path / "flat.wav", np.full(4 * 22_050, 0.3), 22_050, subtype="FLOAT")
    pause = tiny.write(tmp_path / "pause.wav", np.r_[tiny.sound(6.0), np.zeros(6 * SR)], subtype="FLOAT")
    for seconds in (60.0, 1.0):
        monkeypatch.setattr(predictor, "STREAMED_S", seconds)
        assert (one(ready, flat).abstained, one(ready, flat).warnings) == (True, ("constant",))
        found = one(ready, pause)
        assert not found.abstained
        windows = [window.abstained for window in found.timeline]
        assert windows[:10] == [False] * 10
        assert windows[-10:] == [True] * 10


# Long recordings


def long_file(folder: Path, seconds: float = 12.2, rate: int = SR) -> Path:
    parts = [tiny.sound(0.7, tiny.LABELS[k % 3], k, rate) for k in range(round(seconds / 0.7) + 1)]
    return tiny.write(folder / f"long{rate}.wav", np.concatenate(parts)[: round(seconds * rate)], rate)


@pytest.mark.parametrize(("rate", "tolerance"), [(SR, 1e-5), (22_050, 1e-3)])
def test_streaming_answers_as_decoding_at_once(
    ready: AudioPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, tolerance: float
) -> None:
    path = long_file(tmp_path, rate=rate)
    whole = one(ready, path)
    monkeypatch.setattr(predictor, "STREAMED_S", 1.0)
    monkeypatch.setattr(predictor, "read", None)
    streamed = one(ready, path)
    assert values(streamed) == pytest.approx(values(whole), abs=tolerance)
    assert len(streamed.timeline) == len(whole.timeline) == 25
    for first, second in zip(whole.timeline, streamed.timeline, strict=True):
        assert (first.start_s, first.end_s) == (second.start_s, second.end_s)
        for label in tiny.LABELS:
            assert first.probabilities[label] == pytest.approx(second.probabilities[label], abs=10 * tolerance)


@pytest.mark.parametrize(
    ("gain", "top", "warnings"),
    [(4.0, 1.0, ("clipped",)), (1.0, 1.0, ()), (20.0, 99.0, ("samples reach 12 where 1 is full scale",))],
)
def test_what_is_streamed_is_warned_of_as_what_is_decoded_at_once(
    ready: AudioPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: float, top: float,
    warnings: tuple[str, ...],
) -> None:  # fmt: skip
    rate = 22_050
    sound = np.clip(gain * 0.6 * np.sin(np.arange(12 * rate) / 9), -top, top)
    path = tiny.write(tmp_path / "loud.wav", sound, rate, subtype="FLOAT")
    assert one(ready, path).warnings == warnings
    monkeypatch.setattr(predictor, "STREAMED_S", 1.0)
    assert one(ready, path).warnings == warnings


def test_only_long_files_are_streamed(ready: AudioPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = []

    def watched(path: Path, *how: Any) -> Any:
        streamed.append(path)
        return audio_io.windows(path, *how)

    monkeypatch.setattr(predictor, "windows", watched)
    short = tiny.write(tmp_path / "short.wav", np.zeros(60 * SR))
    long = tiny.write(tmp_path / "long.wav", np.zeros(60 * SR + 1))
    assert all(prediction.warnings == ("silent",) for prediction in ready.predict([short, long]))
    assert streamed == [long]


def test_the_time_line_tells_the_windows(ready: AudioPredictor, tmp_path: Path) -> None:
    path = long_file(tmp_path)
    samples, _ = soundfile.read(path)
    found = one(ready, path)
    assert found.timeline[0].start_s == 0.0
    assert found.timeline[-1].end_s == 12.2
    logits = []
    for number, stretch in enumerate(found.timeline):
        assert stretch.end_s - stretch.start_s == pytest.approx(0.5, abs=2e-3)
        shares = np.array([stretch.probabilities[label] for label in tiny.LABELS])
        assert stretch.label == tiny.LABELS[int(shares.argmax())]
        logits.append(np.log(shares))
        if number in (0, 11, 24):
            start = round(stretch.start_s * SR)
            part = tiny.write(tmp_path / "part.wav", samples[start : start + 4000])
            assert values(one(ready, part)) == pytest.approx(shares, abs=1e-3)
    # Windows overlap or touch; nothing is left out.
    for earlier, later in zip(found.timeline, found.timeline[1:], strict=False):
        assert earlier.start_s < later.start_s <= earlier.end_s
    expected = np.exp(np.mean(logits, axis=0))
    assert values(found) == pytest.approx(expected / expected.sum(), abs=1e-5)


@pytest.mark.parametrize(("seconds", "told"), [(10.0, False), (10.1, True)])
def test_an_utterance_has_no_time_line(ready: AudioPredictor, tmp_path: Path, seconds: float, told: bool) -> None:
    assert bool(one(ready, long_file(tmp_path, seconds)).timeline) == told


def test_streaming_knows_silence_as_decoding_does(
    ready: AudioPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faint = tiny.write(tmp_path / "faint.wav", np.full(2 * SR, 5e-5), subtype="FLOAT")
    audible = tiny.write(tmp_path / "audible.wav", np.r_[np.zeros(2 * SR), 2e-4], subtype="FLOAT")
    for seconds in (60.0, 1.0):
        monkeypatch.setattr(predictor, "STREAMED_S", seconds)
        assert [found.warnings for found in ready.predict([faint, audible])] == [("silent",), ()]


def test_a_warning_of_the_container_survives_streaming(
    ready: AudioPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flac = tiny.write(tmp_path / "a.flac", tiny.sound(2.0))
    flac.rename(tmp_path / "a.wav")
    monkeypatch.setattr(predictor, "STREAMED_S", 1.0)
    assert one(ready, tmp_path / "a.wav").warnings == ("is FLAC despite its name",)


def test_damage_met_while_streaming_is_an_error_of_that_file(
    ready: AudioPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "STREAMED_S", 1.0)
    monkeypatch.setattr(predictor, "BATCH", 4)
    monkeypatch.setattr(audio_io, "_BLOCK", 4000)
    samples = tiny.sound(6.0)
    samples[40_000] = np.nan
    bad = tiny.write(tmp_path / "bad.wav", samples, subtype="FLOAT")
    cut = tiny.write(tmp_path / "cut.wav", tiny.sound(6.0))
    cut.write_bytes(cut.read_bytes()[:-1000])
    good = tiny.write(tmp_path / "good.wav", tiny.sound(6.0))
    first, second, third, fourth, fifth = ready.predict([good, bad, cut, good, bad])
    assert second.error == fifth.error == f"{bad}: holds NaN or infinite samples, the first at 5.000 s"
    assert "truncated" in third.error
    assert (second.label, second.timeline) == ("", ())
    assert values(first) == pytest.approx(values(fourth), abs=1e-6)


# Finding files


def test_folders_are_searched_and_files_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("b.WAV", "a/2.flac", "a/1.ogg", "._b.wav", "notes.txt", "a/b/c/3.mp3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "z.wav").mkdir()
    inside = [tmp_path / name for name in ("a/1.ogg", "a/2.flac", "a/b/c/3.mp3", "b.WAV")]
    assert find_clips([tmp_path]) == inside
    notes = tmp_path / "notes.txt"
    assert find_clips([notes, tmp_path / "a", notes]) == [notes, *inside[:3], notes]
    assert find_clips([]) == []


def test_what_cannot_be_found_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.wav").symlink_to(tmp_path / "gone.wav")
    for path, message in (
        (tmp_path / "empty", f"no audio files in {tmp_path / 'empty'}"),
        (tmp_path, f"no audio files in {tmp_path}"),
        (tmp_path / "gone.wav", f"no such file or folder: {tmp_path / 'gone.wav'}"),
        (tmp_path / "link.wav", f"no such file or folder: {tmp_path / 'link.wav'}"),
        (tmp_path / ("x" * 300), f"{tmp_path / ('x' * 300)} cannot be looked at: File name too long"),
    ):
        with pytest.raises(DataError) as caught:
            find_clips([path])
        assert caught.value.message == message


@pytest.mark.real
def test_real_clips_get_labels(evaluated: tuple[Run, AudioFrontend], ravdess_root: Path, tmp_path: Path) -> None:
    _, frontend = evaluated
    features = frontend.config.features.model_copy(update={"duration": 3.0})
    torch.manual_seed(0)
    model = AudioModel(tiny.config(duration=3.0), frontend.manifest.label_space)
    ready = AudioPredictor(
        TrainedModel(TorchNetwork(model, tiny.CPU), frontend.manifest.label_space, Decision()), features
    )
    paths = [*find_clips([ravdess_root / "Actor_01"])[:4], *find_clips([ravdess_root / "Actor_07"])[:4]]
    found = list(ready.stream(paths))
    assert [prediction.path for prediction in found] == paths
    assert {path.suffix for path in paths} == {".wav", ".flac"}
    for prediction in found:
        values(prediction)
        assert prediction.warnings == ()
    samples, rate = soundfile.read(paths[0], dtype="int16")
    copy = tmp_path / "copy.flac"
    soundfile.write(copy, samples, rate)
    assert values(one(ready, copy)) == pytest.approx(values(found[0]), abs=1e-6)
