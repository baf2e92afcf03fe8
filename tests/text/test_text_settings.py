"""Every setting of a text run acts: what it should change is other than without it, and a new one needs an entry."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_text as tiny
import torch

from samo.data.batch import Draws
from samo.data.splits import PARTS, make_split
from samo.errors import DataError
from samo.evaluation.decision import fit_decision
from samo.evaluation.thresholds import Thresholds, fit_thresholds
from samo.runs.training_plan import make_plan
from samo.training.runtime import Runtime
from samo.training.setup import Setup
from samo.training.trainer import TrainState, fit, new_state
from samo_audio.config import AudioConfig
from samo_text.config import TextConfig
from samo_text.datasets.goemotions import FILES
from samo_text.frontend import TextFrontend

CPU = torch.device("cpu")
RUNTIME = Runtime(CPU, "float32", channels_last=False, threads=1)
FIELDS = {field.name: field for field in TextConfig.fields()}
SMALL: dict[str, Any] = {
    "embedding_width": 8, "hash_buckets": 256, "filters": 4, "max_tokens": 24, "batch_size": 16, "epochs": 2, "lr": 0.01
}  # fmt: skip
WORDS = {"joy": ("happy", "glad", "love"), "anger": ("angry", "hate"), "sadness": ("sad",)}

# What each setting is compared with and without: (settings it needs, its value, what must differ).
DATA: dict[str, tuple[dict[str, Any], Any, str]] = {
    "dataset": ({"data_root": "goemotions"}, "goemotions", "opens"),
    "data_root": ({}, "elsewhere", "items"),
    "mode": ({"dataset": "goemotions", "data_root": "goemotions"}, "ekman", "space"),
    "split": ({}, "stratified", "split"),
    "fold": ({"split": "folds"}, 2, "split"),
    "num_folds": ({"split": "folds"}, 3, "split"),
    "train_ratio": ({"split": "stratified"}, 0.5, "split"),
    "val_ratio": ({"split": "stratified"}, 0.15, "split"),
    "split_seed": ({"split": "stratified"}, 5, "split"),
    "limit_fraction": ({}, 0.5, "split"),
    "drop_leaked": ({"data_root": "elsewhere"}, True, "split"),
    "text_column": ({}, "other", "items"),
    "label_columns": ({"label_separator": ""}, "tone", "space"),
    "label_separator": ({}, "", "space"),
    "empty_labels": ({}, "none", "items"),
    "split_column": ({"split": "table"}, "part", "split"),
    "group_column": ({"split": "auto", "split_column": ""}, "who", "split"),
    "max_tokens": ({}, 5, "tokens"),
    "length_sorted": ({}, False, "widths"),
    "seed": ({"split": "stratified"}, 3, "split"),
}
AUGMENT: dict[str, tuple[dict[str, Any], Any]] = {
    "augment": ({}, "word-order"),
    "augment_target": ({"augment": "word-order"}, 12),
    "augment_max_per_text": ({"augment": "word-order"}, 2),
    "augment_strength": ({"augment": "word-order"}, 0.9),
    "extra_table": ({}, "extra"),
}
MODEL: dict[str, tuple[dict[str, Any], Any, str]] = {
    "model": ({}, "bigru", "shapes"),
    "encoder": ({"encoder": "bert"}, "roberta", "logits"),
    "pooling": ({}, "mean-max", "shapes"),
    "layers": ({"encoder": "bert"}, "all", "shapes"),
    "state_mask": ({"encoder": "bert"}, 0.5, "trained"),
    "state_mask_span": ({"encoder": "bert", "state_mask": 0.5}, 2, "trained"),
    "head_layers": ({}, 2, "shapes"),
    "head_hidden": ({"head_layers": 2}, 7, "shapes"),
    "head_intermediate": ({"head_layers": 2}, 9, "shapes"),
    "head_residual": ({"head_layers": 2}, True, "logits"),
    "head_norm": ({}, True, "shapes"),
    "dropout": ({}, 0.6, "trained"),
    "dropout_samples": ({}, 3, "trained"),
    "dropout_inference": ({"dropout_samples": 3, "dropout": 0.5}, "mean", "logits"),
    "freeze_encoder": ({"encoder": "bert"}, True, "learning"),
    "unfreeze_epochs": ({"encoder": "bert"}, 2, "learning"),
    "encoder_lr_scale": ({"encoder": "bert"}, 0.5, "rates"),
    "layer_lr_decay": ({"encoder": "bert"}, 0.5, "rates"),
    "embedding_width": ({}, 12, "shapes"),
    "hash_buckets": ({}, 300, "shapes"),
    "filters": ({}, 6, "shapes"),
    "gru_units": ({"model": "bigru"}, 9, "shapes"),
    "ngrams": ({"model": "tfidf"}, 1, "logits"),
    "min_count": ({"model": "tfidf"}, 6, "logits"),
    "inverse_l2": ({"model": "tfidf"}, 0.1, "logits"),
}
# These change what a short training comes to.
TRAINED: dict[str, tuple[dict[str, Any], Any]] = {
    "mixup_alpha": ({}, 0.5),
    "class_weight_loss": ({}, True),
    "max_class_weight": ({"class_weight_loss": True}, 1.0),
    "class_weight_mult": ({"class_weight_loss": True}, {"joy": 2.0}),
    "focal_loss": ({}, True),
    "focal_gamma": ({"focal_loss": True}, 1.0),
    "focal_alpha": ({"focal_loss": True}, 0.5),
    "adaptive_gamma": ({"focal_loss": True}, True),
    "task_gamma": ({"focal_loss": True}, {"label": 0.5}),
    "asymmetric_loss": ({}, True),
    "asl_gamma_pos": ({"asymmetric_loss": True}, 1.0),
    "asl_gamma_neg": ({"asymmetric_loss": True}, 2.0),
    "asl_clip": ({"asymmetric_loss": True}, 0.2),
    "label_smoothing": ({}, 0.2),
    "adaptive_smoothing": ({"label_smoothing": 0.2}, True),
    "task_weights": ({}, {"label": 3.0}),
    "rdrop_alpha": ({}, 1.0),
    "rdrop_warmup_epochs": ({"rdrop_alpha": 1.0}, 2),
    "balanced_sampler": ({}, True),
    "joint_alpha": ({}, 1.0),
    "joint_max_mult": ({"joint_alpha": 1.0}, 1.2),
    "joint_boost": ({"joint_alpha": 1.0}, {"sadness": 3.0}),
    "lr": ({}, 0.02),
    "weight_decay": ({}, 0.3),
    "schedule": ({}, "constant"),
    "warmup_ratio": ({}, 0.6),
    "num_cycles": ({"schedule": "cosine-restarts"}, 2),
    "lr_min": ({}, 0.005),
    "grad_accum": ({}, 2),
    "max_grad_norm": ({}, 0.01),
    "grad_centralisation": ({}, True),
    "ema_decay": ({}, 0.9),
    "epochs": ({}, 3),
    "batch_size": ({}, 8),
    "patience": ({"epochs": 6, "lr": 1e-9}, 1),
}
THRESHOLDS: dict[str, Any] = {
    "threshold": "half", "threshold_range": (0.45, 0.55), "num_thresholds": 3, "threshold_shrinkage": 40.0,
    "threshold_smoothing": 2.0,
}  # fmt: skip
ABSTENTION = {"abstain_risk": 0.2, "abstain_coverage": 0.5}
# Shown elsewhere, by tests that need what this module does not make.
ELSEWHERE = {
    "binary_columns": "test_text_table.py:test_columns_of_zero_and_one_may_be_tasks_of_their_own",
    "back_translation_models": "test_augmentation.py:test_every_method_opens_its_rewriter",
    "head": "test_states.py:test_a_logistic_regression_on_all_layers",
    "head_centres": "test_states.py:test_a_kernel_on_all_layers",
    "masked_lm": "test_augmentation.py:test_every_method_opens_its_rewriter",
    **dict.fromkeys(
        ("teacher", "distil_alpha", "distil_temperature", "distil_out_of_fold"),
        "../core/test_distillation.py:test_every_setting_changes_what_is_learned",
    ),
    "keep": "../core/test_trainer.py:test_the_last_epoch_counts_however_it_validates",
}


def test_every_setting_has_an_entry_here() -> None:
    assert {*DATA, *AUGMENT, *MODEL, *TRAINED, *THRESHOLDS, *ABSTENTION, *ELSEWHERE} == set(FIELDS)
    for name, place in ELSEWHERE.items():
        module, _, test = place.partition(":")
        source = (Path(__file__).parent / module).read_text()
        assert f"def {test}(" in source
        assert name in source


def test_losses_and_optimiser_are_those_of_audio() -> None:
    """What they compute is shown by exact values in tests/core."""
    for section in ("loss", "optim", "thresholds"):
        text = TextConfig.model_fields[section].annotation
        assert section == "thresholds" or text is AudioConfig.model_fields[section].annotation
        assert text.__module__ == "samo.settings.sections"


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tables and a small GoEmotions, by name."""
    root = tmp_path_factory.mktemp("roots")
    rows = made_rows()
    head = "text\tother\tlabel\ttone\tsplit\tpart\twho"
    (root / "table.tsv").write_text("\n".join([head, *("\t".join(row) for row in rows)]) + "\n")
    # Elsewhere one training text stands in validation too.
    again = [*rows, (rows[2][0], *rows[2][1:4], "val", "val", "nobody")]
    (root / "elsewhere.tsv").write_text("\n".join([head, *("\t".join(row) for row in again)]) + "\n")
    (root / "extra.csv").write_text("text,label\nwe were so very glad at last,joy\n")
    folder = root / "goemotions"
    folder.mkdir()
    for part, name in FILES.items():
        (folder / name).write_text(
            "".join(f"{part} text {k} is so {w}\t{k % 28}\tid{k}\n" for k, w in enumerate("abc" * 20))
        )
    places = {"table": "table.tsv", "goemotions": "goemotions", "elsewhere": "elsewhere.tsv", "extra": "extra.csv"}
    return {name: str(root / place) for name, place in places.items()}


