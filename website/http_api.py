"""Reference of the HTTP API, from the OpenAPI document that every member serves."""

from __future__ import annotations

from typing import Any

from connect_kv.frontend.http.openapi import document

HEAD = """# HTTP paths
Made from the OpenAPI document that every member serves at `/openapi.json`. How to call, streams, errors and
limits: [HTTP](../http.md). Every call is a POST.

## Paths
| path | takes | gives |
|---|---|---|"""


def page() -> str:
    """Every path, and the objects that go in and out."""
    whole = document("")
    lines = [HEAD]
    for path, operations in whole["paths"].items():
        asked = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
        given = operations["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        lines.append(f"| `{path}` | {_kind(asked)} | {_kind(given)} |")
    lines.append("\n## Objects\nA number of 64 bits is a text; bytes are base64.")
    for name, schema in whole["components"]["schemas"].items():
        lines.append(f"(object-{_anchor(name)})=\n### {name}\n" + _fields(schema))
    return "\n".join(lines) + "\n"


def _fields(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "One of " + ", ".join(f"`{one}`" for one in schema["enum"]) + ".\n"
    properties = schema.get("properties", {})
    if not properties:
        return "Has no fields.\n"
    rows = "\n".join(f"| `{name}` | {_kind(one)} |" for name, one in properties.items())
    return f"| field | type |\n|---|---|\n{rows}\n"


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#object-{_anchor(name)})"
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_kind(schema['additionalProperties'])}"
    if schema.get("type") == "object" and schema.get("properties"):
        return ", ".join(f"`{name}`: {_kind(one)}" for name, one in schema["properties"].items())
    for word in ("oneOf", "anyOf", "allOf"):
        if word in schema:
            return " or ".join(_kind(one) for one in schema[word])
    return str(schema.get("type", "anything")) + (f" ({schema['format']})" if "format" in schema else "")


def _anchor(name: str) -> str:
    return name.lower().replace(".", "-").replace("_", "-")
