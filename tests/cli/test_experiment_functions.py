"""Experiments as a notebook calls them: plain arguments in, values out, nothing on standard output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tone_corpora import FEATURES, SPLIT, read_json, table, table_rows

from samo.ensembles.build_ensemble import build_ensemble
from samo.errors import LeakError, RunError
from samo.experiments import crossval
from samo.experiments.ablation import ablate
from samo.experiments.crossval import crossvalidate, plan_crossval
from samo.experiments.learning_curve import learning_curve
from samo.experiments.reporter import PlainGridReporter
from samo.experiments.train_cell import train_cell
from samo.experiments.train_members import train_members
from samo.launch.local import Job, LocalLauncher, Outcome, Watcher
from samo.launch.resources import Resources
from samo.runs import run_report
from samo.runs.provenance import learned_by
from samo.runs.run import Run
from samo.settings import Config, resolve
from samo.tuning.reporter import PlainTuneReporter
from samo.tuning.tune import tune

RESOURCES = Resources(workers=1, threads=1, device="cpu", precision="float32")
SMALL = {
    flag.removeprefix("--").replace("-", "_"): float(value) if "." in value else int(value)
    for flag, value in zip((FEATURES + SPLIT)[::2], (FEATURES + SPLIT)[1::2], strict=True)
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A table of three classes by six speakers, and a network that is trained in a second."""
    place = {"dataset": "table", "data_root": str(table(tmp_path / "table", table_rows()))}
    return resolve("audio", "", None, {**place, **SMALL, "width": 4, "epochs": 1, "batch_size": 8})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Cells in this process, no pictures, and a cache of its own."""

    def here(launcher: LocalLauncher, jobs: Sequence[Job], watcher: Watcher) -> list[Outcome]:
        outcomes = []
        for job in jobs:
            train_cell(job.spec)
            outcomes.append(Outcome(job.name, "done"))
            watcher.on_end(outcomes[-1])
        return outcomes

    monkeypatch.setattr(LocalLauncher, "run", here)
    monkeypatch.setattr(run_report, "save_figures", lambda *_: [])
    monkeypatch.setattr(crossval, "save_figures", lambda *_: [])
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))


def test_crossvalidate(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = crossvalidate(config, folds=(0, 1), name="c", artifacts=tmp_path, resources=RESOURCES)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "c: 2 cells, 0 done before; 1 at once" in printed.err
    assert "[2/2] seed0.fold1  done  test macro_f1 " in printed.err
    assert [row["fold"] for row in report["folds"]] == [0, 1]
    assert read_json(tmp_path / "grids" / "c" / "report.json") == report
    quiet = PlainGridReporter(quiet=True)
    again = crossvalidate(config, folds=(0, 1), name="c", artifacts=tmp_path, resources=RESOURCES, reporter=quiet)
    assert (again, capsys.readouterr()) == (report, ("", ""))
    # Its folder teaches every fold by the run that learned from the same training part, and another fold's is refused.
    taught = type(config).build({**config.flat(), "teacher": "c"})
    crossvalidate(taught, folds=(1,), name="t", artifacts=tmp_path, resources=RESOURCES, reporter=quiet)
    own = tmp_path / "grids" / "t" / "runs" / "seed0.fold1"
    teacher = Run(tmp_path / "grids" / "c" / "runs" / "seed0.fold1")
    assert Run(own).started_from == [each.to_json() for each in learned_by(teacher)]
    known = type(config).build({**config.flat(), "teacher": "c/seed0.fold0"})
    with pytest.raises(LeakError, match=r"`teacher` of run 'seed0.fold0' learned from the validation or test part"):
        plan_crossval(known, folds=(0, 1), name="k", artifacts=tmp_path, reporter=quiet)
    # So are start weights that know a later fold's test part, before the first fold is trained.
    weights = type(config).build({**config.flat(), "weights": str(teacher.folder / "best_model.safetensors")})
    plan_crossval(weights, folds=(1,), name="k", artifacts=tmp_path, reporter=quiet)
    with pytest.raises(LeakError, match=r"`weights` of run 'seed0.fold1' learned from the validation or test part"):
        plan_crossval(weights, folds=(1, 0), name="k", artifacts=tmp_path, reporter=quiet)
    assert not (tmp_path / "grids" / "k").exists()


def test_ablate(config: Config, tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text("[variants.baseline]\n[variants.smooth]\nlabel_smoothing = 0.3\n")
    settings = {name: value for name, value in config.flat().items() if name in {*SMALL, "dataset", "data_root"}}
    found = ablate(tmp_path / "g.toml", {**settings, "width": 4, "epochs": 1}, artifacts=tmp_path, resources=RESOURCES)
    assert [(row.name, row.n) for row in found.rows] == [("baseline", 1), ("smooth", 1)]
    assert (tmp_path / "grids" / "g" / "table.md").is_file()


def test_learning_curve(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {"seeds": (0,), "name": "l", "artifacts": tmp_path, "resources": RESOURCES}
    curve = learning_curve(config, shares=(1.0, 0.34), **how)
    assert [(point.share, point.n_units) for point in curve.points] == [(0.34, 1), (1.0, 3)]
    # One share that was never evaluated, and there is no curve.
    (tmp_path / "grids" / "l" / "runs" / "limit_fraction=1.0.seed0" / "report.json").rename(tmp_path / "away.json")
    monkeypatch.setattr("samo.experiments.learning_curve.run_grid", lambda *_: {})
    with pytest.raises(RunError, match="no seed of 'l' is finished for every share"):
        learning_curve(config, shares=(1.0, 0.34), **how)


def test_members_and_their_ensemble(config: Config, tmp_path: Path) -> None:
    how: dict[str, Any] = {"artifacts": tmp_path, "resources": RESOURCES}
    members, frontend = train_members(config, seeds=(3, 1), name="e", **how)
    assert [run.name for run in members] == ["seed3", "seed1"]
    run, summary = build_ensemble(members, name="e", frontend=frontend, **how)
    assert (run.folder, run.status) == (tmp_path / "runs" / "e", "evaluated")
    assert [member["name"] for member in summary["members"]] == ["seed3", "seed1"]
    assert (tmp_path / "latest").resolve() == run.folder.resolve()


def test_tune(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    how: dict[str, Any] = {"name": "t", "artifacts": tmp_path, "resources": RESOURCES}
    found = tune(config, space, trials=2, reporter=PlainTuneReporter(), **how)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split()[:3] for line in printed.err.splitlines() if line.startswith("trial ")] == [
        ["trial", "0", "finished"],
        ["trial", "1", "finished"],
    ]
    assert (found.modality, found.facts["counts"]["finished"]) == ("audio", 2)
    assert {"synthetic", "leaky"} <= found.facts.keys()
    # Going on with the settings it was begun with, whatever is given.
    other = resolve("audio", "", None, {"dataset": "demo"})
    more = tune(other, {}, trials=2, keep_settings=True, **how)
    assert more.facts["best"] == found.facts["best"]
