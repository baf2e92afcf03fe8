"""Curves in TensorBoard and MLflow, read back and compared with the history; a tracker cannot stop a training."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_frontend as tiny
from matplotlib.image import imsave
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from samo.errors import EnvironmentProblem, Interrupted, SettingsError, TrainingDiverged
from samo.runs.artifacts import create_run
from samo.runs.run import Run
from samo.runs.training import resume_training, train_run
from samo.training import tracking
from samo.training.setup import Setup
from samo.training.tracking import TRACKERS, Observers, Watched, require_trackers, tracked

SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 2, "lr": 0.05, "patience": 0, "hidden": 8, "dropout": 0.3}
STEPS = 16
NUMBERS = ("train_loss", "val_loss", "val_macro_f1", "lr", "seconds")

without_mlflow = pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason='needs "samo-emotion[track]"')


class Watcher(tiny.Silent):
    """Writes down every loss, and does something at one step of one epoch."""

    def __init__(self, at: tuple[int, int] | None = None, action: Any = None) -> None:
        self.at, self.action = at, action
        self.losses: dict[int, float] = {}

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        assert n_steps == STEPS
        self.losses[epoch * n_steps + step] = loss
        if (epoch, step) == self.at:
            self.action()


def interrupt() -> None:
    raise KeyboardInterrupt


def diverge() -> None:
    raise TrainingDiverged("lost")


def go(
    run: Run, tracker: str, watcher: Any = None, *, resume: bool = False, warned: list[str] | None = None
) -> Watcher:
    """Train or go on, tracked; the watcher comes after the trackers, so that what it raises finds them told."""
    watcher = watcher or Watcher()
    warnings = warned if warned is not None else []
    front = tiny.frontend(**SETTINGS)
    watched = Watched(run.folder, run.root, front.config.flat(), lambda: run.history)
    with tracked(require_trackers(tracker), watched, warnings.append) as drawn:
        (resume_training if resume else train_run)(run, Setup(front, tiny.RUNTIME), Observers(*drawn, watcher))
    if warned is None:
        assert warnings == []
    return watcher


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve as TensorBoard shows it, by step: what was purged is gone.

    Event files of one second are read in the order of their names, in which the 10th comes before the 9th.
    """
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: sorted((event.step, event.value) for event in events.Scalars(tag)) for tag in events.Tags()["scalars"]}


def expected(run: Run, losses: dict[int, float]) -> dict[str, list[tuple[int, float]]]:
    """The curves that belong to a history and the losses of all steps; event files hold float32."""
    drawn = {
        name: [(row["epoch"] * STEPS, float(np.float32(row[name]))) for row in run.history]
        for name in ("epoch", *NUMBERS)
    }
    return {**drawn, "step_loss": [(at, float(np.float32(losses[at]))) for at in sorted(losses) if at % 10 == 0]}


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    run = create_run(tmp_path_factory.mktemp("untracked"), "a", "tiny")
    go(run, "")
    assert sorted(path.name for path in run.folder.iterdir() if path.is_dir()) == []
    return run.model_file.read_bytes()


def test_tensorboard_holds_the_history(tmp_path: Path, untracked: bytes) -> None:
    run = create_run(tmp_path, "a", "tiny")
    watcher = go(run, "tensorboard")
    assert len(run.history) == 3
    assert len(watcher.losses) == 3 * STEPS
    assert curves(run.folder) == expected(run, watcher.losses)
    assert len(curves(run.folder)["step_loss"]) == 4
    assert run.model_file.read_bytes() == untracked, "a tracked training learns the same"


def test_tensorboard_shows_the_settings(tmp_path: Path) -> None:
    run = create_run(tmp_path, "a", "tiny")
    go(run, "tensorboard")
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    (text,) = events.Tensors("settings/text_summary")
    table = text.tensor_proto.string_val[0].decode()
    for name, value in tiny.frontend(**SETTINGS).config.flat().items():
        assert f"| {name} | {value} |" in table


def test_a_resumed_training_goes_on_with_the_same_curves(tmp_path: Path) -> None:
    run = create_run(tmp_path, "a", "tiny")
    first = Watcher((1, 15), interrupt)
    with pytest.raises(Interrupted):
        go(run, "tensorboard", first)
    assert max(at for at, _ in curves(run.folder)["step_loss"]) == 30, "a step that is to be repeated was drawn"
    second = go(run, "tensorboard", resume=True)
    assert min(second.losses) == STEPS + 1
    assert curves(run.folder) == expected(run, {**first.losses, **second.losses})


def test_epochs_that_were_not_drawn_are_drawn_at_resume(tmp_path: Path) -> None:
    run = create_run(tmp_path, "a", "tiny")
    with pytest.raises(Interrupted):
        go(run, "", Watcher((2, 1), interrupt))
    second = go(run, "tensorboard", resume=True)
    assert curves(run.folder) == expected(run, second.losses)


