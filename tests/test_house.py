"""Rules for the whole tree: no circles of imports, install hints with the distribution's name, tests that exist."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import samo

ROOT = Path(__file__).resolve().parent.parent
HOUSE: dict[str, Any] = runpy.run_path(str(ROOT / "benchmarks" / "house.py"))
LANES: dict[str, Any] = runpy.run_path(str(ROOT / "tests" / "conftest.py"))
# On the package index `samo` is somebody else's tool.
FOREIGN = re.compile(
    r"pip3? install[^\n]*?[\s\"'`]samo(?![-\w./])|\bsamo\[(?:train|track|tune|cluster|serve|export|mic|bulk|dev|all)\b"
)


def graph_of(root: Path) -> dict[str, set[str]]:
    files = HOUSE["source_files"](root)
    trees = {path: HOUSE["ast"].parse(path.read_text()) for path in files.values()}
    found: dict[str, set[str]] = HOUSE["imports"](files, trees)
    return found


def test_no_modules_import_each_other() -> None:
    graph = graph_of(ROOT)
    assert len(graph) > 100
    assert HOUSE["circles"](graph) == []


def test_files_are_parsed_in_one_place() -> None:
    """A hundred thousand brackets are a RecursionError anywhere else."""
    # Messages between processes of one call, what a library printed, and the text of a program that a package holds.
    own = {
        "samo/files.py", "samo/launch/worker.py", "samo/launch/local.py", "samo_text/tokens.py",
        "samo/deploy/package_files.py",
    }  # fmt: skip
    found = {
        path.relative_to(ROOT).as_posix()
        for package in ("samo", "samo_audio", "samo_text", "cli")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\bjson\w*\.loads?\(", path.read_text())
    }
    assert found == own


def test_circles_inside_functions_are_found_and_those_of_types_are_none(tmp_path: Path) -> None:
    package = tmp_path / "samo"
    (package / "room").mkdir(parents=True)
    contents = {
        "__init__.py": "",
        "room/__init__.py": "from samo.room.a import f\n",
        "room/a.py": "def f():\n    from samo import b\n",
        "b.py": "class B:\n    def g(self):\n        import samo.c\n",
        "c.py": "from .room.a import f\n",
        "d.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from samo.e import x\n",
        "e.py": "from samo.d import y\n",
    }
    for name, text in contents.items():
        (package / name).write_text(text)
    graph = graph_of(tmp_path)
    assert graph["samo.room.a"] == {"samo.b"}
    assert graph["samo.d"] == set()
    assert HOUSE["circles"](graph) == [["samo.b", "samo.c", "samo.room.a"]]


def test_words_and_lengths_are_counted(tmp_path: Path) -> None:
    (tmp_path / "samo").mkdir()
    body = "\n".join(["    pass"] * 60)
    text = f'"""What was said."""\n\n\ndef judge_all(asked):\n    return asked.was_said\n\n\ndef long():\n{body}\n'
    (tmp_path / "samo" / "a.py").write_text(text)
    trees = {path: HOUSE["ast"].parse(path.read_text()) for path in HOUSE["source_files"](tmp_path).values()}
    assert dict(HOUSE["words"](trees)) == {"judge": 1, "asked": 2, "said": 1}
    assert list(HOUSE["long_functions"](tmp_path, trees)) == ["samo/a.py: long 61, 60 below its docstring"]
    assert list(HOUSE["long_files"](tmp_path, trees)) == []


def sources() -> list[Path]:
    """Every file of text that is kept in git, or in the tree where there is no git."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    kept = [ROOT / line for line in listed.splitlines()]
    if not kept:
        places = ("samo", "samo_audio", "samo_text", "cli", "tests", "benchmarks", "docs", ".github")
        kept = [path for place in places for path in (ROOT / place).rglob("*")] + list(ROOT.glob("*.*"))
    kinds = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".jinja", ".cff"}
    return [path for path in kept if path.is_file() and (path.suffix in kinds or path.name == "Makefile")]


# The command's name is a stranger's distribution; put in below, so that the rule holds for this file too.
COMMAND = "samo"


def test_install_hints_name_this_distribution() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if FOREIGN.search(line)
    ]
    assert len(sources()) > 200
    assert found == []


@pytest.mark.parametrize(
    ("line", "foreign"),
    [
        (f"hint='pip install \"{COMMAND}[tune]\"'", True),
        (f"pip install {COMMAND}", True),
        (f"`pip install -U {COMMAND}` again", True),
        (f"pip3 install {COMMAND}==0.2.4", True),
        (f'needs "{COMMAND}[track]"', True),
        ('pip install "samo-emotion[tune]"', False),
        ("pip install -e .", False),
        ("pip install ./samo", False),
        ("the samo command", False),
        ("after pip install -c constraints.txt samo-emotion", False),
    ],
)
def test_what_a_foreign_install_hint_is(line: str, foreign: bool) -> None:
    assert bool(FOREIGN.search(line)) == foreign


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {samo.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_long_files_exist() -> None:
    names = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(LANES["LONG"]) <= names


def test_a_slow_test_without_the_mark_is_named() -> None:
    lanes, lines = LANES["Lanes"](), []
    used = {"a": (0.5, {}), "b": (LANES["QUICK_S"] + 1, {}), "c": (30.0, {"slow": True})}
    for name, (seconds, keywords) in used.items():
        for when in ("setup", "call"):
            properties = [(LANES["SPENT"], seconds)] if when == "call" else []
            report = SimpleNamespace(when=when, user_properties=properties, keywords=keywords, nodeid=name)
            lanes.pytest_runtest_logreport(report)
    lanes.pytest_terminal_summary(SimpleNamespace(write_line=lines.append))
    assert lines[0] == f"CPU seconds of tests: {0.5 + LANES['QUICK_S'] + 1:.0f} quick, 30 slow"
    assert [line.split()[1] for line in lines[1:]] == ["b"]
