"""A search over the tiny modality: what is drawn, what is kept, what happens to trials that do not end well."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import tiny_frontend as tiny
from optuna.trial import FrozenTrial, TrialState

from samo.data.batch import Batch, Draws
from samo.data.splits import make_split
from samo.errors import DataError, Interrupted, RunError, SettingsError, TrainingDiverged
from samo.modalities import config_type
from samo.runs.run import Run
from samo.settings import read_toml
from samo.training.setup import Setup
from samo.tuning import results as tune_results
from samo.tuning import trials as tune
from samo.tuning.results import best_toml, study_facts, trial_row, write_results
from samo.tuning.space import SearchSpace, parse_space
from samo.tuning.study import StudySpec, connect, join_study, make_pruner, open_study, require_same_data
from samo.tuning.trials import Goal, counted, end_stale_trials, run_trials
from samo.tuning.tune import tune as tune_settings

RAW: dict[str, Any] = {
    "lr": {"low": 1e-3, "high": 0.1, "log": True},
    "dropout": {"low": 0.0, "high": 0.6, "step": 0.2},
    "focal_loss": {"choices": [False, True]},
    "focal_gamma": {"low": 1.0, "high": 3.0},
}
BASE: dict[str, Any] = {"epochs": 2, "batch_size": 16, "patience": 0, "hidden": 4, "lr": 0.01}
MARKS = {"synthetic": False, "leaky": False}


class Watcher(tiny.Silent):
    """Writes down what it is told; may do something at each step."""

    def __init__(self, at_step: Callable[[int, int], None] = lambda trial, epoch: None) -> None:
        self.begun: list[int] = []
        self.ended: list[FrozenTrial] = []
        self.at_step = at_step

    def on_trial(self, number: int, drawn: Mapping[str, Any]) -> None:
        self.begun.append(number)

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        self.at_step(self.begun[-1], epoch)

    def on_trial_end(self, trial: FrozenTrial) -> None:
        self.ended.append(trial)


def begin(
    folder: Path, storage: Any = None, pruner: str = "none", raw: dict[str, Any] = RAW, **settings: Any
) -> tuple[optuna.Study, StudySpec, SearchSpace, tiny.TinyFrontend]:
    front = tiny.frontend(**{**BASE, **settings})
    space = parse_space(raw, front.config)
    spec = StudySpec("mine", "tiny", front.config.flat(), space.to_json(), pruner)
    return join_study(storage or optuna.storages.InMemoryStorage(), spec, space), spec, space, front


def search(
    folder: Path, trials: int, watcher: Any = None, front: Any = None, study: Any = None, **how: Any
) -> optuna.Study:
    begun, _, space, own = begin(folder, **how)
    study = study or begun
    run_trials(study, space, Setup(front or own, tiny.RUNTIME), folder, Goal(trials), watcher or Watcher())
    return study


def outcome(study: optuna.Study) -> list[tuple[dict[str, Any], float | None, str]]:
    return [(trial.params, trial.value, trial.state.name) for trial in study.trials]


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, optuna.Study]:
    """Six trials; to read only."""
    folder = tmp_path_factory.mktemp("six")
    return folder, search(folder, 6)


@pytest.mark.parametrize("searched", [False, True])
def test_a_place_that_is_not_there_comes_before_the_study(searched: bool, tmp_path: Path) -> None:
    """Fixed, or among what is drawn."""
    base = config_type("text").build({"dataset": "demo", **({} if searched else {"extra_table": "/nowhere.csv"})})
    space = {"lr": RAW["lr"], "extra_table": {"choices": ["", "/nowhere.csv"]}} if searched else {"lr": RAW["lr"]}
    with pytest.raises(DataError, match=r"`extra_table=/nowhere\.csv`: there is no such table"):
        tune_settings(base, space, trials=1, artifacts=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_noise_that_is_drawn_beside_noise_is_looked_for(tmp_path: Path) -> None:
    space = {"noise": {"choices": [False, True]}, "noise_root": {"choices": ["", "/nowhere"]}}
    with pytest.raises(DataError, match=r"`noise_root=/nowhere`: there is no such folder"):
        tune_settings(config_type("audio").build({"dataset": "demo"}), space, trials=1, artifacts=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_same_study_twice_is_the_same_trials(six: tuple[Path, optuna.Study], tmp_path: Path) -> None:
    again = search(tmp_path / "again", 6)
    assert outcome(again) == outcome(six[1])
    other = search(tmp_path / "other", 3, seed=1)
    assert [t.params for t in other.trials[1:]] != [t.params for t in six[1].trials[1:3]]
    assert len({trial.params["lr"] for trial in six[1].trials}) == 6


@pytest.mark.slow
def test_a_study_that_goes_on_draws_what_it_would_have_drawn(six: tuple[Path, optuna.Study], tmp_path: Path) -> None:
    # More than ten trials: past its random beginning TPE must be as repeatable.
    quick: dict[str, Any] = {"raw": {"lr": RAW["lr"], "dropout": RAW["dropout"]}, "epochs": 1}
    whole = search(tmp_path / "whole", 13, **quick)
    storage = connect(tmp_path / "parts")
    for trials in (5, 5, 11, 13):
        parts = search(tmp_path / "parts", trials, storage=connect(tmp_path / "parts"), **quick)
        assert len(parts.trials) == trials
    assert outcome(optuna.load_study(study_name="mine", storage=storage)) == outcome(whole)


def test_the_base_settings_are_the_first_trial(six: tuple[Path, optuna.Study]) -> None:
    first = six[1].trials[0]
    assert first.params == {"lr": 0.01, "dropout": 0.0, "focal_loss": False}
    assert [trial_row(trial)["base"] for trial in six[1].trials] == [True, *[False] * 5]


def test_a_base_outside_the_space_is_not_tried(tmp_path: Path) -> None:
    assert not any(trial_row(trial)["base"] for trial in search(tmp_path, 1, lr=0.5).trials)


def test_a_trial_is_a_run_with_the_settings_it_drew(six: tuple[Path, optuna.Study]) -> None:
    folder, study = six
    for trial in study.trials:
        run = Run(folder / "runs" / f"trial-{trial.number:04d}")
        drawn = {n: round(v, 9) if n == "dropout" else v for n, v in trial.params.items()}
        assert run.settings == {**run.settings, **BASE, **drawn}
        assert run.settings["focal_gamma"] == trial.params.get("focal_gamma", 2.0)
        assert trial.value == max(row["val_macro_f1"] for row in run.history)
        assert (run.status, run.model_file.exists(), run.path("last.ckpt").exists()) == ("trained", True, False)


def test_only_training_and_validation_rows_are_touched(tmp_path: Path) -> None:
    seen: set[int] = set()

    class Spying(tiny.TinyFrontend):
        def train_batch(self, rows: np.ndarray, draws: Draws) -> Batch:
            seen.update(map(int, rows))
            return super().train_batch(rows, draws)

        def eval_batches(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
            seen.update(map(int, rows))
            return super().eval_batches(rows, batch_size)

    front = Spying(tiny.TinyConfig.build(BASE), *tiny.corpus())
    split = make_split(front.manifest, front.split_request())
    search(tmp_path, 2, front=front)
    assert seen == set(front.manifest.rows(split.train)) | set(front.manifest.rows(split.val))


class Impatient(optuna.pruners.BasePruner):
    """Ends every trial but the first after its first epoch."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return trial.number > 0


