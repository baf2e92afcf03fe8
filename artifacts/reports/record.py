"""Run a command and keep what it prints, below the command, the date, the commit and the machine.

    python artifacts/reports/record.py FILE [NAME=VALUE...] -- COMMAND...

Each word of the command that is a NAME stands for its VALUE, so that no place of this machine is written down: FILE
holds the name. Nothing is kept of a command that fails. ``python`` and ``samo`` are those of this interpreter.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from samo.training.runtime import environment

PROGRAMS = {"python": [sys.executable], "samo": [sys.executable, "-m", "samo_cli"]}


def main(argv: list[str]) -> int:
    """Returns the command's status."""
    middle = argv.index("--")
    target, *given = argv[:middle]
    names = dict(word.split("=", 1) for word in given)
    shown = argv[middle + 1 :]
    program, *rest = shown
    command = [*PROGRAMS.get(program, [program]), *(names.get(word, word) for word in rest)]
    about = environment()
    began = datetime.now(UTC)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return done.returncode
    packages = ", ".join(f"{name} {about['packages'][name]}" for name in ("torch", "numpy"))
    text = done.stdout
    for name, value in names.items():
        text = text.replace(value, name)
    lines = [
        f"# command: {' '.join(shown)}",
        f"# date: {began:%Y-%m-%d %H:%M} UTC, {(datetime.now(UTC) - began).total_seconds():.0f} s",
        f"# commit: {about['commit']}",
        f"# machine: {about['cpu']}, {about['cores']} cores, Python {about['python']}, {packages}",
    ]
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text("\n".join([*lines, text.rstrip("\n")]) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
