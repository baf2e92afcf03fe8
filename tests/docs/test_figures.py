"""What README and docs say was measured is what the files in ``artifacts/reports`` say."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT

from samo.settings import measured_presets

REPORTS = ROOT / "artifacts" / "reports"
CHECK: dict[str, Any] = runpy.run_path(str(REPORTS / "check.py"))


def test_tables_of_plain_thresholds_regenerate_whatever_the_defaults_become() -> None:
    """Measured before thresholds were smoothed and shrunk."""
    ranges = runpy.run_path(str(REPORTS / "goemotions" / "thresholds.py"))["RANGES"].values()
    found = [(each.threshold_shrinkage, each.threshold_smoothing, each.num_thresholds) for each in ranges]
    assert found == [(0.0, 0.0, 20), (0.0, 0.0, 95)]
    script = (REPORTS / "goemotions" / "reproduce.sh").read_text(encoding="utf-8")
    (ranged,) = [line for line in script.splitlines() if line.startswith("ranged=")]
    assert ranged.endswith("--threshold-shrinkage 0 --threshold-smoothing 0)")
    assert all(facts["on"].endswith(", plain thresholds") for facts in measured_presets("text").values())


@pytest.fixture
def texts() -> dict[str, str]:
    found: dict[str, str] = CHECK["read_pages"]()
    return found


def test_pages_and_files_agree(texts: dict[str, str]) -> None:
    """Where they do not: ``python artifacts/reports/check.py --write``, and see what it changed."""
    assert CHECK["differences"](texts) == []
    assert sum(len(claim.figures) for claim in CHECK["claims"]()) > 80


def test_every_figure_of_every_stretch_is_compared(texts: dict[str, str]) -> None:
    """A changed figure is found and repaired; one of each stretch at a time: all first ones, all second ones ..."""
    known = list(CHECK["claims"]())
    for number in range(1, max(len(claim.figures) for claim in known) + 1):
        changed = [claim for claim in known if number <= len(claim.figures)]
        places: dict[str, list[tuple[int, int]]] = {page: [] for page in texts}
        for claim in changed:
            places[claim.page].append(claim.pattern.search(texts[claim.page]).span(number))
        wrong = dict(texts)
        for page, spans in places.items():
            assert len(set(spans)) == len(spans), page  # no figure is another stretch's as well
            for start, end in sorted(spans, reverse=True):
                text = wrong[page]
                wrong[page] = f"{text[:start]}9{text[start:end].lstrip('+-')}{text[end:]}"
        lines = CHECK["differences"](wrong)
        assert len(lines) == len(changed)
        for claim, line in zip(changed, lines, strict=True):
            assert line.startswith(f"{claim.page}: ")
            assert line.endswith(f"the file says {', '.join(claim.figures)}")
        assert CHECK["corrected"](wrong) == texts


def test_a_stretch_that_is_gone_and_a_figure_without_a_file_are_named(texts: dict[str, str]) -> None:
    gone = {**texts, "README.md": texts["README.md"].replace("| SmallCNN from scratch", "| SmallCNN")}
    lines = CHECK["differences"](gone)
    assert lines[0].startswith("README.md: stands 0 times: | SmallCNN from scratch")
    assert all("no file is named for" in line for line in lines[1:])
    more = {**texts, "README.md": texts["README.md"] + "A new network has 0.777, in 12.5 % of cases.\n"}
    assert CHECK["differences"](more) == [
        "README.md: no file is named for 0.777",
        "README.md: no file is named for 12.5 %",
    ]
    page = "docs/limits.md"
    more = {**texts, page: texts[page] + "It is 3 times as quick in 1.5 GB.\n\n```console\n$ samo x --lr 0.123\n```\n"}
    assert CHECK["differences"](more) == [f"{page}: no file is named for {figure}" for figure in ("3 times", "1.5 GB")]


def test_every_page_is_read(texts: dict[str, str]) -> None:
    assert set(texts) == {"README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))}


def test_two_tables_over_the_same_cells_must_agree(texts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECK["losses_apart"].__globals__, "ranges", lambda row: (0.336, 0.357))
    monkeypatch.setitem(CHECK["losses_apart"].__globals__, "losses", lambda row: (0.334, 0.0))
    found = CHECK["losses_apart"]()
    assert len(found) == 8
    assert "goemotions: losses.md has 0.334 for baseline, losses-thresholds.md 0.336" in found


def test_a_record_names_its_command_and_no_place(tmp_path: Path) -> None:
    record = runpy.run_path(str(REPORTS / "record.py"))["main"]
    file = tmp_path / "new" / "kept.txt"
    code = "import sys; print('read', sys.argv[1], '0.5')"
    assert record([str(file), f"DATA={tmp_path}", "--", "python", "-c", code, "DATA"]) == 0
    lines = file.read_text().splitlines()
    assert lines[0] == f"# command: python -c {code} DATA"
    assert [line.split(":")[0] for line in lines[1:4]] == ["# date", "# commit", "# machine"]
    assert lines[4:] == ["read DATA 0.5"]
    assert record([str(tmp_path / "none.txt"), "--", "python", "-c", "raise SystemExit(3)"]) == 3
    assert not (tmp_path / "none.txt").exists()


def test_every_exception_is_used(texts: dict[str, str]) -> None:
    assert len(CHECK["NOT_MEASURED"]) < 10
    for figure in CHECK["NOT_MEASURED"]:
        assert any(figure in text for text in texts.values()), figure


def test_a_digest_stays_beside_its_figure_and_a_changed_preset_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing again does not call a changed preset measured; a new figure does."""
    path = "samo_audio/measured/presets.toml"
    check, written = CHECK["measured_apart"], CHECK["_written"](path)
    before = CHECK["measured"]()[path]
    names = check.__globals__
    monkeypatch.setitem(names, "recipe_digest", lambda modality, preset: f"{preset} of {modality}")
    assert check()[0] == (
        f"{path}: preset 'small-cnn' trains otherwise than it was measured: measure it again, or take it out "
        "of MEASURED"
    )
    assert CHECK["measured"].__wrapped__()[path] == before
    # Neither does a new caveat, which is no figure.
    monkeypatch.setitem(names["CAVEATS"], "whisper-head", "is flattered")
    with_caveat = CHECK["measured"].__wrapped__()[path]
    digest = f'settings = "{written["whisper-head"]["settings"]}"'
    assert with_caveat == before.replace(digest, f'caveat = "is flattered"\n{digest}')
    monkeypatch.delitem(names["CAVEATS"], "whisper-head")
    written["whisper-head"]["macro_f1"] = 0.5
    monkeypatch.setitem(names, "_written", lambda path: written)
    renewed = before.replace(written["whisper-head"]["settings"], "whisper-head of audio")
    assert CHECK["measured"].__wrapped__()[path] == renewed


def test_what_the_frontends_show_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One figure of `samo presets` changed, and one file gone."""
    check = CHECK["measured_apart"]
    assert check() == []
    for path, text in CHECK["measured"]().items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setitem(check.__globals__, "ROOT", tmp_path)
    assert check() == []
    changed, gone = (tmp_path / path for path in CHECK["measured"]())
    changed.write_text(changed.read_text().replace("macro_f1 = 0.", "macro_f1 = 0.9", 1))
    gone.unlink()
    assert [line.partition(": ")[0] for line in check()] == list(CHECK["measured"]())
