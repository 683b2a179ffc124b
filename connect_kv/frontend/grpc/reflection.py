"""Server reflection under both names of every service.

Our descriptors live in protobuf's default pool. Those under etcd's names are copies with the
packages renamed, in a pool of their own: an application may import an etcd client's modules
beside ours, and one pool takes a full name only once.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from connect_kv.etcd_errors import Code
from connect_kv.frontend.grpc.router import ETCD_NAMES
from connect_kv.rpc import cluster_pb2, election_pb2, kv_pb2, lease_pb2, lock_pb2, maintenance_pb2, watch_pb2
from connect_kv.services.caller import RequestStream

_OURS = ".connect_kv.v1."
_MVCC = frozenset(("KeyValue", "Event"))
"""Defined in etcd's package ``mvccpb``."""
_PACKAGES = {"lock": "v3lockpb", "election": "v3electionpb"}
"""By file; all others are ``etcdserverpb``."""
_FILES = (kv_pb2, lease_pb2, watch_pb2, cluster_pb2, maintenance_pb2, lock_pb2, election_pb2)


REFLECTION_NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""The later one has the same messages; the library only knows the earlier."""


class ReflectionService:
    """Answers from the default pool, or from the one with etcd's names, made when it is asked for."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = sorted(services)
        self._etcd: descriptor_pool.DescriptorPool | None = None

    async def ServerReflectionInfo(self, channel: RequestStream[ServerReflectionRequest]) -> None:
        """One answer per request, with the words of the library's."""
        while (request := await channel.read()) is not None:
            answer = ServerReflectionResponse(original_request=request)
            try:
                self._answer(request, answer)
            except KeyError:
                answer.error_response.error_code = Code.NOT_FOUND
                answer.error_response.error_message = "not found"
            await channel.write(answer)

    def _answer(self, request: ServerReflectionRequest, answer: ServerReflectionResponse) -> None:
        """Fills it in. Raises KeyError for what is not there."""
        match request.WhichOneof("message_request"):
            case "file_by_filename":
                name = request.file_by_filename
                _describe(self._pool(name.replace("/", ".")).FindFileByName(name), answer)
            case "file_containing_symbol":
                name = request.file_containing_symbol
                _describe(self._pool(name).FindFileContainingSymbol(name), answer)
            case "file_containing_extension":
                wanted = request.file_containing_extension
                pool = self._pool(wanted.containing_type)
                extended = pool.FindMessageTypeByName(wanted.containing_type)
                extension = pool.FindExtensionByNumber(extended, wanted.extension_number)
                _describe(pool.FindFileContainingSymbol(extension.full_name), answer)
            case "all_extension_numbers_of_type":
                pool = self._pool(request.all_extension_numbers_of_type)
                extended = pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                found = answer.all_extension_numbers_response
                found.base_type_name = extended.full_name
                found.extension_number.extend(sorted(one.number for one in pool.FindAllExtensions(extended)))
            case "list_services":
                answer.list_services_response.SetInParent()
                for name in self._services:
                    answer.list_services_response.service.add(name=name)
            case _:
                answer.error_response.error_code = Code.INVALID_ARGUMENT
                answer.error_response.error_message = "invalid argument"

    def _pool(self, name: str) -> descriptor_pool.DescriptorPool:
        """Where something of that name would be."""
        if not _is_etcd(name):
            return descriptor_pool.Default()
        self._etcd = self._etcd or etcd_pool()
        return self._etcd


def _describe(file: FileDescriptor, answer: ServerReflectionResponse) -> None:
    """Add the file and all that it needs."""
    files = {file.name: file}
    waiting = [file]
    while waiting:
        for needed in waiting.pop().dependencies:
            if needed.name not in files:
                files[needed.name] = needed
                waiting.append(needed)
    for one in files.values():
        answer.file_descriptor_response.file_descriptor_proto.append(one.serialized_pb)


def _is_etcd(name: str) -> bool:
    return name.split(".", 1)[0] in {"etcdserverpb", "mvccpb", "v3lockpb", "v3electionpb"}


def etcd_pool() -> descriptor_pool.DescriptorPool:
    """Our messages and services under the names etcd gives them."""
    packages = _type_packages()
    pool = descriptor_pool.DescriptorPool()
    for module in _FILES:
        for file in _renamed(module.DESCRIPTOR, packages):
            pool.Add(file)
    return pool


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].removesuffix(".proto")


def _package(stem: str) -> str:
    return _PACKAGES.get(stem, "etcdserverpb")


def _type_packages() -> dict[str, str]:
    """The etcd package of each of our top-level types."""
    packages = {}
    for module in _FILES:
        file = module.DESCRIPTOR
        for name in (*file.message_types_by_name, *file.enum_types_by_name):
            packages[name] = "mvccpb" if name in _MVCC else _package(_stem(file.name))
    return packages


def _renamed(ours: FileDescriptor, packages: dict[str, str]) -> list[descriptor_pb2.FileDescriptorProto]:
    """The file under etcd's package; the one with KeyValue gives two."""
    file = descriptor_pb2.FileDescriptorProto()
    ours.CopyToProto(file)
    stem = _stem(file.name)
    file.package = _package(stem)
    file.name = f"{file.package}/{stem}.proto"
    dependencies = [_dependency(name) for name in file.dependency]
    del file.dependency[:]
    file.dependency.extend(dependencies)
    _rename_types(file, packages)
    mvcc = [message for message in file.message_type if message.name in _MVCC]
    if not mvcc:
        if stem == "watch":
            file.dependency.append("mvccpb/kv.proto")
        return [file]
    split = descriptor_pb2.FileDescriptorProto(
        name="mvccpb/kv.proto", package="mvccpb", syntax=file.syntax, message_type=mvcc
    )
    kept = [message for message in file.message_type if message.name not in _MVCC]
    del file.message_type[:]
    file.message_type.extend(kept)
    file.dependency.append(split.name)
    return [split, file]


def _dependency(name: str) -> str:
    stem = _stem(name)
    return f"{_package(stem)}/{stem}.proto"


def _rename_types(file: descriptor_pb2.FileDescriptorProto, packages: dict[str, str]) -> None:
    def rename(name: str) -> str:
        rest = name.removeprefix(_OURS)
        return f".{packages[rest.split('.', 1)[0]]}.{rest}" if rest != name else name

    def visit(message: descriptor_pb2.DescriptorProto) -> None:
        for field in message.field:
            if field.type_name:
                field.type_name = rename(field.type_name)
        for nested in message.nested_type:
            visit(nested)

    for message in file.message_type:
        visit(message)
    for service in file.service:
        for method in service.method:
            method.input_type = rename(method.input_type)
            method.output_type = rename(method.output_type)


def service_names(ours: Sequence[str]) -> list[str]:
    """Every name a client may list: ours, etcd's, health and reflection themselves."""
    short = [name.rsplit(".", 1)[-1] for name in ours]
    return sorted({*ours, *(ETCD_NAMES[name] for name in short if name in ETCD_NAMES),
                   "grpc.health.v1.Health", *REFLECTION_NAMES})  # fmt: skip
