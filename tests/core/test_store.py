"""A store behind a URL: copies whole or not at all, a run that goes on elsewhere, nothing lost on the way."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from store_fixtures import FACTS, REPORT, Broken, brought, copied, epochs, files_at, written

from samo.errors import EnvironmentProblem, RunError, SamoError, SettingsError
from samo.launch.store import RunCopy, Store, fetch_run, snapshots, working_copy
from samo.runs.run import Run


def test_files(store: Store, tmp_path: Path) -> None:
    assert store.entries("") == []
    assert store.read("a") is None
    assert not store.fetch("a", tmp_path / "a")
    store.put(b"1", "a")
    (tmp_path / "local").write_bytes(b"22")
    store.put(tmp_path / "local", "deep/er/b")
    assert store.entries("") == ["a", "deep"]
    assert store.entries("deep/er") == ["b"]
    assert store.read("a") == b"1"
    assert store.below("deep").fetch("er/b", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"22"
    store.put(b"3", "deep/c")
    store.remove_others({"deep/c"})
    store.remove("deep/c")
    store.remove("deep/c")
    assert store.read("a") is None
    assert files_at(store) == []


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("somewhere", SettingsError, "is no URL of a folder"),
        ("s3://", SettingsError, "is no URL of a folder"),
        ("simplecache::s3://bucket", SettingsError, "is no URL of a folder"),
        ("s33://bucket", SettingsError, "unknown protocol 's33' .*did you mean 's3"),
        ("file://store", SettingsError, "relative; machines read it differently"),
        ("sftp://me:secret@host/x", SettingsError, "a password in the URL of sftp://host/x"),
        ("dropbox://place", EnvironmentProblem, "dropboxdrivefs"),
    ],
)
def test_places_that_are_none(url: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(SamoError) as caught:
        Store(url)
    assert type(caught.value) is kind
    line = f"{caught.value.message} {caught.value.hint}"
    assert re.search(said, line)
    assert "secret" not in line


def test_no_answer_is_not_an_empty_folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(b"1", "index/a")
    Broken(monkeypatch, store, "ls").now()
    with pytest.raises(EnvironmentProblem, match="does not answer, or refuses: OSError: the line is dead"):
        store.entries("index")


def test_listings_are_never_old(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As s3fs and gcsfs do: a listing is kept until it is said to be old."""
    kind = type(store._files)
    real, known = kind.ls, dict[str, Any]()

    def remembering(own: Any, path: str, **how: Any) -> Any:
        if path not in known:
            known[path] = real(own, path, **how)
        return known[path]

    monkeypatch.setattr(kind, "ls", remembering)
    monkeypatch.setattr(kind, "invalidate_cache", lambda own, path=None: known.clear())
    store.put(b"1", "index/a")
    assert store.entries("index") == ["a"]
    store.put(b"1", "index/b")
    assert store.entries("index") == ["a", "b"]


