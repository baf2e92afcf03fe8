"""What a server counts, for Prometheus; a registry for each application."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from samo.prediction import ModelPredictor, Prediction

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one application. No value of a label comes from a request, so that nobody can make them grow."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, models: Mapping[str, ModelPredictor]) -> None:
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter("samo_requests", "Requests by route and status.", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "samo_request_seconds", "From a request's head to its answer.", ["route"], buckets=_SECONDS, registry=own
        )
        self.queue = Gauge("samo_queue_length", "Inputs that wait for an answer.", ["model"], registry=own)
        self.batch = Histogram("samo_batch_size", "Inputs of a batch.", ["model"], buckets=_SIZES, registry=own)
        self.answers = Counter("samo_answers", "Answers by label.", ["model", "task", "label"], registry=own)
        self.abstentions = Counter("samo_abstentions", "Answers withheld.", ["model", "task"], registry=own)
        self.unreadable = Counter("samo_unreadable", "Clips that could not be decoded.", registry=own)
        self.decoders_lost = Counter("samo_decoders_lost", "Decoding processes lost to a clip.", registry=own)
        self.unlogged = Counter("samo_unlogged", "Answers that could not be written to the log.", registry=own)
        about = Gauge(
            "samo_model_info", "The models.", ["model", "modality", "network", "dataset", "trained"], registry=own
        )
        for name, model in models.items():
            facts = model.facts
            about.labels(name, facts.modality, facts.network, facts.dataset, facts.trained).set(1)

    def answered(self, name: str, prediction: Prediction) -> None:
        """Count one prediction of a model."""
        for task, answer in prediction.answers.items():
            if answer.abstained:
                self.abstentions.labels(name, task).inc()
            for label in answer.labels or ("",):
                self.answers.labels(name, task, label).inc()

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)
