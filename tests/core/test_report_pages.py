"""Figures and page of a report: repeatable, stamped, and safe from names that try to be markup."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import blank_pictures
import numpy as np
import pytest
from example_reports import HISTORY, LABELS, SPACE, predictions, report
from matplotlib.figure import Figure

from samo.evaluation.calibration import Calibration
from samo.reporting import figures
from samo.reporting.drawing import save_figure
from samo.reporting.html import render_html
from samo.tasks import LabelSpace, Task


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("figures") / "made"
    with blank_pictures.drawn(dpi=10):
        made = figures.save_figures(report(), predictions(), HISTORY, SPACE, folder)
    assert {path.name for path in folder.iterdir()} == {path.name for path in made}
    return {path.stem: path for path in made}


SAVE = """
import sys
from pathlib import Path
from matplotlib.figure import Figure
from samo.reporting.drawing import save_figure
save_figure(Figure(figsize=(4, 2)), Path(sys.argv[1]))
"""


def test_tests_save_a_pixel_for_a_picture_unless_they_look_at_it(tmp_path: Path) -> None:
    """In processes that they start too: else every evaluation pays for seven pictures."""
    figure, here, child = Figure(figsize=(4, 2)), tmp_path / "here.png", tmp_path / "child.png"
    save_figure(figure, here)
    subprocess.run([sys.executable, "-c", SAVE, str(child)], check=True)
    assert here.read_bytes() == child.read_bytes() == blank_pictures.PIXEL
    for how, width in (({"dpi": 10}, 40), ({}, 520)):
        with blank_pictures.drawn(**how):
            save_figure(figure, here)
        assert int.from_bytes(here.read_bytes()[16:20], "big") == width


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_pictures")
def test_figures_are_png_and_repeatable(pictures: dict[str, Path], tmp_path: Path) -> None:
    assert list(pictures) == ["confusion", "per_class", "by_speaker", "roc", "reliability", "risk_coverage", "training"]
    again = figures.save_figures(report(), predictions(), HISTORY, SPACE, tmp_path)
    for path in again:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.read_bytes() == pictures[path.stem].read_bytes()


@pytest.mark.parametrize(
    "stamps", [set(), {"synthetic demo data"}, {"LEAKY SPLIT"}, {"synthetic demo data", "LEAKY SPLIT"}]
)
def test_every_figure_carries_the_stamps(stamps: set[str]) -> None:
    found = report(synthetic="synthetic demo data" in stamps, leaky="LEAKY SPLIT" in stamps)
    drawn = [
        figures.confusion_figure(found),
        figures.per_class_figure(found),
        figures.by_group_figure(found, "speaker"),
        figures.roc_figure(found, predictions(), SPACE),
        figures.reliability_figure(found),
        figures.risk_coverage_figure(found),
        figures.training_figure(found, HISTORY),
    ]
    for figure in drawn:
        words = " ".join(text.get_text() for text in figure.texts)
        assert {stamp for stamp in ("synthetic demo data", "LEAKY SPLIT") if stamp in words} == stamps


def test_reliability_figure_shows_both_sides_of_the_temperature() -> None:
    found = report(calibration=Calibration({"emotion": 2.5}, "val"))
    scores = found["calibration"]
    before, after, *counts = figures.reliability_figure(found).axes
    assert before.get_title() == f"before: temperature 1\nexpected calibration error {scores['ece_uncalibrated']:.3f}"
    assert after.get_title() == f"temperature 2.50, fitted on val\nexpected calibration error {scores['ece']:.3f}"
    for top, bottom, bins in ((before, counts[0], scores["bins_uncalibrated"]), (after, counts[1], scores["bins"])):
        filled = [row for row in bins if row["count"]]
        bars, gaps = top.containers
        assert [bar.get_height() for bar in bars] == [row["accuracy"] for row in filled]
        assert [bar.get_x() for bar in bars] == [row["low"] for row in filled]
        ends = [bar.get_y() + bar.get_height() for bar in gaps]
        assert ends == pytest.approx([row["confidence"] for row in filled])
        assert [bar.get_height() for bar in bottom.containers[0]] == [row["count"] for row in bins]
    alone = figures.reliability_figure(report()).axes
    assert len(alone) == 2
    assert alone[0].get_title().startswith("no temperature was fitted\n")


def test_roc_figure_has_the_areas_of_the_report() -> None:
    found = report(calibration=Calibration({"emotion": 4.0}, "val"))
    drawn = figures.roc_figure(found, predictions(), SPACE)
    curves = {line.get_label().split()[0]: line for line in drawn.axes[0].lines}
    for label in LABELS:
        assert np.trapezoid(*reversed(curves[label].get_data())) == pytest.approx(found["per_class"][label]["roc_auc"])


def test_training_figure_marks_the_epoch_that_was_kept() -> None:
    # Epochs 4 to 6 share the best score; the lowest loss of them, the last, was kept.
    drawn = figures.training_figure(report(), HISTORY)
    assert drawn.axes[1].get_title(loc="left") == "best: 0.400 in epoch 6"


@pytest.mark.usefixtures("drawn_pictures")
def test_figures_of_little_data(tmp_path: Path) -> None:
    given = predictions(1, rows=3)
    given.targets[:] = np.eye(3)[0]
    history = [{"epoch": 1, "train_loss": None, "val_loss": 1.0}]
    made = figures.save_figures(report(given, run="$x_{1$"), given, history, SPACE, tmp_path)
    assert [path.stem for path in made] == ["confusion", "per_class", "reliability", "risk_coverage", "training"]


@pytest.mark.usefixtures("drawn_pictures")
def test_figures_of_names_that_look_like_mathematics(tmp_path: Path) -> None:
    space = LabelSpace((Task("emotion", ("$\\bad{$", "b$", "_c")),))
    given = predictions(space=space)
    figures.save_figures(report(given, label_space=space, task=space.primary), given, [], space, tmp_path)


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_page_is_whole_and_self_contained(pictures: dict[str, Path]) -> None:
    found = report(predictions(5), synthetic=True, leaky=True, notes=("a note",))
    text = render_html(found, pictures, {"lr": 0.001}, {"python": "3.11", "command": "samo train --lr 0.001"})
    ends = found["ci"]["macro_f1"]
    for words in (
        f"{found['metrics']['macro_f1']:.3f}", f"{ends[0]:.3f} to {ends[1]:.3f}, over 5 speakers",
        "synthetic demo data", "LEAKY SPLIT", "a note", "samo train --lr 0.001", "samo evaluate run-1", "gender",
    ):  # fmt: skip
        assert words in text
    page = _Page(text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 7
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in images)
    assert all(len(image["alt"] or "") > 30 for image in images)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe"}
    assert not re.search(r"(src|href)=\"(?!data:)|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_page_tells_calibration_before_and_after(pictures: dict[str, Path]) -> None:
    found = report(calibration=Calibration({"emotion": 2.5}, "val"))
    scores, text = found["calibration"], render_html(found, pictures, {}, {})
    line = f"xpected calibration error {scores['ece']:.3f}; without the temperature of 2.50 it is "
    assert f"<p>E{line}{scores['ece_uncalibrated']:.3f}.</p>" in text
    for key in ("ece", "ece_equal_mass", "nll", "brier"):
        assert f"<td>{scores[key + '_uncalibrated']:.3f}</td><td>{scores[key]:.3f}</td>" in text
    assert "15 equal-width bins of the top-label confidence, Guo et al. 2017. The temperature was fitted on val" in text
    assert f'alt="Reliability diagram, accuracy over confidence: e{line}' in text
    assert "no temperature was fitted." in render_html(report(), {}, {}, {})


def test_page_escapes_names_from_data() -> None:
    evil = "<script>alert('x')</script>"
    space = LabelSpace((Task("emotion", (evil, '"><img src=x onerror=y>', "sad")),))
    given = predictions(space=space)
    found = report(given, label_space=space, task=space.primary, run=evil, notes=(evil,))
    text = render_html(found, {}, {evil: evil}, {"command": evil, "cpu": {evil: [evil]}})
    assert not {tag for tag, _ in _Page(text).tags} & {"script", "img"}
    assert "&lt;script&gt;" in text


def test_settings_in_warnings_are_code() -> None:
    line = "no more of `a`<b>`; see `augment_max_per_text=3`, `dataset=<i>`, `not a setting`, `samo data <b>`"
    text = render_html(report(notes=(line,)), {}, {}, {})
    assert (
        "<li>no more of <code>a</code>&lt;b&gt;`; see <code>augment_max_per_text=3</code>, "
        "<code>dataset=&lt;i&gt;</code>, `not a setting`, <code>samo data &lt;b&gt;</code></li>"
    ) in text


def test_alt_text_escapes_names(pictures: dict[str, Path]) -> None:
    space = LabelSpace((Task("emotion", ('a" onload="x', "happy", "sad")),))
    found = report(predictions(space=space), label_space=space, task=space.primary)
    images = [attributes for tag, attributes in _Page(render_html(found, pictures, {}, {})).tags if tag == "img"]
    assert all(set(image) == {"src", "alt"} for image in images)


def test_unknown_figures_are_shown_too(pictures: dict[str, Path]) -> None:
    text = render_html(report(), {"reliability_diagram": pictures["roc"]}, {}, {})
    assert "<h2>Reliability diagram</h2>" in text
    assert "Picture: reliability diagram." in text
