"""Reference of the gRPC API: services and messages with the comments of their .proto files."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc

from website.places import ROOT

PROTOS = ROOT / "protos"
INTERNAL = {"raft.proto", "command.proto", "etcd_files.proto"}
"""Between members, in the log, and in files: no client speaks them."""
CALLS = "| call | request | answer | |\n|---|---|---|---|"
FIELDS = "| field | number | type | |\n|---|---|---|---|"
VALUES = "| value | number | |\n|---|---|---|"

Place = tuple[int, ...]
"""Where something stands in a file, as protoc counts it."""


def page() -> str:
    """Every service that clients may call, and the messages of its file."""
    head = (
        "# gRPC\nMade from `protos/`. Every service of etcd is also served under etcd's own name "
        "(`etcdserverpb.KV` for `connect_kv.v1.KV`): [which call does what](../api.md).\n"
    )
    return head + "".join(_file(file) for file in _files() if Path(file.name).name not in INTERNAL)


def _files() -> list[FileDescriptorProto]:
    protos = sorted((PROTOS / "connect_kv" / "rpc").glob("*.proto"))
    with tempfile.NamedTemporaryFile() as target:
        words = ["protoc", f"-I{PROTOS}", "--include_source_info", f"--descriptor_set_out={target.name}"]
        if protoc.main([*words, *map(str, protos)]) != 0:
            raise SystemExit("protoc refuses protos/")
        return list(FileDescriptorSet.FromString(Path(target.name).read_bytes()).file)


class Comments:
    """What a file says before, or behind, each of its parts."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._said = {
            tuple(one.path): " ".join((one.leading_comments or one.trailing_comments).split())
            for one in file.source_code_info.location
        }

    def at(self, *path: int) -> str:
        """The comment of the part at this path; empty without one."""
        return self._said.get(path, "").replace("|", "\\|")


def _file(file: FileDescriptorProto) -> str:
    said = Comments(file)
    name = Path(file.name).name
    lines = [f"\n## {name}\nPackage `{file.package}`.\n"]
    for number, service in enumerate(file.service):
        lines.append(f"### service {service.name}\n{said.at(6, number)}\n\n{CALLS}")
        for place, method in enumerate(service.method):
            asked = ("stream of " if method.client_streaming else "") + _link(method.input_type)
            answered = ("stream of " if method.server_streaming else "") + _link(method.output_type)
            lines.append(f"| {method.name} | {asked} | {answered} | {said.at(6, number, 2, place)} |")
        lines.append("")
    for number, message in enumerate(file.message_type):
        lines.extend(_message(message, "", said, (4, number)))
    for number, enum in enumerate(file.enum_type):
        lines.extend(_enum(enum, "", said, (5, number)))
    return "\n".join(lines) + "\n"


def _message(message: DescriptorProto, within: str, said: Comments, path: Place) -> Iterator[str]:
    if message.options.map_entry:
        return
    name = within + message.name
    yield f"(message-{name.lower().replace('.', '-')})=\n### {name}\n{said.at(*path)}\n"
    if message.field:
        yield FIELDS
    for number, field in enumerate(message.field):
        yield f"| {field.name} | {field.number} | {_type(field, message)} | {said.at(*path, 2, number)} |"
    yield ""
    for number, nested in enumerate(message.nested_type):
        yield from _message(nested, f"{name}.", said, (*path, 3, number))
    for number, enum in enumerate(message.enum_type):
        yield from _enum(enum, f"{name}.", said, (*path, 4, number))


def _enum(enum: EnumDescriptorProto, within: str, said: Comments, path: Place) -> Iterator[str]:
    name = within + enum.name
    yield f"(message-{name.lower().replace('.', '-')})=\n### {name}\n{said.at(*path)}\n\n{VALUES}"
    for number, value in enumerate(enum.value):
        yield f"| {value.name} | {value.number} | {said.at(*path, 2, number)} |"
    yield ""


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    entry = next((one for one in message.nested_type if field.type_name.endswith(f".{one.name}")), None)
    if entry is not None and entry.options.map_entry:
        return f"map from {_type(entry.field[0], entry)} to {_type(entry.field[1], entry)}"
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    kind = _link(field.type_name) if field.type_name else kind
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    oneof = field.HasField("oneof_index") and not field.proto3_optional
    return (
        ("repeated " if repeated else "")
        + kind
        + (f" (one of `{message.oneof_decl[field.oneof_index].name}`)" if oneof else "")
    )


def _link(type_name: str) -> str:
    """A name of ours leads to its heading; messages that no client sees have none, and no link."""
    name = type_name.removeprefix(".connect_kv.v1.")
    if name.startswith(".") or name not in _told():
        return name.removeprefix(".")
    return f"[{name}](#message-{name.lower().replace('.', '-')})"


@functools.cache
def _told() -> frozenset[str]:
    """The messages and enums that have a heading on the page."""
    files = (file for file in _files() if Path(file.name).name not in INTERNAL)
    return frozenset(name for file in files for name in _names("", file.message_type, file.enum_type))


def _names(
    within: str, messages: Iterable[DescriptorProto], enums: Iterable[EnumDescriptorProto]
) -> Iterator[str]:
    for message in messages:
        yield within + message.name
        yield from _names(f"{within}{message.name}.", message.nested_type, message.enum_type)
    for enum in enums:
        yield within + enum.name
