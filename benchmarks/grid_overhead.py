"""What a grid costs over its cells alone, and what a second worker gains.

    python benchmarks/grid_overhead.py --cells 4 --epochs 3

Three ways to train and judge the same cells of the demo corpus, one thread each, in turn within each round: one after
another in one warm process without a grid; `samo ablate --workers 1`; `samo ablate --workers 2`. The time a process
needs to import torch is measured in the same round and taken off both sides, as a grid pays it once more.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRID = """
seeds = [{seeds}]
[base]
dataset = "demo"
preset = "demo"
epochs = {epochs}
"""
ALONE = """
import sys, json
from pathlib import Path
from samo.experiments.train_cell import cell_spec, train_cell
from samo.settings import resolve
from samo.experiments.grid import cells_of, read_grid
folder = Path(sys.argv[2])
for cell in cells_of(read_grid(Path(sys.argv[1])), resolve, {}):
    train_cell(cell_spec(cell.run(folder).folder, cell.settings, "cpu", "auto", 1, ""))
"""


def main() -> None:
    """Print the ratios of each round and their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    overheads, gains = [], []
    with tempfile.TemporaryDirectory() as folder:
        grid = Path(folder) / "g.toml"
        grid.write_text(GRID.format(seeds=", ".join(map(str, range(args.cells))), epochs=args.epochs))
        timed([sys.executable, "-m", "samo_cli", "ablate", str(grid), "--dry-run"])
        for number in range(args.rounds):
            place = Path(folder) / str(number)
            start = timed([sys.executable, "-c", "import torch"])
            alone = timed([sys.executable, "-c", ALONE, str(grid), str(place / "alone")]) - start
            one, two = (
                timed([
                    *(sys.executable, "-m", "samo_cli", "ablate", str(grid), "--workers", str(n), "--threads", "1"),
                    *("--device", "cpu", "--artifacts", str(place / str(n))),
                ]) - 2 * start
                for n in (1, 2)
            )  # fmt: skip
            overheads.append(one / alone)
            gains.append(one / two)
            print(f"cells alone {alone:.1f} s; grid, 1 worker {one:.1f} s, 2 workers {two:.1f} s", flush=True)
    print(f"grid over cells alone: {statistics.median(overheads):.3f} ({span(overheads)})")
    print(f"two workers over one:  {statistics.median(gains):.2f} ({span(gains)})")


def timed(command: list[str]) -> float:
    """Seconds a command takes as a whole process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def span(values: list[float]) -> str:
    """Smallest and largest."""
    return f"{min(values):.3f} to {max(values):.3f}"


if __name__ == "__main__":
    main()
