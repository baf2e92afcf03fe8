"""Log-mel features against librosa, their normalisation, and what padding must not do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from samo.errors import SettingsError
from samo_audio.audio_io import read
from samo_audio.config import FeatureSettings
from samo_audio.deltas import Channels
from samo_audio.features import LogMel, n_frames, to_active_level
from samo_audio.trimming import sounding
from samo_audio.views import views_of

pytestmark = pytest.mark.usefixtures("compiled_librosa")

SR = 8000
NORMALISATIONS = ("train", "clip", "fixed")
LEVELS = ("active", "as-is")
Settings = dict[str, Any]


def small(**values: Any) -> FeatureSettings:
    return FeatureSettings(**{"sr": SR, "duration": 0.5, "n_mels": 32, "n_fft": 256, "hop_length": 64, **values})


def noise(*shape: int, level: float = 0.1, seed: int = 0) -> Tensor:
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sine(hz: float, n: int = 4000, sr: int = SR) -> Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hz * torch.arange(n, dtype=torch.float64) / sr).float()


def full(waveforms: Tensor) -> Tensor:
    """Lengths of waveforms without padding."""
    return torch.full((len(waveforms),), waveforms.shape[1])


def reference(waveform: np.ndarray, settings: FeatureSettings) -> np.ndarray:
    """librosa's mel power in dB above the same soft floor."""
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=settings.sr,
        n_fft=settings.n_fft,
        hop_length=settings.hop_length,
        win_length=settings.win_length or None,
        center=True,
        pad_mode="reflect",
        power=2.0,
        n_mels=settings.n_mels,
        fmin=settings.fmin,
        fmax=settings.fmax or None,
        htk=settings.mel_scale == "htk",
        norm="slaney" if settings.mel_scale == "slaney" else None,
    )
    level: np.ndarray = 10.0 * np.log10(power + 1e-6)
    return level


def peak_band(settings: FeatureSettings, waveform: Tensor, scale: float | None = None) -> int:
    given = None if scale is None else torch.tensor([scale])
    level = LogMel(settings).decibels(waveform[None], given)[0]
    return int(level[:, level.shape[1] // 2].argmax())


def centre_hz(settings: FeatureSettings, band: int) -> float:
    top = settings.fmax or settings.sr / 2
    edges = librosa.mel_frequencies(settings.n_mels + 2, fmin=settings.fmin, fmax=top, htk=settings.mel_scale == "htk")
    return float(edges[band + 1])


# Against librosa


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"win_length": 160},
        {"fmin": 80.0, "fmax": 3500.0},
        {"n_fft": 512, "hop_length": 100, "n_mels": 40},
        {"sr": 16_000, "n_fft": 400, "hop_length": 160, "n_mels": 64},
        {"sr": 22_050, "n_fft": 1024, "hop_length": 512, "n_mels": 128},
    ],
)
def test_librosa_gives_the_same(mel_scale: str, values: Settings) -> None:
    settings = small(mel_scale=mel_scale, **values)
    # Some noise beside the sine: float32 resolves little of what lies 70 dB below the loudest.
    tone = sine(440.0, settings.window, settings.sr) + noise(settings.window, level=0.01, seed=1)
    waveforms = torch.stack([noise(settings.window), tone])
    found = LogMel(settings).decibels(waveforms).numpy()
    for row, waveform in zip(found, waveforms.numpy(), strict=True):
        expected = reference(waveform, settings)
        assert row.shape == expected.shape == (settings.n_mels, settings.frames)
        assert np.abs(row - expected).max() < 2e-3
        assert np.abs(row - expected).mean() < 1e-4


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("pattern", ["Actor_01/03-01-05-02-01-01-01.wav", "Actor_07/03-01-05-02-01-01-07.flac"])
@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
def test_a_real_clip_against_librosa(ravdess_root: Path, pattern: str, mel_scale: str) -> None:
    settings = small(sr=22_050, n_mels=128, n_fft=1024, hop_length=512, mel_scale=mel_scale)
    path = ravdess_root / pattern
    ours = LogMel(settings).decibels(torch.from_numpy(read(path, settings.sr).waveform)[None])[0].numpy()
    theirs = reference(librosa.load(path, sr=settings.sr, res_type="soxr_hq")[0], settings)
    assert ours.shape == theirs.shape
    # librosa may append a zero behind what it resampled.
    assert np.abs(ours - theirs)[:, :-2].max() < 5e-3
    assert np.ptp(ours) > 40.0


# Settings


