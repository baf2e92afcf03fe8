"""What is in a corpus of texts: counts, lengths, copies and contradictions as plain data, and pictures of them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samo.data.manifest import Item, Manifest
from samo.data.near_duplicates import find_copies, folded
from samo.data.splits import PARTS
from samo.errors import first_ten, plural
from samo.tasks import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw", "inspect"]

NO_PART = "all"
"""Where rows stand whose corpus assigns no split."""
_PLACEHOLDER = re.compile(r"\[[A-Z]{2,}\]")
_MOST_PLACEHOLDERS = 5
_UNEVEN = 10.0
_FEWEST_TEST_ROWS = 50
_LONGEST_DRAWN_WORDS = 60


def inspect(manifest: Manifest) -> dict[str, Any]:
    """Describe a corpus by plain data, ready for JSON.

    Returns:
        ``dataset``, ``root``, ``synthetic``, ``n``; ``parts``, rows by the corpus' own split (``all`` without one);
        ``tasks`` by name with ``labels``, ``multi_label``, ``by_label``, ``by_part`` (counts by part, then label),
        ``cardinality`` (mean labels of a labelled row), ``labelled``, ``none`` (labelled with none), ``unlabelled``;
        ``words`` with ``min``, ``median``, ``mean``, ``p95`` and ``max``; ``lengths``, counts of short, medium and
        long texts; ``placeholders``, rows by placeholder such as ``[NAME]``, and ``placeholder_share`` of all rows;
        ``duplicates`` with ``inside`` (by part: ``texts`` that stand several times, ``extra_rows``, ``conflicting``
        texts whose labels differ) and ``across`` (``part``, ``other``, rows of part found in other: ``same`` word for
        word, ``near`` further ones); ``warnings``, lines to read.
    """
    parts = _by_part(manifest)
    words = np.array([len(item.source.split()) for item in manifest.items])
    held = [set(_PLACEHOLDER.findall(item.source)) for item in manifest.items]
    found = {
        "dataset": manifest.dataset,
        "root": "" if manifest.synthetic else str(manifest.root.resolve()),
        "synthetic": manifest.synthetic,
        "n": len(manifest.items),
        "parts": {part: len(items) for part, items in parts.items()},
        "tasks": {task.name: _about_task(task, manifest.items, parts) for task in manifest.label_space.tasks},
        "words": {
            "min": int(words.min()),
            "median": float(np.median(words)),
            "mean": float(words.mean()),
            "p95": float(np.percentile(words, 95)),
            "max": int(words.max()),
        },
        "lengths": dict(Counter(item.meta["length"] for item in manifest.items)),
        "placeholders": dict(Counter(name for names in held for name in sorted(names)).most_common(_MOST_PLACEHOLDERS)),
        "placeholder_share": sum(map(bool, held)) / len(held),
        "duplicates": {
            "inside": {part: _repeated(items) for part, items in parts.items()},
            "across": [_shared(part, other, parts) for other, part in combinations(parts, 2)],
        },
    }
    return {**found, "warnings": [*manifest.notes, *_warnings(manifest, found)]}


def _by_part(manifest: Manifest) -> dict[str, list[Item]]:
    parts = {part: [item for item in manifest.items if item.split == part] for part in (*PARTS, "")}
    return {part or NO_PART: items for part, items in parts.items() if items}


def _about_task(task: Task, items: Sequence[Item], parts: Mapping[str, Sequence[Item]]) -> dict[str, Any]:
    answers = [item.labels[task.name] for item in items if task.name in item.labels]
    return {
        "labels": list(task.labels),
        "multi_label": task.multi_label,
        "by_label": _counted(task, items),
        "by_part": {part: _counted(task, own) for part, own in parts.items()},
        "cardinality": sum(map(len, answers)) / len(answers) if answers else 0.0,
        "labelled": len(answers),
        "none": sum(not labels for labels in answers),
        "unlabelled": len(items) - len(answers),
    }


def _counted(task: Task, items: Iterable[Item]) -> dict[str, int]:
    counts = Counter(label for item in items for label in item.labels.get(task.name, ()))
    return {label: counts[label] for label in task.labels}


def _repeated(items: Sequence[Item]) -> dict[str, int]:
    """Texts of one part that stand there several times, but for case and spaces."""
    answers: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        answers[folded(item.source)].append(sorted((task, sorted(labels)) for task, labels in item.labels.items()))
    several = [given for given in answers.values() if len(given) > 1]
    return {
        "texts": len(several),
        "extra_rows": sum(len(given) - 1 for given in several),
        "conflicting": sum(any(answer != given[0] for answer in given) for given in several),
    }


def _shared(part: str, other: str, parts: Mapping[str, Sequence[Item]]) -> dict[str, Any]:
    texts, others = (tuple(item.source for item in parts[name]) for name in (part, other))
    copies = find_copies(texts, others)
    return {"part": part, "other": other, "same": len(copies.same), "near": len(copies.near)}


def _warnings(manifest: Manifest, found: Mapping[str, Any]) -> list[str]:
    """Lines on what could spoil a result."""
    lines = []
    for part, about in found["duplicates"]["inside"].items():
        if about["texts"]:
            lines.append(
                f"{about['texts']:,} {plural('text stands', about['texts'], 'texts stand')} several times in {part} "
                f"({about['extra_rows']:,} {plural('row', about['extra_rows'])} more than "
                f"needed), {about['conflicting']:,} of them with different labels"
            )
    for pair in found["duplicates"]["across"]:
        if pair["same"] or pair["near"]:
            advice = "; consider `drop_leaked`" if pair["other"] == "train" else ""
            lines.append(
                f"{pair['same']:,} {pair['part']} {plural('row also stands', pair['same'], 'rows also stand')} "
                f"in {pair['other']} word for word, {pair['near']:,} "
                f"more nearly so{advice}"
            )
    for name, task in found["tasks"].items():
        lines += _about_labels(name, task, found["parts"])
    return lines


def _about_labels(name: str, task: Mapping[str, Any], parts: Mapping[str, int]) -> list[str]:
    lines = []
    filled = {label: n for label, n in task["by_label"].items() if n}
    if missing := [label for label in task["labels"] if label not in filled]:
        lines.append(f"{name}: no row has {first_ten(missing)}")
    largest, smallest = max(filled, key=filled.__getitem__), min(filled, key=filled.__getitem__)
    if filled[largest] > _UNEVEN * filled[smallest]:
        lines.append(
            f"{name}: labels are uneven: {filled[largest]:,} of {largest}, {filled[smallest]:,} of {smallest}; "
            "consider `class_weight_loss`"
        )
    few = {label: n for label, n in task["by_part"].get("test", {}).items() if n < _FEWEST_TEST_ROWS}
    if few:
        listed = first_ten(f"{label} {n}" for label, n in sorted(few.items(), key=lambda pair: pair[1]))
        lines.append(f"{name}: fewer than {_FEWEST_TEST_ROWS} test rows, so their F1 is uncertain: {listed}")
    if task["unlabelled"]:
        lines.append(
            f"{name}: {task['unlabelled']:,} {plural('row is', task['unlabelled'], 'rows are')} "
            f"not labelled and left out of its loss and scores"
        )
    return lines


def draw(manifest: Manifest, folder: Path) -> list[Path]:
    """Draw the rows of every label and the lengths of the texts as PNG files.

    Returns:
        The files written.

    Raises:
        DiskFull: no space is left.
    """
    from samo.reporting.drawing import save_named

    tasks = manifest.label_space.tasks
    figures = {
        "class_balance" + (f"_{_file_name(task.name)}" if len(tasks) > 1 else ""): _class_balance(manifest, task)
        for task in tasks
    }
    return save_named({**figures, "lengths": _lengths(manifest)}, folder)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]", "_", name)


def _new_figure(manifest: Manifest, title: str, size: tuple[float, float]) -> Figure:
    """A figure that says what it shows and, if so, that nobody wrote it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from samo.reporting.drawing import verbatim

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    synthetic = " (synthetic demo data)" if manifest.synthetic else ""
    figure.suptitle(f"{verbatim(manifest.dataset)}{synthetic}: {title}", fontsize=12)
    return figure


