"""Messages of any type, from its descriptor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from connect_kv.frontend.grpc.services import SERVICES
from connect_kv.json_mapping.decoding import is_map

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_INT32: st.integers(-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, (1 << 32) - 1),
    FieldDescriptor.TYPE_FIXED32: st.integers(0, (1 << 32) - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, (1 << 64) - 1),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: TEXT,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
}
KINDS: list[Descriptor] = sorted(
    {
        kind
        for service in SERVICES
        for method in service.methods
        for kind in (method.input_type, method.output_type)
    },
    key=lambda kind: kind.full_name,
)
"""Every request and every response."""


@st.composite
def messages(draw: Callable[[st.SearchStrategy[Any]], Any], kind: Descriptor, depth: int = 3) -> Message:
    message: Message = GetMessageClass(kind)()
    for field in kind.fields:
        if not draw(st.booleans()):
            continue
        if is_map(field):
            continue
        if field.message_type is not None:
            if not depth:
                continue
            for _ in range(draw(st.integers(0, 2)) if field.is_repeated else 1):
                inner = draw(messages(field.message_type, depth - 1))
                into = getattr(message, field.name)
                (into.add() if field.is_repeated else into).MergeFrom(inner)
                if not field.is_repeated:
                    into.SetInParent()
            continue
        if field.enum_type is not None:
            values = st.sampled_from([value.number for value in field.enum_type.values])
        else:
            values = SCALARS[field.type]
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(values, max_size=3)))
        else:
            setattr(message, field.name, draw(values))
    return message
