"""Every figure of README.md and docs/ compared with the file here that it comes from.

    python artifacts/reports/check.py [--write]

`samo presets` and the last line of `samo train` show figures too: those of :data:`MEASURED`, which ``--write`` puts
into a small file of each frontend.

A claim is a stretch of a page with a placeholder for each figure, and the values that belong there. Where the page says
otherwise it is named; ``--write`` puts the files' figures there. A figure outside code that no claim covers must be one
of :data:`NOT_MEASURED`. How each file was made stands in its ``reproduce.sh`` or in its own first lines.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from samo.settings import recipe_digest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NUMBER = r"([-+]?\d[\d,]*(?:\.\d+)?)"
PLACEHOLDER = re.compile(r"\{(:[^}]*)\}")
# What must be covered: figures with a full stop, shares in percent, sizes and ratios. Code shows inputs, not results.
FIGURE = re.compile(r"(?<![\w.,])(?:[-+]?\d[\d,]*(?:\.\d+)?(?: %| times\b| [KMG]B\b)|[-+]?\d+\.\d+(?![\d.]))")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`|<!--.*?-->|\]\([^)]*\)", re.MULTILINE | re.DOTALL)
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
NOT_MEASURED = {
    "3.11": "a version of Python",
    "95 %": "the level of the intervals",
    "0.5": "a threshold",
    "0.1": "where a range of thresholds began",
    "0.01": "a range of thresholds",
    "0.9": "a range of thresholds",
    "0.95": "a range of thresholds",
    "199 MB": "the size of RAVDESS's archive, samo_audio/datasets/ravdess.py",
    "4 MB": "the size of GoEmotions, samo_text/datasets/goemotions.py",
}

# Which file here was made with which preset. The digest of a preset's settings stands beside its figure as long as the
# figure does: SAMO shows none of a preset that trains otherwise since then, and it is to be measured again or left out.
MEASURED = {
    "samo_audio/measured/presets.toml": {
        "small-cnn": "small-cnn",
        "ravdess-small-cnn": "ravdess-small-cnn-emotion",
        "small-cnn-bins": "small-cnn-bins",
        "mn04": "mn04",
        "whisper-frozen": "whisper-frozen",
        "whisper-frozen-speaker": "whisper-frozen-speaker",
        "whisper-kernel": "whisper-kernel",
        "whisper-head": "whisper-head",
        "whisper-tuned": "whisper-tuned",
        "best": "best",
    },
    "samo_text/measured/presets.toml": {
        "minilm": "minilm",
        "minilm-asymmetric": "asymmetric",
        "textcnn": "textcnn",
        "tfidf": "tfidf",
    },
}

# How a figure is to be read, as docs/results.md has it; stands beside the figure and is shown with it.
_PICKED_ON_TESTED = "is flattered by an unknown amount: parts of its recipe were picked on the clips it is tested on"
_PICKED_ON_VALIDATION = (
    "may be slightly flattered: its recipe was picked on validation speakers, who are tested in other folds"
)
_TRIED_BEFORE = "may be slightly flattered: its recipe was tried on the tested clips before"
CAVEATS = {
    "whisper-kernel": _PICKED_ON_TESTED,
    "best": _PICKED_ON_TESTED,
    "small-cnn-bins": "is flattered: it was picked on the tested clips of one of the five folds",
    "small-cnn": _PICKED_ON_VALIDATION,
    "whisper-tuned": _PICKED_ON_VALIDATION,
    "whisper-frozen": _TRIED_BEFORE,
    "mn04": _TRIED_BEFORE,
    "ravdess-small-cnn": _TRIED_BEFORE,
    "whisper-frozen-speaker": _TRIED_BEFORE,
}

MODALITIES = {"samo_audio/measured/presets.toml": "audio", "samo_text/measured/presets.toml": "text"}


def asymmetric() -> dict[str, Any]:
    """``goemotions/asymmetric.json``: MiniLM under the asymmetric loss, each seed and then all as one, by rule."""
    models: dict[str, Any] = _json("goemotions/asymmetric.json")["models"]
    return models


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
    """``ravdess/RECIPE.json``: mean and deviation over the folds, joined scores with their intervals."""
    found = _json(f"ravdess/{recipe}.json")
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


def losses(row: str) -> tuple[float, float | None]:
    """``goemotions/losses.md``: a loss' mean macro-F1, and its difference from the baseline."""
    cells = _cells("goemotions/losses.md", row)
    return float(cells[2]), float(cells[5].split()[0]) if cells[5] else None


