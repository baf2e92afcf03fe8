"""Evaluate a trained run: the only place that opens the test part."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from samo.data.leaks import is_leaky
from samo.data.sampling import balance_notes
from samo.data.splits import PARTS, Split, split_notes
from samo.errors import RunError, SettingsError, nearest
from samo.evaluation.baseline import compare_to_baseline, shortcut_scores
from samo.evaluation.decision import Decision, fit_decision
from samo.evaluation.predictions import Predictions
from samo.files import write_json
from samo.frontend import Frontend
from samo.modalities import config_type, frontend_type
from samo.plugins import names_of, trust, trust_settings
from samo.prediction import ModelPredictor
from samo.reporting.report import Report
from samo.runs.calibrate import abstention_settings, calibrate, decision_of, threshold_settings
from samo.runs.code import require_code
from samo.runs.cross_corpus import evaluate_corpus
from samo.runs.ensemble_model import Ensemble, ensemble_facts
from samo.runs.ensemble_summary import members_answers, with_scores
from samo.runs.kept_predictions import known_logits, made_with_digest, predicted_parts, predictions_of
from samo.runs.load import load_run_model, open_run, refuse_edited
from samo.runs.reporter import PlainReporter, Reporter
from samo.runs.run import ASSETS, ENSEMBLE_FILE, Run, remember_place, require_place
from samo.runs.run_report import Evaluation, intervals_of, notes_of_each, report_of, write_report
from samo.settings import SPLIT_SETTINGS
from samo.tasks import LabelSpace
from samo.training.checkpoint import read_facts
from samo.training.runtime import Runtime, make_runtime
from samo.training.setup import Setup

__all__ = ["evaluate", "evaluate_run", "open_data"]


def evaluate(
    run: str | Path | Run | ModelPredictor = "",
    *,
    on: str = "test",
    label_map: Mapping[str, str] | None = None,
    artifacts: str | Path = "",
    device: str = "auto",
    precision: str = "float32",
    threads: int = 0,
    trust_code: str | Sequence[str] = (),
    reporter: Reporter | None = None,
    **settings: Any,
) -> Report:
    """Evaluate a run on its held-out part, or with ``dataset`` on another corpus.

    Args:
        run: a run's name, ``GRID/CELL``, or folder, or what :func:`samo.load` gave; empty: the newest that has a model.
        on: ``test``, ``val`` or ``train``: which part of the run's own split.
        label_map: with ``dataset``: its classes in the run's words; ``-`` leaves a class out.
        artifacts: folder of all outputs; empty: ``$SAMO_ARTIFACTS``, else ``artifacts`` below the working directory.
        device: ``auto``, ``cpu``, ``cuda``.
        precision: ``float32`` answers alike on every machine.
        threads: CPU threads; 0 = as torch chooses.
        trust_code: names of code outside SAMO that the run may import, such as ``my_net:tiny``.
        reporter: is told what happens; None prints plain lines on stderr.
        **settings: of the data, by their names: ``data_root``, ``dataset`` ...; the run's own where left out.

    Returns:
        What ``report.json`` holds, shown as a page in a notebook.

    Raises:
        SettingsError: an unknown part or setting.
        RunError, ModelFileError: there is no such run, or no usable model; the data changed since training.
        LeakError: the split shares speakers or recordings, or the other corpus was trained on.
    """
    if on not in PARTS:
        raise SettingsError(f"`on={on}`: unknown part", hint=f"valid: {', '.join(PARTS)}")
    trust(*names_of(trust_code))
    trust_settings(settings)
    mapping = _mapping(label_map)
    alone = "`label_map` acts only together with `dataset` of another corpus"
    if mapping and "dataset" not in settings:
        raise SettingsError(alone)
    found = open_run(run, artifacts)
    # Kept answers may be all that is needed: the network, whose reader looks too, may stay closed.
    refuse_edited(found)
    _require_data_settings(found, settings)
    runtime = make_runtime(device, precision, threads)
    given = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in settings.items()}
    setup = Setup(open_data(found, given, reporter or PlainReporter()), runtime)
    if "dataset" in settings and setup.frontend.manifest.digest != found.manifest.digest:
        if on != "test":
            raise SettingsError(f"`on={on}` names a part of the run's own split; another corpus is judged as a whole")
        return evaluate_corpus(found, setup, mapping)
    if mapping:
        raise SettingsError(f"{alone}; this is the run's own")
    return evaluate_run(found, setup, on)


def evaluate_run(run: Run, setup: Setup, part: str) -> Report:
    """Evaluate a run on a part of its own corpus; writes predictions, report, pictures and model card.

    Predictions are kept as raw logits beside the answers they led to. Temperatures and thresholds are the run's own,
    fitted and kept here when training did not come to that.

    Raises:
        RunError: the data changed since training, or ``calibration.json`` or ``thresholds.json`` is damaged.
        LeakError: the split shares speakers or recordings.
    """
    manifest = setup.frontend.manifest
    if manifest.digest != run.manifest.digest:
        raise RunError(
            f"the data differ from those run '{run.name}' was trained on",
            hint="give the same `data_root`, or name the other corpus with `dataset` to judge on it",
        )
    _remember_where(run, setup.frontend.config.flat())
    split = run.split
    if not split.part(part):
        raise RunError(
            f"run '{run.name}' has no {part} part: it learned from everything, with `split=whole`",
            hint="`dataset` names another corpus to judge it on; models trained alike on folds say what it is worth",
        )
    leaks = run.audit(manifest)
    version = run.model_version()
    about = read_facts(run.model_file)
    space = about.label_space
    decided = decision_of(run, manifest.label_space)
    parts = {name: split.part(name) for name in PARTS if name in ("train", "val", part)}
    made_with = made_with_digest(run, setup, version)
    known = known_logits(run, parts, made_with, space)
    # The network is opened only where there is something to predict.
    model = load_run_model(run, type(setup.frontend), setup.runtime)[0] if parts.keys() - known.keys() else None
    run.require_model(version)
    if model is not None:
        setup.frontend.use_kept_states(model)
    if part == "test":
        run.open_test("evaluate")
    predicted = predicted_parts(setup, parts, known, model)
    # A training that goes on beside this may have found a better epoch: what is written must belong to the weights.
    run.require_model(version)
    decision = _completed(run, setup.frontend, space, decided, predicted["val"], about.epoch)
    predicted = {name: decision.applied(predictions, space) for name, predictions in predicted.items()}
    if part == "test":
        _complete_summary(run, setup, model, predicted[part])
    notes = [*(f"leak: {line}" for line in leaks[:10]), *split_notes(manifest, split)]
    notes += [*notes_of_each(run, balance_notes), *_other_precision(run, setup.runtime)]
    given = run, setup.frontend, space, split, part, predicted[part]
    baseline, shortcut = (_beside(kind, *given) for kind in ("baseline", "shortcut"))
    leaky = is_leaky(manifest, split, part)
    evaluation = Evaluation(
        run, setup.frontend, space, split, part, decision, predicted, notes, leaky, baseline, shortcut
    )
    report, suffix = report_of(evaluation), "" if part == "test" else f".{part}"
    return write_report(run, setup.frontend, report, part, predicted, suffix, version, decision, made_with)


def _complete_summary(run: Run, setup: Setup, model: nn.Module | None, test: Predictions) -> None:
    """Test the members of an ensemble, too, where that was not done when it was made."""
    summary, about = ensemble_facts(run), read_facts(run.model_file).ensemble
    if summary is None or about is None or summary["gain"] is not None:
        return
    if [member["name"] for member in summary["members"]] != [member.name for member in about.members]:
        return
    opened = model or load_run_model(run, type(setup.frontend), setup.runtime)[0]
    assert isinstance(opened, Ensemble)
    manifest, split = setup.frontend.manifest, run.split
    for member in summary["members"]:  # the summary has their scores on the test part from here on
        folder = run.root.resolve() / member.get("folder", "")
        if folder.name == member["name"] and (folder / "config.json").is_file():
            Run(folder).open_test("ensemble")
    answered = members_answers(opened, about, setup, manifest.rows(split.test), test)
    found = with_scores(summary, [*answered, test], split, "test", manifest, setup.frontend.unit)
    write_json(run.path(ENSEMBLE_FILE), found)


def _remember_where(run: Run, values: Mapping[str, Any]) -> None:
    """Let a run whose data are gone from where they were know the place where they were found."""
    place = str(run.settings.get("data_root", ""))
    if place and not Path(place).exists() and values.get("dataset") == run.settings.get("dataset"):
        remember_place(run, str(values.get("data_root", "")))


def _mapping(label_map: Mapping[str, str] | None) -> dict[str, str]:
    if label_map is not None and not isinstance(label_map, Mapping):
        raise TypeError(
            f"`label_map` takes a dict from the corpus' classes to the run's, not {type(label_map).__name__}"
        )
    return dict(label_map or {})


def _require_data_settings(run: Run, settings: Mapping[str, Any]) -> None:
    """Only what says which data are read may differ from the run: anything else would judge another model.

    Raises:
        SettingsError: names the setting.
    """
    allowed = {f.name for f in config_type(run.modality).fields() if f.section == "data"} - SPLIT_SETTINGS
    for name in settings:
        if name not in allowed:
            raise SettingsError(
                f"`{name}` cannot be set when a run is evaluated: it is part of what the run is",
                hint=nearest(name, allowed) + f"valid: {', '.join(sorted(allowed))}",
            )


def open_data(run: Run, settings: Mapping[str, Any], reporter: Reporter) -> Frontend:
    """The frontend over the run's own corpus, or over the one that ``settings`` name."""
    require_code(run, "model", *([] if "dataset" in settings else ["dataset"]))
    kind, values = config_type(run.modality), run.flat_settings
    if "dataset" in settings:
        # The run's split speaks of its own corpus, and so do columns and patterns unless both are of one kind.
        same_kind = settings["dataset"] == values["dataset"]
        stale = SPLIT_SETTINGS if same_kind else {field.name for field in kind.fields() if field.section == "data"}
        values |= {field.name: field.info.default for field in kind.fields() if field.name in stale - {"mode"}}
    if "dataset" not in settings:
        require_place(run, {**values, **settings}, moved="data_root" in settings)
    frontend = frontend_type(run.modality)
    with reporter.counting(frontend.preparing) as progress:
        return frontend.open(kind.build({**values, **settings}), reporter.note, progress, run.path(ASSETS))


