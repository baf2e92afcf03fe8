"""``--freeze-encoder``: the encoder runs once, what it said is kept on disk, and nothing else about the run changes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import tiny_text as tiny
import torch
from safetensors.torch import load_file

from samo.data.batch import Draws
from samo.data.manifest import Item
from samo.data.splits import make_split
from samo.encoders import states
from samo.encoders.kernel import fit_kernel
from samo.encoders.logreg import fit_logistic, inner_folds, inner_groups
from samo.encoders.states import States, encoder_states
from samo.runs.artifacts import create_run
from samo.runs.evaluate import evaluate_run
from samo.runs.run import Run
from samo.runs.training import train_run
from samo.runs.training_plan import make_plan
from samo.training.runtime import Runtime
from samo.training.setup import Setup
from samo.training.trainer import predict_logits
from samo_text.frontend import TextFrontend
from samo_text.models.encoder import Encoder

RUNTIME = Runtime(torch.device("cpu"), "float32", channels_last=False, threads=1)
N = 80


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 texts of 3 to 10 words, more than one batch of the cache."""
    path = tmp_path_factory.mktemp("table") / "texts.csv"
    lines = []
    for k in range(N):
        words = [tiny.WORDS[(5 * k + place) % 12] for place in range(2 + k % 8)]
        words.insert(k % 3, ("happy", "angry")[k % 2])
        lines.append(f"{' '.join(words)},{('joy', 'anger')[k % 2]},{('test', 'val', 'train', 'train')[k // 2 % 4]}")
    path.write_text("\n".join(["text,label,split", *lines]) + "\n")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "states"


