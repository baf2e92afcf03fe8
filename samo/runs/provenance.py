"""What a model learned from, through start weights and encoders too, and whether it knows what it is evaluated on.

A model file says so in its header: of each training behind it the groups and the contents it learned from and was
selected on, as hashes, so that no name of a person is published with a model. It says so wherever the file is copied.
Weights that were written anew (as ``.pt``, or as the folder of an encoder) are recognised by their tensors, as long as
the run they come from is there.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samo.data.copies import REFUSED_SHARE, STAMPED_SHARE
from samo.data.keys import key
from samo.data.manifest import Item, Manifest
from samo.data.splits import PARTS, Split
from samo.errors import LeakError, ModelFileError, first_few, first_ten
from samo.runs.origin import STARTS, began_with, run_with, weight_files
from samo.runs.run import Run
from samo.training.checkpoint import read_about

__all__ = [
    "Learned",
    "about_known_elsewhere",
    "about_known_groups",
    "about_names",
    "about_start_weights",
    "fingerprint_of",
    "known_groups",
    "known_items",
    "learned_by",
    "learned_by_start",
    "refuse_known",
    "refuse_known_start",
]


@dataclass(frozen=True)
class Learned:
    """What one training learned from, as :func:`fingerprint_of` of names and contents.

    Attributes:
        dataset: the corpus.
        groups: by part (``train``, and ``val``, which chose the epoch).
        contents: of its items, by part.
        origin: name of the user's own table or folder; empty where ``dataset`` says all, and in models of earlier
            versions.
    """

    dataset: str
    groups: Mapping[str, frozenset[bytes]]
    contents: Mapping[str, frozenset[bytes]]
    origin: str = ""

    def __hash__(self) -> int:
        return hash((self.dataset, *self.contents.values()))

    @classmethod
    def of(cls, manifest: Manifest, split: Split) -> Learned:
        """That of a training on a split."""
        items = {part: [manifest.items[row] for row in manifest.rows(split.part(part))] for part in PARTS}
        groups = {part: frozenset(_group(item) for item in own if item.group) for part, own in items.items()}
        contents = {
            part: frozenset(fingerprint_of(item.content) for item in own if item.content) for part, own in items.items()
        }
        if manifest.copies == "reported":
            # Short texts stand on both sides of a corpus' own split; they say nothing about whose split it is.
            hidden = contents["test"]
            contents = {"val": contents["val"] - hidden, "train": contents["train"] - hidden - contents["val"]}
        groups, contents = ({part: found[part] for part in ("train", "val")} for found in (groups, contents))
        return cls(manifest.dataset, groups, contents, manifest.origin)

    def to_json(self) -> dict[str, Any]:
        """Strings only, the hashes in base64."""
        return {
            "dataset": self.dataset,
            **({"origin": self.origin} if self.origin else {}),
            **{
                name: {part: base64.b64encode(b"".join(sorted(own))).decode() for part, own in found.items()}
                for name, found in (("groups", self.groups), ("contents", self.contents))
            },
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Learned:
        """What :meth:`to_json` gave.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: it is nothing of that kind.
        """

        def read(name: str) -> dict[str, frozenset[bytes]]:
            whole = {part: base64.b64decode(text) for part, text in stored[name].items()}
            return {part: frozenset(own[at : at + 8] for at in range(0, len(own), 8)) for part, own in whole.items()}

        return cls(str(stored["dataset"]), read("groups"), read("contents"), str(stored.get("origin", "")))


def fingerprint_of(text: str) -> bytes:
    """The first 8 bytes of the SHA-256 of a name or a content's hash."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]


def learned_by(run: Run) -> tuple[Learned, ...]:
    """What a run learned from, and every training before it whose weights it started from or combines.

    Raises:
        RunError, ModelFileError: its folder is damaged.
    """
    if (found := _header(run.model_file)) is not None:
        return found
    # Trained before model files said so.
    own = Learned.of(run.manifest, run.split)
    paths = [Path(str(run.settings[name])) for name in STARTS if run.settings.get(name)]
    return (own, *(each for path in paths for each in (_learned_by_files(weight_files(path)) or ())))


def learned_by_start(settings: Mapping[str, Any], root: Path | None = None) -> tuple[Learned, ...]:
    """What the weights that a training starts from learned from, by the settings ``weights`` and ``encoder``.

    Args:
        settings: of the training.
        root: folder of the outputs, in which runs with the same tensors are looked for.
    """
    return tuple(each for _, found in _starts(settings, root) for each in found or ())


def about_start_weights(settings: Mapping[str, Any], root: Path | None = None) -> list[str]:
    """A line where start weights are a run's and nobody knows what that run learned from."""
    return [
        f"`{name}` {settings[name]} was written by a run before model files said what they learned from: whether that"
        " were people or recordings of this split's validation or test part cannot be told"
        for name, found in _starts(settings, root)
        if found is None and any(_is_of_samo(path) for path in weight_files(Path(str(settings[name]))))
    ]


