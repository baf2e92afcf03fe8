"""The modalities by name: nothing of them is imported before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samo.errors import SettingsError, nearest
from samo.lazy import load_object

if TYPE_CHECKING:
    from samo.frontend import Frontend
    from samo.settings import Config

__all__ = [
    "MODALITIES",
    "Modality",
    "config_type",
    "config_types",
    "ensemble_files",
    "exporter_type",
    "frontend_type",
    "grid_files",
    "measured_file",
    "predictor_type",
    "preset_files",
    "released_files",
    "space_files",
    "unknown_name",
    "write_examples",
]


@dataclass(frozen=True)
class Modality:
    """What belongs to a modality, as ``"module:attribute"``.

    Attributes:
        config: its settings.
        frontend: what joins its data and networks to the trainer.
        predictor: what answers with a trained run.
        package: where presets, grids and search spaces lie.
        exporter: what exporting knows of its networks.
        decoder: ``decode(path, sr, longest_s)`` for files that strangers send; empty where there is nothing to decode.
        examples: ``write_examples(folder)``, inputs that anybody may pass on.
    """

    config: str
    frontend: str
    predictor: str
    package: str
    exporter: str
    decoder: str = ""
    examples: str = ""


MODALITIES = {
    "audio": Modality(
        "samo_audio.config:AudioConfig",
        "samo_audio.frontend:AudioFrontend",
        "samo_audio.predictor:AudioPredictor",
        "samo_audio",
        "samo_audio.exporting:AudioExporter",
        "samo_audio.upload:decode",
        examples="samo_audio.examples:write_examples",
    ),
    "text": Modality(
        "samo_text.config:TextConfig",
        "samo_text.frontend:TextFrontend",
        "samo_text.predictor:TextPredictor",
        "samo_text",
        "samo_text.exporting:TextExporter",
        examples="samo_text.examples:write_examples",
    ),
}


def config_type(modality: str) -> type[Config]:
    """The settings model of a modality.

    Raises:
        SettingsError: unknown modality.
    """
    found: type[Config] = load_object(_entry(modality).config)
    return found


def config_types() -> dict[str, type[Config]]:
    """The settings model of every modality, by name."""
    return {modality: config_type(modality) for modality in MODALITIES}


def frontend_type(modality: str) -> type[Frontend]:
    """The frontend of a modality; imports torch."""
    found: type[Frontend] = load_object(_entry(modality).frontend)
    return found


def predictor_type(modality: str) -> Any:
    """What answers with a trained run of a modality: a :class:`samo.prediction.ModelPredictor` with ``from_run``."""
    return load_object(_entry(modality).predictor)


def exporter_type(modality: str) -> Any:
    """What exporting knows of a modality's networks, a :class:`samo.deploy.exporter.Exporter`; imports torch."""
    return load_object(_entry(modality).exporter)


def write_examples(modality: str, folder: Path) -> dict[str, str]:
    """Write inputs that anybody may pass on into a folder; what a predictor is given, by where it stands."""
    found: dict[str, str] = load_object(_entry(modality).examples)(folder)
    return found


def preset_files(modality: str) -> dict[str, Path]:
    """Preset files by name."""
    return _shipped(modality, "presets")


def ensemble_files(modality: str) -> dict[str, Path]:
    """Files of the ensembles of presets that ship with SAMO, by name; ``preset`` takes these names too."""
    return _shipped(modality, "ensembles")


def measured_file(modality: str) -> Path | None:
    """The file of what was measured of the presets; None where a modality has none."""
    return _shipped(modality, "measured").get("presets")


def released_files() -> dict[str, Path]:
    """Exported models that come with SAMO, of all modalities by name."""
    return {name: path for modality in MODALITIES for name, path in _shipped(modality, "released", "onnx").items()}


def grid_files(modality: str) -> dict[str, Path]:
    """Files of the grids that ship with SAMO, by name."""
    return _shipped(modality, "grids")


def space_files(modality: str) -> dict[str, Path]:
    """Files of the search spaces that ship with SAMO, by name; ``default`` is always there."""
    return _shipped(modality, "spaces")


def unknown_name(setting: str, name: str, modality: str, known: Mapping[str, Iterable[str]]) -> SettingsError:
    """The error for a name that a setting does not take, which says so where another modality knows it.

    Args:
        setting: such as ``preset`` or ``model``.
        name: its value.
        modality: in which it was given.
        known: the names of every modality.
    """
    owners = [other for other in known if other != modality and name in known[other]]
    if owners:
        return SettingsError(
            f"`{setting}={name}` is no {setting} of `modality={modality}`",
            hint=f"it belongs to {' and '.join(f'`modality={owner}`' for owner in owners)}",
        )
    valid = tuple(known[modality])
    return SettingsError(
        f"unknown {setting} '{name}'", hint=nearest(name, valid) + f"valid: {', '.join(valid) or 'none'}"
    )


def _entry(modality: str) -> Modality:
    if modality not in MODALITIES:
        raise SettingsError(
            f"unknown modality '{modality}'", hint=nearest(modality, MODALITIES) + f"valid: {', '.join(MODALITIES)}"
        )
    return MODALITIES[modality]


def _shipped(modality: str, folder: str, suffix: str = "toml") -> dict[str, Path]:
    root = Path(str(import_module(_entry(modality).package).__file__)).parent / folder
    return {path.stem: path for path in sorted(root.glob(f"*.{suffix}"))}
