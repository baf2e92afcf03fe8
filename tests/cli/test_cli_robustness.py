"""``samo robustness``, and a training with augmentation before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sentence_table import MULTI, TINY_TEXT, write_table
from tone_corpora import Result, done, read_json, refused, samo

AUGMENT = ["--augment", "word-order,punctuation", "--augment-target", "80", "--augment-max-per-text", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Result]:
    """The artifacts of one augmented training and its evaluation, run ``words``, and what training said."""
    root = tmp_path_factory.mktemp("augmented")
    table = write_table(root / "texts.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(cache))
        result = done(
            "train", *MULTI, "--data-root", table, *TINY_TEXT, *AUGMENT, "--name", "words", "--artifacts", root
        )
        done("evaluate", "--artifacts", root, "--threads", "1")
    return root, result


@pytest.mark.slow
def test_training_says_what_was_made_and_keeps_it(made: tuple[Path, Result]) -> None:
    root, result = made
    facts = read_json(root / "runs" / "words" / "augmentation.json")
    lines = [json.loads(line) for line in (root / "runs" / "words" / "augmented.jsonl").read_text().splitlines()]
    assert len(lines) == facts["made"] > 0
    (counts,) = facts["counts"].values()
    assert all(n["after"] >= 80 > n["before"] for n in counts.values())
    assert f"augmentation to bring classes to 80 rows: {facts['made']} training texts made" in result.err
    for label, n in counts.items():
        assert f"{label} {n['before']} → {n['after']}" in result.err
    manifest = [json.loads(line) for line in (root / "runs" / "words" / "manifest.jsonl").read_text().splitlines()[1:]]
    texts = {item["source"] for item in manifest}
    assert len(manifest) == 240
    assert not texts & {line["text"] for line in lines}
    train = {item["id"] for item in manifest if item["split"] == "train"}
    assert {line["parent"] for line in lines} <= train


@pytest.mark.usefixtures("drawn_pictures")
def test_the_texts_as_they_are_score_as_in_the_report(made: tuple[Path, Result]) -> None:
    root, _ = made
    report = read_json(root / "runs" / "words" / "report.json")
    printed = done("robustness", "words", "--artifacts", root, "--threads", "1", "--json").json
    (task,) = printed["tasks"].values()
    assert task["macro_f1"] == pytest.approx(report["metrics"]["macro_f1"], abs=1e-12)
    assert printed["n"] == report["n"] == 40
    assert printed == read_json(root / "runs" / "words" / "robustness.json")
    for name in ("robustness.html", "robustness.png"):
        assert (root / "runs" / "words" / name).stat().st_size > 1000
    # Words are lower-cased and hashed: capitals change nothing, letters do.
    by_name = {row["name"]: row for row in task["rewrites"]}
    assert by_name["upper case"]["answers_changed"] == 0.0
    assert by_name["first 5 words"]["answers_changed"] > 0.0
    assert by_name["negation added"]["macro_f1"] is None


def test_flags_act(made: tuple[Path, Result]) -> None:
    root, _ = made

    def typos(*flags: str) -> list[list[str]]:
        result = done(
            "robustness", "words", "--artifacts", root, "--threads", "1", "--rewrites", "typos", "--json", *flags
        )
        assert [row["kind"] for row in result.json["rewrites"]] == ["typos"]
        examples: list[list[str]] = result.json["rewrites"][0]["examples"]
        return examples

    plain = typos()
    assert typos("--seed", "1") != plain
    assert typos("--strength", "1") != plain
    on_val = typos("--on", "val")
    assert {old for old, _ in on_val}.isdisjoint(old for old, _ in plain)
    assert (root / "runs" / "words" / "robustness.val.json").is_file()


def test_the_table_fits_eighty_columns(made: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    from samo_cli.render import out

    monkeypatch.setattr(out, "_width", 80)
    root, _ = made
    printed = done("robustness", "words", "--artifacts", root, "--threads", "1").out.splitlines()
    rows = {name: line for line in printed for name in ("first 5 words", "negation added") if line.startswith(name)}
    assert rows["first 5 words"].rstrip().endswith(("worse", "cannot tell"))
    assert rows["negation added"].split()[3] == "-"
    assert all(len(line) <= 80 for line in printed if line.startswith(("rewriting", "typing errors", "as they are")))
    assert any("by length, as they are" in line for line in printed)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rewrites", "typoz"], "did you mean 'typos'?"),
        (["--on", "train"], "valid: test, val"),
        (["--strength", "0"], "above 0 and at most 1"),
    ],
)
def test_refused(made: tuple[Path, Result], flags: list[str], words: str) -> None:
    assert words in refused(2, "robustness", "words", "--artifacts", made[0], "--threads", "1", *flags)


def test_a_run_on_speech_is_refused(artifacts: Path) -> None:
    folder = artifacts / "runs" / "clips"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"modality": "audio"}')
    (folder / "best_model.safetensors").write_bytes(b"")
    line = refused(2, "robustness", "clips", "--artifacts", artifacts)
    assert "run 'clips' was trained on audio" in line


def test_augmentation_that_cannot_be_is_refused_before_anything_is_read(artifacts: Path) -> None:
    line = refused(2, "train", "--modality", "text", "--augment", "synonims")
    assert "valid: synonyms, word-order, punctuation, back-translation, masked-lm" in line
    assert "--augment-target acts only together with --augment" in refused(
        2, "train", "--modality", "text", "--augment-target", "5"
    )
    assert not artifacts.exists()


def test_wordnet_is_asked_for_in_one_line(
    made: tuple[Path, Result], artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path))
    line = refused(
        9, "train", *MULTI, "--data-root", made[0] / "texts.csv", *TINY_TEXT, "--augment", "synonyms", "--name", "x"
    )
    assert "samo data download wordnet" in line
    assert not (artifacts / "runs" / "x").exists()


def test_wordnet_is_downloaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from samo_text.rewriting import synonyms

    monkeypatch.setattr(synonyms, "download_wordnet", lambda: tmp_path / "wordnet")
    assert samo("data", "download", "wordnet").out.strip() == str(tmp_path / "wordnet")
    facts = done("data", "download", "wordnet", "--json").json
    assert (facts["dataset"], facts["folder"]) == ("wordnet", str(tmp_path / "wordnet"))
    assert "Fellbaum" in facts["citation"]