def _other_precision(run: Run, runtime: Runtime) -> list[str]:
    """Why validation macro-F1 may not be the one training printed."""
    trained = run.environment.get("runtime", {}).get("precision", runtime.precision)
    if trained == runtime.precision:
        return []
    return [f"validation macro-F1 of training was measured in {trained}, here in {runtime.precision}"]


def _completed(
    run: Run, frontend: Frontend, space: LabelSpace, known: Decision, val: Predictions, epoch: int
) -> Decision:
    """What a run answers with, fitted on its validation rows where something is missing."""
    withheld = abstention_settings(frontend.config)
    if known.is_complete(space) and known.abstention.is_wanted_by(withheld):
        return known
    keep = known.calibration if known.calibration.fitted_on else None
    thresholds = threshold_settings(frontend.config)
    return calibrate(run, space, val.logits, val.targets, thresholds, keep=keep, abstention=withheld, epoch=epoch)


def _beside(
    kind: str, run: Run, frontend: Frontend, space: LabelSpace, split: Split, part: str, predictions: Predictions
) -> dict[str, Any] | None:
    """The modality's simple model on the same rows, with temperature and thresholds of its own from validation.

    Its answers are kept beside the run's, so that a cross-validation can join them. ``kind`` is ``baseline`` or
    ``shortcut``, a model that is shown only what should not give the answer away.
    """
    ids = {name: split.part(name) for name in ("val", part)}
    rows = {name: frontend.manifest.rows(each) for name, each in ids.items()}
    simple_model = frontend.baseline if kind == "baseline" else frontend.shortcut
    found = simple_model(frontend.manifest.rows(split.train), np.concatenate(list(rows.values())))
    if not found:
        return None
    name, logits = found
    parts = np.split(logits, [len(rows["val"])])
    val, answered = parts[0], parts[0] if part == "val" else parts[1]
    decision = fit_decision(val, frontend.manifest.targets[rows["val"]], space, threshold_settings(frontend.config))
    beside = decision.applied(predictions_of(frontend, ids[part], answered), space)
    beside.save(run.path(f"predictions.{part}.{kind}.npz"))
    compared = compare_to_baseline(
        name,
        beside,
        predictions,
        task=space.primary,
        label_space=space,
        unit=frontend.unit,
        intervals=intervals_of(run),
    )
    return compared if kind == "baseline" else shortcut_scores(compared, predictions, task=space.primary, space=space)