def ranges(row: str) -> tuple[float, float]:
    """``goemotions/losses-thresholds.md``: macro-F1 under the default range of thresholds and under the wider."""
    narrow, wide = (float(cell.split()[0]) for cell in _cells("goemotions/losses-thresholds.md", row)[1:3])
    return narrow, wide


def ensembles() -> list[list[str]]:
    """``recipes/ensembles.md``: one row an ensemble."""
    return _rows("recipes/ensembles.md")[2:]


def level(row: str, column: int) -> float:
    """``level/results.md``: the table of a trained network."""
    return float(_cells("level/results.md", row, 5)[column])


def coverage() -> list[float]:
    """``coverage/results.md``: in how many simulated cases, in percent, an interval of a score holds the truth."""
    return [float(row[2].split()[0]) for row in _rows("coverage/results.md") if len(row) == 5 and "+-" in row[2]]


def covered(column: int, *beginnings: str, width: int = 5, having: str = "") -> list[float]:
    """``coverage/results.md``: least and most of a column of the cases that begin and go on like this."""
    rows = [row for row in _rows("coverage/results.md") if len(row) == width and row[0].startswith(beginnings)]
    found = [float(row[column].split()[0]) for row in rows if having in row[0]]
    return [min(found), max(found)]


def fingerprints(row: str, column: int, width: int = 7) -> float:
    """``fingerprint/results.md``: a cell of one of its tables."""
    return float(_cells("fingerprint/results.md", row, width)[column].rstrip("%"))


def seconds(name: str) -> int:
    """How long a command of ``record.py`` took, which stands in its first lines."""
    (found,) = re.findall(r"^# date: .*, (\d+) s$", (HERE / name).read_text(encoding="utf-8"), re.MULTILINE)
    return int(found)


def published(name: str) -> float:
    """``published.toml``: what others report."""
    found = tomllib.loads((HERE / "published.toml").read_text(encoding="utf-8"))
    return float(found[name]["value"])


def printed(name: str, line: str) -> list[float]:
    """What a benchmark printed, kept by ``record.py``: the numbers behind the one beginning of a line that matches."""
    (found,) = [text for text in _kept(name).splitlines() if re.match(rf"\s*{line}", text)]
    rest = re.sub(rf"^\s*{line}", "", found)
    return [float(number.replace(",", "")) for number in re.findall(r"-?\d[\d,]*(?:\.\d+)?", rest)]


