"""Train, validation and test: no group (speaker) ever on two sides unless asked for and said so.

All draws order names by SHA-256 of the seed and the name, so a seed gives the same split on every machine and with
every version of every library.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from samo.data.copies import known_rows, refuse_known
from samo.data.grouping import (
    DRAWN_FOLDS,
    draw_folds,
    draw_groups,
    groups_of,
    rule_without_groups,
    shared_groups,
    stratum,
)
from samo.data.manifest import Item, Manifest
from samo.data.near_duplicates import find_copies
from samo.data.stratify import inseparable, rank, rarest_labels, stratify
from samo.errors import DataError, LeakError, RunError, SettingsError, counted, first_ten, plural
from samo.files import write_json
from samo.stored import Count, Stored, Text, read_stored

__all__ = [
    "PARTS",
    "SPLIT_RULES",
    "Split",
    "SplitRequest",
    "fold_count",
    "fold_warnings",
    "make_split",
    "part_sizes",
    "require_held_out",
    "sources_of",
    "split_notes",
]

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Item ids of the three parts and how they were drawn; ``dropped`` are training items left out as copies."""

    rule: str
    seed: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    dropped: tuple[str, ...] = ()

    @property
    def leaky(self) -> bool:
        """Whether groups may stand on two sides, so that scores are too good."""
        return self.rule == "random"

    def part(self, name: str) -> tuple[str, ...]:
        """The ids of ``train``, ``val`` or ``test``."""
        if name not in PARTS:
            raise SettingsError(f"unknown part '{name}' of the split", hint=f"valid: {', '.join(PARTS)}")
        ids: tuple[str, ...] = getattr(self, name)
        return ids

    def save(self, path: Path) -> None:
        """Write ``split.json``."""
        data = asdict(self)
        write_json(path, data if self.dropped else {name: value for name, value in data.items() if name != "dropped"})

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read ``split.json``."""
        try:
            stored = read_stored(path, _StoredSplit)
            return cls(stored.rule, stored.seed, stored.train, stored.val, stored.test, stored.dropped)
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read the split {path}: {error}") from error


class _StoredSplit(Stored):
    rule: Text
    seed: Count
    train: tuple[Text, ...]
    val: tuple[Text, ...]
    test: tuple[Text, ...]
    dropped: tuple[Text, ...] = ()


@dataclass(frozen=True)
class SplitRequest:
    """What a rule may need to know: ratios in (0, 1) of groups or rows, fold number, seed.

    ``num_folds`` is how many are drawn: 0 those the corpus publishes, else five; -1 one for each group.
    ``limit_fraction`` in (0, 1] is the share of the training groups (rows where none are known) that is kept.
    ``drop_leaked`` leaves out training items of which validation or test has a copy or near copy.
    """

    rule: str
    train_ratio: float = 0.8
    val_ratio: float = 0.1
    fold: int = 0
    seed: int = 0
    limit_fraction: float = 1.0
    drop_leaked: bool = False
    num_folds: int = 0


def make_split(manifest: Manifest, request: SplitRequest) -> Split:
    """Split a manifest by one of :data:`SPLIT_RULES`.

    Raises:
        SettingsError: unknown rule or fold.
        DataError: too few groups, unknown groups, or an empty part.
        LeakError: the corpus' own split shares groups between parts; or too many texts of validation or test stand in
            train, see :data:`samo.data.copies.REFUSED_SHARE`.
    """
    if request.rule not in SPLIT_RULES:
        raise SettingsError(f"unknown split '{request.rule}'", hint=f"valid: {', '.join(SPLIT_RULES)}")
    parts = SPLIT_RULES[request.rule](manifest, request)
    dropped = _leaked(parts) if request.drop_leaked else frozenset()
    parts["train"] = [item for item in parts["train"] if item.id not in dropped]
    for name, items in parts.items():
        if not items and request.rule != "whole":
            raise DataError(f"the {name} part of split '{request.rule}' is empty", hint=_why_empty(manifest, request))
    parts["train"] = _limited(manifest, parts["train"], request)
    _refuse_unseen_classes(manifest, parts["train"], request)
    ids = {name: tuple(sorted(item.id for item in items)) for name, items in parts.items()}
    split = Split(request.rule, request.seed, ids["train"], ids["val"], ids["test"], tuple(sorted(dropped)))
    if manifest.copies == "reported" and not split.leaky:
        _refuse_copies(manifest, split)
    return split


def require_held_out(rule: str, purpose: str) -> None:
    """Refuse a split that leaves nothing to evaluate a model on, for a purpose that needs it.

    Raises:
        SettingsError: the rule trains on everything.
    """
    if rule == "whole":
        raise SettingsError(
            f"`split=whole` trains on everything and leaves nothing to {purpose}", hint="choose another `split`"
        )


def split_by_group(manifest: Manifest, request: SplitRequest) -> dict[str, list[Item]]:
    """Groups drawn at random, the draw whose parts look most alike in class (and gender) taken."""
    groups, noun = groups_of(manifest), manifest.group_noun
    if len(groups) < len(PARTS):
        raise DataError(
            f"{manifest.dataset} has {counted(len(groups), noun)}; a split by {noun} needs at least three",
            hint=f"add more {noun}s, or use {rule_without_groups(manifest)}",
        )
    n = len(groups)
    n_val = min(max(1, round(request.val_ratio * n)), n - 2)
    n_test = min(max(1, round((1.0 - request.train_ratio - request.val_ratio) * n)), n - 1 - n_val)
    return draw_groups(groups, {"test": n_test, "val": n_val, "train": n - n_test - n_val}, request.seed)


def split_by_fold(manifest: Manifest, request: SplitRequest) -> dict[str, list[Item]]:
    """Test on one fold of groups; validate on other groups, train on the rest.

    Corpora without published folds get five, or ``num_folds``, the same for every seed.
    Strings without groups get as many folds stratified by label.
    """
    n_folds = fold_count(manifest, request.num_folds)
    if request.fold >= n_folds:
        raise SettingsError(f"fold {request.fold} does not exist", hint=f"valid: 0 to {n_folds - 1}")
    if manifest.copies == "reported" and not any(item.group for item in manifest.items):
        return _stratified_fold(manifest, request, n_folds)
    groups, noun = groups_of(manifest), manifest.group_noun
    published = manifest.folds if not request.num_folds else ()
    folds = published or draw_folds(groups, noun, n_folds)
    in_test = [name for name in groups if name in folds[request.fold]]
    if not in_test:
        raise DataError(f"no {noun} of fold {request.fold} is in the data: {first_ten(sorted(folds[request.fold]))}")
    rest = {name: items for name, items in groups.items() if name not in folds[request.fold]}
    if len(rest) < 2:
        raise DataError(
            f"fold {request.fold} leaves {counted(len(rest), noun)} to train and validate on; two are needed"
        )
    n_val = min(len(rest) - 1, max(1, round(request.val_ratio * len(groups))))
    parts = draw_groups(rest, {"val": n_val, "train": len(rest) - n_val}, request.seed)
    return {**parts, "test": [item for name in in_test for item in groups[name]]}


def fold_count(manifest: Manifest, num_folds: int = 0) -> int:
    """How many folds ``split=folds`` knows: as many as asked for, one for each group (-1), or (0) those the corpus
    publishes, else five.

    Raises:
        DataError: one for each group is asked for, and items have none.
    """
    if num_folds < 0:
        return len(groups_of(manifest))
    return num_folds or len(manifest.folds) or DRAWN_FOLDS


def fold_warnings(manifest: Manifest, rule: str) -> list[str]:
    """A line when groups of the published folds are missing, so that nobody compares with what others published."""
    published: frozenset[str] = frozenset().union(*manifest.folds)
    missing = published - {item.group for item in manifest.items}
    if rule != "folds" or not missing:
        return []
    return [
        f"{len(missing)} of {len(published)} {manifest.group_noun}s of the published folds are missing: "
        "scores are not comparable with published ones"
    ]


def split_at_random(manifest: Manifest, request: SplitRequest) -> dict[str, list[Item]]:
    """Rows at random within each class; speakers stand on all sides, hence leaky.

    What rounding takes from one class is given by the next, so that the ratios hold also over many small classes;
    each class keeps at least one row to train on.
    """
    test_ratio = 1.0 - request.train_ratio - request.val_ratio
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    by_class: dict[str, list[Item]] = defaultdict(list)
    for item in manifest.items:
        by_class[stratum(item)].append(item)
    seen = 0
    for items in by_class.values():
        ordered = sorted(items, key=lambda item: rank(request.seed, item.id))
        seen += len(ordered)
        n_val = min(round(request.val_ratio * seen) - len(parts["val"]), len(ordered) - 1)
        n_test = min(round(test_ratio * seen) - len(parts["test"]), len(ordered) - 1 - n_val)
        parts["val"] += ordered[:n_val]
        parts["test"] += ordered[n_val : n_val + n_test]
        parts["train"] += ordered[n_val + n_test :]
    return parts


def split_stratified(manifest: Manifest, request: SplitRequest) -> dict[str, list[Item]]:
    """Every part with its share of every label; items of one group, and texts nearly alike, stay together."""
    test_ratio = 1.0 - request.train_ratio - request.val_ratio
    shares = {"train": request.train_ratio, "val": request.val_ratio, "test": test_ratio}
    return stratify(_units(manifest, manifest.items), shares, request.seed, first="train")


def _stratified_fold(manifest: Manifest, request: SplitRequest, n_folds: int) -> dict[str, list[Item]]:
    """One of several stratified folds, the same for every seed, to test on; the rest drawn under the seed."""
    shares = {str(k): 1.0 / n_folds for k in range(n_folds)}
    folds = stratify(_units(manifest, manifest.items), shares, seed=0)
    test = folds.pop(str(request.fold))
    return {**_train_and_val(manifest, [item for items in folds.values() for item in items], request), "test": test}


def _units(manifest: Manifest, items: Sequence[Item]) -> list[list[Item]]:
    """Items that stay together; only where sources are the content do they say what is alike."""
    return inseparable(items, near=manifest.copies == "reported")


def _why_empty(manifest: Manifest, request: SplitRequest) -> str:
    """Too few items, or what stays together where a rule deals out sets of them; of a table's own split what to do."""
    if request.rule == "table":
        return "mark rows as train, val and test in the split column"
    n, noun = len(manifest.items), "text" if manifest.copies == "reported" else "clip"
    too_few = f"{counted(n, noun)} {plural('is', n, 'are')} too few for three parts"
    if request.rule == "random":
        return too_few
    if request.rule not in ("stratified", "folds") or manifest.copies != "reported":
        return ""
    largest = max(map(len, _units(manifest, manifest.items)))
    if largest == 1:
        return too_few
    return f"{largest:,} of {len(manifest.items):,} texts stay together, as one group or as near copies of each other"


