"""Fixtures every test may use: real data when it is there, a private cache, a small corpus."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Processes that tests start import from here too.
CHILDREN = str(ROOT / "tests" / "children")
if CHILDREN not in sys.path:
    sys.path.append(CHILDREN)

import blank_pictures  # noqa: E402


def real_data(name: str) -> Path:
    given = os.environ.get("SAMO_TEST_DATA")
    for root in ([Path(given)] if given else []) + [ROOT.parent / "shared" / "data"]:
        if (root / name).is_dir():
            return root / name
    pytest.skip(f"no real {name}: neither in $SAMO_TEST_DATA nor in ../shared/data")


@pytest.fixture(scope="session")
def ravdess_root() -> Path:
    """The real RAVDESS speech clips."""
    return real_data("ravdess")


@pytest.fixture(scope="session")
def emodb_root() -> Path:
    """The real EMO-DB clips."""
    return real_data("emodb")


@pytest.fixture(scope="session")
def goemotions_root() -> Path:
    """The real GoEmotions comments."""
    return real_data("goemotions")


def real_model(name: str) -> Path:
    given = os.environ.get("SAMO_TEST_DATA")
    for root in ([Path(given).parent] if given else []) + [ROOT.parent / "shared"]:
        if (root / "models" / name).is_dir():
            return root / "models" / name
    pytest.skip(f"no {name}: neither in models beside $SAMO_TEST_DATA nor in ../shared/models")


@pytest.fixture(scope="session")
def minilm_root() -> Path:
    """all-MiniLM-L6-v2, whose folder lies beside the data's."""
    return real_model("all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def whisper_root() -> Path:
    """The encoder half of Whisper base, whose folder lies beside the data's."""
    return real_model("whisper-base-encoder")


@pytest.fixture(scope="session", autouse=True)
def undrawn_pictures() -> Iterator[None]:
    """Two thirds of an evaluation is the drawing of its pictures, and few tests look at pixels: here and in processes
    that tests start, pictures are built, but a pixel is saved."""
    blank_pictures.install()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (CHILDREN, os.environ.get("PYTHONPATH")))))
        yield


@pytest.fixture
def drawn_pictures(undrawn_pictures: None) -> Iterator[None]:
    """Pictures are drawn, and coarse."""
    with blank_pictures.drawn(dpi=10):
        yield


@pytest.fixture
def fine_pictures(undrawn_pictures: None) -> Iterator[None]:
    """Pictures as users get them."""
    with blank_pictures.drawn():
        yield


@pytest.fixture(scope="session")
def compiled_librosa(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compile what tests use of librosa; numba keeps it, so that only a fresh installation waits (16 s).

    One worker at a time: several at once would all compile the same.
    """
    import librosa
    import numpy as np
    from filelock import FileLock

    with FileLock(tmp_path_factory.getbasetemp().parent / "librosa.lock"):
        silence = np.zeros(1024, np.float32)
        librosa.feature.melspectrogram(y=silence, sr=8000, n_fft=256)
        librosa.effects.trim(silence, frame_length=256, hop_length=64)


# Files that take 15 s or more, the longest first: begun before all others, so that no worker is left alone at the end.
LONG = (
    "test_cli_ray",
    "test_cli_grids",
    "test_cli_torchrun",
    "test_launch_ray",
    "test_page",
    "test_export_models",
    "test_distributed",
    "test_notebooks",
    "test_cli_kill",
    "test_docs",
    "test_export",
    "test_cli_plugins",
    "test_cli_train",
    "test_cli_bulk",
    "test_server",
    "test_hub",
)
# Objects made and not freed by counting references before garbage is looked for; Python's own number is 700.
GARBAGE = 100_000
# CPU seconds, those of ended child processes included, that a test may take without the mark `slow`.
QUICK_S = 6.0

BEGAN, SPENT = pytest.StashKey[float](), "cpu_seconds"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What all tests import stays until the end, and they make little garbage that counting references leaves: a
    tenth of their time went into looking for it, and half of that still did with what is imported left alone."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        gc.set_threshold(GARBAGE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of :data:`LONG` before all others, in that order; else as collected."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def cpu_seconds() -> float:
    """What this process and its ended children have used; other work on the machine does not change it."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note when a test begins, its fixtures included."""
    item.stash[BEGAN] = cpu_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hand what a test used, until its end, to the process that prints the summary."""
    report = yield
    # What is torn down may be a whole file's.
    if report.when == "call":
        report.user_properties.append((SPENT, cpu_seconds() - item.stash[BEGAN]))
    return report


class Lanes:
    """Adds up what tests used, and names those that belong in the slow lane."""

    def __init__(self) -> None:
        self.used = {True: 0.0, False: 0.0}
        self.unmarked: list[tuple[float, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        spent = dict(report.user_properties).get(SPENT)
        if report.when != "call" or spent is None:
            return
        slow = "slow" in report.keywords
        self.used[slow] += spent
        if not slow and spent > QUICK_S:
            self.unmarked.append((spent, report.nodeid))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """One line of sums, and a line for each test without the mark that took too long."""
        line = f"CPU seconds of tests: {self.used[False]:.0f} quick, {self.used[True]:.0f} slow"
        terminalreporter.write_line(line)
        for spent, name in sorted(self.unmarked, reverse=True):
            terminalreporter.write_line(
                f"WARNING: {name} took {spent:.1f} CPU seconds: mark it slow or make it quicker"
            )


def pytest_configure(config: pytest.Config) -> None:
    """The sums are kept by the process that prints, not by its workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Lanes(), "lanes")