def _epoch_rules(name: str) -> list[float]:
    """Mean test macro-F1 of best, last and average; how often the last is better and worse than best; the ceiling."""
    lines = _kept(f"epoch_rule/{name}.txt").splitlines()
    rules = {line.split()[0]: line.split() for line in lines if " mean " in line}
    counts = int(rules["average"][-4].rstrip(",")), int(rules["average"][-1])
    return [*(float(rules[rule][2]) for rule in ("best", "last", "average")), *counts, float(rules["ceiling"][2])]


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
    resnet, small = ravdess("ravdess-resnet18-emotion"), ravdess("ravdess-small-cnn-emotion")
    resnet_added, small_added = (
        ravdess("ravdess-resnet18-emotion-added-up"),
        ravdess("ravdess-small-cnn-emotion-added-up"),
    )
    sentiment = ravdess("ravdess-small-cnn-sentiment")
    whisper, whisper_added = ravdess("whisper-frozen"), ravdess("whisper-frozen-added-up")
    whisper_sentiment = ravdess("whisper-frozen-sentiment")
    mn04, mn04_added = ravdess("mn04"), ravdess("mn04-added-up")
    functionals, functionals_added = ravdess("functionals"), ravdess("functionals-added-up")
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
        ("| functionals, logistic regression: the floor | 8 emotions", functionals),
        ("| Whisper base frozen, logistic regression | 8 emotions", whisper),
        ("| the same at three speeds, least squares on a kernel, three seeds | 8 emotions", ravdess("whisper-kernel")),
        (
            "| at three speeds, centred by speaker: needs several clips of each | 8 emotions",
            ravdess("whisper-frozen-speaker"),
        ),
        ("| Whisper base fine-tuned, three seeds | 8 emotions", ravdess("whisper-tuned")),
        ("| mn04 pretrained on AudioSet, fine-tuned | 8 emotions", mn04),
        ("| the same, taught by the first: the model that comes with SAMO | 8 emotions", ravdess("mn04-distilled")),
        ("| SmallCNN from scratch, three seeds (`samo crossval --seeds 0,1,2`) | 8 emotions", ravdess("small-cnn")),
    ):
        yield Claim(readme, f"{row} | {spread} |", over_seeds(found))
    nine = ravdess("best-seeds"), ravdess("best-seeds-added-up")
    for row, found, three_classes in (("three speech models averaged, three seeds of each", *nine),):
        same = "| ravdess | | | the same, probabilities added up | 3 sentiments |"
        yield Claim(readme, f"| {row} | 8 emotions | {spread} {same} {spread} |", over_seeds(found, three_classes))
    for row, found in (("MiniLM fine-tuned, one seed", minilm), ("tf-idf and logistic regression", tfidf)):
        yield Claim(readme, f"| {row} | 28 emotions | {within} |", over_rows(found))
    both = list(asymmetric().values())[-1]["steady"]
    row = "| two MiniLMs under the asymmetric loss | 28 emotions |"
    yield Claim(readme, f"{row} {within} |", [both["macro_f1"], *both["interval"]])

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
        [losses("label-smoothing")[1], losses("rdrop")[1]],
    )
    yield Claim(
        results,
        "(asymmetric {:+.3f}, focal {:+.3f}, class weights {:+.3f})",
        [losses("asymmetric")[1], losses("focal")[1], losses("class-weights")[1]],
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
        results,
        f"(`--preset whisper-frozen`) | 8 emotions {scores}{added}"
        f" | the same, trained on sentiment | 3 sentiments {scores}",
        over_folds(whisper, whisper_added, whisper_sentiment),
    )
    for text, stem in (
        ("SmallCNN with four bands of frequency kept apart (`--preset small-cnn-bins`)", "small-cnn-bins"),
        ("the same at two more speeds (`--speed 0.1 --speed-steps 1`), three seeds", "whisper-frozen-speed"),
        ("Whisper base fine-tuned (`--preset whisper-tuned`), three seeds", "whisper-tuned"),
        ("SmallCNN from scratch, the default (`--preset small-cnn`), three seeds", "small-cnn"),
        ("three seeds of each, averaged as one", "best-seeds"),
        ("logistic regression, three speeds in judging too (`--tta-speed 0.1`), three seeds", "whisper-frozen-views"),
        (
            "the same at three speeds, least squares on a kernel (`--preset whisper-kernel`), three seeds",
            "whisper-kernel",
        ),
        ("the same for 45 epochs at the whole rate, taught by Whisper at three speeds", "mn04-distilled-long"),
        ("frozen at two more speeds, centred by speaker (`--preset whisper-frozen-speaker`)", "whisper-frozen-speaker"),
        ("a small network on the same, centred by speaker", "whisper-head-speaker"),
        ("both centred by speaker, averaged", "best-speaker"),
        ("Whisper fine-tuned, and frozen under two heads, averaged (`--preset best`), three seeds", "best"),
    ):
        yield Claim(
            results,
            f"| {text} | 8 emotions {scores}{added}",
            over_folds(ravdess(stem), ravdess(f"{stem}-added-up")),
        )
    yield Claim(
        results,
        f"| centred by speaker, trained on sentiment | 3 sentiments {scores}",
        over_folds(ravdess("whisper-frozen-speaker-sentiment")),
    )
    yield Claim(
        "docs/how-numbers-are-made.md",
        "macro-F1 was {:.3f} under the best validation epoch, {:.3f} under the last and {:.3f} under the mean, "
        "which was better in {:d} trainings and worse in {:d}. "
        "The epoch best on the test part, which no rule can know, has {:.3f}",
        _epoch_rules("whisper-head"),
    )
    yield Claim(
        "docs/how-numbers-are-made.md",
        "the same three have {:.3f}, {:.3f} and {:.3f}, the mean better in {:d} and worse in {:d}, "
        "the best there {:.3f}",
        _epoch_rules("small-cnn"),
    )
    clips = _json("ravdess/speaker-clips.json")["clips"]
    numbers = ("1", "2", "4", "8", "16", "32", "all of the speaker", "the speaker's neutral and calm ones")
    yield Claim(
        "docs/how-numbers-are-made.md",
        "| macro-F1, mean over folds |" + " {:.3f} |" * len(numbers),
        [clips[name]["mean"] for name in numbers],
    )
    yield Claim(
        "docs/how-numbers-are-made.md",
        "{:.3f} of the same model without centring",
        [_json("ravdess/whisper-frozen-speed.json")["seeds"][0]],
    )
    for stem, against in (("best", "best of them"), ("best-seeds", "first `whisper-kernel`")):
        gain = _json(f"ravdess/{stem}.json")["combined"]["gain"]
        text = f"{{:+.3f}} [{{:.3f}}, {{:.3f}}] over the {against}"
        yield Claim(results, text, [gain[key] for key in ("difference", "low", "high")])
    pairs = [row["macro_f1"] for row in _json("ravdess/pairs.json")]
    first, *others = pairs[:3]
    yield Claim(
        results,
        "Logistic regression at the same speeds lies behind by {:+.3f} [{:.3f}, {:.3f}], {:+.3f} and {:+.3f} "
        "in the three seeds",
        [first["difference"], first["low"], first["high"], *(row["difference"] for row in others)],
    )
    yield Claim(
        results,
        "for longer neither ({:+.3f} [{:.3f}, {:.3f}] over the shorter one)",
        [pairs[4][key] for key in ("difference", "low", "high")],
    )
    head = ravdess("whisper-head")
    yield Claim(results, f"(`--preset whisper-head`) does no better, three seeds: {spread}", [head["mean"], head["sd"]])
    yield Claim(results, f"(`--preset mn04`) | 8 emotions {scores}{added}", over_folds(mn04, mn04_added))
    taught, taught_added = ravdess("mn04-distilled"), ravdess("mn04-distilled-added-up")
    yield Claim(
        results,
        f"taught by frozen Whisper (`--teacher`) | 8 emotions {scores}{added}",
        over_folds(taught, taught_added),
    )
    yield Claim(
        results,
        "README names the mean of the folds, {:.3f}; the tool prints the score of all {:,} answers joined, " + within,
        [taught["mean"], _json("ravdess/mn04-distilled.json")["joined"]["n"], *taught["f1"]],
    )
    released = json.loads((ROOT / "samo_text" / "released" / "samo-text.export.json").read_text())
    exported, size = released["parity"], released["size_mb"]
    yield Claim(
        results,
        "It has {:.3f} on the {:,} texts of the test part, before it was quantised {:.3f}, and {:.1f} MB",
        [exported["macro_f1"]["after"], exported["n"], exported["macro_f1"]["before"], size["file"]],
    )
    elsewhere = [
        json.loads((HERE / "emodb" / f"{name}.json").read_text()) for name in ("mn04-distilled", "whisper-frozen")
    ]
    yield Claim(
        results,
        f"elsewhere, it has {within} over the {{:d}} clips of six emotions that both know, and Whisper with its "
        f"logistic regression, trained alike, {within}: what",
        [
            elsewhere[0]["metrics"]["macro_f1"],
            *elsewhere[0]["ci"]["macro_f1"],
            elsewhere[0]["n"],
            elsewhere[1]["metrics"]["macro_f1"],
            *elsewhere[1]["ci"]["macro_f1"],
        ],
    )
    yield Claim(
        results,
        f"(`--model functionals`), the floor of every report | 8 emotions {scores}{added}",
        over_folds(functionals, functionals_added),
    )
    yield Claim(
        results, f"SmallCNN of the recipe before, trained on sentiment | 3 sentiments {scores}", over_folds(sentiment)
    )
    before = ravdess("ravdess-small-cnn-before-emotion")
    yield Claim(
        results,
        f"recipe has {spread} ({{:.3f}}, {{:.3f}}, {{:.3f}}, {{:.3f}}, {{:.3f}})",
        [before["mean"], before["sd"], *before["folds"]],
    )
    yield Claim(results, "and has {:.3f}, {:.3f}, {:.3f}, {:.3f}, {:.3f}: better on four folds", small["folds"])
    yield Claim(results, "On fold 4 the plain network has {:.3f} without it", [level("as-is", 3)])
    yield Claim(
        results,
        "an accuracy near {:.3f} with a fine-tuned CNN-14, its follow-up {:.3f} with xlsr-wav2vec2",
        [published("cnn14"), published("xlsr")],
    )
    yield Claim(results, "ResLSTM-SA reports UAR {:.3f}", [published("reslstm_sa")])
    copies = {
        part: printed("goemotions/corpus.txt", rf"! (?=\d+ {part} rows also stand in train)")[0]
        for part in ("val", "test")
    }
    yield Claim(results, "{:.0f} validation and {:.0f} test rows also stand in train word for word", [*copies.values()])
    zero_shot = json.loads(_kept("goemotions/zero-shot.txt"))
    yield Claim(results, f"Zero-shot from label descriptions: {within}.", [zero_shot["macro_f1"], *zero_shot["ci"]])
    yield Claim(results, "the corpus paper's BERT has {:.2f}", [published("bert")])
    yield Claim(
        results,
        "ResNet-18 of the table has a joined accuracy of {:.3f} and a joined UAR of {:.3f}, "
        "the frozen Whisper {:.3f} and {:.3f}",
        [resnet["accuracy"], resnet["uar"][0], whisper["accuracy"], whisper["uar"][0]],
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
    with (HERE / "recipes" / "emotion.csv").open(encoding="utf-8") as file:
        (plain,) = [line for line in csv.DictReader(file) if line["row"] == "baseline"]
    yield Claim(results, "has a standard deviation of {:.3f} over the three seeds of emotion", [float(plain["sd"])])
    with (HERE / "techniques" / "table.csv").open(encoding="utf-8") as file:
        techniques = {line["row"]: line for line in csv.DictReader(file)}
    own = techniques.pop("baseline")
    yield Claim(results, f"| the plain network | {spread} | |", [float(own["macro_f1_mean"]), float(own["sd"])])
    for name, line in techniques.items():
        values = [
            float(line[key]) for key in ("macro_f1_mean", "sd", "difference", "difference_low", "difference_high")
        ]
        yield Claim(results, f"| `{name}` | {spread} | {{:+.3f}} [{{:+.3f}}, {{:+.3f}}] |", values)
    elsewhere_than_fold_0 = [
        fmean(ravdess(stem)["folds"][1:]) for stem in ("small-cnn-bins", "ravdess-small-cnn-emotion")
    ]
    text = "Over folds 1 to 4 it has {:.3f} where the plain network has {:.3f}"
    yield Claim(results, text, elsewhere_than_fold_0)
    several = _json("goemotions/ensemble.json")
    network = "goemotions-minilm-emotion-seed"
    for row, name in (
        ("MiniLM, seed 0", f"{network}0"),
        ("MiniLM, seed 1", f"{network}1"),
        ("MiniLM, seed 2", f"{network}2"),
        ("tf-idf", "goemotions-tfidf-emotion"),
        ("three networks", "3 networks"),
        ("three networks and tf-idf", "3 networks and tf-idf"),
    ):
        both = [several["models"][name][rule] for rule in ("plain", "steady")]
        values = [value for each in both for value in (each["macro_f1"], *each["interval"])]
        yield Claim(results, f"| {row} | {within} | {within} |", values)
    rows = ("MiniLM, asymmetric loss, seed 3", "MiniLM, asymmetric loss, seed 4", "these two as one")
    for row, found in zip(rows, asymmetric().values(), strict=True):
        values = [
            value for rule in ("plain", "steady") for value in (found[rule]["macro_f1"], *found[rule]["interval"])
        ]
        yield Claim(results, f"| {row} | {within} | {within} |", values)
    errors = _json("goemotions/asymmetric.json")["calibration_error"].values()
    yield Claim(results, "expected calibration error {:.3f} and {:.3f}.", list(errors))
    folds = _json("goemotions/crossfit-asymmetric.json")["thresholds"]
    in_validation = [each["smoothing 0.5, shrinkage 8"]["10"]["macro_f1"] for each in folds.values()]
    yield Claim(
        results,
        "it has {:.3f} where seeds 0 to 2 have {:.3f} to {:.3f} and all four together {:.3f}",
        [in_validation[3], min(in_validation[:3]), max(in_validation[:3]), in_validation[4]],
    )
    steadier = [
        line[key]
        for line in several["differences"]
        if line["baseline"].startswith(network) and line["other"] == line["baseline"].replace("plain", "steady")
        for key in ("difference", "low", "high")
    ]
    signed = "{:+.3f} [{:.3f}, {:.3f}]"
    yield Claim(results, f"Steadier thresholds gain {signed}, {signed} and {signed} of the three networks", steadier)
    gains = [float(cells[6].split()[0]) for cells in ensembles()]
    yield Claim(results, "five best cells by validation gain {:.3f} to {:.3f}", [min(gains), max(gains)])
    picture = _json("readme-picture/report.json")
    yield Claim(
        results,
        f"macro-F1 {within} over five speakers",
        [picture["metrics"]["macro_f1"], *picture["ci"]["macro_f1"]],
    )
    yield from claims_on_methods()


def claims_on_methods() -> Iterator[Claim]:
    """Figures of intervals, near copies and speed."""
    results, numbers = "docs/results.md", "docs/how-numbers-are-made.md"
    held = [min(coverage()), max(coverage())]
    yield Claim(numbers, "It holds the truth in {:.0f} to {:.0f} % of simulated cases", held)
    yield Claim(results, "hold the truth in {:.0f} to {:.0f} % of simulated cases", held)
    yield Claim(
        numbers,
        "speakers alone: {:.0f} to {:.0f} % where drawing each alone held the truth in {:.0f} to {:.0f} %",
        [value for column in (2, 3) for value in covered(column, *"0123456789", having="unknown")],
    )
    yield Claim(
        numbers,
        "over rows holds it in {:.0f} to {:.0f} % if rows share speakers",
        covered(4, *"0123456789", having="groups of 64 rows"),
    )
    yield Claim(
        numbers,
        "in place of their two. It holds the truth in {:.0f} to {:.0f} %.",
        covered(1, "accuracy, ", "macro-F1 over ", width=3),
    )
    # After the true difference: coverage, width, verdicts; without a gain every verdict is wrong.
    equal = printed("coverage/differences.txt", r"24 +0\.000")
    yield Claim(
        numbers,
        "With 24 speakers its interval holds the truth in {:.0f} % of simulated cases, and it takes equals for "
        "different in {:.1f} %",
        [equal[0], equal[2]],
    )
    naive, corrected = (
        printed("coverage/differences.txt", rf"5 folds x 3 seeds +{name} +0\.000")[2]
        for name in ("Student", "Nadeau & Bengio")
    )
    yield Claim(
        numbers,
        '"find" a difference between equals in {:.0f} % of simulated cases instead of {:.0f} %',
        [naive, corrected],
    )
    yield Claim(
        numbers,
        "Of copies played 2 % faster {:.0f} % (RAVDESS) and {:.0f} % (EMO-DB) are found",
        [fingerprints("faster by 2 %", 1), fingerprints("faster by 2 %", 4)],
    )
    yield from claims_on_speed()
    yield Claim("docs/deployment.md", "{:.1f} KB a clip of 4 s", [fingerprints("RAVDESS", 5, 6) / 1000])
    for page in ("docs/limits.md", "docs/getting-started.md"):
        yield Claim(
            page,
            "{:.0f} GB, most of it torch and what it brings",
            [int(printed("speed/installation.txt", r"(?=\d+\sVENV)")[0]) / 1024],
        )


def claims_on_speed() -> Iterator[Claim]:
    """The table of what benchmarks printed."""
    page = "docs/results.md"
    networks = ("small-cnn", "resnet18")
    faster = [printed("speed/precision.txt", rf"{name} .*median")[0] for name in networks]
    yield Claim(page, "| {:.1f} (small-cnn) and {:.1f} (resnet18) times faster |", faster)
    trainer = [printed(f"speed/trainer-{name}.txt", "ratio samo / bare: median") for name in networks]
    yield Claim(
        page,
        "| {:.2f} (small-cnn, quartiles {:.2f} to {:.2f}) and {:.2f} (resnet18, {:.2f} to {:.2f}) times as long |",
        [*trainer[0], *trainer[1]],
    )
    more = [
        printed(f"speed/trainer-{name}.txt", "ratio of CPU seconds samo / bare: median")[:3]
        for name in ("mn04", "text-encoder", "speech-encoder")
    ]
    yield Claim(
        page,
        "| {:.2f} (mn04, quartiles {:.2f} to {:.2f}), {:.2f} (MiniLM, all of it trained, {:.2f} to {:.2f}) and "
        "{:.2f} (Whisper base, all of it, {:.2f} to {:.2f}) times |",
        [*more[0], *more[1], *more[2]],
    )
    kept = [
        printed("speed/allocator.txt", rf"{what} +ratio")
        for what in ("60 steps, samo", "evaluate", "predict 1,440 clips", "encoder states, 120")
    ]
    yield Claim(
        page,
        "| {:.2f} (training steps), {:.2f} (`evaluate`), {:.2f} (`predict`) and {:.2f} (encoder states) times the CPU "
        "seconds, {:.2f} to {:.2f} times the peak memory |",
        [*(each[0] for each in kept), min(each[-1] for each in kept), max(each[-1] for each in kept)],
    )
    mine, bare = (
        printed("speed/allocator.txt", "60 steps, samo +with "),
        printed("speed/allocator.txt", "60 steps, bare +without"),
    )
    yield Claim(
        page, "| {:.2f} times the CPU seconds, {:.2f} times the wall time |", [mine[2] / bare[2], mine[3] / bare[3]]
    )
    (imported,) = printed("speed/commands.txt", "import torch")
    yield Claim(
        page, "step 1 in {:.1f} s beyond importing torch", printed("speed/commands.txt", "warm start to step 1")[1:]
    )
    yield Claim(page, "| {:.1f} GB | `commands.py` |", printed("speed/commands.txt", "peak memory of training"))
    yield Claim(page, "| `samo --help` | {:.1f} s |", printed("speed/commands.txt", "samo --help"))
    many = printed("speed/commands.txt", r"(?=predict [\d,]+ clips)")
    yield Claim(page, "| `samo predict` of {:,.0f} clips | {:.0f} times real time |", [many[0], many[-1]])
    one = printed("speed/commands.txt", "predict one clip")[0] - imported
    yield Claim(page, "| {:.1f} s more than `import torch` in the same minutes, {:.1f} s |", [one, imported])
    yield Claim(page, "| {:d} s, reports and all | `samo crossval` |", [seconds("speed/heads.txt")])
    texts = printed("speed/text-batches.txt", "sorted / padded: median")
    yield Claim(page, "| {:.1f} times as many texts a second ({:.1f} to {:.1f} over three interleaved rounds) |", texts)


@cache
def measured() -> dict[str, str]:
    """What should stand in each file of the frontends, by path; a recipe that has no file here is left out."""
    found = {}
    for path, names in MEASURED.items():
        known = _written(path)
        lines = ["# Written by artifacts/reports/check.py --write from the files in artifacts/reports."]
        for preset, recipe in names.items():
            if path.startswith("samo_text") and (HERE / "goemotions" / f"{recipe}.json").is_file():
                alone = list(asymmetric().values())[:-1]
                on = "GoEmotions, 28 labels, its own test part, plain thresholds"
                about = ("goemotions", "emotion", on, fmean(each["plain"]["macro_f1"] for each in alone))
                minutes = fmean(_json("goemotions/asymmetric.json")["minutes"].values())
            elif path.startswith("samo_text"):
                facts = goemotions(recipe, "emotion")
                about = (
                    "goemotions",
                    "emotion",
                    "GoEmotions, 28 labels, its own test part, plain thresholds",
                    facts["mean"],
                )
                minutes = facts["minutes"]
            elif (HERE / "ravdess" / f"{recipe}.json").is_file():
                stored = _json(f"ravdess/{recipe}.json")
                whose = ", each speaker's clips at once" if stored["settings"].get("normalisation") == "speaker" else ""
                about = ("ravdess", "emotion", f"RAVDESS, 8 emotions, mean of five folds{whose}", stored["mean"])
                # Of what takes no steps the time was not kept; that on a GPU says nothing to whom has none.
                on_gpu = stored["environment"].get("runtime", {}).get("device", "cpu") != "cpu"
                beside = _json("ravdess/minutes.json").get(recipe, {"minutes": 0.0})["minutes"]
                minutes = beside if on_gpu else fmean(stored["minutes_per_fold"])
            else:
                continue
            facts = [f'dataset = "{about[0]}"', f'mode = "{about[1]}"', f'on = "{about[2]}"']
            facts += [f"macro_f1 = {about[3]:.3f}", *([f"minutes = {minutes:.1f}"] if round(minutes, 1) else [])]
            own, before = tomllib.loads("\n".join(facts)), dict(known.get(preset, {}))
            digest = before.pop("settings", "")
            before.pop("caveat", "")  # no figure: written anew it does not make the digest new
            facts += [f'caveat = "{CAVEATS[preset]}"'] if preset in CAVEATS else []
            if not digest or before != own:
                digest = recipe_digest(MODALITIES[path], preset)
            lines += ["", f"[{preset}]", *facts, f'settings = "{digest}"']
        found[path] = "\n".join(lines) + "\n"
    return found


def measured_apart() -> list[str]:
    """One line for each file of a frontend that says otherwise than the files here, and for each preset that trains
    otherwise than it was measured."""
    changed = [
        f"{path}: preset '{preset}' trains otherwise than it was measured: measure it again, or take it out of MEASURED"
        for path in MEASURED
        for preset, facts in _written(path).items()
        if facts.get("settings") != recipe_digest(MODALITIES[path], preset)
    ]
    return changed + [
        f"{path}: not what the files say; `python artifacts/reports/check.py --write` writes it"
        for path, text in measured().items()
        if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding="utf-8") != text
    ]


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
        prose = CODE.sub(lambda code: re.sub(r"\S", " ", code.group()), text)
        lines += [
            f"{page}: no file is named for {match.group()}"
            for match in FIGURE.finditer(prose)
            if match.start() not in covered[page] and match.group().lstrip("+-") not in NOT_MEASURED
        ]
    return [*lines, *losses_apart(), *measured_apart()]


