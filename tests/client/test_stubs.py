"""The calls of the client are those of the protos: their names, and what goes in and comes out."""

from __future__ import annotations

from typing import get_args, get_origin, get_type_hints

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
