"""Run folders: named once, locked while in use, found again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from samo.errors import ModelFileError, RunError, SettingsError
from samo.runs.artifacts import artifacts_root, create_run, find_model, find_run, list_runs, point_latest
from samo.runs.listing import delete_run
from samo.runs.run import Run, mark_trained, write_history

HOLD = """
import fcntl, os, sys
lock = open(sys.argv[1], "a+")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
lock.truncate(0)
lock.write(str(os.getpid()))
lock.flush()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_elsewhere(run: Run) -> Iterator[int]:
    """Another process holds the run; gives its number."""
    run.folder.mkdir(parents=True, exist_ok=True)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path(".lock"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "held\n"
        yield other.pid
    finally:
        other.kill()
        other.communicate()


def begun(artifacts: Path, name: str, time: int = 0) -> Run:
    run = Run(artifacts / "runs" / name)
    run.folder.mkdir(parents=True)
    run.path("config.json").write_text('{"modality": "tiny", "lr": 0.1}')
    os.utime(run.path("config.json"), (time, time))
    return run


def test_artifacts_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAMO_ARTIFACTS", raising=False)
    assert artifacts_root() == Path("artifacts")
    monkeypatch.setenv("SAMO_ARTIFACTS", "/from/env")
    assert artifacts_root() == Path("/from/env")
    assert artifacts_root("/given") == Path("/given")
    assert artifacts_root("~/x") == Path.home() / "x"


def test_names_are_counted_up(tmp_path: Path) -> None:
    assert create_run(tmp_path, "", "demo-cnn").name == "demo-cnn-001"
    assert not (tmp_path / "runs").exists()
    begun(tmp_path, "demo-cnn-001")
    begun(tmp_path, "demo-cnn-003")
    assert create_run(tmp_path, "", "demo-cnn").name == "demo-cnn-002"
    # A training that was refused or killed before it began leaves its name to the next one, unless it goes on.
    with Run(tmp_path / "runs" / "demo-cnn-002").locked():
        assert create_run(tmp_path, "", "demo-cnn").name == "demo-cnn-004"
    assert create_run(tmp_path, "", "demo-cnn").name == "demo-cnn-002"


def test_only_a_folder_without_a_run_is_forgotten(tmp_path: Path) -> None:
    run, kept = Run(tmp_path / "runs" / "a"), begun(tmp_path, "b")
    run.forget()
    with run.locked():
        run.forget()
        assert run.folder.exists()
    run.forget()
    kept.forget()
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["b"]


def test_without_a_name_the_newest_run_with_a_model_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, new, bare = begun(tmp_path, "old", 1), begun(tmp_path, "new", 2), begun(tmp_path, "bare", 3)
    point_latest(tmp_path, bare)
    with pytest.raises(ModelFileError, match="there is no model at") as caught:
        find_model(tmp_path)
    assert caught.value.hint == "go on with: `resume=bare`"
    for run in (old, new):
        run.model_file.write_text("")
    assert find_model(tmp_path) == new
    assert "run bare has no model yet; taking the newest that has one, new" in caplog.text
    with pytest.raises(ModelFileError):
        find_model(tmp_path, "bare")
    bare.model_file.write_text("")
    assert find_model(tmp_path) == bare


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "-flag", "with space", "a" * 129, "ü"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="use letters, digits and"):
        create_run(tmp_path, name, "x")


def test_a_name_taken_is_refused(tmp_path: Path) -> None:
    run = begun(tmp_path, "mine")
    with pytest.raises(RunError, match="a run named 'mine' exists in") as caught:
        create_run(tmp_path, "mine", "x")
    assert caught.value.hint == "choose another `name`, go on with `resume=mine`, or replace it with `overwrite`"
    run.path("trained.json").write_text("{}")  # a finished one cannot be gone on with
    with pytest.raises(RunError) as caught:
        create_run(tmp_path, "mine", "x")
    assert caught.value.hint == "choose another `name` or replace it with `overwrite`"
    assert run.path("config.json").exists()


def test_a_folder_that_was_only_locked_is_free(tmp_path: Path) -> None:
    run = create_run(tmp_path, "mine", "x")
    with run.locked():
        pass
    assert run.status == "empty"
    assert create_run(tmp_path, "mine", "x") == run


