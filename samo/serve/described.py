"""What a server says of its models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samo.prediction import ModelPredictor
from samo.reporting.published import published_card

__all__ = ["defaults_of", "described"]

# What a person who asks may want to know of how inputs are read, by the names that predictors have.
_READING = ("sr", "window", "trim_db", "max_tokens")


def described(name: str, model: ModelPredictor) -> dict[str, Any]:
    """One model as ``GET /v1/models`` lists it."""
    facts, space, decision = model.facts, model.space, model.decision
    return {
        "name": name,
        "modality": facts.modality,
        "network": facts.network,
        "dataset": facts.dataset,
        "synthetic": facts.synthetic,
        "leaky": facts.leaky,
        "trained": facts.trained,
        "licence": facts.licence,
        "scores": list(facts.scores),
        "tasks": space.to_json(),
        "temperature": {task.name: decision.calibration.temperature.get(task.name, 1.0) for task in space.tasks},
        "thresholds": {
            task.name: dict(zip(task.labels, decision.thresholds.of(task).tolist(), strict=True))
            for task in space.tasks
            if task.multi_label
        },
        "abstention": {name: float(threshold) for name, threshold in decision.abstention.thresholds.items()},
        "reading": {key: getattr(model, key) for key in _READING if hasattr(model, key)},
        "card": _card(model),
    }


def defaults_of(models: Mapping[str, ModelPredictor]) -> dict[str, str | None]:
    """The model of each modality that answers where a request names none: the first."""
    found: dict[str, str | None] = {"audio": None, "text": None}
    for name, model in models.items():
        if found.get(model.facts.modality) is None:
            found[model.facts.modality] = name
    return found


def _card(model: ModelPredictor) -> str:
    """The model card in Markdown; empty where there is none."""
    if not model.facts.folder:
        return published_card(model.card)
    path = Path(model.facts.folder, "MODEL_CARD.md")
    try:
        return published_card(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