@pytest.fixture
def texts_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts went through an encoder in each of its calls."""
    seen: list[int] = []
    real = Encoder.forward

    def counted(self: Encoder, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        seen.append(len(ids))
        return real(self, ids, lengths)

    monkeypatch.setattr(Encoder, "forward", counted)
    return seen


def opened(table: Path, encoder: str, **values: Any) -> TextFrontend:
    given = {"dataset": "table", "data_root": str(table), "encoder": encoder, "freeze_encoder": True, **values}
    return TextFrontend.open(tiny.config(**given), lambda line: None)


def made(front: TextFrontend) -> Any:
    """A model whose encoder was asked: its states are made with the first batch."""
    torch.manual_seed(0)
    model = front.new_model()
    next(front.eval_batches(np.arange(1), 1))
    return model


def files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.is_dir() else []


@pytest.mark.parametrize("pooling", ["mean", "cls+last4-mean", "last4-mean"])
def test_kept_states_are_the_encoders(pooling: str, table: Path, encoders: dict[str, str], cache: Path) -> None:
    front = opened(table, encoders["bert"], pooling=pooling)
    model = made(front).eval()
    n_sequences = {"mean": 1, "cls+last4-mean": 2, "last4-mean": 1}[pooling]
    (path,) = files(cache)
    assert path.stat().st_size == 4 * int(front.lists.lengths.sum()) * tiny.HIDDEN * n_sequences
    for row in (0, 3, 41, N - 1):
        ids = torch.from_numpy(np.array(front.lists.row(row)))[None]
        batch = front.train_batch(np.array([row]), Draws(0, 0, np.array([row])))
        assert batch.inputs.dtype == torch.float32
        with torch.no_grad():
            expected = model.states(ids, torch.tensor([ids.shape[1]]))
        torch.testing.assert_close(batch.inputs, expected, atol=1e-6, rtol=0)


def test_states_and_ids_give_the_same_logits(table: Path, encoders: dict[str, str], cache: Path) -> None:
    for pooling in ("mean-max", "attention+last4-mean"):
        front = opened(table, encoders["bert"], pooling=pooling)
        model = made(front).eval()
        from_ids = front.with_config(front.config)  # whose model was not made yet
        assert not torch.is_floating_point(next(from_ids.eval_batches(np.arange(3), 3)).inputs)
        assert torch.is_floating_point(next(front.eval_batches(np.arange(3), 3)).inputs)
        rows = np.arange(N)
        np.testing.assert_allclose(
            predict_logits(model, Setup(front, RUNTIME), rows),
            predict_logits(model, Setup(from_ids, RUNTIME), rows),
            atol=1e-5,
        )


def test_padding_to_the_longest_length_changes_no_state(table: Path, encoders: dict[str, str], cache: Path) -> None:
    front = opened(table, encoders["bert"])
    made(front)
    (path,) = files(cache)
    kept = path.read_bytes()
    path.unlink()
    wide = opened(table, encoders["bert"], length_sorted=False)
    made(wide)
    assert files(cache) == [path]
    np.testing.assert_allclose(np.fromfile(path, "<f4"), np.frombuffer(kept, "<f4"), atol=1e-6)
    assert wide.train_batch(np.arange(2), Draws(0, 0, np.arange(2))).inputs.shape == (2, 24, tiny.HIDDEN)


def test_the_encoder_runs_once(table: Path, encoders: dict[str, str], cache: Path, texts_encoded: list[int]) -> None:
    """Another frontend, other seeds and other heads take what is there."""
    front = opened(table, encoders["bert"])
    made(front)
    assert texts_encoded == [64, 16]
    made(opened(table, encoders["bert"]))
    for values in ({"seed": 3}, {"lr": 0.1}, {"head_layers": 2}, {"pooling": "mean-max"}, {"dropout": 0.5}):
        made(front.with_config(opened(table, encoders["bert"], **values).config))
    assert texts_encoded == [64, 16]
    assert len(files(cache)) == 1


def test_what_must_not_share_a_cache(
    table: Path, encoders: dict[str, str], cache: Path, tmp_path: Path, texts_encoded: list[int]
) -> None:
    """Poolings that look at other layers, other weights, other tokens, other texts."""
    front = opened(table, encoders["bert"])
    made(front)
    other_weights = str(tiny.encoder(tmp_path / "again", seed=1))
    few = tmp_path / "few.csv"
    few.write_text("\n".join(table.read_text().splitlines()[:30]) + "\n")
    for k, others in enumerate(
        (
            opened(table, encoders["bert"], pooling="last4-mean"),
            opened(table, encoders["bert"], pooling="cls+last4-mean"),
            opened(table, other_weights),
            opened(table, encoders["bert"], max_tokens=6),
            opened(few, encoders["bert"]),
            front.with_extra([Item("row-9999999", "a new text , so glad", {"label": ("joy",)})]),
        )
    ):
        made(others)
        assert len(files(cache)) == k + 2
    assert sum(texts_encoded) == 5 * N + 29 + N + 1


def test_further_texts_have_states_too(table: Path, encoders: dict[str, str], cache: Path) -> None:
    front = opened(table, encoders["bert"]).with_extra([Item("row-9999999", "so glad !", {"label": ("joy",)})])
    model = made(front).eval()
    inputs = front.train_batch(np.array([N]), Draws(0, 0, np.array([N]))).inputs
    with torch.no_grad():
        expected = model.states(torch.from_numpy(np.array(front.lists.row(N)))[None], torch.tensor([inputs.shape[1]]))
    torch.testing.assert_close(inputs, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("damage", ["short", "long", "empty"])
def test_a_damaged_cache_is_made_again(
    damage: str, table: Path, encoders: dict[str, str], cache: Path, texts_encoded: list[int]
) -> None:
    front = opened(table, encoders["bert"])
    made(front)
    (path,) = files(cache)
    whole = path.read_bytes()
    path.unlink()  # the old file is still mapped
    path.write_bytes({"short": whole[:-4], "long": whole + b"\0" * 4, "empty": b""}[damage])
    with pytest.raises(ValueError, match="does not hold what its name says"):
        States(path, front.lists.lengths, tiny.HIDDEN)
    texts_encoded.clear()
    made(front)  # the same frontend, which has states of its own by now
    assert texts_encoded == [64, 16]
    assert files(cache) == [path]
    assert path.read_bytes() == whole


def test_making_the_cache_leaves_the_model_as_it_was(table: Path, encoders: dict[str, str], cache: Path) -> None:
    """Whether the states were kept before must not change what is drawn afterwards."""
    front = opened(table, encoders["bert"], head_layers=2)
    first, drawn = made(front), torch.rand(3)
    second, again = made(front.with_config(front.config)), torch.rand(3)
    assert torch.equal(drawn, again)
    assert first.training == second.training
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


class Silent:
    """An observer that looks away."""

    def on_step(self, *_: object) -> None:
        """Nothing."""

    def on_epoch(self, *_: object) -> None:
        """Nothing."""


def trained(front: TextFrontend, root: Path, name: str) -> tuple[Run, dict[str, torch.Tensor]]:
    run = create_run(root, name, "")
    train_run(run, Setup(front, RUNTIME), Silent())
    return run, load_file(run.path("best_model.safetensors"))


SHORT = {"epochs": 3, "batch_size": 10, "lr": 0.01, "patience": 0, "dropout": 0.0}


def test_only_the_head_learns(
    table: Path, encoders: dict[str, str], cache: Path, tmp_path: Path, texts_encoded: list[int]
) -> None:
    front = opened(table, encoders["bert"], pooling="attention", **SHORT)
    _, weights = trained(front, tmp_path, "mine")
    assert texts_encoded == [64, 16]  # three epochs and a validation after each
    start = made(front.with_config(front.config)).state_dict()
    changed = {name for name, tensor in weights.items() if not torch.equal(tensor, start[name])}
    assert changed
    assert {name for name in weights if not name.startswith("body.")} >= changed
    assert any(name.startswith("pooling.attention") for name in changed)


def test_too_much_for_the_disk_is_encoded_in_every_epoch(
    table: Path, encoders: dict[str, str], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    texts_encoded: list[int],
) -> None:  # fmt: skip
    """And comes to the same weights, up to rounding."""
    front = opened(table, encoders["bert"], **SHORT)
    _, kept = trained(front, tmp_path, "kept")
    path = files(cache)[0]
    n_bytes = path.stat().st_size
    path.unlink()
    monkeypatch.setattr(states, "MOST_BYTES", n_bytes)
    made(front.with_config(front.config))
    assert files(cache) == [path]  # exactly as much as is allowed
    path.unlink()
    monkeypatch.setattr(states, "MOST_BYTES", n_bytes - 1)
    texts_encoded.clear()
    notes: list[str] = []
    without = TextFrontend.open(front.config, notes.append)
    _, again = trained(without, tmp_path, "again")
    [note] = [note for note in notes if "runs again in every epoch" in note]
    assert note.startswith("the encoder's states would take 0.0 GB, and at most 0.0 GB are kept")
    # Three numbers of each of six layers are more than the states of texts so short.
    assert note.endswith("the encoder runs again in every epoch")
    monkeypatch.setattr(states, "MOST_BYTES", n_bytes)
    whole = TextFrontend.open(opened(table, encoders["bert"], layers="all", pooling="attention").config, notes.append)
    made(whole)
    assert notes[-1].endswith("every epoch; those of `layers=last` are kept")
    assert files(cache) == []
    plan = make_plan(front, make_split(front.manifest, front.split_request()))
    assert sum(texts_encoded) >= 3 * (len(plan.train_rows) // 10 * 10 + len(plan.val_rows))
    assert kept.keys() == again.keys()
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, again[name], atol=1e-4, rtol=1e-4)


def test_an_encoder_that_learns_keeps_no_states(table: Path, encoders: dict[str, str], cache: Path) -> None:
    front = opened(table, encoders["bert"], freeze_encoder=False, unfreeze_epochs=2)
    made(front)
    assert files(cache) == []
    assert not torch.is_floating_point(front.train_batch(np.arange(2), Draws(0, 0, np.arange(2))).inputs)


def test_what_never_opens_is_told_at_the_start(table: Path, encoders: dict[str, str]) -> None:
    given = {"dataset": "table", "data_root": str(table), "encoder": encoders["bert"], "unfreeze_epochs": 1}
    notes: list[str] = []
    for epochs in (7, 6):
        TextFrontend.open(tiny.config(**given, epochs=epochs), notes.append).new_model()
    assert [note for note in notes if "unfreeze_epochs" in note] == [
        "`unfreeze_epochs=1` opens 5 of 5 layers in 6 epochs, the embeddings never learn; `epochs=7` opens all"
    ]


def test_a_logistic_regression_on_all_layers(
    table: Path, encoders: dict[str, str], cache: Path, tmp_path: Path, texts_encoded: list[int]
) -> None:
    """Fitted on the pooled states of the training texts, whose encoder runs once and no more when it is evaluated."""
    values = {"head": "logreg", "layers": "all", "pooling": "mean-sd"}
    front = opened(table, encoders["bert"], **values)
    run, weights = trained(front, tmp_path, "logreg")
    assert texts_encoded == [64, 16]
    assert (run.trained["epochs"], len(run.history)) == (1, 1)
    (path,) = files(cache)
    assert path.stat().st_size == 4 * N * 3 * (tiny.LAYERS + 1) * tiny.HIDDEN
    model = front.with_config(front.config).new_model().eval()
    rows, pooled = front.manifest.rows(run.split.train), []
    for row in rows:
        ids = torch.from_numpy(np.array(front.lists.row(row)))[None]
        with torch.no_grad():
            states = model.body(ids, torch.tensor([ids.shape[1]]))[0]
        pooled.append(torch.cat([states.mean(dim=0), states.std(dim=0, unbiased=False)]).numpy())
    groups = [f"item {row}" for row in rows]
    expected = fit_logistic(np.stack(pooled), front.manifest.targets[rows], front.manifest.label_space, groups=groups)
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[f"head.output.{name}"], tensor, atol=1e-3, rtol=1e-3)
    texts_encoded.clear()
    evaluate_run(run, Setup(opened(table, encoders["bert"], **values), RUNTIME), "test")
    assert texts_encoded == []


def test_a_kernel_on_all_layers(
    table: Path, encoders: dict[str, str], cache: Path, tmp_path: Path, texts_encoded: list[int]
) -> None:
    """As many centres as asked for, of the training texts' vectors; the encoder runs once."""
    front = opened(table, encoders["bert"], head="kernel", layers="all", pooling="mean-sd", head_centres=7)
    run, weights = trained(front, tmp_path, "kernel")
    assert texts_encoded == [64, 16]
    assert weights["head.centres"].shape == (7, 2 * (tiny.LAYERS + 1) * tiny.HIDDEN)
    model = front.with_config(front.config).new_model().eval()
    model.load_state_dict(weights)
    rows, pooled = front.manifest.rows(run.split.train), []
    for row in rows:
        ids = torch.from_numpy(np.array(front.lists.row(row)))[None]
        with torch.no_grad():
            pooled.append(model.pooled(ids, torch.tensor([ids.shape[1]]))[0].numpy())
    vectors = np.stack(pooled)
    standard = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0)
    apart = np.abs(weights["head.centres"].numpy()[:, None] - standard[None]).max(axis=2)
    assert apart.min(axis=1).max() < 1e-2


