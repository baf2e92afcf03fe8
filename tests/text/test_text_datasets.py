"""The registry of text corpora: what every module offers, where data lie when nobody says so, fetching them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from samo.data.download import RemoteFile
from samo.errors import DataError, SettingsError
from samo_text.config import DataSettings
from samo_text.datasets import DATASETS, download, downloaded_root, resolve_root
from samo_text.texts import clean, content_of, length_of


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache and no environment but the test's own."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SAMO_TEXT_DATA_ROOT", raising=False)


def settings(**values: Any) -> DataSettings:
    return DataSettings(**values)


@pytest.mark.parametrize("name", DATASETS)
def test_every_module_describes_itself(name: str) -> None:
    corpus = DATASETS[name]
    assert name == corpus.NAME
    assert corpus.TITLE
    assert corpus.LICENSE
    assert (name == "demo") == corpus.SYNTHETIC
    assert corpus.FOLDS == ()
    for file in corpus.DOWNLOADS:
        assert len(file.sha256) == 64
        assert file.size > 0
        assert all(url.startswith("https://") and url.endswith(file.name) for url in file.urls)


def test_listing_the_corpora_is_cheap() -> None:
    code = "import sys, samo_text.datasets as d; assert list(d.DATASETS); print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_given_root_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_TEXT_DATA_ROOT", "/elsewhere")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("x")
    resolved, line = resolve_root(settings(dataset="table", data_root="t.csv"))
    assert (resolved.dataset, resolved.data_root, line) == ("table", str(tmp_path / "t.csv"), "")


def test_goemotions_comes_from_the_environment_then_the_download_then_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved, line = resolve_root(settings(mode="ekman"))
    assert (resolved.dataset, resolved.data_root, resolved.mode) == ("demo", "", "ekman")
    assert "\n" not in line
    for words in ("demo corpus", "synthetic", "samo data download goemotions", "4 MB", "CC BY 4.0"):
        assert words in line
    # A run remembers the demo corpus, and finds it again.
    assert resolve_root(resolved)[0] == resolved
    downloaded_root("goemotions").mkdir(parents=True)
    resolved, line = resolve_root(settings())
    assert (resolved.dataset, resolved.data_root) == ("goemotions", str(downloaded_root("goemotions")))
    assert "downloaded" in line
    monkeypatch.setenv("SAMO_TEXT_DATA_ROOT", str(tmp_path))
    resolved, line = resolve_root(settings())
    assert (resolved.dataset, resolved.data_root) == ("goemotions", str(tmp_path))
    assert "$SAMO_TEXT_DATA_ROOT" in line


def test_refused_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="`dataset=table` needs `data_root`"):
        resolve_root(settings(dataset="table"))
    with pytest.raises(SettingsError, match="`dataset=demo` is built in and takes no `data_root`"):
        resolve_root(settings(dataset="demo", data_root=str(tmp_path)))
    with pytest.raises(SettingsError, match="unknown dataset 'goemotion'") as caught:
        resolve_root(settings(dataset="goemotion"))
    assert caught.value.hint == "did you mean 'goemotions'? valid: goemotions, demo, table"
    with pytest.raises(DataError, match=r"`data_root` points at .*none"):
        resolve_root(settings(data_root=str(tmp_path / "none")))
    monkeypatch.setenv("SAMO_TEXT_DATA_ROOT", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"\$SAMO_TEXT_DATA_ROOT points at"):
        resolve_root(settings())


def test_download_puts_the_files_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"train.tsv": b"a\t0\tx\n", "dev.tsv": b"b\t1\ty\n", "test.tsv": b"c\t2\tz\n"}
    files = tuple(
        RemoteFile(name, (f"http://127.0.0.1:1/{name}",), len(raw), sha256=hashlib.sha256(raw).hexdigest())
        for name, raw in content.items()
    )
    monkeypatch.setattr("samo_text.datasets.goemotions.DOWNLOADS", files)
    partial = tmp_path / "cache" / "datasets" / "goemotions.partial"
    partial.mkdir(parents=True)
    # Two of three came before the connection broke: the folder is not there, as the corpus is not whole.
    for name in ("train.tsv", "dev.tsv"):
        (partial / name).write_bytes(content[name])
    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        download("goemotions")
    assert not downloaded_root("goemotions").exists()
    (partial / "test.tsv").write_bytes(content["test.tsv"])
    folder = download("goemotions")
    assert folder == downloaded_root("goemotions")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    assert not partial.exists()
    assert [item.source for item in DATASETS["goemotions"].index(folder, settings()).items] == ["c", "a", "b"]
    assert download("goemotions") == folder


@pytest.mark.parametrize("name", ["demo", "table"])
def test_nothing_to_download(name: str) -> None:
    with pytest.raises(SettingsError, match="nothing to download") as caught:
        download(name)
    assert caught.value.hint == "can be downloaded: goemotions"


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        (" a\r\nb\rc\n", "a\nb\nc"),
        ("half \ud83d of it", "half \ufffd of it"),
        ("a\0b\x07\x1b", "a\ufffdb\ufffd\ufffd"),
        ("tab\there 😊 [NAME] é", "tab\there 😊 [NAME] é"),
        (" \n", ""),
    ],
)
def test_clean(given: str, cleaned: str) -> None:
    assert clean(given) == cleaned
    assert clean(cleaned) == cleaned


def test_content_and_length() -> None:
    assert content_of("abc") == hashlib.sha256(b"abc").hexdigest()
    assert [length_of("w " * n) for n in (1, 8, 9, 16, 17)] == ["short", "short", "medium", "medium", "long"]