def made_rows() -> list[tuple[str, ...]]:
    """90 texts of three labels of unlike frequency; every ninth has two of them and every tenth none."""
    draw, rows = random.Random(0), []
    filler = ("i", "you", "he", "she", "we", "this", "that", "is", "was", "so", "very", "it", ".", ",")
    for k in range(90):
        labels = [] if k % 10 == 7 else [("joy", "joy", "joy", "anger", "anger", "sadness")[k % 6]]
        labels += ["sadness"] if k % 9 == 0 and labels == ["joy"] else []
        words = draw.choices(filler, k=4 + k % 7) + [draw.choice(WORDS[label]) for label in labels]
        draw.shuffle(words)
        part = ("test", "val", "train", "train", "train")[k % 5]
        other = ("train", "train", "val", "test", "train")[k % 5]
        tone = "good" if "joy" in labels else "bad"
        rows.append((f"{' '.join(words)} {k}", f"other {k}", "|".join(labels), tone, part, other, f"author{k // 3}"))
    return rows


@pytest.fixture(scope="module")
def opened(
    roots: dict[str, str], encoders: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., TextFrontend]:
    """A frontend under small settings and those given; places by their names above. What was opened is kept."""
    known: dict[str, TextFrontend] = {}
    places = {**roots, **encoders}
    cache = str(tmp_path_factory.mktemp("cache"))

    def open_(**values: Any) -> TextFrontend:
        values = {"dataset": "table", "data_root": "table", "label_separator": "|", **values}
        if values["dataset"] != "table":
            values.pop("label_separator")
        model = values.get("model", "encoder" if "encoder" in values else "textcnn")
        own = {"textcnn": (), "bigru": ("filters",), "encoder": ("filters", "embedding_width", "hash_buckets")}
        none = SMALL.keys() - {"max_tokens"} if model == "tfidf" else own[model]
        values = {**{key: value for key, value in SMALL.items() if key not in none}, **values}
        for name in ("data_root", "encoder", "extra_table"):
            if name in values:
                values[name] = places[values[name]]
        if str(values) not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SAMO_CACHE", cache)
                known[str(values)] = TextFrontend.open(TextConfig.build(values), lambda line: None)
        return known[str(values)]

    return open_


