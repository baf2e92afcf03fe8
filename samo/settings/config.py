"""How settings are declared and held: frozen, unknown keys refused, every field a flag of the same name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from samo.errors import SettingsError, nearest
from samo.lazy import load_object
from samo.modalities import MODALITIES, config_type


def setting(
    default: Any,
    help_text: str,
    *,
    needs: str = "",
    choices: str = "",
    is_path: bool = False,
    came_later: bool = False,
    stored_default: Any = None,
    **limits: Any,
) -> Any:
    """Declare one setting.

    Args:
        default: used when neither flag nor file gives it.
        help_text: one line with the unit.
        needs: the setting without which this one does nothing (``"focal_loss"``), or with its value
            (``"split=folds"``) or values (``"model=a|b"``); changing this setting alone is then refused instead of
            silently ignored.
        choices: the registry whose names are valid, as ``"module:name"``, so that naming it imports nothing.
        is_path: a file or folder; relative ones in a configuration file count from that file.
        came_later: added after grids were named by their settings; at the value of those grids it is no part of a
            made-up name, nor where it acts on nothing, so that the same settings find the same grid.
        stored_default: the value of runs that were stored without the setting, where ``default`` is not how they were
            trained; None = ``default``.
        **limits: ``ge``, ``le``, ``gt``, ``lt``.
    """
    facts: dict[str, Any] = {"needs": needs, "choices": choices, "is_path": is_path, "came_later": came_later}
    extra = {name: value for name, value in facts.items() if value}
    if stored_default is not None:
        extra["stored_default"] = stored_default
    return Field(default, description=help_text, json_schema_extra=extra, **limits)


class Section(BaseModel):
    """A named group of settings; one panel in ``--help``."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
    panel: ClassVar[str] = ""
    # Settings that this section took over from another modality after grids were named by their settings.
    later: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic takes ``true`` for 1; whoever writes ``epochs = true`` meant something else."""
        inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
        truths = [each for each in inside if isinstance(each, bool)]
        if truths and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError(f"a number is needed, not {str(truths[0]).lower()}")
        return value


@dataclass(frozen=True)
class SettingField:
    """One setting seen from outside: where it lives and how it was declared."""

    name: str
    section: str
    panel: str
    info: FieldInfo
    later: bool = False

    @property
    def needs(self) -> str:
        """The setting without which this one does nothing, or with its value; may be empty."""
        return str(self._fact("needs"))

    @property
    def choices(self) -> str:
        """The registry whose names are valid, as ``"module:name"``; may be empty."""
        return str(self._fact("choices"))

    @property
    def is_path(self) -> bool:
        """Whether it names a file or folder."""
        return bool(self._fact("is_path"))

    @property
    def came_later(self) -> bool:
        """Whether names made up from settings leave it out at :attr:`stored_default`."""
        return self.later or bool(self._fact("came_later"))

    @property
    def stored_default(self) -> Any:
        """The value in runs that were stored without it; the default unless declared otherwise."""
        extra = self.info.json_schema_extra
        return extra.get("stored_default", self.info.default) if isinstance(extra, dict) else self.info.default

    def _fact(self, name: str) -> Any:
        extra = self.info.json_schema_extra
        return extra.get(name, "") if isinstance(extra, dict) else ""


@cache
def _fields_of(config: type[Config]) -> tuple[SettingField, ...]:
    """See :meth:`Config.fields`; a class's settings are those it was declared with."""
    found = []
    for section, outer in config.model_fields.items():
        model = outer.annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        found += [
            SettingField(name, section, model.panel, info, name in model.later)
            for name, info in model.model_fields.items()
        ]
    return tuple(found)


