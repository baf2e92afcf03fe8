"""What encoders of speech will share with those of text: a body of frames, its layers, states, settings and head."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from samo.data.batch import Batch
from samo.encoders import states
from samo.encoders.body import PretrainedBody
from samo.encoders.heads import Head
from samo.encoders.pooling import LAST4, Pooling, pooling_parts, sequences_of
from samo.encoders.settings import EncoderSettings
from samo.encoders.states import encoder_states
from samo.errors import SettingsError
from samo.tasks import LabelSpace, Task

SPACE = LabelSpace((Task("emotion", ("angry", "calm")),))
ARCHITECTURE = SimpleNamespace(pooling="mean", has_layers=True)
N_LAYERS, HIDDEN = 3, 4


class Network(nn.Module):
    """As ``transformers`` encoders look: numbered layers, a configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=HIDDEN, model_type="frames", to_json_string=lambda: "{}")
        self.front = nn.Linear(2, HIDDEN)
        self.layers = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(N_LAYERS))
        self.dropout = nn.Dropout(0.5)
        self.final_norm = nn.LayerNorm(HIDDEN)


class Frames(PretrainedBody):
    """Frames of two numbers to states; the time axis is halved, as in encoders of speech."""

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        states = [self.network.front(inputs[:, ::2])]
        for layer in self.network.layers:
            states.append(self.network.dropout(torch.tanh(layer(states[-1]))))
        return self.looked_at(self.network.final_norm(states[-1]), tuple(states))


