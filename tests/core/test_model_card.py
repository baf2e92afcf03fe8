"""The model card says what it must and takes no name for markup."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from example_reports import build

from samo.evaluation.calibration import Calibration, summary
from samo.evaluation.predictions import Predictions
from samo.reporting.duties import law_lines, licence_lines
from samo.reporting.model_card import exported_sections, model_card
from samo.tasks import LabelSpace, Task

DATA = {
    "title": "A corpus",
    "licence": "CC BY 4.0",
    "citation": "Somebody (2020)",
    "limitations": "one country\ntwo years",
}
SECTIONS = [
    "Intended use", "Out of scope", "Law", "Data", "Training", "Licence of the weights", "Results", "Calibration",
    "Results by group", "Limitations", "Training settings", "Environment", "How to reproduce",
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
    text = card(
        report(notes=("no more of  a_[b]`; see `augment_max_per_text=3` | `not a setting`, `samo crossval x`",))
    )
    line = "no more of a_\\[b\\]\\`; see `augment_max_per_text=3` \\| \\`not a setting\\`, `samo crossval x`"
    assert f"\n- {line}\n" in text


def test_calibration_in_one_line() -> None:
    found = report(calibration=Calibration({"emotion": 2.0}, "val"))
    bins = "15 equal-width bins of the top-label confidence, Guo et al. 2017"
    assert f"## Calibration\n\nCalibration: {summary(found['calibration'])} ({bins}).\n" in card(found)
    scores = found["calibration"]
    cells = [scores["ece"], scores["ece_uncalibrated"], 2.0, scores["nll"], scores["brier"]]
    assert f"| emotion | {' | '.join(f'{cell:.3f}' for cell in cells)} |" in card(found)
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
    settings = {"data_root": "/home/me/x", "encoder": "/home/me/nets/MiniLM", "teacher": "/home/me/a,/home/me/b"}
    environment = {"command": "samo train --data-root /home/me/x --encoder=/home/me/nets/MiniLM"}
    text = model_card(report(), settings, environment, data_card=DATA)
    assert "/home" not in text
    assert "| encoder | MiniLM |\n| teacher | a,b |\n" in text
    assert "\nsamo train --data-root x --encoder=MiniLM\nsamo evaluate run-1\n" in text
    assert "- begun from the answers of the run a,b, whose" in text


def test_folders_with_commas_and_markup_in_their_names() -> None:
    place = "/home/me/my nets, old/_x_ `a`*b*|c, &lt;"
    text = model_card(report(), {"encoder": place, "weights": place}, {}, data_card=DATA)
    name = r"\_x_ \`a\`\*b\*\|c, \&lt;"
    assert f"- begun from the pretrained encoder {name}, whose own" in text
    assert f"- begun from the weights in {name}, whose own" in text
    assert f"| encoder | {name} |\n| weights | {name} |\n" in text
    assert "| g9 |" in text  # what is inside a word stays
    assert "a_b" in model_card(report(labels=("a_b", "c")), {}, {}, data_card=DATA)


def test_a_corpus_of_ones_own_is_not_the_readers_own() -> None:
    found = {**report(), "corpus": "folder my `old` clips, _x_"}
    text = card(found, {"title": "your own folder: one folder per class", "licence": "that of your clips"})
    assert "- Title: folder my \\`old\\` clips, \\_x_\n- Licence: that of its clips\n" in text
    assert "your own" not in text


def test_missing_licence_is_said() -> None:
    assert "Licence: not stated" in card(report(), {})


def test_names_cannot_break_tables_or_be_markup() -> None:
    text = card(report(labels=("a|b\nc", "<img src=x>")))
    assert "| a\\|b c |" in text
    assert "<img" not in text.replace("\\<img", "")
    # No setting either: what is quoted in a label is no code.
    text = card(report(labels=("`sad`", "_calm_")))
    (taken, *_) = [line for line in text.splitlines() if line.startswith("- often takes ")]
    assert {r"\`sad\`", r"\_calm_"} <= set(taken.split())


def test_no_interval_for_one_group() -> None:
    found = report()
    found["ci"].update(macro_f1=None, accuracy=None, uar=None, n_units=1)
    assert "(no interval)" in card(found)


def test_the_law_names_its_articles() -> None:
    text = model_card(report(), {"modality": "audio"}, {}, data_card=DATA)
    law = text.partition("## Law\n")[2].partition("\n## ")[0]
    for words in (
        "Article 5(1)(f) of Regulation (EU) 2024/1689", "workplace and education institutions",
        "except for medical or safety reasons", "Annex III, point 1(c)", "Article 50(3)", "A voice is such data",
        "no legal advice", "Article 50(3) applies from 2 August 2026.", "in so far as their use is permitted",
    ):  # fmt: skip
        assert words in law
    assert "A voice" not in " ".join(law_lines("text"))
    assert "a written text by itself is not" in " ".join(law_lines("text"))
    assert len(law_lines("")) == len(law_lines("text")) - 1


@pytest.mark.parametrize(
    ("licence", "found", "missing"),
    [
        (
            "CC BY-NC-SA 4.0",
            ["careful reading", "Name the source", "Non-commercial", "Share alike"],
            ["No derivatives"],
        ),
        ("CC BY 4.0", ["careful reading", "Name the source"], ["Non-commercial", "Share alike"]),
        ("CC BY-NC-ND 4.0", ["Non-commercial", "No derivatives"], ["Share alike"]),
        ("CC0-1.0 (generated by SAMO, no recordings of people)", ["public domain"], ["careful reading"]),
        ("that of your clips", ["ask the author"], ["careful reading"]),
        ("", ["No licence of the data is known"], ["public domain"]),
        ("not stated", ["No licence of the data is known"], ["public domain"]),
        ("Academic use by request", ["careful reading", "SAMO does not know it"], ["Name the source"]),
        ("written by nobody", ["SAMO does not know it"], ["Name the source"]),
    ],
)
def test_what_the_data_ask_of_the_weights(licence: str, found: list[str], missing: list[str]) -> None:
    text = card(report(), {"licence": licence}).partition("## Licence of the weights\n")[2].partition("\n## ")[0]
    assert text.strip() == "\n".join(f"- {line}" for line in licence_lines(licence))
    assert [words for words in found if words not in text] == []
    assert [words for words in missing if words in text] == []


def test_what_it_was_trained_on_and_begun_from() -> None:
    found = {**report(leaky=True), "parts": {"train": {"item": 40, "speaker": 4}, "test": {"item": 1, "speaker": 1}}}
    settings = {"encoder": "/home/me/models/MiniLM", "teacher": ["", "big"], "pretrained": False, "weights": ""}
    text = model_card(found, settings, {}, data_card=DATA).partition("## Training\n")[2].partition("\n## ")[0]
    assert text.strip().splitlines() == [
        "- train: 40 items, 4 speakers",
        "- test: 1 item, 1 speaker",
        "- split by speaker: **leaky**, what is alike may stand in training and in test, so every figure below is too "
        "good",
        "- begun from the pretrained encoder MiniLM, whose own data and licence count as well",
        "- begun from the answers of the run big, whose own data and licence count as well",
    ]


def refitted(used: str) -> str:
    decision = {
        "calibration": {"temperature": {"emotion": 1.25}},
        "thresholds": {
            "used": used, "tasks": {"emotion": {"common": 0.4, "per_class": {"calm": 0.35, "sad": 0.62}}},
        },
        "abstention": {"rule": "coverage", "wanted": 0.7, "thresholds": {"emotion": 0.512}},
    }  # fmt: skip
    folds = report(split="out-of-fold", split_rule="folds", parts={"train": {"item": 18, "speaker": 6}})
    return card({**folds, "refit": {"models": 5, "decision": decision}})


def test_a_model_that_learned_from_everything_has_a_decision_of_its_own() -> None:
    found = refitted("per-class")
    assert "are those of 5 models trained alike" in found
    assert "## Training\n\n- train: 18 items, 6 speakers\n- nothing is held out\n" in found
    folds = "the validation predictions of all folds' models"
    assert f"This model's own temperature is 1.250, fitted on {folds}. Of those models: Calibration: " in found
    thresholds = found.partition("## Thresholds\n\n")[2].partition("\n## ")[0]
    assert f"A label of emotion is answered from this probability on, chosen on {folds}." in thresholds
    assert "| calm | 0.35 |\n| sad | 0.62 |" in thresholds
    assert f"under a confidence of 0.512 is withheld, for a coverage of 0.7 on {folds}." in thresholds
    assert "| calm | 0.40 |\n| sad | 0.40 |" in refitted("global")
    half = refitted("half")
    assert "on, as its settings ask." in half
    assert "| calm | 0.50 |\n| sad | 0.50 |" in half


def test_gaps_between_groups_are_a_table() -> None:
    found = report()
    found["by_group"] = {
        "gender": {"f": {"n": 20, "macro_f1": 0.75, "accuracy": 0.7, "uar": 0.7},
                   "m": {"n": 40, "macro_f1": 0.5, "accuracy": 0.6, "uar": 0.6},
                   "x": {"n": 1, "macro_f1": None, "accuracy": 0.0, "uar": None}},
        "room": {"a": {"n": 60, "macro_f1": 0.6, "accuracy": 0.6, "uar": 0.6}},
    }  # fmt: skip
    lines = card(found).partition("## Results by group\n")[2].splitlines()
    assert "| gender | m 0.500 | f 0.750 | 0.250 | 20 |" in lines
    assert not [line for line in lines if line.startswith("| room |")]


def test_exported_files_outlive_a_new_card_of_the_same_weights() -> None:
    section = "## Exported file a\\_b.onnx\n\n- onnx; opset 18\n"
    first = card(report()) + "\n" + section
    assert exported_sections(first) == section.strip()
    again = model_card(report(), {}, {}, data_card=DATA, exported=exported_sections(first))
    assert again.endswith(f"\n\n{section}")
    assert exported_sections(again) == section.strip()
    assert exported_sections(card(report())) == ""
