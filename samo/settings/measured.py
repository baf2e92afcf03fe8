"""What was measured of presets, as long as they train as they did then."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from samo.modalities import ensemble_files, measured_file, preset_files
from samo.settings.config_file import toml_tables
from samo.settings.presets import based_on, read_ensemble
from samo.settings.resolution import resolve
from samo.settings.sections import REPORT_SETTINGS


def measured_presets(modality: str) -> dict[str, dict[str, Any]]:
    """What was measured of presets and ensembles, by name, those that are ``based_on`` a measured one among them.

    One whose :func:`recipe_digest` is another than when it was measured is left out. Each has ``dataset``, ``mode``,
    ``on`` (in words), ``macro_f1`` in [0, 1], ``settings``, the digest, ``minutes`` in the epochs of one training where
    there were any, and ``caveat``, what the figure is to be read with: "is flattered ...", where that is so.
    """
    file = measured_file(modality)
    found: dict[str, dict[str, Any]] = toml_tables(file, "figures") if file else {}
    names = (*preset_files(modality), *ensemble_files(modality))
    own = {name: based_on(modality, name) for name in names}
    known = set(own.values()) & set(found)
    same = {name for name in known if found[name]["settings"] == recipe_digest(modality, name)}
    return {name: found[base] for name, base in own.items() if base in same}


def recipe_digest(modality: str, name: str) -> str:
    """12 hexadecimal digits of how a preset trains, or all members of an ensemble, with today's defaults.

    Raises:
        SettingsError: there is no such preset, or one of its settings is wrong.
    """
    members = read_ensemble(modality, name)[1] if name in ensemble_files(modality) else (name,)
    configs = [resolve(modality, member, None, {}).lasting(REPORT_SETTINGS) for member in members]
    each = sorted(json.dumps(config, sort_keys=True) for config in configs)
    return sha256("\n".join(each).encode()).hexdigest()[:12]
