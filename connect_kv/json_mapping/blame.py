"""Why a text is no message of some type, in the words of Go's `encoding/json` and `protojson`.

Read once more, token by token, with the place of each. Only texts that cannot be read come here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from connect_kv.json_mapping.fields import SCALARS, TYPES, Number, Unreadable, enumeration
from connect_kv.json_mapping.syntax import SyntaxFault, value_end

ETCD_PACKAGE = "etcdserverpb"
"""Clients know a oneof's name with etcd's package, not with ours."""

_TOKEN = re.compile(r'[{}\[\]]|"(?:[^"\\]|\\.)*"|[^\s{}\[\],:"]+', re.DOTALL)
_ESCAPE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_UNEXPECTED = "cannot be read"


class _Fault(Exception):
    """Found; the argument is what to say."""


@dataclass(slots=True)
class _Token:
    raw: str
    at: int
    """Where it begins, from the beginning of the value."""


def blame(kind: Descriptor, text: str, at: int) -> str:
    """What is wrong with the value of `text` at `at`, as a message of that type."""
    try:
        value = text[at : value_end(text, at)]
        _Walk(value).message(kind)
    except SyntaxFault as fault:
        return str(fault)
    except _Fault as fault:
        return f"proto: {fault}"
    return f"proto: {_UNEXPECTED}"


class _Walk:
    """Through one value, which is JSON."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: Iterator[_Token] = (_Token(one.group(), one.start()) for one in _TOKEN.finditer(text))

    def message(self, kind: Descriptor, first: _Token | None = None) -> None:
        """An object; `first` is its token that was read already. Raises _Fault."""
        first = first or next(self._tokens)
        if first.raw != "{":
            raise self._unexpected(first)
        fields = _by_name(kind)
        seen: set[int] = set()
        oneofs: set[str] = set()
        while (name := next(self._tokens)).raw != "}":
            field = fields.get(self._said(name))
            value = next(self._tokens)
            if field is None:
                self._skip(value)
                continue
            if field.number in seen:
                raise self._fault(name, f"duplicate field {name.raw}")
            seen.add(field.number)
            if value.raw == "null":
                continue
            if field.is_repeated:
                self._repeated(field, value)
                continue
            if (oneof := field.containing_oneof) is not None:
                if oneof.full_name in oneofs:
                    named = f"{ETCD_PACKAGE}.{oneof.containing_type.name}.{oneof.name}"
                    raise self._fault(name, f"error parsing {name.raw}, oneof {named} is already set")
                oneofs.add(oneof.full_name)
            self._single(field, value)

    def _repeated(self, field: FieldDescriptor, first: _Token) -> None:
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            self._map(inner, first)
            return
        if first.raw != "[":
            raise self._unexpected(first)
        while (value := next(self._tokens)).raw != "]":
            self._single(field, value)

    def _map(self, entry: Descriptor, first: _Token) -> None:
        if first.raw != "{":
            raise self._unexpected(first)
        keys: set[str] = set()
        while (name := next(self._tokens)).raw != "}":
            key = self._said(name)
            if key in keys:
                raise self._fault(name, f"duplicate map key {name.raw}")
            keys.add(key)
            self._scalar(entry.fields_by_name["key"], name)
            self._single(entry.fields_by_name["value"], next(self._tokens))

    def _single(self, field: FieldDescriptor, value: _Token) -> None:
        if field.message_type is not None:
            self.message(field.message_type, value)
        else:
            self._scalar(field, value)

    def _scalar(self, field: FieldDescriptor, token: _Token) -> None:
        said = self._said(token) if token.raw[0] == '"' else _bare(token.raw)
        if (enum := field.enum_type) is not None:
            encode = enumeration({name: value.number for name, value in enum.values_by_name.items()})
        else:
            encode = SCALARS[field.type][1]
        try:
            encode(said)
        except Unreadable:
            kind = TYPES[field.type]
            wrong = f"invalid value for {kind} field {field.json_name}: {token.raw}"
            raise self._fault(token, wrong) from None

    def _skip(self, first: _Token) -> None:
        depth = 0
        token = first
        while True:
            depth += (token.raw in ("{", "[")) - (token.raw in ("}", "]"))
            if depth <= 0:
                return
            token = next(self._tokens)

    def _said(self, token: _Token) -> str:
        """What a string says."""
        said = json.loads(token.raw)
        if not isinstance(said, str):
            raise self._unexpected(token)
        try:
            said.encode()
        except UnicodeEncodeError:
            half = _ESCAPE.search(token.raw)
            where = _Token(token.raw, token.at + (0 if half is None else half.start()))
            what = "invalid UTF-8" if half is None else f"invalid escape code {json.dumps(half.group())}"
            raise self._fault(where, f"{what} in string", "syntax error ") from None
        return said

    def _unexpected(self, token: _Token) -> _Fault:
        return self._fault(token, f"unexpected token {token.raw}", "syntax error ")

    def _fault(self, token: _Token, text: str, kind: str = "") -> _Fault:
        before = self._text[: token.at]
        line, column = before.count("\n") + 1, token.at - (before.rfind("\n") + 1) + 1
        return _Fault(f"{kind}(line {line}:{column}): {text}")


def _bare(raw: str) -> object:
    """What a token that is no string says; of one that opens something, something that is no value."""
    if raw in ("{", "["):
        return ()
    if raw in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[raw]
    try:
        return int(raw)
    except ValueError:
        return Number(raw)


@cache
def _by_name(kind: Descriptor) -> dict[str, FieldDescriptor]:
    found: dict[str, FieldDescriptor] = {}
    for field in kind.fields:
        found[field.json_name] = found[field.name] = field
    return found
