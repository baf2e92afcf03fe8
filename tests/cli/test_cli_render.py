"""What is drawn: tables on narrow terminals, names that look like markup, the bar of a training."""

from __future__ import annotations

import importlib
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tone_corpora import TINY

from samo.launch.local import Outcome
from samo.printable import PlainWriter, json_escaped, plain_cell, printable
from samo.training.training_log import epoch_line
from samo_cli import importing
from samo_cli.importing import announced_imports
from samo_cli.render import (
    GridView,
    TrainingView,
    note,
    out,
    print_json,
    show_inspection,
    show_report,
    show_table,
    training_panel,
)
from samo_cli.render.grid import last_line, progress_of


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    sheet = io.StringIO()
    monkeypatch.setattr(out, "_file", sheet)
    monkeypatch.setattr(out, "_width", 80)
    return sheet


def report(labels: list[str], **more: Any) -> dict[str, Any]:
    n = len(labels)
    row = {"precision": 0.5, "recall": None, "f1": 0.5, "roc_auc": None, "average_precision": 0.1, "support": 2}
    return {
        "run": "r", "dataset": "d", "synthetic": False, "split": "test", "split_rule": "speaker", "leaky": False,
        "n": 2 * n, "labels": labels,
        "metrics": dict.fromkeys(("macro_f1", "uar", "accuracy", "micro_f1", "weighted_f1"), 0.5),
        "ci": {"macro_f1": [0.25, 0.75], "accuracy": None, "level": 0.95, "unit": "speaker", "method": "wilson"},
        "per_class": dict.fromkeys(labels, row),
        "confusion": [[int(i == k) for k in range(n)] for i in range(n)],
        "most_confused": [{"true": labels[0], "predicted": labels[1], "count": 3, "share": 0.5}],
        "by_group": {"speaker": {"01": {"macro_f1": 0.5}, "02": {"macro_f1": None}}},
        "train_macro_f1": None, "val_macro_f1": 0.25, "warnings": [],
        "macro_f1_present": None, "macro_f1_frequent": None, "thresholds": None, "tasks": {}, "baseline": None,
        "calibration": {"ece": 0.125, "ece_uncalibrated": 0.25, "temperature": 2.0, "fitted_on": "val"},
        **more,
    }  # fmt: skip


def drawn(paper: io.StringIO, facts: dict[str, Any]) -> list[str]:
    show_report(facts, Path("/runs/r/report.html"), Path("/runs/r/figures"))
    return paper.getvalue().splitlines()


@pytest.mark.parametrize("n", [2, 8, 11])
def test_confusion_fits_with_heads_that_can_be_told_apart(paper: io.StringIO, n: int) -> None:
    labels = [f"{letter * 3}{'emotion' * 2}" for letter in "abcdefghijklmnop"[:n]]
    lines = drawn(paper, report(labels))
    place = next(k for k, line in enumerate(lines) if line.startswith("confusion"))
    heads = lines[place + 1].split()
    assert len(set(heads)) == n
    assert all(label.startswith(head) for label, head in zip(labels, heads, strict=True))
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)


def test_many_classes_are_summed_up(paper: io.StringIO) -> None:
    lines = drawn(paper, report([f"emotion-{k:02d}" for k in range(28)]))
    place = next(k for k, line in enumerate(lines) if line.startswith("most often confused"))
    assert lines[place + 3].split() == ["emotion-00", "emotion-01", "3", "50%"]


def test_what_is_undefined_is_a_dash_and_names_are_not_markup(paper: io.StringIO) -> None:
    lines = drawn(
        paper,
        report(
            ["[red]", "b"], by_group={"[x]": {"[/y]": {"macro_f1": None}, "z": {"macro_f1": 0.5}}}, warnings=["[bold]w"]
        ),
    )
    text = "\n".join(lines)
    for piece in ("[red]", "macro-F1 by [x]: [/y] -, z 0.50", "! [bold]w", "0.250 to 0.750"):
        assert piece in text


def test_stamps_are_drawn(paper: io.StringIO) -> None:
    lines = drawn(paper, report(["a", "b"], synthetic=True, leaky=True, split="all"))
    assert lines[1] == "r on d, whole corpus: 4 items (split: speaker)"
    assert lines[2:4] == ["synthetic demo data", "LEAKY SPLIT"]


def test_absent_classes(paper: io.StringIO) -> None:
    facts = report(["calm", "happy", "sad"])
    facts["per_class"] = {**facts["per_class"], "sad": {**facts["per_class"]["sad"], "support": 0}}
    facts["macro_f1_present"] = {"n_classes": 2, "value": 0.75, "interval": [0.625, 0.875]}
    lines = drawn(paper, facts)
    first = next(place for place, line in enumerate(lines) if line.startswith("metric")) + 2
    assert " ".join(lines[first].split()) == "macro-F1 over the 2 of 3 classes present 0.750 0.625 to 0.875"
    assert " ".join(lines[first + 1].split()) == "macro-F1 over all 3 classes 0.500 0.250 to 0.750"
    place = lines.index("per class")
    assert [line.split()[0] for line in lines[place + 3 : place + 6] if line] == ["calm", "happy"]
    assert max(map(len, lines)) <= 80


