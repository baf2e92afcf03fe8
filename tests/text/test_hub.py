"""Encoders by name: the libraries' own download into their own cache, from a server on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
READ = """
import json, sys
from samo_text.models.pretrained import load_pretrained
from samo_text.tokens import EncoderTokens
from samo.errors import SamoError
for name in sys.argv[1:]:
    try:
        tokens = EncoderTokens.load(name, 16)
        encoder = load_pretrained(name)
        print(json.dumps([len(tokens), encoder.config.hidden_size]))
    except SamoError as error:
        print(f"{type(error).__name__}: {error.message}")
"""
READ_STRANGE = """
from pathlib import Path
from samo.encoders.pretrained import from_assets
from samo_text.tokens import EncoderTokens
for read in (lambda: from_assets(Path(".")), lambda: EncoderTokens.load(".", 8)):
    try:
        read()
    except Exception as error:
        print(type(error).__name__)
"""


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks for: ``/OWNER/NAME/resolve/REVISION/FILE`` with entity tag and commit."""

    asked: list[str]

    def __init__(self, root: Path, asked: list[str], *args: object) -> None:
        self.root, self.asked = root, asked
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        parts = self.path.partition("?")[0].strip("/").split("/")
        known = ["somebody", "tiny"] in (parts[:2], parts[2:4])
        file = self.root / parts[-1]
        if parts == ["api", "models", "somebody", "tiny"]:
            names = [{"rfilename": path.name} for path in self.root.iterdir()]
            self._send(json.dumps({"id": "somebody/tiny", "sha": COMMIT, "siblings": names}).encode(), body=body)
            return
        if not known or not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(file.read_bytes(), body=body)

    def _send(self, content: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(encoders: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Address of a hub that holds ``somebody/tiny``, and what was asked of it."""
    requested: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, Path(encoders["bert"]), requested))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requested
    server.shutdown()


def read(names: list[str], endpoint: str, home: Path) -> list[str]:
    """What a fresh process says of each encoder: the libraries read their environment when they are imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_"))}
    environment = {**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ, *names], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


@pytest.mark.slow
def test_downloaded_once_then_read_without_a_net(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    endpoint, requested = hub
    whole, wrong = read(["somebody/tiny", "somebody/else"], endpoint, tmp_path / "home")
    assert whole == "[31, 16]"
    assert any(line.startswith("GET /somebody/tiny/resolve/") and "model.safetensors" in line for line in requested)
    assert wrong.startswith(
        "EnvironmentProblem: `encoder=somebody/else`: no such folder, and no tokenizer of that name"
    )
    # From the cache, when nobody answers: port 9 discards.
    cached, alone = read(["somebody/tiny", "somebody/else"], "http://127.0.0.1:9", tmp_path / "home")
    assert cached == "[31, 16]"
    assert alone.endswith("the hub cannot be reached and this machine has no copy")


@pytest.mark.slow
def test_code_of_strangers_is_neither_run_nor_asked_about(tmp_path: Path) -> None:
    """A folder that names Python of its own: answering "y" to whatever is asked must not run it."""
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\nclass EvilConfig: pass\n")
    strange = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoTokenizer": "evil.EvilConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(strange))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(strange))
    done = subprocess.run(
        [sys.executable, "-c", READ_STRANGE], cwd=tmp_path, input="y\n" * 4, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["ModelFileError", "ModelFileError"], done.stderr
    assert not (tmp_path / "ran").exists()
