"""``--encoder`` for speech: features and states as ``transformers`` has them, kept once, and a head on top."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_audio as tiny
import tiny_speech
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel
from transformers.models.whisper.modeling_whisper import WhisperModel

import samo
from samo.data.batch import Draws
from samo.data.splits import make_split
from samo.encoders import states
from samo.encoders.fitted_heads import LogisticHead
from samo.encoders.kernel import fit_kernel
from samo.encoders.logreg import fit_logistic, inner_folds, out_of_fold_logits
from samo.errors import ModelFileError, SettingsError
from samo.evaluation.predictions import Predictions
from samo.modalities import preset_files
from samo.runs.artifacts import create_run
from samo.runs.evaluate import evaluate_run
from samo.runs.run import Run
from samo.runs.training import train_run
from samo.settings import resolve
from samo.tasks import LabelSpace, Task
from samo.training.setup import Setup
from samo.training.trainer import predict_logits
from samo_audio.audio_io import read, window_starts
from samo_audio.config import AudioConfig
from samo_audio.extractors import StandardWaveform, WhisperMel
from samo_audio.features import to_peak
from samo_audio.frontend import AudioFrontend
from samo_audio.models.encoder import SpeechEncoder, SpeechModel, encoder
from samo_audio.models.pretrained import load_pretrained, refuse_others
from samo_audio.views import change_speed, viewed, views_of

SPACE = LabelSpace((Task("emotion", tiny.LABELS),))
SR, HIDDEN, N_STATES = tiny_speech.SR, tiny_speech.HIDDEN, tiny_speech.LAYERS + 1
WINDOW_S = 0.5
WINDOW = round(WINDOW_S * SR)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder for each family, and another Whisper."""
    root = tmp_path_factory.mktemp("encoders")
    found = {family: str(tiny_speech.encoder(root / family, family)) for family in tiny_speech.FAMILIES}
    return {**found, "another": str(tiny_speech.encoder(root / "another", seed=1))}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "states"


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many windows went through an encoder in each of its calls."""
    seen: list[int] = []
    real = SpeechModel.states

    def counted(self: SpeechModel, inputs: Tensor, lengths: Tensor, draws: Draws | None = None) -> Tensor:
        seen.append(len(inputs))
        return real(self, inputs, lengths, draws)

    monkeypatch.setattr(SpeechModel, "states", counted)
    return seen


def config(folder: str, **values: Any) -> AudioConfig:
    return AudioConfig.build({"encoder": folder, "duration": WINDOW_S, **values})


def built(folder: str, **values: Any) -> SpeechModel:
    torch.manual_seed(0)
    return encoder(config(folder, **values), SPACE, None).eval()


def opened(table: Path, folder: str, **values: Any) -> AudioFrontend:
    given = {"dataset": "table", "data_root": str(table), "split": "table", **values}
    return AudioFrontend.open(config(folder, **given), lambda line: None)


def clips(*seconds: float) -> tuple[list[np.ndarray], Tensor, Tensor]:
    """Sounds of these lengths; padded to the window, and their lengths."""
    sounds = [tiny.sound(s, tiny.LABELS[k % 3], k, SR).astype(np.float32) for k, s in enumerate(seconds)]
    padded = np.zeros((len(sounds), WINDOW), np.float32)
    for row, sound in zip(padded, sounds, strict=True):
        row[: len(sound)] = sound
    return sounds, torch.from_numpy(padded), torch.tensor([len(sound) for sound in sounds])


# Features and states


def test_whisper_mel_is_that_of_transformers() -> None:
    sounds, padded, lengths = clips(0.5, 0.31, 0.05)
    for gain in (1.0, 1e-3, 0.0):
        reference = tiny_speech.extractor("whisper")(
            [gain * sound for sound in sounds],
            sampling_rate=SR,
            max_length=WINDOW,
            padding="max_length",
            return_tensors="pt",
        ).input_features
        own = WhisperMel(tiny_speech.extractor("whisper").to_dict())(gain * padded, lengths)
        assert own.shape == (3, 20, WINDOW // 160)
        torch.testing.assert_close(own, reference, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["wav2vec2-large", "wavlm"])
def test_a_waveform_is_normalised_as_in_transformers(family: str) -> None:
    """wav2vec 2.0's is brought to variance 1, WavLM's stays."""
    sounds, padded, lengths = clips(0.5, 0.31, 0.05)
    made = tiny_speech.extractor(family)
    reference = made(sounds, sampling_rate=SR, max_length=WINDOW, padding="max_length", return_tensors="pt")
    own = StandardWaveform(made.to_dict())(padded, lengths)
    torch.testing.assert_close(own, reference.input_values, atol=1e-5, rtol=0)
    assert (own[0].std() == pytest.approx(1.0, abs=1e-3)) == (family == "wav2vec2-large")


@pytest.mark.parametrize("family", tiny_speech.FAMILIES)
def test_states_of_all_layers_are_those_of_transformers(family: str, encoders: dict[str, str]) -> None:
    """Of a clip shorter than the window where its extractor gives a mask."""
    model = built(encoders[family])
    _, padded, lengths = clips(0.5, 0.31 if family in tiny_speech.MASKED else 0.5)
    made = tiny_speech.extractor(family)
    sounds = [clip[:n].numpy() for clip, n in zip(to_peak(padded), lengths, strict=True)]
    inputs = made(sounds, sampling_rate=SR, max_length=WINDOW, padding="max_length", return_tensors="pt")
    network = AutoModel.from_pretrained(encoders[family]).eval()
    if family == "whisper":
        network = network.encoder
        network.config.max_source_positions = WINDOW // 320
        positions = network.embed_positions.weight[: WINDOW // 320]
        network.embed_positions = torch.nn.Embedding.from_pretrained(positions)
    with torch.no_grad():
        reference = network(**inputs, output_hidden_states=True)
        own = model.states(padded, lengths)
    expected = torch.cat([*reference.hidden_states[:-1], reference.last_hidden_state], dim=2)
    assert len(reference.hidden_states) == N_STATES
    assert own.shape == (2, len(expected[0]), N_STATES * HIDDEN)
    n_valid = model.state_lengths(lengths).tolist()
    assert n_valid[0] == len(expected[0])
    for row, n in enumerate(n_valid):
        torch.testing.assert_close(own[row, :n], expected[row, :n], atol=1e-4, rtol=1e-4)
    layers = own.reshape(2, -1, N_STATES, HIDDEN)
    assert all((layers[:, :, k] - layers[:, :, k + 1]).abs().max() > 1e-3 for k in range(N_STATES - 1))


@pytest.mark.parametrize("family", ["wav2vec2-large", "wavlm"])
def test_what_has_a_mask_answers_a_short_clip_as_if_it_stood_alone(family: str, encoders: dict[str, str]) -> None:
    model = built(encoders[family], level="as-is")
    sounds, padded, lengths = clips(0.5, 0.31, 0.012)
    alone = AutoModel.from_pretrained(encoders[family]).eval()
    made = tiny_speech.extractor(family)
    with torch.no_grad():
        own = model.states(padded, lengths)[:, :, -HIDDEN:]
        for row, sound in enumerate(sounds):
            given = made([sound], sampling_rate=SR, return_tensors="pt")
            expected = alone(given.input_values).last_hidden_state[0]
            n = int(model.state_lengths(lengths)[row])
            assert n == len(expected)
            torch.testing.assert_close(own[row, :n], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", tiny_speech.FAMILIES)
def test_rows_are_answered_apart_and_however_short(family: str, encoders: dict[str, str]) -> None:
    model = built(encoders[family])
    _, padded, lengths = clips(0.5, 0.31, 0.0001, 0.2)
    with torch.no_grad():
        together = model(padded, lengths)
        alone = torch.cat([model(padded[k : k + 1], lengths[k : k + 1]) for k in range(4)])
    assert together.isfinite().all()
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_whisper_pools_the_states_of_the_clip_alone(encoders: dict[str, str]) -> None:
    """A state of every 20 ms that has begun."""
    model = built(encoders["whisper"], pooling="mean", layers="last")
    _, padded, _ = clips(0.5)
    for samples, n in ((1, 1), (320, 1), (321, 2), (WINDOW, 25)):
        lengths = torch.tensor([samples])
        assert model.state_lengths(lengths).tolist() == [n]
        with torch.no_grad():
            mean = model.states(padded, lengths)[0, :n].mean(dim=0)
            torch.testing.assert_close(model.pooled(padded, lengths)[0], mean)


def test_whispers_positions_are_cut_to_the_window(encoders: dict[str, str]) -> None:
    whole = AutoModel.from_pretrained(encoders["whisper"]).encoder.embed_positions.weight
    for seconds, n in ((0.5, 25), (0.501, 26), (2.0, 100)):
        network = built(encoders["whisper"], duration=seconds).body.network
        assert network.config.max_source_positions == n
        assert torch.equal(network.embed_positions.weight, whole[:n])
        model = built(encoders["whisper"], duration=seconds)
        assert model(torch.zeros(1, round(seconds * SR)), torch.tensor([100])).isfinite().all()
    with pytest.raises(SettingsError, match=r"`duration=2\.1` is more than the 2 s the encoder has positions for"):
        built(encoders["whisper"], duration=2.1)


def test_the_encoder_half_is_read_with_or_without_the_decoder(encoders: dict[str, str], tmp_path: Path) -> None:
    network = WhisperModel.from_pretrained(encoders["whisper"])
    halved = tmp_path / "half"
    network.save_pretrained(halved, state_dict={f"encoder.{k}": v for k, v in network.encoder.state_dict().items()})
    shutil.copy(Path(encoders["whisper"]) / "preprocessor_config.json", halved)
    one, other = (load_pretrained(place)[0] for place in (encoders["whisper"], str(halved)))
    assert one.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


# Rates and freezing by layer


@pytest.mark.parametrize("family", tiny_speech.FAMILIES)
def test_layers_are_told_apart(family: str, encoders: dict[str, str]) -> None:
    body = built(encoders[family], freeze_encoder=False, layer_lr_decay=0.5, encoder_lr_scale=1.0).body
    assert (body.n_layers, body.n_states) == (tiny_speech.LAYERS, N_STATES)
    levels = {name: body.level(name) for name, _ in body.network.named_parameters()}
    assert set(levels.values()) == set(range(body.n_layers + 1))
    prefix = "layers" if family == "whisper" else "encoder.layers"
    for name, level in levels.items():
        if name.startswith(f"{prefix}."):
            assert level == int(name.removeprefix(f"{prefix}.").partition(".")[0]) + 1
    below = ("conv1.bias", "embed_positions.weight") if family == "whisper" else ("feature_projection.",)
    assert {level for name, level in levels.items() if name.startswith(below)} == {0}
    assert {level for name, level in levels.items() if "conv" in name} == {0}
    norm = "layer_norm.bias" if family == "whisper" else "encoder.layer_norm.bias"
    behind = family in ("whisper", "wav2vec2-large", "wavlm")
    assert levels[norm] == (body.n_layers if behind else 0)
    assert body.lr_scale(f"network.{prefix}.1.final_layer_norm.bias") == 0.5


def test_unfreezing_from_the_top(encoders: dict[str, str]) -> None:
    body = built(encoders["whisper"], freeze_encoder=False, unfreeze_epochs=1).body
    opened_by = []
    for epoch in range(body.epochs_to_open()):
        body.begin_epoch(epoch)
        opened_by.append({name for name, p in body.network.named_parameters() if p.requires_grad})
    assert not opened_by[0]
    assert all(before < after for before, after in pairwise(opened_by))
    assert all(name.startswith(("layers.2.", "layer_norm.")) for name in opened_by[1])
    # The table of positions is not for learning.
    assert opened_by[-1] == {name for name, _ in body.network.named_parameters()} - {"embed_positions.weight"}


@pytest.mark.parametrize("family", ["whisper", "wav2vec2"])
def test_nothing_is_drawn_but_from_torchs_own_generator(family: str, encoders: dict[str, str]) -> None:
    """transformers would draw masks of wav2vec 2.0 from numpy's, which no seed of a run reaches."""
    model = built(encoders[family], freeze_encoder=False, dropout=0.0).train()
    _, padded, lengths = clips(0.5, 0.4)
    state = np.random.get_state()[1].copy()
    answers = []
    for _ in range(2):
        torch.manual_seed(0)
        answers.append(model(padded, lengths))
    assert torch.equal(*answers)
    assert np.array_equal(np.random.get_state()[1], state)


