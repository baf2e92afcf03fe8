"""``samo tune``: a search over tones, what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
from tone_corpora import SMALL, done, read_json, refused, samo

from samo.errors import Interrupted, SettingsError
from samo.modalities import MODALITIES, config_type, frontend_type, space_files
from samo.tuning.space import parse_space, read_space
from samo_cli.verbs.tune import _without_password

FAST = [*SMALL, "--width", "4", "--epochs", "1"]
SPACE = """
lr = {low = 1e-4, high = 1e-2, log = true}
use_specaug = {choices = [false, true]}
specaug_freq = {low = 4, high = 12, step = 4}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.toml"
    path.write_text(SPACE)
    return path


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as lines:
        return list(csv.DictReader(lines))


@pytest.mark.slow
def test_a_study_from_beginning_to_a_trained_model(artifacts: Path, clips: Path, space: Path) -> None:
    flags = ["--data-root", clips, *FAST, "--space", space]
    shown = done("tune", *flags, "--trials", "2", "--name", "mine")
    folder = artifacts / "tuning" / "mine"
    assert shown.out == f"{Path('artifacts/tuning/mine/best.toml')}\n"
    for words in ("2 trials, 0 done before; 3 settings are varied", "trial 0", "optimistic", "next:", "best.toml"):
        assert words in shown.err
    assert [row["number"] for row in rows_of(folder)] == ["0", "1"]
    # Going on: without a flag the study says what it searches; --trials counts those there are.
    more = done("tune", "--name", "mine", "--trials", "3", "--threads", "1", "--precision", "float32", "--json")
    assert "3 trials, 2 done before" in more.err
    assert more.json["counts"]["counted"] == more.json["counts"]["finished"] == 3
    assert [row["number"] for row in more.json["trials"]] == [0, 1, 2]
    best = more.json["best"]
    assert best["value"] == max(float(row["value"]) for row in rows_of(folder))
    assert read_json(folder / "study.json")["space"]["use_specaug"] == {"choices": [False, True]}
    assert (folder / "figures" / "history.png").is_file()
    # The same command again trains nothing.
    assert done("tune", *flags, "--trials", "3", "--name", "mine", "--json").json["counts"]["counted"] == 3
    wrong = refused(5, "tune", *flags, "--lr-min", "1e-6", "--trials", "4", "--name", "mine")
    assert "lr_min was 0.0, is now 1e-06" in wrong
    # best.toml trains the best trial's settings to its score.
    trained = done("train", "--config", folder / "best.toml", "--threads", "1", "--precision", "float32", "--json")
    assert trained.json["val_macro_f1"] == best["value"]
    stored = read_json(folder / "runs" / best["run"] / "config.json")
    assert read_json(artifacts / "runs" / trained.json["run"] / "config.json") == stored


@pytest.mark.slow
def test_two_workers_share_the_trials(artifacts: Path, clips: Path, space: Path) -> None:
    facts = done(
        "tune", "--data-root", clips, *FAST, "--space", space, "--trials", "3", "--workers", "2",
        "--pruner", "hyperband", "--storage", artifacts / "own.log", "--name", "shared", "--json",
    ).json  # fmt: skip
    assert facts["counts"]["finished"] + facts["counts"]["pruned"] == facts["counts"]["counted"] == 3
    folder = artifacts / "tuning" / "shared"
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["worker-0.log", "worker-1.log"]
    assert (artifacts / "own.log").is_file()
    assert not (folder / "journal.log").exists()
    assert read_json(folder / "study.json")["pruner"] == "hyperband"
    missing = refused(5, "tune", "--name", "shared", "--trials", "4")
    assert "trials of a study that the storage does not know" in missing


