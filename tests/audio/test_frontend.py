"""The audio frontend: which samples a row gives in training and in judging, what is fitted on what, which noise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_audio as tiny
import torch
from torch import Tensor, nn

from samo import plugins
from samo.data.batch import Batch, Draws
from samo.errors import DataError, SettingsError
from samo.modalities import preset_files
from samo.runs.training_plan import make_plan
from samo.settings import resolve
from samo.training.setup import Setup
from samo.training.trainer import predict_logits
from samo_audio import frontend as module
from samo_audio.audio_io import window_starts
from samo_audio.audio_model import AudioModel
from samo_audio.augment import read_noise
from samo_audio.batches import collate
from samo_audio.config import AudioConfig, FeatureSettings
from samo_audio.features import LogMel, band_statistics
from samo_audio.frontend import AudioFrontend

WINDOW = 4000


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def clips(table: Path) -> AudioFrontend:
    """24 clips: lengths of 0.4, 1, 1.8 and 2.6 windows in turn."""
    return tiny.frontend(table)


def rows_of(clips: AudioFrontend, part: str) -> np.ndarray:
    return np.array([row for row, item in enumerate(clips.manifest.items) if item.split == part])


def with_length(clips: AudioFrontend, seconds: float) -> np.ndarray:
    return np.flatnonzero(clips.waveforms.lengths == round(seconds * tiny.SR))


def crops(clips: AudioFrontend, rows: np.ndarray, seed: int = 0, epoch: int = 0) -> Batch:
    return clips.train_batch(rows, Draws(seed, epoch, rows))


def start_of(window: np.ndarray, waveform: np.ndarray) -> int:
    """Where a window was cut; noise in every clip makes the place unique."""
    places = [s for s in range(len(waveform) - len(window) + 1) if waveform[s] == window[0]]
    (place,) = [s for s in places if np.array_equal(waveform[s : s + len(window)], window)]
    return place


# Opening


def test_opening_indexes_and_decodes(clips: AudioFrontend, table: Path) -> None:
    assert len(clips.manifest.items) == len(clips.waveforms) == 24
    assert clips.window == WINDOW
    assert clips.manifest.label_space.primary.labels == tiny.LABELS
    assert all(item.content for item in clips.manifest.items)
    assert clips.config.data.data_root == str(table)
    assert clips.data_card()["title"].startswith("your own table")
    assert (clips.modality, clips.unit) == ("audio", "speaker")


def test_opening_tells_where_the_data_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write(tmp_path / "Actor_01" / "03-01-03-01-01-01-01.wav", tiny.sound(0.5))
    monkeypatch.setenv("SAMO_DATA_ROOT", str(tmp_path))
    notes: list[str] = []
    found = AudioFrontend.open(tiny.config(), notes.append)
    assert notes == [f"Data: RAVDESS in {tmp_path} (from $SAMO_DATA_ROOT)."]
    assert found.config.data.data_root == str(tmp_path)
    assert found.data_card()["licence"] == "CC BY-NC-SA 4.0"


FLOAT_IDS = ("1001", "1001.0")
SPELLINGS = (FLOAT_IDS, ("Anna", "anna"), ("Zo\u00eb", "Zoe\u0308"), ("bob", "\ufeffbob"), ("cy", "c\u200by"))


@pytest.mark.parametrize("twins", SPELLINGS)
def test_one_speaker_in_two_spellings_stays_one(
    twins: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    lines = ["path,label,speaker"]
    for speaker in range(6):
        for number, label in enumerate(("sad", "happy")):
            tiny.write(tmp_path / f"{speaker}{number}.wav", tiny.sound(0.2, label, 2 * speaker + number))
            name = twins[number] if speaker == 0 else f"s{speaker}"
            lines.append(f"{speaker}{number}.wav,{label},{name}")
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    notes: list[str] = []
    config = tiny.config(dataset="table", data_root=str(tmp_path / "table.csv"))
    manifest = AudioFrontend.open(config, notes.append).manifest
    assert len({item.group for item in manifest.items}) == 6
    assert manifest.items[0].group == manifest.items[1].group == min(twins, key=lambda name: (len(name), name))
    assert len(notes) == 1
    assert notes[0].startswith("1 speaker stands in several spellings, taken as one: ")


@pytest.mark.parametrize("values", [{"model": "smal-cnn"}, {"n_mels": 8}, {"hop_length": 2000}])
def test_a_model_that_cannot_work_is_refused_before_anything_is_decoded(
    values: dict[str, Any], table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_waveforms", None)
    config = AudioConfig.build({**tiny.SETTINGS, "dataset": "table", "data_root": str(table), **values})
    with pytest.raises(SettingsError):
        AudioFrontend.open(config, lambda line: None)


def test_settings_reach_the_split_and_the_plan(table: Path) -> None:
    clips = tiny.frontend(table, mixup_alpha=0.3, seed=5)
    request = clips.split_request()
    assert (request.rule, request.seed) == ("table", 5)
    assert clips.mixup_alpha == 0.3

    class Parts:
        train: tuple[str, ...] = tuple(item.id for item in clips.manifest.items[:20])
        val: tuple[str, ...] = tuple(item.id for item in clips.manifest.items[20:])

    plan = make_plan(clips, Parts())  # type: ignore[arg-type]
    assert plan.mixup_alpha == 0.3
    assert plan.train_rows.tolist() == list(range(20))


# Training batches


def test_a_training_row_is_a_window_of_its_clip(clips: AudioFrontend) -> None:
    rows = np.array([3, 0, 10, 1, 3])
    batch = crops(clips, rows)
    assert batch.inputs.shape == (5, WINDOW)
    assert batch.inputs.dtype == torch.float32
    assert batch.rows is rows
    assert batch.draws is not None
    assert np.array_equal(batch.targets.numpy(), clips.manifest.targets[rows])
    assert batch.lengths.tolist() == np.minimum(clips.waveforms.lengths[rows], WINDOW).tolist()
    for row, window, length in zip(rows, batch.inputs.numpy(), batch.lengths.tolist(), strict=True):
        start_of(window[:length], clips.waveforms.waveform(row))
        assert (window[length:] == 0.0).all()
    assert torch.equal(batch.inputs[0], batch.inputs[4])


def test_crops_are_a_function_of_seed_epoch_and_row(clips: AudioFrontend) -> None:
    rows = np.arange(24)
    all_at_once = crops(clips, rows).inputs
    for some in (rows[::-1].copy(), rows[5:9], rows[[17]]):
        assert torch.equal(crops(clips, some).inputs, all_at_once[some])
    long = with_length(clips, 1.3)
    for other in (crops(clips, long, epoch=1), crops(clips, long, seed=1)):
        same = (other.inputs == all_at_once[long]).all(dim=1)
        assert not same.any()


def test_crops_begin_anywhere_in_the_clip(clips: AudioFrontend) -> None:
    row = with_length(clips, 0.9)[:1]
    waveform = clips.waveforms.waveform(int(row[0]))
    starts = [start_of(crops(clips, row, epoch=epoch).inputs[0].numpy(), waveform) for epoch in range(300)]
    last = len(waveform) - WINDOW
    assert 0 <= min(starts) < 0.03 * last
    assert 0.97 * last < max(starts) <= last
    assert abs(np.mean(starts) - last / 2) < 0.1 * last


def test_the_first_and_the_last_sample_are_reached(table: Path) -> None:
    clips = tiny.frontend(table, duration=3997 / tiny.SR)
    row = with_length(clips, 0.5)[:1]
    waveform = clips.waveforms.waveform(int(row[0]))
    starts = {start_of(crops(clips, row, epoch=epoch).inputs[0].numpy(), waveform) for epoch in range(60)}
    assert starts == {0, 1, 2, 3}


def test_the_duration_is_what_the_model_sees(table: Path) -> None:
    assert crops(tiny.frontend(table, duration=0.25), np.arange(4)).inputs.shape == (4, 2000)
    assert crops(tiny.frontend(table, sr=16_000), np.arange(4)).inputs.shape == (4, 8000)


# Batches to judge by


def test_windows_cover_every_clip_evenly(clips: AudioFrontend) -> None:
    rows = np.array([3, 0, 2, 1])
    (batch,) = clips.eval_batches(rows, 64)
    assert batch.rows.tolist() == [3, 3, 3, 0, 2, 2, 1]
    assert batch.draws is None
    place = 0
    for row in rows:
        waveform = clips.waveforms.waveform(row)
        starts = window_starts(len(waveform), WINDOW)
        assert starts[0] == 0
        assert starts[-1] == max(0, len(waveform) - WINDOW)
        for start in starts:
            expected = waveform[start : start + WINDOW]
            assert int(batch.lengths[place]) == len(expected)
            assert np.array_equal(batch.inputs[place, : len(expected)].numpy(), expected)
            assert (batch.inputs[place, len(expected) :] == 0.0).all()
            place += 1
    assert place == len(batch)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7, 64])
def test_batches_may_cut_through_a_clip(clips: AudioFrontend, batch_size: int) -> None:
    rows = np.arange(8)
    (whole,) = clips.eval_batches(rows, 64)
    parts = list(clips.eval_batches(rows, batch_size))
    assert all(len(part) == batch_size for part in parts[:-1])
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
    assert np.concatenate([part.rows for part in parts]).tolist() == whole.rows.tolist()


def test_nothing_to_judge_gives_no_batch(clips: AudioFrontend) -> None:
    assert list(clips.eval_batches(np.array([], dtype=np.int64), 4)) == []


def test_a_clips_logits_are_the_mean_over_its_windows(clips: AudioFrontend) -> None:
    model = clips.new_model().eval()
    rows = np.array([7, 3, 0])
    found = predict_logits(model, Setup(clips, tiny.CPU), rows, batch_size=2)
    for row, logits in zip(rows, found, strict=True):
        waveform = clips.waveforms.waveform(row)
        pieces = [waveform[s : s + WINDOW] for s in window_starts(len(waveform), WINDOW)]
        batch = collate(pieces, np.zeros((len(pieces), 3)), np.zeros(len(pieces), np.int64), WINDOW)
        with torch.inference_mode():
            expected = model(batch.inputs, batch.lengths).mean(dim=0)
        assert logits == pytest.approx(expected.numpy(), abs=1e-5)


def test_collate_pads_with_zeros() -> None:
    batch = collate([np.ones(3, np.float32), np.full(5, 2.0, np.float32)], np.zeros((2, 1)), np.arange(2), 5)
    assert batch.inputs.tolist() == [[1, 1, 1, 0, 0], [2, 2, 2, 2, 2]]
    assert batch.lengths.tolist() == [3, 5]
    assert batch.lengths.dtype == torch.int64


# Statistics of the training split


def frames_in_db(clips: AudioFrontend, rows: np.ndarray) -> Tensor:
    """(n_mels, all valid frames of all windows) float64."""
    model = LogMel(clips.config.features)
    found = []
    for batch in clips.eval_batches(rows, 1):
        level = model.decibels(model.levelled(batch.inputs))[0].double()
        found.append(level[:, : int(batch.lengths[0]) // 64 + 1])
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("level", ["active", "as-is"])
def test_statistics_are_those_of_the_training_rows_alone(table: Path, level: str) -> None:
    clips = tiny.frontend(table, normalisation="train", level=level)
    rows = rows_of(clips, "train")
    fitted = clips.fit(rows)
    frames = frames_in_db(clips, rows)
    assert set(fitted) == {"features.mean", "features.sd"}
    assert torch.allclose(fitted["features.mean"].double(), frames.mean(dim=1), atol=1e-4)
    assert torch.allclose(fitted["features.sd"].double(), frames.std(dim=1, unbiased=False).clamp(min=1), atol=1e-4)
    others = clips.fit(rows_of(clips, "test"))
    assert not torch.allclose(others["features.mean"], fitted["features.mean"], atol=0.01)


def test_fitted_values_find_their_place_in_the_model(table: Path) -> None:
    clips = tiny.frontend(table, normalisation="train")
    fitted = clips.fit(rows_of(clips, "train"))
    model = clips.new_model()
    assert not model.load_state_dict(fitted, strict=False).unexpected_keys
    state = model.state_dict()
    for name, values in fitted.items():
        assert torch.equal(state[name], values)
    other = AudioFrontend.build_model(clips.config, clips.manifest.label_space)
    other.load_state_dict(state)
    (batch,) = clips.eval_batches(np.arange(4), 64)
    with torch.inference_mode():
        assert torch.equal(other.eval()(batch.inputs, batch.lengths), model.eval()(batch.inputs, batch.lengths))


def test_training_frames_are_standardised(table: Path) -> None:
    clips = tiny.frontend(table, normalisation="train")
    rows = rows_of(clips, "train")
    model = clips.new_model()
    model.load_state_dict(clips.fit(rows), strict=False)
    assert isinstance(model, AudioModel)
    seen = []
    for batch in clips.eval_batches(rows, 1):
        seen.append(model.features(batch.inputs, batch.lengths)[0, :, : int(batch.lengths[0]) // 64 + 1])
    frames = torch.cat(seen, dim=1)
    assert frames.mean(dim=1).abs().max() < 1e-3
    assert (frames.std(dim=1) - 1.0).abs().max() < 0.01


@pytest.mark.parametrize("normalisation", ["clip", "fixed"])
def test_nothing_is_fitted_where_nothing_is_needed(table: Path, normalisation: str) -> None:
    assert tiny.frontend(table, normalisation=normalisation).fit(np.arange(4)) == {}


def test_a_silent_training_split_has_finite_statistics() -> None:
    settings = FeatureSettings(sr=8000, duration=0.5, n_mels=32, n_fft=256, hop_length=64)
    silence = collate([np.zeros(4000, np.float32)], np.zeros((1, 3)), np.arange(1), 4000)
    mean, sd = band_statistics(settings, iter([silence]))
    assert torch.allclose(mean, torch.full((32,), -60.0))
    assert torch.equal(sd, torch.ones(32))


# Models


def test_the_model_has_a_column_a_label_and_the_widths_asked_for(clips: AudioFrontend) -> None:
    batch = crops(clips, np.arange(4))
    assert clips.new_model()(batch.inputs, batch.lengths).shape == (4, 3)


def test_a_model_for_weights_needs_neither_noise_nor_files(table: Path, tmp_path: Path) -> None:
    config = tiny.config(noise=True, noise_root=str(tmp_path / "gone"), weights=str(tmp_path / "gone.pt"))
    space = tiny.frontend(table).manifest.label_space
    built = AudioFrontend.build_model(config, space)
    assert set(built.state_dict()) == set(AudioFrontend.build_model(tiny.config(), space).state_dict())


# Noise recordings


def test_noise_recordings_are_joined_at_one_level(tmp_path: Path) -> None:
    tiny.write(tmp_path / "b.wav", 0.5 * tiny.sound(0.3, seed=1))
    tiny.write(tmp_path / "deeper" / "a.flac", 0.01 * tiny.sound(0.2, seed=2), rate=8000)
    tiny.write(tmp_path / "silent.wav", np.zeros(800))
    (tmp_path / "notes.txt").write_text("no sound")
    (tmp_path / "folder.wav").mkdir()
    found = read_noise(tmp_path, 8000)
    assert found.shape == (4000,)
    assert found[:2400].std() == pytest.approx(1.0, abs=1e-3)
    assert found[2400:].std() == pytest.approx(1.0, abs=1e-3)
    assert len(read_noise(tmp_path, 4000)) == 2000


def test_noise_recordings_reach_the_model(table: Path, tmp_path: Path) -> None:
    tiny.write(tmp_path / "hum.wav", tiny.sound(0.4))
    model = tiny.frontend(table, noise=True, noise_root=str(tmp_path)).new_model()
    assert isinstance(model, AudioModel)
    assert np.array_equal(model.wave_augment.noise.numpy(), read_noise(tmp_path, 8000))
    pink = tiny.frontend(table, noise=True).new_model()
    assert isinstance(pink, AudioModel)
    assert len(pink.wave_augment.noise) == 30 * 8000


@pytest.mark.parametrize("content", ["nothing", "missing", "silence", "text"])
def test_a_folder_without_noise_is_refused(content: str, tmp_path: Path) -> None:
    root = tmp_path / "noise"
    if content != "missing":
        root.mkdir()
    if content == "silence":
        tiny.write(root / "silent.wav", np.zeros(800))
    if content == "text":
        (root / "notes.txt").write_text("no sound")
    with pytest.raises(DataError, match=r"`noise_root=.*noise`: no audible recordings in there"):
        read_noise(root, 8000)


def test_noise_in_a_format_that_cannot_be_read_is_mentioned(table: Path, tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(b"x")
    with pytest.raises(DataError, match="no audible recordings in there") as caught:
        read_noise(tmp_path, 8000)
    assert "convert others: ffmpeg" in caught.value.hint
    tiny.write(tmp_path / "hum.wav", tiny.sound(0.4))
    lines: list[str] = []
    front = tiny.frontend(table, noise=True, noise_root=str(tmp_path))
    front._notify = lines.append
    front.new_model()
    assert [line.partition(" below ")[0] for line in lines] == ["left out 1 .m4a"]


def test_a_damaged_noise_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"bad\.wav"):
        read_noise(tmp_path, 8000)


def test_split_seed_fixes_the_split_and_nothing_else(clips: AudioFrontend) -> None:
    """Several seeds share one split; without it the split follows the seed."""

    def seed_of_the_split(**values: int) -> int:
        config = AudioConfig.build({**clips.config.flat(), **values})
        return clips.with_config(config).split_request().seed

    assert seed_of_the_split(seed=5) == 5
    assert seed_of_the_split(seed=5, split_seed=2) == 2
    assert seed_of_the_split(seed=5, split_seed=0) == 0


def test_with_config_opens_again_only_what_reads_other_data(clips: AudioFrontend) -> None:
    flat = clips.config.flat()
    split = clips.with_config(AudioConfig.build({**flat, "seed": 9, "limit_fraction": 0.5, "n_mels": 16}))
    assert split.manifest is clips.manifest
    assert split.config.features.n_mels == 16
    assert clips.with_config(AudioConfig.build({**flat, "sr": 4000})).manifest is not clips.manifest


def test_five_of_24_speakers_are_tested_on_unless_asked_otherwise() -> None:
    """The seven documented recipes keep the shares they were documented with."""
    data = AudioConfig.build({}).data
    assert (data.train_ratio, data.val_ratio) == (0.65, 0.15)
    named = [name for name in preset_files("audio") if name.startswith("small-cnn-") or name == "resnet18-baseline"]
    recipes = [name for name in named if name != "small-cnn-bins"]
    assert len(recipes) == 7
    for name in recipes:
        values = resolve("audio", name, None, {}).flat()
        assert (values["train_ratio"], values["val_ratio"]) == (0.8, 0.1)


# What training sees, drawn


def test_samples_are_drawn_as_the_first_epoch_sees_them(table: Path) -> None:
    clips = tiny.frontend(table, use_specaug=True, specaug_masks=2, specaug_freq=6, noise=True)
    rows = rows_of(clips, "train")[:3]
    draws = Draws(5, 0, rows)
    model = clips.new_model().eval()
    state = torch.get_rng_state()
    (figure,) = clips.sample_figures(model, draws).values()
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    panels = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()][: 2 * len(rows)]
    batch = clips.train_batch(rows, draws)
    seen: list[Tensor] = []
    assert isinstance(model, AudioModel)
    model.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model.train()(batch.inputs, batch.lengths, draws)
    for place in range(len(rows)):
        plain, augmented = panels[2 * place], panels[2 * place + 1]
        np.testing.assert_allclose(augmented, seen[0][place, 0].numpy(), rtol=1e-5, atol=1e-5)
        assert not np.allclose(plain, augmented)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0].startswith(Path(clips.manifest.items[rows[0]].source).name)


def test_samples_are_made_where_the_model_is(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = tiny.frontend(table, use_specaug=True)
    places: list[torch.device] = []
    moved = Batch.to

    def to(batch: Batch, device: torch.device) -> Batch:
        places.append(device)
        return moved(batch, torch.device("cpu"))

    monkeypatch.setattr(Batch, "to", to)
    model = clips.new_model()
    monkeypatch.setattr(type(model), "parameters", lambda self: iter([nn.Parameter(torch.zeros(1, device="meta"))]))
    clips.sample_figures(model, Draws(0, 0, rows_of(clips, "train")[:2]))
    assert places == [torch.device("meta")] * 2


@pytest.mark.parametrize(
    "changed",
    [
        {"use_specaug": True},
        {"noise": True},
        {"time_shift": 0.1},
        {"gain": 3.0, "level": "as-is"},
        {"freq_warp": 0.1},
        {"speed": 0.1},
        {"mixup_alpha": 0.3},
    ],
)
def test_samples_are_drawn_for_every_augmentation_and_for_none_without(table: Path, changed: dict[str, Any]) -> None:
    plain, clips = tiny.frontend(table), tiny.frontend(table, **changed)
    draws = Draws(0, 0, rows_of(plain, "train")[:2])
    assert plain.sample_figures(plain.new_model(), draws) == {}
    (figure,) = clips.sample_figures(clips.new_model(), draws).values()
    first, second = (figure.axes[k].get_images()[0].get_array() for k in (0, 1))
    assert not np.allclose(first, second)


def test_a_network_of_ones_own_is_not_found_in_closed_form(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_speech_net.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self, *given):\n        super().__init__()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_trusted", {"own_speech_net:Net"})
    own = tiny.frontend(table, model="own_speech_net:Net", head="logreg")
    assert own.out_of_fold(np.arange(8)) is None
    sys.modules.pop("own_speech_net")
