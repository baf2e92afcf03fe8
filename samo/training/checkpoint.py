"""Model files and checkpoints: written whole or not at all, read without executing anything."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import ConfigDict, Field, PlainValidator, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from samo.errors import DataError, ModelFileError, first_ten
from samo.files import parse_json, replacing
from samo.stored import Count, Flag, Number, Positive, Share, Stored, Text, validated
from samo.tasks import LabelSpace

__all__ = [
    "EnsembleFacts",
    "ModelFacts",
    "load_checkpoint",
    "load_fitted",
    "load_model",
    "load_tensors",
    "misfit",
    "read_about",
    "read_facts",
    "read_metadata",
    "save_checkpoint",
    "save_model",
    "save_tensors",
]

FORMAT = "samo-model-2"
# Written by earlier versions, without a checksum.
_WITHOUT_CHECKSUM = "samo-model-1"


def _label_space(value: object) -> LabelSpace:
    return LabelSpace.from_json(value)


def save_model(path: Path, tensors: dict[str, Tensor], **about: Any) -> None:
    """Write a model as safetensors with a few facts in its header."""
    # One key: safetensors writes several in random order, and equal models should be equal files.
    facts = {"format": FORMAT, **about}
    save_tensors(path, tensors, {"samo": json.dumps({**facts, "checksum": _checksum(facts, tensors)})})


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all.

    Raises:
        DiskFull: no space is left; ``path`` keeps what it held before.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        # safetensors' own file writer does not say what kind of I/O error it met; Python's does.
        temporary.write_bytes(save(plain, metadata))


def read_about(path: Path) -> dict[str, Any]:
    """The facts in the header of a file that :func:`save_model` wrote.

    Raises:
        ModelFileError: missing, damaged, or not written by SAMO.
    """
    return _about_and_checksum(path)[0]


def _about_and_checksum(path: Path) -> tuple[dict[str, Any], str | None]:
    """The facts, and the checksum that was written with them: None in models of earlier versions."""
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except FileNotFoundError as error:
        raise ModelFileError(f"there is no model at {path}", hint="was training stopped in its first epoch?") from error
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is damaged: {error}") from error
    try:
        about: Any = parse_json(metadata.get("samo", "{}"))
    except ValueError:
        about = None
    if not isinstance(about, dict) or about.get("format") not in (FORMAT, _WITHOUT_CHECKSUM):
        raise ModelFileError(f"{path} was not written by SAMO", hint="train a run, or start from it with `weights`")
    written = about.pop("checksum", None)
    return about, None if about["format"] == _WITHOUT_CHECKSUM else str(written)


class _Member(Stored):
    name: Text = ""
    # Its logarithm in float32 is finite.
    weight: Annotated[float, Field(strict=True, ge=1e-30, le=1.0 + 1e-6)]
    temperature: dict[Text, Positive]
    thresholds: dict[Text, tuple[Share, ...]] = Field(default_factory=dict)
    # Which part of the inputs it reads, of as many as the ensemble has.
    reads: Count = 0
    settings: dict[Text, Any]


class EnsembleFacts(Stored):
    """What a model file says of the members of an ensemble, in the order of its model."""

    combine: Literal["mean", "vote"]
    members: Annotated[tuple[_Member, ...], Field(min_length=1)]
    parts: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1

    @model_validator(mode="after")
    def _parts_are_there(self) -> Self:
        if any(member.reads >= self.parts for member in self.members):
            raise ValueError("a member reads a part of the inputs that there is not")
        return self

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Self:
        if not math.isclose(sum(member.weight for member in self.members), 1.0, abs_tol=1e-3):
            raise ValueError("the weights of its members do not sum to 1")
        return self


class ModelFacts(Stored):
    """What a run's model file says of the model.

    Attributes:
        label_space: its tasks and columns.
        epoch: of its weights, from 1; 0 for an ensemble.
        val_macro_f1: that chose the epoch; None where nothing was validated on.
        intervals: how its reports compute theirs.
        ensemble: rule and members, where it is one.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    label_space: Annotated[LabelSpace, PlainValidator(_label_space)]
    dataset: Text
    synthetic: Flag
    epoch: Count
    val_macro_f1: Number | None
    intervals: Literal["percentile", "wilson"] = "percentile"
    ensemble: EnsembleFacts | None = None

    @model_validator(mode="after")
    def _thresholds_of_its_labels(self) -> Self:
        sizes = {task.name: len(task.labels) for task in self.label_space.tasks}
        for member in self.ensemble.members if self.ensemble else ():
            for task, thresholds in member.thresholds.items():
                if len(thresholds) != sizes.get(task, len(thresholds)):
                    raise ValueError(f"{len(thresholds)} thresholds of member {member.name} for {sizes[task]} labels")
        return self


