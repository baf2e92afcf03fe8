"""From runs to an ensemble that is a run itself, with its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from samo.ensembles.ensemble import assemble, check_rules, write_ensemble
from samo.ensembles.members import Member, gather
from samo.errors import RunError, SettingsError
from samo.frontend import Frontend
from samo.launch.resources import Resources
from samo.modalities import frontend_type
from samo.runs.artifacts import artifacts_root, create_run
from samo.runs.calibrate import agreed_decision
from samo.runs.evaluate import evaluate_run
from samo.runs.reporter import PlainReporter, Reporter
from samo.runs.run import ASSETS, FINGERPRINTS, Run
from samo.settings import Config
from samo.training.runtime import make_runtime
from samo.training.setup import Setup

__all__ = ["build_ensemble"]


def build_ensemble(
    runs: Sequence[Run],
    *,
    combine: str = "mean",
    weights: str = "equal",
    name: str = "",
    overwrite: bool = False,
    artifacts: Path | str = "",
    frontend: Frontend | None = None,
    settings: Mapping[str, Any] | None = None,
    resources: Resources | None = None,
    reporter: Reporter | None = None,
    command: str = "",
    test: bool = True,
) -> tuple[Run, dict[str, Any]]:
    """Let several runs of one split answer as one, evaluate them, and say whether that gains more than chance.

    With ``test=False`` the test part stays closed, and the summary knows what the members do on validation alone.

    Members are combined and evaluated in float32 on one device.

    Args:
        runs: two or more trained runs; those that are broken or do not fit are left out and named.
        combine: one of :data:`~samo.runs.ensemble_model.COMBINE`.
        weights: one of :data:`~samo.ensembles.members.WEIGHTS`.
        name: of the ensemble's run; empty makes one.
        overwrite: replace the run of this name.
        artifacts: root of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts``.
        frontend: the members' data, where they are open already.
        settings: where the data lie now, where they moved (``data_root``).
        resources: device and threads.
        reporter: shows the progress; left out: plain lines on stderr.
        command: kept with the run.
        test: whether to evaluate on the test part.

    Returns:
        The ensemble's run, and the summary of members and gain as it stands in ``ensemble.json``.

    Raises:
        SettingsError: an unknown rule, fitted weights with ``test=False``, fewer than two runs, or a member has the
            ensemble's name.
        RunError: the name is taken, or fewer than two members are left.
        LeakError: members learned from each other's test items.
    """
    check_rules(combine, weights, test)
    resources, reporter, root = resources or Resources(), reporter or PlainReporter(), artifacts_root(str(artifacts))
    if name and not overwrite:
        create_run(root, name, "")
    if name in [run.name for run in runs]:
        raise SettingsError(f"`name={name}`: a member is called that")
    kind = frontend_type(_modality(runs))
    runtime = make_runtime(resources.device, "float32", resources.threads)
    members, left_out = gather(runs, kind, runtime)
    for left in left_out:
        reporter.note(f"left out: '{left.name}': {left.reason}")
    # Settings of members that were trained for this are theirs already, and their data are open.
    frontend = frontend or _open(kind, members[0].config, settings or {}, members[0].run, reporter)
    members, frontend = _reading_together(members, frontend)
    setup = Setup(frontend, runtime)
    assembly = assemble(members, setup, combine=combine, rule=weights, notify=reporter.note, test=test)
    values = frontend.config.flat()
    run = create_run(root, name, f"ensemble-{values['dataset']}-{values['mode']}", overwrite=overwrite, hold=True)
    try:
        summary = write_ensemble(run, assembly, left_out, setup, command)
    finally:
        run.settle()
    if test:
        evaluate_run(run, setup, "test")
    return run, summary


def _reading_together(members: Sequence[Member], frontend: Frontend) -> tuple[tuple[Member, ...], Frontend]:
    """The members, each knowing its part of what all read of an item, and the data under what they agree on."""
    agreed = agreed_decision(frontend.config.flat(), [member.config.flat() for member in members])
    frontend = frontend.with_config(type(frontend.config).build(agreed))
    manifest = frontend.manifest
    if manifest.fingerprints is not None and not all(member.run.path(FINGERPRINTS).exists() for member in members):
        # Members trained before near copies were looked for combine as they did.
        frontend = frontend.with_manifest(replace(manifest, fingerprints=None))
    frontend, reads = frontend.shared_by([(member.config, member.run.path(ASSETS)) for member in members])
    members = tuple(
        replace(member, part=part, parts=1 + max(reads), of_part=frontend.reader(member.model, member.config))
        for member, part in zip(members, reads, strict=True)
    )
    return members, frontend


def _modality(runs: Sequence[Run]) -> str:
    """That of the first run that can be read; the others are compared with it."""
    problems = []
    for run in runs:
        try:
            return str(run.settings["modality"])
        except RunError as error:
            problems.append(error.message)
    raise RunError(f"no run can be read: {'; '.join(problems[:1])}")


def _open(kind: type[Frontend], config: Config, settings: Mapping[str, Any], run: Run, reporter: Reporter) -> Frontend:
    """The data of a trained run, wherever ``data_root`` among the settings says that they lie now."""
    if stray := sorted(set(settings) - {"data_root"}):
        raise SettingsError(f"`{stray[0]}` cannot be set for runs that are trained: only `data_root` may have moved")
    with reporter.counting(kind.preparing) as progress:
        return kind.open(type(config).build({**config.flat(), **settings}), reporter.note, progress, run.path(ASSETS))
