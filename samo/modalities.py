"""Which frontend serves which ``modality``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from samo.errors import SettingsError, nearest
from samo.lazy import load_object

if TYPE_CHECKING:
    from samo.frontend import Frontend
    from samo.settings import Config

__all__ = [
    "MODALITIES",
    "config_type",
    "config_types",
    "frontend_type",
    "grid_files",
    "preset_files",
    "space_files",
]

# modality: (settings, frontend, package with presets and grids), as "module:name": naming them imports nothing.
MODALITIES = {
    "audio": ("samo_audio.config:AudioConfig", "samo_audio.frontend:AudioFrontend", "samo_audio"),
    "text": ("samo_text.config:TextConfig", "samo_text.frontend:TextFrontend", "samo_text"),
}


def config_type(modality: str) -> type[Config]:
    """The settings model of a modality.

    Raises:
        SettingsError: unknown modality.
    """
    found: type[Config] = load_object(_entry(modality)[0])
    return found


def config_types() -> dict[str, type[Config]]:
    """The settings model of every modality, by name."""
    return {modality: config_type(modality) for modality in MODALITIES}


def frontend_type(modality: str) -> type[Frontend]:
    """The frontend of a modality; imports torch."""
    found: type[Frontend] = load_object(_entry(modality)[1])
    return found


def preset_files(modality: str) -> dict[str, Path]:
    """Preset files by name."""
    return _shipped(modality, "presets")


def grid_files(modality: str) -> dict[str, Path]:
    """Files of the grids that ship with SAMO, by name."""
    return _shipped(modality, "grids")


def space_files(modality: str) -> dict[str, Path]:
    """Files of the search spaces that ship with SAMO, by name; ``default`` is always there."""
    return _shipped(modality, "spaces")


def _entry(modality: str) -> tuple[str, str, str]:
    if modality not in MODALITIES:
        raise SettingsError(
            f"unknown modality '{modality}'", hint=nearest(modality, MODALITIES) + f"valid: {', '.join(MODALITIES)}"
        )
    return MODALITIES[modality]


def _shipped(modality: str, folder: str) -> dict[str, Path]:
    root = Path(str(import_module(_entry(modality)[2]).__file__)).parent / folder
    return {path.stem: path for path in sorted(root.glob("*.toml"))}