def test_what_a_kill_before_the_config_leaves_is_free(tmp_path: Path) -> None:
    run = create_run(tmp_path, "mine", "x")
    run.folder.mkdir(parents=True)
    for name in (".lock", "manifest.jsonl", "split.json", "environment.json", ".config.json.ab12_xyz.json"):
        run.path(name).write_text("")
    assert create_run(tmp_path, "mine", "x") == run
    run.path("notes.txt").write_text("of the user")
    with pytest.raises(RunError, match="a run named 'mine' exists in"):
        create_run(tmp_path, "mine", "x")


def test_sweep_takes_the_halves_only(tmp_path: Path) -> None:
    run = begun(tmp_path, "mine")
    before = {path.name for path in run.folder.iterdir()}
    for name in (
        ".last.ckpt.ab12_xyz.ckpt",
        ".best_model.safetensors.abcdefgh.safetensors",
        ".config.json.00000000.json",
    ):
        run.path(name).write_text("half")
    run.path(".report.json.abcdefgh.json").write_text("of a report that is being written")
    run.sweep()
    assert {path.name for path in run.folder.iterdir()} == before | {".report.json.abcdefgh.json"}


def test_overwrite_empties_the_folder(tmp_path: Path) -> None:
    run = begun(tmp_path, "mine")
    (run.path("figures") / "deep").mkdir(parents=True)
    (run.path("figures") / "deep" / "a.png").write_text("")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    run.path("link").symlink_to(outside)
    assert create_run(tmp_path, "mine", "x", overwrite=True) == run
    assert [entry.name for entry in run.folder.iterdir()] == [".lock"]
    assert (outside / "precious").exists()
    assert create_run(tmp_path, "new", "x", overwrite=True).name == "new"


def test_a_run_held_by_another_process(tmp_path: Path) -> None:
    run = begun(tmp_path, "mine")
    assert run.status == "stopped"
    with held_elsewhere(run) as number:
        assert run.is_busy()
        assert run.status == "running"
        message = f"run 'mine' is being written by process {number}"
        with pytest.raises(RunError, match=message), run.locked():
            pass
        for overwrite in (False, True):
            with pytest.raises(RunError, match=message):
                create_run(tmp_path, "mine", "x", overwrite=overwrite)
        assert run.path("config.json").exists()
    # The lock fell with the process, though it was killed.
    assert not run.is_busy()
    assert run.status == "stopped"
    with run.locked():
        assert run.path(".lock").read_text() == str(os.getpid())
        assert run.status == "running"
    assert not run.is_busy()


def test_the_lock_falls_with_an_exception(tmp_path: Path) -> None:
    run = create_run(tmp_path, "mine", "x")

    def fail() -> None:
        with run.locked():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not run.is_busy()


def test_status(tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "mine")
    assert run.status == "empty"
    begun(tmp_path, "mine")
    assert run.status == "stopped"
    mark_trained(run, {"epochs": 3})
    assert run.status == "trained"
    run.path("report.json").write_text("{}")
    assert run.status == "evaluated"