# Level


@pytest.mark.parametrize(
    ("family", "level"),
    [*((family, level) for family in ("whisper", "wavlm") for level in ("peak", "active")), ("whisper", "as-is")],
)
def test_loudness_says_nothing(family: str, level: str, encoders: dict[str, str]) -> None:
    model = built(encoders[family], level=level)
    _, padded, lengths = clips(0.5, 0.31)
    with torch.no_grad():
        expected = model(padded, lengths)
        for gain_db in (-20.0, 20.0):
            found = model(padded * 10.0 ** (gain_db / 20.0), lengths)
            alike = torch.allclose(found, expected, atol=1e-4, rtol=1e-4)
            assert alike == (level != "as-is"), (gain_db, (found - expected).abs().max())


def test_peak_level_by_hand() -> None:
    given = torch.tensor([[0.25, -0.5, 0.0], [0.0, 0.0, 0.0], [0.00005, 0.0, -0.00002]])
    assert to_peak(given).tolist() == [[0.5, -1, 0], [0, 0, 0], [pytest.approx(0.5), 0, pytest.approx(-0.2)]]


# What is kept


def test_statistics_are_kept_and_answer_as_the_clips(
    table: Path, encoders: dict[str, str], cache: Path, heard: list[int]
) -> None:
    """Of 24 clips in 42 windows; the encoder hears them once for every head, pooling of these parts and seed."""
    front = opened(table, encoders["whisper"], pooling="mean-sd+max")
    torch.manual_seed(0)
    model = front.new_model().eval()
    plain = front.with_config(front.config)  # whose model was not made
    rows = np.arange(24)
    assert next(plain.eval_batches(rows, 8)).inputs.shape == (8, WINDOW)
    kept = next(front.eval_batches(rows, 8))
    assert kept.inputs.shape == (8, 3, N_STATES, HIDDEN)
    assert heard == [16, 16, 10]
    np.testing.assert_allclose(
        predict_logits(model, Setup(front, tiny.CPU), rows), predict_logits(model, Setup(plain, tiny.CPU), rows),
        atol=1e-5,
    )  # fmt: skip
    heard.clear()
    for values in ({"head": "logreg"}, {"pooling": "sd"}, {"layers": "last", "head": "logreg"}, {"seed": 3}):
        again = opened(table, encoders["whisper"], **values)
        again.new_model()
        assert next(again.eval_batches(rows, 8)).inputs.shape == (8, 3, N_STATES, HIDDEN)
    assert heard == []
    assert len(list(cache.iterdir())) == 1


