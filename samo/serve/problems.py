"""Errors over HTTP: ``application/problem+json`` (RFC 9457) with the codes and hints of the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from samo.errors import DataError, EnvironmentProblem, RunError, SamoError, SettingsError

__all__ = ["PROBLEM_JSON", "Problem", "problem_response"]

PROBLEM_JSON = "application/problem+json"

# Whose fault it is, in the command line's words.
_CODES = {
    401: SettingsError.code,
    404: RunError.code,
    408: DataError.code,
    413: DataError.code,
    415: DataError.code,
    422: DataError.code,
    429: EnvironmentProblem.code,
    500: SamoError.code,
    503: EnvironmentProblem.code,
    504: EnvironmentProblem.code,
}
_BACKQUOTED = re.compile(r"`([^`]*)`")


class Problem(Exception):  # noqa: N818
    """A request that gets no answer.

    Attributes:
        status: of HTTP.
        detail: one line, what is wrong.
        hint: what to do about it; may be empty.
        headers: that go with the response, such as ``Retry-After``.
    """

    def __init__(self, status: int, detail: str, *, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.hint, self.headers = status, detail, hint, dict(headers or {})


def problem_response(problem: Problem) -> JSONResponse:
    """The response to a request that gets no answer."""
    status = HTTPStatus(problem.status)
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": problem.status,
        "detail": _plain(problem.detail),
        "code": _CODES.get(problem.status, SettingsError.code),
        "hint": _plain(problem.hint),
    }
    return JSONResponse(content, problem.status, problem.headers, media_type=PROBLEM_JSON)


def _plain(line: str) -> str:
    """A line of the core's without its backquotes: who reads it has no flags."""
    return _BACKQUOTED.sub(r"\1", " ".join(line.split()))
