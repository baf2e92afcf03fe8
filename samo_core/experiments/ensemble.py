"""Ensembles: several runs of one split that answer as one, and whether that gains more than chance.

What an ensemble may learn from are validation items alone: its weights, its temperature and the member it is compared
with are chosen there. The test part is opened when all of that is fixed, and the difference is taken speaker by
speaker (:mod:`samo_core.evaluation.comparison`). The result is a run; its one model file holds every member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from samo_core.data.splits import Split, audit
from samo_core.errors import RunError, SettingsError
from samo_core.evaluation.calibration import fit_temperature
from samo_core.evaluation.comparison import COMPARED, paired_bootstrap
from samo_core.evaluation.metrics import judge
from samo_core.evaluation.predictions import Predictions
from samo_core.evaluation.report import build_report
from samo_core.evaluation.significance import verdict
from samo_core.evaluation.statistics import tally_by_unit
from samo_core.experiments.calibrate import calibrate
from samo_core.experiments.experiment import write_beginning
from samo_core.experiments.judge import macro_f1, predictions_of
from samo_core.experiments.members import WEIGHTS, LeftOut, Member, common_split
from samo_core.experiments.mixture import COMBINE, log_outcomes, mixed
from samo_core.experiments.run import ACCOUNT, Run, mark_trained, point_latest
from samo_core.files import write_json
from samo_core.tasks import LabelSpace
from samo_core.training.checkpoint import save_model
from samo_core.training.frontend import Frontend
from samo_core.training.runtime import Runtime
from samo_core.training.trainer import predict_logits

__all__ = ["Assembly", "assemble", "check_choices", "fit_weights", "write_ensemble"]

# A member that counts less than this is not worth the time it takes: its weight is 0 and it is not in the model.
LEAST_WEIGHT = 1e-3
# No member may be able to make the likelihood 0 on its own.
_LEAST_LIKELIHOOD = 1e-12


@dataclass(frozen=True)
class Assembly:
    """An ensemble before it is written.

    Attributes:
        split: what all members held out, see :func:`~samo_core.experiments.members.common_split`.
        temperatures: of each member by task, fitted on its own validation part.
        weights: (K,) at least 0, sum 1, fitted on the validation part or equal.
        val: what each member says of the validation part, then the ensemble.
        test: the same of the test part.
    """

    members: tuple[Member, ...]
    split: Split
    combine: str
    rule: str
    temperatures: tuple[Mapping[str, float], ...]
    weights: tuple[float, ...]
    val: tuple[Predictions, ...]
    test: tuple[Predictions, ...]


def check_choices(combine: str, rule: str) -> None:
    """Refuse what is neither of :data:`~samo_core.experiments.mixture.COMBINE` nor of ``WEIGHTS``.

    Raises:
        SettingsError: names the valid choices.
    """
    for flag, given, choices in (("--combine", combine, COMBINE), ("--weights", rule, WEIGHTS)):
        if given not in choices:
            raise SettingsError(f"{flag} {given}: unknown", hint=f"valid: {', '.join(choices)}")


def assemble(
    members: Sequence[Member],
    frontend: Frontend,
    runtime: Runtime,
    *,
    combine: str = "mean",
    rule: str = "equal",
    notify: Callable[[str], None] = lambda line: None,
) -> Assembly:
    """Calibrate, weigh and combine members; nothing is written.

    Args:
        members: from :func:`~samo_core.experiments.members.gather`.
        frontend: of the members' data.
        runtime: where.
        combine: one of :data:`~samo_core.experiments.mixture.COMBINE`.
        rule: one of :data:`~samo_core.experiments.members.WEIGHTS`.
        notify: told what is being done.

    Raises:
        SettingsError: unknown choice, or what :func:`~samo_core.experiments.members.common_split` refuses.
        RunError: the data are not those of the members.
        LeakError: the common split leaks.
    """
    check_choices(combine, rule)
    if frontend.manifest.digest != members[0].manifest.digest:
        raise RunError("the data differ from those the members were trained on", hint="give the same --data-root")
    split = common_split(members, rule)
    audit(frontend.manifest, split)
    manifest, space = frontend.manifest, frontend.manifest.label_space
    temperatures = tuple(_temperature(member, frontend, runtime) for member in members)
    models = [member.model for member in members]
    notify(f"validation part: {len(split.val)} items, {len(members)} members")
    logits, owners = _windows(models, frontend, manifest.rows(split.val), runtime)
    weights = np.full(len(members), 1.0 / len(members))
    if rule == "fitted":
        targets, share = manifest.targets[manifest.rows(split.val)][owners], 1.0 / np.bincount(owners)[owners]
        weights = fit_weights(_scaled(logits, temperatures, space), targets, share, space, combine)
    answer = _Answer(frontend, temperatures, weights, combine)
    val = answer.said(split.val, logits, owners)
    notify(f"test part: {len(split.test)} items")
    test = answer.said(split.test, *_windows(models, frontend, manifest.rows(split.test), runtime))
    return Assembly(tuple(members), split, combine, rule, temperatures, tuple(weights.tolist()), val, test)


def fit_weights(
    logits: Tensor, targets: np.ndarray, share: np.ndarray, space: LabelSpace, combine: str = "mean"
) -> npt.NDArray[np.float64]:
    """The weights that make the targets most likely under the mixture (stacking of densities, Smyth & Wolpert 1999).

    The negative log-likelihood is convex in the weights and smooth, unlike macro-F1, which a search over a few clips
    would fit to their noise. Where an item has several windows it is the mean over them; as an item's answer is the
    geometric mean of its windows', that bounds the item's own from above, and equals it for one window.

    Args:
        logits: (K, W, C) of K members and W windows, under each member's temperature.
        targets: (W, C) in [0, 1]; rows that are NaN in a task's columns are left out of it.
        share: (W,) how much a window counts, above 0.
        space: the tasks and their columns.
        combine: one of :data:`~samo_core.experiments.mixture.COMBINE`.

    Returns:
        (K,) in [0, 1], sum 1; below :data:`LEAST_WEIGHT` it is 0.
    """
    from scipy.optimize import minimize

    likelihood, count = _cases(logits, targets, share, space, combine)
    equal = np.full(len(logits), 1.0 / len(logits))

    def cost(weights: npt.NDArray[np.float64]) -> float:
        return float(-(count @ np.log(likelihood @ weights)))

    def slope(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(-(count / (likelihood @ weights)) @ likelihood)

    found = minimize(
        cost, equal, jac=slope, method="SLSQP", bounds=[(0.0, 1.0)] * len(equal),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
        options={"maxiter": 1000, "ftol": 1e-12},
    ).x  # fmt: skip
    best = min((equal, np.clip(found, 0.0, None) / np.clip(found, 0.0, None).sum()), key=cost)
    kept = np.where(best < LEAST_WEIGHT, 0.0, best)
    return np.asarray(kept / kept.sum())


def write_ensemble(
    run: Run, assembly: Assembly, left_out: Sequence[LeftOut], frontend: Frontend, runtime: Runtime, command: str = ""
) -> dict[str, Any]:
    """Write the run of an ensemble: one model file, its calibration, and the account of members and gain.

    Returns:
        The account, as ``ensemble.json`` holds it. ``samo evaluate`` (:func:`judge_run`) writes the report.

    Raises:
        RunError: another process began this run.
    """
    with run.locked():
        if run.path("config.json").exists():
            raise RunError(f"run '{run.name}' was begun by another process", hint="choose another --name")
        space = frontend.manifest.label_space
        # Before config.json makes the folder a run: without its model it would look like one that was stopped.
        _save_model(run, assembly, frontend, space)
        calibrate(run, space, assembly.val[-1].logits, assembly.val[-1].targets)
        account = _account(run, assembly, left_out, frontend, space)
        write_json(run.path(ACCOUNT), account)
        mark_trained(run, {"members": len(assembly.members), "val_macro_f1": account["ensemble"]["val_macro_f1"]})
        write_beginning(run, frontend, assembly.split, {}, runtime, command)
        point_latest(run.folder.parent.parent, run)
    return account


def _temperature(member: Member, frontend: Frontend, runtime: Runtime) -> Mapping[str, float]:
    """The member's own; one that was trained before there were any gets it here, its folder stays as it is."""
    if member.calibration:
        return member.calibration.temperature
    rows = frontend.manifest.rows(member.split.val)
    logits = predict_logits(member.model, frontend, rows, runtime)
    return fit_temperature(logits, frontend.manifest.targets[rows], frontend.manifest.label_space)


