"""``samo data inspect`` of texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tone_corpora import done, refused

from samo_text.datasets.demo import SIZES
from samo_text.datasets.emotions import EKMAN


def table(folder: Path) -> Path:
    rows = ["so kind,joy,up", "SO kind,fear,", "quite [new],fear,down", "no,joy,up"]
    (folder / "t.csv").write_text("\n".join(["body,mood,tone", *rows]))
    return folder / "t.csv"


def test_a_table(tmp_path: Path, artifacts: Path) -> None:
    path = table(tmp_path)
    command = [
        "data",
        "inspect",
        "--modality",
        "text",
        "--dataset",
        "table",
        "--data-root",
        path,
        "--text-column",
        "body",
    ]
    printed = done(*command, "--label-columns", "mood,tone", "--json").json
    assert (printed["schema"], printed["dataset"], printed["n"], printed["parts"]) == (1, "table", 4, {"all": 4})
    assert printed["tasks"]["mood"]["by_label"] == {"fear": 2, "joy": 2}
    assert printed["tasks"]["tone"]["unlabelled"] == 1
    assert printed["duplicates"]["inside"]["all"] == {"texts": 1, "extra_rows": 1, "conflicting": 1}
    names = ["class_balance_mood.png", "class_balance_tone.png", "lengths.png"]
    assert [Path(picture).name for picture in printed["pictures"]] == names
    assert all(Path(picture).is_file() for picture in printed["pictures"])
    folder = Path(printed["pictures"][0]).parent
    assert folder.parent == artifacts.relative_to(Path.cwd()) / "inspect"
    assert re.fullmatch(r"table-[a-z]+-[0-9a-f]{6}", folder.name)
    shown = done(*command, "--label-columns", "mood").out.splitlines()
    assert shown[0] == f"table in {tmp_path}: 4 texts"
    assert "mood: 2 labels, one holds" in shown
    assert [line.split() for line in shown if line.startswith(("mood ", "joy", "rows"))] == [
        ["mood", "all", "share"],
        ["joy", "2", "50.0%"],
        ["rows", "4"],
    ]
    assert "words 1 / 2 / 1.8 / 2 / 2 (min / median / mean / 95 % / max)" in shown
    assert "placeholders in 0.0% of texts" in shown
    assert any(line.startswith("! 1 text stands several times in all") for line in shown)


@pytest.mark.slow
def test_the_demo_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("samo_text.inspection.draw", lambda *_: [])
    result = done("data", "inspect", "--modality", "text", "--mode", "ekman")
    assert result.err.startswith("· Data: the built-in demo corpus (synthetic sentences), as no GoEmotions was found.")
    lines = result.out.splitlines()
    assert lines[0] == "demo: 8,000 texts  synthetic demo data"
    assert lines[2].split() == ["ekman", *SIZES, "all", "share"]
    assert [line.split()[0] for line in lines[4:11]] == list(EKMAN)
    assert max(len(line) for line in lines[:-1] if not line.startswith("!")) <= 80


def test_settings_of_the_other_modality_are_refused(tmp_path: Path) -> None:
    line = refused(2, "data", "inspect", "--text-column", "body")
    assert "--text-column is no setting of --modality audio (hint: it belongs to --modality text)" in line
    line = refused(2, "data", "inspect", "--modality", "text", "--speaker-pattern", "x")
    assert "--speaker-pattern is no setting of --modality text" in line
    path = table(tmp_path)
    line = refused(3, "data", "inspect", "--modality", "text", "--dataset", "table", "--data-root", path)
    assert "no column 'text'; it has: body, mood, tone" in line
    assert "'video'" in refused(2, "data", "inspect", "--modality", "video")