class Config(BaseModel):
    """All settings of one modality, in sections; field names are unique across sections."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    modality: ClassVar[str] = ""

    @classmethod
    def fields(cls) -> Iterator[SettingField]:
        """Every setting, section by section."""
        return iter(_fields_of(cls))

    @classmethod
    def anchored(cls, values: Mapping[str, Any], file: Path) -> dict[str, Any]:
        """Flat values that were read from ``file``, relative paths among them counted from its folder."""
        paths = {field.name for field in cls.fields() if field.is_path}
        return {
            name: str(file.absolute().parent / Path(value).expanduser())
            if name in paths and value and isinstance(value, str)
            else value
            for name, value in values.items()
        }

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Make a configuration from flat values by setting name.

        Raises:
            SettingsError: an unknown name (the nearest is suggested) or a value out of range.
        """
        home = {field.name: field.section for field in cls.fields()}
        nested: dict[str, dict[str, Any]] = {section: {} for section in cls.model_fields}
        for name, value in values.items():
            if name not in home:
                raise SettingsError(
                    f"unknown setting '{name}' for modality {cls.modality}",
                    hint=nearest(name, home) + "`samo train --help` lists all settings",
                )
            nested[home[name]][name] = value
        try:
            config = cls.model_validate(nested)
        except ValidationError as error:
            raise SettingsError(_first_problem(error)) from error
        config._refuse_idle_settings()
        return config

    def _refuse_idle_settings(self) -> None:
        """A flag that would change nothing is a mistake of the user's, not a no-op."""
        flat, own = self.flat(), self.own_defaults()
        for field in self.fields():
            if flat[field.name] in (field.info.default, own.get(field.name, field.info.default)):
                continue
            if self.is_idle(field, flat):
                raise SettingsError(f"`{field.name}` acts only together with {partner(field.needs)}")

    def own_defaults(self) -> Mapping[str, Any]:
        """Settings, by name, whose default is another one because of what the others say."""
        return {}

    @staticmethod
    def refuse_steps(
        sections: Iterable[Section], model: str, taken: Set[str], defaults: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Refuse settings of a training by gradient for a model that is found in closed form.

        Args:
            sections: whose settings do nothing.
            model: what asks for it, as ``NAME=VALUE``.
            taken: settings that do something all the same.
            defaults: those of the model, by name, where they are others.

        Raises:
            ValueError: one is not at its default.
        """
        for section in sections:
            for name, field in type(section).model_fields.items():
                if name not in taken and getattr(section, name) not in (
                    field.default,
                    defaults.get(name, field.default),
                ):
                    raise ValueError(f"`{name}` does nothing for `{model}`, which takes no steps")

    @classmethod
    def is_idle(cls, field: SettingField, flat: Mapping[str, Any]) -> bool:
        """Whether a setting acts on nothing, as the one it needs has another value in ``flat``."""
        if not field.needs:
            return False
        needed, _, value = field.needs.partition("=")
        return not meets(field.needs, flat) and not (value and cls._is_own_code(needed, flat[needed]))

    @classmethod
    def _is_own_code(cls, name: str, value: Any) -> bool:
        """Whether a user's own network or corpus is named, which takes whatever settings it likes."""
        choices = next(field.choices for field in cls.fields() if field.name == name)
        return bool(choices) and load_object(choices).plugin(str(value)) is not None

    def flat(self) -> dict[str, Any]:
        """Every setting by its flag's name with underscores, ready for JSON."""
        dumped = self.model_dump(mode="json")
        return {name: value for section in dumped.values() for name, value in section.items()}

    def stored(self) -> dict[str, Any]:
        """:meth:`flat` with ``modality``, as ``config.json`` holds it; :func:`stored_config` reads it."""
        return {"modality": self.modality, **self.flat()}

    def lasting(self, without: Set[str] = frozenset()) -> dict[str, Any]:
        """:meth:`flat` without settings that came later and are as they were before, or act on nothing.

        What is named by these keeps its name when SAMO gets further settings.
        """
        flat = self.flat()
        idle = {
            field.name
            for field in self.fields()
            if field.came_later and (flat[field.name] == field.stored_default or self.is_idle(field, flat))
        }
        return {name: value for name, value in flat.items() if name not in without | idle}

    def differences(self, other: Self) -> dict[str, tuple[Any, Any]]:
        """Settings whose values differ, by name: (mine, theirs)."""
        mine, theirs = self.flat(), other.flat()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


def meets(needs: str, values: Mapping[str, Any]) -> bool:
    """Whether settings are such that one that ``needs`` them does something; see :func:`setting`."""
    name, _, value = needs.partition("=")
    return str(values[name]) in value.split("|") if value else bool(values[name])


def partner(needs: str) -> str:
    """What a setting needs, in words: ``"model=a|b|c"`` is "`model=a`, b or c"."""
    first, *others = needs.split("|")
    listed = [f"`{first}`", *others]
    return " or ".join(filter(None, [", ".join(listed[:-1]), listed[-1]]))


def stored_config(stored: Mapping[str, Any]) -> Config:
    """The settings that :meth:`Config.stored` gave, ``modality`` among them.

    Raises:
        SettingsError: an unknown modality, an unknown name, or a value out of range.
    """
    values = dict(stored)
    return config_type(str(values.pop("modality"))).build(values)


def with_defaults(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings, ``modality`` among them, with those that a later version added.

    Each stands at its ``stored_default``, under which everything stays as it was; one that acts on nothing at its
    default.
    """
    if stored.get("modality") not in MODALITIES:
        return dict(stored)
    kind = config_type(str(stored["modality"]))
    known = {**kind().stored(), **stored}
    later = {
        field.name: field.stored_default
        for field in kind.fields()
        if field.stored_default != field.info.default and field.name not in stored and not kind.is_idle(field, known)
    }
    return {**known, **later}


def named_setting(error: SettingsError) -> str:
    """The setting an error begins with, or an empty string."""
    found = re.match(r"`([a-z_0-9]+)", error.message)
    return found[1] if found else ""


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ")
    if len(problem["loc"]) < 2:  # a rule over a whole section names its settings itself
        return message
    return f"`{problem['loc'][1]}` {problem['input']!r}: {message[0].lower()}{message[1:]}"