def test_a_pruned_trial_leaves_a_whole_folder_and_no_lock(tmp_path: Path) -> None:
    study, spec, space, front = begin(tmp_path)
    study.pruner = Impatient()
    watcher = Watcher()
    run_trials(study, space, Setup(front, tiny.RUNTIME), tmp_path, Goal(3), watcher)
    assert [trial.state.name for trial in watcher.ended] == ["COMPLETE", "PRUNED", "PRUNED"]
    run = Run(tmp_path / "runs" / "trial-0001")
    assert (run.status, len(run.history)) == ("stopped", 1)
    assert not run.model_file.exists()
    assert not run.path("last.ckpt").exists()
    row = trial_row(study.trials[1])
    assert (row["state"], row["value"], row["epochs"]) == ("pruned", run.history[0]["val_macro_f1"], 1)
    assert study_facts(study, spec, tmp_path)["counts"]["pruned"] == 2


@pytest.mark.parametrize(
    ("keep", "reported"), [("best", [0.5, 0.5, 0.7]), ("last", [0.5, 0.3, 0.7]), ("average", [0.5, 0.3, 0.7])]
)
def test_a_pruner_sees_the_score_of_the_weights_that_count(keep: str, reported: list[float]) -> None:
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    trial = study.ask()
    observer = tune._Reporting(trial, Watcher(), 3, keep)
    for epoch, score in enumerate((0.5, 0.3, 0.7), start=1):
        observer.on_epoch({"epoch": epoch, "val_macro_f1": score}, score > 0.4)
    assert list(study.trials[0].intermediate_values.values()) == reported


