"""Whether a model knows the people it is evaluated on from elsewhere: from start weights, or under another corpus."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from samo.data.keys import key
from samo.data.manifest import Item, Manifest
from samo.data.splits import Split
from samo.errors import LeakError, first_few
from samo.runs.run import TEACHERS, Run

__all__ = ["about_known_groups", "known_groups", "refuse_known_run", "refuse_known_weights"]


def known_groups(learned: Iterable[Item], evaluated: Iterable[Item]) -> list[str]:
    """Names of groups to evaluate on that groups learned from have too, in any spelling; sorted."""
    names = {key(item.group) for item in learned if item.group}
    return sorted({item.group for item in evaluated if item.group and key(item.group) in names})


def about_known_groups(trained: Manifest, learned: Iterable[Item], other: Manifest) -> tuple[list[str], bool]:
    """A line where groups of another corpus are called like groups that were learned from, and whether that is a leak.

    Names of people, and any names within one kind of corpus, are taken for the same people. Names with digits are given
    by every corpus anew.
    """
    shared = known_groups(learned, other.items)
    if not shared:
        return [], False
    n, noun = len({item.group for item in other.items if item.group}), other.group_noun
    line = (
        f"{len(shared)} of {n} {noun}s are called like {noun}s the run was trained on ({first_few(shared, 5)}): "
        "if they are the same, these scores are too good; if not, call them otherwise"
    )
    return [line], _are_the_same(trained, other, shared)


def refuse_known_weights(weights: str, manifest: Manifest, split: Split) -> None:
    """Refuse start weights of a run that learned from recordings or groups of this split's validation or test part.

    Args:
        weights: the file, empty for none; only one that lies in its run's folder can tell.
        manifest: what is trained on.
        split: its parts.

    Raises:
        LeakError: names them.
    """
    if weights:
        refuse_known_run(Run(Path(weights).expanduser().parent), "`weights`", manifest, split)


def refuse_known_run(run: Run, what: str, manifest: Manifest, split: Split) -> None:
    """Refuse to learn from a run which knows recordings or groups of this split's validation or test part.

    It knows what it learned from, and what its start weights and its teachers did, as far as their folders are there.

    Args:
        run: the run.
        what: the setting that names it.
        manifest: what is trained on.
        split: its parts.

    Raises:
        LeakError: names them.
    """
    if split.leaky:
        return
    for known in _line_of(run):
        _refuse_known(known, what, manifest, split)


def _line_of(run: Run) -> list[Run]:
    """A run and those it learned from, through any number of trainings; what is no run any more is left out."""
    found: list[Run] = []
    waiting = [run]
    while waiting:
        each = waiting.pop()
        if each.folder in {known.folder for known in found}:
            continue
        if not each.path("manifest.jsonl").is_file() or not each.path("split.json").is_file():
            continue
        found.append(each)
        if each.path("config.json").is_file() and (weights := each.settings.get("weights")):
            waiting.append(Run(Path(weights).expanduser().parent))
        if each.path(TEACHERS).is_file():
            waiting += [Run(Path(folder)) for folder in json.loads(each.path(TEACHERS).read_text(encoding="utf-8"))]
    return found


def _refuse_known(run: Run, what: str, manifest: Manifest, split: Split) -> None:
    trained, parts = run.manifest, run.split
    same: list[str] = []
    shared: list[str] = []
    # What chose the epoch of the one may choose that of the other, and must not test it.
    for known, hidden in ((parts.train, split.val + split.test), (parts.val, split.test)):
        learned = [trained.items[row] for row in trained.rows(known)]
        evaluated = [manifest.items[row] for row in manifest.rows(hidden)]
        contents = {item.content for item in learned} - {""}
        same += [item.source for item in evaluated if item.content in contents]
        shared += [name for name in known_groups(learned, evaluated) if name not in shared]
    if same or (shared and _are_the_same(trained, manifest, shared)):
        who = f"{manifest.group_noun}s {first_few(shared, 5)}" if shared else f"{len(same)} items"
        other = "weights that learned elsewhere" if what == "`weights`" else "a cross-validation's folder as teacher"
        raise LeakError(
            f"{what} of run '{run.name}' learned from the validation or test part of this split: {who}",
            hint=f"train both on one split (the same `split_seed` or `fold`), or take {other}",
        )


def _are_the_same(one: Manifest, other: Manifest, names: Iterable[str]) -> bool:
    return one.dataset == other.dataset or any(not any(sign.isdigit() for sign in name) for name in names)
