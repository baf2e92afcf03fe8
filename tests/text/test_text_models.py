"""What every model of MODELS owes: shapes, rows judged apart, mixup of pooled embeddings, settings that act."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import tiny_text as tiny
import torch
from torch import Tensor, nn

from samo.data.batch import Mix
from samo.errors import SettingsError
from samo.training.model import EmotionModel
from samo_text.config import ModelSettings
from samo_text.models import MODELS, build_model, require_usable
from samo_text.models.bigru import BiGru, reversed_texts
from samo_text.models.hash_embedding import HashEmbedding
from samo_text.models.textcnn import TextCnn
from samo_text.tokens import HashTokens

NETWORKS = [name for name in MODELS if name != "tfidf"]
SENTENCES = ["i love it , you love it", "so very angry !", "happy", "she is not sad ? she is so happy !"]


def model(name: str, encoders: dict[str, str], **values: Any) -> EmotionModel:
    torch.manual_seed(0)
    where = {"encoder": encoders["bert"]} if name == "encoder" else {"model": name}
    return build_model(tiny.config(**where, **values), values.get("space", tiny.SPACE))


def batch(name: str = "textcnn") -> tuple[Tensor, Tensor]:
    if name == "encoder":
        lists = [torch.tensor(ids) for ids in tiny.tokenizer("bert")(SENTENCES)["input_ids"]]
    else:
        lists = [torch.from_numpy(ids) for ids in HashTokens(24).encode(SENTENCES)]
    lengths = torch.tensor([len(ids) for ids in lists])
    return nn.utils.rnn.pad_sequence(lists, batch_first=True), lengths


# Contract of every model


@pytest.mark.parametrize("name", MODELS)
def test_logits_have_a_column_a_label(name: str, encoders: dict[str, str]) -> None:
    made = model(name, encoders)
    assert isinstance(made, EmotionModel)
    for mode in (True, False):
        made.train(mode)
        for ids, lengths in (batch(name), (torch.full((1, 1), 3), torch.ones(1, dtype=torch.int64))):
            logits = made(ids, lengths)
            assert logits.shape == (len(ids), 3)
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_judged_apart(name: str, encoders: dict[str, str]) -> None:
    made = model(name, encoders).eval()
    ids, lengths = batch(name)
    if name == "tfidf":
        made.load_state_dict({k: torch.randn_like(v) for k, v in made.state_dict().items()})
    with torch.no_grad():
        together = made(ids, lengths)
        for row in range(4):
            assert torch.allclose(made(ids[row : row + 1], lengths[row : row + 1])[0], together[row], atol=1e-5)
        assert torch.allclose(made(ids.flip(0), lengths.flip(0)).flip(0), together, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_state_says_everything(name: str, encoders: dict[str, str]) -> None:
    first, second = model(name, encoders).eval(), model(name, encoders).eval()
    noise = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in first.state_dict().items()}
    for made in (first, second):
        made.load_state_dict(noise)
    with torch.no_grad():
        assert torch.equal(first(*batch(name)), second(*batch(name)))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", [True, False])
def test_bfloat16(name: str, mode: bool, encoders: dict[str, str]) -> None:
    made = model(name, encoders, **({} if name == "tfidf" else {"dropout": 0.0})).train(mode)
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    expected = made(*batch(name))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = made(*batch(name))
    assert torch.allclose(logits.float(), expected, atol=0.05)
    if logits.requires_grad:
        logits.float().sum().backward()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_reaches_every_parameter(name: str, encoders: dict[str, str]) -> None:
    made = model(name, encoders, dropout=0.0, pooling="mean-max+attention").train()
    made(*batch(name)).square().sum().backward()
    for label, parameter in made.named_parameters():
        assert parameter.grad is not None, label
        # Adding one number to all of a query's scores changes no softmax.
        assert (parameter.grad != 0).any() or label.endswith("key.bias"), label


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_seed_makes_the_same_network(name: str, encoders: dict[str, str]) -> None:
    one, other = model(name, encoders).state_dict(), model(name, encoders).state_dict()
    assert all(torch.equal(one[label], other[label]) for label in one)


@pytest.mark.parametrize("name", NETWORKS)
def test_mixup_mixes_pooled_embeddings_in_training_alone(name: str, encoders: dict[str, str]) -> None:
    made = model(name, encoders, dropout=0.0)
    made.body.eval()
    mix = Mix(torch.tensor([1, 0, 3]), torch.tensor([0.9, 0.7, 0.6]))
    ids, lengths = batch(name)
    with torch.no_grad():
        pooled = made.pooling(made.states(ids, lengths), lengths)
        expected = made.head(torch.stack([0.9 * pooled[0] + 0.1 * pooled[1], 0.7 * pooled[1] + 0.3 * pooled[0]]))
        made.training = True
        mixed = made(ids, lengths, None, mix)
        made.training = False
        assert mixed.shape == (3, 3)
        assert torch.allclose(mixed[:2], expected, atol=1e-6)
        assert torch.equal(made(ids, lengths, None, mix), made(ids, lengths))


@pytest.mark.parametrize("name", NETWORKS)
def test_several_dropout_masks_share_one_body(name: str, encoders: dict[str, str]) -> None:
    made = model(name, encoders, dropout=0.5, dropout_samples=5, dropout_inference="mean")
    assert made.train()(*batch(name)).shape == (5, 4, 3)
    assert made.eval()(*batch(name)).shape == (4, 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_kept_states_skip_the_body(name: str, encoders: dict[str, str]) -> None:
    made = model(name, encoders, pooling="cls+mean").eval()
    ids, lengths = batch(name)
    with torch.no_grad():
        states = made.states(ids, lengths)
        assert states.shape == (*ids.shape, made.state_width)
        expected = made(ids, lengths)
        made.body = None
        assert torch.equal(made(states, lengths), expected)


@pytest.mark.parametrize("name", ["textcnn", "bigru", "tfidf"])
def test_everything_learns_at_one_rate_from_the_first_epoch(name: str, encoders: dict[str, str]) -> None:
    made = model(name, encoders)
    for epoch in range(3):
        made.begin_epoch(epoch)
        assert all(parameter.requires_grad for parameter in made.parameters())
    assert {made.lr_scale(label) for label in made.state_dict()} == {1.0}


# Word vectors


def test_the_vector_of_a_word_is_the_sum_of_two_rows() -> None:
    embedding = HashEmbedding(256, 4)
    low, high = 1000, 2000
    found = embedding(torch.tensor([[high * 2**31 + low, 7]]), torch.tensor([[True, False]]))
    expected = embedding.table.weight[1000 % 256] + embedding.table.weight[2000 % 256]
    assert torch.equal(found, torch.stack([expected, torch.zeros(4)])[None])
    # A collision of one half leaves the other.
    other = embedding(torch.tensor([[(high + 1) * 2**31 + low]]), torch.tensor([[True]]))
    assert not torch.allclose(other[0, 0], expected)
    assert embedding(torch.tensor([[2**62 - 1]]), torch.tensor([[True]])).isfinite().all()


def test_words_are_spread_over_the_table() -> None:
    ids = torch.from_numpy(HashTokens(2**14).encode([" ".join(f"word{k}" for k in range(10_000))])[0])
    for half in (ids % 2**31, ids // 2**31):
        counts = torch.bincount(half % 1000, minlength=1000).float()
        assert counts.mean() == 10.0
        # Poisson: variance 10; the deviation of its estimate from 1000 boxes is 0.46.
        assert 8.0 < counts.var().item() < 12.0


# Text CNN and BiGRU by hand


def test_a_filter_sees_its_neighbours() -> None:
    settings = tiny.config(filters=4).model
    torch.manual_seed(0)
    body = TextCnn(settings)
    ids, lengths = batch()
    states = body(ids, lengths)
    assert states.shape == (4, ids.shape[1], 20)
    words = torch.nn.functional.pad(body.embedding(ids, ids != 0), (0, 0, 2, 2))
    for width, convolve in zip((1, 2, 3, 4, 5), body.filters, strict=True):
        first = 4 * (width - 1)
        for t in range(3):
            # Even widths look one word further ahead than back.
            begin = t + 2 - (width - 1) // 2
            window = words[:, begin : begin + width].transpose(1, 2)
            answer = (window[:, None] * convolve.weight).sum(dim=(2, 3)) + convolve.bias
            expected = torch.nn.functional.gelu(answer)
            assert torch.allclose(states[:, t, first : first + 4], expected, atol=1e-5)


def test_texts_are_turned_round() -> None:
    states = torch.arange(8.0).view(2, 4, 1)
    found = reversed_texts(states, torch.tensor([3, 0]))[:, :, 0]
    assert found.tolist() == [[2, 1, 0, 3], [4, 5, 6, 7]]


def test_bigru_is_torchs_on_packed_sequences() -> None:
    torch.manual_seed(0)
    body = BiGru(tiny.config(model="bigru").model)
    judge = nn.GRU(8, 6, batch_first=True, bidirectional=True)
    state = {f"{k}": v for k, v in body.ahead.state_dict().items()}
    judge.load_state_dict(state | {f"{k}_reverse": v for k, v in body.back.state_dict().items()})
    ids, lengths = batch()
    words = body.embedding(ids, ids != 0)
    packed = nn.utils.rnn.pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(judge(packed)[0], batch_first=True)
    assert torch.allclose(body(ids, lengths) * (ids != 0)[:, :, None], expected, atol=1e-6)


def test_sizes_act() -> None:
    assert TextCnn(tiny.config(filters=7).model).width == 35
    assert BiGru(tiny.config(model="bigru", gru_units=9).model).width == 18
    for made in (TextCnn, BiGru):
        name = "textcnn" if made is TextCnn else "bigru"
        body = made(tiny.config(model=name, embedding_width=12, hash_buckets=300).model)
        assert body.embedding.table.weight.shape == (300, 12)


# Settings


def test_an_unknown_model_gets_a_suggestion() -> None:
    for ask in (require_usable, lambda settings: build_model(tiny.config(model="textcn"), tiny.SPACE)):
        with pytest.raises(SettingsError, match="unknown model 'textcn'") as caught:
            ask(ModelSettings(model="textcn"))
        assert caught.value.hint == "did you mean 'textcnn'? valid: textcnn, bigru, encoder, tfidf"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model": "tfidf", "embedding_width": 8},
            "`embedding_width` acts only together with `model` textcnn or bigru",
        ),
        ({"encoder": "x", "hash_buckets": 512}, "`hash_buckets` acts only together with `model` textcnn or bigru"),
        ({"model": "bigru", "filters": 8}, "`filters` acts only together with `model=textcnn`"),
        ({"gru_units": 8}, "`gru_units` acts only together with `model=bigru`"),
        ({"ngrams": 3}, "`ngrams` acts only together with `model=tfidf`"),
        ({"layer_lr_decay": 0.9}, "`layer_lr_decay` acts only together with `model=encoder`"),
        ({"encoder": "x", "model": "textcnn"}, "`encoder` acts only together with `model=encoder`"),
        (
            {"encoder": "x", "freeze_encoder": True, "layer_lr_decay": 0.9},
            "`layer_lr_decay` acts only together with an encoder that learns, not `freeze_encoder`",
        ),
    ],
)
def test_settings_of_another_model_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        tiny.config(**values)
    assert caught.value.message == message


# A setting is not done before a test shows what it does.
SHOWN_BY = {
    "model": "test_text_models.test_logits_have_a_column_a_label",
    "encoder": "test_encoders.test_states_are_the_librarys",
    "pooling": "test_pooling.test_by_hand",
    "layers": "test_pooling.test_layers_are_weighed_joined_or_left",
    "state_mask": "test_pooling.test_masked_states_are_left_out_in_training",
    "state_mask_span": "test_pooling.test_masked_states_are_left_out_in_training",
    "head": "test_states.test_a_logistic_regression_on_all_layers",
    "head_centres": "test_states.test_a_kernel_on_all_layers",
    "head_layers": "test_heads.test_layers_and_units",
    "head_hidden": "test_heads.test_layers_and_units",
    "head_intermediate": "test_heads.test_intermediate_layer_by_hand",
    "head_residual": "test_heads.test_residual_by_hand",
    "head_norm": "test_heads.test_norm_by_hand",
    "dropout": "test_heads.test_dropout_stands_before_each_layer",
    "dropout_samples": "test_heads.test_training_gives_logits_of_every_mask",
    "dropout_inference": "test_heads.test_mean_and_vote_by_hand",
    "freeze_encoder": "test_encoders.test_a_frozen_encoder_never_learns_and_never_drops",
    "unfreeze_epochs": "test_encoders.test_layers_open_from_the_top",
    "encoder_lr_scale": "test_encoders.test_learning_rates_by_name",
    "layer_lr_decay": "test_encoders.test_learning_rates_by_name",
    "embedding_width": "test_text_models.test_sizes_act",
    "hash_buckets": "test_text_models.test_sizes_act",
    "filters": "test_text_models.test_sizes_act",
    "gru_units": "test_text_models.test_sizes_act",
    "ngrams": "test_tfidf.test_settings_act",
    "min_count": "test_tfidf.test_settings_act",
    "inverse_l2": "test_tfidf.test_settings_act",
}


@pytest.mark.parametrize("name", ModelSettings.model_fields)
def test_every_setting_is_shown_to_act(name: str) -> None:
    module, _, test = SHOWN_BY[name].partition(".")
    assert callable(getattr(import_module(module), test))