def test_an_event_file_cut_by_a_kill_is_gone_on_with(tmp_path: Path) -> None:
    run = create_run(tmp_path, "a", "tiny")
    first = Watcher((2, 8), interrupt)
    with pytest.raises(Interrupted):
        go(run, "tensorboard", first)
    before = curves(run.folder)
    assert before["step_loss"][-1][0] == 40
    assert before["lr"][-1][0] == before["val_macro_f1"][-1][0] == 32
    (events,) = (run.folder / "tensorboard").iterdir()
    # Half of the last epoch's row is left, and half a record.
    whole = events.read_bytes()
    events.write_bytes(whole[: whole.rindex(b"lr") + 1])
    cut = curves(run.folder)
    assert (cut["lr"][-1][0], cut["val_macro_f1"][-1][0]) == (16, 32)
    second = go(run, "tensorboard", resume=True)
    assert curves(run.folder) == expected(run, {**first.losses, **second.losses})


@pytest.mark.parametrize(
    ("action", "raised", "status"),
    [(None, None, "FINISHED"), (interrupt, Interrupted, "KILLED"), (diverge, TrainingDiverged, "FAILED")],
)
def test_closed_with_what_became_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Any, raised: Any, status: str
) -> None:
    closed = []

    class Closing(tiny.Silent):
        packages = ("json",)

        def __init__(self, watched: Watched) -> None:
            assert not watched.folder.exists()

        def close(self, status: str) -> None:
            closed.append(status)

    monkeypatch.setitem(TRACKERS, "closing", Closing)
    run = create_run(tmp_path, "a", "tiny")
    if raised:
        with pytest.raises(raised):
            go(run, "closing", Watcher((1, 1), action))
    else:
        go(run, "closing")
    assert closed == [status]


@pytest.mark.parametrize("broken", ["on_step", "on_epoch", "close"])
def test_a_tracker_that_fails_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untracked: bytes, broken: str
) -> None:
    calls = []

    class Gone(tiny.Silent):
        packages = ("json",)

        def __init__(self, watched: Watched) -> None: ...

        def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
            self.fail("on_step")

        def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
            self.fail("on_epoch")

        def close(self, status: str) -> None:
            self.fail("close")

        def fail(self, name: str) -> None:
            calls.append(name)
            if name == broken:
                raise ConnectionError("server gone\nand more")

    monkeypatch.setitem(TRACKERS, "gone", Gone)
    warned: list[str] = []
    run = create_run(tmp_path, "a", "tiny")
    go(run, "gone,tensorboard", warned=warned)
    assert warned == ["the training goes on without `tracker=gone`, which failed: server gone"]
    assert calls.count(broken) == 1
    assert calls[-1] == broken
    assert run.model_file.read_bytes() == untracked
    assert len(curves(run.folder)["val_macro_f1"]) == 3, "the other tracker is not disturbed"


