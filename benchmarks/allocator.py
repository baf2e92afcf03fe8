"""What it gains that freed memory stays with the process: each command with and without, interleaved.

    python benchmarks/allocator.py --data-root ../shared/data/ravdess --encoder ../shared/models/whisper-base-encoder

"Without" sets one of glibc's own variables to its default, which SAMO takes as the user's choice and leaves alone.
The last rows are 60 training steps alone: SAMO's, and a bare PyTorch loop over the same batches, in a process each.
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
GLIBC_DEFAULT = {"MALLOC_TOP_PAD_": "131072"}
WAYS = ("with", "without")
LOOPS = ("samo", "bare")


def main() -> None:
    """Print CPU seconds (user and system), wall seconds and peak memory of each command, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", required=True, help="RAVDESS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="small-cnn")
    parser.add_argument("--encoder", help="folder of a speech encoder: the states of two actors are computed too")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--loop", choices=LOOPS, help="only run this loop and print what it cost: for the last rows")
    args = parser.parse_args()
    if args.loop:
        print(json.dumps(loop_cost(args.loop, args.data_root, args.model)))
        return
    root = str(Path(args.data_root).resolve())
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        few = str(Path(folder, "two-actors"))
        Path(few).mkdir()
        for actor in ("Actor_01", "Actor_02"):
            Path(few, actor).symlink_to(Path(root, actor))
        warm = [*SAMO, "train", "--data-root", root, "--model", args.model, "--epochs", "1"]
        measured([*warm, "--artifacts", folder, "--name", "warm"], {})
        for k in range(args.rounds):
            for way in WAYS[:: 1 if k % 2 else -1]:
                variables = GLIBC_DEFAULT if way == "without" else {}
                name = f"{way}-{k}"
                commands = {
                    "train, 1 epoch": [*warm, "--artifacts", folder, "--name", name],
                    "evaluate": [*SAMO, "evaluate", name, "--artifacts", folder],
                    "predict 1,440 clips": [*SAMO, "predict", root, "--run", name, "--artifacts", folder, "--json"],
                }
                for command, words in commands.items():
                    found.setdefault(command, {each: [] for each in WAYS})[way].append(measured(words, variables))
                if args.encoder:
                    words = [*SAMO, "train", "--data-root", few, "--model", "encoder", "--encoder", args.encoder]
                    words += ["--split", "random", "--epochs", "1", "--artifacts", folder]
                    fresh = {**variables, "SAMO_CACHE": str(Path(folder, f"cache-{name}"))}
                    cost = measured([*words, "--name", f"states-{name}"], fresh)
                    found.setdefault("encoder states, 120", {each: [] for each in WAYS})[way].append(cost)
                for loop in LOOPS[:: 1 if k % 2 else -1]:
                    words = [sys.executable, __file__, "--loop", loop, "--data-root", root, "--model", args.model]
                    cost = measured(words, variables, own=True)
                    found.setdefault(f"60 steps, {loop}", {each: [] for each in WAYS})[way].append(cost)
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


def measured(command: list[str], variables: dict[str, str], own: bool = False) -> dict[str, float]:
    """Run a command to its end: its CPU seconds, wall seconds and peak memory, or the figures that it prints itself."""
    started = time.perf_counter()
    where = subprocess.PIPE if own else subprocess.DEVNULL
    process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=where)
    printed = process.communicate()[0] if own else b""
    if own and not process.returncode:
        return json.loads(printed)
    _, status, used = os.wait4(process.pid, 0) if not own else (0, process.returncode, None)
    if status or used is None:
        raise SystemExit(f"{' '.join(command)} failed")
    return cost_of(used, time.perf_counter() - started)


def cost_of(used: resource.struct_rusage, wall_s: float) -> dict[str, float]:
    """Return the figures of one row."""
    return {
        "user_s": used.ru_utime,
        "system_s": used.ru_stime,
        "cpu_s": used.ru_utime + used.ru_stime,
        "wall_s": wall_s,
        "peak_gb": used.ru_maxrss / 2**20,
    }


def loop_cost(loop: str, data_root: str, model: str, steps: int = 60) -> dict[str, float]:
    """Return what `steps` training steps cost in this process, loading of batches included, start left out."""
    import torch

    from samo.data.batch import Draws
    from samo.data.splits import make_split
    from samo.runs.training_plan import make_plan
    from samo.training.losses import EmotionLoss
    from samo.training.runtime import make_runtime
    from samo.training.setup import Setup
    from samo.training.trainer import new_state, train_step
    from samo_audio.config import AudioConfig
    from samo_audio.frontend import AudioFrontend

    config = AudioConfig.build({"model": model, "data_root": data_root})
    frontend = AudioFrontend.open(config, lambda line: None)
    runtime = make_runtime("cpu", "auto")
    plan = make_plan(frontend, make_split(frontend.manifest, frontend.split_request()))
    criterion = EmotionLoss(frontend.manifest.label_space, plan.loss, frontend.manifest.targets[plan.train_rows])
    state = new_state(frontend.new_model(), plan, runtime)
    state.model.train()
    optimizer = torch.optim.AdamW(state.model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for k in range(steps):
        draws = Draws(0, k, plan.train_rows.repeat(2)[(k * 32) % len(plan.train_rows) :][:32])
        if loop == "samo":
            train_step(state, Setup(frontend, runtime), plan, criterion, [draws], 1e-3)
            continue
        batch = frontend.train_batch(draws.rows, draws)
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            logits = state.model(batch.inputs, batch.lengths)
        torch.nn.functional.cross_entropy(logits.float(), batch.targets).backward()
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), 5.0)
        optimizer.step()
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cost = cost_of(after, wall_s)
    for key, name in (("user_s", "ru_utime"), ("system_s", "ru_stime")):
        cost[key] -= getattr(before, name)
    return {**cost, "cpu_s": cost["user_s"] + cost["system_s"]}


if __name__ == "__main__":
    main()