def test_find_by_name_by_folder_and_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = begun(tmp_path, "first", 1), begun(tmp_path, "second", 2)
    assert find_run(tmp_path, "first") == first
    assert find_run(tmp_path / "elsewhere", str(second.folder)) == second
    monkeypatch.chdir(tmp_path / "runs")
    assert find_run(tmp_path / "elsewhere", "second") == second
    point_latest(tmp_path, first)
    point_latest(tmp_path, second)
    assert find_run(tmp_path) == second
    assert os.readlink(tmp_path / "latest") == "runs/second"
    assert [run.name for run in list_runs(tmp_path)] == ["first", "second"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["latest", "runs"]


def test_artifacts_may_be_moved(tmp_path: Path) -> None:
    run = begun(tmp_path / "here", "mine")
    point_latest(tmp_path / "here", run)
    (tmp_path / "here").rename(tmp_path / "there")
    assert find_run(tmp_path / "there").folder == (tmp_path / "there" / "runs" / "mine").resolve()


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run in .* yet"):
        find_run(tmp_path)
    with pytest.raises(RunError, match="there is no run 'x'") as caught:
        find_run(tmp_path, "x")
    assert caught.value.hint == "no run was trained yet"
    begun(tmp_path, "demo-emotion-001", 1)
    run = begun(tmp_path, "ravdess-emotion-001", 2)
    with pytest.raises(RunError, match="there is no run 'ravdess-emotion-01'") as caught:
        find_run(tmp_path, "ravdess-emotion-01")
    assert caught.value.hint == "did you mean 'ravdess-emotion-001'? runs: demo-emotion-001, ravdess-emotion-001"
    point_latest(tmp_path, run)
    shutil.rmtree(run.folder)
    assert find_run(tmp_path).name == "demo-emotion-001"
    (tmp_path / "latest").unlink()
    assert find_run(tmp_path).name == "demo-emotion-001"
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(RunError, match=r"there is no run in .* yet"):
        find_run(tmp_path)


def test_a_disk_without_symbolic_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = begun(tmp_path, "first", 1)
    point_latest(tmp_path, first)

    def refused(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "symlink", refused)
    point_latest(tmp_path, begun(tmp_path, "second", 2))
    assert find_run(tmp_path).name == "second"
    # A drive that turned the link into a folder holds a copy that nothing updates.
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "config.json").write_text('{"modality": "tiny"}')
    point_latest(tmp_path, begun(tmp_path, "third", 3))
    assert find_run(tmp_path).name == "third"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["latest", "runs"]


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refused)
    run = begun(tmp_path, "mine")
    with run.locked():
        assert run.path(".lock").read_text() == str(os.getpid())
    assert run.status == "stopped"


def test_two_trainings_never_get_one_name(tmp_path: Path) -> None:
    one = create_run(tmp_path, "", "demo", hold=True)
    two = create_run(tmp_path, "", "demo", hold=True)
    assert [one.name, two.name] == ["demo-001", "demo-002"]
    with pytest.raises(RunError, match="run 'demo-001' is being written by process"):
        create_run(tmp_path, "demo-001", "x", hold=True)
    with one.locked():
        assert create_run(tmp_path, "", "demo").name == "demo-003"
    assert not one.is_busy()
    # Refused before it began, it leaves its name to the next.
    two.forget()
    assert not two.folder.exists()
    assert create_run(tmp_path, "", "demo", hold=True).name == "demo-001"


def with_model(artifacts: Path, name: str, text: str) -> Run:
    run = begun(artifacts, name, 1)
    run.model_file.write_text(text)
    return run


def test_what_overwrite_replaces_is_kept_until_there_is_a_model(tmp_path: Path) -> None:
    old = with_model(tmp_path, "mine", "old")
    run = create_run(tmp_path, "mine", "x", overwrite=True, hold=True)
    with run.locked():
        run.path("config.json").write_text('{"modality": "tiny"}')
    assert [run.name for run in list_runs(tmp_path)] == ["mine"]
    with pytest.raises(ModelFileError) as caught:
        find_model(tmp_path, "mine")
    assert caught.value.hint.endswith(f"the run it was to replace is in {tmp_path / 'runs' / '.mine.replaced'}")
    # Killed there and begun again: what has no model makes room, and what has one stays.
    run = create_run(tmp_path, "mine", "x", overwrite=True, hold=True)
    assert run.settle()
    assert old.model_file.read_text() == "old"
    assert old.settings == {"modality": "tiny", "lr": 0.1}
    run = create_run(tmp_path, "mine", "x", overwrite=True)
    run.path("config.json").write_text('{"modality": "tiny"}')
    run.model_file.write_text("new")
    assert not run.settle()
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["mine"]
    assert old.model_file.read_text() == "new"


def test_openings_counted_at_once_are_all_counted(tmp_path: Path) -> None:
    run = begun(tmp_path, "mine")
    run.path("report.json").write_text("{}")  # evaluated before openings were counted
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(run.open_test, ["evaluate"] * 40))
    assert sorted(counts) == list(range(2, 42))
    assert run.test_openings == 41


