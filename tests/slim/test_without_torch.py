"""Prediction with what `pip install samo-emotion` brings: no torch, nor anything else of the extras."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_onnx as tiny
from tokenizers import Tokenizer, models, pre_tokenizers

from samo.errors import EnvironmentProblem
from samo.lazy import EXTRAS, load_object

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Refuses what an installation without extras lacks; says at the end which modules came from where.
SCRIPT = """
import json, sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

REFUSED = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, Refused())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in REFUSED else find_spec(name, *rest)
before = set(sys.modules)
found = {}
if sys.argv[2] == "predict":
    import samo
    speech, words, clip = sys.argv[3:]
    found["speech"] = samo.load(speech).predict(clip).probabilities
    found["words"] = samo.load(words).predict("one two").probabilities
    from samo_cli.main import main
    for argv in (["--model", speech, clip, "--csv"], ["--model", words, "--text", "one two", "--csv"]):
        try:
            main(["predict", *argv])
        except SystemExit as left:
            assert left.code == 0, left.code
    places = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    found["imported"] = sorted({n.partition(".")[0] for n, at in places.items() if at and "site-packages" in at})
    print(json.dumps(found))
else:
    from samo_cli.main import main
    main(sys.argv[3:])
"""


def python(*argv: object) -> subprocess.CompletedProcess[str]:
    refused = json.dumps(sorted({"pandas", *(module for modules in EXTRAS.values() for module in modules)}))
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, refused, *map(str, argv)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "cli")])},
        check=False,
    )


def closure(names: list[str]) -> set[str]:
    """Distributions and all they bring, without their extras."""
    found: set[str] = set()
    todo = [re.split(r"[\s;<>=!~\[(]", name)[0] for name in names]
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        try:
            brought = requires(name) or []
        except PackageNotFoundError:  # of another system
            continue
        todo += [re.split(r"[\s;<>=!~\[(]", line)[0] for line in brought if "extra ==" not in line]
    return found


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("files")
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 1, "one": 2, "two": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = {"kind": "tokenizers", "tokenizer": tokenizer.to_str(), "truncation_side": "right"}
    reading = {"max_tokens": 6, "pad_id": 0, "tokens": tokens}
    speech = tiny.write(root / "speech.onnx", reading={"sr": tiny.SR, "window": tiny.WINDOW, "trim_db": 30.0})
    words = tiny.write(root / "words.onnx", "text", reading=reading)
    wave = 0.25 + 0.125 * np.where(np.arange(4000) % 2, 1.0, -1.0)
    soundfile.write(root / "clip.wav", wave, tiny.SR, subtype="FLOAT")
    done = python("predict", speech, words, root / "clip.wav")
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    found: dict[str, Any] = {**json.loads(last), "lines": lines}
    return found


def test_a_clip_and_a_text_are_answered(printed: dict[str, Any]) -> None:
    speech, words = tiny.shares(0.25), tiny.shares(0.2)
    assert printed["speech"] == pytest.approx(speech, abs=1e-6)
    assert printed["words"] == pytest.approx(words, abs=1e-6)
    assert printed["lines"][1].endswith(f"clip.wav,calm,{','.join(f'{share:.6f}' for share in speech.values())},false,")
    assert printed["lines"][3] == f"one two,calm,{','.join(f'{share:.6f}' for share in words.values())},false,"


def test_all_that_is_imported_is_in_the_base_installation(printed: dict[str, Any]) -> None:
    allowed = closure(PROJECT["dependencies"])
    owners = packages_distributions()
    foreign = {
        module: owners[module]
        for module in printed["imported"]
        if module in owners and not allowed & {name.lower().replace("_", "-") for name in owners[module]}
    }
    # What every virtual environment of this project's tests loads at its start.
    assert foreign.keys() <= {"_distutils_hack", "__editable___samo_emotion_0_1_0_finder"}
    assert {"numpy", "onnxruntime", "soundfile", "soxr", "tokenizers", "pydantic", "typer"} <= set(printed["imported"])


def test_every_package_of_an_extra_is_named_in_the_hints() -> None:
    """An extra without a module in ``EXTRAS`` would end in a traceback."""
    names = {"scikit-learn": "sklearn", "prometheus-client": "prometheus_client", "mlflow-skinny": "mlflow"}
    for extra, modules in EXTRAS.items():
        listed = [re.split(r"[<>=\[]", line)[0] for line in PROJECT["optional-dependencies"][extra]]
        assert {names.get(name, name) for name in listed} - {"samo-emotion"} <= set(modules)


def test_what_needs_an_extra_names_it() -> None:
    done = python("command", "train", "--modality", "text", "--dataset", "demo")
    assert done.returncode == 9
    assert done.stderr == (
        'error: samo train needs torch, which is not installed (hint: pip install "samo-emotion[train]")\n'
    )


def test_doctor_says_which_extras_there_are() -> None:
    done = python("command", "doctor", "--json")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["extras"] == dict.fromkeys(EXTRAS, False)
    assert "runtime" not in seen
    shown = python("command", "doctor").stdout
    assert 'missing: train, export, serve, mic, bulk, track, tune, cluster (pip install "samo-emotion[train,' in shown


@pytest.mark.parametrize(
    ("missing", "extra"),
    [("torch.nn", "train"), ("onnx", "export"), ("fastapi", "serve"), ("sounddevice", "mic"), ("optuna", "tune")],
)
def test_the_extra_of_a_missing_package(
    missing: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"needs_{extra}.py").write_text(f"raise ModuleNotFoundError('none', name={missing!r})")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvironmentProblem) as caught:
        load_object(f"needs_{extra}:thing")
    package = missing.partition(".")[0]
    assert caught.value.message == f"needs_{extra}.thing needs {package}, which is not installed"
    assert caught.value.hint == f'pip install "samo-emotion[{extra}]"'


def test_what_no_extra_brings_is_told_as_it_is() -> None:
    with pytest.raises(ModuleNotFoundError, match="samo_nowhere"):
        load_object("samo_nowhere:thing")