def test_centres_that_are_drawn_are_told(table: Path, encoders: dict[str, str], cache: Path) -> None:
    notes: list[str] = []
    for n_centres, n_plain in ((40, 40), (39, 40), (39, 39)):
        given = opened(table, encoders["bert"], head="kernel", head_centres=n_centres).config
        front = TextFrontend.open(given, notes.append)
        first = front.manifest.items[0]
        made = [Item(f"{first.id}~swap1", "happy storm", first.labels, meta={"parent": first.id, "method": "swap"})]
        front = front.with_extra(made)
        front.new_model()
        front.fit(np.array([*range(n_plain), N]))
    told = [note for note in notes if "nearness" in note]
    assert told == ["`head=kernel` measures nearness to 39 of 40, drawn at random by `seed`; `head_centres` takes more"]


@pytest.mark.parametrize("head", ["logreg", "kernel"])
def test_texts_made_of_others_are_copies_as_windows_at_other_speeds_are(
    head: str, table: Path, encoders: dict[str, str], cache: Path
) -> None:
    """All weigh as much as the texts alone, no loss is measured on them and none is a centre; students learn them."""
    front = opened(table, encoders["bert"], head=head, **({"head_centres": 64} if head == "kernel" else {}))
    copies = [
        Item(f"{each.id}~swap{k}", f"{each.source} {word}", each.labels, meta={"parent": each.id, "method": "swap"})
        for k, word in enumerate(tiny.WORDS[:2])
        for each in front.manifest.items[:20]
    ]
    further = Item("extra-1", "happy happy", copies[0].labels, meta={"parent": "", "method": "table"})
    front = front.with_extra([*copies, further])
    plain, made_rows = [*range(40), N + 40], [*range(N, N + 40)]
    rows = np.array([*range(40), *made_rows, N + 40])
    model = front.new_model()
    pooled = []
    for row in [*plain, *made_rows]:
        ids = torch.from_numpy(np.array(front.lists.row(row)))[None]
        with torch.no_grad():
            pooled.append(model.pooled(ids, torch.tensor([ids.shape[1]]))[0].numpy())
    vectors, targets = np.stack(pooled), front.manifest.targets[[*plain, *made_rows]]
    groups = np.array(inner_groups(front.manifest, np.array([*plain, *made_rows])))
    assert len(set(groups)) == len(plain)
    space, n = front.manifest.label_space, len(plain)

    def by_hand(learn: np.ndarray) -> Any:
        given = vectors[learn], targets[learn], space
        parts = {"groups": groups[learn], "n_plain": int((learn < n).sum())}
        if head == "kernel":
            return fit_kernel(*given, n_centres=64, **parts)
        found = fit_logistic(*given, **parts)
        return lambda asked: asked @ found["weight"].numpy().T + found["bias"].numpy()

    model.load_state_dict(front.fit(rows), strict=False)
    found = predict_logits(model.eval(), Setup(front, RUNTIME), np.array([*plain, *made_rows]))
    np.testing.assert_allclose(found, by_hand(np.arange(len(vectors)))(vectors), atol=2e-3)
    if head == "logreg":  # the same for both from here on, and takes long
        return
    expected = np.empty((len(vectors), 2))
    for learn, held_out in inner_folds(targets > 0.5, groups, seed=0):
        expected[held_out] = by_hand(learn)(vectors[held_out])
    order = np.argsort([*plain, *made_rows])
    np.testing.assert_allclose(front.out_of_fold(np.sort(rows)), expected[order], atol=2e-3)


