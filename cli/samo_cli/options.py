"""Command-line flags generated from the settings models: a setting is written once."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from samo.errors import SettingsError
from samo.lazy import load_object
from samo_cli.flags import as_flags, switch

# Verbs that take no settings, such as `samo predict`, do not wait for them.
if TYPE_CHECKING:
    from samo.settings import Config, SettingField

__all__ = [
    "MACHINE",
    "Artifacts",
    "ConfigFile",
    "DataRoot",
    "Device",
    "Flag",
    "Json",
    "Precision",
    "Threads",
    "flags_of",
    "given_settings",
    "overwriting",
    "with_settings",
]

Verb = Callable[..., None]

MACHINE = "Machine and output"


def _arguments_of_file(context: typer.Context, file: Path | None) -> Path | None:
    """Let the arguments in a configuration file, such as ``precision``, stand in for flags that are not typed.

    Raises:
        SettingsError: one that this verb does not take.
    """
    if file is None or context.resilient_parsing:
        return file
    from samo.settings import read_call

    arguments = read_call(file)
    taken = {parameter.name for parameter in context.command.params}
    for name in arguments:
        if name not in taken:
            raise SettingsError(f"{file}: samo {context.info_name} takes no `{name}`", hint="leave it away")
    context.default_map = {**(context.default_map or {}), **arguments}
    return file


Artifacts = Annotated[
    str,
    typer.Option(
        metavar="FOLDER", rich_help_panel=MACHINE, help="Folder of all outputs; empty: $SAMO_ARTIFACTS or ./artifacts."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        is_eager=True,
        callback=_arguments_of_file,
        help="Start from settings in a TOML file; it wins over --preset, flags over both. Its keys are the "
        "flags with underscores; relative paths in it count from its folder.",
    ),
]
DataRoot = Annotated[str, typer.Option(metavar="FOLDER", help="Where the run's data lie now; empty: where they lay.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", rich_help_panel=MACHINE, help="Where the model runs.")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="auto|float32|bf16|fp16",
        rich_help_panel=MACHINE,
        help="Arithmetic of the model. auto takes the fastest; float32 evaluates and predicts alike on every machine.",
    ),
]
Threads = Annotated[
    int, typer.Option(min=0, metavar="INTEGER", rich_help_panel=MACHINE, help="CPU threads; 0 = as torch chooses.")
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=MACHINE, help="Print one JSON object on stdout and nothing else.")
]


def overwriting(what: str) -> Any:
    """The flag ``--overwrite`` of a verb that writes something."""
    return typer.Option("--overwrite", help=f"Replace {what}.")


_METAVARS: Mapping[type, str] = {
    int: "INTEGER",
    float: "NUMBER",
    str: "TEXT",
    dict: "NAME=NUMBER,...",
    tuple: "LOW HIGH",
}
# Characters of words that fit into a line behind a flag; what stands there where there are more.
_ROOM = 60
_MANY = "NAME"
# What typer is told where that is not the kind itself.
_TYPED: Mapping[type, Any] = {dict: str, tuple: tuple[float, float]}
_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


@dataclass(frozen=True)
class Flag:
    """A flag and the setting behind it in each modality that has one.

    Attributes:
        name: the setting's name.
        fields: its declaration by modality; all are of one kind.
        everywhere: whether every modality has it.
        default: shown in place of the declared default where a verb has another; may be empty.
    """

    name: str
    fields: Mapping[str, SettingField]
    everywhere: bool = True
    default: str = ""

    @property
    def panel(self) -> str:
        """The heading in ``--help``."""
        return next(iter(self.fields.values())).panel

    @property
    def kind(self) -> type:
        """``bool``, ``int``, ``float``, ``str``, ``dict`` (a table of numbers by name) or ``tuple`` (two numbers).

        Raises:
            TypeError: modalities disagree, or no flag can be made of the annotation.
        """
        kinds = {_kind(field) for field in self.fields.values()}
        if len(kinds) != 1 or not kinds <= {bool, *_METAVARS}:
            raise TypeError(f"no flag can be made for setting '{self.name}' of kind {kinds}")
        return kinds.pop()

    @property
    def choices(self) -> tuple[str, ...]:
        """The words it takes, in the order declared; empty when any value may be given."""
        return tuple(dict.fromkeys(word for field in self.fields.values() for word in _choices(field)))

    def of(self, modality: str) -> Flag | None:
        """The flag as one modality has it; None where it has no such setting."""
        field = self.fields.get(modality)
        return Flag(self.name, {modality: field}, True, self.default) if field else None

    @property
    def help(self) -> str:
        """Description, default, limits and what it needs, for each modality that differs."""
        lines = {modality: _describe(field, self.default) for modality, field in self.fields.items()}
        if self.everywhere and len(set(lines.values())) == 1:
            shown = next(iter(lines.values()))
        else:
            shown = " ".join(f"{modality}: {line}" for modality, line in lines.items())
        return shown if self.metavar != _MANY else f"{shown} One of {', '.join(self.choices)}."

    @property
    def metavar(self) -> str | None:
        """What stands for its value in ``--help``: the words it takes, where a line has room for them."""
        words = "|".join(self.choices)
        return (words if len(words) <= _ROOM else _MANY) or _METAVARS.get(self.kind)


def flags_of(
    configs: Mapping[str, type[Config]],
    panels: Collection[str] = (),
    without: Collection[str] = (),
    default: str = "",
) -> list[Flag]:
    """The flags for every setting of the given modalities, in order; optionally of some panels, less some names.

    ``default`` says in ``--help`` what holds when a flag is left out, where that is not what the setting declares.
    """
    found: dict[str, dict[str, SettingField]] = {}
    for modality, config in configs.items():
        for field in config.fields():
            if field.name not in without and (not panels or field.panel in panels):
                found.setdefault(field.name, {})[modality] = field
    return [Flag(name, fields, len(fields) == len(configs), default) for name, fields in found.items()]


def with_settings(flags: Iterable[Flag]) -> Callable[[Verb], Verb]:
    """Give a verb one flag for each setting.

    The verb receives those the user typed in its ``settings`` argument, by name; the rest keeps its default from
    preset, file or model. Networks and corpora of the user's own among them are trusted: see :mod:`samo.plugins`.
    A ``data_root`` that is not there is refused before the verb imports torch.
    """
    flags = list(flags)

    def decorate(verb: Verb) -> Verb:
        own = [p for p in inspect.signature(verb, eval_str=True).parameters.values() if p.name != "settings"]
        generated = [_parameter(flag) for flag in flags]

        def command(**values: Any) -> None:
            settings = {flag.name: values.pop(flag.name) for flag in flags}
            given = given_settings(settings, flags)
            if "data_root" in given:
                from samo.data.corpora import require_root

                require_root(given)
            from samo.plugins import trust_settings

            trust_settings(given)
            verb(**values, settings=given)

        command.__name__ = verb.__name__
        command.__doc__ = verb.__doc__
        command.__signature__ = inspect.Signature([*own, *generated])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in [*own, *generated]}
        command.flags = {flag.name: flag for flag in flags}  # type: ignore[attr-defined]
        return command

    return decorate


def given_settings(values: Mapping[str, Any], flags: Iterable[Flag]) -> dict[str, Any]:
    """Only what was typed; tables such as ``neutral=1.8,calm=2`` are taken apart.

    Raises:
        SettingsError: a table that is not NAME=NUMBER,...
    """
    tables = {flag.name for flag in flags if flag.kind is dict}
    typed = {name: value for name, value in values.items() if value is not None}
    return {name: _table(name, value) if name in tables else value for name, value in typed.items()}


def _parameter(flag: Flag) -> inspect.Parameter:
    kind, name, choices = flag.kind, switch(flag.name), flag.choices
    option = typer.Option(
        f"{name}/--no-{name[2:]}" if kind is bool else name,
        help=flag.help,
        rich_help_panel=flag.panel,
        show_default=False,
        metavar=flag.metavar,
        autocompletion=(lambda: list(choices)) if choices else None,
    )
    return inspect.Parameter(
        flag.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[_TYPED.get(kind, kind) | None, option],
    )


def _kind(field: SettingField) -> type:
    annotation: Any = field.info.annotation
    origin = typing.get_origin(annotation)
    if origin is tuple and typing.get_args(annotation) != (float, float):
        raise TypeError(f"no flag can be made for setting '{field.name}' of kind {annotation}")
    kind: type = str if origin is Literal else origin or annotation
    return kind


def _choices(field: SettingField) -> tuple[str, ...]:
    if typing.get_origin(field.info.annotation) is Literal:
        return typing.get_args(field.info.annotation)
    return tuple(load_object(field.choices)) if field.choices else ()


def _describe(field: SettingField, default: str) -> str:
    from samo.settings import partner

    facts = [default or _default(field.info.default), *_limits(field)]
    if field.needs:
        facts.append(f"with {partner(field.needs)}")
    return as_flags(f"{field.info.description} [{'; '.join(facts)}]", own_words=True)


def _default(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if default in ("", {}):
        return "none"
    if isinstance(default, tuple):
        return " ".join(map(_default, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _limits(field: SettingField) -> list[str]:
    """``4000 to 192000`` or ``>0, <=10`` as one entry, or nothing."""
    found = {word: getattr(rule, word) for rule in field.info.metadata for word in _SIGNS if hasattr(rule, word)}
    if found.keys() == {"ge", "le"}:
        return [f"{_default(found['ge'])} to {_default(found['le'])}"]
    return [", ".join(f"{_SIGNS[word]}{_default(limit)}" for word, limit in found.items())] if found else []


def _table(name: str, text: str) -> dict[str, float]:
    table: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, number = part.partition("=")
        try:
            if not equals:
                raise ValueError
            value = float(number)
        except ValueError as error:
            raise SettingsError(f"{switch(name)} '{part}': write NAME=NUMBER, several joined by commas") from error
        if key.strip() in table:
            raise SettingsError(f"{switch(name)} names '{key.strip()}' twice")
        table[key.strip()] = value
    return table
