"""What a grid's table says, computed again by hand, scipy and scikit-learn."""

from __future__ import annotations

import csv
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finished_cells import finished
from scipy import stats
from sklearn.metrics import f1_score

from samo.errors import RunError
from samo.evaluation.predictions import Predictions
from samo.experiments.cells import Cell, refuse_changed, result_of, seconds_left, status_of
from samo.experiments.results_table import ResultsTable, heads_of, make_table, overlap_ratio, text_rows, write_table
from samo.files import write_json


def wrong_ones(n: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(8), n)


def three_rows(grid: Path) -> list[Cell]:
    """Misses by fold: the baseline 3 to 4, ``good`` 0 to 1, ``same`` as many as the baseline in another order."""
    misses = {"baseline": [3, 4, 3, 4, 3], "good": [0, 1, 0, 0, 0], "same": [4, 3, 3, 4, 3]}
    return [
        finished(grid, row, 0, fold, wrong_ones(n, 100 * number + fold))
        for number, (row, counts) in enumerate(misses.items())
        for fold, n in enumerate(counts)
    ]


def table_of(grid: Path, cells: list[Cell], metric: str = "accuracy") -> ResultsTable:
    return make_table("test", cells, grid, metric, "speaker")


def test_numbers(tmp_path: Path) -> None:
    cells = three_rows(tmp_path)
    table = table_of(tmp_path, cells)
    assert [row.name for row in table.rows] == ["baseline", "good", "same"]
    assert (table.baseline, table.n_cells, table.n_done, table.synthetic, table.leaky) == (
        "baseline", 15, 15, False, False,
    )  # fmt: skip
    base, good, same = table.rows
    before = 1 - np.array([3, 4, 3, 4, 3]) / 8
    after = 1 - np.array([0, 1, 0, 0, 0]) / 8
    assert (base.n, base.mean, base.sd) == (5, pytest.approx(before.mean()), pytest.approx(before.std(ddof=1)))
    assert base.pooled == pytest.approx(1 - 17 / 40)
    assert base.low is not None
    assert base.high is not None
    assert base.low < base.pooled < base.high
    assert (base.difference, base.p_corrected, base.verdict) == (None, None, "")
    # Nadeau & Bengio by hand: 24 items trained on, 8 tested.
    gain = after - before
    assert good.difference is not None
    t = gain.mean() / (gain.std(ddof=1) * np.sqrt(1 / 5 + 8 / 24))
    p = 2 * stats.t.sf(abs(t), 4)
    assert good.difference.p == pytest.approx(p)
    half = stats.t.ppf(0.975, 4) * gain.std(ddof=1) * np.sqrt(1 / 5 + 8 / 24)
    assert (good.difference.low, good.difference.high) == pytest.approx((gain.mean() - half, gain.mean() + half))
    assert same.difference is not None
    assert same.difference.p is not None
    # Holm over the two rows that are compared: the smaller p doubled, the larger as it is.
    assert good.p_corrected == pytest.approx(2 * p)
    assert same.p_corrected == pytest.approx(max(same.difference.p, 2 * p))
    assert (good.verdict, same.verdict) == ("better", "cannot tell")
    assert any("Nadeau" in note for note in table.notes)


def test_pooled_macro_f1_is_scikit_learns(tmp_path: Path) -> None:
    cells = three_rows(tmp_path)[:5]
    by_cell = [Predictions.load(cell.run(tmp_path).path("predictions.test.npz")) for cell in cells]
    truth = np.concatenate([one.targets.argmax(axis=1) for one in by_cell])
    predicted = np.concatenate([one.logits.argmax(axis=1) for one in by_cell])
    (row,) = table_of(tmp_path, cells, "macro_f1").rows
    assert row.pooled == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_seeds_on_one_fold_must_agree_with_its_speakers(tmp_path: Path) -> None:
    counts = {"baseline": [4, 3, 4], "x": [1, 2, 0]}
    cells = [
        finished(tmp_path, row, seed, 0, wrong_ones(n, 7 * seed))
        for row, ns in counts.items()
        for seed, n in enumerate(ns)
    ]
    table = table_of(tmp_path, cells)
    gain = (np.array([4, 3, 4]) - np.array([1, 2, 0])) / 8
    assert table.rows[1].difference is not None
    # Over seeds the t-test is nearly sure. Of two speakers, all 10,000 draws above 0 are no evidence: twice the area of
    # Student's t with one degree of freedom below sqrt(1 / 2) * Phi^-1(1 / 10,001) = -2.63.
    assert stats.ttest_1samp(gain, 0.0).pvalue == pytest.approx(0.094, abs=1e-3)
    assert table.rows[1].difference.p == pytest.approx(1 - 2 * np.arctan(2.6298) / np.pi, abs=1e-4)
    assert table.rows[1].difference.mean == pytest.approx(gain.mean())
    assert table.rows[1].verdict == "cannot tell"
    assert overlap_ratio([r for c in cells if (r := result_of(c, tmp_path))]) is None
    assert any("verdicts must hold over seeds and over these speakers" in note for note in table.notes)


