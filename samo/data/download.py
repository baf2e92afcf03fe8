"""Fetching corpora: downloads that can be continued and are checked.

``pooch`` checks hashes, tries again and puts the whole file in place. Here is what it does not do:

- Going on where a broken or interrupted download ended; pooch begins anew. RAVDESS' 199 MB from a local server that
  hangs up after 64 MB: 4 requests and 199 MB; with pooch's own downloader 20 requests, 1280 MB and no file. Hanging up
  at random after 100 MB on average: 2 requests and 199 MB against 18 and 1571 MB.
- Waiting for a server that has too much to do, for as long as it asks.
- Several servers, the expected size, room on the disk, one line on what went wrong.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import sleep, time
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from samo import __version__
from samo.errors import DataError, DiskFull, EnvironmentProblem, reporting_full_disk
from samo.files import alone

if TYPE_CHECKING:
    from requests import RequestException, Response

__all__ = ["Progress", "RemoteFile", "check_room", "download"]

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in total); the total is 0 while unknown."""

_CHUNK = 1 << 16
_RETRIES = 19
# Too many requests, and what a server says that is overloaded or restarts; how long to wait before each further try.
_BUSY = frozenset({429, 500, 502, 503, 504})
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class RemoteFile:
    """A file on the net that a corpus consists of.

    Attributes:
        name: file name to keep it under.
        urls: places it can be had from, best first.
        size: bytes.
        md5: hexadecimal digest, or empty.
        sha256: hexadecimal digest, or empty.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    md5: str = ""
    sha256: str = ""


class _UnreachableError(Exception):
    """The server did not deliver; another one might."""


class _BusyError(Exception):
    """The server asks to come again later, after so many seconds where it says so."""

    def __init__(self, message: str, pause_s: float | None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


class _WrongError(Exception):
    """The server delivered something else."""


def download(
    urls: str | Sequence[str],
    target: Path,
    *,
    size: int = 0,
    md5: str = "",
    sha256: str = "",
    on_progress: Progress | None = None,
    timeout: float = 30.0,
    hint: str = "",
) -> Path:
    """Fetch a file once; a broken download is continued where the server allows it.

    Bytes go to ``<target>.part`` and are renamed only when size and checksums agree. A ``target`` that already
    agrees is returned without asking the network. Of two processes that fetch the same target one waits for the other.

    Args:
        urls: one URL or several, tried in turn.
        target: file to write; its folder is made.
        size: expected size in bytes; 0 = unknown.
        md5: expected hexadecimal MD5; empty = not checked.
        sha256: expected hexadecimal SHA-256; empty = not checked.
        on_progress: see :data:`Progress`.
        timeout: longest silence of the server, in seconds.
        hint: what else the user could do when nothing can be reached.

    Raises:
        EnvironmentProblem: no server delivered the file.
        DataError: what was delivered has another size or checksum; nothing of it is kept.
        DiskFull: the disk has no room; nothing is kept.
    """
    if not (md5 or sha256):
        raise ValueError("a download needs a checksum: give md5 or sha256")
    urls = (urls,) if isinstance(urls, str) else tuple(urls)
    wanted = _Wanted(size, {"sha256": sha256.lower(), "md5": md5.lower()})
    present = wanted.problem(target) if target.is_file() else ""
    if target.is_file() and not present:
        return target
    part = target.with_name(target.name + ".part")
    failures: list[Exception] = []
    try:
        with alone(target), reporting_full_disk(target):
            if target.is_file() and not (present := wanted.problem(target)):
                return target
            for url in urls:
                try:
                    _fetch(url, target, _Resuming(part, wanted, on_progress or _no_progress, timeout))
                    return target
                except (_UnreachableError, _WrongError) as failure:
                    failures.append(failure)
    except DiskFull:
        part.unlink(missing_ok=True)
        raise
    raise _explained(failures, urls[0], target, present, hint)


@dataclass(frozen=True)
class _Wanted:
    """What the file must be."""

    size: int
    digests: dict[str, str]

    def problem(self, path: Path) -> str:
        """Say how the file differs from what is wanted; empty when it does not."""
        import pooch

        found = path.stat().st_size
        if self.size and found != self.size:
            return f"has {found:,} bytes, expected {self.size:,}"
        for name, expected in self.digests.items():
            if expected and (digest := pooch.file_hash(str(path), alg=name)) != expected:
                return f"has {name} {digest}, expected {expected}"
        return ""


def _fetch(url: str, target: Path, downloader: _Resuming) -> None:
    """Let pooch fetch a file from one server, as often as that gets further."""
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    known_hash = next(f"{name}:{digest}" for name, digest in downloader.wanted.digests.items() if digest)
    keeper = pooch.create(
        target.parent, "", registry={target.name: known_hash}, urls={target.name: url}, retry_if_failed=_RETRIES
    )
    try:
        keeper.fetch(target.name, downloader=downloader)
    except (requests.RequestException, ValueError) as error:
        raise _UnreachableError(f"the connection to {_host(url)} breaks again and again") from error


@dataclass
class _Resuming:
    """A downloader as pooch calls it, which goes on with ``part`` where an earlier try ended."""

    part: Path
    wanted: _Wanted
    on_progress: Progress
    timeout: float

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Fill ``output_file`` or raise; pooch tries again after errors of requests and ``ValueError``."""
        import requests

        before = _length(self.part)
        try:
            self._patiently_stream(url, before)
        except requests.RequestException as error:
            if _length(self.part) > before:
                raise
            raise _UnreachableError(_reason(error, url, before)) from error
        problem = self.wanted.problem(self.part)
        if problem:
            self.part.unlink()
            # An old part may be of another version of the file: one clean start decides.
            raise ValueError(problem) if before else _WrongError(f"the file from {_host(url)} {problem}")
        self.part.replace(output_file)

    def _patiently_stream(self, url: str, start: int) -> None:
        for pause_s in (*_PAUSES_S, None):
            try:
                self._stream(url, start)
                return
            except _BusyError as busy:
                if pause_s is None or (busy.pause_s or 0.0) > _LONGEST_PAUSE_S:
                    raise _UnreachableError(str(busy)) from busy
                sleep(pause_s if busy.pause_s is None else busy.pause_s)

    def _stream(self, url: str, start: int) -> None:
        """One request: append to ``part`` what it lacks, or write it anew if the server cannot resume."""
        import requests

        if self.wanted.size and start == self.wanted.size:
            return
        # Compressed transfer would make byte positions meaningless.
        headers = {"Accept-Encoding": "identity", "User-Agent": f"samo/{__version__}"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as answer:
            resumed = answer.status_code == 206 and _starts_at(answer, start)
            if start and (answer.status_code == 416 or (answer.status_code == 206 and not resumed)):
                self.part.unlink()
                raise ValueError("the server cannot go on from here")
            if answer.status_code not in (200, 206):
                what = f"{_host(url)} answered {answer.status_code} {answer.reason}"
                raise (
                    _BusyError(what, _requested_pause(answer))
                    if answer.status_code in _BUSY
                    else _UnreachableError(what)
                )
            done = start if resumed else 0
            total = self._total(answer, done, url)
            with self.part.open("ab" if resumed else "wb") as file:
                self.on_progress(done, total)
                for chunk in answer.iter_content(_CHUNK):
                    if self.wanted.size and file.tell() + len(chunk) > self.wanted.size:
                        self._refuse_more(url, resumed=resumed)
                    file.write(chunk)
                    self.on_progress(file.tell(), total)

    def _refuse_more(self, url: str, *, resumed: bool) -> NoReturn:
        """The server goes on past the end, and may never stop."""
        self.part.unlink()
        what = f"{_host(url)} sends more than the {self.wanted.size:,} bytes expected"
        # An old part may be of another version of the file: one clean start decides.
        raise ValueError(what) if resumed else _WrongError(what)

    def _total(self, answer: Response, done: int, url: str) -> int:
        """Bytes of the whole file, 0 if unknown; refused before they come if they are too many or the wrong ones."""
        length = answer.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else 0
        if self.wanted.size and total and total != self.wanted.size:
            raise _WrongError(f"{_host(url)} offers {total:,} bytes, expected {self.wanted.size:,}")
        total = self.wanted.size or total
        check_room(self.part, total - done)
        return total


def _requested_pause(answer: Response) -> float | None:
    """Seconds to wait by ``Retry-After`` (RFC 9110, 10.2.3); None: the server does not say."""
    given = answer.headers.get("Retry-After", "").strip()
    if given.isdigit():
        return float(given)
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time())
    except ValueError:
        return None


