"""Presets by what they promise: quick, accurate, an ensemble; what was measured of them, and who is told."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tone_corpora import TINY, done, read_json, refused, table, table_rows

from samo.ensembles import preset_ensemble
from samo.ensembles.preset_ensemble import member_configs
from samo.errors import SettingsError
from samo.experiments import crossval, run_grid
from samo.experiments.train_cell import train_cell
from samo.files import write_json
from samo.launch.local import Job, LocalLauncher, Outcome, Watcher
from samo.modalities import ensemble_files, measured_file, preset_files
from samo.runs import better as better_module
from samo.runs import run_report
from samo.runs.better import better_line
from samo.runs.run import Run
from samo.settings import (
    based_on,
    measured,
    measured_presets,
    presets,
    read_ensemble,
    read_preset,
    recipe_digest,
    resolve,
)
from samo_cli.verbs import crossval as crossval_verb
from samo_cli.verbs import train as train_verb
from samo_cli.verbs.train import _show

BEFORE = Path(__file__).parents[1] / "fixtures" / "trained_before" / "runs"


@pytest.fixture
def unlike_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`best` of speech with a member that has no encoder and one that takes start weights."""
    file = tmp_path / "best-of-three.toml"
    file.write_text('description = "three"\nmembers = ["whisper-frozen", "whisper-head", "mn04"]\n')
    files = {modality: ensemble_files(modality) for modality in ("audio", "text")}
    files["audio"] = {"best": file}
    for module in (measured, presets, crossval_verb, train_verb):
        monkeypatch.setattr(module, "ensemble_files", lambda modality: files[modality])


@pytest.mark.parametrize(
    ("modality", "name", "model", "as_set_by"),
    [
        ("audio", "fast", "small-cnn", "small-cnn"),
        ("audio", "accurate", "encoder", "whisper-kernel"),
        ("text", "fast", "tfidf", "tfidf"),
        ("text", "accurate", "encoder", "minilm"),
    ],
)
def test_fast_and_accurate(modality: str, name: str, model: str, as_set_by: str) -> None:
    found = resolve(modality, name, None, {})
    assert found.flat()["model"] == model
    assert found == resolve(modality, as_set_by, None, {})
    assert read_preset(modality, name)[0] != read_preset(modality, as_set_by)[0]
    assert resolve(modality, name, None, {"seed": 7}).flat()["seed"] == 7


def test_a_preset_may_change_what_it_is_based_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "plain": "lr = 0.1\nepochs = 3",
        "mine": 'description = "mine"\nbased_on = "plain"\nepochs = 5',
        "twice": 'based_on = "mine"',
        "lost": 'based_on = "nothing"',
    }
    files = {name: tmp_path / f"{name}.toml" for name in texts}
    for name, text in texts.items():
        files[name].write_text(text)
    monkeypatch.setattr(presets, "preset_files", lambda modality: files)
    assert read_preset("audio", "mine") == ("mine", {"lr": 0.1, "epochs": 5})
    for name, base in {"twice": "mine", "lost": "nothing"}.items():
        with pytest.raises(SettingsError, match=f"based_on '{base}': not a preset with settings of its own"):
            read_preset("audio", name)


@pytest.mark.usefixtures("unlike_members")
def test_an_ensemble_is_no_preset_of_one_training() -> None:
    for verb in ("tune", "learning-curve"):
        line = refused(2, verb, "--preset", "best", "--modality", "text")
        assert "--preset best is an ensemble of minilm, textcnn, tfidf, which are trained one by one and comb" in line
        assert "samo train and samo crossval take --preset best" in line.replace("`", "")
    assert "--tracker goes without --preset best" in refused(2, "train", "--preset", "best", "--tracker", "mlflow")
    line = refused(2, "train", "--preset", "best", "--normalisation", "speaker")
    assert "whisper-frozen and mn04 cannot be one model: they are fed differently (sr, trim_db, duration, " in line
    assert "--name mn04: a member is called that" in refused(2, "train", "--preset", "best", "--name", "mn04")
    assert "best" in refused(2, "train", "--preset", "bets")
    for modality in ("audio", "text"):
        for member in read_ensemble(modality, "best")[1]:
            assert read_preset(modality, member)[0]


