"""Whether a model is used on what it was validated on: answers and inputs of two samples, compared.

Compared are, of each task, how often each label is answered, how sure the model is, and how often an answer is
withheld; of the inputs their level and length. Each comparison is a test of :mod:`samo.evaluation.shift` that needs no
shape; all p-values of a report are corrected together after Holm, so that without any drift at most 5 % of reports find
some (``artifacts/reports/drift/results.md``). What is no chance
but small is called slight, and is no drift:

- labels, and withheld answers: less than 5 % of the answers lie elsewhere (total variation distance);
- numbers: the distributions are nowhere further apart than 0.1 (Kolmogorov's and Smirnov's distance).

What it cannot tell: whether the answers are right. And lines of few speakers or writers are no independent draws, so
that a new speaker alone may be found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from samo.deploy.samples import Sample, TaskSample
from samo.errors import DataError, first_few
from samo.evaluation.shift import counts_p, divergence, ks, labels_p
from samo.evaluation.significance import ALPHA, holm

if TYPE_CHECKING:
    from samo.runs.run import Run

__all__ = ["FEWEST", "Check", "Drift", "compare", "reference_of"]

# Answers on either side below which nothing is tested.
FEWEST = 30
# Labels of a task; each takes thousands of random draws.
MOST_LABELS = 1000
LEAST_SHARE, LEAST_DISTANCE = 0.05, 0.1
# A level in dB, a ratio and a difference of confidence that are worth a sentence about the middle.
_DB, _RATIO, _SURE = 1.0, 1.1, 0.01
_TIMES = 1.5


@dataclass(frozen=True)
class _Quantity:
    """How a number is spoken of: its name, its unit, the words for less and more, and whether ratios are told."""

    name: str
    unit: str
    less: str
    more: str
    ratio: bool = True


_QUANTITIES = {
    "level_dbfs": _Quantity("input level", "dBFS", "quieter", "louder", ratio=False),
    "duration_s": _Quantity("clip length", "s", "as long", "as long"),
    "n_chars": _Quantity("text length", "characters", "as long", "as long"),
    "n_tokens": _Quantity("text length in tokens", "tokens", "as long", "as long"),
}


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        quantity: what is compared, such as ``labels of emotion`` or ``input level``.
        unit: of ``before`` and ``now``.
        before: of the reference: the median, or the share of the label named in ``says``, or of withheld answers.
        now: of the lines.
        test: ``chi-square`` or ``Kolmogorov-Smirnov``.
        p: of "no difference".
        p_corrected: after Holm, over all comparisons of the report.
        effect: how far apart: total variation, or Kolmogorov's and Smirnov's distance, in [0, 1].
        divergence_bits: Jensen-Shannon divergence of counts, None of numbers.
        drift: whether the difference is no chance and not slight.
        slight: whether it is no chance, and slight.
        says: it in a sentence; of no difference an empty one.
    """

    quantity: str
    unit: str
    before: float
    now: float
    test: str
    p: float
    effect: float
    divergence_bits: float | None = None
    p_corrected: float = 1.0
    drift: bool = False
    slight: bool = False
    says: str = ""


@dataclass(frozen=True)
class Drift:
    """A report.

    Attributes:
        n_before: answers of the reference.
        n_now: answers compared with it.
        checks: all comparisons; none where there are too few answers.
        too_few: a sentence where there are.
    """

    n_before: int
    n_now: int
    checks: tuple[Check, ...] = ()
    too_few: str = ""

    @property
    def found(self) -> bool:
        """Whether any comparison is a drift."""
        return any(check.drift for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "drift": self.found,
            "n_reference": self.n_before,
            "n": self.n_now,
            "too_few": self.too_few,
            "checks": [asdict(check) for check in self.checks],
        }


def reference_of(run: Run) -> dict[str, Any]:
    """See :func:`samo.deploy.reference.reference_of`; imported here, since it needs torch."""
    from samo.deploy.reference import reference_of as found

    return found(run)


def compare(before: Sample, now: Sample, where: str = "what the model was validated on", seed: int = 0) -> Drift:
    """Compare two samples.

    Args:
        before: the reference.
        now: what came later.
        where: what the reference is, for sentences.
        seed: of the random draws; equal seeds give equal p-values.

    Raises:
        DataError: the samples are of different modalities, have no task in common, or ``now`` has labels that a
            reference which names all of its own has not; or a task has more than 1,000 labels.
    """
    if before.n and now.n:
        _require_comparable(before, now)
    for fewest, what in ((before.n, where), (now.n, "the lines")):
        if fewest < FEWEST:
            return Drift(
                before.n, now.n, too_few=f"too few answers to tell: {fewest} in {what}, at least {FEWEST} needed"
            )
    tasks = [name for name in before.tasks if name in now.tasks]
    checks: list[Check] = []
    for name in tasks:
        checks += _of_task(name, before.tasks[name], now.tasks[name], where, seed)
    for name, quantity in _QUANTITIES.items():
        a, b = before.numbers.get(name), now.numbers.get(name)
        if a is not None and b is not None and min(len(a), len(b)) >= FEWEST:
            checks.append(_of_numbers(quantity.name, quantity.unit, a, b, _number_says(quantity, a, b, where)))
    corrected = holm([check.p for check in checks])
    return Drift(before.n, now.n, tuple(_decided(*pair) for pair in zip(checks, corrected, strict=True)))


