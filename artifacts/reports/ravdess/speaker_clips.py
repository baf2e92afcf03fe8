"""How many clips of a stranger a run normalised by speaker needs, and what if they are all calm.

    python artifacts/reports/ravdess/speaker_clips.py ARTIFACTS/grids/whisper-frozen-speaker RAVDESS

Takes the five models of the cross-validation as they were trained. Each tested clip is centred by the mean of n other
clips of its speaker, drawn at random without their labels (or from the speaker's neutral or calm ones alone, or all of
them: what the published figure does, the clip itself among them). Writes ``speaker-clips.json`` beside this file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from samo.evaluation.metrics import macro_f1, tally
from samo.runs.run import Run
from samo_audio.config import AudioConfig
from samo_audio.frontend import AudioFrontend

HERE = Path(__file__).parent
N_DRAWS = 10
CLIPS = (1, 2, 4, 8, 16, 32)


def main() -> None:
    """Write mean and spread over folds for every number of clips."""
    grid, data = Path(sys.argv[1]), sys.argv[2]
    found: dict[str, list[float]] = {}
    frontend = None
    for fold in range(5):
        run = Run(grid / "runs" / f"seed0.fold{fold}")
        config = run.config
        values = {**config.flat(), "data_root": str(Path(data).resolve()), "normalisation": "clip", "fold": fold}
        plain = AudioConfig.build(values)
        frontend = frontend.with_config(plain) if frontend else AudioFrontend.open(plain, print)
        if fold == 0:
            frontend.new_model()
            statistics = np.concatenate(
                [batch.inputs.numpy() for batch in frontend.eval_batches(np.arange(len(frontend.manifest.items)), 64)]
            )
        for name, score in scores(run, frontend, statistics).items():
            found.setdefault(name, []).append(score)
        print(fold, {name: round(each[-1], 3) for name, each in found.items()}, flush=True)
    table = {name: {"mean": fmean(each), "sd": stdev(each), "folds": each} for name, each in found.items()}
    text = json.dumps({"draws": N_DRAWS, "clips": table}, indent=1) + "\n"
    (HERE / "speaker-clips.json").write_text(text, encoding="utf-8")


def scores(run: Run, frontend: Any, statistics: np.ndarray) -> dict[str, float]:
    """Macro-F1 on the run's test part by how its clips were centred; the mean over draws where there are draws.

    Every clip of RAVDESS is one window, so the (N, 3, L, H) statistics have its row.
    """
    manifest = frontend.manifest
    fitted = load_file(run.path("fitted.safetensors"))
    weight, bias = fitted["head.output.weight"].astype(np.float64), fitted["head.output.bias"].astype(np.float64)
    rows = manifest.rows(run.split.test)
    assert len(statistics) == len(manifest.items)
    groups = np.array([item.group for item in manifest.items])
    truth = manifest.targets.argmax(axis=1)
    names = list(manifest.label_space.primary.labels)
    unmoved = np.isin(truth, [names.index("neutral"), names.index("calm")])
    generator = np.random.default_rng(0)

    def score(chosen: Any) -> float:
        answers = []
        for row in rows:
            centre = statistics[chosen(row)].mean(axis=0)
            # Mean and sd of every layer, as the pooling joins them.
            vector = (statistics[row] - centre)[:2].reshape(-1)
            answers.append(int((weight @ vector + bias).argmax()))
        eye = np.eye(len(names), dtype=bool)
        return float(macro_f1(tally(eye[truth[rows]], eye[np.array(answers)])))

    def others(row: int) -> np.ndarray:
        return np.flatnonzero((groups == groups[row]) & (np.arange(len(groups)) != row))

    found = {"all of the speaker": score(lambda row: np.flatnonzero(groups == groups[row]))}
    for n in CLIPS:
        draws = [score(lambda row, n=n: generator.choice(others(row), n, replace=False)) for _ in range(N_DRAWS)]
        found[str(n)] = fmean(draws)
    found["the speaker's neutral and calm ones"] = score(
        lambda row: np.intersect1d(others(row), np.flatnonzero(unmoved))
    )
    return found


if __name__ == "__main__":
    main()
