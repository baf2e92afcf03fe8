"""Whether a model knows the people it is evaluated on: start weights, other clips of the same speakers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from samo.data.manifest import Item, Manifest
from samo.data.splits import Split
from samo.errors import LeakError, ModelFileError
from samo.files import write_json
from samo.runs.origin import start_digests
from samo.runs.provenance import (
    Learned,
    about_known_elsewhere,
    about_known_groups,
    about_names,
    about_start_weights,
    learned_by,
    learned_by_start,
    refuse_known,
    refuse_known_start,
)
from samo.runs.run import Run
from samo.tasks import LabelSpace, Task
from samo.training.checkpoint import save_model, save_tensors

SPACE = LabelSpace((Task("emotion", ("angry", "sad")),))
PARTS = Split("speaker", 0, ("a0", "a1"), ("b0",), ("c0",))


def corpus(groups: dict[str, str], dataset: str = "corpus", content: str = "own") -> Manifest:
    """An item of each id, its group beside it."""
    items = tuple(
        Item(name, f"{name}.wav", {"emotion": ("sad",)}, group, content=f"{content} {name}")
        for name, group in groups.items()
    )
    return Manifest(dataset, SPACE, items, Path("/data"))


GROUPS = {"a0": "01", "a1": "02", "b0": "03", "c0": "04"}


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """Of a run that learned from speakers 01, 02 and 03 and was tested on 04."""
    corpus(GROUPS).save(tmp_path / "manifest.jsonl")
    PARTS.save(tmp_path / "split.json")
    return str(tmp_path / "best_model.safetensors")


def test_weights_that_learned_from_the_same_parts_are_taken(weights: str) -> None:
    refuse_known_start({"weights": weights}, corpus(GROUPS), Split("speaker", 0, ("a0", "a1", "b0"), ("c0",), ("c0",)))
    refuse_known_start({"weights": weights}, corpus(GROUPS), PARTS)
    with pytest.raises(LeakError, match="this split: speakers 03"):
        refuse_known_start({"weights": weights}, corpus(GROUPS), Split("speaker", 0, ("a0", "a1"), ("c0",), ("b0",)))
    refuse_known_start({"weights": ""}, corpus(GROUPS), PARTS)
    refuse_known_start({"weights": "/nowhere/model.safetensors"}, corpus(GROUPS), PARTS)


@pytest.mark.parametrize(
    "split", [Split("speaker", 0, ("b0",), ("a1",), ("c0",)), Split("folds", 0, ("b0",), (), ("a1",))]
)
def test_weights_that_saw_a_speaker_of_validation_or_test_are_refused(weights: str, split: Split) -> None:
    with pytest.raises(LeakError, match="learned from the validation or test part of this split: speakers 02"):
        refuse_known_start({"weights": weights}, corpus(GROUPS), split)
    # Other clips of the same speaker, spelled otherwise.
    other = corpus({**GROUPS, "a1": "2.0"}, content="other")
    with pytest.raises(LeakError, match=r"this split: speakers 2\.0"):
        refuse_known_start({"weights": weights}, other, split)
    refuse_known_start({"weights": weights}, other, replace(split, rule="random"))
    # Another corpus numbers other people; a recording is the same wherever it lies.
    refuse_known_start({"weights": weights}, corpus(GROUPS, "elsewhere", "other"), split)
    with pytest.raises(LeakError):
        refuse_known_start({"weights": weights}, corpus(dict.fromkeys(GROUPS, ""), "elsewhere"), split)


@pytest.mark.parametrize(
    ("names", "dataset", "line", "leaky"),
    [
        (("anna", "x"), "other", "1 of 2 speakers are called like speakers the run was trained on (anna)", True),
        (("1.0", "9"), "other", "1 of 2 speakers are called like speakers the run was trained on (1.0)", False),
        (("1.0", "9"), "corpus", "1 of 2 speakers are called like speakers the run was trained on (1.0)", True),
        (("8", "9"), "corpus", "", False),
        (("", ""), "corpus", "", False),
    ],
)
def test_other_clips_of_known_speakers(names: tuple[str, str], dataset: str, line: str, leaky: bool) -> None:
    trained = corpus({"a0": "Anna", "a1": "01"})
    lines, found = about_known_groups(trained, trained.items, corpus(dict(zip("xy", names, strict=True)), dataset))
    assert ([each.partition(":")[0] for each in lines], found) == ([line] if line else [], leaky)


def table(origin: str, content: str = "own") -> Manifest:
    return replace(corpus(GROUPS, "table", content), origin=origin)


def test_every_table_numbers_its_speakers_anew() -> None:
    mine, theirs = table("mine.csv"), table("theirs.csv", "other")
    learned = (Learned.from_json(Learned.of(mine, PARTS).to_json()),)
    assert learned[0].origin == "mine.csv"
    unsafe = Split("speaker", 0, ("b0",), ("c0",), ("a1",))
    refuse_known(learned, theirs, unsafe, "`weights`")
    (line,) = about_names(learned, theirs, unsafe, "the start weights")
    assert line.startswith("the start weights learned from speakers of another table that are called as here (02): ")
    assert line.endswith("call them otherwise")
    assert about_known_groups(mine, mine.items, theirs)[1] is False
    (line,), leaky = about_known_elsewhere(learned, theirs)
    assert (line[:32], leaky) == ("the run's start weights learned ", False)
    # The same table, other clips; or another table with one clip of the first.
    copied = replace(theirs, items=(*theirs.items[:3], replace(theirs.items[3], content="own a0")))
    for same in (table("mine.csv", "other"), copied):
        with pytest.raises(LeakError, match="speakers 02") as caught:
            refuse_known(learned, same, unsafe, "`weights`")
        assert about_names(learned, same, unsafe, "the start weights") == []
        assert about_known_groups(mine, mine.items, same)[1] is True
    assert "if these are other speakers" not in caught.value.hint
    with pytest.raises(LeakError) as caught:
        refuse_known(learned, table("mine.csv", "other"), unsafe, "`weights`")
    assert caught.value.hint.endswith("if these are other speakers, call them otherwise in the data")
    # A model of an earlier version does not tell which table it was.
    before = (replace(learned[0], origin=""),)
    refuse_known(before, theirs, unsafe, "`weights`")
    with pytest.raises(LeakError):
        refuse_known(before, table("mine.csv"), unsafe, "`weights`")


# Weights that were copied out of their run's folder

SAFE = Split("speaker", 0, ("a0", "a1"), ("b0",), ("c0",))
UNSAFE = Split("speaker", 0, ("b0",), ("c0",), ("a1",))


def finished(root: Path, name: str, *, tells: bool = True, seed: int = 0, **settings: object) -> Run:
    """A run that learned from speakers 01 and 02, chose its epoch on 03 and was tested on 04."""
    run = Run(root / "runs" / name)
    run.folder.mkdir(parents=True)
    corpus(GROUPS).save(run.path("manifest.jsonl"))
    PARTS.save(run.path("split.json"))
    write_json(run.path("config.json"), {"modality": "text", **settings})
    torch.manual_seed(seed)
    tensors = {
        "network.a.weight": torch.randn(4, 3),
        "network.b.weight": torch.randn(2, 4),
        "head.weight": torch.eye(2),
    }
    about = {"learned": [Learned.of(corpus(GROUPS), PARTS).to_json()]} if tells else {}
    save_model(run.model_file, {**tensors, "network.a.bias": torch.zeros(4)}, **about)
    return run


def test_a_model_file_says_what_it_learned_from_without_a_name(tmp_path: Path) -> None:
    run = finished(tmp_path, "one")
    assert learned_by(run) == (Learned.of(corpus(GROUPS), PARTS),)
    content = Learned.of(corpus(dict.fromkeys(GROUPS, "Anna")), PARTS)
    assert "Anna" not in str(content.to_json())
    assert Learned.from_json(content.to_json()) == content
    assert {part: len(groups) for part, groups in content.groups.items()} == {"train": 1, "val": 1}
    assert {part: len(items) for part, items in content.contents.items()} == {"train": 2, "val": 1}
    save_model(run.model_file, {"a": torch.zeros(1)}, learned=[{"dataset": "x"}])
    with pytest.raises(ModelFileError, match="its header is damaged"):
        learned_by(run)


def as_it_is(run: Run, target: Path) -> Path:
    return Path(shutil.copy(run.model_file, target / "mine.safetensors"))


def as_pickle(run: Run, target: Path) -> Path:
    torch.save(load_file(run.model_file), target / "mine.pt")
    return target / "mine.pt"


def without_head(run: Run, target: Path) -> Path:
    tensors = {name.removeprefix("network."): one for name, one in load_file(run.model_file).items()}
    save_file({name: one for name, one in tensors.items() if "head" not in name}, target / "mine.safetensors")
    return target / "mine.safetensors"


def with_another_head_in_half_precision(run: Run, target: Path) -> Path:
    tensors = {**load_file(run.model_file), "head.weight": torch.full((2, 2), 0.5)}
    torch.save({name: one.half() for name, one in tensors.items()}, target / "mine.pt")
    return target / "mine.pt"


@pytest.mark.parametrize("written", [as_it_is, as_pickle, without_head, with_another_head_in_half_precision])
@pytest.mark.parametrize("setting", ["weights", "encoder"])
def test_copied_weights_are_recognised(tmp_path: Path, written: Callable[[Run, Path], Path], setting: str) -> None:
    run, target = finished(tmp_path / "outputs", "one"), tmp_path / "elsewhere"
    finished(tmp_path / "outputs", "another", seed=1)
    target.mkdir()
    path = written(run, target)
    if setting == "encoder":
        path = target if path.suffix == ".safetensors" else path.rename(target / "pytorch_model.bin").parent
    settings = {setting: str(path)}
    for root in (tmp_path / "outputs", tmp_path / "outputs" / "grids" / "grid"):
        refuse_known_start(settings, corpus(GROUPS), SAFE, root)
        with pytest.raises(LeakError, match=f"`{setting}` .* learned from the validation or test part .* speakers 02"):
            refuse_known_start(settings, corpus(GROUPS), UNSAFE, root)
        assert learned_by_start(settings, root) == (Learned.of(corpus(GROUPS), PARTS),)
        assert about_start_weights(settings, root) == []


def test_weights_of_another_run_are_not_taken_for_one(tmp_path: Path) -> None:
    other = finished(tmp_path / "elsewhere", "other", seed=1, tells=False)
    path = as_pickle(other, tmp_path)
    finished(tmp_path / "outputs", "one")
    refuse_known_start({"weights": str(path)}, corpus(GROUPS), UNSAFE, tmp_path / "outputs")
    # A frozen encoder holds what was published, not what the run learned.
    finished(tmp_path / "outputs", "frozen", seed=1, freeze_encoder=True)
    refuse_known_start({"weights": str(path)}, corpus(GROUPS), UNSAFE, tmp_path / "outputs")
    finished(tmp_path / "outputs", "same", seed=1)
    with pytest.raises(LeakError):
        refuse_known_start({"weights": str(path)}, corpus(GROUPS), UNSAFE, tmp_path / "outputs")


def test_layers_that_a_run_has_not_moved_yet_are_no_sign_of_what_it_learned(tmp_path: Path) -> None:
    start = as_pickle(finished(tmp_path / "elsewhere", "published", seed=1, tells=False), tmp_path)
    run = finished(tmp_path / "outputs", "begun", seed=1, weights=str(start))
    settings = {"weights": str(start)}
    refuse_known_start(settings, corpus(GROUPS), UNSAFE, tmp_path / "outputs")
    (tmp_path / "copy").mkdir()
    moved = {"weights": shutil.copy(start, tmp_path / "copy")}
    refuse_known_start(moved, corpus(GROUPS), UNSAFE, tmp_path / "outputs")
    # Unless these came to lie there after it had begun.
    os.utime(run.path("config.json"), (0, 0))
    with pytest.raises(LeakError):
        refuse_known_start(settings, corpus(GROUPS), UNSAFE, tmp_path / "outputs")
    # Where it is kept what the run began with, the time of a file is no matter, and its place is none.
    save_tensors(run.path("fitted.safetensors"), {}, {"starts": json.dumps(start_digests(settings))})
    refuse_known_start(settings, corpus(GROUPS), UNSAFE, tmp_path / "outputs")
    whole = start.read_bytes()
    torch.save({**torch.load(start), "more": torch.zeros(1)}, start)
    with pytest.raises(LeakError):
        refuse_known_start(settings, corpus(GROUPS), UNSAFE, tmp_path / "outputs")
    start.write_bytes(whole)
    # What it knew before it began counts all the same.
    save_model(
        run.model_file,
        load_file(run.model_file),
        learned=[Learned.of(corpus(GROUPS), PARTS).to_json(), Learned.of(corpus(GROUPS), UNSAFE).to_json()],
    )
    assert learned_by_start(settings, tmp_path / "outputs") == (Learned.of(corpus(GROUPS), UNSAFE),)
    finished(tmp_path / "outputs", "whose", seed=1)
    with pytest.raises(LeakError):
        refuse_known_start(settings, corpus(GROUPS), UNSAFE, tmp_path / "outputs")


def test_a_copy_of_a_model_that_does_not_tell_is_mentioned(tmp_path: Path) -> None:
    path = as_it_is(finished(tmp_path / "elsewhere", "before", tells=False), tmp_path)
    refuse_known_start({"weights": str(path)}, corpus(GROUPS), UNSAFE, tmp_path / "outputs")
    (line,) = about_start_weights({"weights": str(path)}, tmp_path / "outputs")
    assert line.startswith(f"`weights` {path} was written by a run before model files said what they learned from")
    # As long as the run is there, its tensors tell.
    with pytest.raises(LeakError):
        refuse_known_start({"weights": str(path)}, corpus(GROUPS), UNSAFE, tmp_path / "elsewhere")


def test_a_model_is_refused_by_what_its_own_start_weights_learned_from(tmp_path: Path) -> None:
    first = finished(tmp_path, "first")
    second = finished(tmp_path, "second", tells=False, seed=1, weights=str(first.model_file))
    elsewhere = corpus({"x": "91", "y": "92", "z": "93"}, "elsewhere")
    elsewhere.save(second.path("manifest.jsonl"))
    Split("speaker", 0, ("x",), ("y",), ("z",)).save(second.path("split.json"))
    assert [each.dataset for each in learned_by(second)] == ["elsewhere", "corpus"]
    refuse_known(learned_by(second), corpus(GROUPS), SAFE, "`teacher` of run 'second'")
    with pytest.raises(LeakError, match="`teacher` of run 'second' learned from the validation or test part"):
        refuse_known(learned_by(second), corpus(GROUPS), UNSAFE, "`teacher` of run 'second'")
    refuse_known(learned_by(second), corpus(GROUPS), replace(UNSAFE, rule="random"), "`teacher`")


def test_another_corpus_that_start_weights_knew_is_refused_or_stamped() -> None:
    started = (Learned.of(corpus(GROUPS), PARTS),)
    with pytest.raises(LeakError, match=r"recordings that the run's start weights learned from .*: a0\.wav, a1\.wav"):
        about_known_elsewhere(started, corpus(GROUPS, "other"))
    lines, leaky = about_known_elsewhere(started, corpus(GROUPS, content="new"))
    assert (lines, leaky) == (
        ["leak: the run's start weights learned from speakers of this corpus: 01, 02, 03"],
        True,
    )
    assert about_known_elsewhere(started, corpus({"x": "91"}, content="new")) == ([], False)


def texts(names: str, dataset: str = "texts") -> Manifest:
    """A text of each letter."""
    items = tuple(Item(f"{dataset} {at:02d}", name, {}, content=name) for at, name in enumerate(names))
    return Manifest(dataset, SPACE, items, Path("/data"), copies="reported")


def split_of(manifest: Manifest, *sizes: int) -> Split:
    ids = [item.id for item in manifest.items]
    train, val = ids[: sizes[0]], ids[sizes[0] : sizes[0] + sizes[1]]
    return Split("stratified", 0, tuple(train), tuple(val), tuple(ids[sum(sizes) :]))


def test_texts_that_everyone_says_are_no_provenance() -> None:
    # "x" stands in training and test of the run's own split.
    own = texts("abcx" + "d" + "exfghijklmnopqrstuvw")
    started = (Learned.of(own, split_of(own, 4, 1)),)
    refuse_known(started, own, split_of(own, 4, 1), "`encoder`")
    other = texts("ABC" + "D" + "EFGHIJKLMNOPQRSTUVWXYZ" + "a", "other")
    refuse_known(started, other, split_of(other, 3, 1), "`encoder`")
    assert about_known_elsewhere(started, other) == (
        ["leak: 1 of 27 texts are also among what the run's start weights learned from"], False,
    )  # fmt: skip
    known = texts("A" + "B" + "EFGHIJKLMNOPQRSTUVa", "other")
    with pytest.raises(LeakError, match="`encoder` learned from the validation or test part of this split: 1 items"):
        refuse_known(started, known, split_of(known, 1, 1), "`encoder`")
    assert about_known_elsewhere(started, texts("EFGHIJKLMNOPQRSTUVWa", "other"))[1]
    with pytest.raises(LeakError, match="texts that the run's start weights learned from are in this corpus: other 04"):
        about_known_elsewhere(started, texts("EFGHa", "other"))
