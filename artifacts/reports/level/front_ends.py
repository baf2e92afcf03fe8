"""Compare front ends: logistic regression on pooled log-mel features, on the validation actors of the five folds.

    python artifacts/reports/level/front_ends.py RAVDESS

Every second clip; fitted on the training actors as recorded, scored on the validation actors as recorded and changed.
No test actor of a fold is looked at in it. A level is (what is measured, where in dB it is brought to).
"""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
import torch
from changes import changes
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from samo.data.splits import make_split
from samo.settings import resolve
from samo_audio.features import ACTIVE_DB, FLOOR_POWER, LogMel, to_active_level
from samo_audio.frontend import AudioFrontend

LEVELS = [
    ("as-is", 0),
    *product(("rms",), (-30, -50)),
    *product(("active",), (-20, -30, -40, -45, -50, -55, -60)),
]
FRONT_ENDS = list(product(LEVELS, ("clip", "fixed")))
CHANGES = ("as recorded", "-10 dB", "+10 dB", "0.5 s of silence behind", "white noise at -60 dB",
           "white noise at -70 dB", "trimmed at 40 dB")  # fmt: skip


def main() -> None:
    """Print one row a front end: macro-F1, mean of five folds, and the share of changed answers."""
    torch.set_num_threads(1)
    values = {"data_root": sys.argv[1], "split": "folds", "val_ratio": 0.17, "n_mels": 64}
    frontend = AudioFrontend.open(resolve("audio", "", None, values), print)
    targets = frontend.manifest.targets.argmax(axis=1)
    folds = []
    for fold in range(5):
        request = frontend.with_config(resolve("audio", "", None, {**values, "fold": fold})).split_request()
        split = make_split(frontend.manifest, request)
        folds.append([rows[rows % 2 == 0] for rows in map(frontend.manifest.rows, (split.train, split.val))])
    every = np.arange(0, len(targets), 2)
    validation = np.unique(np.concatenate([rows for _, rows in folds]))
    found = {name: pooled(frontend, name, every if name == CHANGES[0] else validation) for name in CHANGES}
    print("| level | normalisation | " + " | ".join(CHANGES) + " |\n" + "|---" * (len(CHANGES) + 2) + "|")
    for number, ((level, db), normalisation) in enumerate(FRONT_ENDS):
        scores = {name: [] for name in CHANGES}
        for train, val in folds:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
            model.fit(found[CHANGES[0]][train, number], targets[train])
            answers = {name: model.predict(found[name][val, number]) for name in CHANGES}
            for name, answer in answers.items():
                score = f1_score(targets[val], answer, average="macro")
                scores[name].append((score, (answer != answers[CHANGES[0]]).mean()))
        cells = [f"{mean:.3f} ({changed:.2f})" for mean, changed in (np.mean(scores[name], axis=0) for name in CHANGES)]
        print(f"| {level}{f' {db}' if db else ''} | {normalisation} | " + " | ".join(cells) + " |", flush=True)


def pooled(frontend: AudioFrontend, change: str, rows: np.ndarray) -> np.ndarray:
    """(items, front ends, 3 * bands): mean, spread and maximum over frames; rows not asked for are zero."""
    features = frontend.config.features
    transform, act = LogMel(features).mel, changes(features.sr)[change]
    found = np.zeros((len(frontend.manifest.items), len(FRONT_ENDS), 3 * features.n_mels), np.float32)
    for row in rows:
        wave = torch.from_numpy(act(frontend.waveforms.waveform(row).copy()))[None, : 4 * features.sr]
        mel = transform(wave)[0].numpy()
        to_active = float(to_active_level(wave, features.sr).abs().max() / wave.abs().max())
        to_0_db = {
            "as-is": 1.0,
            "rms": 1.0 / float((wave**2).mean()),
            "active": to_active**2 * 10.0 ** (-ACTIVE_DB / 10.0),
        }
        for number, ((level, db), normalisation) in enumerate(FRONT_ENDS):
            x = 10.0 * np.log10(mel * to_0_db[level] * 10.0 ** (db / 10.0) + FLOOR_POWER)
            x = (x - (x.mean() if normalisation == "clip" else -30.0)) / 20.0
            found[row, number] = np.concatenate([x.mean(axis=1), x.std(axis=1), x.max(axis=1)])
    return found


if __name__ == "__main__":
    main()