class Model(nn.Module):
    def __init__(self, **values: object) -> None:
        super().__init__()
        settings = EncoderSettings.model_validate({"encoder": "somewhere", **values})
        parts = pooling_parts(settings.pooling, ARCHITECTURE)
        self.body = Frames(Network(), sequences_of(parts), settings)
        self.pooling = Pooling(parts, self.body.width)
        self.head = Head(self.pooling.width, SPACE, settings)

    @property
    def state_width(self) -> int:
        return self.body.width * len(self.pooling.sequences)

    def states(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        found: Tensor = self.body(inputs, lengths)
        return found


def test_a_body_of_frames_gives_logits() -> None:
    model = Model(pooling="attention+last4-mean", head_layers=2).eval()
    states = model.states(torch.randn(3, 10, 2), torch.tensor([10, 8, 6]))
    assert states.shape == (3, 5, 2 * HIDDEN)
    assert model.head(model.pooling(states, torch.tensor([5, 4, 3]))).shape == (3, 2)
    assert LAST4 in model.body.sequences


def test_rates_and_unfreezing_by_layer() -> None:
    body = Model(encoder_lr_scale=0.1, layer_lr_decay=0.5, unfreeze_epochs=2).body
    levels = {name: body.level(name) for name in ("front.weight", "layers.0.bias", "layers.2.bias", "final_norm.bias")}
    assert levels == {"front.weight": 0, "layers.0.bias": 1, "layers.2.bias": 3, "final_norm.bias": 3}
    assert body.lr_scale("layers.1.bias") == pytest.approx(0.1 * 0.5)
    for epoch, names in [(0, set()), (2, {"layers.2", "final_norm"}), (8, {"front", "layers.0", "layers.2"})]:
        body.begin_epoch(epoch)
        learn = {name.rpartition(".")[0] for name, p in body.network.named_parameters() if p.requires_grad}
        assert learn >= names
        assert bool(learn) == bool(names)


def test_a_frozen_body_never_drops_anything_out() -> None:
    model = Model(freeze_encoder=True).train()
    assert not model.body.network.training
    assert not any(p.requires_grad for p in model.body.parameters())


def test_states_are_kept_by_what_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By lengths of states, which are not those of the inputs; other contents or another digest are other states."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path))
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal((n, 2)).astype(np.float32) for n in (4, 10, 6, 2)]
    lengths = np.array([len(clip) // 2 for clip in clips])
    model, calls = Model(freeze_encoder=True), []

    def batch_of(rows: np.ndarray) -> Batch:
        calls.append(list(rows))
        inputs = np.zeros((len(rows), max(len(clips[row]) for row in rows), 2), np.float32)
        for place, row in zip(inputs, rows, strict=True):
            place[: len(clips[row])] = clips[row]
        own = torch.tensor([len(clips[row]) for row in rows])
        return Batch(torch.from_numpy(inputs), own, torch.zeros(len(rows), 2), rows)

    def kept(digest: str = "16 kHz", contents: list[np.ndarray] = clips) -> object:
        hashes = (clip.tobytes() for clip in contents)
        return encoder_states(model, lengths=lengths, batch_of=batch_of, digest=digest, contents=hashes)

    found = kept()
    assert calls == [[3, 0, 2, 1]]  # one batch, the shortest first
    model.eval()
    for row, clip in enumerate(clips):
        with torch.no_grad():
            own = model.states(torch.from_numpy(clip)[None], torch.tensor([len(clip)]))[0]
        assert found is not None
        np.testing.assert_allclose(found.row(row), own.numpy(), atol=1e-6)  # type: ignore[attr-defined]
    kept()
    assert len(calls) == 1
    kept(digest="8 kHz")
    kept(contents=[*clips[:3], clips[3] + 1.0])
    assert len(calls) == 3


def test_states_of_some_items_are_added_to_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that are asked for by another fold find what the first made; a damaged file is made anew."""
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path))
    rng = np.random.default_rng(0)
    clips = rng.standard_normal((5, 6, 2)).astype(np.float32)
    model, calls, notes = Model(freeze_encoder=True), [], []

    def batch_of(rows: np.ndarray) -> Batch:
        calls.append(sorted(rows))
        return Batch(torch.from_numpy(clips[rows]), torch.full((len(rows),), 6), torch.zeros(len(rows), 2), rows)

    def kept(*rows: int) -> states.States:
        found = encoder_states(
            model, lengths=np.full(5, 3), batch_of=batch_of, digest="", contents=(clip.tobytes() for clip in clips),
            rows=np.array(rows) if rows else None, on_compute=notes.append,
        )  # fmt: skip
        assert found is not None
        return found

    kept(3, 1)
    kept(1)
    both = kept(1, 2, 3)
    assert (calls, notes) == ([[1, 3], [2]], [2, 1])
    model.eval()
    for row in (1, 2, 3):
        with torch.no_grad():
            own = model.states(torch.from_numpy(clips[row : row + 1]), torch.tensor([6]))[0]
        np.testing.assert_allclose(both.row(row), own.numpy(), atol=1e-6)
    (file,) = (tmp_path / "states").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    kept(4)
    assert calls[2:] == [[4]]
    kept()
    assert calls[3:] == [[0, 1, 2, 3, 4]]
    kept(0, 4)
    assert len(calls) == 4


def test_too_many_states_are_told_with_what_would_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    lengths = np.array([1_500_000_000, 500_000_000])

    def ask(*, compute: bool = True) -> None:
        found = encoder_states(
            Model(freeze_encoder=True), lengths=lengths, batch_of=lambda rows: pytest.fail("computed"), digest="",
            contents=(), compute=compute, notify=notes.append,
        )  # fmt: skip
        assert found is None

    ask()
    ask(compute=False)
    assert notes == [
        "the encoder's states would take 32.0 GB, and at most 8.6 GB are kept: the encoder runs again in every epoch; "
        "those of `pooling=mean-sd` with `layers=all` are kept"
    ]
    # Mean, sd and maximum of 4 layers of 4 units, for two items: 384 bytes.
    monkeypatch.setattr(states, "MOST_BYTES", 384)
    ask()
    assert notes[-1].endswith("are kept")
    monkeypatch.setattr(states, "MOST_BYTES", 383)
    ask()
    assert notes[-1].endswith("the encoder runs again in every epoch")


def test_states_that_are_kept_together_are_counted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMO_CACHE", str(tmp_path))
    notes: list[str] = []
    model, lengths = Model(freeze_encoder=True), np.array([6_000_000, 1])
    assert states.size_of_states(model, lengths) == 4 * HIDDEN * 6_000_001
    monkeypatch.setattr(states, "MOST_BYTES", 4 * HIDDEN * 6_000_001 + 100)
    found = encoder_states(
        model, lengths=lengths, batch_of=lambda rows: pytest.fail("computed"), digest="", contents=(),
        beside=10**9 + 101, beside_for={("`a`",): 6 * 10**8, ("`a`", "`b`"): 4 * 10**8}, notify=notes.append,
    )  # fmt: skip
    assert found is None
    assert notes[0].startswith(
        "the encoder's states would take 1.1 GB, 0.6 GB of it for `a`, 0.4 GB of it for `a` with `b`, and at most "
        "0.1 GB are kept"
    )
    # 101 bytes are nobody's, and there is room for 100.
    assert "without" not in notes[0]


def test_settings_refuse_what_does_nothing() -> None:
    with pytest.raises(ValueError, match="`head_hidden` acts only together with `head_layers` above 1"):
        Model(head_hidden=8)
    with pytest.raises(ValueError, match="`freeze_encoder` and `unfreeze_epochs` exclude each other"):
        Model(freeze_encoder=True, unfreeze_epochs=1)
    with pytest.raises(SettingsError, match="last4-mean"):
        pooling_parts("last4-mean", SimpleNamespace(pooling="mean", has_layers=False))


@pytest.mark.slow
def test_the_room_imports_no_modality() -> None:
    names = ("body", "heads", "hub", "pooling", "pretrained", "settings", "states")
    code = "import sys; " + "; ".join(f"import samo.encoders.{name}" for name in names)
    code += "; print([name for name in sys.modules if name.partition('.')[0] in ('samo_text', 'samo_audio')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
