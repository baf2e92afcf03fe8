"""A real process: the command, the socket, slow heads, the end; and that it answers as ``samo predict`` does."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from stub_models import tone

from samo.serve.limits import Limits

ROOT = Path(__file__).resolve().parent.parent.parent
BEFORE = ROOT / "tests" / "fixtures" / "trained_before"
HALF = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
# A server of stubs, whose start takes no torch; the text "wait" is answered after a second.
STUBS = """
import sys, time
from pathlib import Path
from stub_models import Ears, Reader
from samo.serve.app import make_app
from samo.serve.limits import Limits
from samo.serve.server import listening, serve

class Slow(Reader):
    def answer(self, given):
        time.sleep({"wait": 1, "wait long": 12}.get(given, 0))
        return super().answer(given)

socket = listening("127.0.0.1", 0)
print(socket.getsockname()[1], flush=True)
given = {"decoders": 1, **eval(sys.argv[1])}
log = given.pop("log", None)
serve(make_app({"slow": Slow("slow"), "ears": Ears()}, Limits(**given), log=log and Path(log)), [socket])
print("ended", flush=True)
"""


@contextmanager
def stubs(**limits: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of stubs and its address."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    words = [sys.executable, "-c", STUBS, repr(limits)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
    try:
        assert process.stdout
        yield process, f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def ready(url: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError("not ready")


def test_sigterm_answers_what_has_begun_and_refuses_the_rest() -> None:
    found: list[httpx.Response] = []
    with stubs() as (process, url):
        ready(url)
        asking = threading.Thread(target=lambda: found.append(httpx.post(f"{url}/predict", json={"text": "wait"})))
        asking.start()
        while 'samo_queue_length{model="slow"} 1.0' not in httpx.get(f"{url}/metrics").text:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        refused = httpx.post(f"{url}/predict", json={"text": "x"})
        asking.join()
        assert process.wait(20) == 0
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "10"
    (answered,) = found
    assert (answered.status_code, answered.json()["text"]) == (200, "wait")


@pytest.mark.parametrize("again", [False, True])
def test_what_goes_on_too_long_does_not_keep_it(again: bool) -> None:
    with stubs(drain_timeout=60.0 if again else 0.2) as (process, url):
        ready(url)
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as half:
            half.sendall(HALF)
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            if again:
                time.sleep(0.3)
                assert process.poll() is None
                process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


@pytest.mark.parametrize("again", [False, True])
def test_a_model_that_still_computes_does_not_keep_it(again: bool, tmp_path: Path) -> None:
    """The thread cannot be stopped; it kept the process for 12 s, and who had asked got a bare 500."""
    found: list[httpx.Response] = []
    with stubs(drain_timeout=60.0 if again else 0.2, log=str(tmp_path / "log")) as (process, url):
        ready(url)
        assert httpx.post(f"{url}/predict", json={"text": "x"}).status_code == 200
        asking = threading.Thread(
            target=lambda: found.append(httpx.post(f"{url}/predict", json={"text": "wait long"}, timeout=20))
        )
        asking.start()
        while 'samo_queue_length{model="slow"} 1.0' not in httpx.get(f"{url}/metrics").text:
            time.sleep(0.02)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        if again:
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - began < 6
        asking.join()
    (answered,) = found
    assert answered.headers["content-type"] == "application/problem+json"
    assert (answered.status_code, answered.json()["detail"]) == (503, "the server is about to stop")
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_a_head_that_does_not_end_is_cut_off() -> None:
    with stubs(header_timeout=0.5, body_timeout=0.6) as (_, url):
        ready(url)
        port = int(url.rpartition(":")[2])
        heads = {
            b"": b"",
            b"GET /healthz HT": b"",
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /": b"200",
            HALF: b"408",
        }
        opened = {head: socket.create_connection(("127.0.0.1", port)) for head in heads}
        for head, connection in opened.items():
            connection.sendall(head)
            connection.settimeout(10)
        for head, connection in opened.items():
            received = b""
            try:
                while more := connection.recv(4096):
                    received += more
            except ConnectionResetError:
                pass
            assert received[9:12] == heads[head], head
            connection.close()
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_an_address_that_is_taken() -> None:
    from samo.errors import EnvironmentProblem
    from samo.serve.server import is_loopback, listening

    with listening("127.0.0.1", 0) as taken:
        # What asyncio goes by when it turns Nagle's algorithm off, which costs 40 ms an answer.
        assert taken.proto == socket.IPPROTO_TCP
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=rf"cannot listen at 127\.0\.0\.1, port {port}: "):
            listening("127.0.0.1", port)
    with pytest.raises(EnvironmentProblem, match=r"cannot listen at no\.such\.host\.invalid"):
        listening("no.such.host.invalid", 0)
    assert [is_loopback(host) for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]")] == [True] * 5
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.2", "localhost.example", "")] == [False] * 5


@contextmanager
def commanded(*words: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``samo serve`` as a process of its own, and its address; at the end SIGTERM, and status 0."""
    command = [sys.executable, "-m", "samo_cli", "serve", *map(str, words), "--port", "0", "--threads", "1"]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables)
    try:
        assert process.stderr
        lines = []
        while not (match := re.search(r"serving at (http://\S+)", lines[-1] if lines else "")):
            lines.append(process.stderr.readline())
            assert lines[-1]
        ready(match[1])
        yield process, match[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def heard(url: str, path: Path, kind: str = "audio/wav", **query: Any) -> dict[str, Any]:
    """The answer to a clip."""
    answer = httpx.post(
        f"{url}/v1/predict/audio", content=path.read_bytes(), headers={"Content-Type": kind}, params=query, timeout=30
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.slow
def test_the_command_answers_as_predict_does(tmp_path: Path) -> None:
    """Both modalities, clips with odd levels and rates, and a time line; then SIGTERM, and status 0."""
    odd = {
        "silent": tone(0.0),
        "clipped": tone(1.5, 0.5, 44100),
        "short": tone(0.5, 0.05),
        "flac": tone(0.3, 2, 48000, "FLAC"),
    }
    clips = [next((BEFORE / "clips").rglob("*.*")), BEFORE / "long.flac"]
    for name, content in odd.items():
        (tmp_path / name).write_bytes(content)
        clips.append(tmp_path / name)
    log = tmp_path / "log"
    with commanded(BEFORE / "runs" / "speech", BEFORE / "runs" / "text", "--log-predictions", log) as (_, url):
        served = [heard(url, path) for path in clips]
        text = httpx.post(f"{url}/predict", json={"text": "what a day"}).json()
    import samo

    speech, words = (samo.load(BEFORE / "runs" / name, threads=1) for name in ("speech", "text"))
    for path, answer in zip(clips, served, strict=True):
        expected = speech.predict(path).to_json()
        assert expected.pop("path") == str(path)
        assert (answer.pop("model"), answer.pop("duration_s") > 0) == ("speech", True)
        assert rounded(answer) == rounded(expected)
    assert "timeline" in served[1]
    assert rounded(text) == rounded({"model": "text", **words.predict("what a day").to_json()})
    assert len((tmp_path / "log").read_text().splitlines()) == len(clips) + 1


@pytest.mark.slow
def test_an_exported_file_is_served_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a run to a file to a server to a log to a drift; a clip in MP3 as well."""
    import samo
    from samo.deploy.export import export
    from samo.prediction.exported import ExportedModel
    from samo.runs.reporter import PlainReporter

    run, file, log = tmp_path / "runs" / "speech", tmp_path / "voice.onnx", tmp_path / "log"
    shutil.copytree(BEFORE / "runs" / "speech", run)
    export(run, file, data_root=BEFORE / "clips", threads=1, reporter=PlainReporter(quiet=True))
    compressed, clips = tmp_path / "tone.mp3", sorted((BEFORE / "clips").rglob("*.flac"))
    compressed.write_bytes(tone(0.3, 2.0, 44100, "MP3"))
    with commanded(file, "--log-predictions", log) as (process, url):
        (listed,) = httpx.get(f"{url}/v1/models").json()["models"]
        answers = [heard(url, path, "audio/flac") for path in clips]
        mp3 = heard(url, compressed, "audio/mpeg", spectrogram=1)
        loaded = Path(f"/proc/{process.pid}/maps")
        if loaded.exists():
            libraries = loaded.read_text()
            assert "onnxruntime" in libraries
            assert "libtorch" not in libraries
    one, other = samo.load(file, threads=1), samo.load(run, threads=1)
    for path, answer in zip([*clips, compressed], [*answers, mp3], strict=True):
        assert answer["model"] == "voice"
        shares = answer["tasks"]["emotion"]["probabilities"]
        assert shares == pytest.approx(one.predict(path).probabilities, abs=1e-5)
        assert shares == pytest.approx(other.predict(path).probabilities, abs=1e-3)
        assert answer["label"] == one.predict(path).label
    assert mp3["duration_s"] == pytest.approx(2.0, abs=0.06)
    assert mp3["spectrogram"]["bands"] == 32
    assert listed["card"] == ExportedModel.open(file).metadata.card
    assert "## Exported file voice.onnx" in listed["card"]
    assert (listed["name"], listed["scores"]) == ("voice", list(other.facts.scores))
    # Every clip of its corpus is like those it was validated on.
    monkeypatch.setattr("samo.deploy.drift.FEWEST", 6)
    from samo_cli.main import main

    with pytest.raises(SystemExit) as left:
        main(["drift", str(log), "--reference", str(file), "--json"])
    assert not left.value.code
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["n_reference"], found["drift"]) == (len(clips) + 1, 6, False)


def rounded(value: Any) -> Any:
    """Sizes of batches change the last bits."""
    return json.loads(json.dumps(value), parse_float=lambda number: round(float(number), 5))


def test_a_megabyte_is_a_million_bytes() -> None:
    assert Limits(max_body_mb=1.5).body_bytes == 1_500_000


def test_limits_that_contradict_each_other() -> None:
    from samo.errors import SettingsError

    for wrong in (
        {"max_queue": 2},
        {"max_body_mb": 600.0},
        {"decoders": 0},
        {"decode_timeout": float("nan")},
        {"max_duration_s": float("inf")},
    ):
        with pytest.raises(SettingsError):
            Limits(**wrong)
    assert Limits(batch_wait_ms=0).batch_wait_ms == 0
