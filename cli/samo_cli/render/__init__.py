"""Everything that is drawn on a terminal."""

from samo_cli.render.console import counting, downloading, err, note, out, print_json, progress_bar
from samo_cli.render.inspection import show_inspection
from samo_cli.render.predictions import show_predictions
from samo_cli.render.report import show_report
from samo_cli.render.tables import show_table
from samo_cli.render.training import TrainingView, training_panel

__all__ = [
    "TrainingView",
    "counting",
    "downloading",
    "err",
    "note",
    "out",
    "print_json",
    "progress_bar",
    "show_inspection",
    "show_predictions",
    "show_report",
    "show_table",
    "training_panel",
]