def _sr() -> None:
    low, high = small(), small(sr=16_000)
    assert (low.window, high.window) == (4000, 8000)
    assert abs(centre_hz(low, peak_band(low, sine(1000.0))) - 1000.0) < 100.0
    assert abs(centre_hz(high, peak_band(high, sine(1000.0, 8000, 16_000))) - 1000.0) < 200.0


def _trim_db() -> None:
    # Acts on the decoded clip, before the features: more in test_trimming.
    clip = torch.cat([torch.zeros(4000), sine(440.0), torch.zeros(4000)]).numpy()
    assert [sounding(clip, SR, small(trim_db=db).trim_db) for db in (0.0, 30.0)] == [(0, 12_000), (3920, 8160)]


def _duration() -> None:
    assert (small().window, small().frames) == (4000, 63)
    assert (small(duration=0.25).window, small(duration=0.25).frames) == (2000, 32)


def _n_mels() -> None:
    assert LogMel(small(n_mels=20)).decibels(noise(1, 4000)).shape == (1, 20, 63)


def _n_fft() -> None:
    # Two tones 60 Hz apart melt in 64 samples and stand apart in 1024.
    two = sine(1000.0) + sine(1060.0)
    wide, narrow = (LogMel(small(n_fft=n, n_mels=512, fmin=900, fmax=1160)).decibels(two[None]) for n in (64, 1024))
    assert dips(narrow) > dips(wide)


def _win_length() -> None:
    two = sine(1000.0) + sine(1060.0)
    values = {"n_fft": 1024, "n_mels": 256, "fmin": 900, "fmax": 1160}
    wide, narrow = (LogMel(small(win_length=n, **values)).decibels(two[None]) for n in (64, 0))
    assert dips(narrow) > dips(wide)
    same = LogMel(small(win_length=1024, **values)).decibels(two[None])
    assert torch.equal(same, narrow)


def dips(level: Tensor) -> float:
    """How deep the valley in the middle of the bands is, in dB, where filters hold a bin."""
    profile = level[0].mean(dim=1)
    profile = profile[profile > -59.0]
    middle = len(profile) // 2
    third = len(profile) // 4
    return float(profile.max() - profile[middle - third : middle + third].min())


def _hop_length() -> None:
    long, short = (LogMel(small(hop_length=hop)).decibels(noise(1, 4000)) for hop in (128, 64))
    assert (long.shape[2], short.shape[2]) == (32, 63)
    assert torch.allclose(long, short[:, :, ::2], atol=1e-4)


def _fmin() -> None:
    low = sine(200.0)[None]
    assert LogMel(small()).decibels(low).max() > LogMel(small(fmin=1000.0)).decibels(low).max() + 20.0


def _fmax() -> None:
    high = sine(3500.0)[None]
    assert LogMel(small()).decibels(high).max() > LogMel(small(fmax=2000.0)).decibels(high).max() + 20.0
    assert torch.equal(LogMel(small(fmax=4000.0)).decibels(high), LogMel(small()).decibels(high))


def _mel_scale() -> None:
    slaney, htk = small(), small(mel_scale="htk")
    assert abs(centre_hz(htk, peak_band(htk, sine(1500.0))) - 1500.0) < 150.0
    # Only Slaney's filters have equal areas: white noise falls with HTK's narrow low bands.
    tilt = [float(torch.diff(LogMel(s).decibels(noise(1, 4000)).mean(dim=2)[0, [4, -1]])) for s in (slaney, htk)]
    assert abs(tilt[0]) < 2.0 < tilt[1]


def _normalisation() -> None:
    models = [LogMel(small(normalisation=name)) for name in NORMALISATIONS]
    models[0].mean.fill_(-10.0)
    waveforms = noise(1, 4000)
    outputs = [model(waveforms, full(waveforms)) for model in models]
    assert not torch.allclose(outputs[0], outputs[1], atol=0.1)
    assert not torch.allclose(outputs[1], outputs[2], atol=0.1)


def _level() -> None:
    loud, quiet = noise(1, 4000, level=0.1), noise(1, 4000, level=0.01)
    change = {
        name: LogMel(small(level=name, normalisation="fixed"))(loud, full(loud))
        - LogMel(small(level=name, normalisation="fixed"))(quiet, full(quiet))
        for name in LEVELS
    }
    assert change["as-is"].median().item() == pytest.approx(1.0, abs=0.01)
    assert change["active"].abs().max() < 1e-4


