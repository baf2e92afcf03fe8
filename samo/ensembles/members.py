"""Who may be in an ensemble: sound runs that answer one question on one split and learned nothing of its test part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from samo.data.manifest import Manifest
from samo.data.splits import Split
from samo.errors import LeakError, RunError, SamoError, SettingsError, first_ten
from samo.evaluation.decision import Decision
from samo.frontend import Frontend
from samo.runs.calibrate import decision_of
from samo.runs.ensemble_model import Reader
from samo.runs.load import load_run_model
from samo.runs.run import ASSETS, Run
from samo.settings import Config
from samo.training.checkpoint import read_facts
from samo.training.runtime import Runtime

__all__ = [
    "WEIGHTS",
    "HasSplit",
    "LeftOut",
    "Member",
    "common_split",
    "gather",
    "refuse_other_data",
    "refuse_other_test",
]

WEIGHTS = ("equal", "fitted")


class HasSplit(Protocol):
    """What a model learned from, was validated on and is tested on."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def manifest(self) -> Manifest:
        """The items and their labels."""

    @property
    def split(self) -> Split:
        """Its parts."""


@dataclass(frozen=True)
class Member:
    """A run that can be part of an ensemble, and what it answers with so far.

    Attributes:
        part: which part of the inputs it reads, from 0; see :meth:`samo.frontend.Frontend.shared_by`.
        parts: how many parts the inputs have.
        of_part: what reads that part, where there are several; see :meth:`samo.frontend.Frontend.reader`.
    """

    run: Run
    config: Config
    model: nn.Module
    manifest: Manifest
    split: Split
    decision: Decision
    part: int = 0
    parts: int = 1
    of_part: nn.Module | None = None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def reader(self) -> nn.Module:
        """What takes batches of all members."""
        if self.parts == 1:
            return self.model
        return Reader(self.of_part or self.model, self.part, self.parts).eval()


@dataclass(frozen=True)
class LeftOut:
    """A run that cannot be part of the ensemble, and why in one line."""

    name: str
    reason: str


def gather(
    runs: Sequence[Run], frontend_type: type[Frontend], runtime: Runtime
) -> tuple[tuple[Member, ...], tuple[LeftOut, ...]]:
    """Open the members; those that are broken or do not fit the first sound one are left out and named.

    Raises:
        SettingsError: fewer than two runs, or two of one name.
        RunError: fewer than two are left.
    """
    names = [run.name for run in runs]
    if len(runs) < 2:
        raise SettingsError("an ensemble takes at least two runs", hint="samo ensemble RUN RUN [RUN ...]")
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise SettingsError(f"two runs are called '{twice[0]}'", hint="name each run once, by folders of other names")
    members: list[Member] = []
    left_out: list[LeftOut] = []
    hints: list[str] = []
    for run in runs:
        try:
            member = _open(run, frontend_type, runtime)
            if members:
                _refuse_other_question(members[0], member, frontend_type)
            members.append(member)
        except (SamoError, OSError) as error:
            left_out.append(LeftOut(run.name, str(error)))
            hints += filter(None, [getattr(error, "hint", "")])
    if len(members) < 2:
        raise RunError(
            f"{len(members)} of {len(runs)} runs can be members of an ensemble, two are needed; left out: "
            + "; ".join(f"'{left.name}': {left.reason}" for left in left_out),
            hint=hints[0] if hints else "",
        )
    return tuple(members), tuple(left_out)


