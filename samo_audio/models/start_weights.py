"""Weights that a training starts from: a file, or those that were published and are downloaded once."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from samo.data.download import RemoteFile, download
from samo.errors import ModelFileError
from samo.files import cache_root
from samo.training.checkpoint import load_tensors

__all__ = ["HEADS", "FromPublished", "load_network", "load_published"]

_OF_A_RUN = "network."
HEADS = ("fc.", "head.", "pooling.")
"""What the names of a network's last layer, whose shape is that of the labels, and of a pooling that learns begin
with."""


@runtime_checkable
class FromPublished(Protocol):
    """A network whose published weights have other names."""

    def from_published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a published file by the names of the network; those that have its names already stay."""


def load_network(path: Path, network: nn.Module) -> None:
    """Start a network from a file: tensors that fit by name and shape are taken, the last layer may differ.

    Colour stems of ImageNet networks are summed to one channel; the channels of a run with `deltas` are not.

    Raises:
        ModelFileError: missing, damaged, or tensors of the network are missing or of another shape.
    """
    stored = load_tensors(path)
    of_a_run = any(name.startswith(_OF_A_RUN) for name in stored)
    given = {name.removeprefix(_OF_A_RUN): tensor for name, tensor in stored.items()}
    if isinstance(network, FromPublished):
        given = network.from_published(given)
    own = network.state_dict()
    for name, tensor in given.items():
        colours = name in own and tensor.ndim == 4 and tensor.shape[1] == 3 and own[name].shape[1] == 1
        if colours and not of_a_run:
            given[name] = tensor.sum(dim=1, keepdim=True)
    fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    # Counters of batch norm act on nothing here, and torchvision's files of weights were saved without them.
    trunk = [name for name in own if not name.startswith(HEADS) and not name.endswith("num_batches_tracked")]
    missing = [name for name in trunk if name not in fitting]
    if missing:
        raise ModelFileError(
            f"{path}: {len(missing)} of {len(trunk)} tensors of the network are missing or of another shape,"
            f" for example {missing[0]}",
            hint=_hint(missing, given, own),
        )
    network.load_state_dict(fitting, strict=False)


def _hint(missing: list[str], given: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    """What file would fit; the channels of the first layer may be all that differs."""
    shapes = [(list(given[name].shape), list(own[name].shape)) for name in missing if name in given]
    if len(missing) == len(shapes) == 1:
        [(there, here)] = shapes
        if len(there) == len(here) == 4 and there[1] != here[1] and there[::2] + there[3:] == here[::2] + here[3:]:
            return f"it is of a network with `deltas={there[1] - 1}`, and this one has `deltas={here[1] - 1}`"
    return "the file must come from the same `model` and `width`"


def load_published(network: nn.Module, file: RemoteFile) -> None:
    """Start a network from published weights, which are downloaded once, verified and kept in SAMO's cache.

    Raises:
        EnvironmentProblem: no server delivered the file.
        DataError: what was delivered has another checksum.
        ModelFileError: see :func:`load_network`.
    """
    kept = cache_root() / "weights" / file.name
    hint = "give it with `weights=FILE`"
    load_network(
        download(file.urls, kept, size=file.size, md5=file.md5, sha256=file.sha256, hint=hint),
        network,
    )
