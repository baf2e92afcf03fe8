"""From a run's folder to a model that answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samo.errors import ModelFileError, RunError, counted
from samo.files import parse_json
from samo.lazy import load_object
from samo.modalities import predictor_type
from samo.plugins import names_of, trust
from samo.prediction import ModelFacts, ModelPredictor, TrainedModel
from samo.prediction.exported import is_exported, load_exported
from samo.runs.artifacts import artifacts_root, find_model
from samo.runs.released import released_for
from samo.runs.run import ASSETS, Run
from samo.tasks import LabelSpace

# An exported file is opened without torch, which most of the rooms below bring.
if TYPE_CHECKING:
    from torch import nn

    from samo.frontend import Frontend
    from samo.training.checkpoint import ModelFacts as AboutModel
    from samo.training.runtime import Runtime

__all__ = [
    "CROSSVALIDATED",
    "MOVABLE",
    "facts_of",
    "load",
    "load_run_model",
    "open_run",
    "other_corpora",
    "refuse_edited",
    "trained_model",
]

# Where the data lies may change between a run's beginning and its use; that they are the same data is checked.
MOVABLE = frozenset({"data_root"})
# Of a model that learned from everything: the report of those that were trained alike on folds.
CROSSVALIDATED = "crossval.json"


def load(
    model: str | Path | Run = "",
    *,
    artifacts: str | Path = "",
    device: str = "auto",
    precision: str = "float32",
    threads: int = 0,
    trust_code: str | Sequence[str] = (),
) -> ModelPredictor:
    """Open a trained model.

    Args:
        model: a run's name, ``GRID/CELL``, or folder; an exported file, ``FILE.onnx``; a model that comes with SAMO,
            ``samo-speech``; empty: the newest run with a model, without any run ``samo-speech``.
        artifacts: folder of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts`` below the working directory.
        device: ``auto``, ``cpu``, ``cuda``; an exported file is computed on the CPU.
        precision: ``float32`` answers alike on every machine; ``auto`` takes the fastest. An exported file has its own.
        threads: CPU threads; 0 = as torch chooses, of an exported file all cores.
        trust_code: names of code outside SAMO that the run may import, such as ``my_net:tiny``.

    Returns:
        What answers: ``load("my-run").predict("clip.wav")``. Its ``repr`` tells what it answers, on what it was trained
        and how good it is.

    Raises:
        RunError: there is no such run.
        ModelFileError: it has no model, or a damaged one; the file is no exported model.
        SettingsError: a device or precision that this machine lacks, or an exported file.
        EnvironmentProblem: a run needs torch, which is not installed.
    """
    file = released_for(model, artifacts_root(str(artifacts))) if isinstance(model, str) else None
    if file or is_exported(model):
        return load_exported(file or str(model), device=device, precision=precision, threads=threads)
    trust(*names_of(trust_code))
    run = open_run(model, artifacts)
    make_runtime = load_object("samo.training.runtime:make_runtime")
    opened: ModelPredictor = predictor_type(run.modality).from_run(run, make_runtime(device, precision, threads))
    return opened


def open_run(given: str | Path | Run | ModelPredictor, artifacts: str | Path = "") -> Run:
    """A run that has a model, by what a person may hand over.

    Raises:
        TypeError: nothing that could name a run.
        RunError, ModelFileError: there is no such run, or it has no model.
    """
    if isinstance(given, Run):
        return given
    if is_exported(given) or (isinstance(given, ModelPredictor) and not given.facts.folder):
        raise ModelFileError("an exported file only predicts", hint="give the run it was made of")
    if isinstance(given, ModelPredictor):
        given = given.facts.folder
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"a run is given by its name, its folder, or as samo.train returns it, not {_kind(given)}")
    return find_model(artifacts_root(str(artifacts)), _name_of(given))


def _kind(given: object) -> str:
    return "None" if given is None else type(given).__name__


def trained_model(run: Run, frontend_type: type[Frontend], runtime: Runtime) -> TrainedModel:
    """A run's best network with its label space, decision and facts.

    Raises:
        ModelFileError: missing, damaged, foreign, or not of these settings.
        RunError: its ``calibration.json`` or ``thresholds.json`` is damaged.
    """
    from samo.runs.calibrate import decision_of
    from samo.training.torch_network import TorchNetwork

    module, space = load_run_model(run, frontend_type, runtime)
    network = TorchNetwork(module, runtime)
    return TrainedModel(network, space, decision_of(run, space), facts_of(run), runtime.threads)


def load_run_model(run: Run, frontend_type: type[Frontend], runtime: Runtime) -> tuple[nn.Module, LabelSpace]:
    """The model of a run's best epoch, or of an ensemble, ready to evaluate with, and what its columns mean.

    Raises:
        ModelFileError: missing, damaged, foreign, or not of these settings.
        RunError: it needs code that nobody named, see :func:`samo.runs.code.require_code`; or its settings were edited.
    """
    import torch

    from samo.runs.code import require_code
    from samo.runs.ensemble_model import Ensemble
    from samo.training.checkpoint import load_model, read_facts

    refuse_edited(run)
    about = read_facts(run.model_file)
    space = about.label_space

    def built(settings: dict[str, Any], assets: Path) -> nn.Module:
        require_code(run, "model", settings=settings, kind=frontend_type.config_type)
        return frontend_type.build_model(frontend_type.config_type.build(settings), space, assets)

    model: nn.Module
    if about.ensemble:
        members = about.ensemble.members
        parts = [built(member.settings, run.path(ASSETS) / str(k)) for k, member in enumerate(members)]
        weights, temperatures = [member.weight for member in members], [member.temperature for member in members]
        thresholds = [member.thresholds for member in members]
        reads, several = [member.reads for member in members], about.ensemble.parts > 1
        configs = [frontend_type.config_type.build(member.settings) for member in members]
        readers = [frontend_type.reader(*each) for each in zip(parts, configs, strict=True)] if several else ()
        combine, n_parts = about.ensemble.combine, about.ensemble.parts
        model = Ensemble(parts, weights, temperatures, space, combine, thresholds, reads, n_parts, readers)
    else:
        model = built(run.flat_settings, run.path(ASSETS))
    load_model(run.model_file, model)
    # Without gradients channels-last is faster in every precision; in float32 training it is not always.
    return runtime.place(model).to(memory_format=torch.channels_last).eval(), space  # type: ignore[call-overload]


def refuse_edited(run: Run) -> None:
    """Use a run only under the settings it was begun with; runs of earlier versions do not say.

    Raises:
        RunError: names the settings that stand otherwise in ``config.json``.
        ModelFileError: what it was begun with cannot be read.
    """
    from samo.training.checkpoint import read_metadata

    path = run.path("fitted.safetensors")
    text = read_metadata(path).get("settings") if path.is_file() else None
    if text is None:
        return
    try:
        begun = dict(parse_json(text))
    except (ValueError, TypeError) as error:
        raise ModelFileError(f"{path} is damaged: its settings cannot be read") from error
    changed = [
        f"`{name}` {value} is now {run.settings.get(name)}"
        for name, value in begun.items()
        if name not in MOVABLE and run.settings.get(name) != value
    ]
    if changed:
        raise RunError(
            f"config.json of run '{run.name}' was edited since the run was begun: {', '.join(changed)}",
            hint="undo that, or train a new run with these settings",
        )


def facts_of(run: Run) -> ModelFacts:
    """Where a run's model comes from and how good it is, from what its folder holds; unknown things stay empty."""
    from samo.runs.code import code_of
    from samo.training.checkpoint import read_facts

    about = read_facts(run.model_file)
    settings = run.settings
    members = about.ensemble.members if about.ensemble else ()
    network = str(settings.get("model", "")) if not members else f"ensemble of {len(members)}"
    leaky = run.split.leaky or bool(_read(run.path("report.json")).get("leaky"))
    return ModelFacts(
        run.name,
        run.modality,
        str(run.folder.absolute()),
        dataset=about.dataset,
        synthetic=about.synthetic,
        leaky=leaky,
        network=network,
        trained=_day(run),
        scores=tuple(_scores(run, about)),
        code=tuple(dict.fromkeys(name for each in code_of(run).values() for name in each["name"].split(", "))),
    )


