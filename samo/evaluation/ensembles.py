"""What a report says of an ensemble, in words; see :mod:`samo.ensembles.ensemble` for its account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["gain_line", "members_line"]


def members_line(account: Mapping[str, Any]) -> str:
    """How an ensemble combines its members."""
    how = "the mean of its members' probabilities" if account["combine"] == "mean" else "its members' votes"
    weights = "weights fitted on the validation part" if account["fitted_on"] else "equal weights"
    return f"{how}, {weights}"


def gain_line(account: Mapping[str, Any]) -> str:
    """Whether an ensemble gains more than chance on the member that is best on the validation part."""
    gain, interval = account["gain"], ""
    if gain["low"] is not None:
        interval = f" ({100 * account['level']:g} % interval {gain['low']:+.3f} to {gain['high']:+.3f})"
    against = f"against '{account['best_member']}', the best member on the validation part"
    return f"{gain['difference']:+.3f} macro-F1{interval} {against}: {gain['verdict']}"
