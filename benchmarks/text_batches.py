"""How much faster an encoder trains on length-sorted batches than padded to 128 tokens: interleaved steps, one process.

python benchmarks/text_batches.py --data-root GOEMOTIONS --encoder MINILM --rounds 6
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from samo.data.batch import Draws
from samo.data.sampling import batches_of, epoch_order, sorted_batches
from samo.training.losses import EmotionLoss
from samo.training.runtime import make_runtime
from samo_text.config import TextConfig
from samo_text.frontend import TextFrontend


def main() -> None:
    """Print texts per second of each kind of batch, and their ratio by round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--encoder", default="")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--batches", type=int, default=8, help="of each kind in a round")
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    runtime = make_runtime("cpu")
    print(f"{runtime.describe()}; batches of {args.batch_size}")
    settings = {"data_root": args.data_root, "encoder": args.encoder, "batch_size": args.batch_size}
    settings = {name: value for name, value in settings.items() if value}
    padded = TextFrontend.open(TextConfig.build({**settings, "length_sorted": False}), print)
    frontends = {"padded": padded, "sorted": padded.with_config(TextConfig.build({**settings, "length_sorted": True}))}
    step = make_step(padded, runtime)
    rows = padded.manifest.rows(item.id for item in padded.manifest.items if item.split == "train")
    order = epoch_order(rows, seed=0, epoch=0)
    lengths = frontends["sorted"].sizes(order)
    assert lengths is not None
    batches = {
        "padded": batches_of(order, args.batch_size),
        "sorted": sorted_batches(order, lengths, args.batch_size, seed=0, epoch=0),
    }
    rates: dict[str, list[float]] = {name: [] for name in frontends}
    for number in range(args.rounds + 1):  # the first round warms up
        for name, frontend in frontends.items():
            chosen = batches[name][number * args.batches : (number + 1) * args.batches]
            started = time.perf_counter()
            for batch in chosen:
                step(frontend.train_batch(batch, Draws(0, 0, batch)))
            rates[name].append(args.batches * args.batch_size / (time.perf_counter() - started))
    ratios = [a / b for a, b in zip(rates["sorted"][1:], rates["padded"][1:], strict=True)]
    for name, values in rates.items():
        print(f"{name:7} median {statistics.median(values[1:]):7.1f} texts a second")
    print(f"sorted / padded: median {statistics.median(ratios):.2f}, worst {min(ratios):.2f}, best {max(ratios):.2f}")


def make_step(frontend: TextFrontend, runtime):
    """A closure that does one training step on a batch."""
    model = runtime.place(frontend.new_model()).train()
    space, targets = frontend.manifest.label_space, frontend.manifest.targets
    criterion = EmotionLoss(space, frontend.config.loss, targets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step(batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            logits = model(batch.inputs, batch.lengths, batch.draws)
        (criterion(logits.float(), batch.targets) / len(batch)).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
