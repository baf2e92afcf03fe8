"""Fetching corpora: resumable downloads with checksums, and unzipping that cannot escape its folder.

``pooch`` is left aside: it cannot continue a broken download, and wraps the same ``requests`` used here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from samo import __version__
from samo.errors import DataError, DiskFull, EnvironmentProblem, first_ten, reporting_full_disk

if TYPE_CHECKING:
    from requests import RequestException, Response

__all__ = ["Progress", "RemoteFile", "download", "unpack_zip"]

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in total); the total is 0 while unknown."""

_CHUNK = 1 << 16
_ATTEMPTS = 20
_ROOMY = 16 << 20


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


class _BrokenError(Exception):
    """The connection ended early; what came so far is kept."""


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
    agrees is returned without asking the network. Two processes fetching the same target spoil each other's part,
    which the checksum reports.

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
    wanted = _Wanted(size, md5.lower(), sha256.lower())
    present = wanted.problem(target) if target.is_file() else ""
    if target.is_file() and not present:
        return target
    part = target.with_name(target.name + ".part")
    failures: list[_UnreachableError | _WrongError] = []
    try:
        with reporting_full_disk(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            for url in urls:
                try:
                    _fetch(url, part, wanted, on_progress or _no_progress, timeout)
                    part.replace(target)
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
    md5: str
    sha256: str

    def problem(self, path: Path) -> str:
        """Say how the file differs from what is wanted; empty when it does not."""
        found = path.stat().st_size
        if self.size and found != self.size:
            return f"has {found:,} bytes, expected {self.size:,}"
        for name, expected in (("sha256", self.sha256), ("md5", self.md5)):
            if expected:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, partial(hashlib.new, name, usedforsecurity=False))
                if digest.hexdigest() != expected:
                    return f"has {name} {digest.hexdigest()}, expected {expected}"
        return ""


def _fetch(url: str, part: Path, wanted: _Wanted, on_progress: Progress, timeout: float) -> None:
    """Fill ``part`` from one server and verify it; go on after a break as long as every try gets further."""
    host = _host(url)
    for _ in range(_ATTEMPTS):
        before = _length(part)
        try:
            _stream(url, part, wanted, on_progress, timeout)
        except _BrokenError as broken:
            if _length(part) <= before:
                raise _UnreachableError(str(broken)) from broken
            continue
        problem = wanted.problem(part)
        if not problem:
            return
        part.unlink()
        if not before:
            raise _WrongError(f"the file from {host} {problem}")
        # An old part may be of another version of the file: one clean start decides.
    raise _UnreachableError(f"the connection to {host} breaks again and again")