def _train_and_val(manifest: Manifest, items: list[Item], request: SplitRequest) -> dict[str, list[Item]]:
    """Validation of ``val_ratio`` to ``train_ratio``, stratified by label."""
    share = request.val_ratio / (request.train_ratio + request.val_ratio)
    return stratify(_units(manifest, items), {"train": 1.0 - share, "val": share}, request.seed, first="train")


def split_by_column(manifest: Manifest, request: SplitRequest) -> dict[str, list[Item]]:
    """The split the corpus itself assigns; refused when a group stands in two parts.

    With train and test alone a validation part is drawn from train: of strings stratified by label, else by group.
    """
    unassigned = [item.id for item in manifest.items if item.split not in PARTS]
    if unassigned:
        raise DataError(
            f"{manifest.dataset} assigns none of {', '.join(PARTS)} to: {first_ten(unassigned)}",
            hint=f"fill the split column, name it with `split_column`, or use `split={_own_rule(manifest)}`",
        )
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    for item in manifest.items:
        parts[item.split].append(item)
    shared = shared_groups(parts)
    if shared:
        raise LeakError(
            f"{manifest.group_noun}s stand in two splits: {first_ten(shared.values())}",
            hint=f"correct the split column, or let SAMO split with `split={_own_rule(manifest)}`",
        )
    if parts["val"] or not parts["train"] or not parts["test"]:
        return parts
    if manifest.copies == "reported":
        return {**parts, **_train_and_val(manifest, parts["train"], request)}
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in parts["train"]:
        groups[item.group].append(item)
    if "" in groups or len(groups) < 2:
        return parts
    n_val = max(1, round(request.val_ratio / (request.train_ratio + request.val_ratio) * len(groups)))
    return {**parts, **draw_groups(groups, {"val": n_val, "train": len(groups) - n_val}, request.seed)}


