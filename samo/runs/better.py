"""What the next better preset would bring and cost, where that was measured on the data of a run."""

from __future__ import annotations

from samo.errors import SettingsError
from samo.runs.run import Run
from samo.settings import REPORT_SETTINGS, SPLIT_SETTINGS, based_on, measured_presets, read_preset, resolve

__all__ = ["BETTER", "better_line"]

BETTER = "accurate"
"""The preset that is offered."""


def better_line(run: Run, preset: str = "") -> str:
    """One line on the better preset; empty where nothing was measured on this corpus and question, where the run's
    network is not that of a measured preset, such as one's own, or where none is better.

    Args:
        run: a trained run.
        preset: the one it was trained from, to be called as it was typed; empty: by its settings. Where some were
            changed since, the line calls it the most similar one.
    """
    settings = run.settings
    measured = measured_presets(run.modality)
    better = measured.get(BETTER)
    if better is None or any(settings.get(name) != better[name] for name in ("dataset", "mode")):
        return ""
    own = {
        name: facts
        for name, facts in measured.items()
        if name == based_on(run.modality, name) and _model(run.modality, name) == settings.get("model")
    }
    if not own or settings.get("model") == _model(run.modality, BETTER):
        return ""
    # Of several recipes of one network the one that the run is most like.
    name = max(own, key=lambda each: (_n_alike(run, each), own[each]["macro_f1"]))
    if own[name]["macro_f1"] >= better["macro_f1"]:
        return ""
    called = f"`preset={preset if based_on(run.modality, preset) == name else name}`"
    where = called if _is_of(run, name) else f"the most similar measured preset, {called},"
    cost = f", {better['minutes']:.0f} minutes" if "minutes" in better else ""
    both = (better, own[name])
    scores = [f"{each['macro_f1']:.3f}" for each in both]
    caveats = [f"; {score} {each['caveat']}" for each, score in zip(both, scores, strict=True) if "caveat" in each]
    return (
        f"`preset={BETTER}` has macro-F1 {scores[0]} where {where} has {scores[1]} ({better['on']})"
        f"{cost}: {read_preset(run.modality, BETTER)[0]}{''.join(caveats)}"
    )


def _is_of(run: Run, preset: str) -> bool:
    """Whether a run has a preset's settings, whatever its split and its seed."""
    given, free = run.settings, SPLIT_SETTINGS | REPORT_SETTINGS | {"data_root", "seed"}
    wanted = resolve(run.modality, preset, None, {}).flat()
    return all(given.get(name) == value for name, value in wanted.items() if name not in free)


def _n_alike(run: Run, preset: str) -> int:
    """How many settings of a run are the preset's."""
    given = run.settings
    return sum(given.get(name) == value for name, value in resolve(run.modality, preset, None, {}).flat().items())


def _model(modality: str, preset: str) -> object:
    """The network of a preset; None of an ensemble."""
    try:
        return resolve(modality, preset, None, {}).flat()["model"]
    except SettingsError:
        return None
