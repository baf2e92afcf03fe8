"""``samo train``: what a run's folder holds, where it lies, and what each flag of the training does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tone_corpora import EMOTIONS, FEATURES, SMALL, TINY, done, folder, ravdess, read_json, refused, samo, stop_after
from torch import Tensor

from samo.modalities import preset_files
from samo.runs.run import Run
from samo.training.losses import EmotionLoss
from samo_cli.render import TrainingView


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model(artifacts: Path, name: str) -> str:
    return digest(artifacts / "runs" / name / "best_model.safetensors")


def history(artifacts: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (artifacts / "runs" / name / "history.jsonl").read_text().splitlines()]


def test_a_run_folder_holds_what_the_design_promises(trained: Path) -> None:
    folder = trained / "runs" / "first"
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.json",
        "manifest.jsonl",
        "split.json",
        "fitted.safetensors",
        "environment.json",
        "history.jsonl",
        "results.csv",
        "last.ckpt",
        "best_model.safetensors",
        "calibration.json",
        "predictions.test.npz",
        "predictions.csv",
        "report.json",
        "report.html",
        "figures",
        "MODEL_CARD.md",
    }
    assert not [name for name in names if name.startswith(".") and name != ".lock"]
    assert (trained / "latest").resolve() == folder


def test_split_json_is_stable(trained: Path, clips: Path) -> None:
    split = read_json(trained / "runs" / "first" / "split.json")
    assert list(split) == ["rule", "seed", "train", "val", "test"]
    assert (split["rule"], split["seed"]) == ("speaker", 0)
    stems = {path.stem for path in clips.rglob("*.wav")}
    parts = [split[part] for part in ("train", "val", "test")]
    assert {name for part in parts for name in part} == stems
    assert [len({name[-2:] for name in part}) for part in parts] == [3, 1, 2]
    assert sum(map(len, parts)) == len(stems)


def test_json_is_one_object(clips: Path, artifacts: Path) -> None:
    result = done("train", "--data-root", clips, *TINY, "--name", "one", "--json")
    facts = result.json
    assert list(facts) == [
        "schema", "run", "folder", "dataset", "synthetic", "leaky", "epochs", "best_epoch", "val_macro_f1",
    ]  # fmt: skip
    assert (facts["run"], facts["dataset"], facts["synthetic"], facts["leaky"]) == ("one", "ravdess", False, False)
    assert facts["epochs"] == 2 == len(history(artifacts, "one"))
    assert facts["val_macro_f1"] == max(row["val_macro_f1"] for row in history(artifacts, "one"))
    assert Path(facts["folder"]).samefile(artifacts / "runs" / "one")


def test_without_a_terminal_the_name_goes_to_stdout_and_the_rest_to_stderr(clips: Path, artifacts: Path) -> None:
    result = done("train", "--data-root", clips, *TINY, "--epochs", "1")
    assert result.out == "ravdess-emotion-small-cnn-001\n"
    assert "\x1b" not in result.err
    lines = result.err.splitlines()
    assert lines[0].startswith("· run ravdess-emotion-small-cnn-001: 48 clips of ravdess; cpu, float32")
    assert lines[1] == "· train 3 speakers / 24 clips, val 1 / 8, test 2 / 16"
    assert lines[2] == (
        "· val has 1 speaker and test has 2 speakers only: scores will rest on little; "
        "`samo crossval` evaluates on every speaker"
    )
    assert lines[3].startswith("epoch 1: step 1/3, loss ")
    assert lines[4].startswith("epoch 1/1  loss ")
    assert "next:   samo evaluate ravdess-emotion-small-cnn-001" in result.err
    assert done("train", "--data-root", clips, *TINY, "--epochs", "1").out == "ravdess-emotion-small-cnn-002\n"
    assert (artifacts / "latest").resolve().name == "ravdess-emotion-small-cnn-002"
    # What was typed named no run; what is printed to repeat it does.
    kept = read_json(artifacts / "runs" / "ravdess-emotion-small-cnn-002" / "environment.json")
    assert kept["command"].endswith(" --epochs 1 --name ravdess-emotion-small-cnn-002")


def test_a_refused_training_takes_no_name(clips: Path, tmp_path: Path, artifacts: Path) -> None:
    own = folder(tmp_path / "f", speakers=3)
    (tmp_path / "damaged.pt").write_bytes(b"no tensors")
    for argv in (
        ["--dataset", "folder", "--data-root", own],
        ["--data-root", clips, "--split", "folds", "--fold", "7"],
        ["--data-root", clips, "--weights", tmp_path / "damaged.pt"],
    ):
        result = samo("train", *argv, *TINY)
        assert result.status in (2, 3, 6), result.err
        assert not list(artifacts.glob("runs/*"))
        assert ("· run " in result.err) == ("--weights" in argv)


@pytest.mark.slow
def test_missing_actors_of_published_folds_are_said(clips: Path, artifacts: Path) -> None:
    words = "18 of 24 speakers of the published folds are missing: scores are not comparable with published ones"
    there = ["train", "--data-root", clips, *TINY, "--epochs", "1", "--name", "f"]
    assert f"· {words}\n" in done(*there, "--split", "folds").err
    assert words in done("evaluate", "--threads", "1", "--json").json["warnings"]
    assert words not in done(*there, "--overwrite").err


def test_the_newest_run_without_a_model_is_passed_over(copied: Path, clips: Path) -> None:
    shutil.copytree(copied, copied.parent / "later", ignore=shutil.ignore_patterns("best_model.*"))
    (copied.parent.parent / "latest").unlink()
    (copied.parent.parent / "latest").symlink_to("runs/later")
    result = done("predict", clips / "Actor_01", "--threads", "1", "--json")
    assert result.json["run"] == "first"
    assert "· run later has no model yet; taking the newest that has one, first\n" in result.err


def test_a_name_that_is_taken(copied: Path, clips: Path) -> None:
    line = refused(5, "train", "--data-root", clips, *TINY, "--name", "first")
    assert "a run named 'first' exists" in line
    assert "--overwrite" in line
    before = digest(copied / "best_model.safetensors")
    assert (copied / "report.json").exists()
    done("train", "--data-root", clips, *TINY, "--name", "first", "--overwrite", "--seed", "1")
    assert digest(copied / "best_model.safetensors") != before
    assert not (copied / "report.json").exists()


def test_overwrite_spares_a_run_whose_replacement_cannot_begin(copied: Path, tmp_path: Path) -> None:
    refused(3, "train", "--data-root", tmp_path / "none", *TINY, "--name", "first", "--overwrite")
    leaky = ravdess(tmp_path / "leaky")
    shutil.copy(leaky / "Actor_01/03-01-05-01-02-01-01.wav", leaky / "Actor_04/03-01-05-01-01-01-04.wav")
    refused(4, "train", "--data-root", leaky, *TINY, "--name", "first", "--overwrite")
    assert (copied / "report.json").exists()


@pytest.mark.parametrize("setting", ["weights", "teacher"])
def test_overwrite_spares_a_run_that_its_replacement_needs(copied: Path, clips: Path, setting: str) -> None:
    given = copied / "best_model.safetensors" if setting == "weights" else "first"
    line = refused(2, "train", "--data-root", clips, *TINY, "--name", "first", "--overwrite", f"--{setting}", given)
    assert "run" in line
    assert f"--{setting}" in line
    assert "--overwrite replaces" in line
    assert Run(copied).has_model
    assert not (copied.parent / ".first.replaced").exists()


def test_where_artifacts_go(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> None:
    quick = ["train", "--data-root", clips, *TINY, "--epochs", "1", "--name", "a"]
    done(*quick)
    monkeypatch.setenv("SAMO_ARTIFACTS", str(tmp_path / "environment"))
    done(*quick)
    result = done(*quick, "--artifacts", tmp_path / "flag [1]")
    for root in (artifacts, tmp_path / "environment", tmp_path / "flag [1]"):
        assert (root / "runs" / "a" / "best_model.safetensors").is_file()
        assert (root / "latest").resolve() == (root / "runs" / "a").resolve()
    assert "samo evaluate a --artifacts" in result.err
    assert "flag [1]" in result.err
    # One setting, one seed, one thread: one model.
    assert len({model(root, "a") for root in (artifacts, tmp_path / "environment", tmp_path / "flag [1]")}) == 1


def test_two_trainings_into_one_folder(copied: Path, clips: Path) -> None:
    shutil.rmtree(copied)
    with Run(copied).locked():
        for more in ([], ["--overwrite"]):
            line = refused(5, "train", "--data-root", clips, *TINY, "--name", "first", *more)
            assert f"run 'first' is being written by process {os.getpid()}" in line


def test_training_flags_act(clips: Path, artifacts: Path) -> None:
    base = ["train", "--data-root", clips, *TINY]
    for name, flags in {
        "base": [],
        "again": [],
        "longer": ["--epochs", "3"],
        "batch": ["--batch-size", "4"],
        "seed": ["--seed", "7"],
    }.items():
        done(*base, *flags, "--name", name)
    models = {name: model(artifacts, name) for name in ("base", "again", "longer", "batch", "seed")}
    assert models["base"] == models["again"]
    assert len(set(models.values())) >= 3
    assert len({models["base"], models["batch"], models["seed"]}) == 3
    assert [len(history(artifacts, name)) for name in ("base", "longer")] == [2, 3]
    assert read_json(artifacts / "runs" / "seed" / "split.json")["seed"] == 7
    steps = [
        torch.load(artifacts / "runs" / name / "last.ckpt", weights_only=True)["step"] for name in ("base", "batch")
    ]
    assert steps == [2 * 3, 2 * 6]


def test_patience_stops_early(clips: Path, artifacts: Path) -> None:
    result = done(
        "train", "--data-root", clips, *TINY, "--epochs", "60", "--patience", "2", "--lr", "0.5", "--name", "short"
    )
    rows = history(artifacts, "short")
    best = max(rows, key=lambda row: (row["val_macro_f1"], -row["val_loss"]))
    assert len(rows) == best["epoch"] + 2 < 60
    assert "stopped early, 60 were allowed" in result.err


@pytest.mark.parametrize(("precision", "channels_last"), [("float32", False), ("bf16", True)])
def test_precision_and_threads_are_recorded(clips: Path, artifacts: Path, precision: str, channels_last: bool) -> None:
    done("train", "--data-root", clips, *TINY, "--epochs", "1", "--precision", precision, "--name", "p")
    seen = read_json(artifacts / "runs" / "p" / "environment.json")
    assert seen["runtime"] == {"device": "cpu", "precision": precision, "channels_last": channels_last, "threads": 1}
    assert seen["packages"]["torch"] == torch.__version__.partition("+")[0] or seen["packages"]["torch"]
    assert seen["command"].startswith("samo train ")


# Those with an encoder of speech train in test_speech_encoders.py, which has small ones; `fast` is one of the others.
@pytest.mark.parametrize(
    "preset",
    [name for name in preset_files("audio") if not name.startswith("whisper") and name not in ("fast", "accurate")],
)
@pytest.mark.slow
def test_every_preset_trains(preset: str, clips: Path) -> None:
    given = SMALL
    if preset == "mn04":
        # It has features of its own, and its published weights are a download.
        given = [*SMALL[len(FEATURES) :], "--duration", "0.5", "--no-pretrained"]
    # The mean of the last quarter of the epochs needs eight of them.
    epochs = 8 if preset in ("small-cnn", "small-cnn-bins") else 1
    small = [*given, "--epochs", str(epochs)] + (["--width", "4"] if "cnn" in preset else [])
    if preset == "small-cnn-bins":
        small += ["--frequency-bins", "2"]  # as many as 32 mel bands leave
    facts = done("train", "--data-root", clips, "--preset", preset, *small, "--json").json
    assert facts["epochs"] == epochs


@pytest.mark.usefixtures("drawn_pictures")
def test_interrupted_training_goes_on_to_the_same_model(
    clips: Path, tmp_path: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*TINY, "--epochs", "5", "--mixup-alpha", "0.2", "--use-specaug", "--ema-decay", "0.9"]
    done("train", "--data-root", clips, *flags, "--name", "whole")
    stop_after(monkeypatch, 2, KeyboardInterrupt())
    root = tmp_path / "elsewhere"
    stopped = samo("train", "--data-root", clips, *flags, "--name", "cut", "--artifacts", root)
    # How clips look augmented is drawn before the first step.
    assert (root / "runs" / "cut" / "augmented.png").read_bytes().startswith(b"\x89PNG")
    assert "no picture" not in stopped.err
    assert stopped.status == 130
    assert stopped.stop.startswith("stopped: after 2 of 5 epochs; the best model (epoch")
    assert f"go on with: samo train --resume cut --artifacts {root}" in stopped.stop
    assert done("runs", "--artifacts", root, "--json").json["runs"][0]["status"] == "stopped"

    line = refused(5, "train", "--resume", "cut", "--lr", "0.5", "--epochs", "9", "--artifacts", root)
    assert "--lr 0.001 is now 0.5" in line
    assert "--epochs 5 is now 9" in line

    # The data may have moved; that they are the same is checked by content.
    moved = shutil.copytree(clips, tmp_path / "moved")
    done(
        "train",
        "--resume",
        "cut",
        "--data-root",
        moved,
        "--threads",
        "1",
        "--precision",
        "float32",
        "--artifacts",
        root,
    )
    assert model(root, "cut") == model(artifacts, "whole")
    assert [row["val_loss"] for row in history(root, "cut")] == [row["val_loss"] for row in history(artifacts, "whole")]
    assert "run 'cut' is finished" in refused(5, "train", "--resume", "cut", "--artifacts", root)


def test_resume_of_changed_data_and_of_nothing(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no run 'none'" in refused(5, "train", "--resume", "none")
    stop_after(monkeypatch, 1, KeyboardInterrupt())
    own = shutil.copytree(clips, tmp_path / "own")
    assert samo("train", "--data-root", own, *TINY, "--name", "cut").status == 130
    next(own.rglob("*.wav")).unlink()
    assert "changed since it was begun" in refused(5, "train", "--resume", "cut", "--threads", "1")


def test_interrupted_before_the_first_epoch(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_step(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingView, "on_step", on_step)
        stopped = samo("train", "--data-root", clips, *TINY, "--name", "early")
    assert stopped.status == 130
    assert "no epoch was finished" in stopped.stop
    for verb in (["evaluate", "early"], ["evaluate"], ["predict", clips]):
        line = refused(6, *verb)
        assert "there is no model at" in line
        assert "(hint: go on with: samo train --resume early)" in line
    done("train", "--resume", "early", "--threads", "1")


def test_interrupted_before_the_first_step(clips: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("samo.runs.train.checked_split", stop)
    stopped = samo("train", "--data-root", clips, *TINY)
    assert (stopped.status, stopped.stop) == (130, "stopped: before its first step")
    assert not list(artifacts.glob("runs/*"))


def test_overwrite_keeps_the_old_model_until_there_is_a_new_one(
    copied: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_step(*_: object) -> None:
        raise KeyboardInterrupt

    before = {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file() and path.name != ".lock"}
    monkeypatch.setattr(TrainingView, "on_step", on_step)
    stopped = samo("train", "--data-root", clips, *TINY, "--name", "first", "--overwrite")
    assert stopped.stop == (
        "stopped: after 0 of 2 epochs; no epoch was finished, so there is no model yet; "
        "the run 'first' that was to be replaced is kept"
    )
    after = {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file() and path.name != ".lock"}
    assert after == before
    assert [entry.name for entry in copied.parent.iterdir()] == ["first"]


def test_a_full_disk_keeps_the_best_model(clips: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync
    written: list[str] = []

    def fsync(handle: int) -> None:
        name = os.readlink(f"/proc/self/fd/{handle}")
        written.append(name)
        if sum("last.ckpt" in other for other in written) == 2:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        line = refused(8, "train", "--data-root", clips, *TINY, "--epochs", "4", "--name", "full")
    assert "no space left while writing" in line
    folder = artifacts / "runs" / "full"
    assert not list(folder.glob(".*ckpt*"))
    assert done("predict", clips / "Actor_01", "--run", "full", "--json").json["predictions"]
    done("train", "--resume", "full", "--threads", "1", "--precision", "float32")
    done("train", "--data-root", clips, *TINY, "--epochs", "4", "--name", "whole")
    assert model(artifacts, "full") == model(artifacts, "whole")


def test_a_loss_that_is_not_a_number_names_the_files(
    clips: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = EmotionLoss.forward
    calls: list[int] = []

    def forward(self: EmotionLoss, *args: Tensor) -> Tensor:
        calls.append(1)
        loss: Tensor = real(self, *args)
        return loss * float("nan") if len(calls) == 6 else loss

    monkeypatch.setattr(EmotionLoss, "forward", forward)
    line = refused(7, "train", "--data-root", clips, *TINY, "--name", "nan")
    assert "the loss became nan in epoch 2" in line
    assert "; the best model (epoch 1, validation macro-F1" in line
    assert line.count(".wav") == 8
    assert "--lr" in line
    assert (artifacts / "runs" / "nan" / "best_model.safetensors").is_file()
    assert done("predict", clips / "Actor_01", "--run", "nan", "--json").json["predictions"]
    del calls[5:]
    line = refused(7, "train", "--data-root", clips, *TINY, "--name", "at-once")
    assert "the loss became nan in epoch 1, step 1" in line
    assert "; no epoch was finished, so there is no model yet)" in line


def test_a_copy_under_two_speakers_is_a_leak(tmp_path: Path, artifacts: Path) -> None:
    root = ravdess(tmp_path / "leaky")
    one = root / "Actor_01" / "03-01-05-01-02-01-01.wav"
    two = root / "Actor_04" / "03-01-05-01-01-01-04.wav"
    shutil.copy(one, two)
    line = refused(4, "train", "--data-root", root, *TINY)
    assert "the speaker split leaks: identical content" in line
    assert one.name in line
    assert two.name in line
    assert not (artifacts / "latest").exists()


def test_weights_of_another_run_are_a_start(trained: Path, clips: Path, artifacts: Path) -> None:
    given = trained / "runs" / "first" / "best_model.safetensors"
    done("train", "--data-root", clips, *TINY, "--name", "cold")
    done("train", "--data-root", clips, *TINY, "--name", "warm", "--weights", given)
    assert model(artifacts, "cold") != model(artifacts, "warm")
    assert "there is no weights file at" in refused(6, "train", "--data-root", clips, *TINY, "--weights", "no.pt")
    assert refused(6, "train", "--data-root", clips, *TINY, "--width", "8", "--weights", given)


def test_sentiment_mode(clips: Path, artifacts: Path) -> None:
    done("train", "--data-root", clips, *TINY, "--epochs", "1", "--mode", "sentiment", "--name", "s")
    printed = done("predict", clips / "Actor_01", "--json").json["predictions"][0]
    assert set(printed["probabilities"]) == {"negative", "neutral", "positive"}
    assert not set(printed["probabilities"]) & (set(EMOTIONS) - {"neutral"})