def test_a_writer_goes_on_while_its_copy_is_read(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copied(store, tmp_path / "writer", last_ckpt="1", history_jsonl=epochs(1))
    real, ahead = Store.fetch, [2]

    def fetch(own: Store, name: str, local: Path) -> bool:
        if ahead[0]:
            ahead[0] -= 1
            n = 3 - ahead[0]
            written(copy.run, last_ckpt=str(n), history_jsonl=epochs(n))
            copy.send()
        return real(own, name, local)

    monkeypatch.setattr(Store, "fetch", fetch)
    assert brought(store, tmp_path / "reader") == {"last.ckpt": "3", "history.jsonl": epochs(3)}


def test_no_file_leaves_the_folder(store: Store, tmp_path: Path) -> None:
    store.put(b"evil", "x/000001/evil")
    for name in ("../evil", "/evil", "deep/../../evil"):
        listing = {"files": {name: ["x/000001/evil", 4]}, "progress": [1, 1, 1], "facts": {}}
        store.put(json.dumps(listing).encode(), f"index/{len(name)}.json")
    with pytest.raises(EnvironmentProblem, match="no whole finished copy"):
        fetch_run(store, Run(tmp_path / "runs" / "cell"))
    assert not list((tmp_path / "runs").rglob("evil"))
    assert not (tmp_path / "evil").exists()


def test_the_patient_ask_again_over_a_new_connection(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(b"1", "a")
    cat = Broken(monkeypatch, store, "cat_file")
    cat.now(times=3)
    patient = Store(store.url, patient=True)
    first = patient._files
    assert patient.read("a") == b"1"
    assert patient._files is not first
    cat.now(times=4)
    with pytest.raises(EnvironmentProblem):
        patient.read("a")
    cat.now(times=1)
    with pytest.raises(EnvironmentProblem):
        store.read("a")
    cat.now(times=1)
    cat.error = PermissionError("no key")
    with pytest.raises(EnvironmentProblem, match="no key"):
        patient.read("a")


def test_a_run_goes_on_elsewhere(store: Store, tmp_path: Path) -> None:
    assert brought(store, tmp_path / "none") == {}
    copy = copied(store, tmp_path / "here", config_json="{}", last_ckpt="epoch 1", history_jsonl=epochs(1))
    (tmp_path / "here" / ".lock").write_text("1")
    (tmp_path / "here" / "figures").mkdir()
    (tmp_path / "here" / "figures" / "a.png").write_text("picture")
    written(copy.run, last_ckpt="epoch 2", history_jsonl=epochs(2))
    copy.run.path("config.json").rename(copy.run.path("other.json"))
    copy.send()
    assert brought(store, tmp_path / "there") == {
        "other.json": "{}", "last.ckpt": "epoch 2", "history.jsonl": epochs(2), "figures/a.png": "picture",
    }  # fmt: skip
    assert len(files_at(store)) == 4, "what only the copy before named is removed"
    assert len(store.entries("index")) == 1


def test_only_what_is_new_is_written(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copied(store, tmp_path / "here", config_json="{}", last_ckpt="1")
    sent: list[str] = []
    real = Store.put
    monkeypatch.setattr(
        Store, "put", lambda self, source, name: (sent.append(Path(name).name), real(self, source, name))
    )
    copy.send()
    written(copy.run, last_ckpt="2")
    copy.send()
    assert [name for name in sent if "json" not in name] == ["last.ckpt"]
    assert "config.json" not in sent


@pytest.mark.parametrize("after", range(1, 4))
def test_a_copy_that_breaks_off_leaves_the_one_before(
    after: int, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files, then the index: wherever it breaks off, what is read is one whole copy."""
    copy = copied(store, tmp_path / "here", last_ckpt="epoch 1", best_model="of 1", history_jsonl=epochs(1))
    before = brought(store, tmp_path / "before")
    written(copy.run, last_ckpt="epoch 2", best_model="of 2", history_jsonl=epochs(2))
    puts = Broken(monkeypatch, store, "put_file")
    pipes = Broken(monkeypatch, store, "pipe_file")
    puts.from_call, pipes.from_call = (after, 10**9) if after < 3 else (10**9, 1)
    with pytest.raises(EnvironmentProblem):
        copy.send()
    assert brought(store, tmp_path / "after") == before
    puts.from_call = pipes.from_call = 10**9
    copy.send()
    assert brought(store, tmp_path / "again")["last.ckpt"] == "epoch 2"


def test_half_an_index_and_half_a_file_are_not_taken(store: Store, tmp_path: Path) -> None:
    copied(store, tmp_path / "first", history_jsonl=epochs(1))
    copied(store, tmp_path / "second", history_jsonl=epochs(2))
    copied(store, tmp_path / "third", history_jsonl=epochs(3))
    third, second, first = snapshots(store)
    whole = store.read(f"index/{third.index}") or b""
    store._files.pipe_file(store._path(f"index/{third.index}"), whole[: len(whole) // 2])
    (place, _) = second.files["history.jsonl"]
    store._files.pipe_file(store._path(place), b"{")
    assert [snapshot.index for snapshot in snapshots(store)] == [second.index, first.index]
    assert brought(store, tmp_path / "here") == {"history.jsonl": epochs(1)}
    store.remove(first.files["history.jsonl"][0])
    assert brought(store, tmp_path / "nothing whole") == {}


def test_a_writer_that_comes_back_does_no_harm(store: Store, tmp_path: Path) -> None:
    """One is cut off at epoch 2; another goes on from there and ends; then the first wakes up and goes on too."""
    cut_off = copied(store, tmp_path / "a", last_ckpt="2", history_jsonl=epochs(2), best_model="2")
    heir = RunCopy(store, Run(tmp_path / "b"), REPORT, FACTS)
    heir.bring()
    heir.send()
    written(cut_off.run, last_ckpt="3", history_jsonl=epochs(3), best_model="3")
    cut_off.send()
    written(heir.run, last_ckpt="4", history_jsonl=epochs(4), trained_json="{}", report_json="of the heir")
    heir.send()
    written(cut_off.run, last_ckpt="5", history_jsonl=epochs(5))
    cut_off.send()
    fetch_run(store, Run(tmp_path / "home"))
    assert (tmp_path / "home" / "best.model").read_text() == "2"
    assert (tmp_path / "home" / "report.json").read_text() == "of the heir"
    # Everything else is removed; it wakes up once more and ends, on files that are gone.
    written(cut_off.run, trained_json="{}", report_json="of the other", history_jsonl=epochs(9))
    cut_off.send()
    fetch_run(store, Run(tmp_path / "home"))
    assert (tmp_path / "home" / "report.json").read_text() == "of the heir"


def test_a_run_is_borrowed_and_sent_back_however_it_ends(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), working_copy(store, "cell", REPORT, FACTS) as (run, send):  # noqa: PT012
        assert run.name == "cell"
        written(run, history_jsonl=epochs(1))
        send()
        written(run, history_jsonl=epochs(2))
        raise ZeroDivisionError
    assert not run.folder.exists()
    with working_copy(store, "cell", REPORT, FACTS) as (run, _):
        assert len(run.history) == 2
        written(run, history_jsonl=epochs(3))
    assert brought(store, tmp_path / "after") == {"history.jsonl": epochs(3)}
    assert snapshots(store)[0].facts == FACTS


def test_a_store_that_fails_costs_one_copy_and_at_the_end_none(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    puts = Broken(monkeypatch, store, "put_file")
    with pytest.raises(EnvironmentProblem) as caught, working_copy(store, "cell", REPORT, FACTS) as (run, send):  # noqa: PT012
        written(run, history_jsonl=epochs(1))
        send()
        puts.now(times=1)
        written(run, history_jsonl=epochs(2))
        send()
        assert snapshots(store)[0].progress == (0, 0, 1)
        assert "warning: not copied" in capsys.readouterr().err
        written(run, history_jsonl=epochs(3))
        send()
        assert snapshots(store)[0].progress == (0, 0, 3)
        puts.now()
        written(run, history_jsonl=epochs(4))
    kept = Path(re.search(r"the run was kept in (\S+)", caught.value.message)[1])  # type: ignore[index]
    assert len(Run(kept).history) == 4
    with pytest.raises(ZeroDivisionError), working_copy(store, "cell", REPORT, FACTS) as (run, _):  # noqa: PT012
        written(run, history_jsonl=epochs(5))
        raise ZeroDivisionError  # stays what it is though the store is silent
    kept = Path(re.search(r"the run was kept in (\S+)", capsys.readouterr().err)[1])  # type: ignore[index]
    assert len(Run(kept).history) == 5


def test_home_in_one_step(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = written(Run(tmp_path / "runs" / "cell"), config_json="old", last_ckpt="old")
    with pytest.raises(EnvironmentProblem, match="holds no whole finished copy") as caught:
        fetch_run(store, home)
    assert "same place on all machines" in caught.value.hint
    copied(store, tmp_path / "far", config_json="{}", history_jsonl=epochs(7))
    with pytest.raises(EnvironmentProblem):
        fetch_run(store, home)
    copied(store, tmp_path / "end", config_json="{}", trained_json="{}", report_json="{}")
    gets = Broken(monkeypatch, store, "get_file")
    gets.from_call = 2
    with pytest.raises(EnvironmentProblem):
        fetch_run(store, home)
    gets.from_call = 10**9
    with home.locked(), pytest.raises(RunError, match="is being written by process"):
        fetch_run(store, home)
    assert sorted(path.name for path in (tmp_path / "runs").rglob("*")) == [".lock", "cell", "config.json", "last.ckpt"]
    (tmp_path / "runs" / ".cell.12345678.home").mkdir()
    fetch_run(store, home)
    assert sorted(path.name for path in home.folder.iterdir()) == ["config.json", "report.json", "trained.json"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["cell"]
    assert len(files_at(store)) == 3
    fetch_run(store, Run(tmp_path / "laptop" / "cell"))
