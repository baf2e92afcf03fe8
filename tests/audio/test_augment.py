"""Augmentation: what each kind does to the sample, whose draw it is, and that it is off when it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_audio as tiny
import torch
from pydantic import ValidationError
from torch import Tensor

from samo.data.batch import Draws, Mix, draw_mix
from samo.tasks import LabelSpace, Task
from samo_audio.audio_model import AudioModel
from samo_audio.augment import SpecAugment, WaveAugment, freq_scale, pink_noise, speed_factors
from samo_audio.config import AugmentSettings
from samo_audio.frontend import AudioFrontend
from samo_audio.views import change_speed

SR = tiny.SR
SPACE = LabelSpace((Task("emotion", tiny.LABELS),))
EVERYTHING: dict[str, Any] = {
    "use_specaug": True,
    "time_shift": 0.1,
    "level": "as-is",
    "gain": 6.0,
    "freq_warp": 0.1,
    "noise": True,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def draws(n: int, seed: int = 0, epoch: int = 0, first: int = 0) -> Draws:
    return Draws(seed, epoch, np.arange(first, first + n))


def clips(n: int = 4, length: int = 4000, level: float = 0.1) -> Tensor:
    return level * torch.randn(n, length, generator=torch.Generator().manual_seed(0))


def full(waveforms: Tensor) -> Tensor:
    return torch.full((len(waveforms),), waveforms.shape[1])


def wave(values: dict[str, Any], noise: np.ndarray | None = None) -> WaveAugment:
    return WaveAugment(AugmentSettings(**values), SR, noise)


# SpecAugment


def masked(settings: AugmentSettings, who: Draws, bands: int = 32, frames: int = 63) -> np.ndarray:
    """(B, bands, frames) of whether a cell was masked; what was kept is unchanged."""
    spectrogram = torch.randn(len(who.rows), bands, frames, generator=torch.Generator().manual_seed(0)) + 10.0
    found = SpecAugment(settings)(spectrogram, who)
    assert found.shape == spectrogram.shape
    hidden = found == 0.0
    assert torch.equal(found[~hidden], spectrogram[~hidden])
    return hidden.numpy()


def widths(hidden: np.ndarray, axis: int) -> np.ndarray:
    """(B,) bands (axis 1) or frames (axis 2) that are masked along the whole other axis."""
    counted: np.ndarray = hidden.all(axis=3 - axis).sum(axis=1)
    return counted


@pytest.mark.parametrize(("axis", "name"), [(1, "specaug_freq"), (2, "specaug_time")])
def test_widths_are_uniform_up_to_the_largest_and_reach_it(axis: int, name: str) -> None:
    values: dict[str, Any] = {"specaug_freq": 0, "specaug_time": 0, name: 7}
    hidden = masked(AugmentSettings(use_specaug=True, specaug_masks=1, **values), draws(4000))
    counts = np.bincount(widths(hidden, axis), minlength=8)
    assert len(counts) == 8
    assert (np.abs(counts - 500) < 5 * np.sqrt(500)).all()
    # Nothing else is masked, and every place can be.
    assert (hidden.any(axis=(1, 2)) == (widths(hidden, axis) > 0)).all()
    assert hidden.any(axis=(0, 3 - axis)).all()


@pytest.mark.parametrize("axis", [1, 2])
def test_a_mask_is_one_piece(axis: int) -> None:
    hidden = masked(AugmentSettings(use_specaug=True, specaug_masks=1), draws(500)).all(axis=3 - axis)
    edges = np.abs(np.diff(np.pad(hidden.astype(int), ((0, 0), (1, 1))), axis=1)).sum(axis=1)
    assert set(edges.tolist()) == {0, 2}


def test_several_masks_are_drawn_apart() -> None:
    one, three = (
        masked(AugmentSettings(use_specaug=True, specaug_freq=4, specaug_time=5, specaug_masks=n), draws(1000))
        for n in (1, 3)
    )
    assert widths(one, 1).max() == 4
    assert widths(three, 1).max() > 8
    assert widths(three, 1).max() <= 12
    assert 10 < widths(three, 2).max() <= 15
    # The first mask is the same whatever comes after it.
    assert (three | ~one).all()


def test_a_mask_larger_than_the_spectrogram_hides_all_of_it_at_most() -> None:
    settings = AugmentSettings(use_specaug=True, specaug_freq=100, specaug_time=0, specaug_masks=1)
    counts = np.bincount(widths(masked(settings, draws(2000), bands=8), 1))
    assert len(counts) == 9
    assert (counts > 100).all()


def test_a_mask_belongs_to_seed_epoch_and_row_and_not_to_the_batch() -> None:
    module = SpecAugment(AugmentSettings(use_specaug=True))
    spectrogram = torch.ones(6, 32, 63)
    batch = module(spectrogram, draws(6))
    for row in range(6):
        assert torch.equal(module(spectrogram[:1], draws(1, first=row))[0], batch[row])
    turned = module(spectrogram, Draws(0, 0, np.arange(6)[::-1].copy()))
    assert torch.equal(turned.flip(0), batch)
    assert not torch.equal(module(spectrogram, draws(6, epoch=1)), batch)
    assert not torch.equal(module(spectrogram, draws(6, seed=1)), batch)
    assert len({tuple(row.flatten().tolist()) for row in batch}) == 6


# Waveforms


def test_a_shift_moves_samples_and_brings_in_zeros() -> None:
    ramp = torch.arange(1.0, 4001.0)[None].repeat(800, 1)
    found = wave({"time_shift": 0.05})(ramp, full(ramp), draws(800)).numpy()
    moved = []
    for row in found:
        place = int(np.flatnonzero(row)[0])
        shift = place + 1 - int(row[place])
        expected = np.zeros(4000)
        expected[max(shift, 0) : 4000 + min(shift, 0)] = np.arange(1.0, 4001.0)[max(-shift, 0) : 4000 - max(shift, 0)]
        assert np.array_equal(row, expected)
        moved.append(shift)
    # 0.05 s at 8 kHz are 400 samples, either way alike.
    assert -400 <= min(moved) < -390
    assert 390 < max(moved) <= 400
    assert abs(np.mean(moved)) < 40


def test_a_shift_keeps_within_a_short_clip() -> None:
    short = torch.zeros(200, 4000)
    short[:, :1000] = 1.0
    lengths = torch.full((200,), 1000)
    found = wave({"time_shift": 0.05})(short, lengths, draws(200))
    assert (found[:, 1000:] == 0.0).all()
    assert found.sum(dim=1).min() >= 600
    assert found.sum(dim=1).max() <= 1000


def test_gain_is_uniform_in_db_and_one_for_a_clip() -> None:
    before = clips(2000, 64)
    after = wave({"gain": 6.0})(before, full(before), draws(2000))
    ratio = after / before
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-5)
    gain_db = 20 * np.log10(ratio[:, 0].numpy())
    assert -6.0 <= gain_db.min() < -5.95
    assert 5.95 < gain_db.max() <= 6.0
    counts, _ = np.histogram(gain_db, bins=10, range=(-6, 6))
    assert (np.abs(counts - 200) < 5 * np.sqrt(200)).all()


def snr_db(clean: Tensor, noisy: Tensor, lengths: Tensor) -> np.ndarray:
    """(B,) ratio of the clip's power to that of what was added, over the valid samples."""
    found = []
    for row, length in enumerate(lengths.tolist()):
        signal = clean[row, :length].double()
        added = noisy[row, :length].double() - signal
        found.append(10 * torch.log10((signal**2).sum() / (added**2).sum()).item())
    return np.array(found)


