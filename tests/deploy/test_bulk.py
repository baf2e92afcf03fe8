"""Bulk answers: every input once whatever is killed, the same files however the work is shared, nothing mixed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samo
from samo.deploy import bulk, bulk_ray, part_files, parts
from samo.deploy.bulk import bulk_predict
from samo.deploy.bulk_ray import PartActor
from samo.deploy.parts import PLAN_FILE, BulkPlan, listing_digest, open_folder, shard_of
from samo.errors import DataError, EnvironmentProblem, Interrupted, RunError, SettingsError
from samo.prediction import ModelPredictor

BEFORE = Path(__file__).resolve().parent.parent / "fixtures" / "trained_before"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small runs, one on speech and one on text; to read only."""
    root = tmp_path_factory.mktemp("bulk")
    shutil.copytree(BEFORE / "runs", root / "runs")
    return root


@pytest.fixture(autouse=True)
def working(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An empty working folder, to which the test run comes back."""
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def voice(runs: Path) -> ModelPredictor:
    return samo.load("speech", artifacts=runs, threads=1)


@pytest.fixture
def clips(tmp_path: Path) -> list[str]:
    """Thirteen links to two clips, and one file that is none."""
    folder = tmp_path / "clips"
    folder.mkdir()
    found = sorted((BEFORE / "clips").rglob("*.flac"))[:2]
    for number in range(13):
        (folder / f"{number:02d}.flac").symlink_to(found[number % 2])
    (folder / "05.flac").unlink()
    (folder / "05.flac").write_bytes(b"no sound")
    return [str(path) for path in sorted(folder.iterdir())]


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != PLAN_FILE}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for content in written(folder).values() for line in content.splitlines()]


def plan(**changed: Any) -> BulkPlan:
    return BulkPlan(
        **{"name": "m", "model": "a", "listing": "b", "items": 10, "part_items": 4, "format": "jsonl"} | changed
    )


def test_parts_cover_every_item_once_and_do_not_depend_on_the_shards() -> None:
    made = plan()
    assert [list(made.rows_of(part)) for part in range(made.n_parts)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [list(made.shard(k, 2)) for k in (1, 2)] == [[0, 2], [1]]
    assert [list(made.shard(k, 4)) for k in (1, 2, 3, 4)] == [[0], [1], [2], []]
    assert plan(items=8).n_parts == 2
    # The digest is that of the model, the listing and the form, not of the model's name.
    assert plan(name="other").file_of(2) == made.file_of(2) == f"part-00002-{made.digest}.jsonl"
    others = [
        {"computed": "x"},
        {"model": "x"},
        {"listing": "x"},
        {"items": 9},
        {"part_items": 5},
        {"format": "parquet"},
    ]
    assert len({plan(**other).digest for other in others} | {made.digest}) == 7
    assert plan(items=10_000_000, part_items=1).file_of(7).startswith("part-0000007-")


def test_listings_are_told_apart() -> None:
    assert listing_digest(["ab", "c"], are_paths=False) != listing_digest(["a", "bc"], are_paths=False)
    assert listing_digest(["a", "b"], are_paths=False) != listing_digest(["b", "a"], are_paths=False)
    assert listing_digest(["x.wav"], are_paths=True) == listing_digest([f"{os.getcwd()}/./x.wav"], are_paths=True)
    assert listing_digest(["x.wav"], are_paths=True) != listing_digest(["x.wav"], are_paths=False)
    assert listing_digest(["caf\udce9"], are_paths=False)


@pytest.mark.parametrize("given", ["0/2", "3/2", "2", "a/b", "1/", "/2", "-1/2", "1/2/3", "1 /2", "²/3"])
def test_shards_that_are_none(given: str) -> None:
    with pytest.raises(SettingsError, match="write I/N"):
        shard_of(given)


def test_every_item_is_a_row_in_its_place(voice: ModelPredictor, clips: list[str], tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    summary = bulk_predict(voice, clips, tmp_path / "out", part_items=4, on_part=lambda *n: heard.append(n))
    found = rows(tmp_path / "out")
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [row["item"] for row in found] == list(range(13))
    assert [row["path"] for row in found] == clips
    assert found[5]["message"].startswith(f"{clips[5]}: ")
    assert "label" not in found[5]
    for row, prediction in zip(found, voice.stream(clips), strict=True):
        if not prediction.error:
            assert row["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-6)
    assert [len(content.splitlines()) for content in written(tmp_path / "out").values()] == [4, 4, 4, 1]
    assert (summary.written, summary.skipped, summary.rows, summary.errors) == (4, 0, 13, 1)
    assert (summary.is_complete, summary.all_rows, summary.all_errors) == (True, 13, 1)
    assert str(summary) == (
        f"wrote 4 parts (13 rows, 1 error); {tmp_path}/out is complete: 13 rows, 1 error; "
        f"read them with cat {tmp_path}/out/part-*.jsonl > answers.jsonl"
    )


def test_shards_write_what_one_process_writes(voice: ModelPredictor, clips: list[str], tmp_path: Path) -> None:
    bulk_predict(voice, clips, tmp_path / "whole", part_items=3)
    last = bulk_predict(voice, clips, tmp_path / "shared", part_items=3, shard="2/2")
    assert (last.written, last.present, last.is_complete, last.all_rows) == (2, 2, False, None)
    assert str(last).endswith(f"2 of 5 parts are in {tmp_path}/shared, the other shards are not done")
    first = bulk_predict(voice, clips, tmp_path / "shared", part_items=3, shard="1/2")
    assert (first.written, first.rows, first.is_complete, first.all_rows, first.all_errors) == (3, 7, True, 13, 1)
    assert written(tmp_path / "shared") == written(tmp_path / "whole")


def test_a_restart_skips_what_is_there(voice: ModelPredictor, clips: list[str], tmp_path: Path) -> None:
    whole = bulk_predict(voice, clips, tmp_path / "out", part_items=4)
    one = tmp_path / "out" / whole.plan.file_of(2)
    one.unlink()
    before = {path.name: path.stat().st_mtime_ns for path in one.parent.iterdir()}
    again = bulk_predict(voice, clips, tmp_path / "out", part_items=4)
    assert (again.written, again.skipped, again.rows, again.all_rows, again.all_errors) == (1, 3, 4, 13, 1)
    assert "wrote 1 part (4 rows, 0 errors), 3 were there before; " in str(again)
    after = {path.name: path.stat().st_mtime_ns for path in one.parent.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {one.name}


def killed(work: Callable[[], object]) -> None:
    """Run in a fork that must end by SIGKILL."""
    if not (child := os.fork()):
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_killed_worker_loses_and_doubles_nothing(
    voice: ModelPredictor, clips: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    """At the first row, in the middle of a part, before its last row and before its renaming, again and again."""
    bulk_predict(voice, clips, tmp_path / "whole", part_items=4, format=format)

    def one_more(row: int) -> None:
        """Goes on until a row is asked for that stands so far behind the first."""
        writer = part_files._JsonLines if format == "jsonl" else part_files._ParquetRows
        whole, seen = writer.write, []

        def write(self: Any, place: int, prediction: Any) -> None:
            if len(seen) == row:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(place)
            whole(self, place, prediction)

        monkeypatch.setattr(writer, "write", write)
        bulk_predict(voice, clips, tmp_path / "out", part_items=4, format=format)

    def until_renamed(parts_before: int) -> None:
        whole, seen = Path.replace, []

        def replace(self: Path, target: Any) -> Path:
            if self.name.startswith(".part") and len(seen) == parts_before:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(target)
            return whole(self, target)

        monkeypatch.setattr(Path, "replace", replace)
        bulk_predict(voice, clips, tmp_path / "out", part_items=4, format=format)

    there = []
    for work in (lambda: one_more(0), lambda: one_more(6), lambda: one_more(3), lambda: until_renamed(1)):
        killed(work)
        there.append(len(list((tmp_path / "out").glob("part-*"))))
    assert there == [0, 1, 1, 2]
    monkeypatch.setattr(parts, "_YOUNG_S", -1.0)
    assert len(list((tmp_path / "out").glob(".part-*"))) == 4
    last = bulk_predict(voice, clips, tmp_path / "out", part_items=4, format=format)
    assert (last.skipped, last.written, last.all_rows) == (2, 2, 13)
    # What the killed ones left is gone too.
    assert written(tmp_path / "out") == written(tmp_path / "whole")


def test_halves_of_a_process_that_lives_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_folder(tmp_path / "out", plan())
    dead, alive, young = (tmp_path / "out" / f".part-0000{k}-x.jsonl.abc" for k in range(3))
    for path in (dead, alive, young):
        path.write_text("{")
    for path in (dead, alive):
        os.utime(path, (time.time() - 100,) * 2)
    with part_files._held(alive):
        open_folder(tmp_path / "out", plan())
    assert not dead.exists()
    assert alive.exists()
    assert young.exists()


def test_ctrl_c_keeps_whole_parts(
    voice: ModelPredictor, clips: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = part_files._JsonLines.write

    def stops(self: Any, place: int, prediction: Any) -> None:
        if place == 6:
            raise KeyboardInterrupt
        whole(self, place, prediction)

    monkeypatch.setattr(part_files._JsonLines, "write", stops)
    with pytest.raises(Interrupted, match="after 1 of 4 parts") as stopped:
        bulk_predict(voice, clips, tmp_path / "out", part_items=4)
    assert stopped.value.hint == "the same command again goes on"
    assert len(written(tmp_path / "out")) == 1


def test_another_model_or_listing_is_refused(
    runs: Path, voice: ModelPredictor, clips: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    bulk_predict(voice, clips, out, part_items=4)
    before = written(out)
    with pytest.raises(RunError, match="begun with another listing of inputs") as refused:
        bulk_predict(voice, clips[::-1], out, part_items=4)
    assert "(model 'speech', 13 inputs, 4 a part, jsonl, on " in refused.value.message
    with pytest.raises(RunError, match="another listing of inputs"):
        bulk_predict(voice, clips[:-1], out, part_items=4)
    with pytest.raises(RunError, match="parts of another size"):
        bulk_predict(voice, clips, out, part_items=5)
    with pytest.raises(RunError, match="another format"):
        bulk_predict(voice, clips, out, part_items=4, format="parquet")
    # A temperature fitted anew is another model, and so are other weights.
    for name in ("calibration.json", "best_model.safetensors"):
        copied = tmp_path / name / "speech"
        shutil.copytree(runs / "runs" / "speech", copied)
        (copied / name).write_bytes((copied / name).read_bytes() + b" ")
        with pytest.raises(RunError, match="another model"):
            bulk_predict(copied, clips, out, part_items=4)
    assert written(out) == before
    (out / PLAN_FILE).write_text('{"name": 3}')
    with pytest.raises(RunError, match="cannot read"):
        bulk_predict(voice, clips, out, part_items=4)


def test_another_precision_or_device_is_refused(runs: Path, clips: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    bulk_predict("speech", clips[:3], out, part_items=4, artifacts=runs, device="cpu", precision="float32", threads=1)
    with pytest.raises(RunError, match="begun with another device or precision") as refused:
        bulk_predict("speech", clips[:3], out, part_items=4, artifacts=runs, device="cpu", precision="bf16", threads=1)
    assert "4 a part, jsonl, on cpu, float32)" in refused.value.message
    assert refused.value.hint == "name that `device` and `precision`, or give another folder"
    # A model that is loaded is computed as it was loaded, whatever else is said.
    model = samo.load("speech", artifacts=runs, device="cpu", precision="bf16", threads=1)
    with pytest.raises(RunError, match="begun with another device or precision"):
        bulk_predict(model, clips[:3], out, part_items=4)
    assert len(written(out)) == 1
    # Which of several GPUs it was is no matter, what kind of device is.
    how = {"precision": "float32", "threads": 1}
    speech = runs / "runs" / "speech"
    made = [part_files.BulkModel.of(speech, device=device, **how).computed for device in ("cuda", "cuda:1", "cpu")]
    assert made == ["cuda, float32", "cuda, float32", "cpu, float32"]
    with pytest.raises(SettingsError, match="may be another on each machine"):
        bulk_predict("speech", clips, tmp_path / "ray", ray="auto", precision="auto", artifacts=runs)


@pytest.mark.parametrize("edit", ["assets/lexicon.txt", "config.json"])
def test_other_assets_or_settings_are_another_model(runs: Path, clips: list[str], tmp_path: Path, edit: str) -> None:
    copied, out = tmp_path / "speech", tmp_path / "out"
    shutil.copytree(runs / "runs" / "speech", copied)
    (copied / "fitted.safetensors").unlink()  # as of a version that did not keep what a run was begun with
    bulk_predict(copied, clips[:1], out, device="cpu", threads=1)
    if edit == "config.json":
        settings = json.loads((copied / edit).read_text())
        settings["data_root"] = "elsewhere"
        (copied / edit).write_text(json.dumps(settings))
        assert bulk_predict(copied, clips[:1], out, device="cpu", threads=1).skipped == 1
        settings["trim_db"] = 30.0
        (copied / edit).write_text(json.dumps(settings))
    else:
        (copied / edit).parent.mkdir()
        (copied / edit).write_text("glad")
    with pytest.raises(RunError, match="begun with another model"):
        bulk_predict(copied, clips[:1], out, device="cpu", threads=1)


def test_a_model_that_changes_on_the_way_is_refused(runs: Path, clips: list[str], tmp_path: Path) -> None:
    copied = tmp_path / "speech"
    shutil.copytree(runs / "runs" / "speech", copied)
    model = part_files.BulkModel.of(copied, device="cpu", precision="float32", threads=1)
    (copied / "calibration.json").write_text((copied / "calibration.json").read_text() + "\n")
    with pytest.raises(RunError, match="is not the one that this began with"):
        part_files.write_part(model, plan(items=2), 0, clips[:2], tmp_path)
    assert not list(tmp_path.glob("part-*"))


def test_the_first_of_two_that_begin_at_once_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.link

    def slower(source: Any, target: Any) -> None:
        if not Path(target).exists():
            monkeypatch.setattr(os, "link", whole)
            open_folder(tmp_path, plan(model="first"))
        whole(source, target)

    monkeypatch.setattr(os, "link", slower)
    with pytest.raises(RunError, match="another model"):
        open_folder(tmp_path, plan(model="second"))
    open_folder(tmp_path, plan(model="first"))
    assert [path.name for path in tmp_path.iterdir()] == [PLAN_FILE]


def test_a_damaged_part_is_named(voice: ModelPredictor, clips: list[str], tmp_path: Path) -> None:
    whole = bulk_predict(voice, clips, tmp_path / "out", part_items=4)
    part = tmp_path / "out" / whole.plan.file_of(1)
    lines = part.read_text().splitlines(keepends=True)
    for content in ("".join(lines[:3]), "".join([*lines[:3], lines[0]]), "{", "[1]\n", '{"a": 1}\n'):
        part.write_text(content)
        with pytest.raises(DataError, match=f"{part.name} is damaged: ") as refused:
            bulk_predict(voice, clips, tmp_path / "out", part_items=4)
        assert refused.value.hint == "remove it, the same command again writes it anew"
    part.unlink()
    assert bulk_predict(voice, clips, tmp_path / "out", part_items=4).all_rows == 13


@pytest.mark.parametrize(
    ("kind", "put"),
    [
        ("a pipe", os.mkfifo),
        ("a folder", os.mkdir),
        ("a link", lambda path: path.symlink_to("/dev/zero")),
        ("a link", lambda path: path.symlink_to("nowhere")),
    ],
)
def test_what_is_no_file_is_not_read(
    voice: ModelPredictor, clips: list[str], tmp_path: Path, kind: str, put: Callable[[Path], object]
) -> None:
    """A pipe would be waited for without end."""
    out = tmp_path / "out"
    whole = bulk_predict(voice, clips[:2], out, part_items=1)
    for name in (whole.plan.file_of(1), PLAN_FILE):
        content = (out / name).read_bytes()
        (out / name).unlink()
        put(out / name)
        with pytest.raises(DataError, match=f"{name} is {kind}, not a file") as refused:
            bulk_predict(voice, clips[:2], out, part_items=1)
        assert refused.value.hint == "remove it, or name a new folder"
        with pytest.raises(DataError, match=f"is {kind}, not a file"):
            part_files.counts_of(whole.plan, out, 1) if name != PLAN_FILE else open_folder(out, whole.plan)
        (out / name).rmdir() if kind == "a folder" else (out / name).unlink()
        (out / name).write_bytes(content)
    assert bulk_predict(voice, clips[:2], out, part_items=1).skipped == 2


def test_parquet_has_the_same_columns_in_every_part(runs: Path, clips: list[str], tmp_path: Path) -> None:
    table = pytest.importorskip("pyarrow.parquet")
    odd = os.fsdecode(b"caf\xe9.wav")
    summary = bulk_predict("speech", [*clips, odd], tmp_path / "a", part_items=1, format="parquet", artifacts=runs)
    paths = sorted((tmp_path / "a").glob("part-*.parquet"))
    schemas = {str(table.read_schema(path)) for path in paths}
    assert len(paths) == 14
    assert len(schemas) == 1
    found = [row for path in paths for row in table.read_table(path).to_pylist()]
    assert list(found[0]) == [
        "item", "path", "label", "labels", "angry", "happy", "sad", "abstained", "warnings", "error",
    ]  # fmt: skip
    assert [row["item"] for row in found] == list(range(14))
    assert (found[5]["label"], found[5]["angry"]) == (None, None)
    assert found[13]["path"] == "caf\\udce9.wav"
    assert (summary.errors, summary.all_errors) == (2, 2)
    assert sum(found[0][label] for label in ("angry", "happy", "sad")) == pytest.approx(1.0)
    again = bulk_predict("speech", [*clips, odd], tmp_path / "a", part_items=1, format="parquet", artifacts=runs)
    assert (again.skipped, again.all_rows, again.all_errors) == (14, 14, 2)


def test_texts_are_rows_too(runs: Path, tmp_path: Path) -> None:
    texts = ["so glad", "", "so glad", "caf\udce9", "line\nbreak\u2028"]
    bulk_predict("text", texts, tmp_path / "out", part_items=2, artifacts=runs, threads=1)
    found = [
        json.loads(line) for content in written(tmp_path / "out").values() for line in content.split(b"\n") if line
    ]
    assert [(row["item"], row["text"]) for row in found] == list(enumerate(texts))
    assert found[1]["warnings"] == ["empty"]
    assert found[0]["probabilities"] == pytest.approx(found[2]["probabilities"], abs=1e-6)


def test_what_is_refused_at_once(voice: ModelPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, how in (
        ("unknown format 'parkett'", {"format": "parkett"}),
        ("`ray` and `shard` exclude", {"ray": "auto", "shard": "1/2"}),
        ("at least 1", {"part_items": 0}),
    ):
        with pytest.raises(SettingsError, match=words):
            bulk_predict(voice, ["a.wav"], tmp_path / "out", **how)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="nothing to predict"):
        bulk_predict(voice, [], tmp_path / "out")
    monkeypatch.setattr(bulk, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match="needs pyarrow") as missing:
        bulk_predict(voice, ["a.wav"], tmp_path / "out", format="parquet")
    assert missing.value.hint == 'pip install "samo-emotion[bulk]"'
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file, answers go into a folder"):
        bulk_predict(voice, ["a.wav"], tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_part_whose_process_always_dies_is_given_up(runs: Path, clips: list[str], tmp_path: Path) -> None:
    """Ray itself would begin it again without end; halves that lay there before do not count."""
    model = part_files.BulkModel.of(runs / "runs" / "speech", device="cpu", precision="float32", threads=1)
    made = BulkPlan("speech", model.digest, "x", 4, 2, "jsonl")
    out = tmp_path / "out"
    open_folder(out, made)
    halves = [out / f".{made.file_of(1)}.{k}.jsonl" for k in range(5)]
    for path in halves:
        path.touch()
    batch = {"part": np.array([1]), "items": np.array([json.dumps(clips[2:4])])}
    lost = PartActor(model, made, str(out), str(tmp_path), frozenset({halves[0].name}))
    assert lost(batch) == {"part": [1], "rows": [0], "errors": [0], "failed": ["part 1: its process was lost 4 times"]}
    alive = PartActor(model, made, str(out), str(tmp_path), frozenset(path.name for path in halves[:2]))
    assert alive(batch) == {"part": [1], "rows": [2], "errors": [0], "failed": [""]}
    assert [json.loads(line)["path"] for line in (out / made.file_of(1)).read_text().splitlines()] == clips[2:4]
    unseen = PartActor(model, made, str(tmp_path / "elsewhere"), str(tmp_path), frozenset())
    assert (
        f"does not see {tmp_path}/elsewhere: `ray` needs folders that all machines share" in unseen(batch)["failed"][0]
    )


def test_what_goes_wrong_on_a_cluster_is_one_line(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbles(*_: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(bulk_ray, "write_part", stumbles)
    model = part_files.BulkModel.of(runs / "runs" / "speech", device="cpu", precision="float32", threads=1)
    actor = PartActor(model, plan(), str(tmp_path), str(tmp_path), frozenset())
    (failed,) = actor({"part": np.array([0]), "items": np.array(["[]"])})["failed"]
    assert failed == "part 0: unexpected ZeroDivisionError: by zero"
