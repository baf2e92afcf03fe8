"""The demo corpus: GoEmotions' shape, the same on every machine, no copies, neither trivial nor hopeless."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier

from samo.data.leaks import audit
from samo.data.manifest import Manifest
from samo.data.splits import PARTS, SplitRequest, make_split
from samo_text.config import DataSettings
from samo_text.datasets import DATASETS
from samo_text.datasets.demo import SIZES, WEIGHTS, sentences
from samo_text.datasets.demo_words import CUES, FAMILIES, SHARED
from samo_text.datasets.emotions import EMOTIONS, GROUPINGS, label_space


def corpus(mode: str = "emotion") -> Manifest:
    return DATASETS["demo"].index(Path(), DataSettings(dataset="demo", mode=mode))


def test_the_words_cover_every_emotion() -> None:
    assert set(CUES) == set(EMOTIONS) - {"neutral"} == {name for members in FAMILIES.values() for name in members}
    assert set(SHARED) == set(FAMILIES)
    own = Counter(cue for cues in (*CUES.values(), *SHARED.values()) for cue in cues)
    assert set(own.values()) == {1}
    assert set(WEIGHTS) == set(EMOTIONS)


def test_the_same_sentences_everywhere() -> None:
    text = "\n".join(f"{text}\t{','.join(labels)}" for text, labels in sentences())
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "c0f8e0c208c9efd1e455cbd39efb877dfd442025bf6d35c34a33df9171f36513"
    )


@pytest.mark.parametrize("mode", GROUPINGS)
def test_shape(mode: str) -> None:
    manifest = corpus(mode)
    assert manifest.synthetic
    assert manifest.label_space == label_space(mode)
    assert Counter(item.split for item in manifest.items) == SIZES
    split = make_split(manifest, SplitRequest("table"))
    assert audit(manifest, split) == []
    counts = {
        part: Counter(label for row in manifest.rows(split.part(part)) for label in manifest.items[row].labels[mode])
        for part in PARTS
    }
    assert all(counts[part][label] >= 4 for part in PARTS for label in manifest.label_space.primary.labels)


def test_imbalance_and_two_labels() -> None:
    items = corpus().items
    counts = Counter(label for item in items for label in item.labels["emotion"])
    assert counts.most_common(1)[0][0] == "neutral"
    assert counts["neutral"] > 10 * counts["grief"]
    two = sum(len(item.labels["emotion"]) == 2 for item in items) / len(items)
    assert 0.12 < two < 0.17
    assert max(len(item.labels["emotion"]) for item in items) == 2
    assert sum("[NAME]" in item.source for item in items) > 500


def test_a_simple_model_learns_it_but_not_all_of_it() -> None:
    manifest = corpus()
    rows = {part: manifest.rows([item.id for item in manifest.items if item.split == part]) for part in PARTS}
    texts = {part: [manifest.items[row].source for row in own] for part, own in rows.items()}
    words = TfidfVectorizer(min_df=2, ngram_range=(1, 2))
    model = OneVsRestClassifier(LogisticRegression(class_weight="balanced"))
    model.fit(words.fit_transform(texts["train"]), manifest.targets[rows["train"]])
    predicted = model.predict(words.transform(texts["test"]))
    score = f1_score(manifest.targets[rows["test"]], predicted, average="macro")
    assert 0.5 < score < 0.8
    assert np.isfinite(score)
