"""README and docs are true: their blocks run, their flags and links exist, and so do the examples in docstrings."""

from __future__ import annotations

import contextlib
import doctest
import functools
import importlib
import io
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from pages import PAGES, ROOT, Block, Command, anchors_of, blocks_of, inline_of, links_of
from tone_corpora import folder, pitch, ravdess, table, table_rows, tone
from tone_corpora import samo as run_samo

import samo
import samo_audio
import samo_cli
import samo_text
from samo import plugins
from samo.lazy import load_object

# What is added to trainings on the pages, in commands and in calls, where they do not say it themselves: tiny networks
# on few features, so that a training takes a second. What a page says stays.
QUICK: dict[str, dict[str, Any]] = {
    "audio": {
        "n_mels": 32, "sr": 8000, "duration": 0.5, "n_fft": 256, "hop_length": 64, "width": 4, "epochs": 1,
        "batch_size": 16, "threads": 1, "precision": "float32",
    },
    "text": {
        "hash_buckets": 256, "embedding_width": 8, "filters": 4, "epochs": 1, "batch_size": 64, "threads": 1,
        "precision": "float32",
    },
}  # fmt: skip
# The demo corpus of texts has 8,000: a share of them is enough.
QUICK_DEMO = {"limit_fraction": 0.05}
TRAIN = {"train", "ablate", "crossval", "learning-curve", "tune"}
GRIDS = {"ablate", "crossval", "learning-curve"}
PLAIN = {"data", "presets", "runs", "doctor", "compare", "drift"}
# Pages whose trainings belong in the slow lane.
SLOW = {
    "README.md",
    "getting-started.md",
    "your-own-data.md",
    "experiments.md",
    "python-api.md",
    "live.md",
    "monitoring.md",
}
MAKE = re.compile(r"^([a-z]+):", re.MULTILINE)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def runnable(page: Path) -> list[Block]:
    """The blocks that this file runs or writes."""
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    return [block for block in blocks if block.file or (block.kind in ("console", "python") and not skipped(block))]


def skipped(block: Block) -> bool:
    return block.mark in ("not run", "run by")


# Running the pages


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RAVDESS's names and 24 speakers, in tones of half a second; a cache beside it."""
    root = tmp_path_factory.mktemp("corpora")
    ravdess(root / "ravdess", range(1, 25))
    return root


