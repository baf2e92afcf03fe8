"""Ctrl-C and SIGTERM in real processes: the best model is kept, and going on ends where an undisturbed run ends."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tone_corpora import TINY, done

EPOCHS = 40
LONG = [*TINY, "--epochs", str(EPOCHS), "--patience", "0"]


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "best_model.safetensors").read_bytes()).hexdigest()


def begin(clips: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "samo_cli", "train", "--data-root", str(clips), *LONG, "--name", name]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
        # A test run started in the background of a shell hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_epochs(process: subprocess.Popen[str], history: Path, epochs: int) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        if history.is_file() and len(history.read_text().splitlines()) >= epochs:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {epochs} epochs: {process.communicate(timeout=10)}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache: Path, clips: Path) -> str:
    root = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(cache))
        done("train", "--data-root", clips, *LONG, "--name", "whole", "--artifacts", root)
    return digest(root / "runs" / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_and_resumed(sent: signal.Signals, status: int, clips: Path, artifacts: Path, undisturbed: str) -> None:
    folder = artifacts / "runs" / "cut"
    process = begin(clips, "cut")
    wait_for_epochs(process, folder / "history.jsonl", 2)
    listed = done("runs", "--json").json["runs"]
    process.send_signal(sent)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    assert out == ""
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("stopped: after ")
    assert "error: " not in err
    assert line.endswith("is kept (hint: go on with: samo train --resume cut)")
    assert [(run["run"], run["status"]) for run in listed] == [("cut", "running")]

    finished = len((folder / "history.jsonl").read_text().splitlines())
    # The signal may fall between an epoch's end and its last file.
    assert any(f"after {count} of {EPOCHS} epochs" in line for count in (finished, finished + 1))
    assert done("predict", clips / "Actor_01", "--run", "cut", "--json").json["predictions"]
    assert not [path.name for path in folder.glob(".*") if path.name != ".lock"]

    resumed = done("train", "--resume", "cut", "--threads", "1", "--precision", "float32", "--json").json
    assert resumed["epochs"] == EPOCHS
    assert digest(folder) == undisturbed