def test_zero_is_one_symbol_in_the_confusion(paper: io.StringIO) -> None:
    lines = drawn(paper, report(["calm", "happy", "sad"], confusion=[[0, 2, 0], [1, 0, 0], [0, 0, 3]]))
    place = next(k for k, line in enumerate(lines) if line.startswith("confusion"))
    assert [line.split() for line in lines[place + 3 : place + 6]] == [
        ["calm", "·", "2", "·"], ["happy", "1", "·", "·"], ["sad", "·", "·", "3"],
    ]  # fmt: skip


def test_groups_of_one_value_are_not_broken_down(paper: io.StringIO) -> None:
    one, two = {"1": {"macro_f1": 0.5}}, {"f": {"macro_f1": 0.5}, "m": {"macro_f1": 0.25}}
    text = "\n".join(drawn(paper, report(["a", "b"], by_group={"repetition": one, "gender": two})))
    assert "macro-F1 by gender: f 0.50, m 0.25" in text
    assert "repetition" not in text


def test_calibration_is_one_line(paper: io.StringIO) -> None:
    line = "expected calibration error 0.125; without the temperature of 2.00 it is 0.250"
    assert drawn(paper, report(["a", "b"])).count(line) == 1


def test_inspection_of_many_speakers_and_classes(paper: io.StringIO) -> None:
    def found(speakers: int, classes: int) -> dict[str, Any]:
        by_class = {f"class-{k:02d}": speakers for k in range(classes)}
        spread = {"min": 0.0, "median": 0.0, "max": 0.0, "total": 0.0}
        return {
            "dataset": "d", "root": "/[r]", "synthetic": True, "n": speakers * classes, "by_class": by_class,
            "by_speaker": {f"s{k}": classes for k in range(speakers)},
            "class_by_speaker": {f"s{k}": dict.fromkeys(by_class, 1) for k in range(speakers)},
            "duration_s": spread, "level": {"rms_db": spread, "peak": spread},
            "native": {"sample_rates": {"8000": 1}, "channels": {"1": 1}}, "warnings": [],
        }  # fmt: skip

    show_inspection(found(60, 3), Path("/p"))
    text = paper.getvalue()
    assert "d in /[r]: 180 clips  synthetic demo data" in text
    assert "... and 10 more speakers" in text
    show_inspection(found(3, 40), Path("/p"))
    assert re.search(r"class-39 +3$", paper.getvalue(), re.MULTILINE)


def test_why_a_cell_failed_is_told_in_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with GridView(1, "macro_f1", lambda _: None) as view:
        view.on_start("a")
        view.on_end(Outcome("a", "failed", "SettingsError: `lr` [x] acts only with `split=folds`; label `happy`", 1.0))
    printed = capsys.readouterr().err
    assert printed == "[1/1] a  failed  SettingsError: --lr [x] acts only with --split folds; label `happy`  1 s\n"


def test_a_running_cell_shows_what_its_log_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"epoch": 3, "train_loss": 1.0, "val_loss": 2.0, "val_macro_f1": 0.5, "seconds": 20.0}
    line = epoch_line(row, 10) + " * best"
    assert progress_of(line) == (3, 10, "140 s left  ".replace("140 s", "2 min"))
    assert progress_of(epoch_line({**row, "epoch": 10}, 10)) == (10, 10, "evaluating  ")
    # A model that takes no steps has one epoch, whatever the settings of others say.
    assert progress_of(epoch_line({**row, "epoch": 1, "lr": 0.0}, 10)) == (1, 1, "evaluating  ")
    assert progress_of(epoch_line({**row, "epoch": 1, "lr": 0.1}, 10))[:2] == (1, 10)
    assert progress_of("epoch 1: step 2/9, loss 1.00") == (0, None, "")
    (tmp_path / "a.log").write_text(f"epoch 1: step 1/9, loss 1.00\n{line}\n\n")
    assert last_line(tmp_path / "a.log") == line
    assert last_line(tmp_path / "none.log") == ""
    with GridView(2, "macro_f1", lambda _: 0.5, "test", tmp_path) as view:
        view.on_start("a")
        view.on_start("b")
        task = view._running["a"]
        for _ in range(2):  # the same line is not repeated
            view._look_at("a", task, repeat=True)
        shown = view._progress.tasks[1]
        assert (shown.completed, shown.total, shown.fields["left"]) == (3, 10, f"2 min left  {line}")
        view.on_end(Outcome("a", "done", "", 100.0))
        assert view._progress.tasks[0].fields["left"] == "50 s left"
        view.on_end(Outcome("b", "done", "", 100.0))
        # What is left when no cell is left is the report, not a time of 0 s.
        assert view._progress.tasks[0].fields["left"] == ""
        view._look_at("a", task, repeat=False)
    assert capsys.readouterr().err.splitlines() == [
        f"· logs: {tmp_path}",
        f"a: {line}",
        "[1/2] a  done  test macro-F1 0.500  2 min",
        "[2/2] b  done  test macro-F1 0.500  2 min",
    ]


