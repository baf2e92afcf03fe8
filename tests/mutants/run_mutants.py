"""Do the tests see planted bugs? Apply each mutant of ``mutants.toml`` to a copy of the tree and run its tests.

Run by ``make mutants``. A mutant is killed when a named test fails, and survives when all pass. One whose old line does
not stand there exactly once, or whose tests cannot be collected, is an error, never a kill. All named test files are
first run on the tree as it is: a test that fails anyway kills nothing.

Each copy is tested in a fork of this process, which has the large libraries imported but nothing of SAMO.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = Path(__file__).with_name("mutants.toml")
COPIED = ("samo", "samo_audio", "samo_text", "cli", "tests")
PRELOADED = (
    "pytest", "numpy", "scipy.stats", "scipy.optimize", "sklearn.metrics", "torch", "torch._dynamo", "torchaudio",
    "safetensors.torch", "pydantic", "matplotlib.pyplot", "jinja2", "typer", "rich.console", "soundfile", "soxr",
)  # fmt: skip
PASSED, FAILED = 0, 1


@dataclass(frozen=True)
class Mutant:
    """One planted bug: ``old`` in ``file`` becomes ``new``, and one of ``tests`` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The file's text with the bug in it.

        Raises:
            ValueError: the old line is not there, or not only once.
        """
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.name}: the old line stands {found} times in {self.file}: {self.old!r}")
        return text.replace(self.old, self.new)


def read_mutants(path: Path = TABLE) -> list[Mutant]:
    """The mutants of a table, in which those of one file stand together."""
    with path.open("rb") as file:
        table = tomllib.load(file)
    return [
        Mutant(name, group["file"], old, new, tuple(group["tests"]))
        for group in table["module"]
        for name, (old, new) in group["mutants"].items()
    ]


def copy_tree(root: Path, target: Path) -> None:
    """What tests need, without what git ignores."""
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in root.glob("*.*"):
        if path.is_file():
            shutil.copy(path, target)


def start(root: Path, mutant: Mutant | None, tests: Sequence[str], log: Path) -> int:
    """Test a copy of the tree in a fork; returns its process id. The fork leaves with pytest's exit status."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        with tempfile.TemporaryDirectory() as folder, log.open("w") as output:
            place = Path(folder).resolve() / "tree"
            place.mkdir()
            copy_tree(root, place)
            if mutant:
                file = place / mutant.file
                file.write_text(mutant.applied(file.read_text(encoding="utf-8")), encoding="utf-8")
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            status = _tested(place, tests)
    except BaseException as error:
        print(f"{mutant.name if mutant else 'the tree'}: {error!r}", flush=True)
    finally:
        os._exit(status)


def _tested(place: Path, tests: Sequence[str]) -> int:
    import pytest

    os.chdir(place)
    # Real data lie beside the checkout; what they show is no part of the score.
    os.environ.pop("SAMO_TEST_DATA", None)
    roots = [str(place), str(place / "cli")]
    os.environ["PYTHONPATH"] = os.pathsep.join(roots)
    sys.path[:0] = roots
    assert not any(name.partition(".")[0].startswith("samo") for name in sys.modules)
    plain = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", "--timeout", "300"]
    return int(pytest.main([*plain, "--rootdir", str(place), *tests]))


def outcomes(
    jobs: Iterable[tuple[str, Mutant | None, Sequence[str]]], root: Path, at_once: int, logs: Path
) -> dict[str, int]:
    """Exit status of pytest by name of the job, at most ``at_once`` at a time."""
    waiting, running, found = list(jobs), {}, {}
    while waiting or running:
        while waiting and len(running) < at_once:
            name, mutant, tests = waiting.pop(0)
            running[start(root, mutant, tests, logs / f"{len(found) + len(running)}-{os.getpid()}.log")] = name
        pid, status = os.wait()
        if pid in running:
            name = running.pop(pid)
            found[name] = os.waitstatus_to_exitcode(status)
            print(f"{_word(found[name]):9}{name}", flush=True)
    return found


def _word(status: int) -> str:
    return {PASSED: "passed", FAILED: "failed"}.get(status, f"error {status}")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when no mutant was an error and the score is at least ``--least``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "only", nargs="*", help="mutants whose name or file holds one of these words; all when left out"
    )
    parser.add_argument("-j", "--at-once", type=int, default=1, help="copies that are tested at once")
    parser.add_argument("--least", type=float, default=95.0, help="score in percent below which the status is 1")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--preload", nargs="*", default=PRELOADED, help="libraries that are imported before the forks")
    given = parser.parse_args(argv)
    chosen = [
        mutant
        for mutant in read_mutants(given.table)
        if not given.only or any(word in f"{mutant.name} {mutant.file}" for word in given.only)
    ]
    stale = []
    for mutant in chosen:
        try:
            mutant.applied((given.root / mutant.file).read_text(encoding="utf-8"))
        except ValueError as error:
            stale.append(str(error))
    if stale or not chosen:
        print("\n".join(stale) or "no such mutant")
        return 2
    for name in given.preload:
        importlib.import_module(name)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        sets = {mutant.tests: f"tree as it is: {' '.join(mutant.tests)}" for mutant in chosen}
        plain = outcomes(((name, None, tests) for tests, name in sets.items()), given.root, given.at_once, logs)
        if any(plain.values()):
            print("tests fail on the tree as it is: nothing can be said of mutants")
            return 2
        found = outcomes(((m.name, m, m.tests) for m in chosen), given.root, given.at_once, logs)
    killed = sum(status == FAILED for status in found.values())
    survived = [name for name, status in found.items() if status == PASSED]
    errors = [name for name, status in found.items() if status not in (PASSED, FAILED)]
    score = 100.0 * killed / len(found)
    used = os.times()
    print(f"{killed} of {len(found)} mutants killed: {score:.1f} %")
    print(f"{time.perf_counter() - began:.0f} s, {used.children_user + used.children_system:.0f} CPU seconds")
    for word, names in (("survived", survived), ("error", errors)):
        for name in names:
            print(f"{word}: {name}")
    return 2 if errors else int(score < given.least)


if __name__ == "__main__":
    sys.exit(main())