def _require_comparable(before: Sample, now: Sample) -> None:
    """Refuse samples of which one is of another model.

    Raises:
        DataError: says what differs.
    """
    hint = "they are of another model"
    if before.modality and now.modality and before.modality != now.modality:
        raise DataError(f"the lines are answers to {now.modality}, the reference is of {before.modality}", hint=hint)
    if not any(name in now.tasks for name in before.tasks):
        raise DataError(f"the lines answer {_names(now.tasks)}, the reference {_names(before.tasks)}", hint=hint)
    for name, task in before.tasks.items():
        later = now.tasks.get(name)
        if later is None:
            continue
        n_labels = len({*task.counts, *later.counts})
        unknown = [label for label in later.counts if label not in task.counts]
        if task.complete and unknown:
            raise DataError(
                f"the lines answer {name} with {first_few(unknown, 3)}, "
                f"the reference with {first_few(task.counts, 10)}",
                hint=hint,
            )
        if task.complete and later.multi_label and not task.multi_label:
            raise DataError(f"the lines have several labels of {name}, or none; the reference has one each", hint=hint)
        if n_labels > MOST_LABELS:
            raise DataError(f"{name} has {n_labels} labels; at most {MOST_LABELS} are compared")


def _decided(check: Check, p: float | None) -> Check:
    """The comparison under its corrected p-value."""
    assert p is not None
    least = LEAST_DISTANCE if check.divergence_bits is None else LEAST_SHARE
    real, large = p < ALPHA, check.effect >= least
    values = {**check.__dict__, "p_corrected": p, "drift": real and large, "slight": real and not large}
    return Check(**{**values, "says": check.says if real else ""})


def _of_task(name: str, before: TaskSample, now: TaskSample, where: str, seed: int) -> list[Check]:
    multi_label = before.multi_label or now.multi_label
    # Counts of a file's first half name only what was answered there.
    labels = list({**before.counts, **now.counts})
    a, b = (np.array([each.counts.get(label, 0) for label in labels], dtype=np.int64) for each in (before, now))
    p = labels_p(a, before.n, b, now.n, seed=seed) if multi_label else counts_p(a, b, seed=seed)
    shares = a / max(1, before.n), b / max(1, now.n)
    change = shares[1] - shares[0]
    apart = np.abs(change)
    # Of two labels that changed as much the one that is answered more often is told.
    most = max(range(len(labels)), key=lambda k: (round(float(apart[k]), 9), float(change[k])), default=0)
    effect = float(apart.max(initial=0.0)) if multi_label else float(apart.sum()) / 2
    old, new = (float(each[most]) if len(each) else 0.0 for each in shares)
    says = _label_says(labels[most] if labels else "", old, new, where)
    checks = [Check(f"labels of {name}", "share", old, new, "chi-square", p, effect, divergence(a, b), says=says)]
    sure = np.median(before.confidences) if len(before.confidences) else 0.0, np.median(now.confidences)
    checks.append(
        _of_numbers(
            f"confidence of {name}", "probability", before.confidences, now.confidences, _sure_says(*sure, where)
        )
    )
    if before.abstained or now.abstained:
        withheld = [[each.abstained, each.n - each.abstained] for each in (before, now)]
        old, new = before.abstained / before.n, now.abstained / now.n
        says = f'"not sure" is {_often("answered", old, new, where)}'
        p = counts_p(*withheld, seed=seed)
        bits = divergence(*withheld)
        checks.append(Check(f"withheld of {name}", "share", old, new, "chi-square", p, abs(new - old), bits, says=says))
    return checks


def _of_numbers(name: str, unit: str, before: np.ndarray, now: np.ndarray, says: str) -> Check:
    distance, p = ks(before, now)
    old, new = (float(np.median(each)) if len(each) else 0.0 for each in (before, now))
    return Check(name, unit, old, new, "Kolmogorov-Smirnov", p, distance, says=says)


def _label_says(label: str, old: float, new: float, where: str) -> str:
    return f"{label} is {_often('answered', old, new, where)}"


def _often(verb: str, old: float, new: float, where: str) -> str:
    """``answered 3.0 times as often (30 % of the answers, 10 % in ...)``."""
    shares = f"{100 * new:.0f} % of the answers, {100 * old:.0f} % in {where}"
    if not old or not new:
        return f"{verb} {'now and was not before' if new else 'no more'} ({shares})"
    ratio = new / old
    if ratio >= _TIMES or ratio <= 1 / _TIMES:
        return f"{verb} {ratio:.1f} times as often ({shares})" if ratio >= 0.1 else f"hardly {verb} any more ({shares})"
    return f"{verb} {'more' if new > old else 'less'} often ({shares})"


def _sure_says(old: float, new: float, where: str) -> str:
    medians = f"median confidence {new:.2f}, {old:.2f} in {where}"
    if abs(new - old) < _SURE:
        return f"the model's confidence is spread otherwise ({medians})"
    return f"the model is {'more' if new > old else 'less'} sure ({medians})"


def _number_says(quantity: _Quantity, before: np.ndarray, now: np.ndarray, where: str) -> str:
    old, new = float(np.median(before)), float(np.median(now))
    medians = f"median {new:.3g} {quantity.unit}, {old:.3g} there"
    if not quantity.ratio and abs(new - old) >= _DB:
        word = quantity.more if new > old else quantity.less
        return f"the inputs are {abs(new - old):.0f} dB {word} than {where} ({medians})"
    if quantity.ratio and old > 0 and (new >= old * _RATIO or new * _RATIO <= old):
        return f"the inputs are {new / old:.1f} times as long as {where} ({medians})"
    new_ends, old_ends = (" to ".join(f"{end:.3g}" for end in np.percentile(each, [5, 95])) for each in (now, before))
    spread = f"90 % lie in {new_ends} {quantity.unit}, in {old_ends} there"
    return f"the {quantity.name} is spread otherwise than in {where} ({spread})"


def _names(tasks: Mapping[str, TaskSample]) -> str:
    return ", ".join(tasks) or "nothing"
