"""The OpenAPI description: whatever it allows is answered as it says, and nothing breaks the server."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from stub_models import Reader

from samo.serve.app import make_app

# Without a model for audio those routes answer 404, whatever comes; test_served_answers.py has what they decode.
schema = schemathesis.openapi.from_asgi("/openapi.json", make_app({"reader": Reader()}))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_answers_are_as_described(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS)
