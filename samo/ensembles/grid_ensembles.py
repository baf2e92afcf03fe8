"""Cross-validations combined fold by fold: one ensemble of what was trained on the same split, without training again.

What the folds' evaluations kept is combined, so that members may read their items as they like: at other rates, through
other windows, with other tokens. Weights, temperature and thresholds of a fold's ensemble come from the validation part
of that fold alone, and its test part is scored once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from samo.data.leaks import audit
from samo.data.splits import Split
from samo.ensembles.ensemble import Answers, Combined, check_rules, scaled
from samo.ensembles.fold_ensemble import FoldEnsemble, cell_of, rows_of, write_fold
from samo.ensembles.kept_members import KeptMember, by_fold, by_split, cells_of, grid_folder
from samo.ensembles.members import common_split, refuse_other_data
from samo.ensembles.weights import fit_weights
from samo.errors import RunError, SettingsError, first_ten
from samo.evaluation.decision import decided_rows
from samo.evaluation.metrics import scores, tally
from samo.evaluation.predictions import Predictions
from samo.experiments.crossval import crossval_report, write_crossval
from samo.experiments.grid_plan import GRID_FILE, GridPlan, read_grid_facts
from samo.files import folder_beside, remove_left_folders, write_json
from samo.runs.artifacts import NAME_PATTERN, artifacts_root
from samo.runs.ensemble_model import merged_settings, threshold_logits
from samo.runs.ensemble_summary import difference_of
from samo.runs.kept_predictions import item_predictions, kept_predictions
from samo.runs.provenance import learned_by, refuse_known
from samo.runs.reporter import PlainReporter, Reporter
from samo.runs.run import ENSEMBLE_FILE, Run

__all__ = ["combine_grids", "free_folder"]


def combine_grids(
    grids: Sequence[str],
    *,
    combine: str = "mean",
    weights: str = "equal",
    all_seeds: bool = False,
    name: str = "",
    overwrite: bool = False,
    artifacts: Path | str = "",
    reporter: Reporter | None = None,
    command: str = "",
) -> tuple[Path, dict[str, Any]]:
    """Combine finished cross-validations fold by fold and evaluate the ensembles as a cross-validation.

    Cells that share a fold and its three parts are members of one ensemble, whatever their seeds, if their seeds share
    those of every fold; every fold needs one of each grid. Others are left out and named. With ``all_seeds`` all cells
    that are tested on the same items are members of one ensemble, see :func:`_united`.

    Args:
        grids: names or folders of two or more cross-validations of one corpus; with ``all_seeds`` one is enough.
        combine: one of :data:`~samo.runs.ensemble_model.COMBINE`.
        weights: one of :data:`~samo.ensembles.members.WEIGHTS`.
        all_seeds: one ensemble a fold, of the cells of all seeds.
        name: of the folder in ``ARTIFACTS/grids``; empty makes one of the grids' names.
        overwrite: replace an earlier one of this name.
        artifacts: root of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts``.
        reporter: shows the progress; left out: plain lines on stderr.
        command: kept with the results.

    Returns:
        The folder, and :func:`~samo.experiments.crossval.crossval_report` with ``combined``: how, of which grids, each
        with its own scores, and whether the ensemble gains more than chance on the best of them by validation.

    Raises:
        SettingsError: an unknown rule, fewer than two grids, or one named twice; fitted weights for ``all_seeds``.
        RunError: a grid or a fold is missing, unfinished or damaged, or the folds of two grids are split differently;
            the name is taken.
        LeakError: a cell, or what taught it or gave it its start weights, knows test items of its fold.
    """
    check_rules(combine, weights)
    reporter, root = reporter or PlainReporter(), artifacts_root(str(artifacts))
    if len(grids) < 2 - all_seeds or len(set(grids)) < len(grids):
        few = "one or more" if all_seeds else "two or more"
        raise SettingsError(f"`grids={','.join(grids)}`: name {few} different ones, joined by commas")
    if all_seeds and weights != "equal":
        raise SettingsError(
            f"`weights={weights}` needs members validated on the same items, which `all_seeds` does not"
        )
    folders = [grid_folder(root, given) for given in grids]
    name = name or "-".join(["ensemble", *(folder.name for folder in folders)])
    target = free_folder(root, name, folders, overwrite=overwrite)
    members = [cells_of(folder) for folder in folders]
    for member in itertools.chain.from_iterable(members):
        refuse_other_data(members[0][0], member, f"'{member.name}'")
    unit = str(read_grid_facts(folders[0]).get("unit", "row"))
    folds = []
    for together in by_fold(members) if all_seeds else by_split(members, reporter):
        reporter.note(f"fold {together[0].fold}: {first_ten([member.name for member in together])}")
        folds.append(_united(together, combine) if all_seeds else _combined(together, combine, weights))
    names = [folder.name for folder in folders]
    return target, _write_grid(folds, target, name, names, unit, command)


def _write_grid(
    folds: Sequence[FoldEnsemble], target: Path, name: str, grids: Sequence[str], unit: str, command: str
) -> dict[str, Any]:
    """The ensembles of all folds as a cross-validation of its own, in place of one that was there; its report."""
    cells = tuple(cell_of(fold) for fold in folds)
    remove_left_folders(target)
    with folder_beside(target) as place:
        digest = folds[0].members[0].manifest.digest
        # The last two names are those it will have: runs are called by them.
        plan = GridPlan("crossval", place / "grids" / name, cells, command=command, data=digest, unit=unit)
        for fold, cell in zip(folds, cells, strict=True):
            write_fold(cell.run(plan.folder), fold, unit, command)
        write_json(plan.folder / GRID_FILE, plan.facts())
        report = crossval_report(plan.name, cells, plan.folder, unit)
        report["combined"] = _about(folds, plan.runs, grids, report["ci"]["level"])
        every = merged_settings([member.run.settings for member in folds[0].members])
        write_crossval(report, cells, plan.folder, command, every)
        if target.exists():
            target.rename(place / "replaced")
        plan.folder.rename(target)
    return report


def free_folder(root: Path, name: str, grids: Sequence[Path], *, overwrite: bool) -> Path:
    """The folder of a new ensemble of grids; only an ensemble of grids may be replaced.

    Args:
        root: of all outputs.
        name: of the ensemble.
        grids: the folders of what it is made of.
        overwrite: whether to replace one.

    Raises:
        SettingsError: the name is no file name.
        RunError: it is taken, by what is no ensemble of grids if ``overwrite``.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise SettingsError(f"`name` '{name}': use letters, digits and . _ + = - only")
    target = root / "grids" / name
    if not target.exists():
        return target
    if not overwrite:
        raise RunError(
            f"a grid named '{target.name}' exists in {target.parent}",
            hint="choose another `name`, or replace it with `overwrite`",
        )
    runs = [path for path in (target / "runs").glob("*") if path.is_dir()]
    if not runs:
        raise RunError(f"'{target}' is no ensemble: it is not replaced", hint="choose another `name`")
    if target.resolve() in grids or any(not (path / ENSEMBLE_FILE).is_file() for path in runs):
        raise RunError(f"grid '{target.name}' has trained cells: it is not replaced", hint="choose another `name`")
    return target


