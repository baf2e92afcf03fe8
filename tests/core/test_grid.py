"""Grid files: what they may say, what cells they make, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_frontend import TinyConfig

from samo.errors import SettingsError
from samo.experiments.cells import Cell
from samo.experiments.grid import Grid, cells_of, read_grid
from samo.settings import Config

PRESETS = {"smooth": {"label_smoothing": 0.3}}


def resolve(modality: str, preset: str, file: Path | None, values: dict[str, Any]) -> Config:
    assert modality == "tiny"
    given = {"lr": 0.125} if file else {}
    return TinyConfig.build({**(PRESETS[preset] if preset else {}), **given, **values})


def written(folder: Path, text: str) -> Grid:
    path = folder / "grid.toml"
    path.write_text('modality = "tiny"\n' + text)
    return read_grid(path)


def cells(folder: Path, text: str, **flags: Any) -> list[Cell]:
    return cells_of(written(folder, text), resolve, flags)


def test_everything_at_once(tmp_path: Path) -> None:
    found = cells(
        tmp_path,
        """
        description = "all"
        seeds = [3, 4]
        folds = [0, 2]
        metric = "uar"
        [base]
        preset = "smooth"
        batch-size = 8
        [variants.wide]
        hidden = 5
        [variants.baseline]
        [axes]
        lr = [0.5, 0.25]
        """,
        epochs=7,
    )
    rows = list(dict.fromkeys(cell.row for cell in found))
    # The row compared against comes first, wherever the file names it.
    assert rows == ["lr=0.5", "lr=0.25", "wide+lr=0.5", "wide+lr=0.25"]
    assert [cell.name for cell in found[:4]] == [f"lr=0.5.seed{s}.fold{f}" for s in (3, 4) for f in (0, 2)]
    last = found[-1]
    assert (last.seed, last.fold) == (4, 2)
    expected = {"hidden": 5, "lr": 0.25, "seed": 4, "fold": 2, "split": "folds", "label_smoothing": 0.3}
    assert {name: last.settings[name] for name in expected} == expected
    assert (last.settings["batch_size"], last.settings["epochs"], last.settings["modality"]) == (8, 7, "tiny")
    # Nothing else differs from the defaults.
    defaults = {"modality": "tiny", **TinyConfig().flat()}
    changed = {name for name, value in last.settings.items() if value != defaults[name]}
    assert changed == {*expected, "batch_size", "epochs"}


def test_an_empty_grid_is_one_cell(tmp_path: Path) -> None:
    (only,) = cells(tmp_path, "")
    assert (only.name, only.row, only.seed, only.fold) == ("baseline.seed0", "baseline", 0, None)
    assert only.settings == {"modality": "tiny", **TinyConfig().flat()}


def test_flags_win_over_the_base_and_variants_over_flags(tmp_path: Path) -> None:
    text = "[base]\nlr = 0.1\nepochs = 3\n[variants.baseline]\n[variants.slow]\nlr = 0.01"
    found = cells(tmp_path, text, lr=0.2)
    assert [cell.settings["lr"] for cell in found] == [0.2, 0.01]
    assert {cell.settings["epochs"] for cell in found} == {3}


def test_a_configuration_lies_beside_the_grid(tmp_path: Path) -> None:
    grid = written(tmp_path, '[base]\nconfig = "more/base.toml"')
    assert grid.base["config"] == str(tmp_path / "more" / "base.toml")
    assert cells_of(grid, resolve, {})[0].settings["lr"] == 0.125


def test_values_become_file_names(tmp_path: Path) -> None:
    found = cells(tmp_path, "[base]\nclass_weight_loss = true\n[axes]\nclass_weight_mult = [{}, {sad = 2.0}]")
    assert [cell.row for cell in found] == ["class_weight_mult=none", "class_weight_mult=sad-2.0"]
    assert found[1].settings["class_weight_mult"] == {"sad": 2.0}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("seed = [1]", "unknown key 'seed'", "did you mean 'seeds'?"),
        ("varients = 1", "unknown key 'varients'", "did you mean 'variants'?"),
        ("seeds = 3", "seeds must be a list", ""),
        ("seeds = []", "seeds must be a list", ""),
        ("seeds = [true]", "seeds must be a list", ""),
        ("folds = [-1]", "folds must be a list", ""),
        ("seeds = [1, 2, 1]", "seeds names 1 twice", ""),
        ('metric = "macro_f2"', "unknown metric 'macro_f2'", "did you mean 'macro_f1'?"),
        ("base = 3", "'base' must be a table", ""),
        ("[variants]\nwide = 3", "variant 'wide' must be a table", ""),
        ("[variants.wide]\nhidden = 3", "no variant is named 'baseline'", "[variants.baseline]"),
        ('[variants.baseline]\n[variants."a/b"]\nhidden = 3', "variant 'a/b'", ""),
        ("[axes]\nlr = 0.1", "axis 'lr' must be a list", ""),
        ("[axes]\nlr = []", "axis 'lr' must be a list", ""),
        ("[axes]\nlr = [0.1, 0.1]", "axis 'lr' names 0.1 twice", ""),
        ("this is no TOML", "not valid TOML", ""),
    ],
)
def test_refused_files(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        written(tmp_path, text)
    assert message in refusal.value.message
    assert hint in refusal.value.hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[base]\nseed = 3", "sets 'seed' in [base]", "seeds = [...]"),
        ("[axes]\nfold = [0, 1]", "sets 'fold' in [axes]", "folds = [...]"),
        ('[variants.baseline]\n[variants.x]\nsplit = "random"', "sets 'split' in [variants.x]", "folds"),
        ('folds = [0]\n[base]\nsplit = "speaker"', "sets 'split' in [base]", "folds"),
        ("[variants.baseline]\n[variants.x]\nlearning_rate = 1", "unknown setting 'learning_rate'", ""),
        ("[variants.baseline]\n[variants.x]\nlr = -1", "`lr`", ""),
        ("[variants.baseline]\n[variants.x]\nlr = 0.001", "rows 'baseline' and 'x' of the grid have the same", ""),
    ],
)
def test_refused_cells(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        cells(tmp_path, text)
    assert message in refusal.value.message
    assert hint in refusal.value.hint


def test_the_split_may_be_chosen_where_there_are_no_folds(tmp_path: Path) -> None:
    assert cells(tmp_path, '[base]\nsplit = "table"')[0].settings["split"] == "table"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read grid"):
        read_grid(tmp_path / "none.toml")


def test_a_grid_names_its_modality_at_the_top_in_its_base_or_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('modality = "text"\nepochs = 2\n')
    (tmp_path / "run.toml").write_text('precision = "bf16"\n')
    path = tmp_path / "grid.toml"

    def modality(text: str) -> str:
        path.write_text(text)
        return read_grid(path).modality

    assert modality("") == "audio"
    assert modality('[base]\nmodality = "text"\nepochs = 2') == "text"
    assert modality('modality = "text"\n[base]\nmodality = "text"') == "text"
    assert modality('[base]\nconfig = "base.toml"') == "text"
    assert modality('modality = "audio"\n[base]\nconfig = "base.toml"') == "audio"
    with pytest.raises(SettingsError, match="two modalities: audio and text"):
        modality('modality = "audio"\n[base]\nmodality = "text"')
    with pytest.raises(SettingsError, match="'precision' is no setting of a cell"):
        modality('[base]\nconfig = "run.toml"')


@pytest.mark.parametrize(
    ("place", "key", "hint"),
    [
        ("base", "precision", "give `precision` beside the grid"),
        ("base", "name", "give `name` beside the grid"),
        ("variants.x", "modality", "write modality at the top of the grid"),
        ("axes", "preset", "write preset in [base]"),
    ],
)
def test_what_is_no_setting_of_a_cell_has_its_place(tmp_path: Path, place: str, key: str, hint: str) -> None:
    value = '["a", "b"]' if place == "axes" else '"a"'
    with pytest.raises(SettingsError, match=f"'{key}' in .* is no setting of a cell") as caught:
        cells(tmp_path, f"[variants.baseline]\n[{place}]\n{key} = {value}")
    assert caught.value.hint == hint