@pytest.mark.usefixtures("unlike_members")
def test_each_setting_goes_to_the_members_that_take_it() -> None:
    configs, dropped = member_configs("audio", "best", None, {"encoder": "some/encoder", "epochs": 3, "seed": 4})
    assert list(configs) == ["whisper-frozen", "whisper-head", "mn04"]
    flat = {name: config.flat() for name, config in configs.items()}
    assert [flat[name]["encoder"] for name in flat] == ["some/encoder", "some/encoder", ""]
    assert [flat[name]["epochs"] for name in ("whisper-head", "mn04")] == [3, 3]
    assert {own["seed"] for own in flat.values()} == {4}
    assert {own["split"] for own in flat.values()} == {"folds"}
    assert {member: list(reasons) for member, reasons in dropped.items()} == {
        "whisper-frozen": ["epochs"], "mn04": ["encoder"],
    }  # fmt: skip
    assert dropped["mn04"]["encoder"].startswith("`encoder`")
    with pytest.raises(SettingsError, match="`lr`"):
        member_configs("audio", "best", None, {"lr": -1.0})
    with pytest.raises(SettingsError, match="`focal_gamma`"):
        member_configs("audio", "best", None, {"focal_gamma": 3.0})
    with pytest.raises(SettingsError, match="unknown setting 'epoch'"):
        member_configs("audio", "best", None, {"epoch": 3})
    one = member_configs("audio", "best", None, {"epochs": 3}, resolve)[0]
    assert {config.flat()["split"] for config in one.values()} == {"auto"}


@pytest.mark.usefixtures("unlike_members")
def test_settings_of_a_file_go_to_the_members_that_take_them(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('preset = "best"\nepochs = 3\nseed = 4\nweights = "mn04.pt"\n')
    configs, dropped = member_configs("audio", "best", file, {"seed": 5})
    flat = {name: config.flat() for name, config in configs.items()}
    assert [flat[name]["epochs"] for name in ("whisper-head", "mn04")] == [3, 3]
    assert {own["seed"] for own in flat.values()} == {5}
    assert [own["weights"] for own in flat.values()] == ["", "", str(tmp_path / "mn04.pt")]
    assert {member: sorted(reasons) for member, reasons in dropped.items()} == {
        "whisper-frozen": ["epochs", "weights"], "whisper-head": ["weights"],
    }  # fmt: skip
    file.write_text("focal_gamma = 3.0\n")
    with pytest.raises(SettingsError, match=r"mine\.toml: focal_gamma"):
        member_configs("audio", "best", file, {})


@pytest.mark.usefixtures("unlike_members")
def test_no_member_takes_a_setting_for_reasons_of_their_own() -> None:
    """A given setting may not go with one of the preset, which then is what an error names."""
    with pytest.raises(SettingsError) as caught:
        member_configs("audio", "best", None, {"model": "small-cnn"})
    line = caught.value.message
    assert line.startswith("`model` is taken by no member of `preset=best`: whisper-frozen: `")
    assert "; mn04: `" in line


@pytest.mark.usefixtures("unlike_members")
def test_start_weights_go_to_the_pretrained_member() -> None:
    """An encoder would take the setting too, but not the tensors of mn04."""
    configs, dropped = member_configs("audio", "best", None, {"weights": "mn04.pt"})
    assert [config.flat()["weights"] for config in configs.values()] == ["", "", "mn04.pt"]
    assert {member: list(reasons) for member, reasons in dropped.items()} == {
        "whisper-frozen": ["weights"], "whisper-head": ["weights"],
    }  # fmt: skip
    with pytest.raises(SettingsError, match="`weights` is no setting of `modality=text`"):
        member_configs("text", "best", None, {"weights": "mn04.pt"})


def test_no_member_is_pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "both.toml").write_text('description = "two"\nmembers = ["small-cnn-baseline", "small-cnn-focal"]\n')
    monkeypatch.setattr(presets, "ensemble_files", lambda modality: {"both": tmp_path / "both.toml"})
    with pytest.raises(SettingsError, match="`weights` goes to a member with `pretrained`"):
        member_configs("audio", "both", None, {"weights": "mn04.pt"})


