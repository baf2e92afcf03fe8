"""Whole commands as a user meets them: start-up, warm start, prediction speed, peak memory.

    python benchmarks/commands.py --data-root ../shared/data/ravdess

Times depend on the machine; each is printed beside a bare ``import torch`` measured in the same minute.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMO = [sys.executable, "-m", "samo_cli"]


def main() -> None:
    """Print one line a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", required=True, help="RAVDESS")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    root = str(Path(args.data_root).resolve())
    torch_s = median_of(args.repeat, [sys.executable, "-c", "import torch"])
    print(f"import torch              {torch_s:6.2f} s")
    print(f"samo --help               {median_of(args.repeat, [*SAMO, '--help']):6.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SAMO_ARTIFACTS"] = folder
        train = [*SAMO, "train", "--data-root", root, "--json"]
        cold = timed([*train, "--name", "cold", "--epochs", "1"])
        warm = first_step([*train, "--name", "warm", "--epochs", "1"])
        print(f"train, 1 epoch            {cold:6.2f} s (decodes first if the cache is empty)")
        print(f"warm start to step 1      {warm:6.2f} s, {warm - torch_s:.2f} s beyond importing torch")
        peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(f"peak memory of training   {peak_gb:6.2f} GB")
        clip = str(next(path for path in sorted(Path(root).rglob("*")) if path.suffix in (".wav", ".flac")))
        print(f"predict one clip          {median_of(args.repeat, [*SAMO, 'predict', clip, '--json']):6.2f} s")
        started = time.perf_counter()
        said = subprocess.run([*SAMO, "predict", root, "--json"], check=True, capture_output=True, text=True).stdout
        took = time.perf_counter() - started
        n = len(json.loads(said)["predictions"])
        seconds = audio_seconds(root)
        speed = f"{seconds / 60:.1f} minutes of sound: {seconds / took:.0f} x real time"
        print(f"predict {n} clips        {took:6.2f} s for {speed}")


def timed(command: list[str]) -> float:
    """Seconds a command takes as a whole process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def median_of(repeat: int, command: list[str]) -> float:
    """Median over several runs, one warm-up not counted."""
    return statistics.median([timed(command) for _ in range(repeat + 1)][1:])


def first_step(command: list[str]) -> float:
    """Seconds from the start of the process to the begin of step 1, told by the process itself."""
    probe = (
        "import sys, time, samo.training.trainer as t\n"
        "real = t.train_step\n"
        "def told(*a, **k):\n"
        "    print(time.time(), file=sys.stderr); t.train_step = real; return real(*a, **k)\n"
        "t.train_step = told\n"
        "from samo_cli.main import main\n"
        f"main({command[3:]!r})\n"
    )
    started = time.time()
    result = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    stamp = next(line for line in result.stderr.splitlines() if line.replace(".", "").isdigit())
    return float(stamp) - started


def audio_seconds(root: str) -> float:
    """Length of all clips below a folder."""
    from samo_audio.audio_io import info, is_audio

    return sum(info(path).duration_s for path in Path(root).rglob("*") if is_audio(path))


if __name__ == "__main__":
    main()