def test_rows_without_speakers_are_units_over_seeds(tmp_path: Path) -> None:
    """The same eight items under three seeds are eight units: the interval must not shrink with the seeds."""
    one = [finished(tmp_path / "1", "baseline", 0, 0, [0, 1], groups=False)]
    three = [finished(tmp_path / "3", "baseline", seed, 0, [0, 1], groups=False) for seed in range(3)]
    (single,) = table_of(tmp_path / "1", one).rows
    (triple,) = table_of(tmp_path / "3", three).rows
    assert (triple.pooled, triple.low, triple.high) == (single.pooled, single.low, single.high)


def test_an_unfinished_grid(tmp_path: Path) -> None:
    cells = three_rows(tmp_path)
    for name in ("good.seed0.fold1", "good.seed0.fold4", *(f"same.seed0.fold{k}" for k in range(5))):
        (tmp_path / "runs" / name / "report.json").unlink()
    table = table_of(tmp_path, cells)
    assert [row.name for row in table.rows] == ["baseline", "good"]
    assert (table.n_cells, table.n_done) == (15, 8)
    assert table.rows[1].difference is not None
    # Paired over the three folds both have, not with the mean over five.
    assert table.rows[1].difference.n == 3
    assert table.rows[1].difference.mean == pytest.approx((3 + 3 + 4) / 24)
    assert any("unfinished" in note for note in table.notes)
    assert table_of(tmp_path / "nothing", cells).rows == ()


def test_without_the_baseline_nothing_is_compared(tmp_path: Path) -> None:
    cells = three_rows(tmp_path)
    for k in range(5):
        (tmp_path / "runs" / f"baseline.seed0.fold{k}" / "report.json").unlink()
    table = table_of(tmp_path, cells)
    assert [(row.name, row.difference, row.verdict) for row in table.rows] == [("good", None, ""), ("same", None, "")]


@pytest.mark.usefixtures("drawn_pictures")
def test_files(tmp_path: Path) -> None:
    cells = three_rows(tmp_path)
    table = table_of(tmp_path, cells)
    scores = {row.name: [0.5, 0.6] for row in table.rows}
    files = {path.name: path for path in write_table(table, scores, tmp_path, "samo ablate x.toml")}
    assert set(files) == {"table.md", "table.csv", "table.html", "table.json", "forest.png"}
    rows = list(csv.DictReader(files["table.csv"].open()))
    assert [row["verdict"] for row in rows] == ["", "better", "cannot tell"]
    assert table.rows[1].difference is not None
    assert float(rows[1]["difference"]) == table.rows[1].difference.mean
    stored = json.loads(files["table.json"].read_text())
    assert stored["rows"][1]["p_corrected"] == table.rows[1].p_corrected
    assert (stored["correction"], stored["baseline"], stored["schema"]) == ("Holm", "baseline", 1)
    heads, lines = heads_of(table), text_rows(table)
    for text in (files["table.md"].read_text(), files["table.html"].read_text()):
        assert all(head in text for head in heads)
        assert all(cell in text for line in lines for cell in line)
        assert "samo ablate x.toml" in text
    assert files["forest.png"].read_bytes()[:4] == b"\x89PNG"
    before = files["forest.png"].read_bytes()
    write_table(table, scores, tmp_path, "samo ablate x.toml")
    assert files["forest.png"].read_bytes() == before


def test_stamps(tmp_path: Path) -> None:
    cells = [finished(tmp_path, row, 0, 0, [0], leaky=True, lr=lr) for row, lr in (("baseline", 0.1), ("x", 0.2))]
    table = table_of(tmp_path, cells)
    assert table.leaky
    files = write_table(table, {row.name: [0.5] for row in table.rows}, tmp_path, "c")
    for path in files:
        if path.suffix in (".md", ".html"):
            assert "LEAKY SPLIT" in path.read_text()