def known_groups(learned: Iterable[Item], evaluated: Iterable[Item]) -> list[str]:
    """Names of groups to evaluate on that groups learned from have too, in any spelling; sorted."""
    return _of_groups({_group(item) for item in learned if item.group}, evaluated)


def known_items(learned: Iterable[Learned], items: Sequence[Item]) -> list[Item]:
    """Those whose content was trained or selected on."""
    contents = {content for each in learned for own in each.contents.values() for content in own}
    return [item for item in items if item.content and fingerprint_of(item.content) in contents]


def about_known_groups(trained: Manifest, learned: Sequence[Item], other: Manifest) -> tuple[list[str], bool]:
    """A line where groups of another corpus are called like groups that were learned from, and whether that is a leak.

    Names of people, and any names within one corpus, are taken for the same people. Names with digits are given by
    every corpus anew, and by every table and folder of a user.
    """
    shared = known_groups(learned, other.items)
    if not shared:
        return [], False
    n, noun = len({item.group for item in other.items if item.group}), other.group_noun
    line = (
        f"{len(shared)} of {n} {noun}s are called like {noun}s the run was trained on ({first_few(shared, 5)}): "
        "if they are the same, these scores are too good; if not, call them otherwise"
    )
    contents = frozenset(fingerprint_of(item.content) for item in learned if item.content)
    return [line], _are_the_same((trained.dataset, trained.origin), contents, other, shared)


def refuse_known_start(settings: Mapping[str, Any], manifest: Manifest, split: Split, root: Path | None = None) -> None:
    """Refuse to start from weights or an encoder that learned from this split's validation or test part.

    Args:
        settings: of the training.
        manifest: what is trained on.
        split: its parts.
        root: folder of the outputs, in which runs with the same tensors are looked for.

    Raises:
        LeakError: names the groups, or counts the items.
    """
    if split.leaky:
        return
    for name, found in _starts(settings, root):
        path = Path(str(settings[name])).expanduser()
        is_run = path.with_name("manifest.jsonl").is_file()
        refuse_known(
            found or (), manifest, split, f"`{name}` of run '{path.parent.name}'" if is_run else f"`{name}` {path}"
        )


def refuse_known(learned: Iterable[Learned], manifest: Manifest, split: Split, what: str) -> None:
    """Refuse a model that learned from recordings or groups of a split's validation or test part.

    What chose the epoch of the one may choose that of the other, and must not test it. A leaky split is stamped anyway.

    Args:
        learned: by the model, from :func:`learned_by`.
        manifest: what is trained on.
        split: its parts.
        what: the beginning of the message, for example ``\\`teacher\\` of run 'a'``.

    Raises:
        LeakError: names the groups, or counts the items.
    """
    if split.leaky:
        return
    same: dict[str, Item] = {}
    shared: list[str] = []
    for each in learned:
        for part, names in (("train", ("val", "test")), ("val", ("test",))):
            for name in names:
                evaluated = [manifest.items[row] for row in manifest.rows(split.part(name))]
                contents = each.contents.get(part, frozenset())
                known = [item for item in evaluated if item.content and fingerprint_of(item.content) in contents]
                # A few words are said by everyone.
                least = STAMPED_SHARE * len(evaluated) if manifest.copies == "reported" else 1
                same |= {item.id: item for item in known} if len(known) >= least else {}
                called = _of_groups(each.groups.get(part, frozenset()), evaluated)
                if called and _know_each_other(each, manifest, called):
                    shared += [group for group in called if group not in shared]
    shared += [group for group in sorted({item.group for item in same.values()} - {""}) if group not in shared]
    if same or shared:
        found = f"{manifest.group_noun}s {first_few(sorted(shared), 5)}" if shared else f"{len(same)} items"
        others = "" if same else f"; if these are other {manifest.group_noun}s, call them otherwise in the data"
        raise LeakError(
            f"{what} learned from the validation or test part of this split: {found}",
            hint="train both on one split (the same `split_seed` or `fold`), or take weights that learned elsewhere"
            + others,
        )


def about_names(learned: Iterable[Learned], manifest: Manifest, split: Split, what: str) -> list[str]:
    """A line where groups of a split's validation or test part are called like those that a model learned from in
    another table or folder of the user: :func:`refuse_known` takes them for others.

    Args:
        learned: by the model, from :func:`learned_by`.
        manifest: what is trained on.
        split: its parts.
        what: the beginning of the line, for example ``start weights``.
    """
    evaluated = [manifest.items[row] for row in manifest.rows(split.val + split.test)]
    shared: set[str] = set()
    for each in learned:
        called = _of_groups(frozenset().union(*each.groups.values()), evaluated)
        if called and each.dataset == manifest.dataset and not _know_each_other(each, manifest, called):
            shared.update(called)
    return [_called_alike(what, sorted(shared), manifest)] if shared else []