def test_noise_has_exactly_the_ratio_asked_for() -> None:
    lengths = torch.tensor([4000, 2500, 4000, 100])
    clean = clips(4) * torch.tensor([[1.0], [0.01], [5.0], [1.0]])
    clean *= torch.arange(4000)[None] < lengths[:, None]
    for wanted in (-5.0, 0.0, 20.0):
        noisy = wave({"noise": True, "noise_snr_min": wanted, "noise_snr_max": wanted})(clean, lengths, draws(4))
        assert snr_db(clean, noisy, lengths) == pytest.approx(np.full(4, wanted), abs=0.01)
        assert (noisy[1, 2500:] == 0.0).all()
        assert (noisy[3, 100:] == 0.0).all()


def test_noise_keeps_its_ratio_beside_shift_and_gain() -> None:
    values: dict[str, Any] = {"time_shift": 0.05, "gain": 10.0}
    lengths = torch.full((50,), 1000)
    clean = clips(50) * (torch.arange(4000) < 1000)
    moved = wave(values)(clean, lengths, draws(50))
    noisy = wave({**values, "noise": True, "noise_snr_min": 10, "noise_snr_max": 10})(clean, lengths, draws(50))
    assert snr_db(moved, noisy, lengths) == pytest.approx(np.full(50, 10.0), abs=0.01)


