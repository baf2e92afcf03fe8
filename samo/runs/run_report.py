"""The report of a run: made of an evaluation, and written with page, pictures, answers and model card."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samo.data.sampling import transductive_notes
from samo.data.splits import PARTS, Split, part_sizes
from samo.evaluation.baseline import constant_answers
from samo.evaluation.decision import Decision
from samo.evaluation.metrics import selection_score
from samo.evaluation.predictions import Predictions
from samo.evaluation.statistics import Intervals
from samo.files import write_json, write_text
from samo.frontend import Frontend
from samo.reporting.answers import confident_mistakes, predictions_csv
from samo.reporting.figures import save_figures
from samo.reporting.html import render_html
from samo.reporting.model_card import exported_sections, model_card, with_other_corpora
from samo.reporting.report import Report, Subject, build_report
from samo.reporting.wording import openings_lines
from samo.runs.ensemble_model import ensemble_facts, merged_settings
from samo.runs.kept_predictions import kept_predictions
from samo.runs.load import other_corpora
from samo.runs.run import ModelVersion, Run
from samo.tasks import LabelSpace
from samo.training.checkpoint import read_facts
from samo.training.tracking import draw_pictures

__all__ = ["Evaluation", "intervals_of", "macro_f1", "notes_of_each", "report_of", "write_report"]


@dataclass(frozen=True)
class Evaluation:
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
        if intervals_of(self.run) == "percentile":
            return macro_f1(predictions, self.space)
        return self.decision.score(predictions, self.space)


def report_of(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of an evaluation, ready for JSON; of an ensemble with its members'."""
    run, manifest, part = evaluation.run, evaluation.frontend.manifest, evaluation.part
    facts, notes = ensemble_facts(run), [*evaluation.notes, *notes_of_each(run, transductive_notes)]
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
        intervals=intervals_of(run),
        constant=constant_answers(evaluation.space, run.manifest.targets[run.manifest.rows(run.split.train)]),
        parts=_parts(evaluation),
    )
    return {**report, "ensemble": facts} if facts else report


def _parts(evaluation: Evaluation) -> dict[str, dict[str, int]]:
    """Items and groups in each part of the run's own split; of another corpus, beside what was learned from."""
    frontend, run = evaluation.frontend, evaluation.run
    found = {part: (run.manifest, run.split.part(part)) for part in PARTS}
    if evaluation.part not in PARTS:
        found = {name: found[name] for name in ("train", "val")}
        found[evaluation.part] = (frontend.manifest, evaluation.split.test)
    return {
        name: part_sizes(manifest, ids, frontend.item, manifest.group_noun) for name, (manifest, ids) in found.items()
    }


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
    shown_report = {**report, "warnings": [*report["warnings"], *openings_lines(openings)]}
    run.require_model(version)
    for name, given in predictions.items():
        given.save(kept_predictions(run, name), made_with)
    pictures = {path.stem: path for path in figures}
    table = f"predictions{suffix}.csv"
    write_text(run.path(table), predictions_csv(*answers))
    page = render_html(shown_report, pictures, settings, environment, confident_mistakes(*answers), table)
    write_text(run.path(f"report{suffix}.html"), page)
    if not suffix:
        card = run.path("MODEL_CARD.md")
        about = model_card(
            shown_report, settings, environment, data_card=frontend.data_card(), exported=_exported(card, run)
        )
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


def _settings(run: Run) -> dict[str, Any]:
    """Every setting; of an ensemble those of all its members."""
    ensemble = read_facts(run.model_file).ensemble
    if not ensemble:
        return run.settings
    return {"modality": run.modality, **merged_settings([member.settings for member in ensemble.members])}


def notes_of_each(run: Run, notes: Callable[[Mapping[str, Any]], list[str]]) -> list[str]:
    """Notes on the settings of a run; of an ensemble on those of each member, none twice."""
    ensemble = read_facts(run.model_file).ensemble
    each = [member.settings for member in ensemble.members] if ensemble else [run.settings]
    return list(dict.fromkeys(line for settings in each for line in notes(settings)))


def intervals_of(run: Run) -> Intervals:
    """As the run's first reports had them, so that its numbers stay comparable with those written down."""
    return read_facts(run.model_file).intervals


def macro_f1(predictions: Predictions, space: LabelSpace) -> float:
    """Macro-F1 as trainers select by it: of multi-label tasks at the best of 21 thresholds for these very rows."""
    return float(selection_score(space, predictions.logits, np.asarray(predictions.targets)))
