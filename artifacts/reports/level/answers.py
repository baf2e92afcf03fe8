"""How a trained run of RAVDESS answers when its clips are made louder, quieter, noisy, or get silence.

python artifacts/reports/level/answers.py RAVDESS RUN val [test]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from changes import changes
from sklearn.metrics import f1_score

import samo
from samo.runs.artifacts import artifacts_root
from samo.runs.load import find_model
from samo_audio.audio_io import read


def main() -> None:
    """Print one row a part and change: macro-F1, share of changed labels, largest change of a probability."""
    root, name, *parts = sys.argv[1:]
    run = find_model(artifacts_root(""), name)
    model, sr = samo.load(run, threads=1), run.config.flat()["sr"]
    items = {item.id: item for item in run.manifest.items}
    print("| part | change | macro-F1 | changed labels | largest change of a probability |\n|---|---|--:|--:|--:|")
    for part in parts:
        clips = [read(Path(root) / items[one].source, sr).waveform for one in run.split.part(part)]
        truth = [items[one].labels["emotion"][0] for one in run.split.part(part)]
        labels, shares = None, None
        for change, act in changes(sr).items():
            found = list(model.predict([act(clip.copy()) for clip in clips], sr=sr))
            answers = np.array([prediction.label for prediction in found])
            likely = np.array([list(prediction.probabilities.values()) for prediction in found])
            labels, shares = (answers, likely) if labels is None else (labels, shares)
            score = f1_score(truth, answers, average="macro")
            print(f"| {part} | {change} | {score:.3f} | {(answers != labels).mean():.3f} "
                  f"| {np.abs(likely - shares).max():.4f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
