"""``/docs``: the routes as a page of one's own, since the usual ones load scripts from other hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["reference_page", "reference_style"]

_STYLE = """
:root { color-scheme: light dark; --edge: #8886; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin: 2.5rem 0 .25rem; font-size: 1.1rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { border: 1px solid var(--edge); border-radius: .5rem; padding: .75rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--edge); padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; }
.method { font-weight: 700; }
"""
_EXAMPLES = {
    "/v1/predict/audio": "curl --data-binary @clip.wav -H 'Content-Type: audio/wav' HOST/v1/predict/audio",
    "/v1/predict/text": "curl -H 'Content-Type: application/json' -d '{\"text\": \"what a day\"}' HOST/v1/predict/text",
    "/predict": "curl -H 'Content-Type: application/json' -d '{\"text\": \"what a day\"}' HOST/predict",
    "/v1/models": "curl HOST/v1/models",
}


def reference_style() -> str:
    """The page's style sheet."""
    return _STYLE


def reference_page(described: Mapping[str, Any]) -> str:
    """The OpenAPI description as a page, without a script."""
    routes = "".join(
        _route(path, method, route, described)
        for path, methods in described["paths"].items()
        for method, route in methods.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(described['info']['title'])}: the interface</title>"
        '<link rel="stylesheet" href="/docs.css"></head><body>'
        f"<h1>{escape(described['info']['title'])} {escape(described['info']['version'])}</h1>"
        f"<p>{escape(described['info'].get('description', ''))} "
        'The same for programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"{routes}</body></html>"
    )


def _route(path: str, method: str, route: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    parts = [f'<h2><span class="method">{escape(method.upper())}</span> <code>{escape(path)}</code></h2>']
    parts.append(f"<p>{escape(route.get('summary', ''))}.</p>")
    if example := _EXAMPLES.get(path):
        parts.append(f"<pre>{escape(example)}</pre>")
    rows = [
        (each["name"], "query", _type(each["schema"]), each.get("description", ""))
        for each in route.get("parameters", ())
    ]
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        fields = list(_fields(content["schema"], described))
        rows += fields or [("", kind, "bytes", "The bytes of a file.")]
    if rows:
        parts.append(_table(("name", "where", "type", "what"), rows))
    answers = [(status, answer.get("description", "")) for status, answer in route["responses"].items()]
    parts.append(_table(("status", "when"), answers))
    return "".join(parts)


def _fields(schema: Mapping[str, Any], described: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found = described.get("components", {}).get("schemas", {}).get(name, {})
    for field, own in found.get("properties", {}).items():
        needed = "" if field in found.get("required", ()) else ", may be left out"
        yield field, "body", _type(own) + needed, own.get("description", "")


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(kind for each in schema["anyOf"] if (kind := _type(each)) != "null")
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type") or schema.get("$ref", "").rpartition("/")[2])


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    heads = "".join(f"<th>{escape(word)}</th>" for word in head)
    cells = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table>"
