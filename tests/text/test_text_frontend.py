"""The text frontend: which batches it makes, what it opens again, what a run keeps of it, and its baseline."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_text as tiny
import torch

from samo import plugins
from samo.data.batch import Batch, Draws
from samo.data.manifest import Item
from samo.data.splits import make_split
from samo.encoders.logreg import inner_folds
from samo.errors import SettingsError
from samo.runs.artifacts import create_run
from samo.runs.evaluate import evaluate_run
from samo.runs.training_plan import make_plan
from samo.training.runtime import Runtime
from samo.training.setup import Setup
from samo.training.trainer import predict_logits
from samo_text import baseline, frontend
from samo_text.batches import collate
from samo_text.config import TextConfig
from samo_text.frontend import TextFrontend

RUNTIME = Runtime(torch.device("cpu"), "float32", channels_last=False, threads=1)
FEELINGS = {"joy": ("happy", "glad", "love"), "anger": ("angry", "hate")}
FILLER = ("i", "you", "he", "she", "we", "this", "that", "is", "was", "so")


def rows(n: int = 48) -> list[tuple[str, str, str, str]]:
    """Text of 4 to 11 words, label, split and author, all told by the row's number."""
    made = []
    for k in range(n):
        label = ("joy", "anger")[k % 2]
        words = [FILLER[(k * 7 + place) % 10] for place in range(3 + k % 8)]
        words.insert(k % 3, FEELINGS[label][k % len(FEELINGS[label])])
        words.append(f"w{k}")
        made.append((" ".join(words), label, ("test", "val", "train", "train")[k // 2 % 4], f"author{k // 4}"))
    return made


def write(path: Path, columns: tuple[str, ...] = ("text", "label", "split", "author"), n: int = 48) -> Path:
    """The rows as CSV, of those columns alone."""
    names = ("text", "label", "split", "author")
    lines = [",".join(row[names.index(column)] for column in columns) for row in rows(n)]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path_factory.getbasetemp() / "frontend-cache"
    monkeypatch.setenv("SAMO_CACHE", str(root))
    return root


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("table") / "texts.csv")


def config(table: Path, **values: Any) -> TextConfig:
    return tiny.config(dataset="table", data_root=str(table), **values)


def opened(table: Path, notes: list[str] | None = None, **values: Any) -> TextFrontend:
    return TextFrontend.open(config(table, **values), [].append if notes is None else notes.append)


@pytest.fixture(scope="module")
def front(table: Path, tmp_path_factory: pytest.TempPathFactory) -> TextFrontend:
    """48 texts of 5 to 12 words; to read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMO_CACHE", str(tmp_path_factory.mktemp("cache")))
        return opened(table)


def a_batch(front: TextFrontend, chosen: np.ndarray) -> Batch:
    return front.train_batch(chosen, Draws(0, 0, chosen))


# Batches


def test_collate_by_hand() -> None:
    targets = np.array([[1, 0], [0, 1]], dtype=np.float32)
    ids = [np.array([5, 6, 7]), np.array([8])]
    batch = collate(ids, targets, np.array([4, 9]), pad_id=3)
    assert batch.inputs.tolist() == [[5, 6, 7], [8, 3, 3]]
    assert batch.inputs.dtype == torch.int64
    assert batch.lengths.tolist() == [3, 1]
    assert batch.targets.tolist() == targets.tolist()
    assert batch.rows.tolist() == [4, 9]
    assert collate(ids, targets, np.array([4, 9]), 3, width=5).inputs.tolist() == [[5, 6, 7, 3, 3], [8, 3, 3, 3, 3]]
    assert collate(ids, targets, np.array([4, 9]), 3, width=2).inputs.shape == (2, 3)
    states = [np.ones((2, 4), dtype=np.float32), np.full((1, 4), 2.0, dtype=np.float32)]
    batch = collate(states, targets, np.array([4, 9]), pad_id=3)
    assert batch.inputs[1].tolist() == [[2.0] * 4, [0.0] * 4]
    assert batch.inputs.dtype == torch.float32


@pytest.mark.parametrize("family", ["roberta", "words"])
def test_batches_are_padded_to_their_longest_with_the_tokenizers_own_padding(
    family: str, table: Path, encoders: dict[str, str]
) -> None:
    """RoBERTa pads with 1, hashed words with 0; with the flag off every batch is as wide as the longest text may be."""
    model = {"encoder": encoders[family]} if family in encoders else {}
    front = opened(table, **model)
    pad = {"roberta": 1, "words": 0}[family]
    assert front.tokens.pad_id == pad
    chosen = np.array([0, 7, 3])
    batch = a_batch(front, chosen)
    longest = max(len(front.lists.row(row)) for row in chosen)
    assert batch.inputs.shape == (3, longest)
    for place, row in enumerate(chosen):
        n = len(front.lists.row(row))
        assert batch.inputs[place, :n].tolist() == front.lists.row(row).tolist()
        assert batch.inputs[place, n:].tolist() == [pad] * (longest - n)
        assert batch.lengths[place] == n
    assert np.array_equal(batch.targets.numpy(), front.manifest.targets[chosen])
    wide = a_batch(front.with_config(config(table, length_sorted=False, **model)), chosen)
    assert wide.inputs.shape == (3, 24)
    assert torch.equal(wide.inputs[:, :longest], batch.inputs)
    assert (wide.inputs[:, longest:] == pad).all()
    assert torch.equal(wide.lengths, batch.lengths)


def test_every_row_is_judged_once_and_in_order(front: TextFrontend) -> None:
    chosen = np.array([9, 2, 30, 4, 47, 11, 0])
    batches = list(front.eval_batches(chosen, 3))
    assert [len(batch.rows) for batch in batches] == [3, 3, 1]
    assert np.concatenate([batch.rows for batch in batches]).tolist() == chosen.tolist()
    for batch in batches:
        assert batch.inputs.shape[1] == batch.lengths.max()
        assert batch.draws is None


def test_sizes_are_tokens_or_nothing(front: TextFrontend, table: Path) -> None:
    sizes = front.sizes(np.array([0, 7, 3]))
    assert sizes is not None
    assert sizes.tolist() == [len(rows()[row][0].split()) for row in (0, 7, 3)]
    assert front.with_config(config(table, length_sorted=False)).sizes(np.arange(4)) is None


def test_texts_are_cut_at_the_longest_length(table: Path, encoders: dict[str, str]) -> None:
    for model in ({}, {"encoder": encoders["bert"]}):
        front = opened(table, max_tokens=6, **model)
        assert max(front.lists.lengths) == 6
        assert front.manifest.items[7].source == rows()[7][0]


# Opening


def test_what_is_read_again_under_other_settings(front: TextFrontend, table: Path, tmp_path: Path) -> None:
    for values in ({"lr": 0.1}, {"split": "stratified"}, {"seed": 4}, {"drop_leaked": True}, {"dropout": 0.3}):
        same = front.with_config(config(table, **values))
        assert same.manifest is front.manifest
        assert same.lists is front.lists
        assert same.config.flat() == config(table, **values).flat()
    shorter = front.with_config(config(table, max_tokens=5))
    assert shorter.lists.lengths.max() == 5
    other = front.with_config(config(write(tmp_path / "few.csv", n=24)))
    assert len(other.manifest.items) == 24
    columns = front.with_config(config(table, label_columns="author"))
    assert len(columns.manifest.label_space.primary.labels) == 12
    with pytest.raises(SettingsError, match="unknown model 'cnn'"):
        front.with_config(config(table, model="cnn", filters=128, embedding_width=128, hash_buckets=32768))


def test_another_encoder_has_other_tokens(
    table: Path, encoders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is kept by its full path, so that a run may be judged from elsewhere."""
    bert = opened(table, encoder=encoders["bert"])
    roberta = bert.with_config(config(table, encoder=encoders["roberta"]))
    assert bert.lists.row(0).tolist() != roberta.lists.row(0).tolist()
    monkeypatch.chdir(Path(encoders["bert"]).parent)
    assert opened(table, encoder="bert").config.flat()["encoder"] == encoders["bert"]


def test_batch_settings_tell_which_models_share_batches(table: Path) -> None:
    def batch_settings(**values: Any) -> dict[str, Any]:
        return TextFrontend.batch_settings(config(table, **values))

    assert (
        batch_settings()
        == batch_settings(model="bigru")
        == batch_settings(lr=0.1)
        == {"tokens": "words", "max_tokens": 24}
    )
    assert batch_settings(max_tokens=9) != batch_settings()
    assert batch_settings(encoder="a") != batch_settings(encoder="b") != batch_settings()
    assert batch_settings(encoder="a") == batch_settings(encoder="a", freeze_encoder=True)


@pytest.mark.parametrize(
    ("columns", "values", "rule"),
    [
        (("text", "label", "split", "author"), {}, "table"),
        (("text", "label", "split", "author"), {"group_column": "author"}, "table"),
        (("text", "label", "author"), {}, "stratified"),
        (("text", "label", "author"), {"group_column": "author"}, "group"),
        (("text", "label", "split", "author"), {"split": "stratified"}, "stratified"),
        (("text", "label", "split", "author"), {"split": "folds", "fold": 2}, "folds"),
        (("text", "label", "author"), {"split": "group", "group_column": "author"}, "group"),
    ],
)
def test_the_rule_of_the_split(columns: tuple[str, ...], values: dict[str, Any], rule: str, tmp_path: Path) -> None:
    front = opened(write(tmp_path / "texts.csv", columns), **values)
    request = front.split_request()
    assert request.rule == rule
    if values.get("group_column"):
        assert front.unit == "group"
        assert {item.group for item in front.manifest.items} == {f"author{k}" for k in range(12)}
    else:
        assert front.unit == "row"
    if rule == "table":
        return
    split = make_split(front.manifest, request)
    groups = [
        {front.manifest.items[row].group for row in front.manifest.rows(split.part(part))} for part in ("train", "test")
    ]
    assert (rule != "group") or not groups[0] & groups[1]


def test_the_rest_of_the_split_request(table: Path) -> None:
    front = opened(
        table, split="folds", fold=2, train_ratio=0.6, val_ratio=0.3, limit_fraction=0.5, drop_leaked=True, seed=7
    )
    request = front.split_request()
    assert (request.train_ratio, request.val_ratio, request.fold) == (0.6, 0.3, 2)
    assert (request.seed, request.limit_fraction, request.drop_leaked) == (7, 0.5, True)
    assert opened(table, split_seed=3, seed=7).split_request().seed == 3
    assert opened(table, split_seed=0, seed=7).split_request().seed == 0


def test_notes_of_the_corpus_are_told(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("text,label\nso happy,joy\nso \x07 angry,anger\nno label,\nhappy again,joy\n")
    notes: list[str] = []
    opened(path, notes)
    assert len(notes) == 2
    assert "1 text holds lone surrogates or control characters" in notes[0]
    assert notes[1] == "1 row without any label was left out"


def test_what_a_card_says_of_the_data(front: TextFrontend) -> None:
    assert front.data_card()["licence"] == "that of your texts"
    assert (front.modality, front.item, front.preparing) == ("text", "text", "tokenising")


# What a run keeps


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_run_predicts_without_the_encoders_folder(
    family: str, table: Path, encoders: dict[str, str], tmp_path: Path
) -> None:
    gone = shutil.copytree(encoders[family], tmp_path / "encoder")
    front = opened(table, encoder=str(gone), pooling="cls+attention")
    torch.manual_seed(0)
    model = front.new_model().eval()
    assets = tmp_path / "assets"
    front.save_assets(assets)
    shutil.rmtree(gone)
    again = TextFrontend.build_model(front.config, front.manifest.label_space, assets).eval()
    again.load_state_dict(model.state_dict())
    reopened = TextFrontend.open(front.config, [].append, None, assets)
    assert [reopened.lists.row(k).tolist() for k in range(48)] == [front.lists.row(k).tolist() for k in range(48)]
    chosen = np.arange(48)
    before, after = (predict_logits(m, Setup(f, RUNTIME), chosen) for m, f in ((model, front), (again, reopened)))
    assert np.array_equal(before, after)
    assert not (assets / "model.safetensors").exists()


def test_words_need_no_assets(front: TextFrontend, tmp_path: Path) -> None:
    front.save_assets(tmp_path / "assets")
    assert not (tmp_path / "assets").exists()


# The baseline


class Silent:
    """An observer that looks away."""

    def on_step(self, *_: object) -> None:
        """Nothing."""

    def on_epoch(self, *_: object) -> None:
        """Nothing."""


def test_the_baseline_is_a_tfidf_run_and_is_fitted_once(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    fits: list[int] = []
    real = baseline.fit_tfidf

    def counted(*given: Any) -> Any:
        fits.append(len(given[0]))
        return real(*given)

    monkeypatch.setattr(baseline, "fit_tfidf", counted)
    front = opened(table, max_tokens=128)
    plan = make_plan(front, make_split(front.manifest, front.split_request()))
    test = front.manifest.rows(make_split(front.manifest, front.split_request()).test)
    found = front.baseline(plan.train_rows, test)
    assert found is not None
    name, logits = found
    assert (name, logits.shape) == ("tfidf", (12, 2))
    assert fits == [24]
    # The order of the training rows and other settings of the run make no other baseline; other rows do.
    twice = front.with_config(config(table, max_tokens=128, lr=0.5)).baseline(plan.train_rows[::-1].copy(), test)
    assert twice is not None
    assert np.array_equal(twice[1], logits)
    assert fits == [24]
    front.baseline(plan.train_rows[:20], test)
    assert fits == [24, 20]
    # A run of the same model under its default settings answers with the same logits, and has no baseline itself.
    own = opened(table, model="tfidf", max_tokens=128)
    assert own.baseline(plan.train_rows, test) is None
    model = own.new_model()
    model.load_state_dict(own.fit(plan.train_rows), strict=False)
    np.testing.assert_allclose(predict_logits(model.eval(), Setup(own, RUNTIME), test), logits, atol=1e-6)
    for path in (tmp_path / "cache" / "baselines").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    again = front.baseline(plan.train_rows, test)
    assert again is not None
    assert np.array_equal(again[1], logits)
    assert fits == [24, 20, 24]


def test_answers_out_of_fold_know_neither_the_text_nor_its_author(table: Path) -> None:
    own = opened(table, model="tfidf", max_tokens=128, group_column="author", split="group")
    rows = np.arange(48)
    found = own.out_of_fold(rows)
    assert found is not None
    assert found.shape == (48, 2)
    seen = own.new_model()
    seen.load_state_dict(own.fit(rows), strict=False)
    assert not np.allclose(found, predict_logits(seen.eval(), Setup(own, RUNTIME), rows), atol=0.01)
    # By hand: who is held out with the first text, and a model of the others.
    groups = np.array([item.group for item in own.manifest.items])
    [(learn, held_out)] = [
        (learn, held_out) for learn, held_out in inner_folds(own.manifest.targets > 0.5, groups, 0) if 0 in held_out
    ]
    assert not set(groups[learn]) & set(groups[held_out])
    other = own.new_model()
    other.load_state_dict(own.fit(learn), strict=False)
    expected = predict_logits(other.eval(), Setup(own, RUNTIME), held_out)
    np.testing.assert_allclose(found[held_out], expected, atol=1e-5)
    assert opened(table).out_of_fold(rows) is None


def test_a_text_made_of_another_is_never_held_out_without_it(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody knows the authors."""
    own = opened(table, model="tfidf", max_tokens=128)
    n = len(own.manifest.items)
    made = [Item(f"{each.id}~x", each.source, each.labels, meta={"parent": each.id}) for each in own.manifest.items]
    found = []
    monkeypatch.setattr(frontend, "inner_folds", lambda *a, **k: found.extend(inner_folds(*a, **k)) or found)
    own.with_extra(made).out_of_fold(np.arange(2 * n))
    assert len(found) == 5
    for learn, held_out in found:
        assert not set(learn % n) & set(held_out % n)


def test_a_network_of_ones_own_is_not_found_in_closed_form(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_text_net.py").write_text(
        "from torch import nn\nfrom samo.training.model import EmotionModel\n"
        "class Net(EmotionModel):\n    def __init__(self, *given):\n        super().__init__()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_trusted", {"own_text_net:Net"})
    own = opened(table, model="own_text_net:Net", freeze_encoder=True, head="logreg")
    assert own.out_of_fold(np.arange(8)) is None
    sys.modules.pop("own_text_net")


def test_what_only_a_baseline_is_fitted_for(front: TextFrontend) -> None:
    assert front.fit(np.arange(10)) == {}


def test_judging_says_row_or_group(table: Path, tmp_path: Path) -> None:
    """The unit of the interval and the baseline reach the report."""
    from samo.runs.training import train_run

    front = opened(table, group_column="author", split="group", epochs=1, batch_size=8, lr=0.01)
    run = create_run(tmp_path, "mine", "")
    train_run(run, Setup(front, RUNTIME), Silent())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("samo.runs.run_report.save_figures", lambda *_: [])
        report = evaluate_run(run, Setup(front, RUNTIME), "test")
    assert report["ci"]["unit"] == "group"
    assert report["baseline"]["name"] == "tfidf"
    assert report["split_rule"] == "group"
