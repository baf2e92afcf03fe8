"""Texts made of training texts: for which classes, how many, never one there is, always the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_rewriting
import torch

from samo.data.augmented import AUGMENTATION, load_augmented
from samo.data.manifest import Item, Manifest
from samo.data.near_duplicates import folded
from samo.errors import EnvironmentProblem, Interrupted, SettingsError
from samo.runs.artifacts import create_run, find_run
from samo.runs.run import Run
from samo.runs.training import resume_training, train_run
from samo.tasks import LabelSpace, Task
from samo.training.checkpoint import load_checkpoint
from samo.training.runtime import Runtime
from samo.training.setup import Setup
from samo.training.trainer import Observer
from samo_text import augmentation
from samo_text.augmentation import augment
from samo_text.config import AUGMENTATIONS, TextConfig
from samo_text.frontend import TextFrontend
from samo_text.rewriting.words import kept_as_is
from samo_text.texts import content_of

CPU = torch.device("cpu")
SPACE = LabelSpace((Task("emotion", ("joy", "anger", "fear"), multi_label=True),))
# joy 6, anger 3 (one with joy), fear 1; the last two rows are not for training.
TEXTS = (
    ("what a lovely day it was", ("joy",)),
    ("we are so glad you came", ("joy",)),
    ("this made my whole week great", ("joy",)),
    ("they won again and we sang", ("joy",)),
    ("that was a nice thing to say", ("joy",)),
    ("he was mad and laughed about it", ("joy", "anger")),
    ("get out of my house right now", ("anger",)),
    ("I do not care, leave me alone [NAME]", ("anger",)),
    ("there is somebody behind the door \U0001f631", ("fear",)),
    ("nothing of this kind", ()),
    ("some words for validation here", ("joy",)),
    ("some words for testing here", ("fear",)),
)
TRAIN = np.arange(10)


def manifest(texts: Sequence[tuple[str, tuple[str, ...]]] = TEXTS) -> Manifest:
    items = tuple(
        Item(f"row-{k:02d}", text, {"emotion": labels}, content=content_of(text), group=f"author{k}")
        for k, (text, labels) in enumerate(texts)
    )
    return Manifest("made up", SPACE, items, Path("/nowhere"))


def settings(**values: Any) -> Any:
    return TextConfig.build({"augment": "word-order,punctuation", **values}).augment


def counts(items: Sequence[Item]) -> Counter[str]:
    return Counter(label for item in items for label in item.labels["emotion"])


class Echo:
    """A rewriter that says what it is told to, and notes what it is asked."""

    def __init__(self, *answers: str, deterministic: bool = False) -> None:
        self.answers, self.deterministic = answers, deterministic
        self.asked: list[str] = []

    def rewrite(self, texts: Sequence[str], chances: Sequence[Any]) -> list[str]:
        self.asked += texts
        return [
            self.answers[int(chance.random() * len(self.answers))].format(text)
            for text, chance in zip(texts, chances, strict=True)
        ]


def with_echo(monkeypatch: pytest.MonkeyPatch, **echoes: Echo) -> None:
    monkeypatch.setattr(augmentation, "open_rewriters", lambda settings, device: echoes)


def test_rare_classes_are_filled_up_and_the_rest_is_left() -> None:
    made = augment(manifest(), TRAIN, settings(augment_target=4), 0, CPU)
    assert counts(made) - Counter(joy=9) == Counter(fear=3, anger=1)
    assert [item.labels["emotion"] for item in made[:3]] == [("fear",)] * 3  # the rarest first
    assert len(made) == 4


def test_a_text_counts_for_all_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    with_echo(monkeypatch, echo=Echo("{} x", "{} y", "{} z", "{} q"))
    texts = [("one", ("joy", "fear")), ("two", ("joy",)), ("three", ("anger",))]
    made = augment(manifest(texts), np.arange(3), settings(augment_target=3), 0, CPU)
    # Two of "one" bring fear to 3 and joy to 4: joy asks for nothing more.
    assert counts(made) == Counter(joy=2, fear=2, anger=2)


def test_most_texts_made_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with_echo(monkeypatch, echo=Echo(*(f"{{}} {k}" for k in range(1000))))
    lines: list[str] = []
    made = augment(manifest(), TRAIN, settings(augment_target=50, augment_max_per_text=2), 0, CPU, lines.append)
    assert max(Counter(item.meta["parent"] for item in made).values()) == 2
    assert lines[0] == "augmentation to bring classes to 50 rows: 18 training texts made (echo 18)"
    assert lines[1] == "training rows of emotion before → after: fear 1 → 3, anger 3 → 9, joy 6 → 18"
    assert lines[2].startswith("still below 50: fear, anger, joy")


def test_without_a_target_every_labelled_text_is_a_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    echo = Echo(*(f"{{}} {k}" for k in range(1000)))
    with_echo(monkeypatch, echo=echo)
    given = manifest()
    unlabelled = Item("row-99", "no label at all", {})
    given = Manifest(
        "made up", SPACE, (*given.items, unlabelled, Item("row-98", "x " * 3000, {"emotion": ("joy",)})), given.root
    )
    made = augment(given, np.array([*TRAIN, 12, 13]), settings(augment_max_per_text=3), 0, CPU)
    assert Counter(item.meta["parent"] for item in made) == {f"row-{k:02d}": 3 for k in range(10)}
    assert not set(echo.asked) & {"no label at all", "x " * 3000, TEXTS[10][0], TEXTS[11][0]}


def test_no_text_there_is_and_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    echo = Echo("{}", " {}  ", "SOME words   for TESTING here", "some words for validation here", "{} !", "", "{}  !")
    with_echo(monkeypatch, echo=echo)
    made = augment(manifest(), TRAIN, settings(augment_max_per_text=9), 0, CPU)
    texts = [folded(item.source) for item in made]
    assert set(texts) == {folded(f"{text} !") for text, _ in TEXTS[:10]}
    assert len(texts) == len(set(texts))


def test_real_methods_repeat_nothing_and_keep_what_must_stay() -> None:
    given = manifest()
    made = augment(given, TRAIN, settings(augment_max_per_text=6, augment_strength=0.3), 3, CPU)
    known = {folded(item.source) for item in given.items}
    assert not known & {folded(item.source) for item in made}
    assert len({folded(item.source) for item in made}) == len(made) > 50
    for item in made:
        parent = given.items[given.row_of[item.meta["parent"]]]
        assert kept_as_is(item.source) == kept_as_is(parent.source)
        assert (item.labels, item.group) == (parent.labels, parent.group)
        assert item.content == content_of(item.source)
        assert item.id.startswith(f"{parent.id}~{item.meta['method']}")
    assert {item.meta["method"] for item in made} == {"word-order", "punctuation"}


def test_what_loses_a_placeholder_or_a_negation_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with_echo(monkeypatch, echo=Echo("rewritten"))
    texts = [("I do not care", ("joy",)), ("[NAME] came", ("joy",)), ("fine", ("joy",))]
    assert [item.meta["parent"] for item in augment(manifest(texts), np.arange(3), settings(), 0, CPU)] == ["row-02"]


def test_methods_take_turns_and_step_in_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with_echo(monkeypatch, lazy=Echo("{}"), able=Echo(*(f"{{}} {k}" for k in range(1000))))
    made = augment(manifest(), TRAIN, settings(augment_max_per_text=2), 0, CPU)
    assert Counter(item.meta["method"] for item in made) == {"able": 20}
    with_echo(
        monkeypatch, one=Echo(*(f"{{}} a{k}" for k in range(1000))), two=Echo(*(f"{{}} b{k}" for k in range(1000)))
    )
    made = augment(manifest(), TRAIN, settings(augment_max_per_text=2), 0, CPU)
    assert Counter(item.meta["method"] for item in made) == {"one": 10, "two": 10}


def test_a_method_that_says_one_thing_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    once = Echo("{} again", deterministic=True)
    with_echo(monkeypatch, once=once)
    made = augment(manifest(), TRAIN, settings(augment_max_per_text=4), 0, CPU)
    assert len(made) == len(once.asked) == 10


def test_a_function_of_the_seed() -> None:
    one, same, other = (augment(manifest(), TRAIN, settings(augment_target=6), seed, CPU) for seed in (0, 0, 1))
    assert one == same
    assert one != other


def test_strength_acts() -> None:
    def changed(strength: float) -> int:
        made = augment(manifest(), TRAIN, settings(augment="word-order", augment_strength=strength), 0, CPU)
        parents = {item.id: item.source.split() for item in manifest().items}
        return sum(
            a != b for item in made for a, b in zip(item.source.split(), parents[item.meta["parent"]], strict=True)
        )

    assert changed(0.9) > 1.5 * changed(0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"augment": "synonims"}, "unknown; valid: synonyms, word-order"),
        ({"augment": "punctuation,punctuation"}, "twice"),
        ({"augment": "back-translation"}, "THERE,BACK` need each other"),
        ({"augment": "punctuation", "back_translation_models": "a,b"}, "THERE,BACK` need each other"),
        ({"augment": "back-translation", "back_translation_models": "a"}, "THERE,BACK` need each other"),
        ({"augment": "masked-lm"}, "`masked_lm=FOLDER_OR_NAME` need each other"),
        ({"augment": "punctuation", "masked_lm": "a"}, "`masked_lm=FOLDER_OR_NAME` need each other"),
        ({"augment": "", "augment_target": 5}, "`augment_target` acts only together with `augment`"),
        ({"augment": "", "augment_strength": 0.5}, "`augment_strength` acts only together with `augment`"),
        ({"augment": "", "augment_max_per_text": 5}, "`augment_max_per_text` acts only together with `augment`"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TextConfig.build(values)


def test_every_method_opens_its_rewriter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk.data

    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(nltk.data, "path", [])
    there, back = (tiny_rewriting.translator(tmp_path / name, seed) for seed, name in enumerate("ab"))
    models = {
        "masked_lm": str(tiny_rewriting.masked_lm(tmp_path / "masked")),
        "back_translation_models": f"{there}, {back}",
    }
    requested = settings(augment=",".join(AUGMENTATIONS), augment_strength=0.5, **models)
    with pytest.raises(EnvironmentProblem, match="needs WordNet"):
        augment(manifest(), TRAIN, requested, 0, CPU)
    monkeypatch.setattr(nltk.data, "path", [str(tiny_rewriting.wordnet(tmp_path / "nltk"))])
    assert list(augmentation.open_rewriters(requested, CPU)) == list(AUGMENTATIONS)
    texts = [(f"i love the happy dog of number {k}", ("joy",)) for k in range(6)]
    made = augment(manifest(texts), np.arange(6), requested, 0, CPU)
    assert {item.meta["method"] for item in made} >= set(AUGMENTATIONS) - {"back-translation"}
    assert made == augment(manifest(texts), np.arange(6), requested, 0, CPU)


RUNTIME = Runtime(CPU, "float32", channels_last=False, threads=1)
SMALL = {"embedding_width": 8, "hash_buckets": 256, "filters": 4, "epochs": 4, "batch_size": 8, "patience": 0}


class Silent:
    """An observer that looks away, or stops the training in its third epoch."""

    def __init__(self, *, stops: bool = False) -> None:
        self.stops = stops

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        if self.stops and (epoch, step) == (2, 1):
            raise KeyboardInterrupt

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """Nothing."""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixty short texts of two classes, one of them rare."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    rows = [f"this is the number {k} of the glad and happy days,joy" for k in range(45)]
    rows += [f"they were mad about number {k} again,anger" for k in range(15)]
    path = tmp_path / "texts.csv"
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def opened(table: Path, **values: Any) -> TextFrontend:
    given = {"dataset": "table", "data_root": str(table), **SMALL, **values}
    return TextFrontend.open(TextConfig.build(given), lambda line: None)


def trained(artifacts: Path, frontend: TextFrontend, observer: Observer) -> Run:
    run = create_run(artifacts, "mine", "text")
    train_run(run, Setup(frontend, RUNTIME), observer)
    return run


def test_texts_stand_behind_the_others_and_are_tokenised(table: Path) -> None:
    front = opened(table)
    extra = Item("x~y1", "a new text of joy", {"label": ("joy",)})
    more = front.with_extra([extra])
    n = len(front.manifest.items)
    assert more.manifest.items == (*front.manifest.items, extra)
    assert len(more.lists) == n + 1
    assert all(np.array_equal(more.lists.row(k), front.lists.row(k)) for k in range(n))
    assert np.array_equal(more.lists.row(n), front.tokens.encode([extra.source])[0])
    assert opened(table).augment(np.arange(3), CPU) == ()


def test_a_run_resumes_bit_for_bit_with_augmentation(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = {"augment": "word-order,punctuation", "augment_target": 30, "augment_max_per_text": 3}
    whole = trained(tmp_path / "whole", opened(table, **requested), Silent())
    with pytest.raises(Interrupted):
        trained(tmp_path / "cut", opened(table, **requested), Silent(stops=True))
    cut = find_run(tmp_path / "cut", "mine")
    monkeypatch.setattr(augmentation, "augment", lambda *given: pytest.fail("made again"))
    resume_training(Run(cut.folder), Setup(opened(table, **requested), RUNTIME), Silent())
    assert whole.model_file.read_bytes() == cut.model_file.read_bytes()
    ends = [load_checkpoint(run.path("last.ckpt"))["model"] for run in (whole, cut)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    facts = json.loads(whole.path(AUGMENTATION).read_text())
    anger = facts["counts"]["label"]["anger"]
    assert anger["after"] == 30 > anger["before"]
    assert facts["made"] == len(load_augmented(whole.folder)) == 30 - anger["before"]
    assert whole.manifest.digest == opened(table).manifest.digest
    held_out = {*whole.split.val, *whole.split.test}
    assert not held_out & {item.meta["parent"] for item in load_augmented(whole.folder)}


def test_tfidf_learns_from_what_was_made(table: Path, tmp_path: Path) -> None:
    runs = []
    for name, extra in (("plain", {}), ("more", {"augment": "word-order", "augment_target": 30})):
        given = {"dataset": "table", "data_root": str(table), "model": "tfidf", **extra}
        front = TextFrontend.open(TextConfig.build(given), lambda line: None)
        runs.append(trained(tmp_path / name, front, Silent()))
    assert runs[0].path("fitted.safetensors").read_bytes() != runs[1].path("fitted.safetensors").read_bytes()


def test_the_seed_decides_which_texts_are_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    """One text is wanted for anger, which three rows hold: another row's under another seed."""
    with_echo(monkeypatch, echo=Echo("{} once more"))
    texts = [(f"text number {k}", ("joy" if k > 2 else "anger",)) for k in range(8)]
    parents = []
    for seed in range(10):
        (made,) = augment(manifest(texts), np.arange(8), settings(augment_target=4), seed, CPU)
        parents.append(made.meta["parent"])
    assert set(parents) == {"row-00", "row-01", "row-02"}


def test_the_seed_decides_what_is_made_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    with_echo(monkeypatch, echo=Echo(*(f"{{}} {k}" for k in range(1000))))
    made = [augment(manifest([("one", ("joy",))]), np.arange(1), settings(), seed, CPU)[0].source for seed in range(5)]
    assert len(set(made)) == 5
