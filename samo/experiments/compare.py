"""Compare evaluated runs: what may stand side by side, and where the comparison is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from samo.errors import RunError, SettingsError, counted, first_ten
from samo.evaluation.comparison import build_comparison
from samo.evaluation.predictions import Predictions
from samo.evaluation.statistics import unnamed_line
from samo.files import parse_json, write_json
from samo.reporting.report import read_report
from samo.runs.run import Run

__all__ = ["COMPARED_PARTS", "compare_runs", "write_comparison"]

COMPARED_PARTS = ("test", "val")
# A folder's name may hold 255 bytes, and a number may have to follow.
_LONGEST_NAME = 200


def compare_runs(runs: Sequence[Run], part: str = "test") -> dict[str, Any]:
    """Compare two or more runs with the first, from what `samo evaluate` wrote of each.

    Args:
        runs: evaluated runs on one corpus; the first is the baseline.
        part: ``test`` or ``val``.

    Returns:
        :func:`~samo.evaluation.comparison.build_comparison`'s structure with ``inputs``, a digest of each
        run's predictions, so that a comparison can be told from a later one of the same names.

    Raises:
        SettingsError: unknown part, fewer than two runs, or one run twice.
        RunError: a run is not evaluated, damaged, or of other data, classes or items than the first.
    """
    if part not in COMPARED_PARTS:
        raise SettingsError(f"`on={part}`: runs are not compared there", hint=f"valid: {', '.join(COMPARED_PARTS)}")
    _check_names(runs)
    predictions = {run.name: _predictions(run, part) for run in runs}
    baseline, *others = runs
    for other in others:
        _check_same_labels(baseline, other, part)
    manifest, splits = baseline.manifest, [run.split for run in runs]
    named = {run.name: run.full_name for run in runs}
    for name, each in predictions.items():
        if each.logits.shape[1] != manifest.label_space.n_columns:
            raise RunError(
                f"the predictions of run '{name}' are of other labels than its manifest",
                hint=f"samo evaluate {named[name]} writes them anew",
            )
    notes = []
    differing = [run.name for run, split in zip(runs, splits, strict=True) if set(split.train) != set(splits[0].train)]
    if differing:
        notes.append(f"trained on other items than '{baseline.name}': {first_ten(differing)}")
    interval, n = _interval_facts(baseline, part)
    if interval.get("method") == "rows":
        notes.append(unnamed_line(manifest.group_noun, n, n))
    comparison = build_comparison(
        predictions,
        task=manifest.label_space.primary,
        label_space=manifest.label_space,
        unit=str(interval["unit"]),
        dataset=manifest.dataset,
        synthetic=manifest.synthetic,
        split=part,
        split_rule=splits[0].rule,
        leaky=any(split.leaky for split in splits),
        notes=notes,
    )
    return {**comparison, "inputs": {name: _digest(each) for name, each in predictions.items()}}


def write_comparison(comparison: Mapping[str, Any], artifacts: Path) -> Path:
    """Pictures, then ``comparison.json``, into a folder named after the runs; returns the folder.

    A comparison of the same runs with the same predictions replaces its former self; any other keeps its folder, and
    this one is numbered.
    """
    from samo.reporting.comparison_figures import save_comparison_figures

    folder = _folder(comparison, artifacts / "comparisons")
    save_comparison_figures(comparison, folder)
    write_json(folder / "comparison.json", comparison)
    return folder


def _check_names(runs: Sequence[Run]) -> None:
    if len(runs) < 2:
        raise SettingsError(
            "a comparison takes a baseline and at least one other run", hint="samo compare BASELINE RUN [RUN ...]"
        )
    names, folders = [run.name for run in runs], [run.folder for run in runs]
    for place, run in enumerate(runs):
        if run.folder in folders[:place]:
            raise SettingsError(f"run '{run.name}' is named twice")
        if run.name in names[:place]:
            raise SettingsError(f"two runs are called '{run.name}'", hint="rename the folder of one of them")


def _predictions(run: Run, part: str) -> Predictions:
    path = run.path(f"predictions.{part}.npz")
    if not path.is_file() or not _reports(run, part):
        raise RunError(
            f"run '{run.name}' is not evaluated on its {part} part yet (status: {run.status})",
            hint=f"samo evaluate {run.full_name}" + (" `on=val`" if part == "val" else ""),
        )
    try:
        return Predictions.load(path)
    except RunError as error:
        error.hint = f"samo evaluate {run.full_name} writes it anew"
        raise


def _reports(run: Run, part: str) -> list[Path]:
    """The reports that close an evaluation; that of the test part writes the others' predictions too."""
    return [path for path in (run.path(f"report.{part}.json"), run.path("report.json")) if path.is_file()]


