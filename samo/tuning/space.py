"""What a search may vary: settings with their ranges or choices, read from TOML and checked against the settings model.

    lr = {low = 1e-4, high = 1e-2, log = true}
    dropout = {low = 0.0, high = 0.6, step = 0.1}
    batch_size = {choices = [16, 32, 64]}
    use_specaug = {choices = [true, false]}
    specaug_freq = {low = 4, high = 24, step = 4}         # drawn only where use_specaug is on
    lr_min = {low = 0.0, high = 1e-5, when = "schedule=cosine"}

A setting that does nothing without another (``needs`` in its declaration) is drawn only where that other is on;
``when`` adds a condition that the declaration does not know.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from samo.errors import SettingsError, nearest
from samo.modalities import space_files
from samo.settings import Config, SettingField, meets

if TYPE_CHECKING:
    import optuna

__all__ = ["Entry", "SearchSpace", "find_space", "parse_space", "plain_step", "read_space"]

_RANGE = ("low", "high", "step", "log")
_FINITE = ConfigDict(allow_inf_nan=False)
_KEYS = (*_RANGE, "choices", "when")
# (0.6 - 0.0) / 0.1 is not quite 6 in binary arithmetic.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Entry:
    """One setting that is searched.

    Attributes:
        name: the setting.
        choices: the values of a list; empty for a range.
        low: lowest value of a range.
        high: highest value of a range, itself included.
        step: distance between the values of a range; None = any value (whole numbers: 1).
        log: whether the logarithm is drawn evenly.
        whole: whether a range is of whole numbers only.
        when: conditions as in ``needs``: ``"use_specaug"`` or ``"model=small-cnn"``; all must hold.
        written: the part of ``when`` that stands in the file.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False
    when: tuple[str, ...] = ()
    written: str = ""

    def draw(self, trial: optuna.Trial) -> Any:
        """The trial's value."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        value = trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)
        return value if self.step is None else plain_step(value)

    def contains(self, value: Any) -> bool:
        """Whether this value could be drawn."""
        if self.choices:
            return any(
                value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.choices
            )
        if not self.low <= value <= self.high:
            return False
        return self.step is None or _on_grid(value - self.low, self.step)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        if self.choices:
            found: dict[str, Any] = {"choices": list(self.choices)}
        else:
            found = {"low": self.low, "high": self.high}
            found |= {"step": self.step} if self.step is not None else {}
            found |= {"log": True} if self.log else {}
        return {**found, **({"when": self.written} if self.written else {})}


@dataclass(frozen=True)
class SearchSpace:
    """All settings that are searched, each behind those it depends on, and what the others are.

    Attributes:
        entries: in the order they are drawn.
        base: every setting of a trial that is not searched, by name.
        dropped: settings that could never act under ``base`` and were left out.
    """

    kind: type[Config]
    entries: tuple[Entry, ...]
    base: Mapping[str, Any]
    dropped: tuple[str, ...] = ()

    def draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """Every setting of a trial; those whose condition does not hold go back to their default."""
        values = dict(self.base)
        for entry in self.entries:
            if all(meets(condition, values) for condition in entry.when):
                values[entry.name] = entry.draw(trial)
            values = _settled(self.kind, values)
        return values

    def base_params(self) -> dict[str, Any] | None:
        """What a trial of the base settings would have drawn; None when they lie outside the space."""
        active = [e for e in self.entries if all(meets(condition, self.base) for condition in e.when)]
        if not all(entry.contains(self.base[entry.name]) for entry in active):
            return None
        return {entry.name: self.base[entry.name] for entry in active}

    def to_json(self) -> dict[str, Any]:
        """The settings searched, as they stand in a file."""
        return {entry.name: entry.to_json() for entry in sorted(self.entries, key=lambda entry: entry.name)}


def plain_step(value: float) -> float:
    """A value of a grid as it is written: 0.3 for the 0.30000000000000004 that 3 * 0.1 gives; whole numbers stay."""
    return value if isinstance(value, int) else float(f"{value:.12g}")


def read_space(path: Path) -> dict[str, Any]:
    """The tables of a file.

    Raises:
        SettingsError: the file is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read search space {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error


def find_space(base: Config, file: Path | None = None, fixed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings to vary, checked, less those that are fixed, as :func:`read_space` gives them.

    Args:
        base: the settings that are varied.
        file: TOML; left out: the list of the modality, less what does nothing under these settings.
        fixed: settings that are not varied.

    Raises:
        SettingsError: see :func:`read_space` and :func:`parse_space`.
    """
    raw = read_space(file or space_files(base.modality)["default"])
    return parse_space(raw, base, fixed=fixed or {}, drop_idle=file is None).to_json()


def parse_space(
    raw: Mapping[str, Any], base: Config, *, fixed: Iterable[str] = (), drop_idle: bool = False
) -> SearchSpace:
    """Check a search space and put it in order.

    Args:
        raw: setting name to table, as in the file.
        base: the settings the trials start from.
        fixed: settings the user typed; they are not searched.
        drop_idle: leave out what could never act under ``base`` instead of refusing it.

    Raises:
        SettingsError: an unknown setting or key, a value out of range, a setting that decides what is validated, a
            setting that could never act, or nothing left to search.
    """
    fields = {field.name: field for field in base.fields()}
    held = set(fixed)
    found = {}
    for spelled, table in raw.items():
        name = spelled.replace("-", "_")
        if name not in fields:
            raise SettingsError(
                f"search space: unknown setting '{spelled}' for modality {base.modality}",
                hint=nearest(name, fields) + "`samo train --help` lists all settings",
            )
        if name in found:
            raise SettingsError(f"search space: '{name}' stands twice")
        found[name] = _entry(fields[name], table, fields)
    entries = _ordered([entry for name, entry in found.items() if name not in held])
    kept, dropped = _without_idle(entries, base.flat(), drop_idle)
    if not kept:
        raise SettingsError("search space: there is nothing to vary", hint="name settings that are not fixed")
    return SearchSpace(type(base), tuple(kept), base.flat(), tuple(dropped))


def _entry(field: SettingField, table: Any, fields: Mapping[str, SettingField]) -> Entry:
    name, where = field.name, f"search space: {field.name}"
    if field.section == "data" or name == "seed":
        raise SettingsError(
            f"{where} decides what trials are validated on, so they could not be compared",
            hint="fix it beside the search space",
        )
    if not isinstance(table, dict):
        raise SettingsError(
            f"{where} must be a table", hint="for example {low = 0.0, high = 0.5} or {choices = [1, 2]}"
        )
    for key in table:
        if key not in _KEYS:
            raise SettingsError(
                f"{where}: unknown key '{key}'", hint=nearest(key, _KEYS) + f"valid: {', '.join(_KEYS)}"
            )
    written = table.get("when", "")
    if not isinstance(written, str):
        raise SettingsError(f'{where}: when must be a text such as "use_specaug" or "model=small-cnn"')
    when = tuple(condition for condition in (field.needs, written) if condition)
    for condition in when:
        other = condition.partition("=")[0]
        if other not in fields or other == name:
            raise SettingsError(f"{where}: when names no other setting: '{other}'", hint=nearest(other, fields))
    if "choices" in table:
        return Entry(name, choices=_choices(field, table, where), when=when, written=written)
    return _range(field, table, where, when, written)


def _choices(field: SettingField, table: Mapping[str, Any], where: str) -> tuple[Any, ...]:
    if any(key in table for key in _RANGE):
        raise SettingsError(f"{where} has choices and a range; leave one")
    given = table["choices"]
    if not isinstance(given, list) or not given:
        raise SettingsError(f"{where}: choices must be a list of values")
    if field.info.annotation not in (bool, int, float, str) and not all(isinstance(value, str) for value in given):
        raise SettingsError(f"{where} cannot be searched", hint="only numbers, words and switches can")
    values = tuple(_checked(field, value, where) for value in given)
    if len(set(values)) < len(values):
        raise SettingsError(f"{where}: a choice stands twice")
    return values


def _range(field: SettingField, table: Mapping[str, Any], where: str, when: tuple[str, ...], written: str) -> Entry:
    if field.info.annotation not in (int, float):
        raise SettingsError(f"{where} is no number and needs choices = [...]")
    if "low" not in table or "high" not in table:
        raise SettingsError(f"{where} needs low and high, or choices = [...]")
    whole = field.info.annotation is int
    low, high = (_checked(field, table[key], where) for key in ("low", "high"))
    step, log = table.get("step"), table.get("log", False)
    if not low < high:
        raise SettingsError(f"{where}: low {low} must be below high {high}")
    if not isinstance(log, bool):
        raise SettingsError(f"{where}: log must be true or false")
    if log and (low <= 0 or step is not None):
        raise SettingsError(f"{where}: log needs low above 0 and no step")
    if step is not None:
        if isinstance(step, bool) or not isinstance(step, int if whole else int | float) or step <= 0:
            raise SettingsError(f"{where}: step must be a {'whole ' if whole else ''}number above 0")
        if not _on_grid(high - low, step):
            raise SettingsError(f"{where}: high {high} cannot be reached from low {low} in steps of {step}")
    return Entry(name=field.name, low=low, high=high, step=step, log=log, whole=whole, when=when, written=written)


def _checked(field: SettingField, value: Any, where: str) -> Any:
    """The value as the settings model takes it."""
    if isinstance(value, bool) != (field.info.annotation is bool):
        raise SettingsError(f"{where}: {value!r} is of the wrong kind")
    try:
        declared = Annotated[field.info.annotation, field.info]  # type: ignore[name-defined]
        return TypeAdapter(declared, config=_FINITE).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise SettingsError(f"{where}: {value!r}: {message[0].lower()}{message[1:]}") from error


def _ordered(entries: Sequence[Entry]) -> list[Entry]:
    """Each behind those its conditions name."""
    waiting = {entry.name: entry for entry in entries}
    ordered: list[Entry] = []
    while waiting:
        ready = [e for e in waiting.values() if not any(c.partition("=")[0] in waiting for c in e.when)]
        if not ready:
            raise SettingsError(f"search space: the conditions of {', '.join(waiting)} go round in a circle")
        ordered += ready
        for entry in ready:
            del waiting[entry.name]
    return ordered


def _without_idle(entries: Sequence[Entry], base: Mapping[str, Any], drop: bool) -> tuple[list[Entry], list[str]]:
    kept: dict[str, Entry] = {}
    dropped = []
    for entry in entries:
        unmet = [c for c in entry.when if not _reachable(c, kept, base)]
        if not unmet:
            kept[entry.name] = entry
        elif drop:
            dropped.append(entry.name)
        else:
            raise SettingsError(
                f"search space: {entry.name} acts only together with {unmet[0]}",
                hint=f"search {unmet[0].partition('=')[0]} too, or fix it beside the search space",
            )
    return list(kept.values()), dropped


def _reachable(condition: str, kept: Mapping[str, Entry], base: Mapping[str, Any]) -> bool:
    name, _, value = condition.partition("=")
    entry = kept.get(name)
    if entry is None:
        return meets(condition, base)
    if entry.choices:
        return any(meets(condition, {name: choice}) for choice in entry.choices)
    try:
        return not value or entry.contains(float(value))
    except ValueError:
        return False


def _settled(kind: type[Config], values: dict[str, Any]) -> dict[str, Any]:
    """Put back to their default what does nothing any more, so that a trial says only what acts."""
    settled = dict(values)
    for _ in range(len(settled)):  # a setting put back may switch off another
        idle = [f for f in kind.fields() if (needs := f.needs) and not meets(needs, settled)]
        reset = {field.name: field.info.default for field in idle if settled[field.name] != field.info.default}
        if not reset:
            break
        settled.update(reset)
    return settled


def _on_grid(distance: float, step: float) -> bool:
    return math.isclose(distance / step, round(distance / step), abs_tol=_TOLERANCE)