def test_states_and_time_left(tmp_path: Path) -> None:
    cells = [
        finished(tmp_path, "baseline", 0, 0, [0], seconds=10.0),
        finished(tmp_path, "baseline", 1, 0, [0], seconds=20.0),
        finished(tmp_path, "x", 0, 0, [0], seconds=60.0),
    ]
    begun = Cell("x.seed1.fold0", "x", 1, 0, {})
    write_json(begun.run(tmp_path).path("config.json"), {"modality": "pretend"})
    missing = [Cell("baseline.seed2.fold0", "baseline", 2, 0, {}), Cell("new.seed0.fold0", "new", 0, 0, {})]
    everything = [*cells, begun, *missing]
    assert [status_of(cell, tmp_path) for cell in everything] == ["done"] * 3 + ["stopped", "missing", "missing"]
    # 60 s for the begun cell of x, 15 s for the baseline, the mean of all for the new row.
    assert seconds_left(everything, tmp_path) == pytest.approx(60 + 15 + 30)
    assert seconds_left(missing, tmp_path) is None
    with begun.run(tmp_path).locked():
        assert status_of(begun, tmp_path) == "running"


def test_a_row_that_knows_the_tested_speakers_is_named(tmp_path: Path) -> None:
    normalised = {"plain": "train", "mine": "speaker", "other": "clip"}
    cells = [
        finished(tmp_path, row, 0, fold, [fold], normalisation=how)
        for row, how in normalised.items()
        for fold in (0, 1)
    ]
    (line,) = [line for line in table_of(tmp_path, cells).notes if "transductive" in line]
    assert line.startswith("transductive: `normalisation=speaker`")
    assert line.endswith("(of mine)")
    assert not [line for line in table_of(tmp_path, [*cells[:2], *cells[4:]]).notes if "transductive" in line]


def test_changed_cells_are_refused(tmp_path: Path) -> None:
    cell = finished(tmp_path, "baseline", 0, 0, [0], data_root="/here", epochs=3)
    refuse_changed([cell, Cell("other.seed0", "other", 0, None, {"lr": 9})], tmp_path)
    moved = Cell(cell.name, cell.row, 0, 0, {**cell.settings, "data_root": "/there"})
    refuse_changed([moved], tmp_path)
    changed = Cell(cell.name, cell.row, 0, 0, {**cell.settings, "lr": 0.2, "dropout": 0.5})
    with pytest.raises(RunError) as refusal:
        refuse_changed([changed], tmp_path)
    assert "baseline.seed0.fold0: lr was 0.1, is now 0.2" in refusal.value.message
    assert "dropout was None, is now 0.5" in refusal.value.message
    assert "`name`" in refusal.value.hint


def test_a_damaged_cell_is_named(tmp_path: Path) -> None:
    cell = finished(tmp_path, "baseline", 0, 0, [0])
    cell.run(tmp_path).path("report.json").write_text("{")
    with pytest.raises(RunError, match=r"baseline\.seed0\.fold0/report\.json"):
        result_of(cell, tmp_path)


def test_the_page_links_to_the_page_of_each_cell(tmp_path: Path) -> None:
    cells = three_rows(tmp_path)
    table = table_of(tmp_path, cells)
    results = [found for cell in cells if (found := result_of(cell, tmp_path))]
    odd = replace(results[0], cell=replace(results[0].cell, name="lr=1+w.seed0", part="val"))
    write_table(table, {row.name: [0.5] for row in table.rows}, tmp_path, "c", [*results, odd])
    links = re.findall(r'<a href="(runs/[^"]+)">', (tmp_path / "table.html").read_text())
    assert links == [*(f"runs/{c.name}/report.html" for c in cells), "runs/lr%3D1%2Bw.seed0/report.val.html"]


def test_no_spreadsheet_runs_what_a_row_is_called(tmp_path: Path) -> None:
    cells = [finished(tmp_path, "=1+1", 0, fold, [0]) for fold in range(2)]
    table = make_table("t", cells, tmp_path, "accuracy", "speaker")
    write_table(table, {"=1+1": [0.5]}, tmp_path, "c")
    assert (tmp_path / "table.csv").read_text().splitlines()[1].startswith("'=1+1,2,")


def test_intervals_over_rows_are_not_called_95_percent_where_no_speaker_is_known(tmp_path: Path) -> None:
    cells = three_rows(tmp_path)
    assert "pooled [95 % over speakers]" in heads_of(table_of(tmp_path, cells))
    for cell in cells:
        path = cell.run(tmp_path).path("predictions.test.npz")
        predictions = Predictions.load(path)
        replace(predictions, groups=("",) * len(predictions.ids)).save(path)
    table = table_of(tmp_path, cells)
    assert not any("95 %" in head for head in heads_of(table))
    assert table.notes[-1].startswith("no speaker is known for 8 of 8 rows")
    assert table.to_json()["units_known"] is False
    texts = make_table("test", cells, tmp_path, "accuracy", "row")
    assert "pooled [95 % over rows]" in heads_of(texts)