def _interval_facts(run: Run, part: str) -> tuple[dict[str, Any], int]:
    """What a report says of its intervals (``unit``: the frontend knows, but this needs no torch) and its rows."""
    path = _reports(run, part)[0]
    try:
        report = read_report(path)
        return {"unit": report["ci"]["unit"], **report["ci"]}, int(report["n"])
    except RunError as error:
        error.hint = f"samo evaluate {run.full_name} writes it anew"
        raise


def _check_same_labels(baseline: Run, other: Run, part: str) -> None:
    first, second = baseline.manifest, other.manifest
    named = f"runs '{baseline.name}' and '{other.name}'"
    if first.label_space != second.label_space:
        labels = [first_ten(manifest.label_space.primary.labels) for manifest in (first, second)]
        raise RunError(
            f"{named} answer different questions: {labels[0]}; and: {labels[1]}",
            hint="compare runs with the same classes",
        )
    if first.digest != second.digest:
        raise RunError(
            f"{named} are of different data ({first.dataset}, {counted(len(first.items), 'item')}; "
            f"{second.dataset}, {counted(len(second.items), 'item')})",
            hint="train both on the same `data_root`, unchanged in between",
        )
    _check_same_items(baseline, other, part, named)


def _check_same_items(baseline: Run, other: Run, part: str, named: str) -> None:
    """Two splits of one corpus: scores of different people, and what one is evaluated on the other may have learned."""
    splits = {run.name: run.split for run in (baseline, other)}
    items = {name: set(split.part(part)) for name, split in splits.items()}
    if items[baseline.name] == items[other.name]:
        return
    common = len(items[baseline.name] & items[other.name])
    message = f"{named} have different {part} parts: {common} of {len(items[baseline.name])} items are in both"
    for tested, learner in ((baseline.name, other.name), (other.name, baseline.name)):
        known = sorted(items[tested] & set(splits[learner].train))
        if known:
            message += (
                f"; '{learner}' was trained on {len(known)} of the {len(items[tested])} items '{tested}' is evaluated "
                f"on, for example {', '.join(known[:3])}"
            )
            break
    raise RunError(
        message,
        hint="compare runs of one split (equal `split`, `fold`, ratios and, unless folds are published, `seed`); "
        "over folds and seeds use `samo ablate`",
    )


def _digest(predictions: Predictions) -> str:
    digest = hashlib.sha256("\n".join(predictions.ids).encode(errors="surrogatepass"))
    digest.update(predictions.logits.tobytes())
    if predictions.decided is not None:
        digest.update(predictions.decided.tobytes())
    return digest.hexdigest()


def _folder(comparison: Mapping[str, Any], root: Path) -> Path:
    """The folder this comparison already has, else the first free one."""
    names = [comparison["baseline"], *(row["run"] for row in comparison["comparisons"])]
    stem = "-vs-".join(names) + ("" if comparison["split"] == "test" else f".{comparison['split']}")
    if len(stem) > _LONGEST_NAME:
        mark = hashlib.sha256(stem.encode()).hexdigest()[:8]
        stem = f"{names[0][:100]}-vs-{len(names) - 1}-others-{mark}"
    number = 1
    while True:
        folder = root / (stem if number == 1 else f"{stem}-{number:03d}")
        if not folder.exists() or _is_same(folder, comparison):
            return folder
        number += 1


def _is_same(folder: Path, comparison: Mapping[str, Any]) -> bool:
    try:
        former = parse_json((folder / "comparison.json").read_bytes())
        return all(former[key] == comparison[key] for key in ("baseline", "split", "inputs"))
    except (OSError, ValueError, KeyError, TypeError):
        return False
