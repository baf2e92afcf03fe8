"""Whether an exported file answers as its run: on which items, what may differ, and what a smaller file may cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_exports import exported, left_in, parity, with_kept_answers
from tone_corpora import done

from samo.deploy import export as module
from samo.deploy.parity import Parity, TaskParity, exact_problem, gain_problem, latencies, loss_problem
from samo.errors import ExportError, SettingsError
from samo.evaluation.abstention import NEVER, Abstention
from samo.evaluation.predictions import Predictions
from samo.prediction.exported import ExportedModel
from samo.runs.run import Run


def test_a_logit_may_lie_a_thousandth_away_and_no_label_may_change() -> None:
    assert exact_problem(parity(largest_difference=0.00099)) == ""
    assert "0.0011 from the run's, more than 0.001" in exact_problem(parity(largest_difference=0.0011))
    assert "logits lie" in exact_problem(parity(largest_difference=float("nan")))
    assert exact_problem(parity(equal_labels=0.99)) == "2 of 200 held-out items get other labels than from the run"


def test_a_hundredth_of_macro_f1_may_be_lost() -> None:
    assert loss_problem(parity(before=0.50, after=0.49)) == ""
    assert loss_problem(parity(before=0.50, after=0.60)) == ""
    assert loss_problem(parity(before=0.5, after=0.489)) == (
        "macro-F1 falls from 0.500 to 0.489 on the val part, more than 0.01"
    )
    assert loss_problem(parity(after=float("nan"))) != ""


def test_the_task_that_loses_most_counts() -> None:
    tasks = {"mood": TaskParity(0.5, 0.5, (1.0, 1.0)), "topic": TaskParity(0.7, 0.6, (1.0, 1.0))}
    assert loss_problem(parity(tasks=tasks)) == (
        "macro-F1 of 'topic' falls from 0.700 to 0.600 on the val part, more than 0.01"
    )
    both = {**tasks, "mood": TaskParity(0.5, 0.2, (1.0, 1.0)), "bare": TaskParity(None, None, (1.0, 1.0))}
    assert "of 'mood' falls from 0.500 to 0.200" in loss_problem(parity(before=0.5, after=0.2, tasks=both))
    assert loss_problem(parity(tasks={**tasks, "topic": TaskParity(0.7, 0.69, (1.0, 1.0))})) == ""


def test_no_other_answer_may_be_withheld() -> None:
    assert exact_problem(parity(equal_withheld=0.98)) == (
        "of 4 of 200 held-out items other answers are withheld than by the run"
    )


def test_each_task_and_what_is_withheld_is_compared(
    before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 8 bits that move one label of the second task by so much that it always, or never, holds.
    run, honest = Run(artifacts / "runs" / "text"), module.parity_of
    space = run.manifest.label_space
    assert [task.name for task in space.tasks] == ["mood", "topic"]
    moved: dict[str, float] = {"by": 0.0}
    withholding = Abstention("coverage", 0.5, {"mood": 0.0, "topic": NEVER}, {}, "val")

    def spoiled(given: Run, setup: Any, tasks: Any, items: Any, logits: np.ndarray, decisions: Any) -> Parity:
        changed = logits.copy()
        changed[:, tasks.slices["topic"]] += np.float32(moved["by"])
        if moved["by"] == 0.0:
            decisions = decisions[0], replace(decisions[0], abstention=withholding)
        return honest(given, setup, tasks, items, changed, decisions)

    monkeypatch.setattr(module, "parity_of", spoiled)
    with pytest.raises(ExportError, match="of 18 of 18 held-out items other answers are withheld than by the run"):
        exported(before, "text")
    monkeypatch.setattr(module, "exact_problem", lambda found: "")
    monkeypatch.setattr(module, "gain_problem", lambda faster, smaller: "")
    made = exported(before, "text", quantize="int8", force=True)
    topic = made.facts["parity"]["tasks"]["topic"]
    assert topic["coverage"] == {"before": 1.0, "after": 0.0}
    assert "- Task topic: macro-F1" in ExportedModel.open(made.path).metadata.card
    assert "100.0% answered before and 0.0% after" in ExportedModel.open(made.path).metadata.card
    moved["by"] = -50.0
    with pytest.raises(ExportError, match=r"macro-F1 of 'topic' falls from 1\.000 to 0\.000 on the val part"):
        exported(before, "text", quantize="int8", overwrite=True)


def test_a_quantised_file_is_faster_or_smaller() -> None:
    assert gain_problem(1.5, 1.0) == gain_problem(0.5, 3.0) == ""
    assert gain_problem(1.49, 2.99) == "it is 1.49 times as fast and 2.99 times smaller; 1.5 or 3.0 is wanted"


def test_networks_take_turns_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []

    class Fake:
        def __init__(self, name: str, seconds: list[float]) -> None:
            self.name, self.seconds = name, seconds

        def logits(self, inputs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            order.append(self.name)
            clock[0] += self.seconds.pop(0) if self.seconds else 0.001
            return inputs

        def features(self, inputs: np.ndarray, lengths: np.ndarray) -> None:
            return None

    monkeypatch.setattr("samo.deploy.parity.time.perf_counter", lambda: clock[0])
    # The first answer is not counted, and one slow answer of 15 changes no median.
    networks = {"a": Fake("a", [9.0, 0.5] + [0.002] * 14), "b": Fake("b", [9.0] + [0.004] * 15)}
    found = latencies(networks, (np.zeros((1, 2)), np.ones(1)))
    assert found == pytest.approx({"a": 2.0, "b": 4.0})
    assert order[:6] == ["a", "b", "a", "b", "a", "b"]
    assert len(order) == 2 * 16


def test_kept_answers_to_the_test_part_are_compared_without_opening_it(before: Path, artifacts: Path) -> None:
    run = with_kept_answers(artifacts)
    made = exported(before)
    assert made.facts["parity"]["part"] == "test"
    assert made.facts["parity"]["n"] == len(run.split.test)
    assert run.test_openings == 1
    assert not run.path("openings.jsonl").exists()
    # The card says it, once however often the file is written.
    exported(before, overwrite=True)
    card = run.path("MODEL_CARD.md").read_text()
    assert card.startswith("# Model card: speech\n\nFirst lines.\n\n## Exported file speech.onnx\n")
    assert card.count("## Exported file") == 1
    assert ExportedModel.open(made.path).metadata.card.startswith("# Model card: speech\n\nFirst lines.\n")


def test_answers_that_another_model_gave_are_not_compared_with(before: Path, artifacts: Path) -> None:
    run = with_kept_answers(artifacts)
    kept = Predictions.load(run.path("predictions.test.npz"))
    Predictions(kept.ids, kept.logits + 0.01, kept.targets, kept.groups, kept.meta).save(
        run.path("predictions.test.npz")
    )
    assert exported(before).facts["parity"]["part"] == "val"


def test_another_model_on_the_test_part_is_an_opening(before: Path, artifacts: Path) -> None:
    run = with_kept_answers(artifacts)
    made = exported(before, quantize="int8", force=True)
    assert made.facts["parity"]["part"] == "test"
    assert run.test_openings == 2
    assert json.loads(run.path("openings.jsonl").read_text().splitlines()[-1])["by"] == "export int8"


def test_a_file_that_answers_otherwise_is_not_written(
    before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = module._logits
    monkeypatch.setattr(module, "_logits", lambda job, network: honest(job, network) + np.float32(0.0011))
    with pytest.raises(ExportError, match=r"speech\.onnx is not written: its logits lie up to") as caught:
        exported(before, force=True)  # no force keeps what is wrong
    assert caught.value.exit_status == 11
    assert left_in(artifacts) == []


def learned_from_everything(artifacts: Path) -> Run:
    """The run ``speech`` as what `samo crossval --refit` leaves: no validation or test part, a report of the folds."""
    run = Run(artifacts / "runs" / "speech")
    split = json.loads(run.path("split.json").read_text())
    everything = sorted([*split["train"], *split["val"], *split["test"]])
    run.path("split.json").write_text(
        json.dumps({**split, "rule": "whole", "train": everything, "val": [], "test": []})
    )
    report = {
        "metrics": {"macro_f1": 0.61}, "n": 36, "ci": {"macro_f1": [0.5, 0.7], "unit": "speaker", "n_units": 6},
    }  # fmt: skip
    run.path("crossval.json").write_text(json.dumps({"grid": "g", "folds": 5, "report": report}))
    return Run(run.folder)


def test_a_run_that_learned_from_everything_is_checked_on_that(
    before: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = learned_from_everything(artifacts)
    seen = "36 items that it was trained on"
    shown = done("export", "speech", "--data-root", before / "clips", "--threads", 1)
    assert seen in " ".join(shown.out.split())
    assert "macro-F1" not in shown.out
    opened = ExportedModel.open(run.path("exports") / "speech.onnx")
    facts = json.loads(run.path("exports/speech.export.json").read_text())
    assert (facts["parity"]["part"], facts["parity"]["trained_on"], facts["parity"]["n"]) == ("train", True, 36)
    assert seen in opened.metadata.card
    assert "macro-F1" not in opened.metadata.card
    assert opened.metadata.reference == {}
    score = (
        "cross-validated macro-F1 0.610 [0.500, 0.700] over 36 items, 6 speakers, by 5 models trained alike on folds; "
        "this one learned from all of it"
    )
    assert opened.facts.scores[0] == score
    # Of many training items some, always the same, from the first to the last.
    items = []
    honest = module.check_items

    def noted(*given: Any) -> Any:
        items.append(honest(*given))
        return items[-1]

    monkeypatch.setattr(module, "check_items", noted)
    monkeypatch.setattr("samo.deploy.parity.MOST_TRAINED_ON", 5)
    made = exported(before, quantize="int8", force=True)
    everything = run.split.train
    assert items[0].ids == tuple(everything[k] for k in (0, 9, 18, 26, 35))
    assert repr(made).endswith("% of the labels equal on 5 items that it was trained on>")
    assert ExportedModel.open(made.path).facts.scores[0] == f"{score} (the run)"
    monkeypatch.setattr(module, "fine_tune", None)
    with pytest.raises(SettingsError, match="run 'speech' has none: it learned from everything"):
        exported(before, prune=0.5)


def test_of_what_it_was_trained_on_problems_say_so() -> None:
    assert exact_problem(parity(part="train", equal_labels=0.99)) == (
        "2 of 200 items that it was trained on get other labels than from the run"
    )
    assert loss_problem(parity(part="train", before=0.5, after=0.489)) == (
        "macro-F1 falls from 0.500 to 0.489 on items that it was trained on, more than 0.01"
    )
