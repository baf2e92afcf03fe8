"""Evaluate a trained run: the only place that opens the test part."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import samo
from samo.data.copies import STAMPED_SHARE, known_rows, refuse_known
from samo.data.fingerprints import near_copies
from samo.data.manifest import Item, Manifest
from samo.data.relabel import relabel
from samo.data.sampling import balance_notes, transductive_notes
from samo.data.splits import NEAR_COPIES_HINT, PARTS, Split, is_leaky, part_sizes, split_notes
from samo.errors import DataError, LeakError, RunError, SettingsError, first_ten, nearest
from samo.evaluation.baseline import compare_to_baseline, constant_answers, shortcut_scores
from samo.evaluation.decision import Decision, fit_decision
from samo.evaluation.metrics import selection_score
from samo.evaluation.predictions import Predictions
from samo.evaluation.statistics import Intervals
from samo.files import write_json, write_text
from samo.frontend import Frontend
from samo.modalities import config_type, frontend_type
from samo.plugins import names_of, trust, trust_settings
from samo.prediction import ModelPredictor
from samo.reporting.answers import confident_mistakes, predictions_csv
from samo.reporting.figures import save_figures
from samo.reporting.html import render_html
from samo.reporting.model_card import exported_sections, model_card, with_other_corpora
from samo.reporting.report import Report, Subject, build_report
from samo.reporting.wording import openings_lines
from samo.runs.calibrate import abstention_settings, calibrate, decision_of, threshold_settings
from samo.runs.code import code_of, require_code
from samo.runs.ensemble_model import Ensemble, ensemble_facts, merged_settings
from samo.runs.ensemble_summary import members_answers, with_scores
from samo.runs.load import load_run_model, open_run, other_corpora, refuse_edited
from samo.runs.provenance import about_known_elsewhere, about_known_groups, learned_by
from samo.runs.reporter import PlainReporter, Reporter
from samo.runs.run import ASSETS, ENSEMBLE_FILE, ModelVersion, Run, remember_place, require_place
from samo.settings import SPLIT_SETTINGS
from samo.tasks import LabelSpace
from samo.training.checkpoint import read_facts
from samo.training.runtime import Runtime, make_runtime
from samo.training.setup import Setup
from samo.training.tracking import draw_pictures
from samo.training.trainer import predict_logits

__all__ = [
    "evaluate",
    "evaluate_corpus",
    "evaluate_run",
    "item_predictions",
    "kept_predictions",
    "macro_f1",
    "open_data",
    "predictions_of",
    "write_report",
]


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
    made_with = _made_with(run, setup, version)
    known = _known(run, parts, made_with, space)
    # The network is opened only where there is something to predict.
    model = load_run_model(run, type(setup.frontend), setup.runtime)[0] if parts.keys() - known.keys() else None
    run.require_model(version)
    if model is not None:
        setup.frontend.use_kept_states(model)
    if part == "test":
        run.open_test("evaluate")
    predicted = _predicted(setup, parts, known, model)
    # A training that goes on beside this may have found a better epoch: what is written must belong to the weights.
    run.require_model(version)
    decision = _completed(run, setup.frontend, space, decided, predicted["val"], about.epoch)
    predicted = {name: decision.applied(predictions, space) for name, predictions in predicted.items()}
    if part == "test":
        _complete_summary(run, setup, model, predicted[part])
    notes = [*(f"leak: {line}" for line in leaks[:10]), *split_notes(manifest, split)]
    notes += [*_of_each(run, balance_notes), *_other_precision(run, setup.runtime)]
    given = run, setup.frontend, space, split, part, predicted[part]
    baseline, shortcut = (_beside(kind, *given) for kind in ("baseline", "shortcut"))
    leaky = is_leaky(manifest, split, part)
    evaluation = _Evaluation(
        run, setup.frontend, space, split, part, decision, predicted, notes, leaky, baseline, shortcut
    )
    report, suffix = _report(evaluation), "" if part == "test" else f".{part}"
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


def evaluate_corpus(run: Run, setup: Setup, mapping: Mapping[str, str]) -> Report:
    """Evaluate a run on all labelled items of another corpus, with the temperature of its own.

    Args:
        run: the trained run.
        setup: of the other corpus.
        mapping: its classes in the run's words; see :func:`~samo.data.relabel.relabel`.

    Raises:
        SettingsError: the mapping names a class that does not exist.
        LeakError: a recording of the other corpus, or a near copy of it, was trained on, or too many of its texts.
        DataError: the mapping leaves no item, or a class of the corpus has no counterpart.
    """
    trained = run.manifest
    manifest = relabel(setup.frontend.manifest, trained.label_space, mapping)
    frontend = setup.frontend.with_manifest(manifest)
    ids = tuple(item.id for item in manifest.items if item.labels)
    if not ids:
        raise DataError("no item of the corpus is left to judge on", hint="`label_map` leaves every class out")
    learned = [trained.items[row] for row in trained.rows(run.split.train + run.split.val)]
    notes, leaky = _known_items(manifest, ids, learned)
    notes += manifest.notes[len(setup.frontend.manifest.notes) :]
    notes += _near_copies_of_training(run, trained, manifest, ids)
    more, same_people = about_known_groups(trained, learned, manifest)
    started, known_to_start = about_known_elsewhere(learned_by(run)[1:], manifest)
    notes, leaky = notes + more + started, leaky or same_people or known_to_start
    version = run.model_version()
    space = read_facts(run.model_file).label_space
    decision = decision_of(run, space)
    run.require_model(version)
    if not decision.is_complete(space):
        missing = "thresholds" if decision.calibration.fitted_on else "temperature"
        notes.append(f"no {missing}: judge the run on its own corpus first, which fits it")
    slug = setup.frontend.manifest.slug
    relabelled, parts = Setup(frontend, setup.runtime), {slug: ids}
    made_with = _made_with(run, relabelled, version)
    known = _known(run, parts, made_with, space)
    model = None if known else load_run_model(run, type(frontend), setup.runtime)[0]
    if model is not None:
        frontend.use_kept_states(model)
    predictions = decision.applied(_predicted(relabelled, parts, known, model)[slug], space)
    everything = Split("other corpus", 0, (), (), ids)
    evaluation = _Evaluation(run, frontend, space, everything, "all", decision, {"all": predictions}, notes, leaky)
    report = {**_report(evaluation), "label_map": dict(mapping)}
    return write_report(run, frontend, report, slug, {slug: predictions}, f".{slug}", version, decision, made_with)


def _near_copies_of_training(run: Run, trained: Manifest, manifest: Manifest, ids: Sequence[str]) -> list[str]:
    """Lines on recordings of another corpus that are near copies of what a run was trained and validated on.

    Raises:
        LeakError: there are some, and the settings do not ask to report them only.
    """
    if manifest.copies == "reported":
        return []
    known = run.fingerprints
    if known is None or manifest.fingerprints is None or known.kind != manifest.fingerprints.kind:
        lacks = "the corpus" if manifest.fingerprints is None else "the run"
        return [
            f"only exact copies of the training data were looked for: {lacks} has no fingerprints to find others by"
        ]
    mine, theirs = ({item.id: item.source for item in each.items} for each in (manifest, trained))
    lines = [
        f"{mine[pair.first]} and {theirs.get(pair.second, pair.second)}, {pair}"
        for pair in near_copies(manifest.fingerprints.only(ids), known)
    ]
    if lines and manifest.near_copies == "refuse":
        raise LeakError(
            f"near copies of recordings the run was trained on are in this corpus: {first_ten(lines)}",
            hint=f"remove them from this corpus; {NEAR_COPIES_HINT}",
        )
    return [f"leak: near copies of what the run was trained on: {line}" for line in lines[:10]]


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


def _known_items(manifest: Manifest, ids: tuple[str, ...], learned: Sequence[Item]) -> tuple[list[str], bool]:
    """Lines on what of another corpus a run has learned from, and whether its scores are to be stamped.

    Raises:
        LeakError: recordings, or too many texts.
    """
    if manifest.copies != "reported":
        contents = {item.content for item in learned}
        if seen := [item.source for item in manifest.items if item.content and item.content in contents]:
            raise LeakError(f"recordings the run was trained on are in this corpus: {first_ten(seen)}")
        return [], False
    texts = tuple(manifest.items[row].source for row in manifest.rows(ids))
    known = known_rows(texts, tuple(item.source for item in learned))
    what = "the run was trained on"
    refuse_known(known, ids, what, "take these rows out of the table")
    share = (
        f"{len(known):,} of {len(ids):,} texts also stand in what the run was trained on, word for word or nearly so"
    )
    return [f"leak: {share}"] if known else [], len(known) >= STAMPED_SHARE * len(ids)


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


def write_report(
    run: Run,
    frontend: Frontend,
    report: Mapping[str, Any],
    part: str,
    predictions: Mapping[str, Predictions],
    suffix: str,
    version: ModelVersion,
    decision: Decision,
    made_with: str = "",
) -> Report:
    """Pictures, page, card and table of answers first, ``report.json`` last: its presence means that all is there.

    Args:
        run: that was evaluated.
        frontend: of the data it was evaluated on.
        report: its numbers.
        part: which of ``predictions`` it is of.
        predictions: all that are kept, by name.
        suffix: of the files' names.
        version: of the weights that gave the predictions.
        decision: temperatures and thresholds of the answers.
        made_with: digest of all that the predictions depend on, by which later evaluations know them.

    Raises:
        RunError: the run has other weights by now.
    """
    manifest = frontend.manifest
    answers = predictions[part], manifest.label_space, decision, manifest
    figures = save_figures(report, predictions[part], run.history, manifest.label_space, run.path(f"figures{suffix}"))
    settings, environment = _settings(run), run.environment
    # A report is the same however often it is made; how often it was is told beside it.
    openings = run.test_openings if report["split"] == "test" else 0
    told = {**report, "warnings": [*report["warnings"], *openings_lines(openings)]}
    run.require_model(version)
    for name, given in predictions.items():
        given.save(kept_predictions(run, name), made_with)
    pictures = {path.stem: path for path in figures}
    table = f"predictions{suffix}.csv"
    write_text(run.path(table), predictions_csv(*answers))
    page = render_html(told, pictures, settings, environment, confident_mistakes(*answers), table)
    write_text(run.path(f"report{suffix}.html"), page)
    if not suffix:
        card = run.path("MODEL_CARD.md")
        about = model_card(told, settings, environment, data_card=frontend.data_card(), exported=_exported(card, run))
        write_text(card, with_other_corpora(about, other_corpora(run)))
    run.require_model(version)
    write_json(run.path(f"report{suffix}.json"), report)
    if part not in PARTS and (card := run.path("MODEL_CARD.md")).is_file():
        text = card.read_text(encoding="utf-8", errors="replace")
        write_text(card, with_other_corpora(text, other_corpora(run)))
    shown = {f"{report['split'] if part in PARTS else part}/{path.stem}": path for path in figures}
    draw_pictures(run.folder, shown, read_facts(run.model_file).epoch, logging.getLogger(__name__).warning)
    return Report(report, run.path(f"report{suffix}.html"), run.path(f"figures{suffix}"), run.modality, openings)


def _exported(card: Path, run: Run) -> str:
    """What the card before says of files exported from these weights; of weights that came later it says nothing."""
    if not card.is_file() or card.stat().st_mtime < run.model_file.stat().st_mtime:
        return ""
    return exported_sections(card.read_text(encoding="utf-8", errors="replace"))


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
    val, judged = parts[0], parts[0] if part == "val" else parts[1]
    decision = fit_decision(val, frontend.manifest.targets[rows["val"]], space, threshold_settings(frontend.config))
    beside = decision.applied(predictions_of(frontend, ids[part], judged), space)
    beside.save(run.path(f"predictions.{part}.{kind}.npz"))
    compared = compare_to_baseline(
        name,
        beside,
        predictions,
        task=space.primary,
        label_space=space,
        unit=frontend.unit,
        intervals=_intervals(run),
    )
    return compared if kind == "baseline" else shortcut_scores(compared, predictions, task=space.primary, space=space)


def _intervals(run: Run) -> Intervals:
    """As the run's first reports had them, so that its numbers stay comparable with those written down."""
    return read_facts(run.model_file).intervals