def test_the_last_epoch_is_never_pruned(tmp_path: Path) -> None:
    study, _, space, front = begin(tmp_path, epochs=1)
    study.pruner = Impatient()
    run_trials(study, space, Setup(front, tiny.RUNTIME), tmp_path, Goal(2), Watcher())
    assert study.trials[1].state == TrialState.COMPLETE


def test_pruners() -> None:
    median = make_pruner("median", 20)
    assert (median._n_startup_trials, median._n_warmup_steps) == (5, 5)  # type: ignore[attr-defined]
    hyperband = make_pruner("hyperband", 18)
    assert (hyperband._min_resource, hyperband._max_resource) == (2, 18)  # type: ignore[attr-defined]
    assert type(make_pruner("none", 3)) is optuna.pruners.NopPruner
    with pytest.raises(SettingsError, match="`pruner=medain`: unknown"):
        make_pruner("medain", 3)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TrainingDiverged("the loss became nan"), "the loss became nan"),
        (SettingsError("--a and --b do not go together"), "--a and --b do not go together"),
        (MemoryError(), "out of memory"),
    ],
)
def test_a_failed_trial_says_why_and_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    real = tune.train_run

    def failing(run: Run, *rest: Any) -> Any:
        if run.name == "trial-0001":
            raise error
        return real(run, *rest)

    monkeypatch.setattr(tune, "train_run", failing)
    study = search(tmp_path, 3)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    row = trial_row(study.trials[1])
    assert (row["state"], row["reason"], row["value"]) == ("failed", reason, None)


def test_an_interrupted_trial_stands_in_line_again(tmp_path: Path) -> None:
    def stop(trial: int, epoch: int) -> None:
        if (trial, epoch) == (1, 1):
            raise KeyboardInterrupt

    study, spec, space, front = begin(tmp_path)
    with pytest.raises(Interrupted):
        run_trials(study, space, Setup(front, tiny.RUNTIME), tmp_path, Goal(3), Watcher(stop))
    run_trials(study, space, Setup(front, tiny.RUNTIME), tmp_path, Goal(3), Watcher())
    states = [trial_row(trial)["state"] for trial in study.trials]
    assert states == ["finished", "stopped", "finished", "finished"]
    assert study.trials[2].params == study.trials[1].params
    assert not Run(tmp_path / "runs" / "trial-0001").path("last.ckpt").exists()
    assert study_facts(study, spec, tmp_path)["counts"]["counted"] == len(counted(study)) == 3


