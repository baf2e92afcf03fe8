"""``samo ensemble``: members by name or by seeds, the table, a run that evaluate and predict take, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sentence_table import MULTI, write_table
from small_encoders import small_bert
from tone_corpora import TINY, done, read_json, refused, table, table_rows

from samo.evaluation.predictions import Predictions
from samo.experiments.train_cell import train_cell
from samo.launch.local import Job, LocalLauncher, Outcome, Watcher
from samo.runs import run_report
from samo_text.frontend import TextFrontend

SETTINGS = [word for word in TINY if word not in ("--threads", "1", "--precision", "float32")]
WHERE = ["--workers", "1", "--threads", "1", "--precision", "float32"]
GRID = ("g/seed3", "g/seed1")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of three classes by six speakers."""
    return table(tmp_path_factory.mktemp("table"), table_rows())


def here(launcher: LocalLauncher, jobs: Sequence[Job], watcher: Watcher) -> list[Outcome]:
    """Cells in this process: test_cli_grids sees to workers."""
    for job in jobs:
        train_cell(job.spec)
    return [Outcome(job.name, "done") for job in jobs]


@pytest.fixture(scope="module")
def with_ensemble(tmp_path_factory: pytest.TempPathFactory, cache: Path, corpus: Path) -> Path:
    """The artifacts of one ensemble of two seeds named ``g``; to read only."""
    root = tmp_path_factory.mktemp("joined")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(cache))
        patch.setattr(run_report, "save_figures", lambda *_: [])
        patch.setattr(LocalLauncher, "run", here)
        result = done("ensemble", *seeds(corpus), *WHERE, "--artifacts", root)
    (root / "said.txt").write_text(result.out)
    return root


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes seconds, and test_report sees to it."""
    monkeypatch.setattr(run_report, "save_figures", lambda *_: [])


@pytest.fixture
def copy(with_ensemble: Path, artifacts: Path) -> Path:
    shutil.copytree(with_ensemble, artifacts, symlinks=True)
    return artifacts


def seeds(corpus: Path) -> list[object]:
    return ["--seeds", "3,1", "--dataset", "table", "--data-root", corpus, *SETTINGS, "--epochs", "1", "--name", "g"]


def test_seeds_make_the_members_on_one_split(with_ensemble: Path) -> None:
    grid, run = with_ensemble / "grids" / "g" / "runs", with_ensemble / "runs" / "g"
    first, second = (read_json(grid / name / "config.json") for name in ("seed3", "seed1"))
    assert [settings["seed"] for settings in (first, second)] == [3, 1]
    assert [settings["split_seed"] for settings in (first, second)] == [3, 3]
    splits = [read_json(folder / "split.json") for folder in (grid / "seed3", grid / "seed1", run)]
    assert splits[0] == splits[1] == splits[2]
    summary, report = read_json(run / "ensemble.json"), read_json(run / "report.json")
    assert [member["name"] for member in summary["members"]] == ["seed3", "seed1"]
    for member in summary["members"]:
        own = read_json(grid / member["name"] / "report.json")
        assert member["macro_f1"] == pytest.approx(own["metrics"]["macro_f1"])
        assert member["val_macro_f1"] == pytest.approx(own["val_macro_f1"])
    assert report["metrics"]["macro_f1"] == summary["ensemble"]["macro_f1"]
    assert (with_ensemble / "latest").resolve() == run.resolve()
    printed = (with_ensemble / "said.txt").read_text()
    for text in ("g: the mean of its members' probabilities, equal weights", "mean of members", "ensemble", "seed3"):
        assert text in printed
    assert f"{summary['gain']['difference']:+.3f} macro-F1" in printed
    assert summary["gain"]["verdict"] in printed
    assert max(map(len, printed[: printed.index("mean of members")].splitlines()[2:])) <= 80


def test_evaluate_predict_and_runs_take_it(copy: Path, corpus: Path) -> None:
    before = read_json(copy / "runs" / "g" / "report.json")
    report = done("evaluate", "g", "--json").json
    assert report == before
    predictions = Predictions.load(copy / "runs" / "g" / "predictions.test.npz")
    temperature = report["calibration"]["temperature"]
    assert temperature == pytest.approx(read_json(copy / "runs" / "g" / "calibration.json")["temperature"]["emotion"])
    shares = np.exp(predictions.logits / temperature)
    shares /= shares.sum(axis=1, keepdims=True)
    shutil.rmtree(copy / "grids")
    found = done("predict", corpus.parent / f"{predictions.ids[0]}.wav", "--run", "g", "--json").json["predictions"][0]
    assert list(found["probabilities"]) == report["labels"]
    np.testing.assert_allclose(list(found["probabilities"].values()), shares[0], atol=1e-5)
    listed = done("runs", "--json").json["runs"]
    assert listed == [
        {
            "run": "g", "dataset": "table", "status": "evaluated", "epochs": None,
            "val_macro_f1": report["val_macro_f1"], "test_macro_f1": report["metrics"]["macro_f1"],
            "test_openings": 2, "code": [], "corpora": {},
        }
    ]  # fmt: skip


def test_again_trains_nothing(copy: Path, corpus: Path) -> None:
    assert "a run named 'g' exists" in refused(5, "ensemble", *seeds(corpus), *WHERE)
    before = read_json(copy / "runs" / "g" / "ensemble.json")
    again = done("ensemble", *seeds(corpus), *WHERE, "--overwrite", "--combine", "vote", "--json")
    assert "2 cells, 2 done before" in again.err
    assert again.json == read_json(copy / "runs" / "g" / "ensemble.json")
    assert (before["combine"], again.json["combine"]) == ("mean", "vote")


def test_named_runs(copy: Path, tmp_path: Path) -> None:
    shutil.copytree(copy / "grids" / "g" / "runs" / "seed1", copy / "runs" / "bad")
    (copy / "runs" / "bad" / "best_model.safetensors").unlink()
    result = done("ensemble", *GRID, "bad", "--weights", "fitted", "--threads", "1")
    assert "left out: 'bad': there is no model at" in result.err
    summary = read_json(copy / "runs" / "ensemble-table-emotion-001" / "ensemble.json")
    assert (summary["weights"], summary["fitted_on"]) == ("fitted", "val")
    assert [left["name"] for left in summary["left_out"]] == ["bad"]
    assert sum(member["weight"] for member in summary["members"]) == pytest.approx(1.0)
    assert "left out: bad" in result.out
    home = Path(read_json(copy / "runs" / "g" / "config.json")["data_root"])
    moved = shutil.copytree(home.parent, tmp_path / "moved")
    shutil.rmtree(copy / "runs")
    done("ensemble", *GRID, "--data-root", moved / "clips.csv", "--name", "there", "--threads", "1")
    assert read_json(copy / "runs" / "there" / "config.json")["data_root"] == str(moved / "clips.csv")
    assert "1 of 2 runs can be members" in refused(5, "ensemble", "g/seed1", "there")


@pytest.mark.slow
def test_variants_of_an_encoder_are_the_members(
    tmp_path: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As set, frozen and unfrozen layer by layer: one split, one seed, and what each variant changes."""
    monkeypatch.setattr(LocalLauncher, "run", here)
    monkeypatch.setattr(TextFrontend, "baseline", lambda *_: None)
    table = write_table(tmp_path / "texts.csv", 72, split=False)
    bert = small_bert(tmp_path / "bert")
    flags = [*MULTI, "--data-root", table, "--encoder", bert, "--max-tokens", "16", "--epochs", "2", "--lr", "0.01"]
    command = ["ensemble", "--variants", "base, frozen,unfrozen", *flags, "--seeds", "4", *WHERE, "--name", "v"]
    printed = done(*command).out
    grid = artifacts / "grids" / "v" / "runs"
    names = ["base.seed4", "frozen.seed4", "unfrozen.seed4"]
    assert sorted(path.name for path in grid.iterdir()) == names
    settings = [read_json(grid / name / "config.json") for name in names]
    assert [one["freeze_encoder"] for one in settings] == [False, True, False]
    assert [one["unfreeze_epochs"] for one in settings] == [0, 0, 1]
    assert [(one["seed"], one["split_seed"]) for one in settings] == [(4, 4)] * 3
    shared = settings[0].keys() - {"freeze_encoder", "unfreeze_epochs"}
    assert all(one[key] == settings[0][key] for one in settings for key in shared)
    splits = [read_json(grid / name / "split.json") for name in names]
    assert splits[0] == splits[1] == splits[2]
    summary = read_json(artifacts / "runs" / "v" / "ensemble.json")
    assert [member["name"] for member in summary["members"]] == names
    assert all(name in printed for name in names)
    # The encoder's folder is needed no more.
    shutil.rmtree(bert)
    found = done("predict", "--text", "yay so glad", "--run", "v", "--threads", "1", "--json").json["predictions"][0]
    assert set(found["tasks"]["label"]["probabilities"]) == {"anger", "joy", "sadness"}


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        ([], 2, "name two or more RUNs, or let --seeds 0,1,2 or --variants base,frozen,unfrozen train the"),
        ([*GRID, "--seeds", "0,1"], 2, "name two or more RUNs, or let --seeds 0,1,2 or --variants base"),
        ([*GRID, "--variants", "base,frozen"], 2, "name two or more RUNs, or let --seeds 0,1,2 or --variants base"),
        (["--variants", "base,frozen"], 2, "--variants are those of a pretrained encoder (hint: --modality text"),
        (["--variants", "base", "--encoder", "x"], 2, "--variants base: name two or three different ones"),
        (["--variants", "base,base", "--encoder", "x"], 2, "--variants base,base: name two or three different ones"),
        (
            ["--variants", "base,frosen", "--encoder", "x"],
            2,
            "--variants: unknown 'frosen' (hint: did you mean 'frozen'?",
        ),
        (["g/seed1"], 2, "an ensemble takes at least two runs"),
        (["--seeds", "4"], 2, "--seeds 4: an ensemble takes at least two members"),
        (["--seeds", "4,x"], 2, "--seeds '4,x': write different whole numbers"),
        ([*GRID, "--lr", "0.1"], 2, "--lr acts only together with --seeds"),
        ([*GRID, "--modality", "audio"], 2, "--modality acts only together with --seeds"),
        ([*GRID, "--preset", "x"], 2, "--preset acts only together with --seeds"),
        ([*GRID, "--config", "/dev/null"], 2, "--config acts only together with --seeds"),
        ([*GRID, "--ray", "auto"], 2, "--ray acts only together with --seeds"),
        ([*GRID, "--store", "s3://bucket"], 2, "--store acts only together with --seeds"),
        ([*GRID, "--workers", "2"], 2, "--workers acts only together with --seeds"),
        ([*GRID, "--precision", "bf16"], 2, "--precision acts only together with --seeds"),
        ([*GRID, "--combine", "sum"], 2, "--combine sum: unknown (hint: valid: mean, vote)"),
        ([*GRID, "--weights", "best"], 2, "--weights best: unknown (hint: valid: equal, fitted)"),
        ([*GRID, "--name", "seed1"], 2, "--name seed1: a member is called that"),
        ([*GRID, "--name", "g"], 5, "a run named 'g' exists"),
        (["g/seed1", "nobody"], 5, "there is no run 'nobody'"),
    ],
)
def test_refusals(copy: Path, argv: list[str], status: int, message: str) -> None:
    assert message in refused(status, "ensemble", *argv)
