"""What is in a corpus: counts, lengths, levels and copies as plain data, and pictures of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from samo.data.fingerprints import NearCopy
from samo.data.manifest import Item, Manifest
from samo.errors import counted, first_ten, plural
from samo.reporting.drawing import BLUE, GREY, INK, ORANGE, names_below, plain_axes, save_named, verbatim

if TYPE_CHECKING:
    from samo_audio.config import FeatureSettings
    from samo_audio.waveforms import Waveforms

__all__ = ["draw", "inspect"]

UNKNOWN = "unknown"
# A split by speaker needs a class in three parts, each with speakers of its own.
_FEWEST_SPEAKERS = 3
_UNEVEN = 3.0
_MOST_CLIPS_DRAWN = 12
_LONGEST_DRAWN_S = 10.0
_DEPTH_DB = 80.0
_MOST_BINS = 40
_MOST_SPEAKERS_NAMED = 60
_LOWEST_LEVEL_DB = -100.0
_GENDERS = {"female": ORANGE, "male": BLUE}


def inspect(manifest: Manifest, waveforms: Waveforms) -> dict[str, Any]:
    """Describe a corpus by plain data, ready for JSON.

    Args:
        manifest: the indexed corpus.
        waveforms: its decoded clips, rows in the manifest's order.

    Returns:
        ``dataset``, ``root``, ``synthetic``, ``n``, ``task``, ``labels``; ``by_class``, ``by_speaker`` (counts) and
        ``class_by_speaker`` (counts by speaker, then class); ``duration_s`` with ``min``, ``median``, ``max`` and
        ``total``; ``level`` with ``peak`` (1 = full scale) and ``rms_db`` (dB below full scale) as min, median and
        max, overall and ``by_speaker``; ``native`` with counts by ``sample_rates`` (Hz) and ``channels``;
        ``duplicates``, lists of ids with identical samples; ``near_copies``, a list of ``ids`` of two clips that are
        one recording, the share of their fingerprints that is ``alike`` and the ``seconds`` both have, or None where
        the manifest has no fingerprints; ``clip_warnings`` by id; ``warnings``, lines to read.
    """
    speakers = [_speaker(item) for item in manifest.items]
    classes = [_label(manifest, item) for item in manifest.items]
    seconds = _seconds(waveforms)
    peak, rms_db = _levels(waveforms)
    order = {label: row for row, label in enumerate(manifest.label_space.primary.labels)}
    names = sorted(set(classes) | set(order), key=lambda label: (order.get(label, len(order)), label))
    by_class = {label: classes.count(label) for label in names}
    duplicates = _duplicates(waveforms.content)
    near = _near_copies(manifest)
    clip_warnings = {
        item.id: list(facts.warnings)
        for item, facts in zip(manifest.items, waveforms.facts, strict=True)
        if facts.warnings
    }
    return {
        "dataset": manifest.dataset,
        "root": str(manifest.root.resolve() if ".." in manifest.root.parts else manifest.root),
        "synthetic": manifest.synthetic,
        "n": len(manifest.items),
        "task": manifest.label_space.primary.name,
        "labels": list(manifest.label_space.primary.labels),
        "by_class": by_class,
        "by_speaker": _counts(speakers),
        "class_by_speaker": {
            speaker: {label: count for label in by_class if (count := own.count(label)) or label in order}
            for speaker, own in _collected(speakers, classes).items()
        },
        "duration_s": {**_spread(seconds), "total": float(seconds.sum())},
        "level": {
            "peak": _spread(peak),
            "rms_db": _spread(rms_db),
            "by_speaker": {
                speaker: {"peak": _spread(peak[rows]), "rms_db": _spread(rms_db[rows])}
                for speaker, rows in _collected(speakers, range(len(speakers))).items()
            },
        },
        "native": {
            "sample_rates": _counts(facts.native_rate for facts in waveforms.facts),
            "channels": _counts(facts.channels for facts in waveforms.facts),
        },
        "duplicates": duplicates,
        "near_copies": near
        and [{"ids": [pair.first, pair.second], "alike": pair.alike, "seconds": pair.seconds} for pair in near],
        "clip_warnings": clip_warnings,
        "warnings": _warnings(manifest, waveforms, by_class, duplicates, near or [], clip_warnings),
    }


def _speaker(item: Item) -> str:
    return item.group or UNKNOWN


def _label(manifest: Manifest, item: Item) -> str:
    return " + ".join(item.labels.get(manifest.label_space.primary.name, ())) or "unlabelled"


def _seconds(waveforms: Waveforms) -> np.ndarray:
    return np.asarray(waveforms.lengths / waveforms.sr, dtype=np.float64)


def _levels(waveforms: Waveforms) -> tuple[np.ndarray, np.ndarray]:
    """Peak (1 = full scale) and level in dB of every clip, each (N,)."""
    return np.array([f.peak for f in waveforms.facts]), np.array([f.rms_db for f in waveforms.facts])


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}


def _counts(values: Iterable[object]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _collected(keys: Iterable[str], values: Iterable[Any]) -> dict[str, list[Any]]:
    """Values by key, keys sorted."""
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for key, value in zip(keys, values, strict=True):
        found[key].append(value)
    return dict(sorted(found.items()))


def _duplicates(content: Mapping[str, str]) -> list[list[str]]:
    by_hash = _collected(content.values(), content)
    return sorted(sorted(ids) for ids in by_hash.values() if len(ids) > 1)


def _near_copies(manifest: Manifest) -> list[NearCopy] | None:
    """Those that are not identical, the more alike first; None where they were not looked for."""
    if manifest.fingerprints is None:
        return None
    content = {item.id: item.content for item in manifest.items}
    pairs = manifest.fingerprints.pairs
    return [pair for pair in pairs if content[pair.first] != content[pair.second]]


def _warnings(
    manifest: Manifest,
    waveforms: Waveforms,
    by_class: Mapping[str, int],
    duplicates: list[list[str]],
    near: Sequence[NearCopy],
    clip_warnings: Mapping[str, list[str]],
) -> list[str]:
    """Lines on what could spoil a result."""
    lines = [_about_copies([manifest.items[row] for row in manifest.rows(ids)], manifest) for ids in duplicates]
    lines += [_about_near_copies(pair, manifest) for pair in near]
    for text, ids in _collected(
        (text for texts in clip_warnings.values() for text in texts),
        (id_ for id_, texts in clip_warnings.items() for _ in texts),
    ).items():
        lines.append(f"{_clips(len(ids))}: {text} ({first_ten(ids)})")
    several = [item.id for item, facts in zip(manifest.items, waveforms.facts, strict=True) if facts.channels > 1]
    if several:
        lines.append(f"{_clips(len(several))} with several channels, which are averaged ({first_ten(several)})")
    rates = _counts(facts.native_rate for facts in waveforms.facts)
    if len(rates) > 1:
        lines.append("sampling rates differ: " + ", ".join(f"{count} at {rate} Hz" for rate, count in rates.items()))
    unknown = sum(not item.group for item in manifest.items)
    if unknown:
        how = f"; {manifest.group_hint}" if manifest.group_hint else ""
        lines.append(f"{_clips(unknown)} without a known speaker: a split by speaker is impossible{how}")
    lines += _about_classes(manifest, by_class)
    return lines


def _clips(count: int) -> str:
    return f"{count:,} {plural('clip', count)}"


def _about_copies(items: list[Item], manifest: Manifest) -> str:
    return _about_same("identical samples: " + " = ".join(item.id for item in items), items, manifest)


def _about_near_copies(pair: NearCopy, manifest: Manifest) -> str:
    items = [manifest.items[row] for row in manifest.rows([pair.first, pair.second])]
    return _about_same(f"near copies: {pair.first} and {pair.second}, {pair}", items, manifest)


def _about_same(line: str, items: list[Item], manifest: Manifest) -> str:
    if len({_label(manifest, item) for item in items}) > 1:
        line += ", with different labels"
    if len({item.group for item in items}) > 1:
        line += ", by different speakers: a split by speaker may put them on two sides"
    return line


def _about_classes(manifest: Manifest, by_class: Mapping[str, int]) -> list[str]:
    lines = []
    empty = [label for label, count in by_class.items() if not count]
    if empty:
        lines.append(f"no clip of: {first_ten(empty)}")
    filled = {label: count for label, count in by_class.items() if count}
    largest, smallest = max(filled, key=filled.__getitem__), min(filled, key=filled.__getitem__)
    if filled[largest] > _UNEVEN * filled[smallest]:
        lines.append(
            f"classes are uneven: {filled[largest]:,} of {largest}, {filled[smallest]:,} of {smallest}; "
            "consider `class_weight_loss` or `balanced_sampler`"
        )
    voices = _collected((_label(manifest, item) for item in manifest.items), (item.group for item in manifest.items))
    rare = [label for label, groups in voices.items() if all(groups) and len(set(groups)) < _FEWEST_SPEAKERS]
    if rare:
        lines.append(f"fewer than {_FEWEST_SPEAKERS} speakers, too few for a split by speaker: {first_ten(rare)}")
    return lines


def draw(manifest: Manifest, waveforms: Waveforms, folder: Path, features: FeatureSettings | None = None) -> list[Path]:
    """Draw class balance, one clip per class, durations, and level by speaker as PNG files.

    Args:
        manifest: the indexed corpus.
        waveforms: its decoded clips, rows in the manifest's order.
        folder: where to write; made if need be.
        features: mel settings to draw with; those of a default model at the waveforms' rate when None.

    Returns:
        The files written.

    Raises:
        DiskFull: no space is left.
    """
    from samo_audio.config import FeatureSettings

    features = features or FeatureSettings(sr=waveforms.sr)
    figures = {
        "class_balance": _class_balance(manifest),
        "clips": _clips_by_class(manifest, waveforms, features),
        "durations": _durations(manifest, waveforms, features.duration),
        "levels": _levels_by_speaker(manifest, waveforms),
    }
    return save_named(figures, folder)


def _new_figure(manifest: Manifest, title: str, size: tuple[float, float]) -> Figure:
    """A figure that says what it shows and, if so, that nobody was recorded."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    synthetic = " (synthetic demo data)" if manifest.synthetic else ""
    figure.suptitle(verbatim(f"{manifest.dataset}{synthetic}: {title}"), fontsize=12)
    return figure