def test_an_error_of_the_data_stops_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*rest: Any) -> Any:
        raise DataError("the corpus is gone")

    monkeypatch.setattr(tune, "train_run", broken)
    study, _, space, front = begin(tmp_path)
    for expected in ("stopped", "failed"):  # a second time it is no accident
        with pytest.raises(DataError):
            run_trials(study, space, Setup(front, tiny.RUNTIME), tmp_path, Goal(3), Watcher())
        ended = [trial for trial in study.trials if trial.state == TrialState.FAIL]
        assert trial_row(ended[-1])["state"] == expected
        assert trial_row(ended[-1])["reason"] == "DataError: the corpus is gone"


def test_trials_of_a_killed_process_are_begun_again_once(tmp_path: Path) -> None:
    storage = optuna.storages.InMemoryStorage()
    study, _, space, _ = begin(tmp_path, storage)
    killed = tune._next(study, tmp_path, Goal(9))
    assert killed is not None
    space.draw(killed)
    assert end_stale_trials(study, storage, tmp_path / "elsewhere", shared=True) == []
    assert end_stale_trials(study, storage, tmp_path, shared=True) == [0]
    assert trial_row(study.trials[0])["state"] == "stopped"
    again = tune._next(study, tmp_path, Goal(9))
    assert again is not None
    space.draw(again)
    assert again.params == killed.params
    assert end_stale_trials(study, storage, tmp_path / "elsewhere", shared=False) == [1]
    row = trial_row(study.trials[1])
    assert (row["state"], row["reason"]) == ("failed", "its process was killed")
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.FAIL]
    assert len(counted(study)) == 1


def test_no_trial_begins_when_the_time_is_up_or_others_take_the_last(tmp_path: Path) -> None:
    study, _, _, _ = begin(tmp_path)
    assert tune._next(study, tmp_path, Goal(9, until=0.0)) is None
    assert tune._next(study, tmp_path, Goal(1)) is not None
    assert tune._next(study, tmp_path, Goal(1)) is None  # the one that runs counts


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    storage = optuna.storages.InMemoryStorage()
    begin(tmp_path, storage)
    begin(tmp_path, storage)
    with pytest.raises(RunError, match="epochs was 2, is now 3"):
        begin(tmp_path, storage, epochs=3)
    with pytest.raises(RunError, match="pruner was none, is now median"):
        begin(tmp_path, storage, pruner="median")
    with pytest.raises(RunError, match=r"space of lr was .*, is now not there"):
        begin(tmp_path, storage, raw={name: RAW[name] for name in ("dropout", "focal_loss", "focal_gamma")})


def test_other_data_are_refused(tmp_path: Path) -> None:
    study, *_ = begin(tmp_path)
    require_same_data(study, "one")
    require_same_data(study, "one")
    with pytest.raises(RunError, match="data of study 'mine' changed"):
        require_same_data(study, "two")


def test_storages(tmp_path: Path) -> None:
    begin(tmp_path, connect(tmp_path / "folder"))
    assert (tmp_path / "folder" / "journal.log").is_file()
    begin(tmp_path, connect(tmp_path, str(tmp_path / "deep" / "own.log")))
    assert open_study(connect(tmp_path, str(tmp_path / "deep" / "own.log")), "mine") is not None
    assert open_study(connect(tmp_path, str(tmp_path / "deep" / "own.log")), "other") is None
    url = f"sqlite:///{tmp_path}/study.db"
    _, spec, _, _ = begin(tmp_path, connect(tmp_path, url))
    found = open_study(connect(tmp_path, url), "mine")
    assert found is not None
    assert found[1] == spec
    with pytest.raises(SettingsError, match="`storage`: no study can be kept there"):
        connect(tmp_path, "nonsense://x")
    foreign = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="mine", storage=foreign)
    with pytest.raises(RunError, match="samo did not begin"):
        open_study(foreign, "mine")


