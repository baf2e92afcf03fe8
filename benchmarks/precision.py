"""Whether ``--precision auto`` is never slower than float32 in torch's own layout: interleaved training steps.

python benchmarks/precision.py --steps 12
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from samo.training.runtime import Runtime, make_runtime
from samo_audio.config import AudioConfig
from samo_audio.models import MODELS, build_network


def main() -> None:
    """Print, for each model, the median step of float32 NCHW and of auto, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--n-mels", type=int, default=128)
    parser.add_argument("--frames", type=int, default=130)
    args = parser.parse_args()
    auto = make_runtime("cpu")
    plain = Runtime(torch.device("cpu"), "float32", channels_last=False, threads=auto.threads)
    print(f"auto here: {auto.describe()}")
    inputs = torch.randn(args.batch_size, 1, args.n_mels, args.frames)
    targets = torch.randint(0, 8, (args.batch_size,))
    for model in (name for name in MODELS if MODELS[name].has_log_mel):
        steps = {
            name: make_step(model, runtime, inputs, targets) for name, runtime in (("float32", plain), ("auto", auto))
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(args.steps + 2):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - started)
        ratios = [a / b for a, b in zip(times["float32"][2:], times["auto"][2:], strict=True)]
        medians = {name: statistics.median(values[2:]) for name, values in times.items()}
        print(
            f"{model:10} float32 NCHW {medians['float32'] * 1e3:6.0f} ms   auto {medians['auto'] * 1e3:6.0f} ms   "
            f"float32 / auto: median {statistics.median(ratios):.2f}, worst {min(ratios):.2f}"
        )


def make_step(model: str, runtime: Runtime, inputs: torch.Tensor, targets: torch.Tensor):
    """A closure that does one training step."""
    network = runtime.place(build_network(AudioConfig.build({"model": model}).model, 8)).train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            logits = network(inputs)
        torch.nn.functional.cross_entropy(logits.float(), targets).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