def test_ratios_are_uniform_between_the_limits() -> None:
    clean = clips(1000, 500)
    noisy = wave({"noise": True, "noise_snr_min": 5.0, "noise_snr_max": 15.0})(clean, full(clean), draws(1000))
    found = snr_db(clean, noisy, full(clean))
    assert 4.99 < found.min() < 5.1
    assert 14.9 < found.max() < 15.01
    counts, _ = np.histogram(found, bins=5, range=(5, 15))
    assert (np.abs(counts - 200) < 5 * np.sqrt(200)).all()


def test_noise_is_a_stretch_of_the_recordings_and_wraps_around() -> None:
    bank = np.sin(np.arange(3000) ** 1.5).astype(np.float32)
    clean = clips(20)
    added = wave({"noise": True}, bank)(clean, full(clean), draws(20)).double() - clean.double()
    around = np.concatenate([bank, bank, bank])
    starts = set()
    for row in added.numpy():
        likeness = np.correlate(around[: 3000 + 3999], row, "valid")
        start = int(likeness[:3000].argmax())
        stretch = around[start : start + 4000]
        assert np.corrcoef(stretch, row)[0, 1] > 0.9999
        starts.add(start)
    assert len(starts) > 15


def test_silence_stays_silent_and_finite_under_noise() -> None:
    found = wave({"noise": True, "gain": 6.0})(torch.zeros(2, 4000), torch.tensor([4000, 1]), draws(2))
    assert (found == 0.0).all()


def test_silent_noise_adds_nothing() -> None:
    clean = clips(2)
    assert torch.equal(wave({"noise": True}, np.zeros(100))(clean, full(clean), draws(2)), clean)


def test_pink_noise_falls_by_three_db_an_octave() -> None:
    noise = pink_noise(1 << 16)
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(noise, pink_noise(1 << 16))
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [10 * np.log10(power[low : 2 * low].mean()) for low in (64 << k for k in range(9))]
    assert np.diff(octaves) == pytest.approx(np.full(8, -3.01), abs=1.0)
    assert (octaves[-1] - octaves[0]) / 8 == pytest.approx(-3.01, abs=0.2)


@pytest.mark.parametrize("values", [{"time_shift": 0.05}, {"gain": 6.0}, {"noise": True}])
def test_what_happens_to_a_row_does_not_depend_on_the_batch(values: dict[str, Any]) -> None:
    module, before = wave(values), clips(5)
    lengths = torch.tensor([4000, 3000, 100, 4000, 2000])
    before *= torch.arange(4000)[None] < lengths[:, None]
    batch = module(before, lengths, draws(5))
    for row in range(5):
        alone = module(before[row : row + 1], lengths[row : row + 1], draws(1, first=row))
        assert torch.allclose(alone[0], batch[row], atol=1e-7)
    assert not torch.allclose(module(before, lengths, draws(5, epoch=1)), batch, atol=1e-4)


