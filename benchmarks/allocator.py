"""What it gains that freed memory stays with the process: each command with and without, interleaved.

    python benchmarks/allocator.py --data-root ../shared/data/ravdess --rounds 3

"Without" sets one of glibc's own variables to its default, which SAMO takes as the user's choice and leaves alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMO = [sys.executable, "-m", "samo_cli"]
GLIBC_DEFAULT = {"MALLOC_TOP_PAD_": "131072"}
WAYS = ("with", "without")


def main() -> None:
    """Print CPU seconds (user and system), wall seconds and peak memory of each command, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", required=True, help="RAVDESS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="small-cnn")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    root = str(Path(args.data_root).resolve())
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        warm = [*SAMO, "train", "--data-root", root, "--model", args.model, "--epochs", "1"]
        measured([*warm, "--artifacts", folder, "--name", "warm"], {})
        for k in range(args.rounds):
            for way in WAYS[:: 1 if k % 2 else -1]:
                variables = GLIBC_DEFAULT if way == "without" else {}
                name = f"{way}-{k}"
                commands = {
                    "train, 1 epoch": [*warm, "--artifacts", folder, "--name", name],
                    "evaluate": [*SAMO, "evaluate", name, "--artifacts", folder],
                    "predict 1,440 clips": [*SAMO, "predict", root, "--model", name, "--artifacts", folder, "--json"],
                }
                for command, words in commands.items():
                    found.setdefault(command, {each: [] for each in WAYS})[way].append(measured(words, variables))
    for command, ways in found.items():
        middle = {
            way: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for way, rows in ways.items()
        }
        for way in WAYS:
            print(f"{command:22} {way:8}" + "".join(f"  {key} {value:8.2f}" for key, value in middle[way].items()))
        both = {key: middle["with"][key] / middle["without"][key] for key in ("cpu_s", "wall_s", "peak_gb")}
        print(f"{command:22} ratio   " + "".join(f"  {key} {value:8.2f}" for key, value in both.items()))
    if args.json:
        args.json.write_text(json.dumps({"rounds": args.rounds, "model": args.model, "commands": found}, indent=1))


def measured(command: list[str], variables: dict[str, str]) -> dict[str, float]:
    """Run a command to its end: its CPU seconds, wall seconds and peak memory, children included."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return {
        "user_s": used.ru_utime,
        "system_s": used.ru_stime,
        "cpu_s": used.ru_utime + used.ru_stime,
        "wall_s": time.perf_counter() - started,
        "peak_gb": used.ru_maxrss / 2**20,
    }


if __name__ == "__main__":
    main()
