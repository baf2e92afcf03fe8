"""The core says ``focal_loss`` and no flags; the terminal says ``--focal-loss``."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import samo
import samo_audio
import samo_text
from samo.errors import SettingsError
from samo.modalities import config_types
from samo_cli import main
from samo_cli.flags import as_flags, flag_names
from samo_cli.render import console

CORE = [
    path
    for package in (samo, samo_audio, samo_text)
    for folder in package.__path__
    for path in sorted(Path(folder).rglob("*.py"))
]
# Commands of other programs, the help of our own, and a whole command of how to get a report again.
NO_FLAGS_OF_OURS = re.compile(
    r"(?:ray start|sox) --[a-z-]+|--(?:always|dirty|abbrev=40|exclude=\*)$|--help\b|^ --on val$"
)
# Whole files that other programs read: a Dockerfile, a script, a page that shows how to run it.
OTHER_PROGRAMS = {"package_files.py", "reference.py"}
# A role such as :func:`x` is none.
NAMED = re.compile(r"(?<![`:])`([a-z][a-z0-9_]*)(?:=[^`]*)?`(?!`)")


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each string; what an f-string fills in stands as ``\\0``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values),
            )
        elif isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
            yield node.lineno, node.left.value + "\0"
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, node.value


@cache
def core_literals() -> list[tuple[Path, int, str]]:
    """The strings of all files of the core, with their file and line; read once."""
    return [(path, line, text) for path in CORE for line, text in literals(path)]


def flags_in(text: str) -> list[str]:
    return re.findall(r"(?<![\w:-])--[a-z\0][\w-]*", NO_FLAGS_OF_OURS.sub("", text))


def test_a_flag_is_found_wherever_it_stands(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(
        '"see --lr"\nf"--{x} {y} --on {z}"\n"--" + x\nstyle = "--"\n"sox --ignore-length a"\n"`lr` -- or not"\n'
    )
    found = [(line, flag) for line, text in literals(source) for flag in flags_in(text)]
    assert sorted(found) == [(1, "--lr"), (2, "--\0"), (2, "--on"), (3, "--\0")]


def test_the_core_says_nothing_of_flags() -> None:
    assert len(CORE) > 100
    own = [each for each in core_literals() if each[0].name not in OTHER_PROGRAMS]
    found = [f"{path}:{line}: {text}" for path, line, text in own if flags_in(text)]
    assert found == []


def test_whatever_the_core_names_in_backquotes_is_a_flag() -> None:
    found = {(path.name, name) for path, _, text in core_literals() for name in NAMED.findall(text)}
    assert len(found) > 100
    assert {entry for entry in found if entry[1] not in flag_names()} == set()


def test_every_setting_is_known_and_options_of_verbs_are() -> None:
    names = flag_names()
    assert {field.name for config in config_types().values() for field in config.fields()} <= names
    assert {"on", "name", "resume", "label_map", "out", "storage", "data_root"} <= names
    assert not {"happy", "train", "sad", "label", "grid"} & names


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("`focal_gamma` acts only together with `focal_loss`", "--focal-gamma acts only together with --focal-loss"),
        (
            "use `split=folds`, or `use_bn=False` with `focal_loss=True`",
            "use --split folds, or --no-use-bn with --focal-loss",
        ),
        ("`lr` -1: too small", "--lr -1: too small"),
        ("`split_column=` leaves it alone", "--split-column '' leaves it alone"),
        ("`label_map=joy=happy,fear=-`", "--label-map joy=happy,fear=-"),
        ("`data_root=my clips`", "--data-root 'my clips'"),
        ("go on with: `resume=mine`", "go on with: samo train --resume mine"),
        ("`samo data download ravdess`, or `data_root=FOLDER`", "`samo data download ravdess`, or --data-root FOLDER"),
        # What is not ours stays.
        ("label `happy` in `a.wav` of `sad=1`", "label `happy` in `a.wav` of `sad=1`"),
        ("`HF_HOME`, `max length`, ``lr``, ```lr```", "`HF_HOME`, `max length`, ``lr``, ```lr```"),
        ("one ` alone, `lr", "one ` alone, `lr"),
        ("", ""),
    ],
)
def test_as_flags(said: str, typed: str) -> None:
    assert as_flags(said) == typed


def test_own_words_need_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked() -> frozenset[str]:
        raise AssertionError

    monkeypatch.setattr("samo_cli.flags.flag_names", looked)
    assert as_flags("with `any_thing=1`", own_words=True) == "with --any-thing 1"
    assert as_flags("no backquotes, `two words`") == "no backquotes, `two words`"
    with pytest.raises(AssertionError):
        as_flags("`lr`")


def test_notes_logs_and_errors_are_printed_as_flags(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console.note("see `lr`, label `happy` [x]")
    with main._notes_from_libraries():
        logging.getLogger("a").warning("see `max_tokens=%d`", 8)
    assert main._explain(SettingsError("`lr` is odd", hint="try `lr=1`"), "train") == 2
    printed = capsys.readouterr().err.splitlines()
    assert printed == ["· see --lr, label `happy` [x]", "· see --max-tokens 8", "error: --lr is odd (hint: try --lr 1)"]
