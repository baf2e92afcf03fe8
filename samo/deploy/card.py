"""What a model card says of an exported file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["checked_on", "exported_section", "with_section"]


def checked_on(parity: Mapping[str, Any]) -> str:
    """The items of a check in words, from what it holds as JSON."""
    if parity["trained_on"]:
        return f"{parity['n']} items that it was trained on"
    return f"{parity['n']} items of the {parity['part']} part"


def exported_section(facts: Mapping[str, Any]) -> str:
    """The section of one file as Markdown, from what its ``export.json`` holds."""
    parity, exact = facts["parity"], facts["exact"]
    f1 = parity["macro_f1"]
    ends = "" if f1["low"] is None else f", interval of the difference {f1['low']:+.3f} to {f1['high']:+.3f}"
    kind = ", ".join(filter(None, (facts["format"], facts["quantised"], facts["pruned"] and _share(facts["pruned"]))))
    scores = f", macro-F1 {f1['before']:.3f} before and {f1['after']:.3f} after{ends}"
    if parity["trained_on"]:
        scores = "; that says nothing of how good it is, and nothing is held out that would"
    lines = [
        f"- {kind}; opset {facts['opset']}" if facts["opset"] else f"- {kind}",
        "- Against the network in torch, in float32: largest difference of two logits"
        f" {exact['largest_difference']:.1e}, {exact['equal_labels']:.1%} of the labels equal,"
        f" on {checked_on(exact)}",
        f"- Against the run on {checked_on(parity)}: {parity['equal_labels']:.1%} of the labels equal{scores}",
        *(f"- {line}" for line in _by_task(parity)),
        f"- Size: {facts['size_mb']['file']:.2f} MB, the run's weights {facts['size_mb']['run']:.2f} MB",
    ]
    for batch, spent in facts["latency_ms"].items():
        times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in spent.items())
        lines.append(f"- Median time of a batch of {batch}: {times} ({facts['machine']})")
    lines += [f"- **Forced**: {problem}" for problem in facts["forced"]]
    return f"## {_title(facts['file'])}\n\n" + "\n".join(lines) + "\n"


def _by_task(parity: Mapping[str, Any]) -> list[str]:
    """Scores of each of several tasks, and how many answers are not withheld where any is."""
    lines = []
    for name, task in parity["tasks"].items():
        f1, coverage = task["macro_f1"], task["coverage"]
        parts = []
        if len(parity["tasks"]) > 1 and not parity["trained_on"] and f1["before"] is not None:
            parts.append(f"macro-F1 {f1['before']:.3f} before and {f1['after']:.3f} after")
        if min(coverage.values()) < 1.0:
            parts.append(f"{coverage['before']:.1%} answered before and {coverage['after']:.1%} after")
        if parts:
            lines.append(f"Task {name}: {', '.join(parts)}")
    return lines


def with_section(card: str, facts: Mapping[str, Any]) -> str:
    """A model card with the section of this file at its end, in place of one it had of the same name."""
    found = re.compile(rf"^## {re.escape(_title(facts['file']))}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    rest = found.sub("", card).rstrip()
    return (rest + "\n\n" if rest else "") + exported_section(facts)


def _title(name: str) -> str:
    return "Exported file " + re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(name.split()))


def _share(ratio: float) -> str:
    return f"{ratio:.0%} of the channels pruned"
