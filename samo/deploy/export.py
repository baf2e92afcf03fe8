"""From a run to a file that answers alone, checked on items held out from its training, where there are any, before
anyone sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from torch import nn

from samo.deploy.card import checked_on, exported_section, with_section
from samo.deploy.export_job import ExportJob
from samo.deploy.exporter import Exporter, reads_differently
from samo.deploy.file_formats import FILE_FORMATS, open_onnx, write_file
from samo.deploy.file_metadata import metadata_of
from samo.deploy.finished import check_finished
from samo.deploy.onnx_file import OPSET, require_onnx, save_metadata
from samo.deploy.parity import (
    AsModule,
    Parity,
    check_items,
    exact_problem,
    example_batches,
    gain_problem,
    latencies,
    loss_problem,
    parity_of,
)
from samo.deploy.prune import Pruned, fine_tune
from samo.deploy.quantise import calibration_batches, quantised
from samo.deploy.reference import reference_from, reference_of
from samo.errors import (
    DataError,
    ExportError,
    RunError,
    SettingsError,
    nearest,
    reporting_full_disk,
)
from samo.files import folder_beside, remove_left_folders, write_json, write_text
from samo.modalities import exporter_type
from samo.plugins import names_of, trust
from samo.prediction import ModelPredictor
from samo.prediction.exported import OnnxNetwork
from samo.prediction.network import Network
from samo.reporting.published import published_card
from samo.runs.calibrate import decision_of
from samo.runs.evaluate import open_data
from samo.runs.load import load_run_model, open_run
from samo.runs.reporter import PlainReporter, Reporter
from samo.runs.run import ModelVersion, Run
from samo.training.runtime import Runtime, environment, make_runtime
from samo.training.setup import Setup
from samo.training.torch_network import TorchNetwork
from samo.training.trainer import predict_logits

__all__ = ["CARD", "FORMATS", "Exported", "Format", "export"]

Format = Literal["onnx", "torch-export", "safetensors"]
FORMATS: tuple[str, ...] = get_args(Format)
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
    setup = _opened(found, data_root, make_runtime("cpu", "float32", threads), reporter)
    model, space = load_run_model(found, type(setup.frontend), setup.runtime)
    decision = decision_of(found, space)
    exporter: type[Exporter] = exporter_type(found.modality)
    _refuse_model(found, model, exporter, format, prune)
    version = found.model_version()
    items = check_items(found, setup, model, space)
    if items.part == "test" and (quantize or prune):
        found.open_test("export " + " ".join(filter(None, (quantize, f"prune {prune:g}" if prune else ""))))
    pruned = _pruned(found, setup, exporter, prune, prune_epochs, reporter) if prune else None
    job = ExportJob(
        found, setup, pruned.model if pruned else model, space, exporter, format, quantize, prune, items,
        (decision, pruned.decision if pruned else decision), target.stem,
    )  # fmt: skip
    about = {"parameters": {"before": pruned.parameters[0], "after": pruned.parameters[1]}} if pruned else {}
    facts = _write(job, target, TorchNetwork(model, setup.runtime), version, about, force)
    card = found.path(CARD)
    if card.is_file():
        write_text(card, with_section(card.read_text(encoding="utf-8"), facts))
    return Exported(target, facts)


def _opened(run: Run, data_root: str | Path, runtime: Runtime, reporter: Reporter) -> Setup:
    """The data of a run as they were when it was trained."""
    given = {"data_root": str(data_root)} if data_root else {}
    setup = Setup(open_data(run, given, reporter), runtime)
    if setup.frontend.manifest.digest != run.manifest.digest:
        raise RunError(f"the data differ from those run '{run.name}' was trained on", hint="say where with `data_root`")
    return setup


def _refuse_model(run: Run, model: nn.Module, exporter: type[Exporter], format: str, prune: float) -> None:
    """Refuse what cannot be exported before anything takes long."""
    exporter.exportable(model)
    if format == "torch-export" and reads_differently(model):
        raise SettingsError(
            "`format=torch-export`: the members of this ensemble read differently, and a program has one reading",
            hint="`format=onnx` has room for several",
        )
    if prune and not run.split.val:
        raise SettingsError(
            f"`prune` chooses an epoch on the validation part, and run '{run.name}' has none: it learned from"
            " everything", hint="prune a run of one of the folds, or export this one without",
        )  # fmt: skip


def _write(
    job: ExportJob, target: Path, run_network: Network, version: ModelVersion, about: Mapping[str, Any], force: bool
) -> dict[str, Any]:
    """Write the file and, beside it, what was measured of it; nothing is there before it is checked.

    Args:
        job: what is exported.
        target: the file.
        run_network: of the run, whose speed is compared.
        version: the weights that were read, which must not change meanwhile.
        about: facts of the model that nothing here measures.
        force: keep what loses more or gains less.

    Returns:
        The facts.
    """
    remove_left_folders(target)
    with reporting_full_disk(target), folder_beside(target) as folder:
        facts, network = _made(job, folder, target.name, run_network, force)
        facts |= about
        job.run.require_model(version)
        made = folder / ("file" + FILE_FORMATS[job.format].suffix)
        _label(job, made, facts, _reference(job, network))
        check_finished(job, made, network, target.name)
        facts["sha256"] = hashlib.sha256(made.read_bytes()).hexdigest()
        # The file last: where it is, all that is said of it is there too.
        write_json(_beside(target), facts)
        made.replace(target)
    return facts


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
    return run.path("exports") / (_name(run, quantize, prune) + FILE_FORMATS[format].suffix)


def _name(run: Run, quantize: str, prune: float) -> str:
    return "-".join(filter(None, (run.name, f"pruned{100 * prune:.0f}" if prune else "", quantize)))


def _beside(target: Path) -> Path:
    """Of another format beside an ONNX file it has a name of its own."""
    onnx = target.suffix == FILE_FORMATS["onnx"].suffix
    return target.with_suffix(".export.json") if onnx else target.with_name(f"{target.name}.export.json")


def _refuse_target(target: Path, format: str, overwrite: bool) -> None:
    suffix = FILE_FORMATS[format].suffix
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


def _made(job: ExportJob, folder: Path, name: str, run_network: Network, force: bool) -> tuple[dict[str, Any], Network]:
    """Write the file as ``file.*`` into a folder, and measure it; its facts, and the file as a network.

    Raises:
        ExportError: it does not answer as it must.
    """
    made = folder / ("file" + FILE_FORMATS[job.format].suffix)
    runtime = job.setup.runtime
    opened = write_file(job, made)
    exact = _exact(job, opened)
    if problem := exact_problem(exact):
        again = f"run `samo evaluate {job.run.full_name}` again if an earlier version evaluated it"
        raise ExportError(f"{name} is not written: {problem}", hint=again if exact.part == "test" else "")
    parity = exact
    sizes = {"run": _megabytes(job.run.model_file), "float32": _megabytes(made), "file": _megabytes(made)}
    networks: dict[str, Network] = {"torch": run_network, job.format: opened}
    if job.prune:
        parity = _against_run(job, opened)
    if job.quantise:
        smaller = folder / "int8.onnx"
        _quantise(job, made, smaller, cast(OnnxNetwork, opened))
        networks["int8"] = opened = open_onnx(smaller, runtime)
        parity = _against_run(job, opened)
        sizes["file"] = _megabytes(smaller)
    batches = example_batches(job.setup, job.items.ids, BATCHES)
    spent = {str(size): latencies(networks, batch) for size, batch in batches.items()}
    problems = _problems(job, parity, spent, sizes)
    if job.quantise:
        smaller.replace(made)
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


def _problems(
    job: ExportJob, parity: Parity, spent: Mapping[str, Mapping[str, float]], sizes: Mapping[str, float]
) -> list[str]:
    """What a quantised or pruned file loses too much of, or gains too little."""
    problems = [loss_problem(parity)] if job.prune or job.quantise else []
    if job.quantise:
        faster = min(times[job.format] / times["int8"] for times in spent.values())
        problems.append(gain_problem(faster, sizes["float32"] / sizes["file"]))
    return [problem for problem in problems if problem]


def _exact(job: ExportJob, network: Network) -> Parity:
    """The file against the network it was made of."""
    items = job.items
    if job.prune:
        rows = job.setup.frontend.manifest.rows(items.ids)
        items = replace(items, logits=predict_logits(job.model, job.setup, rows))
    decisions = job.decisions[1], job.decisions[1]
    return parity_of(job.run, job.setup, job.space, items, _logits(job, network), decisions)


def _against_run(job: ExportJob, network: Network) -> Parity:
    """The file against the run."""
    return parity_of(job.run, job.setup, job.space, job.items, _logits(job, network), job.decisions)


def _logits(job: ExportJob, network: Network) -> np.ndarray:
    return predict_logits(AsModule(network), job.setup, job.setup.frontend.manifest.rows(job.items.ids))


def _reference(job: ExportJob, network: Network) -> dict[str, Any]:
    """What a drift of the file's answers is measured from: its own on the validation part; {} without one."""
    frontend, ids = job.setup.frontend, job.run.split.val
    if not (job.quantise or job.prune) or not ids:
        return reference_of(job.run, job.setup)
    logits = predict_logits(AsModule(network), job.setup, frontend.manifest.rows(ids))
    return reference_from(logits, job.decisions[1], job.space, ids, frontend)


def _quantise(job: ExportJob, source: Path, target: Path, network: OnnxNetwork) -> None:
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
    save_metadata(target, metadata_of(job))


def _label(job: ExportJob, made: Path, facts: dict[str, Any], reference: Mapping[str, Any]) -> None:
    """Write into the finished file what was measured of it, its own size included, as far as its format has room."""
    sizes = facts["size_mb"]
    for _ in range(3):  # the card inside names the size, and another number of digits is another size
        before = exported_section(facts)
        FILE_FORMATS[job.format].describe(job, made, _about(job, facts, reference))
        sizes["file"] = _megabytes(made)
        if not job.quantise:
            sizes["float32"] = sizes["file"]
        if exported_section(facts) == before:
            return


def _about(job: ExportJob, facts: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """What the finished file says of itself: the run's card with what was measured of the file, too."""
    kept = job.run.path(CARD)
    card = with_section(published_card(kept.read_text(encoding="utf-8")) if kept.is_file() else "", facts)
    return metadata_of(job, card, facts, reference)


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