@torch.inference_mode()
def _windows(
    models: Sequence[nn.Module], frontend: Frontend, rows: np.ndarray, runtime: Runtime, batch_size: int = 32
) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Every member's (K, W, C) logits of all windows, and (W,) the place in ``rows`` each belongs to."""
    place = {int(row): k for k, row in enumerate(rows)}
    logits, owners = [], []
    for batch in frontend.eval_batches(rows, batch_size):
        moved = batch.to(runtime.device)
        with runtime.autocast():
            logits.append(torch.stack([model(moved.inputs, moved.lengths).float().cpu() for model in models]))
        owners += [place[int(row)] for row in batch.rows]
    return torch.cat(logits, dim=1), np.array(owners, dtype=np.int64)


@dataclass(frozen=True)
class _Answer:
    """How windows become what members and ensemble say of items."""

    frontend: Frontend
    temperatures: Sequence[Mapping[str, float]]
    weights: npt.NDArray[np.float64]
    combine: str

    def said(self, ids: tuple[str, ...], logits: Tensor, owners: npt.NDArray[np.int64]) -> tuple[Predictions, ...]:
        """Predictions of every member, raw, then of the ensemble; averaged over an item's windows."""
        space = self.frontend.manifest.label_space
        kept = np.flatnonzero(self.weights)
        scaled = _scaled(logits, self.temperatures, space)[kept]
        answer = mixed(scaled, torch.tensor(self.weights[kept], dtype=torch.float32).log(), space, self.combine)
        count = np.bincount(owners)[:, None]
        found = []
        for windows in (*logits, answer):
            total = np.zeros((len(ids), space.n_columns))
            np.add.at(total, owners, windows.numpy())
            found.append(predictions_of(self.frontend, ids, (total / count).astype(np.float32)))
        return tuple(found)


