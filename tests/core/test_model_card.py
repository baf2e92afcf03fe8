"""The model card says what it must and takes no name for markup."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from example_reports import build

from samo.evaluation.calibration import Calibration, summary
from samo.evaluation.predictions import Predictions
from samo.reporting.model_card import model_card
from samo.tasks import LabelSpace, Task

DATA = {
    "title": "A corpus",
    "licence": "CC BY 4.0",
    "citation": "Somebody (2020)",
    "limitations": "one country\ntwo years",
}
SECTIONS = [
    "Intended use", "Out of scope", "Data", "Results", "Results by group", "Limitations", "Training settings",
    "Environment", "How to reproduce",
]  # fmt: skip


def report(labels: tuple[str, ...] = ("calm", "sad"), **changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    space = LabelSpace((Task("emotion", labels),))
    targets = np.eye(2, dtype=np.float32)[rng.integers(0, 2, 60)]
    given = Predictions(
        ids=tuple(map(str, range(60))),
        logits=(targets + rng.normal(size=(60, 2))).astype(np.float32),
        targets=targets,
        groups=tuple(f"g{k // 6}" for k in range(60)),
        meta={"gender": tuple("fm"[k // 6 % 2] for k in range(60))},
    )
    arguments: dict[str, Any] = {
        "run": "run-1", "dataset": "corpus", "synthetic": False, "split": "test", "split_rule": "speaker",
        "leaky": False, "predictions": given, "label_space": space, "unit": "speaker",
        "train_macro_f1": 0.9, "val_macro_f1": None,
    }  # fmt: skip
    return build(**{**arguments, **changed})


def card(found: dict[str, Any], data: dict[str, str] | None = None) -> str:
    settings, environment = (
        {"lr": 0.001, "weights": ""},
        {"packages": {"numpy": "2"}, "command": "samo train --lr 0.001"},
    )
    return model_card(found, settings, environment, data_card=DATA if data is None else data)


def test_sections_in_order() -> None:
    assert [line[3:] for line in card(report()).splitlines() if line.startswith("## ")] == SECTIONS


def test_says_what_it_must() -> None:
    found = report()
    text, ends = card(found), found["ci"]["macro_f1"]
    for words in (
        f"Macro-F1 **{found['metrics']['macro_f1']:.3f}** (95 % interval {ends[0]:.3f} to {ends[1]:.3f} over 10 ",
        "No decisions about people", "acted emotion", "Licence: CC BY 4.0", "Citation: Somebody (2020)",
        "- one country\n- two years", "| lr | 0.001 |", "| packages.numpy | 2 |", "| g9 |", "| f |",
        "samo train --lr 0.001\nsamo evaluate run-1",
    ):  # fmt: skip
        assert words in text
    assert "demo data" not in text
    assert "LEAKY" not in text
    assert "nan" not in text.lower().split()


def test_settings_in_warnings_stay_in_backquotes() -> None:
    text = card(report(notes=("no more of  a_[b]`; see `augment_max_per_text=3` | `not a setting`",)))
    assert "\n- no more of a_\\[b\\]\\`; see `augment_max_per_text=3` \\| \\`not a setting\\`\n" in text


def test_calibration_in_one_line() -> None:
    found = report(calibration=Calibration({"emotion": 2.0}, "val"))
    bins = "15 equal-width bins of the top-label confidence, Guo et al. 2017"
    assert f"\n\nCalibration: {summary(found['calibration'])} ({bins}).\n" in card(found)
    assert "temperature of 2.00" in card(found)
    assert "were not calibrated" not in card(found)
    assert "- its probabilities were not calibrated: read them as a ranking" in card(report())


@pytest.mark.parametrize(
    ("changed", "stamp"),
    [
        ({"synthetic": True}, "**synthetic demo data**"),
        ({"synthetic": True, "synthetic_model_only": True}, "**model trained on synthetic demo data**"),
        ({"leaky": True}, "LEAKY SPLIT"),
    ],
)
def test_stamps_at_the_top_and_beside_the_numbers(changed: dict[str, Any], stamp: str) -> None:
    text = card(report(**changed))
    assert stamp in text.partition("## Intended use")[0]
    assert stamp in text.partition("## Results\n")[2].partition("## Results by group")[0]


def test_absent_classes_and_paths_of_the_author() -> None:
    groups, logits = tuple(f"g{k // 6}" for k in range(60)), np.eye(2, dtype=np.float32)[[0, 0, 1] * 20]
    calm = np.eye(2, dtype=np.float32)[[0] * 60]
    found = report(predictions=Predictions(tuple(map(str, range(60))), logits, calm, groups, {}))
    # Two thirds found, nothing else taken for it: recall 2/3, precision 1. Ten groups alike tell no spread, so the
    # interval is Wilson's for 60 rows and t = 2.262: (0.8427 -+ 0.1244) / 1.0853.
    text = card(found)
    assert "\nMacro-F1 over the 1 of 2 classes present **0.800** (95 % interval 0.662 to 0.891" in text
    assert "| macro-F1 over all 2 classes | 0.400 |" in text
    assert "/home/me" not in model_card(report(), {"data_root": "/home/me/x", "lr": 1}, {}, data_card=DATA)


def test_missing_licence_is_said() -> None:
    assert "Licence: not stated" in card(report(), {})


def test_names_cannot_break_tables_or_be_markup() -> None:
    text = card(report(labels=("a|b\nc", "<img src=x>")))
    assert "| a\\|b c |" in text
    assert "<img" not in text.replace("\\<img", "")


def test_no_interval_for_one_group() -> None:
    found = report()
    found["ci"].update(macro_f1=None, accuracy=None, uar=None, n_units=1)
    assert "(no interval)" in card(found)
