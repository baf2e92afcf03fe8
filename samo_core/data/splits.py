"""Train, validation and test: no group (speaker) ever on two sides unless asked for and said so.

All draws order names by SHA-256 of the seed and the name, so a seed gives the same split on every machine and with
every version of every library.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from samo_core.data.manifest import Item, Manifest
from samo_core.errors import DataError, LeakError, RunError, SettingsError, first_few, first_ten
from samo_core.files import write_json

__all__ = [
    "PARTS",
    "SPLIT_RULES",
    "Split",
    "SplitRequest",
    "audit",
    "find_leaks",
    "fold_count",
    "fold_warnings",
    "make_split",
]

PARTS = ("train", "val", "test")
# More tries hardly improve the balance of the few dozen speakers a corpus has.
CANDIDATES = 200
# Folds of a corpus that publishes none.
DRAWN_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Item ids of the three parts and how they were drawn."""

    rule: str
    seed: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

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
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read ``split.json``."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(data["rule"], int(data["seed"]), *(tuple(data[part]) for part in PARTS))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"cannot read the split {path}: {error}") from error


@dataclass(frozen=True)
class SplitRequest:
    """What a rule may need to know: ratios in (0, 1) of groups or rows, fold number, seed.

    ``limit_fraction`` in (0, 1] is the share of the training groups (rows where none are known) that is kept.
    """

    rule: str
    train_ratio: float = 0.8
    val_ratio: float = 0.1
    fold: int = 0
    seed: int = 0
    limit_fraction: float = 1.0


def make_split(manifest: Manifest, request: SplitRequest) -> Split:
    """Split a manifest by one of :data:`SPLIT_RULES`.

    Raises:
        SettingsError: unknown rule or fold.
        DataError: too few groups, unknown groups, or an empty part.
        LeakError: the corpus' own split shares groups between parts.
    """
    if request.rule not in SPLIT_RULES:
        raise SettingsError(f"unknown split '{request.rule}'", hint=f"valid: {', '.join(SPLIT_RULES)}")
    parts = SPLIT_RULES[request.rule](manifest, request)
    for name, items in parts.items():
        if not items:
            raise DataError(f"the {name} part of split '{request.rule}' is empty")
    parts["train"] = _limited(parts["train"], request)
    _refuse_unseen_classes(manifest, parts["train"])
    ids = {name: tuple(sorted(item.id for item in items)) for name, items in parts.items()}
    return Split(request.rule, request.seed, ids["train"], ids["val"], ids["test"])


def split_by_group(manifest: Manifest, request: SplitRequest) -> dict[str, list[Item]]:
    """Groups drawn at random, the draw whose parts look most alike in class (and gender) taken."""
    groups = _grouped(manifest)
    if len(groups) < len(PARTS):
        raise DataError(
            f"{manifest.dataset} has {len(groups)} speakers; a split by speaker needs at least three",
            hint="record more speakers, or use --split random, whose scores are stamped as leaky",
        )
    n = len(groups)
    n_val = min(max(1, round(request.val_ratio * n)), n - 2)
    n_test = min(max(1, round((1.0 - request.train_ratio - request.val_ratio) * n)), n - 1 - n_val)
    return _draw(groups, {"test": n_test, "val": n_val, "train": n - n_test - n_val}, request.seed)


def split_by_fold(manifest: Manifest, request: SplitRequest) -> dict[str, list[Item]]:
    """Test on one fold of groups; validate on other groups, train on the rest.

    Corpora without published folds get five, drawn from the names alone so that a fold is the same for every seed.
    """
    groups = _grouped(manifest)
    folds = manifest.folds or _five_folds(groups)
    if request.fold >= len(folds):
        raise SettingsError(f"fold {request.fold} does not exist", hint=f"valid: 0 to {len(folds) - 1}")
    in_test = [name for name in groups if name in folds[request.fold]]
    if not in_test:
        raise DataError(f"no speaker of fold {request.fold} is in the data: {first_ten(sorted(folds[request.fold]))}")
    rest = {name: items for name, items in groups.items() if name not in folds[request.fold]}
    if len(rest) < 2:
        raise DataError(f"fold {request.fold} leaves {len(rest)} speakers to train and validate on; two are needed")
    n_val = min(len(rest) - 1, max(1, round(request.val_ratio * len(groups))))
    parts = _draw(rest, {"val": n_val, "train": len(rest) - n_val}, request.seed)
    return {**parts, "test": [item for name in in_test for item in groups[name]]}


