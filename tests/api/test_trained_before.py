"""Runs trained before the house was rebuilt still load, evaluate and predict with the numbers of then.

Made by commit 46bfca4 with the commands in each ``environment.json``, then ``samo evaluate RUN --json`` and
``samo predict ... --json``; places on the machine that trained them were replaced by ``/data``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samo
from samo.errors import RunError
from samo.evaluation.predictions import Predictions
from samo.experiments.cells import Cell, refuse_other_settings
from samo.runs.run import Run


def stored(before: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((before / name).read_text())
    return content


def assert_alike(found: Any, then: Any, place: str = "") -> None:
    """Every value of ``then`` is there and the same, numbers to 1e-5; keys may have been added."""
    if isinstance(then, dict):
        for key, value in then.items():
            assert key in found, f"{place}.{key} is gone"
            assert_alike(found[key], value, f"{place}.{key}")
    elif isinstance(then, list):
        assert len(found) == len(then), place
        for number, (one, other) in enumerate(zip(found, then, strict=True)):
            assert_alike(one, other, f"{place}[{number}]")
    elif isinstance(then, float):
        assert found == pytest.approx(then, abs=1e-5), place
    else:
        assert found == then, place


def test_speech_answers_as_then(before: Path) -> None:
    model = samo.load("speech", threads=1)
    then = stored(before, "speech.predict.json")["predictions"]
    found = model.predict([before / row["path"] for row in then])
    assert len(found) == 37
    for prediction, row in zip(found, then, strict=True):
        plain = prediction.to_json()
        assert_alike({**plain, "path": row["path"]}, row)
    assert len(found[-1].timeline) == 24


def test_text_answers_as_then(before: Path) -> None:
    model = samo.load("text", threads=1)
    then = stored(before, "text.predict.json")["predictions"]
    found = model.predict([row["text"] for row in then])
    assert_alike([prediction.to_json() for prediction in found], then)
    assert found[2].warnings == ("empty",)


@pytest.mark.parametrize(("name", "data"), [("speech", "clips"), ("text", "texts.csv")])
def test_reports_hold_the_numbers_of_then(before: Path, artifacts: Path, name: str, data: str) -> None:
    logits = Predictions.load(artifacts / "runs" / name / "predictions.test.npz").logits
    report = samo.evaluate(name, data_root=before / data, threads=1)
    then = stored(before, f"{name}.report.json")
    # The page speaks of warnings in today's words.
    then.pop("warnings")
    assert_alike(dict(report), then)
    again = Predictions.load(artifacts / "runs" / name / "predictions.test.npz").logits
    np.testing.assert_allclose(again, logits, atol=1e-5)


def test_settings_that_came_later_stand_at_their_defaults(before: Path, artifacts: Path) -> None:
    run = samo.load("speech").facts.name
    stored = json.loads((artifacts / "runs" / run / "config.json").read_text())
    assert "trim_db" not in stored
    settings = Run(artifacts / "runs" / run).settings
    assert settings == {**settings, **stored}
    assert settings["trim_db"] == 0.0
    # A grid cell or a run to resume with the same settings is the same training.
    cell = Cell("a", "a", 0, None, settings)
    refuse_other_settings([(cell, stored)], "here")
    with pytest.raises(RunError, match=r"trim_db was 0\.0, is now 30\.0"):
        refuse_other_settings([(Cell("a", "a", 0, None, {**settings, "trim_db": 30.0}), stored)], "here")
