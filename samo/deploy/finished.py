"""Whether a finished file, all that was written into it last included, answers as the network that was checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samo.deploy.export_job import ExportJob
from samo.deploy.file_formats import FILE_FORMATS
from samo.deploy.parity import LOGITS_WITHIN, AsModule, spread
from samo.errors import DataError, ExportError, ModelFileError
from samo.files import parse_json
from samo.modalities import predictor_type
from samo.prediction import ModelPredictor, Prediction
from samo.prediction.exported import load_exported
from samo.prediction.network import Network
from samo.training.torch_network import TorchNetwork
from samo.training.trainer import predict_logits

__all__ = ["MOST_GIVEN", "answers_problem", "check_finished", "metadata_problem"]

# Held-out items that a finished file is given as its users give them.
MOST_GIVEN = 48
# Of float32 probabilities.
_WITHIN = LOGITS_WITHIN


def check_finished(job: ExportJob, made: Path, network: Network, name: str) -> None:
    """Open the finished file as whoever uses it does, and give it what its users give it.

    Args:
        job: what was exported.
        made: the finished file.
        network: the one that was checked.
        name: of the file, for the error.

    Raises:
        ExportError: it is not what was checked.
    """
    expected = {
        "label_space": job.space.to_json(),
        "decision": job.decisions[1].to_json(),
        "reading": dict(job.exporter.reading(job.run, job.run.config)),
    }
    items = spread(job.items.ids, MOST_GIVEN)
    try:
        about, reopened = FILE_FORMATS[job.format].read_back(job, made)
        problem = metadata_problem(about, expected) or _difference(job, made, network, reopened, items)
    except ModelFileError as error:
        problem = error.message
    if problem:
        raise ExportError(f"{name} is not written: {problem}")


def _difference(job: ExportJob, made: Path, network: Network, reopened: Network | None, items: tuple[str, ...]) -> str:
    setup = job.setup
    if reopened is not None:
        rows = setup.frontend.manifest.rows(items)
        one, other = (predict_logits(AsModule(each), setup, rows) for each in (network, reopened))
        apart = float(np.abs(one.astype(np.float64) - other).max())
        far = f"logits of the finished file lie up to {apart:.2g} from those of what was checked"
        return "" if apart <= LOGITS_WITHIN else far
    own: ModelPredictor = predictor_type(job.run.modality).from_run(job.run, setup.runtime)
    if job.quantise:
        own.network = network
    elif job.prune:
        own.network = TorchNetwork(job.model, setup.runtime)
    own.decision = job.decisions[1]
    finished = load_exported(made, threads=setup.runtime.threads)
    return answers_problem(own, finished, job.exporter.inputs_of(setup.frontend, items))


def answers_problem(own: ModelPredictor, made: ModelPredictor, inputs: Sequence[Any]) -> str:
    """Why a finished file is not the model it was made of; empty where it is.

    Both are given recordings or texts as they are and answer in the same batches, since dynamic 8 bits depend on them.

    Args:
        own: the run, with the network and decision that were checked.
        made: the finished file.
        inputs: what a person would give them.

    Raises:
        DataError: an input cannot be read.
    """
    given = list(inputs)
    differ, largest = 0, 0.0
    for one, other in zip(own.stream(given), made.stream(given), strict=True):
        if one.error:
            raise DataError(one.error)
        if other.error or _decisions(one) != _decisions(other) or one.warnings != other.warnings:
            differ += 1
            continue
        for task, answer in one.answers.items():
            shares = other.answers[task].probabilities
            largest = max(largest, *(abs(share - shares[label]) for label, share in answer.probabilities.items()))
    if differ:
        return f"the finished file answers {differ} of {len(given)} recordings or texts otherwise than what was checked"
    if not largest <= _WITHIN:
        return f"probabilities of the finished file lie up to {largest:.2g} from those of what was checked"
    return ""


def metadata_problem(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Which of the ``expected`` parts of its metadata a finished file tells otherwise; empty where none."""
    wrong = [name for name, part in parse_json(json.dumps(expected)).items() if found.get(name) != part]
    return f"the finished file tells otherwise of its {' and '.join(wrong)} than the run" if wrong else ""


def _decisions(prediction: Prediction) -> list[tuple[str, list[str], list[str], bool]]:
    return [
        (task, sorted(answer.labels), list(answer.probabilities), answer.abstained)
        for task, answer in prediction.answers.items()
    ]
