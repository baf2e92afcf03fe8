"""Flags of the text modality: each shown in the help, each arriving, none taken in silence; what ships resolves."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from tone_corpora import done, refused
from typed_flags import arrived, described, options_of, typed

from samo.errors import SettingsError
from samo.experiments.grid import cells_of, read_grid
from samo.modalities import grid_files, preset_files
from samo.settings import SettingField, read_preset, resolve
from samo_audio.config import AudioConfig
from samo_cli.flags import as_flags, switch
from samo_text.config import TextConfig

FIELDS = {field.name: field for field in TextConfig.fields()}
AUDIO_FIELDS = {field.name: field for field in AudioConfig.fields()}
DEFAULTS = TextConfig().flat()

LOGREG = ("--encoder", "x", "--freeze-encoder", "--head", "logreg")
# Commands that between them type every flag with a value that is not its default.
COMMANDS: dict[str, dict[str, Any]] = {
    "table, textcnn, focal loss": {
        "dataset": "table",
        "data_root": __file__,
        "mode": "sentiment",
        "split": "folds",
        "fold": 3,
        "num_folds": 4,
        "train_ratio": 0.6,
        "val_ratio": 0.15,
        "split_seed": 11,
        "limit_fraction": 0.5,
        "drop_leaked": True,
        "text_column": "body",
        "label_columns": "feeling,tone",
        "label_separator": ";",
        "empty_labels": "none",
        "binary_columns": "tasks",
        "split_column": "part",
        "group_column": "author",
        "max_tokens": 64,
        "length_sorted": False,
        "mixup_alpha": 0.35,
        "augment": "word-order,back-translation,masked-lm",
        "augment_target": 40,
        "augment_max_per_text": 2,
        "augment_strength": 0.25,
        "back_translation_models": "there,back",
        "masked_lm": "some-model",
        "extra_table": "more.csv",
        "pooling": "mean-max",
        "head_layers": 3,
        "head_hidden": 48,
        "head_intermediate": 96,
        "head_residual": True,
        "head_norm": True,
        "dropout": 0.45,
        "dropout_samples": 5,
        "dropout_inference": "vote",
        "embedding_width": 24,
        "hash_buckets": 4096,
        "filters": 12,
        "class_weight_loss": True,
        "max_class_weight": 3.5,
        "class_weight_mult": {"joy": 1.8, "anger": 0.9},
        "focal_loss": True,
        "focal_gamma": 1.25,
        "focal_alpha": 0.65,
        "adaptive_gamma": True,
        "task_gamma": {"feeling": 1.5},
        "label_smoothing": 0.12,
        "adaptive_smoothing": True,
        "task_weights": {"tone": 0.7},
        "rdrop_alpha": 0.55,
        "rdrop_warmup_epochs": 2,
        "joint_alpha": 0.8,
        "joint_max_mult": 4.5,
        "joint_boost": {"joy": 2.5},
        "teacher": "one,other",
        "distil_temperature": 3.5,
        "distil_alpha": 0.25,
        "distil_out_of_fold": True,
        "lr": 0.0021,
        "weight_decay": 0.07,
        "schedule": "cosine-restarts",
        "warmup_ratio": 0.22,
        "num_cycles": 5,
        "lr_min": 0.0001,
        "grad_accum": 6,
        "max_grad_norm": 1.75,
        "grad_centralisation": True,
        "ema_decay": 0.97,
        "threshold": "global",
        "threshold_range": [0.2, 0.7],
        "num_thresholds": 33,
        "threshold_shrinkage": 12.5,
        "threshold_smoothing": 0.35,
        "abstain_risk": 0.15,
        "epochs": 9,
        "batch_size": 17,
        "patience": 8,
        "seed": 7,
    },
    "encoder, asymmetric loss": {
        "encoder": "/models/one",
        "model": "encoder",
        "unfreeze_epochs": 2,
        "encoder_lr_scale": 0.3,
        "layer_lr_decay": 0.85,
        "asymmetric_loss": True,
        "asl_gamma_pos": 0.4,
        "asl_gamma_neg": 3.5,
        "asl_clip": 0.02,
        "balanced_sampler": True,
        "abstain_coverage": 0.8,
    },
    "frozen encoder": {
        "encoder": "some/name",
        "model": "encoder",
        "freeze_encoder": True,
        "layers": "all",
        "state_mask": 0.15,
        "state_mask_span": 4,
    },
    "logistic regression": {"encoder": "some/name", "model": "encoder", "freeze_encoder": True, "head": "logreg"},
    "kernel": {
        "encoder": "some/name",
        "model": "encoder",
        "freeze_encoder": True,
        "head": "kernel",
        "head_centres": 256,
    },
    "bigru": {"model": "bigru", "gru_units": 48, "keep": "last"},
    "tfidf": {"model": "tfidf", "ngrams": 3, "min_count": 4, "inverse_l2": 0.75},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_arrives_and_nothing_else(name: str, monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> None:
    values = COMMANDS[name]
    assert all(values[key] != DEFAULTS[key] for key in values)
    words = [word for key, value in values.items() for word in typed(key, value)]
    assert arrived(monkeypatch, "--modality", "text", *words) == {**DEFAULTS, **values}


def test_no_flag_is_forgotten() -> None:
    assert set().union(*COMMANDS.values()) == set(FIELDS)


def test_an_encoder_alone_chooses_the_model(monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> None:
    assert arrived(monkeypatch, "--modality", "text", "--encoder", "x")["model"] == "encoder"


@pytest.fixture(scope="module")
def train_help() -> dict[str, str]:
    """What stands beside each option."""
    return options_of(done("train", "--help").out)


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_a_flag_with_its_default_in_the_help(name: str, train_help: dict[str, str]) -> None:
    own, shown = described(FIELDS[name]), train_help[switch(name)]
    audio = AUDIO_FIELDS.get(name)
    if audio is not None and _declared(audio) == _declared(FIELDS[name]):
        assert shown.count(own) == 1
        assert "text: " not in shown
    else:
        assert f"text: {own}" in shown
        assert (f"audio: {described(audio)}" in shown) if audio else ("audio: " not in shown)


def _declared(field: SettingField) -> tuple[object, ...]:
    return field.info.description, field.info.default, str(field.info.metadata), field.needs


def test_limits_needs_and_kinds_are_in_the_help(train_help: dict[str, str]) -> None:
    for flag, text in (
        ("--max-tokens", "--max-tokens INTEGER text: longest text in tokens; the rest is cut off [128; 4 to 8192]"),
        (
            "--threshold-range",
            "LOW HIGH text: lowest and highest threshold tried, in (0, 1); epochs are selected by the same ones "
            "[0.01 0.95]",
        ),
        ("--length-sorted", "--[no-]length-sorted text: make batches"),
        ("--encoder", "[none; with --model encoder]"),
        ("--augment-target", "[0; >=0; with --augment]"),
        ("--text-column", "text: table: column of the text [text; with --dataset table]"),
        ("--joint-boost", "--joint-boost NAME=NUMBER,... draw the rows"),
        ("--empty-labels", "--empty-labels unlabelled|none text: "),
    ):
        assert text in train_help[flag]


NEEDY = {name: field for name, field in FIELDS.items() if field.needs}


@pytest.mark.parametrize("name", NEEDY)
def test_what_a_setting_needs_is_asked_for(name: str) -> None:
    """Alone it is refused; together with what it needs it is taken."""
    needed, _, value = NEEDY[name].needs.partition("=")
    given = next(values for values in COMMANDS.values() if name in values)
    alone = {name: given[name]}
    if name == "encoder":  # which chooses the model it needs
        alone["model"] = "textcnn"
    elif (needed, value) == ("model", "textcnn"):
        alone["model"] = "bigru"
    elif name in ("back_translation_models", "masked_lm"):  # which name the method they need
        with pytest.raises(SettingsError, match=rf"`{name}=[A-Z_,]+` need each other"):
            resolve("text", "", None, alone)
        return
    with pytest.raises(SettingsError) as caught:
        resolve("text", "", None, alone)
    wanted = switch(needed) + (f" {value}" if value else "")
    assert as_flags(caught.value.message) == f"{switch(name)} acts only together with {wanted}"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--label-separator", ","], "--label-separator acts only together with --dataset table"),
        (["--head-hidden", "8"], "--head-hidden acts only together with --head-layers above 1"),
        (["--model", "tfidf", "--lr", "0.1"], "--lr does nothing for --model tfidf, which takes no steps"),
        (["--model", "tfidf", "--focal-loss"], "--focal-loss does nothing for --model tfidf"),
        (["--model", "tfidf", "--pooling", "max"], "--pooling acts only together with a network, not --model tfidf"),
        (["--model", "encoder"], "--model encoder needs --encoder"),
        (["--freeze-encoder", "--unfreeze-epochs", "1", "--encoder", "x"], "exclude each other"),
        (["--encoder", "x", "--head", "logreg"], "--head logreg acts only together with --freeze-encoder"),
        (["--encoder", "x", "--pooling", "last4-mean", "--layers", "all"], "only together with --layers last"),
        ([*LOGREG, "--lr", "1"], "--lr does nothing for --head logreg"),
        ([*LOGREG, "--dropout", ".5"], "--dropout acts only together with --head network"),
        ([*LOGREG, "--pooling", "attention"], "--pooling attention is learned in steps"),
        (["--asymmetric-loss", "--focal-loss"], "--asymmetric-loss and --focal-loss exclude each other"),
        (["--joint-alpha", "1", "--balanced-sampler"], "--joint-alpha and --balanced-sampler exclude each other"),
        (["--threshold-range", "0.9", "0.1"], "--threshold-range needs 0 < lowest < highest < 1"),
        (["--threshold", "best"], "--threshold 'best': input should be 'per-class', 'global' or 'half'"),
        (["--split", "speaker"], "--split 'speaker': input should be 'auto', 'table', 'stratified'"),
        (["--mode", "moods"], "--mode 'moods': input should be 'emotion', 'ekman' or 'sentiment'"),
        (["--max-tokens", "3"], "--max-tokens 3: input should be greater than or equal to 4"),
        (["--dataset", "goemotion"], "unknown dataset 'goemotion' (hint: did you mean 'goemotions'?"),
        (["--preset", "minilmm"], "unknown preset 'minilmm' (hint: did you mean 'minilm'?"),
        (["--preset", "mn04"], "--preset mn04 is no preset of --modality text (hint: it belongs to --modality audio)"),
        (["--model", "mn04"], "--model mn04 is no model of --modality text (hint: it belongs to --modality audio)"),
        (["--dataset", "ravdess"], "--dataset ravdess is no dataset of --modality text (hint: it belongs to"),
        (["--augment", "synonym"], "--augment 'synonym': unknown; valid: synonyms, word-order"),
    ],
)
def test_wrong_values(argv: list[str], says: str, artifacts: Path) -> None:
    assert says in refused(2, "train", "--modality", "text", *argv)
    assert not artifacts.exists()


# What ships


@pytest.fixture
def no_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the net fails the test."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the net was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_net")
@pytest.mark.parametrize("name", preset_files("text"))
def test_presets_resolve_to_what_they_say(name: str) -> None:
    description, values = read_preset("text", name)
    assert description
    flat = resolve("text", name, None, {}).flat()
    assert {key: flat[key] for key in values} == values
    assert flat["model"] == "encoder" if values.get("encoder") else values["model"]


@pytest.mark.usefixtures("no_net")
@pytest.mark.parametrize("name", grid_files("text"))
def test_grids_resolve_to_cells_that_differ(name: str) -> None:
    grid = read_grid(grid_files("text")[name])
    assert grid.modality == "text"
    assert grid.description
    cells = cells_of(grid, resolve, {})
    assert len(cells) == len(grid.rows) * len(grid.seeds) * max(1, len(grid.folds))
    base = {cell.seed: cell.settings for cell in cells if cell.row == "baseline"}
    for cell in cells:
        requested = grid.rows[cell.row]
        assert {key: cell.settings[key] for key in requested} == dict(requested)
        changed = {key for key, value in cell.settings.items() if value != base[cell.seed][key]}
        assert bool(changed) == (cell.row != "baseline")
        assert changed <= requested.keys()


def test_listed_presets(artifacts: Path) -> None:
    listed = done("presets", "--modality", "text", "--json").json["presets"]
    assert list(listed) == [*preset_files("text"), "best"]
    shown = " ".join(done("presets", "--modality", "text").out.split())
    assert all(name in shown for name in listed)
