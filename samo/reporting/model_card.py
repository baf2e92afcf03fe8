"""The model card of a run: what the model is for, what it was evaluated on, and what it must not be used for.

Sections follow Mitchell et al. (2019), "Model Cards for Model Reporting".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from samo.data.corpora import licence_for_others
from samo.errors import counted, plural
from samo.evaluation.calibration import summary
from samo.reporting.duties import law_lines, licence_lines
from samo.reporting.html import METRIC_NAMES
from samo.reporting.published import published_card, published_value
from samo.reporting.report import corpus_of, flat_items, groupings, headlines, reproduce_commands, stamps
from samo.reporting.wording import (
    SETTING,
    TASK_HEADS,
    THRESHOLD_HEADS,
    baseline_line,
    gain_line,
    interval_name,
    members_line,
    selection_note,
    task_rows,
    threshold_line,
    threshold_rows,
)

__all__ = ["EXPORTED", "exported_sections", "model_card", "with_other_corpora"]

_ALL_FOLDS = "the validation predictions of all folds' models"
# How the heading of a section on an exported file begins.
EXPORTED = "## Exported file "
_ELSEWHERE = "## Other corpora"
# What a training began from, besides chance: settings of either modality.
_BEGUN_FROM = {
    "encoder": "the pretrained encoder {}",
    "pretrained": "published weights of the architecture",
    "weights": "the weights in {}",
    "teacher": "the answers of the run {}",
    "extra_table": "further texts in {}",
}

_INTENDED = """\
- Research and teaching on emotion recognition, and as a baseline to compare with.
- Sorting or searching material like the data named below, where a person looks at the result."""
_OUT_OF_SCOPE = """\
- **No decisions about people**: not for hiring, schooling, credit, insurance, policing, border control, medical or
  psychological diagnosis, nor for watching people at work or at school.
- **Nobody unasked**: not for people who do not know of it and have not agreed.
- **No proof**: an answer is no evidence of what somebody felt, meant or will do, and no lie detector.
- **Expressed emotion is not felt emotion**, and acted emotion still less: the model names what an expression resembles
  in the data it learned from, and cannot know what a person feels.
