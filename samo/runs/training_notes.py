"""What a training tells people before its first step: its data, its parts, and what will make its scores doubtful."""

from __future__ import annotations

from typing import Any

from samo.data.conflicts import about_conflicts
from samo.data.leaks import audit, find_near_leaks
from samo.data.sampling import balance_notes, transductive_notes
from samo.data.splits import PARTS, Split, split_notes
from samo.data.stratify import label_keys
from samo.errors import counted, plural
from samo.frontend import Frontend
from samo.runs.provenance import about_names, about_start_weights, learned_by_start
from samo.runs.run import Run
from samo.runs.teachers import known_to
from samo.runs.training_plan import teachers_of
from samo.training.setup import Setup

__all__ = ["FEWEST_GROUPS", "first_lines"]

# With fewer groups, chance decides what is called better on validation and how wide an interval is on test.
FEWEST_GROUPS = {"val": 3, "test": 5}


def first_lines(run: Run, setup: Setup, split: Split | None) -> list[str]:
    """What a training begins with; of a new run also the size of its parts, and what will make its scores doubtful."""
    frontend = setup.frontend
    values, manifest = frontend.config.flat(), frontend.manifest
    lines = []
    if values["split"] == "random":
        lines.append(
            "LEAKY SPLIT: with `split=random` the same speaker stands in train and test; every output is stamped"
        )
    count = f"{counted(len(manifest.items), frontend.item)} of {values['dataset']}"
    lines.append(f"run {run.name}: {count}; {setup.runtime.describe()}")
    lines += [*balance_notes(values), *transductive_notes(values)]
    if split is None:
        return lines
    config: Any = frontend.config
    started = learned_by_start(values, run.root)
    taught = known_to(teachers_of(frontend, split, run.root), config.loss)
    lines += [*_about_split(frontend, split), *about_start_weights(values, run.root)]
    return [
        *lines,
        *about_names(started, manifest, split, "the start weights"),
        *about_names(taught, manifest, split, "the teachers"),
    ]


def _about_split(frontend: Frontend, split: Split) -> list[str]:
    manifest, sizes, few, absent = frontend.manifest, [], [], []
    for part in PARTS:
        ids = split.part(part)
        if not ids:
            continue
        groups = {manifest.items[row].group for row in manifest.rows(ids)} - {""}
        words = (frontend.unit, len(groups)), (frontend.item, len(ids))
        unit, item = (f" {plural(*each)}" if part == "train" else "" for each in words)
        sizes.append(f"{part} {len(groups)}{unit} / {len(ids)}{item}" if groups else f"{part} {len(ids)}{item}")
        if 0 < len(groups) < FEWEST_GROUPS.get(part, 0):
            few.append(f"{part} has {counted(len(groups), frontend.unit)}")
        seen = {(task, label) for row in manifest.rows(ids) for task, label in label_keys(manifest.items[row])}
        lacking = [
            label for task in manifest.label_space.tasks for label in task.labels if (task.name, label) not in seen
        ]
        if lacking:
            absent.append(f"{part} has no example of {', '.join(lacking)}: left out of macro-F1 there")
    few = (
        [f"{' and '.join(few)} only: scores will rest on little; `samo crossval` evaluates on every {frontend.unit}"]
        if few
        else []
    )
    values = frontend.config.flat()
    drawn_too = values["seed"] and values["split_seed"] < 0 and split.rule != "table"
    line = f"`seed={values['seed']}` also draws the split; `split_seed=0` keeps that of `seed=0`, as an ensemble needs"
    also = [line] if drawn_too else []
    conflicts = about_conflicts(manifest, split.train + split.val + split.test)
    copies = audit(manifest, split) if manifest.copies == "reported" else find_near_leaks(manifest, split)[:10]
    return [", ".join(sizes), *few, *absent, *conflicts, *copies, *split_notes(manifest, split), *also]