def _compression() -> None:
    # A tone that stays: the logarithm keeps how far it stands above the floor, PCEN only that it stays.
    waveforms = sine(1000.0)[None]
    log, flat = (LogMel(small(compression=name)).compressed(waveforms) for name in ("log", "pcen"))
    assert torch.equal(log, LogMel(small()).decibels(waveforms))
    band = peak_band(small(), waveforms[0])
    assert float(log[0, band, 10:50].mean()) > 10.0
    assert 0.3 < float(flat[0, band, 10:50].mean()) < 0.9


def _deltas() -> None:
    assert [Channels(small(deltas=n))(noise(1, 32, 63), torch.tensor([4000])).shape[1] for n in (0, 1, 2)] == [1, 2, 3]


def _tta_speed() -> None:
    # Acts on windows, before the features, as `tta_shift` does: more in test_views.
    assert views_of(small(tta_speed=0.1)) == ((1.0, 0), (math.exp(-0.1), 0), (math.exp(0.1), 0))


def _tta_shift() -> None:
    assert views_of(small(tta_shift=0.1)) == ((1.0, 0), (1.0, -800), (1.0, 800))


ACTS = {
    "compression": _compression,
    "deltas": _deltas,
    "sr": _sr,
    "tta_speed": _tta_speed,
    "tta_shift": _tta_shift,
    "trim_db": _trim_db,
    "duration": _duration,
    "n_mels": _n_mels,
    "n_fft": _n_fft,
    "win_length": _win_length,
    "hop_length": _hop_length,
    "fmin": _fmin,
    "fmax": _fmax,
    "mel_scale": _mel_scale,
    "normalisation": _normalisation,
    "level": _level,
}


