"""Out-of-fold predictions joined: what several seeds and missing folds do to them."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from finished_cells import SPACE, finished
from sklearn.metrics import f1_score

from samo.errors import RunError, SettingsError
from samo.evaluation.abstention import Abstention, abstention_line
from samo.evaluation.calibration import Calibration, fit_temperature, summary
from samo.evaluation.predictions import Predictions
from samo.experiments.cells import Cell
from samo.experiments.crossval import crossval_report, fold_settings, join_predictions, write_crossval
from samo.experiments.learning_curve import LearningCurve, Point, curve_figure, curve_of
from samo.reporting.html import render_html
from samo.runs import calibrate
from samo.training.checkpoint import save_model


def two_seeds(grid: Path, groups: bool = True) -> list[Cell]:
    return [
        finished(grid, "all", seed, fold, random.Random(10 * seed + fold).sample(range(8), 2 + seed), groups=groups)
        for seed in (0, 1)
        for fold in range(5)
    ]


def test_seeds_are_judged_one_by_one_and_together(tmp_path: Path) -> None:
    cells = two_seeds(tmp_path)
    report = crossval_report("c", cells, tmp_path, "speaker")
    said = [Predictions.load(cell.run(tmp_path).path("predictions.test.npz")) for cell in cells]

    def score(parts: list[Predictions]) -> float:
        truth = np.concatenate([part.targets.argmax(axis=1) for part in parts])
        return float(f1_score(truth, np.concatenate([part.logits.argmax(axis=1) for part in parts]), average="macro"))

    assert (report["n"], report["ci"]["n_units"], report["ci"]["unit"]) == (80, 10, "speaker")
    assert report["metrics"]["macro_f1"] == pytest.approx(score(said))
    assert [row["macro_f1"] for row in report["by_seed"]] == pytest.approx([score(said[:5]), score(said[5:])])
    folds = [score([one]) for one in said]
    assert [row["macro_f1"] for row in report["folds"]] == pytest.approx(folds)
    assert report["spread"]["cells"] == {
        "n": 10, "mean": pytest.approx(np.mean(folds)), "sd": pytest.approx(np.std(folds, ddof=1)),
    }  # fmt: skip
    assert report["spread"]["seeds"]["n"] == 2
    assert (report["train_macro_f1"], report["val_macro_f1"]) == (0.9, 0.5)


def test_items_without_speakers_are_one_unit_over_seeds(tmp_path: Path) -> None:
    cells = two_seeds(tmp_path, groups=False)
    report = crossval_report("c", cells, tmp_path, "speaker")
    assert (report["n"], report["ci"]["n_units"]) == (80, 40)
    assert set(join_predictions(cells[:5], tmp_path).groups) == {""}


def test_the_simple_models_of_all_folds_stand_beside_the_runs(tmp_path: Path) -> None:
    cells = two_seeds(tmp_path)
    rng = np.random.default_rng(0)
    simple = []
    for cell in cells:
        run = cell.run(tmp_path)
        own = Predictions.load(run.path("predictions.test.npz"))
        logits = rng.normal(size=own.logits.shape)
        simple.append((own.targets.argmax(axis=1), logits.argmax(axis=1)))
        decided = np.eye(logits.shape[1], dtype=bool)[logits.argmax(axis=1)]
        beside = replace(own, logits=logits, decided=decided)
        for kind in ("baseline", "shortcut"):
            beside.save(run.path(f"predictions.test.{kind}.npz"))
        report = json.loads(run.path("report.json").read_text())
        report |= {"baseline": {"name": "functionals"}, "shortcut": {"name": "level and duration"}}
        run.path("report.json").write_text(json.dumps(report))
    truth, answers = (np.concatenate(each) for each in zip(*simple, strict=True))
    report = crossval_report("c", cells, tmp_path, "speaker")
    expected = float(f1_score(truth, answers, average="macro"))
    assert (report["baseline"]["name"], report["baseline"]["macro_f1"]) == ("functionals", pytest.approx(expected))
    gap = report["metrics"]["macro_f1"] - expected
    assert report["baseline"]["difference"]["value"] == pytest.approx(gap)
    assert report["shortcut"]["name"] == "level and duration"
    assert report["shortcut"]["chance"] == pytest.approx(1 / len(set(truth)))
    # Where one fold was evaluated before simple models were kept there is none of all.
    cells[3].run(tmp_path).path("predictions.test.baseline.npz").unlink()
    report = crossval_report("c", cells, tmp_path, "speaker")
    assert report["baseline"] is None
    assert "shortcut" in report


def test_missing_folds_are_named(tmp_path: Path) -> None:
    cells = two_seeds(tmp_path)
    cells[7].run(tmp_path).path("report.json").unlink()
    report = crossval_report("c", cells, tmp_path, "speaker")
    assert report["n"] == 72
    assert any("not all folds are in: all.seed1.fold2" in line for line in report["warnings"])
    with pytest.raises(RunError, match="no fold of 'c' is evaluated yet"):
        crossval_report("c", cells, tmp_path / "empty", "speaker")


def test_a_learning_curve_pairs_seeds_and_folds(tmp_path: Path) -> None:
    misses = {0.5: [3, 4, 3], 1.0: [1, 0, 2]}
    cells = [
        finished(tmp_path, f"limit_fraction={share}", 0, fold, range(n), limit_fraction=share)
        for share, counts in misses.items()
        for fold, n in enumerate(counts)
    ]
    curve = curve_of("c", list(reversed(cells)), tmp_path, "speaker")
    assert [point.share for point in curve.points] == [0.5, 1.0]
    assert (curve.points[0].gain, curve.points[0].n_units, curve.points[0].n_items) == (None, 6, 24)
    first, second = (np.array(point.test) for point in curve.points)
    assert curve.points[1].gain is not None
    assert curve.points[1].gain.mean == pytest.approx((second - first).mean())
    assert curve.points[1].gain.n == 3
    assert curve.points[1].val == (0.5, 0.5, 0.5)
    # Without one of its cells a fold counts for no share.
    cells[0].run(tmp_path).path("report.json").unlink()
    assert [len(point.test) for point in curve_of("c", cells, tmp_path, "speaker").points] == [2, 2]
    for cell in cells[1:]:
        cell.run(tmp_path).path("report.json").unlink()
    assert curve_of("c", cells, tmp_path, "speaker").points == ()


def test_each_fold_is_scaled_by_its_own_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = two_seeds(tmp_path)[:3]
    raw = [Predictions.load(cell.run(tmp_path).path("predictions.test.npz")).logits for cell in cells]
    for cell, temperature in zip(cells, (2.0, 0.5), strict=False):
        Calibration({"emotion": temperature}, "val", {"emotion": 8}, epoch=3).save(
            cell.run(tmp_path).path("calibration.json")
        )
    monkeypatch.setattr(calibrate, "read_facts", lambda path: SimpleNamespace(epoch=3))
    joined = join_predictions(cells, tmp_path)
    # The third fold has none.
    np.testing.assert_allclose(joined.logits, np.concatenate([raw[0] / 2.0, raw[1] / 0.5, raw[2]]), rtol=1e-6)


def calibrated(cell: Cell, grid: Path, temperature: float) -> Cell:
    """A cell whose best weights, of epoch 3, have a temperature."""
    run = cell.run(grid)
    facts = {"label_space": run.manifest.label_space.to_json(), "dataset": "pretend", "synthetic": False}
    save_model(run.model_file, {"w": torch.zeros(1)}, epoch=3, val_macro_f1=0.5, **facts)
    Calibration({"emotion": temperature}, "val", {"emotion": 8}, 3).save(run.path("calibration.json"))
    return cell


@pytest.mark.usefixtures("drawn_pictures")
def test_temperatures_of_the_folds_stand_in_the_report(tmp_path: Path) -> None:
    cells = [
        calibrated(finished(tmp_path, "all", 0, fold, [0, 1]), tmp_path, temperature)
        for fold, temperature in enumerate([2.0, 0.5])
    ]
    report = crossval_report("c", cells, tmp_path, "speaker")
    found = report["calibration"]
    assert (found["temperature"], found["fitted_on"]) == (None, "val")
    assert found["temperature_by_fold"] == {"all.seed0.fold0": 2.0, "all.seed0.fold1": 0.5}
    # Odds of 4 to 1: 0.8 as given, 2 to 1 under 2, 16 to 1 under 0.5; three answers of four are right.
    assert found["ece_uncalibrated"] == pytest.approx(0.8 - 0.75, abs=1e-6)
    assert found["ece"] == pytest.approx(((0.75 - 2 / 3) + (16 / 17 - 0.75)) / 2, abs=1e-6)
    assert summary(found) == (
        "expected calibration error 0.137; without the temperatures of 2 folds, 0.50 to 2.00, it is 0.050"
    )
    page = render_html(report, {}, {}, {})
    assert "no temperature was fitted" not in page
    assert "as it answers, the temperature of each fold" in page
    assert not [line for line in report["warnings"] if "bound" in line]
    write_crossval(report, cells, tmp_path, "")
    assert (tmp_path / "figures" / "reliability.png").is_file()


def test_each_fold_withholds_by_its_own_threshold(tmp_path: Path) -> None:
    cells = [
        calibrated(finished(tmp_path, "all", 0, fold, [0, 1]), tmp_path, temperature)
        for fold, temperature in enumerate([2.0, 0.5, 0.5])
    ]
    assert crossval_report("c", cells, tmp_path, "speaker")["abstention"]["rule"] is None
    # Confidences are 2/3, 16/17 and 16/17: the first fold answers all, the second nothing, the third all.
    for cell, cut, temperature in zip(cells, (0.6, 0.95), (2.0, 0.5), strict=False):
        Abstention("coverage", 0.7, {"emotion": cut}, {"emotion": temperature}, "val", {"emotion": 8}, 3).save(
            cell.run(tmp_path).path("abstention.json")
        )
    report = crossval_report("c", cells, tmp_path, "speaker")
    found = report["abstention"]
    names = [f"all.seed0.fold{fold}" for fold in range(3)]
    assert found["threshold_by_fold"] == dict(zip(names, (0.6, 0.95, None), strict=True))
    assert (found["rule"], found["wanted"], found["fitted_on"], found["threshold"]) == ("coverage", 0.7, "val", None)
    assert (found["answered"], found["coverage"]) == (16, pytest.approx(2 / 3))
    assert found["answered_risk"] == 0.25
    line = "for a coverage of 0.7 on val, each fold by its own threshold, it answers 67% of the rows, risk 0.250"
    assert abstention_line(found).endswith(line)
    page = render_html(report, {}, {}, {})
    assert line in page
    assert "never abstains" not in page


def test_folds_whose_temperature_stands_at_its_bound_or_is_missing_are_named(tmp_path: Path) -> None:
    cells = [finished(tmp_path, "all", 0, fold, [0]) for fold in range(3)]
    assert crossval_report("c", cells, tmp_path, "speaker")["calibration"]["fitted_on"] is None
    fitted = fit_temperature(np.array([[9.0, 0.0], [0.0, 9.0]]), np.eye(2)[::-1], SPACE)["emotion"]
    calibrated(cells[0], tmp_path, fitted)
    calibrated(cells[1], tmp_path, 2.0)
    report = crossval_report("c", cells, tmp_path, "speaker")
    assert "the temperatures of 2 of 3 folds, 2.00 to 10.00," in summary(report["calibration"])
    assert any("stands at its bound in all.seed0.fold0: " in line for line in report["warnings"])
    assert "no temperature was fitted in all.seed0.fold2" in report["warnings"]


def test_noise_is_no_trend_in_the_picture_of_a_learning_curve() -> None:
    points = tuple(Point(share, 8 * share, 80 * share, (0.5 + share / 100,), (0.5,)) for share in (0.5, 1.0))
    figure = curve_figure(LearningCurve("c", "speaker", points, "", synthetic=False, leaky=False))
    assert figure.axes[0].get_ylim() == pytest.approx((0.38, 0.63))
    high = tuple(Point(share, 8 * share, 80 * share, (0.98 + share / 50,), (0.2,)) for share in (0.5, 1.0))
    assert curve_figure(LearningCurve("c", "speaker", high, "", synthetic=False, leaky=False)).axes[
        0
    ].get_ylim() == pytest.approx((0.08, 1.0))


def test_the_page_links_to_its_folds_and_the_table_has_every_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = two_seeds(tmp_path)
    report = crossval_report("c", cells, tmp_path, "speaker")
    # Each fold trains on as many of either class, so that the first one is always guessed.
    assert report["constant"]["labels"] == ["no"]
    assert report["constant"]["metrics"]["accuracy"] == 0.5
    assert report["parts"] == {"out-of-fold": {"item": 40, "speaker": 10}}
    monkeypatch.setattr("samo.experiments.crossval.save_figures", lambda *_: [])
    write_crossval(report, cells, tmp_path, "samo crossval")
    page = (tmp_path / "report.html").read_text()
    links = re.findall(r'href="(runs/[^"]+)"', page)
    assert links == [f"runs/all.seed{s}.fold{f}/report.html" for s in (0, 1) for f in range(5)]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "predictions.csv").read_text())))
    right = sum(int(row["correct"]) for row in rows)
    assert (len(rows), right / 80) == (80, pytest.approx(report["metrics"]["accuracy"]))
    assert [row["seed"] + row["fold"] for row in rows[::8]] == [f"{s}{f}" for s in (0, 1) for f in range(5)]
    assert (rows[0]["group"], rows[0]["confidence"]) == ("s0", "0.8")


@pytest.mark.parametrize(
    ("preset", "flags", "expected"),
    [
        ("", {}, "average"),
        ("whisper-head", {}, "average"),  # its `patience=0` asks for all epochs, not for the best
        ("mn04", {}, "last"),
        ("", {"keep": "best"}, "best"),
        ("", {"patience": 5}, "best"),
        ("small-cnn-baseline", {}, "average"),  # as when its patience was the default and nothing was asked for
        ("small-cnn-baseline", {"patience": 10}, "best"),
        ("", {"epochs": 7}, "best"),
        ("whisper-frozen", {}, "best"),
        ("", {"model": "functionals"}, "best"),
    ],
)
def test_the_last_epochs_count_unless_something_else_is_asked_for(
    preset: str, flags: dict[str, Any], expected: str
) -> None:
    config: Any = fold_settings("audio", preset, None, flags)
    assert config.train.keep == expected
    assert config.data.split == "folds"


def test_what_a_file_says_counts_too(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('keep = "last"\n')
    config: Any = fold_settings("audio", "", file, {})
    assert config.train.keep == "last"
    with pytest.raises(SettingsError, match="`dropout`"):
        fold_settings("audio", "", None, {"dropout": 7.0})