def test_frames_are_kept_where_statistics_are_not_enough(
    table: Path, encoders: dict[str, str], cache: Path, heard: list[int]
) -> None:
    """In half precision, of valid frames alone."""
    front = opened(table, encoders["whisper"], pooling="attention")
    torch.manual_seed(0)
    model = front.new_model().eval()
    plain = front.with_config(front.config)
    rows = np.arange(24)
    expected = predict_logits(model, Setup(plain, tiny.CPU), rows)
    np.testing.assert_allclose(predict_logits(model, Setup(front, tiny.CPU), rows), expected, atol=2e-3)
    (path,) = cache.iterdir()
    # Windows of 0.2 and 0.5 s, two of 0.9 and three of 1.3 s, of six speakers.
    seconds = (0.2, *[0.5] * 6)
    assert path.stat().st_size == 2 * 6 * sum(round(50 * s) for s in seconds) * N_STATES * HIDDEN


def test_what_must_not_share_what_is_kept(table: Path, encoders: dict[str, str], cache: Path, heard: list[int]) -> None:
    """Other weights, levels, windows, trimming."""
    first = ({}, {"level": "as-is"}, {"duration": 0.4}, {"trim_db": 5.0})
    fronts = [opened(table, encoders["whisper"], **values) for values in first]
    for n, front in enumerate([*fronts, opened(table, encoders["another"])], start=1):
        front.new_model()
        next(front.eval_batches(np.arange(2), 2))
        assert len(list(cache.iterdir())) == n


