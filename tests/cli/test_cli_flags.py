"""Flags made from the settings: all there, all arriving, preset < file < flag, and nothing ignored in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tone_corpora import TINY, done, read_json, refused, samo
from typed_flags import arrived, described, options_of, typed

import samo_audio.datasets
import samo_audio.models
import samo_text.datasets
import samo_text.models
from samo.errors import SettingsError
from samo.modalities import preset_files
from samo.settings import SettingField, read_preset, resolve
from samo_audio.config import AudioConfig
from samo_cli.flags import as_flags, switch
from samo_cli.options import (
    Flag,
    flags_of,
    given_settings,
)
from samo_text.config import TextConfig

FIELDS = {field.name: field for field in AudioConfig.fields()}
TEXT_FIELDS = {field.name: field for field in TextConfig.fields()}
REGISTRIES = {
    "dataset": (samo_audio.datasets.DATASETS, samo_text.datasets.DATASETS),
    "model": (samo_audio.models.MODELS, samo_text.models.MODELS),
}
# A value for every setting, far from its default; what a setting needs is set with it.
OTHER: dict[str, Any] = {
    "dataset": "table",
    "data_root": "/",
    "mode": "sentiment",
    "split": "folds",
    "near_copies": "report",
    "baseline": "none",
    "functional_set": "level",
    "teacher": "elsewhere",
    "fold": 3,
    "num_folds": 4,
    "train_ratio": 0.6,
    "val_ratio": 0.15,
    "limit_fraction": 0.5,
    "path_column": "file",
    "label_column": "emotion",
    "speaker_column": "who",
    "start_column": "from",
    "end_column": "until",
    "split_column": "part",
    "speaker_pattern": "spk([0-9]+)",
    "sr": 16000,
    "trim_db": 30.0,
    "tta_speed": 0.05,
    "duration": 2.5,
    "n_mels": 64,
    "n_fft": 512,
    "win_length": 400,
    "hop_length": 160,
    "fmin": 50.0,
    "fmax": 7000.0,
    "mel_scale": "htk",
    "compression": "pcen",
    "normalisation": "train",
    "level": "as-is",
    "noise_root": "/noise",
    "noise_snr_min": 5.0,
    "noise_snr_max": 20.0,
    "model": "resnet18",
    "encoder": "/whisper",
    "pooling": "max+attention",
    "layers": "last",
    "head": "logreg",
    "dropout_inference": "vote",
    "layer_lr_decay": 0.9,
    "state_mask": 0.3,
    "width": 8,
    "dropout": 0.5,
    "weights": "start.safetensors",
    "trunk_lr_scale": 0.25,
    "keep": "last",
    "class_weight_mult": {"neutral": 1.8, "calm": 0.9},
    "task_gamma": {"emotion": 1.5},
    "task_weights": {"emotion": 0.7},
    "joint_boost": {"calm": 2.0},
    "schedule": "cosine-restarts",
    "lr_min": 0.0001,
    "num_cycles": 5,
    "label_smoothing": 0.1,
    "abstain_coverage": 0.8,
}


def other(field: SettingField) -> Any:
    default = field.info.default
    if field.name in OTHER:
        return OTHER[field.name]
    if isinstance(default, bool):
        return not default
    return default + 1 if isinstance(default, int) else default + 0.25


ENCODER = {"model": "encoder", "encoder": "/whisper"}
# What acts on an encoder alone, and what it needs besides.
OF_ENCODERS: dict[str, dict[str, Any]] = {
    "encoder": {},
    "pooling": {},
    "layers": {},
    "state_mask": {},
    "state_mask_span": {"state_mask": 0.3},
    "head": {},
    "head_centres": {"head": "kernel"},
    "head_layers": {},
    "head_hidden": {"head_layers": 2},
    "head_intermediate": {"head_layers": 2},
    "head_residual": {"head_layers": 2},
    "head_norm": {},
    "dropout_samples": {},
    "dropout_inference": {"dropout_samples": 3},
    "freeze_encoder": {},
    "unfreeze_epochs": {"freeze_encoder": False},
    "encoder_lr_scale": {"freeze_encoder": False},
    "layer_lr_decay": {"freeze_encoder": False},
    "speed_steps": {"speed": 0.1},
}


def company(field: SettingField) -> dict[str, Any]:
    """The setting with another value, and those without which it would do nothing."""
    if field.name in OF_ENCODERS:
        return {**ENCODER, **OF_ENCODERS[field.name], field.name: other(field)}
    values: dict[str, Any] = {}
    if field.needs:
        name, _, value = field.needs.partition("=")
        values[name] = value.split("|")[0] or other(FIELDS[name])
    if "model" in values:
        values |= samo_audio.models.MODELS[values["model"]].defaults
    if field.name == "lr_min":
        values["schedule"] = "cosine"
    return {**values, field.name: other(field)}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> Callable[..., dict[str, Any]]:
    """What ``samo train`` would train with, by setting name."""
    return lambda *argv: arrived(monkeypatch, *argv)


@pytest.fixture(scope="module")
def train_help() -> dict[str, str]:
    """What stands beside each option."""
    return options_of(done("train", "--help").out)


def _declared(field: SettingField) -> tuple[object, ...]:
    return field.info.description, field.info.default, str(field.info.metadata), field.needs


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_a_flag_with_its_default_in_the_help(name: str, train_help: dict[str, str]) -> None:
    """Where both modalities have a setting and mean the same by it, it is described once."""
    own = described(FIELDS[name])
    shown = train_help[switch(name)]
    assert own in shown
    text = TEXT_FIELDS.get(name)
    alike = text is not None and _declared(text) == _declared(FIELDS[name])
    assert shown.startswith(f"--[no-]{switch(name)[2:]} " if isinstance(FIELDS[name].info.default, bool) else "--")
    assert (f"audio: {own}" in shown) == (not alike)
    assert ("text: " in shown.replace(own, "")) == (text is not None and not alike)


@pytest.mark.parametrize("name", FIELDS)
def test_every_flag_arrives(name: str, settings: Callable[..., dict[str, Any]]) -> None:
    values = company(FIELDS[name])
    found = settings(*(word for key, value in values.items() for word in typed(key, value)))
    assert {key: found[key] for key in values} == values
    encoder = {key: values[key] for key in ENCODER if key in values}
    # Which has a rate, a window and a level of its own.
    defaults = {**AudioConfig.build(encoder).flat(), **{key: AudioConfig().flat()[key] for key in encoder}}
    assert {key for key in found if found[key] != defaults[key]} == {
        key for key in values if values[key] != defaults[key]
    }


def test_limits_and_needs_are_in_the_help(train_help: dict[str, str]) -> None:
    datasets, models = ([*one, *other] for one, other in (REGISTRIES["dataset"], REGISTRIES["model"]))
    for flag, text in (
        ("--sr", "audio: sampling rate in Hz that clips are resampled to [22050; 4000 to 192000]"),
        ("--lr", "peak learning rate [0.001; >0, <=10]"),
        ("--focal-gamma", "[2; 0 to 10; with --focal-loss]"),
        ("--fold", "test fold with --split folds [0; 0 to 99; with --split folds]"),
        ("--pretrained", "[off; with --model resnet18, mn04, mn10, cnn6 or cnn14]"),
        ("--split", "--split auto|speaker|folds|random|table|whole|stratified|group audio: "),
        ("--class-weight-mult", "--class-weight-mult NAME=NUMBER,... "),
        ("--dataset", f"--dataset {'|'.join(dict.fromkeys(datasets))} "),
        ("--model", "--model NAME "),
        ("--model", f" One of {', '.join(dict.fromkeys(models))}."),
    ):
        assert text in train_help[flag]


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
    (file.parent / "clips").mkdir(parents=True)
    file.write_text('data_root = "clips"\nweights = "../w.pt"\nnoise = true\nnoise_root = "/noise"\n')
    found = settings("--config", file)
    assert found["data_root"] == str(tmp_path / "deep" / "clips")
    assert Path(found["weights"]).resolve() == tmp_path / "w.pt"
    assert found["noise_root"] == "/noise"
    assert settings("--config", file, "--data-root", "/")["data_root"] == "/"


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
        (
            ["--split", "sideways"],
            "--split 'sideways': input should be 'auto', 'speaker', 'folds', 'random', 'table' or 'whole'",
        ),
        (["--train-ratio", "0.8", "--val-ratio", "0.2"], "--train-ratio and --val-ratio leave nothing to test on"),
        (["--win-length", "2048"], "--win-length must not exceed --n-fft"),
        (["--fmin", "9000", "--fmax", "8000"], "--fmin and --fmax"),
        (["--class-weight-loss", "--class-weight-mult", "neutral"], "write NAME=NUMBER"),
        (["--class-weight-loss", "--class-weight-mult", "neutral=-1"], "--class-weight-mult"),
        (["--class-weight-loss", "--class-weight-mult", "a=1,a=2"], "names 'a' twice"),
        (["--preset", "smal-cnn-focal"], "unknown preset 'smal-cnn-focal' (hint: did you mean 'small-cnn-focal'?"),
        (["--preset", "textcnn"], "--preset textcnn is no preset of --modality audio (hint: it belongs to"),
        (["--model", "bigru"], "--model bigru is no model of --modality audio (hint: it belongs to --modality text)"),
        (["--dataset", "goemotions"], "--dataset goemotions is no dataset of --modality audio (hint: it belongs to"),
        (["--modality", "vidio"], "unknown modality 'vidio'"),
        (["--name", "a/b"], "--name 'a/b'"),
        (["--device", "tpu"], "--device tpu"),
        (["--precision", "fp64"], "--precision fp64: unknown"),
        (["--head-layers", "2"], "--head-layers acts only together with --model encoder"),
        (["--encoder", "/x", "--n-mels", "64"], "--n-mels does nothing for --model encoder"),
        (["--encoder", "/x", "--sr", "8000"], "--sr must be 16000 with --model encoder, it is 8000"),
        (["--encoder", "/x", "--time-shift", "1"], "--time-shift acts only together with an encoder that learns"),
        (["--encoder", "/x", "--no-freeze-encoder", "--freq-warp", ".1"], "--freq-warp does nothing for"),
        (["--encoder", "/x", "--encoder-lr-scale", ".1"], "--encoder-lr-scale acts only together with an encoder that"),
        (["--encoder", "/x", "--head", "logreg", "--epochs", "3"], "--epochs does nothing for --head logreg"),
        (["--encoder", "/x", "--head", "logreg", "--no-freeze-encoder"], "--head logreg acts only together with"),
        (["--model", "encoder"], "--model encoder needs --encoder"),
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
    values = {name: other(NEEDY[name])}
    if needed == "model":
        values["model"] = next(each for each in ("small-cnn", "resnet18", "mn05") if each not in value.split("|"))
    if name == "state_mask_span":
        values |= ENCODER
    with pytest.raises(SettingsError) as caught:
        resolve("audio", "", None, values)
    several = {
        "pretrained": "`model=resnet18`, mn04, mn10, cnn6 or cnn14",
        "pooling": "`model=encoder`, small-cnn or resnet18",
        "frequency_bins": "`model=small-cnn` or resnet18",
        "deltas": "`model=small-cnn` or resnet18",
    }
    if name in several:
        assert caught.value.message == f"`{name}` acts only together with {several[name]}"
        return
    assert caught.value.message == f"`{name}` acts only together with `{NEEDY[name].needs}`"
    flag = switch(needed) + (f" {value}" if value else "")
    assert as_flags(caught.value.message) == f"{switch(name)} acts only together with {flag}"


def test_a_flag_that_would_do_nothing_is_one_line() -> None:
    line = refused(2, "train", "--fold", "3")
    assert line == "error: --fold acts only together with --split folds"


def test_config_json_holds_every_setting_under_its_name(trained: Path) -> None:
    stored = read_json(trained / "runs" / "first" / "config.json")
    assert list(stored) == ["modality", *FIELDS]
    assert stored["modality"] == "audio"
    assert stored["epochs"] == 4
    assert Path(stored["data_root"]).is_absolute()


def test_a_flag_of_another_modality_is_refused() -> None:
    line = refused(2, "train", "--max-tokens", "64")
    assert line == "error: --max-tokens is no setting of --modality audio (hint: it belongs to --modality text)"
    line = refused(2, "train", "--modality", "text", "--sr", "8000")
    assert line == "error: --sr is no setting of --modality text (hint: it belongs to --modality audio)"


def test_help_says_which_modality_a_flag_belongs_to(train_help: dict[str, str]) -> None:
    help_line = train_help["--max-tokens"]
    assert help_line.startswith("--max-tokens INTEGER text: longest text in tokens; the rest is cut off [128;")
    about = "passes over the training split"
    assert train_help["--epochs"].endswith(f"audio: {about} [45; 1 to 100000] text: {about} [6; 1 to 100000]")
    assert train_help["--seed"] == (
        "--seed INTEGER seed of weights, order of rows, augmentation and split [0; >=0, <4294967296]"
    )
    assert train_help["--modality"].startswith("--modality audio|text ")


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
    shown = options_of(done(*verb.split(), "--help").out)
    assert "--data-root" in shown
    assert not {"--split", "--fold", "--train-ratio", "--val-ratio", "--split-seed"} & shown.keys()


def test_a_short_training_keeps_what_was_typed(clips: Path, artifacts: Path) -> None:
    flags = ["--focal-loss", "--focal-gamma", "1.5", "--class-weight-loss", "--class-weight-mult", "calm=1.5"]
    done("train", "--data-root", clips, *TINY, *flags, "--epochs", "1", "--name", "typed")
    stored = read_json(artifacts / "runs" / "typed" / "config.json")
    assert (stored["focal_loss"], stored["focal_gamma"]) == (True, 1.5)
    assert stored["class_weight_mult"] == {"calm": 1.5}
    command = read_json(artifacts / "runs" / "typed" / "environment.json")["command"]
    assert command.startswith(f"samo train --data-root {clips} ")
    assert command.endswith("--class-weight-mult calm=1.5 --epochs 1 --name typed")


def trained_with(monkeypatch: pytest.MonkeyPatch, *argv: object) -> dict[str, Any]:
    """The arguments ``samo train`` trains with; nothing is trained."""
    seen: dict[str, Any] = {}

    def train(**arguments: Any) -> None:
        seen.update(arguments)
        raise SettingsError("enough")

    with monkeypatch.context() as patch:
        patch.setattr("samo.runs.train.train", train)
        refused(2, "train", *argv)
    return seen


IN_A_FILE = {
    "modality": ("text", "audio", ""),
    "preset": ("tfidf", "textcnn", ""),
    "name": ("mine", "yours", ""),
    "artifacts": ("out", "elsewhere", ""),
    "device": ("cpu", "auto", "auto"),
    "precision": ("bf16", "float32", "auto"),
    "threads": (3, 2, 0),
}


@pytest.mark.parametrize("key", IN_A_FILE)
def test_a_file_holds_every_flag_with_underscores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, artifacts: Path, key: str
) -> None:
    """What is typed wins, also where it is what holds without it."""
    filed, other_value, default = IN_A_FILE[key]
    file = tmp_path / "my.toml"
    more = 'modality = "text"\n' if key == "preset" else ""
    file.write_text(f"{more}{key} = {filed!r}\n".replace("'", '"'))
    expected = str(tmp_path / "out") if key == "artifacts" else filed
    found = trained_with(monkeypatch, "--config", file)
    assert (found[key], found["config"]) == (expected, file)
    assert trained_with(monkeypatch, switch(key), other_value, "--config", file)[key] == other_value
    if default:
        assert trained_with(monkeypatch, "--config", file, switch(key), default)[key] == default


def test_a_tracker_stands_in_a_file_of_a_training_only(tmp_path: Path, artifacts: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('tracker = "none"\n')
    assert "--tracker 'none': unknown" in refused(2, "train", "--config", file)
    assert "samo crossval takes no --tracker" in refused(2, "crossval", "--config", file)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('threads = "2"', "threads '2': a whole number is needed"),
        ("threads = true", "threads True: a whole number is needed"),
        ("precision = 32", "precision 32: a text is needed"),
        ("overwrite = true", "--overwrite does not belong into a file (hint: give it beside the file)"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(tmp_path: Path, artifacts: Path, line: str, words: str) -> None:
    file = tmp_path / "my.toml"
    file.write_text(line + "\n")
    assert words in refused(2, "train", "--config", file)


def test_a_notebook_reads_the_same_file(tmp_path: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import samo.runs.train

    class Caught(Exception):  # noqa: N818
        pass

    def runtime(*found: object) -> None:
        raise Caught(found[:3])

    monkeypatch.setattr(samo.runs.train, "make_runtime", runtime)
    file = tmp_path / "my.toml"
    file.write_text('modality = "text"\npreset = "tfidf"\ndevice = "cpu"\nprecision = "bf16"\nthreads = 2\n')
    for given, expected in (({}, ("cpu", "bf16", 2)), ({"precision": "auto", "threads": 0}, ("cpu", "auto", 0))):
        with pytest.raises(Caught) as caught:
            samo.runs.train.train(config=file, **given)
        assert caught.value.args[0] == expected
    assert resolve("text", "", file, {}).flat()["model"] == "tfidf"
    assert resolve("text", "textcnn", file, {}).flat()["model"] == "textcnn"


@pytest.mark.parametrize("argv", [["--modality", "audio", "--help"], ["--help", "--modality=audio"]])
def test_help_behind_a_modality_lists_its_settings_only(argv: list[str]) -> None:
    shown = options_of(done("train", *argv).out)
    assert "--n-mels" in shown
    settings = {switch(name) for name in FIELDS}
    others = {switch(name) for name in TEXT_FIELDS} - settings
    assert "--text-column" in others
    assert not {"--encoders", *others} & shown.keys()
    assert settings <= shown.keys()
    assert {"--modality", "--preset", "--tracker"} <= shown.keys()
    assert not [line for line in shown.values() if "audio: " in line or "text: " in line]
    assert shown["--dataset"].startswith("--dataset ravdess|demo|table|folder")
    both = options_of(done("train", "--help").out)
    assert {"--encoders", "--n-mels", *others} <= both.keys()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--weights", "no.pt"], "there is no weights file at no.pt"),
        (["--preset", "whisper-frozen", "--encoder", "./no"], "--encoder ./no: there is no such folder"),
        (["--modality", "text", "--encoder", "/no/such"], "--encoder /no/such: there is no such folder"),
    ],
)
def test_a_place_that_is_not_there_comes_before_anything_is_opened(flags: list[str], line: str) -> None:
    result = samo("train", *flags)
    assert result.status == 6
    assert result.err == f"error: {line} (hint: check the spelling of the path)\n"