- People, languages, cultures, settings and devices that the data below does not hold."""


def model_card(
    report: Mapping[str, Any],
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    *,
    data_card: Mapping[str, str],
    exported: str = "",
) -> str:
    """Write the card of one evaluated run as Markdown, without where anything lay on its author's disk.

    Args:
        report: from :func:`samo.reporting.report.build_report`; with ``ensemble``, its account of its members.
            Of a model that learned from everything, that of the folds, with its own ``parts`` and ``refit``: how many
            ``models`` there were and its own ``decision``, as
            :meth:`samo.evaluation.decision.Decision.to_json` gives it.
        settings: every setting of the run by name; of an ensemble, a list where its members differ.
        environment: versions and hardware; ``command`` or ``commands`` hold what was typed to train.
        data_card: about the data, any of ``title``, ``description``, ``licence``, ``citation``, ``url`` and
            ``limitations`` (one a line); further keys are listed by name.
        exported: the sections of its exported files, from :func:`exported_sections` of the card before.
    """
    sections = [
        ("", _head(report)),
        ("Intended use", _INTENDED),
        ("Out of scope", _OUT_OF_SCOPE),
        ("Law", _listed(law_lines(str(settings.get("modality", ""))))),
        ("Members", _members(report)),
        ("Data", _data(report, data_card)),
        ("Training", _training(report, settings)),
        ("Licence of the weights", _listed(licence_lines(data_card.get("licence", "")))),
        ("Results", _results(report)),
        ("Calibration", _calibration(report)),
        ("Thresholds", _thresholds(report)),
        ("Tasks", _tasks(report)),
        ("Results by group", _by_group(report)),
        ("Limitations", _limitations(report, data_card)),
        ("Training settings", _pairs({k: v for k, v in settings.items() if k != "data_root"})),
        ("Environment", _pairs({k: v for k, v in environment.items() if k not in ("command", "commands")})),
        ("How to reproduce", _commands(reproduce_commands(report, environment))),
    ]
    card = "\n\n".join(f"## {title}\n\n{body}" if title else body for title, body in sections if body) + "\n"
    card = published_card(card)
    return f"{card}\n{exported.strip()}\n" if exported.strip() else card


def exported_sections(card: str) -> str:
    """What a card says of exported files, which a new card of the same weights goes on saying."""
    parts = re.split(r"^(?=## )", card, flags=re.MULTILINE)
    return "\n\n".join(part.strip() for part in parts if part.startswith(EXPORTED))


def with_other_corpora(card: str, lines: Sequence[str]) -> str:
    """A card with a line for each other corpus its model was evaluated on, in place of those it had."""
    sections = [part for part in re.split(r"^(?=## )", card, flags=re.MULTILINE) if not part.startswith(_ELSEWHERE)]
    place = next((k for k, part in enumerate(sections) if part.startswith("## Results\n")), len(sections) - 1)
    if lines:
        sections.insert(place + 1, f"{_ELSEWHERE}\n\n{_listed(map(_text, lines))}\n\n")
    return "".join(sections)


def _head(report: Mapping[str, Any]) -> str:
    lines = [f"# Model card: {_text(report['run'])}"]
    if marks := _stamped(report):
        lines.append(f"> {marks}")
    labels = ", ".join(map(_text, report["labels"]))
    lines.append(
        f"Answers one question, **{_text(report['task'])}**, with {counted(len(report['labels']), 'label')}: {labels}."
    )
    lines.append(_headline(report))
    if refit := report.get("refit"):
        lines.append(
            "It learned from every item there is, so nothing is left to judge it on: all figures are those of "
            f"{refit['models']} models trained alike, each on items it had not seen."
        )
    return "\n\n".join(lines)


def _headline(report: Mapping[str, Any]) -> str:
    ci, (name, value, found) = report["ci"], headlines(report)[0]
    ends = _interval(found)
    spread = (
        f"{interval_name(ci)} {ends} over {ci['n_units']} {_text(plural(ci['unit'], ci['n_units']))}"
        if ends
        else "no interval"
    )
    return (
        f"{name[:1].upper()}{name[1:]} **{value:.3f}** ({spread}) on {_text(corpus_of(report))}, "
        f"{report['split']} split by {_text(report['split_rule'])}, {counted(report['n'], 'item')}."
    )


def _members(report: Mapping[str, Any]) -> str:
    """Of an ensemble: who answers, how much each counts, and whether that gained anything."""
    if "ensemble" not in report:
        return ""
    ensemble = report["ensemble"]
    rows = [
        (_text(member["name"]), *(_number(member[name]) for name in ("weight", "val_macro_f1", "macro_f1")))
        for member in ensemble["members"]
    ]
    gain = gain_line(ensemble)
    lines = [
        f"An ensemble, not one model: {members_line(ensemble)}.",
        _table(("member", "weight", "validation macro-F1", "test macro-F1"), rows),
        f"On the test part: {_text(gain)}." if gain else "The members were not evaluated on the test part.",
    ]
    lines += [f"- Left out: {_text(left['name'])} ({_line(left['reason'])})" for left in ensemble["left_out"]]
    return "\n\n".join(lines)


def _data(report: Mapping[str, Any], data_card: Mapping[str, str]) -> str:
    # A missing licence is said aloud: leaving the line out would read as if there were none to heed.
    known = {"title": report["dataset"], "licence": "not stated", "citation": "not stated", **data_card}
    if report.get("corpus"):  # what is "your own" to its author is not so to the reader of the card
        known["title"] = corpus_of(report)
        known["licence"] = licence_for_others(known["licence"])
    lines = [f"- {name.capitalize()}: {_text(text)}" for name, text in known.items() if text and name != "limitations"]
    if report["synthetic_model_only"]:
        lines.insert(0, "- **model trained on synthetic demo data**, judged on what was recorded from people.")
    elif report["synthetic"]:
        lines.insert(0, "- **synthetic demo data**: generated, not recorded from people.")
    return "\n".join(lines)


def _training(report: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """On how much it was trained, how the parts were made, and what else it learned from."""
    lines = []
    for part, counts in report.get("parts", {}).items():
        lines.append(f"{_text(part)}: " + ", ".join(_text(counted(n, noun)) for noun, n in counts.items()))
    rule = "nothing is held out" if report.get("refit") else f"split by {_text(report['split_rule'])}"
    if report["leaky"]:
        rule += ": **leaky**, what is alike may stand in training and in test, so every figure below is too good"
    lines.append(rule)
    for name, words in _BEGUN_FROM.items():
        given = settings.get(name)
        values = [value for value in (given if isinstance(given, list | tuple) else [given]) if value]
        shown = ", ".join(dict.fromkeys(_text(published_value(str(value), name)) for value in values))
        if values:
            lines.append(f"begun from {words.format(shown)}, whose own data and licence count as well")
    return _listed(lines)


def _results(report: Mapping[str, Any]) -> str:
    ci, level = report["ci"], interval_name(report["ci"])
    overall = [(name, _number(value), _interval(ends) or "-") for name, value, ends in headlines(report)]
    overall += [
        (METRIC_NAMES.get(name, name), _number(value), _interval(ci.get(name)) or "-")
        for name, value in report["metrics"].items()
        if name != "macro_f1"
    ]
    gap = [("macro-F1 on training data", "train_macro_f1"), ("macro-F1 on validation data", "val_macro_f1")]
    note = selection_note(report)
    overall += [(title + note, _number(report[key]), "-") for title, key in gap]
    parts = [_stamped(report), _table(("metric", "value", level), overall)]
    if report["baseline"]:
        answering = "the folds' models" if report.get("refit") else "this run"
        beside = "the folds' models" if report.get("refit") else "it"
        parts.append(f"Beside {beside}, {_text(baseline_line(report['baseline'], answering))}.")
    return "\n\n".join([*parts, _classes(report)]).lstrip()


def _classes(report: Mapping[str, Any]) -> str:
    names = ("f1", "precision", "recall", "roc_auc", "average_precision")
    header = ["class", "F1", "precision", "recall", "ROC-AUC", "average precision", "rows"]
    rows = [
        [_text(label), *(_number(row[name]) for name in names), str(row["support"])]
        for label, row in report["per_class"].items()
    ]
    if report["thresholds"]:
        header.append("threshold")
        for cells, row in zip(rows, report["per_class"].values(), strict=True):
            cells.append(f"{row['threshold']:.2f}")
    return _table(header, rows)


def _thresholds(report: Mapping[str, Any]) -> str:
    """Of a multi-label task: what each way of choosing thresholds scored on validation and here."""
    if refit := report.get("refit"):
        return _own_thresholds(refit["decision"])
    if not report["thresholds"]:
        return ""
    rows = [tuple(map(_text, row)) for row in threshold_rows(report)]
    line = threshold_line(report)
    return f"{_table(THRESHOLD_HEADS, rows)}\n\n\\* decides; {line}."


def _own_thresholds(decision: Mapping[str, Any]) -> str:
    """Of a model that learned from everything: its thresholds of labels and of confidence, which no part has tried."""
    parts, chosen, withheld = [], decision["thresholds"], decision["abstention"]
    for name, task in (chosen or {"tasks": {}})["tasks"].items():
        of_label = {"half": dict.fromkeys(task["per_class"], 0.5), "per-class": task["per_class"]}
        by_label = of_label.get(chosen["used"], dict.fromkeys(task["per_class"], task["common"]))
        chosen_on = "as its settings ask" if chosen["used"] == "half" else f"chosen on {_ALL_FOLDS}"
        parts.append(f"A label of {_text(name)} is answered from this probability on, {chosen_on}.")
        parts.append(_table(("label", "threshold"), [(_text(label), f"{cut:.2f}") for label, cut in by_label.items()]))
    for name, cut in (withheld or {"thresholds": {}})["thresholds"].items():
        parts.append(
            f"An answer of {_text(name)} under a confidence of {cut:.3f} is withheld, for a {withheld['rule']} of "
            f"{withheld['wanted']:g} on {_ALL_FOLDS}."
        )
    return "\n\n".join(parts)


def _tasks(report: Mapping[str, Any]) -> str:
    rows = [tuple(map(_text, row)) for row in task_rows(report)]
    return _table(TASK_HEADS, rows) if rows else ""


def _calibration(report: Mapping[str, Any]) -> str:
    """How far probabilities can be believed, of each task."""
    tasks = report["tasks"] or {report["task"]: report}
    rows = []
    for name, task in tasks.items():
        scores = task["calibration"]
        rows.append((
            _text(name), _number(scores["ece"]), _number(scores["ece_uncalibrated"]), _number(scores["temperature"]),
            _number(scores["nll"]), _number(scores["brier"]),
        ))  # fmt: skip
    scores = report["calibration"]
    heads = ("task", "ECE", "ECE before", "temperature", "log loss", "Brier score")
    meaning = (
        "ECE, the expected calibration error, is by how much confidence and accuracy differ on average: at 0.050 what "
        "is answered with 80 % confidence may be right 75 % of the time."
    )
    line = f"Calibration: {summary(scores)} ({scores['n_bins']} {scores['binning']})."
    if refit := report.get("refit"):
        own = refit["decision"]["calibration"]["temperature"]
        named = ", ".join(f"{value:.3f}" + (f" ({_text(name)})" if len(own) > 1 else "") for name, value in own.items())
        line = f"This model's own temperature is {named}, fitted on {_ALL_FOLDS}. Of those models: {line}"
    return f"{line}\n\n{_table(heads, rows)}\n\n{meaning}"


def _by_group(report: Mapping[str, Any]) -> str:
    parts = []
    gaps = [row for attribute, table in groupings(report).items() if (row := _gap_row(attribute, table))]
    if gaps:
        heads = ("by", "lowest", "highest", "gap in macro-F1", "fewest rows")
        parts.append(_table(heads, gaps))
        parts.append(
            "The gap is between the groups that the model serves worst and best. It has no interval: with few rows a "
            "group, and with many groups, a part of it is chance."
        )
    for attribute, table in groupings(report).items():
        rows = [
            (_text(value), _number(row["macro_f1"]), _number(row["accuracy"]), _number(row["uar"]), str(row["n"]))
            for value, row in table.items()
        ]
        parts.append(_table((_text(attribute), "macro-F1", "accuracy", "UAR", "rows"), rows))
    if parts:
        parts.insert(0, "Macro-F1 and UAR of a group are over the labels that occur in it.")
    return "\n\n".join(parts)


def _gap_row(attribute: str, table: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Worst and best group of an attribute; None where fewer than two have a score."""
    scored = {value: row["macro_f1"] for value, row in table.items() if row["macro_f1"] is not None}
    if len(scored) < 2:
        return None
    worst, best = min(scored, key=lambda v: scored[v]), max(scored, key=lambda v: scored[v])
    fewest = min(table[value]["n"] for value in scored)
    ends = (f"{_text(value)} {scored[value]:.3f}" for value in (worst, best))
    return _text(attribute), *ends, f"{scored[best] - scored[worst]:.3f}", str(fewest)