def test_listed_with_what_was_measured() -> None:
    for modality in ("audio", "text"):
        file = measured_file(modality)
        assert file is not None
        stored = tomllib.loads(file.read_text())
        rows = done("presets", "--modality", modality, "--json").json["presets"]
        for name, facts in stored.items():
            assert rows[name]["measured"] == facts
        assert rows["fast"]["measured"] == stored[rows["fast"]["based_on"]]
        accurate = rows["accurate"]["measured"]
        # An ensemble is no single model, and one that needs items with several labels is not for everybody.
        left = ("best", "minilm-asymmetric")
        alike = [
            facts["macro_f1"] for name, facts in stored.items() if facts["on"] == accurate["on"] and name not in left
        ]
        assert accurate["macro_f1"] == max(alike)
        assert (rows["best"]["kind"], rows["best"]["members"]) == ("ensemble", list(read_ensemble(modality, "best")[1]))
        shown = done("presets", "--modality", modality)
        assert f"{stored[rows['accurate']['based_on']]['macro_f1']:.3f}" in shown.out
        assert "as " + rows["accurate"]["based_on"] in " ".join(shown.out.split())
    assert rows["minilm"]["kind"] == "encoder"


def test_a_flattered_figure_is_shown_with_its_caveat(tmp_path: Path) -> None:
    """README and docs/results.md: how `accurate` was picked flatters it and the averages it is in."""
    caveat = "is flattered by an unknown amount: parts of its recipe were picked on the clips it is tested on"
    rows = done("presets", "--json").json["presets"]
    assert [rows[name]["measured"]["caveat"] for name in ("accurate", "whisper-kernel", "best")] == [caveat] * 3
    assert "may be slightly" in rows["fast"]["measured"]["caveat"]
    assert "caveat" not in rows["whisper-head"]["measured"]
    lines = done("presets").out.splitlines()
    left, right = lines[0].index("what"), lines[0].index("sets")
    shown = " ".join(" ".join(line[left:right] for line in lines).split())
    assert f"ensemble, macro-F1 {rows['best']['measured']['macro_f1']:.3f}; the figure {caveat}" in shown
    better, plain = (rows[name]["measured"]["macro_f1"] for name in ("accurate", "fast"))
    line = better_line(run_of(tmp_path / "a", **resolve("audio", "small-cnn", None, {}).stored()))
    assert f"; {better:.3f} {caveat}; {plain:.3f} may be slightly flattered: " in line
    # An ensemble with a flattered member is flattered.
    for name in ensemble_files("audio"):
        members = read_ensemble("audio", name)[1]
        if any(rows[each].get("measured", {}).get("caveat", "").startswith("is ") for each in members):
            assert rows[name]["measured"]["caveat"].startswith("is flattered by an unknown amount")


def test_a_pipe_gets_lines_that_can_be_read() -> None:
    shown = done("presets").out.splitlines()
    assert 80 < max(map(len, shown)) <= 100
    assert [line for line in shown if line.startswith("whisper-head ")] != []


def run_of(folder: Path, modality: str = "audio", **changes: Any) -> Run:
    folder.mkdir()
    write_json(folder / "config.json", {**resolve(modality, "", None, {}).stored(), **changes})
    return Run(folder)


def test_a_better_preset_is_offered_where_it_was_measured(tmp_path: Path) -> None:
    figures = measured_presets("audio")
    best, plain, mobile = (figures[name]["macro_f1"] for name in ("whisper-kernel", "small-cnn", "mn04"))
    small = resolve("audio", "small-cnn", None, {}).stored()
    line = better_line(run_of(tmp_path / "a", **small))
    scores = f"`preset=accurate` has macro-F1 {best:.3f} where `preset=small-cnn` has {plain:.3f} (RAVDESS"
    assert line.startswith(scores)
    assert "\n" not in line
    # As it was typed, where that is what its settings are; a file may have changed the network since.
    bins = resolve("audio", "small-cnn-bins", None, {}).stored()
    typed = better_line(run_of(tmp_path / "u", **small), "fast")
    assert typed == line.replace("`preset=small-cnn`", "`preset=fast`") != line
    typed = better_line(run_of(tmp_path / "t", **bins))
    worth = figures["small-cnn-bins"]["macro_f1"]
    of_bins = line.replace(f"`preset=small-cnn` has {plain:.3f}", f"`preset=small-cnn-bins` has {worth:.3f}")
    own = f"; {plain:.3f} {figures['small-cnn']['caveat']}"
    assert typed == of_bins.replace(own, f"; {worth:.3f} {figures['small-cnn-bins']['caveat']}") != line
    assert better_line(run_of(tmp_path / "o", **small), "mn04") == line
    # Neither measured nor a preset: what is nearest is called so.
    like = f" where the most similar measured preset, `preset=mn04`, has {mobile:.3f} ("
    assert like in better_line(run_of(tmp_path / "b", model="mn04"))
    mn04 = resolve("audio", "mn04", None, {}).stored()
    elsewhere = run_of(tmp_path / "e", **mn04 | {"seed": 7, "data_root": "/data", "split": "folds", "fold": 3})
    assert f" where `preset=mn04` has {mobile:.3f} (" in better_line(elsewhere)
    assert like in better_line(run_of(tmp_path / "f", **mn04 | {"epochs": mn04["epochs"] + 1}), "mn04")
    text = better_line(run_of(tmp_path / "c", "text", model="tfidf"))
    assert f", {measured_presets('text')['minilm']['minutes']:.0f} minutes: " in text
    silent = [
        {"dataset": "table"}, {"dataset": "demo"}, {"mode": "sentiment"}, {"model": "encoder"},
        {"model": "my_net:tiny"}, {"model": "functionals"},
    ]  # fmt: skip
    assert [better_line(run_of(tmp_path / f"s{k}", **changes)) for k, changes in enumerate(silent)] == [""] * 6


