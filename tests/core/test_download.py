"""Downloads against a local server, and archives that want out of their folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from samo.data import download as module
from samo.data.download import download
from samo.errors import DataError, DiskFull, EnvironmentProblem
from samo.files import alone

BODY = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(BODY).hexdigest()
CHUNK = module._CHUNK
MD5 = hashlib.md5(BODY).hexdigest()


@dataclass
class Server:
    """A web server on 127.0.0.1 with switchable manners."""

    url: str = ""
    body: bytes = BODY
    ranges: bool = True
    length_known: bool = True
    break_after: list[int] = field(default_factory=list)
    wrong_range: bool = False
    status: int = 200
    busy: list[int] = field(default_factory=list)
    retry_after: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server; proxies of the machine are left out of it."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    manners = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            manners.asked.append(wanted)
            if manners.busy:
                self.send_response(manners.busy.pop(0))
                if manners.retry_after:
                    self.send_header("Retry-After", manners.retry_after)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and manners.ranges else 0
            if manners.status != 200:
                self.send_error(manners.status)
                return
            if wanted and manners.ranges and start >= len(manners.body):
                self.send_error(416)
                return
            part = manners.body[start:]
            self.send_response(206 if wanted and manners.ranges else 200)
            if wanted and manners.ranges:
                shown = start + 7 if manners.wrong_range else start
                self.send_header("Content-Range", f"bytes {shown}-{len(manners.body) - 1}/{len(manners.body)}")
            if manners.length_known:
                self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            with contextlib.suppress(OSError):  # the client may hang up
                self.wfile.write(part[: manners.break_after.pop(0)] if manners.break_after else part)

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    manners.url = f"http://127.0.0.1:{running.server_port}/file.bin"
    yield manners
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """pooch waits a second or more before it tries again, and a busy server is given time: what that would be."""
    waited: list[float] = []
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(module, "sleep", waited.append)
    return waited


@pytest.fixture
def dead_url() -> str:
    """A URL at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/file.bin"


def test_writes_the_file_and_reports_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = download(
        server.url,
        tmp_path / "deep" / "file.bin",
        size=len(BODY),
        sha256=SHA256.upper(),
        md5=MD5,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert target.read_bytes() == BODY
    assert os.listdir(target.parent) == ["file.bin"]
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert seen == sorted(seen)


def test_a_good_file_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(BODY)
    download(server.url, tmp_path / "file.bin", md5=MD5)
    assert server.asked == []


def test_a_bad_file_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(BODY[:-1] + b"?")
    assert download(server.url, tmp_path / "file.bin", size=len(BODY), sha256=SHA256).read_bytes() == BODY


def test_unknown_length_is_total_zero(server: Server, tmp_path: Path) -> None:
    server.length_known = False
    totals: set[int] = set()
    download(server.url, tmp_path / "file.bin", sha256=SHA256, on_progress=lambda done, total: totals.add(total))
    assert totals == {0}


def test_continues_an_earlier_part(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(BODY[:1000])
    first: list[int] = []
    target = download(
        server.url,
        tmp_path / "file.bin",
        size=len(BODY),
        sha256=SHA256,
        on_progress=lambda done, total: first.append(done),
    )
    assert server.asked == ["bytes=1000-"]
    assert first[0] == 1000
    assert target.read_bytes() == BODY
    assert not (tmp_path / "file.bin.part").exists()


def test_a_complete_part_is_only_verified(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(BODY)
    assert download(server.url, tmp_path / "file.bin", size=len(BODY), sha256=SHA256).read_bytes() == BODY
    assert server.asked == []


@pytest.mark.parametrize("size", [0, len(BODY)])
@pytest.mark.parametrize("part", [b"x" * 1000, BODY + b"more", BODY])
def test_a_stale_part_gets_a_clean_start(server: Server, tmp_path: Path, part: bytes, size: int) -> None:
    (tmp_path / "file.bin.part").write_bytes(part)
    assert download(server.url, tmp_path / "file.bin", size=size, sha256=SHA256).read_bytes() == BODY
    assert os.listdir(tmp_path) == ["file.bin"]


def test_starts_over_where_the_server_cannot_resume(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "file.bin.part").write_bytes(BODY[:1000])
    assert download(server.url, tmp_path / "file.bin", size=len(BODY), sha256=SHA256).read_bytes() == BODY


def test_starts_over_when_the_server_sends_another_range(server: Server, tmp_path: Path) -> None:
    server.wrong_range = True
    (tmp_path / "file.bin.part").write_bytes(BODY[:1000])
    assert download(server.url, tmp_path / "file.bin", size=len(BODY), sha256=SHA256).read_bytes() == BODY
    assert server.asked == ["bytes=1000-", ""]


def test_goes_on_after_a_broken_connection(server: Server, tmp_path: Path) -> None:
    server.break_after = [5 * CHUNK, 4 * CHUNK]
    assert download(server.url, tmp_path / "file.bin", size=len(BODY), sha256=SHA256).read_bytes() == BODY
    assert server.asked == ["", f"bytes={5 * CHUNK}-", f"bytes={9 * CHUNK}-"]


def test_keeps_the_part_when_the_connection_stays_broken(server: Server, tmp_path: Path) -> None:
    server.break_after = [5 * CHUNK, 0, 0]
    with pytest.raises(EnvironmentProblem, match=r"broke after 0\.3 MB") as caught:
        download(server.url, tmp_path / "file.bin", size=len(BODY), sha256=SHA256)
    assert "again to continue" in caught.value.hint
    assert (tmp_path / "file.bin.part").stat().st_size == 5 * CHUNK


def test_an_interrupted_download_can_be_continued(server: Server, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.url, tmp_path / "file.bin", size=len(BODY), sha256=SHA256, on_progress=stop)
    kept = (tmp_path / "file.bin.part").stat().st_size
    assert 0 < kept < len(BODY)
    download(server.url, tmp_path / "file.bin", size=len(BODY), sha256=SHA256)
    assert server.asked[-1] == f"bytes={kept}-"


@pytest.mark.parametrize("digests", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"sha256": SHA256, "md5": "0" * 32}])
def test_a_wrong_checksum_keeps_nothing(server: Server, tmp_path: Path, digests: dict[str, str]) -> None:
    with pytest.raises(DataError, match="nothing was kept"):
        download(server.url, tmp_path / "file.bin", **digests)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_a_wrong_size_is_refused_before_the_transfer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"offers 1,024,000 bytes, expected 5"):
        download(server.url, tmp_path / "file.bin", size=5, sha256=SHA256)
    assert os.listdir(tmp_path) == []


