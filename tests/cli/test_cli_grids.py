"""``samo ablate``, ``crossval`` and ``learning-curve``: every cell once, the table, what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import f1_score
from tone_corpora import TINY, done, ravdess, read_json, refused, samo, table, table_rows

from samo import load as samo_load
from samo.errors import DataError
from samo.evaluation.calibration import fit_temperature
from samo.evaluation.predictions import Predictions
from samo.experiments.cells import Cell
from samo.experiments.grid import cells_of, read_grid
from samo.experiments.grid_plan import GridPlan
from samo.experiments.train_cell import cell_spec, train_cell
from samo.modalities import config_type
from samo.runs.run import Run
from samo.settings import resolve

pytestmark = pytest.mark.slow

WHERE = ["--workers", "1", "--threads", "1", "--precision", "float32"]
SETTINGS = [word for word in TINY if word not in ("--threads", "1", "--precision", "float32")]
GRID = """
seeds = [0, 1]
[base]
epochs = 2
[variants.baseline]
[variants.smooth]
label_smoothing = 0.3
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of three classes by six speakers, which publishes no folds."""
    return table(tmp_path_factory.mktemp("table"), table_rows())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, cache: Path, corpus: Path) -> Path:
    """The artifacts of one finished grid named ``g``; to read only."""
    root = tmp_path_factory.mktemp("ran")
    (root / "g.toml").write_text(GRID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(cache))
        result = done("ablate", root / "g.toml", *data(corpus), *WHERE, "--artifacts", root)
    (root / "said.txt").write_text(result.out)
    return root


def data(corpus: Path) -> list[object]:
    return ["--dataset", "table", "--data-root", corpus, *SETTINGS]


def copy(ran: Path, artifacts: Path) -> Path:
    shutil.copytree(ran, artifacts, symlinks=True)
    return artifacts / "grids" / "g"


def again(artifacts: Path, corpus: Path, *more: object) -> list[object]:
    return ["ablate", artifacts / "g.toml", *data(corpus), *WHERE, *more]


def test_every_cell_once_and_the_table(ran: Path) -> None:
    grid = ran / "grids" / "g"
    names = sorted(path.name for path in (grid / "runs").iterdir())
    assert names == [f"{row}.seed{seed}" for row in ("baseline", "smooth") for seed in (0, 1)]
    for name in names:
        settings = read_json(grid / "runs" / name / "config.json")
        assert settings["label_smoothing"] == (0.3 if "smooth" in name else 0.0)
        assert settings["seed"] == int(name[-1])
        assert (grid / "runs" / name / "report.json").is_file()
        assert (grid / "logs" / f"{name}.log").read_text().count("val macro-F1") == 2
    found = read_json(grid / "table.json")
    baseline = [read_json(grid / "runs" / f"baseline.seed{k}" / "report.json")["metrics"]["macro_f1"] for k in (0, 1)]
    smooth = [read_json(grid / "runs" / f"smooth.seed{k}" / "report.json")["metrics"]["macro_f1"] for k in (0, 1)]
    assert found["rows"][0]["mean"] == pytest.approx(np.mean(baseline))
    assert found["rows"][1]["difference"]["mean"] == pytest.approx(np.mean(np.subtract(smooth, baseline)))
    assert {"table.md", "table.csv", "table.html", "forest.png", "grid.json"} <= {p.name for p in grid.iterdir()}
    printed = (ran / "said.txt").read_text()
    assert "4 of 4 cells" in printed
    assert "smooth" in printed


def test_a_cell_is_the_run_that_train_makes(ran: Path, corpus: Path, artifacts: Path) -> None:
    done("train", *data(corpus), "--epochs", "2", "--threads", "1", "--precision", "float32", "--name", "alone",
         "--label-smoothing", "0.3", "--seed", "1")  # fmt: skip
    alone = load_file(artifacts / "runs" / "alone" / "best_model.safetensors")
    cell = load_file(ran / "grids" / "g" / "runs" / "smooth.seed1" / "best_model.safetensors")
    assert alone.keys() == cell.keys()
    assert all(np.array_equal(alone[name], cell[name]) for name in alone)


def test_again_trains_only_what_is_missing(ran: Path, corpus: Path, artifacts: Path) -> None:
    grid = copy(ran, artifacts)
    result = done(*again(artifacts, corpus))
    assert "4 cells, 4 done before" in result.err
    before = read_json(grid / "table.json")
    # One cell is lost, one was stopped after its last epoch, one was trained but not judged.
    shutil.rmtree(grid / "runs" / "baseline.seed0")
    for name in ("trained.json", "report.json"):
        (grid / "runs" / "baseline.seed1" / name).unlink()
    (grid / "runs" / "smooth.seed0" / "report.json").unlink()
    kept = (grid / "runs" / "smooth.seed1" / "report.json").stat().st_mtime_ns
    listed = done(*again(artifacts, corpus), "--dry-run", "--json").json
    states = {row["cell"]: row["state"] for row in listed["cells"]}
    assert states == {
        "baseline.seed0": "missing", "baseline.seed1": "stopped", "smooth.seed0": "stopped", "smooth.seed1": "done",
    }  # fmt: skip
    assert listed["seconds_left"] > 0
    assert not (grid / "runs" / "baseline.seed0").exists()
    result = done(*again(artifacts, corpus), "--json")
    assert "4 cells, 1 done before" in result.err
    assert result.json["rows"] == before["rows"]
    assert (grid / "runs" / "smooth.seed1" / "report.json").stat().st_mtime_ns == kept


def test_changed_settings_and_changed_data_are_refused(ran: Path, corpus: Path, artifacts: Path) -> None:
    grid = copy(ran, artifacts)
    line = refused(5, *again(artifacts, corpus, "--lr", "0.5"))
    assert "baseline.seed0: lr was 0.001, is now 0.5" in line
    assert "--name" in line
    other = table(artifacts / "other", table_rows(("angry", "happy", "sad"), speakers=5))
    shutil.rmtree(grid / "runs")
    assert "the data of grid 'g' changed" in refused(5, *again(artifacts, other))


def test_a_failed_cell_is_that_cells_failure_alone(corpus: Path, artifacts: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text('[variants.baseline]\n[variants.noisy]\nnoise = true\nnoise_root = "nowhere"\n')
    missing = samo("ablate", file, *data(corpus), *WHERE, "--epochs", "1")
    assert f"--noise-root {tmp_path / 'nowhere'}: there is no such folder" in missing.error
    assert not artifacts.exists(), "no cell is begun"
    (tmp_path / "nowhere").mkdir()  # and nothing in it
    result = samo("ablate", file, *data(corpus), *WHERE, "--epochs", "1", "--json")
    assert result.status == 5
    assert "1 of 2 cells did not end: noisy.seed0" in result.error
    assert [row["name"] for row in result.json["rows"]] == ["baseline"]
    log = artifacts / "grids" / "broken" / "logs" / "noisy.seed0.log"
    assert f"`noise_root={tmp_path / 'nowhere'}`" in log.read_text(), "paths in a grid count from its file"
    assert f"--noise-root {tmp_path / 'nowhere'}" in result.err


def test_paths_in_a_grid_count_from_its_file_and_those_typed_do_not(tmp_path: Path) -> None:
    file = tmp_path / "g.toml"
    file.write_text('[base]\ndata_root = "clips"\nnoise_root = ""\n[axes]\nweights = ["a.pt", "/b.pt"]\n')
    grid = read_grid(file)
    anchored = partial(config_type("audio").anchored, file=file)
    cells = cells_of(grid, resolve, {}, anchored)
    assert [cell.row for cell in cells] == ["weights=a.pt", "weights=b.pt"]
    assert [cell.settings["weights"] for cell in cells] == [str(tmp_path / "a.pt"), "/b.pt"]
    assert {cell.settings["data_root"] for cell in cells} == {str(tmp_path / "clips")}
    assert {cell.settings["noise_root"] for cell in cells} == {""}
    typed = cells_of(grid, resolve, {"data_root": "here"}, anchored)
    assert {cell.settings["data_root"] for cell in typed} == {"here"}


def test_a_machine_with_another_corpus_trains_nothing(corpus: Path, tmp_path: Path) -> None:
    config = resolve("audio", "", None, {"dataset": "table", "data_root": str(corpus), "epochs": 1})
    settings = {"modality": "audio", **config.flat()}
    spec = cell_spec(tmp_path / "runs" / "cell", settings, "cpu", "float32", 1, "", data="of another day")
    with pytest.raises(DataError, match="is not the one this grid was begun with") as caught:
        train_cell(spec)
    assert str(corpus) in caught.value.hint
    assert not (tmp_path / "runs").exists()


def test_a_plan_knows_which_cells_read_the_same_data(tmp_path: Path) -> None:
    def cell(**changed: object) -> Cell:
        given = {"dataset": "demo", "mode": "emotion", "seed": 0, "fold": 0, "sr": 8000, "lr": 0.1, **changed}
        return Cell("x", "x", 0, None, {"modality": "audio", **given})

    plan = GridPlan("ablate", tmp_path, (cell(),), "macro_f1", "", data="abc")
    for same in ({}, {"seed": 3, "fold": 2}, {"lr": 1.0}, {"limit_fraction": 0.5}):
        assert plan.data_of(cell(**same)) == "abc"
    for other in ({"mode": "sentiment"}, {"sr": 16000}, {"data_root": "elsewhere"}, {"modality": "text"}):
        assert plan.data_of(cell(**other)) == ""


def test_show(ran: Path, artifacts: Path) -> None:
    assert "no grid was run" in refused(5, "ablate", "show")
    grid = copy(ran, artifacts)
    (grid / "table.md").unlink()
    for name in ([], ["g"]):
        assert done("ablate", "show", *name, "--json").json == read_json(ran / "grids" / "g" / "table.json")
    assert (grid / "table.md").is_file()
    assert "there is no grid 'h'" in refused(5, "ablate", "show", "h")
    assert "unexpected argument" in refused(2, "ablate", "recipes", "more")


def test_a_cell_is_found_by_the_name_of_its_grid(ran: Path) -> None:
    report = done("evaluate", "g/smooth.seed1", "--on", "val", "--threads", "1", "--artifacts", ran, "--json").json
    assert (report["run"], report["split"]) == ("smooth.seed1", "val")
    assert (ran / "grids" / "g" / "runs" / "smooth.seed1" / "report.val.json").is_file()
    refused(5, "evaluate", "g/rough.seed1", "--artifacts", ran)


def test_grids_that_ship_are_sound() -> None:
    listed = done("ablate", "recipes", "--dry-run", "--json").json
    rows = {cell["row"] for cell in listed["cells"]}
    assert len(rows) == 7
    assert len(listed["cells"]) == 21
    listed = done("ablate", "techniques", "--dry-run", "--json").json
    features = {"deltas", "pcen", "speaker-normalisation", "trim", "level-as-is", "pitch", "speed", "mixup"}
    others = {"mean-sd", "attention", "frequency-bins", "average", "tta"}
    assert {cell["row"] for cell in listed["cells"]} == features | others | {"baseline"}
    assert {cell["seed"] for cell in listed["cells"]} == {0, 1, 2}
    assert "did you mean 'recipes'?" in refused(2, "ablate", "recipe")


def test_crossval(corpus: Path, artifacts: Path) -> None:
    command = ["crossval", *data(corpus), *WHERE, "--epochs", "1", "--seeds", "3"]
    report = done(*command, "--json").json
    (grid,) = (artifacts / "grids").iterdir()
    cells = sorted(path.name for path in (grid / "runs").iterdir())
    assert cells == [f"seed3.fold{fold}" for fold in range(5)]
    settings = [read_json(grid / "runs" / name / "config.json") for name in cells]
    assert [(one["seed"], one["split"], one["fold"]) for one in settings] == [(3, "folds", fold) for fold in range(5)]
    tested: list[str] = []
    for name in cells:
        split = read_json(grid / "runs" / name / "split.json")
        speakers = {part: {row.rsplit("_", 1)[1] for row in split[part]} for part in ("train", "val", "test")}
        assert not speakers["val"] & speakers["test"]
        assert not speakers["train"] & (speakers["val"] | speakers["test"])
        tested += split["test"]
    # Every clip is tested once.
    assert len(tested) == len(set(tested)) == 18
    predictions = Predictions.load(grid / "predictions.npz")
    truth, predicted = predictions.targets.argmax(axis=1), predictions.logits.argmax(axis=1)
    assert (report["n"], report["split"], report["ci"]["unit"]) == (18, "out-of-fold", "speaker")
    assert report["metrics"]["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert report["ci"]["n_units"] == 6
    assert [row["macro_f1"] for row in report["by_seed"]] == [pytest.approx(report["metrics"]["macro_f1"])]
    scores = [row["macro_f1"] for row in report["folds"]]
    assert report["spread"]["cells"]["n"] == 5
    assert report["spread"]["cells"]["mean"] == pytest.approx(np.mean(scores))
    assert report["spread"]["cells"]["sd"] == pytest.approx(np.std(scores, ddof=1))
    assert read_json(grid / "report.json") == report
    assert {"report.html", "figures", "predictions.npz"} <= {path.name for path in grid.iterdir()}
    # The same command finds its own folder again; other settings get another.
    result = done(*command)
    assert "5 done before" in result.err
    assert "macro-F1 over 5 folds" in result.out
    listed = done(*command, "--lr", "0.01", "--dry-run", "--json").json
    assert {row["state"] for row in listed["cells"]} == {"missing"}
    _refit_follows_its_folds(command, *_refitted(done(*command, "--refit").err, grid, report, corpus))


def _refitted(printed: str, grid: Path, report: dict[str, Any], corpus: Path) -> tuple[Run, list[Predictions]]:
    """After a cross-validation one model learns from everything, and says what the folds are worth."""
    run = Run(grid / "runs" / "refit")
    assert f"next: samo predict --run {grid.name}/refit" in printed
    split = read_json(run.path("split.json"))
    assert (len(split["train"]), split["val"], split["test"]) == (18, [], [])
    assert [row["val_macro_f1"] for row in run.history] == [None]
    # The validation rows of all folds, as their models answered them, give its temperature.
    kept = [Predictions.load(grid / "runs" / f"seed3.fold{fold}" / "predictions.val.npz") for fold in range(5)]
    logits, targets = (np.concatenate([getattr(each, name) for each in kept]) for name in ("logits", "targets"))
    fitted = fit_temperature(logits, targets, run.manifest.label_space)
    assert read_json(run.path("calibration.json"))["temperature"] == pytest.approx(fitted)
    score = report["metrics"]["macro_f1"]
    model = samo_load(run.folder)
    assert model.facts.scores[0].startswith(f"cross-validated macro-F1 {score:.3f} [")
    assert "by 5 models trained alike on folds; this one learned from all of it" in model.facts.scores[0]
    card = run.path("MODEL_CARD.md").read_text()
    assert f"{score:.3f}" in card
    assert card.startswith(f"# Model card: {grid.name}/refit\n")
    training = card.partition("## Training\n\n")[2].partition("\n\n")[0]
    assert training == "- train: 18 items, 6 speakers\n- nothing is held out"
    own = f"This model's own temperature is {fitted['emotion']:.3f}, fitted on the validation predictions of all folds'"
    assert own in card
    assert "Beside the folds' models, baseline " in card
    assert "; the folds' models " in card
    assert "this run" not in card
    shown = done("runs", "show", f"{grid.name}/refit")
    assert model.facts.scores[0] in " ".join(shown.err.split())
    assert "samo evaluate" not in shown.out + shown.err
    assert done("runs", "show", f"{grid.name}/refit", "--json").json["scores"] == list(model.facts.scores)
    assert "it learned from everything" in refused(5, "evaluate", f"{grid.name}/refit")
    shown = done("predict", "--run", f"{grid.name}/refit", next(corpus.parent.rglob("*.wav")), "--json").json
    assert len(shown["predictions"]) == 1
    made = done("export", f"{grid.name}/refit", "--threads", 1, "--json").json
    assert (made["parity"]["part"], made["parity"]["n"]) == ("train", 18)
    assert samo_load(made["path"]).facts.scores == model.facts.scores
    return run, kept


def _refit_follows_its_folds(command: list[object], run: Run, kept: list[Predictions]) -> None:
    """Other validation predictions: the weights stay, what rests on the predictions does not."""
    assert "keeps its weights" not in done(*command, "--refit").err
    weights, before = run.model_file.read_bytes(), read_json(run.path("calibration.json"))["temperature"]["emotion"]
    for fold, each in enumerate(kept):
        changed = replace(each, logits=3.0 * each.logits)
        changed.save(run.folder.parent / f"seed3.fold{fold}" / "predictions.val.npz")
    again = done(*command, "--refit").err
    name = f"{run.folder.parent.parent.name}/refit"
    assert f"'{name}' keeps its weights; its calibration and card are made anew" in again
    now = read_json(run.path("calibration.json"))["temperature"]["emotion"]
    assert now == pytest.approx(3.0 * before, rel=1e-3)
    card = run.path("MODEL_CARD.md").read_text()
    assert f"own temperature is {now:.3f}" in card
    assert "## Exported file " in card
    assert run.model_file.read_bytes() == weights
    facts = read_json(run.path("crossval.json"))
    assert (facts["cells"], len(facts["validated"])) == ([f"seed3.fold{fold}" for fold in range(5)], 64)
    assert "keeps its weights" not in done(*command, "--refit").err


def test_crossval_refuses_folds_it_cannot_train(corpus: Path, tmp_path: Path) -> None:
    assert "has 5 folds" in refused(2, "crossval", *data(corpus), *WHERE, "--folds", "5")
    assert "--seeds 'a'" in refused(2, "crossval", *data(corpus), *WHERE, "--seeds", "a")
    actors = ravdess(tmp_path / "actors", range(1, 7))
    # The published folds 2 and 3 hold none of the actors 1 to 6.
    line = refused(3, "crossval", "--data-root", actors, *SETTINGS, *WHERE)
    assert "no speaker of fold 2" in line


@pytest.mark.usefixtures("drawn_pictures")
def test_learning_curve(corpus: Path, artifacts: Path) -> None:
    command = ["learning-curve", *data(corpus), *WHERE, "--epochs", "1", "--seeds", "0,1", "--shares", "1,0.34"]
    curve = done(*command, "--name", "c", "--json").json
    grid = artifacts / "grids" / "c"
    assert [point["share"] for point in curve["points"]] == [0.34, 1.0]
    # --train-ratio 0.5 and --val-ratio 0.2 of six speakers leave three to train on.
    assert [point["n_units"] for point in curve["points"]] == [1, 3]
    small, large = (read_json(grid / "runs" / f"limit_fraction={s}.seed0" / "split.json") for s in (0.34, 1.0))
    assert set(small["train"]) < set(large["train"])
    assert (small["val"], small["test"]) == (large["val"], large["test"])
    gain = curve["points"][1]["gain"]
    assert gain["mean"] == pytest.approx(np.mean(np.subtract(curve["points"][1]["test"], curve["points"][0]["test"])))
    assert "the last step, from 1 to 3 speakers" in curve["finding"]
    assert {"curve.json", "curve.csv", "curve.png"} <= {path.name for path in grid.iterdir()}
    assert "--shares '0,1'" in refused(2, *command, "--shares", "0,1")
