"""Command-line flags generated from the settings models: a setting is written once."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

import typer

from samo_core.config import Config, SettingField
from samo_core.errors import SettingsError

__all__ = ["given_settings", "settings_of_all", "with_settings"]

Verb = Callable[..., None]


def settings_of_all(configs: Iterable[type[Config]], panels: set[str] | None = None) -> list[SettingField]:
    """Every setting of the given modalities once, in order; optionally only those of some panels."""
    found: dict[str, SettingField] = {}
    for config in configs:
        for field in config.fields():
            if panels is None or field.panel in panels:
                found.setdefault(field.name, field)
    return list(found.values())


def with_settings(fields: Iterable[SettingField]) -> Callable[[Verb], Verb]:
    """Give a verb one flag for each setting.

    The verb receives those the user typed in its ``settings`` argument, by name; the rest keeps its default from
    preset, file or model.
    """
    fields = list(fields)

    def decorate(verb: Verb) -> Verb:
        own = [p for p in inspect.signature(verb, eval_str=True).parameters.values() if p.name != "settings"]
        generated = [_parameter(field) for field in fields]

        def command(**values: Any) -> None:
            settings = {field.name: values.pop(field.name) for field in fields}
            verb(**values, settings=given_settings(settings, fields))

        command.__name__ = verb.__name__
        command.__doc__ = verb.__doc__
        command.__signature__ = inspect.Signature([*own, *generated])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in [*own, *generated]}
        return command

    return decorate


def given_settings(values: Mapping[str, Any], fields: Iterable[SettingField]) -> dict[str, Any]:
    """Only what was typed; tables such as ``neutral=1.8,calm=2`` are taken apart.

    Raises:
        SettingsError: a table that is not NAME=NUMBER,...
    """
    tables = {field.name for field in fields if _kind(field) is dict}
    typed = {name: value for name, value in values.items() if value is not None}
    return {name: _table(name, value) if name in tables else value for name, value in typed.items()}


def _parameter(field: SettingField) -> inspect.Parameter:
    kind = _kind(field)
    flag = "--" + field.name.replace("_", "-")
    flags = f"{flag}/--no-{field.name.replace('_', '-')}" if kind is bool else flag
    shown: dict[type, str] = {int: "INTEGER", float: "NUMBER", str: "TEXT", dict: "NAME=NUMBER,..."}
    choices = _choices(field)
    option = typer.Option(
        flags,
        help=f"{field.info.description} [dim]\\[{_default(field)}][/dim]",
        rich_help_panel=field.panel,
        show_default=False,
        metavar=None if kind is bool else ("|".join(choices) if choices else shown[kind]),
    )
    python_type = str if kind is dict else kind
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[python_type | None, option],
    )


def _kind(field: SettingField) -> type:
    annotation = field.info.annotation
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return str
    if origin in (dict, types.GenericAlias):
        return dict
    assert isinstance(annotation, type)
    return annotation


def _choices(field: SettingField) -> tuple[str, ...]:
    return typing.get_args(field.info.annotation) if typing.get_origin(field.info.annotation) is Literal else ()


def _default(field: SettingField) -> str:
    default = field.info.default
    if isinstance(default, bool):
        return "on" if default else "off"
    return str(default) if default not in ("", {}) else "none"


def _table(name: str, text: str) -> dict[str, float]:
    table: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, number = part.partition("=")
        try:
            if not equals:
                raise ValueError
            table[key.strip()] = float(number)
        except ValueError as error:
            flag = "--" + name.replace("_", "-")
            raise SettingsError(f"{flag} '{part}': write NAME=NUMBER, several joined by commas") from error
    return table