def read(front: TextFrontend) -> dict[str, Any]:
    """What data and token settings decide."""
    split = make_split(front.manifest, front.split_request())
    rows = np.arange(8)
    return {
        "items": [(item.source, item.labels) for item in front.manifest.items],
        "space": front.manifest.label_space.to_json(),
        "split": [split.part(part) for part in PARTS],
        "tokens": [front.lists.row(row).tolist() for row in range(len(front.lists))],
        "widths": [front.train_batch(rows[k : k + 4], Draws(0, 0, rows[k : k + 4])).inputs.shape[1] for k in (0, 4)],
    }


@pytest.mark.parametrize("name", DATA)
def test_data_and_tokens(name: str, opened: Callable[..., TextFrontend]) -> None:
    needed, value, differs = DATA[name]
    if differs == "opens":
        with pytest.raises(DataError, match="needs a file"):
            opened(**needed)
        assert opened(**needed, **{name: value}).manifest.dataset == value
        return
    without, with_ = (read(opened(**{**needed, **more})) for more in ({}, {name: value}))
    assert without[differs] != with_[differs]
    if differs in ("split", "widths", "tokens"):
        assert without["items"] == with_["items"]


@pytest.mark.parametrize("name", AUGMENT)
def test_augmentation(name: str, opened: Callable[..., TextFrontend]) -> None:
    def made(values: dict[str, Any]) -> list[str]:
        front = opened(**values)
        rows = front.manifest.rows(make_split(front.manifest, front.split_request()).train)
        return [item.source for item in front.augment(rows, CPU)]

    needed, value = AUGMENT[name]
    without, with_ = made(needed), made({**needed, name: value})
    assert with_
    assert without != with_
    assert bool(without) == bool(needed)


