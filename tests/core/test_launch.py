"""Local workers: every job once, a crash is one job's, stopping keeps what there is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from launch_work import RecordingWatcher, jobs

from samo.errors import Interrupted
from samo.launch.local import LocalLauncher, Outcome, share_of_cores


def sheet(folder: Path) -> dict[str, list[str]]:
    rows = [line.split() for line in (folder / "sheet.txt").read_text().splitlines()]
    assert len({row[0] for row in rows}) == len(rows), "a job ran twice"
    return {row[0]: row[1:] for row in rows}


def test_every_way_to_end(tmp_path: Path) -> None:
    book = RecordingWatcher()
    requested = jobs(tmp_path, a="work", b="refuse", c="stumble", d="die", e="leave", f="work")
    outcomes = LocalLauncher("launch_work:do_job", workers=1, threads=3).run(requested, book)
    assert [(o.name, o.status, o.message) for o in outcomes] == [
        ("a", "done", ""),
        ("b", "failed", "no clips (hint: record some)"),
        ("c", "failed", "unexpected ZeroDivisionError: by zero"),
        ("d", "failed", "its process was killed by SIGKILL"),
        ("e", "failed", "its process left with status 3"),
        ("f", "done", ""),
    ]
    assert book.started == list("abcdef")
    assert book.ended == outcomes
    assert all(outcome.seconds > 0 for outcome in outcomes)
    rows = sheet(tmp_path)
    assert {row[1] for row in rows.values()} == {"3"}
    # One process until it dies, another after that.
    assert rows["a"][0] == rows["b"][0] == rows["c"][0] == rows["d"][0] != rows["e"][0] != rows["f"][0]
    assert "printed by a\n" in (tmp_path / "logs" / "a.log").read_text()
    assert "error: no clips" in (tmp_path / "logs" / "b.log").read_text()
    assert "ZeroDivisionError: by zero" in (tmp_path / "logs" / "c.log").read_text()
    assert "printed by a" not in (tmp_path / "logs" / "f.log").read_text()


def test_what_the_watcher_meets_is_not_swallowed(tmp_path: Path) -> None:
    class Torn(RecordingWatcher):
        def on_end(self, outcome: Outcome) -> None:
            raise OSError("the notebook is torn")

    with pytest.raises(OSError, match="torn"):
        LocalLauncher("launch_work:do_job").run(jobs(tmp_path, a="work", b="work"), Torn())


def test_two_workers_share_the_jobs_and_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    outcomes = LocalLauncher("launch_work:do_job", workers=2, gpus=2).run(
        jobs(tmp_path, **dict.fromkeys("abcdefgh", "work")), RecordingWatcher()
    )
    assert sorted(o.name for o in outcomes) == list("abcdefgh")
    rows = sheet(tmp_path)
    assert len({row[0] for row in rows.values()}) <= 2
    assert {row[2] for row in rows.values()} <= {"4", "7"}
    by_process = {row[0]: {other[2] for other in rows.values() if other[0] == row[0]} for row in rows.values()}
    assert all(len(gpus) == 1 for gpus in by_process.values())


def test_ctrl_c_stops_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    book = RecordingWatcher()

    def interrupt() -> None:
        until = time.monotonic() + 60
        while not (tmp_path / "sheet.waiting").exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(Interrupted, match=r"stopped after 1 of 3 cells") as stop:
            LocalLauncher("launch_work:do_job", workers=1).run(jobs(tmp_path, a="work", b="wait", c="work"), book)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "same command" in stop.value.hint
    assert stop.value.exit_status == 130
    assert book.started == ["a", "b"]
    assert [(o.name, o.status) for o in book.ended] == [("a", "done"), ("b", "stopped")]
    assert (tmp_path / "sheet.kept").exists()


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_grid(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from test_launch import *\n"
        "LocalLauncher('launch_work:do_job').run(jobs(Path(sys.argv[1]), a='wait', b='work'), RecordingWatcher())"
    )
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    grid = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=here)
    until = time.monotonic() + 60
    while not (tmp_path / "sheet.waiting").exists() and time.monotonic() < until:
        time.sleep(0.02)
    grid.kill()
    grid.wait()
    while not (tmp_path / "sheet.kept").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert (tmp_path / "sheet.kept").exists()
    worker = int(sheet(tmp_path)["a"][0])
    while Path(f"/proc/{worker}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path(f"/proc/{worker}").exists()
    assert list(sheet(tmp_path)) == ["a"]


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((10, 0, 0, 0), (4, 1)),
        ((2, 0, 0, 0), (2, 2)),
        ((10, 3, 0, 0), (3, 1)),
        ((10, 1, 0, 0), (1, 4)),
        ((10, 0, 2, 0), (4, 2)),
        ((10, 0, 0, 2), (2, 2)),
        ((0, 0, 0, 0), (1, 4)),
    ],
)
def test_share_of_cores(
    asked: tuple[int, int, int, int], given: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    assert share_of_cores(*asked) == given