def losses_apart() -> list[str]:
    """The two tables over the same cells of losses hold the same means, to the last digit but one."""
    rows = [cells[0] for cells in _rows("goemotions/losses-thresholds.md")[2:]]
    pairs = {row: (losses(row)[0], ranges(row)[0]) for row in rows}
    return [
        f"goemotions: losses.md has {one} for {row}, losses-thresholds.md {other}"
        for row, (one, other) in pairs.items()
        if abs(one - other) > 0.001 + 1e-9
    ]


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
        for path, text in measured().items():
            (ROOT / path).parent.mkdir(exist_ok=True)
            (ROOT / path).write_text(text, encoding="utf-8")
    lines = differences(texts)
    print("\n".join(lines) or f"{len(list(claims()))} stretches hold what the files say")
    return int(bool(lines))


def _written(path: str) -> dict[str, dict[str, Any]]:
    """The figures that a file of a frontend has now, by preset; none where it is not there."""
    if not (ROOT / path).is_file():
        return {}
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


@cache
def _json(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def _kept(name: str) -> str:
    """What a command printed, without the lines of ``record.py`` above it."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("# "))


def _rows(name: str) -> list[list[str]]:
    """The cells of every line of the tables of a page, heads and rules included."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip().split("|")[1:-1]] for line in lines if line.startswith("|")]


def _cells(name: str, row: str, width: int | None = None) -> list[str]:
    """The one row that begins with a cell; ``width``: of the tables with so many columns."""
    (found,) = [cells for cells in _rows(name) if cells[0] == row and width in (None, len(cells))]
    return found


if __name__ == "__main__":
    sys.exit(main())
