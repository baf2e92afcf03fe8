"""``samo serve``: every flag arrives where it acts, and what does not go together is refused."""

from __future__ import annotations

import socket
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from stub_models import Ears, Reader

import samo
import samo.serve.app
import samo.serve.server
import samo_cli.verbs.serve
from samo.errors import SamoError, SettingsError
from samo.serve.limits import Limits
from samo_cli.main import build_app, main

KEY = "0123456789abcdef"


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What the application is made with when flags are typed; nothing listens for long."""
    monkeypatch.delenv("SAMO_API_KEY", raising=False)
    seen: dict[str, Any] = {}

    def load(model: str, **how: Any) -> Any:
        seen.setdefault("loaded", []).append((model, how))
        return Ears("ears") if model.endswith("ears.onnx") else Reader(model or "newest")

    def make_app(models: Any, limits: Limits, **how: Any) -> str:
        seen.update(models=models, limits=limits, **how)
        return "app"

    def serve(app: str, sockets: list[socket.socket]) -> None:
        seen["address"] = sockets[0].getsockname()
        sockets[0].close()

    monkeypatch.setattr(samo, "load", load, raising=False)
    monkeypatch.setattr("samo.runs.artifacts.find_model", lambda root, given: None)
    monkeypatch.setattr(samo.serve.app, "make_app", make_app)
    monkeypatch.setattr(samo.serve.server, "serve", serve)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, port: str = "0") -> dict[str, Any]:
        seen.clear()
        with pytest.raises(SystemExit) as left:
            main(["serve", *words, "--port", port])
        seen["status"] = left.value.code
        return seen

    return run


def test_without_flags(called: Any) -> None:
    seen = called()
    assert seen["status"] == 0
    assert seen["limits"] == Limits()
    assert seen["loaded"] == [("", {"artifacts": "", "device": "auto", "precision": "float32", "threads": 0})]
    assert (list(seen["models"]), seen["keys"], seen["log"], seen["log_inputs"]) == (["newest"], [], None, False)
    assert seen["address"][0] == "127.0.0.1"
    assert seen["hosts"] == {"localhost", "127.0.0.1", "::1"}


@pytest.mark.parametrize("field", fields(Limits), ids=lambda field: field.name)
def test_every_limit_has_a_flag(called: Any, field: Any) -> None:
    value = field.default + 1
    limits = called(f"--{field.name.replace('_', '-')}", str(value))["limits"]
    assert getattr(limits, field.name) == value
    assert [each.name for each in fields(Limits) if getattr(limits, each.name) != each.default] == [field.name]


def test_models_are_called_as_they_are_named(called: Any, tmp_path: Path) -> None:
    (tmp_path / "my-ears.onnx").write_bytes(b"")
    seen = called(
        "first", "my-ears.onnx", "--artifacts", "out", "--device", "cpu", "--precision", "auto", "--threads", "2"
    )
    assert list(seen["models"]) == ["first", "my-ears"]
    assert seen["loaded"][0] == ("first", {"artifacts": "out", "device": "cpu", "precision": "auto", "threads": 2})
    assert called("same", "same")["status"] == 2


def test_port_and_host(called: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert called(port=port)["status"] == 9
    assert called(port=port)["address"] == ("127.0.0.1", int(port))
    assert called("--host", "127.0.0.2")["address"][0] == "127.0.0.2"
    assert "127.0.0.2" in called("--host", "127.0.0.2")["hosts"]


def test_other_machines_need_a_key(called: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    assert called("--host", "0.0.0.0")["status"] == 2
    assert "hint: set $SAMO_API_KEY or --api-key-file, or --insecure" in capsys.readouterr().err
    seen = called("--host", "0.0.0.0", "--insecure")
    assert (seen["address"][0], seen["keys"], seen["hosts"]) == ("0.0.0.0", [], set())
    assert called("--host", "0.0.0.0", "--api-key", KEY, "--api-key", KEY + "2")["keys"] == [KEY, KEY + "2"]
    (tmp_path / "keys").write_text(f"\n {KEY}3 \n\n")
    assert called("--api-key-file", "keys")["keys"] == [KEY + "3"]
    monkeypatch.setenv("SAMO_API_KEY", KEY + "4")
    assert called("--host", "0.0.0.0")["keys"] == [KEY + "4"]


@pytest.mark.parametrize("content", ["", "\n\n", "short", None])
def test_keys_that_are_none(called: Any, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "keys").write_text(content)
    assert called("--api-key-file", "keys")["status"] == 2
    assert called("--api-key", "guessable")["status"] == 2


def test_keys_are_read_as_requests_send_them(
    called: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "keys").write_bytes(b"\xef\xbb\xbf" + f"{KEY}1\r\n# made on Monday by Ann\n\t{KEY}2 \n".encode())
    monkeypatch.setenv("SAMO_API_KEY", f"{KEY}3\n")
    assert called("--api-key", f" {KEY}4\t", "--api-key-file", "keys")["keys"] == [KEY + end for end in "4312"]
    monkeypatch.setenv("SAMO_API_KEY", "\n")
    assert called()["keys"] == []
    (tmp_path / "keys").write_text("# nothing but a comment\n")
    assert called("--api-key-file", "keys")["status"] == 2
    assert "there is no key in keys" in capsys.readouterr().err
    for wrong in ("sechzehn Zeichen und mehr", "schlüsselschlüssel", KEY + "\x7f", KEY + "\u200b"):
        assert called("--api-key", wrong)["status"] == 2, wrong
        assert "an API key has letters, digits and signs of ASCII only" in capsys.readouterr().err


def test_other_names(called: Any) -> None:
    loopback = {"localhost", "127.0.0.1", "::1"}
    assert called("--allow-host", "samo.example")["hosts"] == {*loopback, "samo.example"}
    seen = called("--allow-host", "samo.example", "--host", "0.0.0.0", "--insecure")
    assert seen["hosts"] == {*loopback, "samo.example"}


def test_names_are_read_as_headers_are(called: Any, capsys: Any) -> None:
    """A port in the name once let nothing through."""
    names = ("Samo.example:8443", "[2001:db8::1]:80", "2001:db8::2", "other.example.")
    seen = called(*(word for name in names for word in ("--allow-host", name)))
    found = {"samo.example", "2001:db8::1", "2001:db8::2", "other.example"}
    assert seen["hosts"] - {"localhost", "127.0.0.1", "::1"} == found
    for wrong in ("https://samo.example", "", ":80", "*.example", "samo example"):
        assert called("--allow-host", wrong)["status"] == 2, wrong
    assert "--allow-host 'samo example' is no name (hint: for example emotions.example)" in capsys.readouterr().err


def test_the_log(called: Any) -> None:
    seen = called("--log-predictions", "x.jsonl", "--log-inputs")
    assert (seen["log"], seen["log_inputs"]) == (Path("x.jsonl"), True)
    assert called("--log-predictions", "x.jsonl")["log_inputs"] is False
    assert called("--log-inputs")["status"] == 2


def test_limits_that_go_wrong_name_flags(called: Any, capsys: Any) -> None:
    assert called("--max-queue", "3")["status"] == 2
    assert "--max-items is 64, but --max-queue has room for 3 only" in capsys.readouterr().err


def test_without_the_extra(called: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "samo.serve.app":
            raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert called()["status"] == 9
    assert 'fastapi, which is not installed (hint: pip install "samo-emotion[serve]")' in capsys.readouterr().err


def test_every_flag_is_one_of_these() -> None:
    import typer

    command: Any = typer.main.get_command(build_app("serve")).commands["serve"]  # type: ignore[attr-defined]
    own = {"host", "port", "api_key", "api_key_file", "insecure", "allow_host", "log_predictions", "log_inputs"}
    machine = {"models", "artifacts", "device", "precision", "threads"}
    assert {each.name for each in command.params} == own | machine | {each.name for each in fields(Limits)}
    assert issubclass(SettingsError, SamoError)
    assert samo_cli.verbs.serve.serve.__doc__