@pytest.fixture
def work(tmp_path: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the clips, tables and texts that pages speak of."""
    for name in ("SAMO_TEXT_DATA_ROOT", "SAMO_TRACKER", "SAMO_DEBUG", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAMO_DATA_ROOT", str(corpora / "ravdess"))
    monkeypatch.setenv("SAMO_CACHE", str(corpora / "cache"))
    monkeypatch.setenv("SAMO_ARTIFACTS", "artifacts")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "clips")
    folder(tmp_path / "other", ("rage", "joy", "calm"))
    table(tmp_path, table_rows())
    for name in ("clip.wav", "a.wav", "b.wav", "folder/c.wav"):
        tone(tmp_path / name, pitch(1, 1))
    words = {"good": ("sun", "cake", "friends"), "bad": ("rain", "bills", "cough")}
    rows = [f"day {day} with {words[mood][day % 3]},{mood}" for day in range(20) for mood in words]
    (tmp_path / "texts.csv").write_text("\n".join(["body,mood", *rows]) + "\n")
    (tmp_path / "comments.txt").write_text("what a day\nI lost my keys\n")
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    plugins._trusted.clear()
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def typed(settings: dict[str, Any]) -> dict[str, str]:
    return {"--" + name.replace("_", "-"): str(value) for name, value in settings.items()}


def quick(words: list[str]) -> list[str]:
    """A command with what :data:`QUICK` adds to it."""
    verb, given = words[0], {word.partition("=")[0] for word in words}
    flags: dict[str, str] = {}
    trains = verb in TRAIN or (verb == "ensemble" and given & {"--seeds", "--variants"})
    if words[:2] == ["ablate", "show"] or "--resume" in given:
        return words
    if trains:
        modality = words[words.index("--modality") + 1] if "--modality" in words else "audio"
        flags = typed(QUICK[modality] | (QUICK_DEMO if modality == "text" and "--data-root" not in given else {}))
        flags = flags | {"--workers": "1"} if verb in GRIDS else flags
    elif verb not in PLAIN:
        flags = {"--threads": "1"}
    return words + [word for flag, value in flags.items() if flag not in given for word in (flag, value)]


def run_command(command: Command, planned: bool) -> None:
    words = command.words
    if words[0] != "samo":
        done = subprocess.run(["bash", "-ec", command.line], capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == command.fails, f"{command.line}\n{done.stderr}"
        return
    arguments = quick(words[1:]) + ["--dry-run"] * planned
    if command.fails:
        result = run_samo(*arguments)
        assert result.status in range(2, 11), command.line
        for line in command.printed:
            assert result.error.startswith(line), command.line
        return
    result = run_samo(*arguments)
    assert result.status == 0, f"$ {command.line}\n{' '.join(arguments)}\n{result.err}"


def run_python(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    if ">>> " in block.text:
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
        examples = doctest.DocTestParser().get_doctest(block.text, namespace, page.name, str(page), block.line)
        printed: list[str] = []
        runner.run(examples, out=printed.append, clear_globs=False)
        assert not runner.failures, "".join(printed)
        return
    # Lines count as on the page.
    code = compile("\n" * block.line + block.text, str(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        exec(code, namespace)


@pytest.fixture
def quick_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """``samo.train`` with what :data:`QUICK` adds."""
    real = samo.train

    @functools.wraps(real)
    def train(**given: Any) -> Any:
        added = QUICK[given.get("modality", "audio")]
        # A call that is to be refused for its settings trains nothing.
        return real(**{**added, **given})

    monkeypatch.setitem(vars(samo), "train", train)


def params() -> list[Any]:
    found = []
    for page in PAGES:
        if runnable(page):
            marks = [pytest.mark.slow] if page.name in SLOW else []
            found.append(pytest.param(page, id=name_of(page), marks=marks))
    return found


@pytest.mark.parametrize("page", params())
def test_a_page_runs_from_its_first_block_to_its_last(page: Path, work: Path, quick_calls: None) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in runnable(page):
        if block.file:
            (work / block.file).write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            run_python(block, page, namespace)
        else:
            for command in block.commands:
                run_command(command, block.mark == "planned")


# Checking every page


def options(command: Any) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


@functools.cache
def verbs() -> dict[str, set[str]]:
    """The flags of every verb; those of ``data`` by two words."""
    app: Any = typer.main.get_command(load_object("samo_cli.main:build_app")(None))
    everywhere = options(app) | {"--help", "-h", "--debug", "--trust-code"}
    found = {"": everywhere}
    for name, verb in app.commands.items():
        found[name] = everywhere | options(verb)
        for inner, command in getattr(verb, "commands", {}).items():
            found[f"{name} {inner}"] = everywhere | options(command)
    return found


@functools.cache
def presets() -> set[str]:
    roots, folders = ("samo_audio", "samo_text"), ("presets", "ensembles")
    return {path.stem for name in roots for folder in folders for path in (ROOT / name / folder).glob("*.toml")}


def mistakes(line: str) -> list[str]:
    """What is wrong with a command: an unknown verb, flag, preset, file or target of make."""
    words = Command(line).words
    if "samo_cli" in words:
        words = ["samo", *words[words.index("samo_cli") + 1 :]]
    if words[0] == "make":
        return [f"make {word}" for word in words[1:] if word not in MAKE.findall((ROOT / "Makefile").read_text())]
    if words[0] in ("bash", "python"):
        return [] if (ROOT / words[1]).is_file() else [f"no file {words[1]}"]
    if words[0] != "samo":
        return []
    verb = words[1] if len(words) > 1 and not words[1].startswith("-") else ""
    if verb == "data" and len(words) > 2:
        verb = f"data {words[2]}"
    if verb not in verbs():
        return [f"unknown verb {verb}"]
    flags = [word.partition("=")[0].strip("[]") for word in words if word.startswith("-") and word != "-"]
    wrong = [f"{verb}: unknown flag {flag}" for flag in flags if flag not in verbs()[verb]]
    named = [words[at + 1] for at, word in enumerate(words[:-1]) if word == "--preset"]
    return wrong + [f"unknown preset {name}" for name in named if name.islower() and name not in presets()]


def wrong_in(text: str) -> Iterator[str]:
    """What is wrong with a page's blocks and with the commands in its sentences."""
    for block in blocks_of(text):
        place = f"line {block.line}: "
        if block.kind in ("sh", "bash", "shell", "") or (block.kind != "console" and "\n$ " in "\n" + block.text):
            yield f"{place}write commands as ```console with $ before each"
        if block.mark not in ("", "not run", "planned", "run by", "file"):
            yield f"{place}unknown mark {block.mark}"
        if block.mark == "run by" and not (ROOT / block.reason).is_file():
            yield f"{place}no test {block.reason}"
        if block.kind == "console":
            if not block.commands:
                yield f"{place}no command behind $"
            for command in block.commands:
                yield from (f"{place}{wrong}" for wrong in mistakes(command.line))
    every = set().union(*verbs().values())
    for code in inline_of(text):
        if code.startswith("samo ") or " -m samo_cli " in code:
            yield from mistakes(code)
        elif code.startswith("--"):
            flags = re.findall(r"(?:^|\s)(--[\w-]+)", code)
            yield from (f"unknown flag {flag}" for flag in flags if flag not in every | {"--" + "nproc-per-node"})
        elif re.fullmatch(r"samo(_\w+)?(\.\w+)+(\(.*\))?", code):
            yield from unknown_name(code.partition("(")[0])
        for extra in re.findall(r"(?:samo-emotion|\"\.)\[(\w+)\]", code):
            if extra not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]:
                yield f"unknown extra {extra}"


