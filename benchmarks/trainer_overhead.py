"""What the trainer costs over a bare PyTorch loop: same model, batches and precision, steps interleaved in one process.

    python benchmarks/trainer_overhead.py --model small-cnn --steps 30
    python benchmarks/trainer_overhead.py --model mn04 --weights FILE --steps 13
    python benchmarks/trainer_overhead.py --modality text --model encoder --encoder FOLDER --steps 13
    python benchmarks/trainer_overhead.py --model encoder --encoder FOLDER --steps 9

The bare loop gets batches that are made; the trainer makes its own. An encoder trains whole. CPU seconds count
on a machine that others use.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch

from samo.data.batch import Draws
from samo.data.splits import make_split
from samo.modalities import config_type, frontend_type
from samo.runs.training_plan import make_plan
from samo.training.losses import EmotionLoss
from samo.training.runtime import make_runtime
from samo.training.setup import Setup
from samo.training.trainer import new_state, train_step


def main() -> None:
    """Print the median time of both loops and of the ratio step by step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modality", default="audio", choices=("audio", "text"))
    parser.add_argument("--model", default="small-cnn")
    parser.add_argument("--encoder", default="", help="folder or name of a pretrained encoder")
    parser.add_argument("--weights", default="", help="file of start weights")
    parser.add_argument("--data-root", default="", help="RAVDESS or GoEmotions; empty = the demo corpus")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    wanted = {"model": args.model, "encoder": args.encoder, "weights": args.weights, "batch_size": args.batch_size}
    wanted |= {"data_root": args.data_root} if args.data_root else {"dataset": "demo"}
    wanted |= {"freeze_encoder": False} if args.model == "encoder" else {}
    config = config_type(args.modality).build(
        {name: value for name, value in wanted.items() if value not in ("", None)}
    )
    frontend = frontend_type(args.modality).open(config, print)
    runtime = make_runtime("cpu", args.precision)
    plan = make_plan(frontend, make_split(frontend.manifest, frontend.split_request()))
    criterion = EmotionLoss(frontend.manifest.label_space, plan.loss, frontend.manifest.targets[plan.train_rows])
    state = new_state(frontend.new_model(), plan, runtime)
    state.model.train()
    multi_label = frontend.manifest.label_space.primary.multi_label
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits if multi_label else torch.nn.functional.cross_entropy
    bare = copy.deepcopy(state.model)
    learned = [parameter for parameter in bare.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-3, weight_decay=0.01, fused=True)
    batches = []
    for k in range(args.steps):
        rows = plan.train_rows.repeat(2)[(k * args.batch_size) % len(plan.train_rows) :][: args.batch_size]
        draws = Draws(0, k, rows)
        batches.append((draws, frontend.train_batch(rows, draws)))

    def bare_step(k: int) -> None:
        _, batch = batches[k]
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            logits = bare(batch.inputs, batch.lengths)
        loss = loss_of(logits.float(), batch.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), 5.0)
        optimizer.step()

    def samo_step(k: int) -> None:
        train_step(state, Setup(frontend, runtime), plan, criterion, [batches[k][0]], 1e-3)

    clocks = {"CPU": time.process_time, "wall": time.perf_counter}
    times: dict[str, list[dict[str, float]]] = {"bare": [], "samo": []}
    for k in range(args.steps):
        # Alternate who goes first, so that neither always meets the warmer cache.
        for name, step in sorted({"bare": bare_step, "samo": samo_step}.items(), reverse=bool(k % 2)):
            started = {clock: now() for clock, now in clocks.items()}
            step(k)
            times[name].append({clock: now() - started[clock] for clock, now in clocks.items()})
    n = sum(parameter.numel() for parameter in learned)
    print(f"{args.model}, {n / 1e6:.2f} M parameters learn, batches of {args.batch_size}, {runtime.describe()}")
    for clock in clocks:
        bare_times, samo_times = ([step[clock] for step in times[name][3:]] for name in ("bare", "samo"))
        ratios = [s / b for s, b in zip(samo_times, bare_times, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        of_clock = " of CPU seconds" if clock == "CPU" else ""
        for name, values in (("bare", bare_times), ("samo", samo_times)):
            print(f"{name:5} median {statistics.median(values) * 1e3:7.1f} ms{of_clock}")
        print(
            f"ratio{of_clock} samo / bare: median {middle:.3f} (quartiles {low:.3f} to {high:.3f}), {len(ratios)} pairs"
        )
        print(f"ratio{of_clock} of the sums: {sum(samo_times) / sum(bare_times):.3f}")


if __name__ == "__main__":
    main()
