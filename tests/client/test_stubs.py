"""The calls of the client are those of the protos: their names, and what goes in and comes out."""

from __future__ import annotations

from typing import cast, get_args, get_origin, get_type_hints

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from connect_kv.client.stubs import StreamStream, Stubs, Unary, UnaryStream, methods

FORMS = {(False, False): Unary, (False, True): UnaryStream, (True, True): StreamStream}


def test_what_is_said_of_each_call_is_what_the_protos_say() -> None:
    declared = {name: (get_origin(hint), *get_args(hint)) for name, hint in get_type_hints(Stubs).items()}
    real = {
        name: (
            FORMS[method.client_streaming, method.server_streaming],
            bytes if name == "session" else GetMessageClass(method.input_type),
            GetMessageClass(method.output_type),
        )
        for name, method in methods()
        if name in declared
    }
    assert declared == real


def test_no_two_calls_have_one_name() -> None:
    names = [name for name, _ in methods()]
    assert len(set(names)) == len(names)


class Asked:
    """A channel that remembers which paths were asked of it."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def unary_unary(self, path: str, **_: object) -> object:
        self.paths.append(path)
        return object()

    unary_stream = stream_stream = unary_unary


def test_a_call_is_made_when_it_is_first_asked_for_and_once() -> None:
    channel = Asked()
    stubs = Stubs(cast("grpc.aio.Channel", channel))
    assert channel.paths == []
    assert stubs.put is stubs.put
    assert [path.rpartition("/")[2] for path in channel.paths] == ["Put"]


def test_every_call_that_is_declared_can_be_asked_for() -> None:
    channel = Asked()
    stubs = Stubs(cast("grpc.aio.Channel", channel))
    for name, hint in get_type_hints(Stubs).items():
        assert type(getattr(stubs, name)) is get_origin(hint), name
    assert len(set(channel.paths)) == len(channel.paths) == len(get_type_hints(Stubs))


def test_what_the_protos_do_not_have_is_no_call() -> None:
    with pytest.raises(AttributeError, match="no_such_call"):
        getattr(Stubs(cast("grpc.aio.Channel", Asked())), "no_such_call")  # noqa: B009
