"""Presets and ensembles of them, the recipes that ship with SAMO."""

from __future__ import annotations

from samo.errors import SettingsError
from samo.modalities import MODALITIES, config_type, ensemble_files, preset_files, unknown_name
from samo.settings.config_file import read_toml, toml_tables


def read_preset(modality: str, name: str) -> tuple[str, dict[str, object]]:
    """A preset's one-line description and its settings; those of the preset it is ``based_on``, where it names one.

    Raises:
        SettingsError: unknown preset, an ensemble of several, or one based on what is no preset of its own.
    """
    files = preset_files(modality)
    if name in ensemble_files(modality):
        members = ", ".join(read_ensemble(modality, name)[1])
        raise SettingsError(
            f"`preset={name}` is an ensemble of {members}, which are trained one by one and combined",
            hint=f"`samo train` and `samo crossval` take `preset={name}`, in Python "
            "`samo.ensembles.preset_ensemble.train_preset_ensemble` does; others take its members",
        )
    if name not in files:
        raise unknown_name(
            "preset", name, modality, {each: (*preset_files(each), *ensemble_files(each)) for each in MODALITIES}
        )
    sections = set(config_type(modality).model_fields)
    settings = read_toml(files[name], sections)
    description, base = str(settings.pop("description", "")), str(settings.pop("based_on", ""))
    if base:
        based = read_toml(files[base], sections) if base in files else {"based_on": ""}
        if "based_on" in based:
            raise SettingsError(f"{files[name]}: based_on '{base}': not a preset with settings of its own")
        settings = {**{key: value for key, value in based.items() if key != "description"}, **settings}
    return description, settings


def read_ensemble(modality: str, name: str) -> tuple[str, tuple[str, ...]]:
    """The one-line description of an ensemble that ships with SAMO, and the presets that are its members.

    Raises:
        SettingsError: unknown, or its file names fewer than two members.
    """
    files = ensemble_files(modality)
    if name not in files:
        raise unknown_name("ensemble", name, modality, {each: ensemble_files(each) for each in MODALITIES})
    data = toml_tables(files[name], "ensemble")
    members = tuple(str(member) for member in data.get("members", ()))
    if len(members) < 2 or set(data) != {"description", "members"}:
        raise SettingsError(f"{files[name]}: write a description and two or more members")
    return str(data["description"]), members


def based_on(modality: str, name: str) -> str:
    """The preset whose settings another has, all of them; itself where it has some of its own."""
    files = preset_files(modality)
    read = toml_tables(files[name], "preset") if name in files else {}
    return str(read["based_on"]) if set(read) == {"description", "based_on"} else name
