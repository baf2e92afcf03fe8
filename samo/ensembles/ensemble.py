"""Ensembles: several runs of one split that answer as one, and whether that gains more than chance.

What an ensemble may learn from are validation items alone: its weights, its temperature and the member it is compared
with are chosen there. The test part is opened when all of that is fixed, and the difference is taken speaker by
speaker (:mod:`samo.evaluation.comparison`). The result is a run; its one model file contains every member.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from samo.data.leaks import audit
from samo.data.manifest import Manifest
from samo.data.splits import Split
from samo.ensembles.members import WEIGHTS, LeftOut, Member, common_split
from samo.ensembles.weights import fit_weights
from samo.errors import RunError, SettingsError, counted
from samo.evaluation.decision import Decision, fit_decision
from samo.evaluation.predictions import Predictions
from samo.files import write_json
from samo.frontend import Frontend
from samo.runs.artifacts import point_latest
from samo.runs.calibrate import calibrate, threshold_settings
from samo.runs.ensemble_model import COMBINE, mixed, threshold_logits
from samo.runs.ensemble_summary import with_scores
from samo.runs.kept_predictions import item_predictions
from samo.runs.provenance import learned_by
from samo.runs.run import ASSETS, ENSEMBLE_FILE, Run, mark_trained
from samo.runs.run_report import macro_f1
from samo.runs.training import write_beginning
from samo.tasks import LabelSpace
from samo.training.checkpoint import save_model
from samo.training.setup import Setup
from samo.training.trainer import predict_logits

__all__ = [
    "Answers",
    "Assembly",
    "Combined",
    "assemble",
    "check_rules",
    "scaled",
    "summary_of",
    "write_ensemble",
]


@dataclass(frozen=True)
class Combined:
    """What K members and their ensemble answer.

    Attributes:
        names: of the members.
        split: what all members held out, see :func:`~samo.ensembles.members.common_split`.
        decisions: temperatures and thresholds of each member, fitted on its own validation part.
        weights: (K,) at least 0, sum 1, fitted on the validation part or equal.
        val: predictions of each member on the validation part, then of the ensemble; raw, not decided.
        test: the same of the test part; empty where it stays closed.
    """

    names: tuple[str, ...]
    split: Split
    combine: str
    rule: str
    decisions: tuple[Decision, ...]
    weights: tuple[float, ...]
    val: tuple[Predictions, ...]
    test: tuple[Predictions, ...]

    @property
    def temperatures(self) -> tuple[Mapping[str, float], ...]:
        """Of each member by task."""
        return tuple(decision.calibration.temperature for decision in self.decisions)


@dataclass(frozen=True)
class Assembly(Combined):
    """An ensemble of open models before it is written."""

    members: tuple[Member, ...]


def check_rules(combine: str, rule: str, test: bool = True) -> None:
    """Refuse what is neither of :data:`~samo.runs.ensemble_model.COMBINE` nor of ``WEIGHTS``.

    Args:
        combine, rule: as :func:`assemble` takes them.
        test: whether the test part is opened; where it stays closed for now, weights are equal.

    Raises:
        SettingsError: names the valid choices.
    """
    for name, given, choices in (("combine", combine, COMBINE), ("weights", rule, WEIGHTS)):
        if given not in choices:
            raise SettingsError(f"`{name}={given}`: unknown", hint=f"valid: {', '.join(choices)}")
    if rule == "fitted" and not test:
        raise SettingsError(
            "`weights=fitted` needs the test part open: a member of weight 0 is not in the model, so that no later "
            "evaluation could test it",
            hint="take `weights=equal`",
        )


def assemble(
    members: Sequence[Member],
    setup: Setup,
    *,
    combine: str = "mean",
    rule: str = "equal",
    notify: Callable[[str], None] = lambda line: None,
    test: bool = True,
) -> Assembly:
    """Calibrate, weigh and combine members; nothing is written.

    Args:
        members: from :func:`~samo.ensembles.members.gather`.
        setup: of the members' data.
        combine: one of :data:`~samo.runs.ensemble_model.COMBINE`.
        rule: one of :data:`~samo.ensembles.members.WEIGHTS`.
        notify: receives what is being done.
        test: whether to open the test part.

    Raises:
        SettingsError: unknown choice, fitted weights without the test part, or what
            :func:`~samo.ensembles.members.common_split` refuses.
        RunError: the data are not those of the members.
        LeakError: the common split leaks.
    """
    check_rules(combine, rule, test)
    if setup.frontend.manifest.digest != members[0].manifest.digest:
        raise RunError("the data differ from those the members were trained on", hint="give the same `data_root`")
    split = common_split(members, rule)
    audit(setup.frontend.manifest, split)
    manifest, space = setup.frontend.manifest, setup.frontend.manifest.label_space
    decisions = tuple(_decision(member, setup) for member in members)
    temperatures = tuple(decision.calibration.temperature for decision in decisions)
    thresholds = threshold_logits([decision.thresholds.by_task(space) for decision in decisions], space)
    notify(f"validation part: {counted(len(split.val), 'item')}, {len(members)} members")
    logits, owners = _windows(members, setup, manifest.rows(split.val))
    weights = np.full(len(members), 1.0 / len(members))
    if rule == "fitted":
        targets, share = manifest.targets[manifest.rows(split.val)][owners], 1.0 / np.bincount(owners)[owners]
        weights = fit_weights(scaled(logits, temperatures, space), targets, share, space, combine, thresholds)
    answers = Answers(manifest, temperatures, weights, combine, thresholds)
    val = answers.predictions(split.val, logits, owners)
    tested: tuple[Predictions, ...] = ()
    if test:
        notify(f"test part: {counted(len(split.test), 'item')}")
        tested = answers.predictions(split.test, *_windows(members, setup, manifest.rows(split.test)))
    names = tuple(member.name for member in members)
    return Assembly(names, split, combine, rule, decisions, tuple(weights.tolist()), val, tested, tuple(members))


def write_ensemble(
    run: Run, assembly: Assembly, left_out: Sequence[LeftOut], setup: Setup, command: str = ""
) -> dict[str, Any]:
    """Write the run of an ensemble: one model file, its calibration, and the summary of members and gain.

    Args:
        run: a new one; it becomes the newest.
        assembly: from :func:`assemble`.
        left_out: runs that could not be members.
        setup: of the members' data.
        command: kept with the run.

    Returns:
        The summary, as it stands in ``ensemble.json``. ``samo evaluate`` (:func:`evaluate_run`) writes the report.

    Raises:
        RunError: another process began this run.
    """
    with run.locked():
        if run.path("config.json").exists():
            raise RunError(f"run '{run.name}' was begun by another process", hint="choose another `name`")
        space = setup.frontend.manifest.label_space
        # Before config.json makes the folder a run: without its model it would look like one that was stopped.
        _save_model(run, assembly, setup.frontend, space)
        _copy_assets(run, assembly)
        val, settings = assembly.val[-1], threshold_settings(setup.frontend.config)
        decision = calibrate(run, space, val.logits, val.targets, settings)
        for member in assembly.members if assembly.test else ():  # the summary has their scores on the test part
            member.run.open_test("ensemble")
        summary = summary_of(run.name, assembly, decision, left_out, setup.frontend.manifest, setup.frontend.unit)
        for row, member in zip(summary["members"], assembly.members, strict=True):
            row["folder"] = Path(os.path.relpath(member.run.folder.resolve(), run.root.resolve())).as_posix()
        write_json(run.path(ENSEMBLE_FILE), summary)
        mark_trained(run, {"members": len(assembly.members), "val_macro_f1": summary["ensemble"]["val_macro_f1"]})
        write_beginning(run, setup, assembly.split, {}, command, [member.config for member in assembly.members])
        point_latest(run.root, run)
    return summary


def _decision(member: Member, setup: Setup) -> Decision:
    """The member's own; where something was never fitted it is here, and the member's folder stays as it is."""
    space, known = setup.frontend.manifest.label_space, member.decision
    if known.is_complete(space):
        return known
    rows = setup.frontend.manifest.rows(member.split.val)
    logits = predict_logits(member.reader, setup, rows)
    keep = known.calibration if known.calibration.fitted_on else None
    settings = threshold_settings(member.config)
    return fit_decision(logits, setup.frontend.manifest.targets[rows], space, settings, calibration=keep)


@torch.inference_mode()
def _windows(
    members: Sequence[Member], setup: Setup, rows: np.ndarray, batch_size: int = 32
) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Every member's (K, W, C) logits of all windows, and (W,) the place in ``rows`` each belongs to."""
    place = {int(row): k for k, row in enumerate(rows)}
    models = [member.reader for member in members]
    logits, owners = [], []
    for batch in setup.frontend.eval_batches(rows, batch_size):
        moved = batch.to(setup.runtime.device)
        with setup.runtime.autocast():
            logits.append(torch.stack([model(moved.inputs, moved.lengths).float().cpu() for model in models]))
        owners += [place[int(row)] for row in batch.rows]
    return torch.cat(logits, dim=1), np.array(owners, dtype=np.int64)


