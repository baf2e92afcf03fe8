"""Zero-shot: embeddings against transformers by hand, labels as given, scores against scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from transformers import AutoModel, AutoTokenizer

from samo.data.manifest import Item, Manifest
from samo.errors import DataError, ModelFileError, SettingsError
from samo.tasks import LabelSpace, Task
from samo.training.runtime import Runtime
from samo_text.zero_shot import Embedder, ZeroShot, evaluate_zero_shot, part_of, read_labels

RUNTIME = Runtime(torch.device("cpu"), "float32", channels_last=False, threads=1)
TEXTS = ["i love it", "you hate this , very very angry !", "so", "this is not sad"]


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        ("joy,very_sad", {"joy": ("joy",), "very_sad": ("very sad",)}),
        ("calm=feeling calm, relaxed,panic=fear", {"calm": ("feeling calm, relaxed",), "panic": ("fear",)}),
        ("a=one|another, yes,b=two", {"a": ("one", "another, yes"), "b": ("two",)}),
    ],
)
def test_labels_of_the_flag(given: str, labels: dict[str, tuple[str, ...]]) -> None:
    assert read_labels(given) == labels


def test_labels_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.toml"
    path.write_text('calm = "at ease"\npanic = ["sheer panic", "fear of dying"]\n')
    assert read_labels("", path) == {"calm": ("at ease",), "panic": ("sheer panic", "fear of dying")}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "`labels` or `labels_file`"),
        ("joy", "two labels"),
        ("joy=,fear=scared", "'joy' has no description"),
        ("joy=a,joy=b", "names 'joy' twice"),
    ],
)
def test_labels_refused(given: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_labels(given)


@pytest.mark.parametrize("content", ["calm = 3\npanic = 'x'", "calm ="])
def test_label_files_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "labels.toml"
    with pytest.raises(DataError, match="cannot be read"):
        read_labels("", path)
    path.write_text(content)
    with pytest.raises(DataError, match=str(path)):
        read_labels("", path)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2"])
def test_a_text_is_the_mean_of_its_own_tokens(encoders: dict[str, str], family: str) -> None:
    """Alone, without padding, through transformers itself."""
    found = Embedder(encoders[family], RUNTIME).embed(TEXTS)
    tokenizer, network = AutoTokenizer.from_pretrained(encoders[family]), AutoModel.from_pretrained(encoders[family])
    for text, row in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            states = network.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        mean = states.mean(dim=0).numpy()
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)


def test_long_texts_are_cut_where_positions_end(encoders: dict[str, str]) -> None:
    embedder = Embedder(encoders["roberta"], RUNTIME)
    assert embedder.tokens.max_tokens == 40
    long = ["so " * 5000]
    np.testing.assert_allclose(embedder.embed(long), embedder.embed(["so " * 100]), atol=1e-6)


VECTORS = {"up": (1.0, 0.0), "upper": (0.6, 0.8), "right": (0.0, 1.0), "a": (0.8, 0.6), "b": (0.0, 1.0)}


class Fixed:
    """Vectors by text."""

    def embed(self, texts: Any, progress: Any = None) -> np.ndarray:
        return np.array([VECTORS[text] for text in texts], dtype=np.float32)


def fixed(labels: dict[str, tuple[str, ...]], temperature: float = 0.05) -> ZeroShot:
    return ZeroShot(cast(Embedder, Fixed()), labels, temperature)


def test_cosines_and_shares_by_hand() -> None:
    model = fixed({"up": ("up",), "right": ("right",)}, temperature=0.2)
    np.testing.assert_allclose(model.similarities(["a", "b"]), [[0.8, 0.6], [0.0, 1.0]], atol=1e-6)
    share = 1 / (1 + np.exp(-0.2 / 0.2))
    np.testing.assert_allclose(model.probabilities(["a"]), [[share, 1 - share]], atol=1e-6)
    (predicted,) = model.predict(["a"])
    assert (predicted.label, predicted.warnings) == ("up", ())
    assert predicted.probabilities["up"] == pytest.approx(share)


def test_descriptions_of_a_label_are_averaged() -> None:
    model = fixed({"up": ("up", "upper"), "right": ("right",)})
    middle = np.array([0.8, 0.4]) / np.hypot(0.8, 0.4)
    np.testing.assert_allclose(model.centres[0], middle, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_refused(temperature: float) -> None:
    with pytest.raises(SettingsError, match="must be above 0"):
        fixed({"up": ("up",), "right": ("right",)}, temperature)


def corpus(*labels: tuple[str, ...], task: Task | None = None, split: tuple[str, ...] = ()) -> Manifest:
    task = task or Task("label", ("right", "up"))
    sources = ("a", "b", "up", "right", "upper")
    items = tuple(
        Item(f"t{k}", sources[k], {task.name: own}, split=split[k] if split else "") for k, own in enumerate(labels)
    )
    return Manifest("made up", LabelSpace((task,)), items, Path(), group_noun="author")


def test_scores_against_scikit_learn() -> None:
    model = fixed({"up": ("up",), "right": ("right",), "never": ("b",)})
    # Nearest: up, right (the first of two equal ones), up, right, right.
    report = evaluate_zero_shot(model, corpus(("up",), ("up",), ("up",), ("right",), ("up",)), n_resamples=200)
    truth, predicted = ["up", "up", "up", "right", "up"], ["up", "right", "up", "right", "right"]
    names = ["up", "right", "never"]
    assert report["macro_f1"] == pytest.approx(f1_score(truth, predicted, labels=names[:2], average="macro"))
    assert report["hits"] == report["accuracy"] == 3 / 5
    assert (report["n"], report["part"], report["unit"]) == (5, "all", "row")
    assert report["ci"][0] <= report["macro_f1"] <= report["ci"][1]
    assert report["warnings"] == ["no text has these labels, left out of macro-F1: never"]


def test_several_true_labels() -> None:
    task = Task("label", ("right", "up"), multi_label=True)
    model = fixed({"up": ("up",), "right": ("right",)})
    report = evaluate_zero_shot(model, corpus(("up", "right"), ("up",), (), task=task), n_resamples=50)
    # Said: up, right, up. True: both, up, none. F1 of up 2*1/(2+2), of right 0.
    assert report["macro_f1"] == pytest.approx(0.25)
    assert (report["hits"], report["accuracy"]) == (pytest.approx(1 / 3), 0.0)
    assert report["warnings"][0].startswith("1 text has several labels")


def test_the_part_judged() -> None:
    split = corpus(("up",), ("up",), ("right",), split=("train", "test", "test"))
    assert [(name, list(rows)) for name, rows in (part_of(split, on) for on in ("", "train", "all"))] == [
        ("test", [1, 2]),
        ("train", [0]),
        ("all", [0, 1, 2]),
    ]
    with pytest.raises(DataError, match="no row of made up is in its val part"):
        part_of(split, "val")
    with pytest.raises(SettingsError, match="`on=tst`"):
        part_of(split, "tst")


def test_labels_that_are_not_described_are_refused() -> None:
    with pytest.raises(DataError, match="not described: right"):
        evaluate_zero_shot(fixed({"up": ("up",), "b": ("b",)}), corpus(("up",), ("right",)))
    both = Manifest(
        "made up", LabelSpace((Task("x", ("a", "b")), Task("y", ("a", "b")))), (Item("i", "a", {}),), Path()
    )
    with pytest.raises(DataError, match="several questions: x, y"):
        evaluate_zero_shot(fixed({"a": ("a",), "b": ("b",)}), both)


def test_a_folder_that_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="`encoder="):
        Embedder(str(tmp_path), RUNTIME)


@pytest.mark.real
def test_obvious_sentences_get_the_obvious_label(minilm_root: Path) -> None:
    labels = {"joy": ("feeling happy",), "anger": ("feeling angry",), "fear": ("feeling afraid",)}
    obvious = {
        "This is the happiest day of my life!": "joy",
        "I am furious with you, get out!": "anger",
        "Somebody follows me in the dark and I am terrified.": "fear",
    }
    predicted = ZeroShot(Embedder(str(minilm_root), RUNTIME), labels).predict(list(obvious))
    assert {answer.text: answer.label for answer in predicted} == obvious
