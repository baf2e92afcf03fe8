"""What stands before the routes: hosts, keys, types, sizes, times, and headers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from stub_models import Reader, tone
from test_served_answers import posted, problem

from samo.serve.app import make_app
from samo.serve.limits import Limits

KEY = "0123456789abcdef"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/nothing", "/openapi.json", "/metrics", "/v1/models"])
def test_headers_of_every_response(both: Any, path: str) -> None:
    headers = both.get(path, headers={"Origin": "https://evil.example"}).headers
    assert headers["content-security-policy"] == CSP
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert not [name for name in headers if name.startswith("access-control")]
    assert "server" not in headers


def test_a_key_is_needed_where_there_are_any(serve: Any) -> None:
    client = serve(Reader(), keys=[KEY + "\n", "another key, longer"])
    for path in ("/v1/models", "/metrics"):
        response = client.get(path)
        problem(response, 401, "settings")
        assert response.headers["www-authenticate"] == "Bearer"
    problem(client.post("/predict", json={"text": "x"}), 401, "settings")
    for key in (KEY, "another key, longer"):
        given = {"Authorization": f"Bearer {key}"}
        assert client.post("/predict", json={"text": "x"}, headers=given).status_code == 200
        assert client.get("/metrics", headers=given).status_code == 200
    for wrong in (f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY, "Bearer", "Bearer ", b"Bearer \xff\xfe"):
        assert client.get("/v1/models", headers={"Authorization": wrong}).status_code == 401
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200


def test_only_known_names_of_the_host(serve: Any) -> None:
    client = serve(Reader(), hosts=["localhost", "127.0.0.1", "::1", "Samo.example", "other.example:8443", "[::3]"])
    good = ("localhost:8000", "127.0.0.1", "[::1]:80", "LOCALHOST", "samo.example", "samo.example.:1", "[::3]")
    for host in (*good, "other.example", "other.example:8443"):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io:8000", "", "[::2]"):
        for path in ("/v1/models", "/", "/docs", "/metrics"):
            problem(client.get(path, headers={"Host": host}), 421, "settings")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_come_by_address(serve: Any, path: str) -> None:
    assert serve(Reader(), hosts=["samo.example"]).get(path, headers={"Host": "10.1.2.3:8000"}).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"]
)
def test_types_that_a_form_of_another_site_could_send(both: Any, kind: str) -> None:
    problem(posted(both, "/predict", b'{"text": "x"}', kind), 415, "data")
    problem(posted(both, "/v1/predict/audio", tone(), kind), 415, "data")
    problem(posted(both, "/v1/predict/audio", tone(), "application/json"), 415, "data")
    problem(posted(both, "/predict", b'{"text": "x"}', "audio/wav"), 415, "data")


def test_a_body_that_is_too_large(both: Any) -> None:
    assert posted(both, "/predict", b'{"text": "x"}' + b" " * 499_987, "application/json").status_code == 200
    problem(posted(both, "/predict", b'{"text": "x"}' + b" " * 500_000, "application/json"), 413, "data")
    problem(posted(both, body=bytes(500_001)), 413, "data")
    assert both.app.state.service._kept_bytes == 0


@pytest.mark.parametrize(("begin", "each", "end"), [(b"[", b"1,", b"1]"), (b"[", b"[],", b"1]"), (b"", b"[", b"")])
def test_json_of_more_values_than_a_text_has_characters(
    serve: Any, begin: bytes, each: bytes, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samo.serve.gate._VALUES", 1000)
    client = serve(Reader(), limits=Limits(max_items=2, max_chars=600))
    body = b'{"text": ' + begin + each * 1200 + end + b"}"
    answer = problem(posted(client, "/predict", body, "application/json"), 413, "data")
    assert answer["detail"] == "the body holds more than 1200 values"
    assert client.post("/predict", json={"text": ["," * 599, "[" * 598]}).status_code == 200


# Requests that no honest client sends, by hand.


async def asgi(app: Any, messages: list[Any], path: str = "/predict", **headers: str) -> list[dict[str, Any]]:
    """Send messages, a number standing for seconds of silence, and give what comes back."""
    sent: list[dict[str, Any]] = []
    given = {
        "host": "localhost",
        "content-type": "application/json",
        "transfer-encoding": "chunked",
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http", "headers": raw,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def receive() -> Any:
        while messages:
            message = messages.pop(0)
            if not isinstance(message, float):
                return message
            await asyncio.sleep(message)
        return await asyncio.sleep(3600)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def by_hand(messages: list[Any], limits: Limits | None = None, **headers: str) -> tuple[Any, list[dict[str, Any]]]:
    app = make_app({"reader": Reader()}, limits)

    async def main() -> list[dict[str, Any]]:
        await app.state.service.start()
        async with asyncio.timeout(20):
            sent = await asgi(app, messages, **headers)
        await app.state.service.stop()
        return sent

    return app, asyncio.run(main())


def test_a_body_in_parts() -> None:
    app, sent = by_hand([part(b'{"te'), 0.01, part(b'xt": "x'), part(b'"}', more=False)])
    assert sent[0]["status"] == 200
    assert app.state.service._kept_bytes == 0


@pytest.mark.parametrize("messages", [[], [part(b'{"text":'), 0.1, part(b"1"), 0.1, part(b"1"), 0.1, part(b"1")]])
def test_a_body_that_comes_too_slowly(messages: list[Any]) -> None:
    app, sent = by_hand(messages, Limits(body_timeout=0.25))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert app.state.service._kept_bytes == 0


def test_who_goes_away_gets_nothing_and_leaves_nothing() -> None:
    app, sent = by_hand([part(b'{"text":'), {"type": "http.disconnect"}])
    assert sent == []
    assert (app.state.service._kept_bytes, app.state.service.active) == (0, 0)
    assert 'samo_requests_total{route="/predict",status="499"} 1.0' in app.state.service.metrics.text().decode()


def test_a_length_that_is_a_lie() -> None:
    _, sent = by_hand(
        [part(bytes(600_000)), part(bytes(600_000), more=False)], Limits(max_body_mb=1), content_length="5"
    )
    assert sent[0]["status"] == 413
    _, sent = by_hand([part(b"", more=False)], Limits(max_body_mb=1), content_length="99999999999999999999999")
    assert sent[0]["status"] == 413