def fold_count(manifest: Manifest) -> int:
    """How many folds ``--split folds`` knows: those the corpus publishes, else five."""
    return len(manifest.folds) or DRAWN_FOLDS


def fold_warnings(manifest: Manifest, rule: str) -> list[str]:
    """A line when groups of the published folds are missing, so that nobody compares with what others published."""
    published: frozenset[str] = frozenset().union(*manifest.folds)
    missing = published - {item.group for item in manifest.items}
    if rule != "folds" or not missing:
        return []
    return [
        f"{len(missing)} of {len(published)} speakers of the published folds are missing: "
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
        by_class[_stratum(item)].append(item)
    seen = 0
    for items in by_class.values():
        ordered = sorted(items, key=lambda item: _rank(request.seed, item.id))
        seen += len(ordered)
        n_val = min(round(request.val_ratio * seen) - len(parts["val"]), len(ordered) - 1)
        n_test = min(round(test_ratio * seen) - len(parts["test"]), len(ordered) - 1 - n_val)
        parts["val"] += ordered[:n_val]
        parts["test"] += ordered[n_val : n_val + n_test]
        parts["train"] += ordered[n_val + n_test :]
    return parts


def split_by_column(manifest: Manifest, request: SplitRequest) -> dict[str, list[Item]]:
    """The split the corpus itself assigns; refused when a group stands in two parts."""
    unassigned = [item.id for item in manifest.items if item.split not in PARTS]
    if unassigned:
        raise DataError(
            f"{manifest.dataset} assigns none of {', '.join(PARTS)} to: {first_ten(unassigned)}",
            hint="fill the split column, name it with --split-column, or use --split speaker",
        )
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    for item in manifest.items:
        parts[item.split].append(item)
    shared = _shared_groups(parts)
    if shared:
        raise LeakError(
            f"speakers stand in two splits: {first_ten(shared)}",
            hint="correct the split column, or let SAMO split with --split speaker",
        )
    return parts


SPLIT_RULES: dict[str, Callable[[Manifest, SplitRequest], dict[str, list[Item]]]] = {
    "speaker": split_by_group,
    "folds": split_by_fold,
    "random": split_at_random,
    "table": split_by_column,
}


def find_leaks(manifest: Manifest, split: Split) -> list[str]:
    """One line for each group or content that stands in two parts of the split, with the files."""
    parts = {name: [manifest.items[row] for row in manifest.rows(split.part(name))] for name in PARTS}
    leaks = []
    for group in _shared_groups(parts):
        firsts = {name: next((i.source for i in items if i.group == group), "") for name, items in parts.items()}
        examples = ", ".join(f"{source} ({name})" for name, source in firsts.items() if source)
        leaks.append(f"speaker {group} is in more than one part: {examples}")
    homes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, items in parts.items():
        for item in items:
            homes[item.content or f"id {item.id}"].append((name, item.source))
    for places in homes.values():
        if len({name for name, _ in places}) > 1:
            leaks.append("identical content: " + " = ".join(f"{source} ({name})" for name, source in places))
    return leaks


def audit(manifest: Manifest, split: Split) -> list[str]:
    """Refuse a split that leaks; return the leaks of a split that was asked to be leaky.

    Raises:
        LeakError: names the files or groups on both sides.
    """
    leaks = find_leaks(manifest, split)
    if leaks and not split.leaky:
        raise LeakError(
            f"the {split.rule} split leaks: {first_ten(leaks)}",
            hint="remove the copies, or give them the same speaker",
        )
    return leaks


def _limited(items: list[Item], request: SplitRequest) -> list[Item]:
    """A share of the training groups, or of the rows of each class where no groups are known; larger shares hold
    smaller ones, and genders (or classes) are kept in proportion.
    """
    if request.limit_fraction >= 1.0:
        return items
    by_unit: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_unit[item.group if request.rule != "random" and item.group else f"row {item.id}"].append(item)
    strata: dict[str, list[str]] = defaultdict(list)
    for unit in sorted(by_unit, key=lambda name: _rank(request.seed, f"limit:{name}")):
        first = by_unit[unit][0]
        strata[first.meta.get("gender", "") if first.group == unit else _stratum(first)].append(unit)
    # The k-th of n in a stratum stands at (k + 1/2) / n, so that every share takes alike from all strata.
    places = {unit: ((k + 0.5) / len(units), name) for name, units in strata.items() for k, unit in enumerate(units)}
    n_kept = max(1, round(request.limit_fraction * len(by_unit)))
    kept = sorted(by_unit, key=lambda unit: places[unit])[:n_kept]
    return [item for unit in kept for item in by_unit[unit]]


def _grouped(manifest: Manifest) -> dict[str, list[Item]]:
    unknown = [item.id for item in manifest.items if not item.group]
    if unknown:
        raise DataError(
            f"no speaker is known for {len(unknown)} of {len(manifest.items)} items: {first_few(unknown, 2)}",
            hint=f"{manifest.group_hint or 'name the speakers'}; or use --split random, stamped as leaky",
        )
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in manifest.items:
        groups[item.group].append(item)
    return dict(sorted(groups.items()))


def _draw(groups: dict[str, list[Item]], sizes: dict[str, int], seed: int) -> dict[str, list[Item]]:
    """Assign groups to parts of the given sizes; of many draws take the one with the most equal class shares."""
    strata = {name: Counter(_stratum(item) for item in items) for name, items in groups.items()}
    total: Counter[str] = sum(strata.values(), Counter())
    best: tuple[float, dict[str, list[str]]] | None = None
    for candidate in range(CANDIDATES):
        ordered = sorted(groups, key=lambda name: _rank(seed, f"{candidate}:{name}"))
        parts, start = {}, 0
        for part, size in sizes.items():
            parts[part] = ordered[start : start + size]
            start += size
        error = sum(_imbalance(parts[part], strata, total, len(groups)) for part in sizes)
        if best is None or error < best[0] - 1e-12:
            best = (error, parts)
    assert best is not None
    return {part: [item for name in sorted(names) for item in groups[name]] for part, names in best[1].items()}


def _imbalance(names: Sequence[str], strata: dict[str, Counter[str]], total: Counter[str], n_groups: int) -> float:
    """Squared distance between a part's class counts and its fair share of them (chi-square like)."""
    counts: Counter[str] = sum((strata[name] for name in names), Counter())
    share = len(names) / n_groups
    return sum((counts[key] - share * n) ** 2 / (share * n) for key, n in total.items())


def _five_folds(groups: Iterable[str]) -> tuple[frozenset[str], ...]:
    ordered = sorted(groups, key=lambda name: _rank(0, name))
    if len(ordered) < DRAWN_FOLDS:
        raise DataError(f"five folds need at least five speakers, found {len(ordered)}")
    return tuple(frozenset(ordered[k::DRAWN_FOLDS]) for k in range(DRAWN_FOLDS))


def _stratum(item: Item) -> str:
    """What a split is balanced over: the labels, and the gender where it is known."""
    labels = ",".join(f"{task}={'+'.join(sorted(names))}" for task, names in sorted(item.labels.items()))
    return f"{labels}|{item.meta.get('gender', '')}"


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode(errors="surrogateescape")).digest()


def _shared_groups(parts: dict[str, list[Item]]) -> list[str]:
    homes: dict[str, set[str]] = defaultdict(set)
    for name, items in parts.items():
        for item in items:
            if item.group:
                homes[item.group].add(name)
    return sorted(group for group, names in homes.items() if len(names) > 1)


def _classes(items: Iterable[Item]) -> set[tuple[str, str]]:
    """Task and label of every class that occurs."""
    return {(task, label) for item in items for task, labels in item.labels.items() for label in labels}


def _refuse_unseen_classes(manifest: Manifest, train: Iterable[Item]) -> None:
    seen, known = _classes(train), _classes(manifest.items)
    for task in manifest.label_space.tasks:
        unseen = [label for label in task.labels if (task.name, label) not in seen]
        nowhere = [label for label in unseen if (task.name, label) not in known]
        if nowhere:
            raise DataError(
                f"no item of {manifest.dataset} in {manifest.root} has the class: {first_ten(nowhere)}",
                hint="complete the corpus; or list it in a table (--dataset table), whose classes are those it names",
            )
        if unseen:
            raise DataError(
                f"the training split has no example of: {first_ten(unseen)}",
                hint="another --seed or a larger --train-ratio may help; a class without examples cannot be learned",
            )
