"""A small source-filter voice: glottal pulses and noise through moving formants, in numpy alone.

Source: the polynomial glottal flow of Rosenberg (1971) as in KLGLOTT88 (Klatt & Klatt 1990), with the exponential
return phase of the LF model (Fant, Liljencrants & Lin 1985), jitter, shimmer and pitch-synchronous aspiration.
Filter: five resonators in cascade (Klatt 1980) that move from phone to phone; fricatives and bursts are noise bands
beside the cascade. Vowel formants after Peterson & Barney (1952), consonant loci and bandwidths after Klatt (1980),
ranges of men, women and children after Hillenbrand et al. (1995).

Pulses run at twice the output rate and the filter keeps the lower half of their spectrum, so little aliasing remains.
Filtering is overlap-add over 20 ms frames, all frames at once: a clip takes 10 to 20 milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

__all__ = ["PHONES", "SAMPLE_RATE_HZ", "VOICE_RANGES", "Expression", "Speaker", "Statement", "Syllable", "speak"]

SAMPLE_RATE_HZ = 16_000
_SOURCE_RATE_HZ = 2 * SAMPLE_RATE_HZ
_CONTROL_RATE_HZ = 1000
_HOP = 160  # samples at the output rate, 10 ms; a frame is two hops, with its ringing four
_PIECES = 4
_FFT = _PIECES * _HOP

# F1 to F3 come from the phone; these two hardly move in speech.
_HIGH_FORMANTS_HZ = (3400.0, 4400.0)
_BANDWIDTHS_HZ = (70.0, 90.0, 130.0, 200.0, 280.0)
_SCHWA_HZ = np.array([500.0, 1500.0, 2500.0])
_OPEN_QUOTIENT = 0.62
_RETURN_QUOTIENT = 0.012
_TILT_FROM_HZ = 400.0

Array = NDArray[np.floating[Any]]
Spectra = NDArray[np.complexfloating[Any, Any]]


@dataclass(frozen=True)
class Speaker:
    """What stays the same in everything one person says.

    Attributes:
        pitch_hz: median fundamental frequency in a neutral voice.
        formant_scale: formant frequencies relative to a man's; the inverse of the vocal tract's relative length.
        pitch_range_semitones: peak-to-peak size of the pitch accents.
        rate_syllables_per_s: syllables per second without pauses.
        level_db: root mean square level of the speech, dB below full scale.
        tilt_db_per_octave: slope added to the glottal spectrum above 400 Hz.
        jitter_percent: mean difference of neighbouring periods over the mean period.
        shimmer_db: mean difference of neighbouring pulses' amplitudes.
        breathiness_db: level of the aspiration noise relative to the pulses.
        room_noise_db: level of the recording's background noise, dB below full scale.
    """

    pitch_hz: float
    formant_scale: float = 1.0
    pitch_range_semitones: float = 4.0
    rate_syllables_per_s: float = 5.2
    level_db: float = -31.0
    tilt_db_per_octave: float = 0.0
    jitter_percent: float = 0.7
    shimmer_db: float = 0.35
    breathiness_db: float = -30.0
    room_noise_db: float = -68.0


@dataclass(frozen=True)
class Expression:
    """How one utterance departs from its speaker's neutral voice; all zeros is neutral.

    Attributes:
        pitch_semitones: shift of the whole pitch contour.
        range_percent: change of the size of the pitch accents.
        contour_semitones: slow rise (+) or fall (-) from the first to the last syllable.
        final_semitones: extra movement on the last syllable.
        rate_percent: change of the syllable rate.
        level_db: change of level.
        tilt_db_per_octave: change of spectral slope; positive is brighter, a tenser voice.
        jitter_percent: change of jitter.
        shimmer_db: change of shimmer.
        breathiness_db: change of the aspiration's level.
        tremor_semitones: depth of a 7 Hz modulation of pitch.
        pause_ms: length added to the pause at the phrase boundary.
        attack_ms: change of the time the voice takes to set in.
        formant_percent: shift of all formants: spread lips (+), rounded lips or a low larynx (-).
        articulation_percent: vowels further from schwa (+) or slackened towards it (-).
    """

    pitch_semitones: float = 0.0
    range_percent: float = 0.0
    contour_semitones: float = 0.0
    final_semitones: float = 0.0
    rate_percent: float = 0.0
    level_db: float = 0.0
    tilt_db_per_octave: float = 0.0
    jitter_percent: float = 0.0
    shimmer_db: float = 0.0
    breathiness_db: float = 0.0
    tremor_semitones: float = 0.0
    pause_ms: float = 0.0
    attack_ms: float = 0.0
    formant_percent: float = 0.0
    articulation_percent: float = 0.0

    def scaled(self, factor: float) -> Expression:
        """The same expression, ``factor`` times as strong."""
        return Expression(*(factor * value for value in self.values()))

    def __add__(self, other: Expression) -> Expression:
        """Both departures at once."""
        return Expression(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[float, ...]:
        """The attributes' values in their order."""
        return tuple(getattr(self, item.name) for item in fields(self))