def test_none_is_offered_that_is_not_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, found = run_of(tmp_path / "a"), measured_presets("audio")
    worse = {**found, "accurate": {**found["accurate"], "macro_f1": found["ravdess-small-cnn"]["macro_f1"]}}
    monkeypatch.setattr(better_module, "measured_presets", lambda modality: worse)
    assert better_line(run) == ""
    monkeypatch.setattr(better_module, "measured_presets", lambda modality: {})
    assert better_line(run) == ""


def test_training_ends_with_it_but_not_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(better_module, "better_line", lambda run, preset: f"`preset=accurate` after {preset} has more")
    run = Run(Path(shutil.copytree(BEFORE / "speech", tmp_path / "speech")))
    write_json(run.path("trained.json"), {**run.trained, "allowed_epochs": 6})
    _show(run, "", "fast", json=False)
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].endswith("better: --preset accurate after fast has more")
    assert said.out == "speech\n"
    _show(run, "", "fast", json=True)
    said = capsys.readouterr()
    assert "better" not in said.out + said.err


def here(launcher: LocalLauncher, jobs: Sequence[Job], watcher: Watcher) -> list[Outcome]:
    """Cells in this process."""
    for job in jobs:
        train_cell(job.spec)
    return [Outcome(job.name, "done") for job in jobs]


@pytest.mark.parametrize(("left", "total"), [((30.0, 60.0), 90.0), ((30.0, None), None)])
def test_a_dry_run_of_an_ensemble_is_one_object(
    monkeypatch: pytest.MonkeyPatch, left: tuple[float, float | None], total: float | None
) -> None:
    statuses = {
        f"g.{name}": {"schema": 1, "grid": f"g.{name}", "cells": [{"cell": "seed0.fold0"}], "seconds_left": seconds}
        for name, seconds in zip("ab", left, strict=True)
    }
    plans = [SimpleNamespace(name=name) for name in statuses]
    monkeypatch.setattr(preset_ensemble, "plan_member_grids", lambda *_, **__: ("g", plans))
    monkeypatch.setattr(run_grid, "grid_status", lambda plan, _: statuses[plan.name])
    planned = done("crossval", "--preset", "best", "--dry-run", "--json").json
    assert planned == {
        "schema": 1, "grid": "g", "seconds_left": total,
        "cells": [{"grid": "g.a", "cell": "seed0.fold0"}, {"grid": "g.b", "cell": "seed0.fold0"}],
    }  # fmt: skip


