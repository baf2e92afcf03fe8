"""`torchrun -m samo_cli train`: one run from several processes, and a clear end when one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tone_corpora import FEATURES, SPLIT, done, read_json

pytestmark = pytest.mark.slow

TORCHRUN = Path(sys.executable).parent / "torchrun"
EPOCHS, LONG = 2, 40
# Everything whose result could depend on the number of processes, but dropout.
RICH = [*FEATURES, *SPLIT, "--width", "4", "--batch-size", "7", "--precision", "float32", "--dropout", "0"]
RICH += ["--mixup-alpha", "0.4", "--use-specaug", "--ema-decay", "0.9", "--grad-accum", "2", "--patience", "0"]


def begin(*argv: object) -> subprocess.Popen[str]:
    command = [TORCHRUN, "--standalone", "--nproc-per-node", 2, "-m", "samo_cli", *argv]
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def history(folder: Path) -> list[dict[str, Any]]:
    path = folder / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def wait_for_epochs(process: subprocess.Popen[str], folder: Path, epochs: int) -> None:
    until = time.monotonic() + 300
    while len(history(folder)) < epochs:
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def workers(torchrun: subprocess.Popen[str]) -> dict[int, int]:
    """Process ids by rank."""
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    ranks = {}
    for child in children:
        environ = Path(f"/proc/{child}/environ").read_bytes().decode(errors="replace").split("\0")
        given = dict(line.partition("=")[::2] for line in environ)
        if "RANK" in given:
            ranks[int(given["RANK"])] = int(child)
    return ranks


def test_two_processes_make_the_run_of_one(clips: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(artifacts.parent / "cache"))
    process = begin("train", "--data-root", clips, *RICH, "--epochs", EPOCHS, "--json")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    facts = json.loads(out)
    assert err.count(": 48 clips of ravdess; cpu, float32") == 1
    assert err.count("2 processes (gloo)") == 1
    assert err.count("val macro-F1") == EPOCHS
    runs = list((artifacts / "runs").iterdir())
    assert [run.name for run in runs] == [facts["run"]]
    assert len(list((artifacts.parent / "cache" / "waveforms").iterdir())) == 1
    seen = read_json(runs[0] / "environment.json")["runtime"]
    assert (seen["processes"], seen["backend"]) == (2, "gloo")

    one = done("train", "--data-root", clips, *RICH, "--epochs", EPOCHS, "--threads", 1, "--name", "one", "--json").json
    rows, expected = history(runs[0]), history(artifacts / "runs" / "one")
    for row, other in zip(rows, expected, strict=True):
        assert row["val_macro_f1"] == other["val_macro_f1"]
        for name in ("train_loss", "val_loss", "lr"):
            assert row[name] == pytest.approx(other[name], abs=1e-5)
    assert (one["best_epoch"], one["val_macro_f1"]) == (facts["best_epoch"], facts["val_macro_f1"])
    names = {path.name for path in runs[0].iterdir()}
    assert names == {path.name for path in (artifacts / "runs" / "one").iterdir()}
    done("evaluate", facts["run"], "--threads", 1)


def test_a_killed_rank_ends_the_others_and_one_process_goes_on(clips: Path, artifacts: Path) -> None:
    folder = artifacts / "runs" / "cut"
    process = begin("train", "--data-root", clips, *RICH, "--epochs", LONG, "--threads", 1, "--name", "cut")
    wait_for_epochs(process, folder, 2)
    killed = time.monotonic()
    os.kill(workers(process)[1], signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert process.returncode != 0
    assert out == ""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, err
    assert errors[0].startswith("error: rank 1 of the 2 processes of this training ended without a word")
    assert not (folder / "trained.json").exists()

    # Stopped by a signal, all leave together; what they kept is a run like any other.
    before = len(history(folder))
    process = begin("train", "--resume", "cut", "--threads", 1, "--precision", "float32")
    wait_for_epochs(process, folder, before + 1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    last_lines = [line for line in err.splitlines() if line.startswith(("error: ", "stopped: "))]
    assert len(last_lines) == 1, err
    assert last_lines[0].startswith("stopped: after ")
    assert last_lines[0].endswith("(hint: go on with: samo train --resume cut)")
    assert [row["epoch"] for row in history(folder)] == list(range(1, len(history(folder)) + 1))
    assert done("predict", clips / "Actor_01", "--run", "cut", "--json").json["predictions"]
    finished = done("train", "--resume", "cut", "--threads", 1, "--precision", "float32", "--json").json
    assert finished["epochs"] == LONG == len(history(folder))
