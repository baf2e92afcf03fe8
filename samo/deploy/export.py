"""From a run to a file that answers alone, checked on items held out from its training, where there are any, before
anyone sees it."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import nn

from samo import __version__
from samo.deploy.card import checked_on, exported_section, with_section
from samo.deploy.exporter import Exporter, reads_differently
from samo.deploy.finished import MOST_GIVEN, answers_problem, metadata_problem
from samo.deploy.onnx_file import OPSET, compacted, merged, require_onnx, save_metadata, write_onnx
from samo.deploy.parity import (
    LOGITS_WITHIN,
    AsModule,
    CheckItems,
    Parity,
    check_items,
    exact_problem,
    example_batches,
    gain_problem,
    latencies,
    loss_problem,
    parity_of,
    spread,
)
from samo.deploy.prune import Pruned, fine_tune
from samo.deploy.quantise import calibration_batches, quantised
from samo.deploy.reference import reference_from, reference_of
from samo.errors import (
    DataError,
    ExportError,
    ModelFileError,
    RunError,
    SamoError,
    SettingsError,
    nearest,
    reporting_full_disk,
)
from samo.evaluation.decision import Decision
from samo.files import folder_beside, parse_json, remove_left_folders, write_json, write_text
from samo.modalities import exporter_type, predictor_type
from samo.plugins import names_of, trust
from samo.prediction import ModelFacts, ModelPredictor
from samo.prediction.exported import ExportedModel, Metadata, OnnxNetwork, load_exported
from samo.prediction.network import Network
from samo.prediction.readings import FORMAT, SEVERAL_FORMAT
from samo.reporting.published import published_card, published_settings
from samo.runs.calibrate import decision_of
from samo.runs.ensemble_model import Ensemble
from samo.runs.evaluate import open_data
from samo.runs.load import facts_of, load_run_model, open_run
from samo.runs.reporter import PlainReporter, Reporter
from samo.runs.run import ASSETS, Run
from samo.tasks import LabelSpace
from samo.training.checkpoint import load_tensors, read_metadata, save_tensors
from samo.training.runtime import Runtime, environment, make_runtime
from samo.training.setup import Setup
from samo.training.torch_network import TorchNetwork
from samo.training.trainer import predict_logits

__all__ = ["CARD", "FORMATS", "Exported", "Format", "export"]

Format = Literal["onnx", "torch-export", "safetensors"]
FORMATS: tuple[str, ...] = get_args(Format)
_SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}
QUANTISATIONS = ("", "int8")
MOST_PRUNED = 0.9
CARD = "MODEL_CARD.md"
BATCHES = (1, 32)


@dataclass(frozen=True)
class Exported:
    """A file that was checked.

    Attributes:
        path: of the file.
        facts: what its ``.export.json`` holds.
    """

    path: Path
    facts: Mapping[str, Any]

    @property
    def facts_path(self) -> Path:
        """The JSON beside the file."""
        return _beside(self.path)

    def __repr__(self) -> str:
        parity = self.facts["parity"]
        f1 = parity["macro_f1"]
        score = f"macro-F1 {f1['after']:.3f} ({f1['before']:.3f} of the run)"
        if parity["trained_on"]:
            score = f"{parity['equal_labels']:.1%} of the labels equal"
        return f"<{self.path}: {self.facts['size_mb']['file']:.2f} MB, {score} on {checked_on(parity)}>"


@dataclass(frozen=True)
class _Job:
    """What is exported, and how."""

    run: Run
    setup: Setup
    model: nn.Module
    space: LabelSpace
    exporter: type[Exporter]
    format: str
    quantise: str
    prune: float
    items: CheckItems
    decisions: tuple[Decision, Decision]
    name: str


def export(
    run: str | Path | Run | ModelPredictor = "",
    to: str | Path = "",
    *,
    format: str = "onnx",
    quantize: str = "",
    prune: float = 0.0,
    prune_epochs: int = 3,
    force: bool = False,
    overwrite: bool = False,
    data_root: str | Path = "",
    artifacts: str | Path = "",
    threads: int = 0,
    trust_code: str | Sequence[str] = (),
    reporter: Reporter | None = None,
) -> Exported:
    """Write a run as one file, and check on held-out items that it answers as the run.

    A run with ``split=whole`` has none: it is checked on some of what it was trained on, and the check says so.

    Args:
        run: a run's name, ``GRID/CELL``, or folder, or what :func:`samo.load` gave; empty: the newest that has a model.
        to: the file, whose name is the model's; empty: below ``exports`` in the run's folder, called as the run.
        format: ``onnx`` answers without torch: features, labels, temperatures, thresholds and card are in it.
            ``torch-export`` is a program of ``torch.export``, ``safetensors`` the weights with all settings.
        quantize: ``int8``: at most 0.01 macro-F1 lost, and 1.5 times faster or 3 times smaller than in float32.
        prune: share of the channels of each convolution that goes, below 0.9; then a short training. At most 0.01
            macro-F1 lost.
        prune_epochs: of that training.
        force: keep a quantised or pruned file that loses more or gains less.
        overwrite: replace the file.
        data_root: where the run's data lie now; empty: where they lay.
        artifacts: folder of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts`` below the working directory.
        threads: CPU threads; 0 = as torch chooses.
        trust_code: names of code outside SAMO that the run may import, such as ``my_net:tiny``.
        reporter: is told what happens; None prints plain lines on stderr.

    Returns:
        The file and what was measured.

    Raises:
        SettingsError: arguments that do not go together, a file that is there already, or a model that cannot be
            exported.
        RunError, ModelFileError, DataError: there is no such run, no usable model, or its data are not there.
        EnvironmentProblem: the packages of the extra ``export`` are missing.
        ExportError: the file would not answer as the run, or costs more than it gains; nothing is left of it.
        DiskFull: no space is left.
    """
    _refuse_odd(format, quantize, prune, prune_epochs)
    if format == "onnx":
        require_onnx()
    trust(*names_of(trust_code))
    found, reporter = open_run(run, artifacts), reporter or PlainReporter()
    target = Path(to).expanduser() if to else _place(found, format, quantize, prune)
    _refuse_target(target, format, overwrite)
    runtime = make_runtime("cpu", "float32", threads)
    given = {"data_root": str(data_root)} if data_root else {}
    setup = Setup(open_data(found, given, reporter), runtime)
    if setup.frontend.manifest.digest != found.manifest.digest:
        raise RunError(
            f"the data differ from those run '{found.name}' was trained on", hint="say where with `data_root`"
        )
    model, space = load_run_model(found, type(setup.frontend), runtime)
    decision = decision_of(found, space)
    exporter: type[Exporter] = exporter_type(found.modality)
    exporter.exportable(model)  # refuses before anything takes long
    if format == "torch-export" and reads_differently(model):
        raise SettingsError(
            "`format=torch-export`: the members of this ensemble read differently, and a program has one reading",
            hint="`format=onnx` has room for several",
        )
    if prune and not found.split.val:
        raise SettingsError(
            f"`prune` chooses an epoch on the validation part, and run '{found.name}' has none: it learned from"
            " everything", hint="prune a run of one of the folds, or export this one without",
        )  # fmt: skip
    version = found.model_version()
    items = check_items(found, setup, model, space)
    if items.part == "test" and (quantize or prune):
        found.open_test("export " + " ".join(filter(None, (quantize, f"prune {prune:g}" if prune else ""))))
    run_network = TorchNetwork(model, runtime)
    pruned = _pruned(found, setup, exporter, prune, prune_epochs, reporter) if prune else None
    job = _Job(
        found, setup, pruned.model if pruned else model, space, exporter, format, quantize, prune, items,
        (decision, pruned.decision if pruned else decision), target.stem,
    )  # fmt: skip
    remove_left_folders(target)
    with reporting_full_disk(target), folder_beside(target) as folder:
        facts, network = _made(job, folder, target.name, run_network, force)
        if pruned:
            facts["parameters"] = {"before": pruned.parameters[0], "after": pruned.parameters[1]}
        found.require_model(version)
        made = folder / ("file" + _SUFFIXES[format])
        _label(job, made, facts, _reference(job, network))
        _check_finished(job, made, network, target.name)
        facts["sha256"] = hashlib.sha256(made.read_bytes()).hexdigest()
        # The file last: where it is, all that is said of it is there too.
        write_json(_beside(target), facts)
        made.replace(target)
    card = found.path(CARD)
    if card.is_file():
        write_text(card, with_section(card.read_text(encoding="utf-8"), facts))
    return Exported(target, facts)


def _refuse_odd(format: str, quantize: str, prune: float, prune_epochs: int) -> None:
    if format not in FORMATS:
        raise SettingsError(
            f"`format={format}`: unknown", hint=nearest(format, FORMATS) + f"valid: {', '.join(FORMATS)}"
        )
    if quantize not in QUANTISATIONS:
        raise SettingsError(f"`quantize={quantize}`: unknown", hint="valid: int8")
    if not isinstance(prune, int | float) or not 0.0 <= prune < MOST_PRUNED:
        raise SettingsError(f"`prune={prune}`: a share of the channels from 0 to below {MOST_PRUNED}")
    if quantize and format != "onnx":
        raise SettingsError("`quantize` acts only together with `format=onnx`")
    if prune and format == "safetensors":
        raise SettingsError(
            "`prune` acts only together with `format=onnx` or `format=torch-export`",
            hint="weights of a pruned network fit no settings of a run",
        )
    if isinstance(prune_epochs, bool) or not isinstance(prune_epochs, int) or prune_epochs < 1:
        raise SettingsError(f"`prune_epochs={prune_epochs}`: a number of epochs, 1 at least")


def _place(run: Run, format: str, quantize: str, prune: float) -> Path:
    return run.path("exports") / (_name(run, quantize, prune) + _SUFFIXES[format])


def _name(run: Run, quantize: str, prune: float) -> str:
    return "-".join(filter(None, (run.name, f"pruned{100 * prune:.0f}" if prune else "", quantize)))


def _beside(target: Path) -> Path:
    return target.with_suffix(".export.json")


def _refuse_target(target: Path, format: str, overwrite: bool) -> None:
    suffix = _SUFFIXES[format]
    if target.suffix != suffix:
        raise SettingsError(f"{target}: a file of `format={format}` ends in {suffix}")
    try:
        if target.is_dir():
            raise SettingsError(f"{target} is a folder; name the file")
        if target.exists() and not overwrite:
            raise SettingsError(f"{target} exists", hint="choose another file, or replace it with `overwrite`")
        with reporting_full_disk(target), folder_beside(target):
            pass  # as the file is made later, after minutes
    except OSError as error:
        raise DataError(
            f"cannot write into {target.parent}: {error.strerror or error}", hint="name a file in another folder"
        ) from error


def _pruned(run: Run, setup: Setup, exporter: type[Exporter], ratio: float, epochs: int, reporter: Reporter) -> Pruned:
    model, _ = load_run_model(run, type(setup.frontend), setup.runtime)
    groups = exporter.channel_groups(model)
    reporter.note(f"{ratio:.0%} of the channels of {len(groups)} layers go; then {epochs} epochs of training")
    with reporter.training(epochs, []) as observer:
        return fine_tune(run, setup, model, groups, ratio, epochs, observer)


def _made(job: _Job, folder: Path, name: str, run_network: Network, force: bool) -> tuple[dict[str, Any], Network]:
    """Write the file as ``file.*`` into a folder, and measure it; its facts, and the file as a network.

    Raises:
        ExportError: it does not answer as it must.
    """
    made = folder / ("file" + _SUFFIXES[job.format])
    runtime = job.setup.runtime
    opened = _written(job, made)
    exact = _exact(job, opened)
    if problem := exact_problem(exact):
        again = f"run `samo evaluate {job.run.full_name}` again if an earlier version evaluated it"
        raise ExportError(f"{name} is not written: {problem}", hint=again if exact.part == "test" else "")
    parity, sizes = (
        exact,
        {"run": _megabytes(job.run.model_file), "float32": _megabytes(made), "file": _megabytes(made)},
    )
    networks: dict[str, Network] = {"torch": run_network, job.format: opened}
    if job.prune:
        parity = _against_run(job, opened)
    if job.quantise:
        smaller = folder / "int8.onnx"
        _quantise(job, made, smaller, cast(OnnxNetwork, opened))
        networks["int8"] = opened = _open_onnx(smaller, runtime)
        parity = _against_run(job, opened)
        sizes["file"] = _megabytes(smaller)
    batches = example_batches(job.setup, job.items.ids, BATCHES)
    spent = {str(size): latencies(networks, batch) for size, batch in batches.items()}
    problems = [loss_problem(parity)] if job.prune or job.quantise else []
    if job.quantise:
        faster = min(times[job.format] / times["int8"] for times in spent.values())
        problems.append(gain_problem(faster, sizes["float32"] / sizes["file"]))
        smaller.replace(made)
    problems = [problem for problem in problems if problem]
    if problems and not force:
        hint = "`force` keeps it all the same"
        raise ExportError(f"{name} is not written: {'; '.join(problems)}", hint=hint)
    about = environment(runtime)
    facts = {
        "schema": 1,
        "file": name,
        "run": job.run.name,
        "format": job.format,
        "opset": OPSET if job.format == "onnx" else 0,
        "quantised": job.quantise,
        "pruned": job.prune,
        "exact": exact.to_json(),
        "parity": parity.to_json(),
        "size_mb": sizes,
        "latency_ms": spent,
        "threads": runtime.threads,
        "machine": about["cpu"],
        "packages": _packages(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "forced": problems,
    }
    return facts, opened


def _written(job: _Job, path: Path) -> Network:
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
            save_metadata(path, _metadata(job))
            return _open_onnx(path, job.setup.runtime)
        if job.format == "torch-export":
            return _torch_program(job, module, example, path)
        return _weights(job, path)
    except (SamoError, OSError):
        raise
    except Exception as error:  # torch's exporters have no common class for what they cannot do
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"torch cannot export run '{job.run.name}': {reason}") from error


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


def _torch_program(job: _Job, module: nn.Module, example: tuple[Any, ...], path: Path) -> Network:
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


def _weights(job: _Job, path: Path) -> Network:
    """Write the weights; read back they must give the same network."""
    save_tensors(path, job.model.state_dict())
    return _read_weights(job, path)


def _read_weights(job: _Job, path: Path) -> Network:
    model, _ = load_run_model(job.run, type(job.setup.frontend), job.setup.runtime)
    for tensor in model.state_dict().values():
        tensor.zero_()
    model.load_state_dict(load_tensors(path))
    return TorchNetwork(model, job.setup.runtime)


def _exact(job: _Job, network: Network) -> Parity:
    """The file against the network it was made of."""
    items = job.items
    if job.prune:
        rows = job.setup.frontend.manifest.rows(items.ids)
        items = replace(items, logits=predict_logits(job.model, job.setup, rows))
    decisions = job.decisions[1], job.decisions[1]
    return parity_of(job.run, job.setup, job.space, items, _logits(job, network), decisions)


def _against_run(job: _Job, network: Network) -> Parity:
    """The file against the run."""
    return parity_of(job.run, job.setup, job.space, job.items, _logits(job, network), job.decisions)


def _logits(job: _Job, network: Network) -> np.ndarray:
    return predict_logits(AsModule(network), job.setup, job.setup.frontend.manifest.rows(job.items.ids))


def _reference(job: _Job, network: Network) -> dict[str, Any]:
    """What a drift of the file's answers is measured from: its own on the validation part; {} without one."""
    frontend, ids = job.setup.frontend, job.run.split.val
    if not (job.quantise or job.prune) or not ids:
        return reference_of(job.run, job.setup)
    logits = predict_logits(AsModule(network), job.setup, frontend.manifest.rows(ids))
    return reference_from(logits, job.decisions[1], job.space, ids, frontend)


