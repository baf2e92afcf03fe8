"""Reports of runs trained before keep their percentile intervals, and say that these are no 95 % intervals."""

from __future__ import annotations

from pathlib import Path

import samo


def test_percentiles_are_not_called_95_percent(before: Path, artifacts: Path) -> None:
    """Two speakers, whose percentiles run from the worse to the better of them."""
    report = samo.evaluate("speech", data_root=before / "clips", threads=1)
    assert (report["ci"]["method"], report["ci"]["n_units"]) == ("percentile", 2)
    assert any(line.startswith("percentile intervals, as this run's reports had before") for line in report["warnings"])
    page, card = report.page.read_text(), (artifacts / "runs" / "speech" / "MODEL_CARD.md").read_text()
    assert "95 % interval" not in page + card
    assert "percentiles 0.556 to 1.000 over 2 speakers" in card