@pytest.mark.slow
def test_an_ensemble_of_presets_on_every_fold(tmp_path: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two members that read clips at different rates, on two folds; again it trains nothing."""
    (tmp_path / "both.toml").write_text('description = "two"\nmembers = ["small-cnn-baseline", "small-cnn-focal"]\n')
    for module in (measured, presets, crossval_verb):
        monkeypatch.setattr(module, "ensemble_files", lambda modality: {"both": tmp_path / "both.toml"})
    for module in (run_report, crossval):
        monkeypatch.setattr(module, "save_figures", lambda *_: [])
    monkeypatch.setattr(LocalLauncher, "run", here)
    corpus = table(tmp_path / "table", table_rows())
    own = [word for word in TINY if word not in ("--threads", "1", "--precision", "float32")]
    asked = [
        "crossval", "--preset", "both", "--dataset", "table", "--data-root", corpus, *own, "--epochs", "1",
        "--folds", "0,1", "--name", "g", "--workers", "1", "--threads", "1", "--precision", "float32",
    ]  # fmt: skip
    planned = done(*asked, "--dry-run", "--json").json
    assert planned["grid"] == "g"
    assert planned["seconds_left"] is None
    assert [(row["grid"], row["fold"], row["state"]) for row in planned["cells"]] == [
        (grid, fold, "missing") for grid in ("g.small-cnn-baseline", "g.small-cnn-focal") for fold in (0, 1)
    ]
    report = done(*asked, "--json").json
    grids = artifacts / "grids"
    assert {path.name for path in grids.iterdir()} == {"g", "g.small-cnn-baseline", "g.small-cnn-focal"}
    assert report == read_json(grids / "g" / "report.json")
    assert [row["grid"] for row in report["combined"]["grids"]] == ["g.small-cnn-baseline", "g.small-cnn-focal"]
    assert [row["fold"] for row in report["folds"]] == [0, 1]
    for row in report["combined"]["grids"]:
        assert row["macro_f1"] == pytest.approx(read_json(grids / row["grid"] / "report.json")["metrics"]["macro_f1"])
    monkeypatch.setattr(LocalLauncher, "run", lambda *_: pytest.fail("nothing is left to train"))
    assert done(*asked, "--json").json["metrics"] == report["metrics"]
    assert "--refit goes without --preset both" in refused(2, *asked, "--refit")
    # The same by name, and what does not go with it.
    names = "g.small-cnn-baseline,g.small-cnn-focal"
    combined = done("ensemble", "--grids", names, "--name", "h", "--json").json
    assert combined["metrics"] == report["metrics"]
    assert "against 'g.small-cnn" in done("ensemble", "--grids", names, "--name", "h", "--overwrite").out
    every = done("ensemble", "--grids", names, "--all-seeds", "--name", "all", "--json").json
    assert every["metrics"] == report["metrics"]
    alone = refused(5, "ensemble", "--grids", "g.small-cnn-focal", "--all-seeds", "--name", "alone")
    assert "'g.small-cnn-focal/seed0.fold0' is alone on its fold" in alone
    assert "--all-seeds acts only together with --grids" in refused(2, "ensemble", "one", "two", "--all-seeds")
    assert "--lr acts only together with --seeds" in refused(2, "ensemble", "--grids", names, "--lr", "0.1")
    assert "--data-root does nothing with --grids" in refused(2, "ensemble", "--grids", names, "--data-root", corpus)
    assert "name two or more RUNs" in refused(2, "ensemble", "--grids", names, "--seeds", "0,1")


@pytest.mark.slow
def test_train_makes_a_run_of_an_ensemble(tmp_path: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two members that trim clips differently; the test part stays closed; again nothing is trained."""
    for name, text in {"plain": "", "trimmed": "trim_db = 30.0\nfocal_loss = true\n"}.items():
        (tmp_path / f"{name}.toml").write_text(f'description = "{name}"\nmodel = "small-cnn"\n{text}')
    (tmp_path / "both.toml").write_text('description = "two"\nmembers = ["plain", "trimmed"]\n')
    files = {name: tmp_path / f"{name}.toml" for name in ("plain", "trimmed")}
    monkeypatch.setattr(presets, "preset_files", lambda modality: files)
    for module in (measured, presets, train_verb):
        monkeypatch.setattr(module, "ensemble_files", lambda modality: {"both": tmp_path / "both.toml"})
    monkeypatch.setattr(run_report, "save_figures", lambda *_: [])
    monkeypatch.setattr(LocalLauncher, "run", here)
    corpus = table(tmp_path / "table", table_rows())
    mine = tmp_path / "mine.toml"
    mine.write_text('preset = "both"\nepochs = 1\nfocal_gamma = 3.0\n')
    asked = ["train", "--config", mine, "--dataset", "table", "--data-root", corpus, *TINY, "--name", "g"]
    result = done(*asked, "--json")
    assert "plain trains without --focal-gamma: " in result.err
    run = artifacts / "runs" / "g"
    assert result.json == {
        "schema": 1, "run": "g", "folder": "artifacts/runs/g", "dataset": "table", "synthetic": False, "leaky": False,
        "val_macro_f1": result.json["val_macro_f1"], "preset": "both", "members": result.json["members"],
    }  # fmt: skip
    members = {row["name"]: row for row in result.json["members"]}
    for name in ("plain", "trimmed"):
        own = artifacts / "grids" / "g" / "runs" / name
        assert members[name]["val_macro_f1"] == pytest.approx(read_json(own / "report.val.json")["metrics"]["macro_f1"])
        assert (members[name]["macro_f1"], members[name]["weight"]) == (None, 0.5)
        assert not (own / "report.json").exists()
        assert Run(own).test_openings == 0
    assert Run(run).test_openings == 0
    report = done("evaluate", "g", "--json").json
    assert report["val_macro_f1"] == pytest.approx(result.json["val_macro_f1"])
    for name in ("plain", "trimmed"):
        assert Run(artifacts / "grids" / "g" / "runs" / name).test_openings == 1
    page = (run / "report.html").read_text()
    for row in report["ensemble"]["members"]:
        shown = "".join(f"<td>{row[figure]:.3f}</td>" for figure in ("weight", "val_macro_f1", "macro_f1"))
        assert f'<th scope="row">{row["name"]}</th>{shown}' in page
    clip = next(corpus.parent.rglob("*.wav"))
    found = done("predict", clip, "--run", "g", "--json").json["predictions"][0]
    assert sum(found["probabilities"].values()) == pytest.approx(1.0)
    done("export", "g")
    of_file = done("predict", clip, "--model", run / "exports" / "g.onnx", "--json").json["predictions"][0]
    assert of_file["probabilities"] == pytest.approx(found["probabilities"], abs=1e-4)
    line = refused(2, "export", "g", "--format", "torch-export")
    assert "--format torch-export: the members of this ensemble read differently" in line
    assert "a run named 'g' exists" in refused(5, *asked)
    monkeypatch.setattr(LocalLauncher, "run", lambda *_: pytest.fail("nothing is left to train"))
    shown = done(*asked, "--overwrite")
    assert shown.out == "g\n"
    assert "weight 0.50" in shown.err
    assert "next:   samo evaluate g" in shown.err


def test_a_preset_that_trains_otherwise_than_it_was_measured_shows_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = measured_presets("audio")
    assert {"fast", "small-cnn", "best", "accurate"} <= set(before)
    files = dict(preset_files("audio"))
    for name, line in {
        "mn04": "lr = 0.0123\n",
        "whisper-tuned": "lr = 0.0123\n",
        "ravdess-small-cnn": "",
        "small-cnn-bins": "epochs = 77\n",
    }.items():
        text = files[name].read_text()
        setting = line.partition(" ")[0]
        kept = [row for row in text.splitlines(keepends=True) if not (setting and row.startswith(f"{setting} "))]
        files[name] = tmp_path / f"{name}.toml"
        files[name].write_text("".join(kept) + line)
    for module in (measured, presets):
        monkeypatch.setattr(module, "preset_files", lambda modality: files)
    found = measured_presets("audio")
    # Itself and what it is a member of; the text of a file is no setting.
    gone = {name for name in before if name not in found}
    assert {"mn04", "whisper-tuned", "best", "small-cnn-bins"} <= gone
    assert {"ravdess-small-cnn", "whisper-frozen", "accurate"} <= set(found)
    assert gone.isdisjoint({based_on("audio", name) for name in found})
    assert better_line(run_of(tmp_path / "run", model="mn04")) == ""
    assert "measured" not in done("presets", "--json").json["presets"]["whisper-tuned"]


def test_a_setting_that_came_later_is_no_change_of_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what stands beside the run in its report."""
    digest = recipe_digest("audio", "mn04")
    plain, later = (resolve("audio", "mn04", None, given) for given in ({}, {"abstain_risk": 0.2}))
    assert plain.lasting().keys() | {"abstain_risk"} == later.lasting().keys() != plain.lasting().keys()
    monkeypatch.setattr(measured, "resolve", lambda *_: resolve("audio", "mn04", None, {"baseline": "none"}))
    assert recipe_digest("audio", "mn04") == digest
    monkeypatch.setattr(measured, "resolve", lambda *_: later)
    assert recipe_digest("audio", "mn04") != digest
