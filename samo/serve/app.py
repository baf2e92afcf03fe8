"""The application: routes, and what is said about them in the OpenAPI description."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from samo import __version__
from samo.prediction import ModelPredictor
from samo.serve.described import described
from samo.serve.gate import Gate, is_audio, is_json
from samo.serve.limits import Limits
from samo.serve.prediction_log import PredictionLog
from samo.serve.problems import PROBLEM_JSON, Problem, invalid_detail, problem_response
from samo.serve.reference import reference_page, reference_style
from samo.serve.schemas import AudioAnswer, BatchAnswer, ClipBatch, Models, ProblemBody, State, TextAnswers, Texts
from samo.serve.service import Service

__all__ = ["make_app"]

_STATIC = Path(__file__).parent / "static"
# What may be wrong with a request, for the description.
_REFUSALS = {
    400: "The request cannot be understood.",
    401: "An API key is needed.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too large, or holds too many inputs or too much sound.",
    415: "Another type of content is taken.",
    421: "The server does not go by the name in the Host header.",
    422: "The input cannot be read.",
    429: "Too many requests at once; see Retry-After.",
    503: "The server is about to stop.",
    504: "No answer in time.",
}
_BODIES = {
    "/v1/predict/audio": is_audio,
    "/v1/predict/audio/batch": is_json,
    "/v1/predict/text": is_json,
    "/predict": is_json,
}


def make_app(
    models: Mapping[str, ModelPredictor],
    limits: Limits | None = None,
    *,
    keys: Collection[str] = (),
    hosts: Collection[str] = (),
    log: Path | None = None,
    log_inputs: bool = False,
) -> FastAPI:
    """An ASGI application that answers with some models.

    Args:
        models: what :func:`samo.load` gives, by the names that requests use; the first of a modality is its default.
        limits: what is taken, and how long is waited.
        keys: API keys, one of which a request must name; empty: none is needed.
        hosts: names that the ``Host`` header may have; empty: any.
        log: file to which every answer is appended.
        log_inputs: whether texts are written there too.

    Returns:
        The application; ``app.state.service`` is what it answers with.

    Raises:
        EnvironmentProblem: ``log`` cannot be written.
    """
    service = Service(
        models,
        limits or Limits(),
        lambda metrics: PredictionLog(log, inputs=log_inputs, failed=metrics.unlogged.inc) if log else None,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="SAMO", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Emotion recognition from speech and text.",
    )  # fmt: skip
    app.state.service = service
    _add_predictions(app, service)
    _add_facts(app, service)
    _add_pages(app)
    _add_refusals(app)
    # Some routes of FastAPI's are no routes of a path.
    routes = {str(path) for route in app.routes if (path := getattr(route, "path", ""))}
    app.add_middleware(Gate, service=service, bodies=_BODIES, routes=routes, keys=keys, hosts=hosts)
    return app


def _refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    schema = {"$ref": "#/components/schemas/ProblemBody"}
    return {
        status: {"description": _REFUSALS[status], "content": {PROBLEM_JSON: {"schema": schema}}} for status in statuses
    }


def _add_predictions(app: FastAPI, service: Service) -> None:
    refused = _refused(*_REFUSALS)
    audio = {"schema": {"type": "string", "format": "binary"}}
    body = {"required": True, "content": {"application/octet-stream": audio, "audio/*": audio}}

    async def require_few(request: Request) -> None:
        """Before the items are looked at: a body may hold millions, and others wait meanwhile."""
        given = await request.json()
        for value in given.values() if isinstance(given, dict) else ():
            if isinstance(value, list):
                service.require_few(len(value))

    few = [Depends(require_few)]

    @app.post(
        "/v1/predict/audio", tags=["predict"], summary="Name the emotion of a clip",
        responses={200: {"model": AudioAnswer}, **refused}, openapi_extra={"requestBody": body},
    )  # fmt: skip
    async def predict_audio(
        request: Request,
        model: Annotated[str | None, Query(description="Name of a model; left out: the first for audio.")] = None,
        timeline: Annotated[
            bool | None, Query(description="Answer every window too; left out: of recordings over 10 s.")
        ] = None,
        spectrogram: Annotated[bool, Query(description="Send what the network sees of the first window.")] = False,
    ) -> JSONResponse:
        name, answer = await service.audio(model, await request.body(), timeline=timeline, spectrogram=spectrogram)
        return JSONResponse({"model": name, **answer})

    @app.post(
        "/v1/predict/audio/batch", tags=["predict"], summary="Name the emotions of several clips", dependencies=few,
        responses={200: {"model": BatchAnswer}, **refused},
    )  # fmt: skip
    async def predict_clips(clips: ClipBatch) -> JSONResponse:
        name, answers = await service.clips(clips.model, [(clip.name, clip.audio) for clip in clips.clips])
        return JSONResponse({"model": name, "predictions": answers})

    @app.post(
        "/v1/predict/text", tags=["predict"], summary="Name the emotion of a text, or of several", dependencies=few,
        responses={200: {"model": TextAnswers}, **refused},
    )  # fmt: skip
    async def predict_text(texts: Texts) -> JSONResponse:
        many = isinstance(texts.text, list)
        name, answers = await service.texts(texts.model, texts.text if isinstance(texts.text, list) else [texts.text])
        return JSONResponse({"model": name, **({"predictions": answers} if many else answers[0])})

    app.post(
        "/predict", tags=["predict"], summary="The same as /v1/predict/text", dependencies=few,
        responses={200: {"model": TextAnswers}, **refused},
    )(predict_text)  # fmt: skip


def _add_facts(app: FastAPI, service: Service) -> None:
    models = [described(name, model) for name, model in service.models.items()]

    @app.get(
        "/v1/models", tags=["facts"], summary="What is served", responses={200: {"model": Models}, **_refused(401)}
    )
    async def list_models() -> JSONResponse:
        return JSONResponse({"models": models, "default": service.defaults})

    @app.get("/healthz", tags=["state"], summary="Whether the server lives", responses={200: {"model": State}})
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.get(
        "/readyz", tags=["state"], summary="Whether it answers",
        responses={200: {"model": State}, 503: {"model": State, "description": "Not yet, or no longer."}},
    )  # fmt: skip
    async def readyz() -> JSONResponse:
        status = "stopping" if service.draining else "ready" if service.ready else "loading"
        return JSONResponse({"status": status}, 200 if status == "ready" else 503)

    text = {"text/plain": {"schema": {"type": "string"}}}

    @app.get(
        "/metrics", tags=["state"], summary="Counters for Prometheus", response_class=Response,
        responses={200: {"content": text}, **_refused(401)},
    )  # fmt: skip
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=service.metrics.content_type)


def _add_pages(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(reference_page(app.openapi()), media_type="text/html")

    @app.get("/docs.css", include_in_schema=False)
    async def style() -> Response:
        return Response(reference_style(), media_type="text/css")

    if _STATIC.is_dir():
        app.mount("/static", StaticFiles(directory=_STATIC))

        @app.get("/", include_in_schema=False)
        async def page() -> Response:
            return FileResponse(_STATIC / "index.html")


def _add_refusals(app: FastAPI) -> None:
    schemas = {"ProblemBody": ProblemBody.model_json_schema()}
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        described = plain()
        described.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        return described

    app.openapi = openapi  # type: ignore[method-assign]

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> JSONResponse:
        return problem_response(problem)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = error.errors()
        if errors[0]["type"] == "json_invalid":
            return problem_response(Problem(400, "the body is no JSON"))
        return problem_response(Problem(422, invalid_detail(errors)))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        detail = {404: "there is nothing here", 405: "this route has other methods"}.get(
            error.status_code, error.detail
        )
        return problem_response(Problem(error.status_code, detail, hint="see /docs", headers=error.headers))

    @app.exception_handler(Exception)
    async def on_error(request: Request, error: Exception) -> JSONResponse:
        logging.getLogger(__name__).error("unexpected %s", type(error).__name__, exc_info=error)
        return problem_response(Problem(500, "something went wrong here"))