def test_flags_fix_settings_and_the_timeout_stops(artifacts: Path, clips: Path) -> None:
    error = refused(
        5, "tune", "--data-root", clips, *FAST, "--lr", "0.002", "--no-use-specaug", "--trials", "9",
        "--timeout", "0.000001", "--name", "late",
    )  # fmt: skip
    assert "no trial of study 'late' was finished" in error
    folder = artifacts / "tuning" / "late"
    assert rows_of(folder) == []
    varied = read_json(folder / "study.json")["space"]
    shipped = set(read_space(space_files("audio")["default"]))
    # --width and the like are fixed, and without SpecAugment its masks could never act.
    fixed = {"lr", "use_specaug", "specaug_freq", "specaug_time", "width", "n_mels", "batch_size"}
    assert set(varied) == shipped - fixed


def test_a_stopped_search_says_how_to_go_on(
    artifacts: Path, clips: Path, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*rest: Any) -> Any:
        raise Interrupted("training stopped", hint="samo train --resume", exit_status=143)

    monkeypatch.setattr("samo.tuning.trials.train_run", stopped)
    flags = ["--data-root", clips, *FAST, "--space", space, "--split", "random", "--name", "broken"]
    result = samo("tune", *flags)
    assert result.status == 143
    assert result.stop.endswith("(hint: go on with the same command and --name broken)")
    assert "LEAKY SPLIT" in result.err
    assert [row["state"] for row in rows_of(artifacts / "tuning" / "broken")] == ["stopped"]


def test_the_clips_are_opened_once_for_all_trials_of_one_rate(clips: Path) -> None:
    def config(**settings: Any) -> Any:
        small = {"duration": 0.5, "sr": 8000, "n_fft": 256, "hop_length": 64, "n_mels": 32}
        return config_type("audio").build({"data_root": str(clips), **small, **settings})

    opened: Any = frontend_type("audio").open(config(), print)
    other = opened.with_config(config_type("audio").build({**opened.config.flat(), "lr": 0.5, "duration": 0.25}))
    assert other.waveforms is opened.waveforms
    assert (other.manifest, other.window, other.config.optim.lr) == (opened.manifest, 2000, 0.5)
    slower = opened.with_config(config(sr=4000))
    assert (slower.waveforms.sr, slower.manifest.digest) == (4000, opened.manifest.digest)
    with pytest.raises(SettingsError, match="unknown model"):
        opened.with_config(config_type("audio").build({**opened.config.flat(), "model": "resnet19"}))


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_shipped_space_holds_the_default_settings(modality: str) -> None:
    base = config_type(modality).build({})
    found = parse_space(read_space(space_files(modality)["default"]), base)
    params = found.base_params()
    assert params is not None
    assert all(params[name] == base.flat()[name] for name in params)


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        (["--trials", "0"], 2, "--trials"),
        (["--workers", "0"], 2, "--workers"),
        (["--timeout", "-1"], 2, "--timeout"),
        (["--name", "a/b"], 2, "--name 'a/b'"),
        (["--space", "no.toml"], 2, "cannot read search space no.toml"),
        (["--space", "bad.toml"], 2, "unknown setting 'droput' for modality audio (hint: did you mean 'dropout'?"),
        (["--lr", "-1"], 2, "--lr -1"),
        (["--storage", "nonsense://x"], 2, "--storage: no study can be kept there"),
        (["--dataset", "demo", "--pruner", "medain", "--name", "x"], 2, "--pruner medain: unknown"),
        (["--preset", "demmo"], 2, "unknown preset 'demmo'"),
    ],
)
def test_what_is_refused(artifacts: Path, argv: list[Any], status: int, says: str) -> None:
    Path("bad.toml").write_text("droput = {low = 0.0, high = 0.5}\n")
    assert says in refused(status, "tune", *argv)
    assert not (artifacts / "tuning" / "x").exists()


def test_without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    error = refused(9, "tune")
    assert error == 'error: samo tune needs Optuna (hint: pip install "samo-emotion[tune]")'


def test_a_password_is_not_kept() -> None:
    command = "samo tune --storage postgresql://me:secret@host/db --name x"
    assert _without_password(command) == "samo tune --storage postgresql://me:***@host/db --name x"
    assert _without_password("samo tune --storage sqlite:///a.db") == "samo tune --storage sqlite:///a.db"
