"""Both directions, against each other, against protobuf's own JSON, and fault by fault."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.json_mapping.blame import blame
from connect_kv.json_mapping.decoding import BadJson, decode, readable
from connect_kv.json_mapping.encoding import encode, pieces
from connect_kv.json_mapping.framing import Framer
from connect_kv.json_mapping.syntax import SyntaxFault, value_end
from connect_kv.rpc.kv_pb2 import KeyValue, RangeRequest, RangeResponse, TxnRequest
from connect_kv.rpc.lease_pb2 import LeaseGrantRequest
from tests.json_mapping.strategies import KINDS, messages

RANGE = RangeRequest.DESCRIPTOR


@given(st.sampled_from(KINDS).flatmap(messages))
@settings(deadline=None, max_examples=200)
def test_what_is_written_reads_as_the_same_message(message: Any) -> None:
    text = encode(message)
    data, end = decode(message.DESCRIPTOR, text)
    assert type(message).FromString(data) == message
    assert end == len(text)
    assert "".join(pieces(message)) == text


@given(st.sampled_from(KINDS).flatmap(messages))
@settings(deadline=None, max_examples=200)
def test_values_are_those_of_protobufs_own_json(message: Any) -> None:
    """Where the two agree: in everything that is written."""
    theirs = json_format.MessageToJson(message, preserving_proto_field_name=True)
    assert json.loads(encode(message)) == json.loads(theirs)


@pytest.mark.long
@given(st.sampled_from(KINDS).flatmap(messages), st.integers(0, 200), st.sampled_from('{}[]",:\\0e.-tn\x00é'))
@settings(deadline=None, max_examples=500)
def test_blame_is_found_for_what_cannot_be_read_and_only_for_that(message: Any, at: int, put: str) -> None:
    text = encode(message)
    at %= len(text)
    broken = text[:at] + put + text[at + 1 :]
    found = blame(message.DESCRIPTOR, broken, 0)
    try:
        decode(message.DESCRIPTOR, broken)
    except BadJson:
        assert not found.endswith("cannot be read"), broken
    else:
        assert found.endswith("cannot be read"), broken


@given(st.text('{}[]",:\\0123e.-truefalsn \n\x01', max_size=12))
@settings(deadline=None, max_examples=1000)
def test_the_scanner_takes_what_a_reader_of_json_takes(text: str) -> None:
    text = f'{{"a":{text}}}'
    try:
        end = value_end(text, 0)
    except SyntaxFault:
        with pytest.raises(ValueError, match=r"."):
            json.JSONDecoder(parse_constant=int).raw_decode(text)
    else:
        json.loads(text[:end])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "unexpected EOF"),
        ("{", "unexpected EOF"),
        ("}", "invalid character '}' looking for beginning of value"),
        ("{1", "invalid character '1' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 2}', "invalid character '2' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ('{"a":-x}', "invalid character 'x' in numeric literal"),
        ('{"a":1.x}', "invalid character 'x' after decimal point in numeric literal"),
        ('{"a":1ex}', "invalid character 'x' in exponent of numeric literal"),
        ('{"a":tru!}', "invalid character '!' in literal true (expecting 'e')"),
        ('"\n"', "invalid character '\\n' in string literal"),
        ('"\\x"', "invalid character 'x' in string escape code"),
        ('"\\u00g0"', "invalid character 'g' in \\u hexadecimal character escape"),
        ("'", "invalid character '\\'' looking for beginning of value"),
        ("ü", "invalid character 'Ã' looking for beginning of value"),
        ("NaN", "invalid character 'N' looking for beginning of value"),
        ("[" * 10_001, "exceeded max depth"),
        ("null", "proto: syntax error (line 1:1): unexpected token null"),
        ('{"key":"a","sort_order":true}', 'proto: (line 1:8): invalid value for bytes field key: "a"'),
        ('{"sort_order":true}', "proto: (line 1:15): invalid value for enum field sortOrder: true"),
        ('{\n "limit": 1.5}', "proto: (line 2:11): invalid value for int64 field limit: 1.5"),
        ('{"ä":1, "limit": {}}', "proto: (line 1:18): invalid value for int64 field limit: {"),
        ('{"key":"\\ud800"}', 'proto: syntax error (line 1:9): invalid escape code "\\\\ud800" in string'),
    ],
)
def test_faults_are_told_in_gos_words(text: str, told: str) -> None:
    with pytest.raises(BadJson) as caught:
        decode(RANGE, text)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("1", 1), ('"1"', 1), ("1.0", 1), ('"1.0"', 1), ("1e2", 100), ("150e-1", 15), ("-0", 0), ("0e9", 0),
        ("9223372036854775807", (1 << 63) - 1), ('"-9223372036854775808"', -1 << 63), ('"1 2"', 1),
    ],
)  # fmt: skip
def test_whole_numbers_in_all_their_forms(said: str, number: int) -> None:
    data, _ = decode(RANGE, f'{{"limit":{said}}}')
    assert RangeRequest.FromString(data).limit == number


@pytest.mark.parametrize(
    "said",
    [
        "1.5",
        "1e-1",
        '" 1"',
        '"1x"',
        '""',
        "9223372036854775808",
        "1e999999999",
        "1e18446744073709551615",
        "-1e-99999999999999999999",
        "true",
        '"+1"',
        '"0x1"',
    ],
)
def test_what_is_no_whole_number_is_refused(said: str) -> None:
    with pytest.raises(BadJson, match="invalid value for int64 field limit"):
        decode(RANGE, f'{{"limit":{said}}}')


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("az8+", b"k?>"), ("az8-", b"k?>"), ("aw==", b"k"), ("aw", b"k"), ("ax==", b"k"), ("", b""),
        ("a3\\nc=", None), ("aw=", None), ("aw===", None), ("a w=", None), ("!!", None), ("a+-=", None),
        ("é", None),
        ("aw==\\n\\n\\n\\n", b"k"),
    ],
)  # fmt: skip
def test_base64_in_four_forms(text: str, data: bytes | None) -> None:
    if data is None:
        with pytest.raises(BadJson):
            decode(RANGE, f'{{"key":"{text}"}}')
    else:
        assert RangeRequest.FromString(decode(RANGE, f'{{"key":"{text}"}}')[0]).key == data


def test_names_of_two_forms_and_unknown_ones() -> None:
    text = '{"rangeEnd":"YQ==","keysOnly":true,"Key":"YQ==","more":{"a":[{}]},"sort_order":"NOPE"}'
    assert RangeRequest.FromString(decode(RANGE, text)[0]) == RangeRequest(range_end=b"a", keys_only=True)


def test_members_of_a_oneof_keep_their_default() -> None:
    text = '{"compare":[{"target":"CREATE","key":"YQ==","create_revision":"0"}]}'
    found = TxnRequest.FromString(decode(TxnRequest.DESCRIPTOR, text)[0])
    assert found.compare[0].WhichOneof("target_union") == "create_revision"
    assert json.loads(encode(found)) == {
        "compare": [{"target": "CREATE", "key": "YQ==", "create_revision": "0"}]
    }


def test_names_in_capitals() -> None:
    found = LeaseGrantRequest.FromString(decode(LeaseGrantRequest.DESCRIPTOR, '{"TTL":5,"id":7,"ID":8}')[0])
    assert (found.TTL, found.ID) == (5, 8)


def test_what_stands_behind_a_value_is_not_read() -> None:
    _, end = decode(RANGE, ' {"key":"YQ=="}} rubbish')
    assert end == 15


def test_bytes_that_are_no_text() -> None:
    assert decode(RANGE, readable(b'{"key":"YQ=="}\xff'))[1] == 14
    with pytest.raises(BadJson, match="invalid UTF-8"):
        decode(RANGE, readable(b'{"key":"\xff"}'))


@pytest.mark.parametrize("limit", [1000, 40_000])
@pytest.mark.parametrize("text", ["nested(50)", "nested(3000)", "unknown"])
def test_deep_text_is_refused_whatever_the_interpreter_allows(limit: int, text: str) -> None:
    texts = {"nested(50)": _nested(50), "nested(3000)": _nested(3000)}
    deep = texts.get(text, '{"unknown":' + "[" * 400 + "]" * 400 + "}")
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        with pytest.raises(BadJson, match="depth"):
            decode(TxnRequest.DESCRIPTOR, deep)
    finally:
        sys.setrecursionlimit(before)


def test_the_deepest_text_makes_a_message_that_protobuf_reads() -> None:
    data, _ = decode(TxnRequest.DESCRIPTOR, _nested(49))
    assert TxnRequest.FromString(data).success[0].request_txn.success


def _nested(times: int) -> str:
    """Transactions within each other."""
    return '{"success":[{"request_txn":' * times + "{}" + "}]}" * times


def test_unknown_numbers_of_enumerations_are_written_as_numbers() -> None:
    found = RangeRequest(sort_order=77)  # type: ignore[arg-type]
    assert encode(found) == '{"sort_order":77}'


def test_large_answers_come_in_pieces() -> None:
    answer = RangeResponse(kvs=[KeyValue(key=b"%d" % number) for number in range(1000)], count=1000)
    found = list(pieces(answer))
    assert len(found) > 4
    assert (
        GetMessageClass(RangeResponse.DESCRIPTOR).FromString(
            decode(RangeResponse.DESCRIPTOR, "".join(found))[0]
        )
        == answer
    )


@given(st.lists(st.sampled_from(['{"a":"}\\""}', "{}", "[[]]", '{"b":{"c":[1]}}'])), st.integers(1, 7))
def test_values_are_found_in_pieces_of_any_size(values: list[str], size: int) -> None:
    text = " ".join(values) + "\n"
    framer, found = Framer(1000), []
    for start in range(0, len(text), size):
        framer.feed(text[start : start + size], last=start + size >= len(text))
        while (one := framer.next()) is not None:
            found.append(one)
    assert found == values


def test_a_value_that_is_too_long_is_refused() -> None:
    framer = Framer(10)
    framer.feed('{"a":"' + "x" * 10, last=False)
    with pytest.raises(OverflowError):
        framer.next()


def test_a_value_without_an_end_is_given_as_it_is() -> None:
    framer = Framer(100)
    framer.feed('{"a"', last=False)
    assert framer.next() is None
    framer.feed("", last=True)
    assert framer.next() == '{"a"'
    assert framer.next() is None
