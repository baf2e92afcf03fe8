"""Versions and hardware, as far as they are known without torch."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from samo import __version__

__all__ = ["machine"]

_CHECKOUT = Path(__file__).resolve().parent.parent.parent
_PACKAGES = (
    "torch",
    "torchaudio",
    "torchvision",
    "onnxruntime",
    "onnx",
    "numpy",
    "scikit-learn",
    "soundfile",
    "soxr",
    "transformers",
    "tokenizers",
    "pydantic",
)


def machine() -> dict[str, Any]:
    """Versions, system and processor.

    ``commit`` is that of SAMO's own checkout, 40 hexadecimal digits, with ``-dirty`` behind them where files differ
    from it; None where SAMO is installed, and ``samo`` is the version.
    """
    return {
        "samo": __version__,
        "commit": _commit(_CHECKOUT),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "packages": {name: _installed(name) for name in _PACKAGES},
    }


@cache
def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit(checkout: Path) -> str | None:
    # A package inside somebody else's repository is no checkout of SAMO's.
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    # Inside a hook git's variables name another repository.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        found = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
