"""Unzipping that cannot escape its folder, which appears only when it is whole: ``pooch.Unzip`` checks neither."""

from __future__ import annotations

import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from samo.data.download import Progress, check_room
from samo.errors import DataError, first_ten, reporting_full_disk

__all__ = ["unpack_zip"]

_ROOMY = 16 << 20


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
                    done, total = 0, sum(info.file_size for info in members)
                    check_room(fresh, total)
                    for info in members:
                        # zipfile never yields more than the size it declares, so the checked total holds.
                        opened.extract(info, fresh)
                        done += info.file_size
                        if on_progress is not None:
                            on_progress(done, total)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                raise DataError(f"{archive} is not a readable zip file: {error}") from error
            fresh.replace(folder)
    return folder


def _checked(opened: zipfile.ZipFile, archive: Path, max_ratio: float) -> list[zipfile.ZipInfo]:
    """The archive's files, under safe relative names that do not collide."""
    members = opened.infolist()
    paths = [PurePosixPath(info.filename.replace("\\", "/")) for info in members]
    unsafe = [info.filename for info, path in zip(members, paths, strict=True) if _escapes(path) or not _plain(info)]
    if unsafe:
        raise DataError(
            f"{archive} is unsafe: {first_ten(map(repr, unsafe))} would lie outside the folder or be a link",
            hint="do not use this archive; get the corpus from its official page",
        )
    total, packed = sum(info.file_size for info in members), archive.stat().st_size
    if total > max(max_ratio * packed, _ROOMY):
        raise DataError(f"{archive} is unsafe: {packed:,} bytes would grow to {total:,}")
    files = {str(path): info for info, path in zip(members, paths, strict=True) if not info.is_dir()}
    if len(files) < sum(not info.is_dir() for info in members):
        raise DataError(f"{archive} holds a name twice")
    if any(str(folder) in files for path in paths for folder in path.parents):
        raise DataError(f"{archive} uses a file as a folder")
    for name, info in files.items():
        info.filename = name
    return list(files.values())


def _escapes(path: PurePosixPath) -> bool:
    return path.is_absolute() or ".." in path.parts or bool(PureWindowsPath(str(path)).drive) or not path.parts


def _plain(info: zipfile.ZipInfo) -> bool:
    """Whether an entry is a file or a folder; archives from Windows store no type at all."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    return kind in (0, stat.S_IFREG, stat.S_IFDIR)
