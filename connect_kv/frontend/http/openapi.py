"""An OpenAPI document of everything below /v3/ and /connect_kv/v1/, made from the descriptors."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from connect_kv.frontend.http import heads
from connect_kv.frontend.http.exchange import Exchange
from connect_kv.frontend.http.paths import OURS, Target, targets
from connect_kv.json_mapping.decoding import is_map

PATH = "/openapi.json"

_SCALARS: dict[int, dict[str, Any]] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "format": "int64"},
    FieldDescriptor.TYPE_FIXED32: {"type": "integer", "format": "int64"},
    FieldDescriptor.TYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.TYPE_UINT64: {"type": "string", "format": "uint64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
}


class Document:
    """Made when it is asked for the first time."""

    def __init__(self, version: str) -> None:
        """`version`: of this software."""
        self._version = version
        self._text: bytes | None = None

    async def serve(self, exchange: Exchange) -> None:
        """The page."""
        if exchange.method not in ("GET", "HEAD"):
            fields = heads.constant(("Allow", "GET, HEAD"), heads.TEXT, heads.NO_SNIFFING)
            exchange.respond(405, fields, b"Method Not Allowed\n")
            return
        if self._text is None:
            self._text = json.dumps(document(self._version), separators=(",", ":")).encode()
        exchange.respond(200, heads.constant(heads.JSON), self._text)


def document(version: str) -> dict[str, Any]:
    """OpenAPI 3.0, which most tools read."""
    schemas: dict[str, Any] = {
        "error": {
            "type": "object",
            "properties": {
                "error": {"type": "string"},
                "code": {"type": "integer", "format": "int32", "description": "a status code of gRPC"},
                "message": {"type": "string"},
            },
        }
    }
    paths = {path: {"post": _operation(path, target, schemas)} for path, target in sorted(targets().items())}
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "connect-kv",
            "version": version,
            "description": "etcd's v3 API as JSON over HTTP, and connect-kv's own services.",
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "Authorization"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(path: str, target: Target, schemas: dict[str, Any]) -> dict[str, Any]:
    method = target.method
    answer: dict[str, Any] = _reference(method.output_type, schemas)
    told = "The answer."
    if method.server_streaming:
        answer = {"type": "object", "properties": {"result": answer}}
        told = "A line for each answer, until the stream ends."
    request = "Messages one after another." if method.client_streaming else "The request."
    name = "ours" if path.startswith(OURS) else "etcd"
    return {
        "tags": [method.containing_service.name],
        "operationId": f"{name}_{path.removeprefix(OURS).removeprefix('/v3/').replace('/', '_')}",
        "requestBody": {
            "description": request,
            "content": {"application/json": {"schema": _reference(method.input_type, schemas)}},
        },
        "responses": {
            "200": {"description": told, "content": {"application/json": {"schema": answer}}},
            "default": {
                "description": "Refused.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/error"}}},
            },
        },
    }


def _reference(message: Descriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    name = message.full_name.removeprefix(f"{message.file.package}.")
    if name not in schemas:
        schemas[name] = {}  # known, before its fields are looked at: it may contain itself
        properties = {field.name: _field(field, schemas) for field in message.fields}
        schemas[name] = {"type": "object", **({"properties": properties} if properties else {})}
    return {"$ref": f"#/components/schemas/{name}"}


def _field(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    if is_map(field):
        assert field.message_type is not None
        value = field.message_type.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _single(value, schemas)}
    one = _single(field, schemas)
    return {"type": "array", "items": one} if field.is_repeated else one


def _single(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        return _reference(field.message_type, schemas)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    return _SCALARS[field.type]