def _combined(members: tuple[KeptMember, ...], combine: str, rule: str) -> FoldEnsemble:
    """What the members of one split and their ensemble answer; only validation items have a say in how."""
    manifest = members[0].manifest
    space, split = manifest.label_space, common_split(members, rule)
    audit(manifest, split)
    for member in members:
        refuse_known(learned_by(member.run), manifest, split, f"'{member.name}'")
    decisions = tuple(member.decision for member in members)
    temperatures = [decision.calibration.temperature for decision in decisions]
    thresholds = threshold_logits([decision.thresholds.by_task(space) for decision in decisions], space)

    def logits(part: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([member.logits(part, split.part(part)) for member in members]))

    weights = np.full(len(members), 1.0 / len(members))
    if rule == "fitted":
        targets = manifest.targets[manifest.rows(split.val)]
        given = scaled(logits("val"), temperatures, space)
        weights = fit_weights(given, targets, np.ones(len(targets)), space, combine, thresholds)
    answers = Answers(manifest, temperatures, weights, combine, thresholds)

    def predictions(part: str) -> tuple[Predictions, ...]:
        ids = split.part(part)
        return answers.predictions(ids, logits(part), np.arange(len(ids)))

    names = tuple(member.name for member in members)
    how = names, split, combine, rule, decisions, tuple(weights.tolist())
    train = predictions("train")[-1] if _keep_train(members) else None
    return FoldEnsemble(members, Combined(*how, predictions("val"), predictions("test")), train)


