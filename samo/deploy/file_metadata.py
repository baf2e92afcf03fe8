"""What an exported file says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from samo import __version__
from samo.deploy.export_job import ExportJob
from samo.deploy.exporter import reads_differently
from samo.deploy.onnx_file import OPSET
from samo.prediction import ModelFacts
from samo.prediction.exported import Metadata
from samo.prediction.readings import FORMAT, SEVERAL_FORMAT
from samo.runs.load import facts_of

__all__ = ["metadata_of"]


def metadata_of(
    job: ExportJob, card: str = "", facts: Mapping[str, Any] | None = None, reference: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What the file says of itself."""
    licence = str(job.setup.frontend.data_card().get("licence", ""))
    about = replace(facts_of(job.run), name=job.name, licence=licence)
    if facts and (job.quantise or job.prune):
        own = () if facts["parity"]["trained_on"] else (_score(facts),)
        about = replace(about, scores=(*own, *(f"{score} (the run)" for score in about.scores)))
    reading = dict(job.exporter.reading(job.run, job.run.config))
    return Metadata(
        format=SEVERAL_FORMAT if reads_differently(job.model) else FORMAT,
        samo=__version__,
        opset=OPSET,
        modality=job.run.modality,  # type: ignore[arg-type]
        label_space=job.space.to_json(),
        decision=job.decisions[1].to_json(),
        facts=_plain(about),  # type: ignore[arg-type]
        reading=reading,
        card=card,
        reference=dict(reference or {}),
        quantised=job.quantise,  # type: ignore[arg-type]
        pruned=float(job.prune),
    ).model_dump(mode="json")


def _plain(about: ModelFacts) -> dict[str, Any]:
    return {name: value for name, value in about.to_json().items() if name != "modality"}


def _score(facts: Mapping[str, Any]) -> str:
    parity = facts["parity"]
    part = "validation" if parity["part"] == "val" else "test"
    return f"{part} macro-F1 {parity['macro_f1']['after']:.3f} of this file over {parity['n']} items"