def test_speed_moves_every_frequency_by_its_factor() -> None:
    """A tone below an eighth of the rate comes out as the same tone at another frequency, 1 % off at most."""
    place = np.arange(4000)
    for cycles in (0.01, 0.1):
        tone = np.sin(2 * np.pi * cycles * place + 0.3).astype(np.float32)
        for factor in (0.9, 1.0, 1.1):
            found = change_speed(tone, factor)
            assert found.dtype == np.float32
            assert len(found) == int(np.ceil(4000 / factor))
            wanted = np.sin(2 * np.pi * cycles * factor * np.arange(len(found)) + 0.3)
            assert np.abs(found - wanted)[2:-4].max() < (0.01 if factor != 1.0 else 1e-6)


def test_factors_of_speed_are_uniform_in_their_logarithm() -> None:
    factors = speed_factors(AugmentSettings(speed=0.1), draws(4000))
    assert factors is not None
    counts = np.histogram(np.log(factors), bins=8, range=(-0.1, 0.1))[0]
    assert counts.sum() == 4000
    assert (np.abs(counts - 500) < 5 * np.sqrt(500)).all()
    assert speed_factors(AugmentSettings(), draws(4)) is None


def test_a_faster_clip_fills_its_window_from_more_of_the_recording(table: Path) -> None:
    """No silence comes in where the recording is long enough, and the crop follows the factor."""
    front = tiny.frontend(table, speed=0.3)
    rows = np.flatnonzero(front.waveforms.lengths > 1.36 * front.window)
    assert len(rows) > 0
    who = Draws(0, 0, rows)
    factors = speed_factors(front.config.augment, who)
    assert factors is not None
    batch = front.train_batch(rows, who)
    # The last sample may be missing, where a whole number of samples does not fill the window.
    assert (batch.lengths >= front.window - 1).all()
    starts = who.integers("crop", front.waveforms.lengths[rows] - np.floor(front.window * factors).astype(int) + 1)
    for row, start, factor, found in zip(rows, starts, factors, batch.inputs.numpy(), strict=True):
        n = int(np.floor(front.window * factor))
        wanted = change_speed(front.waveforms.waveform(row)[start : start + n], factor)
        assert np.array_equal(found[: len(wanted)], wanted)


def test_frequency_factors() -> None:
    assert freq_scale(AugmentSettings(), draws(4)) is None
    found = freq_scale(AugmentSettings(freq_warp=0.2), draws(2000))
    assert found is not None
    assert found.dtype == torch.float32
    assert 0.8 <= found.min() < 0.802
    assert 1.198 < found.max() <= 1.2
    assert abs(float(found.mean()) - 1.0) < 0.01


def test_augmentation_is_no_part_of_a_published_model() -> None:
    assert wave({"noise": True}).state_dict() == {}
    assert SpecAugment(AugmentSettings(use_specaug=True)).state_dict() == {}


# Inside the model


def seen(model: AudioModel, waveforms: Tensor, *args: Any) -> Tensor:
    """What the network is given to look at: (B, 1, bands, frames)."""
    caught: list[Tensor] = []
    handle = model.network.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0].clone()))
    with torch.no_grad():
        model(waveforms, full(waveforms), *args)
    handle.remove()
    return caught[0]


def model_of(**values: Any) -> AudioModel:
    torch.manual_seed(0)
    return AudioModel(tiny.config(**values), SPACE)


MIX = Mix(torch.tensor([1, 2, 3, 0]), torch.tensor([0.5, 0.75, 0.9, 1.0]))


def test_evaluation_is_not_augmented() -> None:
    plain, model = model_of(level="as-is").eval(), model_of(**EVERYTHING).eval()
    expected = seen(plain, clips())
    assert torch.equal(seen(model, clips(), draws(4), MIX), expected)
    assert torch.equal(seen(model, clips()), expected)
    with torch.no_grad():
        assert torch.equal(model(clips(), full(clips()), draws(4), MIX), plain(clips(), full(clips())))


def test_training_without_augmentation_changes_nothing() -> None:
    assert torch.equal(seen(model_of().train(), clips(), draws(4)), seen(model_of().eval(), clips()))


