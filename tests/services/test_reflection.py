"""Reflection knows every service under its own name and under etcd's."""

from connect_kv.frontend.grpc.reflection import etcd_pool, service_names


def test_the_services_are_found_under_etcds_names() -> None:
    pool = etcd_pool()
    put = pool.FindServiceByName("etcdserverpb.KV").methods_by_name["Put"]
    assert put.input_type.full_name == "etcdserverpb.PutRequest"
    events = pool.FindMessageTypeByName("etcdserverpb.WatchResponse").fields_by_name["events"]
    assert events.number == 11
    assert events.message_type is not None
    assert events.message_type.full_name == "mvccpb.Event"
    lock = pool.FindServiceByName("v3lockpb.Lock").methods_by_name["Lock"]
    header = lock.output_type.fields_by_name["header"].message_type
    assert header is not None
    assert header.full_name == "etcdserverpb.ResponseHeader"


def test_both_names_are_listed() -> None:
    names = service_names(["connect_kv.v1.KV", "connect_kv.v1.Session", "connect_kv.v1.Lock"])
    assert {"connect_kv.v1.KV", "etcdserverpb.KV", "v3lockpb.Lock", "grpc.health.v1.Health"} <= set(names)
    assert "etcdserverpb.Session" not in names