def _scores(run: Run, about: AboutModel) -> list[str]:
    report, folds = _read(run.path("report.json")), _read(run.path(CROSSVALIDATED))
    found = []
    try:
        if report:
            opened = f"; opened {n} times" if (n := run.test_openings) > 1 else ""
            found.append(f"test {_score(report)}{opened}")
        if folds:
            alike = f"by {folds['folds']} models trained alike on folds"
            found.append(f"cross-validated {_score(folds['report'])}, {alike}; this one learned from all of it")
        if about.val_macro_f1 is not None:
            found.append(f"validation macro-F1 {about.val_macro_f1:.3f}, which chose the epoch")
    except (LookupError, TypeError, ValueError):
        pass  # what is damaged is told by whoever needs it
    if report or folds:
        return [*found, *other_corpora(run)]
    nothing = "learned from everything: nothing is left to evaluate it on"
    nothing = nothing if run.split.rule == "whole" else "not evaluated on its test part yet"
    return [*found, nothing, *other_corpora(run)]


def other_corpora(run: Run) -> list[str]:
    """A line for each other corpus a run was evaluated on; damaged reports are left out."""
    from samo.reporting.report import corpus_of

    lines = []
    for path in sorted(run.folder.glob("report.*.json")):
        report = _read(path)
        try:
            if report.get("split") == "all":
                lines.append(f"on {corpus_of(report)}: {_score(report)}")
        except (LookupError, TypeError, ValueError):
            continue
    return lines


def _score(report: dict[str, Any]) -> str:
    """Macro-F1 of a report with its interval and what it rests on."""
    ends, unit = report["ci"]["macro_f1"], report["ci"]["unit"]
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
    over = f", {counted(report['ci']['n_units'], unit)}" if ends and unit != "row" else ""
    return f"macro-F1 {report['metrics']['macro_f1']:.3f}{interval} over {counted(report['n'], 'item')}{over}"


def _day(run: Run) -> str:
    """The day a training began, by its own record, else that of its weights."""
    began = _read(run.path("environment.json")).get("began")
    if isinstance(began, str):
        return began[:10]
    return datetime.fromtimestamp(run.model_file.stat().st_mtime, UTC).date().isoformat()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _name_of(model: str | os.PathLike[str]) -> str:
    """A run by name or folder; a file of a run stands for the run.

    Raises:
        ModelFileError: another file.
    """
    place = Path(model)
    if model and place.is_file():
        if (place.parent / "config.json").is_file():
            return str(place.parent)
        raise ModelFileError(f"{place} is no run", hint="name a run, or its folder with config.json in it")
    return str(model)
