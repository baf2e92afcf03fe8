"""Flags of two numbers."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from samo.errors import SettingsError
from samo.settings import Config, Section, ThresholdSettings, setting
from samo_cli.options import flags_of, with_settings


class _Ranged(Config):
    """A modality with thresholds."""

    modality = "ranged"
    thresholds: ThresholdSettings = ThresholdSettings()


def _ranged(*argv: str) -> tuple[int, str, dict[str, Any]]:
    """Status, output and settings of a verb with the flags of :class:`_Ranged`."""
    seen: dict[str, Any] = {}
    app = typer.Typer()

    @app.command()
    @with_settings(flags_of({"ranged": _Ranged}))
    def verb(*, settings: dict[str, Any]) -> None:
        seen.update(settings)

    found = CliRunner().invoke(app, list(argv), env={"COLUMNS": "200"})
    return found.exit_code, found.output, seen


def test_two_numbers_are_one_flag() -> None:
    assert _ranged("--threshold-range", "0.2", "0.8")[2] == {"threshold_range": (0.2, 0.8)}
    assert _Ranged.build({"threshold_range": (0.2, 0.8)}).flat()["threshold_range"] == [0.2, 0.8]
    assert _Ranged.build({"threshold_range": [0.2, 0.8]}).thresholds.threshold_range == (0.2, 0.8)
    assert _ranged()[2] == {}
    shown = " ".join(_ranged("--help")[1].split())
    assert "--threshold-range LOW HIGH" in shown
    assert "[0.01 0.95]" in shown
    for wrong in (["0.2"], ["0.2", "high"]):
        assert _ranged("--threshold-range", *wrong)[0] == 2
    with pytest.raises(SettingsError, match="needs 0 < lowest < highest < 1"):
        _Ranged.build({"threshold_range": (0.8, 0.2)})


def test_only_pairs_of_numbers_can_be_a_flag() -> None:
    class Names(Section):
        names: tuple[str, ...] = setting((), "names")

    class Named(Config):
        part: Names = Names()

    with pytest.raises(TypeError, match="setting 'names'"):
        _ = next(iter(flags_of({"x": Named}))).kind