def no_split(manifest: Manifest, request: SplitRequest) -> dict[str, list[Item]]:
    """Everything to train on, for a model that is used and not judged; what it is worth others trained alike say."""
    return {"train": list(manifest.items), "val": [], "test": []}


SPLIT_RULES: dict[str, Callable[[Manifest, SplitRequest], dict[str, list[Item]]]] = {
    "speaker": split_by_group,
    "group": split_by_group,
    "folds": split_by_fold,
    "random": split_at_random,
    "stratified": split_stratified,
    "table": split_by_column,
    "whole": no_split,
}


def part_sizes(manifest: Manifest, ids: Sequence[str], item: str, group: str) -> dict[str, int]:
    """How many items and groups, by their nouns; without groups where none is known.

    Args:
        manifest: that holds the items.
        ids: those of a part.
        item: what an item is called.
        group: what a group is called.
    """
    groups = {manifest.items[row].group for row in manifest.rows(ids)} - {""}
    return {item: len(ids), **({group: len(groups)} if groups else {})}


def split_notes(manifest: Manifest, split: Split) -> list[str]:
    """Lines on how a split came to be that a reader of its scores should know."""
    notes = fold_warnings(manifest, split.rule)
    if split.rule == "table" and all(item.split != "val" for item in manifest.items):
        notes.append(f"{manifest.dataset} has no validation rows: {len(split.val):,} were drawn from its training rows")
    if split.dropped:
        notes.append(f"{len(split.dropped):,} training rows were left out, as validation or test has copies of them")
    return notes


