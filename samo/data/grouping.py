"""Drawing parts out of whole groups, as alike in class as the groups allow."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from samo.data.keys import key
from samo.data.manifest import Item, Manifest
from samo.data.stratify import rank
from samo.errors import DataError, first_few

__all__ = ["DRAWN_FOLDS", "draw_folds", "draw_groups", "groups_of", "rule_without_groups", "shared_groups", "stratum"]

# More tries hardly improve the balance of the few dozen speakers a corpus has.
CANDIDATES = 200
# Folds of a corpus that publishes none.
DRAWN_FOLDS = 5
MOST_FOLDS = 100


def groups_of(manifest: Manifest) -> dict[str, list[Item]]:
    """Items by group, sorted by name.

    Raises:
        DataError: items without a group.
    """
    unknown = [item.id for item in manifest.items if not item.group]
    if unknown:
        noun, n = manifest.group_noun, len(manifest.items)
        raise DataError(
            f"no {noun} is known for {len(unknown)} of {n} items: {first_few(unknown, 2)}",
            hint=f"{manifest.group_hint or f'name the {noun}s'}; or use {rule_without_groups(manifest)}",
        )
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in manifest.items:
        groups[item.group].append(item)
    return dict(sorted(groups.items()))


def rule_without_groups(manifest: Manifest) -> str:
    """The rule that needs no groups."""
    return "`split=stratified`" if manifest.copies == "reported" else "`split=random`, stamped as leaky"


def draw_groups(groups: dict[str, list[Item]], sizes: dict[str, int], seed: int) -> dict[str, list[Item]]:
    """Assign groups to parts of the given sizes.

    Of many draws the one is taken whose parts lack the fewest classes, training before the others; of those the one
    with the most equal class shares.
    """
    strata = {name: Counter(stratum(item) for item in items) for name, items in groups.items()}
    total: Counter[str] = sum(strata.values(), Counter())
    classes = {name: _classes(items) for name, items in groups.items()}
    best: tuple[tuple[int, int], float, dict[str, list[str]]] | None = None
    for candidate in range(CANDIDATES):
        ordered = sorted(groups, key=lambda name: rank(seed, f"{candidate}:{name}"))
        parts, start = {}, 0
        for part, size in sizes.items():
            parts[part] = ordered[start : start + size]
            start += size
        error = sum(_imbalance(parts[part], strata, total, len(groups)) for part in sizes)
        lacking = {part: _lacking(names, classes) for part, names in parts.items()}
        missing = lacking.get("train", 0), sum(lacking.values())
        if best is None or missing < best[0] or (missing == best[0] and error < best[1] - 1e-12):
            best = (missing, error, parts)
    assert best is not None
    return {part: [item for name in sorted(names) for item in groups[name]] for part, names in best[2].items()}


def _classes(items: Iterable[Item]) -> frozenset[tuple[str, str]]:
    """Task and label of every class that occurs."""
    return frozenset((task, label) for item in items for task, labels in item.labels.items() for label in labels)


def _lacking(names: Iterable[str], classes: Mapping[str, frozenset[tuple[str, str]]]) -> int:
    """How many of all groups' classes these groups have not."""
    own: frozenset[tuple[str, str]] = frozenset().union(*(classes[name] for name in names))
    return len(frozenset().union(*classes.values()) - own)


def _imbalance(names: Sequence[str], strata: dict[str, Counter[str]], total: Counter[str], n_groups: int) -> float:
    """Squared distance between a part's class counts and its fair share of them (chi-square like)."""
    counts: Counter[str] = Counter()
    for name in names:
        counts.update(strata[name])
    share = len(names) / n_groups
    return sum((counts[key] - share * n) ** 2 / (share * n) for key, n in total.items())


def draw_folds(groups: Mapping[str, Sequence[Item]], noun: str, n: int = DRAWN_FOLDS) -> tuple[frozenset[str], ...]:
    """Folds of about as many groups each, the same for every seed.

    They are drawn from the names of the groups; where a fold then lacks a class, of many further draws the one is taken
    that lacks fewest (the first of them).

    Args:
        groups: items by group.
        noun: what a group is, for messages.
        n: how many folds.

    Raises:
        DataError: fewer groups than folds, or more than 100 folds.
    """
    if len(groups) < n:
        few = f"`num_folds={len(groups)}` leaves one {noun} out at a time" if len(groups) > 2 else f"add more {noun}s"
        words = "five folds" if n == DRAWN_FOLDS else f"{n} folds"
        raise DataError(
            f"{words} need at least {'five' if n == DRAWN_FOLDS else n} {noun}s, found {len(groups)}", hint=few
        )
    if n > MOST_FOLDS:
        raise DataError(f"{n} {noun}s make more than {MOST_FOLDS} folds", hint="set `num_folds`")
    classes = {name: _classes(items) for name, items in groups.items()}
    best: tuple[int, tuple[frozenset[str], ...]] | None = None
    for candidate in range(CANDIDATES if n < len(groups) else 1):
        ordered = sorted(groups, key=lambda name: rank(0, f"{candidate}:{name}" if candidate else name))
        folds = tuple(frozenset(ordered[k::n]) for k in range(n))
        missing = sum(_lacking(fold, classes) for fold in folds)
        if best is None or missing < best[0]:
            best = (missing, folds)
        if not missing:
            break
    assert best is not None
    return best[1]


def stratum(item: Item) -> str:
    """What a split is balanced over: the labels, and the gender where it is known."""
    labels = ",".join(f"{task}={'+'.join(sorted(names))}" for task, names in sorted(item.labels.items()))
    return f"{labels}|{item.meta.get('gender', '')}"


def shared_groups(parts: dict[str, list[Item]]) -> dict[str, str]:
    """Groups that stand in several parts, however they are spelled there: key and spellings, sorted."""
    homes: dict[str, set[str]] = defaultdict(set)
    spellings: dict[str, set[str]] = defaultdict(set)
    for name, items in parts.items():
        for group in {item.group for item in items}:
            homes[key(group)].add(name)
            spellings[key(group)].add(group)
    shared = {group: " = ".join(sorted(spellings[group])) for group, names in homes.items() if len(names) > 1}
    return {group: names for group, names in sorted(shared.items(), key=lambda pair: pair[1]) if group}