def common_split(members: Sequence[HasSplit], rule: str) -> Split:
    """The split of an ensemble: trained on what any member was, validated on what every member held out.

    Args:
        members: at least two.
        rule: one of :data:`WEIGHTS`.

    Raises:
        LeakError: a member learned from test items of another, or chose its best epoch on them.
        RunError: the test parts differ, or no item was held out by all.
        SettingsError: weights are to be fitted where members were validated on different items.
    """
    first = members[0]
    for other in members[1:]:
        refuse_other_test(first, other)
    learned = {name for member in members for name in member.split.train}
    held_out = {name for member in members for name in member.split.val} - learned
    strangers = [member.name for member in members if set(member.split.val) != set(first.split.val)]
    if strangers and rule == "fitted":
        raise SettingsError(
            f"`weights=fitted`: validated on other items than '{first.name}': {first_ten(strangers)}; a member looks "
            "better where its own best epoch was chosen, so the weights would measure that",
            hint="take `weights=equal`, or members of one `split_seed`, as `seeds` makes them",
        )
    if not held_out:
        raise RunError(
            f"no item is in the validation part of '{first.name}' or another member and in no member's training part",
            hint="take members of one `split_seed`, as `seeds` makes them",
        )
    leaky = next((member.split for member in members if member.split.leaky), first.split)
    return Split(
        leaky.rule, first.split.seed, tuple(sorted(learned)), tuple(sorted(held_out)), tuple(sorted(first.split.test))
    )


def _open(run: Run, frontend_type: type[Frontend], runtime: Runtime) -> Member:
    if run.is_busy():
        raise RunError("it is being written by another process")
    modality = run.settings["modality"]
    if modality != frontend_type.modality:
        raise RunError(f"it is a run of modality {modality}, not {frontend_type.modality}")
    if read_facts(run.model_file).ensemble:
        raise RunError("it is an ensemble itself; name its members instead")
    config = frontend_type.config_type.build({k: v for k, v in run.settings.items() if k != "modality"})
    model, space = load_run_model(run, frontend_type, runtime)
    manifest = run.manifest
    if space != manifest.label_space:
        raise RunError("its model answers with other labels than its manifest holds")
    return Member(run, config, model, manifest, run.split, decision_of(run, space))


def _refuse_other_question(first: Member, other: Member, frontend_type: type[Frontend]) -> None:
    """What makes a run unfit to answer beside the first."""
    refuse_other_data(first, other, "it")
    if frontend_type.packs(first.config) and frontend_type.packs(other.config):
        return
    wanted, given = (frontend_type.batch_settings(member.config, member.run.path(ASSETS)) for member in (first, other))
    differing = [f"{name} {given[name]}, not {value}" for name, value in wanted.items() if given[name] != value]
    if differing:
        raise RunError(f"it is fed differently than '{first.name}': {first_ten(differing)}")


def refuse_other_data(first: HasSplit, other: HasSplit, called: str) -> None:
    """Refuse one that was trained on other data or labels than the first.

    Args:
        first, other: the two.
        called: how the message calls the other.

    Raises:
        RunError: what differs.
    """
    spaces = [member.manifest.label_space for member in (first, other)]
    if spaces[0] != spaces[1]:
        labels = [first_ten(space.primary.labels) for space in spaces]
        raise RunError(f"{called} answers {labels[1]}; '{first.name}' answers {labels[0]}")
    if first.manifest.digest != other.manifest.digest:
        raise RunError(f"{called} was trained on other data than '{first.name}'")


def refuse_other_test(first: HasSplit, other: HasSplit) -> None:
    """Refuse two that were tested on different items.

    Raises:
        LeakError: one learned from test items of the other, or chose its best epoch on them.
        RunError: the test parts differ.
    """
    tests = [set(member.split.test) for member in (first, other)]
    hint = "members share one split: make them with `seeds`, or train with equal `split`, `fold` and `split_seed`"
    for tested, learner in ((first, other), (other, first)):
        test = set(tested.split.test)
        for part, did in (("train", "was trained on"), ("val", "chose its best epoch on")):
            known = sorted(test & set(learner.split.part(part)))
            if known:
                raise LeakError(
                    f"'{learner.name}' {did} {len(known)} of the {len(test)} test items of '{tested.name}', for "
                    f"example {', '.join(known[:3])}",
                    hint=hint,
                )
    if tests[0] != tests[1]:
        raise RunError(
            f"runs '{first.name}' and '{other.name}' have different test parts: {len(tests[0] & tests[1])} of "
            f"{len(tests[0])} items are in both",
            hint=hint,
        )
