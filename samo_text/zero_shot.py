"""Labels that no model was trained on: a text gets the one whose description means most nearly the same.

Texts and descriptions become unit vectors, the mean of an encoder's last token states as sentence encoders are trained
to be read (Reimers & Gurevych 2019, "Sentence-BERT"); nearness is their cosine. The softmax of cosine over temperature
turns nearness into shares of 1, which order labels but are not calibrated. It works with encoders trained for sentence
similarity (MiniLM, MPNet, ...); mean states of a plain BERT say little. A model trained on a few hundred labelled texts
is mostly better: judge both before choosing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samo.data.manifest import Manifest
from samo.data.splits import PARTS
from samo.encoders.pooling import valid_positions
from samo.errors import DataError, SettingsError, counted, first_ten, nearest
from samo.evaluation.metrics import Decided, accuracy, macro_f1, per_class, tally
from samo.evaluation.statistics import score_intervals, tally_by_unit
from samo.frontend import Progress
from samo.tasks import LabelSpace, Task
from samo.training.runtime import Runtime
from samo_text.models.pretrained import load_pretrained, position_limit, resize
from samo_text.tokens import EncoderTokens

__all__ = ["NOTE", "TEMPERATURE", "Embedder", "ZeroShot", "ZeroShotAnswer", "evaluate_zero_shot", "read_labels"]

NOTE = "zero-shot: not trained on these labels"
"""Stands in every output."""
TEMPERATURE = 0.05
"""Cosines of unlike sentences differ by some 0.1, which should tell in the shares."""
LEVEL = 0.95
# What sentence encoders are mostly published with; longer texts are cut.
_MOST_TOKENS = 256
_BATCH = 64
# A comma begins another label only where a name and = follow: descriptions hold commas themselves.
_NEXT_LABEL = re.compile(r",(?=[^,=]+=)")

Labels = dict[str, tuple[str, ...]]


def read_labels(given: str = "", file: Path | None = None) -> Labels:
    """Descriptions by label, from one line or a TOML file.

    Args:
        given: ``calm=feeling calm and relaxed,panic=sheer panic|fear of dying``: several descriptions of a label are
            joined by ``|``, and a comma stands for itself unless NAME= follows. ``joy,anger,fear`` describes each
            label by its name.
        file: ``calm = "feeling calm"`` or ``calm = ["feeling calm", "at ease"]``, a line for each label.

    Raises:
        SettingsError: neither or both, fewer than two labels, or one without a description.
        DataError: the file cannot be read.
    """
    if bool(given.strip()) == bool(file):
        raise SettingsError("name the labels with `labels` or `labels_file`, one of the two")
    labels = _from_file(file) if file else _from_flag(given)
    where = str(file) if file else "`labels`"
    bare = [name for name, descriptions in labels.items() if not name or not all(descriptions) or not descriptions]
    if bare:
        raise SettingsError(f"{where}: label {bare[0]!r} has no description", hint="for example calm=feeling calm")
    if len(labels) < 2:
        raise SettingsError(f"{where}: two labels at least are needed to choose between")
    return labels


def _from_flag(given: str) -> Labels:
    if "=" not in given:
        pairs = [(name.strip(), name.strip().replace("_", " ")) for name in given.split(",")]
    else:
        cut = [part.partition("=") for part in _NEXT_LABEL.split(given)]
        pairs = [(name.strip(), described) for name, _, described in cut]
    labels: Labels = {}
    for name, described in pairs:
        if name in labels:
            raise SettingsError(f"`labels` names '{name}' twice", hint="join its descriptions by |")
        labels[name] = tuple(part.strip() for part in described.split("|"))
    return labels


def _from_file(path: Path) -> Labels:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path} is not TOML: {error}", hint='write lines such as calm = "feeling calm"') from error
    labels: Labels = {}
    for name, value in found.items():
        described = value if isinstance(value, list) else [value]
        if not all(isinstance(part, str) for part in described):
            raise DataError(f"{path}: '{name}' is neither a text nor a list of texts")
        labels[name] = tuple(part.strip() for part in described)
    return labels


class Embedder:
    """Texts as unit vectors of a pretrained encoder."""

    def __init__(self, place: str, runtime: Runtime) -> None:
        """Read the encoder.

        Args:
            place: a folder, or a name on the Hugging Face hub.
            runtime: where it runs.

        Raises:
            ModelFileError, EnvironmentProblem: see :func:`samo_text.models.pretrained.load_pretrained`.
        """
        self.place = place
        encoder = load_pretrained(place)
        self.tokens = EncoderTokens.load(place, min(_MOST_TOKENS, position_limit(encoder) or _MOST_TOKENS))
        resize(encoder, len(self.tokens))
        self.runtime = runtime
        self.encoder: Any = runtime.place(encoder).eval()

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(N, H) float32 of length 1: the mean over each text's tokens, special ones included."""
        ids = self.tokens.encode(texts)
        found = np.zeros((len(ids), int(self.encoder.config.hidden_size)), dtype=np.float32)
        order = np.argsort([len(row) for row in ids], kind="stable")
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            rows = [torch.from_numpy(ids[k]) for k in places]
            lengths = torch.tensor([len(row) for row in rows])
            padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.tokens.pad_id)
            mask = valid_positions(padded.shape[1], lengths).to(self.runtime.device)
            with self.runtime.autocast():
                states = self.encoder(input_ids=padded.to(self.runtime.device), attention_mask=mask.long())
            summed = (states.last_hidden_state.float() * mask.unsqueeze(2)).sum(dim=1)
            found[places] = torch.nn.functional.normalize(summed, dim=1).cpu().numpy()
            if progress:
                progress(min(start + _BATCH, len(order)), len(order))
        return found