def _quantise(job: _Job, source: Path, target: Path, network: OnnxNetwork) -> None:
    """Write the quantised copy of the file that ``network`` computes."""
    kind = job.exporter.quantisation(job.model)
    rows = job.setup.frontend.manifest.rows(job.run.split.train)
    batches = calibration_batches(job.setup, rows, network.feeds) if kind == "static" else []
    try:
        quantised(source, target, job.exporter, kind, batches)
    except OSError:
        raise
    except Exception as error:  # onnxruntime raises what it likes
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"onnxruntime cannot quantise run '{job.run.name}': {reason}") from error
    save_metadata(target, _metadata(job))


def _open_onnx(path: Path, runtime: Runtime) -> Network:
    return load_exported(path, threads=runtime.threads).network


def _label(job: _Job, made: Path, facts: dict[str, Any], reference: Mapping[str, Any]) -> None:
    """Write into the finished file what was measured of it, its own size included, as far as its format has room."""
    sizes = facts["size_mb"]
    for _ in range(3):  # the card inside names the size, and another number of digits is another size
        before = exported_section(facts)
        _write_about(job, made, facts, reference)
        sizes["file"] = _megabytes(made)
        if not job.quantise:
            sizes["float32"] = sizes["file"]
        if exported_section(facts) == before:
            return