# Lowest and highest of pitch_hz and formant_scale.
VOICE_RANGES: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "male": ((92.0, 142.0), (0.94, 1.05)),
    "female": ((178.0, 238.0), (1.12, 1.22)),
    "child": ((240.0, 290.0), (1.26, 1.36)),
}


@dataclass(frozen=True)
class Phone:
    """One target of the articulators.

    Attributes:
        formants_hz: F1 to F3 of a man.
        duration_ms: at five syllables per second; 0 for vowels, which fill what the consonants leave.
        voicing: amplitude of the glottal pulses, 0 to 1.
        aspiration: amplitude of noise through the formants.
        frication: amplitude of noise beside the formants, in a band around ``noise_hz``.
        noise_hz: centre of that band.
        noise_width_hz: standard deviation of that band.
    """

    formants_hz: tuple[float, float, float]
    duration_ms: float = 0.0
    voicing: float = 1.0
    aspiration: float = 0.0
    frication: float = 0.0
    noise_hz: float = 4000.0
    noise_width_hz: float = 1500.0


PHONES: Mapping[str, Phone] = {
    "i": Phone((390, 1990, 2550)),
    "a": Phone((730, 1090, 2440)),
    "o": Phone((570, 840, 2410)),
    "@": Phone((500, 1400, 2400)),
    "r": Phone((420, 1250, 1650), 60, voicing=0.7),
    "z": Phone((290, 1400, 2530), 75, voicing=0.25, frication=0.10, noise_hz=5600, noise_width_hz=1300),
    "s": Phone((320, 1400, 2530), 100, voicing=0.0, frication=0.16, noise_hz=5800, noise_width_hz=1300),
    "dh": Phone((270, 1290, 2540), 40, voicing=0.35, frication=0.02, noise_hz=5000, noise_width_hz=2500),
    # A stop is its closure (a voice bar or silence), its burst and, if voiceless, a stretch of aspiration.
    "b-": Phone((200, 900, 2150), 50, voicing=0.12),
    "b": Phone((250, 950, 2200), 8, voicing=0.2, frication=0.10, noise_hz=900, noise_width_hz=700),
    "d-": Phone((200, 1600, 2600), 45, voicing=0.12),
    "d": Phone((250, 1600, 2600), 9, voicing=0.2, frication=0.16, noise_hz=4000, noise_width_hz=1500),
    "g-": Phone((200, 1800, 2400), 50, voicing=0.12),
    "g": Phone((250, 1700, 2300), 14, voicing=0.2, frication=0.16, noise_hz=1900, noise_width_hz=600),
    "k-": Phone((250, 1900, 2600), 50, voicing=0.0),
    "k": Phone((300, 1850, 2600), 14, voicing=0.0, frication=0.22, noise_hz=2000, noise_width_hz=700),
    "t-": Phone((250, 1600, 2600), 50, voicing=0.0),
    "t": Phone((300, 1600, 2600), 10, voicing=0.0, frication=0.24, noise_hz=4300, noise_width_hz=1500),
    "h": Phone((450, 1500, 2500), 30, voicing=0.0, aspiration=0.12),
    "_": Phone((500, 1500, 2500), voicing=0.0),
}


@dataclass(frozen=True)
class Syllable:
    """Names of phones, and how stressed they are (0 to 1)."""

    phones: tuple[str, ...]
    stress: float = 0.5


@dataclass(frozen=True)
class Statement:
    """What is said; a pause may stand after the syllable numbered ``pause_after``."""

    text: str
    syllables: tuple[Syllable, ...]
    pause_after: int


@dataclass(frozen=True)
class _Score:
    """A statement laid out in time: one row a phone, silences included."""

    phones: tuple[Phone, ...]
    syllable: NDArray[np.int64]  # number of the syllable, -1 in silence
    edges_s: Array  # (phones + 1,)

    def rows(self, times_s: Array) -> NDArray[np.int64]:
        """Row of the phone that is sounding at each time."""
        found = np.searchsorted(self.edges_s, times_s, side="right") - 1
        return np.clip(found, 0, len(self.phones) - 1)