def sources_of(manifest: Manifest, split: Split) -> dict[str, tuple[str, ...]]:
    """The texts of each part."""
    return {part: tuple(manifest.items[row].source for row in manifest.rows(split.part(part))) for part in PARTS}


def _refuse_copies(manifest: Manifest, split: Split) -> None:
    sources = sources_of(manifest, split)
    for part in ("val", "test"):
        refuse_known(
            known_rows(sources[part], sources["train"]),
            split.part(part),
            f"the {split.rule} split leaks: train also has of {part}",
            "`drop_leaked` leaves them out of training; `split=stratified` keeps copies together",
        )


def _leaked(parts: dict[str, list[Item]]) -> frozenset[str]:
    """Ids of training items of which validation or test has a copy or near copy."""
    held_out = tuple(item.source for part in ("val", "test") for item in parts[part])
    copies = find_copies(tuple(item.source for item in parts["train"]), held_out)
    return frozenset(parts["train"][row].id for row in copies.all)


def _limited(manifest: Manifest, items: list[Item], request: SplitRequest) -> list[Item]:
    """A share of the training groups, or of the rows of each class where no groups are known; larger shares hold
    smaller ones, and genders (or classes) are kept in proportion.
    """
    if request.limit_fraction >= 1.0:
        return items
    # Sets of several labels are too many for strata of their own.
    rarest = rarest_labels(items) if manifest.copies == "reported" else {}
    by_unit: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_unit[item.group if request.rule != "random" and item.group else f"row {item.id}"].append(item)
    strata: dict[str, list[str]] = defaultdict(list)
    for unit in sorted(by_unit, key=lambda name: rank(request.seed, f"limit:{name}")):
        first = by_unit[unit][0]
        own = rarest[first.id] if rarest else stratum(first)
        strata[first.meta.get("gender", "") if first.group == unit else own].append(unit)
    # The k-th of n in a stratum stands at (k + 1/2) / n, so that every share takes alike from all strata.
    places = {unit: ((k + 0.5) / len(units), name) for name, units in strata.items() for k, unit in enumerate(units)}
    n_kept = max(1, round(request.limit_fraction * len(by_unit)))
    kept = sorted(by_unit, key=lambda unit: places[unit])[:n_kept]
    return [item for unit in kept for item in by_unit[unit]]


def _own_rule(manifest: Manifest) -> str:
    """The rule for a corpus whose own split will not do."""
    return "stratified" if manifest.copies == "reported" else "speaker"


def _classes(items: Iterable[Item]) -> set[tuple[str, str]]:
    """Task and label of every class that occurs."""
    return {(task, label) for item in items for task, labels in item.labels.items() for label in labels}


def _refuse_unseen_classes(manifest: Manifest, train: Iterable[Item], request: SplitRequest) -> None:
    seen, known = _classes(train), _classes(manifest.items)
    for task in manifest.label_space.tasks:
        unseen = [label for label in task.labels if (task.name, label) not in seen]
        nowhere = [label for label in unseen if (task.name, label) not in known]
        if nowhere:
            raise DataError(
                f"no item of {manifest.dataset} in {manifest.root} has the class: {first_ten(nowhere)}",
                hint="complete the corpus; or list it in a table (`dataset=table`), whose classes are those it names",
            )
        if unseen:
            raise DataError(
                f"the training split has no example of: {first_ten(unseen)}",
                hint="a class without examples cannot be learned; "
                + (
                    "a larger `limit_fraction` keeps more of them"
                    if request.limit_fraction < 1.0
                    else "another `seed` or a larger `train_ratio` may help"
                ),
            )