@dataclass(frozen=True)
class Answers:
    """How windows become predictions of items, by each member and by the ensemble.

    Attributes:
        manifest: of the items.
        temperatures: of each of K members by task.
        weights: (K,) at least 0, sum 1.
        combine: one of :data:`~samo.runs.ensemble_model.COMBINE`.
        thresholds: (K, C) from :func:`~samo.runs.ensemble_model.threshold_logits`.
    """

    manifest: Manifest
    temperatures: Sequence[Mapping[str, float]]
    weights: npt.NDArray[np.float64]
    combine: str
    thresholds: Tensor

    def predictions(
        self, ids: tuple[str, ...], logits: Tensor, owners: npt.NDArray[np.int64]
    ) -> tuple[Predictions, ...]:
        """Predictions of every member, raw, then of the ensemble; averaged over an item's windows.

        Args:
            ids: of N items.
            logits: (K, W, C) raw, of every member and window.
            owners: (W,) which of the N items a window is of.
        """
        space = self.manifest.label_space
        kept = np.flatnonzero(self.weights)
        given = scaled(logits, self.temperatures, space)[kept]
        log_weights = torch.tensor(self.weights[kept], dtype=torch.float32).log()
        answer = mixed(given, log_weights, space, self.combine, self.thresholds[kept])
        count = np.bincount(owners)[:, None]
        found = []
        for windows in (*logits, answer):
            total = np.zeros((len(ids), space.n_columns))
            np.add.at(total, owners, windows.numpy())
            found.append(item_predictions(self.manifest, ids, (total / count).astype(np.float32)))
        return tuple(found)


