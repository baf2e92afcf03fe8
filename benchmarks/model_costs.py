"""What each speech model costs beside what it is worth: seconds to train, milliseconds a clip, megabytes, macro-F1.

    python benchmarks/model_costs.py --data-root ../shared/data/ravdess --picture docs/images/accuracy-cost.png \\
        small-cnn=RUN=artifacts/reports/ravdess/ravdess-small-cnn-emotion.json ...

Each model is a fold's run, or an exported file, with the report of its cross-validation. All are asked one after the
other in every round, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import samo
from samo.runs.run import Run

CLIP_S, SR = 3.0, 48_000


def main() -> None:
    """Print a row for each model, write the figures, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=RUN|FILE.onnx=REPORT.json")
    parser.add_argument("--data-root", required=True, help="RAVDESS: its first clips are predicted")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    given = [each.split("=", 2) for each in args.models]
    models = {name: samo.load(place) for name, place, _ in given}
    clips = [clip(k) for k in range(args.rounds)]
    many = sorted(Path(args.data_root).rglob("*.wav"))[:64]
    one: dict[str, list[float]] = {name: [] for name in models}
    all_of_them: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.predict(clips[0], sr=SR)
    for k, waveform in enumerate(clips):
        for name in list(models)[:: 1 if k % 2 else -1]:
            started = time.perf_counter()
            models[name].predict(waveform, sr=SR)
            one[name].append(time.perf_counter() - started)
    for k in range(3):
        for name in list(models)[:: 1 if k % 2 else -1]:
            started = time.perf_counter()
            list(models[name].stream(many))
            all_of_them[name].append((time.perf_counter() - started) / len(many))
    rows = {
        name: {
            **worth(Path(report)),
            "ms_one_clip": 1e3 * statistics.median(one[name]),
            "ms_a_clip_of_64": 1e3 * min(all_of_them[name]),
            "megabytes": size(place),
        }
        for name, place, report in given
    }
    best = -1.0
    for name, row in sorted(rows.items(), key=lambda item: item[1]["ms_one_clip"]):
        row["front"], best = row["macro_f1"] > best, max(best, row["macro_f1"])
        print(
            f"{name:22} macro-F1 {row['macro_f1']:.3f} +- {row['sd']:.3f}   one clip {row['ms_one_clip']:7.1f} ms   "
            f"of 64 clips {row['ms_a_clip_of_64']:7.1f} ms each   {megabytes(row['megabytes']):>12}   "
            f"training a fold {row['minutes_a_fold']:5.1f} min{'   *' * row['front']}"
        )
    print("* nothing that is faster is as good")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if args.picture:
        draw(rows, args.picture)


def clip(seed: int) -> np.ndarray:
    """Noise that swells like speech; what is in it costs nothing."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(CLIP_S * SR)) / SR
    return (0.1 * rng.normal(size=len(time_s)) * (1.2 + np.sin(2 * np.pi * 3 * time_s))).astype(np.float32)


def worth(report: Path) -> dict[str, float]:
    """Mean and sd of macro-F1 over the folds, and minutes of training a fold, as ``summarise.py`` wrote them.

    Of what was trained on a GPU the minutes on a core are those of ``minutes.json`` beside the report.
    """
    found = json.loads(report.read_text())
    minutes = statistics.median(found["minutes_per_fold"])
    if found["environment"].get("runtime", {}).get("device", "cpu") != "cpu":
        minutes = json.loads(report.with_name("minutes.json").read_text())[report.stem]["minutes"]
    return {"macro_f1": found["mean"], "sd": found["sd"], "minutes_a_fold": minutes}


def size(place: str) -> float:
    """Megabytes of the file that answers."""
    path = Path(place)
    return (path if path.is_file() else Run(path).model_file).stat().st_size / 1e6


def megabytes(value: float) -> str:
    """A size for people; what rounds to nothing is less than the least that is shown."""
    return f"{value:.1f} MB" if value >= 0.05 else "under 0.1 MB"


def draw(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Macro-F1 against milliseconds a clip; a dot as large as the file, a line along what nothing faster reaches."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = pyplot.subplots(figsize=(7.2, 4.4), dpi=110)
    for name, row in rows.items():
        area = 30 + 6 * row["megabytes"]
        axes.errorbar(row["ms_one_clip"], row["macro_f1"], row["sd"], color="#8a8f98", linewidth=1, zorder=1)
        axes.scatter(
            row["ms_one_clip"], row["macro_f1"], s=area, color="#0072b2" if row["front"] else "#b0b6bf", zorder=2
        )
        # Nothing is above and left of a front, nor much below and right of what is behind it.
        beside, side = area**0.5 / 2 + 4, -1 if row["front"] else 1
        axes.annotate(
            f"{name}\n{megabytes(row['megabytes'])}", (row["ms_one_clip"], row["macro_f1"]),
            xytext=(side * beside, -side * 3), textcoords="offset points", fontsize=8,
            ha="right" if row["front"] else "left", va="bottom" if row["front"] else "top",
        )  # fmt: skip
    front = sorted((row["ms_one_clip"], row["macro_f1"]) for row in rows.values() if row["front"])
    axes.step(*zip(*front, strict=True), where="post", color="#0072b2", linewidth=1, alpha=0.6, zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.3)
    axes.set_xlabel("milliseconds for one clip of 3 s on two cores (log)")
    axes.set_ylabel("macro-F1, 8 emotions, five published folds")
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
