"""``samo runs``: listed in order, shown, deleted after asking; what is stopped at once leaves nothing behind."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from tone_corpora import TINY, done, read_json, refused, samo

from samo.runs.run import Run
from samo_cli.render import TrainingView


@pytest.fixture
def several(copied: Path) -> Path:
    """Runs ``first`` (evaluated), ``second`` (better on val, older, another corpus) and ``third`` (stopped), and a grid
    of one cell; returns the artifacts."""
    runs = copied.parent
    second = shutil.copytree(copied, runs / "second")
    (second / "report.json").unlink()
    rows = [{**json.loads(line), "val_macro_f1": 0.9} for line in (second / "history.jsonl").read_text().splitlines()]
    (second / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = read_json(copied / "report.json")
    report["metrics"]["macro_f1"] = 0.25
    (second / "report.emodb.json").write_text(json.dumps({**report, "split": "all", "dataset": "emodb"}))
    (second / "report.val.json").write_text(json.dumps({**report, "split": "val"}))
    third = shutil.copytree(copied, runs / "third")
    for name in ("report.json", "history.jsonl", "trained.json", "best_model.safetensors", "last.ckpt"):
        (third / name).unlink()
    cell = copied.parents[1] / "grids" / "g" / "runs" / "a.seed0"
    shutil.copytree(copied, cell)
    return copied.parents[1]


def names(*argv: object) -> list[str]:
    return [row["run"] for row in done("runs", *argv, "--json").json["runs"]]


def test_sort(several: Path) -> None:
    scores = {row["run"]: row["val_macro_f1"] for row in done("runs", "--json").json["runs"]}
    assert scores["first"] < scores["second"] == 0.9
    assert scores["third"] is None
    assert names("--sort", "val") == ["second", "first", "third"]
    assert names("--sort", "test")[0] == "first"
    assert names("--sort", "name") == ["first", "second", "third"]
    assert names("--sort", "epochs")[-1] == "third"
    assert "valid: date, name" in refused(2, "runs", "--sort", "size")


def test_grids(several: Path) -> None:
    assert names() == names("--sort", "date")
    assert set(names("--grids")) - set(names()) == {"g/a.seed0"}
    assert "g/a.seed0" in done("runs", "--grids").out


def test_other_corpora_stand_beside_the_scores(several: Path) -> None:
    rows = {row["run"]: row for row in done("runs", "--json").json["runs"]}
    assert rows["second"]["corpora"] == {"emodb": 0.25}
    assert rows["first"]["corpora"] == {}
    shown = done("runs").out
    assert "other corpora" in shown
    assert "emodb 0.250" in shown


def test_show(several: Path) -> None:
    facts = done("runs", "show", "second", "--json").json
    assert list(facts["reports"]) == ["val", "emodb"]
    assert facts["reports"]["emodb"]["page"].endswith("report.emodb.html")
    assert facts["settings"]["width"] == 4
    assert facts["command"].startswith("samo train --data-root")
    (several / "runs" / "second" / "figures" / "more.png").write_bytes(bytes(1000))
    assert done("runs", "show", "second", "--json").json["bytes"] == facts["bytes"] + 1000
    shown = done("runs", "show", "g/a.seed0").out
    report = read_json(several / "runs" / "first" / "report.json")
    assert f"{report['metrics']['macro_f1']:.3f}" in shown
    assert "use_specaug" in shown
    assert "no report yet: samo evaluate third" in done("runs", "show", "third").err
    # A cell is named as the command finds it, with the artifacts that were typed.
    cell = several / "grids" / "g" / "runs" / "a.seed0"
    (cell / "report.json").unlink()
    assert "no report yet: samo evaluate g/a.seed0\n" in done("runs", "show", "g/a.seed0").err
    assert f"samo evaluate g/a.seed0 --artifacts {several}" in " ".join(
        done("runs", "show", "g/a.seed0", "--artifacts", several).err.split()
    )
    assert "there is no run 'none'" in refused(5, "runs", "show", "none")
    assert done("runs", "--artifacts", several, "--json", "show", "first").json["run"] == "first"


def test_delete_asks(several: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = refused(2, "runs", "delete", "first", "third")
    assert "this deletes first, third" in line
    assert "--yes" in line
    for word, left in (("n\n", ["first", "second", "third"]), ("y\n", ["second"])):
        typed = io.StringIO(word)
        typed.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", typed)
        result = done("runs", "delete", "first", "third")
        assert "2 runs: first, third" in result.err
        assert sorted(path.name for path in (several / "runs").iterdir()) == left
    assert done("runs", "delete", "g/a.seed0", "--yes", "--json").json["deleted"] == ["a.seed0"]
    assert not list((several / "grids" / "g" / "runs").iterdir())
    # `latest` named the first run.
    assert done("predict", "--help").status == 0
    assert names() == ["second"]


def test_delete_what_has_no_model(several: Path) -> None:
    assert done("runs", "delete", "--without-model", "--yes", "--json").json["deleted"] == ["third"]
    assert done("runs", "delete", "--without-model", "--yes", "--json").json["deleted"] == []
    assert names("--sort", "name") == ["first", "second"]
    assert "name the RUNs to delete" in refused(2, "runs", "delete")
    assert "name the RUNs to delete" in refused(2, "runs", "delete", "first", "--without-model")


def test_deleting_what_was_to_replace_a_run_says_that_the_run_is_back(several: Path) -> None:
    runs = several / "runs"
    (runs / "first").rename(runs / ".third.replaced")
    result = done("runs", "delete", "--without-model", "--yes")
    assert "back in place, as what was to replace it had no model: third" in result.err
    assert Run(runs / "third").has_model


def test_a_run_that_is_written_is_not_deleted(several: Path) -> None:
    with Run(several / "runs" / "first").locked():
        assert "run 'first' is being written" in refused(5, "runs", "delete", "first", "--yes")
    assert "first" in names()


def test_trainings_stopped_at_once_do_not_pile_up(
    clips: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a made-up name nothing is left; a name that was given can be gone on with."""

    def on_step(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingView, "on_step", on_step)
    stopped = samo("train", "--data-root", clips, *TINY)
    assert stopped.stop == "stopped: after 0 of 2 epochs; no epoch was finished, so there is no model yet"
    assert not list((artifacts / "runs").iterdir())
    assert "--resume mine" in samo("train", "--data-root", clips, *TINY, "--name", "mine").stop
    assert [path.name for path in (artifacts / "runs").iterdir()] == ["mine"]
