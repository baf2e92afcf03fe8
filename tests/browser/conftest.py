"""One browser and one server for all tests of the page; skipped where there is no browser."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from browser_page import Page, Served
    from selenium.webdriver import Chrome

    from samo.prediction import ModelPredictor

BEFORE = Path(__file__).resolve().parent.parent / "fixtures" / "trained_before"
# What an attacker would call a class, and names that objects of JavaScript have already.
HOSTILE = ("<img src=x onerror=alert(1)>", "__proto__", "constructor")
CARD = """\
# Model card: <script>alert(2)</script>

## Out of scope

- **No decisions** about `people` \\<b\\>, [link](javascript:alert(3)) <img src=x onerror=alert(4)>

## Data

| name | rows |
| :-- | --: |
| a \\| b | 20 |

```sh
samo train <i>
```
"""


def found(name: str, other: str = "") -> str:
    """A program's path; without it the test is skipped."""
    path = shutil.which(name) or (shutil.which(other) if other else None)
    if not path:
        pytest.skip(f"no {name}: apt-get install chromium chromium-driver")
    return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts with a run on speech, one on text, and one on speech that is never sure."""
    root = tmp_path_factory.mktemp("served")
    shutil.copytree(BEFORE / "runs", root / "runs")
    shutil.copytree(root / "runs" / "speech", root / "runs" / "unsure")
    kept = json.loads((root / "runs" / "speech" / "calibration.json").read_text())
    stored = {
        "schema": 1, "rule": "risk", "wanted": 0.1, "thresholds": {"emotion": 0.97}, "fitted_on": "val",
        "temperature": kept["temperature"], "n": kept["n"], "epoch": kept["epoch"],
    }  # fmt: skip
    (root / "runs" / "unsure" / "abstention.json").write_text(json.dumps(stored))
    return root


@pytest.fixture(scope="session")
def models(runs: Path) -> dict[str, ModelPredictor]:
    """The three runs, and one whose labels are markup."""
    import samo
    from samo.tasks import LabelSpace, Task

    loaded = {name: samo.load(name, artifacts=runs, threads=1) for name in ("speech", "unsure", "text")}
    hostile = copy.copy(loaded["speech"])
    hostile.space = LabelSpace((Task("<b>emotion</b>", HOSTILE),))
    folder = runs / "hostile"
    folder.mkdir()
    (folder / "MODEL_CARD.md").write_text(CARD)
    hostile.facts = replace(hostile.facts, name="hostile", folder=str(folder), dataset="<u>data</u>", synthetic=True)
    return {**loaded, "hostile": hostile}


@pytest.fixture(scope="session")
def server(models: dict[str, ModelPredictor]) -> Iterator[Served]:
    """Answers without a key."""
    pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'samo-emotion[serve]'")
    pytest.importorskip("selenium", reason="no selenium: pip install selenium")
    from browser_page import serving

    from samo.serve.app import make_app

    with serving(make_app(models)) as served:
        yield served


@pytest.fixture(scope="session")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser's microphone hears: a real recording at 48 kHz."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(BEFORE / "long.flac")
    path = tmp_path_factory.mktemp("microphone") / "long.wav"
    soundfile.write(path, soxr.resample(samples, rate, 48000), 48000, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def browser(microphone: Path) -> Iterator[Chrome]:
    """Chromium, started once."""
    programs = found("chromium", "chromium-browser"), found("chromedriver")
    pytest.importorskip("selenium", reason="no selenium: pip install selenium")
    from browser_page import started

    driver = started(*programs, microphone)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Chrome, server: Served) -> Page:
    """The page, opened anew and ready."""
    from browser_page import Page

    return Page(browser, server.address).open().ready()


@pytest.fixture
def predicted(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `samo predict --json` prints of one input."""
    import contextlib
    import io

    from samo_cli.main import main

    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))

    def predict(*inputs: object, run: str = "speech") -> dict[str, Any]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()), pytest.raises(SystemExit):
            main(["predict", *map(str, inputs), "--run", run, "--artifacts", str(runs), "--threads", "1", "--json"])
        (only,) = json.loads(printed.getvalue())["predictions"]
        return dict(only)

    return predict
