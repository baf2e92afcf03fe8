"""Evaluate a run on another corpus than its own, after a look for what it has learned from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from samo.data.copies import STAMPED_SHARE, known_rows, refuse_known
from samo.data.fingerprints import near_copies
from samo.data.leaks import NEAR_COPIES_HINT
from samo.data.manifest import Item, Manifest
from samo.data.relabel import relabel
from samo.data.splits import Split
from samo.errors import DataError, LeakError, first_ten
from samo.reporting.report import Report
from samo.runs.calibrate import decision_of
from samo.runs.kept_predictions import known_logits, made_with_digest, predicted_parts
from samo.runs.load import load_run_model
from samo.runs.provenance import about_known_elsewhere, about_known_groups, learned_by
from samo.runs.run import Run
from samo.runs.run_report import Evaluation, report_of, write_report
from samo.training.checkpoint import read_facts
from samo.training.setup import Setup

__all__ = ["evaluate_corpus"]


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
    made_with = made_with_digest(run, relabelled, version)
    known = known_logits(run, parts, made_with, space)
    model = None if known else load_run_model(run, type(frontend), setup.runtime)[0]
    if model is not None:
        frontend.use_kept_states(model)
    predictions = decision.applied(predicted_parts(relabelled, parts, known, model)[slug], space)
    everything = Split("other corpus", 0, (), (), ids)
    evaluation = Evaluation(run, frontend, space, everything, "all", decision, {"all": predictions}, notes, leaky)
    report = {**report_of(evaluation), "label_map": dict(mapping)}
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