@pytest.mark.parametrize("name", FeatureSettings.model_fields)
def test_every_setting_acts(name: str) -> None:
    ACTS[name]()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"win_length": 257}, "`win_length` must not exceed `n_fft`"),
        ({"fmin": 4000.0}, "0 <= fmin < fmax <= sr / 2"),
        ({"fmax": 4001.0}, "0 <= fmin < fmax <= sr / 2"),
        ({"fmin": 2000.0, "fmax": 1000.0}, "0 <= fmin < fmax <= sr / 2"),
        ({"fmax": float("nan")}, "fmax"),
        ({"duration": 0.06, "n_fft": 1024}, "shorter than one FFT window"),
        ({"trim_db": -1.0}, "trim_db"),
        ({"tta_shift": 0.25}, "`tta_shift` must be below half of `duration`"),
        ({"n_mels": 7}, "n_mels"),
        ({"normalisation": "none"}, "normalisation"),
        ({"level": "loud"}, "level"),
        ({"compression": "root"}, "compression"),
        ({"deltas": 3}, "deltas"),
    ],
)
def test_impossible_settings_are_refused(values: Settings, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small(**values)


def test_filters_between_two_bins_are_refused() -> None:
    with pytest.raises(SettingsError, match="no mel filter between `fmin` and `fmax` reaches one of the 129 FFT bins"):
        LogMel(small(fmin=1001.0, fmax=1010.0))


@pytest.mark.parametrize(
    "values",
    [
        {"n_mels": 8, "n_fft": 64, "hop_length": 16, "duration": 0.06},
        {"sr": 192_000, "n_mels": 512, "n_fft": 16_384, "hop_length": 16_384, "duration": 5.0},
        {"n_mels": 512, "n_fft": 64},
        {"hop_length": 16_384},
        {"win_length": 1},
    ],
)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_the_smallest_and_the_largest_are_finite(values: Settings, normalisation: str) -> None:
    settings = small(**values, normalisation=normalisation)
    waveforms = noise(2, settings.window)
    found = LogMel(settings)(waveforms, torch.tensor([settings.window, 1]))
    assert found.shape == (2, settings.n_mels, settings.frames)
    assert torch.isfinite(found).all()


# Normalisation and padding


def test_train_normalisation_is_mean_and_sd_by_band() -> None:
    model = LogMel(small(normalisation="train", level="as-is"))
    model.mean.copy_(torch.linspace(-40.0, -20.0, 32))
    model.sd.copy_(torch.linspace(5.0, 15.0, 32))
    waveforms = noise(3, 4000)
    level = model.decibels(waveforms)
    expected = (level - torch.linspace(-40.0, -20.0, 32)[:, None]) / torch.linspace(5.0, 15.0, 32)[:, None]
    assert torch.allclose(model(waveforms, full(waveforms)), expected, atol=1e-6)


def test_fixed_normalisation_is_two_constants() -> None:
    model, waveforms = LogMel(small(normalisation="fixed", level="as-is")), noise(2, 4000)
    expected = (model.decibels(waveforms) + 30.0) / 20.0
    assert torch.allclose(model(waveforms, full(waveforms)), expected, atol=1e-6)


def test_clip_normalisation_removes_the_mean_of_the_valid_frames_alone() -> None:
    model = LogMel(small(normalisation="clip", level="as-is"))
    waveforms = noise(2, 4000)
    waveforms[1, 2000:] = 0.0
    lengths = torch.tensor([4000, 2000])
    level, found = model.decibels(waveforms), model(waveforms, lengths)
    for row, frames in enumerate(n_frames(lengths, 64).tolist()):
        valid = level[row, :, :frames]
        assert torch.allclose(found[row, :, :frames], (valid - valid.mean()) / 20.0, atol=1e-5)
        assert abs(float(found[row].mean())) < 1e-5
    # One mean over all bands: the shape of the spectrum stays.
    assert found[0].mean(dim=1).abs().max() > 0.01


def test_clip_normalisation_forgets_the_level_and_fixed_keeps_it() -> None:
    waveforms = noise(1, 4000)
    clip, fixed = (LogMel(small(normalisation=name, level="as-is")) for name in ("clip", "fixed"))
    lengths = full(waveforms)
    assert torch.allclose(clip(2 * waveforms, lengths), clip(waveforms, lengths), atol=0.01)
    change = fixed(2 * waveforms, lengths) - fixed(waveforms, lengths)
    assert change.median().item() == pytest.approx(20 * np.log10(2) / 20.0, abs=1e-3)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_padding_changes_nothing_and_is_zero(normalisation: str, level: str) -> None:
    model = LogMel(small(normalisation=normalisation, level=level))
    alone = torch.zeros(1, 4000)
    alone[0, :2500] = noise(2500)
    among = torch.cat([torch.nn.functional.pad(alone, (0, 3000)), noise(2, 7000, level=1.0, seed=1)])
    once = model(alone, torch.tensor([2500]))
    again = model(among, torch.tensor([2500, 7000, 4321]))
    frames = 2500 // 64 + 1
    assert torch.allclose(once[0, :, :frames], again[0, :, :frames], atol=1e-5)
    assert (once[0, :, frames:] == 0.0).all()
    assert (again[0, :, frames:] == 0.0).all()
    assert (again[2, :, 4321 // 64 + 1 :] == 0.0).all()
    assert (again[1].abs().sum(dim=0) > 0.0).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_silence_is_finite(normalisation: str, level: str) -> None:
    found = LogMel(small(normalisation=normalisation, level=level))(torch.zeros(2, 4000), torch.tensor([4000, 100]))
    assert torch.isfinite(found).all()
    assert found[0].unique().tolist() == pytest.approx([0.0] if normalisation == "clip" else [-1.5], abs=1e-5)


def test_frames_are_those_whose_centre_lies_in_the_clip() -> None:
    assert n_frames(torch.tensor([1, 63, 64, 65, 4000]), 64).tolist() == [1, 1, 2, 2, 63]


# Level


def tones(*levels: float, seconds: float = 0.25) -> Tensor:
    """One behind the other: 1 kHz square waves, whose power is that of their amplitude, at the levels given."""
    n = round(seconds * SR)
    square = torch.sign(torch.sin(2 * torch.pi * 1000.0 * (torch.arange(n) + 0.5) / SR))
    return torch.cat([level * square for level in levels])


def test_the_active_level_is_that_of_the_sounding_parts() -> None:
    # 2000 samples: frames of 320 every 160, 11 whole ones of power 0.25, one of 240/320 and one of 80/320 of it.
    whole, most, little = 0.25, 0.1875, 0.0625
    active = (11 * whole**2 + most**2 + little**2) / (11 * whole + most + little)
    found = to_active_level(tones(0.5)[None], SR)
    target = 0.0031623  # -50 dB re full scale
    assert found.abs().max().item() == pytest.approx(target * 0.5 / active**0.5, rel=1e-5)
    assert found.abs().max().item() == pytest.approx(target, rel=0.02)
    # A quiet half hardly counts, where the RMS of the whole would be 3 dB lower.
    assert to_active_level(tones(0.5, 0.005)[None], SR).abs().max().item() == pytest.approx(target, rel=0.02)


def test_silence_and_padding_say_nothing_about_the_level() -> None:
    clip = noise(1, 2345)
    alone = to_active_level(clip, SR)
    behind = to_active_level(torch.nn.functional.pad(clip, (0, 5000)), SR)
    assert torch.allclose(behind[:, :2345], alone, rtol=1e-5, atol=0.0)
    assert (behind[:, 2345:] == 0.0).all()
    # Silence in front moves the frames by whole hops.
    before = to_active_level(torch.nn.functional.pad(clip, (1600, 0)), SR)
    assert torch.allclose(before[:, 1600:], alone, rtol=0.02, atol=0.0)
    among = to_active_level(torch.cat([clip, noise(1, 2345, level=1.0, seed=1)]), SR)
    assert torch.allclose(among[:1], alone, rtol=1e-5, atol=0.0)


def test_what_is_below_80_db_is_raised_by_30_db_and_no_more() -> None:
    for level_db, raised_db in ((-20, -30), (-60, 10), (-79, 29), (-81, 30), (-100, 30)):
        quiet = tones(10.0 ** (level_db / 20))[None]
        by_db = 20 * torch.log10(to_active_level(quiet, SR).abs().max() / quiet.abs().max())
        assert by_db.item() == pytest.approx(raised_db, abs=0.2)
    assert (to_active_level(torch.zeros(1, 4000), SR) == 0.0).all()


@pytest.mark.parametrize("db", [-20.0, -10.0, 10.0, 20.0])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_loudness_changes_no_picture(normalisation: str, db: float) -> None:
    # Speech-like: loud, quiet and silent parts, the quiet ones near the floor.
    clip = torch.cat([noise(1500), noise(1500, level=0.0005, seed=1), torch.zeros(1000)])[None]
    louder, length = clip * 10.0 ** (db / 20.0), torch.tensor([4000])
    model = LogMel(small(normalisation=normalisation))
    assert torch.allclose(model(louder, length), model(clip, length), atol=1e-3)
    before = LogMel(small(normalisation=normalisation, level="as-is"))
    assert not torch.allclose(before(louder, length), before(clip, length), atol=0.1)


# What a published model needs


def test_the_state_holds_statistics_filters_and_window() -> None:
    model = LogMel(small(normalisation="train"))
    model.mean.fill_(-20.0)
    model.sd.fill_(7.0)
    other = LogMel(small(normalisation="train"))
    other.load_state_dict(model.state_dict())
    waveforms = noise(1, 4000)
    assert torch.equal(other(waveforms, full(waveforms)), model(waveforms, full(waveforms)))
    with pytest.raises(RuntimeError, match="size mismatch"):
        LogMel(small(n_mels=40)).load_state_dict(model.state_dict())


def test_nothing_of_it_is_trained() -> None:
    assert list(LogMel(small()).parameters()) == []


# The frequency axis


@pytest.mark.parametrize("scale", [0.8, 0.9, 1.1, 1.25])
def test_a_stretch_moves_a_sine_by_the_factor(scale: float) -> None:
    settings = small(n_fft=1024, n_mels=64, mel_scale="htk")
    moved = centre_hz(settings, peak_band(settings, sine(1500.0), scale))
    step = centre_hz(settings, 40) - centre_hz(settings, 39)
    assert abs(moved - 1500.0 / scale) < step


def test_a_stretch_of_one_changes_nothing() -> None:
    model, waveforms = LogMel(small()), noise(2, 4000)
    plain, stretched = model.decibels(waveforms), model.decibels(waveforms, torch.ones(2))
    assert torch.allclose(plain[:, :-1], stretched[:, :-1], atol=1e-4)
    assert torch.allclose(plain[:, -1], stretched[:, -1], atol=0.01)


def test_every_row_has_a_stretch_of_its_own() -> None:
    model, waveforms = LogMel(small()), noise(1, 4000).expand(2, -1)
    both = model.decibels(waveforms, torch.tensor([0.9, 1.1]))
    for row, scale in enumerate((0.9, 1.1)):
        assert torch.allclose(both[row], model.decibels(waveforms[:1], torch.tensor([scale]))[0], atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1.0)


def test_power_takes_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The absolute value of a spectrum, to be squared again, was a third of the time of the features."""
    features, waveforms = LogMel(small(level="as-is", normalisation="fixed")), noise(2, 4000)
    window = features.mel.spectrogram.window
    spectrum = torch.stft(waveforms, 256, 64, 256, window, pad_mode="reflect", return_complex=True)
    wanted = 10.0 * torch.log10(features.mel.mel_scale(spectrum.abs() ** 2) + 1e-6)
    monkeypatch.setattr(torch.Tensor, "abs", None)
    torch.testing.assert_close(features.decibels(waveforms), wanted, rtol=0.0, atol=1e-4)
