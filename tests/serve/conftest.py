"""An application with two stub models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.testclient import TestClient
from stub_models import Ears, Reader

from samo.serve.app import make_app
from samo.serve.limits import Limits

Serve = Callable[..., TestClient]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start an application with models and limits, by default with one decoder; its client's ``app`` has it."""
    with ExitStack() as opened:

        def start(*models: Any, limits: Limits | None = None, **how: Any) -> TestClient:
            named = {model.facts.name: model for model in models or (Reader(),)}
            app = make_app(named, limits or Limits(decoders=1), **how)
            client = TestClient(app, raise_server_exceptions=False)
            return opened.enter_context(client)

        yield start


@pytest.fixture(scope="module")
def both() -> Iterator[TestClient]:
    """One application with ears and a reader, for tests that leave it as it is."""
    app = make_app({"ears": Ears(), "reader": Reader()}, Limits(decoders=1, max_duration_s=4.0, max_body_mb=0.5))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