def test_training_sees_one_window_of_a_clip_at_a_time(table: Path, encoders: dict[str, str], cache: Path) -> None:
    front = opened(table, encoders["whisper"])
    front.new_model()
    rows = np.array([3])  # of 1.3 s
    windows = [tuple(batch.inputs.flatten().tolist()) for batch in front.eval_batches(rows, 1)]
    assert len(set(windows)) == 3
    drawn = [front.train_batch(rows, Draws(0, epoch, rows)) for epoch in range(20)]
    assert {tuple(batch.inputs.flatten().tolist()) for batch in drawn} == set(windows)
    assert np.array_equal(drawn[0].targets.numpy(), front.manifest.targets[rows])


def test_an_encoder_that_learns_keeps_nothing_and_hears_augmented_clips(
    table: Path, encoders: dict[str, str], cache: Path
) -> None:
    more = {"freeze_encoder": False, "use_specaug": True, "specaug_time": 25, "dropout": 0.0}
    front = opened(table, encoders["whisper"], **more)
    model = front.new_model().train()
    rows = np.arange(4)
    batch = front.train_batch(rows, Draws(0, 0, rows))
    assert batch.inputs.shape == (4, WINDOW)
    assert not cache.is_dir()
    with torch.no_grad():
        plain, masked = model(batch.inputs, batch.lengths), model(batch.inputs, batch.lengths, batch.draws)
        assert not torch.allclose(plain, masked, atol=1e-4)
        assert torch.equal(model.eval()(batch.inputs, batch.lengths, batch.draws), model(batch.inputs, batch.lengths))


# Runs


class Silent:
    """An observer that looks away."""

    def on_step(self, *_: object) -> None:
        """Nothing."""

    def on_epoch(self, *_: object) -> None:
        """Nothing."""


def trained(front: AudioFrontend, root: Path) -> Run:
    run = create_run(root, "mine", "")
    train_run(run, Setup(front, tiny.CPU), Silent())
    return run


