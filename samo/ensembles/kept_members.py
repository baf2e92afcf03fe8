"""The cells of finished cross-validations as members of an ensemble: what their evaluations kept, by fold and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from samo.data.manifest import Manifest
from samo.data.splits import PARTS, Split
from samo.ensembles.members import refuse_other_test
from samo.errors import LeakError, RunError, first_ten
from samo.evaluation.decision import Decision, decided_rows
from samo.evaluation.metrics import scores, tally
from samo.evaluation.predictions import Predictions
from samo.experiments.grid_plan import GRID_FILE, read_grid_facts
from samo.reporting.report import metrics_of, read_report
from samo.runs.calibrate import decision_of
from samo.runs.kept_predictions import kept_predictions
from samo.runs.load import refuse_edited
from samo.runs.reporter import Reporter
from samo.runs.run import ENSEMBLE_FILE, Run

__all__ = ["KeptMember", "by_fold", "by_split", "cells_of", "grid_folder"]

# Scores of kept answers may differ from the report's by rounding, and by nothing else.
_SAME_SCORE = 1e-6


@dataclass(frozen=True)
class KeptMember:
    """An evaluated cell with the raw predictions that its evaluation kept, by part; ``train`` may be lacking."""

    run: Run
    grid: str
    manifest: Manifest
    split: Split
    decision: Decision
    kept: Mapping[str, Predictions]

    @property
    def name(self) -> str:
        """``GRID/CELL``."""
        return self.run.full_name

    @property
    def fold(self) -> int:
        """The fold it was tested on."""
        return int(self.run.settings["fold"])

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.run.settings["seed"])

    def kept_ids(self, part: str) -> frozenset[str]:
        """Of the items of a part."""
        return frozenset(self.kept[part].ids)

    def logits(self, part: str, ids: Sequence[str]) -> np.ndarray:
        """(N, C) raw logits of N items of a part."""
        place = {name: row for row, name in enumerate(self.kept[part].ids)}
        found: np.ndarray = self.kept[part].logits[[place[name] for name in ids]]
        return found


def grid_folder(root: Path, given: str) -> Path:
    """A grid by its name or folder.

    Raises:
        RunError: there is none, or it is no cross-validation.
    """
    folder = root / "grids" / given
    if not (folder / GRID_FILE).is_file() and (Path(given) / GRID_FILE).is_file():
        folder = Path(given)
    if (kind := read_grid_facts(folder).get("kind")) != "crossval":
        raise RunError(f"grid '{given}' is no cross-validation but '{kind}'", hint="`samo crossval` makes its folds")
    return folder.resolve()


def cells_of(grid: Path) -> list[KeptMember]:
    """The cells of a cross-validation, by fold and seed; a model that learned from everything is no cell.

    Raises:
        RunError: one is not evaluated, or damaged.
        LeakError: one was fitted on other than its validation part.
    """
    runs = [Run(folder) for folder in sorted((grid / "runs").glob("*")) if (folder / "config.json").is_file()]
    found = [_cell_member(run, grid.name) for run in runs if run.settings.get("split") == "folds"]
    if not found:
        raise RunError(f"grid '{grid.name}' has no folds yet", hint="`samo crossval` trains them")
    return sorted(found, key=lambda member: (member.fold, member.seed))


def _cell_member(run: Run, grid: str) -> KeptMember:
    name = run.full_name
    if run.path(ENSEMBLE_FILE).is_file():
        raise RunError(f"'{name}' is an ensemble itself", hint="name the grids of its members instead")
    if run.status != "evaluated" or not run.path("trained.json").is_file():
        raise RunError(f"'{name}' is not evaluated yet", hint="the `samo crossval` that began it goes on with it")
    if not run.has_model and run.settings.get("teacher"):
        raise RunError(
            f"the weights of '{name}' are gone, and with them what its teacher learned from",
            hint="`samo crossval` trains it anew",
        )
    refuse_edited(run)
    manifest, split = run.manifest, run.split
    space = manifest.label_space
    decision = decision_of(run, space)
    again = f"`samo evaluate {name}` makes them anew"
    if not decision.is_complete(space):
        raise RunError(f"'{name}' has no temperature or thresholds", hint=again)
    fitted = {decision.calibration.fitted_on, *([decision.thresholds.fitted_on] if decision.thresholds.tasks else [])}
    if fitted != {"val"}:
        raise LeakError(f"'{name}' has temperatures or thresholds fitted on {first_ten(sorted(fitted))}", hint=again)
    # Answers on what was learned from only show how much better they are: cells may come without them.
    kept = {
        part: Predictions.load(kept_predictions(run, part), space)
        for part in PARTS
        if part != "train" or kept_predictions(run, part).is_file()
    }
    for part, predictions in kept.items():
        if set(predictions.ids) != set(split.part(part)):
            raise RunError(f"the kept answers of '{name}' on {part} are of other items than its split", hint=again)
    decided = decided_rows(space.primary, kept["test"], space)
    score = scores(tally(decided.truth, decided.predicted))["macro_f1"]
    if abs(score - metrics_of(read_report(run.path("report.json")))["macro_f1"]) > _SAME_SCORE:
        raise RunError(f"the kept answers of '{name}' are not those of its report", hint=again)
    return KeptMember(run, grid, manifest, split, decision, kept)


def by_split(members: Sequence[Sequence[KeptMember]], reporter: Reporter) -> list[tuple[KeptMember, ...]]:
    """Cells of one fold and one split, with at least one of each grid, fold by fold; others are named.

    Seeds of one ensemble share the splits of all folds: those that share some by chance would make an ensemble there
    and others elsewhere, and items of the folds between would count twice.

    Raises:
        LeakError, RunError: a fold without such cells; what is wrong with its first ones.
    """
    folds = _same_folds(members)
    groups: dict[tuple[object, ...], list[dict[int, KeptMember]]] = {}
    for own in members:
        for seed in dict.fromkeys(member.seed for member in own):
            cells = {member.fold: member for member in own if member.seed == seed}
            splits = tuple((fold, *_parts(cells[fold])) for fold in sorted(cells))
            groups.setdefault(splits, []).append(cells)
    whole = [
        group
        for splits, group in groups.items()
        if len(splits) == len(folds)
        and len({member.grid for cells in group for member in cells.values()}) == len(members)
    ]
    if not whole:
        _refuse_other_split(members, folds)
    used = {id(member) for group in whole for cells in group for member in cells.values()}
    alone = [member.name for own in members for member in own if id(member) not in used]
    if alone:
        reporter.note(f"left out, as not every grid has cells of their seed's splits: {first_ten(alone)}")
    return [tuple(cells[fold] for cells in group) for fold in folds for group in whole]


def by_fold(members: Sequence[Sequence[KeptMember]]) -> list[tuple[KeptMember, ...]]:
    """All cells that are tested on the same items, fold by fold.

    Raises:
        LeakError: a cell learned from test items of another of its fold.
        RunError: the grids have not the same folds, or the seeds of one not the same; test parts differ.
    """
    found = []
    for fold in _same_folds(members):
        here = tuple(member for own in members for member in own if member.fold == fold)
        for other in here[1:]:
            refuse_other_test(here[0], other)
        found.append(here)
    seeds = [{(member.grid, member.seed) for member in here} for here in found]
    for here, own_seeds in zip(found, seeds, strict=True):
        if lacking := seeds[0] ^ own_seeds:
            named = first_ten(sorted(f"{grid}/seed{seed}" for grid, seed in lacking))
            raise RunError(
                f"fold {here[0].fold} and fold {found[0][0].fold} have not the same seeds: {named}",
                hint="let `samo crossval` train those that are missing",
            )
    return found


def _same_folds(members: Sequence[Sequence[KeptMember]]) -> list[int]:
    """The folds, which all grids must have."""
    folds = [{member.fold for member in own} for own in members]
    for own, other in zip(members, folds, strict=True):
        if other != folds[0]:
            lacking = sorted(other ^ folds[0])
            raise RunError(
                f"'{own[0].grid}' and '{members[0][0].grid}' have not the same folds: {first_ten(map(str, lacking))}",
                hint="let `samo crossval` train those that are missing",
            )
    return sorted(folds[0])


def _parts(member: KeptMember) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(member.split.part(part)) for part in PARTS)


def _refuse_other_split(members: Sequence[Sequence[KeptMember]], folds: Sequence[int]) -> NoReturn:
    """Say how the cells of the first fold without common splits differ, or that no seeds share those of all folds."""
    hint = "cross-validate with the same seeds, `split_seed`, `val_ratio` and `limit_fraction`"
    for fold in folds:
        here = [[member for member in own if member.fold == fold] for own in members]
        if set.intersection(*({_parts(member) for member in own} for own in here)):
            continue
        first, *others = [own[0] for own in here]
        for other in others:
            refuse_other_test(first, other)
        names = first_ten([first.name, *(member.name for member in others)])
        raise RunError(
            f"no cells of fold {fold} share a split: {names} were trained or validated on different items", hint=hint
        )
    raise RunError("no seeds of all grids share the splits of all folds", hint=hint)
