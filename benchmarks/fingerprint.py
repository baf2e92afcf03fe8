"""How surely near copies of recordings are found, and how often others are taken for them; prints Markdown.

    python benchmarks/fingerprint.py --ravdess RAVDESS --emodb EMODB --clips 200

Each transformation is applied to the file at its own rate, decoded as a corpus is, and looked up in the whole corpus.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from math import comb
from pathlib import Path

import numpy as np
import soundfile
import soxr

from samo.data.fingerprints import MOST_DIFFERENT, Fingerprints, near_copies
from samo_audio.audio_io import clip_of, is_audio
from samo_audio.fingerprint import fingerprint, made_of
from samo_audio.waveforms import open_waveforms

SR = 22_050
Signal = Callable[[np.ndarray, int], tuple[np.ndarray, int]]
GROUPS: dict[str, Callable[[str], str]] = {
    "RAVDESS": lambda stem: f"{stem[12:14]} by actor {stem[18:20]}",
    "EMO-DB": lambda stem: f"{stem[2:5]} by speaker {stem[:2]}",
}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def resampled(to: int) -> Signal:
    return lambda x, rate: (soxr.resample(x, rate, to), to)


def level(decibels: float) -> Signal:
    """Gain, written with 16 bits: what goes beyond full scale is clipped."""
    return lambda x, rate: (np.round(np.clip(x * 10 ** (decibels / 20), -1, 1) * 32767) / 32768, rate)


def from_second(seconds: float) -> Signal:
    return lambda x, rate: (x[max(1, round(seconds * rate)) :], rate)


def share(first: float, last: float) -> Signal:
    return lambda x, rate: (x[round(first * len(x)) : round(last * len(x))], rate)


def coded(container: str, codec: str, worst: bool = False, rate: int = 0) -> Signal:
    def apply(x: np.ndarray, own: int) -> tuple[np.ndarray, int]:
        x = soxr.resample(x, own, rate) if rate else x
        file = io.BytesIO()
        extra = {"compression_level": 0.99} if worst else {}
        soundfile.write(file, x, rate or own, format=container, subtype=codec, **extra)
        file.seek(0)
        return soundfile.read(file, dtype="float32")

    return apply


def dithered(bits: int) -> Signal:
    steps = 2.0 ** (bits - 1)
    return lambda x, rate: (np.round(x * steps + rng().triangular(-1, 0, 1, len(x))) / steps, rate)


def noisy(ratio_db: float) -> Signal:
    return lambda x, rate: (x + rng().normal(size=len(x)) * x.std() * 10 ** (-ratio_db / 20), rate)


def other_channel(milliseconds: float) -> Signal:
    """The mean of two channels, where the corpus has the left one: the right is later and 3 dB softer."""

    def apply(x: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
        late = round(milliseconds / 1000 * rate)
        return (x + 0.7 * np.concatenate([np.zeros(late), x])[: len(x)]) / 2, rate

    return apply


def faster(percent: float) -> Signal:
    return lambda x, rate: (soxr.resample(x, rate * (1 + percent / 100), rate), rate)


def all_of(*signals: Signal) -> Signal:
    def apply(x: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
        for signal in signals:
            x, rate = signal(x, rate)
        return x, rate

    return apply


MP3, OGG = ("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS")
CHANGES: dict[str, Signal] = {
    "16 kHz": resampled(16_000),
    "8 kHz": resampled(8_000),
    "+3 dB": level(3),
    "-20 dB": level(-20),
    "-40 dB, 16 bits": level(-40),
    "+12 dB, clipped": level(12),
    "+20 dB, clipped": level(20),
    "inverted": lambda x, rate: (-x, rate),
    "cut by one sample": from_second(0),
    "cut by 8 ms (half a frame)": from_second(0.008),
    "cut by 0.1 s": from_second(0.1),
    "cut by 0.5 s": from_second(0.5),
    "MP3": coded(*MP3),
    "MP3, lowest quality": coded(*MP3, worst=True),
    "Ogg Vorbis": coded(*OGG),
    "Ogg Vorbis, lowest quality": coded(*OGG, worst=True),
    "Ogg Opus at 16 kHz": coded("OGG", "OPUS", rate=16_000),
    "GSM 6.10 at 8 kHz": coded("WAV", "GSM610", rate=8_000),
    "dither of 16 bits": dithered(16),
    "dither of 8 bits": dithered(8),
    "mean of two channels 0.2 ms apart": other_channel(0.2),
    "mean of two channels 1 ms apart": other_channel(1.0),
    "white noise, 30 dB below": noisy(30),
    "white noise, 20 dB below": noisy(20),
    "white noise, 10 dB below": noisy(10),
    "16 kHz, MP3, +3 dB, inverted, cut by 0.1 s": all_of(
        resampled(16_000), level(3), lambda x, rate: (-x, rate), from_second(0.1), coded(*MP3)
    ),
    "faster by 0.5 %": faster(0.5),
    "faster by 2 %": faster(2),
}
# First cut, second cut: shares of the clip, and so their overlap.
CUTS = {
    "overlapping cuts, 80 % in common": ((0.0, 0.9), (0.1, 1.0)),
    "overlapping cuts, 50 % in common": ((0.0, 0.75), (0.25, 1.0)),
    "overlapping cuts, 33 % in common": ((0.0, 0.667), (0.333, 1.0)),
    "overlapping cuts, 20 % in common": ((0.0, 0.6), (0.4, 1.0)),
}


def prints_of(files: dict[str, Path], change: Signal, like: Fingerprints) -> Fingerprints:
    made = []
    for name, path in files.items():
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        changed, rate = change(samples.mean(axis=1), rate)
        clip = clip_of(np.asarray(changed, dtype=np.float32), rate, SR)
        made.append((name, *fingerprint(clip.waveform, SR)))
    return Fingerprints.of(like.kind, like.rate, made)


def found(queries: Fingerprints, corpus: Fingerprints) -> tuple[float, float, int]:
    """Share of the queries whose own clip is found, the median of how alike they are, and other clips found."""
    pairs = near_copies(queries, corpus)
    own = [pair.alike for pair in pairs if pair.first == pair.second]
    return len(own) / len(queries.ids), float(np.median(own)) if own else float("nan"), len(pairs) - len(own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ravdess", type=Path, required=True)
    parser.add_argument("--emodb", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=200, help="clips of each corpus that are transformed")
    arguments = parser.parse_args()
    roots = {"RAVDESS": arguments.ravdess, "EMO-DB": arguments.emodb}
    files = {
        name: {path.stem: path for path in sorted(root.rglob("*")) if is_audio(path)} for name, root in roots.items()
    }
    corpora: dict[str, Fingerprints] = {}
    print("# Near copies of recordings: what is found\n")
    print(f"Near copies differ in at most {MOST_DIFFERENT:.0%} of their bits. Chosen on RAVDESS, checked on EMO-DB.\n")
    print("| corpus | clips | minutes | CPU s, fingerprints | CPU s, all pairs | bytes a clip in a run's folder |")
    print("|---|---|---|---|---|---|")
    for name, own in files.items():
        waveforms = open_waveforms(list(own.items()), SR)
        start = time.process_time()
        corpora[name] = prints = made_of(waveforms)
        made = time.process_time() - start
        _ = prints.pairs
        searched = time.process_time() - start - made
        stored = io_size(prints)
        minutes = float(waveforms.lengths.sum()) / SR / 60
        print(f"| {name} | {len(own):,} | {minutes:.0f} | {made:.1f} | {searched:.1f} | {stored / len(own):.0f} |")
    false_alarms(corpora)
    rows: dict[str, list[str]] = {}
    for name, prints in corpora.items():
        chosen = np.sort(rng().permutation(len(files[name]))[: arguments.clips])
        some = {list(files[name])[row]: list(files[name].values())[row] for row in chosen}
        for title, change in CHANGES.items():
            rows.setdefault(title, []).append(cells(*found(prints_of(some, change, prints), prints)))
            print(name, title, rows[title][-1], file=sys.stderr)
        for title, (first, second) in CUTS.items():
            cuts = [prints_of(some, share(*each), prints) for each in (first, second)]
            rows.setdefault(title, []).append(cells(*found(*cuts)))
    print(f"\n## Found, of {arguments.clips} clips of each\n")
    print("Share found, median share of equal bits, and pairs found that are not the same clip.\n")
    names = " | ".join(f"{name}: found | alike | others" for name in corpora)
    print(f"| transformation | {names} |\n|---|{'---|' * 3 * len(corpora)}")
    for title, each in rows.items():
        print(f"| {title} | {' | '.join(each)} |")


def cells(share_found: float, alike: float, others: int) -> str:
    return f"{share_found:.1%} | {alike:.3f} | {others}"


def io_size(prints: Fingerprints) -> int:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "fingerprints.npz"
        prints.save(path)
        return path.stat().st_size


def false_alarms(corpora: dict[str, Fingerprints]) -> None:
    limits = (0.1, 0.15, 0.2, 0.25, 0.3)
    print("\n## Pairs of untouched clips taken for near copies\n")
    print("By the largest share of differing bits that is allowed; the one in use is 0.2.\n")
    print(f"| pairs of | pairs | {' | '.join(f'{limit:g}' for limit in limits)} |\n|---|---|{'---|' * len(limits)}")
    ravdess, emodb = corpora.values()
    closest = []
    for title, left, right in (
        ("RAVDESS", ravdess, ravdess),
        ("EMO-DB", emodb, emodb),
        ("RAVDESS and EMO-DB", ravdess, emodb),
    ):
        total = comb(len(left.ids), 2) if left is right else len(left.ids) * len(right.ids)
        pairs = near_copies(left, right, most_different=limits[-1])
        counts = [sum(1 - pair.alike <= limit for pair in pairs) for limit in limits]
        print(f"| {title} | {total:,} | {' | '.join(map(str, counts))} |")
        closest += [(title, pair) for pair in pairs[:6]]
    print("\nThe closest of each (RAVDESS holds one pair of byte-identical files):\n")
    print("| pairs of | one | other | equal bits | seconds |\n|---|---|---|---|---|")
    for title, pair in closest:
        print(f"| {title} | {pair.first} | {pair.second} | {pair.alike:.3f} | {pair.seconds:.1f} |")
    print("\nTwo takes of a sentence by one speaker, within each corpus (the byte-identical files are called such):\n")
    print("| corpus | such pairs | found |\n|---|---|---|")
    for name, prints in corpora.items():
        group = {each: GROUPS[name](each) for each in prints.ids}
        sizes = np.unique(list(group.values()), return_counts=True)[1]
        same = [pair for pair in prints.pairs if group[pair.first] == group[pair.second]]
        print(f"| {name} | {sum(comb(int(size), 2) for size in sizes):,} | {len(same)} |")


if __name__ == "__main__":
    main()