@pytest.mark.usefixtures("drawn_pictures")
def test_what_is_written(six: tuple[Path, optuna.Study]) -> None:
    folder, study = six
    spec = StudySpec("mine", "tiny", tiny.TinyConfig.build(BASE).flat(), RAW, "none")
    facts = write_results(study, spec, tiny.TinyConfig, folder, MARKS, "samo tune")
    best = max(study.trials, key=lambda trial: (trial.value or 0.0, -trial.number))
    assert (facts["best"]["number"], facts["best"]["value"]) == (best.number, best.value)
    assert facts["base_val_macro_f1"] == study.trials[0].value
    with (folder / "trials.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["number", "value", "state", "seconds", "epochs", *RAW, "reason"]
    assert [float(row["value"]) for row in rows] == [trial.value for trial in study.trials]
    assert [row["focal_gamma"] == "" for row in rows] == [not t.params["focal_loss"] for t in study.trials]
    assert all(float(row["dropout"]) in (0.0, 0.2, 0.4, 0.6) for row in rows)
    assert [Path(file).name for file in facts["figures"]] == ["history.png", "importance.png"]
    assert all(Path(file).read_bytes().startswith(b"\x89PNG") for file in facts["figures"])


def test_best_toml_is_the_best_trial_whole(six: tuple[Path, optuna.Study]) -> None:
    folder, study = six
    spec = StudySpec("mine", "tiny", tiny.TinyConfig.build(BASE).flat(), RAW, "none")
    facts = study_facts(study, spec, folder)
    path = folder / "again.toml"
    path.write_text(best_toml(facts, spec, tiny.TinyConfig, folder))
    config = tiny.TinyConfig.build(read_toml(path, set(tiny.TinyConfig.model_fields)))
    stored = Run(folder / "runs" / facts["best"]["run"]).settings
    assert {"modality": "tiny", **config.flat()} == stored
    assert f"the best of 6: validation macro-F1 {facts['best']['value']:.4f}" in path.read_text()
    # The same settings give the same score.
    from samo.runs.training import train_run

    front = tiny.TinyFrontend(config, *tiny.corpus())
    assert (
        train_run(Run(folder / "runs" / "retrained"), Setup(front, tiny.RUNTIME), tiny.Silent()).best_score
        == (facts["best"]["value"])
    )


def test_toml_of_every_kind_reads_back() -> None:
    values = {"a": True, "b": 3, "c": 1e-5, "d": 'say "x"\\n', "e": {"neutral": 1.5, "odd key": 2.0}, "f": {}}
    text = "".join(f"{name} = {tune_results._toml(value)}\n" for name, value in values.items())
    assert tomllib.loads(text) == values


def test_nothing_finished_and_nothing_to_compare(tmp_path: Path) -> None:
    study, spec, _, _ = begin(tmp_path)
    facts = write_results(study, spec, tiny.TinyConfig, tmp_path, MARKS, "")
    assert (facts["best"], facts["best_toml"], facts["figures"]) == (None, None, [])
    assert tune_results.importances(study) == {}


def test_history_picture_shows_every_trial_and_the_best_so_far() -> None:
    rows = [
        {"number": k, "value": value, "state": state}
        for k, (value, state) in enumerate(
            [(0.3, "finished"), (0.2, "pruned"), (None, "failed"), (0.5, "finished"), (0.4, "finished")]
        )
    ]
    facts = {
        "study": "mine", "dataset": "tiny", "split_rule": "speaker", "trials": rows, "counts": {"counted": 5},
        "best": rows[3], "base_val_macro_f1": 0.3,
    }  # fmt: skip
    axes = tune_results.history_figure(facts, MARKS).axes[0]
    shown = {str(dots.get_label()): np.asarray(dots.get_offsets()).tolist() for dots in axes.collections}
    assert shown["finished"] == [[0.0, 0.3], [3.0, 0.5], [4.0, 0.4]]
    assert shown["pruned"] == [[1.0, 0.2]]
    assert shown["failed"] == [[2.0, 0.0]]
    line = next(line for line in axes.lines if line.get_label() == "best so far")
    assert np.asarray(line.get_xydata()).tolist() == [[0.0, 0.3], [3.0, 0.5], [4.0, 0.5], [4.0, 0.5]]
