"""A grid in a TOML file: a base, variants that each change a little, axes multiplied out, seeds and folds."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samo.errors import SettingsError, first_ten, nearest
from samo.evaluation.metrics import METRICS
from samo.experiments.cells import Cell
from samo.settings import CALL_KEYS, Config, read_call, toml_tables

__all__ = ["BASELINE", "Grid", "Resolve", "cells_of", "read_grid"]

BASELINE = "baseline"
KEYS = ("description", "modality", "seeds", "folds", "metric", "base", "variants", "axes")
# The grid sets these itself; in a variant they would unpair it from the baseline.
OWN = {"seed": "seeds", "fold": "folds", "split": "folds"}

Resolve = Callable[[str, str, Path | None, dict[str, Any]], Config]
"""(modality, preset, configuration file, settings) to a configuration."""


@dataclass(frozen=True)
class Grid:
    """What a grid file asks for.

    Attributes:
        seeds: each cell once for each.
        folds: each cell once for each; empty leaves the split to the base.
        metric: what rows are compared by, a key of the report's ``metrics``.
        base: settings of all cells; ``preset`` and ``config`` are allowed.
        variants: settings that differ from the base, by name; one is ``baseline``.
        axes: values by setting, multiplied out.
    """

    description: str = ""
    modality: str = "audio"
    seeds: tuple[int, ...] = (0,)
    folds: tuple[int, ...] = ()
    metric: str = "macro_f1"
    base: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {BASELINE: {}})
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Settings that differ from the base, by row of the table; the row compared against comes first."""
        found: dict[str, dict[str, Any]] = {}
        for variant in sorted(self.variants, key=lambda name: name != BASELINE):
            for values in itertools.product(*self.axes.values()):
                chosen = dict(zip(self.axes, values, strict=True))
                words = [f"{name}={_word(value)}" for name, value in chosen.items()]
                if variant != BASELINE or not words:
                    words.insert(0, variant)
                found["+".join(words)] = {**chosen, **self.variants[variant]}
        return found


def read_grid(path: Path) -> Grid:
    """Read a grid file.

    Raises:
        SettingsError: missing, not TOML, unknown keys, no baseline, two modalities, or values of a wrong kind.
    """
    data = toml_tables(path, "grid")
    for key in data:
        if key not in KEYS:
            raise SettingsError(f"{path}: unknown key '{key}'", hint=nearest(key, KEYS) + f"valid: {', '.join(KEYS)}")
    tables: dict[str, dict[str, Any]] = {key: data.get(key, {}) for key in ("base", "variants", "axes")}
    for key, table in tables.items():
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: '{key}' must be a table, [{key}]")
    variants = {name: _variant(path, name, table) for name, table in tables["variants"].items()} or {BASELINE: {}}
    if BASELINE not in variants:
        raise SettingsError(
            f"{path}: no variant is named '{BASELINE}'", hint=f"add an empty table [variants.{BASELINE}]"
        )
    axes = _axes(path, tables["axes"])
    base = {_plain_name(name): value for name, value in tables["base"].items()}
    if isinstance(base.get("config"), str):
        base["config"] = str(path.parent / base["config"])
    named_file = Path(base["config"]) if isinstance(base.get("config"), str) else None
    # A file that is missing is met where its settings are read.
    filed = read_call(named_file) if named_file and named_file.is_file() else {}
    if elsewhere := [name for name in filed if name not in ("modality", "preset")]:
        raise SettingsError(
            f"{named_file}: '{elsewhere[0]}' is no setting of a cell", hint=f"give `{elsewhere[0]}` beside the grid"
        )
    named = {str(name) for name in (data.get("modality"), base.pop("modality", None)) if name is not None}
    if len(named) > 1:
        raise SettingsError(f"{path} names two modalities: {' and '.join(sorted(named))}")
    grid = Grid(
        str(data.get("description", "")),
        named.pop() if named else str(filed.get("modality", "audio")),
        _numbers(path, "seeds", data.get("seeds", [0])),
        _numbers(path, "folds", data.get("folds", []), empty=True),
        str(data.get("metric", "macro_f1")),
        base,
        variants,
        axes,
    )
    if grid.metric not in METRICS:
        raise SettingsError(
            f"{path}: unknown metric '{grid.metric}'",
            hint=nearest(grid.metric, METRICS) + f"valid: {', '.join(METRICS)}",
        )
    return grid


