"""The cells of finished cross-validations as members of an ensemble: what their evaluations kept, by fold and split."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from samo.runs.evaluate import kept_predictions
from samo.runs.load import refuse_edited
from samo.runs.reporter import Reporter
from samo.runs.run import ENSEMBLE_FILE, Run

__all__ = ["KeptMember", "by_split", "cells_of", "grid_folder", "refuse_other_data"]

# Scores of kept answers may differ from the report's by rounding, and by nothing else.
_SAME_SCORE = 1e-6


@dataclass(frozen=True)
class KeptMember:
    """An evaluated cell with the raw predictions that its evaluation kept, by part."""

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
    kept = {part: Predictions.load(kept_predictions(run, part), space) for part in PARTS}
    for part, predictions in kept.items():
        if set(predictions.ids) != set(split.part(part)):
            raise RunError(f"the kept answers of '{name}' on {part} are of other items than its split", hint=again)
    decided = decided_rows(space.primary, kept["test"], space)
    score = scores(tally(decided.truth, decided.predicted))["macro_f1"]
    if abs(score - metrics_of(read_report(run.path("report.json")))["macro_f1"]) > _SAME_SCORE:
        raise RunError(f"the kept answers of '{name}' are not those of its report", hint=again)
    return KeptMember(run, grid, manifest, split, decision, kept)


def refuse_other_data(members: Sequence[Sequence[KeptMember]]) -> None:
    """Refuse cells of other data or labels than the first.

    Raises:
        RunError: names the cell.
    """
    first = members[0][0]
    for other in itertools.chain.from_iterable(members):
        spaces = [member.manifest.label_space for member in (first, other)]
        if spaces[0] != spaces[1]:
            labels = [first_ten(space.primary.labels) for space in spaces]
            raise RunError(f"'{other.name}' answers {labels[1]}; '{first.name}' answers {labels[0]}")
        if first.manifest.digest != other.manifest.digest:
            raise RunError(f"'{other.name}' was trained on other data than '{first.name}'")


def by_split(members: Sequence[Sequence[KeptMember]], reporter: Reporter) -> list[tuple[KeptMember, ...]]:
    """Cells of one fold and one split, with at least one of each grid; others are named.

    Raises:
        LeakError, RunError: a fold without such cells; what is wrong with its first ones.
    """
    folds = [{member.fold for member in own} for own in members]
    for own, other in zip(members, folds, strict=True):
        if other != folds[0]:
            lacking = sorted(other ^ folds[0])
            raise RunError(
                f"'{own[0].grid}' and '{members[0][0].grid}' have not the same folds: {first_ten(map(str, lacking))}",
                hint="let `samo crossval` train those that are missing",
            )
    found = []
    for fold in sorted(folds[0]):
        here = [member for own in members for member in own if member.fold == fold]
        groups: dict[tuple[frozenset[str], ...], list[KeptMember]] = {}
        for member in here:
            groups.setdefault(tuple(frozenset(member.split.part(part)) for part in PARTS), []).append(member)
        whole = [group for group in groups.values() if len({member.grid for member in group}) == len(members)]
        if not whole:
            _refuse_other_split([next(member for member in own if member.fold == fold) for own in members])
        alone = [member.name for group in groups.values() if group not in whole for member in group]
        if alone:
            reporter.note(f"left out, as not every grid has a cell of their split: {first_ten(alone)}")
        found += [tuple(group) for group in whole]
    return found


def _refuse_other_split(members: Sequence[KeptMember]) -> None:
    """Say how the cells of one fold differ."""
    first = members[0]
    for other in members[1:]:
        refuse_other_test(first, other)
    names = first_ten([member.name for member in members])
    raise RunError(
        f"no cells of fold {first.fold} share a split: {names} were trained or validated on different items",
        hint="cross-validate with the same seeds, `split_seed`, `val_ratio` and `limit_fraction`",
    )
