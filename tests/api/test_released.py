"""The models that come with SAMO: what they say of themselves, and that they answer where nothing was trained."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

import samo
from samo.errors import RunError
from samo.modalities import released_files
from samo.prediction.exported import ExportedModel
from samo.runs.artifacts import find_model, find_run
from samo.runs.released import DEFAULTS, released_for

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "artifacts" / "reports"


@pytest.mark.parametrize("name", sorted(released_files()))
def test_a_released_model_says_what_it_is(name: str) -> None:
    path = released_files()[name]
    about = ExportedModel.open(path).metadata
    assert path.stat().st_size < 5e6
    assert (about.facts.name, name) == (name, DEFAULTS[about.modality])
    assert about.facts.licence
    assert "## Law" in about.card
    assert "## Licence of the weights" in about.card
    assert path.with_name("LICENSE.md").is_file()
    beside = json.loads(path.with_suffix(".export.json").read_text())
    assert beside["exact"]["equal_labels"] == 1.0
    assert beside["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert beside["size_mb"]["file"] == round(path.stat().st_size / 1e6, 4)
    # Another machine's folders would be of no use to anybody, and nobody's business.
    assert not re.findall(r"(?:^|[ '\"=,])/\w.*", about.card, re.MULTILINE)
    assert "--data-root ravdess" in about.card or "--data-root goemotions" in about.card
    assert not re.findall(rb"/(?:work|home|root|tmp|Users|mnt)/", path.read_bytes())


def test_the_speech_model_carries_the_figures_of_the_reports() -> None:
    about = ExportedModel.open(released_files()["samo-speech"]).metadata
    folds = json.loads((REPORTS / "ravdess" / "mn04-distilled.json").read_text())["joined"]
    there = json.loads((REPORTS / "emodb" / "mn04-distilled.json").read_text())
    first, second = about.facts.scores
    (low, high), score = folds["ci"]["macro_f1"], folds["metrics"]["macro_f1"]
    assert first.startswith(
        f"cross-validated macro-F1 {score:.3f} [{low:.3f}, {high:.3f}] over 1440 items, 24 speakers"
    )
    low, high = there["ci"]["macro_f1"]
    assert second.endswith(f"{there['metrics']['macro_f1']:.3f} [{low:.3f}, {high:.3f}] over 454 items, 10 speakers")
    assert "It learned from every item there is" in about.card
    assert second in about.card.replace("\\", "")


def test_it_answers_where_nothing_was_trained(tmp_path: Path) -> None:
    model = samo.load(artifacts=tmp_path)
    assert model.facts.name == "samo-speech"
    assert samo.load("samo-speech", artifacts=tmp_path).facts == model.facts
    rate = 16_000
    wave = (0.1 * np.sin(2 * np.pi * 220 * np.arange(rate) / rate)).astype(np.float32)
    found = model.predict(wave, sr=rate)
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert model.spectrogram(wave, rate) is not None


def test_a_run_comes_first() -> None:
    before = ROOT / "tests" / "fixtures" / "trained_before"
    assert released_for("", before) is None
    # By its name it is still there.
    assert released_for("samo-speech", before) == released_files()["samo-speech"]


def test_a_name_that_is_neither_is_refused(tmp_path: Path) -> None:
    assert released_for("samo-speach", tmp_path) is None
    with pytest.raises(RunError, match="there is no run 'samo-speach'"):
        samo.load("samo-speach", artifacts=tmp_path)


def test_what_needs_a_run_says_that_a_released_model_only_predicts(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="'samo-speech' is no run: a released model only predicts"):
        find_model(tmp_path, "samo-speech")
    file = released_files()["samo-text"]
    with pytest.raises(RunError, match=r"samo-text.onnx' is no run: an exported file only predicts"):
        find_run(tmp_path, str(file))
    with pytest.raises(RunError) as misspelled:
        find_model(tmp_path, "samo-speach")
    assert misspelled.value.hint.startswith("did you mean 'samo-speech'? ")
