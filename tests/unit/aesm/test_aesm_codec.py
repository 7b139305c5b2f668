"""AESM's messages against Google's protobuf library, the specification's frames, and random bytes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inclavare.aesm.codec import (
    FRAME_MAX,
    HEAD_SIZE,
    MEMBERS_MAX,
    decode_request,
    decode_response,
    encode,
    message_size,
)
from inclavare.aesm.errors import AesmMalformedError, AesmMissingMemberError
from inclavare.aesm.messages import (
    REQUESTS,
    GetLaunchTokenRequest,
    GetQuoteExRequest,
    GetQuoteRequest,
    GetSupportedAttKeyIDNumRequest,
    GetSupportedAttKeyIDsRequest,
    InitQuoteExRequest,
    InitQuoteRequest,
    InitQuoteResponse,
    Message,
    Request,
    Response,
    SelectAttKeyIDRequest,
    members,
)
from tests.unit.aesm.grammar import google_messages

RESPONSES = tuple(request.RESPONSE for request in REQUESTS)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "u32": st.integers(0, (1 << 32) - 1),
    "u64": st.integers(0, (1 << 64) - 1),
    "bool": st.booleans(),
    "bytes": st.binary(max_size=300),
}


@pytest.fixture(scope="module")
def google() -> dict[str, Any]:
    return google_messages()


def messages(kinds: tuple[type[Message], ...]) -> st.SearchStrategy[Message]:
    def one(kind: type[Message]) -> st.SearchStrategy[Message]:
        values = {
            name: VALUES[wire] if required or name == "error_code" else st.none() | VALUES[wire]
            for name, wire, required in members(kind).values()
        }
        return st.builds(kind, **values)

    return st.one_of([one(kind) for kind in kinds])


def in_google(google: dict[str, Any], message: Message) -> bytes:
    side = "Request" if isinstance(message, Request) else "Response"
    outer = google[side]()
    inner = getattr(outer, type(message).__name__.removesuffix(side))
    inner.SetInParent()
    for field in fields(message):
        if getattr(message, field.name) is not None:
            setattr(inner, field.name, getattr(message, field.name))
    raw: bytes = outer.SerializeToString(deterministic=True)
    return raw


@settings(deadline=None)
@given(message=messages(REQUESTS))
def test_a_request_is_byte_for_byte_what_google_writes_and_comes_back(google: dict[str, Any], message: Request) -> None:
    raw = in_google(google, message)
    assert encode(message) == len(raw).to_bytes(4, "little") + raw
    assert decode_request(raw) == message


@settings(deadline=None)
@given(message=messages(RESPONSES))
def test_a_response_is_byte_for_byte_what_google_writes_and_comes_back(
    google: dict[str, Any], message: Response
) -> None:
    raw = in_google(google, message)
    assert encode(message) == len(raw).to_bytes(4, "little") + raw
    assert decode_response(raw, type(message)) == message


def test_the_tables_have_every_request_and_member_of_the_grammar(google: dict[str, Any]) -> None:
    for side, kinds in (("Request", REQUESTS), ("Response", RESPONSES)):
        theirs = {
            (outer.number, inner.number, inner.name, inner.type)
            for outer in google[side].DESCRIPTOR.fields
            for inner in outer.message_type.fields
        }
        ours = {(kind.NUMBER, number, name) for kind in kinds for number, (name, _, _) in members(kind).items()}
        assert ours == {entry[:3] for entry in theirs}


@pytest.mark.parametrize(
    ("request_", "frame"),
    [(InitQuoteRequest(timeout=10000), "050000000a0348904e"), (InitQuoteRequest(timeout=15000), "050000000a03489875")],
)
def test_the_frames_of_the_specification(request_: Request, frame: str) -> None:
    assert encode(request_).hex() == frame
    assert decode_request(bytes.fromhex(frame)[HEAD_SIZE:]) == request_


def test_zero_and_false_are_sent() -> None:
    frame = encode(GetQuoteRequest(report=b"", quote_type=0, spid=b"", buf_size=0, qe_report=False))
    assert frame[HEAD_SIZE + 2 :].hex() == "0a0010001a0030003800"
    frame = encode(InitQuoteExRequest(b_pub_key_id=False))
    assert frame[HEAD_SIZE + 2 :].hex() == "1800"


def test_the_timeout_of_select_att_key_id_is_its_second_member() -> None:
    assert encode(SelectAttKeyIDRequest(timeout=1))[HEAD_SIZE:].hex() == "9a01021001"


def test_of_several_requests_in_a_message_the_one_that_the_daemon_looks_for_first_counts() -> None:
    payload = b"".join(
        encode(request)[HEAD_SIZE:]
        for request in (
            GetSupportedAttKeyIDNumRequest(),
            InitQuoteRequest(),
            GetLaunchTokenRequest(mr_enclave=b"e", mr_signer=b"s", se_attributes=b"a"),
        )
    )
    assert isinstance(decode_request(payload), GetLaunchTokenRequest)


def test_two_halves_of_a_request_are_one_and_of_a_repeated_member_the_last_counts() -> None:
    halves = (b"\x8a\x01\x03\x0a\x01r", b"\x8a\x01\x04\x20\x05\x20\x07")
    assert decode_request(b"".join(halves)) == GetQuoteExRequest(report=b"r", buf_size=7)


def test_unknown_members_and_members_of_another_type_are_skipped() -> None:
    unknown = bytes.fromhex("9806ff01a2060161a906" + "00" * 8 + "ad06" + "00" * 4)  # members 99, 100, 101, 101
    body = unknown + bytes.fromhex("4a0178") + bytes.fromhex("4807")  # timeout as bytes, then as it should be
    payload = unknown + b"\x0a" + bytes([len(body)]) + body
    assert decode_request(payload) == InitQuoteRequest(timeout=7)


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        ("", "none of the known requests"),
        ("a20100", "none of the known requests"),  # member 20
        ("080a", "none of the known requests"),  # initQuoteReq as a number
        ("0a05", "cut off: 5 bytes announced, 0 there"),
        ("0a0348", "cut off: 3 bytes announced, 1 there"),
        ("0a0148", "a number is cut off"),
        ("0a0b48" + "ff" * 10, "a number is cut off"),
        ("0b", "unknown wire type 3"),
        ("0f", "unknown wire type 7"),
        ("0200", "impossible number 0"),
        ("ffffffffff7f", "impossible number"),
        ("0d0000", "cut off: 4 bytes announced, 2 there"),
    ],
)
def test_what_is_no_request_is_malformed(payload: str, what: str) -> None:
    with pytest.raises(AesmMalformedError, match=what) as caught:
        decode_request(bytes.fromhex(payload))
    assert not isinstance(caught.value, AesmMissingMemberError)


def test_a_request_without_a_required_member_is_known_by_its_number() -> None:
    with pytest.raises(
        AesmMissingMemberError, match="GetSupportedAttKeyIDsRequest lacks its member buf_size"
    ) as caught:
        decode_request(bytes.fromhex("b20100"))
    assert caught.value.number == GetSupportedAttKeyIDsRequest.NUMBER


def test_an_answer_without_a_code_is_the_unexpected_error() -> None:
    assert decode_response(bytes.fromhex("0a00"), InitQuoteResponse).error_code == 1


def test_the_answer_to_another_request_is_malformed() -> None:
    with pytest.raises(AesmMalformedError, match=r"no member 1 \(InitQuoteResponse\), only \[2\]"):
        decode_response(bytes.fromhex("12020800"), InitQuoteResponse)


@pytest.mark.parametrize("head", [b"", b"\1\0\0", b"\0\0\0\0", (FRAME_MAX + 1).to_bytes(4, "little"), b"\xff" * 4])
def test_a_size_out_of_bounds_is_malformed_before_memory_is_asked_for(head: bytes) -> None:
    with pytest.raises(AesmMalformedError, match="the frame announces"):
        message_size(head)


def test_a_message_too_large_to_be_sent_is_refused() -> None:
    with pytest.raises(AesmMalformedError, match="exceeds the limit"):
        encode(SelectAttKeyIDRequest(att_key_id_list=bytes(FRAME_MAX)))


def test_more_members_than_anybody_sends_are_malformed() -> None:
    member = bytes.fromhex("0a00")
    assert decode_request(member * MEMBERS_MAX) == InitQuoteRequest()
    with pytest.raises(AesmMalformedError, match="more than"):
        decode_request(member * (MEMBERS_MAX + 1))


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_a_number_that_its_member_cannot_hold_is_refused(value: int) -> None:
    with pytest.raises(AesmMalformedError, match="cannot hold"):
        encode(InitQuoteRequest(timeout=value))


@settings(deadline=None)
@given(payload=st.binary(max_size=200))
def test_random_bytes_are_a_message_or_malformed(payload: bytes) -> None:
    for read in (decode_request, lambda raw: decode_response(raw, InitQuoteResponse)):
        try:
            read(payload)
        except AesmMalformedError:
            continue


@settings(deadline=None)
@given(message=messages(REQUESTS), data=st.data())
def test_a_damaged_request_is_read_or_refused_as_google_does(
    google: dict[str, Any], message: Request, data: st.DataObject
) -> None:
    raw = bytearray(encode(message)[HEAD_SIZE:])
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        ours = decode_request(bytes(raw))
    except AesmMalformedError:
        return
    theirs = google["Request"]()
    theirs.MergeFromString(bytes(raw))
    inner = getattr(theirs, type(ours).__name__.removesuffix("Request"))
    for field in fields(ours):
        value = getattr(ours, field.name)
        assert value == (getattr(inner, field.name) if inner.HasField(field.name) else None)
