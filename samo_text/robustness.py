"""What a run makes of its test texts when they are written otherwise.

Every text is rewritten (:mod:`samo_text.rewriting.kinds`), predicted again and decided with the run's own temperatures
and thresholds. Reported are the macro-F1, its difference from that of the texts as they are with an interval from a
paired bootstrap over rows (:mod:`samo.evaluation.paired_bootstrap`; p-values corrected after Holm for the number of
rewritings), and how many answers changed. A text that a rewriting leaves as it is keeps its answer, so that a rewriting
which seldom applies (emoji) cannot cost much: how many texts it changed stands beside it. After Ribeiro et al. (2020,
"Beyond Accuracy: Behavioral Testing of NLP Models with CheckList"): most are their invariance tests.

A negation changes what is true. For it only the share of changed answers is given: a model that takes no notice of
*not* changes few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from samo.data.leaks import is_leaky
from samo.errors import DataError, SettingsError
from samo.evaluation.metrics import macro_f1, micro_f1, tally
from samo.evaluation.paired_bootstrap import paired_bootstrap
from samo.evaluation.significance import holm, verdict
from samo.evaluation.statistics import Interval, score_intervals, tally_by_unit
from samo.runs.run import Run
from samo.tasks import LabelSpace, Task
from samo.training.runtime import Runtime
from samo_text.predictor import TextPredictor
from samo_text.rewriting.kinds import KINDS, LENGTH, Rewrite
from samo_text.rewriting.words import chance_of, pieces_of, word_places

__all__ = ["LENGTH_BINS", "check_robustness", "robustness_of"]

SCHEMA = 1
LEVEL = 0.95
N_RESAMPLES = 2000
# Most words of a text in each bin; the last has no end.
LENGTH_BINS = (3, 8, 16, 24)
_PARTS = ("test", "val")
_EXAMPLES = 3


def check_robustness(
    run: Run,
    runtime: Runtime,
    *,
    part: str = "test",
    kinds: Sequence[str] = tuple(KINDS),
    strength: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a run on a part of its own texts, rewritten.

    The texts are those in the run's manifest: the corpus itself is not needed.

    Args:
        run: of the text modality, with a model.
        runtime: where.
        part: ``test`` or ``val``.
        kinds: of :data:`samo_text.rewriting.kinds.KINDS`.
        strength: share of a text's words that typing errors, added marks and drawn-out letters touch, in (0, 1].
        seed: decides every draw.
        progress: called with how many rewritings of how many are done.

    Returns:
        The report of :func:`robustness_of` under the run's name and data.

    Raises:
        SettingsError: a run of another modality, an unknown part, or a strength out of range.
        DataError: the part holds no labelled text.
        ModelFileError, RunError: the run is damaged.
    """
    _refuse_wrong_question(run, part, strength)
    manifest, split = run.manifest, run.split
    rows = manifest.rows(split.part(part))
    items = [manifest.items[row] for row in rows]
    predictor = TextPredictor.from_run(run, runtime)
    if part == "test":
        run.open_test("robustness")
    report = robustness_of(
        [item.source for item in items],
        manifest.targets[rows],
        [item.group for item in items],
        [item.id for item in items],
        predictor,
        kinds=kinds,
        strength=strength,
        seed=seed,
        progress=progress,
    )
    facts = {
        "schema": SCHEMA,
        "run": run.name,
        "dataset": manifest.dataset,
        "synthetic": manifest.synthetic,
        "split": part,
        "split_rule": split.rule,
        "leaky": is_leaky(manifest, split, part),
    }
    if part == "val":
        report["warnings"].append("the best epoch and the thresholds were chosen on this split")
    if manifest.synthetic:
        report["warnings"].append("synthetic demo data: these scores say nothing about real people")
    return {**facts, **report}


def _refuse_wrong_question(run: Run, part: str, strength: float) -> None:
    if run.settings["modality"] != "text":
        raise SettingsError(
            f"run '{run.name}' was trained on {run.settings['modality']}; samo robustness rewrites texts",
            hint="name a run of `modality=text`",
        )
    if part not in _PARTS:
        raise SettingsError(f"`on={part}`: unknown part", hint=f"valid: {', '.join(_PARTS)}")
    if not 0.0 < strength <= 1.0:
        raise SettingsError(f"`strength={strength:g}`: a share of the words, above 0 and at most 1")


