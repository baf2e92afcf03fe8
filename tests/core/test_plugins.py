"""Code that does not come with SAMO: found by name, imported only when trusted, told apart from SAMO's own names."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from samo import plugins
from samo.errors import RunError, SettingsError
from samo.modalities import config_type
from samo.plugins import Plugin, Registry, code_used, registry_of, trust, trust_settings, trusted
from samo.runs.code import code_of, require_code
from samo.runs.run import Run
from samo.settings import stored_config

STORED = {"modality": "audio", "model": "outside_net:make", "dataset": "ravdess"}


@pytest.fixture(autouse=True)
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module beside the user that says when it is imported; nothing is trusted."""
    monkeypatch.setattr(plugins, "_trusted", set())
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "outside_net.py"
    file.write_text("open('ran', 'w').close()\ndef make(*given):\n    return given\nclass Inner:\n    number = 3\n")
    yield file
    sys.modules.pop("outside_net", None)


def ran() -> bool:
    return Path("ran").exists()


def a_registry() -> Registry[str]:
    return Registry("model", "audio", ["cnn", "rnn"], str.upper, lambda plugin: plugin.target)


def test_a_registry_knows_its_own_names_and_any_code() -> None:
    found = a_registry()
    assert list(found) == ["cnn", "rnn"]
    assert found["cnn"] == "CNN"
    assert found["any.module:name"] == "any.module:name"
    assert "rnn" in found
    assert "any.module:name" in found
    assert "nn" not in found
    assert 3 not in found
    with pytest.raises(KeyError):
        found["nn"]
    assert found.plugin("cnn") is None
    assert not ran()


def test_nothing_is_imported_before_it_is_trusted() -> None:
    plugin = Plugin("model", "outside_net:make", "outside_net:make")
    for act in (plugin.load, plugin.record, lambda: plugin.made(tuple)):
        with pytest.raises(SettingsError, match="`model=outside_net:make` is code that does not come with SAMO") as got:
            act()
        assert got.value.hint.endswith("give `trust_code=outside_net:make`")
    trust("outside_net:other", "")
    assert trusted() == ["outside_net:other"]
    with pytest.raises(SettingsError):
        plugin.load()
    assert not ran()
    trust("outside_net:make")
    assert plugin.made(tuple, 1, 2) == (1, 2)
    assert ran()


def test_settings_that_a_person_gave_are_trusted() -> None:
    trust_settings({"model": "outside_net:make", "dataset": "", "encoder": "x:y"})
    assert trusted() == ["outside_net:make"]


def test_an_attribute_may_lie_deeper() -> None:
    trust("outside_net:Inner.number")
    assert Plugin("model", "outside_net:Inner.number", "outside_net:Inner.number").load() == 3


def test_installed_modules_come_before_the_working_directory(beside: Path) -> None:
    """A file called json.py beside the user does not take the place of Python's."""
    beside.with_name("colorsys.py").write_text("open('ran', 'w').close()\n")
    sys.modules.pop("colorsys", None)
    trust("colorsys:rgb_to_hsv")
    Plugin("model", "colorsys:rgb_to_hsv", "colorsys:rgb_to_hsv").load()
    assert not ran()


def test_a_record_says_which_file_it_was(beside: Path) -> None:
    trust("outside_net:make")
    record = code_used(stored_config(STORED))
    assert record == {
        "model": {
            "name": "outside_net:make",
            "module": "outside_net",
            "attribute": "make",
            "distribution": "",
            "sha256": hashlib.sha256(beside.read_bytes()).hexdigest(),
        }
    }
    assert code_used(stored_config({**STORED, "model": "small-cnn"})) == {}


def test_code_of_an_installed_package_is_named_with_its_version() -> None:
    from importlib.metadata import version

    trust("numpy:zeros")
    assert (
        code_used(stored_config({**STORED, "model": "numpy:zeros"}))["model"]["distribution"]
        == f"numpy {version('numpy')}"
    )


@pytest.mark.parametrize("modality", ["audio", "text"])
@pytest.mark.parametrize("setting", plugins.CODE_SETTINGS)
def test_every_modality_has_both_registries(setting: str, modality: str) -> None:
    registry = registry_of(setting, config_type(modality))
    assert registry is not None
    assert registry.own
    assert registry.plugin("a:b") == Plugin(setting, "a:b", "a:b")
    assert registry.plugin(registry.own[0]) is None


def a_run(folder: Path, code: object) -> Run:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(STORED))
    (folder / "environment.json").write_text(json.dumps({"code": code} if code else {}))
    return Run(folder)


def test_a_run_needs_what_its_settings_name_whatever_it_recorded(tmp_path: Path) -> None:
    """Leaving the record out does not get code imported."""
    run = a_run(tmp_path / "mine", {})
    assert code_of(run) == {}
    with pytest.raises(RunError, match="run 'mine' needs outside_net:make, code that does not come with SAMO"):
        require_code(run, "model", "dataset")
    require_code(run, "dataset")
    assert not ran()
    trust("outside_net:make")
    require_code(run, "model")
    require_code(run, "model", settings={**STORED, "model": "resnet18"})
    with pytest.raises(RunError, match="needs other:net"):
        require_code(run, "model", settings={**STORED, "model": "other:net"})


def test_changed_code_is_noted_once(tmp_path: Path, beside: Path, caplog: pytest.LogCaptureFixture) -> None:
    trust("outside_net:make")
    run = a_run(tmp_path / "mine", code_used(stored_config(STORED)))
    require_code(run, "model")
    assert not caplog.records
    beside.write_text("def make():\n    pass\n")
    require_code(run, "model")
    require_code(run, "model")
    assert [record.getMessage() for record in caplog.records] == [
        "the code of outside_net:make changed since run mine was trained"
    ]