def about_known_elsewhere(learned: Sequence[Learned], manifest: Manifest) -> tuple[list[str], bool]:
    """Lines where start weights knew groups or texts of another corpus, and whether that is a leak.

    Raises:
        LeakError: they learned from its recordings, or from too many of its texts.
    """
    same, n = known_items(learned, manifest.items), len(manifest.items)
    texts = manifest.copies == "reported"
    if len(same) >= (REFUSED_SHARE * n if texts else 1):
        raise LeakError(
            f"{'texts' if texts else 'recordings'} that the run's start weights learned from are in this corpus: "
            + first_ten(item.id if texts else item.source for item in same)
        )
    lines, leaky = [], len(same) >= STAMPED_SHARE * n
    if same:
        lines.append(f"leak: {len(same):,} of {n:,} texts are also among what the run's start weights learned from")
    for each in learned:
        names = _of_groups(frozenset().union(*each.groups.values()), manifest.items)
        if names and _know_each_other(each, manifest, names):
            noun = manifest.group_noun
            lines.append(f"leak: the run's start weights learned from {noun}s of this corpus: {first_few(names, 5)}")
            leaky = True
        elif names and each.dataset == manifest.dataset:
            lines.append(_called_alike("the run's start weights", names, manifest))
    return lines, leaky


def _know_each_other(each: Learned, manifest: Manifest, names: Iterable[str]) -> bool:
    return _are_the_same((each.dataset, each.origin), frozenset().union(*each.contents.values()), manifest, names)


def _are_the_same(
    corpus: tuple[str, str], contents: frozenset[bytes], manifest: Manifest, names: Iterable[str]
) -> bool:
    """Whether groups of a corpus (dataset and origin) are those of a manifest that are called alike.

    Every table and folder of a user numbers people anew, unless it is the same one or has items of the other.
    """
    if any(not any(sign.isdigit() for sign in name) for name in names):
        return True
    if corpus[0] != manifest.dataset:
        return False
    if corpus[1] == manifest.origin:
        return True
    n = sum(1 for item in manifest.items if item.content and fingerprint_of(item.content) in contents)
    # A few words are said by everyone.
    return n >= (max(1.0, STAMPED_SHARE * len(manifest.items)) if manifest.copies == "reported" else 1)


def _called_alike(what: str, names: Sequence[str], manifest: Manifest) -> str:
    noun = manifest.group_noun
    return (
        f"{what} learned from {noun}s of another {manifest.dataset} that are called as here ({first_few(names, 5)}): "
        "if they are the same, these scores are too good; if not, call them otherwise"
    )


def _group(item: Item) -> bytes:
    return fingerprint_of(key(item.group))


def _of_groups(groups: Iterable[bytes], evaluated: Iterable[Item]) -> list[str]:
    known = set(groups)
    return sorted({item.group for item in evaluated if item.group and _group(item) in known})


def _starts(settings: Mapping[str, Any], root: Path | None) -> list[tuple[str, tuple[Learned, ...] | None]]:
    """Setting and what its weights learned from; None where nothing says so, as with published weights."""
    found: list[tuple[str, tuple[Learned, ...] | None]] = []
    for name in STARTS:
        files = weight_files(Path(str(settings[name]))) if settings.get(name) else []
        if files:
            own = _learned_by_files(files)
            run = run_with(files, root) if own is None and root is not None else None
            found.append((name, _of_start(run, files) if run else own))
    return found


def _learned_by_files(files: Sequence[Path]) -> tuple[Learned, ...] | None:
    for path in files:
        if (found := _header(path)) is not None:
            return found
        run = Run(path.parent)
        if run.path("manifest.jsonl").is_file() and run.path("split.json").is_file():
            return learned_by(run) if run.path("config.json").is_file() else (Learned.of(run.manifest, run.split),)
    return None


def _is_of_samo(path: Path) -> bool:
    try:
        return bool(read_about(path)) if path.suffix == ".safetensors" else False
    except ModelFileError:
        return False


def _header(path: Path) -> tuple[Learned, ...] | None:
    """What the header of a model file says; None for files that do not."""
    try:
        stored = read_about(path).get("learned") if path.suffix == ".safetensors" else None
    except ModelFileError:
        return None
    try:
        return None if stored is None else tuple(Learned.from_json(each) for each in stored)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(f"{path} does not tell what it learned from: its header is damaged") from error


def _of_start(run: Run, files: Sequence[Path]) -> tuple[Learned, ...] | None:
    """What tensors that a run holds learned from: all it knows; where it started from them, what it knew before."""
    known = learned_by(run)
    if not began_with(run, files):
        return known
    own = Learned.of(run.manifest, run.split)
    return tuple(each for each in known if each != own) or None