def unknown_name(name: str) -> list[str]:
    if name.startswith(("samo.models", "samo.datasets")):  # groups of entry points
        return []
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError) as error:
        return [f"{name}: {error}"]
    return []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_flags_and_names_exist(page: Path) -> None:
    assert list(wrong_in(page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("```console\n$ samo train --lerning-rate 1\n```\n", "line 1: train: unknown flag --lerning-rate"),
        ("<!-- not run: x -->\n```console\n$ samo trane\n```\n", "line 2: unknown verb trane"),
        ("```sh\nsamo train\n```\n", "line 1: write commands as ```console with $ before each"),
        ("```text\n$ samo train\n```\n", "line 1: write commands as ```console with $ before each"),
        ("```console\nsamo train\n```\n", "line 1: no command behind $"),
        ("<!-- skip: me -->\n```console\n$ samo runs\n```\n", "line 2: unknown mark skip"),
        ("<!-- run by: tests/no.py -->\n```console\n$ samo runs\n```\n", "line 2: no test tests/no.py"),
        ("so `samo evaluate --csv` does", "evaluate: unknown flag --csv"),
        ("so `samo train --preset small` does", "unknown preset small"),
        ("with `--focal-los`", "unknown flag --focal-los"),
        ("`samo.runs.load.lode()`", "samo.runs.load.lode: module 'samo.runs.load' has no attribute 'lode'"),
        ('`pip install "samo-emotion[tunes]"`', "unknown extra tunes"),
        ("```console\n$ make tests\n```\n", "line 1: make tests"),
        ("```console\n$ bash no.sh\n```\n", "line 1: no file no.sh"),
    ],
)
def test_what_is_wrong_is_found(text: str, wrong: str) -> None:
    assert list(wrong_in(text)) == [wrong]


def test_marks_files_and_printed_lines_are_read() -> None:
    console = "<!-- not run: far away -->\n```console\n$ ls  # fails\nerror: x\n$ a \\\n  b\n```\n"
    first, second = blocks_of(f"# A\n\n{console}\n```python\n# n.py\n```\n")
    assert (first.mark, first.reason, first.line) == ("not run", "far away", 4)
    ls, ab = first.commands
    assert (ls.words, ls.fails, ls.printed) == (["ls"], True, ("error: x",))
    assert (ab.words, ab.fails) == (["a", "b"], False)
    assert (second.mark, second.file) == ("", "n.py")


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links_of(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors_of(target.read_text(encoding="utf-8")), link


def test_every_page_is_in_the_index() -> None:
    linked = set(links_of((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in PAGES if page.parent.name == "docs" and page.name != "README.md"} <= linked


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150
    assert [line for line in lines if len(line) > 120] == []
    assert (ROOT / "docs" / "images" / "report.png").stat().st_size < 300_000


# Docstrings


def modules(package: ModuleType) -> Iterator[str]:
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return (each.name for each in found if not each.name.endswith(".__main__"))


def test_examples_in_docstrings() -> None:
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    printed: list[str] = []
    for package in (samo, samo_audio, samo_text, samo_cli):
        for name in (package.__name__, *modules(package)):
            module = importlib.import_module(name)
            for test in finder.find(module, name):
                runner.run(test, out=printed.append)
    assert not runner.failures, "".join(printed)
    assert runner.tries >= 2
