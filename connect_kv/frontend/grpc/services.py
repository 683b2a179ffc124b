"""Which services there are: all that clients may call, health and reflection with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from connect_kv.frontend.grpc.health import HealthService
from connect_kv.frontend.grpc.reflection import REFLECTION_NAMES, ReflectionService, service_names
from connect_kv.frontend.grpc.router import Router
from connect_kv.rpc import (
    auth_pb2,
    cluster_pb2,
    dashboard_pb2,
    election_pb2,
    kv_pb2,
    lease_pb2,
    lock_pb2,
    machine_pb2,
    maintenance_pb2,
    session_pb2,
    watch_pb2,
)

SERVICES: Sequence[ServiceDescriptor] = tuple(
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (auth_pb2, "Auth"),
        (kv_pb2, "KV"),
        (watch_pb2, "Watch"),
        (lease_pb2, "Lease"),
        (cluster_pb2, "Cluster"),
        (maintenance_pb2, "Maintenance"),
        (lock_pb2, "Lock"),
        (election_pb2, "Election"),
        (session_pb2, "Session"),
        (machine_pb2, "Machine"),
        (dashboard_pb2, "Dashboard"),
    )
)
"""All that clients may call; a service without a servicer answers UNIMPLEMENTED by name."""


def add_services(router: Router, servicers: Mapping[str, object]) -> None:
    """Fill the table; `servicers` by the service's short name."""
    for service in SERVICES:
        router.add(service, servicers.get(service.name))


def add_health_and_reflection(router: Router, health: HealthService) -> None:
    """Serve what tools ask of any gRPC server; they get an answer whatever state this member is in.

    Only that of a learner's health is a refusal, as in etcd: nobody is to be sent there.
    """
    router.add(health_pb2.DESCRIPTOR.services_by_name["Health"], health, always=True, learners=False)
    reflection = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
    router.add(reflection, ReflectionService(NAMES), names=REFLECTION_NAMES, always=True)


NAMES: Sequence[str] = service_names([service.full_name for service in SERVICES])
"""Every name a client may list."""