@dataclass(frozen=True)
class ZeroShotAnswer:
    """The nearest label of one text.

    Attributes:
        probabilities: softmax of cosine over temperature, by label; sum 1, not calibrated.
        warnings: for whoever reads it.
    """

    text: str
    label: str
    probabilities: dict[str, float]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "text": self.text,
            "label": self.label,
            "probabilities": self.probabilities,
            "warnings": list(self.warnings),
        }


class ZeroShot:
    """Chooses between labels by their descriptions."""

    def __init__(self, embedder: Embedder, labels: Mapping[str, Sequence[str]], temperature: float = TEMPERATURE):
        """Embed the descriptions; several of one label are averaged and brought back to length 1.

        Raises:
            SettingsError: a temperature that is not above 0.
        """
        if not temperature > 0.0:
            raise SettingsError(f"`temperature={temperature:g}` must be above 0")
        self.embedder, self.labels, self.temperature = embedder, tuple(labels), temperature
        self.descriptions = {name: list(described) for name, described in labels.items()}
        flat = embedder.embed([text for described in labels.values() for text in described])
        ends = np.cumsum([len(described) for described in labels.values()])
        means = np.stack([part.mean(axis=0) for part in np.split(flat, ends[:-1])])
        self.centres = means / np.linalg.norm(means, axis=1, keepdims=True)

    def facts(self) -> dict[str, Any]:
        """What answers, for whoever reads them: encoder, temperature and descriptions."""
        return {
            "schema": 1,
            "zero_shot": True,
            "note": NOTE,
            "encoder": self.embedder.place,
            "temperature": self.temperature,
            "labels": self.descriptions,
        }

    def similarities(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(N, L) cosines in [-1, 1]."""
        found: np.ndarray = self.embedder.embed(texts, progress) @ self.centres.T
        return found

    def probabilities(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(N, L) in [0, 1], each row's sum 1."""
        scaled = self.similarities(texts, progress).astype(np.float64) / self.temperature
        shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        found: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
        return found

    def predict(self, texts: Sequence[str], progress: Progress | None = None) -> list[ZeroShotAnswer]:
        """The nearest label of each text, in the order given."""
        return [
            ZeroShotAnswer(
                text,
                self.labels[int(row.argmax())],
                dict(zip(self.labels, map(float, row), strict=True)),
                () if text.strip() else ("empty",),
            )
            for text, row in zip(texts, self.probabilities(texts, progress), strict=True)
        ]


def part_of(manifest: Manifest, on: str) -> tuple[str, np.ndarray]:
    """Which rows are judged.

    Args:
        manifest: of the corpus.
        on: ``train``, ``val``, ``test`` or ``all``; empty: ``test`` where the corpus has a split of its own.

    Returns:
        The part's name and its rows.

    Raises:
        SettingsError: an unknown part.
        DataError: no item of the corpus is in it.
    """
    if on not in ("", "all", *PARTS):
        raise SettingsError(f"`on={on}`: unknown part", hint=f"valid: {', '.join(PARTS)}, all")
    split = any(item.split for item in manifest.items)
    part = on or ("test" if split else "all")
    rows = np.array([k for k, item in enumerate(manifest.items) if part in ("all", item.split)], dtype=np.int64)
    if not len(rows):
        hint = "`on=all` judges every row" if not split else ""
        raise DataError(f"no row of {manifest.dataset} is in its {part} part", hint=hint)
    return part, rows


def evaluate_zero_shot(
    model: ZeroShot,
    manifest: Manifest,
    *,
    on: str = "",
    progress: Progress | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge zero-shot answers on labelled texts: one label a text, the nearest.

    Args:
        model: with labels that are all of the corpus' and maybe more.
        manifest: of a corpus with one task.
        on: see :func:`part_of`.
        progress: told how many texts are done.
        n_resamples: draws of the bootstrap.
        seed: of the draws.

    Returns:
        ``n``, ``macro_f1`` over the labels that occur, ``accuracy`` (all labels of a text right),
        ``hits`` (the named label is one of the text's), ``ci`` of macro-F1, ``per_class`` and ``warnings``.

    Raises:
        DataError: the corpus has several tasks, labels that ``model`` does not know, or nothing to judge.
        SettingsError: an unknown part.
    """
    primary = _task(model, manifest)
    part, rows = part_of(manifest, on)
    items = [manifest.items[row] for row in rows]
    space = LabelSpace((primary,))
    targets = np.stack([space.encode(item.labels) for item in items])
    shares = model.probabilities([item.source for item in items], progress)
    predicted = shares.argmax(axis=1)[:, None] == np.arange(len(model.labels))
    decided = Decided(np.arange(len(rows)), targets >= 0.5, predicted, shares)
    counts = tally(decided.truth, predicted)
    units = tally_by_unit(decided.truth, predicted, [item.group for item in items])
    ends = score_intervals(units, {"f1": macro_f1}, n_resamples=n_resamples, level=LEVEL, seed=seed)["f1"]
    return {
        "dataset": manifest.dataset,
        "synthetic": manifest.synthetic,
        "part": part,
        "n": len(rows),
        "macro_f1": float(macro_f1(counts)),
        "ci": list(ends) if ends else None,
        "level": LEVEL,
        "unit": manifest.group_noun if any(item.group for item in items) else "row",
        "accuracy": float(accuracy(counts)),
        "hits": float((decided.truth & predicted).any(axis=1).mean()),
        "per_class": per_class(decided, model.labels),
        "warnings": _warnings(decided, primary),
    }


def _task(model: ZeroShot, manifest: Manifest) -> Task:
    """The corpus' question, over the labels described."""
    tasks = manifest.label_space.tasks
    if len(tasks) > 1:
        raise DataError(
            f"the corpus asks several questions: {', '.join(task.name for task in tasks)}",
            hint="name one with `label_columns`",
        )
    stray = [label for label in tasks[0].labels if label not in model.labels]
    if stray:
        raise DataError(
            f"labels of the corpus are not described: {first_ten(stray)}",
            hint=f"{nearest(stray[0], model.labels)}described: {', '.join(model.labels)}",
        )
    return Task(tasks[0].name, model.labels, tasks[0].multi_label)


def _warnings(decided: Decided, task: Task) -> list[str]:
    found = []
    several = int((decided.truth.sum(axis=1) > 1).sum())
    if several:
        found.append(
            f"{counted(several, 'text has', 'texts have')} "
            f"several labels; zero-shot names one, so the others count as missed"
        )
    absent = [label for k, label in enumerate(task.labels) if not decided.truth[:, k].any()]
    if absent:
        found.append(f"no text has these labels, left out of macro-F1: {first_ten(absent)}")
    return found
