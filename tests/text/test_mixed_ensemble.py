"""An ensemble of a network over subwords and tf-idf over words: each member reads its own tokens of a text."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_text as tiny
import torch

import samo
from samo.data.padding import packed, padded
from samo.deploy.export import export
from samo.ensembles.build_ensemble import build_ensemble
from samo.errors import ModelFileError
from samo.evaluation.predictions import Predictions
from samo.launch.resources import Resources
from samo.prediction.exported import ExportedModel
from samo.runs import run_report
from samo.runs.artifacts import create_run
from samo.runs.calibrate import decision_of
from samo.runs.ensemble_model import Ensemble, unpacked
from samo.runs.evaluate import evaluate_run, open_data
from samo.runs.reporter import PlainReporter
from samo.runs.run import Run
from samo.runs.training import train_run
from samo.training.runtime import Runtime
from samo.training.setup import Setup
from samo_text.frontend import TextFrontend
from samo_text.tokens import EncoderTokens, HashTokens, SeveralTokens, about_cut, open_tokens, token_lists

RUNTIME = Runtime(torch.device("cpu"), "float32", channels_last=False, threads=1)


def test_parts_are_packed_and_taken_apart() -> None:
    rows = [packed([np.array([7, 8, 9]), np.array([5])]), packed([np.array([4]), np.array([1, 2])])]
    assert [row.tolist() for row in rows] == [[3, 1, 7, 8, 9, 5], [1, 2, 4, 1, 2]]
    inputs = torch.from_numpy(padded(rows, width=9, fill=77)[0])
    first, second = unpacked(inputs, 0, 2), unpacked(inputs, 1, 2)
    assert [each.tolist() for each in first] == [[[7, 8, 9], [4, 0, 0]], [3, 1]]
    assert [each.tolist() for each in second] == [[[5, 0], [1, 2]], [1, 2]]


def test_an_ensemble_gives_each_member_its_part() -> None:
    class Sum(torch.nn.Module):
        def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            total = inputs.sum(dim=1, keepdim=True).float() / lengths[:, None]
            return torch.cat([total, -total], dim=1)

    model = Ensemble([Sum(), Sum()], [0.5, 0.5], [{}, {}], tiny.ONE_OF, "mean", reads=[1, 1], parts=2)
    inputs, lengths = padded([packed([np.array([50]), np.array([1, 2])])])
    logits = model(torch.from_numpy(inputs), torch.from_numpy(lengths))
    assert (logits[0, 0] - logits[0, 1]).item() == pytest.approx(3.0)


def test_several_tokens_are_kept(encoders: dict[str, str], tmp_path: Path) -> None:
    tokens = SeveralTokens((HashTokens(4), EncoderTokens.load(encoders["bert"], 6)))
    texts = ["i love it", "so happy so happy so happy", ""]
    tokens.save(tmp_path)
    again = open_tokens(tiny.config(), tmp_path)
    assert isinstance(again, SeveralTokens)
    assert again.digest == tokens.digest != SeveralTokens(tokens.parts[:1]).digest
    for row, words, subwords in zip(again.encode(texts), *(part.encode(texts) for part in tokens.parts), strict=True):
        assert row.tolist() == [len(words), len(subwords), *words, *subwords]
    assert [tokens.cut_at(text) for text in texts] == [None, 4, None]
    (tmp_path / "several_tokens.json").write_text('{"parts": []}')
    with pytest.raises(ModelFileError, match=r"several_tokens\.json"):
        open_tokens(tiny.config(), tmp_path)


def test_where_several_tokens_cut_a_text(encoders: dict[str, str]) -> None:
    """By the part that cuts, the smallest where several do, and the length of a text is that of its longest part."""
    tokens = SeveralTokens((HashTokens(6), EncoderTokens.load(encoders["bert"], 5)))
    texts = ["so happy", "so happy so happy", "so happy so happy so happy so happy"]
    words, subwords = tokens.parts
    assert [[len(row) for row in part.encode(texts)] for part in tokens.parts] == [[2, 4, 6], [4, 5, 5]]
    assert [words.cut_at(text) for text in texts] == [None, None, 6]
    assert [subwords.cut_at(text) for text in texts] == [None, 5, 5]
    ids = tokens.encode(texts)
    assert [tokens.cut_at(text) for text in texts] == [None, 5, 5]
    assert [tokens.cut_at(text, row) for text, row in zip(texts, ids, strict=True)] == [None, 5, 5]
    assert [tokens.n_tokens(row) for row in ids] == [4, 5, 6]
    line = "2 of 3 texts are longer than 5 tokens: the rest is cut off (`max_tokens`)"
    assert about_cut(tokens, texts) == about_cut(tokens, texts, token_lists(tokens, texts)) == [line]
    wide = SeveralTokens((HashTokens(2), HashTokens(5)))
    assert [wide.cut_at(text) for text in texts] == [None, 2, 2]
    # The part that cuts need not be the first.
    assert SeveralTokens((HashTokens(9), HashTokens(3))).cut_at(texts[1]) == 3


class Silent:
    """An observer that looks away."""

    def on_step(self, *_: object) -> None:
        """Nothing."""

    def on_epoch(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def root(encoders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts with runs ``bert`` and ``tfidf`` on one table."""
    folder = tmp_path_factory.mktemp("mixed")
    words = tiny.WORDS[:12]
    lines = [
        f"{words[5 * k % 12]} {words[k % 7]} {('happy', 'angry')[k % 2 if k % 9 else 0]} {words[k % 5]},"
        f"{('joy', 'anger')[k % 2]},{('test', 'val', 'train', 'train')[k // 2 % 4]}"
        for k in range(80)
    ]
    (folder / "texts.csv").write_text("\n".join(["text,label,split", *lines]) + "\n")
    own = {"bert": {"encoder": encoders["bert"], "epochs": 1}, "tfidf": {"model": "tfidf", "encoder": "", "ngrams": 1}}
    for name, values in own.items():
        front = TextFrontend.open(
            tiny.config(dataset="table", data_root=str(folder / "texts.csv"), **values), lambda line: None
        )
        train_run(create_run(folder, name, ""), Setup(front, RUNTIME), Silent())
    return folder