def robustness_of(
    texts: Sequence[str],
    targets: np.ndarray,
    groups: Sequence[str],
    ids: Sequence[str],
    predictor: TextPredictor,
    *,
    kinds: Sequence[str],
    strength: float,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    n_resamples: int = N_RESAMPLES,
) -> dict[str, Any]:
    """Evaluate a predictor on any texts, rewritten.

    Args:
        texts: N texts.
        targets: (N, C); NaN where a task has no label.
        groups: of each text; empty where there are none.
        ids: by which each text's draws are told apart.
        predictor: what answers.
        kinds: of :data:`samo_text.rewriting.kinds.KINDS`.
        strength: share of the words.
        seed: of the draws.
        progress: called with how many rewritings of how many are done.
        n_resamples: draws of the bootstrap.

    Returns:
        ``n``, ``unit``, ``level``, ``n_resamples``, ``strength``, ``seed``, ``rewrites`` (name, kind, how many texts it
        changed, examples), ``tasks`` and ``warnings``. Each task holds ``macro_f1`` and ``ci`` of the texts as they
        are, ``rewrites`` (macro-F1, difference with interval, p-value and verdict, share of changed answers; of a
        negation the last alone) and ``lengths``.

    Raises:
        DataError: no text is labelled.
    """
    n_steps = 1 + sum(len(KINDS[kind]) for kind in kinds)
    steps = iter(range(1, n_steps + 1))

    def logits_of(given: Sequence[str]) -> np.ndarray:
        found = predictor.logits(given) if len(given) else np.zeros((0, predictor.space.n_columns), np.float32)
        if progress:
            progress(next(steps), n_steps)
        return found

    base = logits_of(texts)
    rewritten = [
        _rewritten(rewrite, kind, texts, ids, strength=strength, seed=seed, base=base, logits_of=logits_of)
        for kind in kinds
        for rewrite in KINDS[kind]
    ]

    resampling = {"n_resamples": n_resamples, "level": LEVEL, "seed": seed}
    words = np.array([len(word_places(pieces_of(text))) for text in texts]) if LENGTH in kinds else None
    tasks = _by_task(predictor, targets, groups, base, rewritten, words, resampling)
    if not tasks:
        raise DataError("no text of this part is labelled, so there is nothing to evaluate")
    rewrites = [each.facts for each in rewritten]
    return {
        "n": len(texts),
        "unit": "group" if any(groups) else "row",
        **resampling,
        "strength": strength,
        "rewrites": rewrites,
        "tasks": tasks,
        "warnings": _warnings(rewrites),
    }


@dataclass(frozen=True)
class _Rewritten:
    """Every text under one rewriting.

    Attributes:
        changed: (N,) bool, which texts are not as they were.
        logits: (N, C).
        facts: ``name``, ``kind``, ``n_changed`` and ``examples``, as the report has them.
    """

    rewrite: Rewrite
    changed: np.ndarray
    logits: np.ndarray
    facts: dict[str, Any]


def _rewritten(
    rewrite: Rewrite,
    kind: str,
    texts: Sequence[str],
    ids: Sequence[str],
    *,
    strength: float,
    seed: int,
    base: np.ndarray,
    logits_of: Callable[[Sequence[str]], np.ndarray],
) -> _Rewritten:
    """Rewrite all texts and predict those that changed; the others keep the logits of ``base``."""
    others = [
        rewrite.rewrite(text, strength, chance_of(seed, rewrite.name, name))
        for text, name in zip(texts, ids, strict=True)
    ]
    changed = np.array([old != new for old, new in zip(texts, others, strict=True)], dtype=bool)
    places = np.flatnonzero(changed)
    logits = base.copy()
    logits[places] = logits_of([others[k] for k in places])
    examples = [[texts[k], others[k]] for k in places[:_EXAMPLES]]
    facts = {"name": rewrite.name, "kind": kind, "n_changed": len(places), "examples": examples}
    return _Rewritten(rewrite, changed, logits, facts)


