"""How much of a loss's gain is only the range of thresholds: every cell of the grid under a finer, wider one.

    python artifacts/reports/goemotions/thresholds.py ARTIFACTS/grids/losses

Temperature and thresholds are fitted on the validation predictions of each cell, 0.1 to 0.9 in 20 steps (the default
when the table was made) and 0.01 to 0.95 in 95 steps (the default since), and applied to its test predictions. Writes
``losses-thresholds.md`` beside this file. ``losses.md`` has what each training fitted itself at its end, so its means
may differ from those of the same range here in the last digit; ``check.py`` refuses more than 0.001.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from pathlib import Path

from samo.evaluation.decision import decided_rows, fit_decision
from samo.evaluation.metrics import macro_f1, tally
from samo.evaluation.predictions import Predictions
from samo.runs.run import Run
from samo.settings import ThresholdSettings

# As they were when the table was made: neither shrunk nor smoothed.
PLAIN = ThresholdSettings(threshold_shrinkage=0.0, threshold_smoothing=0.0)
RANGES = {
    "0.1 to 0.9 in 20 steps": PLAIN.model_copy(update={"threshold_range": (0.1, 0.9), "num_thresholds": 20}),
    "0.01 to 0.95 in 95 steps": PLAIN.model_copy(update={"threshold_range": (0.01, 0.95), "num_thresholds": 95}),
}
WHY_NOT_EQUAL = (
    "Fitted anew on the stored validation predictions of the cells of [`losses.md`](losses.md), which has the\n"
    "temperature and thresholds that each training fitted at its end: its means may differ by 0.001 from the range it\n"
    "was trained with."
)


def main() -> None:
    """Write the table: mean and standard deviation over seeds by variant and range."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for folder in sorted((Path(sys.argv[1]) / "runs").iterdir()):
        if not (folder / "report.json").is_file():
            continue
        run, variant = Run(folder), folder.name.rpartition(".")[0]
        space = run.manifest.label_space
        val, test = (Predictions.load(run.path(f"predictions.{part}.npz")) for part in ("val", "test"))
        for name, settings in RANGES.items():
            decision = fit_decision(val.logits, val.targets, space, settings)
            answers = decided_rows(space.primary, test, space, decision.calibration.temperature, decision.thresholds)
            found[variant][name].append(float(macro_f1(tally(answers.truth, answers.predicted))))
    lines = ["| variant | " + " | ".join(RANGES) + " |", "| --- " * (1 + len(RANGES)) + "|"]
    for variant, by_range in sorted(found.items(), key=lambda pair: -statistics.mean(list(pair[1].values())[-1])):
        several = (each for each in by_range.values() if len(each) > 1)
        cells = [f"{statistics.mean(each):.3f} ± {statistics.stdev(each):.3f}" for each in several]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    text = "\n".join([*lines, "", WHY_NOT_EQUAL]) + "\n"
    Path(__file__).with_name("losses-thresholds.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