def test_a_network_and_tfidf_answer_as_one(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_report, "save_figures", lambda *_: [])
    members = [Run(root / "runs" / name) for name in ("bert", "tfidf")]
    run, summary = build_ensemble(members, name="both", artifacts=root, resources=Resources(device="cpu", threads=1))
    assert summary["left_out"] == []
    weights = [each["weight"] for each in summary["members"]]
    assert weights == [0.5, 0.5]
    stored = Predictions.load(run.path("predictions.test.npz"))
    # Each member alone, on its own tokens.
    expected = np.zeros(stored.logits.shape)
    space = run.manifest.label_space
    texts = {item.id: item.source for item in run.manifest.items}
    for member, weight in zip(members, weights, strict=True):
        logits = samo.load(member, threads=1).logits([texts[name] for name in stored.ids])
        expected += weight * decision_of(member, space).probabilities(logits, space)
    np.testing.assert_allclose(space.probabilities(stored.logits), expected, atol=2e-6)
    # Opened again it needs nothing but its folder.
    for name in ("bert", "tfidf"):
        shutil.move(root / "runs" / name, root / name)
    model = samo.load("both", artifacts=root, threads=1)
    np.testing.assert_allclose(model.logits([texts[name] for name in stored.ids]), stored.logits, atol=2e-5)
    again = Setup(open_data(run, {}, PlainReporter()), RUNTIME)
    report = evaluate_run(run, again, "test")
    assert report["metrics"]["macro_f1"] == summary["ensemble"]["macro_f1"]
    # As one file, on the tokens of both.
    monkeypatch.setattr("samo.deploy.parity._ROUNDS", 1)
    monkeypatch.setattr("samo.deploy.export.BATCHES", (1,))
    made = export("both", tmp_path / "both.onnx", artifacts=root, threads=1, reporter=PlainReporter(quiet=True))
    assert made.facts["exact"]["largest_difference"] < 1e-4
    reading = ExportedModel.open(made.path).metadata.reading
    assert [(part["tokens"]["kind"], part["max_tokens"]) for part in reading["parts"]] == [
        ("tokenizers", 24), ("hash", 24),
    ]  # fmt: skip
    assert reading["text_column"] == "text"
    file = samo.load(made.path, threads=1)
    np.testing.assert_allclose(file.logits([texts[name] for name in stored.ids]), stored.logits, atol=2e-5)
    long = "so happy " * 20
    assert [file.predict(text).warnings for text in ("", long)] == [("empty",), ("cut at 24 tokens",)]
    np.testing.assert_allclose(file.logits(["", long]), model.logits(["", long]), atol=2e-5)
