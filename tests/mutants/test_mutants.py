"""The planted bugs of ``make mutants``: that each still applies, and that the script tells killed from survived."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import run_mutants
from run_mutants import ROOT, Mutant, read_mutants

MODULES = (
    "samo/training/losses.py", "samo/training/trainer.py", "samo/evaluation/metrics.py",
    "samo/evaluation/statistics.py", "samo/evaluation/significance.py", "samo/evaluation/decision.py",
    "samo/evaluation/thresholds.py", "samo/evaluation/calibration.py", "samo/data/splits.py", "samo/data/sampling.py",
    "samo/ensembles/ensemble.py", "samo/experiments/crossval.py", "samo/runs/evaluate.py", "samo_audio/predictor.py",
    "samo_text/predictor.py",
)  # fmt: skip


def test_every_mutant_applies() -> None:
    """An old line that is gone: write the mutant anew for the line that took its place."""
    found = read_mutants()
    assert len({mutant.name for mutant in found}) == len(found) > 150
    assert set(MODULES) <= {mutant.file for mutant in found}
    texts = {mutant.file: (ROOT / mutant.file).read_text(encoding="utf-8") for mutant in found}
    stale = []
    for mutant in found:
        try:
            text = mutant.applied(texts[mutant.file])
        except ValueError as error:
            stale.append(str(error))
            continue
        assert text != texts[mutant.file], mutant.name
        compile(text, mutant.file, "exec")
        assert all((ROOT / test).is_file() for test in mutant.tests), mutant.name
    assert stale == []


def test_an_old_line_must_stand_there_once() -> None:
    mutant = Mutant("m", "a.py", "x = 1", "x = 2", ())
    assert mutant.applied("x = 1\ny = 1\n") == "x = 2\ny = 1\n"
    for text, times in (("y = 1\n", 0), ("x = 1\nx = 1\n", 2)):
        with pytest.raises(ValueError, match=f"m: the old line stands {times} times in a.py"):
            mutant.applied(text)


SOURCE = "def double(x):\n    return 2 * x\n\n\ndef half(x):\n    return x / 2\n"
TEST = "from samo.numbers import double, half\n\n\ndef test_double():\n    assert double(3) == 6\n"
TABLE = """
[[module]]
file = "samo/numbers.py"
tests = ["tests/test_numbers.py"]
[module.mutants]
seen = ['2 * x', '3 * x']
unseen = ['x / 2', 'x / 3']
{more}
"""


def started(root: Path, more: str = "", test: str = TEST, *argv: str) -> tuple[int, str]:
    """Run the script on a tree of one module; numbers, not ``samo``'s own code, are what it changes."""
    for name, text in {"samo/__init__.py": "", "samo/numbers.py": SOURCE, "tests/test_numbers.py": test}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['slow']\n")
    (root / "table.toml").write_text(TABLE.format(more=more))
    command = [sys.executable, run_mutants.__file__, "--root", str(root), "--table", str(root / "table.toml"), *argv]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*command, "--preload", "pytest"], env=bare, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_what_is_killed_what_survives_and_what_is_an_error(tmp_path: Path) -> None:
    status, printed = started(tmp_path, "broken = ['def half', 'def haIf']")
    assert status == 2
    assert "1 of 3 mutants killed: 33.3 %" in printed
    assert printed.splitlines()[-2:] == ["survived: unseen", "error: broken"]
    status, printed = started(tmp_path, "", TEST, "seen", "-j", "2", "--least", "60")
    assert (status, printed.splitlines()[-1]) == (1, "survived: unseen")  # one of two is half
    assert "1 of 2 mutants killed: 50.0 %" in printed
    assert (tmp_path / "samo" / "numbers.py").read_text() == SOURCE


def test_tests_that_fail_anyway_and_lines_that_are_gone_say_nothing(tmp_path: Path) -> None:
    status, printed = started(tmp_path, "", TEST.replace("== 6", "== 7"))
    assert status == 2
    assert "tests fail on the tree as it is" in printed
    assert "killed" not in printed
    status, printed = started(tmp_path, "gone = ['5 * x', '6 * x']")
    assert (status, printed) == (2, "gone: the old line stands 0 times in samo/numbers.py: '5 * x'\n")