def test_states_that_nobody_kept_are_not_made_to_evaluate(
    table: Path, encoders: dict[str, str], cache: Path, tmp_path: Path
) -> None:
    front = opened(table, encoders["bert"], **SHORT)
    run, _ = trained(front, tmp_path, "mine")
    (path,) = files(cache)
    kept = path.read_bytes()
    path.unlink()
    evaluate_run(run, Setup(front.with_config(front.config), RUNTIME), "test")
    assert files(cache) == []
    before = json.loads(run.path("report.json").read_text())["metrics"]
    path.write_bytes(kept)
    for known in run.folder.glob("predictions.*.npz"):
        known.unlink()
    again = front.with_config(front.config)
    evaluate_run(run, Setup(again, RUNTIME), "test")
    assert torch.is_floating_point(next(again.eval_batches(np.arange(2), 2)).inputs)
    assert json.loads(run.path("report.json").read_text())["metrics"] == before


def test_cells_that_begin_together_make_states_once(table: Path, encoders: dict[str, str], cache: Path) -> None:
    """The second waits for the first, and finds what it wants."""
    fronts = [opened(table, encoders["bert"]) for _ in range(2)]
    models = [front.new_model() for front in fronts]
    calls: list[int] = []

    def make(front: TextFrontend, model: Any) -> None:
        def batch_of(rows: np.ndarray) -> Any:
            calls.append(len(rows))
            time.sleep(0.05)
            return front._batch(rows)

        front._frozen = None
        digest, contents = front.tokens.digest, (front.lists.row(row).tobytes() for row in range(N))
        encoder_states(model, lengths=front.lists.lengths, batch_of=batch_of, digest=digest, contents=contents)

    threads = [Thread(target=make, args=pair) for pair in zip(fronts, models, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [64, 16]
    assert len(files(cache)) == 1