def _write_about(job: _Job, made: Path, facts: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
    kept = job.run.path(CARD)
    card = with_section(published_card(kept.read_text(encoding="utf-8")) if kept.is_file() else "", facts)
    about = _metadata(job, card, facts, reference)
    if job.format == "onnx":
        save_metadata(made, about)
    elif job.format == "torch-export":
        program = _read_program(made)
        _save_program(program, made, {"samo.json": json.dumps(about)})
    else:
        settings = {"settings": published_settings(job.run.settings), "assets": _assets(job.run)}
        save_tensors(made, load_tensors(made), {"samo": json.dumps({**about, **settings})})


def _check_finished(job: _Job, made: Path, network: Network, name: str) -> None:
    """Open the finished file as whoever uses it does, and give it what its users give it.

    Args:
        job: what was exported.
        made: the finished file.
        network: the one that was checked.
        name: of the file, for the error.

    Raises:
        ExportError: it is not what was checked.
    """
    expected = {
        "label_space": job.space.to_json(),
        "decision": job.decisions[1].to_json(),
        "reading": dict(job.exporter.reading(job.run, job.run.config)),
    }
    items = spread(job.items.ids, MOST_GIVEN)
    try:
        about, reopened = _reopened(job, made)
        problem = metadata_problem(about, expected) or _answers_problem(job, made, network, reopened, items)
    except ModelFileError as error:
        problem = error.message
    if problem:
        raise ExportError(f"{name} is not written: {problem}")


def _reopened(job: _Job, made: Path) -> tuple[Mapping[str, Any], Network | None]:
    """The metadata of a finished file; and its network, of a format that no predictor reads."""
    if job.format == "onnx":
        return ExportedModel.open(made).metadata.model_dump(mode="json"), None
    if job.format == "torch-export":
        extra = {"samo.json": ""}
        program = _read_program(made, extra).module()
        return parse_json(extra["samo.json"]), TorchNetwork(_LogitsOnly(program), job.setup.runtime)
    return parse_json(read_metadata(made)["samo"]), _read_weights(job, made)


def _answers_problem(job: _Job, made: Path, network: Network, reopened: Network | None, items: tuple[str, ...]) -> str:
    setup = job.setup
    if reopened is not None:
        rows = setup.frontend.manifest.rows(items)
        one, other = (predict_logits(AsModule(each), setup, rows) for each in (network, reopened))
        apart = float(np.abs(one.astype(np.float64) - other).max())
        far = f"logits of the finished file lie up to {apart:.2g} from those of what was checked"
        return "" if apart <= LOGITS_WITHIN else far
    own: ModelPredictor = predictor_type(job.run.modality).from_run(job.run, setup.runtime)
    if job.quantise:
        own.network = network
    elif job.prune:
        own.network = TorchNetwork(job.model, setup.runtime)
    own.decision = job.decisions[1]
    finished = load_exported(made, threads=setup.runtime.threads)
    return answers_problem(own, finished, job.exporter.inputs_of(setup.frontend, items))


def _assets(run: Run) -> dict[str, str]:
    """The texts among a run's assets by their place: sizes of an encoder, its tokenizer."""
    folder = run.path(ASSETS)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".txt"))
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def _metadata(
    job: _Job, card: str = "", facts: Mapping[str, Any] | None = None, reference: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What the file says of itself."""
    licence = str(job.setup.frontend.data_card().get("licence", ""))
    about = replace(facts_of(job.run), name=job.name, licence=licence)
    if facts and (job.quantise or job.prune):
        own = () if facts["parity"]["trained_on"] else (_score(facts),)
        about = replace(about, scores=(*own, *(f"{score} (the run)" for score in about.scores)))
    reading = dict(job.exporter.reading(job.run, job.run.config))
    return Metadata(
        format=SEVERAL_FORMAT if reads_differently(job.model) else FORMAT,
        samo=__version__,
        opset=OPSET,
        modality=job.run.modality,  # type: ignore[arg-type]
        label_space=job.space.to_json(),
        decision=job.decisions[1].to_json(),
        facts=_plain(about),  # type: ignore[arg-type]
        reading=reading,
        card=card,
        reference=dict(reference or {}),
        quantised=job.quantise,  # type: ignore[arg-type]
        pruned=float(job.prune),
    ).model_dump(mode="json")


def _plain(about: ModelFacts) -> dict[str, Any]:
    return {name: value for name, value in about.to_json().items() if name != "modality"}


def _score(facts: Mapping[str, Any]) -> str:
    parity = facts["parity"]
    part = "validation" if parity["part"] == "val" else "test"
    return f"{part} macro-F1 {parity['macro_f1']['after']:.3f} of this file over {parity['n']} items"


def _packages() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "onnx", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 4)
