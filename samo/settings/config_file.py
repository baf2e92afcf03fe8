"""Configuration files: settings as TOML, and the arguments of a training beside them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samo.errors import SettingsError, nearest
from samo.modalities import config_type

# What a configuration file may also hold: arguments of a training, which are no settings of a run. By their kind.
CALL_KEYS: Mapping[str, type] = {
    "modality": str,
    "preset": str,
    "name": str,
    "tracker": str,
    "artifacts": str,
    "device": str,
    "precision": str,
    "threads": int,
}
# What is only given where it is typed.
_TYPED_ONLY = ("overwrite", "resume", "config", "encoders", "json", "trust_code", "dry_run")


def toml_tables(path: Path, what: str) -> dict[str, Any]:
    """Tables of a TOML file.

    Args:
        path: of the file.
        what: it is, as an error names it.

    Raises:
        SettingsError: the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {what} {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error


def read_toml(path: Path, sections: set[str]) -> dict[str, Any]:
    """Read a configuration file: flat keys, or tables named like the sections.

    Raises:
        SettingsError: the file is missing, not TOML, or names a setting twice.
    """
    data = toml_tables(path, "configuration")
    flat: dict[str, Any] = {}
    for key, value in data.items():
        inner = value if key in sections and isinstance(value, dict) else {key: value}
        for spelled, given in inner.items():
            name = spelled.replace("-", "_")
            if name in flat:
                raise SettingsError(f"{path} sets '{name}' twice")
            flat[name] = given
    return flat


def read_call(file: Path) -> dict[str, Any]:
    """The arguments of a training that a configuration file holds beside the settings, see :data:`CALL_KEYS`.

    Raises:
        SettingsError: one is of another kind, or the file is missing or not TOML.
    """
    found: dict[str, Any] = {}
    for spelled, value in toml_tables(file, "configuration").items():
        name = spelled.replace("-", "_")
        if kind := CALL_KEYS.get(name):
            if not isinstance(value, kind) or isinstance(value, bool):
                wanted = "a text" if kind is str else "a whole number"
                raise SettingsError(f"{file}: {name} {value!r}: {wanted} is needed")
            found[name] = value
    if found.get("artifacts"):
        found["artifacts"] = str(file.absolute().parent / Path(found["artifacts"]).expanduser())
    return found


def read_config(file: Path, modality: str, known: set[str]) -> dict[str, Any]:
    """The settings of a file, its paths counted from its folder; a ``description`` as in the presets is allowed."""
    values = read_toml(file, set(config_type(modality).model_fields))
    values = {name: value for name, value in values.items() if name != "description" and name not in CALL_KEYS}
    for name in values:
        if name in _TYPED_ONLY:
            raise SettingsError(f"{file}: `{name}` does not belong into a file", hint="give it beside the file")
        if name not in known:
            raise SettingsError(
                f"{file}: unknown setting '{name}' for modality {modality}",
                hint=nearest(name, known) + "`samo train --help` lists all settings",
            )
    return config_type(modality).anchored(values, file)


def error_in(file: Path, error: SettingsError) -> SettingsError:
    """An error about a setting of a file: there it stands under its name, whatever it is called elsewhere."""
    message = re.sub("^`([^`]*)`", r"\1", error.message)
    return SettingsError(f"{file}: {message}", hint=error.hint)