def _stream(url: str, part: Path, wanted: _Wanted, on_progress: Progress, timeout: float) -> None:
    """One request: append to ``part`` what it lacks, or write it anew if the server cannot resume."""
    import requests

    done = _length(part)
    if wanted.size and done == wanted.size:
        return
    if wanted.size and done > wanted.size:
        part.unlink()
        done = 0
    # Compressed transfer would make byte positions meaningless.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"samo/{__version__}"}
    if done:
        headers["Range"] = f"bytes={done}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
            resumed = answer.status_code == 206 and _starts_at(answer, done)
            if done and (answer.status_code == 416 or (answer.status_code == 206 and not resumed)):
                part.unlink()
                _stream(url, part, wanted, on_progress, timeout)
                return
            if answer.status_code not in (200, 206):
                raise _UnreachableError(f"{_host(url)} answered {answer.status_code} {answer.reason}")
            done = done if resumed else 0
            total = _total(answer, done, wanted, url)
            _check_room(part, total - done)
            with part.open("ab" if resumed else "wb") as file:
                on_progress(done, total)
                for chunk in answer.iter_content(_CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    on_progress(done, total)
                file.flush()
                os.fsync(file.fileno())
    except requests.RequestException as error:
        raise _BrokenError(_reason(error, url, done)) from error


def _total(answer: Response, done: int, wanted: _Wanted, url: str) -> int:
    length = answer.headers.get("Content-Length", "")
    total = done + int(length) if length.isdigit() else 0
    if wanted.size and total and total != wanted.size:
        raise _WrongError(f"{_host(url)} offers {total:,} bytes, expected {wanted.size:,}")
    return wanted.size or total


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
    failures: Sequence[_UnreachableError | _WrongError], url: str, target: Path, present: str, hint: str
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


def _check_room(path: Path, needed: int) -> None:
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


def unpack_zip(archive: Path, folder: Path, *, on_progress: Progress | None = None, max_ratio: float = 100.0) -> Path:
    """Unpack a zip into a folder that appears only when everything is in it.

    Nothing is written before every name was checked: absolute paths, ``..``, symbolic links and devices are
    refused, and so is an archive that claims to grow more than ``max_ratio`` times (a zip bomb; beyond 16 MiB).
    Permissions stored in the archive are not applied.

    Args:
        archive: the zip file.
        folder: folder to make; must not exist, or be empty.
        on_progress: called with (bytes written, bytes in total).
        max_ratio: largest uncompressed size as a multiple of the archive's size.

    Raises:
        DataError: the archive is damaged, encrypted or unsafe, or ``folder`` holds something.
        DiskFull: the disk has no room.
    """
    if not archive.is_file():
        raise DataError(f"there is no archive {archive}")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise DataError(f"{folder} is already there", hint="move it away to unpack again")
    with reporting_full_disk(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that the last step is a rename on the same disk.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            fresh = Path(temporary) / "unpacked"
            fresh.mkdir()
            try:
                with zipfile.ZipFile(archive) as opened:
                    members = _checked(opened, archive, max_ratio)
                    _check_room(fresh, sum(info.file_size for info, _ in members))
                    _extract(opened, members, fresh, on_progress or _no_progress)
            except FileExistsError as error:
                raise DataError(f"{archive} holds a name twice: {error.filename}") from error
            except NotADirectoryError as error:
                raise DataError(f"{archive} uses a file as a folder: {error.filename}") from error
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                raise DataError(f"{archive} is not a readable zip file: {error}") from error
            fresh.replace(folder)
    return folder


def _checked(opened: zipfile.ZipFile, archive: Path, max_ratio: float) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The archive's files with safe relative paths."""
    members = [(info, PurePosixPath(info.filename.replace("\\", "/"))) for info in opened.infolist()]
    unsafe = [info.filename for info, path in members if _escapes(path) or not _plain(info)]
    if unsafe:
        raise DataError(
            f"{archive} is unsafe: {first_ten(map(repr, unsafe))} would lie outside the folder or be a link",
            hint="do not use this archive; get the corpus from its official page",
        )
    total, packed = sum(info.file_size for info, _ in members), archive.stat().st_size
    if total > max(max_ratio * packed, _ROOMY):
        raise DataError(f"{archive} is unsafe: {packed:,} bytes would grow to {total:,}")
    return [(info, path) for info, path in members if not info.is_dir()]


def _escapes(path: PurePosixPath) -> bool:
    return path.is_absolute() or ".." in path.parts or bool(PureWindowsPath(str(path)).drive) or not path.parts


def _plain(info: zipfile.ZipInfo) -> bool:
    """Whether an entry is a file or a folder; archives from Windows store no type at all."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    return kind in (0, stat.S_IFREG, stat.S_IFDIR)


def _extract(
    opened: zipfile.ZipFile,
    members: Iterable[tuple[zipfile.ZipInfo, PurePosixPath]],
    folder: Path,
    on_progress: Progress,
) -> None:
    members = list(members)
    done, total = 0, sum(info.file_size for info, _ in members)
    for info, relative in members:
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        # zipfile never yields more than the size it declares, so the checked total holds.
        with opened.open(info) as source, path.open("xb") as sink:
            while chunk := source.read(_CHUNK):
                sink.write(chunk)
                done += len(chunk)
                on_progress(done, total)
