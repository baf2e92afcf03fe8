"""The formats of exported files: how each is written, says what it is, and is read back."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

__all__ = ["SUFFIXES", "open_onnx", "read_back", "write_file", "write_metadata"]

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}


def write_file(job: ExportJob, path: Path) -> Network:
    """Write the network in float32, and open what was written.

    Raises:
        ExportError: torch cannot export it.
    """
    module = job.exporter.exportable(job.model)
    example = job.exporter.example(job.run.config, job.model)
    try:
        if job.format == "onnx":
            write_onnx(module, example, path, axes=job.exporter.axes(job.model))
            compacted(path, job.exporter.cosines(module))
            if isinstance(job.model, Ensemble):
                merged(path)
            save_metadata(path, metadata_of(job))
            return open_onnx(path, job.setup.runtime)
        if job.format == "torch-export":
            return _torch_program(job, module, example, path)
        return _weights(job, path)
    except (SamoError, OSError):
        raise
    except Exception as error:  # torch's exporters have no common class for what they cannot do
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"torch cannot export run '{job.run.name}': {reason}") from error


def open_onnx(path: Path, runtime: Runtime) -> Network:
    """The network of an ONNX file."""
    return load_exported(path, threads=runtime.threads).network


def _torch_program(job: ExportJob, module: nn.Module, example: tuple[Any, ...], path: Path) -> Network:
    _, axis = job.exporter.axes(job.model)[job.exporter.inputs[0]]
    batch, length = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim(axis, min=2)
    dynamic = {k: axis for k, axis in enumerate((batch, length)) if job.exporter.program_axes[k]}
    shapes = (dynamic, {0: batch})
    with torch.no_grad():
        program = torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
    _save_program(program, path, {})
    return TorchNetwork(_LogitsOnly(_read_program(path).module()), job.setup.runtime)


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


def _weights(job: ExportJob, path: Path) -> Network:
    """Write the weights; read back they must give the same network."""
    save_tensors(path, job.model.state_dict())
    return _read_weights(job, path)


def _read_weights(job: ExportJob, path: Path) -> Network:
    model, _ = load_run_model(job.run, type(job.setup.frontend), job.setup.runtime)
    for tensor in model.state_dict().values():
        tensor.zero_()
    model.load_state_dict(load_tensors(path))
    return TorchNetwork(model, job.setup.runtime)


def write_metadata(job: ExportJob, made: Path, about: Mapping[str, Any]) -> None:
    """Write into a finished file what it says of itself, as far as its format has room."""
    if job.format == "onnx":
        save_metadata(made, about)
    elif job.format == "torch-export":
        program = _read_program(made)
        _save_program(program, made, {"samo.json": json.dumps(about)})
    else:
        settings = {"settings": published_settings(job.run.settings), "assets": _assets(job.run)}
        save_tensors(made, load_tensors(made), {"samo": json.dumps({**about, **settings})})


def read_back(job: ExportJob, made: Path) -> tuple[Mapping[str, Any], Network | None]:
    """The metadata of a finished file; and its network, of a format that no predictor reads."""
    if job.format == "onnx":
        return ExportedModel.open(made).metadata.model_dump(mode="json"), None
    if job.format == "torch-export":
        extra = {"samo.json": ""}
        program = _read_program(made, extra).module()
        return parse_json(extra["samo.json"]), TorchNetwork(_LogitsOnly(program), job.setup.runtime)
    return parse_json(read_metadata(made)["samo"]), _read_weights(job, made)


def _assets(run: Run) -> dict[str, str]:
    """The texts among a run's assets by their place: sizes of an encoder, its tokenizer."""
    folder = run.path(ASSETS)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".txt"))
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}