def scaled(logits: Tensor, temperatures: Sequence[Mapping[str, float]], space: LabelSpace) -> Tensor:
    """(K, W, C) logits, each member's under its own temperature."""
    found = logits.clone()
    for member, temperature in zip(found, temperatures, strict=True):
        for task in space.tasks:
            member[:, space.slices[task.name]] /= temperature.get(task.name, 1.0)
    return found


def _copy_assets(run: Run, assembly: Assembly) -> None:
    """What each member that counts needs besides its weights, by its place in the model."""
    kept = [member for member, weight in zip(assembly.members, assembly.weights, strict=True) if weight > 0.0]
    for place, member in enumerate(kept):
        if member.run.path(ASSETS).is_dir():
            shutil.copytree(member.run.path(ASSETS), run.path(ASSETS) / str(place), dirs_exist_ok=True)


def _save_model(run: Run, assembly: Assembly, frontend: Frontend, space: LabelSpace) -> None:
    """All members that count, as one file that says itself what it is."""
    kept = [k for k, weight in enumerate(assembly.weights) if weight > 0.0]
    tensors = {
        f"members.{place}.{name}": tensor
        for place, k in enumerate(kept)
        for name, tensor in assembly.members[k].model.state_dict().items()
    }
    facts = [
        {
            "name": assembly.members[k].name,
            "weight": assembly.weights[k],
            "temperature": dict(assembly.temperatures[k]),
            "thresholds": assembly.decisions[k].thresholds.by_task(space),
            "reads": assembly.members[k].part,
            "settings": assembly.members[k].config.flat(),
        }
        for k in kept
    ]
    known = [each for k in kept for each in learned_by(assembly.members[k].run)]
    save_model(
        run.model_file,
        tensors,
        label_space=space.to_json(),
        synthetic=frontend.manifest.synthetic,
        dataset=frontend.manifest.dataset,
        epoch=0,
        val_macro_f1=macro_f1(assembly.val[-1], space),
        digest=frontend.manifest.digest,
        intervals="wilson",
        learned=[each.to_json() for each in dict.fromkeys(known)],
        ensemble={"combine": assembly.combine, "members": facts, "parts": assembly.members[0].parts},
    )


def summary_of(
    name: str, combined: Combined, decision: Decision, left_out: Sequence[LeftOut], manifest: Manifest, unit: str
) -> dict[str, Any]:
    """The summary of members and gain, as it stands in ``ensemble.json``.

    Where the test part stays closed its scores and the gain are None, and ``split`` is ``val``.

    Args:
        name: of the ensemble.
        combined: what it and its members answer.
        decision: temperatures and thresholds of the ensemble.
        left_out: runs that could not be members.
        manifest: of the data.
        unit: what a confidence interval is resampled over.
    """
    names, space = combined.names, manifest.label_space
    decisions = (*combined.decisions, decision)
    val = [each.score(predictions, space) for each, predictions in zip(decisions, combined.val, strict=True)]
    untested = {"macro_f1": None, "interval": None}
    members = [
        {"name": each, "weight": weight, "temperature": dict(temperature), "val_macro_f1": score, **untested}
        for each, weight, temperature, score in zip(
            names, combined.weights, combined.temperatures, val[:-1], strict=True
        )
    ]
    summary = {
        "schema": 1,
        "run": name,
        "combine": combined.combine,
        "weights": combined.rule,
        "fitted_on": "val" if combined.rule == "fitted" else None,
        "members": members,
        "left_out": [{"name": left.name, "reason": left.reason} for left in left_out],
        "mean_of_members": None,
        "best_member": names[int(np.argmax(val[:-1]))],
        "ensemble": {"val_macro_f1": val[-1], **untested},
        "gain": None,
    }
    if not combined.test:
        answered = [decision.applied(combined.val[-1], space)]
        return with_scores(summary, answered, combined.split, "val", manifest, unit)
    answered = [each.applied(predictions, space) for each, predictions in zip(decisions, combined.test, strict=True)]
    return with_scores(summary, answered, combined.split, "test", manifest, unit)