def test_slow_imports_are_named_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slow_library.py").write_text("import sys\nsys.stderr.write('<imported>')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(importing, "SLOW", frozenset({"slow_library"}))
    before = list(sys.meta_path)
    with announced_imports():
        importlib.import_module("slow_library")
    assert capsys.readouterr().err == "<imported>"
    del sys.modules["slow_library"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with announced_imports():
        importlib.import_module("slow_library")
    assert capsys.readouterr().err == "loading slow_library ...<imported>\r" + " " * 24 + "\r"
    assert sys.meta_path == before


def test_panel_names_the_next_command() -> None:
    facts = {
        "run": "r", "folder": "/[a]/r", "synthetic": True, "leaky": True, "epochs": 3, "best_epoch": 1,
        "val_macro_f1": 0.5,
    }  # fmt: skip
    sheet = io.StringIO()
    Console(file=sheet, width=80).print(training_panel(facts, 5, "samo evaluate r --artifacts '[a]'"))
    text = sheet.getvalue()
    for piece in (
        "best epoch 1 of 3 (stopped early, 5 were allowed): validation macro-F1 0.500",
        "synthetic demo data",
        "LEAKY SPLIT",
        "kept in /[a]/r",
        "next:   samo evaluate r --artifacts '[a]'",
    ):
        assert piece in text


def test_panel_names_the_last_epoch_where_it_counts() -> None:
    facts = {"run": "r", "folder": "/r", "synthetic": False, "leaky": False, "epochs": 5, "best_epoch": 5}
    sheet = io.StringIO()
    Console(file=sheet, width=80).print(training_panel({**facts, "keep": "last", "val_macro_f1": 0.5}, 5, "next"))
    assert "last epoch 5 of 5: validation macro-F1 0.500" in sheet.getvalue()
    facts = {**facts, "epochs": 8, "best_epoch": 8, "keep": "average", "val_macro_f1": 0.5}
    Console(file=sheet, width=80).print(training_panel(facts, 8, "next"))
    assert "average over the last quarter of 8 epochs: validation macro-F1 0.500" in sheet.getvalue()


def test_training_view_goes_on_where_a_history_ends(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"epoch": 1, "train_loss": 1.0, "val_loss": 2.0, "val_macro_f1": 0.5, "seconds": 0.1}
    with TrainingView(10, [row]) as view:
        view.on_step(1, 1, 4, 1.5)
        view.on_epoch({**row, "epoch": 2, "val_macro_f1": 0.25}, False)
        view.on_epoch({**row, "epoch": 3, "val_macro_f1": 0.75}, True)
    begins, first, second = capsys.readouterr().err.splitlines()
    assert begins == "epoch 2: step 1/4, loss 1.50"
    assert first == "epoch  2/10  loss 1.0000  val loss 2.0000  val macro-F1 0.2500  0.1 s"
    assert second.endswith("val macro-F1 0.7500  0.1 s * best")
    assert view.best == 0.75


def test_without_a_terminal_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 29.9, 30.0, 31.0, 60.0])
    monkeypatch.setattr("samo_cli.render.training.time.monotonic", lambda: next(clock))
    with TrainingView(2) as view:
        for step in range(1, 6):
            view.on_step(step > 3, step, 5, 1.934)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1: step 1/5, loss 1.93",
        "epoch 1: step 3/5, loss 1.93",
        "epoch 2: step 5/5, loss 1.93",
    ]