def _axes(path: Path, table: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The different values of each setting that every cell has one of."""
    axes = {_plain_name(name): values for name, values in table.items()}
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            raise SettingsError(f"{path}: axis '{name}' must be a list of values, for example {name} = [1, 2]")
        words = [_word(value) for value in values]
        twice = sorted({word for word in words if words.count(word) > 1})
        if twice:
            raise SettingsError(f"{path}: axis '{name}' names {first_ten(twice)} twice")
    return {name: tuple(values) for name, values in axes.items()}


def cells_of(
    grid: Grid,
    resolve: Resolve,
    flags: Mapping[str, Any],
    anchored: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
) -> list[Cell]:
    """Every cell of a grid, seeds and folds of a row side by side.

    Args:
        grid: from :func:`read_grid`.
        resolve: makes a configuration; knows presets and modalities.
        flags: settings typed beside the grid; they win over its base, variants and axes win over them.
        anchored: makes paths that the grid's file names relative to itself absolute.

    Raises:
        SettingsError: unknown settings, values out of range, a setting the grid owns, or two equal rows.
    """
    base = {**anchored(grid.base), **flags}
    preset, file = str(base.pop("preset", "")), base.pop("config", None)
    places = {"[base]": base, "[axes]": grid.axes, **{f"[variants.{n}]": v for n, v in grid.variants.items()}}
    for place, table in places.items():
        for name in table:
            if name in CALL_KEYS:
                home = "at the top of the grid" if name == "modality" else "in [base]"
                beside = f"write {name} {home}" if name in ("modality", "preset") else f"give `{name}` beside the grid"
                raise SettingsError(f"'{name}' in {place} is no setting of a cell", hint=beside)
            if name in OWN and not (place == "[base]" and name == "split" and not grid.folds):
                raise SettingsError(
                    f"the grid sets '{name}' in {place}", hint=f"write {OWN[name]} = [...] at the top of the grid"
                )
    cells: list[Cell] = []
    seen: dict[str, str] = {}
    for row, change in grid.rows.items():
        settings = {**base, **anchored(change)}
        for seed, fold in itertools.product(grid.seeds, grid.folds or (None,)):
            where = {} if fold is None else {"split": "folds", "fold": fold}
            config = resolve(grid.modality, preset, Path(file) if file else None, {**settings, **where, "seed": seed})
            name = f"{row}.seed{seed}" + ("" if fold is None else f".fold{fold}")
            cells.append(Cell(name, row, seed, fold, {"modality": grid.modality, **config.flat()}))
        same = str(sorted(cells[-1].settings.items()))
        if same in seen:
            raise SettingsError(f"rows '{seen[same]}' and '{row}' of the grid have the same settings")
        seen[same] = row
    return cells


def _variant(path: Path, name: str, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: variant '{name}' must be a table, [variants.{name}]")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}", name):
        raise SettingsError(f"{path}: variant '{name}': use letters, digits, _ and - only")
    return {_plain_name(key): value for key, value in table.items()}


def _plain_name(name: str) -> str:
    return name.replace("-", "_")


def _word(value: Any) -> str:
    """A value as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", str(value)).strip("-") or "none"


def _numbers(path: Path, key: str, given: Any, *, empty: bool = False) -> tuple[int, ...]:
    whole = isinstance(given, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in given)
    if not whole or (not given and not empty):
        raise SettingsError(f"{path}: {key} must be a list of whole numbers, for example {key} = [0, 1, 2]")
    twice = sorted({number for number in given if given.count(number) > 1})
    if twice:
        raise SettingsError(f"{path}: {key} names {first_ten(twice)} twice")
    return tuple(given)
