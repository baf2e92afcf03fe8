"""The ensemble of one fold: what its members answer together, kept as a run without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samo.data.leaks import is_leaky
from samo.data.sampling import transductive_notes
from samo.data.splits import PARTS, part_sizes, split_notes
from samo.ensembles.ensemble import Combined, summary_of
from samo.ensembles.kept_members import KeptMember
from samo.evaluation.baseline import compare_to_baseline, constant_answers, shortcut_scores
from samo.evaluation.decision import Decision
from samo.evaluation.predictions import Predictions
from samo.experiments.cells import Cell
from samo.experiments.crossval import VALIDATED_APART
from samo.files import write_json, write_text
from samo.modalities import frontend_type
from samo.reporting.answers import confident_mistakes, predictions_csv
from samo.reporting.html import render_html
from samo.reporting.report import Subject, build_report, read_report
from samo.runs.calibrate import abstention_settings, agreed_decision, calibrate, threshold_settings
from samo.runs.ensemble_model import merged_settings
from samo.runs.kept_predictions import kept_predictions
from samo.runs.run import ENSEMBLE_FILE, Run, mark_trained
from samo.settings import stored_config
from samo.training.runtime import environment, make_runtime

__all__ = ["FoldEnsemble", "cell_of", "rows_of", "write_fold"]


@dataclass(frozen=True)
class FoldEnsemble:
    """What members of one fold and their ensemble answer; ``train`` is the ensemble's on its training part, if kept."""

    members: tuple[KeptMember, ...]
    combined: Combined
    train: Predictions | None

    @property
    def name(self) -> str:
        """Of its cell."""
        return f"seed{self.members[0].seed}.fold{self.members[0].fold}"


def cell_of(fold: FoldEnsemble) -> Cell:
    """The cell of the combined cross-validation."""
    first = fold.members[0]
    return Cell(fold.name, "all", first.seed, first.fold, _settings(fold))


def _settings(fold: FoldEnsemble) -> dict[str, Any]:
    """What the ensemble of a fold is kept with: the first member's settings but for how it decides."""
    members = [member.run.settings for member in fold.members]
    return agreed_decision(members[0], members)


def write_fold(run: Run, fold: FoldEnsemble, unit: str, command: str) -> None:
    """The run of a fold's ensemble: predictions, what it answers with, summary and report, but no model."""
    combined, manifest = fold.combined, fold.members[0].manifest
    space, split, settings = manifest.label_space, combined.split, _settings(fold)
    config = stored_config(settings)
    answers = {"val": combined.val[-1], "test": combined.test[-1]}
    if fold.train is not None:
        answers["train"] = fold.train
    run.folder.mkdir(parents=True)
    with run.locked():
        manifest.save(run.path("manifest.jsonl"))
        split.save(run.path("split.json"))
        val, withheld = answers["val"], abstention_settings(config)
        decision = calibrate(
            run, space, val.logits, val.targets, threshold_settings(config), abstention=withheld, epoch=0
        )
        for member in fold.members:  # the summary has their scores on the test part
            member.run.open_test("ensemble")
        summary = summary_of(run.full_name, combined, decision, (), manifest, unit)
        write_json(run.path(ENSEMBLE_FILE), summary)
        mark_trained(run, {"members": len(fold.members), "val_macro_f1": summary["ensemble"]["val_macro_f1"]})
        decided = {part: decision.applied(predictions, space) for part, predictions in answers.items()}
        for part, predictions in decided.items():
            predictions.save(kept_predictions(run, part))
        run.open_test("evaluate")
        report = {**_report(run, fold, decided, decision, unit), "ensemble": summary}
        facts = {**environment(make_runtime("cpu", "float32", 0)), **({"command": command} if command else {})}
        write_json(run.path("environment.json"), facts)
        shown = decided["test"], space, decision, manifest
        write_text(run.path("predictions.csv"), predictions_csv(*shown))
        every = merged_settings([member.run.settings for member in fold.members])
        page = render_html(report, {}, every, facts, confident_mistakes(*shown), "predictions.csv")
        write_text(run.path("report.html"), page)
        write_json(run.path("config.json"), settings)
        write_json(run.path("report.json"), report)


def _report(
    run: Run, fold: FoldEnsemble, decided: Mapping[str, Predictions], decision: Decision, unit: str
) -> dict[str, Any]:
    """The report on the fold's test part, beside the simple models of the members."""
    split, manifest = fold.combined.split, fold.members[0].manifest
    space, item = manifest.label_space, frontend_type(fold.members[0].run.modality).item
    learned = sorted({name for member in fold.members for name in member.split.train})
    transductive = [line for member in fold.members for line in transductive_notes(member.run.settings)]
    return build_report(
        Subject(
            run.full_name, manifest.dataset, "test", split.rule, unit, manifest.synthetic,
            leaky=any(is_leaky(manifest, one) for one in (split, *(member.split for member in fold.members))),
        ),
        decided["test"],
        space,
        decision,
        train_macro_f1=decision.score(decided["train"], space) if fold.train is not None else None,
        val_macro_f1=decision.score(decided["val"], space),
        baseline=_beside("baseline", run, fold, decided["test"], unit),
        shortcut=_beside("shortcut", run, fold, decided["test"], unit),
        notes=[*split_notes(manifest, split), *_about_validation(fold), *dict.fromkeys(transductive)],
        constant=constant_answers(space, manifest.targets[manifest.rows(learned)]),
        parts={name: part_sizes(manifest, split.part(name), item, manifest.group_noun) for name in PARTS},
    )  # fmt: skip


def _about_validation(fold: FoldEnsemble) -> list[str]:
    if len({frozenset(member.split.val) for member in fold.members}) == 1:
        return []
    return [
        f"{VALIDATED_APART}: each item of the validation part is answered by those members alone that held it out, so"
        " that its score is of fewer than answer on test"
    ]


def _beside(kind: str, run: Run, fold: FoldEnsemble, test: Predictions, unit: str) -> dict[str, Any] | None:
    """The simple model of the first member that has one, against the ensemble; kept so that folds can be joined."""
    space = fold.members[0].manifest.label_space
    for member in fold.members:
        file = member.run.path(f"predictions.test.{kind}.npz")
        known = read_report(member.run.path("report.json")).get(kind)
        if known and file.is_file():
            place = {name: row for row, name in enumerate(Predictions.load(file, space).ids)}
            simple = rows_of(Predictions.load(file, space), [place[name] for name in test.ids])
            simple.save(run.path(f"predictions.test.{kind}.npz"))
            task, name = space.primary, known["name"]
            found = compare_to_baseline(name, simple, test, task=task, label_space=space, unit=unit)
            return found if kind == "baseline" else shortcut_scores(found, test, task=task, space=space)
    return None


def rows_of(predictions: Predictions, rows: Sequence[int]) -> Predictions:
    """Some rows in the order given."""
    places = list(rows)
    return Predictions(
        tuple(predictions.ids[row] for row in places),
        predictions.logits[places],
        predictions.targets[places],
        tuple(predictions.groups[row] for row in places),
        {name: tuple(values[row] for row in places) for name, values in predictions.meta.items()},
        None if predictions.decided is None else predictions.decided[places],
    )