def _class_balance(manifest: Manifest, task: Task) -> Figure:
    """Bars of rows by label, most frequent first, on a logarithmic axis: the rarest are the ones to see."""
    from samo.reporting.drawing import BLUE, INK, plain_axes, verbatim

    counts = _counted(task, manifest.items)
    names = sorted(counts, key=lambda label: -counts[label])
    total = sum(task.name in item.labels for item in manifest.items)
    kind = "several may hold" if task.multi_label else "one holds"
    figure = _new_figure(
        manifest,
        f"{len(names)} labels of {verbatim(task.name)} in {total:,} {plural('row', total)} ({kind})",
        (7.6, 1.4 + 0.27 * max(len(names), 3)),
    )
    axes = figure.subplots()
    plain_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.barh(range(len(names)), [max(counts[name], 0.5) for name in names], left=0.5, color=BLUE)
    for place, name in enumerate(names):
        share = f" {counts[name]:,} ({counts[name] / max(total, 1):.1%})"
        axes.text(max(counts[name], 0.5) * 1.02, place, share, va="center", fontsize=8.5, color=INK)
    axes.set_yticks(range(len(names)), [verbatim(name) for name in names], fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(0.9, 6 * max(counts.values()))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("rows (logarithmic)")
    return figure


def _lengths(manifest: Manifest) -> Figure:
    """Histogram of words a text; the few longer ones share the last bar."""
    from samo.reporting.drawing import BLUE, ORANGE, plain_axes

    words = np.array([len(item.source.split()) for item in manifest.items])
    shown = np.minimum(words, _LONGEST_DRAWN_WORDS)
    figure = _new_figure(manifest, f"{words.sum():,} words in {len(words):,} {plural('text', len(words))}", (7.0, 3.6))
    axes = figure.subplots()
    plain_axes(axes)
    width = max(1, -(-int(np.ptp(shown)) // 40))
    edges = np.arange(shown.min(), shown.max() + width + 1, width) - 0.5
    axes.hist(shown, bins=[float(edge) for edge in edges], color=BLUE)
    for value, name, style in ((np.median(words), "median", "-"), (np.percentile(words, 95), "95th percentile", "--")):
        axes.axvline(float(value), color=ORANGE, linestyle=style, linewidth=2, label=f"{name}: {value:g} words")
    long = int((words > _LONGEST_DRAWN_WORDS).sum())
    axes.set(xlabel="words" + (f" ({long:,} longer texts in the last bar)" if long else ""), ylabel="texts")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
