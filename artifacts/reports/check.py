"""Every figure of README.md and docs/ that comes from a file here, compared with that file.

    python artifacts/reports/check.py [--write]

A claim is a stretch of a page with a placeholder for each figure, and the values that belong there. Where the page says
otherwise it is named; ``--write`` puts the files' figures there. Figures of a page that no claim covers must stand in
:data:`WITHOUT_FILE` with the reason, or in a section of :data:`UNCHECKED`.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NUMBER = r"([-+]?\d[\d,]*(?:\.\d+)?)"
# What must be covered: three digits or two behind a full stop, and shares in percent.
PLACEHOLDER = re.compile(r"\{(:[^}]*)\}")
FIGURE = re.compile(r"(?<![\w.,])[-+]?\d+\.\d{2,}(?![\d.])|(?<![\w.,])\d+(?:\.\d+)? %")
PAGES = ("README.md", "docs/results.md")
# Measured by hand with the benchmark that the table names; nothing was kept.
UNCHECKED = {"docs/results.md": "## Speed"}
WITHOUT_FILE = {
    "0.483": "SmallCNN under the recipe before: the file stands in the history, commit 8ffc7b4",
    "0.045": "SmallCNN under the recipe before: the file stands in the history, commit 8ffc7b4",
    "0.548": "SmallCNN under the recipe before: the file stands in the history, commit 8ffc7b4",
    "0.489": "SmallCNN under the recipe before: the file stands in the history, commit 8ffc7b4",
    "0.448": "SmallCNN under the recipe before: the file stands in the history, commit 8ffc7b4",
    "0.494": "SmallCNN under the recipe before: the file stands in the history, commit 8ffc7b4",
    "0.434": "SmallCNN under the recipe before: the file stands in the history, commit 8ffc7b4",
    "0.590": "the plain network on fold 4: a table of artifacts/reports/level/results.md",
    "0.519": "MiniLM under another range of thresholds: no file",
    "0.163": "zero-shot: no file",
    "0.152": "zero-shot: no file",
    "0.173": "zero-shot: no file",
    "0.518": "spread of the plain network over seeds: the grid's cells were not kept",
    "0.622": "spread of the plain network over seeds: the grid's cells were not kept",
    "0.011": "gains of ensembles: a table written by hand in recipes/results.md",
    "0.092": "gains of ensembles: a table written by hand in recipes/results.md",
    "0.46": "published: BERT on GoEmotions",
    "0.537": "published: RoBERTa-large on GoEmotions",
    "0.623": "published: ResLSTM on RAVDESS",
    "0.652": "published: ResLSTM-SA on RAVDESS",
    "0.766": "published: CNN-14 on RAVDESS",
    "0.818": "published: xlsr-wav2vec2 on RAVDESS",
    "0.67": "published: human listeners on RAVDESS",
    "3.11": "a version of Python",
    "95 %": "the level of the intervals",
    "0.95": "a range of thresholds",
    "0.01": "a range of thresholds",
}


def goemotions(model: str, mode: str) -> dict[str, Any]:
    """``goemotions/results.json``: one model on one question; means over its seeds, the interval of the first."""
    (found,) = [row for row in _json("goemotions/results.json") if (row["model"], row["mode"]) == (model, mode)]
    runs = found["runs"]
    scores = [run["macro_f1"] for run in runs]
    rules, frequent = runs[0]["rules"], runs[0]["frequent"]
    own = rules["per-class"]
    return {
        "mean": fmean(scores), "sd": stdev(scores) if len(runs) > 1 else None,
        "low": runs[0]["interval"][0], "high": runs[0]["interval"][1],
        "minutes": fmean(run["minutes"] for run in runs),
        "half": rules["half"]["macro_f1"], "common": rules["global"]["macro_f1"], "own": own["macro_f1"],
        "kept": 100 * own["gain"] / own["val_gain"] if own["val_gain"] else None,
        "frequent": frequent["value"], "n_frequent": frequent["n_classes"],
        "frequent_interval": frequent["interval"],
        "support": {label: row["support"] for label, row in runs[0]["per_class"].items()},
    }  # fmt: skip


def ravdess(recipe: str) -> dict[str, Any]:
    """``ravdess/ravdess-RECIPE.json``: mean and deviation over the folds, joined scores with their intervals."""
    found = _json(f"ravdess/ravdess-{recipe}.json")
    joined = found["joined"]
    scores = {
        short: [joined["metrics"][name], *joined["ci"][name]] for short, name in (("f1", "macro_f1"), ("uar", "uar"))
    }
    return {
        "mean": found["mean"],
        "sd": found["sd"],
        "folds": found["folds"],
        "accuracy": joined["metrics"]["accuracy"],
        **scores,
    }


def minutes(*recipes: str) -> tuple[float, float]:
    """``ravdess/ravdess-RECIPE.json``: the shortest and longest training of a fold."""
    found = [value for recipe in recipes for value in _json(f"ravdess/ravdess-{recipe}.json")["minutes_per_fold"]]
    return min(found), max(found)


def recipes(row: str) -> dict[str, float]:
    """``recipes/sentiment.csv`` and ``emotion.csv``: a recipe against the baseline."""
    found: dict[str, float] = {}
    for question in ("sentiment", "emotion"):
        with (HERE / "recipes" / f"{question}.csv").open(encoding="utf-8") as file:
            (own,) = [line for line in csv.DictReader(file) if line["row"] == row]
        found |= {f"{question}{end}": float(own[f"difference{end}"]) for end in ("", "_low", "_high")}
    return found


def losses(row: str) -> float:
    """``goemotions/losses.md``: a loss against the baseline, from its table."""
    return float(_cells("goemotions/losses.md", row)[5].split()[0])


def ranges(row: str) -> tuple[float, float]:
    """``goemotions/losses-thresholds.md``: macro-F1 under the default range of thresholds and under the wider."""
    narrow, wide = (float(cell.split()[0]) for cell in _cells("goemotions/losses-thresholds.md", row)[1:3])
    return narrow, wide


@dataclass(frozen=True)
class Claim:
    """A stretch of a page with ``str.format`` placeholders without names, and the values that belong there."""

    page: str
    text: str
    values: Sequence[float]

    @property
    def pattern(self) -> re.Pattern[str]:
        """The text with any number at each placeholder; a space may be a line break."""
        literals = PLACEHOLDER.split(self.text)[::2]
        return re.compile(NUMBER.join(re.sub(r"(?:\\\s)+", r"\\s+", re.escape(literal)) for literal in literals))

    @property
    def figures(self) -> list[str]:
        """What should stand at each placeholder."""
        return [format(value, how[1:]) for how, value in zip(PLACEHOLDER.findall(self.text), self.values, strict=True)]


def claims() -> Iterator[Claim]:
    """Which figures of which page come from which file."""
    readme, results = "README.md", "docs/results.md"
    resnet, small = ravdess("resnet18-emotion"), ravdess("small-cnn-emotion")
    resnet_added, small_added = ravdess("resnet18-emotion-added-up"), ravdess("small-cnn-emotion-added-up")
    sentiment = ravdess("small-cnn-sentiment")
    minilm, cnn, tfidf = (goemotions(model, "emotion") for model in ("minilm", "textcnn", "tfidf"))
    joined = {
        model: [goemotions(f"{model}, 28 emotions joined", mode) for mode in ("ekman", "sentiment")]
        for model in ("minilm", "textcnn")
    }
    spread = "{:.3f} ± {:.3f}"
    within = "{:.3f} [{:.3f}, {:.3f}]"

    def over_seeds(*found: dict[str, Any]) -> list[float]:
        return [one[name] for one in found for name in ("mean", "sd")]

    def over_rows(*found: dict[str, Any]) -> list[float]:
        return [one[name] for one in found for name in ("mean", "low", "high")]

    for row, found in (
        ("| ResNet-18 from scratch | 8 emotions", resnet),
        ("| the same, probabilities added up | 3 sentiments", resnet_added),
        ("| SmallCNN from scratch | 8 emotions", small),
        ("| convolutions over hashed words | 28 emotions", cnn),
    ):
        yield Claim(readme, f"{row} | {spread} |", over_seeds(found))
    for row, found in (("MiniLM fine-tuned, one seed", minilm), ("tf-idf and logistic regression", tfidf)):
        yield Claim(readme, f"| {row} | 28 emotions | {within} |", over_rows(found))

    three = "| **{:.3f}** [{:.3f}, {:.3f}] | " + f"{within} | {within}"
    yield Claim(
        results,
        f"(`--preset minilm`), one seed {three} | {{:.0f}} |",
        [*over_rows(minilm, *joined["minilm"]), minilm["minutes"]],
    )
    yield Claim(
        results,
        f"(`--preset textcnn`), three seeds | **{spread}** | {spread} | {spread} | {{:.0f}} |",
        [*over_seeds(cnn, *joined["textcnn"]), cnn["minutes"]],
    )
    yield Claim(
        results,
        f"(`--preset tfidf`) {three} | {{:.1f}} |",
        [*over_rows(tfidf, *(goemotions("tfidf", mode) for mode in ("ekman", "sentiment"))), tfidf["minutes"]],
    )
    yield Claim(
        results,
        "MiniLM has {:.3f} at 0.5, {:.3f} at one threshold and {:.3f} by class, {:.1f} % of what they gained",
        [minilm["half"], minilm["common"], minilm["own"], minilm["kept"]],
    )
    yield Claim(
        results,
        "grief has {:d} test rows and relief {:d}",
        [minilm["support"]["grief"], minilm["support"]["relief"]],
    )
    yield Claim(
        results,
        f"Over the {{:d}} labels with 50 rows or more it is {within}",
        [minilm["n_frequent"], minilm["frequent"], *minilm["frequent_interval"]],
    )
    yield Claim(
        results,
        "Label smoothing ({:+.3f}) and R-Drop ({:+.3f}) are worse",
        [losses("label-smoothing"), losses("rdrop")],
    )
    yield Claim(
        results,
        "(asymmetric {:+.3f}, focal {:+.3f}, class weights {:+.3f})",
        [losses("asymmetric"), losses("focal"), losses("class-weights")],
    )
    narrow, wide = ranges("baseline")
    yield Claim(
        results,
        "the plain loss rises from {:.3f} to {:.3f}, and asymmetric leads by {:.3f}, focal by {:.3f}",
        [narrow, wide, ranges("asymmetric")[1] - wide, ranges("focal")[1] - wide],
    )

    scores = f"| **{spread}** | {within} | {within} |"
    added = f" | the same, probabilities added up | 3 sentiments {scores}"

    def over_folds(*found: dict[str, Any]) -> list[float]:
        return [value for one in found for value in (one["mean"], one["sd"], *one["f1"], *one["uar"])]

    for name, one, other in (("resnet18", resnet, resnet_added), ("small-cnn", small, small_added)):
        text = f"(`--preset ravdess-{name}`) | 8 emotions {scores}{added}"
        yield Claim(results, text, over_folds(one, other))
    yield Claim(
        results, f"SmallCNN of the recipe before, trained on sentiment | 3 sentiments {scores}", over_folds(sentiment)
    )
    yield Claim(results, "and has {:.3f}, {:.3f}, {:.3f}, {:.3f}, {:.3f}: better on four folds", small["folds"])
    yield Claim(
        results,
        "the ResNet-18 of the table: joined accuracy {:.3f}, joined UAR {:.3f}",
        [resnet["accuracy"], resnet["uar"][0]],
    )
    yield Claim(
        results,
        "Minutes a fold: {:.0f} to {:.0f} (ResNet-18), {:.0f} to {:.0f} (SmallCNN,",
        [*minutes("resnet18-emotion"), *minutes("small-cnn-emotion")],
    )
    for row, name in (
        ("label smoothing", "label-smoothing"),
        ("class weights", "class-weights"),
        ("focal loss", "focal"),
        ("SpecAugment", "specaug"),
        ("all together", "full"),
        ("ResNet-18", "resnet18"),
    ):
        found = recipes(name)
        ends = " [{:+.3f}, {:+.3f}]" if name == "label-smoothing" else ""
        values = [found["sentiment"], *([found["sentiment_low"], found["sentiment_high"]] if ends else [])]
        yield Claim(results, f"| {row} | {{:+.3f}}{ends} | {{:+.3f}} |", [*values, found["emotion"]])
    picture = _json("readme-picture/report.json")
    yield Claim(
        results,
        f"macro-F1 {within} over five speakers",
        [picture["metrics"]["macro_f1"], *picture["ci"]["macro_f1"]],
    )


def differences(texts: dict[str, str]) -> list[str]:
    """One line for each claim that its page does not hold, or holds otherwise, and for each figure without a file."""
    lines, covered = [], {page: set() for page in texts}
    for claim in claims():
        found = list(claim.pattern.finditer(texts[claim.page]))
        if len(found) != 1:
            lines.append(f"{claim.page}: stands {len(found)} times: {claim.text}")
            continue
        (match,) = found
        covered[claim.page] |= set(range(*match.span()))
        if list(match.groups()) != claim.figures:
            lines.append(f"{claim.page}: {match.group()!r}: the file says {', '.join(claim.figures)}")
    for page, text in texts.items():
        end = text.find(f"\n{UNCHECKED[page]}\n") if page in UNCHECKED else len(text)
        lines += [
            f"{page}: no file is named for {match.group()}"
            for match in FIGURE.finditer(text[:end])
            if match.start() not in covered[page] and match.group().lstrip("+-") not in WITHOUT_FILE
        ]
    return lines


def corrected(texts: dict[str, str]) -> dict[str, str]:
    """The pages with the files' figures in every claim."""
    texts = dict(texts)
    for claim in claims():
        match = claim.pattern.search(texts[claim.page])
        if match:
            text = texts[claim.page]
            for number in range(len(claim.figures), 0, -1):
                start, end = match.span(number)
                text = text[:start] + claim.figures[number - 1] + text[end:]
            texts[claim.page] = text
    return texts


def read_pages() -> dict[str, str]:
    """Text by name of the page."""
    return {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}


def main() -> int:
    """Returns 1 where a page and a file disagree."""
    texts = read_pages()
    if "--write" in sys.argv[1:]:
        texts = corrected(texts)
        for page, text in texts.items():
            (ROOT / page).write_text(text, encoding="utf-8")
    lines = differences(texts)
    print("\n".join(lines) or f"{len(list(claims()))} stretches hold what the files say")
    return int(bool(lines))


@cache
def _json(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def _cells(name: str, row: str) -> list[str]:
    lines = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in (HERE / name).open(encoding="utf-8")]
    (found,) = [line for line in lines if line[0] == row]
    return found


if __name__ == "__main__":
    sys.exit(main())