def speak(speaker: Speaker, expression: Expression, statement: Statement, rng: Generator) -> Array:
    """One utterance, (samples,) in -1 to 1 at :data:`SAMPLE_RATE_HZ`; its length follows from the rate of speech."""
    score = _lay_out(speaker, expression, statement, rng)
    frames = int(np.ceil(score.edges_s[-1] * SAMPLE_RATE_HZ / _HOP))
    control_s = np.arange(frames * _HOP * _CONTROL_RATE_HZ // SAMPLE_RATE_HZ + 1) / _CONTROL_RATE_HZ
    pitch_hz = _pitch(speaker, expression, score, control_s, rng)
    sources = _sources(speaker, expression, score, control_s, pitch_hz, rng)
    wave = _vocal_tract(speaker, expression, score, sources, frames)
    return _recorded(speaker, expression, score, wave, rng)


def _lay_out(speaker: Speaker, expression: Expression, statement: Statement, rng: Generator) -> _Score:
    rate = np.clip(speaker.rate_syllables_per_s * (1.0 + expression.rate_percent / 100.0), 3.2, 8.5)
    silence = PHONES["_"]
    phones, owners, durations = [silence], [-1], [rng.uniform(0.05, 0.14)]
    for number, syllable in enumerate(statement.syllables):
        last = number == len(statement.syllables) - 1
        length_s = (0.75 + 0.5 * syllable.stress) * (1.25 if last else 1.0) * rng.lognormal(0.0, 0.07) / rate
        spoken = [PHONES[name] for name in syllable.phones]
        # Consonants give way less than vowels when speech gets faster.
        given_s = [p.duration_ms / 1000.0 * (5.0 / rate) ** 0.5 * rng.lognormal(0.0, 0.1) for p in spoken]
        vowels = sum(p.duration_ms == 0 for p in spoken)
        vowel_s = max(length_s - sum(given_s), 0.05) / vowels
        phones += spoken
        owners += [number] * len(spoken)
        durations += [given if given > 0 else vowel_s for given in given_s]
        if last or number == statement.pause_after:
            phones.append(silence)
            owners.append(-1)
            durations.append(rng.uniform(0.06, 0.16) if last else max(expression.pause_ms, 0.0) / 1000.0)
    return _Score(tuple(phones), np.array(owners), np.concatenate([[0.0], np.cumsum(durations)]))


def _pitch(speaker: Speaker, expression: Expression, score: _Score, control_s: Array, rng: Generator) -> Array:
    """Fundamental frequency in Hz at the control rate: declination, accents, phrase contour, final movement, tremor."""
    count = int(score.syllable.max()) + 1
    starts, ends = score.edges_s[:-1], score.edges_s[1:]
    owned = [score.syllable == number for number in range(count)]
    centres = np.array([(starts[rows].min() + ends[rows].max()) / 2 for rows in owned])
    place = np.linspace(-0.5, 0.5, count)
    accents = np.where(np.arange(count) % 2 == 0, 0.5, -0.4) + 0.15 * rng.standard_normal(count)
    wide = speaker.pitch_range_semitones * max(1.0 + expression.range_percent / 100.0, 0.15)
    semitones = expression.pitch_semitones + wide * accents + (expression.contour_semitones - 1.5) * place
    knots_s = np.append(centres, ends[owned[-1]].max())
    contour = np.interp(control_s, knots_s, np.append(semitones, semitones[-1] + expression.final_semitones))
    smooth = _smoothed(contour, 0.06)
    phase = rng.uniform(0.0, 2.0 * np.pi)
    tremor = max(expression.tremor_semitones, 0.0) * np.sin(2.0 * np.pi * 7.0 * control_s + phase)
    return np.clip(speaker.pitch_hz * 2.0 ** ((smooth + tremor) / 12.0), 55.0, 650.0)


def _sources(
    speaker: Speaker, expression: Expression, score: _Score, control_s: Array, pitch_hz: Array, rng: Generator
) -> tuple[Array, Array, Array]:
    """Glottal pulses (samples * 2,) at the source rate; aspiration and frication (samples,) at the output rate."""
    row = score.rows(control_s)
    level = _syllable_levels(score, rng)[row]
    voicing = np.array([p.voicing for p in score.phones])[row] * level
    attack_s = np.clip(0.022 + expression.attack_ms / 1000.0, 0.006, 0.08)
    voicing = _smoothed(voicing, attack_s)
    aspiration = _smoothed(np.array([p.aspiration for p in score.phones])[row] * level, 0.012)
    frication = _smoothed(np.array([p.frication for p in score.phones])[row] * level, 0.006)

    fine_s = np.arange(round(control_s[-1] * _SOURCE_RATE_HZ)) / _SOURCE_RATE_HZ
    samples_s = fine_s[::2]
    pulses, opening = _glottis(speaker, expression, np.interp(fine_s, control_s, pitch_hz), rng)
    loud = np.interp(fine_s, control_s, voicing)
    noise = rng.standard_normal(samples_s.size)
    breath = 10.0 ** (np.clip(speaker.breathiness_db + expression.breathiness_db, -50.0, -12.0) / 20.0)
    breathing = np.interp(samples_s, control_s, aspiration) + breath * loud[::2] * (0.3 + 0.7 * opening[::2])
    return loud * pulses, breathing * noise, np.interp(samples_s, control_s, frication) * noise


def _syllable_levels(score: _Score, rng: Generator) -> Array:
    """Amplitude by phone: every syllable has its own level, falling by 4 dB over the phrase."""
    count = int(score.syllable.max()) + 1
    by_syllable_db = np.linspace(1.0, -3.0, count) + np.where(np.arange(count) % 2 == 0, 1.0, -1.5)
    by_syllable_db += rng.normal(0.0, 1.0, count)
    return np.where(score.syllable >= 0, 10.0 ** (by_syllable_db[score.syllable] / 20.0), 0.0)


def _glottis(speaker: Speaker, expression: Expression, pitch_hz: Array, rng: Generator) -> tuple[Array, Array]:
    """Derivative of the glottal flow and the glottis' opening (0 or 1), at the source rate.

    A cycle begins with the glottis' closure. Closures moved by independent amounts of standard deviation s periods make
    a mean difference of neighbouring periods of sqrt(6) * sqrt(2 / pi) * s = 1.95 s; for the amplitudes it is 1.13 s.
    """
    phase = np.cumsum(pitch_hz) / _SOURCE_RATE_HZ
    cycles = int(phase[-1]) + 3
    jitter = np.clip(speaker.jitter_percent + expression.jitter_percent, 0.1, 6.0) / 100.0
    shimmer_db = np.clip(speaker.shimmer_db + expression.shimmer_db, 0.05, 2.5)
    phase += np.interp(phase, np.arange(cycles), rng.normal(0.0, jitter / 1.95, cycles))
    phase -= np.floor(phase[0])
    cycle = phase.astype(np.int64)
    since_closure = phase - cycle
    opened = (since_closure - (1.0 - _OPEN_QUOTIENT)) / _OPEN_QUOTIENT
    is_open = opened > 0.0
    flow = np.where(is_open, opened * (2.0 - 3.0 * opened), -np.exp(since_closure / -_RETURN_QUOTIENT))
    # A pulse keeps its amplitude from its opening to the end of its return, in the next cycle.
    amplitude = 10.0 ** (rng.normal(0.0, shimmer_db / 1.13, cycles + 2) / 20.0)
    return amplitude[cycle + is_open] * flow, is_open.astype(np.float64)


def _vocal_tract(
    speaker: Speaker, expression: Expression, score: _Score, sources: tuple[Array, Array, Array], frames: int
) -> Array:
    """Filter and sum the sources by overlap-add; (frames * hop,) at the output rate."""
    frames_s = np.arange(frames + 1) * (_HOP / SAMPLE_RATE_HZ)
    bins_hz = np.arange(_FFT // 2 + 1) * (SAMPLE_RATE_HZ / _FFT)
    pulses, aspiration, frication = (_spectra(source, frames) for source in sources)
    slope = np.clip(speaker.tilt_db_per_octave + expression.tilt_db_per_octave, -14.0, 6.0)
    octaves = np.log2(np.maximum(bins_hz, _TILT_FROM_HZ) / _TILT_FROM_HZ)
    # The mouth radiates no steady flow: take out what the pulses hold below the voice.
    glottis = 10.0 ** (slope * octaves / 20.0) * bins_hz**2 / (bins_hz**2 + 40.0**2)
    formants_hz = _formant_tracks(speaker, expression, score, frames_s)
    spectra = (pulses + aspiration) * glottis * _resonances(formants_hz, bins_hz)
    row = score.rows(frames_s)
    # Fricatives are made in front of the tongue, in a cavity that varies less between people than the whole tract.
    centre = np.array([p.noise_hz for p in score.phones])[row, None] * speaker.formant_scale**0.5
    width = np.array([p.noise_width_hz for p in score.phones])[row, None]
    spectra += frication * np.exp(-0.5 * ((bins_hz - centre) / width) ** 2)
    pieces = np.fft.irfft(spectra, n=_FFT, axis=1).reshape(frames + 1, _PIECES, _HOP)
    total = np.zeros((frames + _PIECES, _HOP))
    for part in range(_PIECES):
        total[part : part + frames + 1] += pieces[:, part]
    # The first frame begins one hop before the clip.
    return total[1 : frames + 1].reshape(-1)


def _spectra(source: Array, frames: int) -> Spectra:
    """Spectra of 20 ms Hann frames every 10 ms, up to the output's Nyquist frequency; (frames + 1, bins)."""
    hop = source.size // frames
    blocks = source.reshape(frames, hop)
    window = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * hop) / hop)
    framed = np.zeros((frames + 1, hop * _FFT // _HOP))
    framed[1:, :hop] = blocks * window[:hop]
    framed[:-1, hop : 2 * hop] = blocks * window[hop:]
    # A source at twice the rate has twice the samples in a frame: the same spectrum, twice as high.
    return np.fft.rfft(framed, axis=1)[:, : _FFT // 2 + 1] * (_HOP / hop)


def _formant_tracks(speaker: Speaker, expression: Expression, score: _Score, frames_s: Array) -> Array:
    """(frames, 5) in Hz: each phone holds its target in its middle and glides to its neighbours."""
    sounding = score.syllable >= 0
    targets = np.array([p.formants_hz for p in score.phones])[sounding]
    precision = np.clip(1.0 + expression.articulation_percent / 100.0, 0.4, 1.4)
    targets = _SCHWA_HZ + (targets - _SCHWA_HZ) * precision
    starts, ends = score.edges_s[:-1][sounding], score.edges_s[1:][sounding]
    hold = 0.3 * (ends - starts)
    knots_s = np.stack([starts + hold, ends - hold], axis=1).reshape(-1)
    tracks = np.empty((frames_s.size, 5))
    for column in range(3):
        tracks[:, column] = np.interp(frames_s, knots_s, np.repeat(targets[:, column], 2))
    tracks[:, 3:] = _HIGH_FORMANTS_HZ
    return np.clip(tracks * (speaker.formant_scale * (1.0 + expression.formant_percent / 100.0)), 150.0, 7000.0)


def _resonances(formants_hz: Array, bins_hz: Array) -> Spectra:
    """Response of the cascade, 1 at 0 Hz, (frames, bins), from formants (frames, 5)."""
    angle = 2.0 * np.pi * bins_hz / SAMPLE_RATE_HZ
    gain = np.ones((len(formants_hz), 1))
    response: Spectra = np.ones((len(formants_hz), bins_hz.size), dtype=np.complex128)
    for column, bandwidth_hz in enumerate(_BANDWIDTHS_HZ):
        radius = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE_HZ)
        b = 2.0 * radius * np.cos(2.0 * np.pi * formants_hz[:, column, None] / SAMPLE_RATE_HZ)
        gain *= 1.0 - b + radius**2
        # 1 - b / z + r^2 / z^2 without its delay of one sample, which nobody hears.
        response *= (1.0 + radius**2) * np.cos(angle) + 1j * (1.0 - radius**2) * np.sin(angle) - b
    return gain / response


def _recorded(speaker: Speaker, expression: Expression, score: _Score, wave: Array, rng: Generator) -> Array:
    """Bring the speech to its level and put it into a quiet room."""
    begin, end = (int(second * SAMPLE_RATE_HZ) for second in (score.edges_s[1], score.edges_s[-2]))
    level = 10.0 ** ((speaker.level_db + expression.level_db) / 20.0)
    wave = wave * (level / np.sqrt(np.mean(wave[begin:end] ** 2)))
    spectrum = np.fft.rfft(rng.standard_normal(wave.size))
    # Rooms hum more than they hiss: power falls by 3 dB per octave.
    spectrum /= np.sqrt(np.maximum(np.arange(spectrum.size), 1.0 + wave.size * 50.0 / SAMPLE_RATE_HZ))
    noise = np.fft.irfft(spectrum, n=wave.size)
    wave = wave + noise * (10.0 ** (speaker.room_noise_db / 20.0) / np.sqrt(np.mean(noise**2)))
    return wave * min(1.0, 0.97 / np.abs(wave).max())


def _smoothed(track: Array, seconds: float) -> Array:
    """Moving Hann average of a control track over ``seconds``."""
    half = max(int(seconds * _CONTROL_RATE_HZ / 2), 1)
    kernel = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(track, half, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")