def read_facts(path: Path) -> ModelFacts:
    """The facts in the header of a run's model.

    Raises:
        ModelFileError: missing, damaged, or not the model of a run.
    """
    about = read_about(path)
    try:
        facts = validated(ModelFacts, about)
    except (ValueError, DataError) as error:
        raise ModelFileError(f"{path} is damaged: its header is no model's: {error}") from error
    return facts


def load_model(path: Path, model: nn.Module) -> None:
    """Fill ``model`` from a file that :func:`save_model` wrote.

    Raises:
        ModelFileError: missing, damaged, not written by SAMO, or tensors that do not fit.
    """
    about, written = _about_and_checksum(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is damaged: {error}") from error
    if written is not None and written != _checksum(about, tensors):
        raise ModelFileError(
            f"{path} is damaged: it has another checksum than when it was written",
            hint="copy it again, or train it anew",
        )
    _refuse_misfit(path, model.state_dict(), tensors)
    _refuse_infinite(path, model.state_dict(), tensors)
    model.load_state_dict(tensors)


def load_fitted(path: Path, model: nn.Module) -> None:
    """Give ``model`` what was fitted on the training rows before step 1.

    Raises:
        ModelFileError: missing, damaged, or tensors that do not fit.
    """
    tensors = load_tensors(path)
    own = model.state_dict()
    _refuse_misfit(path, {name: tensor for name, tensor in own.items() if name in tensors}, tensors)
    _refuse_infinite(path, own, tensors)
    model.load_state_dict(tensors, strict=False)


def read_metadata(path: Path) -> dict[str, str]:
    """The header of a file that :func:`save_tensors` wrote; empty where it has none.

    Raises:
        ModelFileError: missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is damaged: {error}") from error


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write everything a training needs to go on."""
    with replacing(path) as temporary, temporary.open("wb") as written:
        torch.save(state, written)


def load_checkpoint(path: Path) -> Any:
    """Read a checkpoint, as :func:`save_checkpoint` was given it; only tensors and plain values are accepted.

    torch does not look at the checksums that it wrote, so a bit that fell over on the disk would go unseen.

    Raises:
        ModelFileError: missing or damaged.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if (name := archive.testzip()) is not None:
                    raise ValueError(f"{name} has another checksum than when it was written")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders about odd pickles before it refuses them
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelFileError(f"there is no checkpoint at {path}") from error
    except UnpicklingError as error:
        raise ModelFileError(f"{path} is damaged, or holds more than tensors and plain values: not read") from error
    except Exception as error:  # bytes that are no pickle can make the reader stumble anywhere
        raise ModelFileError(f"{path} is damaged: {str(error).partition(chr(10))[0]}") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a foreign file of weights, safetensors or a torch state dict.

    Raises:
        ModelFileError: missing, damaged, or not a flat table of tensors.
    """
    if not path.is_file():
        raise ModelFileError(f"there is no weights file at {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{path} is damaged: {error}") from error
    state: Any = load_checkpoint(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelFileError(f"{path} is not a table of tensors", hint="give a state dict or a safetensors file")
    return state


def _checksum(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a model's facts and of its tensors with their names, kinds and shapes, hexadecimal."""
    known = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        known.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        # Not every kind of number has a counterpart in numpy; bytes have.
        known.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return known.hexdigest()


def _refuse_misfit(path: Path, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found:
        odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ModelFileError(f"{path} does not fit the run's settings at: {first_ten(odd)}")


def misfit(own: Mapping[str, Tensor], found: object) -> str:
    """How a table of tensors differs from a model's in names, shapes or kind of number, or where it is not finite.

    Args:
        own: of the model; where it is not finite itself, as a mask of infinities, the other need not be.
        found: what was read.

    Returns:
        One line, empty where nothing differs.
    """
    if not isinstance(found, dict) or found.keys() != own.keys():
        return "its tensors are not those of the model"
    for name, tensor in own.items():
        other = found[name]
        if not isinstance(other, Tensor) or other.layout != torch.strided or other.shape != tensor.shape:
            return f"{name} is no tensor of shape {tuple(tensor.shape)}"
        if other.is_floating_point() != tensor.is_floating_point() or other.is_complex() != tensor.is_complex():
            return f"{name} is of {other.dtype}, the model's of {tensor.dtype}"
    odd = infinite(own, found)
    return f"not finite: {first_ten(odd)}" if odd else ""


def infinite(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that hold NaN or infinity where the model's own of that name do not."""
    return [
        name for name, tensor in tensors.items() if not tensor.isfinite().all() and bool(own[name].isfinite().all())
    ]


def _refuse_infinite(path: Path, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    if odd := infinite(own, tensors):
        raise ModelFileError(
            f"{path} holds NaN or infinity at: {first_ten(odd)}", hint="its answers would mean nothing; train it again"
        )