def _by_task(
    predictor: TextPredictor,
    targets: np.ndarray,
    groups: Sequence[str],
    base: np.ndarray,
    rewritten: Sequence[_Rewritten],
    words: np.ndarray | None,
    resampling: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """The scores of every task that has labelled rows; by length where the (N,) numbers of words are given."""
    space = predictor.space
    untouched, *answers = (
        predictor.decision.answers(logits, space)[1] for logits in (base, *(each.logits for each in rewritten))
    )
    found = {}
    for task in space.tasks:
        scores = _TaskScores(task, space, targets, untouched, groups, resampling)
        if not len(scores.rows):
            continue
        found[task.name] = {
            "labels": len(task.labels),
            "n": len(scores.rows),
            **scores.untouched(),
            "rewrites": scores.against(rewritten, answers),
            "lengths": [] if words is None else scores.by_length(words),
        }
    return found


class _TaskScores:
    """One task's labelled rows, and the answers to the texts as they are."""

    def __init__(
        self,
        task: Task,
        space: LabelSpace,
        targets: np.ndarray,
        untouched: np.ndarray,
        groups: Sequence[str],
        resampling: dict[str, Any],
    ) -> None:
        self.columns = space.slices[task.name]
        own = targets[:, self.columns]
        self.rows = np.flatnonzero(~np.isnan(own).any(axis=1))
        self.truth = own[self.rows] >= 0.5
        self.answers = self.of(untouched)
        self.groups = [groups[int(row)] for row in self.rows]
        self.resampling = resampling

    def of(self, present: np.ndarray) -> np.ndarray:
        """(M, L) answers of this task for its rows."""
        part: np.ndarray = present[self.rows, self.columns]
        return part

    def untouched(self) -> dict[str, Any]:
        """Macro-F1 of the texts as they are."""
        drawn = score_intervals(
            tally_by_unit(self.truth, self.answers, self.groups), {"f1": macro_f1}, **self.resampling
        )
        return {"macro_f1": float(macro_f1(tally(self.truth, self.answers))), "ci": _ends(drawn["f1"])}

    def against(self, rewritten: Sequence[_Rewritten], answers: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """One row for each rewriting, whose (N, C) answers stand beside it."""
        found = [self._one(each, self.of(decided)) for each, decided in zip(rewritten, answers, strict=True)]
        for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
            row["p_corrected"] = p
            row["verdict"] = verdict(row["difference"], p) if row["difference"] is not None else ""
        return found

    def _one(self, rewritten: _Rewritten, answers: np.ndarray) -> dict[str, Any]:
        n_changed = int(rewritten.changed[self.rows].sum())
        differs = int((answers != self.answers).any(axis=1).sum())
        row: dict[str, Any] = {
            "name": rewritten.facts["name"],
            "kind": rewritten.facts["kind"],
            "macro_f1": None,
            "difference": None,
            "low": None,
            "high": None,
            "p": None,
            "answers_changed": differs / len(self.rows),
            "answers_changed_of_rewritten": differs / n_changed if n_changed else None,
        }
        if rewritten.rewrite.keeps_truth:
            before, after = (tally_by_unit(self.truth, each, self.groups) for each in (self.answers, answers))
            found = paired_bootstrap(before, after, {"f1": macro_f1}, **self.resampling)["f1"]
            row |= {"macro_f1": found.value, "difference": found.difference}
            # Without one changed answer nothing can differ in any draw.
            row |= {"low": found.low, "high": found.high, "p": found.p if differs else None}
        return row

    def by_length(self, words: np.ndarray) -> list[dict[str, Any]]:
        """Scores of the texts as they are, by how many words they have; bins without a text are left out."""
        ends = [0, *LENGTH_BINS]
        bins = [(f"{low + 1} to {high} words", low, high) for low, high in zip(ends, LENGTH_BINS, strict=False)]
        bins[0] = (f"up to {LENGTH_BINS[0]} words", -1, LENGTH_BINS[0])
        found = []
        for name, low, high in [*bins, (f"over {LENGTH_BINS[-1]} words", LENGTH_BINS[-1], np.inf)]:
            own = words[self.rows]
            places = np.flatnonzero((own > low) & (own <= high))
            if not len(places):
                continue
            truth, answers = self.truth[places], self.answers[places]
            units = tally_by_unit(truth, answers, [self.groups[k] for k in places])
            counts = tally(truth, answers)
            found.append(
                {
                    "name": name,
                    "n": len(places),
                    "micro_f1": float(micro_f1(counts)),
                    "ci": _ends(score_intervals(units, {"f1": micro_f1}, **self.resampling)["f1"]),
                    "macro_f1_present": float(macro_f1(counts)),
                }
            )
        return found


def _ends(interval: Interval | None) -> list[float] | None:
    """As JSON has it."""
    return list(interval) if interval else None


def _warnings(rewritten: Sequence[dict[str, Any]]) -> list[str]:
    idle = [row["name"] for row in rewritten if not row["n_changed"]]
    found = [f"changed no text: {', '.join(idle)}"] if idle else []
    if any(row["name"] == "emoji removed" and row["n_changed"] for row in rewritten):
        found.append("an emoji may be all that gives a feeling away: removing it may change what is true")
    if any(row["kind"] == "truncation" for row in rewritten):
        found.append("what shows the feeling may stand behind the cut: truncation loses truth as well as words")
    return found