def _limitations(report: Mapping[str, Any], data_card: Mapping[str, str]) -> str:
    known = [line.strip() for line in data_card.get("limitations", "").splitlines() if line.strip()]
    found = [_line(line) for line in (*report["warnings"], *known)]
    for pair in report["most_confused"][:3]:
        share = f"{counted(pair['count'], 'row')}, {100 * pair['share']:.0f} % of that class"
        found.append(f"often takes {_text(pair['true'])} for {_text(pair['predicted'])} ({share})")
    for attribute, table in report["by_group"].items():
        scored = {value: row["macro_f1"] for value, row in table.items() if row["macro_f1"] is not None}
        if len(scored) > 1:
            worst, best = min(scored, key=lambda v: scored[v]), max(scored, key=lambda v: scored[v])
            ends = " to ".join(f"{scored[value]:.3f} ({_text(value)})" for value in (worst, best))
            found.append(f"by {_text(attribute)}, macro-F1 runs from {ends}")
    if not report["calibration"]["fitted_on"]:
        found.append("its probabilities were not calibrated: read them as a ranking")
    return _listed(found)


def _listed(lines: Iterable[str]) -> str:
    """Lines of ours, which may hold Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def _stamped(report: Mapping[str, Any]) -> str:
    return " · ".join(f"**{stamp}**" for stamp in stamps(report))


def _commands(commands: Sequence[str]) -> str:
    return "```sh\n" + "\n".join(command.replace("```", "") for command in commands) + "\n```" if commands else ""


def _pairs(values: Mapping[str, Any]) -> str:
    rows = [(_text(name), _text(text)) for name, text in flat_items(values)]
    return _table(("name", "value"), rows, align=":--") if rows else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "--:") -> str:
    lines = [header, [":--", *(align for _ in header[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: Sequence[float] | None) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""


def _text(value: object) -> str:
    """A name from data or settings as one line that Markdown takes for plain words."""
    return _escaped(" ".join(str(value).split()))


def _line(line: str) -> str:
    """A sentence of ours as Markdown: its settings and commands stay in backquotes, the rest is plain words."""
    pieces = SETTING.split(" ".join(line.split()))
    return "".join(f"`{piece}`" if place % 2 else _escaped(piece) for place, piece in enumerate(pieces))


def _escaped(text: str) -> str:
    # An underscore inside a word is no markup, nor an & that begins no entity.
    return re.sub(r"([\\`*|<>\[\]]|(?<![A-Za-z0-9])_(?=\S)|&(?=#?\w+;))", r"\\\1", text)