def test_a_full_disk_under_the_event_files_is_a_warning(tmp_path: Path) -> None:
    run = create_run(tmp_path, "a", "tiny")
    run.folder.mkdir(parents=True)
    (run.folder / "tensorboard").write_text("a file where the folder should be")
    warned: list[str] = []
    go(run, "tensorboard", warned=warned)
    assert len(warned) == 1
    assert warned[0].startswith("the training goes on without `tracker=tensorboard`, which failed: ")
    assert len(run.history) == 3


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAMO_TRACKER", raising=False)
    assert require_trackers("") == ()
    assert require_trackers(" tensorboard , tensorboard,") == ("tensorboard",)
    monkeypatch.setenv("SAMO_TRACKER", "tensorboard")
    assert require_trackers("") == ("tensorboard",)
    with pytest.raises(SettingsError, match="`tracker` 'tensorbord': unknown") as caught:
        require_trackers("tensorbord")
    assert caught.value.hint == "did you mean 'tensorboard'? valid: tensorboard, mlflow"


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_not_installed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EnvironmentProblem, match=f"`tracker={name}` needs the package {name}: ") as caught:
        require_trackers(name)
    assert caught.value.hint == 'pip install "samo-emotion[track]"'


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts whose local store all MLflow tests write to: making one takes seconds."""
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def mlflow_run(folder: Path) -> tuple[Any, Any]:
    """A client of the store, and what it holds of a run."""
    from mlflow import MlflowClient

    kept = json.loads((folder / "mlflow.json").read_text())
    client = MlflowClient(tracking_uri=f"sqlite:///{folder.parent.parent / 'mlflow' / 'mlflow.db'}")
    return client, client.get_run(kept["run_id"])


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    client, run = mlflow_run(folder)
    return {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def history_of(run: Run) -> dict[str, list[tuple[int, float]]]:
    return {name: [(row["epoch"], row[name]) for row in run.history] for name in NUMBERS}


@without_mlflow
def test_mlflow_holds_history_and_settings(
    store: Path, no_server: None, untracked: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = create_run(store, "whole", "tiny")
    go(run, "mlflow")
    client, stored = mlflow_run(run.folder)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "whole"
    assert client.get_experiment(stored.info.experiment_id).name == "samo"
    settings = tiny.frontend(**SETTINGS).config.flat()
    assert stored.data.params == {name: str(value) for name, value in settings.items()}
    assert logged(run.folder) == history_of(run)
    assert run.model_file.read_bytes() == untracked
    assert list(tmp_path.iterdir()) == [], "nothing lands in the working directory"


@without_mlflow
def test_a_resumed_training_goes_on_with_the_same_mlflow_run(store: Path, no_server: None) -> None:
    run = create_run(store, "cut", "tiny")
    with pytest.raises(Interrupted):
        go(run, "mlflow", Watcher((1, 3), interrupt))
    _, before = mlflow_run(run.folder)
    assert before.info.status == "KILLED"
    with pytest.raises(TrainingDiverged):
        go(run, "mlflow", Watcher((2, 3), diverge), resume=True)
    assert mlflow_run(run.folder)[1].info.status == "FAILED"
    go(run, "mlflow", resume=True)
    _, after = mlflow_run(run.folder)
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    assert logged(run.folder) == history_of(run)


@without_mlflow
def test_a_training_tracked_from_its_middle_is_whole_in_mlflow(store: Path, no_server: None) -> None:
    run = create_run(store, "late", "tiny")
    with pytest.raises(Interrupted):
        go(run, "", Watcher((2, 1), interrupt))
    go(run, "mlflow", resume=True)
    assert logged(run.folder) == history_of(run)


@without_mlflow
def test_a_finished_run_stays_finished_in_mlflow(store: Path, no_server: None) -> None:
    """Refused to go on: nothing is written. Killed before its last file: finished then."""
    from samo.errors import RunError

    run = create_run(store, "end", "tiny")
    go(run, "mlflow")
    with pytest.raises(RunError, match="is finished"):
        go(run, "mlflow", resume=True)
    client, stored = mlflow_run(run.folder)
    assert stored.info.status == "FINISHED"
    client.update_run(stored.info.run_id, status="RUNNING")
    run.path("trained.json").unlink()
    go(run, "mlflow", resume=True)
    assert mlflow_run(run.folder)[1].info.status == "FINISHED"
    assert logged(run.folder) == history_of(run)


@without_mlflow
def test_another_store_gets_a_run_of_its_own(
    store: Path, no_server: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also: a server that is not there is a warning within seconds."""
    run = create_run(tmp_path, "away", "tiny")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    warned: list[str] = []
    go(run, "mlflow", warned=warned)
    assert len(warned) == 1
    assert warned[0].startswith("the training goes on without `tracker=mlflow`, which failed: ")
    assert not run.path("mlflow.json").exists()
    run.path("trained.json").unlink()
    run.path("mlflow.json").write_text(json.dumps({"tracking_uri": "http://127.0.0.1:9", "run_id": "x"}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store / 'mlflow' / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    go(run, "mlflow", resume=True)
    kept = json.loads(run.path("mlflow.json").read_text())
    assert kept["run_id"] != "x"
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=kept["tracking_uri"])
    assert client.get_experiment(client.get_run(kept["run_id"]).info.experiment_id).name == "other"
    history = client.get_metric_history(kept["run_id"], "val_macro_f1")
    assert [(metric.step, metric.value) for metric in history] == history_of(run)["val_macro_f1"]


def test_every_tracker_names_its_packages() -> None:
    for name, tracker in TRACKERS.items():
        assert name in tracker.packages
    assert tracking.STEP_EVERY == 10


def picture(path: Path, size: tuple[int, int]) -> None:
    imsave(path, np.zeros((*size, 3)))


def pictures_of(folder: Path) -> dict[str, list[tuple[int, int, int]]]:
    """Step, width and height of every picture TensorBoard shows, by its name."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    found = {tag: events.Images(tag) for tag in events.Tags()["images"]}
    return {tag: [(event.step, event.width, event.height) for event in shown] for tag, shown in found.items()}


def test_tensorboard_shows_pictures_of_the_samples_and_of_reports(tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "a")
    run.folder.mkdir(parents=True)
    picture(run.path("augmented.png"), (6, 8))
    picture(tmp_path / "confusion.png", (3, 5))
    warned: list[str] = []
    tracking.draw_pictures(run.folder, {"test/confusion": tmp_path / "confusion.png"}, 4, warned.append)
    assert not run.path("tensorboard").exists(), "no curves were asked for"
    with tracked(("tensorboard",), Watched(run.folder, tmp_path, {}, list), warned.append) as (observer,):
        observer.on_step(0, 1, STEPS, 1.0)
    tracking.draw_pictures(run.folder, {"test/confusion": tmp_path / "confusion.png"}, 4, warned.append)
    assert warned == []
    assert pictures_of(run.folder) == {"augmented": [(0, 8, 6)], "test/confusion": [(4, 5, 3)]}
    tracking.draw_pictures(run.folder, {"test/none": tmp_path / "none.png"}, 4, warned.append)
    assert len(warned) == 1
    assert warned[0].startswith("no pictures in TensorBoard: ")