def _settings(run: Run) -> dict[str, Any]:
    """Every setting; of an ensemble those of all its members."""
    ensemble = read_facts(run.model_file).ensemble
    if not ensemble:
        return run.settings
    return {"modality": run.modality, **merged_settings([member.settings for member in ensemble.members])}


def _of_each(run: Run, notes: Callable[[Mapping[str, Any]], list[str]]) -> list[str]:
    """Notes on the settings of a run; of an ensemble on those of each member, none twice."""
    ensemble = read_facts(run.model_file).ensemble
    each = [member.settings for member in ensemble.members] if ensemble else [run.settings]
    return list(dict.fromkeys(line for settings in each for line in notes(settings)))


def _made_with(run: Run, setup: Setup, version: ModelVersion) -> str:
    """SHA-256 over all that the logits of a run's items depend on; empty where code outside SAMO has a part in it.

    Nobody knows in which files that code may change.
    """
    if code_of(run):
        return ""
    frontend, runtime = setup.frontend, setup.runtime
    assets = sorted(path for path in run.path(ASSETS).rglob("*") if path.is_file())
    facts = {
        "weights": version.digest,
        "data": frontend.manifest.digest,
        "space": frontend.manifest.label_space.to_json(),
        # Where the data lie says nothing of what they are.
        "settings": {name: value for name, value in frontend.config.stored().items() if name != "data_root"},
        "assets": [_sha256(path) for path in assets],
        "machine": [runtime.device.type, runtime.precision],
        "code": [torch.__version__, *(_sha256(path) for path in _sources(type(frontend)))],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _sources(kind: type[Frontend]) -> list[Path]:
    """The core's files of Python and the frontend's: any change of them may change what is predicted."""
    folders = [Path(inspect.getfile(found)).parent for found in (samo, kind)]
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _known(run: Run, parts: Mapping[str, tuple[str, ...]], made_with: str, space: LabelSpace) -> dict[str, np.ndarray]:
    """Logits that an evaluation before kept, of those parts that it made with the very same."""
    if not made_with:
        return {}
    kept = {
        name: Predictions.load_made_with(kept_predictions(run, name), made_with, ids, space)
        for name, ids in parts.items()
    }
    return {name: predictions.logits for name, predictions in kept.items() if predictions is not None}


def kept_predictions(run: Run, name: str) -> Path:
    """The file that keeps the predictions of a part, or of another corpus."""
    return run.path(f"predictions.{name}.npz")


def _predicted(
    setup: Setup, parts: Mapping[str, tuple[str, ...]], known: Mapping[str, np.ndarray], model: nn.Module | None
) -> dict[str, Predictions]:
    """Of each part: what is known, or else what the model answers."""
    logits = dict(known)
    for name in parts.keys() - known.keys():
        assert model is not None
        logits[name] = predict_logits(model, setup, setup.frontend.manifest.rows(parts[name]))
    return {name: predictions_of(setup.frontend, ids, logits[name]) for name, ids in parts.items()}


def predictions_of(frontend: Frontend, ids: tuple[str, ...], logits: np.ndarray) -> Predictions:
    """:func:`item_predictions` of a frontend's items."""
    return item_predictions(frontend.manifest, ids, logits)


def item_predictions(manifest: Manifest, ids: tuple[str, ...], logits: np.ndarray) -> Predictions:
    """(N, C) logits of N items beside their truth, groups and attributes."""
    rows = manifest.rows(ids)
    items = [manifest.items[row] for row in rows]
    names = sorted({name for item in items for name in item.meta})
    return Predictions(
        ids=tuple(ids),
        logits=logits,
        targets=manifest.targets[rows],
        groups=tuple(item.group for item in items),
        meta={name: tuple(item.meta.get(name, "") for item in items) for name in names},
    )


@dataclass(frozen=True)
class _Evaluation:
    """All that a report of a run on one part is made of; ``predictions`` by part, of train and val where known."""

    run: Run
    frontend: Frontend
    space: LabelSpace
    split: Split
    part: str
    decision: Decision
    predictions: Mapping[str, Predictions]
    notes: Sequence[str]
    leaky: bool
    baseline: Mapping[str, Any] | None = None
    shortcut: Mapping[str, Any] | None = None

    def macro_f1(self, part: str) -> float | None:
        """Of what the run answers, as on the part of the report; None for a part that was not predicted.

        Of multi-label tasks the reports of runs trained before hold the best single threshold of each part itself.
        """
        predictions = self.predictions.get(part)
        if predictions is None:
            return None
        if _intervals(self.run) == "percentile":
            return macro_f1(predictions, self.space)
        return self.decision.score(predictions, self.space)


def _report(evaluation: _Evaluation) -> dict[str, Any]:
    run, manifest, part = evaluation.run, evaluation.frontend.manifest, evaluation.part
    facts, notes = ensemble_facts(run), [*evaluation.notes, *_of_each(run, transductive_notes)]
    if facts and facts["fitted_on"] == part:
        notes.append("the weights of the members were fitted on this split, so its scores are a little too good")
    trained_on_synthetic = run.manifest.synthetic
    subject = Subject(
        run.name,
        manifest.dataset,
        part,
        evaluation.split.rule,
        evaluation.frontend.unit,
        synthetic=manifest.synthetic or trained_on_synthetic,
        synthetic_model_only=trained_on_synthetic and not manifest.synthetic,
        leaky=evaluation.leaky or run.split.leaky,
        corpus=manifest.corpus if manifest.origin else "",
    )
    report = build_report(
        subject,
        evaluation.predictions[part],
        evaluation.space,
        evaluation.decision,
        train_macro_f1=evaluation.macro_f1("train"),
        val_macro_f1=evaluation.macro_f1("val"),
        baseline=evaluation.baseline,
        shortcut=evaluation.shortcut,
        notes=notes,
        intervals=_intervals(run),
        constant=constant_answers(evaluation.space, run.manifest.targets[run.manifest.rows(run.split.train)]),
        parts=_parts(evaluation),
    )
    return {**report, "ensemble": facts} if facts else report


def _parts(evaluation: _Evaluation) -> dict[str, dict[str, int]]:
    """Items and groups in each part of the run's own split; of another corpus, beside what was learned from."""
    frontend, run = evaluation.frontend, evaluation.run
    found = {part: (run.manifest, run.split.part(part)) for part in PARTS}
    if evaluation.part not in PARTS:
        found = {name: found[name] for name in ("train", "val")}
        found[evaluation.part] = (frontend.manifest, evaluation.split.test)
    return {
        name: part_sizes(manifest, ids, frontend.item, manifest.group_noun) for name, (manifest, ids) in found.items()
    }


def macro_f1(predictions: Predictions, space: LabelSpace) -> float:
    """Macro-F1 as trainers select by it: of multi-label tasks at the best of 21 thresholds for these very rows."""
    return float(selection_score(space, predictions.logits, np.asarray(predictions.targets)))
