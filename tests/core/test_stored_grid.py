"""A grid at a store: what comes home, what is sent, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_fixtures import FACTS, REPORT, copied, epochs, written

from samo.errors import RunError
from samo.experiments.cells import Cell, status_of
from samo.experiments.stored_grid import StoredGrid
from samo.launch.local import Outcome
from samo.launch.store import RunCopy, Store, snapshots
from samo.runs.run import Run

CELL = Cell("a.seed0", "a", 0, None, FACTS["settings"])  # type: ignore[arg-type]


def grid(store: Store, tmp_path: Path, data: str = "d") -> StoredGrid:
    return StoredGrid(store.url, (CELL,), tmp_path / "grid", lambda cell: data)


def there(store: Store) -> Store:
    return store.below("runs").below(CELL.name)


def test_what_is_finished_there_is_brought_home(store: Store, tmp_path: Path) -> None:
    copied(there(store), tmp_path / "x", config_json="{}", trained_json="{}", report_json="there")
    assert grid(store, tmp_path).status() == {CELL.name: "done"}
    assert not (tmp_path / "grid").exists(), "looking changes nothing"
    grid(store, tmp_path).prepare()
    assert CELL.run(tmp_path / "grid").path("report.json").read_text() == "there"
    assert status_of(CELL, tmp_path / "grid") == "done"


@pytest.mark.parametrize("files", [{"trained_json": "{}"}, {"report_json": "{}"}])
def test_what_is_unfinished_there_stays(files: dict[str, str], store: Store, tmp_path: Path) -> None:
    copied(there(store), tmp_path / "x", config_json="{}", history_jsonl=epochs(3), **files)
    assert grid(store, tmp_path).status() == {CELL.name: "stopped"}
    grid(store, tmp_path).prepare()
    assert not CELL.run(tmp_path / "grid").folder.exists()


def test_of_two_copies_the_further_is_gone_on_with(store: Store, tmp_path: Path) -> None:
    run = written(CELL.run(tmp_path / "grid"), config_json='{"modality": "pretend"}', history_jsonl=epochs(2))
    for _ in range(2):  # the second time both are as far
        grid(store, tmp_path).prepare()
        (only,) = snapshots(there(store))
        assert (only.progress, only.facts) == ((0, 0, 2), FACTS)
    copied(there(store), tmp_path / "x", config_json="{}", history_jsonl=epochs(5))
    grid(store, tmp_path).prepare()
    assert snapshots(there(store))[0].progress == (0, 0, 5)
    assert len(run.history) == 2
    written(run, history_jsonl=epochs(6))
    with run.locked(), pytest.raises(RunError, match="is being written"):
        grid(store, tmp_path).prepare()
    grid(store, tmp_path).prepare()
    assert snapshots(there(store))[0].progress == (0, 0, 6)


def test_what_is_done_here_is_left_alone(store: Store, tmp_path: Path) -> None:
    run = written(CELL.run(tmp_path / "grid"), config_json="{}", trained_json="{}", report_json="here")
    grid(store, tmp_path).prepare()
    assert snapshots(there(store)) == []
    copied(there(store), tmp_path / "x", config_json="{}", trained_json="{}", report_json="there", extra="")
    grid(store, tmp_path).prepare()
    assert run.path("report.json").read_text() == "here"


def test_other_settings_and_other_data_there_are_refused(store: Store, tmp_path: Path) -> None:
    facts = {**FACTS, "settings": {"modality": "pretend", "lr": 5}}
    RunCopy(there(store), written(Run(tmp_path / "x"), config_json="{}"), REPORT, facts).send()
    with pytest.raises(RunError, match=r"a\.seed0: lr was 5, is now 1"):
        grid(store, tmp_path).prepare()
    other = StoredGrid(f"{store.url}2", (CELL,), tmp_path / "grid", lambda cell: "other")
    copied(Store(other.run_url(CELL.name)), tmp_path / "y", config_json="{}")
    with pytest.raises(RunError, match=r"have other data: a\.seed0"):
        other.prepare()


def test_a_cell_that_cannot_be_brought_home_is_named(store: Store, tmp_path: Path) -> None:
    seen: list[Outcome] = []

    class Watching:
        def on_start(self, name: str) -> None: ...

        def on_end(self, outcome: Outcome) -> None:
            seen.append(outcome)

    stored = grid(store, tmp_path)
    stored.watcher = Watching()
    stored.on_end(Outcome(CELL.name, "done"))
    assert seen[0].status == "failed"
    assert "done, but not brought home" in seen[0].message
    assert "the same place on all machines?" in seen[0].message
    assert list(stored.lost) == [CELL.name]
    copied(there(store), tmp_path / "x", config_json="{}", trained_json="{}", report_json="{}")
    stored.on_end(Outcome(CELL.name, "done"))
    stored.on_end(Outcome(CELL.name, "failed", "why"))
    assert [(outcome.status, outcome.message) for outcome in seen[1:]] == [("done", ""), ("failed", "why")]
    assert status_of(CELL, tmp_path / "grid") == "done"
