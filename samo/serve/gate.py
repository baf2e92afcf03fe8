"""What stands before every route: hosts, keys, sizes and times, and the headers of every response."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from samo.serve.problems import Problem, problem_response
from samo.serve.service import Service

__all__ = ["LOOPBACK_NAMES", "Gate", "host_name", "is_audio", "is_json"]

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}
# Those that a machine asks to learn how the server is.
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})
# What orchestrators probe, by the address of a machine or container; they tell nothing of anybody's.
_PROBES = frozenset({"/healthz", "/readyz"})
# What is behind the key; the page and the description of the interface hold nothing of anybody's.
_KEYED = ("/v1/", "/predict", "/metrics")
# A body that is too large is read on for so long, so that whoever sends it gets to hear why it is refused.
_DISCARD_S = 2.0
# Commas and brackets that a body of JSON may always have, whatever the limits of texts are.
_VALUES = 100_000


def is_audio(content_type: str) -> bool:
    """Whether a body of this type may be a recording."""
    return content_type.startswith("audio/") or content_type == "application/octet-stream"


def is_json(content_type: str) -> bool:
    """Whether a body of this type is JSON."""
    return content_type == "application/json"


class Gate:
    """ASGI middleware: a request that gets through has a host and a key that are known, and a body that is all there.

    It also counts requests and their time.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        bodies: Mapping[str, Callable[[str], bool]],
        routes: Collection[str],
        keys: Collection[str] = (),
        hosts: Collection[str] = (),
    ) -> None:
        """Put it before an application.

        Args:
            app: what is behind.
            service: what is counted and limited.
            bodies: routes that take a body, and which types of content.
            routes: all routes, the only ones that are counted by name.
            keys: API keys; empty: none is needed.
            hosts: names in the ``Host`` header, with or without a port; empty: any. Probes need none.
        """
        self._app, self._service, self._bodies, self._routes = app, service, bodies, frozenset(routes)
        self._keys = [_digest(key.strip()) for key in keys]
        self._hosts = frozenset(map(host_name, hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A route that can be got answers a question for its head too, as HTTP has it.
        head = scope["method"] == "HEAD"
        if head:
            scope = {**scope, "method": "GET"}
        route, began, status = self._route(scope["path"]), time.perf_counter(), 0

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._complete(scope, MutableHeaders(raw=message["headers"]), status)
            elif head:
                message = {**message, "body": b""}
            await send(message)

        counted = scope["path"] not in _ALWAYS
        task = asyncio.current_task()
        assert task
        self._service.active += counted
        self._service.requests.add(task)
        try:
            await self._answer(scope, receive, send_safely)
        except asyncio.CancelledError:
            # Of somebody else, or too late for another answer.
            if not self._service.cut_off or status:
                raise
            task.uncancel()
            await problem_response(_stopping())(scope, receive, send_safely)
        finally:
            self._service.requests.discard(task)
            self._service.active -= counted
            # 499: whoever asked went away before the answer.
            self._service.metrics.requests.labels(route, str(status or 499)).inc()
            self._service.metrics.seconds.labels(route).observe(time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as kept:
            try:
                self._check(scope)
                if scope["method"] == "POST" and scope["path"] in self._bodies:
                    body = await self._body(scope, receive, kept)
                    if body is None:
                        return
                    if self._bodies[scope["path"]] is is_json:
                        self._require_small(body)
                    receive = _replayed(body, receive)
            except Problem as problem:
                await problem_response(problem)(scope, receive, send)
                return
            await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        if self._hosts and path not in _PROBES and host_name(headers.get("host", "")) not in self._hosts:
            # Another site's name that leads here: its page would read the answers (DNS rebinding).
            raise Problem(421, "this server does not go by that name", hint=f"names: {', '.join(sorted(self._hosts))}")
        if self._service.draining and path not in _ALWAYS:
            raise _stopping()
        if self._keys and path.startswith(_KEYED) and not self._knows(headers.get("authorization", "")):
            raise Problem(
                401, "an API key is needed", hint="send it as Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    def _knows(self, authorization: str) -> bool:
        """Whether it is one of the keys, in a time that tells nothing of them."""
        kind, _, given = authorization.partition(" ")
        digest = _digest(given.strip())
        return bool(sum([hmac.compare_digest(digest, key) for key in self._keys])) and kind.lower() == "bearer"

    async def _body(self, scope: Scope, receive: Receive, kept: ExitStack) -> bytes | None:
        """The whole body; None where whoever sent it went away.

        Raises:
            Problem: a type of content that is not taken, or a body that is too large or too slow.
        """
        headers, limits = Headers(scope=scope), self._service.limits
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        takes = self._bodies[scope["path"]]
        if not takes(content_type):
            valid = "audio/* or application/octet-stream" if takes is is_audio else "application/json"
            raise Problem(415, f"this route takes {valid}", hint="say so in the Content-Type header")
        stated = headers.get("content-length", "0")
        if stated.isdecimal() and int(stated) > limits.body_bytes:
            await self._discard(receive)
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(limits.body_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = message.get("body", b"")
                    kept.enter_context(self._service.keeping(len(part)))
                    size += len(part)
                    if size > limits.body_bytes:
                        parts.clear()
                        await self._discard(receive)
                        raise self._too_large()
                    parts.append(part)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Problem(408, f"the body did not come within {limits.body_timeout:g} s") from None

    def _require_small(self, body: bytes) -> None:
        """Refuse JSON of more values than a good request has characters: millions take seconds to parse.

        Raises:
            Problem: 413.
        """
        most = max(_VALUES, self._service.limits.max_items * self._service.limits.max_chars)
        if sum(map(body.count, (b",", b"[", b"{"))) > most:
            raise Problem(413, f"the body holds more than {most} values", hint="send fewer inputs")

    async def _discard(self, receive: Receive) -> None:
        try:
            async with asyncio.timeout(_DISCARD_S):
                while (message := await receive())["type"] != "http.disconnect" and message.get("more_body"):
                    pass
        except TimeoutError:
            pass

    def _too_large(self) -> Problem:
        return Problem(
            413, f"the body is larger than {self._service.limits.max_body_mb:g} MB", hint="send a shorter clip"
        )

    def _route(self, path: str) -> str:
        if path in self._routes:
            return path
        return "/static" if path.startswith("/static/") else "other"

    def _complete(self, scope: Scope, headers: MutableHeaders, status: int) -> None:
        for name, value in _HEADERS.items():
            headers[name] = value
        headers.setdefault("Cache-Control", "no-cache" if self._route(scope["path"]) == "/static" else "no-store")
        # The rest of a body that nobody reads could go on for ever.
        has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        if has_body and (status >= 400 or scope["path"] not in self._bodies):
            headers["Connection"] = "close"


def _stopping() -> Problem:
    return Problem(503, "the server is about to stop", headers={"Retry-After": "10"})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body in one message, then what really comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def host_name(header: str) -> str:
    """The name in a ``Host`` header, without its port; addresses of IPv6 with or without brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    if header.count(":") > 1:
        return header.lower()
    return header.partition(":")[0].lower().rstrip(".")
