"""The entry point: verbs, help, errors, what is imported and what is not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tone_corpora import done, refused, samo

import samo_cli.main
from samo import __version__
from samo.errors import SamoError
from samo_cli.main import VERBS

ESCAPE = "\x1b"


def python(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, env={**os.environ, **env}, timeout=500, check=False
    )


@pytest.mark.parametrize("argv", [("--version",), ("--version", "train")])
def test_version(argv: tuple[str, ...]) -> None:
    assert done(*argv).out == f"samo {__version__}\n"


def test_python_dash_m_and_console_script_are_the_same_command() -> None:
    script = Path(sys.executable).with_name("samo")
    printed = {
        python("-m", "samo_cli", "--version").stdout,
        subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout,
    }
    assert printed == {f"samo {__version__}\n"}


@pytest.mark.parametrize("argv", [(), ("-h",), ("--help",)])
def test_help_lists_every_verb(argv: tuple[str, ...]) -> None:
    shown = done(*argv)
    assert all(re.search(rf"^  {verb} +\S", shown.out, re.MULTILINE) for verb in VERBS)
    assert re.search(r"^  --debug +Show", shown.out, re.MULTILINE)
    assert shown.err == ""


@pytest.mark.parametrize("verb", [*VERBS, "data list", "data download", "data inspect"])
def test_every_verb_has_help_that_fits(verb: str) -> None:
    shown = done(*verb.split(), "-h")
    assert f"Usage: samo {verb}" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "…" not in shown.out


@pytest.mark.parametrize(
    ("argv", "imported"),
    [("--help", "torch numpy pydantic rich matplotlib"), ("train --help", "torch numpy scipy rich matplotlib")],
)
def test_help_imports_little(argv: str, imported: str) -> None:
    code = (
        "import sys, samo_cli.main as m\n"
        f"try: m.main({argv.split()})\n"
        f"except SystemExit: print([n for n in '{imported}'.split() if n in sys.modules], file=sys.stderr)"
    )
    assert python("-c", code).stderr == "[]\n"


def test_a_typing_error_does_not_wait_for_torch() -> None:
    code = (
        "import sys, samo_cli.main as m\n"
        "try: m.main(['train', '--lr=-1'])\n"
        "except SystemExit as leave: print(leave.code, 'torch' in sys.modules)"
    )
    assert python("-c", code).stdout == "2 False\n"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["trian"], "no such command 'trian'. Did you mean 'train'?"),
        (["data", "lst"], "no such command 'lst'. Did you mean 'list'?"),
        (["train", "--epoch", "3"], "--epochs"),
        (["train", "extra"], "unexpected extra argument"),
        (["train", "--epochs", "ten"], "--epochs"),
        (["train", "--threads", "-1"], "--threads"),
        (["predict"], "nothing to predict"),
        (["presets", "--modality", "adio"], "unknown modality 'adio' (hint: did you mean 'audio'?"),
    ],
)
def test_mistyped_commands(argv: list[str], says: str) -> None:
    assert says in refused(2, *argv)


def test_hint_names_the_help_of_the_verb() -> None:
    assert "`samo evaluate --help` lists what is valid" in refused(2, "evaluate", "--lr", "3")


def test_debug_shows_a_traceback_and_keeps_the_status() -> None:
    result = samo("train", "--lr=-1", "--debug")
    assert result.status == 2
    assert "Traceback" in result.err
    assert "SettingsError" in result.err
    assert "Traceback" not in samo("train", "--lr=-1").err


def test_statuses_of_the_errors_are_distinct() -> None:
    kinds = SamoError.__subclasses__()
    statuses = [kind.exit_status for kind in kinds if kind.__name__ != "Interrupted"]
    assert len(set(statuses)) == len(statuses)
    assert not {0, 1, 70, 130, 143} & set(statuses)


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (ZeroDivisionError("a\nb"), 70, "error: unexpected ZeroDivisionError: a b (hint: run the same command"),
        (PermissionError(13, "Permission denied", "/x"), 9, "error: /x: Permission denied (hint: --debug"),
        (OSError(28, "No space left on device"), 8, "error: No space left on device"),
        (MemoryError("no"), 9, "error: out of memory: no (hint: train with a smaller --batch-size"),
    ],
)
def test_whatever_happens_is_one_line(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int, line: str
) -> None:
    def build(verb: str | None, implementation: object) -> None:
        raise raised

    monkeypatch.setattr(samo_cli.main, "_command", build)
    assert refused(status, "runs").startswith(line)


def test_a_command_that_is_stopped_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(verb: str | None, implementation: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(samo_cli.main, "_command", build)
    result = samo("runs")
    assert (result.status, result.out, result.err) == (130, "", "stopped\n")


def test_a_verb_that_is_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes inside a verb is made a status by typer, without a word."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("samo.runs.listing.list_runs", stop)
    result = samo("runs")
    assert (result.status, result.out, result.err) == (130, "", "stopped\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    shell = f"{sys.executable} -m samo_cli train --help | head -1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_output_that_cannot_be_written_is_said() -> None:
    shell = f"{sys.executable} -m samo_cli data list --json > /dev/full"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert result.returncode == 8
    assert result.stderr == "error: No space left on device (hint: --debug shows where it happened)\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_prints(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SAMO_COMPLETE", f"source_{shell}")
    assert "_SAMO_COMPLETE" in done().out


def test_a_shell_asks_the_command_itself_for_completions() -> None:
    result = python("-m", "samo_cli", _SAMO_COMPLETE="complete_bash", COMP_WORDS="samo tr", COMP_CWORD="1")
    assert (result.returncode, result.stdout.split(), result.stderr) == (0, ["train"], "")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("samo tr", "train"),
        ("samo train --class-w", "--class-weight-loss"),
        ("samo train --split ran", "random"),
        ("samo train --preset small-cnn-fo", "small-cnn-focal"),
    ],
)
def test_completion_offers(typed: str, offered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"_SAMO_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert offered in done().out.split()


def test_warnings_that_libraries_log_are_notes(clips: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(clips, tmp_path / "with song")
    sung = tmp_path / "with song" / "Actor_01" / "03-02-01-01-01-01-01.wav"
    shutil.copy(next(clips.rglob("*.wav")), sung)
    result = done("data", "inspect", "--data-root", tmp_path / "with song", "--json")
    assert result.json["n"] == 48
    assert [line for line in result.err.splitlines() if line] == [
        f"· left out 1 song or video clips below {tmp_path / 'with song'}: Actor_01/03-02-01-01-01-01-01.wav"
    ]


@pytest.mark.parametrize("argv", ["doctor", "presets", "data list", "runs", "train --help", "train --lr=-1"])
def test_no_escape_codes_without_a_terminal(argv: str) -> None:
    result = samo(*argv.split())
    assert ESCAPE not in result.out + result.err
