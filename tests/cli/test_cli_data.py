"""``samo data``, ``presets``, ``runs`` and ``doctor``; which corpus is taken when none is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tone_corpora import EMOTIONS, TINY, done, folder, ravdess, refused, samo

from samo.errors import EnvironmentProblem
from samo.modalities import preset_files
from samo_audio.datasets import DATASETS
from samo_cli.render import out
from samo_text.datasets import DATASETS as TEXTS


def test_list(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = done("data", "list", "--json").json
    assert printed["schema"] == 2
    assert {name: list(rows) for name, rows in printed["datasets"].items()} == {
        "audio": list(DATASETS),
        "text": list(TEXTS),
    }
    assert printed["datasets"]["audio"]["ravdess"]["place"] == "samo data download ravdess"
    assert "CC BY-NC-SA" in printed["datasets"]["audio"]["ravdess"]["licence"]
    assert printed["datasets"]["text"]["goemotions"]["place"] == "samo data download goemotions"
    assert printed["datasets"]["text"]["demo"]["place"] == "built in"
    assert list(done("data", "list", "--modality", "text", "--json").json["datasets"]) == ["text"]
    assert "unknown modality 'video'" in refused(2, "data", "list", "--modality", "video")
    assert max(map(len, done("data", "list").out.splitlines())) > 80
    monkeypatch.setattr(out, "_width", 80)
    shown = done("data", "list").out
    assert all(name in shown for name in (*DATASETS, *TEXTS))
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.slow
def test_inspect_json_and_pictures(clips: Path, artifacts: Path, tmp_path: Path) -> None:
    printed = done("data", "inspect", "--data-root", clips, "--json").json
    assert (printed["schema"], printed["dataset"], printed["n"], printed["synthetic"]) == (1, "ravdess", 48, False)
    assert printed["by_class"] == dict.fromkeys(EMOTIONS, 6)
    assert printed["duplicates"] == []
    assert {Path(path).name for path in printed["pictures"]} == {
        "class_balance.png", "clips.png", "durations.png", "levels.png",
    }  # fmt: skip
    assert all(Path(path).is_file() for path in printed["pictures"])
    assert Path(printed["pictures"][0]).parent == artifacts.relative_to(Path.cwd()) / "inspect" / "ravdess"


def test_inspect_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samo_audio.inspection.draw", lambda *_: [])
    root = ravdess(tmp_path / "x", range(1, 4))
    shutil.copy(root / "Actor_01/03-01-01-01-02-01-01.wav", root / "Actor_02/03-01-05-01-01-01-02.wav")
    shown = done("data", "inspect", "--data-root", root, "--pictures", tmp_path / "p").out
    assert f"ravdess in {root}: 24 clips" in shown.splitlines()[0]
    header = next(line for line in shown.splitlines() if line.startswith("speaker"))
    assert header.split() == ["speaker", *EMOTIONS, "all"]
    assert "duration 0.50 / 0.50 / 0.50 s" in shown
    assert "! identical samples: 03-01-01-01-02-01-01 = 03-01-05-01-01-01-02, with different labels" in shown
    own = [line for line in shown.splitlines() if not line.startswith("!") and str(tmp_path) not in line]
    assert max(map(len, own)) <= 80


def test_what_cannot_be_decoded_is_named_and_the_rest_inspected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samo_audio.inspection.draw", lambda *_: [])
    root = folder(tmp_path / "x")
    bad = ["", ""]
    there = ["data", "inspect", "--dataset", "folder", "--data-root", root, "--json"]
    for number, clip in enumerate(sorted((root / "happy").iterdir())):
        if number in (0, 3):
            clip.write_bytes(clip.read_bytes()[:30])
            bad[number // 3] = clip.stem
    result = samo(*there)
    assert result.status == 3
    assert (result.json["n"], result.json["by_class"]) == (34, {"angry": 12, "happy": 10, "sad": 12})
    assert [Path(name).name for name in result.json["unreadable"]] == bad
    left = [line for line in result.err.splitlines() if line.startswith("· left out: ")]
    assert [name in line for name, line in zip(bad, left, strict=True)] == [True, True]
    for clip in root.rglob("*.wav"):
        clip.write_bytes(b"RIFF")
    assert "36 of 36 clips cannot be read" in refused(3, *there)


def test_inspect_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samo_audio.inspection.draw", lambda *_: [])
    root = folder(tmp_path / "f", speakers=3)
    there = ["data", "inspect", "--dataset", "folder", "--data-root", root]
    found = done(*there, "--json").json
    assert found["by_speaker"] == {"unknown": 18}
    assert any("without a known speaker" in line and "`speaker_pattern=" in line for line in found["warnings"])
    assert r"for example --speaker-pattern '^[^/]+/(spk\d+)' for" in done(*there).out
    crooked = tmp_path / "f" / ".." / "f"
    assert done("data", "inspect", "--dataset", "folder", "--data-root", crooked, "--json").json["root"] == str(root)
    printed = done(*there, "--speaker-pattern", "(spk[0-9])", "--json").json
    assert printed["by_speaker"] == {"spk0": 6, "spk1": 6, "spk2": 6}


def test_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fetched(name: str, *, on_progress: Any) -> Path:
        on_progress("downloading", 1, 2)
        return tmp_path / "[x]" / name

    monkeypatch.setattr("samo_audio.datasets.download", fetched)
    result = done("data", "download", "ravdess")
    assert result.out == f"{tmp_path}/[x]/ravdess\n"
    assert result.err.splitlines()[0] == "· downloading"
    assert "CC BY-NC-SA" in result.err
    assert done("data", "download", "ravdess", "--json").json["folder"] == f"{tmp_path}/[x]/ravdess"


def test_downloads_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "corpus 'demo' has nothing to download" in refused(2, "data", "download", "demo")
    assert "did you mean 'ravdess'?" in refused(2, "data", "download", "ravdes")
    assert "corpus 'demo' has nothing to download" in refused(2, "data", "download", "demo", "--modality", "text")
    line = refused(2, "data", "download", "ravdess", "--modality", "text")
    assert "--dataset ravdess is no dataset of --modality text (hint: it belongs to --modality audio)" in line
    line = refused(2, "data", "download", "nosuch")
    assert "unknown dataset 'nosuch' (hint: can be downloaded: ravdess, goemotions, wordnet)" in line
    assert "did you mean 'wordnet'?" in refused(2, "data", "download", "wordnt")

    def offline(*_: Any, **__: Any) -> None:
        raise EnvironmentProblem("no connection to zenodo.org", hint="point --data-root at a copy you have")

    monkeypatch.setattr("samo.data.download.download", offline)
    for name in ("ravdess", "goemotions"):
        assert "no connection to zenodo.org (hint: point --data-root" in refused(9, "data", "download", name)


def test_the_corpus_in_the_environment_is_named(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_DATA_ROOT", str(clips))
    result = done("train", *TINY, "--epochs", "1", "--name", "a")
    assert result.err.splitlines()[0] == f"· Data: RAVDESS in {clips} (from $SAMO_DATA_ROOT)."
    monkeypatch.setenv("SAMO_DATA_ROOT", "/nowhere")
    line = refused(3, "train", *TINY, "--name", "b")
    assert "$SAMO_DATA_ROOT points at /nowhere, which does not exist" in line


def test_a_download_is_named(clips: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path))
    shutil.copytree(clips, tmp_path / "datasets" / "ravdess")
    result = done("train", *TINY, "--epochs", "1", "--json")
    assert result.err.splitlines()[0] == f"· Data: the downloaded RAVDESS in {tmp_path}/datasets/ravdess."
    assert done("doctor", "--json").json["ravdess"] == f"{tmp_path}/datasets/ravdess"
    assert (
        done("data", "list", "--json").json["datasets"]["audio"]["ravdess"]["place"] == f"{tmp_path}/datasets/ravdess"
    )


def test_the_demo_corpus_is_the_last_resort_and_says_so(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("samo_audio.datasets.demo.ensure", lambda on_progress=None: clips)
    result = done("train", *TINY, "--epochs", "1", "--json")
    first = result.err.splitlines()[0]
    assert "the built-in demo corpus (synthetic voices), as no RAVDESS was found" in first
    assert "samo data download ravdess" in first
    assert "--data-root FOLDER" in first
    assert result.json["synthetic"] is True


def test_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = done("presets", "--json").json
    assert (printed["schema"], printed["modality"]) == (1, "audio")
    assert list(printed["presets"]) == [*preset_files("audio"), "best"]
    assert printed["presets"]["small-cnn-focal"]["settings"]["focal_gamma"] == 2.0
    monkeypatch.setattr(out, "_width", 80)
    shown = done("presets").out
    assert all(name in shown for name in preset_files("audio"))
    assert "--label-smoothing 0.1" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_runs(copied: Path, clips: Path, artifacts: Path) -> None:
    long = "second" + 90 * "x"
    done("train", "--data-root", clips, *TINY, "--epochs", "1", "--name", long)
    # A pipe gets the name in one piece.
    assert [line for line in done("runs").out.splitlines() if line.startswith(f"{long} ")]
    first, second = done("runs", "--json").json["runs"]
    assert list(first) == [
        "run",
        "dataset",
        "status",
        "epochs",
        "val_macro_f1",
        "test_macro_f1",
        "test_openings",
        "code",
        "corpora",
    ]
    assert first["code"] == []
    assert (first["run"], first["status"], first["epochs"]) == ("first", "evaluated", 4)
    assert (second["run"], second["status"], second["test_macro_f1"]) == (long, "trained", None)
    (copied / "config.json").write_text("{")
    listed = {row["run"]: row["status"] for row in done("runs", "--json").json["runs"]}
    assert listed == {"first": "damaged", long: "trained"}
    assert "damaged" in done("runs").out


MODELS = "samo-speech and samo-text answer without\n"


def test_no_runs() -> None:
    assert done("runs", "--json").json == {"schema": 1, "runs": []}
    result = done("runs")
    assert (result.out, result.err) == ("", "· no run in artifacts yet; train one: samo train; " + MODELS)


def test_doctor(monkeypatch: pytest.MonkeyPatch, artifacts: Path, cache: Path) -> None:
    monkeypatch.setenv("SAMO_DATA_ROOT", "/data/[ravdess]")
    seen = done("doctor", "--json").json
    assert seen["schema"] == 1
    assert {"samo", "python", "system", "cpu", "cores", "packages", "gpus", "runtime"} <= set(seen)
    assert set(seen["runtime"]) == {"device", "precision", "channels_last", "threads"}
    assert (seen["cache"]["folder"], seen["artifacts"]) == (str(cache), str(artifacts))
    assert seen["extras"]["train"] is True
    assert seen["released_models"] == ["samo-speech", "samo-text"]
    shown = done("doctor").out
    assert "extras              train, export, serve" in shown
    assert seen["ravdess"] == ""
    for word in ("torch 2.", "precision", "threads", "/data/[ravdess]", "not downloaded: samo data download ravdess"):
        assert word in shown
