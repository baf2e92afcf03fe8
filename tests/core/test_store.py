"""A store behind a URL: files whole or not at all, one attempt at a time, a run that goes on elsewhere."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from samo_core.errors import EnvironmentProblem, RunError, SamoError, SettingsError
from samo_core.experiments import store as stores
from samo_core.experiments.cells import Cell
from samo_core.experiments.launch import Outcome
from samo_core.experiments.run import Run
from samo_core.experiments.store import Lease, RunCopy, Store, borrowed, bring_home
from samo_core.experiments.stored_grid import StoredGrid


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """One file system of folders, and one that like object stores has none."""
    return Store(f"{request.param}://{tmp_path}/store")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BEAT_S", 0.05), ("DEAD_S", 0.6), ("SETTLE_S", 0.05), ("PATIENCE_S", 1.5)):
        monkeypatch.setattr(stores, name, seconds)


def written(run: Run, name: str, content: str, when: int) -> None:
    path = run.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, ns=(when, when))


def test_files(store: Store, tmp_path: Path) -> None:
    assert store.names() == []
    assert store.read("a") is None
    store.write("a", b"1")
    store.write("deep/er/b", b"22")
    store.write("a", b"333")
    assert store.names() == ["a", "deep/er/b"]
    assert store.below("deep").names() == ["er/b"]
    assert store.read("a") == b"333"
    store.fetch("deep/er/b", tmp_path / "here" / "b")
    assert (tmp_path / "here" / "b").read_bytes() == b"22"
    store.remove("a")
    store.remove("a")
    assert store.names() == ["deep/er/b"]


def test_a_file_half_sent_is_not_seen(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("a", b"before")

    def no_renaming(*_: Any, **__: Any) -> None:
        raise OSError("the line is dead")

    monkeypatch.setattr(type(store._files), "mv", no_renaming)
    with pytest.raises(EnvironmentProblem, match="does not answer, or refuses: OSError: the line is dead"):
        store.write("a", b"after")
    assert store.names() == ["a"]
    assert store.read("a") == b"before"


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("somewhere", SettingsError, "is no URL"),
        ("s33://bucket", SettingsError, "unknown protocol 's33' .*did you mean 's3"),
        ("dropbox://place", EnvironmentProblem, "dropboxdrivefs"),
    ],
)
def test_places_that_are_none(url: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(SamoError) as caught:
        Store(url)
    assert type(caught.value) is kind
    assert re.search(said, f"{caught.value.message} {caught.value.hint}")


def test_a_copy_is_sent_in_the_order_it_was_written(store: Store, tmp_path: Path, monkeypatch: Any) -> None:
    run = Run(tmp_path / "run")
    for when, name in enumerate(("z-first", "figures/second", "a-third"), start=1):
        written(run, name, name, when)
    written(run, ".lock", "1", 9)
    copy, sent = RunCopy(store, run), []
    real = Store.send
    monkeypatch.setattr(Store, "send", lambda self, local, name: (sent.append(name), real(self, local, name)))
    copy.send()
    assert sent == ["z-first", "figures/second", "a-third"]
    written(run, "figures/second", "longer", 20)
    written(run, "z-first", "again", 30)
    run.path("a-third").unlink()
    copy.send()
    copy.send()
    assert sent[3:] == ["figures/second", "z-first"]
    assert store.names() == ["figures/second", "z-first"]
    elsewhere = Run(tmp_path / "elsewhere")
    other = RunCopy(store, elsewhere)
    other.bring()
    assert elsewhere.path("figures/second").read_text() == "longer"
    assert elsewhere.path("z-first").read_text() == "again"
    other.send()
    assert len(sent) == 5, "what was just brought is not sent back"


@pytest.mark.usefixtures("quick")
def test_a_lease_is_one_attempts_until_it_lets_go(store: Store) -> None:
    order: list[str] = []
    with Lease(store) as first:
        second = threading.Thread(target=lambda: _hold(store, order))
        second.start()
        time.sleep(0.4)
        first.check()
        order.append("first ends")
    second.join()
    assert order == ["first ends", "second holds"]
    assert store.names() == []


def _hold(store: Store, order: list[str]) -> None:
    with Lease(store):
        order.append("second holds")


@pytest.mark.usefixtures("quick")
def test_the_living_are_waited_for_only_so_long(store: Store) -> None:
    with Lease(store), pytest.raises(RunError, match="another attempt still works on"), Lease(store):
        pass


@pytest.mark.usefixtures("quick")
def test_the_silent_lose_their_lease_and_send_nothing_more(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="silent for too long"), borrowed(store, "cell") as (run, send):  # noqa: PT012
        written(run, "config.json", "mine", 1)
        send()
        # What a machine that was cut off finds when it is back.
        store.write(".lease", b"someone else 7")
        written(run, "config.json", "too late", 2)
        send()
    assert store.read("config.json") == b"mine"
    assert store.read(".lease") == b"someone else 7"
    # Nobody beats for that one any more: the next attempt waits for the silence, then goes on.
    began = time.monotonic()
    with borrowed(store, "cell") as (run, _):
        assert time.monotonic() - began > stores.DEAD_S
        assert run.path("config.json").read_text() == "mine"


@pytest.mark.usefixtures("quick")
def test_a_store_that_fails_in_between_costs_one_copy_only(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, broken = type(store._files).put_file, [False]

    def put(self: Any, *args: Any, **how: Any) -> None:
        if broken[0]:
            raise OSError("the line is dead")
        real(self, *args, **how)

    monkeypatch.setattr(type(store._files), "put_file", put)
    with borrowed(store, "cell") as (run, send):
        written(run, "last.ckpt", "epoch 1", 1)
        send()
        broken[0] = True
        written(run, "last.ckpt", "epoch 2", 2)
        send()
        assert store.read("last.ckpt") == b"epoch 1"
        broken[0] = False
        written(run, "last.ckpt", "epoch 3", 3)
        place = run.folder
    assert store.read("last.ckpt") == b"epoch 3"
    assert "warning: not copied" in capsys.readouterr().out
    assert not place.exists()


@pytest.mark.usefixtures("quick")
def test_what_a_failed_attempt_did_is_sent_too(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), borrowed(store, "cell") as (run, _):  # noqa: PT012
        written(run, "history.jsonl", "{}", 1)
        raise ZeroDivisionError
    assert store.read("history.jsonl") == b"{}"


def test_home_in_one_step(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("config.json", b"{}")
    store.write("figures/a.png", b"picture")
    home = Run(tmp_path / "runs" / "cell")
    written(home, "old", "old", 1)
    real = Store.fetch

    def half(self: Store, name: str, local: Path) -> None:
        if name != "config.json":
            raise EnvironmentProblem("gone")
        real(self, name, local)

    monkeypatch.setattr(Store, "fetch", half)
    with pytest.raises(EnvironmentProblem):
        bring_home(store, home)
    assert [path.name for path in (tmp_path / "runs").rglob("*")] == ["cell", "old"]
    monkeypatch.setattr(Store, "fetch", real)
    bring_home(store, home)
    assert sorted(path.name for path in home.folder.iterdir()) == ["config.json", "figures"]


CELL = Cell("a.seed0", "a", 0, None, {"modality": "pretend", "lr": 1})


def at(store: Store, *names: str, lr: int = 1) -> None:
    for name in names:
        content = f'{{"modality": "pretend", "lr": {lr}}}' if name == "config.json" else "there"
        store.write(f"runs/{CELL.name}/{name}", content.encode())


def grid(store: Store, tmp_path: Path) -> StoredGrid:
    return StoredGrid(store.url, (CELL,), tmp_path / "grid")


def test_what_is_finished_there_is_brought_home(store: Store, tmp_path: Path) -> None:
    at(store, "config.json", "trained.json", "report.json")
    grid(store, tmp_path).prepare()
    assert CELL.run(tmp_path / "grid").path("report.json").read_text() == "there"


def test_what_is_unfinished_there_stays(store: Store, tmp_path: Path) -> None:
    at(store, "config.json", "last.ckpt")
    grid(store, tmp_path).prepare()
    assert not CELL.run(tmp_path / "grid").folder.exists()


def test_what_was_begun_here_goes_on_there(store: Store, tmp_path: Path) -> None:
    run = CELL.run(tmp_path / "grid")
    written(run, "config.json", '{"modality": "pretend"}', 1)
    written(run, "last.ckpt", "here", 2)
    grid(store, tmp_path).prepare()
    assert store.read(f"runs/{CELL.name}/last.ckpt") == b"here"
    assert run.path("last.ckpt").exists()


def test_begun_here_and_there_is_for_people_to_decide(store: Store, tmp_path: Path) -> None:
    written(CELL.run(tmp_path / "grid"), "config.json", '{"modality": "pretend"}', 1)
    at(store, "config.json", "last.ckpt")
    with pytest.raises(RunError, match=r"begun both in .*runs and at .*: a\.seed0"):
        grid(store, tmp_path).prepare()


def test_other_settings_there_are_refused(store: Store, tmp_path: Path) -> None:
    at(store, "config.json", lr=5)
    with pytest.raises(RunError, match=r"a\.seed0: lr was 5, is now 1"):
        grid(store, tmp_path).prepare()
    store.write(f"runs/{CELL.name}/config.json", b"{")
    with pytest.raises(RunError, match=r"cannot read config\.json of"):
        grid(store, tmp_path).prepare()


def test_a_cell_that_cannot_be_brought_home_is_named(store: Store, tmp_path: Path) -> None:
    at(store, "config.json", "trained.json", "report.json")
    seen: list[Outcome] = []

    class Watching:
        def on_start(self, name: str) -> None: ...

        def on_end(self, outcome: Outcome) -> None:
            seen.append(outcome)

    (tmp_path / "grid").write_text("a file where the folder should be")
    stored = grid(store, tmp_path)
    stored.watcher = Watching()
    stored.on_end(Outcome(CELL.name, "done"))
    assert seen[0].status == "failed"
    assert "done, but not brought home" in seen[0].message
    assert list(stored.lost) == [CELL.name]
    (tmp_path / "grid").unlink()
    stored.on_end(Outcome(CELL.name, "done"))
    assert seen[1].status == "done"


def test_file_systems_of_fsspec_are_found_by_their_names() -> None:
    assert {"s3", "gs", "abfs", "sftp", "hdfs", "file"} <= set(fsspec.available_protocols())
