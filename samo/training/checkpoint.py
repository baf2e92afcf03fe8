"""Model files and checkpoints: written whole or not at all, read without executing anything."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from samo.errors import ModelFileError, first_ten
from samo.files import replacing

__all__ = [
    "load_checkpoint",
    "load_model",
    "load_tensors",
    "read_about",
    "save_checkpoint",
    "save_model",
    "save_tensors",
]

FORMAT = "samo-model-1"


def save_model(path: Path, tensors: dict[str, Tensor], **about: Any) -> None:
    """Write a model as safetensors with a few facts in its header."""
    # One key: safetensors writes several in random order, and equal models should be equal files.
    save_tensors(path, tensors, {"samo": json.dumps({"format": FORMAT, **about})})


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
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except FileNotFoundError as error:
        raise ModelFileError(f"there is no model at {path}", hint="was training stopped in its first epoch?") from error
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is damaged: {error}") from error
    try:
        about: Any = json.loads(metadata.get("samo", "{}"))
    except ValueError:
        about = None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ModelFileError(f"{path} was not written by SAMO", hint="train a run, or start from it with `weights`")
    return about


def load_model(path: Path, model: nn.Module) -> None:
    """Fill ``model`` from a file that :func:`save_model` wrote.

    Raises:
        ModelFileError: missing, damaged, not written by SAMO, or tensors that do not fit.
    """
    read_about(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is damaged: {error}") from error
    _refuse_misfit(path, model, tensors)
    model.load_state_dict(tensors)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write everything a training needs to go on."""
    with replacing(path) as temporary, temporary.open("wb") as written:
        torch.save(state, written)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted.

    Raises:
        ModelFileError: missing or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders about odd pickles before it refuses them
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except FileNotFoundError as error:
        raise ModelFileError(f"there is no checkpoint at {path}") from error
    except pickle.UnpicklingError as error:
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


def _refuse_misfit(path: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found:
        odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ModelFileError(f"{path} does not fit the run's settings at: {first_ten(odd)}")
