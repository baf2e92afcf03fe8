"""SAMO as it is installed: the exact versions of what it needs, and a wheel of the files that run now.

The wheel is made here rather than by pip: without an index, without build tools, and with the same bytes each time.
"""

from __future__ import annotations

import base64
import hashlib
import re
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import samo
from samo import __version__
from samo.errors import EnvironmentProblem
from samo.lazy import extra_hint

__all__ = ["DISTRIBUTION", "WHEEL", "Distribution", "installed", "pinned", "write_wheel"]

DISTRIBUTION = "samo-emotion"
PACKAGES = ("samo", "samo_audio", "samo_text", "samo_cli")
_STEM = f"samo_emotion-{__version__}"
WHEEL = f"{_STEM}-py3-none-any.whl"
# The first moment that a zip file can name.
_NO_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Distribution:
    """What SAMO says of itself to pip.

    Attributes:
        python: the versions of Python it runs with, as ``>=3.11``.
        requires: requirements of the base installation.
        extras: further requirements by extra.
        licence: the text of SAMO's licence; empty where it is not found.
    """

    python: str
    requires: tuple[str, ...]
    extras: dict[str, tuple[str, ...]]
    licence: str


def installed() -> Distribution:
    """SAMO as it runs now: of a checkout its ``pyproject.toml``, since what pip noted of that may be older.

    Raises:
        EnvironmentProblem: it is neither a checkout nor installed.
    """
    root = Path(str(samo.__file__)).parent.parent
    project = root / "pyproject.toml"
    if project.is_file():
        table = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        if table.get("name") == DISTRIBUTION:
            extras = {name: tuple(lines) for name, lines in table["optional-dependencies"].items()}
            text = root / "LICENSE"
            licence = text.read_text(encoding="utf-8") if text.is_file() else ""
            return Distribution(table["requires-python"], tuple(table["dependencies"]), extras, licence)
    return _noted()


def _noted() -> Distribution:
    """SAMO as pip noted it when it was installed."""
    try:
        found = distribution(DISTRIBUTION)
    except PackageNotFoundError as error:
        raise EnvironmentProblem(
            f"{DISTRIBUTION} is not installed, so nothing says what it needs", hint=f"pip install {DISTRIBUTION}"
        ) from error
    base: list[str] = []
    extras = {name: list[str]() for name in found.metadata.get_all("Provides-Extra") or ()}
    for line in found.requires or ():
        requirement, _, marker = line.partition(";")
        extra = re.search(r"""extra == ["']([\w-]+)["']""", marker)
        (extras[extra[1]] if extra else base).append(requirement.strip())
    licence = next((file for file in found.files or () if file.name == "LICENSE"), None)
    return Distribution(
        "".join(found.metadata.get_all("Requires-Python") or ()),
        tuple(base),
        {name: tuple(lines) for name, lines in extras.items()},
        licence.read_text() if licence else "",
    )


def pinned(requirements: Iterable[str], extra: str = "") -> dict[str, str]:
    """The installed versions of some requirements and of all that these need, by name, sorted.

    Args:
        requirements: as they stand in ``pyproject.toml``.
        extra: that of SAMO which brings them, for the error.

    Raises:
        EnvironmentProblem: one is not installed.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(Requirement(line), "") for line in requirements]
    while todo:
        requirement, context = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": context}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            package = distribution(name)
        except PackageNotFoundError as error:
            hint = extra_hint(extra) if extra else f"pip install {DISTRIBUTION}"
            raise EnvironmentProblem(f"{name} is not installed, so its version cannot be pinned", hint=hint) from error
        found[name] = package.version
        for part in ("", *requirement.extras):
            if (name, part) not in seen:
                seen.add((name, part))
                todo += [(Requirement(line), part) for line in package.requires or ()]
    return dict(sorted(found.items()))


def write_wheel(folder: Path, about: Distribution) -> Path:
    """Write SAMO's own packages as a wheel that pip installs.

    Args:
        folder: where to; made if need be.
        about: what the wheel says of itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, info = folder / WHEEL, f"{_STEM}.dist-info"
    files = dict(_sources())
    if about.licence:
        files[f"{info}/licenses/LICENSE"] = about.licence.encode()
    files[f"{info}/METADATA"] = _metadata(about).encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: samo {__version__}\nRoot-Is-Purelib: true\nTag: py3-none-any\n".encode()
    )
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\nsamo = samo_cli.main:main\n"
    record = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _NO_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            wheel.writestr(entry, content)
    return target


def _sources() -> Iterator[tuple[str, bytes]]:
    """Every file of SAMO's packages by its place in the wheel, sorted."""
    from importlib import import_module

    for package in PACKAGES:
        root = Path(str(import_module(package).__file__)).parent
        for path in sorted(root.rglob("*")):
            place = path.relative_to(root)
            if path.is_file() and "__pycache__" not in place.parts and not place.name.startswith("."):
                yield f"{package}/{place.as_posix()}", path.read_bytes()


def _metadata(about: Distribution) -> str:
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {DISTRIBUTION}",
        f"Version: {__version__}",
        "Summary: Emotion recognition from speech and text whose numbers you can believe",
        f"Requires-Python: {about.python}",
        "License-Expression: MIT",
        *(["License-File: LICENSE"] if about.licence else []),
        *(f"Requires-Dist: {line}" for line in about.requires),
    ]
    for extra, requires in about.extras.items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f'Requires-Dist: {line}; extra == "{extra}"' for line in requires]
    return "\n".join(lines) + "\n"


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