def test_offline_says_what_to_do(dead_url: str, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    with pytest.raises(EnvironmentProblem, match=r"cannot reach 127\.0\.0\.1") as caught:
        download(dead_url, target, sha256=SHA256, hint="give `data_root`")
    assert caught.value.hint == f"download {dead_url} by hand and place it at {target}, or give `data_root`"
    assert os.listdir(tmp_path) == []


def test_offline_with_a_bad_copy_says_so(dead_url: str, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"half")
    with pytest.raises(EnvironmentProblem, match=r"already there has 4 bytes, expected 1,024,000"):
        download(dead_url, tmp_path / "file.bin", size=len(BODY), sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == b"half"


def test_a_silent_server_times_out(tmp_path: Path) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/file.bin"
        with pytest.raises(EnvironmentProblem, match="no answer in time"):
            download(url, tmp_path / "file.bin", sha256=SHA256, timeout=0.2)


def test_an_http_error_is_named(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(EnvironmentProblem, match="answered 404 Not Found"):
        download(server.url, tmp_path / "file.bin", sha256=SHA256)


def test_a_busy_server_is_given_time(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    server.busy = [503, 429, 500]
    assert download(server.url, tmp_path / "file.bin", sha256=SHA256).read_bytes() == BODY
    assert pauses == [1.0, 2.0, 4.0]
    server.busy, server.retry_after = [429, 503], "7"
    (tmp_path / "file.bin").unlink()
    download(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert pauses[3:] == [7.0, 7.0]


def test_a_date_to_come_again(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    later = datetime.now(UTC) + timedelta(seconds=30)
    server.busy, server.retry_after = [503], format_datetime(later, usegmt=True)
    download(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert 25.0 < pauses[0] <= 30.0


@pytest.mark.parametrize(("busy", "retry_after", "tries"), [([503] * 9, "", 6), ([429] * 9, "3600", 1)])
def test_a_server_that_stays_busy(
    server: Server, tmp_path: Path, busy: list[int], retry_after: str, tries: int
) -> None:
    server.busy, server.retry_after = busy, retry_after
    with pytest.raises(EnvironmentProblem, match=r"answered (503 Service Unavailable|429 Too Many Requests)"):
        download(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert len(server.asked) == tries
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("part", [b"", b"x" * 2 * CHUNK])
def test_a_body_that_goes_on_is_cut_off(server: Server, tmp_path: Path, part: bytes) -> None:
    server.length_known, server.body = False, BODY * 8
    (tmp_path / "file.bin.part").write_bytes(part)
    longest: list[int] = []
    with pytest.raises(DataError, match="sends more than the 1,024,000 bytes expected; nothing was kept"):
        download(
            server.url, tmp_path / "file.bin", size=len(BODY), sha256=SHA256,
            on_progress=lambda done, total: longest.append(done),
        )  # fmt: skip
    assert max(longest) <= len(BODY)
    assert os.listdir(tmp_path) == []


def test_two_at_once_fetch_it_once(server: Server, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        fetched = list(pool.map(lambda _: download(server.url, tmp_path / "file.bin", sha256=SHA256), range(3)))
    assert [path.read_bytes() == BODY for path in fetched] == [True] * 3
    assert server.asked == [""]
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_lock_falls_with_its_process_and_leaves_no_file(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "set"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".set.lock").write_text("of a process that was killed")
    seen: list[str] = []

    def interrupted() -> None:
        with alone(target):
            seen.extend(os.listdir(target.parent))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen == [".set.lock"]
    assert os.listdir(target.parent) == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/file.bin", "nonsense", "http://"])
def test_an_unusable_url_is_no_crash(url: str, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot reach"):
        download(url, tmp_path / "file.bin", sha256=SHA256)


def test_the_next_url_is_tried(server: Server, dead_url: str, tmp_path: Path) -> None:
    assert download([dead_url, server.url], tmp_path / "file.bin", sha256=SHA256).read_bytes() == BODY


def test_a_wrong_file_outweighs_a_silent_server(server: Server, dead_url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot reach .*; the file from 127.* has sha256"):
        download([dead_url, server.url], tmp_path / "file.bin", sha256="0" * 64)


def test_a_checksum_is_required(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checksum"):
        download("http://127.0.0.1/", tmp_path / "file.bin")


def test_a_full_disk_keeps_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(DiskFull, match="MB are needed"):
        download(server.url, tmp_path / "file.bin", size=len(BODY), sha256=SHA256)
    assert os.listdir(tmp_path) == []
