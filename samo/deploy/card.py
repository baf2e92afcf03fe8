"""What a model card says of an exported file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["exported_section", "with_section"]


def exported_section(facts: Mapping[str, Any]) -> str:
    """The section of one file as Markdown, from what its ``export.json`` holds."""
    parity, exact = facts["parity"], facts["exact"]
    f1 = parity["macro_f1"]
    ends = "" if f1["low"] is None else f", interval of the difference {f1['low']:+.3f} to {f1['high']:+.3f}"
    kind = ", ".join(filter(None, (facts["format"], facts["quantised"], facts["pruned"] and _share(facts["pruned"]))))
    items = f"{parity['n']} items of the {parity['part']} part"
    lines = [
        f"- {kind}; opset {facts['opset']}" if facts["opset"] else f"- {kind}",
        "- Against the network in torch, in float32: largest difference of two logits"
        f" {exact['largest_difference']:.1e}, {exact['equal_labels']:.1%} of the labels equal,"
        f" on {exact['n']} items of the {exact['part']} part",
        f"- Against the run on {items}: {parity['equal_labels']:.1%} of the labels equal, macro-F1"
        f" {f1['before']:.3f} before and {f1['after']:.3f} after{ends}",
        f"- Size: {facts['size_mb']['file']:.2f} MB, the run's weights {facts['size_mb']['run']:.2f} MB",
    ]
    for batch, spent in facts["latency_ms"].items():
        times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in spent.items())
        lines.append(f"- Median time of a batch of {batch}: {times} ({facts['machine']})")
    lines += [f"- **Forced**: {problem}" for problem in facts["forced"]]
    return f"## {_title(facts['file'])}\n\n" + "\n".join(lines) + "\n"


def with_section(card: str, facts: Mapping[str, Any]) -> str:
    """A model card with the section of this file at its end, in place of one it had of the same name."""
    found = re.compile(rf"^## {re.escape(_title(facts['file']))}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    rest = found.sub("", card).rstrip()
    return (rest + "\n\n" if rest else "") + exported_section(facts)


def _title(name: str) -> str:
    return "Exported file " + re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(name.split()))


def _share(ratio: float) -> str:
    return f"{ratio:.0%} of the channels pruned"