@pytest.mark.parametrize(
    "values",
    [{"head": "logreg"}, {"epochs": 3, "batch_size": 4, "lr": 0.05, "head_layers": 2, "head_norm": True}],
    ids=["logreg", "head"],
)
def test_a_run_answers_from_its_own_files(
    values: dict[str, Any], table: Path, encoders: dict[str, str], cache: Path, tmp_path: Path, heard: list[int]
) -> None:
    folder = Path(shutil.copytree(encoders["whisper"], tmp_path / "encoder"))
    # As Whisper base is published. The run keeps weights of float32, and must find the same states.
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, "dtype": "float16"}))
    front = opened(table, str(folder), **values)
    run = trained(front, tmp_path)
    assert sum(heard) == 42
    # Calibration and evaluation take what is kept.
    other = opened(table, str(folder), **values)
    evaluate_run(run, Setup(other, tiny.CPU), "test")
    assert sum(heard) == 42
    start = encoder(front.config, front.manifest.label_space, None).state_dict()
    weights = load_file(run.path("best_model.safetensors"))
    changed = {name for name in weights if not torch.equal(weights[name], start[name])}
    assert {name for name in weights if not name.startswith("body.")} >= changed >= {"head.output.weight"}
    if "head" not in values:
        # Over the training windows, mean and sd of every statistic of every layer.
        batches = list(front.eval_batches(front.manifest.rows(run.split.train), 8))
        learned = torch.cat([batch.inputs for batch in batches])
        torch.testing.assert_close(weights["pooling.centre"], learned.mean(dim=0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(weights["pooling.scale"], learned.std(dim=0, unbiased=False), atol=1e-5, rtol=1e-4)
    shutil.rmtree(folder)
    ready = samo.load(run.folder)
    stored = Predictions.load(run.path("predictions.test.npz"))
    rows = front.manifest.rows(stored.ids)
    paths = [front.manifest.path(front.manifest.items[row]) for row in rows]
    answers = ready.predict(paths)
    labels = [tiny.LABELS[k] for k in stored.logits.argmax(axis=1)]
    assert [answer.label for answer in answers] == labels
    clip = read(paths[-1], 44_100).waveform
    for gain_db in (-20.0, 0.0, 20.0):
        assert ready.predict(clip * 10.0 ** (gain_db / 20.0), sr=44_100).label == labels[-1]


@pytest.mark.parametrize(
    ("values", "speeds"),
    [({}, (1.0,)), ({"speed": 0.2, "speed_steps": 1}, (1.0, math.exp(-0.2), math.exp(0.2)))],
    ids=["as they are", "at three speeds"],
)
def test_a_logistic_regression_takes_no_steps(
    values: dict[str, Any],
    speeds: tuple[float, ...],
    table: Path,
    encoders: dict[str, str],
    cache: Path,
    tmp_path: Path,
) -> None:
    """It is fitted on the training clips' windows at the speeds asked for, and on nothing else."""
    front = opened(table, encoders["whisper"], head="logreg", **values)
    run = trained(front, tmp_path)
    assert run.trained["epochs"] == 1
    assert len(run.history) == 1
    model = front.new_model()
    assert isinstance(model, SpeechModel)
    assert isinstance(model.head, LogisticHead)
    assert model.head.output.weight.shape == (3, 2 * N_STATES * HIDDEN)
    assert not any(p.requires_grad for p in model.parameters())
    # By hand: every window of a training clip as a row, mean and sd of every layer side by side, folds by speaker.
    features, targets, speakers = [], [], []
    for speed, row in product(speeds, front.manifest.rows(run.split.train)):
        clip = front.waveforms.waveform(row)
        for start in window_starts(len(clip), WINDOW):
            window = torch.from_numpy(change_speed(clip[start : start + int(WINDOW * speed)], speed))[None]
            samples = torch.tensor([window.shape[1]])
            with torch.no_grad():
                states = model.states(torch.nn.functional.pad(window, (0, WINDOW - window.shape[1])), samples)
            valid = states[0, : -(-int(samples) // 320)]
            features.append(torch.cat([valid.mean(dim=0), valid.std(dim=0, unbiased=False)]).numpy())
            targets.append(front.manifest.targets[row])
            speakers.append(front.manifest.items[row].group)
    n_plain = len(features) // len(speeds)
    given = (np.stack(features), np.stack(targets), front.manifest.label_space)
    expected = fit_logistic(*given, groups=speakers, n_plain=n_plain)
    fitted = load_file(run.path("fitted.safetensors"))
    assert set(fitted) == {"head.output.weight", "head.output.bias"}
    for name, tensor in expected.items():
        torch.testing.assert_close(fitted[f"head.output.{name}"], tensor, atol=1e-3, rtol=1e-3)
    # What a student may learn from: every clip is answered without its speaker, by the mean over its windows.
    each = out_of_fold_logits(*given, groups=speakers, n_plain=n_plain)
    rows = front.manifest.rows(run.split.train)
    owners = np.repeat(rows, [len(window_starts(int(front.waveforms.lengths[row]), WINDOW)) for row in rows])
    means = np.stack([each[: len(owners)][owners == row].mean(axis=0) for row in rows])
    np.testing.assert_allclose(front.out_of_fold(rows), means, atol=1e-2)


def test_a_head_hears_one_speed_of_a_clip_at_a_time(
    table: Path, encoders: dict[str, str], cache: Path, heard: list[int]
) -> None:
    """What is kept of the clips as they are serves both; validation and test hear nothing else."""
    opened(table, encoders["whisper"]).new_model()
    front = opened(table, encoders["whisper"], speed=0.3, speed_steps=2)
    model = front.new_model()
    rows = np.array([0])  # of 0.2 s: one window
    [plain] = front.eval_batches(rows, 4)
    assert len(list(cache.iterdir())) == 5
    drawn = [front.train_batch(rows, Draws(0, epoch, rows)).inputs for epoch in range(60)]
    speeds = {tuple(one.flatten().tolist()) for one in drawn}
    assert len(speeds) == 5
    assert tuple(plain.inputs.flatten().tolist()) in speeds
    # The same as the model makes of the clip at the slowest speed, e^-0.3.
    slow = torch.from_numpy(change_speed(front.waveforms.waveform(0), math.exp(-0.3)))[None]
    with torch.no_grad():
        statistics = model.eval().statistics(torch.nn.functional.pad(slow, (0, WINDOW - slow.shape[1])),
                                             torch.tensor([slow.shape[1]]))  # fmt: skip
    assert any(torch.allclose(one, statistics, atol=1e-5) for one in drawn)


def test_only_clips_to_learn_from_are_heard_at_other_speeds(
    table: Path, encoders: dict[str, str], cache: Path, heard: list[int]
) -> None:
    """Another fold's clips are added; those of the first are not heard again."""
    front = opened(table, encoders["whisper"], speed=0.3, speed_steps=1)
    train = front.manifest.rows(make_split(front.manifest, front.split_request()).train)
    others = np.setdiff1d(np.arange(len(front.manifest.items)), train)
    n_windows = [len(window_starts(int(length), WINDOW)) for length in front.waveforms.lengths]
    n_all, n_learned = sum(n_windows), sum(n_windows[row] for row in train)
    assert 0 < n_learned < n_all
    front.new_model()
    list(front.eval_batches(others, 64))
    assert sum(heard) == n_all + 2 * n_learned
    # By the rows that a head is fitted on, whatever the settings' split.
    again = opened(table, encoders["whisper"], speed=0.3, speed_steps=1)
    again.new_model()
    learned = np.concatenate([train[2:], others[:2]])
    batches = list(again._learning_batches(learned))
    n_more = sum(n_windows[row] for row in others[:2])
    assert sum(heard) == n_all + 2 * (n_learned + n_more)
    assert sum(len(batch.rows) for batch in batches) == 3 * sum(n_windows[row] for row in learned)
    # Asked for in a training all the same, they are heard as they are.
    rows = np.repeat(train[:1], 20)
    plain = np.concatenate([batch.inputs for batch in again.eval_batches(train[:1], 64)])
    drawn = again.train_batch(rows, Draws(0, 1, rows)).inputs.numpy()
    assert all(any(np.array_equal(one, window) for window in plain) for one in drawn)


def test_all_speeds_are_kept_or_none(
    table: Path, encoders: dict[str, str], cache: Path, heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each speed by itself would fit; what they take together counts, before one is made."""
    front = opened(table, encoders["whisper"])
    n_windows = sum(len(window_starts(int(length), WINDOW)) for length in front.waveforms.lengths)
    n_bytes = 4 * 3 * N_STATES * HIDDEN * n_windows
    monkeypatch.setattr(states, "MOST_BYTES", 3 * n_bytes)
    for values, kept in (({"speed_steps": 1}, 3), ({"speed_steps": 2}, 3)):
        many = opened(table, encoders["whisper"], speed=0.3, **values)
        many.new_model()
        list(many.eval_batches(np.arange(2), 4))
        assert len(list(cache.iterdir())) == kept
    monkeypatch.setattr(states, "MOST_BYTES", 3 * n_bytes - 1)
    shutil.rmtree(cache)
    heard.clear()
    last = opened(table, encoders["whisper"], speed=0.3, speed_steps=1)
    last.new_model()
    list(last.eval_batches(np.arange(2), 4))
    assert heard == []
    assert not cache.exists()


def test_states_that_do_not_fit_name_the_settings_that_multiply_them(
    table: Path, encoders: dict[str, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = {"speed": 0.2, "speed_steps": 1, "tta_speed": 0.2, "tta_shift": 0.05}
    n_windows = sum(len(window_starts(int(n), WINDOW)) for n in opened(table, encoders["whisper"]).waveforms.lengths)
    n_bytes, each = 4 * 3 * N_STATES * HIDDEN * n_windows, ("`speed_steps`", "`tta_speed`", "`tta_shift`")
    pairs = [f"{a} and {b}" for a, b in ((each[0], each[1]), (each[0], each[2]), (each[1], each[2]))]
    notes: list[str] = []
    for room, names in (
        (7 * n_bytes - 1, each),
        (5 * n_bytes - 1, pairs),
        (3 * n_bytes - 1, ["`speed_steps` and `tta_speed` and `tta_shift`"]),
    ):
        monkeypatch.setattr(states, "MOST_BYTES", room)
        front = AudioFrontend.open(opened(table, encoders["whisper"], **several).config, notes.append)
        front.new_model()
        list(front.eval_batches(np.arange(1), 4))
        assert notes[-1].endswith(f"; those {' or '.join(f'without {name}' for name in names)} are kept")
        assert all(f"0.0 GB of it for {name}, " in notes[-1] for name in each)
    # Of clips of one window copies are the views: both settings make them.
    both = {"speed": 0.2, "speed_steps": 1, "tta_speed": 0.2, "duration": 2.0}
    front = AudioFrontend.open(opened(table, encoders["whisper"], **both).config, notes.append)
    monkeypatch.setattr(states, "MOST_BYTES", 3 * 4 * 3 * N_STATES * HIDDEN * len(front.manifest.items) - 1)
    front.new_model()
    list(front.eval_batches(np.arange(1), 4))
    assert "GB of it for `speed_steps` with `tta_speed`, " in notes[-1]
    assert notes[-1].endswith("; those without `speed_steps` and `tta_speed` are kept")


@pytest.mark.parametrize("values", [{}, pytest.param({"speed": 0.2, "speed_steps": 1}, marks=pytest.mark.slow)])
def test_views_of_a_frozen_encoder_are_kept_and_are_those_of_a_model_that_hears_them(
    values: dict[str, Any], table: Path, encoders: dict[str, str], cache: Path, heard: list[int]
) -> None:
    """Of clips of one window and of several, at two speeds and moved either way."""
    given = {"tta_speed": 0.2, "tta_shift": 0.05}
    front = opened(table, encoders["whisper"], **given, **values)
    model = front.new_model().eval()
    rows = np.arange(len(front.manifest.items))
    n_windows = [len(window_starts(int(length), WINDOW)) for length in front.waveforms.lengths]
    assert 1 == min(n_windows) < max(n_windows)
    kept = list(front.eval_batches(rows, 64))
    n_heard = sum(heard)
    again = opened(table, encoders["whisper"], **given, **values)
    again.new_model()
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(kept, again.eval_batches(rows, 64), strict=True))
    assert sum(heard) == n_heard
    statistics = []
    for row, start, view in product(rows[:12], (0, 1), views_of(front.config.features)):
        starts = window_starts(int(front.waveforms.lengths[row]), WINDOW)
        if start < len(starts):
            first = int(starts[start])
            chunk = viewed(front.waveforms.waveform(row)[first : first + WINDOW], view, WINDOW)
            padded = torch.nn.functional.pad(torch.from_numpy(chunk)[None], (0, WINDOW - len(chunk)))
            with torch.no_grad():
                statistics.append((row, model.statistics(padded, torch.tensor([len(chunk)]))[0]))
    inputs, owners = torch.cat([batch.inputs for batch in kept]), np.concatenate([batch.rows for batch in kept])
    assert len(inputs) == 5 * sum(n_windows)
    for row in rows[:12]:
        expected = [one for owner, one in statistics if owner == row]
        found = inputs[owners == row][: len(expected)]
        torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-3)


def test_copies_serve_as_views_where_no_clip_is_longer_than_its_window(
    table: Path, encoders: dict[str, str], cache: Path
) -> None:
    long = {"duration": 2.0, "speed": 0.2, "speed_steps": 1}
    for values in ({}, {"tta_speed": 0.2}):
        front = opened(table, encoders["whisper"], **long, **values)
        front.new_model()
        list(front.eval_batches(np.arange(2), 4))
        assert len(list(cache.iterdir())) == 3


def test_views_that_do_not_fit_leave_the_encoder_to_hear_all_anew(
    table: Path, encoders: dict[str, str], cache: Path, heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """States as they are, which another run kept, are of no use alone."""
    plain = opened(table, encoders["whisper"])
    plain.new_model()
    [kept] = plain.eval_batches(np.arange(1), 4)
    [path] = [path for path in cache.iterdir() if path.suffix == ".statistics"]
    monkeypatch.setattr(states, "MOST_BYTES", 3 * path.stat().st_size - 1)
    front = opened(table, encoders["whisper"], tta_speed=0.2)
    model = front.new_model().eval()
    front.use_kept_states(model)
    [batch] = front.eval_batches(np.arange(1), 4)
    assert (batch.inputs.ndim, len(batch.inputs)) == (2, 3)
    monkeypatch.setattr(states, "MOST_BYTES", 3 * path.stat().st_size)
    front.use_kept_states(model)
    [batch] = front.eval_batches(np.arange(1), 4)
    assert torch.equal(batch.inputs[0], kept.inputs[0])
    assert batch.inputs.shape == (3, 3, N_STATES, HIDDEN)


def test_views_are_not_centred_by_speaker(encoders: dict[str, str]) -> None:
    with pytest.raises(
        SettingsError, match="`tta_speed` and `tta_shift` of an encoder exclude `normalisation=speaker`"
    ):
        config(encoders["whisper"], tta_speed=0.1, normalisation="speaker")


def test_a_kernel_head_is_fitted_on_clips_at_all_speeds_and_answers_by_the_mean_of_its_views(
    table: Path, encoders: dict[str, str], cache: Path, tmp_path: Path
) -> None:
    values = {"speed": 0.2, "speed_steps": 1, "tta_speed": 0.2}
    front = opened(table, encoders["whisper"], head="kernel", head_centres=64, **values)
    run = trained(front, tmp_path)
    rows = front.manifest.rows(run.split.train)
    pooled, targets, owners, speakers = [], [], [], []
    model = front.new_model()
    for speed, row in product((1.0, math.exp(-0.2), math.exp(0.2)), rows):
        clip = front.waveforms.waveform(row)
        for start in window_starts(len(clip), WINDOW):
            window = torch.from_numpy(change_speed(clip[start : start + int(WINDOW * speed)], speed))[None]
            padded = torch.nn.functional.pad(window, (0, WINDOW - window.shape[1]))
            with torch.no_grad():
                pooled.append(model.pooled(padded, torch.tensor([window.shape[1]]))[0].numpy())
            targets.append(front.manifest.targets[row])
            owners.append(row)
            speakers.append(front.manifest.items[row].group)
    given = (np.stack(pooled), np.stack(targets), front.manifest.label_space)
    settings = {"n_centres": 64, "groups": speakers, "n_plain": len(pooled) // 3}
    expected = fit_kernel(*given, **settings, items=np.array(owners))
    model.load_state_dict(load_file(run.model_file))
    found = predict_logits(model, Setup(front, tiny.CPU), rows[:1], batch_size=4)

    def heard(row: int) -> np.ndarray:
        """Pooled vectors of a clip's windows in all views."""
        vectors, clip = [], front.waveforms.waveform(row)
        for start, view in product(window_starts(len(clip), WINDOW), views_of(front.config.features)):
            chunk = torch.tensor(viewed(clip[start : start + WINDOW], view, WINDOW))[None]
            padded = torch.nn.functional.pad(chunk, (0, WINDOW - chunk.shape[1]))
            with torch.no_grad():
                vectors.append(model.pooled(padded, torch.tensor([chunk.shape[1]]))[0].numpy())
        return np.stack(vectors)

    np.testing.assert_allclose(found[0], expected(heard(int(rows[0]))).mean(axis=0), atol=0.02)
    # A student learns what evaluation would answer, views and all, by models that never met the speaker.
    by_row, (vectors, truth, space) = {}, given
    for learn, held_out in inner_folds(truth > 0.5, np.array(speakers), seed=0):
        parts = {"groups": [speakers[k] for k in learn], "n_plain": int((learn < len(pooled) // 3).sum())}
        fitted = fit_kernel(vectors[learn], truth[learn], space, n_centres=64, items=np.array(owners)[learn], **parts)
        by_row |= {row: fitted(heard(int(row))).mean(axis=0) for row in {owners[k] for k in held_out}}
    np.testing.assert_allclose(front.out_of_fold(rows), [by_row[row] for row in rows], atol=0.02)


def test_other_speeds_are_for_a_frozen_encoder(encoders: dict[str, str]) -> None:
    for values, told in (
        ({"speed": 0.1}, "`speed` acts only together with an encoder that learns"),
        ({"speed": 0.1, "speed_steps": 1, "freeze_encoder": False}, "`speed_steps` acts only together with"),
        ({"speed_steps": 1}, "`speed_steps` acts only together with `speed`"),
    ):
        with pytest.raises(SettingsError, match=told):
            config(encoders["whisper"], **values)


def test_weights_of_another_run_are_taken(table: Path, encoders: dict[str, str], cache: Path, tmp_path: Path) -> None:
    learning = {"freeze_encoder": False, "epochs": 1, "lr": 0.01, "encoder_lr_scale": 1.0, "batch_size": 8}
    run = trained(opened(table, encoders["whisper"], **learning), tmp_path)
    given = load_file(run.path("best_model.safetensors"))
    plain, started = built(encoders["whisper"]), built(encoders["whisper"], weights=str(run.model_file))
    name = "body.network.layers.0.fc1.weight"
    assert not torch.equal(plain.state_dict()[name], given[name])
    assert torch.equal(started.state_dict()[name], given[name])
    with pytest.raises(ModelFileError, match="tensors of the encoder are missing or of another shape"):
        built(encoders["whisper"], weights=str(run.model_file), duration=0.4)


# Settings


def _shapes(model: SpeechModel) -> Any:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _learning(model: SpeechModel) -> Any:
    model.begin_epoch(0)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _rates(model: SpeechModel) -> Any:
    return {name: model.lr_scale(name) for name, _ in model.named_parameters()}


def _judged(model: SpeechModel) -> Any:
    _, padded, lengths = clips(0.5, 0.31)
    with torch.no_grad():
        return model.eval()(padded, lengths).tolist()


def _training(model: SpeechModel) -> Any:
    _, padded, lengths = clips(0.5, 0.31)
    torch.manual_seed(0)
    with torch.no_grad():
        return model.train()(padded, lengths).tolist()


LEARNS = {"freeze_encoder": False}
# What each setting is compared with and without: (settings it needs, its value, what must differ).
ACTS: dict[str, tuple[dict[str, Any], Any, Callable[[SpeechModel], Any]]] = {
    "encoder": ({}, "another", _judged),
    "pooling": ({}, "max", _shapes),
    "layers": ({}, "last", _shapes),
    "state_mask": ({"dropout": 0.0}, 0.5, _training),
    "state_mask_span": ({"dropout": 0.0, "state_mask": 0.5}, 2, _training),
    "head": ({}, "logreg", _shapes),
    "head_centres": ({"head": "kernel"}, 8, _shapes),
    "head_layers": ({}, 2, _shapes),
    "head_hidden": ({"head_layers": 2}, 7, _shapes),
    "head_intermediate": ({"head_layers": 2}, 9, _shapes),
    "head_residual": ({"head_layers": 2}, True, _judged),
    "head_norm": ({}, True, _shapes),
    "dropout_samples": ({}, 3, _training),
    "dropout_inference": ({"dropout_samples": 3}, "mean", _judged),
    "freeze_encoder": ({}, False, _learning),
    "unfreeze_epochs": (LEARNS, 2, _learning),
    "encoder_lr_scale": (LEARNS, 0.5, _rates),
    "layer_lr_decay": (LEARNS, 0.5, _rates),
}


@pytest.mark.parametrize("name", ACTS)
def test_settings_of_encoders_act(name: str, encoders: dict[str, str]) -> None:
    needed, value, looked_at = ACTS[name]
    given = {name: value} if name != "encoder" else {}
    before = looked_at(built(encoders["whisper"], **needed))
    after = looked_at(built(encoders[value if name == "encoder" else "whisper"], **needed, **given))
    assert before != after


def test_what_is_not_given_is_the_encoders_own() -> None:
    found = AudioConfig.build({"encoder": "some/name"})
    assert (found.model.model, found.model.freeze_encoder, found.model.layers) == ("encoder", True, "all")
    assert (found.features.sr, found.features.duration, found.features.level) == (16_000, 6.0, "peak")
    plain = AudioConfig.build({})
    assert (plain.features.sr, plain.features.level) == (22_050, "active")


@pytest.mark.parametrize("name", [name for name in preset_files("audio") if name.startswith("whisper")])
def test_presets_take_another_encoder(name: str, encoders: dict[str, str]) -> None:
    found = resolve("audio", name, None, {"encoder": encoders["whisper"], "duration": WINDOW_S})
    assert encoder(found, SPACE, None).state_width == N_STATES * HIDDEN  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in preset_files("audio") if name.startswith("whisper")])
def test_presets_train(
    name: str, table: Path, encoders: dict[str, str], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"dataset": "table", "data_root": str(table), "split": "table", "encoder": encoders["whisper"]}
    short = {} if name.startswith(("whisper-frozen", "whisper-kernel")) else {"epochs": 1, "keep": "best"}
    monkeypatch.setattr("samo_audio.speakers.SPEAKER_CLIPS", 4)
    found = resolve("audio", name, None, {**place, **short, "duration": WINDOW_S})
    run = trained(AudioFrontend.open(found, lambda line: None), tmp_path)
    assert run.trained["epochs"] == 1
    assert run.has_model


# Refused


def test_what_is_no_encoder_of_speech_is_refused(encoders: dict[str, str], tmp_path: Path) -> None:
    from transformers import BertConfig

    with pytest.raises(ModelFileError, match="'bert' is no encoder of speech that SAMO knows") as caught:
        refuse_others("x", BertConfig())
    assert "whisper, wav2vec2, hubert, wavlm" in (caught.value.hint or "")
    lacking = Path(shutil.copytree(encoders["whisper"], tmp_path / "lacking"))
    (lacking / "preprocessor_config.json").unlink()
    with pytest.raises(ModelFileError, match="cannot read its feature extractor"):
        built(str(lacking))
    shutil.copy(Path(encoders["hubert"]) / "preprocessor_config.json", lacking)
    with pytest.raises(ModelFileError, match="'Wav2Vec2FeatureExtractor' is not the feature extractor of 'whisper'"):
        built(str(lacking))


def test_masks_on_a_spectrogram_that_is_not_there_are_refused(encoders: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"`use_specaug`: .* looks at no spectrogram; `state_mask` masks"):
        built(encoders["hubert"], freeze_encoder=False, use_specaug=True)


def test_an_unknown_pooling_is_met_before_the_clips_are(table: Path, encoders: dict[str, str], cache: Path) -> None:
    with pytest.raises(SettingsError, match="unknown pooling 'maen'"):
        opened(table, encoders["whisper"], pooling="maen")
    assert not cache.parent.exists()


@pytest.mark.real
def test_whisper_base(whisper_root: Path, ravdess_root: Path) -> None:
    """Features of a real clip bit by bit; 300 of 1,500 positions; finite states of seven layers."""
    from transformers import AutoFeatureExtractor

    model = encoder(AudioConfig.build({"encoder": str(whisper_root)}), SPACE, None).eval()
    assert isinstance(model.body, SpeechEncoder)
    assert model.body.network.embed_positions.weight.shape == (300, 512)
    clip = read(sorted((ravdess_root / "Actor_05").iterdir())[7], SR).waveform
    waveform = torch.zeros(1, 6 * SR)
    waveform[0, : len(clip)] = torch.from_numpy(clip / np.abs(clip).max())
    lengths = torch.tensor([len(clip)])
    made = AutoFeatureExtractor.from_pretrained(whisper_root)
    reference = made(waveform[0].numpy(), sampling_rate=SR, max_length=6 * SR, return_tensors="pt").input_features
    assert torch.equal(model.body.features(waveform, lengths), reference)
    with torch.no_grad():
        found = model.statistics(waveform, lengths)
    assert found.shape == (1, 3, 7, 512)
    assert found.isfinite().all()
