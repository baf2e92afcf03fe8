"""Where the data lie when nobody says so, and fetching them."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from corpora import GOOD, listed, put

from samo.data.download import RemoteFile
from samo.errors import DataError, SettingsError
from samo_audio import datasets
from samo_audio.config import DataSettings
from samo_audio.datasets import download, downloaded_root, resolve_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder for a corpus."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache and no environment but the test's own."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SAMO_DATA_ROOT", raising=False)


def settings(**values: Any) -> DataSettings:
    return DataSettings(**values)


@pytest.fixture
def quick_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo corpus that costs nothing to make."""
    folder = tmp_path / "demo"
    put(folder, f"Actor_01/{GOOD[0]}.wav", f"Actor_01/{GOOD[1]}.wav")
    monkeypatch.setattr("samo_audio.datasets.demo.ensure", lambda cache_dir=None, on_progress=None: folder)
    return folder


# Where the data lies


def test_a_given_root_is_taken_as_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_DATA_ROOT", "/elsewhere")
    monkeypatch.chdir(root.parent)
    resolved, line = resolve_root(settings(dataset="folder", data_root="corpus", mode="sentiment"))
    assert (resolved.dataset, resolved.data_root, resolved.mode) == ("folder", str(root), "sentiment")
    assert line == ""


def test_a_missing_root_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"`data_root` points at .*none"):
        resolve_root(settings(data_root=str(root / "none")))
    monkeypatch.setenv("SAMO_DATA_ROOT", str(root / "none"))
    with pytest.raises(DataError, match=r"\$SAMO_DATA_ROOT points at"):
        resolve_root(settings())


def test_ravdess_comes_from_the_environment_then_the_download_then_the_demo(
    root: Path, quick_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved, line = resolve_root(settings())
    assert (resolved.dataset, resolved.data_root) == ("demo", str(quick_demo))
    assert "\n" not in line
    for words in ("demo corpus", "synthetic", "samo data download ravdess", "199 MB", "CC BY-NC-SA 4.0"):
        assert words in line
    downloaded_root("ravdess").mkdir(parents=True)
    resolved, line = resolve_root(settings())
    assert (resolved.dataset, resolved.data_root) == ("ravdess", str(downloaded_root("ravdess")))
    assert "downloaded" in line
    monkeypatch.setenv("SAMO_DATA_ROOT", str(root))
    resolved, line = resolve_root(settings())
    assert (resolved.dataset, resolved.data_root) == ("ravdess", str(root))
    assert "$SAMO_DATA_ROOT" in line


def test_demo_is_made_on_request(quick_demo: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_DATA_ROOT", str(root))
    resolved, line = resolve_root(settings(dataset="demo"))
    assert (resolved.dataset, resolved.data_root) == ("demo", str(quick_demo))
    assert "synthetic" in line


@pytest.mark.parametrize("name", ["table", "folder"])
def test_your_own_data_need_a_root(name: str) -> None:
    with pytest.raises(SettingsError, match=f"`dataset={name}` needs `data_root`"):
        resolve_root(settings(dataset=name))


def test_an_unknown_corpus_is_named_with_the_choices() -> None:
    for act in (lambda: resolve_root(settings(dataset="ravdes")), lambda: download("ravdes")):
        with pytest.raises(SettingsError, match="unknown dataset 'ravdes'") as caught:
            act()
        assert caught.value.hint == "did you mean 'ravdess'? valid: ravdess, demo, table, folder"


# Downloading a corpus


def test_download_unpacks_and_removes_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "source", f"Actor_01/{GOOD[0]}.wav")
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(tmp_path / "source" / f"Actor_01/{GOOD[0]}.wav", f"Actor_01/{GOOD[0]}.wav")
    raw = archive.read_bytes()
    remote = RemoteFile("set.zip", ("http://127.0.0.1:1/set.zip",), len(raw), sha256=hashlib.sha256(raw).hexdigest())
    monkeypatch.setattr("samo_audio.datasets.ravdess.DOWNLOADS", (remote,))
    # Placed by hand, as the message of an offline machine advises.
    placed = tmp_path / "cache" / "datasets" / "set.zip"
    placed.parent.mkdir(parents=True)
    placed.write_bytes(raw)
    stages: list[str] = []
    folder = download("ravdess", on_progress=lambda stage, done, total: stages.append(stage))
    assert folder == downloaded_root("ravdess")
    assert [item.id for item in listed("ravdess", folder).items] == [GOOD[0]]
    assert stages == ["unpacking"]
    assert not placed.exists()
    assert download("ravdess") == folder


@pytest.mark.parametrize("name", ["demo", "table", "folder"])
def test_nothing_to_download(name: str) -> None:
    with pytest.raises(SettingsError, match="nothing to download") as caught:
        datasets.download(name)
    assert "ravdess" in caught.value.hint
