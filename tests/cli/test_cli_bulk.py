"""``samo predict --output``: each flag changes what it claims to change, and nothing is ignored in silence."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import Nodes, needs_ray, nodes, wait_for
from tone_corpora import done, refused, samo

from samo.errors import DiskFull

BEFORE = Path(__file__).resolve().parent.parent / "fixtures" / "trained_before"


@pytest.fixture
def command(artifacts: Path) -> list[object]:
    """``samo predict`` of 36 clips by a small run."""
    shutil.copytree(BEFORE / "runs", artifacts / "runs")
    return ["predict", BEFORE / "clips", "--run", "speech", "--threads", "1"]


def rows(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_rows_are_what_predict_says(command: list[object]) -> None:
    result = done(*command, "-o", "out")
    printed = done(*command, "--json").json["predictions"]
    assert [{"item": place, **row} for place, row in enumerate(printed)] == rows(Path("out"))
    assert result.err == (
        "· wrote 1 part (36 rows, 0 errors); out is complete: 36 rows, 0 errors; "
        "read them with cat out/part-*.jsonl > answers.jsonl\n"
    )
    assert result.out == ""
    again = done(*command, "-o", "out")
    assert again.err.startswith("· wrote 0 parts (0 rows, 0 errors), 1 were there before; out is complete")


def test_part_items_shard_and_format(command: list[object]) -> None:
    first = done(*command, "-o", "out", "--part-items", "10", "--shard", "1/2", "--json")
    assert {name: first.json[name] for name in ("shard", "parts", "written", "present", "rows", "complete")} == {
        "shard": "1/2", "parts": 4, "written": 2, "present": 2, "rows": 20, "complete": False,
    }  # fmt: skip
    assert [row["item"] for row in rows(Path("out"))] == [*range(10), *range(20, 30)]
    second = done(*command, "-o", "out", "--part-items", "10", "--shard", "2/2", "--json").json
    assert (second["written"], second["rows"], second["complete"], second["all_rows"]) == (2, 16, True, 36)
    pytest.importorskip("pyarrow")
    table = done(*command, "--output", "table", "--format", "parquet", "--json").json
    assert (table["format"], table["parts"], table["all_rows"]) == ("parquet", 1, 36)
    assert [path.suffix for path in Path("table").glob("part-*")] == [".parquet"]


def test_what_cannot_be_read_is_a_row(command: list[object]) -> None:
    Path("broken.wav").touch()
    result = done(*command, "broken.wav", "-o", "out")
    assert rows(Path("out"))[36] == {"item": 36, "path": "broken.wav", "message": "broken.wav: is empty (0 bytes)"}
    assert result.err.startswith("· wrote 1 part (37 rows, 1 error); ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--shard", "1/2"], "--shard acts only together with --output (hint: add --output FOLDER)"),
        (["--format", "jsonl"], "--format acts only together with --output"),
        (["--part-items", "5"], "--part-items acts only together with --output"),
        (["--ray", "auto"], "--ray acts only together with --output"),
        (["-o", "out", "--csv"], "--output excludes --csv, --windows and --resume"),
        (["-o", "out", "--windows"], "--output excludes --csv, --windows and --resume"),
        (["-o", "out", "--shard", "3/2"], "--shard 3/2: write I/N, I from 1 to N"),
        (["-o", "out", "--shard", "1/2", "--ray", "auto"], "--ray and --shard exclude each other"),
        (["-o", "out", "--format", "csv"], "unknown format 'csv' (hint: valid: jsonl, parquet)"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(command: list[object], words: list[str], line: str) -> None:
    assert line in refused(2, *command, *words)
    assert not Path("out").exists()


def test_on_a_full_disk_the_folder_of_answers_is_named(command: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("samo.deploy.part_files._JsonLines.write", full)
        line = refused(DiskFull.exit_status, *command, "-o", "out")
    assert "no space left while writing out/part-00000-" in line
    assert "(hint: free some space, the same command again goes on; or give an --output on another disk)" in line
    assert "artifacts" not in line
    with monkeypatch.context() as patch:
        patch.setattr("samo.files.os.fsync", full)
        assert "or give an --output on another disk" in refused(DiskFull.exit_status, *command, "-o", "new")
    assert "36 rows" in done(*command, "-o", "out").err


def test_another_run_is_refused(command: list[object], artifacts: Path) -> None:
    done(*command, "-o", "out", "--part-items", "20")
    other = artifacts / "runs" / "other"
    shutil.copytree(artifacts / "runs" / "speech", other)
    (other / "calibration.json").write_text((other / "calibration.json").read_text() + " ")
    line = refused(5, *command, "--run", "other", "-o", "out", "--part-items", "20")
    assert "out was begun with another model (model 'speech', 36 inputs, 20 a part, jsonl, on " in line


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes() as made:
        made.grow_to(2)
        yield made


@needs_ray
def test_a_cluster_writes_the_same_files_though_a_worker_is_killed(command: list[object], cluster: Nodes) -> None:
    pytest.importorskip("pyarrow")
    Path("broken.wav").touch()
    # A place relative to the working directory, which workers of a cluster do not start in.
    command = [*command, "broken.wav", "--part-items", "5"]
    done(*command, "-o", "alone")
    killer = threading.Thread(target=_kill_a_writer, args=(Path("shared"),), daemon=True)
    killer.start()
    result = samo(*command, "-o", "shared", "--ray", cluster.address)
    killer.join()
    assert result.status == 0, result.err
    assert result.out == ""
    assert result.err.startswith("· wrote 8 parts (37 rows, 1 error); shared is complete: 37 rows, 1 error; ")
    assert len(result.err.splitlines()) == 1
    written = {
        name: {path.name: path.read_bytes() for path in Path(name).glob("part-*")} for name in ("alone", "shared")
    }
    assert written["shared"] == written["alone"]
    assert len(written["alone"]) == 8
    assert done(*command, "-o", "shared", "--ray", cluster.address).err.startswith("· wrote 0 parts")


def _kill_a_writer(folder: Path) -> None:
    """Kill whatever process has a half of a part open."""
    found: list[int] = []

    def writing() -> bool:
        for left in folder.glob(".part-*"):
            for opened in Path("/proc").glob("[0-9]*/fd/*"):
                try:
                    if Path(os.readlink(opened)).name == left.name:
                        found.append(int(opened.parts[2]))
                        return True
                except OSError:
                    continue
        return False

    wait_for(writing)
    os.kill(found[0], signal.SIGKILL)