def _united(members: tuple[KeptMember, ...], combine: str) -> FoldEnsemble:
    """What the members of one fold answer together, whatever they were validated on.

    Seeds draw other validation parts, and what validates one member taught another. An item of any validation part is
    therefore answered by the members that held it out alone, and what all learned from is the training part. On test
    all answer; the temperature, fitted on answers of fewer members, is then the more careful one.
    """
    manifest, first = members[0].manifest, members[0].split
    space, decisions = manifest.label_space, tuple(member.decision for member in members)
    split = Split(
        first.rule,
        first.seed,
        tuple(sorted(set.intersection(*(set(member.split.train) for member in members)))),
        tuple(sorted(set.union(*(set(member.split.val) for member in members)))),
        tuple(sorted(first.test)),
    )
    audit(manifest, split)
    for member in members:
        refuse_known(learned_by(member.run), manifest, member.split, f"'{member.name}'")

    def answered(part: str, ids: tuple[str, ...], by: Sequence[int]) -> Predictions:
        temperatures = [decisions[k].calibration.temperature for k in by]
        thresholds = threshold_logits([decisions[k].thresholds.by_task(space) for k in by], space)
        logits = torch.from_numpy(np.stack([members[k].logits(part, ids) for k in by]))
        answers = Answers(manifest, temperatures, np.full(len(by), 1.0 / len(by)), combine, thresholds)
        return answers.predictions(ids, logits, np.arange(len(ids)))[-1]

    if len(members) < 2:
        raise RunError(
            f"'{members[0].name}' is alone on its fold",
            hint="name a second grid, or let `samo crossval` train more seeds",
        )
    held_out: dict[tuple[int, ...], list[str]] = {}
    kept = [member.kept_ids("val") for member in members]
    for name in split.val:
        by = tuple(k for k, ids in enumerate(kept) if name in ids)
        held_out.setdefault(by, []).append(name)
    val = _concatenated([answered("val", tuple(ids), by) for by, ids in held_out.items()])
    place = {name: row for row, name in enumerate(val.ids)}
    own = [item_predictions(manifest, one.split.val, one.logits("val", one.split.val)) for one in members]
    tests = [item_predictions(manifest, split.test, member.logits("test", split.test)) for member in members]
    everyone = range(len(members))
    names, equal = tuple(member.name for member in members), (1.0 / len(members),) * len(members)
    combined = Combined(
        names, split, combine, "equal", decisions, equal,
        (*own, rows_of(val, [place[name] for name in split.val])), (*tests, answered("test", split.test, everyone)),
    )  # fmt: skip
    # Of few speakers each may have validated one seed or another.
    train = answered("train", split.train, everyone) if split.train and _keep_train(members) else None
    return FoldEnsemble(members, combined, train)


def _keep_train(members: Sequence[KeptMember]) -> bool:
    return all("train" in member.kept for member in members)


def _about(folds: Sequence[FoldEnsemble], cells: Sequence[Run], grids: Sequence[str], level: float) -> dict[str, Any]:
    """How the folds were combined, what each grid has alone, and the gain on the one that is best on validation."""
    how, space = folds[0].combined, folds[0].members[0].manifest.label_space
    rows: list[dict[str, Any]] = []
    alone: dict[str, Predictions] = {}
    for grid in grids:
        places = [
            (fold.combined, [k for k, member in enumerate(fold.members) if member.grid == grid]) for fold in folds
        ]
        # Of several seeds the first stands for its grid.
        alone[grid] = _concatenated(
            [found.decisions[own[0]].applied(found.test[own[0]], space) for found, own in places]
        )
        decided = decided_rows(space.primary, alone[grid], space)
        row: dict[str, Any] = {
            "grid": grid,
            "runs": sum(len(own) for _, own in places),
            "weights": [sum(found.weights[k] for k in own) for found, own in places],
            "val_macro_f1": fmean(found.decisions[k].score(found.val[k], space) for found, own in places for k in own),
            "macro_f1": scores(tally(decided.truth, decided.predicted))["macro_f1"],
        }
        rows.append(row)
    best = str(max(rows, key=lambda row: float(row["val_macro_f1"]))["grid"])
    together = _concatenated([Predictions.load(kept_predictions(run, "test"), space) for run in cells])
    return {
        "combine": how.combine,
        "weights": how.rule,
        "fitted_on": "val" if how.rule == "fitted" else None,
        "grids": rows,
        "best_grid": best,
        "gain": {**difference_of(alone[best], together, space, level), "level": level},
    }


def _concatenated(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several folds, one behind the other."""
    return Predictions(
        tuple(name for part in parts for name in part.ids),
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.targets for part in parts]),
        tuple(group for part in parts for group in part.groups),
        {},
        None if any(part.decided is None for part in parts) else np.concatenate([part.decided for part in parts]),
    )
