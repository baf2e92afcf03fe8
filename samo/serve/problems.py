"""Errors over HTTP: ``application/problem+json`` (RFC 9457) with the codes and hints of the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from samo.errors import DataError, EnvironmentProblem, RunError, SamoError, SettingsError

__all__ = ["PROBLEM_JSON", "Problem", "invalid_detail", "problem_response"]

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
# Places that are looked at; a hostile body has as many wrong ones as bytes.
_MOST_ERRORS = 1000
_SHOULD = "Input should be "
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


def invalid_detail(errors: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with a request, in one sentence: where, and why.

    Args:
        errors: at least one, as pydantic lists them. Of what may be this or that it lists one for each, whose places
            name its own types: the innermost is told, or those of one place together.
    """
    found = [(_place(error), error) for error in errors[:_MOST_ERRORS]]
    place, first = max(found, key=lambda pair: (len(pair[0]), pair[1]["type"] == "value_error"))
    same = [error for other, error in found if other == place and error["type"].endswith("_type")]
    reasons = dict.fromkeys(map(_reason, same if first in same else [first]))
    head, *rest = reasons
    reason = head + "".join(f" or {each.removeprefix(_SHOULD)}" for each in rest)
    return f"{'.'.join(place)[:200]}: {reason[:1].lower()}{reason[1:]}"


def _place(error: Mapping[str, Any]) -> tuple[str, ...]:
    place = tuple(map(str, error["loc"]))
    # The key that is too much is the client's own.
    return place if error["type"] == "extra_forbidden" else tuple(part for part in place if "[" not in part)


def _reason(error: Mapping[str, Any]) -> str:
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return _SHOULD + "an object"
    return str(error["msg"]).removeprefix("Value error, ")


def _plain(line: str) -> str:
    """A line of the core's without its backquotes: who reads it has no flags."""
    return _BACKQUOTED.sub(r"\1", " ".join(line.split()))
