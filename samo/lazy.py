"""Things named as ``"package.module:attribute"``: naming them imports nothing; and what brings a missing one."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from samo.errors import EnvironmentProblem

__all__ = ["EXTRAS", "extra_hint", "installed_extras", "load_object", "missing_extra"]

# The top-level modules that come with an extra of the distribution and not without: what is in no list is always there.
EXTRAS = {
    "train": (
        "torch", "torchvision", "torchaudio", "scipy", "sklearn", "librosa", "transformers", "nltk", "safetensors",
        "matplotlib", "jinja2", "requests", "pooch", "fsspec",
    ),
    "export": ("onnx", "onnxscript"),
    "serve": ("fastapi", "starlette", "uvicorn", "prometheus_client"),
    "mic": ("sounddevice",),
    "bulk": ("pyarrow",),
    "track": ("tensorboard", "mlflow", "sqlalchemy", "alembic"),
    "tune": ("optuna",),
    "cluster": ("ray", "pandas", "pyarrow"),
}  # fmt: skip


def load_object(target: str) -> Any:
    """Import what ``"package.module:attribute"`` names.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such attribute.
        EnvironmentProblem: it needs a package of an extra that is not installed.
    """
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        problem = missing_extra(error, target.replace(":", "."))
        if problem is None:
            raise
        raise problem from error


def missing_extra(error: ModuleNotFoundError, what: str) -> EnvironmentProblem | None:
    """The line for a package that is not installed; None where no extra brings it.

    Args:
        error: as the import raised it.
        what: what needs the package.
    """
    package = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if package in modules:
            return EnvironmentProblem(f"{what} needs {package}, which is not installed", hint=extra_hint(extra))
    return None


def installed_extras() -> dict[str, bool]:
    """Which extras are installed whole, by name; nothing is imported."""
    return {extra: all(find_spec(name) for name in modules) for extra, modules in EXTRAS.items()}


def extra_hint(extra: str) -> str:
    """How to install an extra, for a hint."""
    return f'pip install "samo-emotion[{extra}]"'