def test_what_overwrite_replaces_survives_a_kill_and_a_deletion(tmp_path: Path) -> None:
    old = with_model(tmp_path, "mine", "old")
    # Killed before the first epoch, and the half run is deleted.
    create_run(tmp_path, "mine", "x", overwrite=True).path("config.json").write_text('{"modality": "tiny"}')
    assert delete_run(old)
    assert old.model_file.read_text() == "old"
    # Killed before there was a run at all.
    create_run(tmp_path, "mine", "x", overwrite=True)
    with pytest.raises(RunError, match="a run named 'mine' exists"):
        create_run(tmp_path, "mine", "x")
    assert old.model_file.read_text() == "old"
    # An ensemble has its model before it is a run.
    run = create_run(tmp_path, "mine", "x", overwrite=True)
    run.model_file.write_text("half")
    run = create_run(tmp_path, "mine", "x", overwrite=True)
    assert run.settle()
    assert old.model_file.read_text() == "old"
    # What was replaced goes with the run that replaced it.
    run = create_run(tmp_path, "mine", "x", overwrite=True)
    run.path("config.json").write_text('{"modality": "tiny"}')
    run.model_file.write_text("new")
    assert not delete_run(run)
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3"])
def test_a_damaged_config(tmp_path: Path, text: str) -> None:
    run = begun(tmp_path, "mine")
    assert run.settings == {"modality": "tiny", "lr": 0.1}
    run.path("config.json").write_text(text)
    with pytest.raises(RunError, match=r"mine is not a run: cannot read config\.json"):
        _ = Run(run.folder).settings


def test_history_is_written_whole(tmp_path: Path) -> None:
    run = begun(tmp_path, "mine")
    assert run.history == []
    assert run.environment == {}
    row = {"epoch": 1, "train_loss": 0.5, "val_loss": 0.5, "val_macro_f1": 0.5, "seconds": 1.5}
    write_history(run, [row, {**row, "epoch": 2}])
    write_history(run, [row])
    assert run.history == [row]


@pytest.mark.parametrize(("keep", "shown"), [("best", 0.7), ("last", 0.4), ("average", 0.4)])
def test_the_validation_score_shown_is_that_of_the_weights_that_ship(tmp_path: Path, keep: str, shown: float) -> None:
    run = begun(tmp_path, "mine")
    assert run.val_macro_f1 is None
    run.path("config.json").write_text(f'{{"modality": "tiny", "keep": "{keep}"}}')
    row = {"epoch": 1, "train_loss": 0.5, "val_loss": 0.5, "val_macro_f1": 0.7, "seconds": 1.5}
    write_history(run, [row, {**row, "epoch": 2, "val_macro_f1": 0.4}])
    assert Run(run.folder).val_macro_f1 == shown


def test_a_damaged_history_and_environment(tmp_path: Path) -> None:
    run = begun(tmp_path, "mine")
    for name, field in (("history.jsonl", "history"), ("environment.json", "environment")):
        run.path(name).write_text('{"epoch": 1}\n{"epo')
        with pytest.raises(RunError, match=f"cannot read .*{name}"):
            getattr(run, field)


def test_the_history_stands_in_a_table_too(tmp_path: Path) -> None:
    run = begun(tmp_path, "mine")
    first = {"epoch": 1, "train_loss": 0.5, "val_loss": 0.25, "val_macro_f1": 0.125, "lr": 0.1, "seconds": 2.0}
    write_history(run, [first, {**first, "epoch": 2, "note": "=1+1"}])
    assert run.path("results.csv").read_text().splitlines() == [
        "epoch,train_loss,val_loss,val_macro_f1,lr,seconds,note",
        "1,0.5,0.25,0.125,0.1,2.0,",
        "2,0.5,0.25,0.125,0.1,2.0,'=1+1",
    ]
    assert [row["epoch"] for row in run.history] == [1, 2]


def test_a_kill_after_the_picture_of_samples_leaves_the_name_free(tmp_path: Path) -> None:
    run = create_run(tmp_path, "mine", "x")
    run.folder.mkdir(parents=True)
    run.path("augmented.png").write_text("")
    assert create_run(tmp_path, "mine", "x") == run
