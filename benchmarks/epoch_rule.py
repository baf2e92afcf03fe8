"""Which weights of a training should count? Every rule on the same trainings, over folds of speakers.

    python benchmarks/epoch_rule.py --data-root ../shared/data/ravdess --preset ravdess-small-cnn

After each epoch the validation and the test part are predicted, so that all rules are of one training. No rule sees the
test part; ``ceiling``, the epoch that is best there, is no rule but what there was to gain.

    best      the epoch with the highest validation macro-F1 of its own fold
    shared    one epoch for all folds: where the mean of their validation macro-F1 is highest
    last      the last epoch
    average   the mean of the weights over the last quarter of the epochs (SWA, Izmailov et al. 2018), batch norm's
              statistics estimated anew
    ema       the exponential moving average of the weights after the last epoch
    ema-best  the same, at the epoch where its validation macro-F1 is highest
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from samo.data.splits import make_split
from samo.evaluation.metrics import decide, macro_f1, tally
from samo.runs.training_plan import make_plan
from samo.settings import resolve
from samo.training.averaging import EpochAverage, averaged_epochs, refresh_batchnorm
from samo.training.optim import Ema
from samo.training.runtime import make_runtime
from samo.training.setup import Setup
from samo.training.trainer import TrainState, fit, new_state, predict_logits
from samo_audio.frontend import AudioFrontend

RULES = ("best", "shared", "last", "average", "ema", "ema-best")
Scores = dict[str, list[float]]


class Silent:
    """An observer that says one line an epoch."""

    def __init__(self, title: str) -> None:
        self.title = title

    def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
        """Nothing."""

    def on_epoch(self, row: dict[str, Any], improved: bool) -> None:
        """One line."""
        print(f"{self.title} epoch {row['epoch']}: {row['val_macro_f1']:.3f}", flush=True)


def main() -> None:
    """Print each rule's mean and sd over folds and seeds, and what it loses to ``best`` cell by cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="RAVDESS")
    parser.add_argument("--preset", default="ravdess-small-cnn")
    parser.add_argument("--encoder", default="", help="folder of the preset's encoder")
    parser.add_argument("--weights", default="", help="file of the preset's start weights")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--decay", type=float, default=0.99, help="of the moving average that is followed besides")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every curve here too")
    args = parser.parse_args()
    given = {"data_root": str(Path(args.data_root).resolve()), "split": "folds"}
    given |= {name: getattr(args, name) for name in ("encoder", "weights") if getattr(args, name)}
    runtime = make_runtime("auto", "auto", args.threads)
    frontend: Any = None
    curves: dict[str, Scores] = {}
    for seed in map(int, args.seeds.split(",")):
        for fold in range(5):
            values = {**given, "seed": seed, "fold": fold, "ema_decay": 0.0}
            config = resolve("audio", args.preset, None, values)
            frontend = frontend.with_config(config) if frontend else AudioFrontend.open(config, print)
            curves[f"seed{seed}.fold{fold}"] = followed(
                Setup(frontend, runtime), args.decay, f"seed {seed} fold {fold}"
            )
    show(curves)
    if args.json:
        args.json.write_text(json.dumps(curves, indent=1))


def followed(setup: Setup, decay: float, title: str) -> Scores:
    """Macro-F1 on validation and test after each epoch: of the weights, their moving average, and the mean of the last
    quarter's."""
    frontend: Any = setup.frontend
    split = make_split(frontend.manifest, frontend.split_request())
    plan = make_plan(frontend, split)
    rows = {"val": plan.val_rows, "test": frontend.manifest.rows(split.test)}
    torch.manual_seed(plan.train.seed)
    model = setup.runtime.place(frontend.new_model())
    model.load_state_dict(frontend.fit(plan.train_rows), strict=False)
    state = new_state(model, plan, setup.runtime)
    ema, judged = Ema(state.model, decay), Judge(setup, rows)
    found: Scores = {}
    average = EpochAverage(state.model, averaged_epochs(plan.train.epochs))

    class Following(Silent):
        def on_step(self, epoch: int, step: int, n_steps: int, loss: float) -> None:
            ema.update(state.model)

    def keep(state: TrainState, improved: bool) -> None:
        judged.add(found, "plain", state.model, state.model.state_dict())
        judged.add(found, "ema", state.model, ema.average)
        if state.epoch > plan.train.epochs - average.n_epochs:
            average.add(state.model.state_dict())

    fit(state, setup, plan, Following(title), keep)
    state.model.load_state_dict(average.weights)
    refresh_batchnorm(state.model, setup, plan.train_rows, plan.train.batch_size, plan.train.seed)
    judged.add(found, "average", state.model, state.model.state_dict())
    return found


class Judge:
    """Scores weights on parts, in a copy of the model."""

    def __init__(self, setup: Setup, rows: Mapping[str, np.ndarray]) -> None:
        self.setup, self.rows = setup, rows

    def add(self, found: Scores, kind: str, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Append the macro-F1 of these weights on every part."""
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(dict(weights))
        manifest = self.setup.frontend.manifest
        task = manifest.label_space.primary
        for part, rows in self.rows.items():
            logits, targets = predict_logits(model, self.setup, rows), manifest.targets[rows]
            columns = manifest.label_space.slices[task.name]
            decided = decide(task, logits[:, columns], targets[:, columns])
            found.setdefault(f"{kind}.{part}", []).append(float(macro_f1(tally(decided.truth, decided.predicted))))
        model.load_state_dict(own)


def by_rule(curves: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """Test macro-F1 by rule and cell."""
    shared = int(np.argmax(np.mean([found["plain.val"] for found in curves.values()], axis=0)))
    return {
        cell: {
            "best": found["plain.test"][int(np.argmax(found["plain.val"]))],
            "shared": found["plain.test"][shared],
            "last": found["plain.test"][-1],
            "average": found["average.test"][0],
            "ema": found["ema.test"][-1],
            "ema-best": found["ema.test"][int(np.argmax(found["ema.val"]))],
            "ceiling": max(found["plain.test"]),
        }
        for cell, found in curves.items()
    }


def show(curves: Mapping[str, Scores]) -> None:
    """Print a row for each rule."""
    scores = by_rule(curves)
    print(f"{len(scores)} trainings; macro-F1 on the test part")
    for rule in (*RULES, "ceiling"):
        values = [row[rule] for row in scores.values()]
        gains = [row[rule] - row["best"] for row in scores.values()]
        sd = stdev(values) if len(values) > 1 else 0.0
        print(
            f"{rule:9} mean {fmean(values):.3f}  sd {sd:.3f}  minus best {fmean(gains):+.3f}"
            f"  better in {sum(gain > 0 for gain in gains)}, worse in {sum(gain < 0 for gain in gains)}"
        )


if __name__ == "__main__":
    main()
