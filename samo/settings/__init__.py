"""Typed settings: declared in sections, stored with a run, resolved from presets, files and flags."""

from samo.settings.config import (
    Config,
    Section,
    SettingField,
    meets,
    named_setting,
    partner,
    setting,
    stored_config,
    with_defaults,
)
from samo.settings.config_file import CALL_KEYS, error_in, read_call, read_toml, toml_tables
from samo.settings.measured import measured_presets, recipe_digest
from samo.settings.presets import based_on, read_ensemble, read_preset
from samo.settings.resolution import collect_settings, resolve
from samo.settings.sections import (
    FORMER_PATIENCE,
    GRID_SETTINGS,
    REPORT_SETTINGS,
    SPLIT_SETTINGS,
    AbstentionSettings,
    CorpusSettings,
    LossSettings,
    OptimSettings,
    ThresholdSettings,
    TrainSettings,
)

__all__ = [
    "CALL_KEYS",
    "FORMER_PATIENCE",
    "GRID_SETTINGS",
    "REPORT_SETTINGS",
    "SPLIT_SETTINGS",
    "AbstentionSettings",
    "Config",
    "CorpusSettings",
    "LossSettings",
    "OptimSettings",
    "Section",
    "SettingField",
    "ThresholdSettings",
    "TrainSettings",
    "based_on",
    "collect_settings",
    "error_in",
    "measured_presets",
    "meets",
    "named_setting",
    "partner",
    "read_call",
    "read_ensemble",
    "read_preset",
    "read_toml",
    "recipe_digest",
    "resolve",
    "setting",
    "stored_config",
    "toml_tables",
    "with_defaults",
]