def test_training_without_draws_changes_nothing() -> None:
    plain = model_of(level="as-is").eval()
    assert torch.equal(seen(model_of(**EVERYTHING).train(), clips()), seen(plain, clips()))


def test_mixup_mixes_spectrograms_and_targets_alike() -> None:
    before = seen(model_of().eval(), clips())
    after = seen(model_of().train(), clips(), draws(4), MIX)
    weight = MIX.weight[:, None, None, None]
    assert torch.allclose(after, weight * before + (1 - weight) * before[MIX.partner], atol=1e-6)
    assert torch.equal(after[3], before[3])
    targets = torch.eye(4)
    expected = [[0.5, 0.5, 0, 0], [0, 0.75, 0.25, 0], [0, 0, 0.9, 0.1], [0, 0, 0, 1.0]]
    assert torch.allclose(MIX.apply(targets), torch.tensor(expected))


def test_masks_are_drawn_before_rows_are_mixed() -> None:
    before = seen(model_of(use_specaug=True).train(), clips(), draws(4))
    after = seen(model_of(use_specaug=True).train(), clips(), draws(4), MIX)
    assert torch.allclose(after, MIX.apply(before), atol=1e-6)


def test_features_keep_full_precision_under_autocast() -> None:
    expected = seen(model_of().eval(), clips())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = seen(model_of().eval(), clips())
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


# Every setting: what it is changed beside, and to what.
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "use_specaug": ({}, True),
    "specaug_freq": ({"use_specaug": True}, 3),
    "specaug_time": ({"use_specaug": True}, 5),
    "specaug_masks": ({"use_specaug": True}, 4),
    "mixup_alpha": ({}, 0.4),
    "time_shift": ({}, 0.1),
    "gain": ({"level": "as-is"}, 6.0),
    "freq_warp": ({}, 0.2),
    "speed": ({}, 0.2),
    "noise": ({}, True),
    "noise_root": ({"noise": True}, "recordings"),
    "noise_snr_min": ({"noise": True}, 0.0),
    "noise_snr_max": ({"noise": True}, 40.0),
}


# `speed_steps` is of frozen encoders: tests/audio/test_speech_encoders.py
@pytest.mark.parametrize("name", [name for name in AugmentSettings.model_fields if name != "speed_steps"])
def test_every_setting_changes_what_the_network_is_trained_on(name: str, table: Path, tmp_path: Path) -> None:
    beside, value = CHANGES[name]
    if name == "noise_root":
        value = str(tmp_path)
        tiny.write(tmp_path / "hum.wav", tiny.sound(1.0))

    def trained_on(**values: Any) -> Tensor:
        frontend: AudioFrontend = tiny.frontend(table, normalisation="fixed", **values)
        rows = np.arange(8)
        who = Draws(0, 0, rows)
        batch = frontend.train_batch(rows, who)
        model = frontend.new_model().train()
        assert isinstance(model, AudioModel)
        return seen(model, batch.inputs, who, draw_mix(who, frontend.mixup_alpha))

    before, after = trained_on(**beside), trained_on(**beside, **{name: value})
    changed = (before - after).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert int(changed.sum()) >= 6


@pytest.mark.parametrize("name", [name for name, (beside, _) in CHANGES.items() if beside])
def test_a_setting_that_would_do_nothing_is_refused(name: str) -> None:
    beside, value = CHANGES[name]
    needed = next(f"{key}={wanted}" if isinstance(wanted, str) else key for key, wanted in beside.items())
    with pytest.raises(Exception, match=f"acts only together with `{needed}`"):
        tiny.config(**{name: value})


@pytest.mark.parametrize(
    "values",
    [
        {"noise_snr_min": 31.0},
        {"mixup_alpha": float("inf")},
        {"mixup_alpha": -0.1},
        {"gain": -1.0},
        {"freq_warp": 1.0},
        {"speed": 0.6},
        {"specaug_freq": -1},
        {"specaug_masks": 0},
        {"time_shift": float("nan")},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AugmentSettings(**values)
