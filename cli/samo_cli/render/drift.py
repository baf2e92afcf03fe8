"""What changed between a reference and a server's lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from samo.errors import counted
from samo_cli.render.console import out
from samo_cli.render.tables import show_table

if TYPE_CHECKING:
    from samo.deploy.drift import Check, Drift
    from samo.deploy.prediction_lines import Line

__all__ = ["show_drift"]


def show_drift(result: Drift, model: str, where: str, lines: Sequence[Line]) -> None:
    """A sentence, a row for each comparison, and a sentence for each that changed."""
    ends = sorted(line.time for line in lines)
    when = f", {ends[0]:%Y-%m-%d %H:%M} to {ends[-1]:%Y-%m-%d %H:%M} UTC" if ends else ""
    head = f"{counted(result.n_now, 'answer')} of {model}{when}, against {result.n_before} of {where}"
    out.print(head, markup=False, soft_wrap=True)
    if result.too_few:
        out.print(result.too_few, markup=False, soft_wrap=True)
        return
    rows = [
        (check.quantity, _number(check, check.before), _number(check, check.now), f"{check.effect:.2f}",
         _p(check.p_corrected), _word(check))
        for check in result.checks
    ]  # fmt: skip
    show_table(("compared", "reference", "now", "apart", "p", ""), rows, numbers=("reference", "now", "apart", "p"))
    remarks = [check for check in result.checks if check.says]
    for check in remarks:
        slight = " (slight)" if check.slight else ""
        out.print(f"{check.says}{slight}", markup=False, soft_wrap=True)
    if not result.found:
        out.print("no drift is seen" + (" but slight ones" if remarks else ""), markup=False, soft_wrap=True)


def _number(check: Check, value: float) -> str:
    if check.unit == "share":
        return f"{100 * value:.0f} %"
    return f"{value:.2f}" if check.unit == "probability" else f"{value:.4g} {check.unit}"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _word(check: Check) -> str:
    return "DRIFT" if check.drift else "slight" if check.slight else ""
