"""Settings from a preset, a configuration file and flags together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samo.errors import SettingsError, nearest
from samo.modalities import config_type, config_types
from samo.plugins import trust_settings
from samo.settings.config import Config, named_setting
from samo.settings.config_file import error_in, read_call, read_config
from samo.settings.presets import read_preset
from samo.settings.sections import idle_patience


def resolve(
    modality: str, preset: str, file: Path | None, flags: dict[str, Any], *, typed: Mapping[str, Any] | None = None
) -> Config:
    """Settings from preset, then file, then flags; each wins over the one before.

    A preset that the file names holds where ``preset`` is empty; what else of :data:`CALL_KEYS` stands in the file is
    left to whoever trains.

    Args:
        modality: what is learned from.
        preset: by name; may be empty.
        file: a configuration file, or None.
        flags: settings by name.
        typed: those of the flags that somebody typed; left out: all of them. What stands in a preset or a file may be
            an earlier version's default and do nothing.

    Raises:
        SettingsError: an unknown setting, one of another modality, a value out of range, or one that does nothing.
    """
    kind = config_type(modality)
    values, read = collect_settings(modality, preset, file, flags)
    try:
        config = kind.build(values)
        _refuse_idle_patience(config.flat(), flags if typed is None else typed)
        return config
    except SettingsError as error:
        name = named_setting(error)
        if not file or name in flags or name not in read:
            raise
        raise error_in(file, error) from error


def _refuse_idle_patience(values: Mapping[str, Any], typed: Mapping[str, Any]) -> None:
    """Stored runs and recipes have a patience beside every `keep`; whoever types one expects an early stop."""
    if typed.get("patience") and values["keep"] != "best":
        raise SettingsError(idle_patience(values["keep"]))


def collect_settings(
    modality: str, preset: str, file: Path | None, flags: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What preset, file and flags set together, and what the file alone does; values are not looked at.

    Networks and corpora of the user's own that they name are trusted from here on; see :mod:`samo.plugins`.

    Raises:
        SettingsError: an unknown setting, or one of another modality.
    """
    known = {field.name for field in config_type(modality).fields()}
    for name in flags:
        if name not in known:
            owners = [other for other, config in config_types().items() if name in {f.name for f in config.fields()}]
            if not owners:
                raise SettingsError(
                    f"unknown setting '{name}' for modality {modality}",
                    hint=nearest(name, known) + "`samo train --help` lists all settings",
                )
            raise SettingsError(
                f"`{name}` is no setting of `modality={modality}`",
                hint=f"it belongs to {' and '.join(f'`modality={owner}`' for owner in owners)}",
            )
    preset = preset or (read_call(file).get("preset", "") if file else "")
    values = read_preset(modality, preset)[1] if preset else {}
    read = read_config(file, modality, known) if file else {}
    trust_settings({**read, **flags})
    return {**values, **read, **flags}, read
