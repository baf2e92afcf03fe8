"""Clips per second and memory of `samo predict --output`, over growing numbers of links to a few clips.

    python benchmarks/bulk.py --model FILE.onnx --clips FOLDER --counts 10000 100000

Each count runs in a process of its own, as the command does; the memory is the largest that the process ever had
(`ru_maxrss`). A kill in the middle and the same command again must leave every row exactly once.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path


def main() -> None:
    """Print a line a count, then what was left after a kill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="an exported file, or a run's name or folder")
    parser.add_argument("--clips", required=True, help="a folder of clips, to which links are made")
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--format", default="jsonl")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="samo-bulk-") as place:
        root = Path(place)
        peaks = []
        for count in args.counts:
            links(root / "clips", Path(args.clips), count)
            peaks.append(measured(args, root, count))
        growth = f"{peaks[-1] - peaks[0]:+.0f} MB, {100 * (peaks[-1] / peaks[0] - 1):+.1f} %"
        print(f"memory at {args.counts[-1]:,} clips against {args.counts[0]:,}: {growth}")
        after_a_kill(args, root, args.counts[0])


def links(folder: Path, source: Path, count: int) -> None:
    """A folder of ``count`` links, a thousand in each folder below."""
    shutil.rmtree(folder, ignore_errors=True)
    found = sorted(path.absolute() for path in source.rglob("*") if path.suffix in (".wav", ".flac"))
    for number, clip in enumerate(islice(cycle(found), count)):
        below = folder / f"{number // 1000:05d}"
        if not number % 1000:
            below.mkdir(parents=True)
        (below / f"{number:07d}{clip.suffix}").symlink_to(clip)


def command(args: argparse.Namespace, root: Path) -> list[str]:
    """What a person would type."""
    flag = "--model" if args.model.endswith(".onnx") else "--run"
    return [
        sys.executable, "-m", "samo_cli", "predict", str(root / "clips"), flag, args.model, "-o", str(root / "out"),
        "--format", args.format, "--threads", str(args.threads), "--json",
    ]  # fmt: skip


def measured(args: argparse.Namespace, root: Path, count: int) -> float:
    """Run the command once; returns its peak in MB."""
    shutil.rmtree(root / "out", ignore_errors=True)
    began = time.perf_counter()
    with subprocess.Popen(command(args, root), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        summary = json.loads(process.stdout.read())
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    assert process.returncode == 0
    assert summary["all_rows"] == count
    peak = used.ru_maxrss / 1024
    spent = used.ru_utime + used.ru_stime
    size = sum(path.stat().st_size for path in (root / "out").glob("part-*")) / 1e6
    print(
        f"{count:,} clips: {count / seconds:.0f} a second ({seconds:.0f} s, {spent:.0f} CPU s), peak {peak:.0f} MB, "
        f"{summary['parts']} parts, {size:.0f} MB, {summary['all_errors']} errors",
        flush=True,
    )
    return peak


def after_a_kill(args: argparse.Namespace, root: Path, count: int) -> None:
    """Kill the command where a third of the parts is there, and give it again."""
    shutil.rmtree(root / "out", ignore_errors=True)
    links(root / "clips", Path(args.clips), count)
    with subprocess.Popen(command(args, root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(list((root / "out").glob("part-*"))) < count // 3000:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    left = len(list((root / "out").glob("part-*")))
    ended = subprocess.run(command(args, root), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    summary = json.loads(ended.stdout)
    print(f"killed with {left} parts there; again: {summary['skipped']} skipped, {summary['written']} written", end="")
    if args.format == "jsonl":
        items = [json.loads(line)["item"] for path in sorted((root / "out").glob("part-*")) for line in path.open("rb")]
        assert items == list(range(count))
        print(f"; rows {len(items):,}, each exactly once", end="")
    print()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