def _class_balance(manifest: Manifest) -> Figure:
    """Bars of counts by class, stacked by gender where it is known of every clip."""
    labels = [_label(manifest, item) for item in manifest.items]
    genders = [item.meta.get("gender", "") for item in manifest.items]
    names = [name for name in manifest.label_space.primary.labels if name in labels]
    names += sorted(set(labels) - set(names))
    total = Counter(labels)
    figure = _new_figure(
        manifest,
        f"{_clips(len(labels))} in {counted(len(names), 'class')}",
        (7.0, 1.4 + 0.34 * max(len(names), 3)),
    )
    axes = figure.subplots()
    plain_axes(axes)
    left = np.zeros(len(names))
    for gender in sorted(set(genders)) if all(genders) else [""]:
        part = Counter(label for label, own in zip(labels, genders, strict=True) if not gender or own == gender)
        widths = np.array([part[name] for name in names], dtype=float)
        colour = _GENDERS.get(gender, GREY if gender else BLUE)
        axes.barh(range(len(names)), widths, left=left, color=colour, label=verbatim(gender) or None)
        left += widths
    for row, name in enumerate(names):
        axes.text(
            total[name],
            row,
            f" {total[name]:,} ({total[name] / len(labels):.0%})",
            va="center",
            fontsize=8.5,
            color=INK,
        )
    axes.set_yticks(range(len(names)), [verbatim(name) for name in names])
    axes.set_xlim(0, 1.15 * max(total.values()))
    axes.invert_yaxis()
    axes.set_xlabel("clips")
    if all(genders):
        figure.legend(loc="outside lower right", ncols=4, frameon=False)
    return figure


