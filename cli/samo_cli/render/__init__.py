"""Everything that is drawn on a terminal; each part is imported when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from samo.lazy import load_object

if TYPE_CHECKING:
    from samo_cli.render.comparison import show_comparison
    from samo_cli.render.console import counting, downloading, err, note, out, print_json, progress_bar, silence
    from samo_cli.render.ensemble import show_combined, show_ensemble
    from samo_cli.render.export import show_export
    from samo_cli.render.grid import GridView, show_cells, show_crossval, show_curve, show_grid
    from samo_cli.render.inspection import show_inspection, show_text_inspection
    from samo_cli.render.labelling import show_pseudo_labels, show_zero_shot, show_zero_shot_report
    from samo_cli.render.predictions import show_predictions
    from samo_cli.render.report import show_report
    from samo_cli.render.reporter import TerminalReporter
    from samo_cli.render.robustness import show_robustness
    from samo_cli.render.selection import show_selection
    from samo_cli.render.tables import show_table
    from samo_cli.render.training import TrainingView, ensemble_panel, training_panel
    from samo_cli.render.tuning import TuningView, tuning_panel

__all__ = [
    "GridView",
    "TerminalReporter",
    "TrainingView",
    "TuningView",
    "counting",
    "downloading",
    "ensemble_panel",
    "err",
    "note",
    "out",
    "print_json",
    "progress_bar",
    "show_cells",
    "show_combined",
    "show_comparison",
    "show_crossval",
    "show_curve",
    "show_ensemble",
    "show_export",
    "show_grid",
    "show_inspection",
    "show_predictions",
    "show_pseudo_labels",
    "show_report",
    "show_robustness",
    "show_selection",
    "show_table",
    "show_text_inspection",
    "show_zero_shot",
    "show_zero_shot_report",
    "silence",
    "training_panel",
    "tuning_panel",
]

_MODULES = {
    "comparison": ("show_comparison",),
    "console": (
        "counting",
        "downloading",
        "err",
        "note",
        "out",
        "print_json",
        "progress_bar",
        "silence",
    ),
    "ensemble": ("show_combined", "show_ensemble"),
    "export": ("show_export",),
    "grid": (
        "GridView",
        "show_cells",
        "show_crossval",
        "show_curve",
        "show_grid",
    ),
    "inspection": (
        "show_inspection",
        "show_text_inspection",
    ),
    "labelling": (
        "show_pseudo_labels",
        "show_zero_shot",
        "show_zero_shot_report",
    ),
    "predictions": ("show_predictions",),
    "report": ("show_report",),
    "reporter": ("TerminalReporter",),
    "robustness": ("show_robustness",),
    "selection": ("show_selection",),
    "tables": ("show_table",),
    "training": (
        "TrainingView",
        "ensemble_panel",
        "training_panel",
    ),
    "tuning": (
        "TuningView",
        "tuning_panel",
    ),
}
_NAMES = {name: f"samo_cli.render.{module}:{name}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is asked for, the first time it is."""
    if name not in _NAMES:
        raise AttributeError(f"module 'samo_cli.render' has no attribute '{name}'")
    found = globals()[name] = load_object(_NAMES[name])
    return found