def on_terminal(argv: list[str], **env: str) -> str:
    """Everything a command writes to a terminal of 80 columns."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "samo_cli", *argv],
        stdin=side, stdout=side, stderr=side, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **env},
    )  # fmt: skip
    os.close(side)
    seen = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(main)
    assert process.wait(timeout=60) == 0, seen
    return seen.decode()


@pytest.mark.slow
def test_on_a_terminal(clips: Path) -> None:
    shown = on_terminal(["train", "--data-root", str(clips), *TINY, "--epochs", "30", "--name", "t"], NO_COLOR="1")
    assert "━" in shown
    assert re.search(r"epoch \d+/30 .*loss \d\.\d{3}  val F1 0\.\d{3} \(best 0\.\d{3}\)", shown)
    assert re.search(r"\d:\d\d:\d\d left", shown)
    assert "samo evaluate t" in shown
    # NO_COLOR leaves bold and cursor movements, and nothing that sets a colour.
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3[0-7]|38;|9[0-7])", shown)


def test_thresholds_tasks_and_baseline_fit_80_columns(paper: io.StringIO) -> None:
    labels = ["calm", "sad"]
    rule = {"macro_f1": 0.5, "interval": [0.4, 0.6], "val_macro_f1": 0.55, "gain": 0.01, "val_gain": 0.04}
    block = {"used": "per-class", "global": 0.25, "rules": {"half": rule, "global": rule, "per-class": rule}}
    task = {"labels": labels, "n": 4, "metrics": {"macro_f1": 0.5, "accuracy": 0.25}, "ci": {"macro_f1": None}}
    gap = {"value": 0.1, "low": 0.05, "high": 0.15, "verdict": "better"}
    facts = report(
        labels, thresholds=block, overall_macro_f1=0.375,
        tasks={"[b]tags": {**task, "thresholds": block}, "mood": {**task, "thresholds": None}},
        baseline={"name": "tfidf", "macro_f1": 0.4, "ci": [0.3, 0.5], "difference": gap},
        macro_f1_frequent={"n_classes": 1, "least_rows": 50, "value": 0.625, "interval": None},
    )  # fmt: skip
    for row in facts["per_class"].values():
        row["threshold"] = 0.123
    lines = drawn(paper, facts)
    text = "\n".join(line.rstrip() for line in lines)
    assert "baseline tfidf 0.400 [0.300, 0.500]; this run +0.100 [+0.050, +0.150]: better" in lines
    assert re.search(r"^macro-F1 over the 1 class with 50\+ rows +0\.625$", text, re.M)
    assert "chosen on validation they gained +0.040 there and +0.010 here (25 % of it)" in " ".join(text.split())
    assert re.search(r"^per class \*  +0\.500  \[0\.400, 0\.600\]  \+0\.010 +0\.550 +\+0\.040$", text, re.M)
    assert re.search(r"^global 0\.25 +0\.500", text, re.M)
    assert re.search(r"^\[b\]tags +2 +4 +0\.500 +- +0\.250 +per class$", text, re.M)
    assert re.search(r"^mean over tasks +0\.375$", text, re.M)
    assert re.search(r"^calm +0\.500 .* 2 +0\.12$", text, re.M)
    assert re.search(r"^macro-F1 on validation +0\.250$", text, re.M)
    before = drawn(paper, {**facts, "ci": {**facts["ci"], "method": "percentile"}})
    assert any(line.startswith("macro-F1 on validation (one threshold)") for line in before)
    tables = [line for line in lines if not line.startswith(("report:", "thresholds (", "r on"))]
    assert max(map(len, tables)) <= 90


HOSTILE = "a\x1b]0;owned\x07b\x9b2Jc\u202ed\re\tf"
PRINTED = "a\ufffd]0;owned\ufffdb\ufffd2Jc\ufffdd\ufffde"


def test_no_name_steers_the_terminal(paper: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(HOSTILE) == PRINTED + "\tf"
    assert printable("Zoe\u0308 \U0001f600\u200d\n") == "Zoe\u0308 \U0001f600\u200d\n"
    show_table(("name",), [(HOSTILE,)])
    out.print(HOSTILE, markup=False)
    labels = [f"x{HOSTILE}", "y"]
    drawn(paper, report(labels, dataset=HOSTILE))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", paper.getvalue())
    assert paper.getvalue().count("a\ufffd]0;owned") >= 3
    note(HOSTILE)
    print_json({"name": HOSTILE})
    printed = capsys.readouterr()
    assert "a\ufffd]0;owned" in printed.err
    assert not re.search("[\x1b\x9b\u202e]", printed.err + printed.out)
    assert json.loads(printed.out) == {"name": HOSTILE}
    assert json_escaped('"\x9b"') == '"\\u009b"'


def test_no_cell_is_a_formula() -> None:
    assert [plain_cell(text) for text in ("=cmd()", "+1", "-1", "@x", "\tx", "a=b", "")] == [
        "'=cmd()", "'+1", "'-1", "'@x", "'\tx", "a=b", "",
    ]  # fmt: skip
    sheet = io.StringIO()
    PlainWriter(sheet).writerow(["=cmd()", -0.5, "x\x1b"])
    assert sheet.getvalue() == "'=cmd(),-0.5,x\x1b\n"
    sheet.isatty = lambda: True  # type: ignore[method-assign]
    PlainWriter(sheet).writerow(["x\x1b"])
    assert sheet.getvalue().splitlines()[1] == "x\ufffd"


def test_help_without_colours_has_no_control_codes() -> None:
    assert "\x1b" not in on_terminal(["presets", "--help"], NO_COLOR="1")
