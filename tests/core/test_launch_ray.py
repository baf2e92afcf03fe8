"""A real Ray cluster of two nodes: every way to end, a node that dies, Ctrl-C, and what is refused."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch_work import RecordingWatcher, jobs
from ray_cluster import Nodes, needs_ray, nodes, wait_for

from samo.errors import EnvironmentProblem, Interrupted, RunError, SettingsError
from samo.launch import ray as launch_ray
from samo.launch.local import LocalLauncher, Outcome
from samo.launch.ray import Machine, ray_launcher, share_of_cluster, worker_environment


@pytest.fixture(scope="module")
def shared() -> Iterator[Nodes]:
    with nodes(cpus=2) as made:
        yield made


@pytest.fixture
def cluster(shared: Nodes) -> Nodes:
    shared.grow_to(2)
    return shared


def begun(folder: Path) -> list[list[str]]:
    """Name, process, threads and GPUs of every attempt."""
    path = folder / "sheet.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def ended(outcomes: list[Outcome]) -> dict[str, tuple[str, str]]:
    return {outcome.name: (outcome.status, outcome.message) for outcome in outcomes}


@needs_ray
def test_every_way_to_end_is_the_local_one(
    cluster: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    what = {"a": "work", "b": "refuse", "c": "stumble", "d": "die", "e": "leave", "f": "work"}
    local = LocalLauncher("launch_work:do_job").run(jobs(tmp_path / "local", **what), RecordingWatcher())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch_ray, "RETRIES", 1)
    capfd.readouterr()
    book = RecordingWatcher()
    before = signal.getsignal(signal.SIGTERM)
    with ray_launcher("launch_work:do_job", cluster.address, 6, threads=2) as launcher:
        assert (launcher.workers, launcher.threads, launcher.gpus) == (2, 2, 0)
        outcomes = launcher.run(jobs(Path("there"), **what), book)
    assert signal.getsignal(signal.SIGTERM) is before
    assert capfd.readouterr() == ("", "")
    lost = "its process was lost 2 times: killed, or out of memory"
    assert ended(outcomes) == {**ended(local), "d": ("failed", lost), "e": ("failed", lost)}
    assert ended(local)["a"] == ("done", "")
    assert sorted(book.started) == list("abcdef")
    assert book.ended == outcomes
    assert all(outcome.seconds > 0 for outcome in outcomes)
    tried = [row[0] for row in begun(tmp_path / "there")]
    # A job that fails by itself is not tried again.
    assert {name: tried.count(name) for name in "abcdef"} == {
        "a": 1, "b": 1, "c": 1, "d": 2, "e": 2, "f": 1,
    }  # fmt: skip
    for name, said in {"a": "printed by a\n", "b": "error: no clips", "c": "ZeroDivisionError: by zero"}.items():
        log = (tmp_path / "there" / "logs" / f"{name}.log").read_text()
        assert said in log
        assert [other for other in "abcdef" if f"printed by {other}\n" in log] == [name]


class _Lost:
    """As much of Ray as :class:`_Tasks` hears; a process of it is lost before its first word has arrived."""

    class exceptions:  # noqa: N801
        class RayError(Exception): ...

        class WorkerCrashedError(RayError): ...

        class NodeDiedError(RayError): ...

        class OutOfMemoryError(RayError): ...

        class TaskCancelledError(RayError): ...

    def __init__(self, error: str) -> None:
        self.error = error

    @staticmethod
    def wait(streams: list[Iterator[str]], timeout: float) -> tuple[list[Iterator[str]], list[Iterator[str]]]:
        return streams, []

    def get(self, _: str) -> tuple[str, str]:
        raise getattr(self.exceptions, self.error)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("WorkerCrashedError", "its process was lost 4 times: killed, or out of memory"),
        ("NodeDiedError", "its process was lost 4 times: its machine left the cluster"),
        ("RayError", "Ray: RayError"),
    ],
)
def test_a_job_that_never_said_it_began_is_started_before_it_ends(error: str, message: str, tmp_path: Path) -> None:
    book = RecordingWatcher()
    tasks = launch_ray._Tasks(_Lost(error), book)
    (job,) = jobs(tmp_path, e="leave")
    again = [launch_ray._Try(job)]
    while again:
        tasks.running[iter(["a first word that is lost"])] = again.pop()
        again = tasks.listen()
    assert book.started == ["e"]
    assert [(outcome.name, outcome.status, outcome.message) for outcome in book.ended] == [("e", "failed", message)]
    assert book.ended[0].seconds > 0


def test_a_job_stopped_before_it_began_was_never_started(tmp_path: Path) -> None:
    book = RecordingWatcher()
    tasks = launch_ray._Tasks(_Lost("TaskCancelledError"), book, stopping=True)
    tasks.running[iter(["a first word that is lost"])] = launch_ray._Try(jobs(tmp_path, a="wait")[0])
    assert tasks.listen() == []
    assert (book.started, book.ended, tasks.running) == ([], [], {})


@needs_ray
def test_a_node_dies_and_every_job_is_done_once(cluster: Nodes, tmp_path: Path) -> None:
    book = RecordingWatcher()
    threading.Thread(target=_kill_one_of_two, args=(cluster, tmp_path), daemon=True).start()
    with ray_launcher("launch_work:do_job", cluster.address, 5, threads=2) as launcher:
        outcomes = launcher.run(jobs(tmp_path, **dict.fromkeys("abcde", "linger")), book)
    assert ended(outcomes) == dict.fromkeys("abcde", ("done", ""))
    assert sorted((tmp_path / "sheet.finished").read_text().split()) == list("abcde")
    killed = (tmp_path / "killed").read_text()
    tried = [row[0] for row in begun(tmp_path)]
    assert {name: tried.count(name) for name in "abcde"} == {**dict.fromkeys("abcde", 1), killed: 2}
    assert sorted(book.started) == list("abcde")
    assert len(cluster.alive) == 1


def _kill_one_of_two(cluster: Nodes, folder: Path) -> None:
    wait_for(lambda: len(begun(folder)) == 2)
    name, process = begun(folder)[0][:2]
    (folder / "killed").write_text(name)
    cluster.kill_under(int(process))
    (folder / "sheet.go").touch()


@needs_ray
def test_threads_environment_and_limit(cluster: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "secret")
    with ray_launcher("launch_work:do_job", cluster.address, 4, workers=1) as launcher:
        assert (launcher.workers, launcher.threads) == (1, 2)
        assert worker_environment(2)["SAMO_CACHE"] == str(tmp_path)
        assert "HF_TOKEN" not in worker_environment(2)
        outcomes = launcher.run(jobs(tmp_path, **dict.fromkeys("abcd", "work")), RecordingWatcher())
    # One at a time, in order.
    assert [(outcome.name, outcome.status) for outcome in outcomes] == [(name, "done") for name in "abcd"]
    assert [row[2] for row in begun(tmp_path)] == ["2"] * 4


@needs_ray
def test_ctrl_c_stops_what_runs_and_starts_nothing_more(cluster: Nodes, tmp_path: Path) -> None:
    book = RecordingWatcher()

    def interrupt() -> None:
        wait_for((tmp_path / "sheet.waiting").exists)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with (
            ray_launcher("launch_work:do_job", cluster.address, 3, workers=1) as launcher,
            pytest.raises(Interrupted, match=r"stopped after 1 of 3 cells") as stop,
        ):
            launcher.run(jobs(tmp_path, a="work", b="wait", c="work"), book)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.value.exit_status == 130
    assert book.started == ["a", "b"]
    assert [(o.name, o.status) for o in book.ended] == [("a", "done"), ("b", "stopped")]
    assert (tmp_path / "sheet.kept").exists()
    assert [row[0] for row in begun(tmp_path)] == ["a", "b"]


@needs_ray
def test_workers_do_not_outlive_a_killed_grid(cluster: Nodes, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from test_launch_ray import *\n"
        "with ray_launcher('launch_work:do_job', sys.argv[2], 2, 1) as launcher:\n"
        "    launcher.run(jobs(Path(sys.argv[1]), a='linger', b='work'), RecordingWatcher())"
    )
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    grid = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), cluster.address], env=here)
    wait_for(lambda: len(begun(tmp_path)) == 1)
    grid.kill()
    grid.wait()
    worker = Path(f"/proc/{begun(tmp_path)[0][1]}")
    wait_for(lambda: not worker.exists())
    assert [row[0] for row in begun(tmp_path)] == ["a"]


@needs_ray
def test_a_folder_that_another_machine_does_not_see(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    said = list(launch_ray._do("launch_work:do_job", {}, str(log), str(tmp_path)))
    assert said[0] == ("started", "")
    assert said[1][0] == "failed"
    assert f"does not see {log.parent}: `ray` needs a folder" in said[1][1]
    assert not log.parent.exists()


def test_an_attempt_waits_for_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "a.log"
    other = log.open("a")
    fcntl.flock(other, fcntl.LOCK_EX)
    threading.Timer(0.3, other.close).start()
    began = time.monotonic()
    with launch_ray._alone(log):
        assert 0.3 <= time.monotonic() - began < 5
        monkeypatch.setattr(launch_ray, "LEASE_S", 0.3)
        with pytest.raises(RunError, match="another attempt still works on it"), launch_ray._alone(log):
            pass


@needs_ray
def test_clusters_that_do_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(launch_ray, "ANSWER_S", 0.5)
        for address in (f"127.0.0.1:{port}", "127.0.0.1:1"):
            with pytest.raises(EnvironmentProblem, match="no Ray cluster answers") as none:
                launch_ray._connect(address)
            assert "ray start --head" in none.value.hint
    with pytest.raises(SettingsError, match="'nonsense': write auto or HOST:PORT"):
        launch_ray._connect("nonsense")
    with pytest.raises(SettingsError, match="no Ray Client addresses"):
        launch_ray._connect("ray://head:10001")
    assert time.monotonic() - began < 10


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentProblem, match="not installed") as missing:
        launch_ray._connect("auto")
    assert missing.value.hint == 'pip install "samo-emotion[cluster]"'


@pytest.mark.parametrize(
    ("machines", "asked", "share"),
    [
        ([(1, 0), (1, 0)], (6, 0, 0, "auto"), (2, 1, 0)),
        ([(8, 0), (8, 0)], (4, 0, 0, "auto"), (4, 4, 0)),
        ([(8, 0), (8, 0)], (3, 0, 0, "auto"), (3, 4, 0)),
        ([(8, 0), (4, 0)], (99, 2, 0, "auto"), (2, 4, 0)),
        ([(8, 0), (4, 0)], (99, 0, 3, "auto"), (3, 3, 0)),
        ([(16, 4), (64, 0)], (99, 0, 0, "auto"), (4, 4, 1)),
        ([(16, 4), (64, 0)], (99, 0, 8, "cuda"), (2, 8, 1)),
        ([(16, 4), (64, 0)], (80, 0, 0, "cpu"), (80, 1, 0)),
    ],
)
def test_share_of_cluster(
    machines: list[tuple[int, int]], asked: tuple[int, int, int, str], share: tuple[int, int, int]
) -> None:
    assert share_of_cluster([Machine(*machine) for machine in machines], *asked) == share


def test_cells_no_machine_can_take() -> None:
    machines = [Machine(0, 0), Machine(2, 0), Machine(4, 0)]
    with pytest.raises(SettingsError, match=r"`threads=8`: no machine .* they have 0 CPUs, 2 CPUs, 4 CPUs"):
        share_of_cluster(machines, 4, threads=8)
    with pytest.raises(SettingsError, match="`device=cuda`: the Ray cluster has no GPU"):
        share_of_cluster(machines, 4, device="cuda")
    with pytest.raises(SettingsError, match="no machine of the Ray cluster can take one cell"):
        share_of_cluster([Machine(4, 0), Machine(0, 2)], 4)


@needs_ray
def test_a_task_can_be_cancelled_where_sigint_was_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        list(launch_ray._do("launch_work:do_job", {}, str(tmp_path / "logs" / "a.log"), str(tmp_path)))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