def _scaled(logits: Tensor, temperatures: Sequence[Mapping[str, float]], space: LabelSpace) -> Tensor:
    """(K, W, C) logits, each member's under its own temperature."""
    scaled = logits.clone()
    for said, temperature in zip(scaled, temperatures, strict=True):
        for task in space.tasks:
            said[:, space.slices[task.name]] /= temperature.get(task.name, 1.0)
    return scaled


def _cases(
    logits: Tensor, targets: np.ndarray, share: np.ndarray, space: LabelSpace, combine: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(M, K) likelihoods of every outcome that is asked for, and (M,) how much it counts; 1 in all for each task."""
    likelihoods, counts = [], []
    for task in space.tasks:
        columns = space.slices[task.name]
        rows = ~np.isnan(targets[:, columns]).any(axis=1)
        if not rows.any():
            continue
        asked = targets[rows, columns].astype(np.float64)
        asked = np.concatenate([asked, 1.0 - asked], axis=1) if task.multi_label else asked
        said = log_outcomes(logits[:, torch.from_numpy(rows), columns].double(), task, combine).exp().numpy()
        count = asked * share[rows, None]
        likelihoods.append(said[:, count > 0].T)
        counts.append(count[count > 0] / count.sum())
    if not counts:
        raise RunError("no item of the validation part has a label, so no weights can be fitted")
    return np.clip(np.concatenate(likelihoods), _LEAST_LIKELIHOOD, 1.0), np.concatenate(counts)


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
            "settings": assembly.members[k].config.flat(),
        }
        for k in kept
    ]
    save_model(
        run.model_file,
        tensors,
        label_space=space.to_json(),
        synthetic=frontend.manifest.synthetic,
        dataset=frontend.manifest.dataset,
        epoch=0,
        val_macro_f1=macro_f1(assembly.val[-1], space),
        digest=frontend.manifest.digest,
        ensemble={"combine": assembly.combine, "members": facts},
    )


def _account(
    run: Run, assembly: Assembly, left_out: Sequence[LeftOut], frontend: Frontend, space: LabelSpace
) -> dict[str, Any]:
    names = [member.name for member in assembly.members]
    val = [macro_f1(said, space) for said in assembly.val]
    spoken = zip([*names, run.name], assembly.test, strict=True)
    reports = [_report(name, said, assembly, frontend, space) for name, said in spoken]
    whole, best = reports[-1], int(np.argmax(val[:-1]))
    shown = [
        {"val_macro_f1": score, "macro_f1": report["metrics"]["macro_f1"], "interval": report["ci"]["macro_f1"]}
        for score, report in zip(val, reports, strict=True)
    ]
    members = [
        {"name": name, "weight": weight, "temperature": dict(temperature), **scores}
        for name, weight, temperature, scores in zip(
            names, assembly.weights, assembly.temperatures, shown[:-1], strict=True
        )
    ]
    about = ("run", "dataset", "synthetic", "split", "split_rule", "leaky", "task", "n")
    return {
        "schema": 1,
        **{name: whole[name] for name in about},
        **{name: whole["ci"][name] for name in ("unit", "n_units", "level")},
        "combine": assembly.combine,
        "weights": assembly.rule,
        "fitted_on": "val" if assembly.rule == "fitted" else None,
        "members": members,
        "left_out": [{"name": left.name, "reason": left.reason} for left in left_out],
        "mean_of_members": fmean(scores["macro_f1"] for scores in shown[:-1]),
        "best_member": names[best],
        "ensemble": shown[-1],
        "gain": _gain(assembly.test[best], assembly.test[-1], space, whole["ci"]["level"]),
        "warnings": [
            *whole["warnings"],
            "one training a member: members of other seeds may turn the order round, and no number here knows of it",
        ],
    }


def _gain(member: Predictions, ensemble: Predictions, space: LabelSpace, level: float) -> dict[str, Any]:
    """The ensemble's macro-F1 minus a member's, over joint draws of the groups, as `samo compare` takes it."""
    task = space.primary
    columns = space.slices[task.name]
    judged = [
        judge(task, said.probabilities(space)[:, columns], said.targets[:, columns]) for said in (member, ensemble)
    ]
    groups = [member.groups[row] for row in judged[0].rows]
    tallies = [tally_by_unit(each.truth, each.predicted, groups) for each in judged]
    found = paired_bootstrap(tallies[0], tallies[1], {"macro_f1": COMPARED["macro_f1"]}, level=level)["macro_f1"]
    word = verdict(found.difference, found.p, 1.0 - level)
    return {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p, "verdict": word}


def _report(name: str, said: Predictions, assembly: Assembly, frontend: Frontend, space: LabelSpace) -> dict[str, Any]:
    """What `samo evaluate` would say of the test part, temperature aside, which changes no label."""
    return build_report(
        run=name,
        dataset=frontend.manifest.dataset,
        synthetic=frontend.manifest.synthetic,
        split="test",
        split_rule=assembly.split.rule,
        leaky=assembly.split.leaky,
        task=space.primary,
        predictions=replace(said, meta={}),
        label_space=space,
        unit=frontend.unit,
        train_macro_f1=None,
        val_macro_f1=None,
    )
