"""Which code a run needs that does not come with SAMO, and whether it may be imported."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from samo.errors import RunError
from samo.modalities import config_type
from samo.plugins import Plugin, Registry, is_trusted, registry_of, trust_hint
from samo.runs.run import Run
from samo.settings import Config

__all__ = ["code_of", "require_code"]

_warned: set[tuple[str, str]] = set()


def code_of(run: Run) -> dict[str, dict[str, str]]:
    """What :func:`samo.plugins.code_used` recorded when the run began, by setting; nothing for most runs.

    Raises:
        RunError: ``environment.json`` is damaged.
    """
    found = run.environment.get("code", {})
    known = {"name", "module", "attribute", "distribution", "sha256"}
    sound = isinstance(found, dict) and all(
        isinstance(each, dict) and known <= each.keys() and all(isinstance(each[key], str) for key in known)
        for each in found.values()
    )
    if not sound:
        raise RunError(f"cannot read {run.path('environment.json')}: its record of code is damaged")
    return dict(found)


def require_code(
    run: Run, *needed: str, settings: Mapping[str, Any] | None = None, kind: type[Config] | None = None
) -> None:
    """Refuse to go on where a run needs code that nobody named; a note where that code changed since its training.

    Nothing is imported unless all of it is trusted.

    Args:
        run: the run.
        needed: which of :data:`samo.plugins.CODE_SETTINGS` will be used: a corpus is not needed to predict.
        settings: those of an ensemble's member; the run's own when left out.
        kind: of its modality's settings, where the caller knows.

    Raises:
        RunError: names the code, and how to trust it.
        SettingsError: trusted code that cannot be imported.
    """
    kind, values = kind or config_type(run.settings["modality"]), run.settings if settings is None else settings
    found = [
        plugin
        for setting in needed
        if (registry := registry_of(setting, kind)) is not None
        and (plugin := _plugin(run, setting, registry, str(values[setting])))
    ]
    strange = [plugin.name for plugin in found if not is_trusted(plugin.name)]
    if strange:
        raise RunError(
            f"run '{run.name}' needs {' and '.join(strange)}, code that does not come with SAMO",
            hint=trust_hint(strange),
        )
    for plugin in found:
        _note_change(run, plugin)


def _plugin(run: Run, setting: str, registry: Registry[Any], name: str) -> Plugin | None:
    if name not in registry:
        known = code_of(run).get(setting, {})
        if known.get("name") == name:
            raise RunError(f"run '{run.name}' needs '{name}' of {known['distribution']}, which is not installed here")
    return registry.plugin(name)


def _note_change(run: Run, plugin: Plugin) -> None:
    known = [each["sha256"] for each in code_of(run).values() if each["name"] == plugin.name]
    place = (str(run.folder), plugin.name)
    if place in _warned or not known or plugin.record()["sha256"] in known:
        return
    _warned.add(place)
    logging.getLogger(__name__).warning("the code of %s changed since run %s was trained", plugin.name, run.name)
