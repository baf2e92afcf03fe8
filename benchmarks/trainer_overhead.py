"""What the trainer costs over a bare PyTorch loop: same model, batches and precision, steps interleaved in one process.

python benchmarks/trainer_overhead.py --model small-cnn --steps 30
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch

from samo.data.batch import Draws
from samo.data.splits import make_split
from samo.runs.train import make_plan
from samo.training.losses import EmotionLoss
from samo.training.runtime import make_runtime
from samo.training.setup import Setup
from samo.training.trainer import new_state, train_step
from samo_audio.config import AudioConfig
from samo_audio.frontend import AudioFrontend


def main() -> None:
    """Print the median time of both loops and of the ratio step by step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="small-cnn")
    parser.add_argument("--data-root", default="", help="RAVDESS; empty = the demo corpus")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    place = {"data_root": args.data_root} if args.data_root else {"dataset": "demo"}
    frontend = AudioFrontend.open(AudioConfig.build({"model": args.model, **place}), print)
    runtime = make_runtime("cpu", args.precision)
    plan = make_plan(frontend, make_split(frontend.manifest, frontend.split_request()))
    criterion = EmotionLoss(frontend.manifest.label_space, plan.loss, frontend.manifest.targets[plan.train_rows])
    state = new_state(frontend.new_model(), plan, runtime)
    state.model.train()
    bare = copy.deepcopy(state.model)
    optimizer = torch.optim.AdamW(bare.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    batches = []
    for k in range(args.steps):
        rows = plan.train_rows.repeat(2)[(k * 32) % len(plan.train_rows) :][:32]
        draws = Draws(0, k, rows)
        batches.append((draws, frontend.train_batch(rows, draws)))

    def bare_step(k: int) -> None:
        _, batch = batches[k]
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            logits = bare(batch.inputs, batch.lengths)
        loss = torch.nn.functional.cross_entropy(logits.float(), batch.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), 5.0)
        optimizer.step()

    def samo_step(k: int) -> None:
        train_step(state, Setup(frontend, runtime), plan, criterion, [batches[k][0]], 1e-3)

    times: dict[str, list[float]] = {"bare": [], "samo": []}
    for k in range(args.steps):
        # Alternate who goes first, so that neither always meets the warmer cache.
        for name, step in sorted({"bare": bare_step, "samo": samo_step}.items(), reverse=bool(k % 2)):
            started = time.perf_counter()
            step(k)
            times[name].append(time.perf_counter() - started)
    ratios = [s / b for s, b in zip(times["samo"][3:], times["bare"][3:], strict=True)]
    print(f"{args.model}, {runtime.describe()}, {len(ratios)} pairs of steps")
    for name, values in times.items():
        print(f"{name:5} median {statistics.median(values[3:]) * 1e3:7.1f} ms")
    quartiles = statistics.quantiles(ratios, n=4)
    print(f"ratio samo / bare: median {quartiles[1]:.3f} (quartiles {quartiles[0]:.3f} to {quartiles[2]:.3f})")


if __name__ == "__main__":
    main()