def _examples(manifest: Manifest) -> dict[str, int]:
    """A row for each class, all by one speaker if one speaks every class, so that they compare."""
    rows: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for row, item in enumerate(manifest.items):
        rows[_speaker(item)].setdefault(_label(manifest, item), row)
    chosen: dict[str, int] = {}
    for own in sorted(rows.values(), key=len, reverse=True):
        for label, row in own.items():
            chosen.setdefault(label, row)
    names = [name for name in manifest.label_space.primary.labels if name in chosen]
    return {name: chosen[name] for name in names[:_MOST_CLIPS_DRAWN]}


def _clips_by_class(manifest: Manifest, waveforms: Waveforms, features: FeatureSettings) -> Figure:
    """Waveform above mel spectrogram of one clip per class, on common axes; at most ten seconds of each."""
    examples = _examples(manifest)
    columns = min(4, len(examples))
    bands = -(-len(examples) // columns)
    figure = _new_figure(manifest, "one clip per class", (3.1 * columns + 0.9, 3.4 * bands + 0.5))
    grid = figure.subplots(2 * bands, columns, squeeze=False, height_ratios=[1, 2] * bands)
    drawn = round(_LONGEST_DRAWN_S * waveforms.sr)
    waves = {name: waveforms.waveform(row)[:drawn] for name, row in examples.items()}
    longest = max(len(wave) for wave in waves.values()) / waveforms.sr
    loudest = max(float(np.abs(wave).max()) for wave in waves.values()) or 1.0
    mels = _log_mels(list(waves.values()), features)
    image = None
    for place, (name, row) in enumerate(examples.items()):
        band, column = divmod(place, columns)
        upper, lower = grid[2 * band, column], grid[2 * band + 1, column]
        plain_axes(upper)
        upper.plot(np.arange(len(waves[name])) / waveforms.sr, waves[name], color=BLUE, linewidth=0.4)
        upper.set(xlim=(0, longest), ylim=(-1.05 * loudest, 1.05 * loudest))
        upper.set_title(verbatim(f"{name}\n{Path(manifest.items[row].source).name}"), fontsize=9)
        image = _show_mel(lower, mels[place], features)
        lower.set(xlim=(0, longest), facecolor="black")
        last = place + columns >= len(examples)
        for axes, label in ((upper, "amplitude"), (lower, "Hz (mel scale)")):
            axes.set_ylabel(label if column == 0 else "", fontsize=8)
            axes.set_xlabel("seconds" if last and axes is lower else "", fontsize=8)
            axes.tick_params(labelsize=7, labelbottom=axes is lower)
    for unused in range(len(examples), bands * columns):
        band, column = divmod(unused, columns)
        grid[2 * band, column].set_visible(False)
        grid[2 * band + 1, column].set_visible(False)
    assert image is not None
    figure.colorbar(image, ax=grid, label="mel power in dB re the clip's loudest", shrink=0.6, aspect=40)
    return figure


def _show_mel(axes: Axes, mel: np.ndarray, features: FeatureSettings) -> Any:
    """A mel spectrogram over seconds and Hz.

    Waveforms are drawn without librosa: ``waveshow`` makes numba compile for 16 s on a fresh machine.
    """
    from librosa import mel_frequencies
    from librosa.display import specshow

    top, htk = features.fmax or features.sr / 2, features.mel_scale == "htk"
    # By itself specshow places the outer bands at the ends of the range instead of a band within.
    centres = mel_frequencies(features.n_mels + 2, fmin=features.fmin, fmax=top, htk=htk)[1:-1]
    return specshow(
        mel,
        sr=features.sr,
        hop_length=features.hop_length,
        x_axis="time",
        y_axis="mel",
        y_coords=centres,
        cmap="magma",
        vmin=-_DEPTH_DB,
        vmax=0.0,
        ax=axes,
    )


def _log_mels(waves: list[np.ndarray], features: FeatureSettings) -> list[np.ndarray]:
    """The model's mel spectrograms, (n_mels, frames) in dB re each one's loudest point."""
    import torch

    from samo_audio.features import LogMel

    # Without the model's floor at a fixed level, below which most of a quiet recording would be black.
    transform = LogMel(features).mel_power
    powers = [transform(torch.from_numpy(np.array(wave))[None])[0].numpy() for wave in waves]
    return [10.0 * np.log10(np.maximum(power / max(float(power.max()), 1e-20), 1e-10)) for power in powers]


def _durations(manifest: Manifest, waveforms: Waveforms, window_s: float) -> Figure:
    """Histogram of clip lengths, with the length the model sees at once."""
    seconds = _seconds(waveforms)
    figure = _new_figure(manifest, f"{seconds.sum() / 60:,.1f} minutes in {_clips(len(seconds))}", (7.0, 3.6))
    axes = figure.subplots()
    plain_axes(axes)
    # Round widths: others beat with lengths that are multiples of a video frame, as RAVDESS's are.
    reach = float(np.ptp(seconds))
    width = next(w * 10.0**e for e in range(-2, 7) for w in (1, 2, 5) if reach <= _MOST_BINS * w * 10.0**e)
    first, last = np.floor(seconds.min() / width), np.floor(seconds.max() / width) + 1
    axes.hist(seconds, bins=[float(edge) for edge in np.arange(first, last + 1) * width], color=BLUE)
    axes.axvline(float(np.median(seconds)), color=INK, linewidth=2, label=f"median {np.median(seconds):.2f} s")
    axes.axvline(window_s, color=ORANGE, linestyle="--", linewidth=2, label=f"duration {window_s:g} s")
    axes.set(xlabel="length in seconds", ylabel="clips")
    axes.legend(frameon=False)
    return figure


def _levels_by_speaker(manifest: Manifest, waveforms: Waveforms) -> Figure:
    """Range and median of the level of each speaker's clips."""
    speakers = [_speaker(item) for item in manifest.items]
    rows = _collected(speakers, range(len(speakers)))
    level = np.maximum(_levels(waveforms)[1], _LOWEST_LEVEL_DB)
    named = len(rows) <= _MOST_SPEAKERS_NAMED
    # Many speakers read better in order of level than of name.
    order = list(rows) if named else sorted(rows, key=lambda name: float(np.median(level[rows[name]])))
    width = max(8.0, 2.0 + (0.2 if len(order) > 30 else 0.34) * len(order)) if named else 8.0
    figure = _new_figure(manifest, "level by speaker", (width, 3.8))
    axes = figure.subplots()
    plain_axes(axes)
    gender = {_speaker(item): item.meta.get("gender", "") for item in manifest.items}
    for kind in sorted(set(gender.values())):
        places = [place for place, name in enumerate(order) if gender[name] == kind]
        own = [level[rows[order[place]]] for place in places]
        colour = _GENDERS.get(kind, GREY if kind else BLUE)
        axes.vlines(places, [x.min() for x in own], [x.max() for x in own], color=colour, alpha=0.45, linewidth=3)
        axes.plot(places, [np.median(x) for x in own], "o", color=colour, markersize=5, label=verbatim(kind) or None)
    axes.set_ylabel("level in dB re full scale\n(range and median of clips)")
    axes.set_xlabel("speaker" if named else f"{len(order):,} speakers, quietest first")
    names_below(axes, order if named else [])
    if any(gender.values()):
        figure.legend(loc="outside lower right", ncols=4, frameon=False)
    return figure
