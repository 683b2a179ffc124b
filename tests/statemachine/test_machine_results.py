"""Results of machines are encoded as protobuf would encode them: all members store the same bytes."""

from __future__ import annotations

import pytest

from connect_kv.errors import CommandFailed
from connect_kv.rpc.command_pb2 import Failure, MachineReply, Result
from connect_kv.statemachine.hosted import Rejected
from connect_kv.statemachine.machine_results import encoded_result
from connect_kv.statemachine.user_machines import Passed


@pytest.mark.parametrize("number", [0, 1, 127, 128, 16_384, 2**40])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 16_380, 16_384, 100_000])
def test_a_value_is_encoded_as_protobuf_encodes_it(number: int, size: int) -> None:
    value = b"v" * size
    wanted = Result(number=number, machine_call=MachineReply(value=value)).SerializeToString()
    assert encoded_result(value, number) == wanted


@pytest.mark.parametrize(
    ("outcome", "failure"),
    [
        (
            CommandFailed("books.Gone", "why", b"\x90"),
            Failure(code=10, message="why", type="books.Gone", details=b"\x90"),
        ),
        (Passed("it is suspended"), Failure(code=14, message="it is suspended")),
        (Rejected("version 2"), Failure(code=3, message="version 2")),
    ],
)
def test_what_is_no_value_is_a_failure(outcome: CommandFailed | Passed | Rejected, failure: Failure) -> None:
    assert Result.FromString(encoded_result(outcome, 7)) == Result(number=7, failure=failure)
