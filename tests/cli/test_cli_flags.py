"""Flags made from the settings: all there, all arriving, preset < file < flag, and nothing ignored in silence."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tones import TINY, done, read_json, refused

import samo_cli.train
from samo_audio.config import AudioConfig
from samo_audio.datasets import DATASETS
from samo_audio.models import MODELS
from samo_cli.modalities import MODALITIES, preset_files, read_preset
from samo_cli.options import Flag, flags_of, given_settings, switch
from samo_cli.train import resolve
from samo_core.config import Config, Section, SettingField, TrainSettings, setting
from samo_core.errors import SettingsError

FIELDS = {field.name: field for field in AudioConfig.fields()}
# A value for every setting, far from its default; what a setting needs is set with it.
OTHER: dict[str, Any] = {
    "dataset": "table",
    "data_root": "/somewhere",
    "mode": "sentiment",
    "split": "folds",
    "fold": 3,
    "train_ratio": 0.6,
    "val_ratio": 0.15,
    "limit_fraction": 0.5,
    "path_column": "file",
    "label_column": "emotion",
    "speaker_column": "who",
    "split_column": "part",
    "speaker_pattern": "spk([0-9]+)",
    "sr": 16000,
    "duration": 2.5,
    "n_mels": 64,
    "n_fft": 512,
    "win_length": 400,
    "hop_length": 160,
    "fmin": 50.0,
    "fmax": 7000.0,
    "mel_scale": "htk",
    "normalisation": "train",
    "noise_root": "/noise",
    "noise_snr_min": 5.0,
    "noise_snr_max": 20.0,
    "model": "resnet18",
    "width": 8,
    "dropout": 0.5,
    "weights": "start.safetensors",
    "class_weight_mult": {"neutral": 1.8, "calm": 0.9},
    "task_gamma": {"emotion": 1.5},
    "task_weights": {"emotion": 0.7},
    "schedule": "cosine-restarts",
    "lr_min": 0.0001,
    "num_cycles": 5,
    "label_smoothing": 0.1,
}


def other(field: SettingField) -> Any:
    default = field.info.default
    if field.name in OTHER:
        return OTHER[field.name]
    if isinstance(default, bool):
        return not default
    return default + 1 if isinstance(default, int) else default + 0.25


def typed(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [switch(name) if value else "--no-" + switch(name)[2:]]
    if isinstance(value, dict):
        value = ",".join(f"{key}={number}" for key, number in value.items())
    return [switch(name), str(value)]


def company(field: SettingField) -> dict[str, Any]:
    """The setting with another value, and those without which it would do nothing."""
    values: dict[str, Any] = {}
    if field.needs:
        name, _, value = field.needs.partition("=")
        values[name] = value or other(FIELDS[name])
    if field.name == "lr_min":
        values["schedule"] = "cosine"
    return {**values, field.name: other(field)}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> Callable[..., dict[str, Any]]:
    """What ``samo train`` would train with, by setting name; nothing is read or trained."""

    class _Caught(Exception):  # noqa: N818
        pass

    class Frontend:
        preparing = "decoding"

        @classmethod
        def open(cls, config: Config, *_: object) -> None:
            raise _Caught(config)

    def resolved(*argv: object) -> dict[str, Any]:
        monkeypatch.setattr(samo_cli.train, "frontend_type", lambda modality: Frontend)
        caught: list[Config] = []
        real = samo_cli.main._explain

        def explain(error: BaseException, verb: str | None) -> int:
            if isinstance(error, _Caught):
                caught.append(error.args[0])
                return 0
            return real(error, verb)

        monkeypatch.setattr(samo_cli.main, "_explain", explain)
        done("train", *argv)
        return caught[0].flat()

    return resolved


@pytest.fixture(scope="module")
def train_help() -> str:
    return " ".join(done("train", "--help").out.split())


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_a_flag_with_its_default_in_the_help(name: str, train_help: str) -> None:
    field = FIELDS[name]
    default = field.info.default
    shown = {True: "on", False: "off", "": "none"}.get(default) if isinstance(default, bool | str) else None
    shown = shown or ("none" if default == {} else f"{default:g}" if isinstance(default, float) else str(default))
    flag = f"--[no-]{switch(name)[2:]} " if isinstance(default, bool) else f" {switch(name)} "
    about = train_help[train_help.index(flag) :]
    description = " ".join(str(field.info.description).split())
    assert re.search(rf"{re.escape(description)} \[{re.escape(shown)}[;\]]", about)


@pytest.mark.parametrize("name", FIELDS)
def test_every_flag_arrives(name: str, settings: Callable[..., dict[str, Any]]) -> None:
    values = company(FIELDS[name])
    found = settings(*(word for key, value in values.items() for word in typed(key, value)))
    assert {key: found[key] for key in values} == values
    defaults = AudioConfig().flat()
    assert {key for key in found if found[key] != defaults[key]} == {
        key for key in values if values[key] != defaults[key]
    }


def test_limits_and_needs_are_in_the_help(train_help: str) -> None:
    for text in (
        "sampling rate in Hz that clips are resampled to [22050; 4000 to 192000]",
        "peak learning rate [0.001; >0, <=10]",
        "[2; 0 to 10; with --focal-loss]",
        "test fold with --split folds [0; 0 to 99; with --split folds]",
        "--split speaker|folds|random|table",
        "--class-weight-mult NAME=NUMBER,...",
        f"--dataset {'|'.join(DATASETS)} ",
        f"--model {'|'.join(MODELS)} ",
    ):
        assert text in train_help


def test_evaluate_does_not_show_defaults_that_do_not_apply() -> None:
    shown = " ".join(done("evaluate", "--help").out.split())
    for name in ("dataset", "data_root", "mode", "label_column"):
        assert f"{FIELDS[name].info.description} [the run's own" in shown
    assert "[ravdess" not in shown
    assert "[emotion" not in shown


def test_preset_gives_way_to_file_and_file_to_flag(tmp_path: Path, settings: Callable[..., dict[str, Any]]) -> None:
    preset = read_preset("audio", "small-cnn-full")[1]
    assert (preset["label_smoothing"], preset["mixup_alpha"]) == (0.1, 0.2)
    file = tmp_path / "mine.toml"
    file.write_text('description = "mine"\nlabel-smoothing = 0.3\n[train]\nepochs = 7\nseed = 3\n')
    found = settings("--preset", "small-cnn-full", "--config", file, "--epochs", "9", "--no-class-weight-loss")
    assert found["mixup_alpha"] == 0.2
    assert found["label_smoothing"] == 0.3
    assert (found["epochs"], found["seed"]) == (9, 3)
    assert found["class_weight_loss"] is False
    assert found["use_specaug"] is True


@pytest.mark.parametrize("name", preset_files("audio"))
def test_presets_resolve_to_what_they_say(name: str) -> None:
    description, values = read_preset("audio", name)
    assert description
    flat = resolve("audio", name, None, {}).flat()
    assert {key: flat[key] for key in values} == values


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("weigth_decay = 0.1", "unknown setting 'weigth_decay' for modality audio (hint: did you mean 'weight_decay'?"),
        ("[optim]\nlearning = 1", "unknown setting 'learning'"),
        ("[optimiser]\nlr = 1", "unknown setting 'optimiser'"),
        ("lr = 0.1\n[optim]\nlr = 0.2", "sets 'lr' twice"),
        ("n-mels = 64\nn_mels = 32", "sets 'n_mels' twice"),
        ("lr = -1", "wrong.toml: lr -1: input should be greater than 0"),
        ('epochs = "ten"', "wrong.toml: epochs 'ten': input should be a valid integer"),
        ("epochs = 2.5", "wrong.toml: epochs 2.5"),
        ("focal_gamma = 3", "wrong.toml: focal_gamma acts only together with --focal-loss"),
        ("lr 0.1", "is not valid TOML"),
    ],
)
def test_wrong_configuration_files(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    assert says in refused(2, "train", "--config", file)


def test_a_flag_is_blamed_for_its_own_value(tmp_path: Path) -> None:
    file = tmp_path / "right.toml"
    file.write_text("lr = 0.1")
    for argv in (["--lr=-1"], ["--epochs", "0"]):
        assert refused(2, "train", "--config", file, *argv).startswith(f"error: {argv[0][:4]}")


def test_paths_in_a_file_count_from_its_folder(tmp_path: Path, settings: Callable[..., dict[str, Any]]) -> None:
    file = tmp_path / "deep" / "mine.toml"
    file.parent.mkdir()
    file.write_text('data_root = "clips"\nweights = "../w.pt"\nnoise = true\nnoise_root = "/noise"\n')
    found = settings("--config", file)
    assert found["data_root"] == str(tmp_path / "deep" / "clips")
    assert Path(found["weights"]).resolve() == tmp_path / "w.pt"
    assert found["noise_root"] == "/noise"
    assert settings("--config", file, "--data-root", "typed")["data_root"] == "typed"


def test_unknown_setting_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text("lrr = 1")
    assert str(file) in refused(2, "train", "--config", file)
    assert "cannot read configuration" in refused(2, "train", "--config", tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--lr=-1"], "--lr -1.0: input should be greater than 0"),
        (["--lr", "nan"], "--lr nan"),
        (["--epochs", "0"], "--epochs 0"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--dropout", "1"], "--dropout 1.0"),
        (["--seed=-1"], "--seed -1"),
        (["--weight-decay", "inf"], "--weight-decay inf"),
        (["--split", "sideways"], "--split 'sideways': input should be 'speaker', 'folds', 'random' or 'table'"),
        (["--train-ratio", "0.8", "--val-ratio", "0.2"], "--train-ratio and --val-ratio leave nothing to test on"),
        (["--win-length", "2048"], "--win-length must not exceed --n-fft"),
        (["--fmin", "9000", "--fmax", "8000"], "--fmin and --fmax"),
        (["--class-weight-loss", "--class-weight-mult", "neutral"], "write NAME=NUMBER"),
        (["--class-weight-loss", "--class-weight-mult", "neutral=-1"], "--class-weight-mult"),
        (["--class-weight-loss", "--class-weight-mult", "a=1,a=2"], "names 'a' twice"),
        (["--preset", "smal-cnn-focal"], "unknown preset 'smal-cnn-focal' (hint: did you mean 'small-cnn-focal'?"),
        (["--modality", "vidio"], "unknown modality 'vidio'"),
        (["--name", "a/b"], "--name 'a/b'"),
        (["--device", "tpu"], "--device tpu"),
        (["--precision", "fp64"], "--precision fp64: unknown"),
        (["--model", "small-cn"], "unknown model 'small-cn' (hint: did you mean 'small-cnn'?"),
        (["--dataset", "ravdes"], "unknown dataset 'ravdes' (hint: did you mean 'ravdess'?"),
        (["--resume", "x", "--name", "y"], "--resume takes neither"),
    ],
)
def test_wrong_values(argv: list[str], says: str, artifacts: Path) -> None:
    assert says in refused(2, "train", *argv)
    assert not artifacts.exists()


NEEDY = {name: field for name, field in FIELDS.items() if field.needs}


@pytest.mark.parametrize("name", NEEDY)
def test_settings_that_would_do_nothing_are_refused(name: str) -> None:
    needed, _, value = NEEDY[name].needs.partition("=")
    off: list[str] = []
    if needed == "model":
        off = ["--model", "resnet18" if value == "small-cnn" else "small-cnn"]
    line = refused(2, "train", *typed(name, other(NEEDY[name])), *off)
    assert f"{switch(name)} acts only together with {switch(needed)}" in line


def test_config_json_holds_every_setting_under_its_name(trained: Path) -> None:
    stored = read_json(trained / "runs" / "first" / "config.json")
    assert list(stored) == ["modality", *FIELDS]
    assert stored["modality"] == "audio"
    assert stored["epochs"] == 4
    assert Path(stored["data_root"]).is_absolute()


class _Words(Section):
    panel: ClassVar[str] = "Words"
    max_tokens: int = setting(128, "tokens the model sees", ge=1)


class _TextTraining(TrainSettings):
    epochs: int = setting(3, "passes over the training split", ge=1)


class FakeTextConfig(Config):
    """A second modality: one setting of its own, one with another default."""

    modality: ClassVar[str] = "text"
    words: _Words = _Words()
    train: _TextTraining = _TextTraining()


@pytest.fixture
def two_modalities(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    entry = (f"{__name__}:FakeTextConfig", "samo_audio.frontend:AudioFrontend", "samo_audio/presets")
    with monkeypatch.context() as patch:
        patch.setitem(MODALITIES, "text", entry)
        importlib.reload(samo_cli.train)
        yield
    importlib.reload(samo_cli.train)


@pytest.mark.usefixtures("two_modalities")
def test_a_flag_of_another_modality_is_refused() -> None:
    line = refused(2, "train", "--max-tokens", "64")
    assert line == "error: --max-tokens is no setting of --modality audio (hint: it belongs to --modality text)"
    assert "--sr is no setting of --modality text" in refused(2, "train", "--modality", "text", "--sr", "8000")


@pytest.mark.usefixtures("two_modalities")
def test_help_says_which_modality_a_flag_belongs_to() -> None:
    shown = " ".join(done("train", "--help").out.split())
    assert "--max-tokens INTEGER text: tokens the model sees [128; >=1]" in shown
    assert "audio: passes over the training split [30; 1 to 100000] text: passes over the training split [3" in shown
    assert "rows in a batch [32" in shown
    assert "audio: rows in a batch" not in shown
    assert "--modality audio|text" in shown


def test_one_flag_cannot_have_two_kinds() -> None:
    number, word = FIELDS["lr"], FIELDS["model"]
    with pytest.raises(TypeError, match="setting 'x'"):
        _ = Flag("x", {"audio": number, "text": word}).kind


def test_only_what_was_typed_counts() -> None:
    flags = flags_of({"audio": AudioConfig})
    given = given_settings({"lr": None, "epochs": 0, "noise": False, "task_weights": "emotion=2"}, flags)
    assert given == {"epochs": 0, "noise": False, "task_weights": {"emotion": 2.0}}
    with pytest.raises(SettingsError, match="write NAME=NUMBER"):
        given_settings({"task_weights": "emotion=two"}, flags)


@pytest.mark.parametrize("verb", ["evaluate", "data inspect"])
def test_verbs_that_do_not_split_have_no_split_flags(verb: str) -> None:
    shown = done(*verb.split(), "--help").out
    assert "--data-root" in shown
    assert not re.search(r"--(split|fold|train-ratio|val-ratio) ", shown)


def test_a_short_training_keeps_what_was_typed(clips: Path, artifacts: Path) -> None:
    flags = ["--focal-loss", "--focal-gamma", "1.5", "--class-weight-loss", "--class-weight-mult", "calm=1.5"]
    done("train", "--data-root", clips, *TINY, *flags, "--epochs", "1", "--name", "typed")
    stored = read_json(artifacts / "runs" / "typed" / "config.json")
    assert (stored["focal_loss"], stored["focal_gamma"]) == (True, 1.5)
    assert stored["class_weight_mult"] == {"calm": 1.5}
    command = read_json(artifacts / "runs" / "typed" / "environment.json")["command"]
    assert command.startswith(f"samo train --data-root {clips} ")
    assert command.endswith("--class-weight-mult calm=1.5 --epochs 1 --name typed")