def behaviour(front: TextFrontend) -> dict[str, Any]:
    """What model settings decide."""
    torch.manual_seed(0)
    model: Any = front.new_model()
    model.load_state_dict(front.fit(np.arange(60)), strict=False)
    learning = []
    for epoch in (0, 2, 4):
        model.begin_epoch(epoch)
        learning.append([name for name, parameter in model.named_parameters() if parameter.requires_grad])
    (batch,) = front.eval_batches(np.arange(12), 12)
    with torch.no_grad():
        torch.manual_seed(1)
        trained = model.train()(batch.inputs, batch.lengths)
        logits = model.eval()(batch.inputs, batch.lengths)
    assert logits.shape == (12, 3)
    assert torch.isfinite(logits).all()
    return {
        "shapes": {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        "learning": learning,
        "rates": {name: model.lr_scale(name) for name, _ in model.named_parameters()},
        "trained": trained.tolist(),
        "logits": logits.tolist(),
    }


@pytest.mark.parametrize("name", MODEL)
def test_model(name: str, opened: Callable[..., TextFrontend], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path))
    needed, value, differs = MODEL[name]
    without, with_ = (behaviour(opened(**{**needed, **given})) for given in ({}, {name: value}))
    assert without[differs] != with_[differs]
    if differs in ("rates", "learning"):
        assert without["shapes"] == with_["shapes"]
        np.testing.assert_allclose(without["logits"], with_["logits"], atol=1e-6)
    if name == "dropout":
        assert without["logits"] == with_["logits"]


class Silent:
    """An observer that looks away."""

    def on_step(self, *_: object) -> None:
        """Nothing."""

    def on_epoch(self, *_: object) -> None:
        """Nothing."""


def come_to(opened: Callable[..., TextFrontend], values: dict[str, Any]) -> tuple[list[dict[str, Any]], torch.Tensor]:
    """History and judged weights of a training on 54 texts."""
    front = opened().with_config(opened(**values).config)
    plan = make_plan(front, make_split(front.manifest, front.split_request()))
    torch.manual_seed(0)
    state: TrainState = new_state(front.new_model(), plan, RUNTIME)
    fit(state, Setup(front, RUNTIME), plan, Silent(), lambda *_: None)
    return state.history, torch.cat([tensor.flatten() for tensor in state.eval_weights().values()])


@pytest.fixture(scope="module")
def ends() -> dict[str, Any]:
    """What trainings without the setting in question came to, by their settings."""
    return {}


@pytest.mark.parametrize("name", TRAINED)
def test_training(name: str, opened: Callable[..., TextFrontend], ends: dict[str, Any]) -> None:
    needed, value = TRAINED[name]
    if str(needed) not in ends:
        ends[str(needed)] = come_to(opened, needed)
    (before, without), (after, with_) = ends[str(needed)], come_to(opened, {**needed, name: value})
    if name in ("epochs", "patience"):
        assert (len(before), len(after)) == {"epochs": (2, 3), "patience": (4, 2)}[name]
    else:
        assert without.shape == with_.shape
        assert not torch.equal(without, with_)


def test_the_same_settings_come_to_the_same(opened: Callable[..., TextFrontend]) -> None:
    """Without this the tests above would show nothing."""
    assert torch.equal(come_to(opened, {"dropout": 0.3})[1], come_to(opened, {"dropout": 0.3})[1])


@pytest.mark.parametrize("name", ABSTENTION)
def test_abstention(name: str) -> None:
    draw = np.random.default_rng(0)
    logits, targets = draw.normal(size=(60, 3)), (draw.random((60, 3)) < 0.3).astype(np.float32)
    found = []
    for values in ({}, {name: ABSTENTION[name]}):
        config = TextConfig.build(values)
        decision = fit_decision(logits, targets, tiny.SPACE, config.thresholds, abstention=config.abstention)
        found.append(decision.abstained(*decision.answers(logits, tiny.SPACE), tiny.SPACE))
    (before,), (after,) = (list(each.values()) for each in found)
    assert not before.any()
    assert after.any()


@pytest.mark.parametrize("name", THRESHOLDS)
def test_thresholds(name: str) -> None:
    draw = np.random.default_rng(0)
    targets = (draw.random((60, 3)) < 0.3).astype(np.float32)
    probabilities = np.clip(0.3 * targets + 0.4 * draw.random((60, 3)), 0.01, 0.99)
    found = []
    for values in ({}, {name: THRESHOLDS[name]}):
        settings = TextConfig.build(values).thresholds
        tasks = fit_thresholds(probabilities, targets, tiny.SPACE, settings)
        found.append(Thresholds(settings.threshold, tasks).of(tiny.SPACE.tasks[0]).tolist())
    assert found[0] != found[1]