def _starts_at(answer: Response, position: int) -> bool:
    return answer.headers.get("Content-Range", "").startswith(f"bytes {position}-")


def _reason(error: RequestException, url: str, done: int) -> str:
    import requests

    host = _host(url)
    if done:
        return f"the connection to {host} broke after {done / 1e6:.1f} MB"
    if isinstance(error, requests.exceptions.SSLError):
        return f"cannot reach {host}: its certificate is not trusted"
    if isinstance(error, requests.Timeout):
        return f"cannot reach {host}: no answer in time"
    if isinstance(error, requests.ConnectionError):
        return f"cannot reach {host}: no connection"
    return f"cannot reach {host}: {error}"


def _explained(
    failures: Sequence[Exception], url: str, target: Path, present: str, hint: str
) -> DataError | EnvironmentProblem:
    """One error for all servers that failed; a wrong file outweighs a silent server."""
    what = "; ".join(dict.fromkeys(str(failure) for failure in failures))
    if present:
        what += f"; the {target} already there {present}"
    advice = f"download {url} by hand and place it at {target}" + (f", or {hint}" if hint else "")
    if any(isinstance(failure, _WrongError) for failure in failures):
        return DataError(f"{what}; nothing was kept", hint=f"try again later, or {advice}")
    if _length(target.with_name(target.name + ".part")):
        advice = f"run the command again to continue, or {advice}"
    return EnvironmentProblem(what, hint=advice)


def check_room(path: Path, needed: int) -> None:
    """Refuse what does not fit on the disk of a path to be made.

    Raises:
        DiskFull: there are fewer bytes free than needed.
    """
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DiskFull(
            f"{path.parent} has {free / 1e6:,.0f} MB free, {needed / 1e6:,.0f} MB are needed",
            hint="free some space or point SAMO_CACHE at another disk",
        )


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _no_progress(done: int, total: int) -> None:
    """Say nothing."""
