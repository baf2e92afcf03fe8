"""The formats of exported files: how each is written, says of itself what it is, and is read back."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from samo.deploy.export_job import ExportJob
from samo.deploy.file_metadata import metadata_of
from samo.deploy.onnx_file import compacted, merged, save_metadata, write_onnx
from samo.errors import ExportError, SamoError
from samo.files import parse_json
from samo.prediction.exported import ExportedModel, load_exported
from samo.prediction.network import Network
from samo.reporting.published import published_settings
from samo.runs.ensemble_model import Ensemble
from samo.runs.load import load_run_model
from samo.runs.run import ASSETS, Run
from samo.training.checkpoint import load_tensors, read_metadata, save_tensors
from samo.training.runtime import Runtime
from samo.training.torch_network import TorchNetwork

__all__ = ["FILE_FORMATS", "FileFormat", "open_onnx", "write_file"]

# The file in the archive of a torch program that holds the metadata.
_METADATA = "samo.json"


class FileFormat(Protocol):
    """One format of exported files.

    Attributes:
        suffix: of the files.
    """

    suffix: ClassVar[str]

    def write(self, job: ExportJob, path: Path) -> Network:
        """Write the network in float32, and open what was written."""

    def describe(self, job: ExportJob, path: Path, about: Mapping[str, Any]) -> None:
        """Write into a finished file what it says of itself, as far as the format has room."""

    def read_back(self, job: ExportJob, path: Path) -> tuple[Mapping[str, Any], Network | None]:
        """The metadata of a finished file; and its network, of a format that no predictor reads."""


def write_file(job: ExportJob, path: Path) -> Network:
    """Write a file of the job's format, see :meth:`FileFormat.write`.

    Raises:
        ExportError: it cannot be exported.
    """
    try:
        return FILE_FORMATS[job.format].write(job, path)
    except (SamoError, OSError):
        raise
    except Exception as error:  # torch's exporters have no common class for what they cannot do
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"run '{job.run.name}' cannot be exported: {reason}") from error


def _traced(job: ExportJob) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """What torch's exporters trace, and the inputs they trace it with."""
    return job.exporter.exportable(job.model), job.exporter.example(job.run.config, job.model)


class _Onnx:
    """``onnx``: features, network, metadata and card in one file that needs no torch."""

    suffix: ClassVar[str] = ".onnx"

    def write(self, job: ExportJob, path: Path) -> Network:
        module, example = _traced(job)
        write_onnx(module, example, path, axes=job.exporter.axes(job.model))
        compacted(path, job.exporter.cosines(module))
        if isinstance(job.model, Ensemble):
            merged(path)
        save_metadata(path, metadata_of(job))
        return open_onnx(path, job.setup.runtime)

    def describe(self, job: ExportJob, path: Path, about: Mapping[str, Any]) -> None:
        save_metadata(path, about)

    def read_back(self, job: ExportJob, path: Path) -> tuple[Mapping[str, Any], Network | None]:
        return ExportedModel.open(path).metadata.model_dump(mode="json"), None


def open_onnx(path: Path, runtime: Runtime) -> Network:
    """The network of an ONNX file."""
    return load_exported(path, threads=runtime.threads).network


class _TorchExport:
    """``torch-export``: a program of ``torch.export``, its metadata beside it in the archive."""

    suffix: ClassVar[str] = ".pt2"

    def write(self, job: ExportJob, path: Path) -> Network:
        module, example = _traced(job)
        _, axis = job.exporter.axes(job.model)[job.exporter.inputs[0]]
        batch, length = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim(axis, min=2)
        dynamic = {k: axis for k, axis in enumerate((batch, length)) if job.exporter.program_axes[k]}
        shapes = (dynamic, {0: batch})
        with torch.no_grad():
            program = torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
        _save_program(program, path, {})
        return TorchNetwork(_LogitsOnly(_read_program(path).module()), job.setup.runtime)

    def describe(self, job: ExportJob, path: Path, about: Mapping[str, Any]) -> None:
        _save_program(_read_program(path), path, {_METADATA: json.dumps(about)})

    def read_back(self, job: ExportJob, path: Path) -> tuple[Mapping[str, Any], Network | None]:
        extra = {_METADATA: ""}
        program = _read_program(path, extra).module()
        return parse_json(extra[_METADATA]), TorchNetwork(_LogitsOnly(program), job.setup.runtime)


class _LogitsOnly(nn.Module):
    """An exported program, without its features."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self._programs = (program,)  # not among its modules: such a program refuses eval()

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, C) logits."""
        found = self._programs[0](inputs, lengths)
        logits: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return logits


def _save_program(program: torch.export.ExportedProgram, path: Path, extra: dict[str, str]) -> None:
    """Write by Python: torch's own writer does not say that a disk is full, and ends the process.

    Where in the source a node came from names folders of this machine, and is no business of the file's readers.
    """
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files=extra)
    path.write_bytes(content.getbuffer())


def _read_program(path: Path, extra: dict[str, str] | None = None) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():
        # torch's reader lets tensors lie in the bytes it read, and warns of writing into them: nothing here does.
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        return torch.export.load(path, extra_files=extra)


class _Safetensors:
    """``safetensors``: the weights; settings and the texts of the run's assets are in the header."""

    suffix: ClassVar[str] = ".safetensors"

    def write(self, job: ExportJob, path: Path) -> Network:
        save_tensors(path, job.model.state_dict())
        return _read_weights(job, path)

    def describe(self, job: ExportJob, path: Path, about: Mapping[str, Any]) -> None:
        settings = {"settings": published_settings(job.run.settings), "assets": _assets(job.run)}
        save_tensors(path, load_tensors(path), {"samo": json.dumps({**about, **settings})})

    def read_back(self, job: ExportJob, path: Path) -> tuple[Mapping[str, Any], Network | None]:
        return parse_json(read_metadata(path)["samo"]), _read_weights(job, path)


def _read_weights(job: ExportJob, path: Path) -> Network:
    """The run's network with these weights and none of its own."""
    model, _ = load_run_model(job.run, type(job.setup.frontend), job.setup.runtime)
    for tensor in model.state_dict().values():
        tensor.zero_()
    model.load_state_dict(load_tensors(path))
    return TorchNetwork(model, job.setup.runtime)


def _assets(run: Run) -> dict[str, str]:
    """The texts among a run's assets by their place: sizes of an encoder, its tokenizer."""
    folder = run.path(ASSETS)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".txt"))
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}


FILE_FORMATS: Mapping[str, FileFormat] = {
    "onnx": _Onnx(),
    "torch-export": _TorchExport(),
    "safetensors": _Safetensors(),
}
