"""Whether a model knows the people it is evaluated on: start weights, other clips of the same speakers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from samo.data.manifest import Item, Manifest
from samo.data.splits import Split
from samo.errors import LeakError
from samo.runs.provenance import about_known_groups, refuse_known_weights
from samo.tasks import LabelSpace, Task

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
    refuse_known_weights(weights, corpus(GROUPS), Split("speaker", 0, ("a0", "a1", "b0"), ("c0",), ("c0",)))
    refuse_known_weights(weights, corpus(GROUPS), PARTS)
    with pytest.raises(LeakError, match="this split: speakers 03"):
        refuse_known_weights(weights, corpus(GROUPS), Split("speaker", 0, ("a0", "a1"), ("c0",), ("b0",)))
    refuse_known_weights("", corpus(GROUPS), PARTS)
    refuse_known_weights("/nowhere/model.safetensors", corpus(GROUPS), PARTS)


@pytest.mark.parametrize(
    "split", [Split("speaker", 0, ("b0",), ("a1",), ("c0",)), Split("folds", 0, ("b0",), (), ("a1",))]
)
def test_weights_that_saw_a_speaker_of_validation_or_test_are_refused(weights: str, split: Split) -> None:
    with pytest.raises(LeakError, match="learned from the validation or test part of this split: speakers 02"):
        refuse_known_weights(weights, corpus(GROUPS), split)
    # Other clips of the same speaker, spelled otherwise.
    other = corpus({**GROUPS, "a1": "2.0"}, content="other")
    with pytest.raises(LeakError, match=r"this split: speakers 2\.0"):
        refuse_known_weights(weights, other, split)
    refuse_known_weights(weights, other, replace(split, rule="random"))
    # Another corpus numbers other people; a recording is the same wherever it lies.
    refuse_known_weights(weights, corpus(GROUPS, "elsewhere", "other"), split)
    with pytest.raises(LeakError):
        refuse_known_weights(weights, corpus(dict.fromkeys(GROUPS, ""), "elsewhere"), split)


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
