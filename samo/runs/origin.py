"""Which run the weights of a file come from, by its tensors, and from which files a run started."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from samo.errors import ModelFileError, RunError
from samo.files import parse_json
from samo.runs.artifacts import list_runs
from samo.runs.run import Run
from samo.training.checkpoint import load_tensors, read_metadata

__all__ = ["STARTS", "began_with", "run_with", "start_digests", "weight_files"]

# Settings that name a file or a folder of weights to start from.
STARTS = ("weights", "encoder")
# Of the weights in a foreign file so many matrices may differ from a run's: its head is often left out or made anew.
_MOST_UNLIKE = 1


def run_with(files: Sequence[Path], root: Path) -> Run | None:
    """A run below a folder of outputs whose model holds the tensors of these files."""
    artifacts = root.parent.parent if root.parent.name == "grids" else root
    grids = sorted((artifacts / "grids").glob("*/")) if (artifacts / "grids").is_dir() else []
    runs = [run for folder in (artifacts, *grids) for run in list_runs(folder) if run.has_model]
    with ExitStack() as opened:
        try:
            given = _matrices(files, opened) if runs else []
        except (ModelFileError, SafetensorError, OSError):
            return None  # whoever starts from them says what is wrong
        origins = (run for run in runs if given and _has_tensors(run, given))
        began = None
        for run in origins:
            if not began_with(run, files):
                return run
            began = began or run
        return began


def began_with(run: Run, files: Sequence[Path]) -> bool:
    """Whether a run started from what these files hold: layers it has not moved yet are no sign of what it learned.

    The digests of its start files stand with it. Of a run of an earlier version the files must be there still, and be
    no newer than it: its own tensors may have been written over them since.
    """
    try:
        given = [_digest(path) for path in files]
        if (stored := _stored_starts(run)) is not None:
            return given in stored.values()
        begun = run.path("config.json").stat().st_mtime_ns
        starts = [weight_files(Path(str(run.settings[name]))) for name in STARTS if run.settings.get(name)]
        untouched = [own for own in starts if own and all(path.stat().st_ctime_ns <= begun for path in own)]
        return any([_digest(path) for path in own] == given for own in untouched)
    except OSError:
        return False


def start_digests(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """SHA-256 of the files that a training starts from, by setting; nothing for what is downloaded.

    Args:
        settings: of the training.
    """
    places = {name: weight_files(Path(str(settings[name]))) for name in STARTS if settings.get(name)}
    return {name: [_digest(path) for path in files] for name, files in places.items() if files}


def _stored_starts(run: Run) -> dict[str, list[str]] | None:
    """What :func:`start_digests` gave when a run began; None of earlier versions, or where it cannot be read."""
    path = run.path("fitted.safetensors")
    try:
        stored = read_metadata(path).get("starts") if path.is_file() else None
        return None if stored is None else dict(parse_json(stored))
    except (ModelFileError, ValueError, TypeError):
        return None


def weight_files(place: Path) -> list[Path]:
    """The files of weights at a place: itself, or those of an encoder's folder."""
    place = place.expanduser()
    if place.is_dir():
        return sorted(place.glob("*.safetensors")) or sorted(place.glob("*.bin"))
    return [place] if place.is_file() or place.with_name("manifest.jsonl").is_file() else []


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_Matrix = tuple[tuple[int, ...], Callable[[], Tensor]]


def _matrices(files: Sequence[Path], opened: ExitStack) -> list[_Matrix]:
    """Shape of each tensor with two dimensions or more, and how to read it; small ones first."""
    found: list[_Matrix] = []
    for path in files:
        if path.suffix == ".safetensors":
            file = opened.enter_context(safe_open(path, framework="pt"))
            for name in file.keys():  # noqa: SIM118, it is no mapping
                shape = tuple(file.get_slice(name).get_shape())
                found.append((shape, partial(file.get_tensor, name)))
        else:
            found += [(tuple(one.shape), partial(torch.clone, one)) for one in load_tensors(path).values()]
    matrices = [(shape, read) for shape, read in found if len(shape) > 1]
    return sorted(matrices, key=lambda one: torch.Size(one[0]).numel())


def _has_tensors(run: Run, given: Sequence[_Matrix]) -> bool:
    """Whether a run's model holds these tensors, but for few; a frozen encoder is not the run's."""
    try:
        if run.settings.get("freeze_encoder"):
            return False
        with ExitStack() as opened:
            own = _matrices([run.model_file], opened)
            found = unlike = 0
            for shape, read in given:
                tensor: Tensor | None = None
                for other, read_own in own:
                    if other != shape:
                        continue
                    tensor = read() if tensor is None else tensor
                    if torch.equal(read_own().to(tensor.dtype), tensor):
                        found += 1
                        break
                else:
                    unlike += 1
                    if unlike > _MOST_UNLIKE:
                        return False
            return found > unlike
    except (RunError, ModelFileError, SafetensorError, OSError):
        return False
